"""What a shared quantum state is worth: win rates in the CHSH game, learned from reward alone.

Two agents that cannot talk share entangled qubits, separable qubits, or a random number
(`tune_configs/chsh_entangled_ppo.yaml`). Classical pairs win at most 0.75 of the rounds, quantum ones at most
cos^2(pi/8) = 0.8536. Each trained policy plays 100,000 rounds; across seeds the interquartile mean with a 95% bootstrap
interval. The exact win rate of each policy, from its distribution, stands beside what was counted.

    python benchmarks/entanglement.py --seeds 10      # about a quarter of a minute a run
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from aggregate import bootstrap_interval, interquartile_mean

import qio_envs
from qio_envs.chsh import CLASSICAL_BOUND, QUANTUM_BOUND
from qio_rllib.acting.policy import PolicyModule
from qio_rllib.artifacts.run_description import run_description
from qio_rllib.experiments import training
from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.sampling.evaluation import load_policy_from_checkpoint

CONFIG = Path("tune_configs/chsh_entangled_ppo.yaml")
RESOURCES = ("entangled", "separable", "shared_randomness")
COPIES, ROUNDS = 1000, 100


def played(module: PolicyModule, seed: int) -> float:
    """Return the share of 100,000 rounds that a policy wins."""
    env = qio_envs.chsh_v0.batched_env(COPIES, as_team=True, rounds=ROUNDS)
    env.reset(seed)
    rng = np.random.Generator(np.random.Philox(key=seed))
    for _ in range(ROUNDS):
        env.step(module.act(env.observe()[:, 0], None, rng.random(COPIES))[:, None])
    return float(env.info()["win_rate"].mean())


def exact(module: PolicyModule) -> float:
    """Return the probability of a win over uniform questions."""
    total = 0.0
    for x in (0, 1):
        for y in (0, 1):
            seen = torch.tensor([[1.0 - x, x, 1.0 - y, y]])
            with torch.no_grad():
                probs = torch.softmax(module.network(seen).double(), dim=-1)[0]
            total += sum(float(probs[2 * a + b]) for a in (0, 1) for b in (0, 1) if a ^ b == x & y)
    return total / 4


def draw(rows: list[dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
    for place, resource in enumerate(RESOURCES):
        values = np.array([row["win_rate"] for row in rows if row["resource"] == resource])
        low, high = bootstrap_interval(values)
        colour = "#2e7d5b" if resource == "entangled" else "#666666"
        axes.plot(values, place + np.linspace(-0.18, 0.18, len(values)), "o", color=colour, alpha=0.35, ms=5)
        axes.plot([low, high], [place, place], color=colour, linewidth=4)
        axes.plot(interquartile_mean(values), place, "o", color=colour, markersize=9)
    for value, text in ((CLASSICAL_BOUND, "classical bound"), (QUANTUM_BOUND, "quantum bound")):
        axes.axvline(value, color="#b04030", linewidth=1, linestyle=":")
        axes.annotate(text, (value, -0.62), (-4, 0), textcoords="offset points", ha="right", color="#b04030")
    axes.set_yticks(range(len(RESOURCES)), [resource.replace("_", " ") for resource in RESOURCES])
    axes.set_ylim(2.5, -0.8)
    axes.set_xlim(0.6, 0.9)
    axes.set_xlabel("share of 100,000 rounds won (seeds, and their IQM with 95% interval)")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds, from 0 (10)")
    parser.add_argument("--out", type=Path, default=Path("results/entanglement"), help="where to write")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for resource in RESOURCES:
        for seed in range(arguments.seeds):
            with tempfile.TemporaryDirectory() as runs:
                overrides = [f"coordination.resource={resource}"]
                result = training.train(load_experiment(CONFIG, overrides, seed=seed), runs)
                (module,) = load_policy_from_checkpoint(result.checkpoint).modules.values()
            rows.append(
                {"resource": resource, "seed": seed, "win_rate": played(module, seed), "exact": exact(module)}
            )
            print(rows[-1], flush=True)
            with open(arguments.out / "win_rates.csv", "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
    info = run_description(["python", "benchmarks/entanglement.py", "--seeds", str(arguments.seeds)])
    (arguments.out / "run.json").write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
    draw(rows, arguments.out / "win_rates.png")
    print(f"\n{'resource':20}{'seeds':>6}{'win rate, IQM':>15}{'95% interval':>20}{'min':>9}{'max':>9}")
    for resource in RESOURCES:
        values = np.array([row["win_rate"] for row in rows if row["resource"] == resource])
        low, high = bootstrap_interval(values)
        print(
            f"{resource:20}{len(values):>6}{interquartile_mean(values):>15.4f}{f'{low:.4f} to {high:.4f}':>20}"
            f"{values.min():>9.4f}{values.max():>9.4f}"
        )


if __name__ == "__main__":
    main()
