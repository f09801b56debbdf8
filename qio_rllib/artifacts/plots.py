"""The plots of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from qio_rllib.artifacts.metrics import MODES, STEPS, score_column
from qio_rllib.artifacts.plot_style import (
    BOUND,
    DASHES,
    DOTS,
    LABEL_SIZE,
    MODE_COLORS,
    MODE_LABELS,
    PALETTE,
    TRAINING,
    Series,
    label_ends,
    new_figure,
    plot_series,
    steps_axis,
)

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
    """Draw the return against environment steps: training, evaluations, and scripted policies as lines.

    Args:
        rows: Those of ``progress.csv``.
        path: The PNG file to write.
        references: Scores of scripted policies by name.
        title: Heading.

    Returns:
        Whether there was something to draw.
    """
    columns = {column for row in rows for column in row}
    training = score_column(columns, "env_runners/")
    evaluations = {mode: score_column(columns, f"evaluation/{mode}/") for mode in MODES}
    found = [training, *evaluations.values()]
    if not any(found):
        return False
    series = [_series(rows, training, "training", TRAINING)] if training else []
    for mode, column in evaluations.items():
        if column:
            series.append(_series(rows, column, MODE_LABELS[mode], MODE_COLORS[mode], marked=True))
    name = next(filter(None, found)).rpartition("/")[2]
    scripted = {f"scripted: {policy}": value for policy, value in (references or {}).items()}
    note = "dots: evaluations" if any(evaluations.values()) else ""
    plot_series(series, path, label_of(name), scripted, title, note=note)
    return True


def plot_entropy(
    rows: Sequence[Mapping[str, float]], path: str | Path, title: str = "", floor: float | None = None
) -> bool:
    """Draw each module's normalised entropy (left axis) and entropy coefficient alpha (right axis, dashed).

    Args:
        rows: Those of ``progress.csv``.
        path: The PNG file to write.
        title: Heading.
        floor: Least normalised entropy that the policy can have, as ``amplification`` sets it by ``h_min``; is drawn as
            a dotted line. None where there is none.

    Returns:
        Whether there was something to draw.
    """
    columns = sorted({column for row in rows for column in row})
    entropies = [column for column in columns if column.endswith("/normalized_entropy")]
    alphas = [column for column in columns if column.startswith("learners/") and column.endswith("/alpha")]
    if not entropies and not alphas:
        return False
    figure, (axes,) = new_figure(title=title)
    steps_axis(axes)
    axes.set_ylabel("normalised entropy", fontsize=LABEL_SIZE)
    axes.set_ylim(-0.02, 1.02)
    labels: list[tuple[float, str, str]] = []
    for place, column in enumerate(entropies):
        name = "entropy" if len(entropies) == 1 else f"entropy, {column.split('/')[1]}"
        one = _series(rows, column, name, PALETTE[place % len(PALETTE)])
        axes.plot(one.steps, one.middle, color=one.color, label=name, linewidth=1.8, marker=_marker(one))
        labels.append((float(one.middle[-1]), name, str(one.color)))
    if floor is not None and entropies:
        axes.axhline(floor, color=BOUND, linewidth=1.4, linestyle=DOTS, label="entropy floor")
        labels.append((floor, f"floor h_min = {floor:g}", BOUND))
    if alphas:
        right = axes.twinx()
        right.spines[["top", "left"]].set_visible(False)
        right.set_ylabel("entropy coefficient alpha (dashed)", fontsize=LABEL_SIZE)
        highest = max(row[column] for column in alphas for row in rows if column in row)
        top = 1.08 * highest or 1.0
        right.set_ylim(-top * 0.02 / 1.02, top)
        right.tick_params(labelsize=8)
        for place, column in enumerate(alphas):
            color = TRAINING if len(alphas) == 1 else PALETTE[place % len(PALETTE)]
            name = "alpha" if len(alphas) == 1 else f"alpha, {column.split('/')[1]}"
            one = _series(rows, column, name, color)
            right.plot(
                one.steps,
                one.middle,
                color=color,
                label=name,
                linewidth=1.6,
                linestyle=DASHES,
                marker=_marker(one),
            )
            labels.append((-0.02 + 1.04 * _share(float(one.middle[-1]), top), name, color))
    label_ends(axes, labels, pad=52 if alphas else 5)
    figure.savefig(path)
    return True


def label_of(metric: str) -> str:
    """Return what an axis calls a metric."""
    name = metric.removeprefix("env_runners/")
    return _LABELS.get(name, name)


def _series(
    rows: Sequence[Mapping[str, float]], column: str, name: str, color: str, marked: bool = False
) -> Series:
    """Return a column over environment steps, as the curve of one run."""
    points = [(row[STEPS], row[column]) for row in rows if column in row and STEPS in row]
    steps, values = np.array(points, float).reshape(-1, 2).T
    return Series(name, steps, values, color=color, marked=marked)


def _marker(one: Series) -> str:
    return "o" if len(one.steps) == 1 else ""


def _share(alpha: float, top: float) -> float:
    """Return where a coefficient lies between the ends of the right axis, 0 to 1."""
    low = -top * 0.02 / 1.02
    return (alpha - low) / (top - low)
