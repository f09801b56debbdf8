"""DQN: Q-learning on the batched runner; with several agents, independent Q-learning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from qio_rllib.algorithms.base import OffPolicyAlgorithm
from qio_rllib.algorithms.capabilities import Capabilities
from qio_rllib.algorithms.q_learning import REFUSALS, QLearner, QLearningConfig
from qio_rllib.learners.off_policy import Objective
from qio_rllib.learners.transitions import Transitions, mean_error, mean_over
from qio_rllib.models.joint_module import QModule


class DQNConfig(QLearningConfig):
    """Configuration of `DQN`."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        continuous_actions=False, circuit=True, instead=REFUSALS
    )

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or DQN)
        self.rl_module(rl_module_spec=RLModuleSpec(module_class=QModule))
        self.learners(learner_class=DQNLearner)

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Return the specification of a module."""
        return RLModuleSpec(module_class=QModule)

    def get_default_learner_class(self) -> type[TorchLearner]:
        """Return the class of the Learner."""
        return DQNLearner


class DQN(OffPolicyAlgorithm):
    """Deep Q-learning (Mnih et al., 2015) with double and dueling networks and n-step returns.

    With several agents each learns from its own observation, action and reward, as if the others were part of the
    environment: independent Q-learning, IQL (Tan, 1993). Agents of one module share its network. A Q-network can be a
    quantum circuit (A. Skolik et al., "Quantum agents in the Gym", Quantum 6, 720, 2022).
    """

    @classmethod
    def get_default_config(cls) -> DQNConfig:
        """Return the default configuration."""
        return DQNConfig()


class DQNLearner(QLearner):
    """Q-values regress on one-step or n-step targets, by the Huber loss."""

    def losses(self, batch: Transitions) -> Iterator[Objective]:
        """Yield the Huber loss of the temporal-difference errors."""
        losses, stats = {}, {}
        for g, module_id in enumerate(batch.modules):
            q_values, best = self.values(batch, g)
            targets = self.targets(batch, batch.rewards[g], batch.discounts[g] * best, batch.fresh[g])
            losses[module_id] = mean_error(q_values, targets, batch.learned[g], huber=True)
            stats[module_id, "q_mean"] = mean_over(q_values.detach(), batch.learned[g])
        yield Objective("q", losses, stats)
