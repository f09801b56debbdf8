"""A torch Learner that learns from `Rollout`s: credit, minibatches and updates over arrays."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import torch
from ray.rllib.core import ALL_MODULES
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.metrics import (
    MODULE_TRAIN_BATCH_SIZE_MEAN,
    NUM_ENV_STEPS_TRAINED,
    NUM_ENV_STEPS_TRAINED_LIFETIME,
    NUM_MODULE_STEPS_TRAINED,
    NUM_MODULE_STEPS_TRAINED_LIFETIME,
    WEIGHTS_SEQ_NO,
)

from qio_envs.api import ConfigError
from qio_rllib.models.amplified import ACTION_MASK, OBSERVATION
from qio_rllib.models.distributions import Distributions
from qio_rllib.sampling.advantages import generalized_advantages
from qio_rllib.sampling.rollout import ModuleRollout, Rollout, SamplingFailure, join

_GENERATOR_STATE = "minibatch_generator"


class RolloutLearner:
    """Mixin for a torch Learner of an actor-critic; first among the bases, after `AnnealedEntropy`.

    `update` takes the `Rollout`s of `BatchedEnvRunner` where RLlib gives a list of episodes; anything else goes to
    the base class. Values are computed once, for all observations. Advantages are standardised over the rows in
    which an agent acted, over all Learners together (unless ``standardize_advantages`` is off). Each epoch goes
    through the rows in a new order, in minibatches of equal size (but for one row), none left out.

    A subclass says what is minimised in `rollout_loss`.

    Raises:
        ConfigError: ``minibatch_size`` is larger than a module's batch, or there are fewer copies than Learners.
        FloatingPointError: A loss or gradient is not finite.
    """

    _weights_seq_no: int

    def build(self) -> None:
        """Build the Learner and its source of random order."""
        super().build()  # type: ignore[misc]
        self._generator = np.random.Generator(np.random.Philox(self.config.seed or 0))  # type: ignore[attr-defined]

    def rollout_loss(
        self,
        module_id: str,
        config: Any,
        batch: dict[str, torch.Tensor],
        policy: Distributions,
        values: torch.Tensor,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss of a minibatch, and what shall be reported of it.

        Args:
            module_id: Whose it is.
            config: The module's configuration.
            batch: Rows of ``actions``, ``action_logp``, ``action_dist_inputs``, ``advantages`` and ``value_targets``.
            policy: The present policy in those rows.
            values: The present value estimates, ``[B]``.
        """
        raise NotImplementedError

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Register Adam, as RLlib does, in its fused form: one pass over the parameters instead of ten."""
        parameters = self.get_parameters(self.module[module_id])  # type: ignore[attr-defined]
        self.register_optimizer(  # type: ignore[attr-defined]
            module_id=module_id,
            optimizer=torch.optim.Adam(parameters, fused=True),
            params=parameters,
            lr_or_lr_schedule=config.lr,
        )

    def update(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Learn from ``episodes`` (or ``training_data``); arguments as in RLlib's ``Learner.update``."""
        data = kwargs.get("training_data")
        if data is not None:
            data.validate()
            data.solve_refs()
        episodes = data.episodes if data is not None else kwargs.get("episodes")
        for episode in episodes or ():
            if isinstance(episode, SamplingFailure):
                episode.throw()
        if not episodes or not isinstance(episodes[0], Rollout):
            return super().update(*args, **kwargs)  # type: ignore[misc]
        timesteps = kwargs.get("timesteps") or {}
        self._check_is_built()  # type: ignore[attr-defined]
        self.before_gradient_based_update(timesteps=timesteps)  # type: ignore[attr-defined]
        self._weights_seq_no += 1
        with learner_threads(self.config.num_cpus_per_learner):  # type: ignore[attr-defined]
            self._learn(episodes, kwargs.get("num_epochs", 1), kwargs.get("minibatch_size"))
        self.after_gradient_based_update(timesteps=timesteps)  # type: ignore[attr-defined]
        return self.metrics.reduce()  # type: ignore[attr-defined]

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the Learner's state with that of its random order and of PPO's KL coefficients."""
        state = super().get_state(*args, **kwargs)  # type: ignore[misc]
        if not kwargs.get("inference_only"):
            state[_GENERATOR_STATE] = self._generator.bit_generator.state
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the Learner and its random order."""
        super().set_state(state)  # type: ignore[misc]
        if _GENERATOR_STATE in state:
            self._generator.bit_generator.state = state[_GENERATOR_STATE]

    def row_order(self, epoch: int, rows: int) -> np.ndarray:
        """Return the order in which an epoch goes through the rows, int64 ``[rows]``."""
        return self._generator.permutation(rows)

    def credit(
        self, module_id: str, rollout: ModuleRollout, values: np.ndarray, final: np.ndarray
    ) -> np.ndarray:
        """Return the advantages of a rollout's actions; arguments and result as in `generalized_advantages`."""
        config = self.config.get_config_for_module(module_id)  # type: ignore[attr-defined]
        return generalized_advantages(rollout, values, final, config.gamma, config.lambda_)

    # -- one update -----------------------------------------------------------------------------------------------

    def _learn(self, rollouts: list[Rollout], num_epochs: int, minibatch_size: int | None) -> None:
        parts: dict[str, list[ModuleRollout]] = {}
        for rollout in rollouts:
            for module_id, part in rollout.modules.items():
                parts.setdefault(module_id, []).append(part)
        env_steps = sum(rollout.env_steps() for rollout in rollouts)
        total = 0
        for module_id, module_parts in parts.items():
            if not self.should_module_be_updated(module_id):  # type: ignore[attr-defined]
                continue
            batch = self._credited(module_id, join(module_parts))
            rows = len(batch[Columns.ACTIONS])
            if not self._largest(rows):
                continue  # none of its agents acted
            self._epochs(module_id, batch, rows, num_epochs, minibatch_size)
            total += rows
            self._log_training(module_id, rows, num_epochs)
        log = self.metrics.log_value  # type: ignore[attr-defined]
        log((ALL_MODULES, NUM_MODULE_STEPS_TRAINED), total * num_epochs, reduce="sum")
        log((ALL_MODULES, NUM_MODULE_STEPS_TRAINED_LIFETIME), total * num_epochs, reduce="lifetime_sum")
        log((ALL_MODULES, NUM_ENV_STEPS_TRAINED), env_steps, reduce="sum")
        log((ALL_MODULES, NUM_ENV_STEPS_TRAINED_LIFETIME), env_steps, reduce="lifetime_sum")

    def _credited(self, module_id: str, parts: list[ModuleRollout]) -> dict[str, Any]:
        """Return the rows of a module's rollouts in which an agent acted, with advantages and value targets."""
        config = self.config.get_config_for_module(module_id)  # type: ignore[attr-defined]
        columns: dict[str, list[np.ndarray]] = {}
        for part in parts:
            shape = part.observations.shape[:3]
            values = self._values(module_id, part.observations.reshape(-1, *part.observations.shape[3:]))
            values = values.reshape(shape)
            final = self._values(module_id, part.final_observations)
            advantages = self.credit(module_id, part, values, final)
            steps = part.num_steps
            rows = {
                Columns.OBS: part.observations[:steps],
                Columns.ACTIONS: part.actions,
                Columns.ACTION_LOGP: part.logp,
                Columns.ACTION_DIST_INPUTS: part.dist_inputs,
                Postprocessing.ADVANTAGES: advantages,
                Postprocessing.VALUE_TARGETS: advantages + values[:steps],
            }
            if part.action_mask is not None:
                rows[ACTION_MASK] = part.action_mask[:steps]
            all_acted = part.acted.all()
            for name, array in rows.items():
                kept = array.reshape(-1, *array.shape[3:]) if all_acted else array[part.acted]
                columns.setdefault(name, []).append(kept)
        batch = {
            name: _tensor(arrays[0] if len(arrays) == 1 else np.concatenate(arrays))
            for name, arrays in columns.items()
        }
        if getattr(config, "standardize_advantages", True):
            batch[Postprocessing.ADVANTAGES] = self._standardized(batch[Postprocessing.ADVANTAGES])
        return {name: tensor.to(self._device) for name, tensor in batch.items()}  # type: ignore[attr-defined]

    def _values(self, module_id: str, observations: np.ndarray) -> np.ndarray:
        if not len(observations):
            return np.empty(0, np.float32)
        module = self.module[module_id].unwrapped()  # type: ignore[attr-defined]
        with torch.inference_mode():
            rows = _tensor(observations).to(self._device)  # type: ignore[attr-defined]
            return module.compute_values({Columns.OBS: rows}).float().cpu().numpy()

    def _standardized(self, advantages: torch.Tensor) -> torch.Tensor:
        """Return advantages with mean 0 and standard deviation 1 over all Learners; at least 1e-4 is divided by."""
        wide = advantages.double()
        sums = _sum_over_learners(
            torch.stack([torch.tensor(float(len(wide))).double(), wide.sum(), (wide * wide).sum()])
        )
        count, first, second = sums.tolist()
        mean = first / max(count, 1.0)
        deviation = math.sqrt(max(second / max(count, 1.0) - mean * mean, 0.0))
        return (advantages - mean) / max(deviation, 1e-4)

    def _epochs(
        self, module_id: str, batch: dict[str, Any], rows: int, num_epochs: int, minibatch_size: int | None
    ) -> None:
        config = self.config.get_config_for_module(module_id)  # type: ignore[attr-defined]
        largest = self._largest(rows)
        if minibatch_size is not None and minibatch_size > largest:
            raise ConfigError(
                f"minibatch_size: {minibatch_size} rows do not fit the {largest} rows of module '{module_id}' in "
                "this batch; lower it or raise train_batch_size_per_learner"
            )
        # Every Learner takes the same number of steps, whatever its share of the rows.
        pieces = 1 if minibatch_size is None else max(1, round(largest / minibatch_size))
        if rows < pieces:
            raise ConfigError(
                f"num_learners: a Learner has {rows} rows of module '{module_id}' for {pieces} minibatches"
            )
        self.module[module_id].unwrapped().train()  # type: ignore[attr-defined]
        totals: dict[str, torch.Tensor] = {}
        bounds = [rows * piece // pieces for piece in range(pieces + 1)]
        for epoch in range(num_epochs):
            shuffled = batch
            if pieces > 1:
                order = torch.from_numpy(self.row_order(epoch, rows)).to(self._device)  # type: ignore[attr-defined]
                shuffled = {name: tensor.index_select(0, order) for name, tensor in batch.items()}
            for start, stop in itertools.pairwise(bounds):
                stats = self._step(
                    module_id, config, {name: tensor[start:stop] for name, tensor in shuffled.items()}
                )
                for name, value in stats.items():
                    totals[name] = totals[name] + value if name in totals else value
        means = {name: float(total) / (pieces * num_epochs) for name, total in totals.items()}
        if not all(map(math.isfinite, means.values())):
            broken = ", ".join(f"{name} is {mean}" for name, mean in means.items() if not math.isfinite(mean))
            raise FloatingPointError(f"module '{module_id}': {broken} in this update")
        for name, mean in means.items():
            self.metrics.log_value((module_id, name), mean, window=1)  # type: ignore[attr-defined]

    def _step(self, module_id: str, config: Any, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Take one gradient step on a minibatch; return what to report of it."""
        module = self.module[module_id]  # type: ignore[attr-defined]
        mask = batch.get(ACTION_MASK)
        seen = batch[Columns.OBS]
        inputs = {Columns.OBS: seen if mask is None else {OBSERVATION: seen, ACTION_MASK: mask}}
        output = module._forward_train(inputs)
        values = module.unwrapped().compute_values(inputs, embeddings=output.get(Columns.EMBEDDINGS))
        discrete = isinstance(module.unwrapped().action_space, gymnasium.spaces.Discrete)
        policy = Distributions(output[Columns.ACTION_DIST_INPUTS], discrete)
        loss, stats = self.rollout_loss(module_id, config, batch, policy, values)
        optimizers = [optimizer for _, optimizer in self.get_optimizers_for_module(module_id)]  # type: ignore[attr-defined]
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if config.grad_clip is not None:
            gradients = [
                parameter.grad
                for optimizer in optimizers
                for group in optimizer.param_groups
                for parameter in group["params"]
                if parameter.grad is not None
            ]
            stats["gradient_norm"] = _clip(gradients, config.grad_clip, config.grad_clip_by)
        for optimizer in optimizers:
            optimizer.step()
        stats["total_loss"] = loss.detach()
        if discrete and hasattr(self, "record_entropy"):
            legal = None if mask is None else mask.sum(-1)
            self.record_entropy(module_id, policy, legal)
        return stats

    def _largest(self, rows: int) -> int:
        count = torch.tensor([rows])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(count, torch.distributed.ReduceOp.MAX)
        return int(count)

    def _log_training(self, module_id: str, rows: int, num_epochs: int) -> None:
        log = self.metrics.log_value  # type: ignore[attr-defined]
        log((module_id, WEIGHTS_SEQ_NO), self._weights_seq_no, window=1)
        log((module_id, MODULE_TRAIN_BATCH_SIZE_MEAN), rows, reduce="mean")
        log((module_id, NUM_MODULE_STEPS_TRAINED), rows * num_epochs, reduce="sum")
        log((module_id, NUM_MODULE_STEPS_TRAINED_LIFETIME), rows * num_epochs, reduce="lifetime_sum")


@contextlib.contextmanager
def learner_threads(num_cpus: float | str) -> Iterator[None]:
    """Let torch compute on as many threads as ``num_cpus_per_learner`` says; one where that says nothing.

    More threads gain little on networks of this size, wait for each other ten times as long as they work when
    something else uses the CPUs, and add in another order, so that a seed would repeat on equal machines only.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if isinstance(num_cpus, str) else max(1, int(num_cpus)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _tensor(array: np.ndarray) -> torch.Tensor:
    # What comes from another process lies in Ray's read-only memory, for which torch warns.
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _clip(gradients: list[torch.Tensor], limit: float, by: str) -> torch.Tensor:
    """Clip gradients in place as RLlib's ``grad_clip_by`` says; return their global norm before."""
    norms = torch._foreach_norm(gradients)
    total = torch.linalg.vector_norm(torch.stack(norms))
    if by == "value":
        for gradient in gradients:
            gradient.clamp_(-limit, limit)
    elif by == "norm":
        for gradient, norm in zip(gradients, norms, strict=True):
            gradient.mul_((limit / (norm + 1e-6)).clamp(max=1.0))
    else:
        torch._foreach_mul_(gradients, (limit / (total + 1e-6)).clamp(max=1.0))
    return total


def _sum_over_learners(values: torch.Tensor) -> torch.Tensor:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
    return values
