"""Random games and mixed strategies, shared by the tests of games."""

import itertools

import numpy as np

from qio_rllib.games.game import Game


def random_game(rng, counts):
    return Game(rng.normal(size=(len(counts), *counts)))


def random_counts(rng, players=2, most=6):
    return tuple(int(count) for count in rng.integers(1, most + 1, players))


def random_profile(rng, game):
    return [rng.dirichlet(np.ones(count)) for count in game.num_actions]


def joint_actions(game):
    return itertools.product(*map(range, game.num_actions))


def expected(game, profile):
    """What players earn, by a loop over joint actions."""
    total = np.zeros(game.num_players)
    for joint in joint_actions(game):
        chance = np.prod([own[action] for own, action in zip(profile, joint, strict=True)])
        total += chance * game.payoffs[(slice(None), *joint)]
    return total


def pure(count, action):
    return np.eye(count)[action]


RPS = Game.zero_sum([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
CHICKEN = Game.symmetric([[6, 2], [7, 0]])
DILEMMA = Game.symmetric([[3, 0], [5, 1]])
