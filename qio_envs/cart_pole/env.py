"""Cart and pole: push a cart so that the pole on it stays upright."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from qio_envs.api import Array, BatchedEnv, Limits, Relations, ScriptedPolicy, StepGraph, Transition
from qio_envs.api.kernels import Kernel
from qio_envs.api.policies import RandomPolicy
from qio_envs.cart_pole import kernels, viewer
from qio_envs.cart_pole.config import (
    COMPONENTS,
    MAX_ANGLE,
    MAX_INTERVENTION,
    MAX_POSITION,
    CartPoleConfig,
)
from qio_envs.cart_pole.model import step_graph
from qio_envs.cart_pole.policies import LQRPolicy
from qio_envs.cart_pole.state import CartPoleRules, CartPoleState


class CartPole(BatchedEnv[CartPoleConfig, CartPoleState]):
    """Pushes keep the pole on a cart upright (one agent, discrete actions).

    The task of Barto, Sutton and Anderson (1983) as Gymnasium's ``CartPole-v1`` has it, with its physics as settings:
    members of a family that differ in one of them share one policy network (`qio_envs.family`).

    **Dynamics**: a pole of mass m and length 2 l stands on a cart; both together have the mass M. With the force f,
    which is ``force`` to the right or to the left, and the angle h, 0 upright and positive clockwise,

    | acceleration | is |
    | --- | --- |
    | p, of both without the pole's reaction | (f + m l h'^2 sin h) / M |
    | of the angle | (g sin h - p cos h) / (l (4/3 - m cos(h)^2 / M)) |
    | of the cart | p - m l cos h (acceleration of the angle) / M |

    where l is ``pole_length`` (0.5 m: half the pole), m ``pole_mass`` (0.1 kg), M that and ``cart_mass`` (1 kg), g
    ``gravity`` (9.8 m/s^2). Steps are 0.02 s of the explicit Euler method: position and angle move with the velocities
    from before the step. There is no friction and no noise. Each of the four numbers starts uniform in [-0.05, 0.05).
    All this is float64.

    **Actions**: ``Discrete(2)``: 0 pushes to the left, 1 to the right.

    **Observations**: float32 ``[4]``, slices in ``config.observation_layout``: position (m), velocity (m/s), angle
    (rad), angular velocity (rad/s). The space has no bounds: how far the last step of an episode leads depends on the
    settings, and so the space is the same for all of them.

    **Rewards**: 1 for each step, that in which the episode terminates included.

    **Ends**: termination when the cart is more than 2.4 m from the middle or the pole leans by more than 12 degrees
    after a step; truncation after ``max_steps`` (500), unless the episode terminates in that very step.

    **Counterfactuals and interventions**: nothing is random after the reset, so that `counterfactual` is exact.
    `intervene` sets ``position`` (up to 2.4 m either way), ``angle`` (12 degrees), ``velocity`` (10 m/s) and
    ``angular_velocity`` (10 rad/s). `graph` has these, the action ``a`` and ``reward``, which has no cause.

    **State** for a critic: float32 ``[5]``, slices in ``config.state_layout``: the observation and the time left (1 at
    reset, 0 at the time limit).

    **Info** (``[E]``): ``team_return``, the score; ``steps`` so far; ``out``, 1 once the episode has terminated.

    **Scripted policies** (``scripted_policies``): ``random``; ``lqr``, an oracle: it pushes in the direction of the
    force of the linear-quadratic regulator for the true settings, a linear function of the state. It reaches the time
    limit in all scenarios and in all members of the families ``cart_pole_lengths`` and ``cart_pole_gravities``.

    **Against Gymnasium's**: from the same state the same actions lead to the same states up to rounding. The starts
    have the same distribution, not the same numbers. There, truncation is set beside termination in the last step.

    Version history: v0, first version.
    """

    id = "cart_pole_v0"
    render_fps = 50
    config_class = CartPoleConfig
    scripted_policies: Mapping[str, Callable[[Any], ScriptedPolicy]] = {
        "random": RandomPolicy,
        "lqr": LQRPolicy,
    }

    def __init__(self, config: CartPoleConfig, num_envs: int = 1) -> None:
        super().__init__(config, num_envs)
        self.possible_agents = ("agent_0",)
        self.action_space = gymnasium.spaces.Discrete(2)
        high = np.full(len(COMPONENTS), np.inf, np.float32)
        self.observation_space = gymnasium.spaces.Box(-high, high, dtype=np.float32)
        self.state_space = gymnasium.spaces.Box(
            np.append(-high, np.float32(0)), np.append(high, np.float32(1)), dtype=np.float32
        )
        self.intervention_spaces = {
            name: gymnasium.spaces.Box(-bound, bound, (), np.float32)
            for name, bound in zip(COMPONENTS, MAX_INTERVENTION, strict=True)
        }
        self._rules = CartPoleRules.of(config)
        self.arrays = CartPoleState.empty(self.num_envs)
        self._reset_kernel, self._step_kernel = Kernel(kernels.reset), Kernel(kernels.step)

    def state_limits(self) -> Limits:
        """Return what `set_state` takes, by array; see `CartPoleState`."""
        return CartPoleState.limits(self.config)

    def _state_relations(self, state: CartPoleState) -> Relations:
        return state.relations()

    def _reset(self, mask: Array) -> None:
        self._reset_kernel(mask, self.arrays)

    def _step(self, actions: Array) -> Transition:
        shape = (self.num_envs, 1)
        terminated, truncated = np.empty(shape, bool), np.empty(shape, bool)
        self._step_kernel(actions, self.arrays, self._rules, terminated, truncated)
        return Transition(np.ones(shape, np.float32), terminated, truncated)

    def _intervene(self, mask: Array, values: Array) -> None:
        for column, array in enumerate(self.arrays.components):
            np.copyto(array, values[:, column], where=mask[:, column])

    def variables(self) -> dict[str, Array]:
        """Return the components of the state by the names of `graph`, float32 ``[E]`` each."""
        parts = self.arrays.components
        return {name: part.astype(np.float32) for name, part in zip(COMPONENTS, parts, strict=True)}

    def graph(self) -> StepGraph:
        """Return the causal graph of one time step; see the class."""
        return step_graph()

    def observe(self, out: Array | None = None) -> Array:
        """Return position, velocity, angle and angular velocity, float32 ``[E, 1, 4]``.

        Raises:
            ValueError: ``out`` is not a C-contiguous float32 array of that shape.
        """
        out = self._observation_array(out)
        for column, part in enumerate(self.arrays.components):
            out[:, 0, column] = part
        return out

    def state(self) -> Array:
        """Return the observation and the time left, float32 ``[E, 5]``."""
        s = self.arrays
        left = 1 - s.step / self.config.max_steps
        return np.stack([*s.components, left], axis=1, dtype=np.float32, casting="same_kind")

    def info(self) -> dict[str, Array]:
        """Return the metrics of the episode so far, ``[E]``; see the class."""
        steps = np.maximum(self.arrays.step, 0)
        return {
            "team_return": steps.astype(np.float64),
            "steps": steps,
            "out": self.arrays.out.astype(np.float32),
        }

    def render(self, index: int = 0, mode: str = "rgb_array") -> Array | str:
        """Return a picture of environment ``index`` (uint8 ``[h, w, 3]``), or text for ``ansi``.

        Raises:
            ValueError: Another mode than ``rgb_array`` or ``ansi``.
        """
        if mode not in ("rgb_array", "ansi"):
            raise ValueError(f"mode: expected rgb_array or ansi, got {mode!r}")
        s = self.arrays
        steps = int(max(s.step[index], 0))
        scene = viewer.Scene(
            position=float(s.position[index]),
            angle=float(s.angle[index]),
            pole_length=self.config.pole_length,
            action=int(s.action[index]),
            max_position=MAX_POSITION,
            max_angle=MAX_ANGLE,
            score=float(steps),
            step=steps,
            max_steps=self.config.max_steps,
        )
        return viewer.draw_text(scene) if mode == "ansi" else viewer.draw(scene)
