"""Matrix games: repeated games in normal form, named ones and any given by its payoffs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from qio_envs.api import (
    Array,
    BatchedEnv,
    Limits,
    Relations,
    ScriptedPolicy,
    Transition,
)
from qio_envs.api.kernels import Kernel
from qio_envs.api.policies import RandomPolicy
from qio_envs.matrix_game import kernels, viewer
from qio_envs.matrix_game.config import CUSTOM, MatrixGameConfig
from qio_envs.matrix_game.named_games import NAMED_GAMES
from qio_envs.matrix_game.policies import NashPolicy, OraclePolicy, TitForTatPolicy
from qio_envs.matrix_game.state import MatrixGameRules, MatrixGameState


class MatrixGame(BatchedEnv[MatrixGameConfig, MatrixGameState]):
    """Agents choose at once, round by round, and are paid by a table (mixed, discrete actions).

    In each round every agent chooses an action without knowing the others', and each is paid what the table of payoffs
    has for the joint action. Nothing is random. The first agent's actions are the rows in what follows, and `3, 0` are
    the payoffs of the first and the second agent; one number is both.

    | `game` | payoffs, row by row | source |
    | --- | --- | --- |
    | climbing | 11 -30 0; -30 7 6; 0 0 5 | Claus and Boutilier (AAAI 1998) |
    | penalty | 10 0 -100; 0 2 0; -100 0 10 | likewise, penalty -100 |
    | prisoners_dilemma | 3,3 0,5; 5,0 1,1 | Axelrod and Hamilton (Science 211, 1981) |
    | chicken | 6,6 2,7; 7,2 0,0 | Aumann (Journal of Mathematical Economics 1, 1974) |
    | stag_hunt | 4,4 0,3; 3,0 2,2 | Rousseau (1755) |
    | rock_paper_scissors | 0,0 -1,1 1,-1; 1,-1 0,0 -1,1; -1,1 1,-1 0,0 | |
    | shapley | 1,0 0,1 0,0; 0,0 1,0 0,1; 0,1 0,0 1,0 | Shapley (Advances in Game Theory, 1964) |
    | matching_pennies | 1,-1 -1,1; -1,1 1,-1 | |
    | two_step | 0 0; 0 0, then 7 7; 7 7 or 0 1; 1 8 | Rashid et al. (ICML 2018) |

    With `game: custom` the setting `payoffs` is the table, nested lists of shape `[N, A_1, ..., A_N]`: the number of
    agents and of their actions follows from it. `next_stage`, of shape `[S, A_1, ..., A_N]`, makes it a game of `S`
    stages with a table each (payoffs `[S, N, A_1, ..., A_N]`) that begins in stage 0: an integer is the stage that
    follows a joint action, -1 ends the game. In the two-step game the first agent's first action chooses the table of
    the second round.

    **Actions**: ``Discrete(A)``, where A is the most actions of an agent. Where agents have different numbers of them
    there are action masks, and an action that an agent does not have counts as its last one.

    **Observations**: float32 ``Box(0, 1, (S + memory N A,))``: the stage one-hot (a 1 in games of one stage), then the
    joint actions of the last `memory` rounds, the last round first: one-hot the own action, that of the next agent and
    so on round to the one before; zeros for what was not played yet. So agents of a symmetric game can share a network.

    **Rewards**: the own payoff.

    **Ends**: truncation after ``rounds`` steps; termination of all where a game of stages is over, as the two-step game
    after its second round. Where rounds have nothing to do with each other (one stage, no memory), learn with a
    discount of 0.

    **State** for a critic: float32 ``Box(0, 1, (S + memory N A + 1,))``: stage and past joint actions, here in the
    order of the agents, and the share of rounds left.

    **Info**: ``team_return`` (``[E]``), the score: sum of all agents' payoffs so far; ``rounds`` (``[E]``), played so
    far; ``agent_return`` (``[E, N]``, by agent), the own payoffs so far.

    **Scripted policies** (``scripted_policies``): ``random``; ``nash``, an equilibrium of the named game, of several
    one with the greatest sum (a custom game has none); ``tit_for_tat``, in the prisoner's dilemma only; ``oracle``, the
    joint actions of the greatest sum of payoffs, which need not be an equilibrium.

    Version history: v0, first version.
    """

    id = "matrix_game_v0"
    render_fps = 2
    config_class = MatrixGameConfig
    scripted_policies: Mapping[str, Callable[[Any], ScriptedPolicy]] = {
        "random": RandomPolicy,
        "nash": NashPolicy,
        "oracle": OraclePolicy,
    }

    def __init__(self, config: MatrixGameConfig, num_envs: int = 1) -> None:
        super().__init__(config, num_envs)
        self._rules = MatrixGameRules.of(config)
        size = config.num_stages + config.history_size
        self.possible_agents = tuple(f"agent_{n}" for n in range(len(config.num_actions)))
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (size,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(self._rules.num_actions)
        self.state_space = gymnasium.spaces.Box(0.0, 1.0, (size + 1,), np.float32)
        self.has_action_mask = bool((self._rules.counts < self._rules.num_actions).any())
        self.arrays = MatrixGameState.empty(self.num_envs, config)
        self._reset_kernel, self._step_kernel = Kernel(kernels.reset), Kernel(kernels.step)
        self._observe_kernel = Kernel(kernels.observe)
        policies = dict(type(self).scripted_policies)
        if config.game == CUSTOM:
            del policies["nash"]
        elif config.game == "prisoners_dilemma":
            policies = {"random": RandomPolicy, "tit_for_tat": TitForTatPolicy, **policies}
        self.scripted_policies = policies

    def state_limits(self) -> Limits:
        """Return what `set_state` takes, by array; see `MatrixGameState`."""
        return MatrixGameState.limits(self.config)

    def _state_relations(self, state: MatrixGameState) -> Relations:
        return state.relations()

    def _reset(self, mask: Array) -> None:
        self._reset_kernel(mask, self.arrays)

    def _step(self, actions: Array) -> Transition:
        shape = (self.num_envs, self.num_agents)
        transition = Transition(np.empty(shape, np.float32), np.empty(shape, bool), np.empty(shape, bool))
        self._step_kernel(actions, self.arrays, self._rules, *transition)
        return transition

    def action_mask(self) -> Array:
        """Return which actions each agent has, int8 ``[E, N, A]``."""
        mask = (np.arange(self._rules.num_actions) < self._rules.counts[:, None]).astype(np.int8)
        return np.repeat(mask[None], self.num_envs, axis=0)

    def observe(self, out: Array | None = None) -> Array:
        """Return stage and past joint actions as each agent sees them, float32 ``[E, N, S + memory N A]``.

        Raises:
            ValueError: ``out`` is not a C-contiguous float32 array of that shape.
        """
        out = self._observation_array(out)
        self._observe_kernel(self.arrays, self._rules, out)
        return out

    def state(self) -> Array:
        """Return stage, past joint actions and the share of rounds left, float32 ``[E, S + memory N A + 1]``."""
        left = 1 - self.arrays.step.astype(np.float32) / np.float32(self.config.rounds)
        return np.concatenate([self.observe()[:, 0], np.minimum(left, 1)[:, None]], axis=1)

    def info(self) -> dict[str, Array]:
        """Return the metrics of the episode so far; see the class."""
        s = self.arrays
        return {
            "team_return": s.returns.sum(axis=1),
            "rounds": np.maximum(s.step, 0),
            "agent_return": s.returns.copy(),
        }

    def render(self, index: int = 0, mode: str = "rgb_array") -> Array | str:
        """Return a picture of environment ``index`` (uint8 ``[h, w, 3]``), or text for ``ansi``.

        Raises:
            ValueError: Another mode than ``rgb_array`` or ``ansi``.
        """
        if mode not in ("rgb_array", "ansi"):
            raise ValueError(f"mode: expected rgb_array or ansi, got {mode!r}")
        s, config = self.arrays, self.config
        played = int(max(s.step[index], 0))
        stage = int(s.played_stage[index] if played else s.stage[index])
        named = NAMED_GAMES.get(config.game)
        scene = viewer.Scene(
            game=config.game,
            payoffs=config.payoff_table[stage],
            names=named.actions if named else tuple(str(action) for action in range(max(config.num_actions))),
            stage=stage,
            stages=config.num_stages,
            actions=s.history[index, 0],
            returns=s.returns[index],
            played=played,
            rounds=config.rounds,
        )
        return viewer.draw_text(scene) if mode == "ansi" else viewer.draw(scene)
