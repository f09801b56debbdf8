"""The causal chain: three variables, two actions, every causal quantity known in closed form."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from qio_envs.api import Array, BatchedEnv, Limits, ScriptedPolicy, StepGraph, Transition
from qio_envs.api.kernels import Kernel
from qio_envs.api.policies import RandomPolicy
from qio_envs.causal_chain import kernels, viewer
from qio_envs.causal_chain.config import CausalChainConfig
from qio_envs.causal_chain.model import step_graph
from qio_envs.causal_chain.policies import ConstantPolicy
from qio_envs.causal_chain.state import CausalChainState


class CausalChain(BatchedEnv[CausalChainConfig, CausalChainState]):
    """Three variables and two actions of which one has no effect (one agent, continuous actions).

    A ground truth for causal learning: a linear model with normal noises, for which effects, counterfactuals and the
    variances of gradient estimators are known in closed form.

    **Rounds**: each step is a round of its own. With independent standard normals n1, n2, n3 and the action a,

    | variable | of a round |
    | --- | --- |
    | `x1` | 0.5 n1 |
    | `x2` | 0.7 x1 + 0.5 a0 + 0.3 n2 |
    | `x3` | 0.8 x2 + 0.3 x1 + 0.4 n3 |

    The agent sees x1 before it acts; x2 and x3 follow from the action. All this is float32.

    **Actions**: ``Box(-1, 1, (2,))``, a0 and a1; numbers outside are clipped (and counted, see ``clipped_actions``).
    a1 has no effect on anything.

    **Observations**: float32 ``[3]``: x1 of the round to come, x2 and x3 of the last round (0 before the first). The
    space's bounds are what can occur at all.

    **Rewards**: x3 of the round.

    **Ends**: truncation after ``rounds`` steps; never termination.

    **State** for a critic: float32 ``[4]``: the observation, and the share of rounds left.

    **Info** (``[E]``): ``team_return``, the score: the sum of x3; ``rounds`` played so far; ``mean_x3``, the ratio of
    the two (0 before the first round); ``clipped_actions`` so far.

    **Known quantities**: the effect of a0 on x3 is 0.8 x 0.5 = 0.4, that of a1 is 0, that of x2 is 0.8. With uniform
    actions the regression of x3 on x2 alone has the slope 0.977, since x1 causes both. Had the action been a', x3 would
    have been x3 + 0.4 (a0' - a0), see `counterfactual_x3`. For the policy gradient with a0 normal around m with
    standard deviation s, the variance of (a0 - m) / s^2 times (x3 less its mean given x1) is 0.32 + 0.2176 / s^2; with
    the mean over a' of the same round's counterfactual x3 subtracted instead it is 0.32.

    **Counterfactuals and interventions**: no random number depends on an action, so that `counterfactual` is exact.
    `intervene` sets ``x1`` of the round to come, and ``x2'`` and ``x3'``, what the round's equations would give.
    `graph` has x1, the actions, ``x2'``, ``x3'`` and ``reward``; x2 and x3 of the last round cause nothing. `logged`
    gives data, observational and interventional, and `round_graph` the graph of their columns.

    **Scripted policies** (``scripted_policies``): ``random``; ``zero``, which does nothing; ``optimal``, an oracle with
    a0 = 1. A round is worth 0, 0 and 0.4 on average; over 2,000,000 rounds they score 0.0005, 0.0005 and 0.4005 a
    round (standard errors 0.0005).

    Version history: v0, first version.
    """

    id = "causal_chain_v0"
    render_fps = 2
    config_class = CausalChainConfig
    scripted_policies: Mapping[str, Callable[[Any], ScriptedPolicy]] = {
        "random": RandomPolicy,
        "zero": ConstantPolicy,
        "optimal": functools.partial(ConstantPolicy, a0=1.0),
    }

    def __init__(self, config: CausalChainConfig, num_envs: int = 1) -> None:
        super().__init__(config, num_envs)
        self.possible_agents = ("agent_0",)
        high = np.array(config.max_values, np.float32)
        self.observation_space = gymnasium.spaces.Box(-high, high, dtype=np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.state_space = gymnasium.spaces.Box(
            np.append(-high, np.float32(0)), np.append(high, np.float32(1)), dtype=np.float32
        )
        self.intervention_spaces = {
            name: gymnasium.spaces.Box(-bound, bound, (), np.float32)
            for name, bound in zip(("x1", "x2'", "x3'"), config.max_values, strict=True)
        }
        self.arrays = CausalChainState.empty(self.num_envs)
        self._reset_kernel, self._step_kernel = Kernel(kernels.reset), Kernel(kernels.step)

    def state_limits(self) -> Limits:
        """Return what `set_state` takes, by array; see `CausalChainState`."""
        return CausalChainState.limits(self.config)

    def _reset(self, mask: Array) -> None:
        self._reset_kernel(mask, self.arrays)

    def _step(self, actions: Array) -> Transition:
        shape = (self.num_envs, 1)
        rewards, truncated = np.empty(shape, np.float32), np.empty(shape, bool)
        self._step_kernel(actions, self.arrays, self.config.rounds, rewards, truncated)
        return Transition(rewards, np.zeros(shape, bool), truncated)

    def _intervene(self, mask: Array, values: Array) -> None:
        s = self.arrays
        np.copyto(s.values[:, 0], values[:, 0], where=mask[:, 0])
        np.copyto(s.fixed_values, values[:, 1:], where=mask[:, 1:])
        s.fixed[:] |= mask[:, 1:]

    def variables(self) -> dict[str, Array]:
        """Return the components of the state by the names of `graph`, float32 ``[E]`` each."""
        return dict(zip(("x1", "x2", "x3"), self.arrays.values.T.copy(), strict=True))

    def graph(self) -> StepGraph:
        """Return the causal graph of one time step; see the class."""
        return step_graph()

    def observe(self, out: Array | None = None) -> Array:
        """Return x1 of the round to come, x2 and x3 of the last one, float32 ``[E, 1, 3]``.

        Raises:
            ValueError: ``out`` is not a C-contiguous float32 array of that shape.
        """
        out = self._observation_array(out)
        out[:, 0] = self.arrays.values
        return out

    def state(self) -> Array:
        """Return the observation and the share of rounds left, float32 ``[E, 4]``."""
        left = 1 - self.arrays.step.astype(np.float32) / np.float32(self.config.rounds)
        return np.concatenate([self.arrays.values, left[:, None]], axis=1)

    def info(self) -> dict[str, Array]:
        """Return the metrics of the episode so far, ``[E]``; see the class."""
        s = self.arrays
        played = np.maximum(s.step, 0)
        return {
            "team_return": s.returns.copy(),
            "mean_x3": s.returns / np.maximum(played, 1),
            "rounds": played,
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
            values=np.append(s.cause[index], s.values[index, 1:]),
            action=s.action[index],
            coming=float(s.values[index, 0]),
            score=float(s.returns[index]),
            played=int(max(s.step[index], 0)),
            rounds=self.config.rounds,
        )
        return viewer.draw_text(scene) if mode == "ansi" else viewer.draw(scene)
