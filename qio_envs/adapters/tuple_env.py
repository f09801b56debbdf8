"""`TupleEnv`: a PettingZoo parallel environment as a Gymnasium environment of several agents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from pettingzoo import ParallelEnv


class TupleEnv(gymnasium.Env):
    """A parallel environment in the form of level-based foraging and EPyMARL's loop (Papoudakis et al., 2021).

    Spaces are Tuples with a part for each agent, observations tuples, rewards a list of floats, and one pair of flags
    ends the episode for all: it has terminated where no agent is left and none was truncated last. An agent that has
    ended observes zeros and earns 0, and its actions are ignored. The info is that of the first agent that has one.

    Args:
        env: The environment.

    Attributes:
        env: That environment.
        n_agents: How many agents there are.
    """

    def __init__(self, env: ParallelEnv) -> None:
        self.env: Any = env
        self.agents = list(env.possible_agents)
        self.n_agents = len(self.agents)
        self.observation_space = gymnasium.spaces.Tuple(
            [env.observation_space(agent) for agent in self.agents]
        )
        self.action_space = gymnasium.spaces.Tuple([env.action_space(agent) for agent in self.agents])
        self.render_mode = getattr(env, "render_mode", None)
        self.metadata = getattr(env, "metadata", {})

    def reset(
        self, *, seed: int | None = None, options: dict | None = None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Start an episode; return all agents' observations and an info."""
        super().reset(seed=seed)
        observations, infos = self.env.reset(seed=seed, options=options)
        return self._all(observations), _first(infos)

    def step(  # type: ignore[override]  # rewards are a list, as such environments give them
        self, actions: Sequence[Any]
    ) -> tuple[tuple[Any, ...], list[float], bool, bool, dict[str, Any]]:
        """Advance one step with an action for every agent.

        Raises:
            ValueError: Another number of actions.
        """
        if len(actions) != self.n_agents:
            raise ValueError(f"actions: expected one for each of {self.n_agents} agents, got {len(actions)}")
        chosen = dict(zip(self.agents, actions, strict=True))
        living = list(self.env.agents)
        observations, rewards, _, truncated, infos = self.env.step({agent: chosen[agent] for agent in living})
        over = not self.env.agents
        cut = over and any(truncated.values())
        gains = [float(rewards.get(agent, 0.0)) for agent in self.agents]
        return self._all(observations), gains, over and not cut, cut, _first(infos)

    def render(self) -> Any:
        """Return what the environment renders."""
        return self.env.render()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _all(self, observations: dict[Any, Any]) -> tuple[Any, ...]:
        return tuple(
            observations[agent] if agent in observations else _zeros(self.env.observation_space(agent))
            for agent in self.agents
        )


def _first(infos: dict[Any, dict[str, Any]] | None) -> dict[str, Any]:
    return dict(next(iter((infos or {}).values()), {}))


def _zeros(space: gymnasium.Space) -> Any:
    """Return an observation of zeros of a Box, or of a Dict of such."""
    if isinstance(space, gymnasium.spaces.Dict):
        return {key: _zeros(inner) for key, inner in space.items()}
    return np.zeros(space.shape or (), space.dtype)
