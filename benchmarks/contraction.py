"""Where does the Q operator contract? Expected Lipschitz factors over (eta, h_min) in three metrics.

Writes contraction.csv and contraction.png to --out and prints the geometric mean factors as tables.
"""

import argparse
import csv
import math
from pathlib import Path

import torch

from qio_rllib.artifacts.contraction_plot import plot_contraction
from qio_rllib.exploration import METRICS, sweep
from qio_rllib.exploration.contraction import MODES

ETAS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0)
H_MINS = (0.0, 0.05, 0.2, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/contraction"), help="folder of the results")
    parser.add_argument("--actions", type=int, default=5, help="number of actions (5)")
    parser.add_argument("--samples", type=int, default=20_000, help="pairs of policies per cell (20000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sampled policies (0)")
    parser.add_argument("--tau", type=float, default=1.0, help="softmax temperature (1.0)")
    args = parser.parse_args()

    rows = sweep(ETAS, H_MINS, tau=args.tau, num_actions=args.actions, samples=args.samples, seed=args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "contraction.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "torch"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()}
            | {"torch": torch.__version__}
            for row in rows
        )
    plot_contraction(rows, args.out / "contraction.png")

    print(f"geometric mean factor, {args.actions} actions, tau {args.tau:g}, {args.samples} pairs a cell;")
    print("* below 1 with 95% confidence and no infinite sample, ~ some samples infinite")
    cells = {(row["mode"], row["metric"], row["h_min"], row["eta"]): row for row in rows}
    for mode in MODES:
        for metric in METRICS:
            print(f"\n{metric}, {mode}\n h_min \\ eta" + "".join(f"{eta:>8g}" for eta in ETAS))
            for h_min in H_MINS:
                line = [cells[mode, metric, h_min, eta] for eta in ETAS]
                print(f"{h_min:>11g}" + "".join(_entry(row) for row in line))
    print(f"\nwritten to {args.out}")


def _entry(row: dict) -> str:
    mark = "~" if row["infinite_share"] else "*" if row["contracts_on_average"] else " "
    return f"{math.exp(row['log_factor']):>7.3f}{mark}"


if __name__ == "__main__":
    main()
