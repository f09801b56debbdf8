"""Train what `reproductions.yaml` lists of a task anew, a process for each seed, beside the published figures.

    python benchmarks/reproduce.py spread                  # all entries of the task, one after the other
    python benchmarks/reproduce.py spread/qmix --seeds 5   # one entry, seeds 0 to 4

A seed whose raw files are there is not trained again, so that an interrupted reproduction continues where it was: only
the seeds that were being trained begin anew. Seeds that are trained at the same time share the machine; their seconds
are those of a busy one. What `learning_curves.py` leaves of a seed lies in ``results/reproduction/TASK/ENTRY``; the
table of all is in docs/results.md (``make docs``).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from learning_curves import is_trained, report
from ledger import Task, chosen, load_ledger

from qio_envs.api import ConfigError
from qio_rllib.experiments.experiment import load_experiment


def missing_seeds(task: Task, entry: str, seeds: int, out: Path, overrides: list[str]) -> list[int]:
    """Return the seeds that are still to be trained.

    Args:
        task: The task.
        entry: Name of one of its entries.
        seeds: 0 to this, this left out.
        out: Folder of the entry.
        overrides: ``KEY=VALUE`` texts on top of the entry's own.

    Raises:
        ConfigError: The entry's experiment cannot be used, or a seed is there with other settings.
    """
    path, settings = task.entries[entry].path, [*task.overrides(entry), *overrides]
    load_experiment(path, settings).validate()
    return [
        seed
        for seed in range(seeds)
        if not is_trained(out / f"seed_{seed}", load_experiment(path, settings, seed=seed))
    ]


def train(task: Task, entry: str, seeds: list[int], out: Path, overrides: list[str], jobs: int) -> list[int]:
    """Train seeds of an entry, each with `learning_curves.py` in a process of its own.

    Args:
        task: The task.
        entry: Name of one of its entries.
        seeds: What `missing_seeds` returned.
        out: Folder of the entry.
        overrides: As for `missing_seeds`.
        jobs: Processes at a time.

    Returns:
        The seeds that failed; their processes have said why.
    """
    script, config = (
        os.path.relpath(path)
        for path in (Path(__file__).with_name("learning_curves.py"), task.entries[entry].path)
    )
    command = [sys.executable, script, config, "--train", "--out", str(out), "--seeds", "1"]
    for override in [*task.overrides(entry), *overrides]:
        command += ["--set", override]

    def run(seed: int) -> int:
        return subprocess.run([*command, "--first-seed", str(seed)], check=False).returncode

    with ThreadPoolExecutor(jobs) as pool:
        return [seed for seed, code in zip(seeds, pool.map(run, seeds), strict=True) if code]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", nargs="?", default="", metavar="TASK", help="TASK or TASK/ENTRY")
    parser.add_argument("--seeds", type=int, help="seeds of each entry (as the ledger says)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="seeds that are trained at a time (one a core)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="as rllib train has it, for all entries",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("results/reproduction"), help="where the raw files go"
    )
    arguments = parser.parse_args()
    try:
        tasks = load_ledger()
        name, entries = chosen(tasks, arguments.task)
        task, folder = tasks[name], arguments.out / name
        if min(arguments.jobs, 1 if arguments.seeds is None else arguments.seeds) < 1:
            raise ConfigError("--seeds and --jobs: expected at least 1")
        seeds = {entry: arguments.seeds or task.entries[entry].seeds or task.seeds for entry in entries}
        missing = {
            entry: missing_seeds(task, entry, seeds[entry], folder / entry, arguments.overrides)
            for entry in entries
        }
    except ConfigError as error:
        parser.error(str(error))
    failed = []
    for entry, of_entry in missing.items():
        out = folder / entry
        print(
            f"\n{name}/{entry}: {seeds[entry] - len(of_entry)} of {seeds[entry]} seeds are there", flush=True
        )
        failed += [
            f"{entry}/seed_{seed}"
            for seed in train(task, entry, of_entry, out, arguments.overrides, arguments.jobs)
        ]
        if list(out.glob("seed_*/evaluation.csv")):
            settings = [*task.overrides(entry), *arguments.overrides]
            report(task.entries[entry].path, out, settings, task.metric)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; run it again for these alone")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on with the seeds that are missing")
