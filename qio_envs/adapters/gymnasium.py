"""`BatchedGymEnv`: a `BatchedEnv` with one agent as a Gymnasium ``Env``."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from qio_envs.adapters.screen import Screen
from qio_envs.adapters.spaces import agent_observation_space, check_single_agent, observations
from qio_envs.api.batched import BatchedEnv


class BatchedGymEnv(gymnasium.Env):
    """A one-agent `BatchedEnv` with ``num_envs == 1`` as a Gymnasium ``Env``.

    Args:
        batch: An environment with one agent and ``num_envs == 1``.
        render_mode: ``human``, ``rgb_array``, ``ansi`` or None.

    Raises:
        ValueError: Several agents or environments, or an unknown render mode.
    """

    def __init__(self, batch: BatchedEnv, render_mode: str | None = None) -> None:
        check_single_agent(batch)
        if batch.num_envs != 1:
            raise ValueError(f"num_envs: a Gymnasium Env is a single environment, got {batch.num_envs}")
        self.batch = batch
        self.render_mode = render_mode
        self.metadata = {"render_modes": list(batch.render_modes), "render_fps": batch.render_fps}
        self.observation_space = agent_observation_space(batch)
        self.action_space = batch.action_space
        self._screen = Screen(batch, render_mode)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; without a seed, the next episode of the last one."""
        super().reset(seed=seed)
        self.batch.reset(None if seed is None else [seed])
        self._screen.show_if_human()
        return observations(self.batch)[0], self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Advance one step.

        Raises:
            InvalidActionError: The action does not fit.
            ResetNeededError: The episode has ended.
        """
        rewards, terminated, truncated = self.batch.step(np.asarray(action)[None, None])
        self._screen.show_if_human()
        return (
            observations(self.batch)[0],
            float(rewards[0, 0]),
            bool(terminated[0, 0]),
            bool(truncated[0, 0]),
            self._info(),
        )

    def render(self) -> Any:
        """Return a frame (uint8 ``[h, w, 3]``), text, or None, by ``render_mode``."""
        return self._screen.render()

    def close(self) -> None:
        """Close the window, if any."""
        self._screen.close()

    def _info(self) -> dict[str, Any]:
        return {key: values[0].item() for key, values in self.batch.info().items()}
