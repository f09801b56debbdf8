"""Spread: agents cover all landmarks without hitting each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from numba import njit

from qio_envs.api import Array, ScriptedPolicy, setting
from qio_envs.api.policies import RandomPolicy
from qio_envs.mpe.config import MAX_ENTITIES, ParticleConfig
from qio_envs.mpe.env import ParticleEnv
from qio_envs.mpe.kernels import put_offsets, put_row, put_zeros, touch
from qio_envs.mpe.policies import PlannedPolicy, assignment, gaps, picked
from qio_envs.mpe.state import ParticleState, World, world_of

_AGENT, _LANDMARK = 0.15, 0.05  # radii
_OCCUPIED = 0.1  # distance below which a landmark counts as occupied
_MESSAGE = 2  # numbers in an observation for each other agent's message, which is never sent


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpreadConfig(ParticleConfig):
    """Settings of `Spread`."""

    task: ClassVar[str] = "spread"

    num_agents: int = setting(3, "number of agents, and of landmarks", low=1, high=MAX_ENTITIES)
    local_ratio: float = setting(
        0.5, "weight of an agent's own collisions in its reward; the rest is the weight of the distances",
        low=0.0, high=1.0,
    )  # fmt: skip
    self_collision: bool = setting(
        False, "whether an agent is in collision with itself too, which costs it one collision at every step"
    )
    reward_scale: float = setting(1.0, "factor of all rewards", low=0.0, high=1e6)
    shared_reward: bool = setting(
        False,
        "whether each agent is given the sum of all agents' rewards, which then is the score, counted once",
    )


@njit(cache=True, error_model="numpy")
def reward(
    state: ParticleState,
    world: World,
    local_ratio: float,
    self_collision: bool,
    scale: float,
    shared: bool,
    rewards: Array,
) -> None:
    """Write the rewards, float32 ``[E, N]``; tally pairs in contact, occupied landmarks, and distances to landmarks."""
    agents = world.movable.shape[0]
    radius = world.radius
    contacts = np.empty(agents)
    for e in range(rewards.shape[0]):
        position = state.position[e]
        coverage, occupied = 0.0, 0
        for landmark in range(agents, 2 * agents):
            nearest = np.inf
            for n in range(agents):
                dx, dy = position[n, 0] - position[landmark, 0], position[n, 1] - position[landmark, 1]
                nearest = min(nearest, dx * dx + dy * dy)
            nearest = np.sqrt(nearest)
            coverage += nearest
            occupied += nearest < _OCCUPIED
        contacts[:] = 1.0 if self_collision else 0.0
        pairs = 0
        for n in range(agents):
            for other in range(n + 1, agents):
                if touch(position, radius, n, other):
                    contacts[n] += 1.0
                    contacts[other] += 1.0
                    pairs += 1
        total = 0.0
        for n in range(agents):
            contacts[n] = -scale * (coverage * (1.0 - local_ratio) + contacts[n] * local_ratio)
            total += contacts[n]
        for n in range(agents):
            given = total if shared else contacts[n]
            rewards[e, n] = given
            state.returns[e, n] += given
        state.tally[e, 0] += pairs
        state.tally[e, 1] += occupied
        state.tally[e, 2] += coverage / agents


@njit(cache=True)
def observe(state: ParticleState, world: World, out: Array) -> None:
    """Write every agent's observation to ``out``, float32 ``[E, N, D]``."""
    agents = world.movable.shape[0]
    for e in range(out.shape[0]):
        position = state.position[e]
        for n in range(agents):
            row = out[e, n]
            at = put_row(row, 0, state.velocity[e, n])
            at = put_row(row, at, position[n])
            at = put_offsets(row, at, position, n, agents, 2 * agents)
            at = put_offsets(row, at, position, n, 0, agents)
            put_zeros(row, at)


class NearestPolicy(PlannedPolicy):
    """Each agent goes to the landmark that is nearest to it, whoever else does."""

    def goals(self) -> Array:
        """Return the nearest landmarks, ``[E, N, 2]``."""
        return picked(self.landmarks, gaps(self.agents, self.landmarks).argmin(axis=2))


class SpreadOracle(PlannedPolicy):
    """Each agent goes to a landmark of its own; the sum of the ways is least."""

    def goals(self) -> Array:
        """Return each agent's landmark, ``[E, N, 2]``."""
        return picked(self.landmarks, assignment(self.agents, self.landmarks))


class Spread(ParticleEnv):
    """Agents cover all landmarks without hitting each other (cooperative): mpe2's simple_spread_v3.

    **World**: N agents (``agent_0``, ...) of radius 0.15 that collide with each other, and N landmarks that nobody
    collides with.

    **Rewards**: with ``local_ratio`` l, minus (1 - l) times the sum over the landmarks of the distance to the agent
    nearest to it, minus l times the number of agents that the agent touches; all times ``reward_scale``.

    **Observations**, 6 N numbers (18 for N = 3): own velocity (2), own position (2), the landmarks from there (2 N),
    the other agents from there (2 (N - 1)), and zeros in place of messages, which nobody sends (2 (N - 1)).

    **Score** (``team_return``): the sum over all agents, in mpe2's unit; N times what one agent earns on average. With
    ``shared_reward`` the reward that all have in common, counted once.

    **Info** besides: ``collisions``, pairs of agents that touch, summed over the steps so far; averaged over them,
    ``occupied``, landmarks with an agent nearer than 0.1, and ``distance`` from a landmark to the agent nearest to it.

    **Against other versions**: the original environment (openai/multiagent-particle-envs) counts an agent's collision
    with itself (``self_collision``: -1 for each agent at each step, times ``local_ratio`` and ``reward_scale``), does
    not halve the two parts (``local_ratio: 0.5`` and ``reward_scale: 2`` together), and gives all agents the sum of all
    rewards (``shared_reward``). Published results of EPyMARL are in that unit: the returns of all agents divided by
    their number. The scenario `epymarl` has it; for the same play its score is 2 x - N ``max_steps``, with x the score
    of `default`, so that random play scores about -79 in `default` and -233 in `epymarl`. In the original a velocity
    changes before the position moves by it, in mpe2 after.

    **Scripted policies**: ``random``; ``nearest``, each agent goes to the landmark nearest to it; ``oracle``, each
    agent goes to a landmark of its own with the sum of all ways least.

    Version history: v0, first version.
    """

    id = "mpe_spread_v0"
    config_class = SpreadConfig
    config: SpreadConfig
    scripted_policies: Mapping[str, Callable[[Any], ScriptedPolicy]] = {
        "random": RandomPolicy,
        "nearest": NearestPolicy,
        "oracle": SpreadOracle,
    }
    functions = (reward, observe)
    sums = ("collisions",)
    means = ("occupied", "distance")

    def __init__(self, config: SpreadConfig, num_envs: int = 1) -> None:
        super().__init__(config, num_envs)
        self._counted = (0, 1 if config.shared_reward else config.num_agents)

    def _build(self) -> World:
        agents = self.config.num_agents
        return world_of(
            max_steps=self.config.max_steps,
            continuous=self.config.continuous_actions,
            radius=np.repeat([_AGENT, _LANDMARK], agents),
            spawn=np.ones(2 * agents),
            collides=np.arange(2 * agents) < agents,
            movable=np.ones(agents, bool),
            speaks=np.zeros(agents, bool),
        )

    def _names(self) -> tuple[str, ...]:
        return tuple(f"agent_{n}" for n in range(self.config.num_agents))

    def _observation_sizes(self) -> tuple[int, ...]:
        agents = self.config.num_agents
        return (4 + 2 * agents + (2 + _MESSAGE) * (agents - 1),) * agents

    def _rewards(self, rewards: Array) -> None:
        config = self.config
        self._reward_kernel(
            self.arrays,
            self.world,
            config.local_ratio,
            config.self_collision,
            config.reward_scale,
            config.shared_reward,
            rewards,
        )
