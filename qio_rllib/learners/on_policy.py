"""`OnPolicyLearner`: advantages, minibatches and updates over `Rollout`s."""

from __future__ import annotations

import abc
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ray.rllib.core import ALL_MODULES
from ray.rllib.core.columns import Columns
from ray.rllib.utils.metrics import (
    MODULE_TRAIN_BATCH_SIZE_MEAN,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_TRAINED,
    NUM_ENV_STEPS_TRAINED_LIFETIME,
    NUM_MODULE_STEPS_TRAINED,
    NUM_MODULE_STEPS_TRAINED_LIFETIME,
    WEIGHTS_SEQ_NO,
)

from qio_envs.api import ConfigError
from qio_rllib.acting.actor import DIST_INPUTS, LOGP
from qio_rllib.acting.distributions import Distributions
from qio_rllib.fused.adam import Adam
from qio_rllib.learners.client_correction import FEDKL, FEDPROX, SCAFFOLD, ClientCorrection
from qio_rllib.learners.common import (
    Stats,
    descend,
    log_what_torch_computes,
    reduce_over_learners,
    refuse_non_finite,
)
from qio_rllib.learners.entropy_annealing import EntropyCoefficients
from qio_rllib.learners.imagination import MODEL, experience_of, fit, imagination_of
from qio_rllib.learners.joint_update import learn_together
from qio_rllib.learners.opponent_modelling import OpponentLearning, check_count, with_others
from qio_rllib.learners.policy_consistency import PolicyConsistency
from qio_rllib.learners.present_settings import OPERATORS, operator_settings, put_present_settings
from qio_rllib.learners.rollout_batches import RolloutBatches
from qio_rllib.learners.threads import LearnerThreads
from qio_rllib.learners.training_batch import TrainingBatch
from qio_rllib.models.actor_critic import INPUTS, OTHERS, ActorCritic
from qio_rllib.models.imagination import Imagination
from qio_rllib.models.memory import memory_kind
from qio_rllib.models.values import STATE_SOURCE
from qio_rllib.sampling.rollout import (
    ModuleRollout,
    Rollout,
    SamplingFailure,
    join,
    without_snapshots,
)
from qio_rllib.sampling.streams import generator, torch_generator
from qio_rllib.sampling.team_reward import TEAM_REWARD, as_one_agent, with_team_reward

_GENERATOR_STATE = "minibatch_generator"
_ENTROPY_STATE = "entropy_coefficients"
_IMAGINATION_STATE = "imagination_generator"
_CONSISTENCY_STATE = "interventional_consistency"


class OnPolicyLearner(RolloutBatches, abc.ABC):
    """A torch Learner of an actor-critic over the `Rollout`s of `BatchedEnvRunner`.

    `update` takes rollouts where RLlib gives a list of episodes; anything else goes to the base class. Each epoch goes
    through the rows of a `TrainingBatch` in a new order, in minibatches of equal size (but for one row), none left out.
    A module with memory is trained on windows of ``max_seq_len`` steps, which are shuffled whole; gradients do not pass
    from one window to the one before. With ``imagination`` model and rollout policy learn from the same rollouts behind
    the policy's update, by an optimizer of their own: throughout it a policy imagines what it imagined while acting.
    With ``team_reward`` all agents learn from their team's reward, until the last of them has ended: an action's
    advantage is that of the team's step, one value of the global state is learned, and the rows of a step stay in one
    minibatch. With ``interventional_consistency`` the loss has a term that counts how the policy changes with numbers
    on which no reward depends, with ``opponent_model`` one for predictions of the other agents' actions. With
    ``communication`` all modules take each step together (`learn_together`). Observations are normalised by
    `Normalization`. A federation sets `correction`.

    A subclass says what is minimised in `losses`.

    Raises:
        ConfigError: The module or the runner is not made for the ``central_value`` or the memory that the configuration
            asks for.
        FloatingPointError: A loss or gradient is not finite.
    """

    rollout_columns = (DIST_INPUTS, LOGP)
    """What it needs of the Actors in runners."""
    corrections = (FEDPROX, SCAFFOLD, FEDKL)
    """Types of `ClientCorrection` that it takes."""

    @classmethod
    def memory_interval(cls, config: Any) -> int:
        """Return after how many steps runners record the memory of agents: the length of a window."""
        return window_length(config.model_config) or 1

    def build(self) -> None:
        """Build the Learner, its source of random order and its entropy coefficients."""
        super().build()
        settings = self.config.learner_config_dict
        self.correction: ClientCorrection | None = None
        self.threads = LearnerThreads(self.config.num_cpus_per_learner)
        self._team_reward: str | None = settings.get(TEAM_REWARD)
        self.entropy_coefficients = EntropyCoefficients(
            settings.get("entropy_annealing"),
            lambda module_id: self.config.get_config_for_module(module_id).entropy_coeff,
            self._device,
        )
        self.entropy_coeff_schedulers_per_module = self.entropy_coefficients.schedulers
        modules = {key: module.unwrapped() for key, module in self.module.items()}
        self._consistency = PolicyConsistency.of(self.config, modules)
        self._opponents = OpponentLearning.of(self.config, modules)
        wants_own = self.config.model_config.get(STATE_SOURCE) is not None
        for module_id, module in self.module.items():
            if wants_own and not isinstance(module.unwrapped(), ActorCritic):
                raise ConfigError(
                    "rl_module_spec: central_value needs an ActorCritic of this package; "
                    f"'{module_id}' is a {type(module.unwrapped()).__name__}"
                )
        log_what_torch_computes(self.module)
        self.seed_streams(self.config.seed)

    def seed_streams(self, seed: int | None) -> None:
        """Begin the random numbers of a seed."""
        self._generator = generator(seed, "minibatches")
        self._imagination_generator = torch_generator(seed, "imagination")
        for part in (self._counterfactual_model, self._consistency):
            if part is not None:
                part.seed_streams(seed)

    @abc.abstractmethod
    def losses(
        self,
        module_id: str,
        config: Any,
        batch: dict[str, torch.Tensor],
        policy: Distributions,
        values: torch.Tensor,
    ) -> tuple[torch.Tensor, Stats]:
        """Return the loss of a minibatch, and what shall be reported of it.

        Args:
            module_id: Whose it is.
            config: The module's configuration.
            batch: Rows of ``actions``, ``action_logp``, ``action_dist_inputs``, ``advantages`` and ``value_targets``.
            policy: The present policy in those rows.
            values: The present value estimates, ``[B]``; with ``normalize_values`` both they and the targets are
                standardised.
        """

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Register Adam, as RLlib does, in a fused form: one pass over the parameters instead of ten.

        What is imagined with has an Adam of its own.
        """
        module = self.module[module_id]
        imagined = {
            parameter
            for part in module.modules()
            if isinstance(part, Imagination)
            for parameter in part.parameters()
        }
        parameters = [parameter for parameter in self.get_parameters(module) if parameter not in imagined]
        self.register_optimizer(
            module_id=module_id,
            optimizer=Adam(parameters),
            params=parameters,
            lr_or_lr_schedule=config.lr,
        )
        imagination = imagination_of(module.unwrapped())
        if imagination is not None:
            parameters = imagination.trained_parameters()
            self.register_optimizer(
                module_id=module_id,
                optimizer_name=MODEL,
                optimizer=Adam(parameters),
                params=parameters,
                lr_or_lr_schedule=imagination.settings.model_lr,
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
            if self.correction is not None:
                raise ConfigError(
                    "correction: corrects what is learned from rollouts of BatchedEnvRunner only"
                )
            return super().update(*args, **kwargs)
        timesteps = kwargs.get("timesteps") or {}
        self._check_is_built()
        self.before_gradient_based_update(timesteps=timesteps)
        self._weights_seq_no += 1
        with self.threads.update():
            self._learn(episodes, kwargs.get("num_epochs", 1), kwargs.get("minibatch_size"))
        self.after_gradient_based_update(timesteps=timesteps)
        return self.metrics.reduce()

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Move entropy coefficients, and report them."""
        moved = self.entropy_coefficients.advance(timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0))
        super().after_gradient_based_update(timesteps=timesteps)
        for key, value in moved.items():
            self.metrics.log_value(key, value, window=1)

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> torch.Tensor:
        """Return the base class's loss of RLlib's own episodes; measure the policy's entropy on the way."""
        loss = super().compute_loss_for_module(
            module_id=module_id, config=config, batch=batch, fwd_out=fwd_out
        )
        self.entropy_coefficients.updated(module_id)
        module = self.module[module_id].unwrapped()
        if isinstance(module, ActorCritic) and module.policy.spec.is_discrete:
            with torch.no_grad():
                legal = module.split_mask(batch[Columns.OBS])[1]
                entropy = Distributions(fwd_out[Columns.ACTION_DIST_INPUTS], discrete=True).entropy()
                valid = batch.get(Columns.LOSS_MASK, torch.ones_like(entropy, dtype=torch.bool))
                count = module.policy.spec.num_actions if legal is None else legal.sum(-1)[valid]
                self.entropy_coefficients.record(module_id, entropy[valid], count)
        return loss

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the Learner's state with that of its scales, random order and annealing laws."""
        state = super().get_state(*args, **kwargs)
        if not kwargs.get("inference_only"):
            state[_GENERATOR_STATE] = self._generator.bit_generator.state
            state[_IMAGINATION_STATE] = self._imagination_generator.get_state().numpy()
            state[OPERATORS] = operator_settings(self)
            if self._consistency is not None:
                state[_CONSISTENCY_STATE] = self._consistency.get_state()
            state[_ENTROPY_STATE] = self.entropy_coefficients.get_state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the Learner, its scales, random order and annealing laws."""
        super().set_state(state)
        if _GENERATOR_STATE in state:
            self._generator.bit_generator.state = state[_GENERATOR_STATE]
        if _IMAGINATION_STATE in state:
            noise = torch.as_tensor(state[_IMAGINATION_STATE], dtype=torch.uint8)
            self._imagination_generator.set_state(noise)
        if self._consistency is not None and _CONSISTENCY_STATE in state:
            self._consistency.set_state(state[_CONSISTENCY_STATE])
        if _ENTROPY_STATE in state:
            self.entropy_coefficients.set_state(state[_ENTROPY_STATE])
        put_present_settings(self, state.get(OPERATORS, {}))

    def row_order(self, epoch: int, units: int) -> np.ndarray:
        """Return the order in which an epoch goes through rows (or windows), int64 ``[units]``."""
        return self._generator.permutation(units)

    # -- one update -----------------------------------------------------------------------------------------------

    def _learn(self, rollouts: list[Rollout], num_epochs: int, minibatch_size: int | None) -> None:
        if self._opponents is not None:  # before snapshots are left out, whose actions are predicted too
            rollouts = [with_others(rollout) for rollout in rollouts]
        rollouts = [without_snapshots(rollout) for rollout in rollouts]
        teams = None
        if self._team_reward is not None:
            rollouts = [with_team_reward(rollout, self._team_reward) for rollout in rollouts]
            teams = join([as_one_agent(rollout) for rollout in rollouts])
        parts: dict[str, list[ModuleRollout]] = {}
        for rollout in rollouts:
            for module_id, part in rollout.modules.items():
                parts.setdefault(module_id, []).append(part)
        env_steps = sum(rollout.env_steps() for rollout in rollouts)
        total = 0
        if self.communication is not None:
            joined = {module_id: join(found) for module_id, found in parts.items()}
            total, parts = learn_together(self, joined, teams, num_epochs, minibatch_size), {}
        for module_id, module_parts in parts.items():
            if not self.should_module_be_updated(module_id):
                continue
            module_parts = join(module_parts)
            module = self.module[module_id].unwrapped()
            if self._opponents is not None:
                check_count(module_parts[0], module)
            batch = self.prepare(module_id, module_parts, teams)
            if not self._over_learners(batch.rows, "min"):
                continue  # somewhere none of its agents acted: no Learner can take a step without the others
            if self._consistency is not None:
                self._consistency.prepare(module_id, module, module_parts)
            self._epochs(module_id, batch, num_epochs, minibatch_size)
            if self._opponents is not None:
                for name, value in self._opponents.report(module_id, module).items():
                    self.metrics.log_value((module_id, name), value, window=1)
            if self._normalization is not None:
                self._normalization.learn(module_id, module, module_parts)
            self._imagine_better(module_id, module_parts)
            if self._counterfactual_model is not None:
                count = self._num_actions(module_id)
                error = self._counterfactual_model.learn(module_id, module_parts, count)
                self.metrics.log_value((module_id, "counterfactual_model_error"), error, window=1)
            total += batch.rows
            self._log_training(module_id, batch.rows, num_epochs)
        log = self.metrics.log_value
        log((ALL_MODULES, NUM_MODULE_STEPS_TRAINED), total * num_epochs, reduce="sum")
        log((ALL_MODULES, NUM_MODULE_STEPS_TRAINED_LIFETIME), total * num_epochs, reduce="lifetime_sum")
        log((ALL_MODULES, NUM_ENV_STEPS_TRAINED), env_steps, reduce="sum")
        log((ALL_MODULES, NUM_ENV_STEPS_TRAINED_LIFETIME), env_steps, reduce="lifetime_sum")

    def _epochs(
        self, module_id: str, batch: TrainingBatch, num_epochs: int, minibatch_size: int | None
    ) -> None:
        config = self.config.get_config_for_module(module_id)
        units = batch.units
        # Every Learner takes the same number of steps, whatever its share of the rows. Where agents have died there may
        # be fewer rows than a minibatch: then one smaller minibatch is taken.
        pieces = 1
        if minibatch_size is not None:
            pieces = max(1, round(self._over_learners(batch.rows, "max") / minibatch_size))
        pieces = min(pieces, self._over_learners(units, "min"))
        self.module[module_id].unwrapped().train()
        totals: Stats = {}
        bounds = [units * piece // pieces for piece in range(pieces + 1)]
        for epoch in range(num_epochs):
            order = None
            if pieces > 1:
                rows = self.row_order(epoch, units)
                if self._team_reward is not None:
                    rows = batch.together(rows)  # each minibatch values few states
                order = torch.from_numpy(rows).to(self._device)
            for start, stop in itertools.pairwise(bounds):
                part = batch if order is None else batch.select(order[start:stop])
                stats = self._step(module_id, config, part)
                for name, value in stats.items():
                    totals[name] = totals[name] + value if name in totals else value
        self._report(module_id, {name: total / (pieces * num_epochs) for name, total in totals.items()})

    def _imagine_better(self, module_id: str, parts: list[ModuleRollout]) -> None:
        """Fit what a module imagines with, if it does."""
        imagination = imagination_of(self.module[module_id].unwrapped())
        if imagination is not None:
            optimizer = dict(self.get_optimizers_for_module(module_id))[MODEL]
            batch = experience_of(imagination, parts, self._device)
            self._report(module_id, fit(imagination, optimizer, batch, self._imagination_generator))

    def _report(self, module_id: str, means: Mapping[str, torch.Tensor | float]) -> None:
        found = {name: float(mean) for name, mean in means.items()}
        refuse_non_finite({(module_id, name): mean for name, mean in found.items()})
        for name, mean in found.items():
            self.metrics.log_value((module_id, name), mean, window=1)

    def _step(self, module_id: str, config: Any, batch: TrainingBatch) -> Stats:
        """Take one gradient step on a minibatch; return what to report of it."""
        dist_inputs, values, others = self._forward(self.module[module_id], batch)
        columns = batch.flat_columns()
        policy = batch.policy(dist_inputs)
        loss, stats = self.losses(module_id, config, columns, policy, batch.flat(values))
        module = self.module[module_id].unwrapped()
        if self._opponents is not None:
            assert others is not None
            loss = loss + self._opponents.loss(module_id, module, batch.flat(others), columns)
        if self._consistency is not None:
            divergence = self._consistency.divergence(module_id, module, batch, policy)
            if divergence is not None:
                loss = loss + self._consistency.settings.coefficient * divergence
                stats["inconsistency"] = divergence.detach()
        correct = None
        if self.correction is not None:
            correct = self.correction.correct
            reference = self.correction.reference(module_id)
            if reference is not None:
                divergence = self._divergence_from(reference, batch, policy)
                loss = loss + self.correction.coefficient * divergence
                stats["divergence_from_global"] = divergence.detach()
        named = self.get_optimizers_for_module(module_id)
        optimizers = [optimizer for name, optimizer in named if name != MODEL]
        for norm in descend(optimizers, loss, config.grad_clip, config.grad_clip_by, correct):
            stats["gradient_norm"] = norm
        stats["total_loss"] = loss.detach()
        self.entropy_coefficients.updated(module_id)
        legal = batch.inputs.legal
        if policy.num_outcomes is not None and legal is None and policy.entropies is not None:
            mean = policy.entropies[1]
            self.entropy_coefficients.record_mean(module_id, mean, len(policy.inputs), policy.num_outcomes)
        elif policy.num_outcomes is not None:
            count = policy.num_outcomes if legal is None else batch.flat(legal.sum(-1))
            self.entropy_coefficients.record(module_id, policy.entropy_values(), count)
        return stats

    def _divergence_from(self, reference: Any, batch: TrainingBatch, policy: Distributions) -> torch.Tensor:
        """Return the mean of KL(reference || policy) over the rows of a minibatch, in nats, a scalar."""
        with torch.no_grad():
            dist_inputs = self._forward(reference, batch)[0]
        return batch.policy(dist_inputs).divergence(policy).mean()

    def _forward(
        self, module: Any, batch: TrainingBatch
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return a module's distribution parameters, values and predictions of a minibatch, in its shape."""
        if isinstance(module.unwrapped(), ActorCritic):
            output = module._forward_train({INPUTS: batch.inputs_used()})
            return output[Columns.ACTION_DIST_INPUTS], output[Columns.VF_PREDS], output[OTHERS]
        observations = batch.rllib_observations()
        output = module._forward_train({Columns.OBS: observations})
        values = module.unwrapped().compute_values(
            {Columns.OBS: observations}, embeddings=output.get(Columns.EMBEDDINGS)
        )
        return output[Columns.ACTION_DIST_INPUTS], values, None

    def _over_learners(self, number: int, operation: str) -> int:
        return int(reduce_over_learners(torch.tensor([number]), operation))

    def _log_training(self, module_id: str, rows: int, num_epochs: int) -> None:
        log = self.metrics.log_value
        log((module_id, WEIGHTS_SEQ_NO), self._weights_seq_no, window=1)
        log((module_id, MODULE_TRAIN_BATCH_SIZE_MEAN), rows, reduce="mean")
        log((module_id, NUM_MODULE_STEPS_TRAINED), rows * num_epochs, reduce="sum")
        log((module_id, NUM_MODULE_STEPS_TRAINED_LIFETIME), rows * num_epochs, reduce="lifetime_sum")


def window_length(model_config: Any) -> int | None:
    """Return the steps of a window of a recurrent module; None without memory."""
    return None if memory_kind(model_config) is None else int(model_config.get("max_seq_len", 20))
