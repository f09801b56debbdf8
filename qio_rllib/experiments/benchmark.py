"""How fast an experiment trains: this package's path beside RLlib's own, iteration by iteration in one process.

```python
from qio_rllib.experiments.benchmark import benchmark
from qio_rllib.experiments.experiment import load_experiment

benchmark(load_experiment("tune_configs/forest_uav_ppo.yaml"), seconds=60).rows      # what `rllib bench` does
```
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
from collections.abc import Mapping
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from qio_envs.api import ConfigError
from qio_rllib.experiments.experiment import Experiment
from qio_rllib.experiments.resources import quiet_ray
from qio_rllib.experiments.stock_learners import STOCK_LEARNERS, stock_config
from qio_rllib.experiments.time_spent import (
    copy_rate,
    product_rate,
)
from qio_rllib.experiments.timed_turns import (
    TimedAlgorithm,
    Turn,
    machine,
    ray_for,
    resident_memory,
    rounded,
    summary,
    take_turns,
)
from qio_rllib.sampling.environments import describe_env
from qio_rllib.sampling.stepper import one_thread

OURS, STOCK = "this package", "RLlib"


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What was measured.

    Attributes:
        experiment: What was trained.
        settings: What the paths have in common, in words.
        notes: What a reader has to know beside the numbers.
        rows: One for each path, as they go into a CSV file; RLlib's comes first where there is one.
    """

    experiment: Experiment
    settings: str
    notes: tuple[str, ...]
    rows: list[dict[str, Any]]


def benchmark(experiment: Experiment, rounds: int | None = None, seconds: float | None = None) -> Benchmark:
    """Train an experiment on RLlib's own runner and Learner and on this package's, and compare the speed.

    Both take turns in this process, iteration by iteration, after one iteration each that does not count. Module,
    settings, batch, epochs and minibatch size are the same; so is the entropy coefficient. RLlib's path gets one torch
    thread here, for sampling and for learning: with torch's default it is several times slower.

    Args:
        experiment: What to train.
        rounds: Turns of each, at most.
        seconds: Measuring ends with the round in which so many seconds are over. By default `DEFAULT_SECONDS`, or, with
            ``rounds``, never.

    Raises:
        ConfigError: ``rounds`` or ``seconds`` are not above 0, the experiment cannot be used, or the Ray that is
            running is too small for both at once.
    """
    _check_limits(rounds, seconds)
    experiment = experiment.with_seed()
    config = experiment.validate()
    configs = {OURS: config}
    learner, notes = STOCK_LEARNERS.get(experiment.algorithm), _notes(experiment)
    if learner is not None:
        stock = stock_config(config, learner)
        try:
            stock.copy(copy_frozen=False).validate()
            configs = {STOCK: stock, **configs}
        except ConfigError as error:
            notes = (f"RLlib's own path cannot be taken: {error}",)
    with quiet_ray(), ray_for(*configs.values()), one_thread(), contextlib.ExitStack() as running:
        contestants = {name: TimedAlgorithm(each) for name, each in configs.items()}
        for contestant in contestants.values():
            running.callback(contestant.stop)
        operations = contestants[OURS].operations_of_a_step()
        turns = take_turns(contestants, rounds, seconds)
        memory = resident_memory()
        runner_memory = {name: contestant.runner_memory() for name, contestant in contestants.items()}
        threads = {STOCK: "1", OURS: f"1 sampling, {contestants[OURS].learner_threads()} learning"}
    agents = len(describe_env(config.env, config.env_config).agents)
    base = turns.get(STOCK)
    limits = {"product_gflop_per_s": product_rate() / 1e9, "copy_gb_per_s": copy_rate() / 1e9}
    rows = [
        {
            "experiment": experiment.name,
            "algorithm": experiment.algorithm,
            "env": experiment.env,
            "path": name,
            "env_runners": config.num_env_runners,
            "num_envs": config.num_envs_per_env_runner,
            "agents": agents,
            **summary(turns[name], base),
            "update_gflop_per_s": rounded(
                _update_rate(turns[name], operations) / 1e9 if name == OURS else math.nan
            ),
            **{key: rounded(limit) for key, limit in limits.items()},
            "torch_threads": threads[name],
            "process_rss_mib": rounded(memory),
            "runner_rss_mib": rounded(statistics.fmean(runner_memory[name] or [math.nan])),
            "seed": experiment.seed,
            **machine(),
        }
        for name in configs
    ]
    return Benchmark(experiment, _settings(config, agents, rows[-1]), notes, rows)


def _update_rate(turns: list[Turn], operations: float) -> float:
    """Return how many floating-point operations a CPU second gradient steps do, as the median over turns."""
    rates = [
        turn.gradient_steps * operations / turn.gradient_cpu_s for turn in turns if turn.gradient_cpu_s > 0
    ]
    return statistics.median(rates) if rates else math.nan


def _settings(config: AlgorithmConfig, agents: int, row: Mapping[str, Any]) -> str:
    runners, envs = config.num_env_runners, config.num_envs_per_env_runner
    parts = [
        f"{agents} agent{'s' * (agents != 1)}",
        f"{envs} environment{'s' * (envs != 1)} in "
        + ("this process" if not runners else f"each of {runners} runners" if runners > 1 else "one runner"),
        f"{row['env_steps']:,} environment steps an iteration",
    ]
    if config.num_epochs is not None:
        parts.append(f"{config.num_epochs} epoch{'s' * (config.num_epochs != 1)}")
    if config.minibatch_size is not None:
        parts.append(f"minibatches of {config.minibatch_size:,}")
    return ", ".join(parts)


def _notes(experiment: Experiment) -> tuple[str, ...]:
    if experiment.algorithm not in STOCK_LEARNERS:
        return (f"RLlib has no {experiment.algorithm}: there is nothing to compare with.",)
    return (
        "RLlib has one torch thread in this process: its default is several times slower.",
        "RLlib adds a row to learn from at the end of each episode, hence a few gradient steps more.",
    )


def _check_limits(rounds: int | None, seconds: float | None) -> None:
    if rounds is not None and rounds < 1:
        raise ConfigError(f"--rounds: expected an integer of at least 1, got {rounds}")
    if seconds is not None and not 0 < seconds < math.inf:
        raise ConfigError(f"--seconds: expected a number above 0, got {seconds:g}")
