"""Causal graphs as text, and where their variables stand in a figure."""

from __future__ import annotations

import numpy as np

from qio_rllib.causal.graph import CausalGraph, Edge
from qio_rllib.causal.partial_graph import PartialGraph

_SWEEPS = 4  # of the ordering within layers


def draw_text(graph: CausalGraph | PartialGraph) -> str:
    """Return a graph as lines, one a variable with its causes, ``x3 <- x1, x2``; ``x1 - x2`` has no direction."""
    lines = []
    for name in graph.variables:
        if isinstance(graph, CausalGraph):
            causes = [other for other in graph.variables if other in graph.parents(name)]
        else:
            causes = [cause for cause, effect in graph.directed_edges if effect == name]
        if causes:
            lines.append(f"{name} <- {', '.join(causes)}")
    if isinstance(graph, PartialGraph):
        lines += [f"{first} - {second}" for first, second in graph.undirected_edges]
    alone = [name for name in graph.variables if not any(name in edge for edge in edges_of(graph))]
    if alone:
        lines.append(f"alone: {', '.join(alone)}")
    return "\n".join(lines)


def layout(graph: CausalGraph | PartialGraph) -> dict[str, tuple[float, float]]:
    """Return where each variable stands: its layer from the left, and its row from the top.

    A variable's layer is the length of the longest path to it; rows are in the order that keeps neighbours close
    (Sugiyama et al. 1981, barycentres). A graph with a cycle stands on a circle.
    """
    edges, names = edges_of(graph), graph.variables
    if isinstance(graph, PartialGraph) and not graph.is_acyclic:
        radius = max(1.0, len(names) / 5.0)
        angles = 2 * np.pi * np.arange(len(names)) / len(names)
        return {
            name: (radius * (1 - np.cos(angle)), radius * np.sin(angle))
            for name, angle in zip(names, angles, strict=True)
        }
    directed = edges if isinstance(graph, CausalGraph) else list(graph.directed_edges)
    layer = dict.fromkeys(names, 0)
    for _ in names:
        for cause, effect in directed:
            layer[effect] = max(layer[effect], layer[cause] + 1)
    columns = [
        [name for name in names if layer[name] == place]
        for place in range(1 + max(layer.values(), default=0))
    ]
    row = {name: float(place) for column in columns for place, name in enumerate(column)}
    near: dict[str, list[str]] = {name: [] for name in names}
    for first, second in edges:
        near[first].append(second)
        near[second].append(first)
    for _ in range(_SWEEPS):
        for column in columns:
            wanted = {
                name: np.mean([row[other] for other in near[name]]) if near[name] else row[name]
                for name in column
            }
            column.sort(key=lambda name: wanted[name])
            for place, name in enumerate(column):
                row[name] = float(place)
    tallest = max(len(column) for column in columns)
    return {
        name: (float(x), place + 0.5 * (tallest - len(column)))
        for x, column in enumerate(columns)
        for place, name in enumerate(column)
    }


def edges_of(graph: CausalGraph | PartialGraph) -> list[Edge]:
    """Return a graph's edges, those without a direction last."""
    if isinstance(graph, CausalGraph):
        return list(graph.edges)
    return [*graph.directed_edges, *graph.undirected_edges]
