"""The plot of a run's losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from qio_rllib.artifacts.metrics import STEPS

_COLORS = ("#1f6f8b", "#e08e2b", "#4c956c", "#8e5572", "#6c757d", "#2f4b7c", "#a05195", "#bc5090")
_UPDATES = "updates_lifetime"
_PANELS_IN_A_ROW = 3


def plot_losses(rows: Sequence[Mapping[str, float]], path: str | Path, title: str = "") -> bool:
    """Draw each loss in a panel of its own, with a line for each module.

    The x axis is gradient steps where each row with a loss says how many there were, else environment steps.

    Args:
        rows: Those of ``pretraining.csv``, if any, and of ``progress.csv``.
        path: The PNG file to write.
        title: Heading.

    Returns:
        Whether there was something to draw.
    """
    columns = dict.fromkeys(column for row in rows for column in row if _is_loss(column))
    names = sorted({column.rpartition("/")[2] for column in columns})
    modules = list(dict.fromkeys(column.split("/")[1] for column in columns))
    if not names:
        return False
    by_updates = all(f"learners/{_module(c)}/{_UPDATES}" in row for row in rows for c in columns if c in row)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    across = min(len(names), _PANELS_IN_A_ROW)
    down = -(-len(names) // across)
    figure = Figure(figsize=(max(2.8 * across, 4.2), 0.8 + 2.2 * down), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(down, across, squeeze=False).flatten()
    for axes, name in zip(panels, names, strict=False):
        for place, module in enumerate(modules):
            column = f"learners/{module}/{name}"
            key = f"learners/{module}/{_UPDATES}" if by_updates else STEPS
            points = [(row[key], row[column]) for row in rows if column in row and key in row]
            if points:
                style = {"marker": "o", "markersize": 4} if len(points) == 1 else {}
                color = _COLORS[place % len(_COLORS)]
                axes.plot(*zip(*points, strict=True), color=color, label=module, linewidth=1.5, **style)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e8eb", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_title(name.replace("_", " "), loc="left", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    for place, axes in enumerate(panels):
        axes.set_visible(place < len(names))
        if place + across >= len(names):
            axes.set_xlabel("gradient steps" if by_updates else "environment steps", fontsize=8)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    if len(modules) > 1:
        handles, labels = panels[0].get_legend_handles_labels()
        columns_of_legend = min(len(labels), 4)
        figure.legend(
            handles, labels, loc="outside lower center", ncols=columns_of_legend, frameon=False, fontsize=8
        )
    figure.savefig(path)
    return True


def _is_loss(column: str) -> bool:
    group, _, rest = column.partition("/")
    return group == "learners" and rest.endswith("_loss") and not rest.startswith("__")


def _module(column: str) -> str:
    return column.split("/")[1]
