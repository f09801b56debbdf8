"""`Game`, regrets and Pareto fronts against loops over joint actions."""

import numpy as np
import pytest
from random_games import (
    CHICKEN,
    DILEMMA,
    RPS,
    expected,
    joint_actions,
    pure,
    random_counts,
    random_game,
    random_profile,
)

from qio_envs.matrix_game import MatrixGameConfig
from qio_rllib.games.game import Game, GameError
from qio_rllib.games.regret import (
    best_responses,
    exploitability,
    external_regrets,
    nash_conv,
    regrets,
    swap_regrets,
)


@pytest.mark.parametrize("seed", range(20))
def test_values_and_regrets_are_sums_over_joint_actions(seed):
    rng = np.random.default_rng(seed)
    game = random_game(rng, random_counts(rng, 1 + seed % 4, 4))
    profile = random_profile(rng, game)
    values = expected(game, profile)
    np.testing.assert_allclose(game.values(profile), values, atol=1e-12)
    gains = []
    for player, count in enumerate(game.num_actions):
        changed = [
            expected(game, [pure(count, a) if n == player else own for n, own in enumerate(profile)])[player]
            for a in range(count)
        ]
        np.testing.assert_allclose(game.action_values(profile)[player], changed, atol=1e-12)
        assert best_responses(game, profile)[player] == [int(np.argmax(changed))]
        gains.append(max(changed) - values[player])
    np.testing.assert_allclose(regrets(game, profile), gains, atol=1e-12)
    assert nash_conv(game, profile) == pytest.approx(sum(gains))
    assert exploitability(game, profile) == pytest.approx(sum(gains) / game.num_players)


@pytest.mark.parametrize("seed", range(10))
def test_regrets_of_distributions_are_the_best_constant_and_the_best_rule(seed):
    rng = np.random.default_rng(seed)
    game = random_game(rng, random_counts(rng, 2 + seed % 2, 3))
    joint = rng.dirichlet(np.ones(int(np.prod(game.num_actions)))).reshape(game.num_actions)
    values = game.values_of_joint(joint)
    for player, count in enumerate(game.num_actions):

        def earned(rule, player=player):
            total = 0.0
            for actions in joint_actions(game):
                done = list(actions)
                done[player] = rule(actions[player])
                total += joint[actions] * game.payoffs[(player, *done)]
            return total

        constant = max(earned(lambda told, done=done: done) for done in range(count))
        assert external_regrets(game, joint)[player] == pytest.approx(constant - values[player])
        rules = np.stack(np.meshgrid(*[range(count)] * count, indexing="ij"), axis=-1).reshape(-1, count)
        best = max(earned(lambda told, rule=rule: rule[told]) for rule in rules)
        assert swap_regrets(game, joint)[player] == pytest.approx(best - values[player])


def test_ties_are_all_best_responses():
    assert best_responses(RPS, RPS.uniform_profile()) == [[0, 1, 2], [0, 1, 2]]
    assert nash_conv(RPS, RPS.uniform_profile()) == 0
    assert nash_conv(RPS, [pure(3, 0), pure(3, 0)]) == 2


@pytest.mark.parametrize("seed", range(10))
def test_the_pareto_front_is_what_nothing_dominates(seed):
    rng = np.random.default_rng(seed)
    game = Game(rng.integers(0, 4, (2 + seed % 2, *random_counts(rng, 2 + seed % 2, 4))).astype(float))
    outcomes = {joint: game.payoffs[(slice(None), *joint)] for joint in joint_actions(game)}
    front = [
        joint
        for joint, own in outcomes.items()
        if not any((other >= own).all() and (other > own).any() for other in outcomes.values())
    ]
    assert game.pareto_front() == front


def test_everything_but_mutual_defection_is_efficient_in_the_dilemma():
    assert DILEMMA.pareto_front() == [(0, 0), (0, 1), (1, 0)]


def test_an_environments_table_is_a_game():
    game = Game(MatrixGameConfig(game="chicken").payoff_table[0])
    np.testing.assert_array_equal(game.payoffs, CHICKEN.payoffs)
    with pytest.raises(ValueError, match="read-only"):
        game.payoffs[0, 0, 0] = 1


REFUSED = [
    (lambda: Game(np.zeros((3, 2, 2))), r"payoffs: expected shape \[N, A_1, ..., A_N\], .* got \[3, 2, 2\]"),
    (lambda: Game(np.zeros(2)), r"payoffs: expected shape .*, got \[2\]"),
    (lambda: Game([[[1, 2], [3]], [[1, 2], [3, 4]]]), "payoffs: expected numbers of shape .*, got lists"),
    (lambda: Game([[[1, np.nan]], [[0, 0]]]), r"payoffs: expected finite numbers, got nan at \[0, 0, 1\]"),
    (lambda: Game(np.zeros((1, 0))), r"payoffs: expected shape .*, got \[1, 0\]"),
    (lambda: Game.of_matrices([[1]], [[1, 2]]), r"two matrices of one shape, got \[1, 1\] and \[1, 2\]"),
    (lambda: Game.symmetric([[1, 2]]), r"a square matrix, got shape \[1, 2\]"),
    (lambda: RPS.values([pure(3, 0)]), "profile: expected 2 strategies, got 1"),
    (lambda: RPS.values([pure(3, 0), pure(2, 0)]), r"profile\[1\]: expected shape \[3\], got \[2\]"),
    (lambda: RPS.values([pure(3, 0), np.ones(3)]), r"profile\[1\]: expected probabilities with the sum 1"),
    (lambda: RPS.values([[2, -1, 0], pure(3, 0)]), r"profile\[0\]: expected probabilities"),
    (lambda: RPS.values([[np.nan, 1, 0], pure(3, 0)]), r"profile\[0\]: expected probabilities"),
    (lambda: swap_regrets(RPS, np.ones(9) / 9), r"distribution: expected shape \[3, 3\], got \[9\]"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_what_is_no_game_or_profile_is_refused_in_a_line(call, message):
    with pytest.raises(GameError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
