"""The figure of `rllib credit`: estimated against true advantages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from qio_rllib.evaluation.agreement import Agreement

_SINGLE, _MEAN, _LINE = "#e08e2b", "#1f6f8b", "#5b6470"
_COLUMNS = 3


def plot_credit(
    advantages: np.ndarray,
    errors: np.ndarray,
    estimates: Mapping[str, tuple[np.ndarray, np.ndarray]],
    agreements: Mapping[str, Agreement],
    path: str | Path,
    title: str = "",
) -> None:
    """Draw a panel for each estimator: its estimates of the taken actions against the true advantages.

    Without estimators the true advantages alone are drawn, in order.

    Args:
        advantages: ``[D]``.
        errors: Their standard errors, ``[D]``; two of them are drawn to either side.
        estimates: By estimator, those of the episode and the means over branches, ``[D]`` each.
        agreements: By estimator.
        path: The PNG file to write.
        title: Heading.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(estimates)
    columns = min(_COLUMNS, max(1, len(names)))
    rows = max(1, math.ceil(len(names) / columns))
    figure = Figure(figsize=(max(4.6, 3.5 * columns), 3.4 * rows + 0.7), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    spread = 2 * np.nan_to_num(errors)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e6e8eb", linewidth=0.8)
        axes.set_axisbelow(True)
    for axes, name in zip(grid.flat, names, strict=False):
        single, mean = estimates[name]
        one = agreements[name]
        low, high = _limits(advantages - spread, advantages + spread)
        axes.axline((0, 0), slope=1, color=_LINE, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.errorbar(
            advantages, single, xerr=spread, fmt="o", markersize=3.5, color=_SINGLE, ecolor="#f0cb9a",
            elinewidth=0.8, label="estimate of the episode",
        )  # fmt: skip
        axes.plot(advantages, mean, "D", markersize=3.5, color=_MEAN, label="its mean over branches")
        axes.set_xlim(low, high)
        axes.set_ylim(*_limits(single, mean, np.array([low, high])))
        parts = f"{one.systematic.value:.2g} systematic, {one.noise.value:.2g} noise"
        axes.set_title(f"{name}: error {one.rmse.value:.2g}\n{parts}", loc="left", fontsize=9)
        axes.set_xlabel("true advantage, ± 2 standard errors", fontsize=8)
        axes.set_ylabel("estimated advantage", fontsize=8)
        axes.tick_params(labelsize=8)
    for axes in list(grid.flat)[max(1, len(names)) :]:
        axes.set_visible(False)
    if names:
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    else:
        axes = grid[0, 0]
        order = np.argsort(advantages)
        axes.errorbar(
            np.arange(len(order)), advantages[order], yerr=spread[order], fmt="o", markersize=3.5, color=_MEAN,
            ecolor="#a9c9d3", elinewidth=0.8,
        )  # fmt: skip
        axes.axhline(0, color=_LINE, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.set_xlabel("decisions in order", fontsize=8)
        axes.set_ylabel("true advantage, ± 2 standard errors", fontsize=8)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    figure.savefig(path)


def _limits(*values: np.ndarray) -> tuple[float, float]:
    joined = np.concatenate([np.ravel(part) for part in values])
    low, high = float(joined.min()), float(joined.max())
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin
