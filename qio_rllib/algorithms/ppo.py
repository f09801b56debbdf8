"""PPO with the Q operator in its policy and entropy annealing in its loss."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from ray.rllib.algorithms.ppo import PPO as RLlibPPO
from ray.rllib.algorithms.ppo import PPOConfig as RLlibPPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.evaluation.postprocessing import Postprocessing

from qio_rllib.acting.distributions import Distributions
from qio_rllib.algorithms.capabilities import Capabilities
from qio_rllib.algorithms.checkpoints import CheckpointedAlgorithm
from qio_rllib.algorithms.config import ExploringConfig
from qio_rllib.fused.losses import Terms
from qio_rllib.learners.common import Stats, loss_by_kernel
from qio_rllib.learners.on_policy import OnPolicyLearner
from qio_rllib.models.actor_critic import ActorCritic
from qio_rllib.sampling.runner import BatchedEnvRunner

_KL_STATE = "kl_coefficients"


class PPOConfig(ExploringConfig, RLlibPPOConfig):
    """RLlib's ``PPOConfig`` (Schulman et al., 2017) plus what `ExploringConfig` adds, on `BatchedEnvRunner`.

    The training steps are those of RLlib's ``PPO``: runner, module and Learner are plug-ins.
    ``env_runners(env_runner_cls=None)`` brings RLlib's own runner back; the Learner takes its episodes too.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        product_actions=True,
        several_learners=True,
        central_value=True,
        normalize_values=True,
        normalize_observations=True,
        normalize_rewards=True,
        amplification=True,
        entropy_annealing=True,
        circuit=True,
        coordination=True,
        imagination=True,
        counterfactual_baseline=True,
        interventional_consistency=True,
        influence_reward=True,
        team_reward=True,
        self_play=True,
        opponent_model=True,
        communication=True,
        rllib_runner=True,
    )

    has_team_value = True

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or PPO)
        self.rl_module(rl_module_spec=RLModuleSpec(module_class=ActorCritic))
        self.env_runners(env_runner_cls=BatchedEnvRunner)
        self.learners(learner_class=PPOLearner)


class PPO(CheckpointedAlgorithm, RLlibPPO):
    """RLlib's ``PPO`` with `PPOConfig` as its default, so that Tune's name "PPO" takes plain dictionaries with it."""

    @classmethod
    def get_default_config(cls) -> PPOConfig:
        """Return the default configuration."""
        return PPOConfig()


class PPOLearner(OnPolicyLearner, PPOTorchLearner):
    """PPO over `Rollout`s, and RLlib's own over episodes; with an annealed entropy coefficient.

    Its state holds the KL coefficients, which RLlib's does not. Also fits a stock ``PPOConfig`` as ``learner_class``.
    """

    def losses(
        self,
        module_id: str,
        config: Any,
        batch: dict[str, torch.Tensor],
        policy: Distributions,
        values: torch.Tensor,
    ) -> tuple[torch.Tensor, Stats]:
        """Return the clipped surrogate loss with value, entropy and KL terms (Schulman et al., 2017, eq. 7 to 9)."""
        terms = Terms(
            clip=config.clip_param,
            entropy=float(self.entropy_coefficients.current(module_id)),
            value=config.vf_loss_coeff if config.use_critic else None,
            value_clip=config.vf_clip_param,
            divergence=float(self.curr_kl_coeffs_per_module[module_id]) if config.use_kl_loss else None,
        )
        found = loss_by_kernel(terms, batch, policy, values)
        if found is not None:
            stats: Stats = {"policy_loss": -found.gain, "entropy": found.entropy}
            if config.use_critic:
                stats |= {"vf_loss": found.error, "vf_loss_unclipped": found.error_unclipped}
            if config.use_kl_loss:
                stats["mean_kl_loss"] = found.divergence
            return found.loss, stats
        advantages = batch[Postprocessing.ADVANTAGES]
        ratio = torch.exp(policy.logp(batch[Columns.ACTIONS]) - batch[Columns.ACTION_LOGP])
        clipped = ratio.clamp(1 - config.clip_param, 1 + config.clip_param)
        gain = torch.min(advantages * ratio, advantages * clipped).mean()
        entropy = policy.entropy().mean()
        coefficient = self.entropy_coefficients.current(module_id)
        loss = -gain - coefficient * entropy
        stats = {"policy_loss": -gain.detach(), "entropy": entropy.detach()}
        if config.use_critic:
            errors = (values - batch[Postprocessing.VALUE_TARGETS]) ** 2
            value_loss = errors.clamp(max=config.vf_clip_param).mean()
            loss = loss + config.vf_loss_coeff * value_loss
            stats["vf_loss"] = value_loss.detach()
            stats["vf_loss_unclipped"] = errors.detach().mean()
        if config.use_kl_loss:
            before = policy.like(batch[Columns.ACTION_DIST_INPUTS])
            divergence = before.divergence(policy).mean()
            loss = loss + self.curr_kl_coeffs_per_module[module_id] * divergence
            stats["mean_kl_loss"] = divergence.detach()
        return loss, stats

    def _update_module_kl_coeff(self, *, module_id: str, config: Any, kl_loss: float) -> None:
        """Adapt a KL coefficient; that of a module none of whose agents acted in this update stays."""
        if math.isfinite(kl_loss):
            super()._update_module_kl_coeff(module_id=module_id, config=config, kl_loss=kl_loss)

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the Learner's state, KL coefficients included."""
        state = super().get_state(*args, **kwargs)
        if not kwargs.get("inference_only"):
            state[_KL_STATE] = {key: float(value) for key, value in self.curr_kl_coeffs_per_module.items()}
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the Learner, KL coefficients included; modules that the state does not name begin anew."""
        super().set_state(state)
        if _KL_STATE in state:
            self.curr_kl_coeffs_per_module.clear()
        for module_id, value in state.get(_KL_STATE, {}).items():
            self.curr_kl_coeffs_per_module[module_id].data.fill_(value)
