"""The skirmish: a team of units fights another that follows a script."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from qio_envs.api import Array, BatchedEnv, ScriptedPolicy, Transition
from qio_envs.api.kernels import Kernel
from qio_envs.api.policies import RandomPolicy
from qio_envs.skirmish import viewer
from qio_envs.skirmish.config import (
    COOLDOWN_NOISE,
    FIRST_ATTACK,
    TICK,
    TICKS,
    UNITS,
    SkirmishConfig,
)
from qio_envs.skirmish.kernels.enemies import command_enemies
from qio_envs.skirmish.kernels.outcome import advance
from qio_envs.skirmish.kernels.reset import reset
from qio_envs.skirmish.kernels.seeing import action_mask, global_state, observe
from qio_envs.skirmish.policies import FocusPolicy, NearestPolicy
from qio_envs.skirmish.state import SkirmishRules, SkirmishState


class Skirmish(BatchedEnv[SkirmishConfig, SkirmishState]):
    """DOCUMENT."""

    id = "skirmish_v0"
    config_class = SkirmishConfig
    scripted_policies: Mapping[str, Callable[[Any], ScriptedPolicy]] = {
        "random": RandomPolicy,
        "nearest": NearestPolicy,
        "focus": FocusPolicy,
    }
    has_action_mask = True

    def __init__(self, config: SkirmishConfig, num_envs: int = 1) -> None:
        super().__init__(config, num_envs)
        allies, enemies = len(config.ally_types), len(config.enemy_types)
        self.num_enemies = enemies
        self.possible_agents = tuple(f"ally_{n}" for n in range(allies))
        self.action_space = gymnasium.spaces.Discrete(FIRST_ATTACK + enemies)
        self.observation_space = self._observation_space()
        self.state_space = self._state_space()
        self._rules = SkirmishRules.of(config)
        self.arrays = SkirmishState.empty(self.num_envs, allies, enemies)
        self._reset_kernel, self._step_kernel = Kernel(reset), Kernel(advance)
        self._command_kernel, self._observe_kernel = Kernel(command_enemies), Kernel(observe)
        self._state_kernel, self._mask_kernel = Kernel(global_state), Kernel(action_mask)

    def _observation_space(self) -> gymnasium.spaces.Box:
        config, layout = self.config, self.config.observation_layout
        low, high = np.zeros(config.observation_size), np.ones(config.observation_size)
        others = low[: layout["own"].start].reshape(-1, config.unit_size)
        others[:, 1:5] = -1  # relative position and last move
        for place, size in enumerate((config.map_width, config.map_height), layout["own"].start + 1):
            low[place], high[place] = -config.max_position / size, 1 + config.max_position / size
        return gymnasium.spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)

    def _state_space(self) -> gymnasium.spaces.Box:
        config, layout = self.config, self.config.state_layout
        low, high = np.zeros(config.state_size), np.ones(config.state_size)
        high[layout["types"]] = len(UNITS) - 1
        least = low[layout["units"]].reshape(-1, config.own_size)
        most = high[layout["units"]].reshape(-1, config.own_size)
        least[:, 1:3] = -config.max_position
        most[:, 1:3] = np.array([config.map_width, config.map_height]) + config.max_position
        least[:, 3] = -1.001 * TICKS * TICK * config.max_steps
        most[:, 3] = max(unit.cooldown for unit in UNITS.values()) + COOLDOWN_NOISE[1]
        return gymnasium.spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)

    def agents_alive(self) -> Array:
        """Return bool ``[E, N]``: living allies in environments whose episode goes on."""
        return self.arrays.alive[:, : self.num_agents] & self.arrays.running[:, None]

    def _reset(self, mask: Array) -> None:
        self._reset_kernel(mask, self.arrays, self._rules)

    def _step(self, actions: Array) -> Transition:
        shape = (self.num_envs, self.num_agents)
        orders = np.empty((self.num_envs, self.num_enemies), np.int64)
        self._command_kernel(self.arrays, self._rules, orders)
        transition = Transition(np.empty(shape, np.float32), np.empty(shape, bool), np.empty(shape, bool))
        self._step_kernel(actions, orders, self.arrays, self._rules, *transition)
        return transition

    def observe(self, out: Array | None = None) -> Array:
        """Return every ally's observation, float32 ``[E, N, D]``; see the class for its parts.

        Raises:
            ValueError: ``out`` is not a C-contiguous float32 array of that shape.
        """
        out = self._observation_array(out)
        self._observe_kernel(self.arrays, self._rules, out)
        return out

    def state(self) -> Array:
        """Return the global state, float32 ``[E, D]``; see the class for its parts."""
        out = np.empty((self.num_envs, self.config.state_size), np.float32)
        self._state_kernel(self.arrays, self._rules, out)
        return out

    def action_mask(self) -> Array:
        """Return which actions are legal, int8 ``[E, N, 5 + M]``."""
        out = np.empty((self.num_envs, self.num_agents, FIRST_ATTACK + self.num_enemies), np.int8)
        self._mask_kernel(self.arrays, self._rules, out)
        return out

    def info(self) -> dict[str, Array]:
        """Return the metrics of the episode so far, ``[E]``; see the class."""
        s = self.arrays
        allies = s.alive[:, : self.num_agents].sum(axis=1, dtype=np.int32)
        enemies = s.alive[:, self.num_agents :].sum(axis=1, dtype=np.int32)
        return {
            "team_return": s.team_return.copy(),
            "team_reward": s.team_reward.copy(),
            "won": s.won.astype(np.float32),
            "lost": ((allies == 0) & (enemies > 0)).astype(np.float32),
            "allies_left": allies,
            "enemies_left": enemies,
        }

    def render(self, index: int = 0, mode: str = "rgb_array") -> Array | str:
        """Return a picture of environment ``index`` (uint8 ``[h, w, 3]``), or text for ``ansi``.

        Raises:
            ValueError: Another mode than ``rgb_array`` or ``ansi``.
        """
        if mode not in ("rgb_array", "ansi"):
            raise ValueError(f"mode: expected rgb_array or ansi, got {mode!r}")
        s, rules = self.arrays, self._rules
        kind = s.kind[index]
        scene = viewer.Scene(
            position=s.position[index].T,
            kind=kind,
            alive=s.alive[index],
            health=s.health[index] / rules.health[kind],
            action=s.action[index],
            num_allies=self.num_agents,
            size=(self.config.map_width, self.config.map_height),
            score=float(s.team_return[index]),
            step=int(max(s.step[index], 0)),
            max_steps=self.config.max_steps,
        )
        return viewer.draw_text(scene) if mode == "ansi" else viewer.draw(scene)
