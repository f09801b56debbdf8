"""Correlated equilibria of games of any number of players, by linear programming."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from qio_rllib.games.game import Array, Game, GameError, as_probabilities, solve_program

OBJECTIVES = ("welfare", "fairness")


class CorrelatedEquilibrium(NamedTuple):
    """A distribution that a mediator can draw joint actions from, so that nobody gains by disobeying."""

    distribution: Array  # float64 [A_1, ..., A_N]
    values: Array  # float64 [N], what each player expects


def correlated_equilibrium(game: Game, objective: str | Sequence[float] = "welfare") -> CorrelatedEquilibrium:
    """Return the correlated equilibrium that is best by an objective (Aumann, 1974 and 1987).

    The constraints, for every player and all actions a and b of its own: told a, it would not gain by b,

        sum over the others' u of p(a, u) (payoff(b, u) - payoff(a, u)) <= 0

    Args:
        game: Of any number of players.
        objective: ``welfare``, the greatest sum of what the players expect; ``fairness``, the greatest least of them;
            or a weight for each player: the greatest weighted sum.

    Raises:
        GameError: Another objective.
    """
    players, joint = game.num_players, int(np.prod(game.num_actions))
    unit = game.payoffs.reshape(players, joint) / game.scale
    obedience = _obedience(game) / game.scale
    if isinstance(objective, str) and objective == "fairness":
        # variables: the distribution and the least value
        cost = np.r_[np.zeros(joint), -1.0]
        least = sparse.csr_matrix(np.hstack([-unit, np.ones((players, 1))]))
        padded = sparse.hstack([obedience, sparse.csr_matrix((obedience.shape[0], 1))])
        constraints = sparse.vstack([padded, least]).tocsr()
    else:
        cost, constraints = -_weights(game, objective) @ unit, obedience
    free = len(cost) - joint
    solved = solve_program(
        "correlated_equilibrium",
        c=cost,
        A_ub=constraints if constraints.shape[0] else None,
        b_ub=np.zeros(constraints.shape[0]) if constraints.shape[0] else None,
        A_eq=np.r_[np.ones(joint), np.zeros(free)][None],
        b_eq=[1.0],
        bounds=[(0, None)] * joint + [(None, None)] * free,
    )
    assert solved is not None  # every game has one (Hart and Schmeidler, 1989)
    distribution = as_probabilities(solved[0][:joint]).reshape(game.num_actions)
    return CorrelatedEquilibrium(distribution, game.values_of_joint(distribution))


def _weights(game: Game, objective: str | Sequence[float]) -> Array:
    if isinstance(objective, str):
        if objective != "welfare":
            raise GameError(
                f"objective: expected {', '.join(OBJECTIVES)} or a weight for each player, got '{objective}'"
            )
        return np.ones(game.num_players)
    weights = np.asarray(objective, np.float64)
    if weights.shape != (game.num_players,) or not np.isfinite(weights).all():
        raise GameError(
            f"objective: expected {game.num_players} finite weights, one for each player, got {weights.tolist()}"
        )
    return weights


def _obedience(game: Game) -> sparse.csr_matrix:
    """Return the constraints' matrix: a row for each player and pair of its actions, a column for each joint action."""
    columns = np.arange(int(np.prod(game.num_actions))).reshape(game.num_actions)
    rows, places, entries, count = [], [], [], 0
    for player, actions in enumerate(game.num_actions):
        payoffs = np.moveaxis(game.payoffs[player], player, 0).reshape(actions, -1)
        indices = np.moveaxis(columns, player, 0).reshape(actions, -1)
        for told in range(actions):
            for done in range(actions):
                if done != told:
                    rows.append(np.full(indices.shape[1], count))
                    places.append(indices[told])
                    entries.append(payoffs[done] - payoffs[told])
                    count += 1
    if not rows:
        return sparse.csr_matrix((0, columns.size))
    parts = (np.concatenate(entries), (np.concatenate(rows), np.concatenate(places)))
    return sparse.csr_matrix(parts, shape=(count, columns.size))
