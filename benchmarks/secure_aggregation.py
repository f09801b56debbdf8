"""Secure aggregation: CPU seconds and traffic of a round with clients that are lost on the way, in one process.

    python benchmarks/secure_aggregation.py

CPU seconds are those of all clients and the server together.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tables import write

from qio_rllib.artifacts.run_description import cpu_model
from qio_rllib.federated.secure.messages import Step
from qio_rllib.federated.secure.primitives import identities
from qio_rllib.federated.secure.round import Round
from qio_rllib.federated.secure.simulation import secure_sum


class Setting(NamedTuple):
    """A round: numbers of clients, of numbers in a vector, of neighbours, the threshold, and who is lost where."""

    clients: int
    size: int
    neighbours: int
    threshold: int
    drops: dict[int, Step]


UPLOADS = [Step.UPLOAD]
PHASES = [Step.SHARE, Step.UPLOAD, Step.CONFIRM, Step.UNMASK]


def lost(count: int, steps: list[Step]) -> dict[int, Step]:
    """Return the first clients with the steps in which they are lost, in turns."""
    return {client: steps[client % len(steps)] for client in range(count)}


SETTINGS = (
    Setting(32, 100_000, 31, 21, lost(6, UPLOADS)),
    Setting(64, 100_000, 63, 42, lost(13, UPLOADS)),
    Setting(1000, 10_000, 100, 60, lost(120, PHASES)),
)


def row_of(setting: Setting) -> dict[str, Any]:
    """Run a round and return its row."""
    private = dict(enumerate(identities(setting.clients)[0]))
    rng = np.random.default_rng(0)
    values = {client: rng.integers(-(2**20), 2**20, setting.size) for client in private}
    round_ = Round(
        "benchmark", 0, b"", b"", setting.size, tuple(private), setting.threshold, setting.neighbours
    )
    start = time.process_time()
    found = secure_sum(round_, private, values, setting.drops)
    seconds = time.process_time() - start
    exact = bool((found.total == sum(values[client] for client in found.contributors)).all())
    return {
        "clients": setting.clients,
        "size": setting.size,
        "neighbours": setting.neighbours,
        "threshold": setting.threshold,
        "lost": len(setting.drops),
        "contributors": len(found.contributors),
        "exact": exact,
        "cpu_seconds": seconds,
        "bytes_up": found.bytes_up,
        "bytes_down": found.bytes_down,
        "cpu": cpu_model(),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/federated"), help="folder of the results")
    parser.add_argument("--most-clients", type=int, default=1000, help="leave out larger rounds (1000)")
    args = parser.parse_args(arguments)
    rows = []
    for setting in SETTINGS:
        if setting.clients <= args.most_clients:
            rows.append(row_of(setting))
            print({name: value for name, value in rows[-1].items() if name != "cpu"}, flush=True)
    write(args.out / "secure_aggregation.csv", rows)


if __name__ == "__main__":
    main()
