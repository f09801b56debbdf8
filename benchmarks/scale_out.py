"""When do remote runners and learners pay? PPO with 0, 1 and 2 runners and with 2 learners, where environments cost.

Environments: skirmish_v0 (27m_vs_30m, a batch in a kernel), mpe2's simple_spread_v3 with ten agents, level-based
foraging and the multi-robot warehouse, the last three plain Python. 8 environments in each runner, 800 environment
steps an iteration, 4 epochs, minibatches of 800 agent rows over all learners, networks of two tanh layers of 64, one
thread in every process. All contestants of an environment take turns, iteration by iteration, so that a busy machine
slows all alike; the tables have medians.

Beside them, in the same rounds, one and two processes step the environments alone, with random actions: how much faster
two are is what the machine's CPUs allow. From that follows the limit of two runners: sampling as much faster, the rest
of the iteration as it is. The CPU path is what an iteration would take if each process had an idle CPU: the CPU seconds
of the driver, of its slowest runner and of its slowest learner, added up. What the environment costs is measured where
there are no remote runners: the time within the environments' own methods as a share of sampling and of the iteration.

The part two nodes repeats 0 and 2 runners on two Ray nodes, simulated on this machine, with a runner on each. The part
overlap trains Q-learning (DQN, a gradient step on 256 rows for 16 environment steps) with none and with one runner that
waits for the update (lag 0) or samples meanwhile (lag 1).

    python benchmarks/scale_out.py                                  # about eight minutes
    python benchmarks/scale_out.py --tasks rware --rounds 3         # one environment
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch are imported; other processes inherit it

import argparse
import contextlib
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from training_throughput import OURS, Row, Task, cluster, config_of

from qio_rllib.algorithms import DQNConfig
from qio_rllib.artifacts.files import write_csv
from qio_rllib.experiments.resources import quiet_ray
from qio_rllib.experiments.timed_turns import (
    TimedAlgorithm,
    Turn,
    machine,
    ray_for,
    summary,
    take_turns,
)
from qio_rllib.sampling.batched_vector_env import BatchedVectorEnv
from qio_rllib.sampling.environments import make_vector_env
from qio_rllib.sampling.stepper import one_thread
from qio_rllib.sampling.vector_env import VectorEnv

NUM_ENVS, STEPS, EPOCHS, MINIBATCH = 8, 800, 4, 800
TASKS: dict[str, Task] = {
    "skirmish": ("skirmish_v0", {"scenario": "27m_vs_30m"}),
    "mpe2": ("mpe2.simple_spread_v3", {"N": 10, "max_cycles": 25}),
    "lbforaging": ("lbforaging:Foraging-15x15-4p-3f-v3", {}),
    "rware": ("rware:rware-small-4ag-v2", {}),
}
PLACES: dict[str, tuple[int, int]] = {  # contestant -> remote runners, remote learners
    "none": (0, 0),
    "1 runner": (1, 0),
    "2 runners": (2, 0),
    "2 learners": (0, 2),
    "2 runners, 2 learners": (2, 2),
}
ONE_COPY, TWO_COPIES = "1 copy of the environments", "2 copies of the environments"
COPY_SECONDS = 0.5  # of their turns, so that a call's own time does not count
NODES = "2 runners, two nodes"


class EnvLoop:
    """Steps environments with random legal actions and sees all observations; an actor of Ray."""

    def __init__(self, task: Task, seed: int) -> None:
        self.env = make_vector_env(*task, NUM_ENVS)
        agents = self.env.agents
        self.index = np.arange(len(agents))
        self.choices = int(self.env.action_spaces[agents[0]].n)
        space = self.env.observation_spaces[agents[0]]
        shape = getattr(space, "spaces", {"observation": space})["observation"].shape
        self.seen = np.empty((NUM_ENVS, len(agents), *shape), np.float32)
        self.rng = np.random.default_rng(seed)
        self.env.reset(self.rng.integers(2**63, size=NUM_ENVS, dtype=np.uint64))

    def play(self, steps: int) -> None:
        """Take so many steps with all environments."""
        for _ in range(steps):
            mask = self.env.action_mask(self.index)
            chances = self.rng.random((*self.seen.shape[:2], self.choices))
            actions = (chances if mask is None else chances * mask).argmax(-1)
            self.env.step([(self.index, actions)])
            over = ~self.env.alive().any(axis=1)
            if over.any():
                self.env.reset(mask=over)
            self.env.observe(self.index, self.seen)


class Copies:
    """Several `EnvLoop`s at once, taking turns; a turn ends with the slowest of them.

    Args:
        loops: Actors of Ray.
        steps: Steps of each in a turn.
    """

    def __init__(self, loops: list[Any], steps: int) -> None:
        self.loops, self.steps = loops, steps

    def turn(self) -> Turn:
        """Let all play."""
        start = time.perf_counter()
        ray.get([loop.play.remote(self.steps) for loop in self.loops])
        seconds = time.perf_counter() - start
        return Turn(seconds, seconds, 0.0, self.steps * NUM_ENVS * len(self.loops), 0, 0)


def steps_of(loop: Any) -> int:
    """Return how many steps of a loop take about as long as `COPY_SECONDS`, but no fewer than an iteration has."""
    steps = STEPS // NUM_ENVS
    for _ in range(2):  # kernels are compiled in the first
        seconds = Copies([loop], steps).turn().seconds
    return steps * max(1, round(COPY_SECONDS / seconds))


class Watched:
    """A `TimedAlgorithm` taking turns, with the CPU seconds of its processes and what its environments take of them.

    Attributes:
        paths: CPU seconds of this process, of the slowest runner and of the slowest learner, added up, a turn each:
            what an iteration would take if each process had an idle CPU.
        shares: (share of sampling, share of the iteration) that environments in this process took, a turn each.
    """

    def __init__(self, algorithm: TimedAlgorithm) -> None:
        self.algorithm = algorithm
        self.paths: list[float] = []
        self.shares: list[tuple[float, float]] = []
        self._spent = 0.0
        env: VectorEnv | None = algorithm.algorithm.env_runner.env  # None where runners are remote
        watched: list[tuple[Any, str]] = []
        if isinstance(env, BatchedVectorEnv):
            names = ("reset", "step", "observe", "action_mask", "agents_alive", "info")
            watched = [(env.env, name) for name in names]
        elif env is not None:
            watched = [(each, name) for each in env.envs for name in ("reset", "step")]
        for owner, name in watched:
            setattr(owner, name, self._timed(getattr(owner, name)))

    def turn(self) -> Turn:
        """Train for one iteration."""
        self._spent = 0.0
        others, own = self._others(), time.process_time()
        turn = self.algorithm.turn()
        path = time.process_time() - own
        for before, after in zip(others, self._others(), strict=True):
            path += max((late - early for early, late in zip(before, after, strict=True)), default=0.0)
        self.paths.append(path)
        self.shares.append((self._spent / turn.sample_s, self._spent / turn.seconds))
        return turn

    def _others(self) -> tuple[list[float], list[float]]:
        """Return the CPU seconds of each remote runner and of each remote learner so far."""
        algorithm = self.algorithm.algorithm
        runners = algorithm.env_runner_group.foreach_env_runner(_cpu_seconds, local_env_runner=False)
        if not algorithm.config.num_learners:
            return runners, []
        return runners, [result.get() for result in algorithm.learner_group.foreach_learner(_cpu_seconds)]

    def _timed(self, method: Callable) -> Callable:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = method(*args, **kwargs)
            self._spent += time.perf_counter() - start
            return result

        return timed


def _cpu_seconds(_owner: Any) -> float:
    import time  # in the other process

    return time.process_time()


def config_for(task: Task, runners: int, learners: int) -> AlgorithmConfig:
    """Return the configuration of a contestant; batch and minibatches are the same over all learners."""
    each = max(1, learners)
    return (
        config_of(OURS, task, NUM_ENVS, runners)
        .learners(num_learners=learners)
        .training(
            train_batch_size_per_learner=STEPS // each, minibatch_size=MINIBATCH // each, num_epochs=EPOCHS
        )
    )


@contextlib.contextmanager
def contestants_of(task: Task, configs: Mapping[str, AlgorithmConfig]) -> Iterator[dict[str, Any]]:
    """Build algorithms, and copies of their environments, for some time."""
    with contextlib.ExitStack() as running:
        built: dict[str, Watched] = {}
        for name, config in configs.items():
            algorithm = TimedAlgorithm(config)
            running.callback(algorithm.stop)
            built[name] = Watched(algorithm)
        loops = [ray.remote(num_cpus=0)(EnvLoop).remote(task, seed) for seed in range(2)]
        for loop in loops:
            running.callback(ray.kill, loop)
        steps = steps_of(loops[0])
        yield {**built, ONE_COPY: Copies(loops[:1], steps), TWO_COPIES: Copies(loops, steps)}


def measured(task: Task, configs: Mapping[str, AlgorithmConfig], rounds: int) -> list[Row]:
    """Let the contestants of a task take turns; one row each."""
    with contestants_of(task, configs) as contestants:
        turns = take_turns(contestants, rounds)
        # The first turn does not count.
        paths = {name: statistics.median(contestants[name].paths[1:]) for name in configs}
        shares = [statistics.median(values) for values in zip(*contestants["none"].shares[1:], strict=True)]
    alone, copies = summary(turns["none"]), summary(turns[TWO_COPIES], turns[ONE_COPY])
    sampling, rest = float(alone["sample_s"]), float(alone["learn_s"]) + float(alone["other_s"])
    limit = limit_of(sampling, rest, float(copies["ratio"]))
    rows = []
    for name, config in configs.items():
        row = {
            "contestant": name,
            "env": task[0],
            "env_runners": config.num_env_runners,
            "learners": config.num_learners,
            **summary(turns[name], turns["none"]),
            "limit": round(limit, 3) if config.num_env_runners == 2 else "",
            "cpu_path_s": round(paths[name], 4),
            "cpu_path_ratio": round(paths["none"] / paths[name], 3),
            "env_share_of_sampling": round(shares[0], 3) if name == "none" else "",
            "env_share_of_iteration": round(shares[1], 3) if name == "none" else "",
        }
        rows.append(row)
    for name in (ONE_COPY, TWO_COPIES):
        rows.append({"contestant": name, "env": task[0], **summary(turns[name], turns[ONE_COPY])})
    return [{key: row.get(key, "") for key in rows[0]} for row in rows]


def limit_of(sampling: float, rest: float, machine_ratio: float) -> float:
    """Return how much faster an iteration gets if its sampling, and nothing else, gets so much faster.

    Args:
        sampling: Seconds of an iteration.
        rest: Its other seconds.
        machine_ratio: Environment steps/s of two copies of the environments over those of one.
    """
    return (sampling + rest) / (sampling / machine_ratio + rest)


def one_node(task: Task, rounds: int) -> list[Row]:
    """Measure runners and learners on one node."""
    configs = {name: config_for(task, *place) for name, place in PLACES.items()}
    with ray_for(*configs.values()):
        return measured(task, configs, rounds)


def two_nodes(task: Task, rounds: int) -> list[Row]:
    """Measure none and a runner on each of two nodes of two CPUs."""
    configs = {
        name: config_for(task, runners, 0).env_runners(custom_resources_per_env_runner={"each": 1})
        for name, runners in {"none": 0, NODES: 2}.items()
    }
    with cluster([2, 2]):
        return measured(task, configs, rounds)


def overlap(task: Task, rounds: int) -> list[Row]:
    """Measure Q-learning with no runner, and with one that waits for updates or samples during them."""
    configs = {
        "none": lagging_config(task, 0, 0),
        "1 runner": lagging_config(task, 1, 0),
        "1 runner, lag 1": lagging_config(task, 1, 1),
    }
    with ray_for(*configs.values()):
        return measured(task, configs, rounds)


def lagging_config(task: Task, runners: int, lag: int) -> AlgorithmConfig:
    """Return a configuration of Q-learning: rounds of 80 environment steps and five gradient steps."""
    env, env_config = task
    return (
        DQNConfig()
        .environment(env, env_config=env_config)
        .env_runners(num_env_runners=runners, num_envs_per_env_runner=NUM_ENVS, rollout_fragment_length=10)
        .training(
            train_batch_size_per_learner=256,
            env_steps_per_update=16,
            num_steps_sampled_before_learning_starts=400,
            replay_capacity=20_000,
            sampling_lag=lag,
        )
        .rl_module(model_config={"fcnet_hiddens": [64, 64], "fcnet_activation": "relu"})
        .reporting(min_sample_timesteps_per_iteration=STEPS)
        .debugging(seed=0)
        .fault_tolerance(restart_failed_env_runners=False)
    )


def show(title: str, rows: list[Row]) -> None:
    print(f"\n{title}")
    print(
        f"{'':<32}{'env steps/s':>12}{'ratio':>8}{'limit':>8}{'CPU path':>11}{'ratio':>8}{'sample':>10}{'learn':>9}"
        f"{'rest':>9}   rounds, env steps/s"
    )
    for row in rows:
        limit = f"{row['limit']:.2f}" if row["limit"] != "" else ""
        path = (
            f"{row['cpu_path_s']:>9.3f} s{row['cpu_path_ratio']:>8.2f}"
            if row["cpu_path_s"] != ""
            else " " * 19
        )
        print(
            f"{row['contestant']:<32}{row['env_steps_per_s']:>12,.0f}{row['ratio']:>8.2f}{limit:>8}{path}"
            f"{row['sample_s']:>8.3f} s{row['learn_s']:>7.3f} s{row['other_s']:>7.3f} s"
            f"   {row['slowest_round']:,.0f} to {row['fastest_round']:,.0f}"
        )
    alone = rows[0]
    print(
        f"the environment takes {alone['env_share_of_sampling']:.0%} of sampling, "
        f"{alone['env_share_of_iteration']:.0%} of the iteration"
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="which environments (all)"
    )
    parts: dict[str, Callable[[Task, int], list[Row]]] = {
        "one node": one_node,
        "two nodes": two_nodes,
        "overlap": overlap,
    }
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts), help="which (all)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant (5)")
    parser.add_argument("--out", type=Path, default=Path("results/scale_out.csv"), help="CSV to write")
    args = parser.parse_args(argv)

    warnings.filterwarnings("ignore", category=UserWarning, module="gymnasium")
    here = machine()
    print(", ".join(f"{key} {value}" for key, value in here.items()))
    print(f"{STEPS} environment steps an iteration, median of {args.rounds} round{'s' * (args.rounds != 1)}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    table: list[Row] = []
    with quiet_ray(), one_thread():
        for name in args.tasks:
            for part in args.parts:
                rows = parts[part](TASKS[name], args.rounds)
                show(f"{name}, {part}", rows)
                table += [{"task": name, "part": part, **row, **here} for row in rows]
                write_csv(args.out, table)
    print(f"\nwritten to {args.out}")


if __name__ == "__main__":
    main()
