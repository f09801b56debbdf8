"""The greedy casino: a bandit with hidden confounders, where acting against one's intention pays most."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from qio_envs.api import Array, BatchedEnv, Limits, Relations, ScriptedPolicy, StepGraph, Transition
from qio_envs.api.kernels import Kernel
from qio_envs.api.policies import RandomPolicy
from qio_envs.greedy_casino import kernels, viewer
from qio_envs.greedy_casino.config import GreedyCasinoConfig
from qio_envs.greedy_casino.model import CAUSES, step_graph
from qio_envs.greedy_casino.policies import AgainstIntuitionPolicy, IntuitionPolicy, OneMachinePolicy
from qio_envs.greedy_casino.state import GreedyCasinoState


class GreedyCasino(BatchedEnv[GreedyCasinoConfig, GreedyCasinoState]):
    """Two slot machines and a gambler whose intuition the casino knows (one agent, discrete actions).

    The greedy casino of Bareinboim, Forney and Pearl ("Bandits with unobserved confounders", NeurIPS 2015). In each
    round the gambler is drunk or not (D) and the machines blink or not (B), two even coins that nobody sees. Intuition
    leads to machine D XOR B, and the payouts are made against it; machines pay with the probabilities

    | machine | D = 0, B = 0 | D = 0, B = 1 | D = 1, B = 0 | D = 1, B = 1 |
    | --- | --- | --- | --- | --- |
    | 0 | 0.10, intended | 0.50 | 0.40 | 0.20, intended |
    | 1 | 0.50 | 0.10, intended | 0.20, intended | 0.40 |

    Who follows intuition is paid in 0.15 of the rounds, whichever machine that is. A policy that does not know the
    intention, be it deterministic or random, gets 0.30: in an experiment both machines are alike. A policy that knows
    what it intends and does the other thing gets 0.45, a counterfactual decision; to know D and B is worth no more.

    **Actions**: ``Discrete(2)``, the machine.

    **Observations**: float32 ``Box(0, 1, (2,))``: the machine that intuition chooses in the round to come, one-hot;
    zeros without ``observe_intent``. After the last round there is an intention that nobody will act on.

    **Rewards**: 1 if the machine pays, 0 otherwise.

    **Ends**: truncation after ``rounds`` steps; never termination.

    **State** for a critic: float32 ``Box(0, 1, (4,))``: D, B and the intention of the round to come; the share of
    rounds left.

    **Info** (``[E]``): ``team_return``, the score: rounds that paid so far; ``rounds``, played so far; ``payout_rate``,
    the ratio of the two, and ``followed_rate``, the share of rounds in which the choice was the intention (both 0
    before the first round).

    **Counterfactuals and interventions**: each machine has a random number of its own in each round, whichever is
    played, so that `counterfactual` is exact. `intervene` sets ``drunk``, ``blinking`` and ``intent`` of the round to
    come to 0 or 1; the intention was formed already, and stays as it is when its causes are set. `graph` has these, the
    action ``machine`` and ``reward``. `logged` gives the records of gamblers, `logged_graph` the graph of its columns.

    **Scripted policies** (``scripted_policies``): ``random``; ``intuition``; ``one_machine``, as good as any that
    ignores the intention; ``against_intuition``, an oracle. Over 2,000,000 rounds they are paid in 0.2997,
    0.1501, 0.2992 and 0.4495 (standard errors 0.0003). Intuition and the oracle know the intention even where it is
    not observed. `expected_payout` gives the exact payout of any policy.

    Version history: v0, first version.
    """

    id = "greedy_casino_v0"
    render_fps = 2
    config_class = GreedyCasinoConfig
    scripted_policies: Mapping[str, Callable[[Any], ScriptedPolicy]] = {
        "random": RandomPolicy,
        "intuition": IntuitionPolicy,
        "one_machine": OneMachinePolicy,
        "against_intuition": AgainstIntuitionPolicy,
    }

    def __init__(self, config: GreedyCasinoConfig, num_envs: int = 1) -> None:
        super().__init__(config, num_envs)
        self.possible_agents = ("agent_0",)
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.state_space = gymnasium.spaces.Box(0.0, 1.0, (4,), np.float32)
        self.intervention_spaces = {name: gymnasium.spaces.Discrete(2) for name in (*CAUSES, "intent")}
        self.arrays = GreedyCasinoState.empty(self.num_envs)
        self._reset_kernel, self._step_kernel = Kernel(kernels.reset), Kernel(kernels.step)

    def state_limits(self) -> Limits:
        """Return what `set_state` takes, by array; see `GreedyCasinoState`."""
        return GreedyCasinoState.limits(self.config)

    def _state_relations(self, state: GreedyCasinoState) -> Relations:
        return state.relations()

    def _reset(self, mask: Array) -> None:
        self._reset_kernel(mask, self.arrays)

    def _step(self, actions: Array) -> Transition:
        shape = (self.num_envs, 1)
        rewards, truncated = np.empty(shape, np.float32), np.empty(shape, bool)
        self._step_kernel(actions, self.arrays, self.config.rounds, rewards, truncated)
        return Transition(rewards, np.zeros(shape, bool), truncated)

    def _intervene(self, mask: Array, values: Array) -> None:
        bits = values.astype(np.int8)
        np.copyto(self.arrays.causes, bits[:, :2], where=mask[:, :2])
        np.copyto(self.arrays.intent, bits[:, 2], where=mask[:, 2])

    def variables(self) -> dict[str, Array]:
        """Return the components of the state by the names of `graph`, float32 ``[E]`` each."""
        bits = (*self.arrays.causes.T, self.arrays.intent)
        return {name: bit.astype(np.float32) for name, bit in zip((*CAUSES, "intent"), bits, strict=True)}

    def graph(self) -> StepGraph:
        """Return the causal graph of one time step with the present settings; see the class."""
        return step_graph(self.config)

    def observe(self, out: Array | None = None) -> Array:
        """Return the intention one-hot, or zeros, float32 ``[E, 1, 2]``.

        Raises:
            ValueError: ``out`` is not a C-contiguous float32 array of that shape.
        """
        out = self._observation_array(out)
        out[:] = 0
        if self.config.observe_intent:
            out[np.arange(self.num_envs), 0, self.arrays.intent] = 1
        return out

    def state(self) -> Array:
        """Return D, B and the intention of the round to come and the share of rounds left, float32 ``[E, 4]``."""
        s = self.arrays
        left = 1 - s.step.astype(np.float32) / np.float32(self.config.rounds)
        return np.concatenate([s.causes, s.intent[:, None], left[:, None]], axis=1, dtype=np.float32)

    def info(self) -> dict[str, Array]:
        """Return the metrics of the episode so far, ``[E]``; see the class."""
        s = self.arrays
        played = np.maximum(s.step, 0)
        return {
            "team_return": s.payouts.astype(np.float64),
            "payout_rate": s.payouts / np.maximum(played, 1),
            "followed_rate": s.followed / np.maximum(played, 1),
            "rounds": played,
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
            drunk=bool(s.causes[index, 0]),
            blinking=bool(s.causes[index, 1]),
            intent=int(s.intent[index]),
            intended=int(s.intended[index]),
            machine=int(s.machine[index]),
            paid=bool(s.paid[index]),
            payouts=int(s.payouts[index]),
            played=int(max(s.step[index], 0)),
            rounds=self.config.rounds,
        )
        return viewer.draw_text(scene) if mode == "ansi" else viewer.draw(scene)
