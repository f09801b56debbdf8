"""RLlib's own runners and Learners for configurations of this package, to compare with."""

from __future__ import annotations

from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner

from qio_rllib.algorithms.ppo import PPOLearner


class StockPPOLearner(PPOLearner):
    """RLlib's PPO loss, optimiser and pipeline, which episodes bring with them; the entropy coefficient is ours."""

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Register Adam as RLlib does."""
        PPOTorchLearner.configure_optimizers_for_module(self, module_id, config)


STOCK_LEARNERS: dict[str, type] = {"PPO": StockPPOLearner}
"""RLlib's own Learner, by the name of each algorithm that RLlib has."""


def stock_config(config: AlgorithmConfig, learner_class: type) -> AlgorithmConfig:
    """Return a copy of a configuration of this package that runs on RLlib's own runner and Learner."""
    stock = config.copy(copy_frozen=False)
    stock.env_runners(env_runner_cls=None)
    stock.learners(learner_class=learner_class)
    return stock
