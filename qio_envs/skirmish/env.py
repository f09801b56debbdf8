"""The skirmish: two teams of units fight; the second follows a script, or consists of agents too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from qio_envs.api import Array, BatchedEnv, Limits, Relations, ScriptedPolicy, Transition
from qio_envs.api.kernels import Kernel
from qio_envs.api.policies import RandomPolicy
from qio_envs.skirmish import viewer
from qio_envs.skirmish.config import AGENTS, UNITS, SkirmishConfig
from qio_envs.skirmish.kernels.enemies import command_enemies
from qio_envs.skirmish.kernels.outcome import advance
from qio_envs.skirmish.kernels.reset import reset
from qio_envs.skirmish.kernels.seeing import action_mask, global_state, observe
from qio_envs.skirmish.kernels.sides import split
from qio_envs.skirmish.policies import FocusPolicy, NearestPolicy
from qio_envs.skirmish.state import SkirmishRules, SkirmishState


class Skirmish(BatchedEnv[SkirmishConfig, SkirmishState]):
    """Allies fight a team of units, scripted or agents too (cooperative or competitive, partially observed, discrete).

    The battle of SMAC (Samvelyan et al., 2019) as SMAX has it (Rutherford et al., "JaxMARL", NeurIPS 2024): the same
    maps, units, order of events, observations, masks and rewards as ``HeuristicEnemySMAX`` of JaxMARL 0.2.0 with its
    default settings, so that results on either can be put side by side. ``benchmarks/smax_agreement.py`` plays SMAX's
    episodes again here.

    **Units**: speeds are units of length a second, ranges and radii units of length, cooldowns seconds.

    | type | speed | attack | range | sight | radius | health | cooldown | shield |
    | --- | --- | --- | --- | --- | --- | --- | --- | --- |
    | `marine` | 3.15 | 9 | 5 | 9 | 0.375 | 45 | 0.61 | 0 |
    | `marauder` | 2.25 | 10 | 6 | 10 | 0.5625 | 125 | 1.07 | 0 |
    | `stalker` | 4.13 | 13 | 6 | 10 | 0.625 | 160 | 1.87 | 80 |
    | `zealot` | 3.15 | 8 | 2 | 9 | 0.5 | 150 | 0.86 | 50 |
    | `zergling` | 4.13 | 5 | 2 | 8 | 0.375 | 35 | 0.5 | 0 |
    | `hydralisk` | 3.15 | 12 | 5 | 9 | 0.625 | 80 | 0.59 | 0 |

    Types are said in ``allies`` and ``enemies`` as in ``2 stalker, 3 zealot``; ``random`` is a type drawn uniformly for
    each episode, and for an enemy that of the ally of its number, if there is one.

    **A step** is half a second: eight ticks, in each of which all units do what they do in this step, at once.

    1. Who attacks hits if its cooldown has run out and the target lives and is nearer than its range; the hits on a
       unit add up. The cooldown then is that of the type, plus a number uniform in [-1/16, 1/8) s.
    2. Who moves goes on, up to the border of the map.
    3. Units without health are dead, and with ``walls_kill`` those that touch the border.
    4. Living units that overlap push each other: each pair by half of its overlap each. That can push a unit over the
       border, where it dies in the next tick.

    **Start**: with ``start: sides`` allies are scattered around a point a quarter of the width from the left, enemies
    around one a quarter from the right, each coordinate uniform within 2 units of length; then overlapping units push
    each other once. With ``smacv2``, in half of the episodes allies are uniform on the left half and enemies are their
    mirror image; in the others one team, drawn, is scattered around the middle, and the units of the other around four
    points between middle and corners. As in SMAX, some may stand outside the map, and die at once.

    **Actions**: ``Discrete(5 + M)`` for M enemies: 0 up, 1 right, 2 down, 3 left, 4 stop, 5 + k attack enemy k.
    `action_mask` has the attacks on living enemies in range; the dead can stop only. Masked attacks are not refused:
    they hit nothing, unless the target comes into range within the step.

    **Observations**: float32, slices in ``config.observation_layout``: ``allies``, 13 numbers of each other ally, then
    ``enemies``, 13 of each enemy, then ``own``, 10. Who is dead, or not nearer than the sight range, reads 0.

    | of another | numbers | meaning |
    | --- | --- | --- |
    | health | 1 | share of that at the start |
    | position | 2 | from the observer, in its sight ranges |
    | move | 2 | its direction in the last step |
    | attack | 1 | its action in the last step if that was an attack, divided by its last action |
    | cooldown | 1 | share of the type's that is left |
    | type | 6 | 1 at its place in the table above |

    Of oneself: health, position divided by the size of the map, cooldown and type. With ``see_enemy_actions: false``
    enemies' moves and attacks read 0. With ``shields`` a last number follows in each, the share of the shield.

    **Rewards** (``reward``): ``shaped``, the health that enemies lost in the step, each as a share of its own, divided
    by M, and ``win_bonus`` at the win; ``sparse``, the bonus alone. Every ally earns that, dead or alive; where agents
    that have ended are absent, as in PettingZoo, the living do. The win is that all enemies and not all allies are
    dead.

    **Ends**: an agent terminates when it dies, and all do when a team has nobody left; truncation for the living after
    ``max_steps`` (101).

    **The enemy** (``enemy: heuristic``) follows SMAX's heuristic on what its units see: shoot on at the last target
    while that is in range, otherwise at the nearest ally in range; otherwise go towards an ally in sight, drawn anew in
    each step, and where there is none towards one's own start mirrored at the middle of the map.

    **Self-play** (``enemy: agents``): ``enemy_0``, ... are agents too, and behind the allies among them. Each side sees
    the battle from where it starts: an enemy's observation has its own side first, and its x axis points to the left
    (positions, moves, and its actions 1 and 3 are mirrored), so that it sees, may do and earns exactly what an ally of
    its number would if the sides were swapped; one policy can play both. Its slices are in
    ``config.enemy_observation_layout``; its attack k is on ally k. Observations of both sides have one length, and
    actions are ``Discrete(5 + max(N, M))``: attacks on units that the other side does not have are masked, and taken
    all the same they are stops. Rewards are each side's own, as in SMAX's class ``SMAX``: what the other side loses,
    and the bonus at its own win. They do not add up to zero; the difference does, and who wins has earned more, so that
    scores of games in self-play are wins.

    **Shields** (ours, off by default; SMAX counts them as health): the column of the table is taken from the health. A
    shield takes harm first, and recovers 2 a second, up to that number, once the unit has not been hit for 10 s. Health
    that enemies lose then includes shields; what a shield regains is not taken from rewards.

    **State** for a critic: float32, slices in ``config.state_layout``, SMAX's world state: ``units``, the own part of
    each unit with the true position and cooldown in seconds (negative after it has run out), 0 for the dead;
    ``teams``, 0 for allies and 1 for enemies; ``types``, 0 to 5.

    **Info** (``[E]``): ``team_return``, the score: sum of the team's rewards, 2 at most with ``shaped`` and a bonus of
    1; ``team_reward``, of the last step; ``won``, whose mean over episodes is the win rate; ``lost``, 1 once all allies
    and not all enemies are dead; ``allies_left``, ``enemies_left``. With ``enemy: agents`` also ``enemy_return``, what
    the other side has earned, and by agent, ``[E, N + M]``, ``agent_won``: whether the agent's side has won.

    **Scripted policies** (``scripted_policies``): ``random``; ``nearest``, attack the nearest enemy in range or go to
    the nearest; ``focus``, attack the weakest in range, no more allies than it takes, or go to the nearest. Both know
    where all enemies are. ``focus`` is the best controller known here on most maps; it is no upper bound. Where enemies
    are agents both sides play so, each for itself: the columns of one side are its player.

    **Against SMAX**: single steps from its states agree within 1e-5 under the same actions and cooldowns, and whole
    episodes within 1e-4, but for those of crowds (40 units and more), whose pushing amplifies rounding errors; the
    random numbers themselves are others (`qio_envs.api.random`). The time limit is truncation here and termination
    there; SMAX's ``max_steps`` of 100 ends an episode after 101 steps, since it looks at the time before it counts the
    step, and so 101 is the default here. A dead ally is an ended agent. Where a team of random types has more enemies
    than allies, which no map of SMAX has, SMAX makes the surplus marines. Of SMAX's options continuous actions and
    observations by sectors are left out; in its self-play enemies see the battle as it is, with all units in reverse
    order, where they see it mirrored here.

    **Against SMAC** (StarCraft II), SMAX and so this: units shoot at once instead of in turns, so that both teams may
    die in one tick, which is no win; no healing, no splash damage, no armour; attacks hit at once; shields are health;
    the border kills; each enemy goes by what it sees itself, and looks for whom it does not see where its own start,
    mirrored, is. A step is half a second of SMAX's clock. Win rates are not comparable with SMAC's.

    Version history: v0, first version.
    """

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
        self.num_allies, self.num_enemies = allies, enemies
        self.teams = (tuple(f"ally_{n}" for n in range(allies)),)
        if config.enemy == AGENTS:
            self.teams += (tuple(f"enemy_{n}" for n in range(enemies)),)
        else:
            self.lacks_opponents = "the enemy follows a script; set env_config.enemy to agents"
        self.possible_agents = sum(self.teams, ())
        self._num_actions = config.num_actions
        self.action_space = gymnasium.spaces.Discrete(self._num_actions)
        self.observation_space = self._observation_space()
        self.state_space = self._state_space()
        self._rules = SkirmishRules.of(config)
        self.arrays = SkirmishState.empty(self.num_envs, allies, enemies)
        self._reset_kernel, self._step_kernel = Kernel(reset), Kernel(advance)
        self._command_kernel, self._observe_kernel = Kernel(command_enemies), Kernel(observe)
        self._state_kernel, self._mask_kernel = Kernel(global_state), Kernel(action_mask)
        self._split_kernel = Kernel(split)

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
        least[:, 3], most[:, 3] = config.cooldown_range
        return gymnasium.spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)

    def agents_alive(self) -> Array:
        """Return bool ``[E, N]``: living units that are agents, in environments whose episode goes on."""
        return self.arrays.alive[:, : self.num_agents] & self.arrays.running[:, None]

    def state_limits(self) -> Limits:
        """Return what `set_state` takes, by array; see `SkirmishState`."""
        return SkirmishState.limits(self.config)

    def _state_relations(self, state: SkirmishState) -> Relations:
        return state.relations(self._rules)

    def _reset(self, mask: Array) -> None:
        self._reset_kernel(mask, self.arrays, self._rules)

    def _step(self, actions: Array) -> Transition:
        shape = (self.num_envs, self.num_agents)
        orders = np.empty((self.num_envs, self.num_enemies), np.int64)
        if self._rules.enemy_agents:
            choices, actions = actions, np.empty((self.num_envs, self.num_allies), np.int64)
            self._split_kernel(choices, actions, orders)
        else:
            self._command_kernel(self.arrays, self._rules, orders)
        transition = Transition(np.empty(shape, np.float32), np.empty(shape, bool), np.empty(shape, bool))
        self._step_kernel(actions, orders, self.arrays, self._rules, *transition)
        return transition

    def observe(self, out: Array | None = None) -> Array:
        """Return every agent's observation, float32 ``[E, N, D]``; see the class for its parts.

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
        """Return which actions are legal, int8 ``[E, N, A]``."""
        out = np.empty((self.num_envs, self.num_agents, self._num_actions), np.int8)
        self._mask_kernel(self.arrays, self._rules, out)
        return out

    def info(self) -> dict[str, Array]:
        """Return the metrics of the episode so far, ``[E]``; see the class."""
        s = self.arrays
        allies = s.alive[:, : self.num_allies].sum(axis=1, dtype=np.int32)
        enemies = s.alive[:, self.num_allies :].sum(axis=1, dtype=np.int32)
        won, lost = s.won.astype(np.float32), ((allies == 0) & (enemies > 0)).astype(np.float32)
        found = {
            "team_return": s.team_return.copy(),
            "team_reward": s.team_reward.copy(),
            "won": won,
            "lost": lost,
            "allies_left": allies,
            "enemies_left": enemies,
        }
        if self._rules.enemy_agents:
            sides = [self.num_allies, self.num_enemies]
            found["enemy_return"] = s.enemy_return.copy()
            found["agent_won"] = np.repeat(np.stack([won, lost], axis=1), sides, axis=1)
        return found

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
            num_allies=self.num_allies,
            size=(self.config.map_width, self.config.map_height),
            score=float(s.team_return[index]),
            step=int(max(s.step[index], 0)),
            max_steps=self.config.max_steps,
            enemy_agents=rules.enemy_agents,
            enemy_score=float(s.enemy_return[index]),
            messages=None if self.shown_messages is None else self.shown_messages[index],
        )
        return viewer.draw_text(scene) if mode == "ansi" else viewer.draw(scene)
