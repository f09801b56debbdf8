"""A torch Learner that learns from `Rollout`s: credit, minibatches and updates over arrays."""

from __future__ import annotations

import collections
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
from qio_rllib.acting.distributions import Distributions
from qio_rllib.models.amplified import ACTION_MASK, OBSERVATION
from qio_rllib.models.central import SLOTS, STATE_ROWS, STATE_SOURCE, STATES
from qio_rllib.sampling.advantages import generalized_advantages
from qio_rllib.sampling.rollout import ModuleRollout, Rollout, SamplingFailure, join

_GENERATOR_STATE = "minibatch_generator"
_SCALES_STATE = "value_scales"


class ValueScale:
    """Running mean and deviation of value targets, for a value network that learns them standardised.

    As PopArt (van Hasselt et al., 2016) has it, and Yu et al. (2022) for MAPPO: when mean and deviation move, the
    network's last layer is rewritten so that its estimates stay what they were.

    Attributes:
        mean: Of the targets; 0 before the first update.
        deviation: Their standard deviation, at least 1e-4; 1 before the first update.
    """

    memory = 0.99  # share of the past in the running moments, by update

    def __init__(self) -> None:
        self._weight = self._first = self._second = 0.0
        self.mean, self.deviation = 0.0, 1.0

    def update(self, mean: float, mean_square: float, layer: torch.nn.Linear) -> None:
        """Take in the moments of an update's targets, and let the last layer's estimates stay as they are.

        The first time the layer is left alone: what it says of nothing then means the mean.
        """
        started, before, width = self._weight > 0, self.mean, self.deviation
        self._weight = self.memory * self._weight + 1 - self.memory
        self._first = self.memory * self._first + (1 - self.memory) * mean
        self._second = self.memory * self._second + (1 - self.memory) * mean_square
        self.mean = self._first / self._weight
        self.deviation = max(math.sqrt(max(self._second / self._weight - self.mean**2, 0.0)), 1e-4)
        if started:
            with torch.no_grad():
                layer.weight.mul_(width / self.deviation)
                layer.bias.mul_(width / self.deviation).add_((before - self.mean) / self.deviation)

    def get_state(self) -> dict[str, float]:
        """Return the moments."""
        return {"weight": self._weight, "first": self._first, "second": self._second} | {
            "mean": self.mean,
            "deviation": self.deviation,
        }

    def set_state(self, state: dict[str, float]) -> None:
        """Take over moments."""
        self._weight, self._first, self._second = state["weight"], state["first"], state["second"]
        self.mean, self.deviation = state["mean"], state["deviation"]


class RolloutLearner:
    """Mixin for a torch Learner of an actor-critic; first among the bases, after `AnnealedEntropy`.

    `update` takes the `Rollout`s of `BatchedEnvRunner` where RLlib gives a list of episodes; anything else goes to
    the base class. Values are computed once, for all observations; where the module's value is central
    (`CentralValue`), from the states that the runner recorded: they lie in one table, and rows point into it.
    Advantages are standardised over the rows in which an agent acted, over all Learners together (unless
    ``standardize_advantages`` is off), and value targets by a `ValueScale` (with ``normalize_values``). Each epoch
    goes through the rows in a new order, in minibatches of equal size (but for one row), none left out.

    A subclass says what is minimised in `rollout_loss`.

    Raises:
        ConfigError: ``minibatch_size`` is larger than a module's batch, there are fewer copies than Learners, or the
            module or the runner is not made for the ``central_value`` that the configuration asks for.
        FloatingPointError: A loss or gradient is not finite.
    """

    _weights_seq_no: int

    def build(self) -> None:
        """Build the Learner and its source of random order."""
        super().build()  # type: ignore[misc]
        self._generator = np.random.Generator(np.random.Philox(self.config.seed or 0))  # type: ignore[attr-defined]
        self._normalizes_values = bool(self.config.learner_config_dict.get("normalize_values"))  # type: ignore[attr-defined]
        self._value_scales: dict[str, ValueScale] = collections.defaultdict(ValueScale)
        if self.config.model_config.get(STATE_SOURCE) is not None:  # type: ignore[attr-defined]
            for module_id, module in self.module.items():  # type: ignore[attr-defined]
                if not getattr(module.unwrapped(), "has_central_value", False):
                    raise ConfigError(
                        f"rl_module_spec: central_value needs a module with CentralValue, such as "
                        f"AmplifiedActorCritic; '{module_id}' is a {type(module.unwrapped()).__name__}"
                    )

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
            values: The present value estimates, ``[B]``; with ``normalize_values`` both they and the targets are
                standardised.
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
        """Return the Learner's state with that of its random order and of the scales of values."""
        state = super().get_state(*args, **kwargs)  # type: ignore[misc]
        if not kwargs.get("inference_only"):
            state[_GENERATOR_STATE] = self._generator.bit_generator.state
            if self._normalizes_values:
                state[_SCALES_STATE] = {key: scale.get_state() for key, scale in self._value_scales.items()}
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the Learner, its random order and the scales of values."""
        super().set_state(state)  # type: ignore[misc]
        if _GENERATOR_STATE in state:
            self._generator.bit_generator.state = state[_GENERATOR_STATE]
        for module_id, scale in state.get(_SCALES_STATE, {}).items():
            self._value_scales[module_id].set_state(scale)

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
            module_parts = join(module_parts)
            states = self._state_table(module_id, module_parts)
            batch = self._credited(module_id, module_parts, states)
            rows = len(batch[Columns.ACTIONS])
            if not self._largest(rows):
                continue  # none of its agents acted
            if self._normalizes_values:
                self._normalize_targets(module_id, batch)
            self._epochs(module_id, batch, rows, num_epochs, minibatch_size, states)
            total += rows
            self._log_training(module_id, rows, num_epochs)
        log = self.metrics.log_value  # type: ignore[attr-defined]
        log((ALL_MODULES, NUM_MODULE_STEPS_TRAINED), total * num_epochs, reduce="sum")
        log((ALL_MODULES, NUM_MODULE_STEPS_TRAINED_LIFETIME), total * num_epochs, reduce="lifetime_sum")
        log((ALL_MODULES, NUM_ENV_STEPS_TRAINED), env_steps, reduce="sum")
        log((ALL_MODULES, NUM_ENV_STEPS_TRAINED_LIFETIME), env_steps, reduce="lifetime_sum")

    def _state_table(self, module_id: str, parts: list[ModuleRollout]) -> torch.Tensor | None:
        """Return the states of all parts, one after the other, ``[U, S]``; None where the value is not central."""
        module = self.module[module_id].unwrapped()  # type: ignore[attr-defined]
        if not getattr(module, "has_central_value", False):
            return None
        tables = []
        for part in parts:
            if part.states is None:
                raise ConfigError(
                    f"central_value: the rollouts of module '{module_id}' have no states; set training(central_value="
                    "...), which tells the runner to record them"
                )
            tables.append(as_tensor(part.states).flatten(0, 1))
        return (tables[0] if len(tables) == 1 else torch.cat(tables)).to(self._device)  # type: ignore[attr-defined]

    def _credited(
        self, module_id: str, parts: list[ModuleRollout], states: torch.Tensor | None = None
    ) -> dict[str, Any]:
        """Return the rows of a module's rollouts in which an agent acted, with advantages and value targets.

        With ``states``, those of `_state_table`, each row says which one is its own.
        """
        config = self.config.get_config_for_module(module_id)  # type: ignore[attr-defined]
        columns: dict[str, list[np.ndarray]] = {}
        first = 0  # of this part's states in the table
        for part in parts:
            shape = part.observations.shape[:3]
            state_rows = slots = None
            if states is not None:
                state_rows = np.broadcast_to(
                    first + np.arange(shape[0] * shape[1]).reshape(*shape[:2], 1), shape
                )
                slots = np.broadcast_to(part.slots, shape)
                first += shape[0] * shape[1]
            values = self._values(
                module_id,
                part.observations.reshape(-1, *part.observations.shape[3:]),
                states,
                state_rows,
                slots,
            ).reshape(shape)
            if states is None:
                final = self._values(module_id, part.final_observations)
            else:
                assert part.final_states is not None
                final = self._values(
                    module_id,
                    part.final_observations,
                    as_tensor(part.final_states).to(self._device),  # type: ignore[attr-defined]
                    np.arange(len(part.final_index)),
                    part.slots[part.final_index[:, 2]],
                )
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
            if state_rows is not None and slots is not None:
                rows |= {STATE_ROWS: state_rows[:steps], SLOTS: slots[:steps]}
            all_acted = part.acted.all()
            for name, array in rows.items():
                kept = array.reshape(-1, *array.shape[3:]) if all_acted else array[part.acted]
                columns.setdefault(name, []).append(kept)
        batch = {
            name: as_tensor(arrays[0] if len(arrays) == 1 else np.concatenate(arrays))
            for name, arrays in columns.items()
        }
        if getattr(config, "standardize_advantages", True):
            batch[Postprocessing.ADVANTAGES] = self._standardized(batch[Postprocessing.ADVANTAGES])
        return {name: tensor.to(self._device) for name, tensor in batch.items()}  # type: ignore[attr-defined]

    def _values(
        self,
        module_id: str,
        observations: np.ndarray,
        states: torch.Tensor | None = None,
        state_rows: np.ndarray | None = None,
        slots: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the values of observations ``[B, ...]``, float32 ``[B]``; for the rest see `CentralCritic`."""
        if not len(observations):
            return np.empty(0, np.float32)
        module = self.module[module_id].unwrapped()  # type: ignore[attr-defined]
        with torch.inference_mode():
            inputs = {Columns.OBS: as_tensor(observations).to(self._device)}  # type: ignore[attr-defined]
            if states is not None and state_rows is not None and slots is not None:
                inputs[STATES] = states
                for name, rows in ((STATE_ROWS, state_rows), (SLOTS, slots)):
                    inputs[name] = as_tensor(rows.reshape(-1)).to(self._device)  # type: ignore[attr-defined]
            values = module.compute_values(inputs).float()
            if self._normalizes_values:
                scale = self._value_scales[module_id]
                values = values * scale.deviation + scale.mean
            return values.cpu().numpy()

    def _normalize_targets(self, module_id: str, batch: dict[str, torch.Tensor]) -> None:
        """Standardise the value targets, over all Learners and the updates before, in place."""
        targets = batch[Postprocessing.VALUE_TARGETS]
        count, first, second = self._moments(targets)
        scale = self._value_scales[module_id]
        *_, last = (
            layer
            for layer in self.module[module_id].unwrapped().vf.modules()  # type: ignore[attr-defined]
            if isinstance(layer, torch.nn.Linear)
        )
        scale.update(first / count, second / count, last)
        batch[Postprocessing.VALUE_TARGETS] = (targets - scale.mean) / scale.deviation
        for name, value in (("value_mean", scale.mean), ("value_deviation", scale.deviation)):
            self.metrics.log_value((module_id, name), value, window=1)  # type: ignore[attr-defined]

    def _standardized(self, advantages: torch.Tensor) -> torch.Tensor:
        """Return advantages with mean 0 and standard deviation 1 over all Learners; at least 1e-4 is divided by."""
        count, first, second = self._moments(advantages)
        mean = first / max(count, 1.0)
        deviation = math.sqrt(max(second / max(count, 1.0) - mean * mean, 0.0))
        return (advantages - mean) / max(deviation, 1e-4)

    def _moments(self, rows: torch.Tensor) -> tuple[float, float, float]:
        """Return number, sum and sum of squares of a column over all Learners."""
        wide = rows.double()
        sums = torch.stack([torch.tensor(float(len(wide))).double(), wide.sum(), (wide * wide).sum()])
        count, first, second = _sum_over_learners(sums).tolist()
        return count, first, second

    def _epochs(
        self,
        module_id: str,
        batch: dict[str, Any],
        rows: int,
        num_epochs: int,
        minibatch_size: int | None,
        states: torch.Tensor | None,
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
                    module_id, config, {name: tensor[start:stop] for name, tensor in shuffled.items()}, states
                )
                for name, value in stats.items():
                    totals[name] = totals[name] + value if name in totals else value
        means = {name: float(total) / (pieces * num_epochs) for name, total in totals.items()}
        if not all(map(math.isfinite, means.values())):
            broken = ", ".join(f"{name} is {mean}" for name, mean in means.items() if not math.isfinite(mean))
            raise FloatingPointError(f"module '{module_id}': {broken} in this update")
        for name, mean in means.items():
            self.metrics.log_value((module_id, name), mean, window=1)  # type: ignore[attr-defined]

    def _step(
        self, module_id: str, config: Any, batch: dict[str, Any], states: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """Take one gradient step on a minibatch; return what to report of it."""
        module = self.module[module_id]  # type: ignore[attr-defined]
        mask = batch.get(ACTION_MASK)
        seen = batch[Columns.OBS]
        inputs = {Columns.OBS: seen if mask is None else {OBSERVATION: seen, ACTION_MASK: mask}}
        output = module._forward_train(inputs)
        if states is not None:
            # Agents of one copy and step share a state: each is looked at once.
            used, places = torch.unique(batch[STATE_ROWS], return_inverse=True)
            inputs |= {STATES: states.index_select(0, used), STATE_ROWS: places, SLOTS: batch[SLOTS]}
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
            stats["gradient_norm"] = clip_gradients(gradients, config.grad_clip, config.grad_clip_by)
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


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """Return an array as a tensor that shares its memory, or a copy of one that cannot be written to."""
    # What comes from another process lies in Ray's read-only memory, for which torch warns.
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def clip_gradients(gradients: list[torch.Tensor], limit: float, by: str) -> torch.Tensor:
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
