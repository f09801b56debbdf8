"""Search: the upper reference point between which and random play a score is normalised."""

from __future__ import annotations

import functools

import numpy as np

from qio_envs.api import Array, BatchedEnv
from qio_envs.qubit_control import kernels
from qio_envs.qubit_control.config import QubitControlConfig
from qio_envs.qubit_control.gates import GateSet
from qio_envs.qubit_control.search import search
from qio_envs.qubit_control.state import QubitControlState

_MAX_STATES = 20_000  # visited breadth first
_SAME = 1 - 1e-9  # fidelity from which two states are one


class SearchPolicy:
    """Oracle: the fewest gates to the target, by search from the true state as if there were no noise.

    The search is breadth first over the states that the gates reach (equal up to a global phase: one state), up to
    the time limit. Where more than 20,000 states would be visited it goes on with the 500 of each level that are
    nearest the target, and is a bound no more. Where the target is not found, it leads to the state of the highest
    fidelity found, and from there the search starts anew. It also starts anew where noise has led off the plan.

    Args:
        env: The environment to act in.
    """

    def __init__(self, env: BatchedEnv[QubitControlConfig, QubitControlState]) -> None:
        self.env = env
        self._gates = GateSet.of(env.config)
        self._plans: list[tuple[int, ...]] = [()] * env.num_envs
        self._expected = np.zeros_like(env.arrays.amplitude)  # [E, D], the states that the plans lead through
        self._aims = np.zeros_like(env.arrays.target)  # [E, D], the targets that the plans were made for

    def act(self) -> Array:
        """Return the next gates, int64 ``[E, 1]``."""
        s, config = self.env.arrays, self.env.config
        actions = np.zeros((self.env.num_envs, 1), np.int64)
        for e in np.flatnonzero(s.running):
            state, target = s.amplitude[e], s.target[e]
            on_plan = kernels.overlap(self._expected[e], state) >= _SAME and (self._aims[e] == target).all()
            if not (self._plans[e] and on_plan and s.step[e] > 0):
                left = config.max_steps - int(s.step[e])
                self._plans[e] = _plan(config, state.tobytes(), target.tobytes(), left)
                self._aims[e] = target
            gate, *rest = self._plans[e]
            self._plans[e] = tuple(rest)
            self._expected[e] = state
            kernels.apply(
                self._gates.matrix[gate],
                self._gates.qubit[gate],
                self._gates.control[gate],
                self._expected[e],
            )
            actions[e] = gate
        return actions


@functools.lru_cache(maxsize=4096)
def _plan(config: QubitControlConfig, state: bytes, target: bytes, max_gates: int) -> tuple[int, ...]:
    """Return a plan for the bytes of two states; environments with a common target ask for the same ones."""
    start, aim = (np.frombuffer(data, np.complex128) for data in (state, target))
    return search(config, start, aim, max_gates, _MAX_STATES, beam=True).gates
