"""The study ``overhead`` of `federated_cart_pole.py`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cart_pole_federations import FEDERATION, SAMPLED, config_of, local_of
from federated_flower import SIMULATION, theirs
from tables import read, write

from qio_rllib.artifacts.run_description import cpu_model

OVERHEAD = "overhead"
FEW_STEPS = {"num_envs_per_env_runner": 4, "rollout_fragment_length": 4}
OVERHEAD_LR = 1e-3
DRIVER, HOST, ALONE, FLOWER = "in the driver", "on a host", "training alone", "Flower"


def own_mib(_: Any = None) -> float:
    """Return the resident memory of this process, MiB, without what it shares: libraries and Ray's object store."""
    (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("RssAnon")]
    return int(line.split()[1]) / 2**10


def overhead_row(who: str, number: int, cpu_ms: float, **memory: float) -> dict[str, Any]:
    """Return a row; ``number`` is the round, or how many there were where all are one row."""
    columns = ("trainer_mib", "driver_mib", "records_mib")
    values = {name: round(memory[name], 3) if name in memory else "" for name in columns}
    return {
        "who": who,
        "round": number,
        "clients": SAMPLED,
        "cpu_ms": "" if np.isnan(cpu_ms) else round(cpu_ms, 3),
        **values,
        "cpu": cpu_model(),
    }


def rounds_of(hosts: int, rounds: int, sampling: dict[str, int]) -> list[dict[str, Any]]:
    """Return a row for each round of a federation; CPU milliseconds are those of the driver's process."""
    settings = {"participation": {"clients": SAMPLED}, "num_hosts": hosts}
    algorithm = config_of(0, FEDERATION, local_of(sampling, OVERHEAD_LR), **settings).build_algo()
    rows = []
    for number in range(1, rounds + 1):
        started = time.process_time()
        algorithm.train()
        cpu_ms = 1e3 * (time.process_time() - started) / SAMPLED
        kept = (
            sum(len(record.state) + record.personal.nbytes for record in algorithm.records.values()) / 2**20
        )
        driver = own_mib()
        trainer = driver
        if algorithm.hosts._actors is not None:
            (answer,) = algorithm.hosts._actors.foreach_actor(own_mib)
            trainer, cpu_ms = answer.get(), np.nan
        memory = {"trainer_mib": trainer, "driver_mib": driver, "records_mib": kept}
        rows.append(overhead_row(HOST if hosts else DRIVER, number, cpu_ms, **memory))
    algorithm.stop()
    return rows


def training_alone(rounds: int, sampling: dict[str, int]) -> dict[str, Any]:
    """Return the row of one client's Algorithm that takes as many training steps as all clients of some rounds."""
    config = config_of(0, FEDERATION, local_of(sampling, OVERHEAD_LR))
    algorithm = config.client_config(config.all_clients()[0]).build_algo()
    for _ in range(SAMPLED):
        algorithm.training_step()
    started = time.process_time()
    for _ in range(rounds * SAMPLED):
        algorithm.training_step()
        algorithm.metrics.reduce()
    seconds = time.process_time() - started
    algorithm.stop()
    return overhead_row(ALONE, rounds, 1e3 * seconds / (rounds * SAMPLED))


def overhead(out: Path, rounds: int, flower_python: str) -> None:
    """Measure all parts one after the other, and write them together: they are to be compared in one run."""
    sampling = FEW_STEPS
    rows = [training_alone(max(1, rounds // 10), sampling)]
    rows += rounds_of(0, rounds, sampling)
    size = 755
    found = theirs(flower_python, SIMULATION, FEDERATION, SAMPLED, size, max(1, rounds // 20))
    rows.append(overhead_row(FLOWER, max(1, rounds // 20), 1e3 * found["cpu_seconds"] / SAMPLED))
    rows.append(training_alone(max(1, rounds // 10), sampling))
    rows += rounds_of(1, rounds, sampling)
    write(out, rows)


def overheads(rows: Sequence[dict[str, str]]) -> dict[str, float]:
    """Return the numbers of the table: CPU milliseconds a client and round, and MiB of memory."""
    by_who = {who: [row for row in rows if row["who"] == who] for who in (DRIVER, HOST, ALONE, FLOWER)}
    # The first round compiles; the median leaves out what else the machine did.
    whole = float(np.median([float(row["cpu_ms"]) for row in by_who[DRIVER][1:]]))
    alone = float(np.mean([float(row["cpu_ms"]) for row in by_who[ALONE]]))
    found = {
        "whole": whole,
        "alone": alone,
        "difference": whole - alone,
        "flower": float(np.mean([float(row["cpu_ms"]) for row in by_who[FLOWER]])),
    }
    for name, who in (("driver", DRIVER), ("host", HOST)):
        mine = by_who[who]
        half = mine[len(mine) // 2]
        found |= {
            f"{name}_half": float(half["trainer_mib"]),
            f"{name}_end": float(mine[-1]["trainer_mib"]),
            f"{name}_records_half": float(half["records_mib"]),
            f"{name}_records_end": float(mine[-1]["records_mib"]),
        }
    return found


def overhead_table(out: Path) -> None:
    """Print what a client and round costs, and the memory half-way and at the end."""
    rows = read(out)
    found = overheads(rows)
    print(
        f"CPU milliseconds a client and round: {found['whole']:.1f}, of which training {found['alone']:.1f}; the "
        f"rest {found['difference']:.1f}; Flower's simulation without training {found['flower']:.1f}"
    )
    print(f"{'':15}{'round':>6}{'process, MiB':>14}{'records, MiB':>14}")
    for who in (DRIVER, HOST):
        mine = [row for row in rows if row["who"] == who]
        for place in sorted({0, len(mine) // 4, len(mine) // 2, 3 * len(mine) // 4, len(mine) - 1}):
            row = mine[place]
            print(f"{who:15}{row['round']:>6}{row['trainer_mib']:>14}{row['records_mib']:>14}")
