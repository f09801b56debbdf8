"""The plots of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qio_rllib.artifacts.metrics import MODES, STEPS, score_column

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TRAINING, _ALPHA, _REFERENCE = "#9aa5b1", "#d1495b", "#5b6470"
_MODE_COLORS = {"greedy": "#1f6f8b", "sampled": "#e08e2b"}
_MODULE_COLORS = ("#1f6f8b", "#e08e2b", "#4c956c", "#8e5572", "#6c757d", "#2f4b7c", "#a05195", "#bc5090")
_LABELS = {
    "team_return": "team return",
    "episode_return_mean": "episode return, sum over agents and steps",
    "episode_return": "episode return, sum over agents and steps",
}


def plot_learning_curve(
    rows: Sequence[Mapping[str, float]],
    path: str | Path,
    references: Mapping[str, float] | None = None,
    title: str = "",
) -> bool:
    """Draw the return against environment steps: training, evaluations, and reference scores as lines.

    Args:
        rows: Those of ``progress.csv``.
        path: The PNG file to write.
        references: Scores of other policies by name.
        title: Heading.

    Returns:
        Whether there was something to draw.
    """
    columns = {column for row in rows for column in row}
    training = score_column(columns, "env_runners/")
    evaluations = {mode: score_column(columns, f"evaluation/{mode}/") for mode in MODES}
    if training is None and not any(evaluations.values()):
        return False
    figure, axes = new_figure(title)
    _draw(axes, rows, training, color=_TRAINING, label="training", linewidth=1.8)
    for mode, column in evaluations.items():
        _draw(
            axes,
            rows,
            column,
            color=_MODE_COLORS[mode],
            label=f"evaluation, {mode}",
            marker="o",
            markersize=4,
            linewidth=1.4,
        )
    _draw_references(axes, references or {})
    name = (training or next(filter(None, evaluations.values()))).rpartition("/")[2]
    axes.set_ylabel(label_of(name))
    finish_figure(figure, axes, path)
    return True


def plot_entropy(rows: Sequence[Mapping[str, float]], path: str | Path, title: str = "") -> bool:
    """Draw each module's normalised entropy (left axis) and entropy coefficient alpha (right axis, dashed).

    Args:
        rows: Those of ``progress.csv``.
        path: The PNG file to write.
        title: Heading.

    Returns:
        Whether there was something to draw.
    """
    columns = sorted({column for row in rows for column in row})
    entropies = [column for column in columns if column.endswith("/normalized_entropy")]
    alphas = [column for column in columns if column.startswith("learners/") and column.endswith("/alpha")]
    if not entropies and not alphas:
        return False
    figure, axes = new_figure(title)
    for index, column in enumerate(entropies):
        module = column.split("/")[1]
        color = _MODULE_COLORS[index % len(_MODULE_COLORS)]
        label = "normalised entropy" if len(entropies) == 1 else f"entropy, {module}"
        _draw(axes, rows, column, color=color, label=label, linewidth=1.8)
    axes.set_ylabel("normalised entropy")
    axes.set_ylim(-0.02, 1.02)
    if alphas:
        right = axes.twinx()
        right.spines[["top", "left"]].set_visible(False)
        for index, column in enumerate(alphas):
            color = _ALPHA if len(alphas) == 1 else _MODULE_COLORS[index % len(_MODULE_COLORS)]
            label = "alpha" if len(alphas) == 1 else f"alpha, {column.split('/')[1]}"
            _draw(right, rows, column, color=color, label=label, linewidth=1.6, linestyle="--")
        right.set_ylabel("entropy coefficient alpha")
        right.set_ylim(
            0, 1.08 * max(row[column] for column in alphas for row in rows if column in row) or 1.0
        )
        handles, labels = (
            a + b for a, b in zip(*(x.get_legend_handles_labels() for x in (axes, right)), strict=True)
        )
    else:
        handles, labels = axes.get_legend_handles_labels()
    finish_figure(figure, axes, path, handles, labels)
    return True


def new_figure(title: str, x_label: str = "environment steps") -> tuple[Figure, Axes]:
    """Return a figure that needs no display and no global state of pyplot, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(7.2, 4.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e8eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel(x_label)
    axes.set_title(title, loc="left", fontsize=10)
    return figure, axes


def _draw(axes: Axes, rows: Sequence[Mapping[str, float]], column: str | None, **style: Any) -> None:
    points = [(row[STEPS], row[column]) for row in rows if column in row and STEPS in row] if column else []
    if points:
        if len(points) == 1:
            style.setdefault("marker", "o")
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, **style)


def _draw_references(axes: Axes, references: Mapping[str, float]) -> None:
    """Draw a labelled horizontal line for each score; labels of near scores are stacked, not overlaid."""
    if not references:
        return
    for value in references.values():
        axes.axhline(value, color=_REFERENCE, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    low, high = axes.get_ylim()
    gap = 0.05 * (high - low)
    place = -np.inf
    for name, value in sorted(references.items(), key=lambda item: item[1]):
        place = max(value, place + gap)
        axes.annotate(
            name,
            xy=(1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=_REFERENCE,
        )


def label_of(metric: str) -> str:
    """Return what an axis calls a metric."""
    name = metric.removeprefix("env_runners/")
    return _LABELS.get(name, name)


def finish_figure(
    figure: Figure,
    axes: Axes,
    path: str | Path,
    handles: Any = None,
    labels: Any = None,
    columns: int = 4,
) -> None:
    """Put the legend below the axes, in so many columns at most, and write the figure."""
    if handles is None:
        handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=min(len(labels), columns),
            frameon=False,
            fontsize=8,
        )
    figure.savefig(path)
