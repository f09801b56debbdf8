"""Qubit control: gates are actions, fidelity with a target state is what they earn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from qio_envs.api import Array, BatchedEnv, Limits, Relations, ScriptedPolicy, Transition
from qio_envs.api.kernels import Kernel
from qio_envs.api.policies import RandomPolicy
from qio_envs.qubit_control import kernels, viewer
from qio_envs.qubit_control.config import QubitControlConfig
from qio_envs.qubit_control.gates import fixed_target, pauli_tables
from qio_envs.qubit_control.policies import SearchPolicy
from qio_envs.qubit_control.search import fewest_gates
from qio_envs.qubit_control.state import QubitControlRules, QubitControlState


class QubitControl(BatchedEnv[QubitControlConfig, QubitControlState]):
    """One agent steers qubits from |0...0> to a target state by its choice of gates (discrete actions).

    **Convention**: qubit 0 is the most significant bit of a basis state's index, as in PennyLane: |q0 q1 ...>.

    **Actions**: ``Discrete(len(config.gate_names))``, one gate each; the names say which: ``H(0)``, ``CNOT(0,1)``
    (control, target), ``RX(+pi/8,0)``. First the gates on qubit 0, then those on qubit 1, ..., then a CNOT for every
    ordered pair (with `published`, none). There is no idle action.

    | `gates` | on each qubit | actions for 1, 2, 3 qubits |
    | --- | --- | --- |
    | `clifford` | H, S, X, Z | 4, 10, 18 |
    | `clifford_t` | H, S, T | 3, 8, 15 |
    | `rotations` | exp(-i t P / 2) for P = X, Y, Z and t = +pi/8, -pi/8 | 6, 14, 24 |
    | `published` | H, X, and exp(-i t P / 2) for P = Y, Z and t = +pi/4; no CNOT | 4, 8, 12 |

    **Targets** (``target``): ``uniform``, all amplitudes equal; ``bell``, (|00> + |11>) / sqrt(2); ``ghz``,
    (|0...0> + |1...1>) / sqrt(2); ``circuit``, drawn at each reset: ``target_depth`` gates, each uniform over the
    actions, are applied to |0...0> (of up to 16 such circuits the first whose state is not within
    ``success_fidelity`` of |0...0>); ``haar``, drawn at each reset uniformly over all states.

    **Observations**: float32 in [-1, 1], the slices are in ``config.observation_layout``:

    | part | numbers | meaning |
    | --- | --- | --- |
    | `state_real`, `state_imag` | 2**n each | amplitudes of the state |
    | `target_real`, `target_imag` | 2**n each | those of the target, for `circuit` and `haar` only |
    | `time_left` | 1 | 1 at reset, 0 at the time limit |

    With ``observation: tomography`` there are instead, as ``state_paulis`` and ``target_paulis``, the expectations of
    the 4**n - 1 Pauli strings other than the identity (``config.pauli_names``). They do not depend on the global
    phase, which amplitudes show though it means nothing.

    **Rewards** (``reward``): with ``gain`` the change of fidelity that a gate brings, less ``gate_cost``; with
    ``fidelity`` the fidelity after the gate, less ``gate_cost``. ``gain`` is the default since its sum over an episode
    is the fidelity won less the cost of the gates, so that fewer gates are better. With ``fidelity`` paid in every
    step an agent earns more by lingering below the threshold until time runs out than by finishing.

    **Noise**: with ``gate_noise`` p, each qubit that a gate touches is hit after it with probability p by X, Y or Z,
    all equally likely: a trajectory of the depolarising channel (1 - p) rho + p/3 (X rho X + Y rho Y + Z rho Z).
    Which qubit a random number belongs to depends on the gate, so that with noise `counterfactual` is refused; without
    noise a step draws nothing.

    **Ends**: termination when the fidelity |<target|state>|^2 is ``success_fidelity`` or more (less 1e-9, for
    rounding) after a gate; truncation after ``max_steps``. A start that fulfils it does not end by itself.

    **State** for a critic: float32, slices in ``config.state_layout``: real and imaginary parts of the state's and
    the target's amplitudes, and the time left.

    **Info** (``[E]``): ``team_return``, the score; ``fidelity`` and the episode's ``best_fidelity``; ``gates`` and
    ``noise_events`` so far; ``success``, 0 or 1; ``steps_to_success``, gates after which the target was reached (-1
    until then); ``steps_to_success_optimal``, the fewest that do it without noise, for targets that are the same in
    every episode, by `optimal_gates` (-1 for the others, or where the search does not find it).

    **Scripted policies** (``scripted_policies``): ``random``; ``search``, an oracle that takes the fewest gates and
    plans again where noise leads it astray. It minimises gates, not ``reward: fidelity``.

    **Against the published original**: there, all gates act on the first qubit, so that the fidelity with the uniform
    target never passes 0.5; only the real parts of amplitudes are observed; and the fidelity itself is paid in every
    step. The scenario `published` has its gates H, X, RY(pi/4), RZ(pi/4), each on every qubit, its target, its 10 steps
    and its threshold of 0.95; all of the state is observed, and the reward is ``gain`` (``reward: fidelity`` gives the
    published one, in which lingering pays, so that the search is no upper reference).

    Version history: v0, first version.
    """

    id = "qubit_control_v0"
    render_fps = 3
    config_class = QubitControlConfig
    scripted_policies: Mapping[str, Callable[[Any], ScriptedPolicy]] = {
        "random": RandomPolicy,
        "search": SearchPolicy,
    }

    def __init__(self, config: QubitControlConfig, num_envs: int = 1) -> None:
        super().__init__(config, num_envs)
        self.possible_agents = ("agent_0",)
        self.action_space = gymnasium.spaces.Discrete(len(config.gate_names))
        self.observation_space = _box(config.observation_layout)
        self.state_space = _box(config.state_layout)
        if config.gate_noise > 0:
            self.action_dependent_draws = (
                "with gate_noise above 0 the gate decides which qubits its random numbers belong to"
            )
        self._target = fixed_target(config)
        self._fewest: int | None = None  # known once asked for
        self._rules = QubitControlRules.of(config)
        self._paulis = pauli_tables(config.num_qubits) if config.observation == "tomography" else None
        self.arrays = QubitControlState.empty(self.num_envs, config.num_qubits)
        self._reset_kernel, self._step_kernel = Kernel(kernels.reset), Kernel(kernels.step)

    def state_limits(self) -> Limits:
        """Return what `set_state` takes, by array; see `QubitControlState`."""
        return QubitControlState.limits(self.config)

    def _state_relations(self, state: QubitControlState) -> Relations:
        return state.relations(self.config)

    def _reset(self, mask: Array) -> None:
        if self._target is not None:
            self.arrays.target[mask] = self._target
        self._reset_kernel(mask, self.arrays, self._rules)

    def _step(self, actions: Array) -> Transition:
        shape = (self.num_envs, 1)
        transition = Transition(np.empty(shape, np.float32), np.empty(shape, bool), np.empty(shape, bool))
        self._step_kernel(actions, self.arrays, self._rules, *transition)
        return transition

    def observe(self, out: Array | None = None) -> Array:
        """Return the agent's observation, float32 ``[E, 1, D]``; see the class for its parts.

        Raises:
            ValueError: ``out`` is not a C-contiguous float32 array of that shape.
        """
        s, out = self.arrays, self._observation_array(out)
        rows = out[:, 0]
        states = (s.amplitude, s.target) if self.config.draws_target else (s.amplitude,)
        size = (rows.shape[1] - 1) // len(states)
        for index, state in enumerate(states):
            part = rows[:, index * size : (index + 1) * size]
            if self._paulis is None:
                kernels.write_amplitudes(state, part)
            else:
                kernels.write_paulis(state, *self._paulis, part)
        rows[:, -1] = self._time_left()
        return out

    def state(self) -> Array:
        """Return amplitudes of state and target and the time left, float32 ``[E, 4 * 2**num_qubits + 1]``."""
        s = self.arrays
        out = np.empty((self.num_envs, *self.state_space.shape), np.float32)
        half = 2 * s.target.shape[1]
        kernels.write_amplitudes(s.amplitude, out[:, :half])
        kernels.write_amplitudes(s.target, out[:, half:-1])
        out[:, -1] = self._time_left()
        return out

    def _time_left(self) -> Array:
        return 1 - self.arrays.step.astype(np.float32) / np.float32(self.config.max_steps)

    def info(self) -> dict[str, Array]:
        """Return the metrics of the episode so far, ``[E]``; see the class."""
        s = self.arrays
        if self._fewest is None:
            self._fewest = -1 if self._target is None else fewest_gates(self.config, self._target.tobytes())
        return {
            "team_return": s.returns.copy(),
            "fidelity": s.fidelity.copy(),
            "best_fidelity": s.best.copy(),
            "gates": np.maximum(s.step, 0),
            "noise_events": s.noise_events.copy(),
            "success": (s.reached > 0).astype(np.float32),
            "steps_to_success": s.reached.copy(),
            "steps_to_success_optimal": np.full(self.num_envs, self._fewest, np.int32),
        }

    def render(self, index: int = 0, mode: str = "rgb_array") -> Array | str:
        """Return a picture of environment ``index`` (uint8 ``[h, w, 3]``), or text for ``ansi``.

        Raises:
            ValueError: Another mode than ``rgb_array`` or ``ansi``.
        """
        if mode not in ("rgb_array", "ansi"):
            raise ValueError(f"mode: expected rgb_array or ansi, got {mode!r}")
        s, gate = self.arrays, int(self.arrays.last_gate[index])
        scene = viewer.Scene(
            state=s.amplitude[index],
            target=s.target[index],
            fidelity=float(s.fidelity[index]),
            best_fidelity=float(s.best[index]),
            success_fidelity=self.config.success_fidelity,
            last_gate=self.config.gate_names[gate] if gate >= 0 else "",
            noise_events=int(s.noise_events[index]) if self.config.gate_noise > 0 else None,
            step=int(max(s.step[index], 0)),
            max_steps=self.config.max_steps,
        )
        return viewer.draw_text(scene) if mode == "ansi" else viewer.draw(scene)


def _box(layout: dict[str, slice]) -> gymnasium.spaces.Box:
    """Return the space of numbers of -1 to 1, with the time left of 0 to 1 at the end."""
    low = np.full(layout["time_left"].stop, -1.0, np.float32)
    low[layout["time_left"]] = 0
    return gymnasium.spaces.Box(low, np.ones_like(low), dtype=np.float32)
