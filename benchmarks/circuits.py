"""How fast do circuits run? This package's simulator beside PennyLane's, in one process with one torch thread.

The circuit of a policy, `reuploading_circuit(n, 3, n)` with Z measured on each qubit, on 4 and on 8 qubits: forward and
backward with a batch of 256 (gradients of weights and features), and one state without gradients, as when acting.
Beside it the same circuit, written for PennyLane, on default.qubit with the torch interface, backpropagation and
broadcasting over the batch. Angles come in single and in double precision; default.qubit computes in double precision
either way, so like is compared with like in the rows of float64. That all give the same numbers is checked first.
All contestants of a task take turns over several rounds, so that a busy machine slows all alike; the table shows
medians. Needs PennyLane (pip install '.[bench]').

    python benchmarks/circuits.py                  # about a minute
"""

import argparse
import csv
import dataclasses
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pennylane as qml
import torch
from env_throughput import cpu_model, version_of

from qio_rllib.quantum import Measurement, reuploading_circuit

LAYERS, BATCH, QUBITS = 3, 256, (4, 8)
DTYPES = {"float32": torch.float32, "float64": torch.float64}

Run = Callable[
    [torch.Tensor, torch.Tensor], torch.Tensor
]  # weights [W], features [..., F] -> values [..., n]


@dataclasses.dataclass(frozen=True)
class Task:
    """What is timed: so many qubits and rows, and whether gradients are wanted."""

    name: str
    num_qubits: int
    batch: int
    gradients: bool


TASKS = [
    *(Task("forward and backward", qubits, BATCH, True) for qubits in QUBITS),
    *(Task("inference", qubits, 1, False) for qubits in QUBITS),
]


def own(num_qubits: int) -> Run:
    """Return this package's circuit."""
    circuit = reuploading_circuit(num_qubits, LAYERS, num_qubits)
    measurement = Measurement(num_qubits, [f"Z{qubit}" for qubit in range(num_qubits)])
    return lambda weights, features: measurement.expectation(circuit.state(weights, features))


def pennylane(num_qubits: int) -> Run:
    """Return the same circuit as one writes it for PennyLane."""
    wires = range(num_qubits)
    ring = [(0, 1)] if num_qubits == 2 else [(wire, (wire + 1) % num_qubits) for wire in wires]

    @qml.qnode(qml.device("default.qubit", wires=num_qubits), interface="torch", diff_method="backprop")
    def node(weights: torch.Tensor, last: torch.Tensor, features: torch.Tensor) -> list:
        for layer in range(LAYERS):
            for wire in wires:
                qml.RX(weights[layer, wire, 0], wires=wire)
                qml.RY(weights[layer, wire, 1], wires=wire)
                qml.RZ(weights[layer, wire, 2], wires=wire)
            for pair in ring:
                qml.CNOT(wires=pair)
            for wire in wires:
                qml.RY(features[..., layer * num_qubits + wire], wires=wire)
        for wire in wires:
            qml.RZ(last[wire, 0], wires=wire)
            qml.RY(last[wire, 1], wires=wire)
        return [qml.expval(qml.PauliZ(wire)) for wire in wires]

    def run(weights: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        layers, last = weights.split([3 * num_qubits * LAYERS, 2 * num_qubits])
        values = node(layers.reshape(LAYERS, num_qubits, 3), last.reshape(num_qubits, 2), features)
        return torch.stack(values, dim=-1)

    return run


CONTESTANTS: dict[str, Callable[[int], Run]] = {"this package": own, "PennyLane default.qubit": pennylane}
BASE = "PennyLane default.qubit"


def inputs(num_qubits: int, batch: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weights and features, the same numbers whatever the dtype."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(3 * num_qubits * LAYERS + 2 * num_qubits, generator=generator)
    features = torch.randn(batch, num_qubits * LAYERS, generator=generator)
    return weights.to(dtype), features.to(dtype)


def turn(run: Run, task: Task, dtype: torch.dtype) -> Callable[[], list[torch.Tensor]]:
    """Return what is timed: it gives values, and gradients of their squares where they are wanted."""
    weights, features = inputs(task.num_qubits, task.batch, dtype)
    if not task.gradients:

        def act() -> list[torch.Tensor]:
            with torch.no_grad():
                return [run(weights, features)]

        return act
    weights.requires_grad_()
    features.requires_grad_()

    def learn() -> list[torch.Tensor]:
        values = run(weights, features)
        return [values, *torch.autograd.grad(values.square().sum(), (weights, features))]

    return learn


def check_same_numbers(task: Task) -> None:
    """Refuse to compare unless all contestants give the same values and gradients."""
    reference = turn(own(task.num_qubits), task, torch.float64)()
    for name, make in CONTESTANTS.items():
        for dtype in DTYPES.values():
            results = turn(make(task.num_qubits), task, dtype)()
            for mine, wanted in zip(results, reference, strict=True):
                # a weight's gradient is a sum over the batch
                torch.testing.assert_close(
                    mine.double(),
                    wanted,
                    rtol=1e-4,
                    atol=1e-10 if dtype == torch.float64 else 1e-3,
                    msg=lambda text, name=name: f"{name}: {text}",
                )


def measure(task: Task, rounds: int, seconds: float) -> list[dict]:
    """Return a row for each contestant and dtype."""
    turns = {
        (name, kind): turn(make(task.num_qubits), task, dtype)
        for name, make in CONTESTANTS.items()
        for kind, dtype in DTYPES.items()
    }
    calls = {key: max(1, int(seconds / _time(each, 1))) for key, each in turns.items()}
    times: dict[tuple[str, str], list[float]] = {key: [] for key in turns}
    for _ in range(rounds):
        for key, each in turns.items():
            times[key].append(1000 * _time(each, calls[key]))
    medians = {key: statistics.median(values) for key, values in times.items()}
    return [
        {
            "task": task.name,
            "qubits": task.num_qubits,
            "layers": LAYERS,
            "batch": task.batch,
            "contestant": name,
            "dtype": kind,
            "ms": round(medians[name, kind], 4),
            "times_as_fast_as_pennylane": round(medians[BASE, kind] / medians[name, kind], 2),
            "fastest_round_ms": round(min(values), 4),
            "slowest_round_ms": round(max(values), 4),
            "rounds": rounds,
        }
        for (name, kind), values in times.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contestant (15)")
    parser.add_argument("--seconds", type=float, default=0.15, help="length of a turn, about (0.15)")
    parser.add_argument(
        "--quick", action="store_true", help="one short round of small batches, to see that it runs"
    )
    parser.add_argument("--out", type=Path, default=Path("results/circuits.csv"), help="CSV to write")
    args = parser.parse_args()
    tasks = TASKS
    if args.quick:
        args.rounds, args.seconds = 1, 0.0
        tasks = [dataclasses.replace(task, batch=min(task.batch, 8)) for task in TASKS]
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core

    machine = {"cpu": cpu_model(), "python": platform.python_version()} | {
        package: version_of(package) for package in ("torch", "numpy", "pennylane")
    }
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    rows = []
    for task in tasks:
        check_same_numbers(task)
        group = measure(task, args.rounds, args.seconds)
        _print(task, group, args.rounds)
        rows += group
    machine["command"] = " ".join(["python", "benchmarks/circuits.py", *sys.argv[1:]])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *machine], lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | machine for row in rows)
    print(f"\nwritten to {args.out}")


def _print(task: Task, rows: list[dict], rounds: int) -> None:
    print(
        f"\n{task.name}, {task.num_qubits} qubits, {LAYERS} layers, batch {task.batch}, one thread,", end=" "
    )
    print(f"median of {rounds} rounds\n")
    print(f"{'contestant':<26}{'dtype':<10}{'ms':>10}{'ratio':>8}   rounds, ms")
    for row in rows:
        print(
            f"{row['contestant']:<26}{row['dtype']:<10}{row['ms']:>10.3f}{row['times_as_fast_as_pennylane']:>8.1f}"
            f"   {row['fastest_round_ms']:.3f} to {row['slowest_round_ms']:.3f}"
        )


def _time(each: Callable[[], list[torch.Tensor]], calls: int) -> float:
    """Return seconds a call, after one that warms up."""
    each()
    start = time.perf_counter()
    for _ in range(calls):
        each()
    return (time.perf_counter() - start) / calls


if __name__ == "__main__":
    main()
