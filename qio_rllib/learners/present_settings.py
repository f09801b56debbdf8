"""What of a restored checkpoint gives way to the present configuration.

Population-based training continues another trial's checkpoint with settings of its own. RLlib keeps some settings in a
checkpoint's state (learning rates in that of the optimizers, the Q operator's parameters in that of the modules), from
where they would come back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ray.rllib.core.learner.torch.torch_learner import TorchLearner

from qio_rllib.models.policy_network import PolicyNetwork

OPERATORS = "operator_settings"
"""Key of a Learner's state that holds `operator_settings`."""

_BUFFERS = ("eta", "h_min", "tau")


def operator_settings(learner: TorchLearner) -> dict[str, list[dict[str, Any]]]:
    """Return how the Q operators of a Learner's networks are configured, by module id."""
    return {
        module_id: [dataclasses.asdict(network.amplification) for network in _networks(module)]
        for module_id, module in learner.module.items()
    }


def put_present_settings(learner: TorchLearner, before: Mapping[str, Any]) -> None:
    """Put fixed learning rates, and operators that are configured otherwise than before, as the configuration says.

    Args:
        learner: One that has just been restored. A learning rate with a schedule stays as restored until the next
            update moves it. An operator that is configured as before keeps the restored parameters, which a callback
            may have moved.
        before: `operator_settings` at the time of the checkpoint.
    """
    for optimizer, schedule in learner._optimizer_lr_schedules.items():
        if not schedule.use_schedule:
            learner._set_optimizer_lr(optimizer, lr=schedule.get_current_value())
    for module_id, present in operator_settings(learner).items():
        if module_id in before and before[module_id] != present:
            for network in _networks(learner.module[module_id]):
                for name in _BUFFERS:
                    getattr(network, name).fill_(getattr(network.amplification, name))


def _networks(module: Any) -> list[PolicyNetwork]:
    return [part for part in module.modules() if isinstance(part, PolicyNetwork)]
