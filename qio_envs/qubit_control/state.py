"""What the kernels of qubit control work on: state and rules as named tuples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qio_envs.api import Array, Limits, Relations, clock_limits
from qio_envs.qubit_control.config import QubitControlConfig
from qio_envs.qubit_control.gates import GateSet, fixed_target

FIXED_TARGET, CIRCUIT_TARGET, HAAR_TARGET = 0, 1, 2  # kinds of target
TOLERANCE = 1e-9
"""By how much the fidelity may miss `success_fidelity`, for rounding."""
NORM_TOLERANCE = 1e-6
"""By how much the norms and the fidelity of a state that is set may be wrong; a million gates stay far below it."""


class QubitControlState(NamedTuple):
    """Arrays of qubit control; ``D`` is ``2**num_qubits``."""

    seed: Array  # uint64 [E], key of the random numbers
    episode: Array  # uint32 [E], episodes since the seed was given
    step: Array  # int32 [E], steps since the reset; -1 before the first
    running: Array  # bool [E], reset and not ended
    amplitude: Array  # complex128 [E, D], the state
    target: Array  # complex128 [E, D]
    fidelity: Array  # float64 [E], of state and target
    best: Array  # float64 [E], highest fidelity of the episode, the start included
    reached: Array  # int32 [E], gates after which the target was reached; -1 until then
    noise_events: Array  # int32 [E], Pauli errors of the episode
    last_gate: Array  # int32 [E], last action; -1 at reset
    returns: Array  # float64 [E], of the episode so far

    @classmethod
    def empty(cls, num_envs: int, num_qubits: int) -> QubitControlState:
        """Return the state of environments that were never reset."""
        size = 2**num_qubits
        return cls(
            seed=np.zeros(num_envs, np.uint64),
            episode=np.zeros(num_envs, np.uint32),
            step=np.full(num_envs, -1, np.int32),
            running=np.zeros(num_envs, bool),
            amplitude=np.zeros((num_envs, size), np.complex128),
            target=np.zeros((num_envs, size), np.complex128),
            fidelity=np.zeros(num_envs),
            best=np.zeros(num_envs),
            reached=np.full(num_envs, -1, np.int32),
            noise_events=np.zeros(num_envs, np.int32),
            last_gate=np.full(num_envs, -1, np.int32),
            returns=np.zeros(num_envs),
        )

    @classmethod
    def limits(cls, config: QubitControlConfig) -> Limits:
        """Return what each array may hold; see `BatchedEnv.state_limits`."""
        steps, part = config.max_steps, 1 + NORM_TOLERANCE
        earned = steps * (1 + config.gate_cost)
        return clock_limits(steps) | {
            "amplitude": (-part, part),
            "target": (-part, part),
            "fidelity": (0, 1),
            "best": (0, 1),
            "reached": (-1, steps),
            "noise_events": (0, 2 * steps),
            "last_gate": (-1, len(config.gate_names) - 1),
            "returns": (-earned, earned),
        }

    def relations(self, config: QubitControlConfig) -> Relations:
        """Return what must hold between the arrays; see `qio_envs.api.limits`."""
        for name in ("amplitude", "target"):
            norm = np.linalg.norm(getattr(self, name), axis=1)
            yield name, np.abs(norm - 1) <= NORM_TOLERANCE, f"a norm of 1 within {NORM_TOLERANCE:g}"
        fixed = fixed_target(config)
        if fixed is not None:
            same = (np.abs(self.target - fixed) <= NORM_TOLERANCE).all(axis=1)
            yield "target", same, f"the state of target: {config.target}"
        fidelity = np.abs((self.target.conj() * self.amplitude).sum(axis=1)) ** 2
        right = np.abs(self.fidelity - fidelity) <= 4 * NORM_TOLERANCE
        yield "fidelity", right, "that of amplitude and target"
        yield "best", self.best >= self.fidelity, "at least the fidelity"
        yield "reached", self.reached <= self.step, "no step that is still to come"


class QubitControlRules(NamedTuple):
    """What of a configuration the kernels need, in their types."""

    max_steps: int
    kind: int  # of target: FIXED_TARGET, CIRCUIT_TARGET or HAAR_TARGET
    depth: int  # gates that make the target, with CIRCUIT_TARGET
    success: float  # fidelity at which an episode ends, less TOLERANCE
    noise: float  # probability that a Pauli follows a gate, for each qubit
    cost: float  # of a gate
    gain: bool  # whether the change of fidelity is paid, not the fidelity
    gates: GateSet

    @classmethod
    def of(cls, config: QubitControlConfig) -> QubitControlRules:
        """Return the rules of a configuration."""
        return cls(
            max_steps=config.max_steps,
            kind={"circuit": CIRCUIT_TARGET, "haar": HAAR_TARGET}.get(config.target, FIXED_TARGET),
            depth=config.target_depth,
            success=config.success_fidelity - TOLERANCE,
            noise=config.gate_noise,
            cost=config.gate_cost,
            gain=config.reward == "gain",
            gates=GateSet.of(config),
        )
