"""Do runs survive what can happen to them? A campaign against the ``rllib`` command, with counts as its result.

Part ``kills``: a small experiment of each family is trained once without a disturbance. Then it is trained again,
killed with SIGKILL at random moments and resumed, until it ends; what it leaves must equal the first, row by row, in
all columns but times. A third of the kills takes the command alone, a third it and all processes that it has started,
and a third the process that trains. A fifth of the moments are random times; the others are those at which a file is
being written, equally often each: ``progress.csv``, ``checkpoints.json``, ``run.json``, a checkpoint, Tune's state, a
TensorBoard file, and what a finished run makes.

    python benchmarks/campaign.py kills --kills 100                     # an hour and a half on two CPUs
    python benchmarks/campaign.py kills --kills 6 --families PPO DQN    # some minutes
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import ctypes
import json
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qio_rllib.artifacts.files import write_csv

ITERATIONS = 40
SPRINT = {"scenario": "sprint", "max_steps": 15}
TIMES = ("time", "per_s", "throughput", "timestamp")
RUNNER = {"num_env_runners": 0, "num_envs_per_env_runner": 2}
MODEL = {"model_config": {"fcnet_hiddens": [8]}}
ON_POLICY = {
    **RUNNER,
    **MODEL,
    "train_batch_size_per_learner": 40,
    "evaluation_interval": 4,
    "evaluation_duration": 2,
}
OFF_POLICY = {
    **RUNNER,
    **MODEL,
    "rollout_fragment_length": 5,
    "min_sample_timesteps_per_iteration": 40,
    "num_steps_sampled_before_learning_starts": 80,
    "train_batch_size_per_learner": 16,
    "env_steps_per_update": 10,
    "evaluation_interval": 4,
    "evaluation_duration": 2,
}
FOREST = {"env_config": SPRINT}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "PPO": ("forest_uav_v0", {**FOREST, **ON_POLICY, "minibatch_size": 30, "amplification": {}}),
    "A2C": ("CartPole-v1", ON_POLICY),
    "MADDPG": ("forest_uav_v0", {**FOREST, **OFF_POLICY}),
    "DQN": ("CartPole-v1", {**OFF_POLICY, "exploration": [[0, 1.0], [1000, 0.1]]}),
    "QMIX": ("forest_uav_v0", {**FOREST, **OFF_POLICY, "exploration": [[0, 1.0], [1000, 0.1]]}),
    "COMA": ("forest_uav_v0", {**FOREST, **ON_POLICY, "rollout_fragment_length": 20}),
    "MAAC": ("forest_uav_v0", {**FOREST, **OFF_POLICY, "critic": {"hiddens": [8], "heads": 2}}),
    "MASAC": ("Pendulum-v1", {**OFF_POLICY, "critic": {"type": "own", "hiddens": [8]}}),
    "WorldModel": (
        "CartPole-v1",
        {
            **{key: value for key, value in OFF_POLICY.items() if key not in MODEL},
            "world_model": {"type": "ensemble", "members": 2, "hiddens": [8]},
            "behaviour": "planner",
            "planner": {"method": "icem", "horizon": 3, "candidates": 8, "iterations": 1},
        },
    ),
    "Federated": (
        "forest_uav_v0",
        {
            **FOREST,
            "clients": [{"count": 3}],
            "participation": {"clients": 2},
            "evaluation_interval": 4,
            "evaluation_duration": 2,
            "local": {
                "run": "PPO",
                **RUNNER,
                **MODEL,
                "train_batch_size_per_learner": 30,
                "minibatch_size": 30,
            },
        },
    ),
}
TARGETS = {
    "progress.csv": "progress.csv",
    "checkpoints.json": "checkpoints.json",
    "run.json": "run.json",
    "checkpoint": "checkpoint_0",
    "tune": "experiment_state",
    "tensorboard": "events.out",
    "finish": "policy.pt",
}
"""Files whose writing is a moment to kill at, and what their paths contain."""
MOMENTS = ["any", "training", *TARGETS]
"""Moments to kill at: a random time of the whole command, one behind a row, and those of `TARGETS`."""


# -- processes ----------------------------------------------------------------------------------------------------


def descendants(pid: int) -> dict[int, str]:
    """Return the processes that a process has started, and theirs, with their titles."""
    children: dict[int, list[int]] = {}
    titles: dict[int, str] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            titles[int(entry.name)] = (
                (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        for child in children.get(waiting.pop(), []):
            found[child] = titles[child]
            waiting.append(child)
    return found


def kill(pid: int) -> None:
    """Send SIGKILL, if the process is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def strike(process: subprocess.Popen, how: str) -> None:
    """Kill a command (``command``), it and all that it has started (``all``), or what trains (``trainer``).

    Returns when all have ended. Who loses the command ends by itself, or is ended after a minute.
    """
    family = descendants(process.pid)
    trainers = [pid for pid, title in family.items() if title.startswith("ray::") and "IDLE" not in title]
    if how == "trainer" and trainers:
        for pid in trainers:
            kill(pid)
    else:
        process.kill()
        if how == "all":
            for pid in family:
                kill(pid)
    process.wait()
    deadline = time.monotonic() + 60
    while (left := [pid for pid in family if alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.2)
    for pid in left:
        kill(pid)


def alive(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Watch:
    """Tells of files that are written in a directory and below it, by the kernel's inotify."""

    _MASK = 0x2 | 0x40 | 0x80 | 0x100  # modified, moved from, moved to, created

    def __init__(self, path: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._file = self._libc.inotify_init1(os.O_CLOEXEC)
        self._paths: dict[int, Path] = {}
        self._add(path)

    def next(self, seconds: float) -> list[Path]:
        """Return what was written since the last call, waiting so long for something."""
        if not select.select([self._file], [], [], seconds)[0]:
            return []
        data, found, start = os.read(self._file, 1 << 16), [], 0
        while start < len(data):
            watch, mask, _, length = struct.unpack_from("iIII", data, start)
            start += 16
            name = data[start : start + length].rstrip(b"\0").decode()
            start += length
            if watch in self._paths:
                path = self._paths[watch] / name
                found.append(path)
                if mask & 0x40000000 and mask & 0x180:  # a directory that is new
                    self._add(path)
        return found

    def close(self) -> None:
        """End it."""
        os.close(self._file)

    def _add(self, path: Path) -> None:
        watch = self._libc.inotify_add_watch(self._file, os.fsencode(path), self._MASK)
        if watch >= 0:
            self._paths[watch] = path
            for entry in os.scandir(path):
                if entry.is_dir(follow_symlinks=False):
                    self._add(Path(entry.path))


# -- runs ---------------------------------------------------------------------------------------------------------


def launch(arguments: Sequence[str], log: Path) -> subprocess.Popen:
    """Start ``rllib train`` with arguments; what it prints is added to a file."""
    with log.open("a") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "qio_rllib.cli", "train", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=file,
            start_new_session=True,
        )


def start(family: str, out: Path) -> subprocess.Popen:
    """Start the run of a family."""
    env, settings = FAMILIES[family]
    return launch(
        [
            *("--run", family, "--env", env, "--config", json.dumps({**settings, "seed": 104})),
            *("--stop", json.dumps({"training_iteration": ITERATIONS}), "--out", str(out)),
        ],
        out.with_suffix(".log"),
    )


def directory_of(out: Path) -> Path | None:
    """Return the only run below a directory, None before there is one."""
    found = [path.parent for path in out.glob("*/*/run.json") if not path.parent.name.startswith(".")]
    assert len(found) <= 1, found
    return found[0] if found else None


def table(run: Path) -> list[dict[str, str]]:
    """Return the rows of ``progress.csv`` without times."""
    with (run / "progress.csv").open(newline="") as file:
        return [
            {key: value for key, value in row.items() if value and not any(word in key for word in TIMES)}
            for row in csv.DictReader(file)
        ]


def problem_of(expected: list[dict[str, str]], run: Path) -> str:
    """Return in what a run differs from the undisturbed one, nothing if in nothing."""
    found = table(run)
    iterations = [int(row["training_iteration"]) for row in found]
    if iterations != list(range(1, ITERATIONS + 1)):
        return f"rows {iterations}"
    for ours, theirs in zip(found, expected, strict=True):
        if ours != theirs:
            keys = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
            return f"row {ours['training_iteration']}: {', '.join(keys[:5])}"
    return "" if status_of(run) == "finished" else "status"


def status_of(run: Path) -> str:
    """Return the status in ``run.json``."""
    return json.loads((run / "run.json").read_text())["status"]


def wait_and_strike(
    process: subprocess.Popen, out: Path, generator: random.Random, moment: str, how: str, seconds: float
) -> bool:
    """Kill a run at a moment; False if it ended before. An undisturbed one takes so many seconds."""
    out.mkdir(parents=True, exist_ok=True)
    watch = Watch(out)
    try:
        if moment == "any":
            left, delay = 0, generator.uniform(0.0, seconds)
        elif moment == "training":
            left, delay = 1, generator.uniform(0.0, 1.5)
        else:
            left = generator.randint(1, 4 if moment in ("run.json", "tune", "finish") else 12)
            delay = generator.choice([0.0, 0.0, 0.001, 0.003, 0.01])
        while left > 0:
            if process.poll() is not None:
                return False
            written = (str(path.relative_to(out)) for path in watch.next(0.5))
            left -= sum(TARGETS.get(moment, "progress.csv") in path for path in written)
        time.sleep(delay)
        if process.poll() is not None:
            return False
        strike(process, how)
        return True
    finally:
        watch.close()


def kills_of(
    family: str, moments: Sequence[str], out: Path, generator: random.Random
) -> list[dict[str, Any]]:
    """Kill and resume runs of a family at moments, in their order; one row for each start of the command."""
    whole = out / f"{family}_whole"
    shutil.rmtree(whole, ignore_errors=True)
    begun = time.monotonic()
    assert start(family, whole).wait() == 0, f"{family}: the undisturbed run failed"
    seconds = time.monotonic() - begun
    run = directory_of(whole)
    assert run is not None
    expected = table(run)
    rows: list[dict[str, Any]] = []
    done, count = 0, 0
    while done < len(moments):
        count += 1
        cut = out / f"{family}_{count}"
        shutil.rmtree(cut, ignore_errors=True)
        ended = False
        while not ended:
            run = directory_of(cut)
            before = len(table(run)) if run is not None and (run / "progress.csv").exists() else 0
            process = (
                start(family, cut) if run is None else launch(["--resume", str(run)], cut.with_suffix(".log"))
            )
            row: dict[str, Any] = {"family": family, "run": count, "rows_before": before}
            if done < len(moments):
                row["moment"] = moments[done]
                row["killed"] = generator.choice(["command", "all", "trainer"])
                struck = wait_and_strike(process, cut, generator, row["moment"], row["killed"], seconds)
            else:
                struck = False
                process.wait()
            done += struck
            run = directory_of(cut)
            finished = run is not None and status_of(run) == "finished"
            ended = finished or not struck  # a kill may have come behind the end
            row |= {"struck": int(struck), "exit": process.returncode, "ended": int(ended), "problem": ""}
            if ended:
                row["problem"] = problem_of(expected, run) if finished and run is not None else "not resumed"
            rows.append(row)
            print(row, flush=True)
    return rows


def kills(arguments: argparse.Namespace) -> None:
    """Run the part ``kills``."""
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    names = arguments.families or list(FAMILIES)
    # Moments are dealt out in turns, so that each comes equally often, over the families and in each of them.
    aims = arguments.moments or MOMENTS
    moments = [aims[kill % len(aims)] for kill in range(arguments.kills)]
    for index, family in enumerate(names):
        generator = random.Random(arguments.seed * 1000 + index)
        own = moments[index :: len(names)]
        generator.shuffle(own)
        rows += kills_of(family, own, out, generator)
        write_csv(out / "kills.csv", rows)
    ends = [row for row in rows if row["ended"]]
    print(f"{sum(row['struck'] for row in rows)} kills, {len(ends)} runs to their end, of these")
    print(f"  not resumed      {sum(row['problem'] == 'not resumed' for row in ends)}")
    print(f"  different        {sum(row['problem'] not in ('', 'not resumed') for row in ends)}")
    print(f"  equal            {sum(row['problem'] == '' for row in ends)}")
    sys.exit(any(row["problem"] for row in ends))


PARTS = {"kills": kills}


def main(argv: Sequence[str] | None = None) -> None:
    """Run a part of the campaign."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    part = parts.add_parser("kills", help="kill -9 at random moments, and resume")
    part.add_argument("--kills", type=int, default=100)
    part.add_argument("--families", nargs="+", choices=list(FAMILIES))
    part.add_argument("--moments", nargs="+", choices=MOMENTS, help="to kill at, in place of all")
    part.add_argument("--seed", type=int, default=0, help="of the moments")
    part.add_argument("--out", default="runs/campaign", help="where the runs and kills.csv lie")
    arguments = parser.parse_args(argv)
    PARTS[arguments.part](arguments)


if __name__ == "__main__":
    main()
