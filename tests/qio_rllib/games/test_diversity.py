"""Diversity of populations: by payoffs (expected cardinality of a determinantal point process), and by actions."""

import itertools

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from qio_rllib.games.diversity import (
    behavioural_diversity,
    effective_diversity,
    expected_cardinality,
    jensen_shannon,
)
from qio_rllib.games.game import GameError

ROCK_PAPER_SCISSORS = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], float)


def mean_size_of_sets(kernel):
    """Return the mean size of a set by going through all of them, which is what a process's definition says."""
    items = range(len(kernel))
    sets = [chosen for size in range(len(kernel) + 1) for chosen in itertools.combinations(items, size)]
    weights = [np.linalg.det(kernel[np.ix_(chosen, chosen)]) if chosen else 1.0 for chosen in sets]
    return np.dot(weights, [len(chosen) for chosen in sets]) / np.sum(weights)


@pytest.mark.parametrize("seed", range(5))
def test_the_expected_cardinality_is_the_mean_size_of_the_sets_that_are_drawn(seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(5, rng.integers(1, 6)))
    kernel = rows @ rows.T
    assert expected_cardinality(kernel) == pytest.approx(mean_size_of_sets(kernel))
    inverse = np.linalg.inv(kernel + np.eye(5))
    assert expected_cardinality(kernel) == pytest.approx(np.trace(np.eye(5) - inverse))


def test_orthogonal_policies_count_fully_and_copies_do_not_add():
    assert effective_diversity(np.eye(4)) == pytest.approx(4.0)
    assert effective_diversity([[2.0, 2.0]]) == pytest.approx(1.0)
    assert effective_diversity(np.diag([1e200, 1.0, -1e-200])) == pytest.approx(3.0)  # of any length
    for copies in (2, 50):
        table = np.repeat(np.eye(3), copies, axis=0)
        assert 3.0 <= effective_diversity(table) <= 3.0 * 1.01
    assert effective_diversity(np.repeat(np.eye(1), 1000, axis=0), strength=1.0) == pytest.approx(
        2.0, abs=0.01
    )


def test_what_earns_nothing_counts_for_nothing_and_cycles_for_two():
    assert effective_diversity(np.zeros((3, 3))) == 0.0
    assert effective_diversity([[1.0, 0.0], [0.0, 0.0]]) == pytest.approx(1.0)
    assert effective_diversity(ROCK_PAPER_SCISSORS) == pytest.approx(2.0, abs=0.01)
    ladder = np.sign(np.subtract.outer(np.arange(3), np.arange(3)))  # each beats those below it
    assert effective_diversity(ladder) > effective_diversity(np.ones((3, 3)))


def test_diversity_does_not_depend_on_the_order_and_grows_with_what_is_new():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(6, 4))
    expected = effective_diversity(table)
    assert effective_diversity(table[rng.permutation(6)]) == pytest.approx(expected)
    assert effective_diversity(table[:, ::-1]) == pytest.approx(expected)
    sizes = [effective_diversity(table[:count]) for count in range(1, 7)]
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(sizes))


def test_divergences_are_those_of_scipy():
    rng = np.random.default_rng(1)
    table = rng.dirichlet(np.full(4, 0.3), size=(3, 20))
    table[0, 0] = [1.0, 0.0, 0.0, 0.0]
    found = jensen_shannon(table)
    for one, other in itertools.product(range(3), repeat=2):
        squares = jensenshannon(table[one], table[other], base=2, axis=1) ** 2
        assert found[one, other] == pytest.approx(np.nan_to_num(squares).mean(), abs=1e-9)
    pairs = [found[one, other] for one, other in itertools.combinations(range(3), 2)]
    assert behavioural_diversity(table) == pytest.approx(np.mean(pairs))


def test_equal_policies_have_no_divergence_and_disjoint_ones_a_bit():
    same = np.full((3, 5, 2), 0.5)
    assert behavioural_diversity(same) == 0.0
    assert behavioural_diversity(np.eye(3)[:, None]) == pytest.approx(1.0)
    assert behavioural_diversity(same[:1]) == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: expected_cardinality(np.ones((2, 3))), r"kernel: expected finite numbers of shape \[P, P\]"),
        (lambda: expected_cardinality([[1.0, 2.0], [0.0, 1.0]]), "kernel: expected a symmetric matrix"),
        (lambda: expected_cardinality(-np.eye(2)), "kernel: expected no eigenvalue below 0, got -1"),
        (lambda: effective_diversity(np.ones(3)), r"payoffs: expected finite numbers of shape \[P, Q\]"),
        (lambda: effective_diversity([[np.nan]]), "payoffs: expected finite"),
        (
            lambda: effective_diversity([[1.0]], strength=0.0),
            "strength: expected a finite number above 0, got 0.0",
        ),
        (lambda: jensen_shannon(np.ones((2, 2))), r"probabilities: expected shape \[P, B, A\], got \[2, 2\]"),
        (
            lambda: jensen_shannon(np.ones((1, 1, 2))),
            "probabilities: expected none below 0, and those of a state",
        ),
        (lambda: jensen_shannon([[[1.5, -0.5]]]), "probabilities: expected none below 0"),
    ],
)
def test_what_is_none_is_refused(call, message):
    with pytest.raises(GameError, match=message):
        call()
