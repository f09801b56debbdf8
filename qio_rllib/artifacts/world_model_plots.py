"""Figures of how good a world model is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qio_rllib.artifacts.plot_style import BOUND, DASHES, PALETTE, REFERENCE, REST, legend_below, new_figure
from qio_rllib.world_models.diagnostics import LEVELS, Calibration, OpenLoop

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray

MAX_COMPONENTS = 6
_MODEL, _PERSISTENCE, _REWARD = PALETTE[0], REST, PALETTE[1]
_LINES = PALETTE[:MAX_COMPONENTS]
_REAL, _IMAGINED, _REFERENCE = "#39424e", BOUND, REFERENCE


def plot_open_loop(errors: OpenLoop, path: str | Path, title: str = "") -> None:
    """Draw the errors of observations and rewards over the horizon with their bands, beside persistence.

    Args:
        errors: Of `open_loop_errors`.
        path: The PNG file to write.
        title: Heading.
    """
    figure, panels = _figure(2, title)
    steps = np.arange(1, len(errors.counted) + 1)
    for axes, name, label in zip(panels, ("obs", "reward"), ("observation", "reward"), strict=True):
        for key, color, who in (
            (f"{name}_persistence", _PERSISTENCE, "persistence"),
            (name, _MODEL, "model"),
        ):
            band = errors.band(key)
            axes.fill_between(steps, band.low, band.high, color=color, alpha=0.22, linewidth=0)
            marker = "o" if len(steps) == 1 else ""
            axes.plot(
                steps,
                band.mean,
                color=color,
                label=f"{who}, mean and 10% to 90%",
                linewidth=1.8,
                marker=marker,
            )
        axes.set_ylim(bottom=0)
        axes.set_xlim(steps[0], max(steps[-1], steps[0] + 1))
        _whole_numbers(axes)
        axes.set_xlabel("steps predicted without observations")
        axes.set_ylabel(f"error of the {label}, deviations of the data")
    _legend(figure, *panels[0].get_legend_handles_labels())
    figure.savefig(path)


def plot_calibration(found: Calibration, path: str | Path, title: str = "") -> None:
    """Draw shares inside predicted intervals, and how often episodes went on, beside a calibrated model's diagonals.

    Args:
        found: Of `calibration`.
        path: The PNG file to write.
        title: Heading.
    """
    figure, (left, right) = _figure(2, title)
    levels = np.array([0.0, *LEVELS, 1.0])

    def closed(shares: Array) -> Array:
        return np.array([0.0, *shares, 1.0])

    for axes in (left, right):
        axes.plot(
            [0, 1], [0, 1], color=_REFERENCE, linewidth=1, linestyle=DASHES, label="calibrated", zorder=1
        )
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.set_aspect("equal")
    for place in range(found.obs_shares.shape[1] if found.obs_shares.shape[1] > 1 else 0):
        label = "each component" if place == 0 else None
        left.plot(
            levels, closed(found.obs_shares[:, place]), color=_MODEL, alpha=0.3, linewidth=1, label=label
        )
    if found.obs_shares.shape[1]:
        shares = closed(found.obs_shares.mean(1))
        left.plot(
            levels, shares, color=_MODEL, marker="o", markersize=3.5, linewidth=1.8, label="observation"
        )
    if not np.isnan(found.reward_shares).any():
        shares = closed(found.reward_shares)
        left.plot(levels, shares, color=_REWARD, marker="s", markersize=3.5, linewidth=1.8, label="reward")
    left.set_xlabel("probability of the predicted interval")
    left.set_ylabel("share of what happened inside")
    predicted, observed, count = found.continuation
    sizes = 18 + 90 * np.sqrt(count / count.max())
    right.scatter(
        predicted,
        observed,
        s=sizes,
        color=_IMAGINED,
        alpha=0.8,
        linewidth=0,
        label="continuation",
        clip_on=False,
    )
    for x, y, number in zip(predicted, observed, count, strict=True):
        side, align = (-9, "right") if x > 0.5 else (9, "left")
        right.annotate(
            f"{number:,}", (x, y), (side, 0), textcoords="offset points", ha=align, va="center", fontsize=7,
            color=_REFERENCE,
        )  # fmt: skip
    right.set_xlabel("predicted probability of going on")
    right.set_ylabel("share that went on (numbers: transitions)")
    handles, labels = (
        a + b
        for a, b in zip(left.get_legend_handles_labels(), right.get_legend_handles_labels(), strict=True)
    )
    _legend(figure, handles, labels)
    figure.savefig(path)


def plot_trajectories(
    real: Array,
    starts: Sequence[int],
    imagined: Sequence[Array],
    path: str | Path,
    names: Sequence[str],
    title: str = "",
) -> None:
    """Draw components over time, the real ones solid and the imagined ones dashed from their start steps.

    Args:
        real: Observations, float ``[T + 1, D]``.
        starts: Steps after which imaginations begin.
        imagined: What each predicted for the steps after its start, float ``[H, D]``.
        path: The PNG file to write.
        names: Of the components, ``D``; of more than `MAX_COMPONENTS` those that deviate most are drawn.
        title: Heading.
    """
    trajectory_figure(real, starts, imagined, names, title)[0].savefig(path)


def plot_episode(
    obs: Array, actions: Array, rewards: Array, path: str | Path, names: Sequence[str], title: str = ""
) -> None:
    """Draw what an agent observed, did and got in an episode, in three panels over its steps.

    Args:
        obs: Observations, float ``[T + 1, D]``.
        actions: As executed: float ``[T, A]`` in [-1, 1], or discrete, int ``[T]``.
        rewards: float ``[T]``.
        path: The PNG file to write.
        names: Of the components, ``D``; of more than `MAX_COMPONENTS` those that deviate most are drawn.
        title: Heading.
    """
    figure, panels = _figure(3, title, columns=1, height=1.7)
    states, acted, got = panels
    steps = np.arange(len(obs))
    shown = np.sort(np.argsort(-obs.std(axis=0), kind="stable")[:MAX_COMPONENTS])
    for place, component in enumerate(shown):
        states.plot(steps, obs[:, component], color=_LINES[place], linewidth=1.4, label=names[component])
    states.set_ylabel("observation")
    columns = actions[:, None] if actions.ndim == 1 else actions[:, :MAX_COMPONENTS]
    for place, values in enumerate(columns.T):
        label = "action" if actions.ndim == 1 else f"action[{place}]"
        acted.step(steps[:-1], values, where="post", color=_LINES[place], linewidth=1.1, label=label)
    acted.set_ylabel("action")
    if actions.ndim > 1:
        acted.set_ylim(-1.08, 1.08)
    got.plot(steps[1:], rewards, color=_REWARD, linewidth=1.4, label="reward")
    total = got.twinx()
    total.spines[["top", "left"]].set_visible(False)
    total.plot(
        steps, np.append(0.0, np.cumsum(rewards)), color=_REFERENCE, linewidth=1.4, linestyle="--",
        label="return so far",
    )  # fmt: skip
    total.set_ylabel("return so far", fontsize=8)
    total.tick_params(labelsize=8)
    got.set_ylabel("reward")
    got.set_xlabel("step of the episode")
    for axes in panels:
        axes.set_xlim(0, max(len(obs) - 1, 1))
        _whole_numbers(axes)
        handles, labels = axes.get_legend_handles_labels()
        if axes is got:
            handles, labels = (
                a + b for a, b in zip((handles, labels), total.get_legend_handles_labels(), strict=True)
            )
        axes.legend(
            handles,
            labels,
            loc="upper left",
            bbox_to_anchor=(0, 1.22),
            ncols=MAX_COMPONENTS,
            frameon=False,
            fontsize=8,
        )
    figure.savefig(path)


def trajectory_figure(
    real: Array, starts: Sequence[int], imagined: Sequence[Array], names: Sequence[str], title: str = ""
) -> tuple[Figure, list[tuple[Any, Array, Array]]]:
    """Return the figure of `plot_trajectories`, and its lines with all their points, so that they can grow."""
    shown = np.sort(np.argsort(-real.std(axis=0), kind="stable")[:MAX_COMPONENTS])
    figure, panels = _figure(len(shown), title, columns=2 if len(shown) > 1 else 1, height=1.35)
    steps = np.arange(len(real))
    lines: list[tuple[Any, Array, Array]] = []
    for place, (axes, component) in enumerate(zip(panels, shown, strict=True)):
        (line,) = axes.plot(steps, real[:, component], color=_REAL, linewidth=1.5, label="real")
        lines.append((line, steps, real[:, component]))
        for start, predicted in zip(starts, imagined, strict=True):
            times = np.arange(start, start + len(predicted) + 1)
            values = np.append(real[start, component], predicted[:, component])
            (line,) = axes.plot(
                times, values, color=_IMAGINED, linewidth=1.5, linestyle=(0, (3, 1.5)), label="imagined"
            )
            lines.append((line, times, values))
        begins = np.array(starts), real[list(starts), component]
        style: dict[str, Any] = {"marker": "o", "markersize": 3.5, "linestyle": "", "zorder": 3}
        (line,) = axes.plot(*begins, color=_IMAGINED, label="start", **style)
        lines.append((line, *begins))
        axes.set_ylabel(names[component])
        axes.set_xlim(0, len(real) - 1)
        _whole_numbers(axes)
        if place >= len(shown) - 2:
            axes.set_xlabel("step of the episode")
    _legend(figure, *panels[0].get_legend_handles_labels())
    return figure, lines


def _figure(
    count: int, title: str, columns: int = 2, height: float | None = None
) -> tuple[Figure, list[Axes]]:
    """Make a figure of several panels with small labels."""
    rows = -(-count // columns)
    size = (8.4, 3.9 if height is None else 0.9 + max(height * rows, 2.0))
    figure, panels = new_figure(count, columns, size, title)
    for axes in panels:
        axes.yaxis.label.set_fontsize(8)
        axes.xaxis.label.set_fontsize(8)
    return figure, panels


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    legend_below(figure, handles, labels, columns=5)
