"""Scores of policies against each other as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qio_rllib.artifacts.plot_style import DPI, LABEL_SIZE, TICK_SIZE, new_figure
from qio_rllib.games.cross_play import CrossPlay

_CELL = 0.62  # inches


def plot_cross_play(names: Sequence[str], found: CrossPlay, path: str | Path) -> None:
    """Draw mean scores as a matrix with numbers, and each policy's rating behind its row.

    Args:
        names: Of the policies.
        found: Their scores.
        path: The file to write; its ending says in which format.
    """
    count = len(names)
    side = max(2.6, _CELL * count)
    figure, (axes,) = new_figure(
        size=(side + 4.2, side + 1.3), title="Mean score of the row's policy against the column's"
    )
    axes.imshow(found.scores, cmap="RdYlGn", vmin=0, vmax=1, aspect="equal")
    for row in range(count):
        for column in range(count):
            score = found.scores[row, column]
            color = "white" if abs(score - 0.5) > 0.35 else "black"
            axes.text(column, row, f"{score:.2f}", ha="center", va="center", size=TICK_SIZE, color=color)
    axes.set_xticks(range(count), [f"({number})" for number in range(1, count + 1)], size=TICK_SIZE)
    axes.set_yticks(
        range(count), [f"{name} ({number})" for number, name in enumerate(names, 1)], size=TICK_SIZE
    )
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    right = axes.secondary_yaxis("right")
    right.set_yticks(
        range(count),
        [f"Elo {elo:.0f}, Nash {nash:.2f}" for elo, nash in zip(found.elo, found.nash, strict=True)],
        size=TICK_SIZE,
    )
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    axes.set_xlabel("opponent", size=LABEL_SIZE)
    figure.savefig(path, dpi=DPI, bbox_inches="tight")
