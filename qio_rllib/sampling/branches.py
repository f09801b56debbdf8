"""Counterfactual episodes: branches of one environment in which a variable is set, and a team goes on as it would."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from qio_envs.api import BatchedEnv, ConfigError
from qio_rllib.acting.actor import Acted
from qio_rllib.acting.policy import EpisodeStreams, episode_generator
from qio_rllib.acting.team import GroupInputs, Team
from qio_rllib.acting.world_model_actor import PREVIOUS_ACTION, WorldModelActor
from qio_rllib.sampling.batched_vector_env import BatchedVectorEnv
from qio_rllib.sampling.stepper import EnvStepper
from qio_rllib.sampling.vector_env import Array

STATE, ACTION, OBSERVATION = "state", "action", "observation"
"""Kinds of variables: of the environment's state, what an agent does, what it is shown."""


@dataclasses.dataclass(frozen=True, eq=False)
class Moment:
    """All that a step of one environment depends on, before the team acts.

    Attributes:
        env: State of the environment; None where it is not to be branched.
        obs: As `EnvStepper.obs`, with one environment.
        masks: Likewise.
        memory: Likewise.
        alive: Likewise.
        steps: Likewise.
        draws: State of the team's random numbers.
        global_state: As `EnvStepper.global_state`.
    """

    env: dict[str, Array] | None
    obs: list[Array]
    masks: list[Array | None]
    memory: list[dict[str, Array]]
    alive: Array
    steps: Array
    draws: Any
    global_state: Array | None = None

    @classmethod
    def of(cls, stepper: EnvStepper, rng: EpisodeStreams, with_env: bool, env_index: int = 0) -> Moment:
        """Return the moment at which one environment of a stepper stands."""
        row = slice(env_index, env_index + 1)
        state = stepper.env.get_state() if with_env else None
        return cls(
            None if state is None else {name: array[row] for name, array in state.items()},
            [obs[row].copy() for obs in stepper.obs],
            [None if mask is None else mask[row].copy() for mask in stepper.masks],
            [{name: array[row].copy() for name, array in memory.items()} for memory in stepper.memory],
            stepper.alive[row].copy(),
            stepper.steps[row].copy(),
            copy.deepcopy(rng.generators[env_index].bit_generator.state),
            None if stepper.global_state is None else stepper.global_state[row].copy(),
        )

    def times(self, count: int) -> Moment:
        """Return the same with ``count`` environments, all alike; the environment's own state is left out."""

        def tile(array: Array) -> Array:
            return np.tile(array, (count,) + (1,) * (array.ndim - 1))

        return Moment(
            None,
            [tile(obs) for obs in self.obs],
            [None if mask is None else tile(mask) for mask in self.masks],
            [{name: tile(array) for name, array in memory.items()} for memory in self.memory],
            tile(self.alive),
            tile(self.steps),
            self.draws,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Change:
    """A variable and the values that it is set to, one a branch.

    Attributes:
        kind: `STATE`, `ACTION` or `OBSERVATION`.
        key: Of a state its name in `BatchedEnv.intervention_spaces`; of an action its number, None for a discrete one;
            of an observation the slice of the numbers.
        values: ``[n]``, of an observation ``[n, numbers]``; of an action as the policy gives it.
        agent: Index of the agent whose action or observation it is.
    """

    kind: str
    key: Any
    values: Array
    agent: int = 0


class Branches:
    """Branches of an episode.

    Args:
        team: Who acts.
        batch: One environment of the kind that is branched; its own state does not matter. None where only the present
            decision can be asked for.
        explore: As for `Team.act`.
    """

    def __init__(self, team: Team, batch: BatchedEnv | None, explore: bool) -> None:
        self.team = team
        self.batch = None if batch is None else batch.clone()
        self.explore = explore

    def decide(
        self, moment: Moment, steps: int = 0, changes: Sequence[Change] = ()
    ) -> tuple[list[Acted], Array]:
        """Set variables now, go on for some steps, and return what the team decides then.

        All branches meet the same random numbers, the environment's and the team's.

        Args:
            moment: Where the branches begin.
            steps: To go on; 0 for the decision of this very step.
            changes: Each gives as many branches as it has values; nothing is set in the first branch, before these.

        Returns:
            What each group does, with a leading axis of branches; which agents act in them, bool ``[branches, N]``.
        """
        count = 1 + sum(len(change.values) for change in changes)
        start = moment.times(count)
        obs, masks, memory, alive = start.obs, start.masks, start.memory, start.alive
        draws = _SharedDraws(moment.draws)
        if self.batch is None:
            self._show(obs, changes)
        else:
            stepper = self._branched(moment, start, changes)
            self._show(stepper.obs, changes)
            going = np.ones(count, bool)
            for place in range(steps):
                step = stepper.step(
                    draws,
                    self.explore,
                    replace=None if place else lambda acted: self._replaced(acted, changes),
                )
                going &= ~step.over
                if step.over.any():
                    stepper.env.retire(step.over)
                stepper.advance(step)
            obs, masks, memory = stepper.obs, stepper.masks, stepper.memory
            alive = stepper.alive & going[:, None]
        inputs = [GroupInputs(seen, mask) for seen, mask in zip(obs, masks, strict=True)]
        return self.team.act(inputs, alive, memory, draws, self.explore), alive

    def _branched(self, moment: Moment, start: Moment, changes: Sequence[Change]) -> EnvStepper:
        assert self.batch is not None
        assert moment.env is not None
        for name, array in self.batch.arrays._asdict().items():  # of this very environment: not checked anew
            array[...] = moment.env[name]
        branches = self.batch.branch(len(start.alive))
        names = branches.intervention_variables
        mask = np.zeros((branches.num_envs, len(names)), bool)
        values = np.zeros(mask.shape, np.float32)
        for rows, change in _rows(changes):
            if change.kind == STATE:
                column = names.index(change.key)
                mask[rows, column], values[rows, column] = True, change.values
        if mask.any():
            branches.intervene(mask, values)
        stepper = EnvStepper(BatchedVectorEnv(branches), self.team)
        stepper.set_state(
            {
                "obs": start.obs,
                "masks": start.masks,
                "memory": start.memory,
                "fresh": np.zeros_like(start.alive),
                "alive": start.alive,
                "global_state": None,
                "steps": start.steps,
            }
        )
        stepper.observe()
        return stepper

    def _show(self, obs: Sequence[Array], changes: Sequence[Change]) -> None:
        for rows, change in _rows(changes):
            if change.kind == OBSERVATION:
                g, member = place_of(self.team, change.agent)
                flat = obs[g].reshape(*obs[g].shape[:2], -1)
                assert np.shares_memory(flat, obs[g])
                flat[rows, member, change.key] = change.values

    def _replaced(self, acted: list[Acted], changes: Sequence[Change]) -> list[Acted]:
        """Return what the groups do, with some actions set; who remembers its actions remembers those."""
        found = [one._replace(actions=one.actions.copy()) for one in acted]
        for rows, change in _rows(changes):
            if change.kind == ACTION:
                g, member = place_of(self.team, change.agent)
                key = () if change.key is None else (change.key,)
                found[g].actions[(rows, member, *key)] = change.values
        for g, group in enumerate(self.team.groups):
            if isinstance(group.actor, WorldModelActor) and PREVIOUS_ACTION in group.actor.memory:
                executed = group.actor.executed(found[g].actions)
                found[g] = found[g]._replace(state={**found[g].state, PREVIOUS_ACTION: executed})
        return found


class _SharedDraws:
    """Random numbers that are the same in all branches: one episode's, as they go on from a state."""

    def __init__(self, state: Any) -> None:
        self._generator = episode_generator(0)
        self._generator.bit_generator.state = copy.deepcopy(state)

    def random(self, size: tuple[int, ...], dtype: type) -> Array:
        """Return uniform numbers on [0, 1), ``[E, ...]``, with equal rows."""
        return np.repeat(self._generator.random((1, *size[1:]), dtype), size[0], axis=0)

    def standard_normal(self, size: tuple[int, ...], dtype: type) -> Array:
        """Return standard normal numbers, ``[E, ...]``, with equal rows."""
        return np.repeat(self._generator.standard_normal((1, *size[1:]), dtype), size[0], axis=0)


def place_of(team: Team, agent: int) -> tuple[int, int]:
    """Return the place of an agent's group in its team, and its place in the group.

    Args:
        team: Which it belongs to.
        agent: Its index among all agents.
    """
    for g, group in enumerate(team.groups):
        where = np.flatnonzero(group.index == agent)
        if len(where):
            return g, int(where[0])
    raise ValueError(f"agent: there is none of the index {agent}")


def _rows(changes: Sequence[Change]) -> list[tuple[slice, Change]]:
    """Return the branches of each change; the first branch is that of none."""
    stops = 1 + np.cumsum([len(change.values) for change in changes], dtype=int)
    return [
        (slice(int(stop) - len(change.values), int(stop)), change)
        for stop, change in zip(stops, changes, strict=True)
    ]


def check_branches(env: Any, name: str) -> BatchedEnv:
    """Return the batch behind environments that can be branched exactly.

    Raises:
        ConfigError: They cannot.
    """
    if not isinstance(env, BatchedVectorEnv):
        raise ConfigError(
            f"checkpoint: {name} cannot be branched, it is no environment of the suite by its name (forest_uav_v0)"
        )
    if env.env.action_dependent_draws is not None:
        raise ConfigError(
            f"checkpoint: {env.env.id} has no exact counterfactuals with these settings: "
            f"{env.env.action_dependent_draws}"
        )
    return env.env
