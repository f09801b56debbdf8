"""Figure of where the Q operator contracts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qio_rllib.artifacts.plot_style import LABEL_SIZE, TICK_SIZE, new_figure


def plot_contraction(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Draw heat maps of the factor over (eta, h_min), a panel per mode and metric.

    Colour is the geometric mean factor ``exp(log_factor)`` on a log scale that is centred at 1: blue
    contracts, red expands, and a black line marks 1. Dots mark cells with infinite samples.

    Args:
        rows: A full grid, as `qio_rllib.exploration.sweep` returns it.
        path: Of the image; matplotlib chooses the format by its suffix. Missing folders are made.

    Raises:
        ValueError: There are no rows, or the grid has gaps.
        ImportError: matplotlib is not installed (the ``plots`` extra).
    """
    if not rows:
        raise ValueError("rows must hold at least one cell")
    modes, metrics = (list(dict.fromkeys(row[key] for row in rows)) for key in ("mode", "metric"))
    etas, h_mins = (sorted({row[key] for row in rows}) for key in ("eta", "h_min"))
    cells = {(row["mode"], row["metric"], row["h_min"], row["eta"]): row for row in rows}
    if len(cells) != len(modes) * len(metrics) * len(etas) * len(h_mins):
        raise ValueError(f"rows must cover the grid of {len(etas)} etas and {len(h_mins)} h_mins once")

    finite = [abs(row["log_factor"]) for row in rows if math.isfinite(row["log_factor"])]
    # A symmetric scale puts the neutral colour at factor 1; at least 5% either way, or rounding would show.
    limit = max([math.log(1.05), *finite])
    first = rows[0]
    figure, panels = new_figure(
        len(modes) * len(metrics),
        len(metrics),
        (1.2 + 3.4 * len(metrics), 0.9 + 3.0 * len(modes)),
        f"Mean Lipschitz factor of the Q operator: {first['num_actions']} actions, "
        rf"$\tau$ = {first['tau']:g}, {first['samples']:,} pairs a cell"
        + ("; dots: some factors are infinite" if any(row["infinite_share"] for row in rows) else ""),
        sharex=True,
        sharey=True,
    )
    shown = [(mode, metric) for mode in modes for metric in metrics]
    for axes, (mode, metric) in zip(panels, shown, strict=True):
        grid = [[cells[mode, metric, h_min, eta] for eta in etas] for h_min in h_mins]
        values = [[max(cell["log_factor"], -limit) for cell in cell_row] for cell_row in grid]
        image = axes.imshow(values, origin="lower", aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit)
        flat = [value for value_row in values for value in value_row]
        if min(flat) < 0.0 < max(flat) and min(len(etas), len(h_mins)) > 1:
            axes.contour(values, levels=[0.0], colors="black", linewidths=1.5)
        dots = [
            (x, y)
            for y, cell_row in enumerate(grid)
            for x, cell in enumerate(cell_row)
            if cell["infinite_share"] > 0.0
        ]
        if dots:
            axes.scatter([x for x, _ in dots], [y for _, y in dots], s=6, color="black")
        axes.grid(visible=False)
        axes.set_title(f"{metric.replace('_', ' ')}, {mode}", loc="left", fontsize=LABEL_SIZE)
    for axes in panels[:: len(metrics)]:
        axes.set_ylabel(r"entropy floor $h_{\min}$")
        axes.set_yticks(range(len(h_mins)), [f"{h_min:g}" for h_min in h_mins])
    for axes in panels[-len(metrics) :]:
        axes.set_xlabel(r"amplification $\eta$")
        axes.set_xticks(range(len(etas)), [f"{eta:g}" for eta in etas], rotation=45)
    ticks = _ticks(limit)
    bar = figure.colorbar(image, ax=panels, shrink=0.9, pad=0.015, ticks=[math.log(tick) for tick in ticks])
    bar.ax.set_yticklabels([f"{tick:.2g}" for tick in ticks], fontsize=TICK_SIZE)
    bar.set_label("geometric mean factor (below 1: contraction)", fontsize=LABEL_SIZE)
    bar.outline.set_visible(False)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _ticks(limit: float) -> list[float]:
    """Round factors within exp(+-limit) to label, about seven."""
    scales = ((1.02, 1.05), (1.1, 1.2), (1.25, 1.5), (1.5, 2.0, 4.0), (2.0, 4.0, 8.0), (10.0, 100.0, 1e3))
    steps = next((scale for scale in scales if math.log(scale[-1]) >= 0.6 * limit), scales[-1])
    upper = [step for step in steps if math.log(step) <= limit]
    return [1.0 / step for step in reversed(upper)] + [1.0, *upper]
