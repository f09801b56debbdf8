"""`LearnerThreads`: on how many threads a Learner computes."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator

from qio_rllib.learners.common import learner_threads

logger = logging.getLogger(__name__)

AUTO = "auto"
"""``num_cpus_per_learner``: a measurement chooses."""
_TURNS = 2  # of each number of threads


class LearnerThreads:
    """On how many threads a Learner computes: as ``num_cpus_per_learner`` says, or as a short measurement chose.

    Where it is `AUTO`, updates take turns after the first one, in which kernels may be compiled: on one thread, by
    kernels, and on all CPUs that this process may use, by torch, two of each. The way with the fastest update stays. A
    run does not repeat bit for bit then: threads add in another order than kernels, and which way wins may differ.

    Args:
        num_cpus: ``num_cpus_per_learner``.

    Attributes:
        ways: Numbers of threads that are still to choose from; one in the end.
    """

    def __init__(self, num_cpus: float | str) -> None:
        self.ways = sorted({1, _available()}) if num_cpus == AUTO else [max(1, int(num_cpus))]
        self._seconds: dict[int, list[float]] = {threads: [] for threads in self.ways}
        self._is_first = True

    @contextlib.contextmanager
    def update(self) -> Iterator[None]:
        """Let an update compute on the threads whose turn it is."""
        threads = min(self.ways, key=lambda way: len(self._seconds[way]))
        start = time.perf_counter()
        with learner_threads(threads):
            yield
        if len(self.ways) > 1:
            self._note(threads, time.perf_counter() - start)

    def _note(self, threads: int, seconds: float) -> None:
        """Take down how long an update took; choose where all have had their turns."""
        if self._is_first:
            self._is_first = False
            return
        self._seconds[threads].append(seconds)
        if min(map(len, self._seconds.values())) < _TURNS:
            return
        fastest = {way: min(found) for way, found in self._seconds.items()}
        self.ways = [min(fastest, key=lambda way: fastest[way])]
        logger.info(
            "num_cpus_per_learner: updates take %s; %d from now on",
            " and ".join(
                f"{1e3 * found:.1f} ms on {way} thread{'s' * (way > 1)}" for way, found in fastest.items()
            ),
            self.ways[0],
        )


def _available() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
