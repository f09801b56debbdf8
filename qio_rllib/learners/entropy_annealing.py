"""Entropy annealing inside an RLlib Learner."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import gymnasium
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.utils.lambda_defaultdict import LambdaDefaultDict

from qio_envs.api import ConfigError
from qio_rllib.acting.distributions import Distributions
from qio_rllib.exploration import Annealing, make_annealing, normalized_entropy

_STATE_KEY = "entropy_annealing"


class AnnealedEntropy:
    """Mixin for a torch Learner whose loss takes its entropy coefficient from a scheduler; first among the bases.

    An update is one call of ``Learner.update`` (all epochs and minibatches of one batch). At its end the mean
    normalised entropy H of the policy over those minibatches, loss masks respected and joined across learners, is
    logged as ``normalized_entropy``; with ``learner_config_dict["entropy_annealing"]`` set it also drives the
    annealing law, and the coefficient for the next update is logged as ``alpha``. The law's state is part of the
    Learner's state and so of every checkpoint.
    """

    def build(self) -> None:
        """Build the Learner and put the annealing laws where its schedulers were."""
        super().build()  # type: ignore[misc]
        # Per module: sum of normalised entropies, number of rows.
        self._entropy_sums: dict[str, list[Any]] = defaultdict(lambda: [0.0, 0.0])
        settings = self.config.learner_config_dict.get("entropy_annealing")  # type: ignore[attr-defined]
        self._annealed = settings is not None
        if self._annealed:
            self.entropy_coeff_schedulers_per_module = LambdaDefaultDict(
                lambda _: _AnnealedCoefficient(settings)
            )

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> torch.Tensor:
        """Return the algorithm's loss; measure the policy's entropy on the way."""
        loss = super().compute_loss_for_module(  # type: ignore[misc]
            module_id=module_id, config=config, batch=batch, fwd_out=fwd_out
        )
        module = self.module[module_id].unwrapped()  # type: ignore[attr-defined]
        if isinstance(module.action_space, gymnasium.spaces.Discrete):
            self._measure_entropy(module_id, module, batch, fwd_out[Columns.ACTION_DIST_INPUTS])
        elif self._annealed:
            raise ConfigError(
                f"entropy_annealing: needs a Discrete action space, module '{module_id}' has {module.action_space}"
            )
        return loss

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Move the annealing laws by the entropy of this update, and log it."""
        for module_id, sums in self._entropy_sums.items():
            entropy = _mean_across_learners(sums)
            self.metrics.log_value((module_id, "normalized_entropy"), entropy, window=1)  # type: ignore[attr-defined]
            if self._annealed:
                self.entropy_coeff_schedulers_per_module[module_id].entropy = entropy
        self._entropy_sums.clear()
        super().after_gradient_based_update(timesteps=timesteps)  # type: ignore[misc]
        if self._annealed:
            for module_id, scheduler in self.entropy_coeff_schedulers_per_module.items():
                self.metrics.log_value((module_id, "alpha"), scheduler.get_current_value(), window=1)  # type: ignore[attr-defined]

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the Learner's state with that of the annealing laws."""
        state = super().get_state(*args, **kwargs)  # type: ignore[misc]
        if self._annealed:
            state[_STATE_KEY] = {
                module_id: scheduler.law.get_state()
                for module_id, scheduler in self.entropy_coeff_schedulers_per_module.items()
            }
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the Learner and the annealing laws."""
        super().set_state(state)  # type: ignore[misc]
        if self._annealed:
            for module_id, law_state in state.get(_STATE_KEY, {}).items():
                self.entropy_coeff_schedulers_per_module[module_id].law.set_state(law_state)

    def record_entropy(self, module_id: str, policy: Distributions, legal: torch.Tensor | None) -> None:
        """Take in the entropy of a minibatch of discrete policies.

        Args:
            module_id: Whose they are.
            policy: Distributions over ``A`` actions, ``[B]`` of them.
            legal: Number of legal actions, ``[B]``; None for all.
        """
        with torch.no_grad():
            entropy = policy.entropy()
            count = policy.probs.shape[-1] if legal is None else legal.clamp_min(2)
            scaled = entropy / (
                math.log(max(count, 2)) if isinstance(count, int) else count.to(entropy).log()
            )
            sums = self._entropy_sums[module_id]
            sums[0] = sums[0] + scaled.sum(dtype=torch.float64)
            sums[1] += scaled.numel()

    def _measure_entropy(
        self, module_id: str, module: Any, batch: dict[str, Any], dist_inputs: torch.Tensor
    ) -> None:
        with torch.no_grad():
            mask = module.split_mask(batch)[1] if hasattr(module, "split_mask") else None
            entropy = normalized_entropy(torch.log_softmax(dist_inputs, dim=-1), mask)
            valid = batch.get(Columns.LOSS_MASK)
            if valid is not None:
                entropy = entropy[valid]
            sums = self._entropy_sums[module_id]
            sums[0] = sums[0] + entropy.sum(dtype=torch.float64)
            sums[1] += entropy.numel()


class _AnnealedCoefficient:
    """An annealing law in the shape of RLlib's ``Scheduler``: the Learner reads its value and updates it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        law = make_annealing(settings)
        assert law is not None
        self.law: Annealing = law
        self.entropy: float | None = None

    def get_current_value(self) -> float:
        return self.law.alpha

    def update(self, timestep: int) -> float:
        if self.entropy is not None:  # None: the module took no part in this update
            self.law.update(self.entropy)
            self.entropy = None
        return self.law.alpha


def _mean_across_learners(sums: list[Any]) -> float:
    totals = torch.tensor([float(sums[0]), float(sums[1])], dtype=torch.float64)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(totals)
    return float(totals[0] / totals[1])
