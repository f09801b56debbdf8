"""Return with learned messages: against their bandwidth, and against the share of them that is lost.

Only one of three agents sees where to go and nobody sees anybody (`tune_configs/swarm_communication_maddpg.yaml`). The
return is the team's, undiscounted, on fixed evaluation episodes without noise; across seeds what `Summary` says: from
10 seeds on the interquartile mean with a 95% interval, of fewer the mean with the least and the greatest.

    python benchmarks/communication.py --seeds 3     # about half a minute to a minute and a half a run
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from learning_curves import train
from tables import scores_of, write

import qio_envs
from qio_envs.api import reference_scores
from qio_rllib.artifacts.plot_style import DASHES, EMPHASIS, LABEL_SIZE, REFERENCE, label_ends, new_figure
from qio_rllib.evaluation.aggregate import Summary
from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.sampling.evaluation import FIRST_EVALUATION_SEED

CONFIG = Path("tune_configs/swarm_communication_maddpg.yaml")
SILENT = (0, 0.0)
BANDWIDTHS = [SILENT, (1, 0.0), (2, 0.0), (4, 0.0)]
LOSSES = [(4, 0.5), (4, 0.9)]


def summarise(out: Path, cells: list[tuple[int, float]]) -> list[dict[str, Any]]:
    rows = []
    for bandwidth, drop in cells:
        summary = Summary.of(scores_of(folder_of(out, bandwidth, drop), "greedy", "team_return"))
        rows.append({"bandwidth": bandwidth, "drop": drop, **summary.columns(), "text": summary.text()})
    return rows


def folder_of(out: Path, bandwidth: int, drop: float) -> Path:
    return out / f"bandwidth_{bandwidth}_drop_{drop:g}"


def draw(out: Path, rows: list[dict[str, Any]], references: dict[str, float]) -> None:
    title = (
        "MADDPG with messages on swarm_cooperative_v0: one of three agents sees the target, nobody sees anybody\n"
        f"evaluations without exploration, {rows[0]['seeds']} seeds ({rows[0]['statistic']})"
    )
    figure, panels = new_figure(2, 2, (9, 4), title, sharey=True, gridspec_kw={"width_ratios": [3, 2]})
    lossless = [row for row in rows if row["drop"] == 0]
    lossy = [row for row in rows if row["bandwidth"] == 4]
    for axes, chosen, key, label in (
        (panels[0], lossless, "bandwidth", "bandwidth, numbers in a message"),
        (panels[1], lossy, "drop", "share of messages lost, bandwidth 4"),
    ):
        places = np.arange(len(chosen))
        middle = np.array([row["score"] for row in chosen])
        low, high = (np.array([row[end] for row in chosen]) for end in ("low", "high"))
        axes.errorbar(
            places, middle, yerr=[middle - low, high - middle],
            color=EMPHASIS, marker="o", linewidth=2, capsize=4,
        )  # fmt: skip
        axes.set_xticks(places, [f"{row[key]:g}" for row in chosen])
        axes.set_xlabel(label, fontsize=LABEL_SIZE)
        for value in references.values():
            axes.axhline(value, color=REFERENCE, linewidth=1, linestyle=DASHES)
    panels[0].set_ylabel("team return", fontsize=LABEL_SIZE)
    label_ends(panels[1], [(value, f"scripted: {name}", REFERENCE) for name, value in references.items()])
    figure.savefig(out / "communication.png")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0 (5)")
    parser.add_argument("--out", type=Path, default=Path("results/communication"), help="where to write")
    parser.add_argument("--table", action="store_true", help="only sum up the runs that are there")
    arguments = parser.parse_args()
    cells = [*BANDWIDTHS, *LOSSES]
    for bandwidth, drop in [] if arguments.table else cells:
        folder = folder_of(arguments.out, bandwidth, drop)
        print(f"bandwidth {bandwidth}, drop {drop:g}", flush=True)
        settings = [f"communication.bandwidth={bandwidth}", f"communication.drop={drop}"]
        train(CONFIG, range(arguments.seeds), folder, settings)
    rows = summarise(arguments.out, cells)
    write(arguments.out / "summary.csv", rows)
    experiment = load_experiment(CONFIG)
    env = qio_envs.environment(experiment.env).batched_env(
        experiment.config["evaluation_duration"], **experiment.config["env_config"]
    )
    references = reference_scores(env, seed=FIRST_EVALUATION_SEED)
    draw(arguments.out, rows, references)
    print(f"\n{'bandwidth':>9}{'drop':>6}  team return (without exploration)")
    for row in rows:
        print(f"{row['bandwidth']:>9}{row['drop']:>6g}  {row['text']}")
    print(", ".join(f"scripted {name}: {value:.1f}" for name, value in references.items()))


if __name__ == "__main__":
    main()
