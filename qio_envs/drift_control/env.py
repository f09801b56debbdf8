"""Drift control: hold a state of four coupled components near the origin by two actions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from qio_envs.api import Array, BatchedEnv, Limits, Relations, ScriptedPolicy, StepGraph, Transition
from qio_envs.api.kernels import Kernel
from qio_envs.api.policies import RandomPolicy
from qio_envs.drift_control import kernels, viewer
from qio_envs.drift_control.config import COMPONENTS, DIRECTIONS, DriftControlConfig
from qio_envs.drift_control.model import step_graph
from qio_envs.drift_control.policies import CEMPolicy, LQGPolicy, LQRPolicy, ZeroPolicy
from qio_envs.drift_control.state import DriftControlRules, DriftControlState


class DriftControl(BatchedEnv[DriftControlConfig, DriftControlState]):
    """Two actions hold a drifting state near the origin (one agent, continuous or discrete actions).

    A task for world models and causal learning: the dynamics are small and known, so that what a model has learnt can
    be compared with the truth.

    **Dynamics**: the state s starts uniform in [-1, 1)^4. Each step, with the action `a` in [-1, 1]^2, independent
    standard normals `n` and `w`, and all s on the right from before the step,

    | component | after the step |
    | --- | --- |
    | `s0` | s0 + 0.1 a0 + 0.05 sin(s1) + p n0 |
    | `s1` | s1 + 0.1 a1 + 0.02 s0 s2 + p n1 |
    | `s2` | 0.9 s2 + 0.1 tanh(a0 + a1) + p n2 |
    | `s3` | 0.95 s3 + 0.1 d w + p n3 |

    where p is ``process_noise`` (0.02) and d is ``drive_noise`` (0.1). No action reaches s3. All this is float32.

    **Actions**: ``Box(-1, 1, (2,))``; numbers outside are clipped (and counted, see ``clipped_actions``). With
    ``actions: discrete``, ``Discrete(9)``: action i is a = (i // 3 - 1, i % 3 - 1), so 4 is to do nothing.

    **Observations**: float32; the slices are in ``config.observation_layout``. The space's bounds are what can occur
    at all.

    | part | numbers | meaning |
    | --- | --- | --- |
    | `components` | 4, less those hidden | s0 to s3 without those in ``hidden``, exact |
    | `distractors` | ``distractors`` | see below |

    **Rewards**: -|s|^2 - ``action_cost`` |a|^2, with s after the step and a as executed, after clipping; the action
    cost is 0.01. So the step in which an episode terminates is paid in full, and the start's own |s|^2 is not.

    **Ends**: termination when the Euclidean norm |s| of all four components is more than ``out_radius`` after a step;
    truncation after ``max_steps``. Rewards are negative, so that a bad policy gains by leaving early: compare lengths
    (``steps``) beside returns.

    **Distractors** are numbers on which neither the state nor the reward depends. Distractor i follows c = s0 (i
    even) or c = s1 (i odd): after a step it is 0.5 d + 0.5 c + q m, where d is the distractor before the step, c the
    component after it, q ``distractor_noise`` (0.05) and m a standard normal of its own; at reset it is c + q m. In
    random play its correlation with c is above 0.99, so that a dense model, which predicts from all that it sees, is
    apt to use it. With ``sensor_shift`` distractors are noise instead: independent normals in each step, with
    standard deviations of 1.4 (i even) and 0.6 (i odd), the root mean squares of s0 and s1 in random play. A model
    that predicts from the true causes alone is not affected.

    **Hidden components**: those in ``hidden`` are not observed; they act as before. In the scenario `hidden` these
    are s1 and s2. The action a1 moves s1, which shows only in how s0 changes from step to step, by 0.05 sin(s1)
    beside noise of 0.02, so that an agent has to remember. The best linear feedback from s0 and s3 alone that a
    random search found costs about 18 an episode, ``lqg``, which filters what it observes, 12.6, and ``lqr``, which
    sees the true state, 9.6. Other choices are worse tests of memory: s2 and s3 hardly matter to control, and without
    s0 the filter fails as well. Distractors follow hidden components too, and so tell of them.

    **Counterfactuals and interventions**: no random number depends on an action or a state, so that `counterfactual`
    is exact. `intervene` sets s0 to s3 to numbers of magnitude up to ``out_radius`` / sqrt(2) (2.12), from which no
    step leads out of the spaces, and distractors ``d0``, ``d1``, ... within theirs; |s| may exceed ``out_radius``
    then, and the episode ends only if it does after the next step. `graph` has the table above as edges, with ``a0``
    and ``a1`` as actions or ``a`` where they are discrete; a distractor's causes are itself and the component after
    the step, with ``sensor_shift`` none.

    **State** for a critic: float32 ``[5]``, slices in ``config.state_layout``: s0 to s3, hidden ones included, and
    the time left (1 at reset, 0 at the time limit). Distractors are left out: nothing depends on them.

    **Info** (``[E]``): ``team_return``, the score; ``cost``, minus that; ``steps`` so far; ``distance``, |s| now, and
    ``mean_distance``, its mean over the steps so far; ``out``, 1 once the episode has terminated; ``clipped_actions``
    so far.

    **Scripted policies** (``scripted_policies``): ``random``; ``zero``, which does nothing; ``lqr``, the
    linear-quadratic regulator of the linearisation at the origin, with clipped actions, from the true state; ``lqg``,
    the same from what an extended Kalman filter with the true model makes of the observations; ``cem``, an oracle that
    plans on the true model without noise, from the true state. Over 20,000 episodes random play scores -307.6 +- 1.0
    (73 % end early), ``zero`` -325.3 +- 1.1 and ``lqr`` -9.62 +- 0.03 (standard errors); ``cem`` costs about 0.89 times
    what ``lqr`` costs. On the scale from random play to the oracle all good policies are close to 1: to compare them,
    divide costs by the regulator's on the same seeds.

    **Against the published original**: there, the mean dynamics, the reward and the ends are these. ``hidden``,
    distractors and discrete actions are additions.

    Version history: v0, first version.
    """

    id = "drift_control_v0"
    render_fps = 20
    config_class = DriftControlConfig
    scripted_policies: Mapping[str, Callable[[Any], ScriptedPolicy]] = {
        "random": RandomPolicy,
        "zero": ZeroPolicy,
        "lqg": LQGPolicy,
        "lqr": LQRPolicy,
        "cem": CEMPolicy,
    }

    def __init__(self, config: DriftControlConfig, num_envs: int = 1) -> None:
        super().__init__(config, num_envs)
        self.possible_agents = ("agent_0",)
        self._discrete = config.actions == "discrete"
        self.action_space = (
            gymnasium.spaces.Discrete(len(DIRECTIONS))
            if self._discrete
            else gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        )
        bounds = np.array(config.max_components, np.float32)
        seen = [*bounds[list(config.visible)], *[config.max_distractor] * config.distractors]
        high = np.array(seen, np.float32)
        self.observation_space = gymnasium.spaces.Box(-high, high, dtype=np.float32)
        low, high = np.append(-bounds, np.float32(0)), np.append(bounds, np.float32(1))
        self.state_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        reach = [config.max_intervention] * COMPONENTS + [config.max_distractor] * config.distractors
        self.intervention_spaces = {
            name: gymnasium.spaces.Box(-bound, bound, (), np.float32)
            for name, bound in zip(config.component_names + config.distractor_names, reach, strict=True)
        }
        self._rules = DriftControlRules.of(config)
        self.arrays = DriftControlState.empty(self.num_envs, config.distractors)
        self._reset_kernel, self._step_kernel = Kernel(kernels.reset), Kernel(kernels.step)
        self._observe_kernel = Kernel(kernels.observe)

    def state_limits(self) -> Limits:
        """Return what `set_state` takes, by array; see `DriftControlState`."""
        return DriftControlState.limits(self.config)

    def _state_relations(self, state: DriftControlState) -> Relations:
        return state.relations(self.config)

    def _reset(self, mask: Array) -> None:
        self._reset_kernel(mask, self.arrays, self._rules)

    def _step(self, actions: Array) -> Transition:
        shape = (self.num_envs, 1)
        transition = Transition(np.empty(shape, np.float32), np.empty(shape, bool), np.empty(shape, bool))
        numbers = DIRECTIONS[actions] if self._discrete else actions
        self._step_kernel(numbers, self.arrays, self._rules, *transition)
        return transition

    def _intervene(self, mask: Array, values: Array) -> None:
        np.copyto(self.arrays.components, values[:, :COMPONENTS], where=mask[:, :COMPONENTS])
        np.copyto(self.arrays.distractors, values[:, COMPONENTS:], where=mask[:, COMPONENTS:])

    def variables(self) -> dict[str, Array]:
        """Return the components of the state by the names of `graph`, float32 ``[E]`` each."""
        values = np.concatenate([self.arrays.components, self.arrays.distractors], axis=1)
        return dict(zip(self.config.component_names + self.config.distractor_names, values.T, strict=True))

    def graph(self) -> StepGraph:
        """Return the causal graph of one time step with the present settings; see the class."""
        return step_graph(self.config)

    def observe(self, out: Array | None = None) -> Array:
        """Return the agent's observation, float32 ``[E, 1, D]``; see the class for its parts.

        Raises:
            ValueError: ``out`` is not a C-contiguous float32 array of that shape.
        """
        out = self._observation_array(out)
        self._observe_kernel(self.arrays, self._rules, out)
        return out

    def state(self) -> Array:
        """Return the four components, hidden ones included, and the time left, float32 ``[E, 5]``."""
        s = self.arrays
        left = 1 - s.step.astype(np.float32) / np.float32(self.config.max_steps)
        return np.concatenate([s.components, left[:, None]], axis=1)

    def info(self) -> dict[str, Array]:
        """Return the metrics of the episode so far, ``[E]``; see the class."""
        s = self.arrays
        steps = np.maximum(s.step, 0)
        return {
            "team_return": s.returns.copy(),
            "cost": -s.returns,
            "steps": steps,
            "distance": np.sqrt(np.square(s.components, dtype=np.float32).sum(axis=1)),
            "mean_distance": s.travel / np.maximum(steps, 1),
            "out": s.out.astype(np.float32),
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
            components=s.components[index],
            hidden=self.config.hidden,
            action=s.action[index],
            distractors=s.distractors[index],
            out_radius=self.config.out_radius,
            score=float(s.returns[index]),
            step=int(max(s.step[index], 0)),
            max_steps=self.config.max_steps,
        )
        return viewer.draw_text(scene) if mode == "ansi" else viewer.draw(scene)
