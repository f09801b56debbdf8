"""Quantum Q-learning and quantum actor-critic on qubit control: do they find the shortest circuits?

DQN, PPO and A2C with circuits of four qubits (`tune_configs/qubit_circuit_*.yaml`) steer two qubits from |00> to a
Bell pair and to the uniform superposition. The optimum, two gates in both cases, is known by breadth-first search. An
episode counts if it ends with a fidelity of at least 0.95 after the fewest gates possible; ten greedy and ten sampled
episodes a run.

    python benchmarks/qubit_circuits.py --seeds 5     # about half a minute to a minute a run
"""

from __future__ import annotations

import argparse
from pathlib import Path

from learning_curves import train
from tables import read, write

CONFIGS = ("qubit_circuit_dqn", "qubit_circuit_ppo", "qubit_circuit_a2c")
TARGETS = {"bell": "default", "uniform": "uniform"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0 (5)")
    parser.add_argument("--out", type=Path, default=Path("results/qubit_circuits"), help="where to write")
    arguments = parser.parse_args()
    rows = []
    for name in CONFIGS:
        for target, scenario in TARGETS.items():
            folder = arguments.out / f"{name}_{target}"
            print(f"{name}, {target}", flush=True)
            config = Path(f"tune_configs/{name}.yaml")
            train(config, range(arguments.seeds), folder, [f"env_config.scenario={scenario}"])
            for seed in range(arguments.seeds):
                episodes = read(folder / f"seed_{seed}" / "evaluation.csv")
                progress = read(folder / f"seed_{seed}" / "progress.csv")
                row = {
                    "config": name,
                    "target": target,
                    "seed": seed,
                    "seconds": float(progress[-1]["time_total_s"]),
                }
                for mode in ("greedy", "sampled"):
                    mine = [episode for episode in episodes if episode["mode"] == mode]
                    optimal = [
                        float(e["success"]) == 1 and float(e["gates"]) == float(e["steps_to_success_optimal"])
                        for e in mine
                    ]
                    row |= {f"{mode}_optimal": sum(optimal), f"{mode}_episodes": len(mine)}
                rows.append(row)
    write(arguments.out / "optimal.csv", rows)
    print(f"\n{'config':20}{'target':>9}{'seeds':>6}{'optimal of 10, greedy':>24}{'sampled':>20}{'s':>7}")
    for name in CONFIGS:
        for target in TARGETS:
            mine = [row for row in rows if (row["config"], row["target"]) == (name, target)]
            greedy, sampled = (
                " ".join(str(row[f"{mode}_optimal"]) for row in mine) for mode in ("greedy", "sampled")
            )
            seconds = sum(row["seconds"] for row in mine) / len(mine)
            print(f"{name:20}{target:>9}{len(mine):>6}{greedy:>24}{sampled:>20}{seconds:>7.0f}")


if __name__ == "__main__":
    main()
