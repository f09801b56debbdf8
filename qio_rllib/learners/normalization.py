"""Running moments of observations, states and discounted returns, for an on-policy Learner."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch

from qio_rllib.learners.common import reduce_over_learners
from qio_rllib.models.actor_critic import ActorCritic
from qio_rllib.models.normalization import NORMALIZE_OBSERVATIONS
from qio_rllib.sampling.discounted_returns import DISCOUNTED_RETURNS, NORMALIZE_REWARDS
from qio_rllib.sampling.rollout import ModuleRollout

Array = np.ndarray
_LEAST_DEVIATION = 1e-4


class RunningMoments:
    """Mean and variance of each number of a row, over all rows of all Learners (Chan et al., 1979), in float64.

    Attributes:
        count: Rows so far.
        mean: Of them, ``[D]``.
        squares: Sum of their squared distances from the mean, ``[D]``.
    """

    def __init__(self) -> None:
        self.count = 0.0
        self.mean: Array = np.zeros(())
        self.squares: Array = np.zeros(())

    @property
    def deviation(self) -> Array:
        """Standard deviation of each number, ``[D]``."""
        return np.sqrt(self.squares / max(self.count, 1.0))

    def add(self, rows: Array) -> None:
        """Take in rows ``[B, D]``; all Learners must call this together."""
        wide = rows.astype(np.float64)
        count = float(reduce_over_learners(torch.tensor([float(len(wide))], dtype=torch.float64)))
        if not count:
            return
        mean = reduce_over_learners(torch.from_numpy(wide.sum(0))).numpy() / count
        squares = reduce_over_learners(torch.from_numpy(((wide - mean) ** 2).sum(0))).numpy()
        total, shift = self.count + count, mean - self.mean
        self.squares = self.squares + squares + shift**2 * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    def get_state(self) -> dict[str, Any]:
        """Return the moments."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over moments."""
        self.count, self.mean, self.squares = state["count"], state["mean"], state["squares"]


@dataclasses.dataclass
class Normalization:
    """What a Learner keeps to normalise by, for each module.

    Rewards are divided by the running deviation of discounted returns, this update's included. The scale of
    observations moves behind an update, so that throughout it the policy is the one that acted.

    Attributes:
        observations: Whether observations and states are normalised.
        rewards: Whether rewards are.
        moments: By what of which module they are.
    """

    observations: bool
    rewards: bool
    moments: dict[tuple[str, str], RunningMoments] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(RunningMoments)
    )

    @classmethod
    def of(cls, config: Any) -> Self | None:
        """Return what a configuration asks for; None for nothing."""
        observations = bool(config.model_config.get(NORMALIZE_OBSERVATIONS))
        rewards = bool(config.learner_config_dict.get(NORMALIZE_REWARDS))
        return cls(observations, rewards) if observations or rewards else None

    def scaled_rewards(self, module_id: str, parts: Sequence[ModuleRollout]) -> list[ModuleRollout]:
        """Return rollouts with normalised rewards; takes in their discounted returns first."""
        if not self.rewards:
            return [*parts]
        moments = self.moments[module_id, "returns"]
        moments.add(_joined([part.columns[DISCOUNTED_RETURNS][part.acted][:, None] for part in parts]))
        deviation = max(float(moments.deviation[0]), _LEAST_DEVIATION)
        return [dataclasses.replace(part, rewards=part.rewards / np.float32(deviation)) for part in parts]

    def reward_deviation(self, module_id: str) -> float | None:
        """Return what rewards are divided by; None where they are not."""
        if not self.rewards:
            return None
        return max(float(self.moments[module_id, "returns"].deviation[0]), _LEAST_DEVIATION)

    def learn(self, module_id: str, module: Any, parts: Sequence[ModuleRollout]) -> None:
        """Take in what was observed, and move the module's scales."""
        if not self.observations or not isinstance(module, ActorCritic):
            return
        scale, state_scale = module.policy.scale, module.value.state_scale
        assert scale is not None
        acted = [part.observations[: part.num_steps][part.acted] for part in parts]
        self._move(module_id, "observations", scale, _joined([rows.reshape(len(rows), -1) for rows in acted]))
        if state_scale is not None:
            seen = [
                part.global_states[: part.num_steps][part.acted.any(axis=-1)]
                for part in parts
                if part.global_states is not None
            ]
            self._move(module_id, "states", state_scale, _joined(seen))

    def _move(self, module_id: str, what: str, scale: Any, rows: Array) -> None:
        moments = self.moments[module_id, what]
        moments.add(rows)
        scale.put(torch.from_numpy(moments.mean), torch.from_numpy(moments.deviation))

    def get_state(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return all moments."""
        return {key: moments.get_state() for key, moments in self.moments.items()}

    def set_state(self, state: Mapping[tuple[str, str], Mapping[str, Any]]) -> None:
        """Take over all moments."""
        self.moments.clear()
        for key, moments in state.items():
            self.moments[key].set_state(moments)


def _joined(arrays: Sequence[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
