"""Learning curves of groups of runs in one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from qio_rllib.artifacts.plots import finish_figure, label_of, new_figure
from qio_rllib.evaluation.aggregate import Summary

_COLORS = ("#1f6f8b", "#e08e2b", "#4c956c", "#8e5572", "#d1495b", "#2f4b7c", "#a05195", "#6c757d")
_POINTS = 200  # at which the curves of a group are summed up
_RESAMPLES = 500

Curve = Sequence[tuple[float, float]]


def plot_comparison(
    groups: Mapping[str, Sequence[Curve]], path: str | Path, x_label: str, metric: str
) -> None:
    """Draw each group's mean (from 10 runs on the interquartile mean) with its band, and its runs as thin lines.

    The band reaches from the least to the greatest, or is the 95% interval; it ends where the shortest run does.

    Args:
        groups: Points (x, value) of each run, by label of the group; runs without points are left out.
        path: The file to write; its ending says in which format.
        x_label: Of the horizontal axis.
        metric: Name of the values.
    """
    figure, axes = new_figure("", x_label)
    for index, (label, curves) in enumerate(groups.items()):
        color = _COLORS[index % len(_COLORS)]
        drawn = [np.asarray(curve, float).T for curve in curves if len(curve)]
        if not drawn:
            continue
        for x, y in drawn:
            marker = "o" if len(x) == 1 else None
            axes.plot(x, y, color=color, alpha=0.3 if len(drawn) > 1 else 1.0, linewidth=0.8, marker=marker)
        if len(drawn) == 1:
            axes.plot([], [], color=color, linewidth=2, label=f"{label} (1 run)")
            continue
        start, end = max(x[0] for x, _ in drawn), min(x[-1] for x, _ in drawn)
        at = np.linspace(start, max(start, end), _POINTS)
        values = np.stack([np.interp(at, x, y) for x, y in drawn], axis=1)
        found = [Summary.of(each, resamples=_RESAMPLES) for each in values]
        axes.fill_between(
            at, [s.low for s in found], [s.high for s in found], color=color, alpha=0.18, linewidth=0
        )
        text = f"{label} ({len(drawn)} runs, {found[0].statistic})"
        axes.plot(at, [s.score for s in found], color=color, linewidth=2, label=text)
    axes.set_ylabel(label_of(metric))
    finish_figure(figure, axes, path, columns=1)
