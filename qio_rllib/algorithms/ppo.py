"""PPO with the Q operator in its policy and entropy annealing in its loss."""

from __future__ import annotations

from typing import Any

from ray.rllib.algorithms.ppo import PPO
from ray.rllib.algorithms.ppo import PPOConfig as RLlibPPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from qio_rllib.algorithms.annealed import AnnealedEntropy
from qio_rllib.algorithms.config import ExploringConfig
from qio_rllib.models.amplified import AmplifiedActorCritic


class PPOConfig(ExploringConfig, RLlibPPOConfig):
    """RLlib's ``PPOConfig`` (Schulman et al., 2017) plus what `ExploringConfig` adds.

    The algorithm that runs it is RLlib's own ``PPO``; with neither ``amplification`` nor ``entropy_annealing`` set,
    it is stock PPO.
    """

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or PPO)
        self.rl_module(rl_module_spec=RLModuleSpec(module_class=AmplifiedActorCritic))
        self.learners(learner_class=AnnealedPPOLearner)


class AnnealedPPOLearner(AnnealedEntropy, PPOTorchLearner):
    """RLlib's PPO loss with an annealed entropy coefficient; also fits a stock ``PPOConfig`` as ``learner_class``."""
