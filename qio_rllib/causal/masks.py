"""Masks for factored world models: which inputs each prediction may depend on, found in transitions."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from qio_envs.api import ConfigError
from qio_rllib.causal.transitions import TESTS, TransitionGraph, transition_graph
from qio_rllib.mapping_settings import MappingSettings, is_number

CAUSAL_MASK = "causal_mask"
MASK, CONSISTENCY = "mask", "consistency"


@dataclasses.dataclass(frozen=True)
class SearchSettings(MappingSettings):
    """How causes are sought in transitions; base of settings that have it among others.

    Attributes:
        test: How causes are told: "regression" (nested regressions on products of inputs) or "information"
            (conditional mutual information, by networks that are trained masked; seconds in place of hundredths).
        alpha: Level of the test of a single cause, in (0, 1).
        degree: Of the products of inputs in regressions, 1 to 3.
        samples: Transitions that are tested at most, at least 10.
    """

    test: str = "regression"
    alpha: float = 0.001
    degree: int = 2
    samples: int = 5000

    def checks(self) -> list[tuple[str, str, bool]]:
        """Return of each setting its name, what is allowed, and whether that is what it holds."""
        return [
            ("test", " or ".join(TESTS), self.test in TESTS),
            ("alpha", "a number in (0, 1)", is_number(self.alpha) and 0 < self.alpha < 1),
            ("degree", "1, 2 or 3", type(self.degree) is int and 1 <= self.degree <= 3),
            ("samples", "an integer of at least 10", type(self.samples) is int and self.samples >= 10),
        ]


@dataclasses.dataclass(frozen=True)
class CausalMaskSettings(SearchSettings):
    """``training(causal_mask={...})``: an ensemble whose predictions depend on causes alone.

    Attributes:
        test: How causes are told: "regression" (nested regressions on products of inputs) or "information"
            (conditional mutual information, by networks that are trained masked; seconds in place of hundredths).
        alpha: Level of the test of a single cause, in (0, 1).
        degree: Of the products of inputs in regressions, 1 to 3.
        samples: Transitions of the agents' own that are tested at most, the newest, at least 10.
        interventions: Transitions that are gathered in a copy of the environment at each search, its state set at
            random before each of them; then these alone are tested, all so far. 0 for none.
        growth: The causes are sought when learning starts, and again whenever there are so many times as many
            environment steps, above 1.
        use: "mask", by which each target has networks of its own that see its causes alone, or "consistency", by which
            one network sees everything and its loss counts how predictions change with what is no cause of them.
        weight: Of that term of the loss, at least 0; only of "consistency".
    """

    key = CAUSAL_MASK

    interventions: int = 0
    growth: float = 2.0
    use: str = MASK
    weight: float = 1.0

    def checks(self) -> list[tuple[str, str, bool]]:
        """Return what is checked; see `SearchSettings`."""
        count = self.interventions
        return [
            *super().checks(),
            ("interventions", "an integer of at least 0", type(count) is int and count >= 0),
            ("growth", "a number above 1", is_number(self.growth) and self.growth > 1),
            ("use", f"{MASK} or {CONSISTENCY}", self.use in (MASK, CONSISTENCY)),
            ("weight", "a number of at least 0", is_number(self.weight) and self.weight >= 0),
        ]

    def searches(self, env_steps: int, first: int) -> int:
        """Return how many searches are due after so many environment steps, where learning starts after ``first``."""
        first = max(first, 1)
        if env_steps < first:
            return 0
        return 1 + math.floor(math.log(env_steps / first) / math.log(self.growth) + 1e-9)


def find_mask(
    obs: np.ndarray,
    actions: np.ndarray,
    next_obs: np.ndarray,
    rewards: np.ndarray,
    settings: SearchSettings,
    is_discrete: bool = False,
) -> np.ndarray:
    """Return which inputs each target depends on, the input mask of an `Ensemble`.

    Inputs that do not vary are no causes; targets that do not vary have none. Whether an episode goes on is taken to
    depend on what the reward depends on: ends are too rare to be tested. Networks of the test "information" begin from
    a fixed seed, so that the same transitions give the same mask.

    Args:
        obs: ``[n, D]``.
        actions: ``[n, A]``, one-hot where discrete.
        next_obs: ``[n, D]``.
        rewards: ``[n]``.
        settings: Levels and degree.
        is_discrete: Whether actions are one-hot.

    Returns:
        bool ``[D + 2, D + A]``: targets are next observation, reward and continuation.

    Raises:
        ConfigError: Collinear inputs, too few transitions, or numbers that are not finite; the message names the
            setting.
    """
    size, num_actions = obs.shape[1], actions.shape[1]
    inputs = np.concatenate([obs, actions], axis=1).astype(np.float64)
    targets = np.concatenate([next_obs - obs, rewards[:, None]], axis=1).astype(np.float64)
    varies, moves = _varies(inputs), _varies(targets)
    if is_discrete:
        varies[size:] = varies[size:].sum() > 1
    names = [*(f"obs[{i}]" for i in range(size)), *(f"action[{i}]" for i in range(num_actions))]
    mask = np.zeros((size + 2, size + num_actions), bool)
    if varies.any() and moves.any():
        try:
            found = _tested(
                inputs[:, varies],
                targets[:, moves],
                [name for name, one in zip(names, varies, strict=True) if one],
                settings,
                int(varies[size:].sum()) if is_discrete else 0,
            )
        except ConfigError as error:
            raise ConfigError(f"{settings.key}: {error}") from error
        mask[np.ix_(np.append(moves, False), varies)] = found.mask
    mask[-1] = mask[-2]
    return mask


def _tested(
    inputs: np.ndarray, targets: np.ndarray, names: list[str], settings: SearchSettings, num_one_hot: int
) -> TransitionGraph:
    alpha, degree = settings.alpha, settings.degree
    if settings.test == "regression":
        return transition_graph(inputs, targets, names, alpha=alpha, degree=degree, num_one_hot=num_one_hot)
    from qio_rllib.causal.information import information_graph  # torch

    return information_graph(inputs, targets, names, alpha=alpha, num_one_hot=num_one_hot)


def _varies(rows: np.ndarray) -> np.ndarray:
    still = rows.std(0) <= 1e-6 * np.maximum(np.abs(rows).max(0), 1e-6)
    return ~still  # numbers that are not finite vary, and are refused
