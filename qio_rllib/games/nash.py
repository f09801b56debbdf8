"""Nash equilibria of games of two players, all of them, by enumeration of supports."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

import numpy as np

from qio_rllib.games.game import TOLERANCE, Array, Game, GameError, two_players

MAX_PAIRS = 2_000_000
"""Pairs of supports at most: games of up to 11 x 11 actions."""
_CHUNK = 20_000  # pairs solved at once
_SINGULAR = 1e-10  # least singular value of a system that counts as regular, the greatest being 1


@dataclasses.dataclass(frozen=True, eq=False)
class NashEquilibria:
    """Equilibria of a game of two players.

    Attributes:
        profiles: Each a pair of strategies, float64 ``[rows]`` and ``[columns]``. All equilibria of a nondegenerate
            game, of which there is an odd number. Of a degenerate one the extreme equilibria: every equilibrium is a
            mixture of some of them, and there may be infinitely many.
        is_degenerate: Whether a mixed strategy of the game has more pure best responses than actions in its support.
    """

    profiles: tuple[tuple[Array, Array], ...]
    is_degenerate: bool


def nash_equilibria(game: Game) -> NashEquilibria:
    """Return all (extreme) equilibria, by enumeration of pairs of supports of equal size.

    For each pair the strategy on the first support that makes all actions of the second equally good, and none better,
    is a vertex of a player's best-response polyhedron. An equilibrium is a pair of such vertices in which every action
    is unused or a best response (von Stengel, "Computing equilibria for two-person games", Handbook of Game Theory 3,
    2002; Avis, Rosenberg, Savani and von Stengel, Economic Theory 42, 2010). The game is degenerate where a vertex has
    more best responses than actions in its support.

    Args:
        game: Of two players.

    Raises:
        GameError: Another number of players, or more than `MAX_PAIRS` pairs of supports.
    """
    first, second = two_players(game, "nash_equilibria")
    rows, columns = first.shape
    pairs = math.comb(rows + columns, rows) - 1
    if pairs > MAX_PAIRS:
        raise GameError(
            f"nash_equilibria: {rows} x {columns} actions have {pairs} pairs of supports; "
            f"allowed: up to {MAX_PAIRS}"
        )
    (x, x_best), (y, y_best) = _vertices(_unit(second).T), _vertices(_unit(first))
    # an action that is used without being a best response keeps a pair from being an equilibrium
    wrong = (x > 0).astype(int) @ (~y_best).T + (~x_best).astype(int) @ (y > 0).T  # [X, Y]
    found = [(x[i].copy(), y[j].copy()) for i, j in np.argwhere(wrong == 0)]
    is_degenerate = any(
        bool((best.sum(axis=1) > (strategies > 0).sum(axis=1)).any())
        for strategies, best in ((x, x_best), (y, y_best))
    )
    return NashEquilibria(tuple(found), is_degenerate)


def _unit(payoffs: Array) -> Array:
    """Return payoffs with the mean 0 and the range 1: best responses stay what they are."""
    return (payoffs - payoffs.mean()) / (float(np.ptp(payoffs)) or 1.0)


def _vertices(payoffs: Array) -> tuple[Array, Array]:
    """Return a player's strategies at vertices of the other's best-response polyhedron, and the best responses.

    Args:
        payoffs: Of the other player, ``[other's actions, own actions]``.

    Returns:
        Strategies, float64 ``[V, own]``, each once, and bool ``[V, other's]``.
    """
    strategies: list[Array] = []
    others, own = payoffs.shape
    for size in range(1, min(others, own) + 1):
        for supports, responses in _pairs(own, others, size):
            strategies.append(_indifferent(payoffs, supports, responses))
    found = np.concatenate(strategies)
    _, places = np.unique(np.round(found / (10 * TOLERANCE)), axis=0, return_index=True)
    found = found[np.sort(places)]
    values = found @ payoffs.T  # [V, other's]
    return found, values >= values.max(axis=1, keepdims=True) - 10 * TOLERANCE


def _pairs(own: int, others: int, size: int) -> Iterator[tuple[Array, Array]]:
    """Give supports and responses of one size, int ``[P, size]`` each, in chunks of pairs."""
    supports = np.array(list(itertools.combinations(range(own), size)))
    responses = np.array(list(itertools.combinations(range(others), size)))
    total = len(supports) * len(responses)
    for start in range(0, total, _CHUNK):
        index = np.arange(start, min(start + _CHUNK, total))
        yield supports[index // len(responses)], responses[index % len(responses)]


def _indifferent(payoffs: Array, supports: Array, responses: Array) -> Array:
    """Return the strategies on the supports to which the responses are best, ``[V, own]``; singular pairs have none."""
    count, size = supports.shape
    system = np.zeros((count, size + 1, size + 1))
    system[:, :size, :size] = payoffs[responses[:, :, None], supports[:, None, :]]
    system[:, :size, size] = -1  # less the value
    system[:, size, :size] = 1
    singular = np.linalg.svd(system, compute_uv=False)
    regular = singular[:, -1] > _SINGULAR * singular[:, 0]
    right = np.zeros((int(regular.sum()), size + 1, 1))
    right[:, size] = 1
    solved = np.linalg.solve(system[regular], right)[..., 0]
    numbers = np.where(np.abs(solved[:, :size]) < 10 * TOLERANCE, 0, solved[:, :size])
    strategies = np.zeros((len(numbers), payoffs.shape[1]))
    np.put_along_axis(strategies, supports[regular], numbers, axis=1)
    best = (strategies @ payoffs.T).max(axis=1) <= solved[:, size] + 10 * TOLERANCE
    kept = strategies[best & (numbers >= 0).all(axis=1)]
    return kept / kept.sum(axis=1, keepdims=True)
