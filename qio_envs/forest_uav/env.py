"""The UAV forest: ``N`` UAVs cover a grid of cells, each knowing only what it sensed or was told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from qio_envs.api import Array, BatchedEnv, Limits, Relations, ScriptedPolicy, Transition
from qio_envs.api.kernels import Kernel
from qio_envs.api.policies import RandomPolicy
from qio_envs.forest_uav import viewer
from qio_envs.forest_uav.config import MOVES, ForestConfig
from qio_envs.forest_uav.kernels.observe import action_mask, observe
from qio_envs.forest_uav.kernels.reset import reset
from qio_envs.forest_uav.kernels.step import step
from qio_envs.forest_uav.policies import GreedyPolicy, LawnmowerPolicy
from qio_envs.forest_uav.state import ForestRules, ForestState, unpack

_ONE = np.int32(1)


class ForestUAV(BatchedEnv[ForestConfig, ForestState]):
    """UAVs monitor a forest together (cooperative, partially observed, limited communication).

    The grid holds a vegetation density per cell, drawn uniformly from [0, 1) at reset, and optionally
    obstacles that never cut the free cells in two. UAVs start on distinct random free cells. A cell is
    monitored once a UAV has stood on it at the end of a step. Each step: all move at once; cells are
    credited; every UAV senses its crop; on an exchange step every UAV sends its belief map and position to
    the UAVs in range.

    **Actions**: ``Discrete(5)``: 0 stay, 1 up (row - 1), 2 down, 3 left (column - 1), 4 right. A move off
    the map or into an obstacle is a stay; with ``mask_blocked_moves`` it is masked out.

    **Observations**: float32 ``Box(0, 1, (4 * (2 r + 1)**2 + 53,))``, 153 numbers for r = 2; the slices are
    in ``config.observation_layout``:

    | part | numbers | meaning |
    | --- | --- | --- |
    | `unmonitored` | `(2 r + 1)**2` | crop: 1 where the UAV believes the cell is not monitored yet |
    | `vegetation` | `(2 r + 1)**2` | crop: density |
    | `others` | `(2 r + 1)**2` | crop: other UAVs in the cell, divided by N - 1 |
    | `blocked` | `(2 r + 1)**2` | crop: 1 off the map and on obstacles |
    | `coarse_unmonitored` | 25 | share of each block of the map (5 x 5 blocks) believed unmonitored |
    | `coarse_heard` | 25 | UAVs in the block when last heard by radio, each as 1 / ((N - 1) (1 + age in steps)) |
    | `position` | 2 | own row and column, divided by height - 1 and width - 1 |
    | `time_left` | 1 | 1 at reset, 0 at the time limit |

    A belief errs on one side only: what a UAV believes monitored is monitored.

    **Rewards** (``reward``): the team earns ``cell_reward`` per cell monitored for the first time and pays
    ``collision_penalty`` per cell that holds more than one UAV after the move. ``team`` gives every UAV the
    whole of it; ``local`` splits a cell's reward and penalty among the UAVs in it, so that the local rewards
    sum to the team's; ``difference`` gives each UAV what the team's reward of this step would lose without it
    (Wolpert and Tumer, 2002).

    **Ends**: truncation after ``max_steps``; never termination.

    **State** for a critic: float32 ``Box(0, 1, (4 H W + 1,))``: monitored, occupancy / N, vegetation,
    blocked, time left; everything true, row by row.

    **Radio**: ``comm_budget`` is the share of steps with an exchange (after ``t`` steps there have been
    ``floor(t * comm_budget)``), ``comm_range`` its reach, ``comm_loss`` the chance that a message is lost.

    **Info** (``[E]``): ``coverage`` in [0, 1]; ``steps_to_90`` and ``steps_to_95`` (-1 until reached);
    ``collisions`` and ``messages`` so far; ``team_reward`` of the step and ``team_return`` of the episode so
    far, whatever the mode of reward.

    **Scripted policies** (``scripted_policies``): ``random``; ``greedy``, with what a UAV itself knows;
    ``lawnmower``, an oracle that knows all.

    **Against the published original**: there, the crop shows vegetation only, so that no policy can know what has been
    monitored; the radio's budget is stored and never used, no UAV learns of another, and there is no map of beliefs,
    no coarse map, no time left and no picture. The grid, the team's reward and the time limit of the scenario
    `default` are the published ones. Obstacles, masks, range and loss of the radio, and the rewards ``local`` and
    ``difference`` are additions.

    Version history: v0, first version.
    """

    id = "forest_uav_v0"
    config_class = ForestConfig
    scripted_policies: Mapping[str, Callable[[Any], ScriptedPolicy]] = {
        "random": RandomPolicy,
        "greedy": GreedyPolicy,
        "lawnmower": LawnmowerPolicy,
    }

    def __init__(self, config: ForestConfig, num_envs: int = 1) -> None:
        super().__init__(config, num_envs)
        self.possible_agents = tuple(f"uav_{index}" for index in range(config.num_uavs))
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (config.observation_size,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(MOVES))
        self.state_space = gymnasium.spaces.Box(0.0, 1.0, (4 * config.height * config.width + 1,), np.float32)
        self.has_action_mask = config.mask_blocked_moves
        self._rules = ForestRules.of(config)
        self.arrays = ForestState.empty(config, self.num_envs)
        self._reset_kernel, self._step_kernel = Kernel(reset), Kernel(step)
        self._observe_kernel, self._mask_kernel = Kernel(observe), Kernel(action_mask)

    def state_limits(self) -> Limits:
        """Return what `set_state` takes, by array; see `ForestState`."""
        return ForestState.limits(self.config)

    def _state_relations(self, state: ForestState) -> Relations:
        return state.relations(self.config)

    def _reset(self, mask: Array) -> None:
        self._reset_kernel(mask, self.arrays, self._rules)

    def _step(self, actions: Array) -> Transition:
        shape = (self.num_envs, self.num_agents)
        rewards, truncated = np.empty(shape, np.float32), np.empty(shape, bool)
        self._step_kernel(actions, self.arrays, self._rules, rewards, truncated)
        return Transition(rewards, np.zeros(shape, bool), truncated)

    def observe(self, out: Array | None = None) -> Array:
        """Return every UAV's observation, float32 ``[E, N, D]``; see the class for its parts."""
        out = self._observation_array(out)
        self._observe_kernel(self.arrays, self._rules, out)
        return out

    def action_mask(self) -> Array:
        """Return int8 ``[E, N, 5]``; all ones unless ``mask_blocked_moves``."""
        if not self.has_action_mask:
            return super().action_mask()
        out = np.empty((self.num_envs, self.num_agents, len(MOVES)), np.int8)
        self._mask_kernel(self.arrays, self._rules, out)
        return out

    def state(self) -> Array:
        """Return the true maps and the time left, float32 ``[E, 4 H W + 1]``."""
        s = self.arrays
        maps = (
            self.unpack(s.monitored),
            s.occupancy / np.float32(self.num_agents),
            s.vegetation,
            self.unpack(s.blocked),
        )
        left = 1 - s.step.astype(np.float32) / np.float32(self.config.max_steps)
        parts = [self.without_margin(array).reshape(self.num_envs, -1) for array in maps]
        return np.concatenate([*parts, left[:, None]], axis=1, dtype=np.float32)

    def info(self) -> dict[str, Array]:
        """Return the metrics of the episode so far, each ``[E]``; see the class."""
        s = self.arrays
        return {
            "coverage": s.monitored_count / np.maximum(s.free_count, _ONE),
            "steps_to_90": s.milestones[:, 0].copy(),
            "steps_to_95": s.milestones[:, 1].copy(),
            "collisions": s.collisions.copy(),
            "messages": s.messages.copy(),
            "team_reward": s.team_reward.copy(),
            "team_return": s.team_return.copy(),
        }

    def render(self, index: int = 0, mode: str = "rgb_array") -> Array | str:
        """Return a picture of environment ``index`` (uint8 ``[h, w, 3]``), or text for ``ansi``.

        Raises:
            ValueError: Another mode than ``rgb_array`` or ``ansi``.
        """
        if mode not in ("rgb_array", "ansi"):
            raise ValueError(f"mode: expected rgb_array or ansi, got {mode!r}")
        s = self.arrays
        blocked, monitored, unmonitored = (
            self.without_margin(self.unpack(bits)).astype(bool)
            for bits in (s.blocked[index], s.monitored[index], s.belief[index, 0])
        )
        heard = (s.heard_step[index] == s.step[index]) & (s.step[index] > 0)
        scene = viewer.Scene(
            vegetation=self.without_margin(s.vegetation[index]),
            blocked=blocked,
            monitored=monitored,
            believed=~unmonitored & ~blocked,
            position=s.position[index],
            links=np.argwhere(np.triu(heard | heard.T, 1)),
            sensing_radius=self.config.sensing_radius,
            step=int(s.step[index]),
            max_steps=self.config.max_steps,
            messages=None if self.shown_messages is None else self.shown_messages[index],
        )
        return viewer.draw_text(scene) if mode == "ansi" else viewer.draw(scene)

    def without_margin(self, maps: Array) -> Array:
        """Return a view of ``maps`` (``[..., Hp, Wp]``) without the margin, ``[..., H, W]``."""
        radius = self.config.sensing_radius
        return maps[..., radius : radius + self.config.height, radius : radius + self.config.width]

    def unpack(self, bits: Array) -> Array:
        """Return bit maps (``[..., B]``) as uint8 maps of 0 and 1, with margins, ``[..., Hp, Wp]``."""
        return unpack(bits, self.arrays)
