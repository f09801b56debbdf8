"""`learn_together`: the on-policy update of agents that talk, whose losses reach those whom they hear."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qio_envs.api import ConfigError
from qio_rllib.acting.team import DELIVERED, MESSAGE_NOISE
from qio_rllib.learners.common import Stats, descend
from qio_rllib.learners.conversation import Talk, converse
from qio_rllib.learners.training_batch import TrainingBatch
from qio_rllib.models.actor_critic import POLICY, VALUE
from qio_rllib.sampling.rollout import ModuleRollout

if TYPE_CHECKING:
    from qio_rllib.learners.on_policy import OnPolicyLearner


def learn_together(
    learner: OnPolicyLearner,
    parts: Mapping[str, list[ModuleRollout]],
    teams: list[ModuleRollout] | None,
    num_epochs: int,
    minibatch_size: int | None,
) -> int:
    """Let all modules learn from rollouts in which their agents talked.

    A minibatch holds whole steps (with memory, windows of steps) of environments, all agents in them: the sum of the
    modules' losses passes through what receivers heard into what senders said, over the links that worked and with the
    noise that was drawn. Each module's gradients are clipped by themselves.

    Args:
        learner: Whose modules learn.
        parts: Each module's rollouts, those of equal length joined.
        teams: As for `OnPolicyLearner.prepare`.
        num_epochs: How often all steps are gone through.
        minibatch_size: Rows in which an agent acted, of the module with the most, in a minibatch; None for all.

    Returns:
        Rows in which an agent acted, of all modules.

    Raises:
        ConfigError: A correction of a federation that compares policies.
    """
    update = _Update(learner, parts)
    batches = {module_id: learner.prepare(module_id, found, teams) for module_id, found in parts.items()}
    update.epochs(batches, num_epochs, minibatch_size)
    for module_id, batch in batches.items():
        if learner._normalization is not None:
            learner._normalization.learn(module_id, update.modules[module_id], parts[module_id])
        learner._log_training(module_id, batch.rows, num_epochs)
    return sum(batch.rows for batch in batches.values())


class _Update:
    """One update of all modules.

    Args:
        learner: Whose modules learn.
        parts: Each module's rollouts.
    """

    def __init__(self, learner: OnPolicyLearner, parts: Mapping[str, list[ModuleRollout]]) -> None:
        self.learner = learner
        self.modules = {module_id: learner.module[module_id].unwrapped() for module_id in parts}
        self.indices = [found[0].agent_index.tolist() for found in parts.values()]
        self.correct = None
        if learner.correction is not None:
            self.correct = learner.correction.correct
            if any(learner.correction.reference(module_id) is not None for module_id in parts):
                raise ConfigError(
                    "correction: one that compares policies takes no communication; take another type"
                )

    def epochs(
        self, batches: Mapping[str, TrainingBatch], num_epochs: int, minibatch_size: int | None
    ) -> None:
        """Go through the steps of all environments; report means by module."""
        units = next(iter(batches.values())).units // len(self.indices[0])
        rows = max(batch.rows for batch in batches.values())
        pieces = 1 if minibatch_size is None else max(1, round(rows / minibatch_size))
        pieces = min(pieces, units)
        bounds = [units * piece // pieces for piece in range(pieces + 1)]
        sums: dict[str, Stats] = {module_id: {} for module_id in batches}
        counts = dict.fromkeys(batches, 0)
        for module in self.modules.values():
            module.train()
        for epoch in range(num_epochs):
            order = self.learner.row_order(epoch, units) if pieces > 1 else np.arange(units)
            for start, stop in itertools.pairwise(bounds):
                for module_id, stats in self._step(self._select(batches, order[start:stop])).items():
                    counts[module_id] += 1
                    for name, value in stats.items():
                        sums[module_id][name] = sums[module_id].get(name, 0) + value
        for module_id, found in sums.items():
            self.learner._report(
                module_id, {name: total / counts[module_id] for name, total in found.items()}
            )

    def _select(self, batches: Mapping[str, TrainingBatch], units: np.ndarray) -> dict[str, TrainingBatch]:
        """Return the rows of all agents in some steps (or windows) of environments."""
        found = {}
        for (module_id, batch), members in zip(batches.items(), self.indices, strict=True):
            rows = units[:, None] * len(members) + np.arange(len(members))
            index = torch.from_numpy(rows.reshape(-1)).to(batch.inputs.rows.device)
            found[module_id] = batch.select(index)
        return found

    def _step(self, batches: Mapping[str, TrainingBatch]) -> dict[str, Stats]:
        """Take one gradient step; return what to report by module, of those whose agents acted."""
        learner = self.learner
        policies = [self.modules[module_id].policy for module_id in batches]
        answers = converse(policies, self._talk([*batches.values()]), self.indices)
        losses, stats = {}, {}
        for g, (module_id, batch) in enumerate(batches.items()):
            if not batch.rows:
                continue
            inputs = batch.inputs_used()
            outputs = policies[g].outputs(answers.features[g]).flatten(1, 2)
            policy = batch.policy(policies[g].distribution(outputs, inputs.legal))
            values = batch.flat(_values(self.modules[module_id].value, inputs))
            config = learner.config.get_config_for_module(module_id)
            loss, stats[module_id] = learner.losses(module_id, config, batch.flat_columns(), policy, values)
            if answers.openness:
                spoken = batch.flat(answers.openness[g].flatten(1, 2)).mean()
                assert learner.communication is not None
                loss = loss + learner.communication.cost * spoken
            losses[module_id] = loss
            stats[module_id]["total_loss"] = loss.detach()
            learner.entropy_coefficients.updated(module_id)
            if policy.num_outcomes is not None:
                legal = inputs.legal
                count = policy.num_outcomes if legal is None else batch.flat(legal.sum(-1))
                learner.entropy_coefficients.record(module_id, policy.entropy_values(), count)
        if not losses:
            return {}
        optimizers = [learner.get_optimizer(module_id) for module_id in self.modules]
        whole = learner.config
        total = torch.stack([*losses.values()]).sum()
        norms = descend(optimizers, total, whole.grad_clip, whole.grad_clip_by, self.correct)
        for module_id, norm in zip(self.modules, norms, strict=False):
            if module_id in stats:
                stats[module_id]["gradient_norm"] = norm
        return stats

    def _talk(self, batches: Sequence[TrainingBatch]) -> Talk:
        """Return what agents saw, with an axis for the agents of each environment."""

        def by_env(rows: torch.Tensor, g: int, axis: int = 1) -> torch.Tensor:
            return rows.unflatten(axis, (-1, len(self.indices[g])))

        def column(name: str) -> list[torch.Tensor]:
            return [by_env(batch.columns[name], g) for g, batch in enumerate(batches)]

        memory: list[torch.Tensor | None] = []
        fresh = []
        for g, batch in enumerate(batches):
            state = batch.inputs.memory.get(POLICY)
            memory.append(None if state is None else by_env(state, g, axis=0))
            assert batch.inputs.fresh is not None
            fresh.append(by_env(batch.inputs.fresh, g))
        return Talk(
            [by_env(batch.inputs.rows, g) for g, batch in enumerate(batches)],
            column(DELIVERED),
            column(MESSAGE_NOISE) if MESSAGE_NOISE in batches[0].columns else None,
            memory,
            fresh,
        )


def _values(network: Any, inputs: Any) -> torch.Tensor:
    """Return the values ``[L, B]`` of what agents observed, without what they heard."""
    if network.memory is None:
        return network(inputs.rows, inputs.central)[0]
    return network.unroll(inputs.rows, inputs.central, inputs.memory[VALUE], inputs.fresh)[0]
