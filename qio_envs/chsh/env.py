"""The CHSH game: two agents answer one bit each to one bit each, without a word between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from qio_envs.api import Array, BatchedEnv, Limits, Relations, ScriptedPolicy, Transition
from qio_envs.api.kernels import Kernel
from qio_envs.api.policies import RandomPolicy
from qio_envs.chsh import kernels, viewer
from qio_envs.chsh.config import CHSHConfig
from qio_envs.chsh.policies import ClassicalPolicy, EntangledPolicy
from qio_envs.chsh.state import CHSHState


class CHSH(BatchedEnv[CHSHConfig, CHSHState]):
    """Two agents who cannot talk play the CHSH game (cooperative, partially observed, discrete actions).

    The game of Clauser, Horne, Shimony and Holt (Physical Review Letters 23, 1969). In each round either agent is
    asked a bit, drawn uniformly and independently: Alice x, Bob y. Each sees its own question only and answers with
    a bit, a and b. The round is won if ``a XOR b == x AND y``: the answers are to be equal, but for x = y = 1.

    No classical strategy, deterministic or with shared random numbers, wins more than 0.75 of the rounds; agents who
    measure shared entangled qubits can win cos^2(pi/8) = 0.853553, and no more.

    **Actions**: ``Discrete(2)``, the answer.

    **Observations**: float32 ``Box(0, 1, (2,))``: the own question of the round to come, one-hot. After the last
    round a question is shown that nobody will answer.

    **Rewards**: each agent earns 0.5 in a round that is won, 0 otherwise; so the team's return counts the rounds won.

    **Ends**: truncation after ``rounds`` steps; never termination.

    **State** for a critic: float32 ``Box(0, 1, (5,))``: Alice's question and Bob's, one-hot; the share of rounds left.

    **Info** (``[E]``): ``team_return``, the score: rounds won so far; ``rounds``, played so far; ``win_rate``, the
    ratio of the two (0 before the first round).

    **Scripted policies** (``scripted_policies``): ``random``; ``classical``, the best without entanglement (0.75);
    ``entangled``, an oracle that measures a shared Bell pair (0.853553).

    With ``as_team`` one player sees both questions and wins every round: the bound is on agents who are apart.

    Version history: v0, first version.
    """

    id = "chsh_v0"
    render_fps = 2
    config_class = CHSHConfig
    scripted_policies: Mapping[str, Callable[[Any], ScriptedPolicy]] = {
        "random": RandomPolicy,
        "classical": ClassicalPolicy,
        "entangled": EntangledPolicy,
    }

    def __init__(self, config: CHSHConfig, num_envs: int = 1) -> None:
        super().__init__(config, num_envs)
        self.possible_agents = ("alice", "bob")
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.state_space = gymnasium.spaces.Box(0.0, 1.0, (5,), np.float32)
        self.arrays = CHSHState.empty(self.num_envs)
        self._reset_kernel, self._step_kernel = Kernel(kernels.reset), Kernel(kernels.step)

    def state_limits(self) -> Limits:
        """Return what `set_state` takes, by array; see `CHSHState`."""
        return CHSHState.limits(self.config)

    def _state_relations(self, state: CHSHState) -> Relations:
        return state.relations()

    def _reset(self, mask: Array) -> None:
        self._reset_kernel(mask, self.arrays)

    def _step(self, actions: Array) -> Transition:
        shape = (self.num_envs, 2)
        rewards, truncated = np.empty(shape, np.float32), np.empty(shape, bool)
        self._step_kernel(actions, self.arrays, self.config.rounds, rewards, truncated)
        return Transition(rewards, np.zeros(shape, bool), truncated)

    def observe(self, out: Array | None = None) -> Array:
        """Return either agent's own question one-hot, float32 ``[E, 2, 2]``.

        Raises:
            ValueError: ``out`` is not a C-contiguous float32 array of that shape.
        """
        out = self._observation_array(out)
        out[..., 1] = self.arrays.question
        np.subtract(1, out[..., 1], out=out[..., 0])
        return out

    def state(self) -> Array:
        """Return both questions one-hot and the share of rounds left, float32 ``[E, 5]``."""
        left = 1 - self.arrays.step.astype(np.float32) / np.float32(self.config.rounds)
        return np.concatenate([self.observe().reshape(self.num_envs, 4), left[:, None]], axis=1)

    def info(self) -> dict[str, Array]:
        """Return the metrics of the episode so far, ``[E]``; see the class."""
        s = self.arrays
        played = np.maximum(s.step, 0)
        return {
            "team_return": s.wins.astype(np.float64),
            "win_rate": s.wins / np.maximum(played, 1),
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
            question=s.question[index],
            asked=s.asked[index],
            answer=s.answer[index],
            wins=int(s.wins[index]),
            played=int(max(s.step[index], 0)),
            rounds=self.config.rounds,
        )
        return viewer.draw_text(scene) if mode == "ansi" else viewer.draw(scene)
