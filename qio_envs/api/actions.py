"""What actions a batch of environments takes, checked in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gymnasium
import numpy as np
from numba import njit

from qio_envs.api.errors import InvalidActionError
from qio_envs.api.kernels import Kernel


@njit(cache=True)
def _all_below(running: np.ndarray, actions: np.ndarray, count: int) -> bool:
    """Return whether all environments run and all actions lie in 0 .. count - 1."""
    fits = True
    for e in range(running.shape[0]):
        fits &= running[e]
    flat = actions.reshape(-1)
    for k in range(flat.shape[0]):
        fits &= (flat[k] >= 0) & (flat[k] < count)
    return fits


@njit(cache=True)
def _all_finite(running: np.ndarray, actions: np.ndarray, count: int) -> bool:
    """Return whether all environments run and all actions are finite (``count`` is not used)."""
    fits = True
    for e in range(running.shape[0]):
        fits &= running[e]
    flat = actions.reshape(-1)
    for k in range(flat.shape[0]):
        fits &= np.isfinite(flat[k])
    return fits


class ActionCheck:
    """Checks the actions of all agents of a batch.

    Args:
        space: One agent's action space.
        num_agents: Agents ``N`` of an environment.
    """

    def __init__(self, space: gymnasium.spaces.Discrete | gymnasium.spaces.Box, num_agents: int) -> None:
        self.shape: tuple[int, ...] = (num_agents, *(space.shape or ()))
        """Shape of the actions of one environment."""
        self._discrete = isinstance(space, gymnasium.spaces.Discrete)
        self._count = int(space.n) if isinstance(space, gymnasium.spaces.Discrete) else 0
        self._dtype = np.dtype(np.int64) if self._discrete else np.dtype(space.dtype)
        self._fits = Kernel(_all_below if self._discrete else _all_finite)

    def passes(self, actions: object, running: np.ndarray) -> bool:
        """Return whether all environments run and ``actions`` can be taken as they are.

        If not, there may be an error, or something to convert: `checked` says which.
        """
        return (
            type(actions) is np.ndarray
            and actions.dtype == self._dtype
            and actions.shape == (running.shape[0], *self.shape)
            and actions.flags.c_contiguous
            and self._fits(running, actions, self._count)
        )

    def checked(
        self, actions: object, num_envs: int, alive: Callable[[], np.ndarray], names: Sequence[str]
    ) -> np.ndarray:
        """Return ``actions`` C-contiguous, as int64 or as floats of the space's dtype.

        Discrete actions are in range, continuous ones finite; rows of agents that have ended are 0 where they are not.

        Args:
            actions: Numbers ``[E, N, ...]``.
            num_envs: Environments ``E``.
            alive: Gives which agents go on, bool ``[E, N]``.
            names: The agents' names.

        Raises:
            InvalidActionError: They do not fit.
        """
        values, expected = np.asarray(actions), (num_envs, *self.shape)
        if values.shape != expected:
            raise InvalidActionError(f"actions: expected shape {expected}, got {values.shape}")
        if self._discrete:
            allowed = f"an integer from 0 to {self._count - 1}"
            if values.dtype.kind not in "iu":
                raise InvalidActionError(f"actions: expected {allowed} each, got dtype {values.dtype}")
            result = np.ascontiguousarray(values, np.int64)
            fits = (values >= 0) & (values < self._count)
        else:
            allowed = "finite numbers"
            if values.dtype.kind not in "iuf":
                raise InvalidActionError(f"actions: expected {allowed}, got dtype {values.dtype}")
            with np.errstate(over="ignore"):
                result = np.ascontiguousarray(values, self._dtype)
            fits = np.logical_and.reduce(np.isfinite(result), axis=tuple(range(2, values.ndim)))
        if fits.all():
            return result
        refused = alive() & ~fits
        if refused.any():
            row, column = (int(index) for index in np.argwhere(refused)[0])
            raise InvalidActionError(
                f"action of {names[column]} in env {row}: expected {allowed}, got {values[row, column]}"
            )
        result = result.copy()
        result[~fits] = 0
        return result
