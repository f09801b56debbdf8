"""Return against bits: what a team gets for what its agents tell each other, and what it could get at best.

Only one of three agents sees where to go and nobody sees anybody: `swarm_cooperative_v0`, scenario `hidden_target`,
with an arena so wide that nobody can leave it, after which an agent pays nothing. MADDPG learns without messages, with
messages of some bits in each step, with gates at several costs, with targeted messages, and with numbers, each of which
is sent as 32 bits. The return is the team's, undiscounted, on fixed evaluation episodes without noise; across seeds
what `Summary` says: from 10 seeds on the interquartile mean with a 95% interval, of fewer the mean with the least and
the greatest.

The bound (`qio_rllib.evaluation.hidden_target`) is the best expected return of any team whose informed agent sends so
many bits; it knows little of what control costs under noise, so that the scripted controller stays below it.

    python benchmarks/communication_frontier.py --seeds 3     # about a minute and a half a run, 12 cells
    python benchmarks/communication_frontier.py --table       # only sum up the runs that are there
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from learning_curves import train
from tables import scores_of, write

import qio_envs
from qio_envs.api import reference_scores
from qio_rllib.artifacts.plot_style import (
    BOUND,
    DASHES,
    DOTS,
    EMPHASIS,
    LABEL_SIZE,
    PALETTE,
    REFERENCE,
    label_ends,
    legend_below,
    new_figure,
)
from qio_rllib.evaluation.aggregate import Summary
from qio_rllib.evaluation.hidden_target import HiddenTargetBound
from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.models.communication import Communication
from qio_rllib.sampling.evaluation import FIRST_EVALUATION_SEED

CONFIG = Path("tune_configs/swarm_communication_maddpg.yaml")
STUDY = ["env_config.out_radius=40.0", "evaluation_duration=500"]
"""Nobody can leave; and the targets of so many episodes are 1% nearer or farther than those of the bound on average."""
LEAST = 1e-3  # bits: the axis is linear below


@dataclasses.dataclass(frozen=True)
class Cell:
    """One point of the figure.

    Attributes:
        name: Of its folder.
        kind: What the figure calls it together with others.
        settings: ``communication``; None for none.
    """

    name: str
    kind: str
    settings: dict[str, Any] | None

    @property
    def communication(self) -> Communication | None:
        """What its agents may tell each other."""
        return Communication.of(self.settings)


CELLS = [
    Cell("silent", "no messages", None),
    *(Cell(f"bits_{n}", "bits", {"bits": n}) for n in (1, 2, 3, 4)),
    *(Cell(f"gate_{c:g}", "gated, 2 bits", {"bits": 2, "gate": {"cost": c}}) for c in (0.003, 0.03, 0.3)),
    Cell("targeted_bits_2", "targeted, 2 + 2 bits", {"bits": 2, "routing": "targeted", "signature": 2}),
    Cell("targeted_2", "targeted, numbers", {"bandwidth": 2, "routing": "targeted", "signature": 2}),
    *(Cell(f"broadcast_{n}", "numbers", {"bandwidth": n}) for n in (1, 2)),
]


def bound_of(cell: Cell, bits: float, bound: HiddenTargetBound) -> float:
    """Return the best return of a team that communicates as a cell does.

    Args:
        cell: How it communicates.
        bits: That each agent sent per step, on average; all may have been the informed agent's.
        bound: Of the environment.
    """
    communication = cell.communication
    if communication is None:
        return bound.of_constant(0.0)
    if communication.gate is None:
        return bound.of_constant(communication.message_bits)
    spent = min(bits * bound.config.num_agents, communication.message_bits)
    return bound.of_gated(communication.message_bits, spent)


def summarise(out: Path, cells: list[Cell], bound: HiddenTargetBound) -> list[dict[str, Any]]:
    rows = []
    for cell in cells:
        scores = scores_of(out / cell.name, "greedy", "team_return")
        if not scores:
            continue
        bits = 0.0
        if cell.settings is not None:
            bits = float(np.mean(scores_of(out / cell.name, "greedy", "bits_sent")))
        summary = Summary.of(scores)
        rows.append(
            {
                "cell": cell.name,
                "kind": cell.kind,
                "communication": json.dumps(cell.settings),
                "bits_sent": bits,
                **summary.columns(),
                "bound": bound_of(cell, bits, bound),
                "text": summary.text(),
            }
        )
    return rows


def draw(
    out: Path, rows: list[dict[str, Any]], bound: HiddenTargetBound, references: dict[str, float]
) -> None:
    title = (
        "MADDPG on swarm_cooperative_v0: one of three agents sees the target, nobody sees anybody\n"
        f"evaluations without exploration, {rows[0]['seeds']} seeds ({rows[0]['statistic']})"
    )
    figure, panels = new_figure(1, 1, (9, 5), title)
    axes = panels[0]
    agents, steps = bound.config.num_agents, bound.config.max_steps
    bits = np.concatenate([np.linspace(0.0, LEAST, 20), np.geomspace(LEAST, 200, 120)])
    axes.plot(
        bits, [bound.of_total(b * agents * steps) for b in bits],
        color=BOUND, linewidth=2, label="bound, silence tells nothing",
    )  # fmt: skip
    few = bits[bits * agents <= 2]
    axes.plot(
        few, [bound.of_gated(2, b * agents) for b in few],
        color=BOUND, linewidth=1.5, linestyle=DOTS, label="bound, 2 bits or silence in a step",
    )  # fmt: skip
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
    axes.set_xscale("symlog", linthresh=LEAST, linscale=0.5)
    axes.set_xlim(-LEAST / 5, 250)
    axes.set_ylim(min(row["low"] for row in rows) * 1.08, 0)
    axes.set_xlabel("bits sent per agent and step", fontsize=LABEL_SIZE)
    axes.set_ylabel("team return", fontsize=LABEL_SIZE)
    seeing = {name: value for name, value in references.items() if name != "random"}
    for value in seeing.values():
        axes.axhline(value, color=REFERENCE, linewidth=1, linestyle=DASHES)
    label_ends(axes, [(value, f"scripted: {name}", REFERENCE) for name, value in seeing.items()])
    handles, labels = axes.get_legend_handles_labels()
    legend_below(figure, handles, labels)
    figure.savefig(out / "communication_frontier.png")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0 (5)")
    parser.add_argument(
        "--out", type=Path, default=Path("results/communication_frontier"), help="where to write"
    )
    parser.add_argument(
        "--cells", nargs="+", choices=[cell.name for cell in CELLS], help="only these (all)", metavar="CELL"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="as of rllib train; for short trials"
    )
    parser.add_argument("--table", action="store_true", help="only sum up the runs that are there")
    arguments = parser.parse_args()
    cells = [cell for cell in CELLS if not arguments.cells or cell.name in arguments.cells]
    for cell in [] if arguments.table else cells:
        print(cell.name, flush=True)
        settings = [*STUDY, f"communication={json.dumps(cell.settings)}", *arguments.set]
        train(CONFIG, range(arguments.seeds), arguments.out / cell.name, settings, with_pictures=False)
    experiment = load_experiment(CONFIG, [*STUDY, *arguments.set])
    env = qio_envs.environment(experiment.env).batched_env(
        experiment.config["evaluation_duration"], **experiment.config["env_config"]
    )
    bound = HiddenTargetBound(env.config)
    rows = summarise(arguments.out, cells, bound)
    write(arguments.out / "summary.csv", rows)
    references = reference_scores(env, seed=FIRST_EVALUATION_SEED)
    draw(arguments.out, rows, bound, references)
    print(f"\n{'':<18}{'bits':>10}{'bound':>9}  team return (without exploration)")
    for row in rows:
        print(f"{row['cell']:<18}{row['bits_sent']:>10.4g}{row['bound']:>9.1f}  {row['text']}")
    print(", ".join(f"scripted {name}: {value:.1f}" for name, value in references.items()))


if __name__ == "__main__":
    main()
