"""Win rates in the CHSH game by what the agents share, learned from reward alone.

Two agents that cannot talk share entangled qubits, separable qubits, a random number, or a box without signalling
(`tune_configs/chsh_entangled_ppo.yaml`). Classical pairs win at most 0.75 of the rounds, quantum ones at most
cos^2(pi/8) = 0.8536, and what signals nothing may win all. Each trained policy plays 100,000 rounds, whose questions no
other seed is asked; across seeds what `Summary` says. The exact win rate of each policy, from its distribution, stands
beside what was counted.

    python benchmarks/entanglement.py --seeds 10      # about a quarter of a minute a run; not again what is there
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tables import has_row, read, write

import qio_envs
from qio_envs.chsh import CLASSICAL_BOUND, QUANTUM_BOUND
from qio_rllib.acting.actor import NetworkActor
from qio_rllib.acting.team import Team
from qio_rllib.artifacts.plot_style import BOUND, DOTS, EMPHASIS, LABEL_SIZE, REST, TICK_SIZE, new_figure
from qio_rllib.artifacts.run_description import run_description
from qio_rllib.evaluation.aggregate import Summary
from qio_rllib.experiments import training
from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.sampling.batched_vector_env import BatchedVectorEnv
from qio_rllib.sampling.evaluation import FIRST_EVALUATION_SEED, load_policy_from_checkpoint
from qio_rllib.sampling.stepper import EnvStepper

CONFIG = Path("tune_configs/chsh_entangled_ppo.yaml")
RESOURCES = ("entangled", "separable", "shared_randomness", "no_signalling")
NUM_ENVS, ROUNDS = 1000, 100


def question_seeds(seed: int) -> range:
    """Return the seeds of the environments that a run is evaluated on, disjoint from those of all other runs."""
    first = FIRST_EVALUATION_SEED + seed * NUM_ENVS
    return range(first, first + NUM_ENVS)


def played(team: Team, seed: int) -> float:
    """Return the share of 100,000 rounds that a policy wins."""
    env = BatchedVectorEnv(qio_envs.chsh_v0.batched_env(NUM_ENVS, as_team=True, rounds=ROUNDS))
    stepper = EnvStepper(env, team)
    stepper.reset(np.array(question_seeds(seed), np.uint64))
    rng = np.random.Generator(np.random.Philox(key=seed))
    while True:
        step = stepper.step(rng, explore=True)
        if step.over.all():
            return float(np.mean([env.info(index)["win_rate"] for index in range(NUM_ENVS)]))
        stepper.advance(step)


def exact(network: torch.nn.Module) -> float:
    """Return the probability of a win over uniform questions, of a network from both players' rows to joint answers."""
    total = 0.0
    for x in (0, 1):
        for y in (0, 1):
            obs = torch.tensor([[1.0 - x, x, 1.0 - y, y]])
            with torch.no_grad():
                probs = torch.softmax(network(obs).double(), dim=-1)[0]
            total += sum(float(probs[2 * a + b]) for a in (0, 1) for b in (0, 1) if a ^ b == x & y)
    return total / 4


def train(seeds: int, out: Path) -> None:
    """Train each resource with each seed; leave the win rates and a description of the run."""
    path = out / "win_rates.csv"
    rows: list[dict[str, Any]] = [*read(path)]
    for resource in RESOURCES:
        for seed in range(seeds):
            if has_row(path, resource=resource, seed=seed):
                continue
            with tempfile.TemporaryDirectory() as runs:
                overrides = [f"coordination.resource={resource}"]
                result = training.train(load_experiment(CONFIG, overrides, seed=seed), runs)
                team = load_policy_from_checkpoint(result.checkpoint).team
            (group,) = team.groups
            assert isinstance(group.actor, NetworkActor)
            row = {"win_rate": played(team, seed), "exact": exact(group.actor.network.head)}
            rows.append({"resource": resource, "seed": seed, **row})
            print(rows[-1], flush=True)
            write(path, rows)
    info = run_description(["python", "benchmarks/entanglement.py", "--seeds", str(seeds)])
    (out / "run.json").write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")


def draw(rows: list[dict[str, str]], path: Path) -> None:
    figure, (axes,) = new_figure(
        size=(7.2, 3.6), title="Win rates in the CHSH game (chsh_v0) by what the agents share"
    )
    for place, resource in enumerate(RESOURCES):
        values = np.array([float(row["win_rate"]) for row in rows if row["resource"] == resource])
        summary = Summary.of(values)
        colour = EMPHASIS if resource == "entangled" else REST
        axes.plot(values, place + np.linspace(-0.18, 0.18, len(values)), "o", color=colour, alpha=0.35, ms=5)
        axes.plot([summary.low, summary.high], [place, place], color=colour, linewidth=4)
        axes.plot(summary.score, place, "o", color=colour, markersize=9)
    bounds = ((CLASSICAL_BOUND, "classical bound"), (QUANTUM_BOUND, "quantum bound"), (1.0, "no signalling"))
    for value, text in bounds:
        axes.axvline(value, color=BOUND, linewidth=1.4, linestyle=DOTS)
        axes.annotate(
            f"{text} {value:.4g}", (value, -0.62), (-4, 0), textcoords="offset points", ha="right", color=BOUND,
            fontsize=TICK_SIZE,
        )  # fmt: skip
    axes.set_yticks(range(len(RESOURCES)), [resource.replace("_", " ") for resource in RESOURCES])
    axes.set_ylim(len(RESOURCES) - 0.5, -0.8)
    axes.set_xlim(0.6, 1.03)
    label = f"share of 100,000 rounds won ({summary.seeds} seeds as dots, and their {summary.statistic})"
    axes.set_xlabel(label, fontsize=LABEL_SIZE)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds, from 0 (10)")
    parser.add_argument("--out", type=Path, default=Path("results/entanglement"), help="where to write")
    parser.add_argument("--table", action="store_true", help="only sum up the runs that are there")
    arguments = parser.parse_args()
    if not arguments.table:
        train(arguments.seeds, arguments.out)
    rows = read(arguments.out / "win_rates.csv")
    if not rows:
        parser.error(f"there are no runs in {arguments.out}")
    draw(rows, arguments.out / "win_rates.png")
    print(f"\n{'resource':20}{'rounds won':<56}exact")
    for resource in RESOURCES:
        texts = [
            Summary.of(float(row[column]) for row in rows if row["resource"] == resource).text(4)
            for column in ("win_rate", "exact")
        ]
        print(f"{resource:20}{texts[0]:<56}{texts[1]}")


if __name__ == "__main__":
    main()
