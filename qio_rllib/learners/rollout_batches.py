"""`RolloutBatches`: what a Learner makes of `Rollout`s before it takes a step: advantages and value targets."""

from __future__ import annotations

import collections
import dataclasses
import math
from typing import Any

import gymnasium
import torch
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.evaluation.postprocessing import Postprocessing

from qio_rllib.causal.baseline import COUNTERFACTUAL_BASELINE, CounterfactualBaselineSettings
from qio_rllib.causal.influence import INFLUENCE_REWARD, InfluenceSettings
from qio_rllib.learners.common import reduce_over_learners
from qio_rllib.learners.counterfactual_model import CounterfactualModel
from qio_rllib.learners.normalization import Normalization
from qio_rllib.learners.popart import PopArt
from qio_rllib.learners.training_batch import PLAIN_ADVANTAGES, TrainingBatch, batch_of
from qio_rllib.models.actor_critic import ActorCritic
from qio_rllib.models.communication import COMMUNICATION, Communication
from qio_rllib.sampling.influence import INFLUENCE
from qio_rllib.sampling.rollout import ModuleRollout

_POPART_STATE = "popart"
_NORMALIZATION_STATE = "normalization"


class RolloutBatches(TorchLearner):
    """The part of an on-policy Learner that makes a `TrainingBatch` of a module's rollouts.

    Values are computed once, for all observations, from recorded global states where the module's value is central.
    Advantages are standardised over the rows in which an agent acted, over all Learners together (unless
    ``standardize_advantages`` is off), and value targets by `PopArt` (with ``normalize_values``). With
    ``counterfactual_baseline`` advantages are taken against the agent's other actions, with ``influence_reward``
    rewards hold what agents are paid for their influence. Rewards are normalised by `Normalization`.
    """

    def build(self) -> None:
        """Build the Learner, and what rewards, advantages and value targets are measured by."""
        super().build()
        settings = self.config.learner_config_dict
        self._normalizes_values = bool(settings.get("normalize_values"))
        self._counterfactual = CounterfactualBaselineSettings.of(settings.get(COUNTERFACTUAL_BASELINE))
        self._counterfactual_model = CounterfactualModel.of(self.config)
        self._influence = InfluenceSettings.of(settings.get(INFLUENCE_REWARD))
        self._normalization = Normalization.of(self.config)
        self._popart: dict[str, PopArt] = collections.defaultdict(PopArt)
        self.communication = Communication.of(self.config.model_config.get(COMMUNICATION))

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the Learner's state with that of its scales."""
        state = super().get_state(*args, **kwargs)
        if not kwargs.get("inference_only"):
            if self._counterfactual_model is not None:
                state[COUNTERFACTUAL_BASELINE] = self._counterfactual_model.get_state()
            if self._normalization is not None:
                state[_NORMALIZATION_STATE] = self._normalization.get_state()
            if self._normalizes_values:
                state[_POPART_STATE] = {key: scale.get_state() for key, scale in self._popart.items()}
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the Learner and its scales."""
        super().set_state(state)
        if self._counterfactual_model is not None and COUNTERFACTUAL_BASELINE in state:
            self._counterfactual_model.set_state(state[COUNTERFACTUAL_BASELINE])
        if self._normalization is not None and _NORMALIZATION_STATE in state:
            self._normalization.set_state(state[_NORMALIZATION_STATE])
        if _POPART_STATE in state:
            self._popart.clear()
            for module_id, scale in state[_POPART_STATE].items():
                self._popart[module_id].set_state(scale)

    def prepare(
        self, module_id: str, parts: list[ModuleRollout], teams: list[ModuleRollout] | None = None
    ) -> TrainingBatch:
        """Return what a module learns from: rows with advantages and value targets, standardised where asked for.

        Args:
            module_id: The module.
            parts: Its rollouts.
            teams: Those of its team, see `batch_of`.
        """
        config = self.config.get_config_for_module(module_id)
        module = self.module[module_id].unwrapped()
        popart = self._popart[module_id] if self._normalizes_values else None
        if self._normalization is not None:
            parts = self._normalization.scaled_rewards(module_id, parts)
            deviation = self._normalization.reward_deviation(module_id)
            if deviation is not None:
                self.metrics.log_value((module_id, "reward_deviation"), deviation, window=1)
        if self._influence is not None:
            parts = self._with_influence(module_id, parts, self._influence)
        if self._counterfactual_model is not None:
            parts = self._counterfactual_model.with_outcomes(module_id, parts, self._num_actions(module_id))
        batch = batch_of(
            module,
            parts,
            config.gamma,
            config.lambda_,
            popart,
            self._device,
            self._counterfactual,
            teams,
            self.communication is not None,
        )
        columns = batch.columns
        if self._counterfactual is not None:
            self._report_variance(module_id, columns, batch.valid)
        if getattr(config, "standardize_advantages", True):
            columns[Postprocessing.ADVANTAGES] = self._standardized(
                columns[Postprocessing.ADVANTAGES], batch.valid
            )
        if popart is not None and isinstance(module, ActorCritic):
            targets = columns[Postprocessing.VALUE_TARGETS]
            count, first, second = self._moments(targets, batch.valid)
            if count:
                popart.update(first / count, second / count, module.value.last_layer)
            columns[Postprocessing.VALUE_TARGETS] = (targets - popart.mean) / popart.deviation
            for name, value in (("value_mean", popart.mean), ("value_deviation", popart.deviation)):
                self.metrics.log_value((module_id, name), value, window=1)
        return batch

    def _num_actions(self, module_id: str) -> int | None:
        """Return the number of discrete actions; None for continuous ones."""
        space = self.module[module_id].unwrapped().action_space
        return int(space.n) if isinstance(space, gymnasium.spaces.Discrete) else None

    def _with_influence(
        self, module_id: str, parts: list[ModuleRollout], settings: InfluenceSettings
    ) -> list[ModuleRollout]:
        """Return rollouts whose rewards hold the influence reward; report the mean influence in nats a step."""
        values = [torch.from_numpy(part.columns[INFLUENCE][part.acted]) for part in parts]
        count, first, _ = self._moments(torch.cat(values), None)
        self.metrics.log_value((module_id, "influence"), first / max(count, 1.0), window=1)
        return [
            dataclasses.replace(
                part, rewards=part.rewards + settings.added(part.columns[INFLUENCE], part.acted)
            )
            for part in parts
        ]

    def _report_variance(
        self, module_id: str, columns: dict[str, torch.Tensor], valid: torch.Tensor | None
    ) -> None:
        """Report the variance of advantages against that of those without the counterfactual baseline."""
        variances = []
        for name in (Postprocessing.ADVANTAGES, PLAIN_ADVANTAGES):
            count, first, second = self._moments(columns[name], valid)
            variances.append(second / max(count, 1.0) - (first / max(count, 1.0)) ** 2)
        del columns[PLAIN_ADVANTAGES]
        ratio = variances[0] / max(variances[1], 1e-12)
        self.metrics.log_value((module_id, "advantage_variance_ratio"), ratio, window=1)

    def _standardized(self, advantages: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        """Return advantages with mean 0 and standard deviation 1 over all Learners; at least 1e-4 is divided by."""
        count, first, second = self._moments(advantages, valid)
        mean = first / max(count, 1.0)
        deviation = math.sqrt(max(second / max(count, 1.0) - mean * mean, 0.0))
        return (advantages - mean) / max(deviation, 1e-4)

    def _moments(self, rows: torch.Tensor, valid: torch.Tensor | None) -> tuple[float, float, float]:
        """Return number, sum and sum of squares of a column over all Learners."""
        wide = (rows if valid is None else rows[valid]).double()
        sums = torch.stack([torch.tensor(float(wide.numel())).double(), wide.sum(), (wide * wide).sum()])
        count, first, second = reduce_over_learners(sums).tolist()
        return count, first, second
