"""PPO on spread here and in other frameworks, in turns in one run: steps a second, and seconds to a score.

Three agents, 25 steps an episode, discrete actions, one policy for all. Everybody has the same work: 64 environments,
1,600 environment steps an iteration (an episode of each), 4 epochs of minibatches of 1,200 agents' rows, which are 16
gradient steps, networks of two tanh layers of 64 for actor and critic, and one thread. Learning rate, discount and
coefficients are the same too, and nobody's were tuned for this. What an end of an episode by its time limit means, how
advantages are standardised and how weights begin is each one's own.

Environments are those that come with a framework or that it is used with:

- ``mpe_spread_v0``: this package and plain torch (`bare_ppo.py`);
- mpe2's ``simple_spread_v3``, the same task, an environment a Python object: this package, RLlib's own path and
  Stable-Baselines3 (through SuperSuit, agents as environments);
- PettingZoo's of before, the same: BenchMARL;
- JaxMARL's ``MPE_simple_spread_v3``: a loop in JAX, compiled as a whole (`jaxmarl_ppo_worker.py`), since its package
  has no trainer;
- VMAS's ``simple_spread``: BenchMARL. Observations and rewards are others, so that its returns are not compared.

JaxMARL and BenchMARL bring packages that do not go together with this project's; each runs with the Python of an
environment of its own:

    python -m venv /somewhere/jaxmarl
    /somewhere/jaxmarl/bin/pip install jaxmarl==0.2.0
    python -m venv /somewhere/benchmarl
    /somewhere/benchmarl/bin/pip install benchmarl==1.5.2 "torchrl<0.12" vmas pettingzoo==1.24.3 pygame torch==2.13.0
    python benchmarks/beside_frameworks.py --jaxmarl PYTHON --benchmarl PYTHON

Contestants take turns, an iteration each, so that a busy machine slows all alike; the first turn of each counts for
learning and not for speed. A score is the return of an agent, with sampled actions, averaged over agents and the
episodes of the last `WINDOW` iterations; who has reached `TARGET` stops. Seconds are those of iterations, by the clock
and of the process's CPU; starting and compiling are not in them.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import supersuit
import torch
import training_throughput
from bare_ppo import BarePPO
from mpe2 import simple_spread_v3
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecMonitor
from tables import write
from training_throughput import OURS, STOCK

from qio_envs import mpe_spread_v0
from qio_rllib.artifacts.run_description import cpu_model
from qio_rllib.experiments.resources import quiet_ray
from qio_rllib.experiments.timed_turns import TimedAlgorithm, ray_for
from qio_rllib.sampling.stepper import one_thread

ROOT = Path(__file__).parents[1]
AGENTS = 3
SETTINGS: dict[str, Any] = {
    "num_envs": 64, "steps": 25, "episode": 25, "epochs": 4, "minibatch": 1200, "hidden": [64, 64], "lr": 1e-3,
    "gamma": 0.95, "lambda": 0.95, "clip": 0.2, "vf_coeff": 0.5, "entropy_coeff": 0.01, "grad_clip": 0.5, "seed": 0,
}  # fmt: skip
"""Of everybody; rows of a minibatch are agents' steps."""
ENV_STEPS = SETTINGS["num_envs"] * SETTINGS["steps"]
TARGET, WINDOW = -21.0, 5
HERE_BATCH, HERE_MPE2 = "this package, mpe_spread_v0", "this package, mpe2"
ONE_XLA_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


@dataclasses.dataclass(frozen=True)
class Iteration:
    """What a turn took and came to.

    Attributes:
        seconds: By the clock.
        cpu_seconds: Of the process.
        env_steps: Steps in which all agents act.
        agent_return: Mean return of an agent in the turn's episodes.
    """

    seconds: float
    cpu_seconds: float
    env_steps: int
    agent_return: float


class Contestant(Protocol):
    """Somebody who takes turns."""

    def iterate(self) -> Iteration:
        """Sample and learn once."""

    def close(self) -> None:
        """Give back what is held."""


@contextlib.contextmanager
def clocks() -> Iterator[dict[str, float]]:
    """Measure a block; the mapping gets ``seconds`` and ``cpu_seconds``."""
    spent: dict[str, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield spent
    spent["seconds"] = time.perf_counter() - wall
    spent["cpu_seconds"] = time.process_time() - cpu


def config_of(path: str, env: str) -> AlgorithmConfig:
    """Return the configuration of RLlib's own path or of this package's, with the settings of everybody."""
    env_config = {} if env == "mpe_spread_v0" else {"N": AGENTS, "max_cycles": SETTINGS["episode"]}
    config = training_throughput.config_of(path, (env, env_config), SETTINGS["num_envs"])
    return (
        config.reporting(metrics_num_episodes_for_smoothing=SETTINGS["num_envs"])
        .debugging(seed=SETTINGS["seed"])
        .training(
            train_batch_size_per_learner=ENV_STEPS, minibatch_size=SETTINGS["minibatch"],
            num_epochs=SETTINGS["epochs"], gamma=SETTINGS["gamma"], lambda_=SETTINGS["lambda"], lr=SETTINGS["lr"],
            clip_param=SETTINGS["clip"], vf_loss_coeff=SETTINGS["vf_coeff"], entropy_coeff=SETTINGS["entropy_coeff"],
            grad_clip=SETTINGS["grad_clip"],
        )
    )  # fmt: skip


class OnRLlib:
    """This package's path or RLlib's own.

    Args:
        config: Of `config_of`.
    """

    def __init__(self, config: AlgorithmConfig) -> None:
        self._timed = TimedAlgorithm(config)

    def iterate(self) -> Iteration:
        """Sample and learn once."""
        with clocks() as spent:
            turn = self._timed.turn()
        return Iteration(env_steps=turn.env_steps, agent_return=turn.team_return / AGENTS, **spent)

    def close(self) -> None:
        """Stop the algorithm."""
        self._timed.stop()


class PlainTorch:
    """`BarePPO` on `mpe_spread_v0`."""

    def __init__(self) -> None:
        self._ppo = BarePPO(
            mpe_spread_v0.batched_env(SETTINGS["num_envs"]),
            env_steps=ENV_STEPS, epochs=SETTINGS["epochs"], minibatch_size=SETTINGS["minibatch"], lr=SETTINGS["lr"],
            gamma=SETTINGS["gamma"], lambda_=SETTINGS["lambda"], clip=SETTINGS["clip"],
            value_coeff=SETTINGS["vf_coeff"], entropy_coeff=SETTINGS["entropy_coeff"],
            max_norm=SETTINGS["grad_clip"], seed=SETTINGS["seed"], window=SETTINGS["num_envs"],
        )  # fmt: skip

    def iterate(self) -> Iteration:
        """Sample and learn once."""
        with clocks() as spent:
            done = self._ppo.iterate()
        return Iteration(env_steps=ENV_STEPS, agent_return=done["team_return"] / AGENTS, **spent)

    def close(self) -> None:
        """Nothing is held."""


class StableBaselines3:
    """Stable-Baselines3's PPO on mpe2, each agent of each environment a row of its vector environment."""

    def __init__(self) -> None:
        env = simple_spread_v3.parallel_env(N=AGENTS, max_cycles=SETTINGS["episode"])
        rows = supersuit.pettingzoo_env_to_vec_env_v1(env)
        self._envs = VecMonitor(
            supersuit.concat_vec_envs_v1(
                rows, SETTINGS["num_envs"], num_cpus=0, base_class="stable_baselines3"
            )
        )
        width = SETTINGS["hidden"]
        set_random_seed(SETTINGS["seed"])  # SuperSuit's environments cannot be seeded by PPO itself
        self._ppo = PPO(
            "MlpPolicy", self._envs, n_steps=SETTINGS["steps"], batch_size=SETTINGS["minibatch"],
            n_epochs=SETTINGS["epochs"], learning_rate=SETTINGS["lr"], gamma=SETTINGS["gamma"],
            gae_lambda=SETTINGS["lambda"], clip_range=SETTINGS["clip"], ent_coef=SETTINGS["entropy_coeff"],
            vf_coef=SETTINGS["vf_coeff"], max_grad_norm=SETTINGS["grad_clip"], device="cpu",
            policy_kwargs={"net_arch": {"pi": width, "vf": width}}, stats_window_size=AGENTS * SETTINGS["num_envs"],
        )  # fmt: skip
        self._ppo.set_logger(Logger(folder=None, output_formats=[]))  # its own keeps a folder for each object

    def iterate(self) -> Iteration:
        """Sample and learn once."""
        with clocks() as spent:
            self._ppo.learn(ENV_STEPS * AGENTS, reset_num_timesteps=False)
        returns = [episode["r"] for episode in self._ppo.ep_info_buffer]
        return Iteration(env_steps=ENV_STEPS, agent_return=float(statistics.fmean(returns)), **spent)

    def close(self) -> None:
        """Close the environments."""
        self._envs.close()


class Worker:
    """A script in another Python, which answers each line of its input with an iteration's row.

    Args:
        name: Of the contestant, for errors.
        command: Of the process; the settings are added as JSON.
    """

    def __init__(self, name: str, *command: str) -> None:
        self._name = name
        pipe = subprocess.PIPE
        threads = {
            "XLA_FLAGS": ONE_XLA_THREAD, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", "RL_WARNINGS": "False",
        }  # fmt: skip
        self._process = subprocess.Popen(
            [*command, json.dumps(SETTINGS)],
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | threads,
        )
        self.start_s = float(self._answer("ready ").split()[1])

    def iterate(self) -> Iteration:
        """Sample and learn once."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return Iteration(**json.loads(self._answer("{")))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self, begin: str) -> str:
        """Return the next line that begins so; packages print others."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(begin):
                return line
        raise SystemExit(f"{self._name}: its process ended with exit status {self._process.wait()}")


@contextlib.contextmanager
def contestants(jaxmarl: str, benchmarl: str) -> Iterator[dict[str, Contestant]]:
    """Start everybody, by name.

    Args:
        jaxmarl: Python of an environment that holds JaxMARL.
        benchmarl: Likewise of BenchMARL and VMAS.
    """
    folder = Path(__file__).parent
    configs = {
        HERE_BATCH: config_of(OURS, "mpe_spread_v0"),
        HERE_MPE2: config_of(OURS, "mpe2.simple_spread_v3"),
        "RLlib, mpe2": config_of(STOCK, "mpe2.simple_spread_v3"),
    }
    workers = {
        "JaxMARL": (jaxmarl, "jaxmarl_ppo_worker.py"),
        "BenchMARL, PettingZoo": (benchmarl, "benchmarl_ppo_worker.py", "pettingzoo"),
        "BenchMARL, VMAS": (benchmarl, "benchmarl_ppo_worker.py", "vmas"),
    }
    with contextlib.ExitStack() as running:
        running.enter_context(ray_for(*configs.values()))
        running.enter_context(one_thread())
        built: dict[str, Contestant] = {}
        for name, config in configs.items():
            built[name] = OnRLlib(config)
        built["plain torch, mpe_spread_v0"] = PlainTorch()
        built["Stable-Baselines3, mpe2"] = StableBaselines3()
        for name, (python, script, *more) in workers.items():
            built[name] = Worker(name, python, str(folder / script), *more)
        for each in built.values():
            running.callback(each.close)
        yield built


COUNTERPARTS = {
    "plain torch, mpe_spread_v0": HERE_BATCH,
    "JaxMARL": HERE_BATCH,
    "BenchMARL, VMAS": HERE_BATCH,
    "RLlib, mpe2": HERE_MPE2,
    "Stable-Baselines3, mpe2": HERE_MPE2,
    "BenchMARL, PettingZoo": HERE_MPE2,
}
"""This package's path on the environment of its kind: many in one array, or each a Python object."""
NOT_SCORED = frozenset({"BenchMARL, VMAS"})


def compete(built: dict[str, Contestant], rounds: int, seconds: float) -> dict[str, list[Iteration]]:
    """Let everybody take turns.

    Args:
        built: Contestants by name.
        rounds: Turns of each at least, after one more.
        seconds: After so many seconds of its own, by the clock, nobody goes on to the score.

    Returns:
        The turns of each.
    """
    turns: dict[str, list[Iteration]] = {name: [] for name in built}
    score: dict[str, collections.deque[float]] = {name: collections.deque(maxlen=WINDOW) for name in built}
    going = set(built)
    while going:
        for name in [name for name in built if name in going]:
            turns[name].append(built[name].iterate())
            score[name].append(turns[name][-1].agent_return)
            if len(turns[name]) <= rounds:
                continue
            spent = sum(turn.seconds for turn in turns[name])
            if name in NOT_SCORED or reached(score[name]) or spent >= seconds:
                going.remove(name)
    return turns


def reached(returns: collections.deque[float]) -> bool:
    """Return whether the last iterations are enough, and good enough."""
    return len(returns) == WINDOW and statistics.fmean(returns) >= TARGET


def first_at_target(turns: list[Iteration]) -> int | None:
    """Return how many turns it took until the score was reached; None where it was not."""
    returns: collections.deque[float] = collections.deque(maxlen=WINDOW)
    for number, turn in enumerate(turns, start=1):
        returns.append(turn.agent_return)
        if reached(returns):
            return number
    return None


def summary(turns: dict[str, list[Iteration]], rounds: int) -> list[dict[str, Any]]:
    """Return a row for each contestant: medians of the rounds in which all took part, and what the score took."""

    def rate(name: str, column: str) -> float:
        of_rounds = turns[name][1 : rounds + 1]
        return statistics.median(turn.env_steps / getattr(turn, column) for turn in of_rounds)

    rows = []
    for name, played in turns.items():
        other = COUNTERPARTS.get(name)
        number = None if name in NOT_SCORED else first_at_target(played)
        until = [] if number is None else played[:number]
        rows.append(
            {
                "contestant": name,
                "env_steps_per_s": round(rate(name, "seconds")),
                "env_steps_per_cpu_s": round(rate(name, "cpu_seconds")),
                "counterpart": other or "",
                "counterpart_ratio": round(rate(other, "seconds") / rate(name, "seconds"), 2)
                if other
                else "",
                "counterpart_cpu_ratio": round(rate(other, "cpu_seconds") / rate(name, "cpu_seconds"), 2)
                if other
                else "",
                "target": TARGET,
                "env_steps_to_target": sum(turn.env_steps for turn in until) or "",
                "seconds_to_target": round(sum(turn.seconds for turn in until), 2) or "",
                "cpu_seconds_to_target": round(sum(turn.cpu_seconds for turn in until), 2) or "",
            }
        )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    print(
        f"\n{'':<28}{'env steps/s':>12}{'/CPU s':>9}{'here/it':>9}{'CPU':>7}   until an agent's return is {TARGET:g}"
    )
    for row in rows:
        needed = (
            f"{row['seconds_to_target']:>8.1f} s{row['cpu_seconds_to_target']:>8.1f} CPU s"
            f"{row['env_steps_to_target']:>10,} steps"
            if row["env_steps_to_target"]
            else f"{'not compared' if row['contestant'] in NOT_SCORED else 'not reached':>16}"
        )
        print(
            f"{row['contestant']:<28}{row['env_steps_per_s']:>12,}{row['env_steps_per_cpu_s']:>9,}"
            f"{row['counterpart_ratio']:>9}{row['counterpart_cpu_ratio']:>7}   {needed}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jaxmarl", required=True, help="Python of an environment that holds JaxMARL")
    parser.add_argument(
        "--benchmarl", required=True, help="Python of an environment that holds BenchMARL and VMAS"
    )
    parser.add_argument("--rounds", type=int, default=9, help="turns of each that are timed (9)")
    parser.add_argument(
        "--seconds", type=float, default=300, help="limit of each on the way to the score (300)"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "results" / "beside_frameworks.csv", help="CSV to write"
    )
    args = parser.parse_args()
    for option, python in (("--jaxmarl", args.jaxmarl), ("--benchmarl", args.benchmarl)):
        if shutil.which(python) is None:
            parser.error(f"{option}: no such Python: {python}")
    if args.rounds < 1:
        parser.error("--rounds: expected at least 1")
    warnings.filterwarnings("ignore", category=UserWarning)
    with quiet_ray(), contestants(args.jaxmarl, args.benchmarl) as built:
        turns = compete(built, args.rounds, args.seconds)
    here = {"cpu": cpu_model(), "python": platform.python_version(), "torch": torch.__version__}
    rows = summary(turns, args.rounds)
    show(rows)
    write(args.out, [{**row, "rounds": args.rounds, **here} for row in rows])
    curves = args.out.with_stem(f"{args.out.stem}_curves")
    write(
        curves,
        [
            {"contestant": name, "iteration": number, **dataclasses.asdict(turn)}
            for name, played in turns.items()
            for number, turn in enumerate(played, start=1)
        ],
    )
    print(f"\nwritten to {args.out} and {curves}", file=sys.stderr)


if __name__ == "__main__":
    main()
