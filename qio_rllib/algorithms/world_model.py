"""WorldModel: agents that learn a model of their environment and plan with it, or learn a policy inside it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from ray.rllib.algorithms.algorithm_config import NotProvided
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.metrics import LEARNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.rllib.utils.schedules.scheduler import Scheduler

from qio_envs.api import ConfigError
from qio_rllib.acting.distributions import log_tanh_slope
from qio_rllib.algorithms import causal_search
from qio_rllib.algorithms.base import OffPolicyAlgorithm
from qio_rllib.algorithms.capabilities import Capabilities
from qio_rllib.algorithms.off_policy_config import OffPolicyConfig
from qio_rllib.algorithms.own_settings import checked_mapping
from qio_rllib.algorithms.setting_types import Range, Schedule
from qio_rllib.causal.masks import CAUSAL_MASK, CONSISTENCY, MASK, CausalMaskSettings
from qio_rllib.learners.model_sequences import sequences_of, starts_of
from qio_rllib.learners.off_policy import Objective, OffPolicyLearner
from qio_rllib.learners.transitions import Transitions, mean_over
from qio_rllib.models.world_model_module import (
    BEHAVIOUR,
    DISCOUNT,
    HAS_CAUSES,
    IS_FACTORED,
    PLANNER_SETTINGS,
    WORLD_MODEL,
    WorldModelModule,
)
from qio_rllib.models.world_model_policy import ENSEMBLE, PLANNER, model_settings
from qio_rllib.world_models.consistency import interventional_divergence
from qio_rllib.world_models.ensemble import Ensemble, EnsembleSettings
from qio_rllib.world_models.imagination import Imagined, imagine, lambda_returns, reach_weights
from qio_rllib.world_models.planning_settings import PlanningSettings

_RANGE_DECAY, _RANGE_QUANTILES = 0.99, (0.05, 0.95)  # DreamerV3, eq. 12


class WorldModelConfig(OffPolicyConfig):
    """Configuration of `WorldModel`."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        recurrence=False,
        amplification=True,
        time_limits_as_ends=False,
        instead={
            "recurrence": "'s memory is that of its model (world_model.type: rssm or kalman); set use_lstm and use_gru "
            "to false",
            "central_value": "'s critic sees what its model does; set it to null",
            "normalize_values": "'s critic learns values in classes of their logarithm; set it to false",
            "entropy_annealing": " has a fixed entropy_coeff; set it to null",
            "circuit": "'s networks are no circuits; set it to null",
            "coordination": "'s agents act each by itself; PPO and A2C take it",
            "imagination": "'s agents plan or learn inside their model as it is; see behaviour",
            "interventional_consistency": "'s policies learn in their model; see causal_mask, and set it to null",
        },
    )

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or WorldModel)
        self.world_model: dict[str, Any] | None = None
        self.behaviour = PLANNER
        self.planner: dict[str, Any] | None = None
        self.causal_mask: dict[str, Any] | None = None
        self.model_lr: float | list = 1e-3
        self.actor_lr: float | list = 3e-4
        self.critic_lr: float | list = 3e-4
        self.model_weight_decay = 0.0
        self.model_sequence_length = 32
        self.pretraining_updates = 0
        self.model_resets: list[int] = []
        self.imagination_horizon = 10
        self.lambda_ = 0.95
        self.entropy_coeff: float | list = 1e-3
        self.tau = 0.02
        self.grad_clip = 100.0
        self._model_config = {"fcnet_hiddens": [128, 128], "fcnet_activation": "silu"}
        self.rl_module(rl_module_spec=RLModuleSpec(module_class=WorldModelModule))
        self.learners(learner_class=WorldModelLearner)

    def training(
        self,
        *,
        world_model: Mapping[str, Any] | None = NotProvided,
        behaviour: Literal["planner", "actor"] = NotProvided,
        planner: Mapping[str, Any] | None = NotProvided,
        causal_mask: Mapping[str, Any] | None = NotProvided,
        model_lr: Annotated[float | list, Schedule()] = NotProvided,
        actor_lr: Annotated[float | list, Schedule()] = NotProvided,
        critic_lr: Annotated[float | list, Schedule()] = NotProvided,
        model_weight_decay: Annotated[float, Range(0)] = NotProvided,
        model_sequence_length: Annotated[int, Range(2)] = NotProvided,
        pretraining_updates: Annotated[int, Range(0)] = NotProvided,
        model_resets: list[int] = NotProvided,
        imagination_horizon: Annotated[int, Range(1)] = NotProvided,
        lambda_: Annotated[float, Range(0, 1)] = NotProvided,
        entropy_coeff: Annotated[float | list, Schedule()] = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set the training parameters; the rest as in `OffPolicyConfig.training`.

        Args:
            world_model: ``{"type": "ensemble" | "rssm" | "kalman", ...}`` and sizes, see `EnsembleSettings`,
                `RSSMSettings` and `KalmanSettings`; missing keys take their defaults.
            behaviour: "planner", which plans anew at each step, or "actor", a policy that learns inside the model.
            planner: ``{"method": "cem" | "icem" | "mppi", ...}``, see `PlanningSettings`.
            causal_mask: ``{"use": "mask" | "consistency", ...}``, see `CausalMaskSettings`: an ensemble predicts each
                number from its causes alone, which are sought in the data, or pays for what it predicts from others;
                None predicts from everything.
            model_lr: Learning rate of the model, or a schedule ``[[timestep, value], ...]``.
            actor_lr: Likewise of the actor.
            critic_lr: Likewise of the critic.
            model_weight_decay: Of all parameters of the model, at least 0: each gradient step takes the learning rate
                times this share of them away (Loshchilov and Hutter, 2019, "Decoupled weight decay regularization").
            model_sequence_length: Successive steps in a sample for a recurrent model, at least 2.
            pretraining_updates: Gradient steps besides, before the first ones.
            model_resets: Numbers of environment steps, ascending, at which the model begins anew: with its first
                weights it learns from all that the replay holds, at first by ``pretraining_updates`` (Nikishin et al.,
                2022, "The primacy bias in deep reinforcement learning"). Leave it enough steps before the end.
            imagination_horizon: Steps that are imagined for an actor, at least 1.
            lambda_: Weight of longer imagined returns, in [0, 1].
            entropy_coeff: Weight of the actor's entropy beside returns of range 1, or a schedule.
            **kwargs: The other arguments; ``train_batch_size_per_learner`` is the single steps in a gradient step of an
                ensemble, the sequences in one of a recurrent model.

        Raises:
            ConfigError: An unknown key, a value outside its range, or steps of ``burn_in``.
        """
        super().training(**kwargs)
        if self.burn_in:
            raise ConfigError("burn_in: WorldModel learns from every step of its sequences; set it to 0")
        self._take(
            behaviour=behaviour,
            model_lr=model_lr,
            actor_lr=actor_lr,
            critic_lr=critic_lr,
            model_weight_decay=model_weight_decay,
            model_sequence_length=model_sequence_length,
            pretraining_updates=pretraining_updates,
            model_resets=model_resets,
            imagination_horizon=imagination_horizon,
            lambda_=lambda_,
            entropy_coeff=entropy_coeff,
        )
        given = self._checked(world_model=world_model, planner=planner, causal_mask=causal_mask)
        self._take(**{name: checked_mapping(value, _CHECKS[name]) for name, value in given.items()})
        return self

    @property
    def is_recurrent(self) -> bool:
        """Whether the model has a memory."""
        return model_settings(self.world_model)[0] != ENSEMBLE

    @property
    def sequence_length(self) -> int:
        """Steps in a sample from the replay: 1 for an ensemble."""
        return self.model_sequence_length if self.is_recurrent else 1

    def validate(self) -> None:
        """Check the settings against each other.

        Raises:
            ConfigError: A value that does not fit another.
        """
        super().validate()
        if not self.normalize_actions:
            raise ConfigError("normalize_actions: WorldModel acts in [-1, 1]; leave it on")
        resets = self.model_resets
        if any(step < 1 for step in resets) or sorted(set(resets)) != resets:
            raise ConfigError(f"model_resets: expected ascending numbers of environment steps, got {resets}")
        if self.causal_mask is not None:
            kind, settings = model_settings(self.world_model)
            if not isinstance(settings, EnsembleSettings):
                raise ConfigError(f"{CAUSAL_MASK}: needs world_model.type: {ENSEMBLE}, got {kind}")
            if settings.attention_heads:
                raise ConfigError(f"{CAUSAL_MASK}: does not go with world_model.attention_heads; set it to 0")
            if self.causal_mask["interventions"] and self.env is not None:
                causal_search.intervention_env(self.env, self.env_config)

    def module_settings(self) -> dict[str, Any]:
        """Return what a module is told beside ``model_config``."""
        return {
            WORLD_MODEL: self.world_model or {},
            BEHAVIOUR: self.behaviour,
            PLANNER_SETTINGS: self.planner or {},
            DISCOUNT: self.gamma,
            IS_FACTORED: self.causal_mask is not None and self.causal_mask["use"] == MASK,
            HAS_CAUSES: self.causal_mask is not None and self.causal_mask["use"] == CONSISTENCY,
        }

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Return the specification of a module."""
        return RLModuleSpec(module_class=WorldModelModule)

    def get_default_learner_class(self) -> type[TorchLearner]:
        """Return the class of the Learner."""
        return WorldModelLearner


class WorldModel(OffPolicyAlgorithm):
    """Model-based reinforcement learning, a table of models and behaviours.

    ================  ===================================================  =========================================
    world_model.type  ``behaviour: planner``                               ``behaviour: actor``
    ================  ===================================================  =========================================
    ensemble          PETS (Chua et al., 2018)                             policy in a model's rollouts, as MBPO's
                                                                           (Janner et al., 2019), with Dreamer's loss
    rssm              PlaNet (Hafner et al., 2019)                         Dreamer (Hafner et al., 2020, 2021, 2023)
    kalman            the same planner on a learned filter's mean          Dreamer's actor on that mean
    ================  ===================================================  =========================================

    Agents of one module share its model; each plans or learns for its own rewards.
    """

    @classmethod
    def get_default_config(cls) -> WorldModelConfig:
        """Return the default configuration."""
        return WorldModelConfig()

    def prepare_learning(self, before: int) -> bool:
        """Let models begin anew where that is due; seek causes where that is, and tell the models."""
        anew = any(0 < before < step <= self.env_steps_sampled for step in self.config.model_resets)
        if anew:
            self.learner_group.foreach_learner(lambda learner: learner.reset_models())
        self._seek_causes(0 if anew else before)
        return anew

    def _seek_causes(self, before: int) -> None:
        config = self.config
        settings = CausalMaskSettings.of(config.causal_mask)
        if settings is None:
            return
        first = config.num_steps_sampled_before_learning_starts
        searches = settings.searches(self.env_steps_sampled, first)
        if searches <= (settings.searches(before, first) if before else 0):
            return
        modules = self.env_runner.module
        if settings.interventions:
            env = causal_search.intervention_env(config.env, config.env_config)
            mask = causal_search.mask_of_interventions(
                env, searches * settings.interventions, config.seed, settings
            )
            masks = dict.fromkeys(modules.keys(), mask)
        else:
            spaces = {module_id: module.action_space for module_id, module in modules.items()}
            masks = causal_search.masks_of_replay(self.replay, spaces, settings)
        self.learner_group.foreach_learner(lambda learner: learner.set_causes(masks))
        for module_id, mask in masks.items():
            self.metrics.log_value((LEARNER_RESULTS, module_id, "causes"), int(mask[:-1].sum()), window=1)


class WorldModelLearner(OffPolicyLearner):
    """Fits the model to sequences from the replay; an actor and its critic learn from what the model imagines."""

    @classmethod
    def memory_interval(cls, config: Any) -> int:
        """Return 0: every sequence starts anew, nothing is recorded."""
        return 0

    def build(self) -> None:
        """Build the Learner and the schedule of the entropy's weight."""
        self._entropy_schedule = Scheduler(
            fixed_value_or_schedule=self.config.entropy_coeff, framework="torch"
        )
        super().build()
        # A model's first weights are a function of the seed, so that a resumed run has them too.
        self._first_weights = [copy.deepcopy(module.policy.model.state_dict()) for module in self.modules()]

    def before_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Move the entropy's weight along its schedule."""
        super().before_gradient_based_update(timesteps=timesteps)
        self._entropy_schedule.update(timestep=timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0))

    def reset_models(self) -> None:
        """Let the models have their first weights, and their optimizers no memory."""
        for module_id, module, weights in zip(
            self.joint["modules"], self.modules(), self._first_weights, strict=True
        ):
            module.policy.model.load_state_dict(weights)
            self.get_optimizer(module_id, "model").state.clear()

    def set_causes(self, causes: Mapping[str, Any]) -> None:
        """Tell the models which inputs their targets depend on, by module; bool ``[D + 2, D + A]``."""
        for module_id, module in zip(self.joint["modules"], self.modules(), strict=True):
            model, found = module.policy.model, torch.as_tensor(causes[module_id], device=self._device)
            assert isinstance(model, Ensemble)
            if model.is_factored:
                model.set_input_mask(found)
            else:
                module.causes.copy_(found)

    def optimizer_parameters(
        self, module: Any, config: Any
    ) -> dict[str, tuple[list[torch.nn.Parameter], float | list]]:
        """Return the parameters of the model, and of actor and critic."""
        found: dict[str, tuple[list[torch.nn.Parameter], float | list]] = {
            "model": ([*module.policy.model.parameters()], config.model_lr)
        }
        if module.policy.actor is not None:
            found["actor"] = ([*module.policy.actor.parameters()], config.actor_lr)
            found["critic"] = ([*module.critic.parameters()], config.critic_lr)
        return found

    @classmethod
    def weight_decay(cls, name: str, config: Any) -> float:
        """Return that of the model for its optimizer; actors and critics have none."""
        return config.model_weight_decay if name == "model" else 0.0

    def losses(self, batch: Transitions) -> Iterator[Objective]:
        """Yield the losses of models, actors and critics."""
        modules = dict(zip(batch.modules, self.modules(), strict=True))
        losses: dict[str, torch.Tensor] = {}
        stats: dict[tuple[str, str], torch.Tensor] = {}
        starts: dict[str, tuple[torch.Tensor, torch.Tensor | None]] = {}
        for g, (module_id, module) in enumerate(modules.items()):
            model = module.policy.model
            sequences = sequences_of(batch, g, joint=model.sees_others)
            model.take_in(sequences)
            learned = model.learn(sequences, self.noise)
            losses[module_id] = learned.loss
            stats |= {(module_id, name): value for name, value in learned.stats.items()}
            if self.config.causal_mask is not None and self.config.causal_mask["use"] == CONSISTENCY:
                divergence = interventional_divergence(model, sequences, module.causes, self.noise)
                losses[module_id] = learned.loss + self.config.causal_mask["weight"] * divergence
                stats[module_id, "inconsistency"] = divergence.detach() / model.members
            starts[module_id] = starts_of(learned.states, sequences)
        yield Objective("model", losses, stats)
        acting = {key: module for key, module in modules.items() if module.policy.actor is not None}
        if not acting:
            return
        losses, stats, critics = {}, {}, {}
        for module_id, module in acting.items():
            module.policy.model.requires_grad_(False)
            losses[module_id], critics[module_id], entropy = self.imagined_losses(module, *starts[module_id])
            stats[module_id, "entropy"] = entropy
            stats[module_id, "return_range"] = module.return_range.clone()
        yield Objective("actor", losses, stats)
        yield Objective("critic", critics)
        for module in acting.values():
            module.policy.model.requires_grad_(True)

    def imagined_losses(
        self, module: WorldModelModule, starts: torch.Tensor, present: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the losses of actor and critic over imagined steps, and the actor's entropy.

        The actor's gradient passes through the model where actions are continuous (Hafner et al., 2020), and is that of
        the score function where they are discrete (Hafner et al., 2021).

        Args:
            module: Whose actor and critic.
            starts: States, ``[B, S]``.
            present: Of a model that sees others: agents that are there, and learn, ``[E, M]`` with ``B = E M``.
        """
        config, model = self.config, module.policy.model
        behaviour = _Behaviour(module, self.noise)
        found: Imagined = imagine(model, starts, behaviour, config.imagination_horizon, self.noise, present)
        features = model.features(found.states)
        values = module.target_critic.mean(features)
        returns = lambda_returns(found.rewards, found.continuation, values, config.gamma, config.lambda_)
        weights = reach_weights(found.continuation, config.gamma)
        counted = returns.detach()
        if present is not None:
            here = present.flatten() > 0
            weights, counted = weights * here, counted[:, here]
        with torch.no_grad():
            low, high = torch.quantile(
                counted.flatten()[:1_000_000],
                torch.tensor(_RANGE_QUANTILES, device=returns.device),
            )
            module.return_range.lerp_(high - low, 1.0 - _RANGE_DECAY if module.return_range > 0 else 1.0)
            scale = module.return_range.clamp_min(1.0)
        logp, entropy = torch.stack(behaviour.logp), torch.stack(behaviour.entropy)
        if behaviour.is_discrete:
            gain = ((returns - values[:-1]) / scale).detach() * logp
        else:
            gain = returns / scale
        actor = -mean_over(gain + self._entropy_schedule.get_current_value() * entropy, weights)
        errors = module.critic.loss(features[:-1].detach(), returns.detach())
        return actor, mean_over(errors, weights), entropy.detach().mean()


class _Behaviour:
    """Draws actions from a module's policy, and keeps their log-probabilities and entropies."""

    def __init__(self, module: WorldModelModule, noise: torch.Generator) -> None:
        actor = module.policy.actor
        assert actor is not None
        self.actor, self.noise = actor, noise
        self.is_discrete = actor.spec.is_discrete
        self.logp: list[torch.Tensor] = []
        self.entropy: list[torch.Tensor] = []

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        if self.is_discrete:
            features = features.detach()
        parameters, _ = self.actor(features)
        if self.is_discrete:
            log_probs = torch.log_softmax(parameters, dim=-1).clamp_min(torch.finfo(parameters.dtype).min)
            probs = log_probs.exp()
            drawn = torch.multinomial(probs.detach(), 1, generator=self.noise)
            self.logp.append(log_probs.gather(-1, drawn).squeeze(-1))
            self.entropy.append(-(probs * log_probs).sum(-1))
            return torch.nn.functional.one_hot(drawn.squeeze(-1), probs.shape[-1]).to(probs.dtype)
        mean, log_std = parameters.chunk(2, dim=-1)
        noise = torch.randn(mean.shape, generator=self.noise).to(mean.device)
        raw = mean + log_std.exp() * noise
        logp = (-0.5 * noise * noise - log_std - log_tanh_slope(raw)).sum(-1)  # up to a constant
        self.logp.append(logp)
        self.entropy.append(-logp)
        return torch.tanh(raw)


def _planner(settings: Mapping[str, Any]) -> dict[str, Any]:
    PlanningSettings.of(settings)
    return dict(settings)


def _world_model(settings: Mapping[str, Any]) -> dict[str, Any]:
    model_settings(settings)
    return dict(settings)


def _causal_mask(settings: Mapping[str, Any]) -> dict[str, Any]:
    checked = CausalMaskSettings.of(settings)
    assert checked is not None
    return dataclasses.asdict(checked)


_CHECKS = {"world_model": _world_model, "planner": _planner, CAUSAL_MASK: _causal_mask}
