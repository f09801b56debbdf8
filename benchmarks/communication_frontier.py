"""Return against bits: what a team gets for what its agents tell each other, and what it could get.

Tasks and the ways to communicate in each are in `frontier_tasks.py`: messages of some bits in each step, gates at
several costs, targeted messages, numbers, each of which is sent as 32 bits, and in the forest the environment's own
radio. The return is the team's, undiscounted, on fixed evaluation episodes; across seeds what `Summary` says: from 10
seeds on the interquartile mean with a 95% interval, of fewer the mean with the least and the greatest.

    python benchmarks/communication_frontier.py hidden_target --seeds 5     # a minute a run (five with memory)
    python benchmarks/communication_frontier.py forest --seeds 5            # one to two minutes a run
    python benchmarks/communication_frontier.py forest --table              # only sum up the runs that are there
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from frontier_tasks import TASKS, Cell, Task, environment_of, references_of
from learning_curves import train
from tables import scores_of, write

from qio_envs.api import ConfigError
from qio_rllib.artifacts.plot_style import (
    BOUND,
    DASHES,
    EMPHASIS,
    LABEL_SIZE,
    PALETTE,
    REFERENCE,
    label_ends,
    legend_below,
    new_figure,
)
from qio_rllib.evaluation.aggregate import Summary
from qio_rllib.experiments.experiment import load_experiment


def summarise(out: Path, cells: Sequence[Cell], task: Task) -> list[dict[str, Any]]:
    """Return one row for each cell that has runs."""
    rows = []
    for cell in cells:
        scores = scores_of(out / cell.name, task.mode, "team_return")
        if not scores:
            continue
        bits = task.bits(cell, out / cell.name)
        summary = Summary.of(scores)
        rows.append(
            {
                "cell": cell.name,
                "kind": cell.kind,
                "communication": json.dumps(cell.settings),
                "bits_sent": bits,
                **summary.columns(),
                "allowed": task.allowed(cell, bits),
                "text": summary.text(),
            }
        )
    return rows


def draw(out: Path, rows: list[dict[str, Any]], task: Task, references: dict[str, float]) -> None:
    """Draw return against bits, with what so many bits allow."""
    statistic = f"{rows[0]['seeds']} seeds ({rows[0]['statistic']})"
    how = "evaluations without exploration" if task.mode == "greedy" else "evaluations with sampled actions"
    figure, panels = new_figure(1, 1, (9, 5), f"{task.title}\n{how}, {statistic}")
    axes = panels[0]
    curves = task.curves()
    for curve in curves:
        axes.plot(curve.bits, curve.score, color=BOUND, linewidth=2, linestyle=curve.style, label=curve.name)
    kinds = [*dict.fromkeys(row["kind"] for row in rows)]
    colors = [REFERENCE, EMPHASIS, *PALETTE[1:4], *PALETTE[5:]]
    for kind, color in zip(kinds, colors, strict=False):
        chosen = [row for row in rows if row["kind"] == kind]
        middle = np.array([row["score"] for row in chosen])
        low, high = (np.array([row[end] for row in chosen]) for end in ("low", "high"))
        axes.errorbar(
            [row["bits_sent"] for row in chosen], middle, yerr=[middle - low, high - middle],
            color=color, marker="o", linestyle="none", capsize=4, label=kind,
        )  # fmt: skip
    axes.set_xscale("symlog", linthresh=task.linear_below, linscale=0.5)
    axes.set_xlim(-task.linear_below / 5, 1.3 * max(curve.bits[-1] for curve in curves))
    axes.set_xlabel("bits sent per agent and step", fontsize=LABEL_SIZE)
    axes.set_ylabel("team return", fontsize=LABEL_SIZE)
    seeing = {name: value for name, value in references.items() if name != "random"}
    least = min(row["low"] for row in rows)
    most = max(*seeing.values(), *(curve.score.max() for curve in curves))
    axes.set_ylim(least - 0.1 * (most - least), most + 0.1 * (most - least))
    for value in seeing.values():
        axes.axhline(value, color=REFERENCE, linewidth=1, linestyle=DASHES)
    bottom, top = axes.get_ylim()
    label_ends(
        axes,
        [(value, f"scripted: {name}", REFERENCE) for name, value in seeing.items() if bottom <= value <= top],
    )
    handles, labels = axes.get_legend_handles_labels()
    legend_below(figure, handles, labels)
    figure.savefig(out / "communication_frontier.png")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=TASKS, help="what is played")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0 (5)")
    parser.add_argument(
        "--out", type=Path, default=Path("results/communication_frontier"), help="where to write"
    )
    parser.add_argument("--cells", nargs="+", help="only these (all)", metavar="CELL")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="as of rllib train; for short trials"
    )
    parser.add_argument("--table", action="store_true", help="only sum up the runs that are there")
    arguments = parser.parse_args()
    kind = TASKS[arguments.task]
    unknown = set(arguments.cells or []) - {cell.name for cell in kind.cells}
    if unknown:
        names = ", ".join(cell.name for cell in kind.cells)
        parser.error(f"--cells: {', '.join(sorted(unknown))} is none of {names}")
    cells = [cell for cell in kind.cells if not arguments.cells or cell.name in arguments.cells]
    out = arguments.out / arguments.task
    try:
        if arguments.seeds < 1:
            raise ConfigError("--seeds: expected at least 1")
        env = environment_of(kind, arguments.set)
        task = kind(env)
        settings = {
            cell.name: [*kind.study, *task.overrides(cell), *arguments.set]
            for cell in ([] if arguments.table else cells)
        }
        for of_cell in settings.values():
            load_experiment(kind.config, of_cell).validate()
        for name, of_cell in settings.items():
            print(name, flush=True)
            train(kind.config, range(arguments.seeds), out / name, of_cell, with_pictures=False)
        rows = summarise(out, kind.cells if arguments.table else cells, task)
        if not rows:
            raise ConfigError(f"--table: there are no runs in {out}")
    except ConfigError as error:
        parser.error(str(error))
    references = references_of(env)
    write(out / "summary.csv", rows)
    write(
        out / "scripted.csv",
        [{"policy": name, "team_return": round(value, 4)} for name, value in references.items()],
    )
    draw(out, rows, task, references)
    print(f"\n{'':<18}{'bits':>10}{'allowed':>9}  team return")
    for row in rows:
        print(f"{row['cell']:<18}{row['bits_sent']:>10.4g}{row['allowed']:>9.1f}  {row['text']}")
    print(", ".join(f"scripted {name}: {value:.1f}" for name, value in references.items()))


if __name__ == "__main__":
    main()
