"""`OpponentLearning`: what agents' opponent models are taught, and how well they predict."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch

from qio_envs.api import ConfigError
from qio_rllib.models.actor_critic import ActorCritic
from qio_rllib.models.opponent_model import OPPONENT_MODEL, OpponentModelSettings
from qio_rllib.sampling.rollout import Array, ModuleRollout, Rollout

OTHERS_ACTIONS, OTHERS_ACTED = "others_actions", "others_acted"
"""Columns of a `ModuleRollout`: what each of the ``K`` other agents did in the same step, int64 ``[T, E, M, K]`` or
float32 ``[T, E, M, K, A]``, and whether it acted, bool ``[T, E, M, K]``."""


class OpponentLearning:
    """Teaches the `OpponentModel` of each module, and counts how often it is right.

    All agents that acted are predicted, those that snapshots of a pool play (``self_play``) included; ones that have
    ended, or are not there yet, count for nothing.

    Args:
        settings: What is asked for.
    """

    def __init__(self, settings: OpponentModelSettings) -> None:
        self.settings = settings
        self._sums: dict[str, torch.Tensor] = {}  # [count, nll, hits] by module

    @classmethod
    def of(cls, config: Any, modules: Mapping[str, Any]) -> Self | None:
        """Return what a configuration asks for; None for nothing.

        Args:
            config: Of the algorithm.
            modules: By id.

        Raises:
            ConfigError: A module of another package.
        """
        settings = OpponentModelSettings.of(config.model_config.get(OPPONENT_MODEL))
        if settings is None:
            return None
        for module_id, module in modules.items():
            if not isinstance(module, ActorCritic):
                raise ConfigError(
                    f"rl_module_spec: {OPPONENT_MODEL} needs an ActorCritic of this package; '{module_id}' is a "
                    f"{type(module).__name__}"
                )
        return cls(settings)

    def loss(
        self, module_id: str, module: ActorCritic, outputs: torch.Tensor, columns: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Return the loss of a minibatch, a scalar: the mean over the others that acted, in nats, times its weight.

        Args:
            module_id: Whose it is.
            module: The module.
            outputs: Of its opponent model in the minibatch's rows, ``[B, K, A]``.
            columns: Rows of `OTHERS_ACTIONS` and `OTHERS_ACTED`.
        """
        assert module.policy.opponents is not None
        acted = columns[OTHERS_ACTED]
        found = module.policy.opponents.errors(outputs, columns[OTHERS_ACTIONS], acted)
        count = acted.sum()
        sums = torch.stack([count, found.nll.detach().sum(), found.hits.sum()])
        self._sums[module_id] = self._sums[module_id] + sums if module_id in self._sums else sums
        return self.settings.coefficient * found.nll.sum() / count.clamp(min=1)

    def report(self, module_id: str, module: ActorCritic) -> dict[str, float]:
        """Return means over all minibatches since the last report; {} where none of the others acted."""
        sums = self._sums.pop(module_id, None)
        if sums is None or not sums[0]:
            return {}
        count, nll, hits = sums.tolist()
        assert module.policy.opponents is not None
        name = "opponent_accuracy" if module.policy.opponents.others.is_discrete else "opponent_error"
        return {"opponent_loss": nll / count, name: hits / count}


def with_others(rollout: Rollout) -> Rollout:
    """Return a rollout whose modules have `OTHERS_ACTIONS` and `OTHERS_ACTED`."""
    parts = rollout.modules.values()
    first = next(iter(parts))
    places = np.concatenate([part.agent_index for part in parts])
    order = np.argsort(places)
    actions = np.concatenate([part.actions for part in parts], axis=2)[:, :, order]
    acted = np.concatenate([part.acted for part in parts], axis=2)[:, :, order]
    present = acted.reshape(*acted.shape, *(1,) * (first.actions.ndim - 3))
    actions = np.where(present, actions, np.zeros_like(actions))
    return Rollout(
        {module_id: _beside(part, actions, acted) for module_id, part in rollout.modules.items()},
        rollout.runner,
    )


def check_count(part: ModuleRollout, module: ActorCritic) -> None:
    """Refuse rollouts of another number of agents than a module predicts.

    Raises:
        ConfigError: Naming both.
    """
    assert module.policy.opponents is not None
    found, known = part.columns[OTHERS_ACTED].shape[-1], module.policy.opponents.others.count
    if found != known:
        raise ConfigError(
            f"{OPPONENT_MODEL}: the policy predicts {known} other agents, the environment has {found}"
        )


def _beside(part: ModuleRollout, actions: Array, acted: Array) -> ModuleRollout:
    """Return a part with the actions ``[T, E, N, ...]`` of all agents but one beside each of its agents."""
    agents = np.arange(acted.shape[2])
    others = np.stack([np.delete(agents, one) for one in part.agent_index])
    columns = {OTHERS_ACTIONS: actions[:, :, others], OTHERS_ACTED: acted[:, :, others]}
    return dataclasses.replace(part, columns={**part.columns, **columns})
