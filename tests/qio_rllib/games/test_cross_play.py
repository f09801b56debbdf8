"""Payoffs, scores and ratings of policies against each other."""

import numpy as np
import pytest

from qio_rllib.games.cross_play import CrossPlay, Pairing


def pairings_of(gains, episodes=8, teams=2, noise=0.0, seed=0):
    """Return pairings in which the row's policy earns ``gains`` more than the column's, which earns 1."""
    rng = np.random.default_rng(seed)
    found = []
    for row, gain in enumerate(gains):
        for column, more in enumerate(gain):
            for team in range(teams):
                own = 1.0 + more + noise * rng.normal(size=episodes)
                found.append(Pairing(row, column, team, own, np.ones(episodes)))
    return found


RPS = [[0, -1, 1], [1, 0, -1], [-1, 1, 0]]


def test_a_cycle_has_equal_ratings_and_a_uniform_equilibrium():
    found = CrossPlay.of(pairings_of(RPS), 3)
    np.testing.assert_allclose(found.payoffs, 1.0 + np.array(RPS))
    np.testing.assert_allclose(found.scores, 0.5 * (1 + np.array(RPS)))
    np.testing.assert_allclose(found.elo, 1500, atol=1e-3)
    np.testing.assert_allclose(found.alpha_rank, 1 / 3)
    np.testing.assert_allclose(found.nash, 1 / 3, atol=1e-9)
    assert not found.payoff_errors.any()


def test_who_beats_everybody_comes_first_in_all_rankings():
    found = CrossPlay.of(pairings_of([[0, 2, 2], [-2, 0, 1], [-2, -1, 0]]), 3)
    assert found.elo[0] > found.elo[1] + 100 > found.elo[2] + 200
    assert found.elo.mean() == pytest.approx(1500)
    np.testing.assert_allclose(found.nash, [1, 0, 0], atol=1e-9)
    np.testing.assert_allclose(found.alpha_rank, [1, 0, 0], atol=1e-6)


def test_policies_that_never_differ_are_level():
    found = CrossPlay.of(pairings_of(np.zeros((2, 2))), 2)
    np.testing.assert_allclose(found.scores, 0.5)
    np.testing.assert_allclose(found.elo, 1500, atol=1e-3)
    np.testing.assert_allclose(found.alpha_rank, 0.5)


def test_diversity_is_that_of_scores_outside_their_intervals():
    assert CrossPlay.of(pairings_of(RPS), 3).diversity == pytest.approx(2.0, abs=0.01)
    assert CrossPlay.of(pairings_of(np.zeros((3, 3))), 3).diversity == 0.0
    noisy = CrossPlay.of(pairings_of(np.zeros((3, 3)), episodes=200, noise=1.0, seed=1), 3)
    assert np.abs(noisy.scores - 0.5).max() > 0.01
    assert noisy.diversity == 0.0


def test_intervals_hold_the_mean_as_often_as_they_say():
    inside = 0
    for seed in range(200):
        found = CrossPlay.of(pairings_of([[0, 0.3], [-0.3, 0]], episodes=40, noise=1.0, seed=seed), 2)
        inside += abs(found.payoffs[0, 1] - 1.3) < found.payoff_errors[0, 1]
    assert 0.9 < inside / 200 < 0.99


def test_teams_count_alike_and_errors_shrink_with_them():
    strong = Pairing(0, 1, 0, np.array([3.0, 5.0]), np.zeros(2))
    weak = Pairing(0, 1, 1, np.array([0.0, 2.0, 1.0, 1.0]), np.full(4, 1.0))
    rest = [Pairing(row, column, 0, np.ones(1), np.ones(1)) for row, column in ((0, 0), (1, 0), (1, 1))]
    found = CrossPlay.of([strong, weak, *rest], 2)
    assert found.payoffs[0, 1] == pytest.approx((4.0 + 1.0) / 2)
    assert found.scores[0, 1] == pytest.approx((1.0 + 0.5) / 2)
    expected = 1.959964 * np.sqrt(2.0 / 2 + (2 / 3) / 4) / 2
    assert found.payoff_errors[0, 1] == pytest.approx(expected)
