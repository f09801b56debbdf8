"""The figure of `rllib credit`: estimated against true advantages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qio_rllib.artifacts.plot_style import DASHES, GRID, PALETTE, REFERENCE, legend_below, new_figure
from qio_rllib.evaluation.advantages import TrueAdvantages, mean_over_policy
from qio_rllib.evaluation.agreement import Agreement

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SINGLE, _MEAN = PALETTE[1], PALETTE[0]
_PARTS = ("offset", "distortion", "noise")


def plot_credit(
    truth: TrueAdvantages,
    taken: np.ndarray,
    estimates: Mapping[str, np.ndarray],
    agreements: Mapping[str, Agreement],
    path: str | Path,
    title: str = "",
) -> None:
    """Draw a panel for each estimator: its estimates against the true advantages.

    Shown are the estimates that the episodes gave of the actions taken, and of all actions the means over branches less
    the state's offset. Without estimators the true advantages of the actions taken are drawn alone, in order.

    Args:
        truth: ``D`` decisions, ``A`` actions.
        taken: Index of the action of each decision, int ``[D]``.
        estimates: By estimator, ``[D, A, 1 + B]``, as `Agreement.of` takes them.
        agreements: By estimator.
        path: The PNG file to write.
        title: Heading.
    """
    columns = min(2, max(1, len(estimates)))
    rows = max(1, math.ceil(len(estimates) / columns))
    size = max(7.2, 4.6 * columns), 3.5 * rows + 0.9
    figure, grid = new_figure(max(1, len(estimates)), columns, size, title)
    for axes in grid:
        axes.grid(axis="x", color=GRID, linewidth=0.8)
    for axes, (name, values) in zip(grid, estimates.items(), strict=False):
        _draw_estimator(axes, truth, taken, values)
        one = agreements[name]
        parts = ", ".join(f"{label} {_short(getattr(one, label).value)}" for label in _PARTS)
        axes.set_title(f"{name}: error {_short(one.rmse.value)}\n{parts}", loc="left", fontsize=9)
    if estimates:
        legend_below(figure, *grid[0].get_legend_handles_labels(), columns=1)
    else:
        _draw_truth(grid[0], truth, taken)
    figure.savefig(path)


def _draw_estimator(axes: Axes, truth: TrueAdvantages, taken: np.ndarray, values: np.ndarray) -> None:
    every = np.arange(len(taken))
    single = values[every, taken, 0]
    means = values[..., 1:].mean(axis=-1)
    means = means - mean_over_policy(means, truth.probabilities)[:, None]
    axes.axline((0, 0), slope=1, color=REFERENCE, linewidth=1, linestyle=DASHES, zorder=1)
    axes.errorbar(
        truth.advantages[every, taken], single, xerr=2 * np.nan_to_num(truth.errors[every, taken]), fmt="o",
        markersize=3.5, color=_SINGLE, ecolor="#f0cb9a", elinewidth=0.8, zorder=4,
        label="estimate that the episode gave of the action taken (± 2 standard errors of the truth)",
    )  # fmt: skip
    legal = ~np.isnan(truth.advantages)
    axes.plot(
        truth.advantages[legal], means[legal], "D", markersize=2.5, color=_MEAN, alpha=0.6, zorder=3,
        label="mean over branches less the state's offset, all actions",
    )  # fmt: skip
    axes.set_xlabel("true advantage", fontsize=8)
    axes.set_ylabel("estimated advantage", fontsize=8)


def _draw_truth(axes: Axes, truth: TrueAdvantages, taken: np.ndarray) -> None:
    every = np.arange(len(taken))
    advantages, errors = truth.advantages[every, taken], np.nan_to_num(truth.errors[every, taken])
    order = np.argsort(advantages)
    axes.errorbar(
        every, advantages[order], yerr=2 * errors[order], fmt="o", markersize=3.5, color=_MEAN, ecolor="#a9c9d3",
        elinewidth=0.8,
    )  # fmt: skip
    axes.axhline(0, color=REFERENCE, linewidth=1, linestyle=DASHES, zorder=1)
    axes.set_xlabel("decisions in order", fontsize=8)
    axes.set_ylabel("true advantage, ± 2 standard errors", fontsize=8)


def _short(value: float) -> str:
    """Return two digits; what rounding leaves of 0 is 0."""
    return f"{round(value, 6):.2g}"
