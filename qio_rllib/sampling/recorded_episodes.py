"""Whole episodes of agents with world models, for diagnostics of the models."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from qio_envs.api import ConfigError
from qio_rllib.acting.policy import EpisodeStreams
from qio_rllib.acting.team import Team
from qio_rllib.acting.world_model_actor import WorldModelActor
from qio_rllib.sampling.stepper import EnvStepper, one_thread
from qio_rllib.sampling.vector_env import Array, VectorEnv
from qio_rllib.world_models.episodes import Episodes

_COLUMNS = ("obs", "actions", "rewards", "terminated", "alive", "fresh", "next_obs")


def world_model_groups(team: Team) -> list[int]:
    """Return the places in a team's groups of those that have a world model."""
    return [g for g, group in enumerate(team.groups) if isinstance(group.actor, WorldModelActor)]


def record_episodes(
    team: Team,
    env: VectorEnv,
    seeds: Sequence[int],
    explore: bool = False,
    random_actions: bool = False,
    watch: Callable[[], None] | None = None,
    max_steps: int | None = None,
) -> tuple[dict[str, Episodes], int]:
    """Play one episode in each environment, as an evaluation does, and keep what the agents saw, did and got.

    Args:
        team: Who acts.
        env: As many environments as seeds.
        seeds: They seed the environments and the draws of the team.
        explore: As for `Team.act`.
        random_actions: Likewise.
        watch: Called after the reset and after each step.
        max_steps: Steps after which episodes are left, at least 1; None for their ends.

    Returns:
        The episodes of each module that has a world model, and how many environments were left before the end of their
        episode. A sequence is what one agent lives through, from its first step to its last: they stand in the order of
        environments, then agents, then lives (of agents that return).

    Raises:
        ConfigError: An agent appears after the first step, and its model sees others: their steps have to be known from
            the start.
    """
    rng = EpisodeStreams(seeds)
    stepper = EnvStepper(env, team)
    kept: dict[int, list[tuple[Array, ...]]] = {g: [] for g in world_model_groups(team)}
    running = np.ones(len(seeds), bool)
    count = 0
    with one_thread():
        stepper.reset(np.array(seeds, np.uint64))
        if watch is not None:
            watch()
        while running.any() and count != max_steps:
            obs, fresh = [part.copy() for part in stepper.obs], stepper.fresh.copy()
            alive = stepper.alive & running[:, None]
            step = stepper.step(rng, explore, random_actions)
            if watch is not None:
                watch()
            following, _ = stepper.final(step)
            for g, steps in kept.items():
                group = team.groups[g]
                actor, index = group.actor, group.index
                assert isinstance(actor, WorldModelActor)
                by_agent = (step.rewards, step.terminated, alive, fresh)
                rewards, terminated, here, begins = (part[:, index].copy() for part in by_agent)
                actions = actor.executed(step.acted[g].actions)
                steps.append((obs[g], actions, rewards, terminated, here, begins, following[g].copy()))
            running &= ~step.over
            count += 1
            if running.any():
                if step.over.any():
                    env.retire(step.over)
                stepper.advance(step)
    found = {}
    for g, steps in kept.items():
        group = team.groups[g]
        assert isinstance(group.actor, WorldModelActor)
        found[group.module_id] = _episodes(steps, group.actor.network.model.sees_others)
    return found, int(running.sum())


def _episodes(steps: Sequence[tuple[Array, ...]], joint: bool) -> Episodes:
    """Cut steps ``[T][E, M, ...]`` into the lives of agents; ``joint``: one of each agent, from the first step on."""
    arrays = {name: np.stack(parts) for name, parts in zip(_COLUMNS, zip(*steps, strict=True), strict=True)}
    alive, fresh = arrays["alive"], arrays["fresh"]
    lives = []  # (environment, agent, first step, steps)
    for e, m in np.ndindex(alive.shape[1:]):
        here = np.flatnonzero(alive[:, e, m])
        if joint:
            if len(here) and (here[-1] + 1 != len(here) or fresh[here[1:], e, m].any()):
                raise ConfigError(
                    "diagnose: an agent appears after the first step; a model with attention_heads is compared with "
                    "episodes whose agents are there from the start"
                )
            lives.append((e, m, 0, len(here)))
            continue
        for life in np.split(here, np.flatnonzero(fresh[here, e, m])):
            if len(life):
                lives.append((e, m, int(life[0]), len(life)))
    longest, count = max(life[-1] for life in lives), len(lives)
    found = {
        name: np.zeros((longest + (name == "obs"), count, *arrays[name].shape[3:]), arrays[name].dtype)
        for name in ("obs", "actions", "rewards", "terminated")
    }
    present = np.zeros((longest, count), bool)
    for row, (e, m, first, length) in enumerate(lives):
        steps_of = slice(first, first + length)
        for name in ("actions", "rewards", "terminated"):
            found[name][:length, row] = arrays[name][steps_of, e, m]
        found["obs"][:length, row] = arrays["obs"][steps_of, e, m]
        if length:
            found["obs"][length, row] = arrays["next_obs"][first + length - 1, e, m]
        present[:length, row] = True
    flat = {name: value.reshape(*value.shape[:2], -1) for name, value in found.items() if value.ndim > 2}
    return Episodes(
        **{name: torch.from_numpy(flat.get(name, found[name])) for name in found},
        present=torch.from_numpy(present),
        agents=alive.shape[2] if joint else 1,
    )
