"""The swarm: ``N`` agents in the plane, with a cooperative, a competitive and a mixed task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from qio_envs.api import Array, BatchedEnv, Limits, Relations, ScriptedPolicy, Transition
from qio_envs.api.kernels import Kernel
from qio_envs.api.policies import RandomPolicy
from qio_envs.api.random import MAX_NORMAL
from qio_envs.swarm import kernels, viewer
from qio_envs.swarm.config import (
    ACCELERATIONS,
    CompetitiveConfig,
    CooperativeConfig,
    MixedConfig,
    SwarmConfig,
)
from qio_envs.swarm.policies import ControllerPolicy
from qio_envs.swarm.state import SwarmMetrics, SwarmRules, SwarmSight, SwarmState


class Swarm(BatchedEnv[SwarmConfig, SwarmState]):
    """Agents with inertia move in the plane under noise; who goes too far is out.

    **Dynamics**: each step, with acceleration `a` and standard normals `n`, `v = d (v + h a) + s n`, then
    `x = x + h v + s n'`, where `d` is ``damping`` (0.9), `h` ``time_step`` (0.1) and `s` ``process_noise``; so the
    noise acts on velocity and position. Without noise the speed along an axis stays below d h / (1 - d), by default
    0.9. Agents do not collide. They start uniformly in the disc of radius ``spawn_radius`` around the origin, or with
    ``spawn: box`` in the square of that half side, at rest; or, with ``spawn_speed``, with each component of the
    velocity uniform between minus and plus that. All this is float32.

    **Actions**: ``Box(-1, 1, (2,))``, the acceleration; numbers outside are clipped (and counted, see
    ``clipped_actions``). With ``actions: discrete``, ``Discrete(5)``: 0 none, 1 +x, 2 -x, 3 +y, 4 -y, of size 1.

    **Observations**: float32, ``4 + 2 (N - 1)`` numbers (8 for N = 3), two more with a drawn target; the slices
    are in ``config.observation_layout``. The space's bounds are what can occur at all.

    | part | numbers | meaning |
    | --- | --- | --- |
    | `position` | 2 | own position, exact |
    | `velocity` | 2 | own velocity, exact |
    | `others` | 2 (N - 1) | positions of the others from one's own, each number with ``observation_noise`` |
    | `target` | 2 | only with ``target_spread``: the target from one's own position, exact; 0 for the uninformed |

    The others come in the order i + 1, i + 2, ... around the list of agents, those of one's own team first.
    Agents that have left go on being shown where they left. Others at ``sensing_range`` or farther read 0. With
    ``observe: own`` there are no ``others``, and all of ``position`` and ``velocity`` has ``observation_noise``. The
    noise is a function of seed, episode, step and agents: observing twice gives the same.

    **Ends**: an agent that is farther than ``out_radius`` from the origin after a step terminates, alone; the
    others go on. Who is left after ``max_steps`` is truncated. An episode ends when nobody is left. In the step in
    which an agent leaves it is still rewarded (less ``exit_penalty``), afterwards it earns 0; it no longer counts
    in the rewards of others from that very step on.

    Leaving early can pay: rewards may be negative, and who has left earns 0. With the rules as given
    (``exit_penalty`` 0) an agent that is far from good may do best to run away. A penalty of at least what the
    worst remaining steps could cost (``max_steps`` times the worst reward of a step) rules that out.

    **State** for a critic: float32, slices in ``config.state_layout``: true positions and velocities of all
    (2 N each), alive flags (N), the target (2, only with ``target_spread``), the time left (1 at reset, 0 at the
    time limit).

    **Info**, ``[E]``: ``team_return``, the score: the return of the first team (which that is, the task says), and
    ``team_reward``, its last step; ``total_return``, of all agents; ``coordination``, the variance of the living
    agents' distances to their centroid (0 for fewer than two) after a step, averaged over the steps of the episode so
    far; ``mean_distance`` to the origin or target over all agents, those that have left included; ``success``, 0 or 1,
    by the task; ``exits``, agents that have left; ``clipped_actions`` so far. By agent, ``[E, N]``: ``agent_return``,
    and ``distance`` to the origin or target.

    **Against the published original**: there, each component of position and velocity starts uniform in [-2, 2], and
    an agent observes its own state alone, each of the four numbers with noise of 0.1. The scenarios `published` do so;
    the others start at rest in a disc and show an agent itself exactly and the others with noise. Where an agent that
    leaves ends alone here, its steps afterwards earn 0. The published mixed task makes teams of N // 2 agents, which
    for its N = 3 are three teams of one without mates; here there are always two teams, of ``team_a`` and ``team_b``
    agents, in `published` 2 and 2. Discrete actions, a drawn target, ``sensing_range``, ``exit_penalty`` and other
    values of ``damping`` and ``time_step`` are additions.

    **Scripted policies** (``scripted_policies``): ``random``; ``controller``, an oracle that knows all and plays the
    first team, with random play for everybody else. Its gains were found with the default motion; with other values of
    ``damping`` and ``time_step`` others may be a few percent better.
    """

    config_class: type[SwarmConfig]
    render_fps = 20
    scripted_policies: Mapping[str, Callable[[Any], ScriptedPolicy]] = {
        "random": RandomPolicy,
        "controller": ControllerPolicy,
    }

    def __init__(self, config: SwarmConfig, num_envs: int = 1) -> None:
        super().__init__(config, num_envs)
        self._rules = SwarmRules.of(config)
        self._sight = SwarmSight.of(config, self._rules.team)
        self.team = self._rules.team
        """Team of each agent, int64 ``[N]``; the first team is 0."""
        self.possible_agents = self._names()
        self.observation_space = _symmetric_box(self._observation_bounds())
        self.state_space = self._state_space()
        self._discrete = config.actions == "discrete"
        self.action_space = (
            gymnasium.spaces.Discrete(len(ACCELERATIONS))
            if self._discrete
            else gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        )
        self.arrays = SwarmState.empty(self.num_envs, self.num_agents)
        self._reset_kernel, self._step_kernel = Kernel(kernels.reset), Kernel(kernels.step)
        self._observe_kernel = Kernel(kernels.observe)
        self._measure_kernel = Kernel(kernels.measure)

    def _names(self) -> tuple[str, ...]:
        return tuple(f"agent_{n}" for n in range(len(self.team)))

    def _observation_bounds(self) -> Array:
        config = self.config
        bounds = np.empty(config.observation_size)
        farthest = 2 * config.max_position + MAX_NORMAL * config.observation_noise
        own = MAX_NORMAL * config.observation_noise if config.observe == "own" else 0.0
        parts = {
            "position": config.max_position + own,
            "velocity": config.max_speed + own,
            "others": farthest,
        }
        parts["target"] = config.max_position + config.out_radius
        for name, part in config.observation_layout.items():
            bounds[part] = parts[name]
        return bounds

    def _state_space(self) -> gymnasium.spaces.Box:
        config, layout = self.config, self.config.state_layout
        high = np.ones(layout["time_left"].stop, np.float32)
        high[layout["position"]] = config.max_position
        high[layout["velocity"]] = config.max_speed
        low = -high
        low[layout["alive"]] = low[layout["time_left"]] = 0
        if config.has_target:
            high[layout["target"]] = config.out_radius
            low[layout["target"]] = -config.out_radius
        return gymnasium.spaces.Box(low, high, dtype=np.float32)

    def agents_alive(self) -> Array:
        """Return bool ``[E, N]``: agents that have not left, in environments whose episode goes on."""
        return self.arrays.alive & self.arrays.running[:, None]

    def state_limits(self) -> Limits:
        """Return what `set_state` takes, by array; see `SwarmState`."""
        return SwarmState.limits(self.config)

    def _state_relations(self, state: SwarmState) -> Relations:
        return state.relations(self.config)

    def _reset(self, mask: Array) -> None:
        self._reset_kernel(mask, self.arrays, self._rules)

    def _step(self, actions: Array) -> Transition:
        shape = (self.num_envs, self.num_agents)
        transition = Transition(np.empty(shape, np.float32), np.empty(shape, bool), np.empty(shape, bool))
        accelerations = ACCELERATIONS[actions] if self._discrete else actions
        self._step_kernel(accelerations, self.arrays, self._rules, *transition)
        return transition

    def observe(self, out: Array | None = None) -> Array:
        """Return every agent's observation, float32 ``[E, N, D]``; see the class for its parts.

        Raises:
            ValueError: ``out`` is not a C-contiguous float32 array of that shape.
        """
        out = self._observation_array(out)
        self._observe_kernel(self.arrays, self._sight, out)
        return out

    def state(self) -> Array:
        """Return the true state, float32 ``[E, 5 N + 1]``, or ``[E, 5 N + 3]`` with a target."""
        s, envs = self.arrays, self.num_envs
        left = 1 - s.step.astype(np.float32) / np.float32(self.config.max_steps)
        parts = [s.body[..., :2].reshape(envs, -1), s.body[..., 2:].reshape(envs, -1), s.alive]
        parts += [s.target] if self.config.has_target else []
        return np.concatenate([*parts, left[:, None]], axis=1, dtype=np.float32)

    def info(self) -> dict[str, Array]:
        """Return the metrics of the episode so far, ``[E]`` or ``[E, N]``; see the class."""
        s = self.arrays
        metrics = SwarmMetrics.empty(self.num_envs, self.num_agents)
        self._measure_kernel(s, self._rules, metrics)
        return metrics._asdict() | {"agent_return": s.returns.copy(), "clipped_actions": s.clipped.copy()}

    def render(self, index: int = 0, mode: str = "rgb_array") -> Array | str:
        """Return a picture of environment ``index`` (uint8 ``[h, w, 3]``), or text for ``ansi``.

        Raises:
            ValueError: Another mode than ``rgb_array`` or ``ansi``.
        """
        if mode not in ("rgb_array", "ansi"):
            raise ValueError(f"mode: expected rgb_array or ansi, got {mode!r}")
        s = self.arrays
        first = self.team == 0
        scene = viewer.Scene(
            task=self.config.task,
            position=s.body[index, :, :2],
            trail=np.roll(s.trail[index], -1 - int(s.step[index]), axis=1),
            velocity=s.body[index, :, 2:],
            alive=s.alive[index],
            team=self.team,
            informed=np.arange(self.num_agents) < (self.config.num_informed if self.config.has_target else 0),
            target=None if self.config.task == "mixed" else s.target[index],
            out_radius=self.config.out_radius,
            sensing_range=self.config.sensing_range,
            score=float(s.returns[index, first].sum()),
            step=int(s.step[index]),
            max_steps=self.config.max_steps,
            messages=None if self.shown_messages is None else self.shown_messages[index],
        )
        return viewer.draw_text(scene) if mode == "ansi" else viewer.draw(scene)


class CooperativeSwarm(Swarm):
    """Agents gather at the origin together (cooperative, continuous or discrete actions).

    **Rewards**: an agent earns minus its distance to the origin, and pays 0.05 for each unit of distance to each
    other living agent.

    **Score** (``team_return``): the sum over all agents.

    **Success**: nobody has left and all are within 0.5 of the origin, now.

    **Studies of communication**: with ``target_spread`` the point that counts in reward, score and success is drawn
    at reset, uniformly in a disc of that radius around the origin, and only the first ``informed_agents`` see it. In
    the scenario `hidden_target` one agent of three does, and nobody sees anybody: without messages the others
    cannot know where to go.

    **Studies of memory**: with ``cue_steps`` the target is observed only while the step count is below that number,
    afterwards its two numbers read 0. Until then all agents stay exactly where they are, whatever their actions and
    the process noise, so that a policy without memory cannot keep the target in its position or velocity. Steps of
    the cue are rewarded like all others. The scenario `remembered_target` is of this kind.

    Version history: v0, first version.
    """

    id = "swarm_cooperative_v0"
    config_class = CooperativeConfig


class CompetitiveSwarm(Swarm):
    """Agents contend for the place nearest the origin (competitive, continuous or discrete actions).

    **Rewards**: the living agent that is nearest the origin after the step earns 1 (of equals the first), all others
    -0.1.

    **Score** (``team_return``): the return of ``agent_0``. The sum over all says nothing about skill: it is the same
    whatever happens as long as all live. The scripted ``controller`` plays ``agent_0`` against random opponents.

    **Success**: ``agent_0`` has earned more than any other.

    Version history: v0, first version.
    """

    id = "swarm_competitive_v0"
    config_class = CompetitiveConfig


class MixedSwarm(Swarm):
    """Two teams: each keeps together and seeks contact with the other (mixed, continuous or discrete actions).

    **Rewards**: an agent pays 0.1 for each unit of distance to each living team mate, and earns
    0.05 max(0, 2 - d) for each living opponent at distance d.

    **Agents**: ``team_a_0``, ``team_a_1``, ..., then ``team_b_0``, ...

    **Score** (``team_return``): the sum over team A. The scripted ``controller`` plays team A against a random
    team B.

    **Success**: the mean return of team A's agents is greater than that of team B's.

    Version history: v0, first version.
    """

    id = "swarm_mixed_v0"
    config_class = MixedConfig

    def _names(self) -> tuple[str, ...]:
        sizes = zip("ab", self.config.team_sizes, strict=True)
        self.teams = tuple(tuple(f"team_{name}_{n}" for n in range(size)) for name, size in sizes)
        return sum(self.teams, ())


def _symmetric_box(bounds: Array) -> gymnasium.spaces.Box:
    high = bounds.astype(np.float32)
    return gymnasium.spaces.Box(-high, high, dtype=np.float32)
