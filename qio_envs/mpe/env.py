"""What the particle environments have in common: the contract, written once for all tasks."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import gymnasium
import numpy as np

from qio_envs.api import Array, BatchedEnv, Limits, Transition
from qio_envs.api.kernels import Kernel
from qio_envs.mpe import kernels, viewer
from qio_envs.mpe.config import ParticleConfig
from qio_envs.mpe.state import ParticleState, World


class ParticleEnv(BatchedEnv[ParticleConfig, ParticleState]):
    """Agents and landmarks are discs in the plane; agents push themselves, push each other away, and may speak.

    The tasks of the multi-agent particle environments (Lowe et al., 2017; Mordatch and Abbeel, 2018), over a batch. For
    the same start and actions, observations, rewards and motion are those of the package mpe2 (1.1) within rounding
    errors of float32, with its settings at their defaults where there is no setting here.

    **Dynamics**, in float64, with time step h = 0.1 and masses of 1: each step, x = x + h v, then
    v = 0.75 v + h (u + f), where u is the agent's push and f what contacts add; where the task has a speed limit, a
    greater speed is cut to it. A push so shows in the position two steps later. Two entities that collide in the task
    push each other away with the force 100 m log(1 + exp((r - d) / m)), with d their distance, r the sum of their radii
    and m = 0.001. (A force below 1e-22 counts as none, and discs at the very same point do not push each other, where
    mpe2 divides by zero.) There are no walls.

    **Start**: agents uniform in the square [-1, 1]^2 at rest, landmarks too unless the task says otherwise.

    **Actions** (``continuous_actions: false``): ``Discrete``, for an agent that moves: 0 none, 1 left, 2 right, 3 down,
    4 up. An agent that only speaks says the symbol of that number. One that does both has 5 actions for each symbol:
    move + 5 symbol.

    **Actions** (``continuous_actions: true``): ``Box(0, 1, (A,))``; numbers outside are clipped. For an agent that
    moves [unused, left, right, down, up], of which opposites are subtracted; then, or alone, its message, number by
    number, for an agent that speaks.

    **Roles**: all agents share one observation and one action space, those of the largest. The attributes
    ``observation_sizes`` and ``action_sizes`` (a number for each agent) say what is an agent's own: an observation has
    zeros behind its first ``observation_sizes[n]`` numbers; discrete actions from ``action_sizes[n]`` on are masked
    (taken all the same, they are as 0), and continuous numbers from there on are ignored. Where all have equally many
    discrete actions there is no mask.

    **Messages** are heard in the observation after the step in which they are sent.

    **Ends**: all agents are truncated after ``max_steps``; nobody terminates.

    **State** for a critic: float32: positions of all entities (agents first), velocities of the agents, messages of
    the agents, a one for each goal's landmark among zeros, and the time left (1 at reset, 0 at the time limit). The
    slices are in ``state_layout``.

    **Info**: ``team_return``, the score: the sum of the returns of the agents that the task names; by agent,
    ``[E, N]``, ``agent_return``; and, ``[E]``, what the task names besides. Before the first step all are 0.

    **Scripted policies**: ``random``; one or two others that the task names; ``oracle``, which plays the agents whose
    returns are the score, knows everything, and leaves random play to everybody else.
    """

    sums: ClassVar[tuple[str, ...]] = ()
    """Metrics that are summed over the steps of an episode: the first columns of the tally."""
    means: ClassVar[tuple[str, ...]] = ()
    """Metrics that are averaged over the steps of an episode: the columns of the tally after those."""

    functions: ClassVar[tuple[Any, Any]]
    """The task's two numba functions: of its rewards and of its observations."""

    def __init__(self, config: ParticleConfig, num_envs: int = 1) -> None:
        super().__init__(config, num_envs)
        self.world = self._build()
        """The entities, agents first: radii, which move, speak and collide, limits."""
        self.possible_agents = self._names()
        hunters = self.world.adversaries
        if hunters:
            self.teams = (self.possible_agents[:hunters], self.possible_agents[hunters:])
        self.observation_sizes = self._observation_sizes()
        """How many numbers of its observation are each agent's own; the rest is 0."""
        self.action_sizes = tuple(self.world.action_sizes.tolist())
        """How many discrete actions, or numbers of a continuous one, each agent has."""
        self.scored = self._scored()
        """The agents whose returns are the score."""
        size = max(self.action_sizes)
        if config.continuous_actions:
            self.action_space = gymnasium.spaces.Box(0.0, 1.0, (size,), np.float32)
        else:
            self.action_space = gymnasium.spaces.Discrete(size)
            self.has_action_mask = min(self.action_sizes) < size
        self.observation_space = _unbounded(max(self.observation_sizes))
        self.state_layout = self._state_layout()
        """Where each part of the global state lies, by name."""
        self.state_space = _unbounded(self.state_layout["time_left"].stop)
        self.arrays = ParticleState.empty(self.num_envs, self.world, len(self.sums) + len(self.means))
        self._metrics = ("agent_return", "team_return", *self.sums, *self.means)
        self._counted = self.scored.indices(self.num_agents)[
            :2
        ]  # the first and after the last whose returns are added
        self._reward_kernel, self._observe_kernel = (Kernel(function) for function in self.functions)
        self._reset_kernel, self._measure_kernel = Kernel(kernels.reset), Kernel(kernels.measure)
        self._step_kernel = Kernel(
            kernels.step_continuous if config.continuous_actions else kernels.step_discrete
        )

    # -- what a task implements, besides its two kernels ------------------------------------------------------

    @abc.abstractmethod
    def _build(self) -> World:
        """Return the world of the present settings."""

    @abc.abstractmethod
    def _names(self) -> tuple[str, ...]:
        """Return the names of the agents, mpe2's."""

    @abc.abstractmethod
    def _observation_sizes(self) -> tuple[int, ...]:
        """Return how many numbers each agent observes."""

    def _scored(self) -> slice:
        """Return the agents whose returns are the score: all, or those that are no adversaries."""
        return slice(self.world.adversaries, None)

    def _rewards(self, rewards: Array) -> None:
        """Write the rewards of the step just made to float32 ``[E, N]``; add to returns and tally."""
        self._reward_kernel(self.arrays, self.world, rewards)

    def _write_observations(self, out: Array) -> None:
        """Write what all agents observe to float32 ``[E, N, D]``."""
        self._observe_kernel(self.arrays, self.world, out)

    def landmark_colours(self, index: int) -> Array:
        """Return the colours of the landmarks of environment ``index`` in pictures, float32 ``[M - N, 3]``."""
        return np.repeat(viewer.LANDMARK[None], len(self.world.radius) - self.num_agents, axis=0)

    def aims(self, index: int) -> tuple[tuple[int, int], ...]:
        """Return what pictures of environment ``index`` mark: landmarks by number, each after the agent for whom it is.

        The agent is -1 where it is for nobody alone.
        """
        return tuple((-1, goal) for goal in self.arrays.goal[index].tolist())

    # -- the contract ---------------------------------------------------------------------------------------

    def state_limits(self) -> Limits:
        """Return what `set_state` takes, by array; see `ParticleState`."""
        return ParticleState.limits(self.world)

    def _reset(self, mask: Array) -> None:
        self._reset_kernel(mask, self.arrays, self.world)

    def _step(self, actions: Array) -> Transition:
        shape = (self.num_envs, self.num_agents)
        transition = Transition(np.empty(shape, np.float32), np.empty(shape, bool), np.empty(shape, bool))
        self._step_kernel(actions, self.arrays, self.world, transition.terminated, transition.truncated)
        self._rewards(transition.rewards)
        return transition

    def observe(self, out: Array | None = None) -> Array:
        """Return every agent's observation, float32 ``[E, N, D]``; see the task for its parts.

        Raises:
            ValueError: ``out`` is not a C-contiguous float32 array of that shape.
        """
        out = self._observation_array(out)
        self._write_observations(out)
        return out

    def action_mask(self) -> Array:
        """Return which actions each agent has, int8 ``[E, N, A]`` of 0 and 1; the same at every step.

        Raises:
            TypeError: Actions are continuous.
        """
        mask = super().action_mask()
        if self.has_action_mask:
            for n, size in enumerate(self.action_sizes):
                mask[:, n, size:] = 0
        return mask

    def state(self) -> Array:
        """Return the global state, float32 ``[E, *state_space.shape]``; see the class."""
        s, layout = self.arrays, self.state_layout
        out = np.zeros((self.num_envs, layout["time_left"].stop), np.float32)
        for name in ("position", "velocity", "message"):
            out[:, layout[name]] = getattr(s, name).reshape(self.num_envs, -1)
        rows, first = np.arange(self.num_envs), layout["goal"].start
        for g, choices in enumerate(self.world.goal_choices.tolist()):
            out[rows, first + s.goal[:, g]] = 1
            first += choices
        out[:, -1] = 1 - s.step / self.config.max_steps
        return out

    def info(self) -> dict[str, Array]:
        """Return the metrics of the episode so far, ``[E]`` or ``[E, N]``; see the class and the task."""
        rows = np.empty((len(self._metrics) - 1, self.num_envs))
        self._measure_kernel(self.arrays, *self._counted, len(self.sums), rows)
        return dict(zip(self._metrics, (self.arrays.returns.copy(), *rows), strict=True))

    def render(self, index: int = 0, mode: str = "rgb_array") -> Array | str:
        """Return a picture of environment ``index`` (uint8 ``[h, w, 3]``), or text for ``ansi``.

        Raises:
            ValueError: Another mode than ``rgb_array`` or ``ansi``.
        """
        if mode not in ("rgb_array", "ansi"):
            raise ValueError(f"mode: expected rgb_array or ansi, got {mode!r}")
        s, world = self.arrays, self.world
        scene = viewer.Scene(
            position=s.position[index],
            velocity=s.velocity[index],
            radius=world.radius,
            adversary=np.arange(self.num_agents) < world.adversaries,
            movable=world.movable,
            solid=np.isin(np.arange(len(world.radius)), world.colliders),
            landmark_colour=self.landmark_colours(index),
            aims=self.aims(index),
            messages={n: s.message[index, n] for n in np.flatnonzero(world.speaks).tolist()},
            names=self.possible_agents,
            score=float(self.info()["team_return"][index]),
            step=int(s.step[index]),
            max_steps=self.config.max_steps,
            told=None if self.shown_messages is None else self.shown_messages[index],
        )
        return viewer.draw_text(scene) if mode == "ansi" else viewer.draw(scene)

    def _state_layout(self) -> dict[str, slice]:
        world, agents = self.world, len(self.world.movable)
        sizes = {
            "position": 2 * len(world.radius),
            "velocity": 2 * agents,
            "message": agents * world.symbols,
            "goal": int(world.goal_choices.sum()),
            "time_left": 1,
        }
        layout, start = {}, 0
        for name, size in sizes.items():
            layout[name] = slice(start, start + size)
            start += size
        return layout


def _unbounded(size: int) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
