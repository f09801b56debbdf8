"""`Policy`: a trained team and the environment of its training; `Player` plays episodes with it, without Ray."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import gymnasium
import numpy as np

from qio_envs.api import ConfigError, did_you_mean
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import ActorInputs, Array, NetworkActor
from qio_rllib.acting.team import AgentGroup, GroupInputs, Team, put_back, with_agent_id
from qio_rllib.models.parts import SpaceParts
from qio_rllib.models.spaces import EncodedBox, bare_space, is_masked_space

_OBSERVATION, _ACTION_MASK = "observation", "action_mask"


@dataclasses.dataclass(frozen=True)
class GroupSpaces:
    """What the agents of a group see, before a one-hot agent index is added.

    Attributes:
        observation_shape: Of one agent's observation.
        num_actions: Discrete actions where observations come with an action mask, else None.
        parts: What writes observations of other spaces than Boxes as numbers; None for Boxes.
    """

    observation_shape: tuple[int, ...]
    num_actions: int | None = None
    parts: SpaceParts | None = None

    @classmethod
    def of(cls, observations: gymnasium.Space, actions: gymnasium.Space) -> Self:
        """Return what agents with these spaces see.

        Args:
            observations: As `array_space` gives it.
            actions: Discrete where observations come with an action mask.
        """
        count = None
        if is_masked_space(observations):
            assert isinstance(actions, gymnasium.spaces.Discrete)
            count = int(actions.n)
        bare = bare_space(observations)
        parts = bare.parts if isinstance(bare, EncodedBox) else None
        return cls(tuple(bare.shape or ()), count, parts)

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Return what `as_dict` described."""
        parts = None if values["parts"] is None else SpaceParts.from_list(values["parts"])
        return cls(tuple(values["observation_shape"]), values["num_actions"], parts)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON."""
        return {**dataclasses.asdict(self), "parts": None if self.parts is None else self.parts.as_list()}

    def __str__(self) -> str:
        """Return it as messages show it."""
        mask = "" if self.num_actions is None else f" with a mask of {self.num_actions} actions"
        return f"shape {self.observation_shape}{mask}"


@dataclasses.dataclass(frozen=True)
class Policy:
    """Everything that is needed to act for all agents of an environment.

    Attributes:
        team: How the agents act.
        spaces: What they see, by module id.
        env: Name of the environment that it was trained in; of a policy from a file a `NamedInFile`, which imports only
            what is allowed.
        env_config: That environment's arguments.
    """

    team: Team
    spaces: Mapping[str, GroupSpaces]
    env: str
    env_config: Mapping[str, Any]

    @property
    def module_of(self) -> dict[Any, str]:
        """Module id by agent id; ``None`` is the only agent of a single-agent environment."""
        return {agent: group.module_id for group in self.team.groups for agent in group.agents}

    def team_for(self, agents: Sequence[Any]) -> Team:
        """Return the team for an environment with these agents; see `groups_for`.

        Raises:
            ConfigError: As `groups_for`; or messages go by agents that are not there.
        """
        return Team(self.groups_for(agents), self.team.communication)

    def groups_for(self, agents: Sequence[Any]) -> list[AgentGroup]:
        """Return who acts for these agents, whose indices are their places in the list.

        A policy of one module acts for any agents, more or fewer than in the training, whose spaces are those of the
        training. One of several modules acts for those whom it knows.

        Raises:
            ConfigError: An agent of whom it is not known which module is to act for it, or other agents than those of
                the training where a one-hot agent index is part of what they see.
        """
        known = self.module_of
        for agent in agents:
            if agent not in known:
                group = self.group_of(agent)
                return [dataclasses.replace(group, agents=tuple(agents), index=np.arange(len(agents)))]
        place = {agent: index for index, agent in enumerate(agents)}
        groups = []
        for group in self.team.groups:
            here = tuple(agent for agent in group.agents if agent in place)
            if group.agent_id and here != group.agents:
                raise ConfigError(
                    f"agent_id: the policy was trained for the agents {', '.join(map(str, group.agents))}, and the "
                    "environment lacks some of them"
                )
            if here:
                index = np.array([place[agent] for agent in here])
                groups.append(dataclasses.replace(group, agents=here, index=index))
        return groups

    def group_of(self, agent: Any) -> AgentGroup:
        """Return the group that acts for an agent; the only one acts for agents that the training did not have, too.

        Raises:
            ConfigError: As `team_for`.
        """
        groups = self.team.groups
        for group in groups:
            if agent in group.agents:
                return group
        known = list(map(str, self.module_of))
        if len(groups) > 1:
            raise ConfigError(
                f"the policy knows no agent '{agent}'{did_you_mean(str(agent), known)}; allowed: {', '.join(known)}"
            )
        if groups[0].agent_id:
            raise ConfigError(
                f"agent_id: the policy was trained for the agents {', '.join(known)}, whose index is part of what "
                f"they see; '{agent}' has none"
            )
        return groups[0]

    def check_spaces(
        self,
        env_id: str,
        observation_spaces: Mapping[Any, gymnasium.Space],
        action_spaces: Mapping[Any, gymnasium.Space],
    ) -> None:
        """Refuse an environment whose spaces are not those of the training.

        Args:
            env_id: Its name, for messages.
            observation_spaces: By agent.
            action_spaces: By agent.

        Raises:
            ConfigError: Naming the space; or an agent for which nobody acts (`team_for`).
        """
        for agent, observations in observation_spaces.items():
            try:
                group = self.group_of(agent)
            except ConfigError as error:
                raise ConfigError(f"{env_id} has the agent '{agent}': {error}") from error
            seen, trained = GroupSpaces.of(observations, action_spaces[agent]), self.spaces[group.module_id]
            actions, known = (
                ActionSpec.of(action_spaces[agent], group.actor.action.rescaled),
                group.actor.action,
            )
            for kind, here, expected in (("observation", seen, trained), ("action", actions, known)):
                if here != expected:
                    raise ConfigError(
                        f"the {kind} space of {env_id} is not that of the training: {here}, expected {expected}"
                    )

    def probabilities(self, agent: Any, observations: Array, legal: Array | None = None) -> Array:
        """Return with which probabilities an agent takes each of its actions, float64 ``[B, A]``.

        Args:
            agent: Its id.
            observations: ``[B, ...]``, without a one-hot agent index.
            legal: Which actions are, bool ``[B, A]``; None for all.

        Raises:
            ConfigError: Actions that are not discrete, a policy with memory, or an agent for which nobody acts.
        """
        group = self.group_of(agent)
        actor = group.actor
        if (
            not isinstance(actor, NetworkActor)
            or actor.action.count is None
            or actor.memory
            or actor.bandwidth
        ):
            raise ConfigError(
                f"probabilities of '{agent}': known of policies with discrete actions, without memory or messages"
            )
        size = len(group.agents) if group.agent_id else 1
        column = group.agents.index(agent) if group.agent_id else 0
        seen = np.zeros((len(observations), size, *np.shape(observations)[1:]), np.float32)
        seen[:, column] = observations
        mask = None
        if legal is not None:
            mask = np.ones((len(observations), size, actor.action.count), bool)
            mask[:, column] = legal
        inputs = ActorInputs(with_agent_id(seen) if group.agent_id else seen, mask)
        logits = actor.decide(inputs, {}, explore=True)[0][:, column].astype(np.float64)
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return weights / weights.sum(axis=-1, keepdims=True)

    def player(self, explore: bool = False, seed: int | None = None) -> Player:
        """Return what acts in one episode of one environment; take a new one for each episode.

        Args:
            explore: Sample from the policy (True) or take its most probable actions (False).
            seed: Of the draws; None for another each time.
        """
        return Player(self, explore, seed)


class Player:
    """Acts for all agents through an episode; it carries their memory and the random numbers.

    Args:
        policy: What acts.
        explore: Sample from the policy or take its most probable actions.
        seed: Of the draws; None for another each time.
    """

    def __init__(self, policy: Policy, explore: bool = False, seed: int | None = None) -> None:
        self.policy = policy
        self.explore = explore
        self._rng = episode_generator(seed)
        self._states = policy.team.initial_state(1)
        self._alive = np.zeros((1, policy.team.num_agents), bool)

    def act(self, observations: Any) -> Any:
        """Choose an action for every agent that has an observation; those agents hear each other.

        Args:
            observations: By agent id, as a PettingZoo environment gives them; of a policy for a single-agent
                environment, the observation itself.

        Returns:
            Actions by agent id, or the action itself.

        Raises:
            ConfigError: An agent that the policy does not know, or an observation of another shape.
        """
        single = set(self.policy.module_of) == {None} and not (
            isinstance(observations, Mapping) and None in observations
        )
        given: Mapping[Any, Any] = {None: observations} if single else observations
        known = self.policy.module_of
        if not isinstance(given, Mapping):
            raise ConfigError(
                f"observations: expected a mapping from agents ({', '.join(map(str, known))}) to what they observe"
            )
        for agent in given:
            if agent not in known:
                raise ConfigError(
                    f"the policy knows no agent '{agent}'{did_you_mean(str(agent), map(str, known))}; "
                    f"allowed: {', '.join(map(str, known))}"
                )
        alive = np.zeros_like(self._alive)
        inputs = []
        for group in self.policy.team.groups:
            alive[0, group.index] = [agent in given for agent in group.agents]
            inputs.append(self._inputs(group, given))
        for group, state in zip(self.policy.team.groups, self._states, strict=True):
            put_back(state, ~self._alive[:, group.index])  # who was not here before remembers nothing
        found = self.policy.team.act(inputs, alive, self._states, self._rng, self.explore)
        self._states = [dict(acted.state) for acted in found]
        self._alive = alive
        actions = {}
        for group, acted in zip(self.policy.team.groups, found, strict=True):
            chosen = group.actor.action.to_env(acted.actions)[0]
            for column, agent in enumerate(group.agents):
                if agent in given:
                    actions[agent] = group.actor.action.structured(chosen[column])
        return actions[None] if single else {agent: actions[agent] for agent in given}

    def _inputs(self, group: AgentGroup, given: Mapping[Any, Any]) -> GroupInputs:
        spaces = self.policy.spaces[group.module_id]
        obs = np.zeros((1, len(group.agents), *spaces.observation_shape), np.float32)
        count = spaces.num_actions
        mask = None if count is None else np.ones((1, len(group.agents), count), bool)
        for column, agent in enumerate(group.agents):
            if agent not in given:
                continue
            whose = "observation" if agent is None else f"observation of {agent}"
            value, legal = given[agent], None
            if mask is not None:
                if not isinstance(value, Mapping) or set(value) != {_OBSERVATION, _ACTION_MASK}:
                    raise ConfigError(f"{whose}: expected a mapping of {_OBSERVATION} and {_ACTION_MASK}")
                value, legal = value[_OBSERVATION], np.asarray(value[_ACTION_MASK])
            if spaces.parts is not None:
                row = np.empty((1, spaces.parts.encoded_size), np.float32)
                try:
                    spaces.parts.encode([value], row)
                except ValueError as error:
                    raise ConfigError(f"{whose}: {error}") from error
                value = row.reshape(spaces.observation_shape)
            value = np.asarray(value, np.float32)
            if value.shape != spaces.observation_shape:
                raise ConfigError(f"{whose}: expected shape {spaces.observation_shape}, got {value.shape}")
            obs[0, column] = value
            if mask is not None and legal is not None:
                if legal.shape != (count,):
                    raise ConfigError(f"{whose}: expected a mask of shape {(count,)}, got {legal.shape}")
                mask[0, column] = legal != 0
        return GroupInputs(with_agent_id(obs) if group.agent_id else obs, mask)


def episode_generator(seed: int | None) -> np.random.Generator:
    """Return the source of an episode's draws."""
    return np.random.Generator(np.random.Philox(key=seed) if seed is not None else np.random.Philox())


class EpisodeStreams:
    """Random numbers of several episodes at once: row ``e`` of every draw comes from episode ``e``'s own source.

    Args:
        seeds: One an episode.
    """

    def __init__(self, seeds: Any) -> None:
        self.generators = [episode_generator(int(seed)) for seed in seeds]

    def random(self, size: tuple[int, ...], dtype: type) -> Array:
        """Return uniform numbers on [0, 1), ``[E, ...]``."""
        return np.stack([generator.random(size[1:], dtype) for generator in self.generators])

    def standard_normal(self, size: tuple[int, ...], dtype: type) -> Array:
        """Return standard normal numbers, ``[E, ...]``."""
        return np.stack([generator.standard_normal(size[1:], dtype) for generator in self.generators])
