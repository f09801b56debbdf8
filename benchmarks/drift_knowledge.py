"""What a model of drift control knows of what is hidden, and how well it rates plans, for `planning_parts.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from drift_play import EPISODES, GAMMA, PLANNED, PLANS, STEPS, PlayedEpisodes, true_returns

from qio_envs.drift_control import DriftControlConfig
from qio_rllib.artifacts.run_description import cpu_model
from qio_rllib.world_models.model import WorldModel

RIDGE = 0.1  # added to the diagonal of a read-out's normal equations


def known(world_model: WorldModel, data: PlayedEpisodes) -> list[dict[str, Any]]:
    """Return what a model knows, a row for each step."""
    rows, fitted = [], slice(None, EPISODES // 2)
    states = _observed(world_model, data)
    features = world_model.features(states).numpy()
    everywhere = _read_out(
        features[1:, fitted].reshape(-1, features.shape[-1]), data.estimates[1:, fitted].reshape(-1, 4)
    )
    for step in STEPS:
        found = _filter_errors(features[step], data.truth[step], data.estimates[step])
        found |= _ratings(world_model, states[step, :PLANNED], data, step, everywhere)
        rounded = {name: round(float(value), 4) for name, value in found.items()}
        rows.append({"step": step, **rounded, "cpu": cpu_model()})
    return rows


def _filter_errors(features: np.ndarray, truth: np.ndarray, estimates: np.ndarray) -> dict[str, float]:
    """Return errors of s1 and s2, read out of the model's features and of the filter."""
    half = len(features) // 2
    read = _with_constant(features[half:]) @ _read_out(features[:half], truth[:half])
    return {
        f"{name}_{source}": float(np.sqrt(((values - truth[half:])[:, k] ** 2).mean()))
        for source, values in (("model", read), ("ekf", estimates[half:]))
        for k, name in ((1, "s1"), (2, "s2"))
    }


def _ratings(
    world_model: WorldModel, states: torch.Tensor, data: PlayedEpisodes, step: int, everywhere: np.ndarray
) -> dict[str, float]:
    """Return how well plans are rated, and what actions do to the components that are read out at their end."""
    half, action_cost = PLANNED // 2, DriftControlConfig().action_cost
    plans = data.plans[step]
    true, reached = true_returns(data.estimates[step, :PLANNED], plans.astype(np.float64), action_cost)
    ratings = {"observed": np.zeros((half, PLANS)), "imagined": np.zeros((half, PLANS))}
    for h, imagined in enumerate(_imagined(world_model, states, torch.from_numpy(plans))):
        own = _read_out(imagined[:half].reshape(-1, imagined.shape[-1]), reached[:half, :, h].reshape(-1, 4))
        rows, paid = _with_constant(imagined[half:]), action_cost * (plans[half:, :, h] ** 2).sum(-1)
        read_out = {"observed": rows @ everywhere, "imagined": rows @ own}
        for name, components in read_out.items():
            ratings[name] -= GAMMA**h * ((components**2).sum(-1) + paid)
    ratings["model"] = world_model.returns(states, torch.from_numpy(plans), GAMMA).numpy()[half:]
    effects = _slopes(read_out["observed"], reached[half:, :, -1])
    found = {f"effect_s{k}": float(effects[k]) for k in range(3)}
    for name in ("model", "observed", "imagined"):
        found[f"correlation_{name}"] = correlation(ratings[name], true[half:])
        found[f"regret_{name}"] = regret(ratings[name], true[half:])
    return found


def _read_out(states: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the matrix of a linear read-out with a constant, ``[S + 1, 4]``."""
    rows = _with_constant(states)
    return np.linalg.solve(rows.T @ rows + RIDGE * np.eye(rows.shape[1]), rows.T @ targets)


def _with_constant(states: np.ndarray) -> np.ndarray:
    return np.concatenate([states, np.ones((*states.shape[:-1], 1))], axis=-1).astype(np.float64)


def _observed(model: WorldModel, data: PlayedEpisodes) -> torch.Tensor:
    """Return the model's states, ``[T, E, S]``."""
    state, action = torch.zeros(EPISODES, model.state_size), torch.zeros(EPISODES, model.num_actions)
    found = []
    for step in range(len(data.obs)):
        state = model.observe(state, action, torch.from_numpy(data.obs[step]))
        action = torch.from_numpy(data.actions[step])
        found.append(state)
    return torch.stack(found)


def _imagined(model: WorldModel, start: torch.Tensor, plans: torch.Tensor) -> Iterator[np.ndarray]:
    """Yield the features after each step of plans, ``[E, N, F]``."""
    state = start[:, None].expand(-1, plans.shape[1], -1).flatten(0, 1)
    for step in range(plans.shape[2]):
        state = model.step(state, plans[:, :, step].flatten(0, 1)).state
        yield model.features(state).unflatten(0, plans.shape[:2]).numpy()


def _within(values: np.ndarray) -> np.ndarray:
    """Return deviations from the mean over the plans of one start."""
    return values - values.mean(axis=1, keepdims=True)


def _slopes(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return slopes of components ``[E, N, 4]`` on the true ones over the plans of one start, ``[4]``."""
    return (_within(found) * _within(true)).sum((0, 1)) / (_within(true) ** 2).sum((0, 1))


def correlation(ratings: np.ndarray, true: np.ndarray) -> float:
    """Return the correlation of ratings ``[E, N]`` with true returns over the plans of one start."""
    first, second = _within(ratings), _within(true)
    return float((first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum()))


def regret(ratings: np.ndarray, true: np.ndarray) -> float:
    """Return what the best rated plans lose in comparison with the best, of ratings ``[E, N]``."""
    taken = np.take_along_axis(true, ratings.argmax(axis=1)[:, None], axis=1)[:, 0]
    return float((true.max(axis=1) - taken).mean())
