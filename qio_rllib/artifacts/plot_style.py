"""The one style of all figures: sizes, colours by what is shown, curves with intervals, labels at the ends of lines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray

PALETTE = ("#1f6f8b", "#e08e2b", "#4c956c", "#8e5572", "#d1495b", "#2f4b7c", "#a05195", "#7f6a4d")
"""Colours of things that have none of their own, in the order in which they appear; then again from the first."""
TRAINING = "#7b8794"
"""Colour of returns of episodes that training sampled."""
MODE_COLORS: Mapping[str, str] = {"greedy": "#1f6f8b", "sampled": "#e08e2b"}
"""Colour of evaluations by mode."""
MODE_LABELS: Mapping[str, str] = {"greedy": "without exploration", "sampled": "sampled actions"}
"""Name of evaluations by mode; "greedy" alone is the name of a scripted policy."""
REFERENCE = "#5b6470"
"""Colour of scores of other policies, bounds and diagonals, which are dashed lines."""
EMPHASIS = "#1f6f8b"
"""Colour of what a figure is about, where all else is `REST`."""
REST = "#7b8794"
BOUND = "#d1495b"
"""Colour of limits that something cannot or shall not pass, which are dotted lines."""
GRID = "#e6e8eb"
DASHES = (0, (4, 3))
DOTS = (0, (1, 1.6))
TITLE_SIZE, LABEL_SIZE, TICK_SIZE = 10, 9, 8
"""Sizes of letters, points."""
DPI = 150
_BAND_OPACITY = 0.18
_LEAST_GAP = 1.25  # of two labels, in letters' heights


@dataclasses.dataclass(frozen=True)
class Series:
    """A curve with what is known of its spread.

    Attributes:
        name: What the curve is of; stands at its end.
        steps: Of its points, ``[T]``.
        middle: Its values, ``[T]``; NaN where there is none.
        low: Lower end of the interval, ``[T]``; None without interval.
        high: Upper end of the interval, ``[T]``; None without interval.
        seeds: Number of training runs behind it.
        statistic: What ``middle``, ``low`` and ``high`` are, such as "mean, least to greatest"; empty for one run.
        color: Its own; by default the next of `PALETTE`.
        marked: Whether each point is marked, as for values that are there at few steps only.
    """

    name: str
    steps: Array
    middle: Array
    low: Array | None = None
    high: Array | None = None
    seeds: int = 1
    statistic: str = ""
    color: str | None = None
    marked: bool = False


def new_figure(
    panels: int = 1, columns: int = 1, size: tuple[float, float] = (7.2, 4.2), title: str = "", **options: Any
) -> tuple[Figure, list[Axes]]:
    """Make a figure that needs no display and no global state of pyplot.

    Args:
        panels: Number of axes; places of the grid that are left over are hidden.
        columns: Of the grid.
        size: Width and height, inches.
        title: Heading: what is shown and on which environment.
        options: Of ``Figure.subplots``.

    Returns:
        The figure and its axes, in the style of all figures.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    found = list(figure.subplots(-(-panels // columns), columns, squeeze=False, **options).flat)
    for axes in found:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=TICK_SIZE)
        axes.xaxis.label.set_fontsize(LABEL_SIZE)
        axes.yaxis.label.set_fontsize(LABEL_SIZE)
    for axes in found[panels:]:
        axes.set_visible(False)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE_SIZE)
    return figure, found[:panels]


def draw_series(
    axes: Axes, series: Sequence[Series], references: Mapping[str, float] | None = None
) -> list[str]:
    """Draw curves with their intervals as bands, and scores of other policies as dashed lines, each named at its end.

    Args:
        axes: Of one panel.
        series: What to draw; those without a value are left out.
        references: Scores by name.

    Returns:
        Colours of the curves that were drawn, in their order.
    """
    labels: list[tuple[float, str, str]] = []
    colors = []
    for place, one in enumerate(series):
        there = ~np.isnan(np.asarray(one.middle, float))
        if not there.any():
            continue
        color = one.color or PALETTE[place % len(PALETTE)]
        colors.append(color)
        steps, middle = np.asarray(one.steps, float)[there], np.asarray(one.middle, float)[there]
        if one.low is not None and one.high is not None:
            low, high = (np.asarray(end, float)[there] for end in (one.low, one.high))
            axes.fill_between(steps, low, high, color=color, alpha=_BAND_OPACITY, linewidth=0)
        marker = "o" if one.marked or len(steps) == 1 else ""
        axes.plot(steps, middle, color=color, linewidth=1.8, marker=marker, markersize=4, label=one.name)
        labels.append((float(middle[-1]), one.name, color))
    for name, value in (references or {}).items():
        axes.axhline(value, color=REFERENCE, linewidth=1, linestyle=DASHES, zorder=1)
        labels.append((value, name, REFERENCE))
    label_ends(axes, labels)
    return colors


def label_ends(axes: Axes, labels: Sequence[tuple[float, str, str]], pad: float = 5) -> None:
    """Write names to the right of the axes, each beside its value; those of near values are stacked, not overlaid.

    To be called when everything is drawn: the limits of the y axis are fixed by it.

    Args:
        axes: What they belong to.
        labels: Value on the y axis, name and colour of each.
        pad: Points between the axes and the names.
    """
    if not labels:
        return
    axes.set_ylim(*axes.get_ylim())
    figure, place_in_grid = axes.get_figure(root=True), axes.get_subplotspec()
    assert figure is not None
    rows = 1 if place_in_grid is None else place_in_grid.get_gridspec().nrows
    # The axes take about 0.8 of their row of the grid; a letter is TICK_SIZE / 72 inches high.
    height = 0.8 * float(figure.get_figheight()) / rows
    gap = _LEAST_GAP * TICK_SIZE / 72 / height
    to_axes = axes.transData + axes.transAxes.inverted()
    ordered = sorted(labels, key=lambda label: label[0])
    wanted = [float(to_axes.transform((0, value))[1]) for value, *_ in ordered]
    for place, (_, name, color) in zip(spread(wanted, gap), ordered, strict=True):
        axes.annotate(
            name,
            xy=(1.0, place),
            xycoords="axes fraction",
            xytext=(pad, 0),
            textcoords="offset points",
            va="center",
            fontsize=TICK_SIZE,
            color=color,
        )


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Return ascending places, moved as little as need be so that neighbours are ``gap`` apart at least."""
    groups: list[list[float]] = []  # sum of what their first members want, number of members
    for index, place in enumerate(places):
        groups.append([place - gap * index, 1])
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] > groups[-1][0] / groups[-1][1]:
            total, count = groups.pop()
            groups[-1][0] += total
            groups[-1][1] += count
    starts = [total / count for total, count in groups for _ in range(int(count))]
    return [start + gap * index for index, start in enumerate(starts)]


def describe_seeds(series: Sequence[Series]) -> str:
    """Return how many seeds and which interval curves show: "5 seeds (mean, least to greatest)"; empty for one run."""
    texts = {
        one.name: f"{one.seeds} seed{'s' if one.seeds != 1 else ''}"
        + (f" ({one.statistic})" if one.statistic else "")
        for one in series
        if one.seeds > 1 or one.statistic
    }
    if len(set(texts.values())) <= 1 and len(texts) in (0, len({one.name for one in series})):
        return next(iter(texts.values()), "")
    return "; ".join(f"{name}: {text}" for name, text in texts.items())


def steps_axis(axes: Axes, label: str = "environment steps") -> None:
    """Name an x axis of counts, with 20k for 20,000."""
    from matplotlib.ticker import EngFormatter

    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel(label, fontsize=LABEL_SIZE)


def plot_series(
    series: Sequence[Series],
    path: str | Path,
    ylabel: str,
    references: Mapping[str, float] | None = None,
    title: str = "",
    xlabel: str = "environment steps",
    note: str = "",
) -> None:
    """Draw curves over environment steps in one panel.

    Seeds and interval are named above the panel, the curves at their ends.

    Args:
        series: What to draw, one at least with a value.
        path: The PNG file to write.
        ylabel: What the values are.
        references: Scores of other policies by name.
        title: What is shown and on which environment.
        xlabel: What the steps are.
        note: What else has to be said of the curves, above the panel.
    """
    figure, (axes,) = new_figure(title=title)
    note = "; ".join(filter(None, [describe_seeds(series), note]))
    if note:
        axes.set_title(note, loc="left", fontsize=TICK_SIZE, color=REFERENCE)
    steps_axis(axes, xlabel)
    axes.set_ylabel(ylabel, fontsize=LABEL_SIZE)
    draw_series(axes, series, references)
    figure.savefig(path)


def legend_below(figure: Figure, handles: Sequence[Any], labels: Sequence[str], columns: int = 4) -> None:
    """Put one entry for each label below the panels, for what has no end to stand at."""
    unique = dict(zip(labels, handles, strict=True))
    if unique:
        figure.legend(
            list(unique.values()),
            list(unique),
            loc="outside lower center",
            ncols=min(len(unique), columns),
            frameon=False,
            fontsize=TICK_SIZE,
        )
