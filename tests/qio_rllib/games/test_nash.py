"""All Nash equilibria, against nashpy, the index theorem and closed forms."""

import warnings

import nashpy
import numpy as np
import pytest
from random_games import CHICKEN, DILEMMA, RPS, random_counts, random_game

from qio_envs.matrix_game import NAMED_GAMES
from qio_rllib.games.game import Game, GameError
from qio_rllib.games.nash import nash_equilibria
from qio_rllib.games.regret import nash_conv


def as_rows(profiles):
    return sorted(np.round(np.concatenate(profile), 6).tolist() for profile in profiles)


def index(game, profile):
    """Shapley (1974): (-1)^(k + 1) times the sign of the determinants of the positive payoffs on the supports."""
    rows, columns = (np.flatnonzero(own) for own in profile)
    first, second = (own[np.ix_(rows, columns)] - own.min() + 1 for own in game.payoffs)
    return (-1) ** (len(rows) + 1) * np.sign(np.linalg.det(first) * np.linalg.det(second))


def test_200_random_games_have_the_equilibria_of_nashpy():
    rng = np.random.default_rng(0)
    for number in range(200):
        low, high = (5, 6) if number < 4 else (2, 4)
        game = random_game(rng, rng.integers(low, high + 1, 2))
        found = nash_equilibria(game)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            oracle = list(nashpy.Game(*game.payoffs).vertex_enumeration())
        assert not found.is_degenerate
        assert len(found.profiles) == len(oracle)
        np.testing.assert_allclose(as_rows(found.profiles), as_rows(oracle), atol=2e-6)


def test_of_200_games_of_up_to_6_x_6_no_equilibrium_is_missing():
    """The indices of all equilibria have the sum 1: one that was left out would be missed."""
    rng, counts = np.random.default_rng(1), []
    for _ in range(200):
        game = random_game(rng, random_counts(rng))
        found = nash_equilibria(game)
        assert not found.is_degenerate
        for profile in found.profiles:
            assert nash_conv(game, profile) < 1e-9
        assert sum(index(game, profile) for profile in found.profiles) == 1
        counts.append(len(found.profiles))
    assert max(counts) >= 5


def test_equilibria_of_named_games():
    (dilemma,) = nash_equilibria(DILEMMA).profiles
    np.testing.assert_array_equal(dilemma, [[0, 1], [0, 1]])
    assert as_rows(nash_equilibria(CHICKEN).profiles) == [
        [0, 1, 1, 0],
        [0.666667, 0.333333, 0.666667, 0.333333],
        [1, 0, 0, 1],
    ]
    (rps,) = nash_equilibria(RPS).profiles
    np.testing.assert_allclose(rps, np.full((2, 3), 1 / 3))
    # penalty: two pure ones at the corners, one in the middle, and mixtures; odd in number
    for name, number in (("climbing", 3), ("stag_hunt", 3), ("shapley", 1), ("matching_pennies", 1)):
        found = nash_equilibria(Game(NAMED_GAMES[name].payoffs[0]))
        assert len(found.profiles) == number, name
        assert not found.is_degenerate
        known = np.concatenate(list(NAMED_GAMES[name].equilibrium[0]))
        assert any(np.allclose(np.concatenate(profile), known) for profile in found.profiles), name


@pytest.mark.parametrize("shift", [0.0, 1e5])
def test_the_unit_and_the_zero_of_payoffs_do_not_matter(shift):
    rng = np.random.default_rng(5)
    game = random_game(rng, (4, 4))
    scaled = Game(game.payoffs * np.array([1e-3, 1e3])[:, None, None] + shift)
    np.testing.assert_allclose(
        as_rows(nash_equilibria(scaled).profiles), as_rows(nash_equilibria(game).profiles), atol=1e-5
    )


DEGENERATE = {
    "a column that ties": ([[1, 1], [0, 0]], [[1, 1], [0, 0]], 2),
    "all payoffs equal": (np.zeros((2, 3)), np.zeros((2, 3)), 6),
    "a row twice": ([[2, 0], [2, 0], [0, 1]], [[1, 0], [1, 0], [0, 1]], None),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_games_are_said_to_be_so(name):
    first, second, number = DEGENERATE[name]
    game = Game.of_matrices(first, second)
    found = nash_equilibria(game)
    assert found.is_degenerate
    assert all(nash_conv(game, profile) < 1e-9 for profile in found.profiles)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(found.profiles) == number if number else found.profiles


def test_every_pure_equilibrium_of_degenerate_games_is_found():
    rng, degenerate = np.random.default_rng(3), 0
    for _ in range(60):
        game = Game(rng.integers(0, 3, (2, *rng.integers(2, 5, 2))))
        found = nash_equilibria(game)
        assert all(nash_conv(game, profile) < 1e-9 for profile in found.profiles)
        first, second = game.payoffs
        best = (first == first.max(axis=0)) & (second == second.max(axis=1, keepdims=True))
        pure = {(int(x.argmax()), int(y.argmax())) for x, y in found.profiles if x.max() == y.max() == 1}
        assert pure == {(int(row), int(column)) for row, column in np.argwhere(best)}
        degenerate += found.is_degenerate
    assert degenerate > 40


def test_degeneracy_away_from_equilibria_is_found():
    """The column player is indifferent only where the row player mixes half and half, which it never does."""
    game = Game.of_matrices([[5, 5, 5], [0, 0, 0]], [[3, 2, 0], [1, 2, 4]])
    assert nash_equilibria(game).is_degenerate
    assert not nash_equilibria(
        Game.of_matrices([[5, 5, 5], [0, 0, 0]], [[3, 2.1, 0], [1, 2.1, 4]])
    ).is_degenerate


def test_what_does_not_fit_is_refused():
    with pytest.raises(GameError, match="nash_equilibria: expected a game of 2 players, got 3"):
        nash_equilibria(Game(np.zeros((3, 2, 2, 2))))
    with pytest.raises(
        GameError, match="12 x 12 actions have 2704155 pairs of supports; allowed: up to 2000000"
    ):
        nash_equilibria(Game(np.zeros((2, 12, 12))))
