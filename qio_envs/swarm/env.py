"""The swarm: ``N`` agents in the plane, with a cooperative, a competitive and a mixed task."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import gymnasium
import numpy as np

from qio_envs.api import Array, BatchedEnv, BatchState, Transition
from qio_envs.api.policies import RandomPolicy
from qio_envs.api.random import MAX_NORMAL
from qio_envs.swarm import kernels, viewer
from qio_envs.swarm.config import CompetitiveConfig, CooperativeConfig, MixedConfig, SwarmConfig
from qio_envs.swarm.policies import ControllerPolicy


@dataclasses.dataclass
class SwarmState(BatchState):
    """Arrays of the swarm; an agent that has left keeps the position and velocity with which it left."""

    body: Array  # float32 [E, N, 4], position x and y, velocity x and y
    alive: Array  # bool [E, N], has not left
    target: Array  # float32 [E, 2], the point that counts; the origin unless target_spread
    rewards: Array  # float32 [E, N], of the last step
    returns: Array  # float64 [E, N], of the episode so far
    clipped: Array  # int32 [E], actions with a component outside [-1, 1], of living agents


class Swarm(BatchedEnv):
    """Agents with inertia move in the plane under noise; who goes too far is out.

    **Dynamics**: each step, with acceleration `a` and standard normals `n`, `v = 0.9 (v + 0.1 a) + s n`, then
    `x = x + 0.1 v + s n'`, where `s` is ``process_noise``; so the noise acts on velocity and position. Without
    noise the speed along an axis stays below 0.9. Agents do not collide. They start at rest, uniformly in the
    disc of radius ``spawn_radius`` around the origin. All this is float32.

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
    Agents that have left go on being shown where they left. Others at ``sensing_range`` or farther read 0. The
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

    **Info**, ``[E]`` unless said otherwise: ``team_return``, the score: the return of the first team (which that
    is, the task says), and ``team_reward``, its last step; ``total_return``, of all agents; ``agent_return``
    ``[E, N]``; ``coordination``, the variance of the living agents' distances to their centroid (0 for fewer than
    two); ``distance`` ``[E, N]`` to the origin or target, and ``mean_distance`` over all agents, those that have left
    included; ``success``, 0 or 1, by the task; ``exits``, agents that have left; ``clipped_actions`` so far.

    **Scripted policies** (``scripted_policies``): ``random``; ``controller``, an oracle that knows all and plays the
    first team, with random play for everybody else.
    """

    config_class: ClassVar[type[SwarmConfig]]
    render_fps = 20
    scripted_policies: ClassVar = {"random": RandomPolicy, "controller": ControllerPolicy}
    config: SwarmConfig
    arrays: SwarmState

    def __init__(self, config: SwarmConfig, num_envs: int = 1) -> None:
        super().__init__(config, num_envs)
        teams = config.team_sizes
        self.team = np.repeat(np.arange(len(teams)), teams)
        """Team of each agent, int64 ``[N]``; the first team is 0."""
        agents, envs = len(self.team), self.num_envs
        self.possible_agents = self._names()
        cyclic = (np.arange(agents)[:, None] + np.arange(1, agents)) % agents
        mates_first = np.argsort(self.team[cyclic] != self.team[:, None], axis=1, kind="stable")
        self._others = np.take_along_axis(cyclic, mates_first, axis=1)  # [N, N - 1]
        self.observation_space = _symmetric_box(self._observation_bounds())
        self.state_space = self._state_space()
        self.action_space = (
            gymnasium.spaces.Discrete(len(kernels.ACCELERATIONS))
            if config.actions == "discrete"
            else gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        )
        self._discrete = config.actions == "discrete"
        self._task = kernels.TASKS.index(config.task)
        reach = np.inf if config.sensing_range is None else config.sensing_range
        # only the cooperative task has a target of its own
        self._target_spread = np.float32(getattr(config, "target_spread", 0.0))
        informed = getattr(config, "informed_agents", None)
        cue = getattr(config, "cue_steps", None)
        self._sight = (
            np.float32(config.observation_noise),
            np.float32(reach),
            agents if informed is None else informed,
            config.has_target,
            config.max_steps + 1 if cue is None else cue,
            self._others,
        )
        self._rules = (
            self._task,
            config.max_steps,
            np.float32(config.out_radius),
            np.float32(config.process_noise),
            np.float32(config.exit_penalty),
            0 if cue is None else cue,
            self.team,
        )
        self.arrays = SwarmState(
            seed=np.zeros(envs, np.uint64),
            episode=np.zeros(envs, np.uint32),
            step=np.full(envs, -1, np.int32),
            running=np.zeros(envs, bool),
            body=np.zeros((envs, agents, 4), np.float32),
            alive=np.zeros((envs, agents), bool),
            target=np.zeros((envs, 2), np.float32),
            rewards=np.zeros((envs, agents), np.float32),
            returns=np.zeros((envs, agents), np.float64),
            clipped=np.zeros(envs, np.int32),
        )

    def _names(self) -> tuple[str, ...]:
        return tuple(f"agent_{n}" for n in range(len(self.team)))

    def _observation_bounds(self) -> Array:
        config = self.config
        bounds = np.empty(config.observation_size)
        farthest = 2 * config.max_position + MAX_NORMAL * config.observation_noise
        parts = {"position": config.max_position, "velocity": config.max_speed, "others": farthest}
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
        """Return bool ``[E, N]``: agents that have not left, in copies whose episode goes on."""
        return self.arrays.alive & self.arrays.running[:, None]

    def _reset(self, mask: Array) -> None:
        s = self.arrays
        kernels.reset(
            mask,
            s.seed,
            s.episode,
            np.float32(self.config.spawn_radius),
            self._target_spread,
            s.body,
            s.alive,
            s.target,
            s.rewards,
            s.returns,
            s.clipped,
        )

    def _step(self, actions: Array) -> Transition:
        s = self.arrays
        rewards, terminated = np.empty(s.alive.shape, np.float32), np.empty(s.alive.shape, bool)
        truncated = np.empty(s.alive.shape, bool)
        kernels.step(
            kernels.ACCELERATIONS[actions] if self._discrete else actions,
            s.seed,
            s.episode,
            s.step,
            s.running,
            *self._rules,
            s.body,
            s.alive,
            s.target,
            s.rewards,
            s.returns,
            s.clipped,
            rewards,
            terminated,
            truncated,
        )
        return Transition(rewards, terminated, truncated)

    def observe(self, out: Array | None = None) -> Array:
        """Return every agent's observation, float32 ``[E, N, D]``; see the class for its parts.

        Raises:
            ValueError: ``out`` is not a C-contiguous float32 array of that shape.
        """
        s = self.arrays
        out = self._observation_array(out)
        kernels.observe(s.seed, s.episode, s.step, *self._sight, s.body, s.target, out)
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
        s, envs = self.arrays, self.num_envs
        metrics: dict[str, Array] = {
            "coordination": np.empty(envs),
            "success": np.empty(envs, np.float32),
            "distance": np.empty(s.alive.shape, np.float32),
            "mean_distance": np.empty(envs),
            "exits": np.empty(envs, np.int32),
            "team_reward": np.empty(envs, np.float32),
            "team_return": np.empty(envs),
            "total_return": np.empty(envs),
        }
        kernels.measure(
            self._task,
            self.config.team_sizes[0],
            s.body,
            s.alive,
            s.target,
            s.rewards,
            s.returns,
            *metrics.values(),
        )
        return metrics | {"agent_return": s.returns.copy(), "clipped_actions": s.clipped.copy()}

    def render(self, index: int = 0, mode: str = "rgb_array") -> Array | str:
        """Return a picture of copy ``index`` (uint8 ``[h, w, 3]``), or text for ``ansi``.

        Raises:
            ValueError: Another mode than ``rgb_array`` or ``ansi``.
        """
        if mode not in ("rgb_array", "ansi"):
            raise ValueError(f"mode: expected rgb_array or ansi, got {mode!r}")
        s = self.arrays
        first = self.team == 0
        scene = viewer.Scene(
            position=s.body[index, :, :2],
            velocity=s.body[index, :, 2:],
            alive=s.alive[index],
            team=self.team,
            target=None if self.config.task == "mixed" else s.target[index],
            out_radius=self.config.out_radius,
            score=float(s.returns[index, first].sum()),
            step=int(s.step[index]),
            max_steps=self.config.max_steps,
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
        sizes = self.config.team_sizes
        return tuple(f"team_{name}_{n}" for name, size in zip("ab", sizes, strict=True) for n in range(size))


def _symmetric_box(bounds: Array) -> gymnasium.spaces.Box:
    high = bounds.astype(np.float32)
    return gymnasium.spaces.Box(-high, high, dtype=np.float32)
