"""Algorithms that train in turns, iteration by iteration, and what a turn took."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import ray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_MODULE_STEPS_SAMPLED_LIFETIME,
)

from qio_envs.api import ConfigError
from qio_rllib.artifacts.run_description import cpu_model
from qio_rllib.experiments.resources import resources, start_ray
from qio_rllib.experiments.time_spent import (
    ACTING,
    ENVIRONMENTS,
    GRADIENT_STEPS,
    clocks_of,
    counted_operations,
)

DEFAULT_SECONDS = 60.0
"""How long is measured where nobody says."""


@dataclasses.dataclass(frozen=True)
class Turn:
    """One iteration of one contestant.

    Attributes:
        seconds: Wall time.
        sample_s: Seconds of it that went into sampling.
        learn_s: Seconds of it that went into the update; what remains are weights on their way and metrics.
        env_steps: Environment steps.
        agent_steps: Actions of agents in them.
        gradient_steps: Steps of the optimisers.
        team_return: Mean return of the last episodes, as the algorithm reports it; nan before the first.
        environment_s: Seconds of sampling in the environments; nan where they are in other processes.
        acting_s: Seconds of sampling in which policies decided; likewise.
        gradient_s: Seconds of the update in gradient steps; nan where another process or Learner takes them.
        gradient_cpu_s: CPU seconds of them.
    """

    seconds: float
    sample_s: float
    learn_s: float
    env_steps: int
    agent_steps: int
    gradient_steps: int
    team_return: float = math.nan
    environment_s: float = math.nan
    acting_s: float = math.nan
    gradient_s: float = math.nan
    gradient_cpu_s: float = math.nan


class Contestant(Protocol):
    """Somebody who takes turns."""

    def turn(self) -> Turn:
        """Train for one iteration."""


class TimedAlgorithm:
    """An RLlib algorithm that takes turns.

    Args:
        config: Of the algorithm; Ray is running. Evaluation is left out.
    """

    def __init__(self, config: AlgorithmConfig) -> None:
        config = config.copy(copy_frozen=False)
        config.evaluation(evaluation_interval=None)
        self.algorithm = config.build_algo()
        self._spent = dict.fromkeys((ENV_RUNNER_SAMPLING_TIMER, LEARNER_UPDATE_TIMER), 0.0)
        self._counts = (0, 0, 0)
        self._time_blocks()
        self._clocks = clocks_of(self.algorithm)

    def turn(self) -> Turn:
        """Train for one iteration."""
        for name in self._spent:
            self._spent[name] = 0.0
        self._clocks.restart()
        start = time.perf_counter()
        result = self.algorithm.train()
        seconds = time.perf_counter() - start
        sampled = result[ENV_RUNNER_RESULTS]
        counts = (
            int(sampled[NUM_ENV_STEPS_SAMPLED_LIFETIME]),
            int(sum(sampled[NUM_MODULE_STEPS_SAMPLED_LIFETIME].values())),
            self._gradient_steps(),
        )
        env_steps, agent_steps, gradient_steps = (
            now - before for now, before in zip(counts, self._counts, strict=True)
        )
        self._counts = counts
        return Turn(
            seconds=seconds,
            sample_s=self._spent[ENV_RUNNER_SAMPLING_TIMER],
            learn_s=self._spent[LEARNER_UPDATE_TIMER],
            env_steps=env_steps,
            agent_steps=agent_steps,
            gradient_steps=gradient_steps,
            team_return=float(sampled.get("team_return", sampled.get("episode_return_mean", math.nan))),
            environment_s=self._clocks.spent.get(ENVIRONMENTS) or math.nan,
            acting_s=self._clocks.spent.get(ACTING) or math.nan,
            gradient_s=self._clocks.spent.get(GRADIENT_STEPS) or math.nan,
            gradient_cpu_s=self._clocks.cpu.get(GRADIENT_STEPS) or math.nan,
        )

    def operations_of_a_step(self) -> float:
        """Train for one iteration, slowly; return the mean floating-point operations of a gradient step's products.

        nan where another process learns, or nothing is learned yet; see `counted_operations`.
        """
        with counted_operations(self.algorithm) as count:
            turn = self.turn()
        return count() / turn.gradient_steps if turn.gradient_steps and count() else math.nan

    def learner_threads(self) -> str:
        """Return how many threads the Learners of this package compute on; both numbers while they still measure."""
        found = self.algorithm.learner_group.foreach_learner(lambda learner, **_: learner.threads.ways)
        return " or ".join(map(str, next(iter(found)).get()))

    def runner_memory(self) -> list[float]:
        """Return the resident memory of each remote runner, MiB."""
        return self.algorithm.env_runner_group.foreach_env_runner(
            lambda _: resident_memory(), local_env_runner=False
        )

    def stop(self) -> None:
        """Stop the algorithm and its runners."""
        self.algorithm.stop()

    def _time_blocks(self) -> None:
        """Measure the blocks that RLlib times itself, because it tells moving averages only."""
        log_time = self.algorithm.metrics.log_time

        @contextlib.contextmanager
        def measured(key: Any, *args: Any, **kwargs: Any) -> Iterator[None]:
            start = time.perf_counter()
            with log_time(key, *args, **kwargs):
                yield
            name = key[-1]
            if name in self._spent:
                self._spent[name] += time.perf_counter() - start

        self.algorithm.metrics.log_time = measured

    def _gradient_steps(self) -> int:
        """Return how many steps the optimisers have taken (each Learner takes as many)."""
        return next(iter(self.algorithm.learner_group.foreach_learner(_optimizer_steps))).get()


def take_turns(
    contestants: Mapping[str, Contestant], rounds: int | None = None, seconds: float | None = None
) -> dict[str, list[Turn]]:
    """Let contestants train one iteration each, in rounds, so that a busy machine slows all alike.

    Args:
        contestants: By name; each has one turn more, at the start, that does not count.
        rounds: Rounds at most.
        seconds: No round begins after so many seconds; by default `DEFAULT_SECONDS`, with ``rounds``, no limit.

    Returns:
        The turns of each, at least one.
    """
    if seconds is None:
        seconds = DEFAULT_SECONDS if rounds is None else math.inf
    for contestant in contestants.values():
        contestant.turn()
    turns: dict[str, list[Turn]] = {name: [] for name in contestants}
    start, number = time.perf_counter(), 0
    while number == 0 or ((rounds is None or number < rounds) and time.perf_counter() - start < seconds):
        for name, contestant in contestants.items():
            turns[name].append(contestant.turn())
        number += 1
    return turns


def summary(turns: list[Turn], base: list[Turn] | None = None) -> dict[str, float | int | str]:
    """Return medians over turns, with the slowest and the fastest turn.

    Args:
        turns: Of one contestant.
        base: Of the one to compare with; ``ratio`` is empty without.

    Returns:
        ``env_steps_per_s`` and ``agent_steps_per_s``; ``ratio`` of the former to the base's; ``slowest_round`` and
        ``fastest_round`` (environment steps/s) of ``rounds``; ``sample_s``, ``learn_s`` and ``other_s`` (seconds an
        iteration); ``environment_s`` and ``acting_s`` of ``sample_s`` and ``gradient_s`` of ``learn_s``, empty where
        they are not known; ``env_steps`` and ``gradient_steps`` of an iteration.
    """
    rates = [turn.env_steps / turn.seconds for turn in turns]

    def median(value: Callable[[Turn], float]) -> float:
        return statistics.median(map(value, turns))

    speed = statistics.median(rates)
    to = statistics.median(turn.env_steps / turn.seconds for turn in base) if base else math.nan
    return {
        "env_steps_per_s": rounded(speed),
        "agent_steps_per_s": rounded(median(lambda turn: turn.agent_steps / turn.seconds)),
        "ratio": rounded(speed / to),
        "slowest_round": rounded(min(rates)),
        "fastest_round": rounded(max(rates)),
        "rounds": len(turns),
        "sample_s": rounded(median(lambda turn: turn.sample_s)),
        "learn_s": rounded(median(lambda turn: turn.learn_s)),
        "other_s": rounded(median(lambda turn: turn.seconds - turn.sample_s - turn.learn_s)),
        "environment_s": rounded(median(lambda turn: turn.environment_s)),
        "acting_s": rounded(median(lambda turn: turn.acting_s)),
        "gradient_s": rounded(median(lambda turn: turn.gradient_s)),
        "env_steps": round(median(lambda turn: turn.env_steps)),
        "gradient_steps": round(median(lambda turn: turn.gradient_steps)),
    }


@contextlib.contextmanager
def ray_for(*configs: AlgorithmConfig) -> Iterator[None]:
    """Start a Ray that is large enough for some algorithms at once, and shut it down; one that runs is used.

    Raises:
        ConfigError: The Ray that is running has too few CPUs.
    """
    wanted = sum(resources(config).get("CPU", 1.0) for config in configs)
    if ray.is_initialized():
        present = ray.cluster_resources().get("CPU", 0.0)
        if wanted > present:
            raise ConfigError(
                f"config.num_env_runners: {wanted:g} CPUs are needed for {len(configs)} algorithms at once, "
                f"the running Ray has {present:g}"
            )
        yield
        return
    # A count larger than the machine's is fine: those who wait for their turn do not compute.
    start_ray(math.ceil(wanted))
    try:
        yield
    finally:
        ray.shutdown()


def resident_memory() -> float:
    """Return the resident memory of this process in MiB; nan where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return math.nan
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def machine() -> dict[str, str | int]:
    """Return what a speed must be read with: processor and versions."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    versions = {name: importlib.metadata.version(name) for name in ("ray", "torch", "numpy")}
    return {"cpu": cpu_model(), "cpus": cpus, "python": platform.python_version(), **versions}


def _optimizer_steps(learner: Any) -> int:
    steps = 0
    for module_id in learner.module.keys():  # noqa: SIM118 (a MultiRLModule does not iterate over its keys)
        for _, optimizer in learner.get_optimizers_for_module(module_id):
            steps += int(max((state["step"] for state in optimizer.state.values()), default=0))
    return steps


def rounded(value: float) -> float | int | str:
    """Return four significant digits, and an integer from 1000 on; empty for nan."""
    if math.isnan(value):
        return ""
    return round(value) if abs(value) >= 1000 else float(f"{value:.4g}")
