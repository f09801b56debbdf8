"""``num_cpus_per_learner``: a number of threads, or what a measurement chooses."""

import logging
import types

import pytest
import torch

from qio_rllib.algorithms import PPOConfig
from qio_rllib.fused.use import in_use
from qio_rllib.learners import threads
from qio_rllib.learners.threads import AUTO, LearnerThreads


@pytest.fixture
def clock(monkeypatch):
    """A clock that updates move, on a machine of two CPUs."""
    found = types.SimpleNamespace(now=0.0)
    found.perf_counter = lambda: found.now
    monkeypatch.setattr(threads, "time", found)
    monkeypatch.setattr(threads, "_available", lambda: 2)
    return found


def played(chooser, clock, seconds, updates):
    """Return on how many threads each update was; it takes seconds by threads, and a second more at first."""
    ways = []
    for number in range(updates):
        with chooser.update():
            ways.append(torch.get_num_threads())
            assert in_use() == (ways[-1] == 1)
            clock.now += seconds[ways[-1]] + (number == 0)
    return ways


@pytest.mark.parametrize(("seconds", "best"), [({1: 0.2, 2: 0.3}, 1), ({1: 0.2, 2: 0.1}, 2)])
def test_the_faster_way_is_kept_after_two_turns_of_each(clock, caplog, seconds, best):
    before = torch.get_num_threads()
    chooser = LearnerThreads(AUTO)
    with caplog.at_level(logging.INFO, logger="qio_rllib"):
        ways = played(chooser, clock, seconds, 8)
    assert ways == [
        1,
        1,
        2,
        1,
        2,
        best,
        best,
        best,
    ]  # the first one does not count: kernels may be compiled in it
    assert chooser.ways == [best]
    assert torch.get_num_threads() == before
    (line,) = [record.message for record in caplog.records if "num_cpus_per_learner" in record.message]
    assert line == (
        f"num_cpus_per_learner: updates take 200.0 ms on 1 thread and {1e3 * seconds[2]:.1f} ms on 2 threads; "
        f"{best} from now on"
    )


def test_one_slow_update_decides_nothing(clock):
    chooser = LearnerThreads(AUTO)
    played(chooser, clock, {1: 0.1, 2: 0.2}, 1)
    for seconds in (5.0, 0.2, 0.1, 0.2):  # 1 thread, 2, 1, 2
        with chooser.update():
            clock.now += seconds
    assert chooser.ways == [1]


@pytest.mark.parametrize(("given", "way"), [(1, 1), (2, 2), (0, 1), (0.5, 1)])
def test_a_number_is_taken_as_it_is(clock, given, way):
    chooser = LearnerThreads(given)
    assert played(chooser, clock, {1: 1.0, 2: 1.0}, 3) == [way] * 3


def test_where_there_is_one_cpu_there_is_nothing_to_choose(clock, monkeypatch):
    monkeypatch.setattr(threads, "_available", lambda: 1)
    assert LearnerThreads(AUTO).ways == [1]


def test_nothing_is_measured_where_nobody_asks():
    assert PPOConfig().num_cpus_per_learner == 1
