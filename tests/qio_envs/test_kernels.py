import copy
import gc
import pickle
from typing import NamedTuple

import numpy as np
import pytest
from numba import njit

from qio_envs import swarm_cooperative_v0
from qio_envs.api.kernels import Kernel
from qio_envs.api.random import MAX_NORMAL, normals


@njit
def add(first, second):
    return first + second


def test_a_kernel_gives_what_its_function_gives():
    kernel = Kernel(add)
    assert kernel(1, 2) == 3
    assert kernel(40, 2) == 42
    draw = Kernel(normals)
    assert draw(1, 2, 3, 4, 5) == normals(1, 2, 3, 4, 5)
    assert max(map(abs, draw(0, 0, 0, 0, 0))) < MAX_NORMAL


def test_copies_of_a_kernel_look_up_their_own_types():
    kernel = Kernel(add)
    kernel(np.ones(2), np.ones(2))
    for duplicate in (copy.deepcopy(kernel), pickle.loads(pickle.dumps(Kernel(normals)))):
        assert duplicate is not kernel
    assert copy.deepcopy(kernel)(1.5, 2) == 3.5


class Numbers(NamedTuple):
    values: np.ndarray
    rows: np.ndarray
    factor: float
    count: int
    negative: bool


class More(NamedTuple):
    offset: float
    add: np.ndarray


@njit
def combine(out, numbers, more, extra):
    out[0] += 1
    numbers.values[0] += 1
    total = numbers.values.sum() * numbers.factor + numbers.rows[-1, -1] + numbers.count
    return (-total if numbers.negative else total) + more.offset + more.add.sum() + extra


def numbers(seed):
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(3, 4)).astype(np.float32)
    return Numbers(generator.normal(size=5), rows, generator.normal(), seed, bool(seed % 2))


def more(seed):
    return More(float(seed), np.full(seed % 3, seed))


def test_named_tuples_are_read_from_where_they_are_kept():
    """Of the same and of new tuples, in any order; what is written is written to their own arrays."""
    kernel, generator = Kernel(combine), np.random.default_rng(0)
    one, two = [numbers(seed) for seed in range(4)], [more(seed) for seed in range(4)]
    out = np.zeros(1)
    for count in range(60):
        first, second = one[generator.integers(4)], two[generator.integers(4)]
        before = first.values[0]
        expected = combine.py_func(np.zeros(1), copy.deepcopy(first), second, count)
        assert kernel(out, first, second, count) == pytest.approx(expected, rel=1e-12)
        assert first.values[0] == before + 1
    assert out[0] == 60


def test_kept_tuples_live_as_long_as_their_kernel_reads_them():
    kernel, out = Kernel(combine), np.zeros(1)
    for seed in range(8):
        kernel(out, numbers(seed), more(seed), 0)
        gc.collect()
        given, rest = numbers(seed), more(seed)
        expected = combine.py_func(np.zeros(1), copy.deepcopy(given), rest, 1)
        assert kernel(out, given, rest, 1) == pytest.approx(expected, rel=1e-12)


def test_tuples_that_are_new_each_time_can_be_taken_apart_instead():
    kernel, kept, out = Kernel(combine, keeps=False), Kernel(combine), np.zeros(1)
    for seed in range(5):
        given = [(numbers(seed), more(seed), seed) for _ in range(2)]
        assert kernel(out, *given[0]) == kept(out, *given[1])
    assert pickle.loads(pickle.dumps(Kernel(normals, keeps=False)))(1, 2, 3, 4, 5) == normals(1, 2, 3, 4, 5)


def test_a_copy_of_a_kernel_keeps_tuples_of_its_own():
    kernel, out = Kernel(combine), np.zeros(1)
    first, second, rest = numbers(1), numbers(2), more(1)
    kernel(out, first, rest, 0)
    other = kernel.copy()
    other(out, second, rest, 0)
    before = first.values[0], second.values[0]
    kernel(out, first, rest, 0)
    other(out, second, rest, 0)
    assert (first.values[0], second.values[0]) == (before[0] + 1, before[1] + 1)


def test_branches_and_their_origin_step_apart():
    """The origin goes on as if there were no branch, whoever steps first."""
    env, alone = swarm_cooperative_v0.batched_env(3), swarm_cooperative_v0.batched_env(3)
    actions = np.random.default_rng(0).uniform(-1, 1, (6, 3, 3, 2)).astype(np.float32)
    for each in (env, alone):
        each.reset(5)
        each.step(actions[0])
    branch = env.branch(2)
    for t in range(1, 6):
        branch.step(np.concatenate([actions[t]] * 2))
        for given, expected in zip(env.step(actions[t]), alone.step(actions[t]), strict=True):
            np.testing.assert_array_equal(given, expected)
        seen, expected = env.observe(), alone.observe()
        np.testing.assert_array_equal(seen, expected)
        np.testing.assert_array_equal(branch.observe(), np.concatenate([expected] * 2))


def test_noise_that_is_drawn_for_many_environments_is_that_of_few():
    """The last six of 70, whose noise is drawn apart from that of the first 64."""
    many, few = swarm_cooperative_v0.batched_env(70), swarm_cooperative_v0.batched_env(6)
    many.reset(np.arange(70))
    few.reset(np.arange(64, 70))
    for _ in range(3):
        many.step(np.zeros((70, 3, 2), np.float32))
        few.step(np.zeros((6, 3, 2), np.float32))
        np.testing.assert_array_equal(many.observe()[64:], few.observe())
