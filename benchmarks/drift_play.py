"""Episodes of drift control with s1 and s2 hidden that are played for `planning_parts.py`, and the plans in them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from qio_envs import drift_control_v0
from qio_envs.drift_control import LQGPolicy, lqr_gain, mean_next_state
from qio_rllib.world_models.model import Sequences

GAMMA = 0.99
STEPS, HORIZON, PLANS = (0, 2, 5, 10, 20, 45), 10, 32
NOISES, PLAN_NOISES = (0.1, 0.3, 0.6, 1.0), (0.1, 0.3, 0.6)
FIRST_SEED, EPISODES, PLANNED = 4_000_000, 2000, 240  # plans are drawn in the first episodes alone
MIXED, EXCITED, BOTH = "mixed", "excited", "both"


def true_returns(start: np.ndarray, plans: np.ndarray, action_cost: float) -> tuple[np.ndarray, np.ndarray]:
    """Return returns ``[E, N]`` and states ``[E, N, H, 4]`` of plans ``[E, N, H, 2]`` without noise."""
    state = np.repeat(start[:, None], plans.shape[1], axis=1)
    total, states = np.zeros(plans.shape[:2]), np.zeros((*plans.shape[:3], 4))
    for step in range(plans.shape[2]):
        action = plans[:, :, step]
        state = states[:, :, step] = mean_next_state(state, action)
        total -= GAMMA**step * ((state**2).sum(-1) + action_cost * (action**2).sum(-1))
    return total, states


def mean_cost(env: Any, seeds: np.ndarray, policy: Any) -> float:
    """Return the mean cost of an episode of each seed; what ends early begins anew, and no longer counts."""
    env.reset(seeds)
    costs, running = np.zeros(len(seeds)), np.ones(len(seeds), bool)
    while running.any():
        env.reset(mask=~env.running)
        env.step(policy.act())
        ended = running & ~env.running
        costs[ended] = env.info()["cost"][ended]
        running &= ~ended
    return float(costs.mean())


class PlayedEpisodes(NamedTuple):
    """Episodes of ``lqg`` with noise, steps first; an episode that ends begins anew, and no longer counts."""

    obs: np.ndarray  # [T, E, D]
    actions: np.ndarray  # [T, E, 2]
    truth: np.ndarray  # [T, E, 4]
    estimates: np.ndarray  # of the filter, [T, E, 4]
    plans: dict[int, np.ndarray]  # of the first episodes, [P, N, H, 2], by step


def coloured_noise(previous: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return coloured noise of deviation 1 that goes on from what was drawn last."""
    return 0.7 * previous + np.sqrt(1 - 0.7**2) * rng.standard_normal(previous.shape)


def played_data() -> PlayedEpisodes:
    """Play, and draw plans: the regulator's with noise and an offset."""
    rng = np.random.default_rng(0)
    env = drift_control_v0.batched_env(EPISODES, scenario="hidden", out_radius=100.0)  # no episode ends early
    env.reset(np.arange(FIRST_SEED, FIRST_SEED + EPISODES, dtype=np.uint64))
    policy, noise = LQGPolicy(env), np.zeros((EPISODES, 1, 2))
    scale = rng.choice(NOISES, size=(EPISODES, 1, 1))
    rows: list[list[np.ndarray]] = [[], [], [], []]
    plans = {}
    for step in range(max(STEPS) + 1):
        noise = coloured_noise(noise, rng)
        action = np.clip(policy.act() + scale * noise, -1, 1).astype(np.float32)
        found = (env.observe()[:, 0], action[:, 0], env.arrays.components, policy.mean)
        for row, values in zip(rows, found, strict=True):
            row.append(values.copy())
        if step in STEPS:
            plans[step] = _drawn_plans(policy.mean[:PLANNED], lqr_gain(env.config), rng)
        env.step(action)
    obs, actions, truth, estimates = (np.stack(row) for row in rows)
    return PlayedEpisodes(obs, actions, truth, estimates, plans)


def _drawn_plans(start: np.ndarray, gain: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    shape = (len(start), PLANS, 2)
    scale = rng.choice(PLAN_NOISES, size=(*shape[:2], 1))
    scale[:, 0] = 0.0  # the regulator's own plan is among them
    offset, noise = scale * rng.standard_normal(shape), np.zeros(shape)
    state = np.repeat(start[:, None], PLANS, axis=1)
    plans = np.zeros((*shape[:2], HORIZON, 2), np.float32)
    for step in range(HORIZON):
        noise = coloured_noise(noise, rng)
        plans[:, :, step] = np.clip(-state @ gain.T + scale * noise + offset, -1, 1)
        state = mean_next_state(state, plans[:, :, step])
    return plans


def played_steps(source: str, environments: int, seed: int) -> Sequences:
    """Return what `filtered_steps` plays."""
    return filtered_steps(source, environments, seed)[0]


def filtered_steps(source: str, environments: int, seed: int) -> tuple[Sequences, torch.Tensor]:
    """Return 200 steps of each environment, and the filter's estimates before each, ``[T, E, 4]``.

    What ends early begins anew.

    Args:
        source: Who acts. "mixed": random play in the first half of the environments, `lqg` with noise in the others,
            whose actions tell what it has made of the observations. "excited": coloured noise, from whose first
            component the observed s0 is taken, so that no action tells of what is not observed. "both": that in the
            first half of the environments, `lqg` with noise in the others.
        environments: How many.
        seed: Of the actions.
    """
    rng = np.random.default_rng(seed)
    env = drift_control_v0.batched_env(environments, scenario="hidden")
    env.reset(np.arange(FIRST_SEED - environments, FIRST_SEED, dtype=np.uint64))
    policy, noise, half = LQGPolicy(env), np.zeros((environments, 1, 2)), environments // 2
    scale = rng.choice(NOISES, size=(environments, 1, 1))
    fresh = np.ones(environments, bool)
    steps: list[tuple[np.ndarray, ...]] = []
    estimates = []
    for _ in range(env.config.max_steps):
        noise = coloured_noise(noise, rng)
        obs = env.observe()[:, 0].copy()
        actions = policy.act() + scale * noise
        estimates.append(policy.mean.astype(np.float32))
        if source == MIXED:
            actions[:half] = rng.uniform(-1, 1, size=actions[:half].shape)
        else:
            chosen = slice(half if source == BOTH else None)
            actions[chosen] = noise[chosen]
            actions[chosen, 0, 0] -= obs[chosen, 0]
        actions = np.clip(actions, -1, 1).astype(np.float32)
        found = env.step(actions)
        terminated = found.terminated[:, 0].astype(np.float32)
        steps.append(
            (obs, env.observe()[:, 0].copy(), actions[:, 0], found.rewards[:, 0].copy(), terminated, fresh)
        )
        fresh = ~env.running
        env.reset(mask=fresh)
    obs, next_obs, actions, rewards, terminated, fresh = (
        torch.from_numpy(np.stack(rows)) for rows in zip(*steps, strict=True)
    )
    sequences = Sequences(obs, next_obs, actions, rewards, terminated, torch.ones_like(rewards), fresh)
    return sequences, torch.from_numpy(np.stack(estimates))
