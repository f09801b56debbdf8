"""What the kernels of the swarm work on: state, rules, sight and metrics as named tuples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qio_envs.api import FLAG, Array, Limits, Relations, clock_limits
from qio_envs.swarm.config import TASKS, SwarmConfig

TRAIL = 16
"""Positions that are kept of each agent, for pictures."""


class SwarmState(NamedTuple):
    """Arrays of the swarm; an agent that has left keeps the position and velocity with which it left."""

    seed: Array  # uint64 [E], key of the random numbers
    episode: Array  # uint32 [E], episodes since the seed was given
    step: Array  # int32 [E], steps since the reset; -1 before the first
    running: Array  # bool [E], reset and not ended
    body: Array  # float32 [E, N, 4], position x and y, velocity x and y
    alive: Array  # bool [E, N], has not left
    target: Array  # float32 [E, 2], the point that counts; the origin unless target_spread
    rewards: Array  # float32 [E, N], of the last step
    returns: Array  # float64 [E, N], of the episode so far
    dispersion: (
        Array  # float64 [E], variance of the distances to the centroid, summed over the episode's steps
    )
    clipped: Array  # int32 [E], actions with a component outside [-1, 1], of living agents
    trail: Array  # float32 [E, N, 16, 2], position after step t at t % 16; where each started, before there were 16

    @classmethod
    def empty(cls, num_envs: int, num_agents: int) -> SwarmState:
        """Return the state of environments that were never reset."""
        return cls(
            seed=np.zeros(num_envs, np.uint64),
            episode=np.zeros(num_envs, np.uint32),
            step=np.full(num_envs, -1, np.int32),
            running=np.zeros(num_envs, bool),
            body=np.zeros((num_envs, num_agents, 4), np.float32),
            alive=np.zeros((num_envs, num_agents), bool),
            target=np.zeros((num_envs, 2), np.float32),
            rewards=np.zeros((num_envs, num_agents), np.float32),
            returns=np.zeros((num_envs, num_agents)),
            dispersion=np.zeros(num_envs),
            clipped=np.zeros(num_envs, np.int32),
            trail=np.zeros((num_envs, num_agents, TRAIL, 2), np.float32),
        )

    @classmethod
    def limits(cls, config: SwarmConfig) -> Limits:
        """Return what each array may hold; see `BatchedEnv.state_limits`."""
        agents, steps = sum(config.team_sizes), config.max_steps
        body = np.repeat([config.max_position, config.max_speed], 2)
        across = 2 * 2**0.5 * config.max_position  # no two points are farther apart
        reward = across * (1 + 0.1 * agents) + config.exit_penalty + 1  # no step gives or takes more
        return clock_limits(steps) | {
            "body": (-body, body),
            "alive": FLAG,
            "target": (-config.target_radius, config.target_radius),
            "rewards": (-reward, reward),
            "returns": (-steps * reward, steps * reward),
            "dispersion": (0, steps * across**2),
            "clipped": (0, steps * agents),
            "trail": (-config.max_position, config.max_position),
        }

    def relations(self, config: SwarmConfig) -> Relations:
        """Return what must hold between the arrays; see `qio_envs.api.limits`."""
        distance = np.hypot(self.body[..., 0], self.body[..., 1])
        inside = (~self.alive | (distance <= 1.001 * config.out_radius)).all(axis=1)
        yield "body", inside, f"positions of living agents within {config.out_radius:g} of the origin"
        last = self.trail[np.arange(len(self.step)), :, self.step % TRAIL]
        yield "trail", (last == self.body[..., :2]).all(axis=(1, 2)), "the position after the last step"
        yield "alive", ~self.running | self.alive.any(axis=1), "an agent that lives while the episode runs"


class SwarmRules(NamedTuple):
    """What of a configuration starts, moves and scores agents; numbers are made float32 in the kernels."""

    task: int  # index in TASKS
    max_steps: int
    spawn_box: bool  # whether agents start in a square, not in a disc
    spawn_radius: float
    spawn_speed: float
    target_spread: float
    out_radius: float
    process_noise: float
    time_step: float
    damping: float
    exit_penalty: float
    held_steps: int  # steps at the start in which nobody moves
    first_team: int  # agents in the team that is scored
    team: Array  # int64 [N], team of each agent; the first is 0

    @classmethod
    def of(cls, config: SwarmConfig) -> SwarmRules:
        """Return the rules of a configuration."""
        return cls(
            task=TASKS.index(config.task),
            max_steps=config.max_steps,
            spawn_box=config.spawn == "box",
            spawn_radius=config.spawn_radius,
            spawn_speed=config.spawn_speed,
            target_spread=config.target_radius,
            out_radius=config.out_radius,
            process_noise=config.process_noise,
            time_step=config.time_step,
            damping=config.damping,
            exit_penalty=config.exit_penalty,
            held_steps=config.held_steps,
            first_team=config.team_sizes[0],
            team=np.repeat(np.arange(len(config.team_sizes)), config.team_sizes),
        )


class SwarmSight(NamedTuple):
    """What of a configuration says what agents observe; numbers are made float32 in the kernels."""

    shown_steps: int  # steps at the start in which the target is observed
    informed: int  # agents, the first ones, that observe the target
    has_target: bool  # whether observations have a part for the target
    own_only: bool  # whether an observation is the agent's own noisy state and no other agent
    noise: float  # standard deviation
    sensing_range: float  # infinity for no limit
    others: Array  # int64 [N, N - 1], the others in the order in which an agent observes them

    @classmethod
    def of(cls, config: SwarmConfig, team: Array) -> SwarmSight:
        """Return what agents of these teams (int64 ``[N]``) observe."""
        agents = len(team)
        around = (np.arange(agents)[:, None] + np.arange(1, agents)) % agents
        mates_first = np.argsort(team[around] != team[:, None], axis=1, kind="stable")
        return cls(
            shown_steps=config.held_steps or config.max_steps + 1,
            informed=config.num_informed,
            has_target=config.has_target,
            own_only=config.observe == "own",
            noise=config.observation_noise,
            sensing_range=np.inf if config.sensing_range is None else config.sensing_range,
            others=np.take_along_axis(around, mates_first, axis=1),
        )


class SwarmMetrics(NamedTuple):
    """What `kernels.measure` writes; see `Swarm` for what each means."""

    coordination: Array  # float64 [E]
    success: Array  # float32 [E]
    distance: Array  # float32 [E, N]
    mean_distance: Array  # float64 [E]
    exits: Array  # int32 [E]
    team_reward: Array  # float32 [E]
    team_return: Array  # float64 [E]
    total_return: Array  # float64 [E]

    @classmethod
    def empty(cls, num_envs: int, num_agents: int) -> SwarmMetrics:
        """Return arrays to be written to."""
        return cls(
            coordination=np.empty(num_envs),
            success=np.empty(num_envs, np.float32),
            distance=np.empty((num_envs, num_agents), np.float32),
            mean_distance=np.empty(num_envs),
            exits=np.empty(num_envs, np.int32),
            team_reward=np.empty(num_envs, np.float32),
            team_return=np.empty(num_envs),
            total_return=np.empty(num_envs),
        )
