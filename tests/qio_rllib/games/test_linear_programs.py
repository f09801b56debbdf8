"""Values, correlated and Stackelberg equilibria: constraints by loops, nashpy and closed forms."""

import nashpy
import numpy as np
import pytest
from random_games import CHICKEN, DILEMMA, RPS, joint_actions, random_counts, random_game

from qio_rllib.games.correlated import correlated_equilibrium
from qio_rllib.games.game import Game, GameError
from qio_rllib.games.nash import nash_equilibria
from qio_rllib.games.regret import nash_conv, swap_regrets
from qio_rllib.games.stackelberg import stackelberg_equilibrium
from qio_rllib.games.zero_sum import maximin, minimax, solve_zero_sum


def test_200_random_zero_sum_games_are_solved_as_by_nashpy():
    rng = np.random.default_rng(0)
    for _ in range(200):
        game = Game.zero_sum(rng.normal(size=random_counts(rng)) + rng.normal())
        value, strategies = solve_zero_sum(game)
        row, column = nashpy.Game(game.payoffs[0]).linear_program()
        assert value == pytest.approx(row @ game.payoffs[0] @ column, abs=1e-7)
        assert nash_conv(game, strategies) < 1e-7
        assert value == pytest.approx(game.values(strategies)[0], abs=1e-7)


def test_zero_sum_games_in_closed_form():
    rng = np.random.default_rng(1)
    for _ in range(50):
        a, b, c, d = payoffs = rng.normal(size=4)
        table = payoffs.reshape(2, 2)
        lower, upper = table.min(axis=1).max(), table.max(axis=0).min()
        exact = lower if lower == upper else (a * d - b * c) / (a + d - b - c)
        assert solve_zero_sum(Game.zero_sum(table)).value == pytest.approx(exact)
    value, strategies = solve_zero_sum(RPS)
    assert value == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(strategies, np.full((2, 3), 1 / 3), atol=1e-9)
    constant = Game.of_matrices(RPS.payoffs[0] + 2, RPS.payoffs[1] + 3)
    assert solve_zero_sum(constant).value == pytest.approx(2)
    with pytest.raises(GameError, match="solve_zero_sum: the payoffs' sum is not constant, 2 to 6"):
        solve_zero_sum(DILEMMA)
    with pytest.raises(GameError, match="solve_zero_sum: expected a game of 2 players, got 1"):
        solve_zero_sum(Game(np.zeros((1, 2))))


@pytest.mark.parametrize("seed", range(12))
def test_what_a_player_secures_is_what_the_others_can_hold_it_to(seed):
    rng = np.random.default_rng(seed)
    game = random_game(rng, random_counts(rng, 2 + seed % 2, 4))
    for player in range(game.num_players):
        least, strategy = maximin(game, player)
        most, others = minimax(game, player)
        assert least == pytest.approx(most, abs=1e-7)
        own = np.moveaxis(game.payoffs[player], player, 0)
        secured = np.tensordot(strategy, own, axes=1)
        assert secured.min() == pytest.approx(least)
        assert others.shape == secured.shape
        assert (own * others).reshape(len(own), -1).sum(axis=1).max() == pytest.approx(most)
    with pytest.raises(GameError, match="player: expected an integer from 0 to"):
        maximin(game, 9)


# -- correlated equilibria


def worst_gain(game, distribution):
    """The most that any player gains by doing b where told a, by loops."""
    worst = -np.inf
    for player, count in enumerate(game.num_actions):
        for told in range(count):
            for done in range(count):
                gain = 0.0
                for joint in joint_actions(game):
                    if joint[player] == told:
                        other = (*joint[:player], done, *joint[player + 1 :])
                        gain += distribution[joint] * (
                            game.payoffs[(player, *other)] - game.payoffs[(player, *joint)]
                        )
                worst = max(worst, gain)
    return worst


@pytest.mark.parametrize("seed", range(24))
def test_correlated_equilibria_satisfy_every_constraint_and_are_best(seed):
    rng = np.random.default_rng(seed)
    game = random_game(rng, random_counts(rng, 2 + seed % 2, 4))
    weights = rng.uniform(0, 1, game.num_players)
    found = {}
    for objective in ("welfare", "fairness", "weights"):
        wanted = weights if objective == "weights" else objective
        distribution, values = found[objective] = correlated_equilibrium(game, wanted)
        assert distribution.shape == game.num_actions
        assert distribution.min() >= 0
        assert distribution.sum() == pytest.approx(1)
        assert worst_gain(game, distribution) < 1e-6
        np.testing.assert_allclose(swap_regrets(game, distribution), 0, atol=1e-6)
        np.testing.assert_allclose(values, game.values_of_joint(distribution))
    score = {"welfare": np.sum, "fairness": np.min, "weights": weights.__matmul__}
    nash = []
    if game.num_players == 2:
        nash = [game.values(profile) for profile in nash_equilibria(game).profiles]
    for objective, of in score.items():
        best = of(found[objective].values)
        for other in [values for _, values in found.values()] + nash:
            assert best >= of(other) - 1e-6


def test_chicken_by_a_mediator():
    """Aumann's example, by hand: told to swerve, 6 p + 2 q >= 7 p for (swerve, swerve) p and (swerve, straight) q."""
    distribution, values = correlated_equilibrium(CHICKEN)
    np.testing.assert_allclose(distribution, [[0.5, 0.25], [0.25, 0]], atol=1e-7)
    np.testing.assert_allclose(values, [5.25, 5.25], atol=1e-6)
    lopsided = correlated_equilibrium(CHICKEN, [0, 1])
    np.testing.assert_allclose(lopsided.values, [2, 7], atol=1e-6)
    np.testing.assert_allclose(correlated_equilibrium(DILEMMA).distribution, [[0, 0], [0, 1]], atol=1e-9)
    assert correlated_equilibrium(Game(np.zeros((1, 1)))).distribution.tolist() == [1]


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("wellfare", "objective: expected welfare, fairness or a weight for each player, got 'wellfare'"),
        ([1.0], r"objective: expected 2 finite weights, one for each player, got \[1.0\]"),
        ([1.0, np.inf], "objective: expected 2 finite weights"),
    ],
)
def test_other_objectives_are_refused(objective, message):
    with pytest.raises(GameError, match=message):
        correlated_equilibrium(CHICKEN, objective)


# -- Stackelberg


@pytest.mark.parametrize("seed", range(30))
def test_commitment_is_worth_at_least_the_best_equilibrium(seed):
    rng = np.random.default_rng(seed)
    game = random_game(rng, random_counts(rng, 2, 5))
    for leader in (0, 1):
        strategy, response, values = stackelberg_equilibrium(game, leader)
        best = max(game.values(profile)[leader] for profile in nash_equilibria(game).profiles)
        assert values[leader] >= best - 1e-6
        follower = 1 - leader
        other = game.payoffs[follower] if leader == 0 else game.payoffs[follower].T
        assert strategy @ other[:, response] >= (strategy @ other).max() - 1e-6
        own = game.payoffs[leader] if leader == 0 else game.payoffs[leader].T
        # no commitment on a grid does better, ties going to the leader
        for commitment in rng.dirichlet(np.full(len(own), 0.5), 300):
            answers = commitment @ other
            assert (commitment @ own)[answers >= answers.max() - 1e-9].max() <= values[leader] + 1e-6


def test_the_example_of_von_stengel_and_zamir():
    """Row leads: committing to (1/2, 1/2) makes the right column a best response and is worth 3.5; Nash gives 2."""
    game = Game.of_matrices([[2, 4], [1, 3]], [[1, 0], [0, 1]])
    strategy, response, values = stackelberg_equilibrium(game)
    np.testing.assert_allclose(strategy, [0.5, 0.5], atol=1e-7)
    assert response == 1
    np.testing.assert_allclose(values, [3.5, 0.5], atol=1e-6)
    (nash,) = nash_equilibria(game).profiles
    assert game.values(nash)[0] == 2
    for leader in (0, 1):
        assert stackelberg_equilibrium(RPS, leader).values[leader] == pytest.approx(0, abs=1e-7)
    with pytest.raises(GameError, match="leader: expected an integer from 0 to 1, got 2"):
        stackelberg_equilibrium(game, 2)
    with pytest.raises(GameError, match="stackelberg_equilibrium: expected a game of 2 players, got 3"):
        stackelberg_equilibrium(Game(np.zeros((3, 2, 2, 2))))
