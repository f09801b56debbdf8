"""How fast is skirmish_v0 beside JaxMARL's SMAX? Environment steps a CPU second on one core, side by side.

Both play 64 copies with random legal actions, with all observations, masks, global states and resets. They take turns,
so that a busy machine slows both alike; the table has medians. SMAX is compiled as one loop over all steps of a turn,
its fastest form, and XLA has one thread.

JaxMARL brings packages that do not go together with this project's, so it runs with the Python of an environment of its
own:

    python -m venv /somewhere/jaxmarl
    /somewhere/jaxmarl/bin/pip install jaxmarl==0.2.0
    python benchmarks/skirmish_throughput.py --jaxmarl-python /somewhere/jaxmarl/bin/python
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import numba
import numpy as np
from env_throughput import cpu_model
from tables import write

from qio_envs import skirmish_v0
from qio_envs.api.policies import RandomPolicy

NUM_ENVS = 64
STEPS = {"2s3z": (1000, 200), "27m_vs_30m": (200, 20)}
"""Steps in a turn of ours and of SMAX's, by map."""
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


class Ours:
    """Environments of this package."""

    def __init__(self, name: str) -> None:
        self.env = skirmish_v0.batched_env(NUM_ENVS, name)
        self.env.reset(0)
        self.player = RandomPolicy(self.env)
        self.out = self.env.observe()

    def seconds(self, steps: int) -> float:
        """Return the CPU seconds of so many steps."""
        start = time.process_time()
        for _ in range(steps):
            self.env.step(self.player.act())
            ended = ~self.env.running
            if ended.any():
                self.env.reset(mask=ended)
            self.env.observe(self.out)
            self.env.state()
        return time.process_time() - start


class Theirs:
    """`smax_worker` with a map."""

    def __init__(self, python: str, name: str, steps: int) -> None:
        worker = Path(__file__).with_name("smax_worker.py")
        command = [python, str(worker), name, str(NUM_ENVS), str(steps)]
        environment = os.environ | {"XLA_FLAGS": ONE_THREAD, "JAX_PLATFORMS": "cpu"}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        line = self._line()
        while not line.startswith("ready "):  # what JaxMARL prints at import comes first
            line = self._line()
        _, self.jax, self.jaxmarl = line.split()

    def seconds(self) -> float:
        """Return the CPU seconds of a turn."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(self._line())

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"smax_worker.py ended with exit status {self.process.wait()}")
        return line


def measure(python: str, name: str, rounds: int) -> dict[str, Any]:
    """Return the row of a map."""
    our_steps, their_steps = STEPS[name]
    ours, theirs = Ours(name), Theirs(python, name, their_steps)
    ours.seconds(20)
    rates: tuple[list[float], list[float]] = [], []
    for _ in range(rounds):
        rates[0].append(NUM_ENVS * our_steps / ours.seconds(our_steps))
        rates[1].append(NUM_ENVS * their_steps / theirs.seconds())
    theirs.close()
    here, there = map(statistics.median, rates)
    return {
        "map": name,
        "num_envs": NUM_ENVS,
        "skirmish_v0": round(here),
        "smax": round(there),
        "ratio": round(here / there, 1),
        "slowest_skirmish_v0": round(min(rates[0])),
        "fastest_skirmish_v0": round(max(rates[0])),
        "slowest_smax": round(min(rates[1])),
        "fastest_smax": round(max(rates[1])),
        "rounds": rounds,
        "cpu": cpu_model(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "jaxmarl": theirs.jaxmarl,
        "jax": theirs.jax,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--jaxmarl-python", required=True, help="a Python that has jaxmarl")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each (9)")
    parser.add_argument(
        "--out", type=Path, default=Path("results/skirmish/throughput.csv"), help="CSV to write"
    )
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core, for the worker too
    rows = []
    for name in STEPS:
        rows.append(measure(args.jaxmarl_python, name, args.rounds))
        print(rows[-1], flush=True)
    write(args.out, rows)
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
