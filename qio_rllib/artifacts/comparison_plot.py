"""Learning curves of groups of runs in one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from qio_rllib.artifacts.plot_style import Series, plot_series
from qio_rllib.artifacts.plots import label_of
from qio_rllib.evaluation.aggregate import Summary

_POINTS = 200  # at which the curves of a group are summed up
_RESAMPLES = 500

Curve = Sequence[tuple[float, float]]


def plot_comparison(
    groups: Mapping[str, Sequence[Curve]], path: str | Path, x_label: str, metric: str, title: str = ""
) -> None:
    """Draw each group's mean (from 10 runs on the interquartile mean) with its band.

    The band reaches from the least to the greatest, or is the 95% interval; it ends where the shortest run does. A
    group of one run is its curve.

    Args:
        groups: Points (x, value) of each run, by label of the group; runs without points are left out.
        path: The file to write; its ending says in which format.
        x_label: Of the horizontal axis.
        metric: Name of the values.
        title: Heading.
    """
    series = []
    for label, curves in groups.items():
        drawn = [np.asarray(curve, float).T for curve in curves if len(curve)]
        if drawn:
            series.append(_series_of(label, drawn))
    plot_series(series, path, label_of(metric), title=title, xlabel=x_label)


def _series_of(label: str, curves: Sequence[np.ndarray]) -> Series:
    """Sum up the curves ``[2, T]`` of a group."""
    if len(curves) == 1:
        ((x, y),) = curves
        return Series(label, x, y)
    start, end = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    at = np.linspace(start, max(start, end), _POINTS)
    values = np.stack([np.interp(at, x, y) for x, y in curves], axis=1)
    found = [Summary.of(each, resamples=_RESAMPLES) for each in values]
    score, low, high = (np.array([getattr(one, end) for one in found]) for end in ("score", "low", "high"))
    return Series(label, at, score, low, high, len(curves), found[0].statistic)
