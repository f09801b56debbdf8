"""`TurnParallelEnv`: anybody's PettingZoo environment of turns (AEC), in the form of a parallel one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from pettingzoo import AECEnv, ParallelEnv

from qio_envs.api import ConfigError

OBSERVATION, ACTION_MASK = "observation", "action_mask"


class TurnParallelEnv(ParallelEnv):
    """A PettingZoo ``AECEnv`` in which one agent moves in each step, and all others wait.

    Actions are those of the environment and one more, the last: to wait. It is the only legal action of an agent whose
    turn it is not, and illegal for the one that moves. Observations are a Dict of ``observation`` and ``action_mask``,
    which is the environment's own (for the agent that moves) with waiting behind. What all agents see is current in
    each step, and each gets what the environment pays it for that step. An agent that has ended is gone with the step
    that ended it. There is no global state.

    Args:
        env: The environment; its actions must be Discrete, counted from 0.

    Attributes:
        env: That environment.

    Raises:
        ConfigError: Other actions, or an environment that does not know its possible agents.
    """

    def __init__(self, env: AECEnv) -> None:
        self.env: Any = env
        name = env.metadata.get("name", type(env.unwrapped).__name__)
        if not hasattr(env, "possible_agents"):
            raise ConfigError(f"env: {name} has no possible_agents; agents need fixed places")
        self.possible_agents = list(env.possible_agents)
        self.agents: list[Any] = []
        self.render_mode = getattr(env, "render_mode", None)
        self.metadata = env.metadata
        self.observation_spaces: dict[Any, gymnasium.Space] = {}
        self.action_spaces: dict[Any, gymnasium.spaces.Discrete] = {}
        for agent in self.possible_agents:
            actions = env.action_space(agent)
            if not isinstance(actions, gymnasium.spaces.Discrete) or actions.start != 0:
                raise ConfigError(
                    f"env: {name} is played in turns, for which actions must be Discrete from 0; {agent} has {actions}"
                )
            self.action_spaces[agent] = gymnasium.spaces.Discrete(int(actions.n) + 1)
            self.observation_spaces[agent] = gymnasium.spaces.Dict(
                {
                    OBSERVATION: _bare(env.observation_space(agent)),
                    ACTION_MASK: gymnasium.spaces.Box(0, 1, (int(actions.n) + 1,), np.int8),
                }
            )

    def observation_space(self, agent: Any) -> gymnasium.Space:
        """Return the space of one agent's observations."""
        return self.observation_spaces[agent]

    def action_space(self, agent: Any) -> gymnasium.Space:
        """Return the space of one agent's actions."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict | None = None
    ) -> tuple[dict[Any, Any], dict[Any, dict[str, Any]]]:
        """Start an episode; return observations and infos by agent."""
        self.env.reset(seed=seed, options=options)
        self._skip_ended()
        self.agents = list(self.env.agents)
        return self._observations(), {agent: _numbers(self.env.infos.get(agent)) for agent in self.agents}

    def step(
        self, actions: Mapping[Any, Any]
    ) -> tuple[dict[Any, Any], dict[Any, float], dict[Any, bool], dict[Any, bool], dict[Any, dict[str, Any]]]:
        """Let the agent whose turn it is move; the actions of the others must be to wait.

        Raises:
            ValueError: An agent waits in its turn, or moves in another's.
        """
        if not self.agents:
            return {}, {}, {}, {}, {}
        before, mover = self.agents, self.env.agent_selection
        for agent in before:
            waits = int(actions[agent]) == int(self.action_spaces[agent].n) - 1
            if waits == (agent == mover):
                raise ValueError(
                    f"{agent}: action {actions[agent]}, but it is {mover}'s turn; see {ACTION_MASK}"
                )
        self.env.step(int(actions[mover]))
        here = [agent for agent in before if agent in self.env.agents]
        rewards = {agent: float(self.env.rewards.get(agent, 0.0)) for agent in here}
        terminated = {agent: bool(self.env.terminations[agent]) for agent in here}
        truncated = {agent: bool(self.env.truncations[agent]) for agent in here}
        infos = {agent: _numbers(self.env.infos.get(agent)) for agent in here}
        living = [agent for agent in here if not (terminated[agent] or truncated[agent])]
        last = {agent: self._observation(agent) for agent in here if agent not in living}
        self._skip_ended()  # only then is it known whose turn it is
        self.agents = living
        observations = {**last, **self._observations()}
        return observations, rewards, terminated, truncated, infos

    def render(self) -> Any:
        """Return what the environment renders."""
        return self.env.render()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _skip_ended(self) -> None:
        """Take the turns of agents that have ended, which the environment wants without an action."""
        while self.env.agents and (
            self.env.terminations[self.env.agent_selection] or self.env.truncations[self.env.agent_selection]
        ):
            self.env.step(None)

    def _observations(self) -> dict[Any, dict[str, Any]]:
        return {agent: self._observation(agent) for agent in self.agents}

    def _observation(self, agent: Any) -> dict[str, Any]:
        count = int(self.action_spaces[agent].n)
        seen, mask = self.env.observe(agent), np.zeros(count, np.int8)
        has_mask = _has_mask(self.env.observation_space(agent))
        if agent == self.env.agent_selection:
            own = seen.get(ACTION_MASK) if has_mask else None
            if own is None:
                own = (self.env.infos.get(agent) or {}).get(ACTION_MASK)
            mask[:-1] = 1 if own is None else np.asarray(own) != 0
        if not mask.any():
            mask[-1] = 1
        return {OBSERVATION: seen[OBSERVATION] if has_mask else seen, ACTION_MASK: mask}


def as_parallel(env: AECEnv) -> ParallelEnv:
    """Return an environment of turns as a parallel one.

    Agents act at once where the environment says that nothing depends on their order (PettingZoo's
    ``is_parallelizable``), and one after the other otherwise: `TurnParallelEnv`.

    Raises:
        ConfigError: As `TurnParallelEnv`.
    """
    if env.metadata.get("is_parallelizable"):
        from pettingzoo.utils.conversions import aec_to_parallel

        return aec_to_parallel(env)
    return TurnParallelEnv(env)


def _has_mask(space: gymnasium.Space) -> bool:
    return isinstance(space, gymnasium.spaces.Dict) and OBSERVATION in space.spaces


def _bare(space: gymnasium.Space) -> gymnasium.Space:
    return space[OBSERVATION] if isinstance(space, gymnasium.spaces.Dict) and _has_mask(space) else space


def _numbers(info: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return an info without the mask, which observations hold."""
    return {key: value for key, value in (info or {}).items() if key != ACTION_MASK}
