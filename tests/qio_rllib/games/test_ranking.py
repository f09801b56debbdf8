"""Alpha-rank against a chain built by loops, and Elo ratings against what made the results."""

import numpy as np
import pytest
from open_spiel.python.egt import alpharank
from random_games import CHICKEN, DILEMMA, RPS, joint_actions, random_counts, random_game

from qio_rllib.games.game import Game, GameError
from qio_rllib.games.ranking import alpha_rank, alpha_rank_symmetric, elo_ratings


def fixation(gain, alpha, population):
    if gain == 0:
        return 1 / population
    return (1 - np.exp(-alpha * gain)) / (1 - np.exp(-alpha * population * gain))


def stationary(matrix):
    values, vectors = np.linalg.eig(matrix.T)
    vector = np.real(vectors[:, np.argmin(np.abs(values - 1))])
    return vector / vector.sum()


@pytest.mark.parametrize("seed", range(12))
def test_alpha_rank_is_the_eigenvector_of_a_matrix_built_by_loops(seed):
    rng = np.random.default_rng(seed)
    game = random_game(rng, random_counts(rng, 2 + seed % 2, 3))
    alpha, population = rng.uniform(0.1, 1.5), int(rng.integers(2, 8))
    states = list(joint_actions(game))
    mutants = sum(count - 1 for count in game.num_actions)
    matrix = np.zeros((len(states), len(states)))
    for i, here in enumerate(states):
        for j, there in enumerate(states):
            changed = [player for player in range(len(here)) if here[player] != there[player]]
            if len(changed) == 1:
                (player,) = changed
                gain = game.payoffs[(player, *there)] - game.payoffs[(player, *here)]
                matrix[i, j] = fixation(gain, alpha, population) / mutants
        matrix[i, i] = 1 - matrix[i].sum()
    found = alpha_rank(game, alpha, population)
    np.testing.assert_allclose(found.transitions, matrix, atol=1e-12)
    np.testing.assert_allclose(found.distribution.ravel(), stationary(matrix), atol=1e-9)
    assert found.distribution.shape == game.num_actions


@pytest.mark.parametrize("counts", [(3, 4), (2, 3, 2)])
def test_alpha_rank_is_openspiels(counts):
    game = random_game(np.random.default_rng(4), counts)
    expected = alpharank.compute(list(game.payoffs), m=10, alpha=1.3)[2]
    np.testing.assert_allclose(alpha_rank(game, 1.3, 10).distribution.ravel(), expected, atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_one_population_is_the_chain_of_its_strategies(seed):
    rng = np.random.default_rng(seed)
    count = 2 + seed % 4
    payoffs = rng.normal(size=(count, count))
    matrix = np.zeros((count, count))
    for resident in range(count):
        for mutant in range(count):
            if mutant != resident:
                gain = payoffs[mutant, resident] - payoffs[resident, mutant]
                matrix[resident, mutant] = fixation(gain, 0.8, 5) / (count - 1)
        matrix[resident, resident] = 1 - matrix[resident].sum()
    found = alpha_rank_symmetric(payoffs, 0.8, 5)
    np.testing.assert_allclose(found.transitions, matrix, atol=1e-12)
    np.testing.assert_allclose(found.distribution, stationary(matrix), atol=1e-9)


def test_small_cases_whose_ranking_is_known():
    for alpha in (0.1, 100.0, 1e6):
        np.testing.assert_allclose(
            alpha_rank_symmetric(RPS.payoffs[0], alpha).distribution, 1 / 3, atol=1e-12
        )
        np.testing.assert_allclose(alpha_rank(RPS, alpha).distribution, 1 / 9, atol=1e-12)
    assert alpha_rank(DILEMMA).distribution[1, 1] == pytest.approx(1)
    np.testing.assert_allclose(alpha_rank(CHICKEN).distribution, [[0, 0.5], [0.5, 0]], atol=1e-9)
    np.testing.assert_allclose(alpha_rank(Game(np.zeros((2, 2, 3)))).distribution, np.full((2, 3), 1 / 6))


def test_strong_selection_is_exact_where_probabilities_vanish():
    """Two strict equilibria: leaving one takes exp(-49 alpha d). The one that takes more has it all."""
    found = alpha_rank(Game(np.array([[[2.0, 0], [0, 1]]] * 2)), alpha=1e4)
    assert found.distribution[0, 0] == pytest.approx(1)
    even = alpha_rank(Game(np.array([[[1.0, 0], [0, 1]]] * 2)), alpha=1e4)
    np.testing.assert_allclose(even.distribution, np.eye(2) / 2, atol=1e-12)


# -- Elo


def expected_scores(ratings, games):
    chances = 1 / (1 + 10 ** (np.subtract.outer(ratings, ratings).T / 400))
    return games * chances


@pytest.mark.parametrize("seed", range(8))
def test_elo_recovers_the_ratings_behind_exact_results(seed):
    rng = np.random.default_rng(seed)
    players = int(rng.integers(2, 9))
    ratings = rng.normal(1500, 200, players)
    games = rng.integers(1, 20, (players, players)).astype(float)
    games += games.T
    games[rng.random((players, players)) < 0.2] = 0
    games = np.triu(games, 1) + np.diag(np.full(players - 1, 5.0), 1)  # all in one chain of opponents
    found = elo_ratings(expected_scores(ratings, games + games.T), mean=ratings.mean())
    np.testing.assert_allclose(found, ratings, atol=0.01)


def test_elo_recovers_ratings_from_drawn_results_and_counts_draws_half():
    rng = np.random.default_rng(0)
    ratings = np.array([1300.0, 1450, 1500, 1600, 1650])
    chances = expected_scores(ratings, 1.0)
    wins = np.zeros((5, 5))
    for i in range(5):
        for j in range(i):
            wins[i, j] = rng.binomial(4_000, chances[i, j])
            wins[j, i] = 4_000 - wins[i, j]
    np.testing.assert_allclose(elo_ratings(wins), ratings, atol=12)
    # two of three games won and one drawn: 2.5 to 0.5
    np.testing.assert_allclose(np.diff(elo_ratings([[0, 2.5], [0.5, 0]])), -400 * np.log10(5), atol=1e-4)
    np.testing.assert_allclose(elo_ratings([[9, 0.5], [0.5, 9]], mean=0), 0, atol=1e-9)
    assert elo_ratings([[3.0]]).tolist() == [1500]


REFUSED = [
    (lambda: elo_ratings(np.ones((2, 3))), r"scores: expected a square matrix, got shape \[2, 3\]"),
    (lambda: elo_ratings([[0, -1], [1, 0]]), "scores: expected finite numbers of at least 0"),
    (lambda: elo_ratings([[0, np.nan], [1, 0]]), "scores: expected finite numbers"),
    (
        lambda: elo_ratings([[0, 3, 1], [1, 0, 2], [0, 0, 0]]),
        "scores: no ratings are the most likely ones, player 2 never scored against the others",
    ),
    (
        lambda: elo_ratings(np.kron(np.eye(2), [[0, 1], [1, 0]])),
        "no ratings are the most likely ones, player [0-3], [0-3] never scored",
    ),
    (lambda: alpha_rank(RPS, alpha=0), "alpha: expected a number above 0, got 0"),
    (lambda: alpha_rank(RPS, population=1), "population: expected an integer of at least 2, got 1"),
    (lambda: alpha_rank(Game(np.zeros((2, 50, 50)))), "payoffs: 2500 joint actions; allowed: up to 2000"),
    (lambda: alpha_rank_symmetric(np.ones((2, 3))), "a square matrix"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(GameError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
