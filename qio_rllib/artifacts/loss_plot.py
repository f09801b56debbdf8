"""The plot of a run's losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qio_rllib.artifacts.metrics import STEPS
from qio_rllib.artifacts.plot_style import PALETTE, TICK_SIZE, legend_below, new_figure, steps_axis

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
    across = min(len(names), _PANELS_IN_A_ROW)
    down = -(-len(names) // across)
    size = max(2.8 * across, 4.2), 0.8 + 2.2 * down
    figure, panels = new_figure(len(names), across, size, title)
    for axes, name in zip(panels, names, strict=False):
        for place, module in enumerate(modules):
            column = f"learners/{module}/{name}"
            key = f"learners/{module}/{_UPDATES}" if by_updates else STEPS
            points = [(row[key], row[column]) for row in rows if column in row and key in row]
            if points:
                style: dict[str, Any] = {"marker": "o", "markersize": 4} if len(points) == 1 else {}
                color = PALETTE[place % len(PALETTE)]
                axes.plot(*zip(*points, strict=True), color=color, label=module, linewidth=1.5, **style)
        axes.set_title(name.replace("_", " "), loc="left", fontsize=TICK_SIZE + 1)
        steps_axis(axes, "gradient steps" if by_updates else "environment steps")
    for axes in panels[:-across]:
        axes.set_xlabel("")
    if len(modules) > 1:
        legend_below(figure, *panels[0].get_legend_handles_labels())
    figure.savefig(path)
    return True


def _is_loss(column: str) -> bool:
    group, _, rest = column.partition("/")
    return group == "learners" and rest.endswith("_loss") and not rest.startswith("__")


def _module(column: str) -> str:
    return column.split("/")[1]
