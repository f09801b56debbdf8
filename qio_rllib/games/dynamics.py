"""Learning in games: fictitious play, replicator dynamics and no-regret learning, with expected payoffs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from scipy.integrate import solve_ivp

from qio_rllib.games.game import Array, Game, GameError, Profile


@dataclasses.dataclass(frozen=True, eq=False)
class Trajectory:
    """What players did in ``T`` steps of a dynamic.

    Attributes:
        strategies: Of each player, float64 ``[T, A_n]``.
    """

    strategies: tuple[Array, ...]

    def at(self, step: int) -> list[Array]:
        """Return the profile of one step; -1 is the last."""
        return [own[step] for own in self.strategies]

    def average(self) -> list[Array]:
        """Return the mean of each player's strategies over all steps."""
        return [own.mean(axis=0) for own in self.strategies]

    def joint(self) -> Array:
        """Return the distribution of joint actions over all steps, ``[A_1, ..., A_N]``.

        Its external regrets are those of the players; it is a coarse correlated equilibrium where they vanish.
        """
        product = self.strategies[0]
        for own in self.strategies[1:]:
            product = product[..., None] * own.reshape(len(own), *(1,) * (product.ndim - 1), -1)
        return product.mean(axis=0)


def fictitious_play(
    game: Game, steps: int, start: Sequence[int] | None = None, memory: str = "average"
) -> Trajectory:
    """Let all players answer at once with a best response to what the others did; pure actions, one-hot.

    With ``average`` (Brown, 1951) the others' actions are taken to be independent, each with its frequencies so far.
    Averages converge to an equilibrium in zero-sum games of two players (Robinson, 1951), and need not elsewhere
    (Shapley, 1964). With ``latest`` it is the last joint action alone, as in self-play against the latest opponent:
    best-response dynamics. Of equally good actions the first is played.

    Args:
        game: The game.
        steps: Joint actions that are played, at least 1; the first is ``start``.
        start: An action of each player; the first ones when absent.
        memory: ``average`` or ``latest``.

    Raises:
        GameError: An argument that does not fit.
    """
    _check_steps(steps)
    if memory not in ("average", "latest"):
        raise GameError(f"memory: expected average or latest, got {memory!r}")
    actions = [0] * game.num_players if start is None else list(start)
    if len(actions) != game.num_players or any(
        action not in range(count) for action, count in zip(actions, game.num_actions, strict=False)
    ):
        raise GameError(
            f"start: expected an action of each player, below {list(game.num_actions)}, got {actions}"
        )
    played = tuple(np.zeros((steps, count)) for count in game.num_actions)
    counts = [np.zeros(count) for count in game.num_actions]
    for step in range(steps):
        if step:
            beliefs = [own / step for own in counts]
            if memory == "latest":
                beliefs = [own[step - 1] for own in played]
            actions = [int(values.argmax()) for values in game.action_values(beliefs)]
        for player, action in enumerate(actions):
            played[player][step, action] = 1
            counts[player][action] += 1
    return Trajectory(played)


def replicator_dynamics(game: Game, start: Profile, times: Sequence[float]) -> Trajectory:
    """Return the profiles of the replicator equation at given times, a population of its own for each player.

    The share x_a of an action grows by x_a (value of a - mean value) (Taylor and Jonker, 1978; for several populations
    Taylor, 1979). Equal populations of a symmetric game from equal starts are the equation of one population. Solved by
    SciPy's Runge-Kutta method of order 8, relative tolerance 1e-9.

    Args:
        game: The game.
        start: The profile at time 0; actions without a share never get one.
        times: Increasing, not negative.

    Raises:
        GameError: A profile or times that do not fit.
    """
    moments = np.asarray(times, np.float64)
    if moments.ndim != 1 or not len(moments) or moments[0] < 0 or (np.diff(moments) <= 0).any():
        raise GameError(f"times: expected increasing numbers of at least 0, got {moments.tolist()}")
    edges = np.cumsum(game.num_actions)[:-1]

    def growth(_: float, shares: Array) -> Array:
        profile = [np.clip(own, 0, None) for own in np.split(shares, edges)]
        profile = [own / own.sum() for own in profile]
        values = game.action_values(profile)
        return np.concatenate([own * (v - own @ v) for own, v in zip(profile, values, strict=True)])

    first = np.concatenate(game.checked_profile(start))
    solved = solve_ivp(
        growth, (0.0, float(moments[-1]) or 1.0), first, "DOP853", t_eval=moments, rtol=1e-9, atol=1e-12
    )
    if not solved.success:
        raise GameError(f"replicator_dynamics: the equation was not solved: {solved.message}")
    shares = [np.clip(own, 0, None) for own in np.split(solved.y.T, edges, axis=1)]
    return Trajectory(tuple(own / own.sum(axis=1, keepdims=True) for own in shares))


def regret_matching(game: Game, steps: int, start: Profile | None = None) -> Trajectory:
    """Let each player play its actions in proportion to what it regrets not to have played them always.

    Hart and Mas-Colell (Econometrica 68, 2000), against the others' mixed strategies, as in counterfactual regret
    minimisation. After T steps a player's `external_regrets` are at most R sqrt(A / T), with R the range of its payoffs
    and A its actions: averages approach an equilibrium in zero-sum games of two players, and `Trajectory.joint` a
    coarse correlated equilibrium in any game. Where no regret is above 0 the strategy is uniform.

    Args:
        game: The game.
        steps: At least 1.
        start: The first step's profile; uniform when absent.

    Raises:
        GameError: An argument that does not fit.
    """

    def answer(player: int, gains: Array) -> Array:
        positive = np.clip(gains, 0, None)
        total = positive.sum()
        return positive / total if total > 0 else np.full(len(gains), 1 / len(gains))

    return _learn(game, steps, start, answer)


def multiplicative_weights(
    game: Game, steps: int, rate: float | None = None, start: Profile | None = None
) -> Trajectory:
    """Let each player weigh its actions by the exponential of what they would have earned so far.

    Hedge (Freund and Schapire, 1999), against the others' mixed strategies: a strategy is in proportion to
    exp(rate times the sum of an action's values). With the default rate a player's `external_regrets` after ``steps``
    steps are at most R sqrt(log(A) / (2 steps)), with R the range of its payoffs and A its actions.

    Args:
        game: The game.
        steps: At least 1.
        rate: Above 0, in units of 1 / payoff; sqrt(8 log(A) / steps) / R for each player when absent.
        start: The first step's profile; uniform when absent.

    Raises:
        GameError: An argument that does not fit.
    """
    _check_steps(steps)
    if rate is not None and not (np.isfinite(rate) and rate > 0):
        raise GameError(f"rate: expected a number above 0, got {rate!r}")
    ranges = [float(np.ptp(own)) or 1.0 for own in game.payoffs]
    rates = [
        np.sqrt(8 * np.log(count) / steps) / size if rate is None else rate
        for count, size in zip(game.num_actions, ranges, strict=True)
    ]

    def answer(player: int, gains: Array) -> Array:
        weights = np.exp(rates[player] * (gains - gains.max()))
        return weights / weights.sum()

    return _learn(game, steps, start, answer)


def _learn(
    game: Game, steps: int, start: Profile | None, answer: Callable[[int, Array], Array]
) -> Trajectory:
    """Play ``steps`` profiles; ``answer`` gets a player's regrets, summed over the steps so far."""
    _check_steps(steps)
    profile = game.uniform_profile() if start is None else game.checked_profile(start)
    played = tuple(np.empty((steps, count)) for count in game.num_actions)
    gains = [np.zeros(count) for count in game.num_actions]
    for step in range(steps):
        for own, strategy in zip(played, profile, strict=True):
            own[step] = strategy
        for player, values in enumerate(game.action_values(profile)):
            gains[player] += values - profile[player] @ values
        profile = [answer(player, own) for player, own in enumerate(gains)]
    return Trajectory(played)


def _check_steps(steps: int) -> None:
    if not isinstance(steps, int | np.integer) or isinstance(steps, bool) or steps < 1:
        raise GameError(f"steps: expected an integer of at least 1, got {steps!r}")
