"""The best that two agents can do in the CHSH game without and with entanglement."""

from __future__ import annotations

import numpy as np

from qio_envs.api import Array, BatchedEnv
from qio_envs.chsh import kernels
from qio_envs.chsh.config import CHSHConfig
from qio_envs.chsh.state import CHSHState

CLASSICAL_BOUND = 0.75
"""Share of rounds that no strategy wins more of, be it deterministic or with shared random numbers."""
QUANTUM_BOUND = float(np.cos(np.pi / 8) ** 2)
"""Share of rounds, 0.853553, that no strategy with shared entanglement wins more of (Tsirelson, 1980)."""
_ALICE, _BOB = np.array([0, np.pi / 4]), np.array([np.pi / 8, -np.pi / 8])  # by question, radians


class ClassicalPolicy:
    """Both always answer 0: as good as any strategy without entanglement, 0.75 of the rounds are won.

    Args:
        env: The environment to act in.
    """

    def __init__(self, env: BatchedEnv[CHSHConfig, CHSHState]) -> None:
        self.env = env

    def act(self) -> Array:
        """Return the answers, int64 ``[E, 2]``, all 0."""
        return np.zeros((self.env.num_envs, 2), np.int64)


class EntangledPolicy:
    """Oracle: the answers of agents who measure a shared Bell pair; cos^2(pi/8) of the rounds are won.

    For each round there is a pair of qubits in the state (|00> + |11>) / sqrt(2), one with each agent. Each measures
    its own in the basis cos(t)|0> + sin(t)|1>, -sin(t)|0> + cos(t)|1> and answers with the outcome: Alice at the
    angle t = 0 or pi/4 for her question 0 or 1, Bob at pi/8 or -pi/8. Either answer alone is an even coin whatever
    the other was asked, so that nothing is communicated; the two are equal with probability cos^2(t_A - t_B), which
    is cos^2(pi/8) unless both questions are 1, and then sin^2(pi/8). The pair of answers is drawn from that joint
    distribution, a pure function of (seed, environment seed, episode, step).

    Args:
        env: The environment to act in.
        seed: Key of the policy's own random numbers, 0 to 2**64 - 1.
    """

    def __init__(self, env: BatchedEnv[CHSHConfig, CHSHState], seed: int = 0) -> None:
        self.env = env
        self.seed = np.uint64(seed)
        self._agree = np.cos(_ALICE[:, None] - _BOB) ** 2  # by question of Alice and of Bob

    def act(self) -> Array:
        """Return the answers, int64 ``[E, 2]``."""
        answers = np.empty((self.env.num_envs, 2), np.int64)
        kernels.entangled_answers(self.seed, self.env.arrays, self._agree, answers)
        return answers
