"""Figures of causal graphs, and of what moved a decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from qio_rllib.artifacts.plot_style import GRID, LABEL_SIZE, REFERENCE, TICK_SIZE, TITLE_SIZE, new_figure
from qio_rllib.causal.drawing import edges_of, layout
from qio_rllib.causal.explanation import Explanation
from qio_rllib.causal.graph import CausalGraph, Edge
from qio_rllib.causal.partial_graph import PartialGraph

_MOST_VARIABLES = 25  # in a picture of influences
_INK, _FILL, _MARKED, _HIDDEN = "#39424e", "#eef2f5", "#f9d9a8", "#9aa5b1"
_COLORS = "Blues"  # of shifts, from none to the largest


def draw_graph(
    graph: CausalGraph | PartialGraph,
    path: str | Path,
    title: str = "",
    marked: Sequence[str] = (),
    widths: Mapping[Edge, float] | None = None,
) -> None:
    """Draw a graph with causes to the left of their effects.

    Hidden variables have a dashed border, edges without a direction no head. A graph with a cycle becomes a circle.

    Args:
        graph: What is drawn.
        path: The PNG file to write.
        title: Heading.
        marked: Variables to colour.
        widths: Of edges, in points; 1.3 where missing.
    """
    places = layout(graph)
    columns = 1 + max((x for x, _ in places.values()), default=0)
    rows = (
        1 + max((y for _, y in places.values()), default=0) - min((y for _, y in places.values()), default=0)
    )
    longest = max((len(name) for name in graph.variables), default=1)
    pitch = max(1.6, 0.14 * longest + 1.1)  # inches from a layer to the next
    size = max(3.0, pitch * columns), max(2.0, 0.75 * rows + 0.6)
    figure, (axes,) = new_figure(size=size, title=title)
    hidden = graph.hidden if isinstance(graph, CausalGraph) else frozenset()
    boxes = {}
    for name, (x, y) in places.items():
        boxes[name] = axes.text(
            pitch * x,
            -0.75 * y,
            name,
            ha="center",
            va="center",
            fontsize=TITLE_SIZE,
            color=_INK,
            zorder=3,
            bbox={
                "boxstyle": "round,pad=0.35",
                "facecolor": _MARKED if name in marked else _FILL if name not in hidden else "white",
                "edgecolor": _HIDDEN if name in hidden else _INK,
                "linestyle": "--" if name in hidden else "-",
                "linewidth": 1.0,
            },
        )
    axes.set_xlim(-0.5 * pitch, pitch * (columns - 0.5))
    heights = [-0.75 * y for _, y in places.values()] or [0.0]
    axes.set_ylim(min(heights) - 0.55, max(heights) + 0.55)
    axes.set_axis_off()
    undirected = set() if isinstance(graph, CausalGraph) else set(graph.undirected_edges)
    for edge in edges_of(graph):
        (x0, y0), (x1, y1) = places[edge[0]], places[edge[1]]
        skips = abs(x1 - x0) > 1 or x1 == x0  # bends round what lies between
        bend = (-0.22 if y0 < y1 else 0.22) if skips else 0.0
        axes.annotate(
            "",
            xy=(pitch * x1, -0.75 * y1),
            xytext=(pitch * x0, -0.75 * y0),
            arrowprops={
                "arrowstyle": "-" if edge in undirected else "-|>",
                "color": _HIDDEN if edge[0] in hidden or edge[1] in hidden else _INK,
                "linewidth": (widths or {}).get(edge, 1.3),
                "patchA": boxes[edge[0]].get_bbox_patch(),
                "patchB": boxes[edge[1]].get_bbox_patch(),
                "shrinkA": 1,
                "shrinkB": 1,
                "connectionstyle": f"arc3,rad={bend}",
            },
            zorder=2,
        )
    figure.savefig(path)


def draw_influences(explanation: Explanation, path: str | Path) -> None:
    """Draw how far a decision moves as a table of colours, a row a variable and a column a time.

    Empty cells are times at which a variable was not tried; a dot is a variable that is no ancestor. At most 25
    variables are drawn, those with the largest shifts.

    Args:
        explanation: What is drawn.
        path: The PNG file to write.
    """
    cells = {(one.variable, one.lag): one for one in explanation.influences}
    names = list(dict.fromkeys(one.variable for one in explanation.influences))
    largest = {
        name: max(
            np.nan_to_num(cells[name, lag].shift)
            for lag in range(explanation.lags + 1)
            if (name, lag) in cells
        )
        for name in names
    }
    names.sort(key=lambda name: -largest[name])
    shown, lags = names[:_MOST_VARIABLES], range(explanation.lags, -1, -1)
    values = np.array(
        [[cells[name, lag].shift if (name, lag) in cells else np.nan for lag in lags] for name in shown]
    )
    longest = max(len(name) for name in shown)
    width = max(4.5, 0.75 * len(lags) + 0.09 * longest + 2.0)
    who = f", {explanation.agent}" if explanation.agent else ""
    figure, (axes,) = new_figure(
        size=(width, max(2.2, 0.36 * len(shown) + 1.5)),
        title=f"What moved the decision at T\n{explanation.env}{who}",
    )
    top = float(np.nanmax(np.nan_to_num(values))) or 1.0
    image = axes.imshow(np.ma.masked_invalid(values), cmap=_COLORS, vmin=0.0, vmax=top, aspect="auto")
    for y, name in enumerate(shown):
        for x, lag in enumerate(lags):
            one = cells.get((name, lag))
            if one is None or np.isnan(one.shift):
                continue
            text = f"{one.shift:.2g}" if one.is_ancestor else "\u00b7"
            dark = one.shift > 0.5 * top
            axes.text(
                x, y, text, ha="center", va="center", fontsize=TICK_SIZE, color="white" if dark else _INK
            )
    axes.set_xticks(range(len(lags)), [f"T - {lag}" if lag else "T" for lag in lags])
    axes.set_yticks(range(len(shown)), shown)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_facecolor(GRID)
    measure = "total variation" if explanation.discrete else "shift of the mean action"
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label(measure, fontsize=LABEL_SIZE)
    bar.ax.tick_params(labelsize=TICK_SIZE)
    bar.outline.set_visible(False)
    left = f", {len(shown)} of {len(names)} variables" if len(names) > len(shown) else ""
    axes.set_title(
        f"T = {explanation.step}, seed {explanation.seed}, {explanation.mode}{left}",
        loc="left",
        fontsize=TICK_SIZE,
        color=REFERENCE,
    )
    figure.savefig(path)
