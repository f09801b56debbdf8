"""Does anything quantum-inspired help? Matched controls, paired seeds, raw results.

Two questions, each with controls that share everything but the thing in question:

operator   The Q operator in the policy, against no operator (identity), a softmax temperature that gives every state
           the same entropy (temperature), and a random operator that moves the amplitudes as far (random), another
           one for each seed.
circuits   Circuits as policy and value networks (observables, Born rule), against parameter-matched MLPs.

Within a task all cells share environment, algorithm, settings and seeds; none was tuned for one of them alone. Scores
are normalised between random play (0) and the scripted oracle (1) of the task; CartPole-v1 between 0 and 500.
What is reported, and when a difference counts as one, is said in `paired`.

    python benchmarks/quantum_controls.py operator --seeds 10
    python benchmarks/quantum_controls.py circuits --seeds 10
    python benchmarks/quantum_controls.py operator --table      # the table of what is there, without training
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from paired import STEPS, Study, report, train

STRENGTH = {"eta": 0.1, "h_min": 0.05, "tau": 1.0}
STRONG = {"eta": 0.5, "h_min": 0.2, "tau": 1.0}


def cell_settings(settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return the settings of a cell for one seed: each seed has a random operator of its own."""
    amplification = settings.get("amplification")
    if amplification is None or amplification.get("operator") != "random":
        return settings
    return settings | {"amplification": amplification | {"operator_seed": seed}}


def operator_cells() -> dict[str, dict[str, Any]]:
    cells: dict[str, dict[str, Any]] = {"identity": {"amplification": None}}
    for name, strength in (("", STRENGTH), (" strong", STRONG)):
        cells[f"Q operator{name}"] = {"amplification": strength}
        for control in ("temperature", "random"):
            cells[control + name] = {"amplification": {**strength, "operator": control}}
    return cells


def circuit_cells() -> dict[str, dict[str, Any]]:
    size = {"num_qubits": 4, "num_layers": 3, "inputs": "arctan"}
    return {
        f"{kind} ({policy})": {"circuit": {**size, "kind": kind, "policy": policy}, "amplification": None}
        for policy in ("observables", "born")
        for kind in ("circuit", "classical")
    }


STUDIES = {
    "operator": Study(
        tasks={
            "qubit_control": ("tune_configs/qubit_control_ppo.yaml", {}),
            "swarm": ("tune_configs/swarm_maa2c.yaml", {f"stop.{STEPS}": 128_000}),
            "cartpole": ("tune_configs/cartpole_a2c.yaml", {f"stop.{STEPS}": 100_000}),
        },
        cells=operator_cells(),
        seeded=cell_settings,
        pairs=tuple(
            (f"Q operator{name}", control)
            for name in ("", " strong")
            for control in ("identity", f"temperature{name}", f"random{name}")
        ),
    ),
    "circuits": Study(
        tasks={
            # of 2e-3 and 1e-2 the better one for circuits and for MLPs of their size, tried on seed 100
            "qubit_control": ("tune_configs/qubit_control_ppo.yaml", {"lr": 1e-2}),
            "cartpole": ("tune_configs/cartpole_a2c.yaml", {f"stop.{STEPS}": 100_000}),
        },
        cells=circuit_cells(),
        pairs=(
            ("circuit (observables)", "classical (observables)"),
            ("circuit (born)", "classical (born)"),
            ("circuit (observables)", "circuit (born)"),
        ),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=list(STUDIES), help="what to ask")
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds, from 0 (10)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one core each (2)")
    parser.add_argument("--out", type=Path, default=Path("results/quantum_controls"), help="where to write")
    parser.add_argument("--table", action="store_true", help="only sum up the runs that are there")
    arguments = parser.parse_args()
    study, out = STUDIES[arguments.study], arguments.out / arguments.study
    if not arguments.table:
        command = [
            "python",
            "benchmarks/quantum_controls.py",
            arguments.study,
            "--seeds",
            str(arguments.seeds),
        ]
        train(study, arguments.seeds, out, arguments.jobs, command)
    if not report(study, out, arguments.study):
        parser.error(f"there are no runs in {out}")


if __name__ == "__main__":
    main()
