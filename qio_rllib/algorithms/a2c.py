"""Advantage actor-critic (A2C), which RLlib dropped, with the Q operator and entropy annealing."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Self

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.evaluation.postprocessing import Postprocessing

from qio_envs.api import ConfigError
from qio_rllib.acting.distributions import Distributions
from qio_rllib.algorithms.base import OnPolicyAlgorithm
from qio_rllib.algorithms.capabilities import Capabilities
from qio_rllib.algorithms.config import ExploringConfig
from qio_rllib.algorithms.setting_types import Range, Schedule
from qio_rllib.fused.losses import Terms
from qio_rllib.learners.common import Stats, loss_by_kernel
from qio_rllib.learners.on_policy import OnPolicyLearner
from qio_rllib.models.actor_critic import ActorCritic
from qio_rllib.sampling.runner import BatchedEnvRunner


class A2CConfig(ExploringConfig, AlgorithmConfig):
    """Configuration of `A2C`.

    One gradient step per batch: ``rollout_fragment_length`` steps of each environment. An update takes about a
    millisecond, so that many belong to one reported iteration: ``min_sample_timesteps_per_iteration``.
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
    )

    has_team_value = True

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or A2C)
        self.lr = 7e-4
        self.grad_clip = 0.5
        self.grad_clip_by = "global_norm"
        self.lambda_ = 1.0
        self.vf_loss_coeff = 0.5
        self.entropy_coeff = 0.01
        self.standardize_advantages = False
        self.num_env_runners = 0
        self.num_envs_per_env_runner = 8
        self.rollout_fragment_length = 32
        self.train_batch_size_per_learner = 256
        self.min_sample_timesteps_per_iteration = 2048
        self.rl_module(rl_module_spec=RLModuleSpec(module_class=ActorCritic))
        self.env_runners(env_runner_cls=BatchedEnvRunner)
        self.learners(learner_class=A2CLearner)

    def training(
        self,
        *,
        lambda_: Annotated[float, Range(0, 1)] = NotProvided,
        vf_loss_coeff: Annotated[float, Range(0)] = NotProvided,
        entropy_coeff: Annotated[float | list, Schedule()] = NotProvided,
        standardize_advantages: bool = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set the training parameters; the rest as in `ExploringConfig.training`.

        Args:
            lambda_: Of generalised advantage estimation, in [0, 1]; 1 is the n-step return of the original.
            vf_loss_coeff: Weight of the squared error of the value estimate.
            entropy_coeff: Weight of the policy's entropy in nats, or a schedule ``[[timestep, value], ...]``.
            standardize_advantages: Whether each batch's advantages get mean 0 and standard deviation 1.
            **kwargs: The other arguments.

        Raises:
            ConfigError: An unknown key or a value outside its range.
        """
        super().training(**kwargs)
        self._take(
            lambda_=lambda_,
            vf_loss_coeff=vf_loss_coeff,
            entropy_coeff=entropy_coeff,
            standardize_advantages=standardize_advantages,
        )
        return self

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Return the specification of the module."""
        return RLModuleSpec(module_class=ActorCritic)

    def get_default_learner_class(self) -> type[TorchLearner]:
        """Return the class of the Learner."""
        return A2CLearner

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        return super()._model_config_auto_includes | {"vf_share_layers": False}


class A2C(OnPolicyAlgorithm):
    """Synchronous advantage actor-critic (Mnih et al., 2016, algorithm S3, without the asynchrony)."""

    @classmethod
    def get_default_config(cls) -> A2CConfig:
        """Return the default configuration."""
        return A2CConfig()


class A2CLearner(OnPolicyLearner):
    """The policy gradient with a baseline, over `Rollout`s, with an annealed entropy coefficient."""

    def losses(
        self,
        module_id: str,
        config: Any,
        batch: dict[str, torch.Tensor],
        policy: Distributions,
        values: torch.Tensor,
    ) -> tuple[torch.Tensor, Stats]:
        """Return the policy gradient loss with value and entropy terms."""
        coefficient = self.entropy_coefficients.current(module_id)
        terms = Terms(None, float(coefficient), config.vf_loss_coeff, math.inf, None)
        found = loss_by_kernel(terms, batch, policy, values)
        if found is not None:
            return found.loss, {
                "policy_loss": -found.gain,
                "vf_loss": found.error,
                "entropy": found.entropy,
            }
        gain = (policy.logp(batch[Columns.ACTIONS]) * batch[Postprocessing.ADVANTAGES]).mean()
        entropy = policy.entropy().mean()
        value_loss = ((values - batch[Postprocessing.VALUE_TARGETS]) ** 2).mean()
        loss = -gain + config.vf_loss_coeff * value_loss - coefficient * entropy
        return loss, {
            "policy_loss": -gain.detach(),
            "vf_loss": value_loss.detach(),
            "entropy": entropy.detach(),
        }

    def compute_loss_for_module(self, **kwargs: Any) -> torch.Tensor:
        """Refuse RLlib's episodes."""
        raise ConfigError("env_runner_cls: A2C learns from the rollouts of BatchedEnvRunner only")

    @classmethod
    def rl_module_required_apis(cls) -> list[type]:
        """Return what a module must be able to do."""
        return [ValueFunctionAPI]
