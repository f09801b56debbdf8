"""Where an iteration's time goes, and what the machine would allow at most."""

from __future__ import annotations

import contextlib
import functools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from qio_rllib.fused.use import torch_alone
from qio_rllib.learners.off_policy import OffPolicyLearner
from qio_rllib.learners.on_policy import OnPolicyLearner
from qio_rllib.sampling.runner import BatchedEnvRunner
from qio_rllib.sampling.stepper import one_thread

ENVIRONMENTS, ACTING, GRADIENT_STEPS = "environments", "acting", "gradient steps"
_ENVIRONMENT_METHODS = ("reset", "step", "observe", "alive", "action_mask", "state")
_GRADIENT_METHODS: tuple[tuple[type, str], ...] = (
    (OnPolicyLearner, "_epochs"),
    (OffPolicyLearner, "gradient_step"),
)
"""What takes gradient steps, by kind of Learner."""
_SQUARE = 1024  # rows and columns of the products that are measured
_COPIED = 1 << 26  # bytes that are copied, more than caches hold
_REPEATS = 7


class Clocks:
    """Wall seconds spent in methods of objects of this process, by the name of a clock.

    What is called within another method that is timed counts for its own clock alone.

    Attributes:
        spent: Seconds by clock since the last `restart`.
        cpu: CPU seconds of the calling thread likewise, those of timed calls within included.
    """

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self._within: list[float] = []  # seconds of timed calls within each call that goes on

    def watch(self, clock: str, owner: Any, name: str) -> None:
        """Time a method of an object from now on; nothing where the object has none of that name."""
        method = getattr(owner, name, None)
        if method is None:
            return

        @functools.wraps(method)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._within.append(0.0)
            start, cpu = time.perf_counter(), time.thread_time()
            try:
                return method(*args, **kwargs)
            finally:
                seconds = time.perf_counter() - start
                self.cpu[clock] += time.thread_time() - cpu
                self.spent[clock] += seconds - self._within.pop()
                if self._within:
                    self._within[-1] += seconds

        self.spent.setdefault(clock, 0.0)
        self.cpu.setdefault(clock, 0.0)
        setattr(owner, name, timed)

    def restart(self) -> None:
        """Put all clocks back to 0."""
        for clock in self.spent:
            self.spent[clock] = self.cpu[clock] = 0.0


def clocks_of(algorithm: Any) -> Clocks:
    """Return clocks for what an algorithm's runner and Learner in this process do.

    Environments and acting are timed where the driver samples with a `BatchedEnvRunner`, gradient steps where it learns
    with a Learner of this package; what is not timed has no clock.
    """
    clocks = Clocks()
    runner = algorithm.env_runner
    stepper = runner.stepper if isinstance(runner, BatchedEnvRunner) else None
    if stepper is not None and not algorithm.config.num_env_runners:
        for name in _ENVIRONMENT_METHODS:
            clocks.watch(ENVIRONMENTS, stepper.env, name)
        clocks.watch(ACTING, stepper.team, "act")
    for learner, name in _gradient_steps(algorithm):
        clocks.watch(GRADIENT_STEPS, learner, name)
    return clocks


def _gradient_steps(algorithm: Any) -> list[tuple[Any, str]]:
    """Return the Learner in this process and its method that takes gradient steps; nothing where there is none."""
    if algorithm.config.num_learners:
        return []
    learner = algorithm.learner_group._learner
    return [(learner, name) for kind, name in _GRADIENT_METHODS if isinstance(learner, kind)]


@contextlib.contextmanager
def counted_operations(algorithm: Any) -> Iterator[Callable[[], int]]:
    """Count what gradient steps in this process multiply meanwhile; torch computes all of it, and slowly.

    Yields:
        A function that returns the floating-point operations of matrix products so far, 2 for a multiplication and
        addition; those of activations, losses and optimizers are not counted. 0 where another process learns.
    """
    counter = FlopCounterMode(display=False)
    with contextlib.ExitStack() as until_then:
        for learner, name in _gradient_steps(algorithm):
            method = getattr(learner, name)

            def counted(*args: Any, _method: Callable[..., Any] = method, **kwargs: Any) -> Any:
                with torch_alone(), counter:
                    return _method(*args, **kwargs)

            setattr(learner, name, counted)
            until_then.callback(setattr, learner, name, method)
        yield counter.get_total_flops


def product_rate() -> float:
    """Return how many floating-point operations a second torch's matrix product does: float32, one thread."""
    left, right, out = (torch.rand(_SQUARE, _SQUARE) for _ in range(3))
    with one_thread():
        return 2 * _SQUARE**3 / _median_seconds(lambda: torch.mm(left, right, out=out))


def copy_rate() -> float:
    """Return how many bytes a second one thread reads and writes when it copies what no cache holds."""
    source, target = (np.ones(_COPIED, np.uint8) for _ in range(2))
    return 2 * _COPIED / _median_seconds(lambda: np.copyto(target, source))


def parts_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the seconds of an iteration's parts, in the order in which they happen.

    Args:
        row: Of `qio_rllib.experiments.timed_turns.summary`. Where it does not know the parts of sampling or learning,
            these are one part.
    """
    known = {key: float(row[key]) for key in ("environment_s", "acting_s", "gradient_s") if row[key] != ""}
    sampling, learning = float(row["sample_s"]), float(row["learn_s"])
    parts: dict[str, float] = {}
    if "environment_s" in known:
        parts |= {"environments": known["environment_s"], "policies that act": known["acting_s"]}
        parts["recording"] = max(0.0, sampling - known["environment_s"] - known["acting_s"])
    else:
        parts["sampling"] = sampling
    if "gradient_s" in known:
        parts["batches and advantages"] = max(0.0, learning - known["gradient_s"])
        parts["gradient steps"] = known["gradient_s"]
    else:
        parts["learning"] = learning
    return parts | {"weights and metrics": float(row["other_s"])}


def _median_seconds(call: Callable[[], object]) -> float:
    call()
    spent = []
    for _ in range(_REPEATS):
        start = time.thread_time()  # others on the machine take wall time
        call()
        spent.append(time.thread_time() - start)
    return statistics.median(spent)
