"""Confounded control: hold a number near 0, where logged behaviour saw what no record shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from qio_envs.api import Array, BatchedEnv, Limits, ScriptedPolicy, StepGraph, Transition
from qio_envs.api.kernels import Kernel
from qio_envs.api.policies import RandomPolicy
from qio_envs.confounded_control import kernels, viewer
from qio_envs.confounded_control.config import ACTION_LIMIT, STATE_LIMIT, ConfoundedControlConfig
from qio_envs.confounded_control.model import step_graph
from qio_envs.confounded_control.policies import BehaviourPolicy, LQRPolicy, NaiveLQRPolicy, ZeroPolicy
from qio_envs.confounded_control.state import ConfoundedControlRules, ConfoundedControlState


class ConfoundedControl(BatchedEnv[ConfoundedControlConfig, ConfoundedControlState]):
    """An action holds a number near 0; what logs say of its effect is wrong (one agent, continuous actions).

    A task for offline causal estimation: the behaviour in the log saw a variable that the log hides from a learner, so
    that a regression finds the wrong sign of the action's effect and a controller made of it drives the state away.

    **Dynamics**: s starts standard normal. Each step, with independent standard normals n, and s and u from before the
    step,

    | variable | after the step |
    | --- | --- |
    | mediator `m` | a + ``mediator_noise`` n1 (0.3) |
    | state `s` | s + 0.5 m + u + ``process_noise`` n2 (0.1), clipped to [-10, 10] |
    | hidden `u` | ``confounding`` n3 (0.5): new in each step |

    All this is float32. So the effect of the action on the state is 0.5, and all of it passes through the mediator.

    **Actions**: ``Box(-2, 2, (1,))``; numbers outside are clipped (and counted, see ``clipped_actions``).

    **Observations**: float32 ``[2]``: s, and m of the last step (0 at reset). u is never observed. The space's bounds
    are what can occur at all.

    **Rewards**: -s^2 - ``action_cost`` a^2, with s from before the step and a after clipping; the action cost is 0.1.

    **Ends**: truncation after ``max_steps``; never termination.

    **State** for a critic: float32 ``[4]``: s, m, u of the step to come, and the time left.

    **Info** (``[E]``): ``team_return``, the score; ``cost``, minus that; ``steps`` so far; ``distance``, the magnitude
    of s now; ``clipped_actions`` so far.

    **Logged data**: `logged` gives transitions of a behaviour that saw u, a = -0.3 s - u + z + n, with normal z (0.3)
    and n (0.1), as columns s, a, m, z, u, s_next and reward, and `logged_graph` the graph of their variables. A
    regression of s_next on s and a finds -0.21 for the effect of 0.5 (`naive_effect`). It can be identified in three
    ways: regression on s, a and u, if u is at hand (back-door); through m, which u does not act on (front-door); with z
    as an instrument, given s. From 500,000 transitions these give 0.500, 0.500 and 0.496. `LQRPolicy` makes a
    controller of any such estimate.

    **Counterfactuals and interventions**: no random number depends on an action, so that `counterfactual` is exact.
    `intervene` sets ``s``, ``u`` of the step to come, and ``m'``, the mediator of the step to come. `graph` has these,
    the action ``a`` and ``reward``; z is the behaviour's own and no part of it.

    **Scripted policies** (``scripted_policies``): ``random``; ``zero``, which does nothing; ``naive_lqr``, the
    regulator for the effect that the naive regression finds; ``behaviour``, which sees u; ``lqr``, the regulator for
    the true effect, an oracle among linear policies that do not see u. Over 20,000 episodes they score -741.9 +- 5.0,
    -395.8 +- 3.1, -4308.4 +- 1.3, -25.7 +- 0.1 and -19.53 +- 0.03 (standard errors).

    Version history: v0, first version.
    """

    id = "confounded_control_v0"
    config_class = ConfoundedControlConfig
    scripted_policies: Mapping[str, Callable[[Any], ScriptedPolicy]] = {
        "random": RandomPolicy,
        "zero": ZeroPolicy,
        "naive_lqr": NaiveLQRPolicy,
        "behaviour": BehaviourPolicy,
        "lqr": LQRPolicy,
    }

    def __init__(self, config: ConfoundedControlConfig, num_envs: int = 1) -> None:
        super().__init__(config, num_envs)
        self.possible_agents = ("agent_0",)
        self.action_space = gymnasium.spaces.Box(-ACTION_LIMIT, ACTION_LIMIT, (1,), np.float32)
        bounds = [STATE_LIMIT, config.max_mediator, config.max_confounder]
        high = np.array(bounds, np.float32)
        self.observation_space = gymnasium.spaces.Box(-high[:2], high[:2], dtype=np.float32)
        self.state_space = gymnasium.spaces.Box(
            np.append(-high, np.float32(0)), np.append(high, np.float32(1)), dtype=np.float32
        )
        self.intervention_spaces = {
            name: gymnasium.spaces.Box(-bound, bound, (), np.float32)
            for name, bound in zip(("s", "m'", "u"), bounds, strict=True)
        }
        self._rules = ConfoundedControlRules.of(config)
        self.arrays = ConfoundedControlState.empty(self.num_envs)
        self._reset_kernel, self._step_kernel = Kernel(kernels.reset), Kernel(kernels.step)

    def state_limits(self) -> Limits:
        """Return what `set_state` takes, by array; see `ConfoundedControlState`."""
        return ConfoundedControlState.limits(self.config)

    def _reset(self, mask: Array) -> None:
        self._reset_kernel(mask, self.arrays, self._rules)

    def _step(self, actions: Array) -> Transition:
        shape = (self.num_envs, 1)
        rewards, truncated = np.empty(shape, np.float32), np.empty(shape, bool)
        self._step_kernel(actions, self.arrays, self._rules, rewards, truncated)
        return Transition(rewards, np.zeros(shape, bool), truncated)

    def _intervene(self, mask: Array, values: Array) -> None:
        s = self.arrays
        for column, array in enumerate((s.s, s.fixed_mediator, s.u)):
            np.copyto(array, values[:, column], where=mask[:, column])
        s.fixed[:] |= mask[:, 1]

    def variables(self) -> dict[str, Array]:
        """Return the components of the state by the names of `graph`, float32 ``[E]`` each."""
        s = self.arrays
        return {"s": s.s.copy(), "m": s.mediator.copy(), "u": s.u.copy()}

    def graph(self) -> StepGraph:
        """Return the causal graph of one time step with the present settings; see the class."""
        return step_graph(self.config)

    def observe(self, out: Array | None = None) -> Array:
        """Return s and the mediator of the last step, float32 ``[E, 1, 2]``.

        Raises:
            ValueError: ``out`` is not a C-contiguous float32 array of that shape.
        """
        out = self._observation_array(out)
        out[:, 0, 0], out[:, 0, 1] = self.arrays.s, self.arrays.mediator
        return out

    def state(self) -> Array:
        """Return s, the last mediator, u of the step to come and the time left, float32 ``[E, 4]``."""
        s = self.arrays
        left = 1 - s.step.astype(np.float32) / np.float32(self.config.max_steps)
        return np.stack([s.s, s.mediator, s.u, left], axis=1)

    def info(self) -> dict[str, Array]:
        """Return the metrics of the episode so far, ``[E]``; see the class."""
        s = self.arrays
        return {
            "team_return": s.returns.copy(),
            "cost": -s.returns,
            "steps": np.maximum(s.step, 0),
            "distance": np.abs(s.s),
            "clipped_actions": s.clipped.copy(),
        }

    def render(self, index: int = 0, mode: str = "rgb_array") -> Array | str:
        """Return a picture of environment ``index`` (uint8 ``[h, w, 3]``), or text for ``ansi``.

        Raises:
            ValueError: Another mode than ``rgb_array`` or ``ansi``.
        """
        if mode not in ("rgb_array", "ansi"):
            raise ValueError(f"mode: expected rgb_array or ansi, got {mode!r}")
        s = self.arrays
        scene = viewer.Scene(
            s=float(s.s[index]),
            action=float(s.action[index]),
            mediator=float(s.mediator[index]),
            u=float(s.u[index]),
            score=float(s.returns[index]),
            step=int(max(s.step[index], 0)),
            max_steps=self.config.max_steps,
            limit=STATE_LIMIT,
        )
        return viewer.draw_text(scene) if mode == "ansi" else viewer.draw(scene)
