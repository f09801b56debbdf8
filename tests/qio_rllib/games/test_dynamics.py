"""Learning dynamics: closed forms, conserved quantities and bounds on regret."""

import numpy as np
import pytest
from random_games import CHICKEN, RPS, pure, random_counts, random_game, random_profile

from qio_envs.matrix_game import NAMED_GAMES
from qio_rllib.games.dynamics import (
    fictitious_play,
    multiplicative_weights,
    regret_matching,
    replicator_dynamics,
)
from qio_rllib.games.game import Game, GameError
from qio_rllib.games.regret import external_regrets, nash_conv


def test_self_play_against_the_latest_cycles_and_against_the_average_converges():
    latest = fictitious_play(RPS, 300, memory="latest")
    actions = latest.strategies[0].argmax(axis=1)
    np.testing.assert_array_equal(actions, np.arange(300) % 3)  # rock, paper, scissors, rock, ...
    assert all(nash_conv(RPS, latest.at(step)) == 2 for step in range(300))
    average = fictitious_play(RPS, 5_000)
    assert nash_conv(RPS, average.average()) < 0.05
    assert nash_conv(RPS, fictitious_play(RPS, 100).average()) > nash_conv(RPS, average.average())


def test_fictitious_play_answers_the_frequencies_so_far():
    rng = np.random.default_rng(0)
    game = random_game(rng, (3, 4, 2))
    played = fictitious_play(game, 12, start=(2, 3, 1)).strategies
    assert [own[0].argmax() for own in played] == [2, 3, 1]
    for step in range(1, 12):
        values = game.action_values([own[:step].mean(axis=0) for own in played])
        assert [own[step].argmax() for own in played] == [own.argmax() for own in values]


def test_fictitious_play_does_not_converge_in_shapleys_game():
    game = Game(NAMED_GAMES["shapley"].payoffs[0])
    played = fictitious_play(game, 4_000, start=(0, 1)).strategies
    gaps = [nash_conv(game, [own[:step].mean(axis=0) for own in played]) for step in range(500, 4_001, 250)]
    assert min(gaps) > 0.1


# -- replicator dynamics


def test_replicators_where_one_action_is_better_by_a_constant():
    game = Game(np.array([[[2.0, 1.0], [1.5, 0.5]], [[1.0, 1.3], [0.0, 0.3]]]))
    times = np.linspace(0, 8, 5)
    found = replicator_dynamics(game, [[0.2, 0.8], [0.9, 0.1]], times)
    np.testing.assert_allclose(found.strategies[0][:, 0], 1 / (1 + 4 * np.exp(-0.5 * times)), atol=1e-7)
    np.testing.assert_allclose(found.strategies[1][:, 1], 1 / (1 + 9 * np.exp(-0.3 * times)), atol=1e-7)
    assert found.strategies[0].sum(axis=1) == pytest.approx(1)


def test_replicators_keep_the_product_of_shares_in_rock_paper_scissors():
    start = [[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]
    found = replicator_dynamics(RPS, start, [0, 5, 20])
    products = np.prod(np.concatenate(found.strategies, axis=1), axis=1)
    np.testing.assert_allclose(products, np.prod(start), rtol=1e-6)
    assert np.abs(found.at(1)[0] - found.at(0)[0]).max() > 0.1


def test_replicators_rest_in_equilibria_and_keep_absent_actions_absent():
    mixed = np.array([2 / 3, 1 / 3])
    for profile in ([mixed, mixed], [pure(2, 0), pure(2, 0)]):
        found = replicator_dynamics(CHICKEN, profile, [10.0])
        np.testing.assert_allclose(found.at(0), profile, atol=1e-6)
    np.testing.assert_allclose(replicator_dynamics(CHICKEN, [mixed, mixed], [0.0]).at(0), [mixed, mixed])


# -- no regret


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("steps", [50, 800])
def test_regrets_are_below_the_bounds(seed, steps):
    rng = np.random.default_rng(seed)
    game = random_game(rng, random_counts(rng, 2 + seed % 2, 4))
    start = random_profile(rng, game)
    size, counts = np.ptp(game.payoffs.reshape(game.num_players, -1), axis=1), np.array(game.num_actions)
    matching = external_regrets(game, regret_matching(game, steps, start).joint())
    assert (matching <= size * np.sqrt(counts / steps) + 1e-12).all()
    weights = external_regrets(game, multiplicative_weights(game, steps).joint())
    assert (weights <= size * np.sqrt(np.log(counts) / (2 * steps)) + 1e-12).all()


def test_averages_of_no_regret_players_approach_the_solution_of_a_zero_sum_game():
    start = [pure(3, 0), [0.2, 0.5, 0.3]]
    for learn in (regret_matching, multiplicative_weights):
        found = learn(RPS, 3_000, start=start)
        assert nash_conv(RPS, found.average()) < 0.05
        assert nash_conv(RPS, found.at(0)) > 1


def test_weights_are_exponentials_of_what_actions_would_have_earned():
    rng = np.random.default_rng(3)
    game = random_game(rng, (3, 2))
    played = multiplicative_weights(game, 6, rate=0.7).strategies
    gains = np.zeros(3)
    for step in range(5):
        gains += game.payoffs[0] @ played[1][step]
        np.testing.assert_allclose(played[0][step + 1], np.exp(0.7 * gains) / np.exp(0.7 * gains).sum())
    assert np.isfinite(multiplicative_weights(game, 50, rate=1e4).strategies[0]).all()
    default = multiplicative_weights(game, 6).strategies
    exponent = np.sqrt(8 * np.log(3) / 6) / np.ptp(game.payoffs[0]) * game.payoffs[0].mean(axis=1)
    np.testing.assert_allclose(default[0][1], np.exp(exponent) / np.exp(exponent).sum())


def test_the_joint_distribution_is_the_mean_of_products():
    rng = np.random.default_rng(2)
    game = random_game(rng, (2, 3, 2))
    found = regret_matching(game, 4, random_profile(rng, game))
    products = [np.einsum("a,b,c->abc", *found.at(step)) for step in range(4)]
    np.testing.assert_allclose(found.joint(), np.mean(products, axis=0))


REFUSED = [
    (lambda: fictitious_play(RPS, 0), "steps: expected an integer of at least 1, got 0"),
    (lambda: regret_matching(RPS, 2.5), "steps: expected an integer of at least 1, got 2.5"),
    (lambda: fictitious_play(RPS, 5, memory="all"), "memory: expected average or latest, got 'all'"),
    (lambda: fictitious_play(RPS, 5, start=(0, 3)), r"start: .* below \[3, 3\], got \[0, 3\]"),
    (lambda: fictitious_play(RPS, 5, start=(0,)), r"start: expected an action of each player"),
    (lambda: multiplicative_weights(RPS, 5, rate=0), "rate: expected a number above 0, got 0"),
    (lambda: replicator_dynamics(RPS, RPS.uniform_profile(), [1, 1]), "times: expected increasing numbers"),
    (lambda: replicator_dynamics(RPS, [pure(3, 0)], [1]), "profile: expected 2 strategies, got 1"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(GameError, match=message):
        call()
