"""`BatchedVectorEnv`: a `BatchedEnv` with one agent as a Gymnasium ``VectorEnv``."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from qio_envs.adapters.spaces import agent_observation_space, check_single_agent
from qio_envs.api.batched import Array, BatchedEnv


class BatchedVectorEnv(gymnasium.vector.VectorEnv):
    """All environments of a one-agent `BatchedEnv` as a Gymnasium ``VectorEnv``.

    Environments that end are reset in the same step (``AutoresetMode.SAME_STEP``): the returned observation is the
    new episode's, and ``infos["final_obs"]`` and ``infos["final_info"]`` hold the last ones of the old
    episode.

    Args:
        batch: An environment with one agent.
        render_mode: ``rgb_array`` or None.

    Raises:
        ValueError: Several agents, or an unknown render mode.
    """

    def __init__(self, batch: BatchedEnv, render_mode: str | None = None) -> None:
        check_single_agent(batch)
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode: expected rgb_array or None, got {render_mode!r}")
        self.batch = batch
        self.num_envs = batch.num_envs
        self.render_mode = render_mode
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": batch.render_fps,
            "autoreset_mode": AutoresetMode.SAME_STEP,
        }
        self.single_observation_space = agent_observation_space(batch)
        self.single_action_space = batch.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every environment.

        Args:
            seed: One integer ``s`` for ``s, s + 1, ...``, or one per environment, None for the next episode.
            options: ``reset_mask`` (bool ``[E]``) restricts the reset to some environments.
        """
        mask = None if options is None else options.get("reset_mask")
        if isinstance(seed, list) and None in seed:  # None: the next episode of that environment's last seed
            chosen = np.ones(self.num_envs, bool) if mask is None else np.asarray(mask, bool)
            seeded = np.array([value is not None for value in seed])
            self.batch.reset([value or 0 for value in seed], mask=chosen & seeded)
            self.batch.reset(mask=chosen & ~seeded)
        else:
            self.batch.reset(seed, mask=mask)  # type: ignore[arg-type]
        return self._observations(), self._infos()

    def step(self, actions: Any) -> tuple[Any, Array, Array, Array, dict[str, Any]]:
        """Advance every environment; rewards float64 ``[E]``, terminated and truncated bool ``[E]``."""
        transition = self.batch.step(np.asarray(actions)[:, None])
        rewards, terminated, truncated = (array[:, 0] for array in transition)
        infos = self._infos()
        ended = ~self.batch.running
        if ended.any():
            rows, final = self._observations(), np.full(self.num_envs, None, object)
            for index in np.flatnonzero(ended):
                if isinstance(rows, dict):
                    final[index] = {key: value[index] for key, value in rows.items()}
                else:
                    final[index] = rows[index]
            final_info = infos | {key: ended.copy() for key in infos if key.startswith("_")}
            self.batch.reset(mask=ended)
            infos = self._infos() | {"final_obs": final, "final_info": final_info}
            infos |= {"_final_obs": ended.copy(), "_final_info": ended.copy()}
        return self._observations(), rewards.astype(np.float64), terminated, truncated, infos

    def render(self) -> tuple[Any, ...] | None:
        """Return one frame per environment."""
        if self.render_mode is None:
            return None
        return tuple(self.batch.render(index) for index in range(self.num_envs))

    def _observations(self) -> Any:
        values = self.batch.observe()[:, 0]
        if not self.batch.has_action_mask:
            return values
        return {"observation": values, "action_mask": self.batch.action_mask()[:, 0]}

    def _infos(self) -> dict[str, Any]:
        present = np.ones(self.num_envs, bool)
        infos: dict[str, Any] = {}
        for key, values in self.batch.info().items():
            infos[key] = values if values.ndim == 1 else values[:, 0]
            infos[f"_{key}"] = present.copy()
        return infos
