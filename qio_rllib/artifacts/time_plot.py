"""Where the time of iterations goes, as bars."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qio_rllib.artifacts.plot_style import TICK_SIZE, new_figure

_COLORS = {
    "environments": "#2f4b7c",
    "policies that act": "#1f6f8b",
    "recording": "#8fbcc9",
    "sampling": "#1f6f8b",
    "batches and advantages": "#f0c48a",
    "gradient steps": "#e08e2b",
    "learning": "#e08e2b",
    "weights and metrics": "#b9c0c7",
}
"""Parts of sampling are blue, parts of learning orange."""
_DARK = ("environments", "policies that act", "sampling")


def plot_time(parts: Mapping[str, Mapping[str, float]], path: str | Path, title: str = "") -> None:
    """Draw a bar for each contestant, divided into the shares of its iteration; how long that takes stands behind it.

    Args:
        parts: Seconds by part (see `qio_rllib.experiments.time_spent.parts_of`), by contestant, from top to bottom.
        path: The PNG file to write.
        title: Heading.
    """
    figure, (axes,) = new_figure(size=(7.2, 1.5 + 0.42 * len(parts)), title=title)
    axes.grid(visible=False)
    shown: dict[str, Any] = {}
    for place, of_one in enumerate(parts.values()):
        whole, left = sum(of_one.values()), 0.0
        for name, seconds in of_one.items():
            share = seconds / whole
            bar = axes.barh(place, share, left=left, color=_COLORS[name], height=0.66)
            shown.setdefault(name, bar)
            if share >= 0.05:
                axes.text(
                    left + share / 2,
                    place,
                    f"{share:.0%}",
                    ha="center",
                    va="center",
                    fontsize=TICK_SIZE,
                    color="white" if name in _DARK else "black",
                )
            left += share
        axes.text(1.01, place, f"{whole * 1e3:,.0f} ms", va="center", fontsize=TICK_SIZE)
    axes.set_yticks(range(len(parts)), list(parts))
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    names = [name for name in _COLORS if name in shown]
    figure.legend(
        handles=[shown[name] for name in names],
        labels=names,
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=TICK_SIZE,
    )
    figure.savefig(path)
