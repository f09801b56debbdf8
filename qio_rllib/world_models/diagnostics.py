"""How good a world model is: its predictions without observations, and whether its uncertainty is honest."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from qio_rllib.world_models.ensemble import Ensemble
from qio_rllib.world_models.episodes import Episodes, filtered_states
from qio_rllib.world_models.model import WorldModel, by_candidate, by_row

Array = np.ndarray

BAND = (0.1, 0.9)
"""Quantiles over rows between which the band of an error lies."""
LEVELS = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))
"""Probabilities of the central intervals."""
NUM_BINS = 10
"""Bins of equal width for predicted probabilities of going on."""


class Band(NamedTuple):
    """An error over rows at each step of the horizon; NaN where no row is left."""

    mean: Array  # float64 [H]
    low: Array  # the 10% quantile, float64 [H]
    high: Array  # the 90% quantile, float64 [H]


@dataclasses.dataclass(frozen=True)
class OpenLoop:
    """Predictions over ``H`` steps without observations, for ``R`` rows: each start in each sequence.

    An error of an observation is the root mean square over its components, of a reward the absolute difference, each
    in units of the data's standard deviations. Persistence predicts what was seen last before the horizon.

    Attributes:
        starts: Step after whose observation each row predicts, int64 ``[R]``.
        sequences: Sequence of each row, int64 ``[R]``.
        counted: Whether the row's episode had this step, bool ``[H, R]``; the step that ends an episode counts.
        predicted: Observations, float32 ``[H, R, D]``.
        predicted_rewards: float32 ``[H, R]``.
        obs: Errors of the observations, float32 ``[H, R]``, NaN where not counted; so are those that follow.
        reward: Errors of the rewards.
        obs_persistence: Errors of persistence.
        reward_persistence: Likewise of the rewards.
    """

    starts: Array
    sequences: Array
    counted: Array
    predicted: Array
    predicted_rewards: Array
    obs: Array
    reward: Array
    obs_persistence: Array
    reward_persistence: Array

    def band(self, name: str) -> Band:
        """Return mean and band of an error by its name: obs, reward, obs_persistence or reward_persistence."""
        errors = getattr(self, name).astype(np.float64)
        found = np.full((3, len(errors)), np.nan)
        for step, (values, counted) in enumerate(zip(errors, self.counted, strict=True)):
            if counted.any():
                kept = values[counted]
                found[:, step] = kept.mean(), *np.quantile(kept, BAND)
        return Band(*found)

    def rows(self) -> list[dict[str, float]]:
        """Return a row a step: ``step`` from 1, the number of ``rows``, and mean, low and high of each error."""
        names = ("obs", "obs_persistence", "reward", "reward_persistence")
        bands = {name: self.band(name) for name in names}
        return [
            {"step": step + 1, "rows": int(self.counted[step].sum())}
            | {
                f"{name}_error_{part}": float(getattr(band, part)[step])
                for name, band in bands.items()
                for part in Band._fields
            }
            for step in range(len(self.counted))
        ]


@torch.no_grad()
def open_loop_errors(
    model: WorldModel,
    episodes: Episodes,
    start: int | Sequence[int],
    horizon: int,
    generator: torch.Generator | None = None,
    num_draws: int = 1,
) -> OpenLoop:
    """Let a model follow real sequences up to a step, then predict from the actions alone, and compare.

    Args:
        model: The model.
        episodes: What really happened.
        start: The model sees the observations up to this step, at least 1 (so that there is a last reward, with which
            persistence predicts); or several such steps, each of which gives rows of its own.
        horizon: Steps to predict ``H``, at least 1.
        generator: Source of draws; None predicts means.
        num_draws: With a generator, rollouts whose mean is the prediction, at least 1.

    Raises:
        ValueError: A number outside its range, sequences shorter than start + horizon, no episode that goes on after a
            start, or a model for observations or actions of another size.
    """
    starts = [start] if isinstance(start, int) else [int(step) for step in start]
    _check_sizes(model, episodes)
    length, count = episodes.rewards.shape
    if not starts or min(starts) < 1:
        raise ValueError(f"start: expected steps of at least 1, got {start}")
    if horizon < 1:
        raise ValueError(f"horizon: expected at least 1 step, got {horizon}")
    if num_draws < 1 or (num_draws > 1 and generator is None):
        raise ValueError(f"num_draws: expected at least 1, and more than 1 with a generator, got {num_draws}")
    if max(starts) + horizon > length:
        raise ValueError(
            f"horizon: start {max(starts)} + horizon {horizon} is more than the {length} steps of the sequences"
        )
    states = filtered_states(model, episodes, max(starts))

    def window(values: torch.Tensor, shift: int = 0) -> torch.Tensor:
        """Return the horizon's part of ``[T, B, ...]``, ``[H, R, ...]``."""
        return torch.cat([values[step + shift : step + shift + horizon] for step in starts], dim=1)

    def before(values: torch.Tensor, shift: int = 0) -> torch.Tensor:
        """Return the last entry before the horizon, ``[R, ...]``."""
        return torch.cat([values[step - shift] for step in starts])

    actions, counted = window(episodes.actions), window(episodes.present)
    if not counted[0].any():
        raise ValueError(f"start: no episode goes on after step {min(starts)}")
    agents = episodes.agents
    present = by_candidate(before(states), num_draws, agents)
    observed, rewarded = [], []
    for step in range(horizon):
        action, others = by_candidate(actions[step], num_draws, agents), None
        if model.sees_others:
            here = by_candidate(counted[step], num_draws, agents).unflatten(0, (-1, agents))
            others = model.attend(present, action, here)
        found = model.step(present, action, generator, others)
        present = found.state
        observed.append(by_row(model.decode(present), num_draws, agents).mean(1))
        rewarded.append(by_row(found.rewards, num_draws, agents).mean(1))
    predicted, rewards = torch.stack(observed), torch.stack(rewarded)
    real, real_rewards = window(episodes.obs, 1), window(episodes.rewards)
    scale, reward_scale = episodes.deviation, episodes.reward_deviation

    def errors(difference: torch.Tensor) -> Array:
        return (difference / scale).square().mean(-1).sqrt().masked_fill(~counted, torch.nan).numpy()

    def reward_errors(difference: torch.Tensor) -> Array:
        return (difference / reward_scale).abs().masked_fill(~counted, torch.nan).numpy()

    return OpenLoop(
        starts=np.repeat(starts, count),
        sequences=np.tile(np.arange(count), len(starts)),
        counted=counted.numpy(),
        predicted=predicted.numpy(),
        predicted_rewards=rewards.numpy(),
        obs=errors(predicted - real),
        reward=reward_errors(rewards - real_rewards),
        obs_persistence=errors(before(episodes.obs) - real),
        reward_persistence=reward_errors(before(episodes.rewards, 1) - real_rewards),
    )


class Reliability(NamedTuple):
    """Predicted probabilities of going on beside what happened, by bins that hold a transition."""

    predicted: Array  # mean prediction, float64 [n]
    observed: Array  # share that went on, float64 [n]
    transitions: Array  # in the bin, int64 [n]


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How often what happened lay inside the intervals that a model predicted one step ahead.

    Attributes:
        components: Components of the observation that vary in the data, int64 ``[V]``; the others are left out.
        obs_shares: Share of next observations inside the central p-interval for each of `LEVELS`, by varying component,
            float64 ``[P, V]``. Calibrated: p. Smaller: the model is too sure; larger: not sure enough.
        reward_shares: Likewise of the rewards, float64 ``[P]``; NaN where all rewards are equal.
        continuation: Of the probability that the episode goes on.
        count: Transitions.
    """

    components: Array
    obs_shares: Array
    reward_shares: Array
    continuation: Reliability
    count: int

    @property
    def obs_error(self) -> float:
        """Expected calibration error: mean over levels and components of abs(share - p); NaN if nothing varies."""
        return _mean_or_nan(np.abs(self.obs_shares - np.array(LEVELS)[:, None]))

    @property
    def reward_error(self) -> float:
        """Likewise of the rewards."""
        return _mean_or_nan(np.abs(self.reward_shares - np.array(LEVELS)))

    @property
    def continuation_error(self) -> float:
        """Mean over transitions of abs(predicted - observed) of their bins."""
        predicted, observed, count = self.continuation
        return float((np.abs(predicted - observed) * count).sum() / count.sum())

    def rows(self) -> list[dict[str, Any]]:
        """Return rows of ``quantity``, ``expected``, ``observed`` and ``count``, the number of transitions.

        Quantities are obs (mean over the components), obs[0] and so on, reward, and continuation, whose ``expected`` is
        the mean prediction in a bin and ``observed`` the share that went on.
        """
        columns: dict[str, Array] = {}
        if len(self.components):
            columns["obs"] = self.obs_shares.mean(1)
            columns |= {
                f"obs[{component}]": self.obs_shares[:, place]
                for place, component in enumerate(self.components)
            }
        if not np.isnan(self.reward_shares).any():
            columns["reward"] = self.reward_shares
        found = [
            {"quantity": name, "expected": level, "observed": float(share), "count": self.count}
            for name, shares in columns.items()
            for level, share in zip(LEVELS, shares, strict=True)
        ]
        return found + [
            {
                "quantity": "continuation",
                "expected": float(predicted),
                "observed": float(observed),
                "count": int(count),
            }
            for predicted, observed, count in zip(*self.continuation, strict=True)
        ]


@torch.no_grad()
def calibration(
    model: WorldModel, episodes: Episodes, generator: torch.Generator | None = None, num_draws: int = 100
) -> Calibration:
    """Compare a model's distributions one step ahead with what happened, over all transitions of all episodes.

    Without a generator the model is an `Ensemble`, whose intervals are those of the mixture of its members' Gaussians,
    exactly. With one they come from draws of `WorldModel.step` and `WorldModel.drawn_obs`, for any model. A reward is
    drawn as the mean that a drawn state predicts.

    Args:
        model: The model.
        episodes: What really happened.
        generator: Source of draws.
        num_draws: Draws a transition, at least 1; with few of them the shares are as right, and noisier.

    Raises:
        ValueError: No generator for another model than an `Ensemble`, ``num_draws`` below 1, no transition, or a model
            for observations or actions of another size.
    """
    _check_sizes(model, episodes)
    if num_draws < 1:
        raise ValueError(f"num_draws: expected at least 1, got {num_draws}")
    if not episodes.present.any():
        raise ValueError("episodes: there is no transition")
    here = episodes.present.unflatten(1, (-1, episodes.agents))
    together = here.any(-1)  # steps of environments, [T, E]
    here = here[together]

    def joint(values: torch.Tensor) -> torch.Tensor:
        """Return the rows of ``[T, B, ...]`` that are compared, all agents of an environment one after another."""
        return values.unflatten(1, (-1, episodes.agents))[together].flatten(0, 1)

    states = joint(filtered_states(model, episodes, len(episodes.present) - 1))
    actions = joint(episodes.actions)
    real = joint(torch.cat([episodes.obs[1:], episodes.rewards.unsqueeze(-1)], dim=-1))
    others = model.attend(states, actions, here) if model.sees_others else None
    if generator is not None:
        ranks, goes_on = _drawn_ranks(model, states, actions, real, generator, num_draws, others)
    elif isinstance(model, Ensemble):
        ranks, goes_on = _mixture_ranks(model, states, actions, real, others)
    else:
        raise ValueError(f"generator: a {type(model).__name__} has no closed form, draws need a generator")
    kept = here.flatten()
    ranks, goes_on = ranks[kept], goes_on[kept]
    # The central p-interval holds what lies between the quantiles (1 - p) / 2 and (1 + p) / 2.
    offcentre = (2.0 * ranks - 1.0).abs().double().numpy()
    shares = np.stack([(offcentre <= level).mean(0) for level in LEVELS])
    components = torch.nonzero(episodes.varies).flatten().numpy()
    reward_shares = shares[:, -1] if episodes.rewards_vary else np.full(len(LEVELS), np.nan)
    return Calibration(
        components=components,
        obs_shares=shares[:, components],
        reward_shares=reward_shares,
        continuation=_reliability(goes_on, ~joint(episodes.terminated)[kept]),
        count=len(ranks),
    )


def _mixture_ranks(
    model: Ensemble,
    obs: torch.Tensor,
    actions: torch.Tensor,
    real: torch.Tensor,
    others: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the distribution function at what happened ``[rows, D + 1]``, and probabilities of going on."""
    members = model.members
    mean, log_variance, logits = model.predictions(
        obs.expand(members, *obs.shape), actions.expand(members, *actions.shape), others
    )
    change = torch.cat([real[:, :-1] - obs, real[:, -1:]], dim=-1)
    places = (model.target_scale(change) - mean) * (-0.5 * log_variance).exp()
    return torch.special.ndtr(places).mean(0), torch.sigmoid(logits).mean(0)


def _drawn_ranks(
    model: WorldModel,
    states: torch.Tensor,
    actions: torch.Tensor,
    real: torch.Tensor,
    generator: torch.Generator,
    num_draws: int,
    others: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what `_mixture_ranks` does, from draws.

    Among ``n`` draws of its own distribution a number has each of ``n + 1`` places alike; a uniform number within the
    place (and among equal draws) makes that uniform on [0, 1] for any ``n``.
    """
    below, equal = torch.zeros_like(real), torch.zeros_like(real)
    goes_on = torch.zeros(len(real), dtype=torch.float64)
    for _ in range(num_draws):
        found = model.step(states, actions, generator, others)
        obs = model.drawn_obs(found.state, generator)
        drawn = torch.cat([obs, found.rewards.unsqueeze(-1)], dim=-1)
        below += drawn < real
        equal += drawn == real
        goes_on += found.continuation
    within = torch.rand(real.shape, generator=generator)
    return (below + within * (equal + 1.0)) / (num_draws + 1), goes_on / num_draws


def _reliability(goes_on: torch.Tensor, went_on: torch.Tensor) -> Reliability:
    predicted, observed = goes_on.double().numpy(), went_on.double().numpy()
    bins = np.minimum((predicted * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    count = np.bincount(bins, minlength=NUM_BINS)
    held = count > 0
    sums = [np.bincount(bins, values, NUM_BINS)[held] for values in (predicted, observed)]
    return Reliability(sums[0] / count[held], sums[1] / count[held], count[held])


def _check_sizes(model: WorldModel, episodes: Episodes) -> None:
    for name, have, wanted in (
        ("obs", episodes.obs.shape[-1], model.obs_size),
        ("actions", episodes.actions.shape[-1], model.num_actions),
    ):
        if have != wanted:
            raise ValueError(f"{name}: the model takes {wanted} numbers, got {have}")


def _mean_or_nan(values: Array) -> float:
    return float(values.mean()) if values.size else float("nan")
