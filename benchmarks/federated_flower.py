"""Secure aggregation here and Flower's SecAgg+, in turns on one core: CPU seconds. What Flower's simulation costs.

Flower needs older packages than this project's, so it runs with the Python of an environment of its own:

    python -m venv /somewhere/flower
    /somewhere/flower/bin/pip install flwr==1.42.0 ray==2.55.1 numpy==2.4.6
    python benchmarks/federated_flower.py --flower-python /somewhere/flower/bin/python

``--what secure_sum``: from float vectors of all clients to the mean of those that were not lost, with all parties in
one process, called one after the other; messages become bytes and are read again, and no network takes part. Here that
is quantization, the five steps of a round with signed messages, and the mean; there `SecAggPlusWorkflow` and
`secaggplus_mod` as they are, with messages as Flower's own protocol buffers. Every client is every other's neighbour,
the threshold is the same, and the same clients are lost: they compute nothing from the upload on. Making the clients'
identities is left out here; Flower's nodes have none.

``--what simulation``: `run_simulation` with clients that send back what they get; CPU seconds a round of all its
processes, and wall seconds. The first round, in which actors start, is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
from secure_aggregation import SETTINGS, Setting
from tables import read, write

from qio_rllib.artifacts.run_description import cpu_model
from qio_rllib.federated.quantization import Quantizer
from qio_rllib.federated.secure.primitives import identities
from qio_rllib.federated.secure.round import Round
from qio_rllib.federated.secure.simulation import secure_sum

SECURE_SUM, SIMULATION = "secure_sum", "simulation"
NODES, SAMPLED, SIZE = 1000, 100, 28_000


def ours(setting: Setting) -> dict[str, float]:
    """Run a round and return its CPU seconds and the largest error of the mean."""
    private = dict(enumerate(identities(setting.clients)[0]))
    rng = np.random.default_rng(0)
    updates = {client: rng.uniform(-1, 1, setting.size).astype(np.float32) for client in private}
    round_ = Round(
        "benchmark", 0, b"", b"", setting.size, tuple(private), setting.threshold, setting.neighbours
    )
    steps = Quantizer(bound=8.0, fraction_bits=18)  # as fine as Flower's 2^22 steps over the same range
    start = time.process_time()
    steps.check_sum(setting.clients)
    values = {
        client: steps.encode(update, rng) for client, update in updates.items() if client not in setting.drops
    }
    found = secure_sum(round_, private, values, setting.drops)
    mean = steps.decode(found.total) / len(found.contributors)
    seconds = time.process_time() - start
    expected = np.mean([updates[client] for client in found.contributors], axis=0)
    return {"cpu_seconds": seconds, "error": float(np.abs(mean - expected).max())}


def theirs(python: str, what: str, *numbers: int) -> dict[str, float]:
    """Run a part of `flower_worker` and return its row."""
    worker = Path(__file__).with_name("flower_worker.py")
    command = [python, str(worker), what, *map(str, numbers)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def rounds_of(python: str, settings: list[Setting], repeats: int) -> list[dict[str, Any]]:
    """Run rounds of secure aggregation, here and there in turns."""
    rows = []
    for setting in settings:
        for repeat in range(repeats):
            lost = len(setting.drops)
            for who, found in (
                ("this package", ours(setting)),
                (
                    "Flower",
                    theirs(python, SECURE_SUM, setting.clients, setting.size, lost, setting.threshold),
                ),
            ):
                row = {
                    "what": SECURE_SUM,
                    "who": who,
                    "repeat": repeat,
                    "clients": setting.clients,
                    "size": setting.size,
                    "lost": lost,
                    "threshold": setting.threshold,
                    "cpu_seconds": round(found["cpu_seconds"], 4),
                    "wall_seconds": "",
                    "error": f"{found['error']:.2g}",
                    "cpu": cpu_model(),
                }
                rows.append(row)
                print(row, flush=True)
    return rows


def simulations_of(python: str, rounds: int, repeats: int) -> list[dict[str, Any]]:
    """Run Flower's simulation."""
    rows = []
    for repeat in range(repeats):
        found = theirs(python, SIMULATION, NODES, SAMPLED, SIZE, rounds)
        if found["answers"] != SAMPLED:
            raise SystemExit(f"{SIMULATION}: {found['answers']} of {SAMPLED} clients answered")
        row = {
            "what": SIMULATION,
            "who": "Flower",
            "repeat": repeat,
            "clients": SAMPLED,
            "size": SIZE,
            "lost": 0,
            "threshold": "",
            "cpu_seconds": round(found["cpu_seconds"], 4),
            "wall_seconds": round(found["wall_seconds"], 4),
            "error": "",
            "cpu": cpu_model(),
        }
        rows.append(row)
        print(row, flush=True)
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flower-python", required=True, help="Python of an environment that holds flwr")
    parser.add_argument(
        "--what", nargs="+", choices=[SECURE_SUM, SIMULATION], default=[SECURE_SUM, SIMULATION], help="(both)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="how often each is run (3)")
    parser.add_argument("--most-clients", type=int, default=64, help="leave out larger rounds (64)")
    parser.add_argument("--rounds", type=int, default=5, help="of the simulation that are counted (5)")
    parser.add_argument("--out", type=Path, default=Path("results/federated/flower.csv"), help="CSV to write")
    args = parser.parse_args(arguments)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rows: list[dict[str, Any]] = [row for row in read(args.out) if row["what"] not in args.what]
    if SECURE_SUM in args.what:
        settings = [setting for setting in SETTINGS if setting.clients <= args.most_clients]
        rows += rounds_of(args.flower_python, settings, args.repeats)
    if SIMULATION in args.what:
        rows += simulations_of(args.flower_python, args.rounds, args.repeats)
    write(args.out, rows)


if __name__ == "__main__":
    main()
