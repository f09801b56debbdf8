"""`Game`: a game in normal form, and what mixed strategies earn in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linprog

from qio_envs.api import ConfigError

Array = np.ndarray
Profile = Sequence[Array]
"""A mixed strategy of each player: ``N`` vectors of probabilities, ``[A_n]``."""
TOLERANCE = 1e-9
"""Of comparisons, in units of a game's range of payoffs."""


class GameError(ConfigError):
    """A game or a profile that a method does not fit; the message is one line that says why."""


@dataclasses.dataclass(frozen=True, eq=False)
class Game:
    """A game of ``N`` players in normal form.

    The payoffs of a stage of `qio_envs.matrix_game_v0` are one: ``Game(env.config.payoff_table[0])``.

    Args:
        payoffs: Of each player by the joint action, ``[N, A_1, ..., A_N]``, finite.

    Attributes:
        payoffs: The same as float64, read-only.

    Raises:
        GameError: Another shape, or numbers that are not finite.
    """

    payoffs: Array

    def __post_init__(self) -> None:
        try:
            payoffs = np.array(self.payoffs, np.float64)
        except (ValueError, TypeError):
            raise GameError(
                "payoffs: expected numbers of shape [N, A_1, ..., A_N], got lists that are no array"
            ) from None
        if payoffs.ndim < 2 or payoffs.ndim != len(payoffs) + 1 or not payoffs.size:
            raise GameError(
                "payoffs: expected shape [N, A_1, ..., A_N], an axis of actions for each of N players, "
                f"got {list(payoffs.shape)}"
            )
        if not np.isfinite(payoffs).all():
            place = np.argwhere(~np.isfinite(payoffs))[0].tolist()
            raise GameError(f"payoffs: expected finite numbers, got {payoffs[tuple(place)]} at {place}")
        payoffs.flags.writeable = False
        object.__setattr__(self, "payoffs", payoffs)

    @classmethod
    def of_matrices(cls, first: Array, second: Array) -> Game:
        """Return the game of two players with these payoffs, each ``[rows, columns]``."""
        first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
        if first.shape != second.shape or first.ndim != 2:
            raise GameError(
                f"payoffs: expected two matrices of one shape, got {list(first.shape)} and {list(second.shape)}"
            )
        return cls(np.stack([first, second]))

    @classmethod
    def zero_sum(cls, first: Array) -> Game:
        """Return the game in which the second player loses what the first is paid, ``[rows, columns]``."""
        first = np.asarray(first, np.float64)
        return cls.of_matrices(first, -first)

    @classmethod
    def symmetric(cls, own: Array) -> Game:
        """Return the game in which either of two players is paid ``own[own action, the other's]``."""
        own = np.asarray(own, np.float64)
        if own.ndim != 2 or own.shape[0] != own.shape[1]:
            raise GameError(f"payoffs: expected a square matrix, got shape {list(own.shape)}")
        return cls.of_matrices(own, own.T)

    @property
    def num_players(self) -> int:
        """Number of players ``N``."""
        return len(self.payoffs)

    @property
    def num_actions(self) -> tuple[int, ...]:
        """Number of actions of each player."""
        return self.payoffs.shape[1:]

    @property
    def scale(self) -> float:
        """Range of the payoffs, the unit of `TOLERANCE`; 1 where all are equal."""
        return float(np.ptp(self.payoffs)) or 1.0

    def uniform_profile(self) -> list[Array]:
        """Return the profile in which all actions are equally likely."""
        return [np.full(count, 1 / count) for count in self.num_actions]

    def action_values(self, profile: Profile) -> list[Array]:
        """Return what each action of each player earns while the others follow a profile: ``N`` times ``[A_n]``.

        Raises:
            GameError: The profile does not fit.
        """
        strategies = self.checked_profile(profile)
        found = []
        for player in range(self.num_players):
            values = self.payoffs[player]
            for other in reversed(range(self.num_players)):
                if other != player:
                    values = np.tensordot(values, strategies[other], axes=(other, 0))
            found.append(values)
        return found

    def values(self, profile: Profile) -> Array:
        """Return what each player expects to earn, float64 ``[N]``; raise `GameError` as `action_values`."""
        values = self.action_values(profile)
        strategies = self.checked_profile(profile)
        return np.array([own @ strategy for own, strategy in zip(values, strategies, strict=True)])

    def values_of_joint(self, distribution: Array) -> Array:
        """Return what each player expects to earn under a distribution over joint actions, float64 ``[N]``.

        Args:
            distribution: ``[A_1, ..., A_N]``, not negative, with the sum 1.

        Raises:
            GameError: The distribution does not fit.
        """
        return (self.payoffs * self.checked_joint(distribution)).reshape(self.num_players, -1).sum(axis=1)

    def checked_profile(self, profile: Profile) -> list[Array]:
        """Return a profile as float64 vectors.

        Raises:
            GameError: Another number of strategies or actions, or numbers that are no probabilities.
        """
        if len(profile) != self.num_players:
            raise GameError(f"profile: expected {self.num_players} strategies, got {len(profile)}")
        return [
            _checked(f"profile[{player}]", strategy, (count,))
            for player, (strategy, count) in enumerate(zip(profile, self.num_actions, strict=True))
        ]

    def checked_joint(self, distribution: Array) -> Array:
        """Return a distribution over joint actions as float64.

        Raises:
            GameError: Another shape, or numbers that are no probabilities.
        """
        return _checked("distribution", distribution, self.num_actions)

    def pareto_front(self) -> list[tuple[int, ...]]:
        """Return the joint actions that no other one dominates: none is as good for all and better for somebody."""
        outcomes = self.payoffs.reshape(self.num_players, -1).T  # [J, N]
        kept = []
        for index, outcome in enumerate(outcomes):
            dominates = (outcomes >= outcome).all(axis=1) & (outcomes > outcome).any(axis=1)
            if not dominates.any():
                kept.append(tuple(int(action) for action in np.unravel_index(index, self.num_actions)))
        return kept


def two_players(game: Game, what: str) -> tuple[Array, Array]:
    """Return both payoff matrices ``[rows, columns]``.

    Raises:
        GameError: The game has another number of players; the message names ``what``.
    """
    if game.num_players != 2:
        raise GameError(f"{what}: expected a game of 2 players, got {game.num_players}")
    return game.payoffs[0], game.payoffs[1]


def check_player(game: Game, player: int, name: str = "player") -> None:
    """Refuse what is no index of a player with a `GameError`."""
    if player not in range(game.num_players):
        raise GameError(f"{name}: expected an integer from 0 to {game.num_players - 1}, got {player!r}")


def solve_program(what: str, **program: object) -> tuple[Array, float] | None:
    """Return the solution of a linear program and its least value, or None where it is infeasible.

    Args:
        what: Named in messages.
        program: As for `scipy.optimize.linprog`, which minimises.

    Raises:
        GameError: The solver stopped for another reason.
    """
    found = linprog(method="highs", **program)
    if found.status == 2:
        return None
    if found.status != 0:
        raise GameError(f"{what}: the linear program was not solved: {found.message.strip().splitlines()[0]}")
    return found.x, float(found.fun)


def as_probabilities(numbers: Array) -> Array:
    """Return a solver's numbers as probabilities: without what rounding left below 0, with the sum 1."""
    kept = np.clip(numbers, 0, None)
    return kept / kept.sum()


def _checked(name: str, strategy: Array, shape: tuple[int, ...]) -> Array:
    numbers = np.asarray(strategy, np.float64)
    if numbers.shape != shape:
        raise GameError(f"{name}: expected shape {list(shape)}, got {list(numbers.shape)}")
    if not (numbers >= 0).all() or abs(numbers.sum() - 1) > 1e-6:
        raise GameError(f"{name}: expected probabilities with the sum 1, got {numbers.tolist()}")
    return numbers
