"""`BatchedParallelEnv`: a `BatchedEnv` as a PettingZoo ``ParallelEnv`` (AEC through PettingZoo's own converter)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from pettingzoo import ParallelEnv

from qio_envs.adapters.screen import Screen
from qio_envs.adapters.spaces import agent_observation_space, observations
from qio_envs.api.batched import Array, BatchedEnv
from qio_envs.api.config import EnvConfig, did_you_mean
from qio_envs.api.errors import InvalidActionError


class BatchedParallelEnv(ParallelEnv):
    """A `BatchedEnv` with ``num_envs == 1`` as a PettingZoo ``ParallelEnv``.

    Observations are arrays, or dictionaries with ``observation`` and ``action_mask`` where the environment
    has masks. An agent that has ended is absent from the next step on; its last observation is in the step
    that ended it. ``reset()`` without a seed goes on to the next episode of the last seed. ``deepcopy``,
    ``pickle`` and `get_state` / `set_state` give an exact copy for planning.

    Infos hold the metrics of `BatchedEnv.info`: those of the whole environment (``[E]``) are the same for all agents,
    of those by agent (``[E, N]``) each agent has its own.

    Args:
        batch: An environment with ``num_envs == 1``.
        render_mode: ``human``, ``rgb_array``, ``ansi`` or None.

    Raises:
        ValueError: More than one environment, or an unknown render mode.
    """

    def __init__(self, batch: BatchedEnv, render_mode: str | None = None) -> None:
        if batch.num_envs != 1:
            raise ValueError(
                f"num_envs: a PettingZoo environment is a single environment, got {batch.num_envs}"
            )
        self.batch = batch
        self.render_mode = render_mode
        self.metadata = {
            "name": batch.id,
            "render_modes": list(batch.render_modes),
            "render_fps": batch.render_fps,
            "is_parallelizable": True,
        }
        self.possible_agents = list(batch.possible_agents)
        self.state_space = batch.state_space
        space = agent_observation_space(batch)
        self.observation_spaces: dict[str, gymnasium.Space] = dict.fromkeys(self.possible_agents, space)
        self.action_spaces: dict[str, gymnasium.Space] = dict.fromkeys(
            self.possible_agents, batch.action_space
        )
        self._index = {agent: index for index, agent in enumerate(self.possible_agents)}
        self._action_shape = batch.action_space.shape or ()
        self._action_kinds = "iu" if isinstance(batch.action_space, gymnasium.spaces.Discrete) else "iuf"
        self._set_agents([])
        self._screen = Screen(batch, render_mode)
        self._began = False

    @property
    def config(self) -> EnvConfig:
        """The environment's resolved settings."""
        return self.batch.config

    def observation_space(self, agent: str) -> gymnasium.Space:
        """Return the space of one agent's observations."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gymnasium.Space:
        """Return the space of one agent's actions."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Start an episode; return observations and infos by agent.

        Args:
            seed: 0 to 2**64 - 1; without it, the next episode of the last seed.
            options: Not used.
        """
        self.batch.reset(None if seed is None else [seed])
        self._began = True
        self._set_agents(list(self.possible_agents))
        self._screen.show_if_human()
        return self._by_agent(observations(self.batch)), self._infos()

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Advance one step with an action for every living agent.

        Actions of agents that have ended are ignored. A refused action changes nothing. Where the episode has ended,
        no actions (``{}``) are a step in which nothing happens.

        Raises:
            InvalidActionError: An agent without action, an unknown agent, or an action that does not fit.
            ResetNeededError: The episode has ended.
        """
        if not self.agents and self._began and isinstance(actions, Mapping) and not actions:
            return {}, {}, {}, {}, {}
        given, ended, cut = self.batch.step(self._action_array(actions))
        seen, rewards = self._by_agent(observations(self.batch)), self._by_agent(given.tolist()[0])
        infos, flags = self._infos(), (ended.tolist()[0], cut.tolist()[0])
        if True in flags[0] or True in flags[1]:
            terminated, truncated = self._by_agent(flags[0]), self._by_agent(flags[1])
            self._set_agents([agent for agent in self.agents if not (terminated[agent] or truncated[agent])])
        else:
            terminated, truncated = self._none.copy(), self._none.copy()
        self._screen.show_if_human()
        return seen, rewards, terminated, truncated, infos

    def state(self) -> Array:
        """Return the global state, float32, in ``state_space``."""
        return self.batch.state()[0]

    def get_state(self) -> dict[str, Array]:
        """Return a copy of the whole state; `set_state` continues from it exactly."""
        return self.batch.get_state()

    def set_state(self, state: Mapping[str, Array]) -> None:
        """Continue from a state of `get_state` of an environment with the same settings.

        Raises:
            ValueError: As `BatchedEnv.set_state`.
        """
        self.batch.set_state(state)
        self._began = True
        alive = self.batch.agents_alive()[0]
        self._set_agents([agent for agent, lives in zip(self.possible_agents, alive, strict=True) if lives])

    def render(self) -> Array | str | None:
        """Return a frame (uint8 ``[h, w, 3]``), text, or None, by ``render_mode``."""
        return self._screen.render()

    def close(self) -> None:
        """Close the window, if any."""
        self._screen.close()

    def _action_array(self, actions: Mapping[str, Any]) -> Array:
        """Return the actions as the batch takes them, ``[1, N, ...]``; the rows of ended agents are 0."""
        if type(actions) is dict and list(actions) == self.possible_agents == self.agents:
            rows = list(actions.values())
        else:
            rows = self._rows(actions)
        try:
            array = np.array([rows])
        except (ValueError, TypeError, OverflowError):
            array = np.array(None)
        if array.dtype.kind not in self._action_kinds or array.shape[2:] != self._action_shape:
            self._refuse(rows)
        return array

    def _rows(self, actions: Mapping[str, Any]) -> list[Any]:
        """Return the actions in the order of ``possible_agents``, 0 for ended agents."""
        if not isinstance(actions, Mapping):
            raise InvalidActionError(f"actions: expected a dictionary by agent, got {type(actions).__name__}")
        space, living = self.batch.action_space, self._none
        if actions.keys() != living.keys():
            for agent in actions:
                if agent not in self._index:
                    raise InvalidActionError(
                        f"action of unknown agent '{agent}'{did_you_mean(agent, self._index)}; "
                        f"allowed: {', '.join(self.agents)}"
                    )
            missing = [agent for agent in self.agents if agent not in actions]
            if missing:
                raise InvalidActionError(f"no action for {', '.join(missing)}")
        idle = np.zeros(self._action_shape, space.dtype)
        return [actions[agent] if agent in living else idle for agent in self.possible_agents]

    def _refuse(self, rows: list[Any]) -> None:
        """Name the agent whose action has the wrong type or shape."""
        space, shape = self.batch.action_space, self._action_shape
        for agent, row in zip(self.possible_agents, rows, strict=True):
            try:
                value = np.asarray(row)
            except ValueError:
                value = np.array(None)
            if isinstance(space, gymnasium.spaces.Discrete):
                allowed = f"an integer from 0 to {int(space.n) - 1}"
            else:
                allowed = f"numbers of shape {shape}"
            if value.dtype.kind not in self._action_kinds or value.shape != shape:
                raise InvalidActionError(f"action of {agent}: expected {allowed}, got {row!r}")
        raise InvalidActionError("actions: no common numeric type holds all of them")

    def _set_agents(self, agents: list[str]) -> None:
        self.agents = agents
        self._none = dict.fromkeys(agents, False)

    def _by_agent(self, rows: list[Any]) -> dict[str, Any]:
        """Return what there is for all possible agents by the names of the living ones."""
        agents = self.agents
        if len(agents) != len(rows):
            rows = [rows[self._index[agent]] for agent in agents]
        return dict(zip(agents, rows))  # noqa: B905  # they are as many; a check takes time

    def _infos(self) -> dict[str, dict[str, Any]]:
        """Give every living agent the episode's metrics as Python numbers."""
        shared: dict[str, Any] = {}
        own: dict[str, list[Any]] = {}
        for key, values in self.batch.info().items():
            if values.ndim == 1:
                shared[key] = values.item()
            else:
                own[key] = values.tolist()[0]
        infos = self._by_agent([shared.copy() for _ in self.possible_agents])
        for key, row in own.items():
            if len(infos) == len(row):
                for info, value in zip(infos.values(), row):  # noqa: B905
                    info[key] = value
            else:
                for agent, info in infos.items():
                    info[key] = row[self._index[agent]]
        return infos
