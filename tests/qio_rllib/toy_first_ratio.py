"""A PPO Learner that tells how its first minibatch's probabilities compare with the recorded ones."""

from typing import Any, ClassVar

import torch
from ray.rllib.core.columns import Columns

from qio_rllib.algorithms.ppo import PPOLearner


class FirstRatio(PPOLearner):
    """Keeps the ratios of every minibatch; the first one of an update is 1 everywhere."""

    ratio: ClassVar[list[torch.Tensor]] = []

    def losses(self, module_id, config, batch, policy, values) -> Any:
        log_ratio = policy.logp(batch[Columns.ACTIONS]) - batch[Columns.ACTION_LOGP]
        FirstRatio.ratio.append(log_ratio.exp().detach())
        return super().losses(module_id, config, batch, policy, values)
