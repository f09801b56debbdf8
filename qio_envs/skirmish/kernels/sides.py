"""The two sides: what an action means to each."""

from __future__ import annotations

from numba import njit

from qio_envs.api import Array
from qio_envs.skirmish.config import FIRST_ATTACK, STOP


@njit(cache=True, forceinline=True)
def mirrored(action: int) -> int:
    """Return a move as somebody sees it who looks at the battle from the other side: left and right are swapped."""
    return 4 - action if action == 1 or action == 3 else action


@njit(cache=True, forceinline=True)
def attacked(action: int, unit: int, allies: int, backwards: bool) -> int:
    """Return the unit that an attack is aimed at.

    Args:
        action: `FIRST_ATTACK` and more.
        unit: Who attacks, a number among all units.
        allies: Their number.
        backwards: Whether enemies count allies from the last on, as SMAX's heuristic does.
    """
    k = action - FIRST_ATTACK
    if unit < allies:
        return k + allies
    return allies - 1 - k if backwards else k


@njit(cache=True)
def split(choices: Array, actions: Array, orders: Array) -> None:
    """Split the actions of agents of two sides, each seen from its own side, into what the fight takes.

    Args:
        choices: Int64 ``[E, N + M]``. An attack on somebody whom the other side does not have is a stop.
        actions: Of the allies, int64 ``[E, N]``, are written.
        orders: Of the enemies, int64 ``[E, M]``, are written, with moves as allies see them.
    """
    allies, enemies = actions.shape[1], orders.shape[1]
    for e in range(choices.shape[0]):
        for n in range(allies):
            chosen = choices[e, n]
            actions[e, n] = chosen if chosen < FIRST_ATTACK + enemies else STOP
        for m in range(enemies):
            chosen = mirrored(choices[e, allies + m])
            orders[e, m] = chosen if chosen < FIRST_ATTACK + allies else STOP
