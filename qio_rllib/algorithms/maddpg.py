"""MADDPG (multi-agent deep deterministic policy gradient), which RLlib dropped: decentralised actors, joint critics."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import gymnasium
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.core import ALL_MODULES
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_MODULE_STEPS_TRAINED,
    NUM_MODULE_STEPS_TRAINED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
    WEIGHTS_SEQ_NO,
)
from ray.rllib.utils.schedules.scheduler import Scheduler
from ray.tune.registry import register_trainable

from qio_envs.api import ConfigError, did_you_mean
from qio_rllib.algorithms.config import ExploringConfig
from qio_rllib.algorithms.rollout_learner import as_tensor, clip_gradients, learner_threads
from qio_rllib.models.central import NUM_AGENTS, STATE_SIZE, STATE_SOURCE
from qio_rllib.models.communication import Communication, inbox
from qio_rllib.models.joint_critics import JointView
from qio_rllib.models.maddpg import MADDPGModule
from qio_rllib.models.networks import ACTIVATIONS
from qio_rllib.sampling.copies import bare_space
from qio_rllib.sampling.environments import EnvDescription, describe_env
from qio_rllib.sampling.replay import JointBatch, JointReplay
from qio_rllib.sampling.rollout import SamplingFailure
from qio_rllib.sampling.runner import BatchedEnvRunner
from qio_rllib.sampling.states import STATE

_CRITIC = {"type": "mlp", "hiddens": [128, 128], "activation": "relu", "heads": 4}
_CRITIC_TYPES = ("mlp", "attention")
_NOISE_STATE = "noise_generator"
_REPLAY = "replay"

logger = logging.getLogger(__name__)


class MADDPGConfig(ExploringConfig, AlgorithmConfig):
    """Configuration of `MADDPG`.

    An iteration is many short rounds: each samples ``rollout_fragment_length`` steps of each copy into the replay and
    takes one gradient step for every ``env_steps_per_update`` of them. Actors act in [-1, 1], scaled to the action
    space's bounds, or in Discrete spaces.
    """

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or MADDPG)
        self.actor_lr: float | list = 1e-3
        self.critic_lr: float | list = 1e-3
        self.gamma = 0.95
        self.tau = 0.01
        self.exploration: float | list = 0.1
        self.gumbel_temperature = 1.0
        self.action_regularization = 1e-3
        self.critic: dict[str, Any] = dict(_CRITIC)
        self.critic_state: bool | None = None
        self.replay_capacity = 100_000
        self.num_steps_sampled_before_learning_starts = 1000
        self.env_steps_per_update = 8
        self.grad_clip = 0.5
        self.grad_clip_by = "global_norm"
        self.num_env_runners = 0
        self.num_envs_per_env_runner = 8
        self.rollout_fragment_length = 8
        self.train_batch_size_per_learner = 256
        self.min_sample_timesteps_per_iteration = 2000
        self._model_config = {"fcnet_hiddens": [64, 64], "fcnet_activation": "relu"}
        self.rl_module(rl_module_spec=RLModuleSpec(module_class=MADDPGModule))
        self.env_runners(env_runner_cls=BatchedEnvRunner)
        self.learners(learner_class=MADDPGLearner)

    def environment(self, env: Any = NotProvided, **kwargs: Any) -> Self:
        """Set the environment; arguments as in `ExploringConfig.environment`."""
        super().environment(env, **kwargs)
        self._set_state_source()
        return self

    def training(
        self,
        *,
        actor_lr: float | list | None = NotProvided,
        critic_lr: float | list | None = NotProvided,
        tau: float | None = NotProvided,
        exploration: float | list | None = NotProvided,
        gumbel_temperature: float | None = NotProvided,
        action_regularization: float | None = NotProvided,
        critic: dict | None = NotProvided,
        critic_state: bool | None = NotProvided,
        communication: dict | None = NotProvided,
        replay_capacity: int | None = NotProvided,
        num_steps_sampled_before_learning_starts: int | None = NotProvided,
        env_steps_per_update: int | None = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set the training parameters; the rest as in `ExploringConfig.training`.

        Args:
            actor_lr: Learning rate of the actors, or a schedule ``[[timestep, value], ...]``.
            critic_lr: Likewise of the critics.
            tau: Share of the present network that the target networks take over in each update, in (0, 1].
            exploration: Standard deviation of the noise on continuous actions (whose range is [-1, 1]), or the share
                of uniformly random discrete ones; a number, or a schedule over environment steps.
            gumbel_temperature: Of the relaxation through which discrete actors learn, above 0.
            action_regularization: Weight of the mean squared output of the actors before tanh or softmax, which keeps
                them off the flat ends.
            critic: ``{"type": "mlp" | "attention", "hiddens": [128, 128], "activation": "relu", "heads": 4}``; missing
                keys take these defaults, ``heads`` is for attention.
            critic_state: Whether critics see the environment's ``state()`` beside all observations; None if it has one.
            communication: ``{"bandwidth": numbers in a message, "drop": probability of loss}``; None or bandwidth 0
                for none.
            replay_capacity: Joint steps that are kept.
            num_steps_sampled_before_learning_starts: Environment steps with random actions before the first update.
            env_steps_per_update: Environment steps to a gradient step.
            **kwargs: The other arguments; ``train_batch_size_per_learner`` is the joint steps in a gradient step.

        Raises:
            ConfigError: An unknown key or a value outside its range.
        """
        if kwargs.get("central_value", NotProvided) is not NotProvided:
            raise ConfigError("central_value: MADDPG's critics are central as they are; see critic_state")
        super().training(**kwargs)
        for name, value in (
            ("actor_lr", actor_lr),
            ("critic_lr", critic_lr),
            ("tau", tau),
            ("exploration", exploration),
            ("gumbel_temperature", gumbel_temperature),
            ("action_regularization", action_regularization),
            ("replay_capacity", replay_capacity),
            ("num_steps_sampled_before_learning_starts", num_steps_sampled_before_learning_starts),
            ("env_steps_per_update", env_steps_per_update),
        ):
            if value is not NotProvided:
                setattr(self, name, value)
        if critic is not NotProvided:
            self.critic = _checked_critic(critic)
        if communication is not NotProvided:
            Communication.of(communication)
            kept = None if communication is None else dict(communication)
            self._model_config = {**self._model_config, "communication": kept}
        if critic_state is not NotProvided:
            self.critic_state = critic_state
            self._set_state_source()
        return self

    def validate(self) -> None:
        """Check the settings against each other.

        Raises:
            ConfigError: A value that is out of range or does not fit another.
        """
        runner = self.env_runner_cls
        if not (isinstance(runner, type) and issubclass(runner, BatchedEnvRunner)):
            raise ConfigError(f"env_runner_cls: MADDPG needs BatchedEnvRunner, got {runner}")
        super().validate()
        if self.entropy_annealing is not None:
            raise ConfigError("entropy_annealing: MADDPG's loss has no entropy; set exploration instead")
        if self.normalize_values:
            raise ConfigError(
                "normalize_values: MADDPG's critics learn values as they are; scale the rewards instead"
            )
        if self.num_learners > 1:
            raise ConfigError(
                f"num_learners: MADDPG learns in one Learner, got {self.num_learners}; num_env_runners can be more"
            )
        if not self.normalize_actions:
            raise ConfigError("normalize_actions: MADDPG's actors act in [-1, 1]; leave it on")
        if not 0.0 < self.tau <= 1.0:
            raise ConfigError(f"tau: expected a number above 0, up to 1, got {self.tau}")
        if not self.gumbel_temperature > 0.0:
            raise ConfigError(f"gumbel_temperature: expected a number above 0, got {self.gumbel_temperature}")
        if self.action_regularization < 0.0:
            raise ConfigError(
                f"action_regularization: expected a number of at least 0, got {self.action_regularization}"
            )
        values = (
            [value for _, value in self.exploration]
            if isinstance(self.exploration, Sequence)
            else [self.exploration]
        )
        if any(not value >= 0.0 for value in values):
            raise ConfigError(f"exploration: expected numbers of at least 0, got {self.exploration}")
        for name in ("replay_capacity", "env_steps_per_update"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected an integer of at least 1, got {getattr(self, name)}")
        if self.replay_capacity < self.train_batch_size_per_learner:
            raise ConfigError(
                f"replay_capacity: {self.replay_capacity} joint steps never hold a batch of "
                f"{self.train_batch_size_per_learner} (train_batch_size_per_learner)"
            )
        # RLlib gives evaluation a fragment length of its own.
        if not self.in_evaluation and self.round_steps % self.env_steps_per_update:
            raise ConfigError(
                f"env_steps_per_update: {self.env_steps_per_update} does not divide the {self.round_steps} environment "
                "steps of a round (rollout_fragment_length x num_envs_per_env_runner x runners)"
            )

    @property
    def round_steps(self) -> int:
        """Environment steps that are sampled between two groups of updates."""
        if not isinstance(self.rollout_fragment_length, int):
            raise ConfigError(
                f"rollout_fragment_length: MADDPG needs a number of steps, got {self.rollout_fragment_length!r}"
            )
        runners = max(1, self.num_env_runners)
        return self.rollout_fragment_length * self.num_envs_per_env_runner * runners

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Return the specification of a module."""
        return RLModuleSpec(module_class=MADDPGModule)

    def get_default_learner_class(self) -> type[TorchLearner]:
        """Return the class of the Learner."""
        return MADDPGLearner

    def get_multi_rl_module_spec(self, **kwargs: Any) -> MultiRLModuleSpec:
        """Return the modules' specifications; each is told of all the others' agents, for its critic.

        Raises:
            ConfigError: An action space that is neither Discrete nor a bounded Box.
        """
        spec = super().get_multi_rl_module_spec(**kwargs)
        joint = self._joint()
        for module_id, module_spec in spec.rl_module_specs.items():
            if module_id in joint["modules"]:
                module_spec.model_config = {
                    **module_spec.model_config,
                    "critic": self.critic,
                    "joint": {**joint, "own": joint["modules"].index(module_id)},
                }
        return spec

    def _joint(self) -> dict[str, Any]:
        """Describe all agents as joint critics have to know them, modules in the order of their first agents."""
        description = describe_env(self.env, self.env_config)
        slots: dict[str, list[int]] = {}
        for slot, agent in enumerate(description.agents):
            module_id = self.policy_mapping_fn(agent, None) if self.is_multi_agent else "default_policy"
            slots.setdefault(module_id, []).append(slot)
        radio = Communication.of(self._model_config.get("communication"))
        heard = 0 if radio is None else radio.bandwidth
        groups = []
        for members in slots.values():
            agent = description.agents[members[0]]
            seen = math.prod(bare_space(description.observation_spaces[agent]).shape or ())
            acts = _action_size(agent, description.action_spaces[agent])
            groups.append({"agents": len(members), "seen": seen, "acts": acts, "heard": heard})
        return {
            "modules": list(slots),
            "slots": list(slots.values()),
            "groups": groups,
            "state_size": self._model_config.get(STATE_SIZE, 0),
        }

    def _measure_states(self, kind: str, description: EnvDescription) -> None:
        """Leave the states of an environment before; `_set_state_source` looks at the present one."""

    def _set_state_source(self) -> None:
        """Let runners record states where critics shall see them."""
        if not isinstance(self.env, str):
            return
        description = describe_env(self.env, self.env_config)
        if self.critic_state and not description.state_size:
            raise ConfigError(
                f"critic_state: {self.env} has no state(); critics see all observations anyway, leave it null"
            )
        wanted = self.critic_state is not False and description.state_size
        self._set_states(
            {STATE_SOURCE: STATE, STATE_SIZE: description.state_size, NUM_AGENTS: len(description.agents)}
            if wanted
            else {}
        )

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        return super()._model_config_auto_includes | {
            "fcnet_hiddens": [64, 64],
            "fcnet_activation": "relu",
        }


class MADDPG(Algorithm):
    """Multi-agent deep deterministic policy gradient (Lowe et al., 2017).

    Critics see all observations, actions, messages and the environment's state; actors see their own observation
    and what they hear. Until ``num_steps_sampled_before_learning_starts`` steps and a batch are there, actions are
    random and nothing is learned: ``warming_up`` is 1 in the result.
    """

    replay: JointReplay

    @classmethod
    def get_default_config(cls) -> MADDPGConfig:
        """Return the default configuration."""
        return MADDPGConfig()

    def setup(self, config: AlgorithmConfig) -> None:
        """Build the algorithm and an empty replay."""
        super().setup(config)
        self.replay = JointReplay(self.config.replay_capacity, self.config.seed)
        self._told_of_warm_up = False

    def training_step(self) -> None:
        """Sample a round into the replay, take the gradient steps that it is due, and hand the weights on."""
        config = self.config
        sampled = self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0)
        warming_up = sampled < config.num_steps_sampled_before_learning_starts
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            rollouts, results = synchronous_parallel_sample(
                worker_set=self.env_runner_group,
                max_env_steps=config.round_steps,
                sample_timeout_s=config.sample_timeout_s,
                random_actions=warming_up,
                _uses_new_env_runners=True,
                _return_metrics=True,
            )
            if not rollouts:
                return  # all runners failed; RLlib brings them back
            self.metrics.aggregate(results, key=ENV_RUNNER_RESULTS)
        for rollout in rollouts:
            if isinstance(rollout, SamplingFailure):
                rollout.throw()
            self.replay.add(rollout)
        sampled = self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME))
        batch = config.train_batch_size_per_learner
        warming_up = sampled < config.num_steps_sampled_before_learning_starts or len(self.replay) < batch
        self.metrics.log_value((_REPLAY, "joint_steps"), len(self.replay), window=1)
        self.metrics.log_value((_REPLAY, "warming_up"), int(warming_up), window=1)
        if warming_up:
            if not self._told_of_warm_up:
                needed = max(config.num_steps_sampled_before_learning_starts, batch)
                logger.warning(
                    "MADDPG is warming up: it learns nothing before %d environment steps are in the replay",
                    needed,
                )
                self._told_of_warm_up = True
            return
        updates = config.round_steps // config.env_steps_per_update
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            results = self.learner_group.update(
                episodes=[self.replay.sample(updates * batch)],
                timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: sampled},
                num_epochs=updates,
            )
            self.metrics.aggregate(results, key=LEARNER_RESULTS)
        with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
            self.env_runner_group.sync_weights(
                from_worker_or_learner_group=self.learner_group,
                policies=set(results[0]) - {ALL_MODULES},
                inference_only=True,
            )

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the state, the replay included."""
        state = super().get_state(components, not_components=not_components, **kwargs)
        if self._check_component(_REPLAY, components, not_components):
            state[_REPLAY] = self.replay.get_state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        super().set_state(state)
        if _REPLAY in state:
            self.replay.set_state(state[_REPLAY])

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        """Return the parts that have checkpoints of their own."""
        return [*super().get_checkpointable_components(), (_REPLAY, self.replay)]


class MADDPGLearner(TorchLearner):
    """Learns from rows of a `JointReplay`: ``update(episodes=[JointBatch], num_epochs=gradient steps)``.

    Its state holds the source of its noise (Gumbel, lost messages of target agents).

    Raises:
        FloatingPointError: A loss or gradient is not finite.
    """

    def build(self) -> None:
        """Build the Learner, its noise and the exploration schedule."""
        super().build()
        self._noise = torch.Generator().manual_seed(self.config.seed or 0)
        self._joint = next(iter(self.module.values())).unwrapped().model_config["joint"]
        self._radio = Communication.of(self.config.model_config.get("communication"))
        self._exploration = Scheduler(
            fixed_value_or_schedule=self.config.exploration, framework=self.framework, device=self._device
        )
        self._explore(0)

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Register one Adam for actor and speaker, and one for the critic."""
        module = self.module[module_id].unwrapped()
        acting = [*module.actor.parameters()]
        if module.speaker is not None:
            acting += module.speaker.parameters()
        for name, parameters, rate in (
            ("actor", acting, config.actor_lr),
            ("critic", [*module.critic.parameters()], config.critic_lr),
        ):
            self.register_optimizer(
                module_id=module_id,
                optimizer_name=name,
                optimizer=torch.optim.Adam(parameters, fused=True),
                params=parameters,
                lr_or_lr_schedule=rate,
            )

    def update(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Take ``num_epochs`` gradient steps, each on an equal share of the rows."""
        data = kwargs.get("training_data")
        if data is not None:
            data.validate()
            data.solve_refs()
        (batch,) = data.episodes if data is not None else kwargs["episodes"]
        updates, timesteps = kwargs.get("num_epochs") or 1, kwargs.get("timesteps") or {}
        self._check_is_built()
        self.before_gradient_based_update(timesteps=timesteps)
        with learner_threads(self.config.num_cpus_per_learner):
            self._learn(batch, updates)
        self._explore(timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0))
        self.after_gradient_based_update(timesteps=timesteps)
        return self.metrics.reduce()

    def compute_loss_for_module(self, **kwargs: Any) -> torch.Tensor:
        """Refuse RLlib's batches."""
        raise ConfigError("MADDPG learns from the joint steps of its replay only")

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the Learner's state with that of its noise."""
        state = super().get_state(*args, **kwargs)
        if not kwargs.get("inference_only"):
            state[_NOISE_STATE] = self._noise.get_state().numpy()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the Learner and its noise."""
        super().set_state(state)
        if _NOISE_STATE in state:
            self._noise.set_state(torch.as_tensor(state[_NOISE_STATE], dtype=torch.uint8))

    # -- one update -----------------------------------------------------------------------------------------------

    def _learn(self, batch: JointBatch, updates: int) -> None:
        whole = self._tensors(batch)
        rows = len(batch) // updates
        totals: dict[tuple[str, str], torch.Tensor] = {}
        for update in range(updates):
            for key, value in self.gradient_step(
                whole.select(slice(update * rows, (update + 1) * rows))
            ).items():
                totals[key] = totals[key] + value if key in totals else value
        means = {key: float(total) / updates for key, total in totals.items()}
        broken = [
            f"{name} of '{module_id}' is {mean}"
            for (module_id, name), mean in means.items()
            if not math.isfinite(mean)
        ]
        if broken:
            raise FloatingPointError(f"{', '.join(broken)} in this update")
        for key, mean in means.items():
            self.metrics.log_value(key, mean, window=1)
        log = self.metrics.log_value
        for module_id in self._joint["modules"]:
            steps = int(batch.modules[module_id]["acted"].sum())
            for owner in (module_id, ALL_MODULES):
                log((owner, NUM_MODULE_STEPS_TRAINED), steps, reduce="sum")
                log((owner, NUM_MODULE_STEPS_TRAINED_LIFETIME), steps, reduce="lifetime_sum")
            log((module_id, "updates_lifetime"), updates, reduce="lifetime_sum")
        self._weights_seq_no += 1
        for module_id in self._joint["modules"]:
            log((module_id, WEIGHTS_SEQ_NO), self._weights_seq_no, window=1)

    def gradient_step(self, rows: _Rows) -> dict[tuple[str, str], torch.Tensor]:
        """Take one step of all critics, then of all actors and speakers; return what to report by (module, name)."""
        modules = [self.module[module_id].unwrapped() for module_id in self._joint["modules"]]
        stats: dict[tuple[str, str], torch.Tensor] = {}
        joint = JointView(rows.seen, rows.acted, rows.heard, rows.state)
        targets = self._targets(modules, rows)
        losses = []
        for g, module_id in enumerate(self._joint["modules"]):
            worth = modules[g].critic(joint, rows.actions)
            loss = _mean_over((worth - targets[g]) ** 2, rows.acted[g])
            losses.append(loss)
            stats[module_id, "critic_loss"] = loss.detach()
            stats[module_id, "q_mean"] = _mean_over(worth.detach(), rows.acted[g])
        self._descend("critic", losses, stats)

        said = self._said(modules, rows)
        losses = []
        for critic in (module.critic for module in modules):
            critic.requires_grad_(False)
        for g, module_id in enumerate(self._joint["modules"]):
            inputs = rows.seen[g] if said is None else torch.cat([rows.seen[g], said[g]], dim=-1)
            own, output = self._act(modules[g], inputs, rows.legal[g])
            # Others' actions and all messages are those that were executed; only its own action is the actor's.
            worth = modules[g].critic.of_own(joint, rows.actions, own)
            gain = _mean_over(worth, rows.acted[g])
            flat = _mean_over((output**2).mean(-1), rows.acted[g])
            losses.append(-gain + self.config.action_regularization * flat)
            stats[module_id, "actor_loss"] = -gain.detach()
        self._descend("actor", losses, stats)
        for critic in (module.critic for module in modules):
            critic.requires_grad_(True)
        for module in modules:
            self._follow(module)
        return stats

    def _targets(self, modules: list[MADDPGModule], rows: _Rows) -> list[torch.Tensor]:
        """Return what each agent's action was worth by the target networks, ``[B, M]`` a module."""
        with torch.no_grad():
            heard = None
            if self._radio is not None:
                messages = [
                    module.target_speaker(seen) for module, seen in zip(modules, rows.next_seen, strict=True)
                ]
                heard = self._heard(messages, self._next_delivered(rows.present_next))
            joint = JointView(rows.next_seen, rows.present_next, heard, rows.next_state)
            actions = []
            for g, module in enumerate(modules):
                inputs = (
                    rows.next_seen[g] if heard is None else torch.cat([rows.next_seen[g], heard[g]], dim=-1)
                )
                actions.append(self._act(module, inputs, rows.next_legal[g], target=True)[0])
            return [
                rows.rewards[g]
                + self.config.gamma * rows.present_next[g] * module.target_critic(joint, actions)
                for g, module in enumerate(modules)
            ]

    def _said(self, modules: list[MADDPGModule], rows: _Rows) -> list[torch.Tensor] | None:
        """Return what agents would hear from the present speakers, with gradients, over the links that worked."""
        if rows.delivered is None:
            return None
        return self._heard(
            [module.speak(seen) for module, seen in zip(modules, rows.seen, strict=True)], rows.delivered
        )

    def _heard(self, messages: list[torch.Tensor], delivered: list[torch.Tensor]) -> list[torch.Tensor]:
        return heard_by_group(messages, delivered, self._joint["slots"])

    def _next_delivered(self, present: list[torch.Tensor]) -> list[torch.Tensor]:
        """Draw which of the next step's messages arrive, as runners do."""
        assert self._radio is not None
        alive = _by_slot(present, self._joint["slots"]) > 0
        agents = alive.shape[1]
        delivered = (
            alive[:, :, None] & alive[:, None, :] & ~torch.eye(agents, dtype=torch.bool, device=alive.device)
        )
        if self._radio.drop > 0.0:
            draws = torch.rand(delivered.shape, generator=self._noise).to(alive.device)
            delivered &= draws >= self._radio.drop
        return [delivered[:, slots] for slots in self._joint["slots"]]

    def _act(
        self, module: MADDPGModule, inputs: torch.Tensor, legal: torch.Tensor | None, target: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return module.act(inputs, legal, self.config.gumbel_temperature, self._noise, target)

    def _descend(
        self, name: str, losses: list[torch.Tensor], stats: dict[tuple[str, str], torch.Tensor]
    ) -> None:
        """Take a step of all modules' optimizers of a name down the sum of the losses."""
        optimizers = {module_id: self.get_optimizer(module_id, name) for module_id in self._joint["modules"]}
        for optimizer in optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        torch.stack(losses).sum().backward()
        for module_id, optimizer in optimizers.items():
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            if self.config.grad_clip is not None:
                stats[module_id, f"{name}_gradient_norm"] = clip_gradients(
                    gradients, self.config.grad_clip, self.config.grad_clip_by
                )
            optimizer.step()

    def _follow(self, module: MADDPGModule) -> None:
        """Move the target networks towards the present ones."""
        with torch.no_grad():
            for target, present in (
                (module.target_actor, module.actor),
                (module.target_speaker, module.speaker),
                (module.target_critic, module.critic),
            ):
                if target is not None:
                    torch._foreach_lerp_([*target.parameters()], [*present.parameters()], self.config.tau)

    def _explore(self, timestep: int) -> None:
        value = float(self._exploration.update(timestep=timestep))
        for module_id in self._joint["modules"]:
            self.module[module_id].unwrapped().exploration.fill_(value)
            self.metrics.log_value((module_id, "exploration"), value, window=1)

    def _tensors(self, batch: JointBatch) -> _Rows:
        parts = [batch.modules[module_id] for module_id in self._joint["modules"]]

        def tensors(name: str, numbers: bool = False) -> list[torch.Tensor]:
            found = [as_tensor(part[name]).to(self._device) for part in parts]
            return [array.float() for array in found] if numbers else found

        actions = []
        for acts, group in zip(tensors("actions"), self._joint["groups"], strict=True):
            one_hot = acts.dtype == torch.int64
            actions.append(torch.nn.functional.one_hot(acts, group["acts"]).float() if one_hot else acts)
        heard = delivered = None
        if self._radio is not None:
            delivered = tensors("delivered")
            heard = self._heard(tensors("messages"), delivered)

        def optional(part: Mapping[str, Any], name: str) -> torch.Tensor | None:
            return as_tensor(part[name]).to(self._device) if name in part else None

        def state(array: Any) -> torch.Tensor | None:
            return None if array is None else as_tensor(array).to(self._device)

        return _Rows(
            seen=tensors("observations"),
            next_seen=tensors("next_observations"),
            actions=actions,
            rewards=tensors("rewards"),
            acted=tensors("acted", numbers=True),
            present_next=tensors("present_next", numbers=True),
            legal=[optional(part, "action_mask") for part in parts],
            next_legal=[optional(part, "next_action_mask") for part in parts],
            heard=heard,
            delivered=delivered,
            state=state(batch.states),
            next_state=state(batch.next_states),
        )


@dataclasses.dataclass
class _Rows:
    """Joint steps as tensors; each list has one entry a module."""

    seen: list[torch.Tensor]  # [B, M, D]
    next_seen: list[torch.Tensor]
    actions: list[torch.Tensor]  # [B, M, A], one-hot where discrete
    rewards: list[torch.Tensor]  # [B, M]
    acted: list[torch.Tensor]  # [B, M], 0 or 1
    present_next: list[torch.Tensor]
    legal: list[torch.Tensor | None]  # bool [B, M, A]
    next_legal: list[torch.Tensor | None]
    heard: list[torch.Tensor] | None  # [B, M, K], what arrived of the messages that were sent
    delivered: list[torch.Tensor] | None  # bool [B, M, N]
    state: torch.Tensor | None  # [B, S]
    next_state: torch.Tensor | None

    def select(self, rows: slice) -> _Rows:
        """Return some of the rows, as views."""

        def part(value: Any) -> Any:
            if isinstance(value, list):
                return [part(item) for item in value]
            return None if value is None else value[rows]

        return _Rows(**{field.name: part(getattr(self, field.name)) for field in dataclasses.fields(self)})


def heard_by_group(
    messages: Sequence[torch.Tensor], delivered: Sequence[torch.Tensor], slots: Sequence[Sequence[int]]
) -> list[torch.Tensor]:
    """Return the inboxes of each module's agents, ``[B, M, K]``.

    Args:
        messages: Of each module's agents, ``[B, M, K]``.
        delivered: Whose message reached them, bool ``[B, M, N]``, by slot of the sender.
        slots: The agents' slots, by module.
    """
    sent = _by_slot(messages, slots)
    return [inbox(sent, reached) for reached in delivered]


def _by_slot(parts: Sequence[torch.Tensor], slots: Sequence[Sequence[int]]) -> torch.Tensor:
    """Join what the modules' agents have along the second axis, in the order of all agents' slots."""
    order = [slot for members in slots for slot in members]
    joined = torch.cat(list(parts), dim=1)
    return joined if order == sorted(order) else joined[:, torch.as_tensor(order).argsort()]


def _mean_over(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of the values where the mask is 1; 0 where it is nowhere."""
    return (values * mask).sum() / mask.sum().clamp_min(1.0)


def _action_size(agent: Any, space: gymnasium.Space) -> int:
    if isinstance(space, gymnasium.spaces.Discrete):
        return int(space.n)
    if isinstance(space, gymnasium.spaces.Box) and space.is_bounded():
        return math.prod(space.shape)
    raise ConfigError(f"env: MADDPG needs Discrete or bounded Box actions, {agent} has {space}")


def _checked_critic(settings: Any) -> dict[str, Any]:
    """Return a critic's settings with defaults for what is missing."""
    if settings is None:
        return dict(_CRITIC)
    if not isinstance(settings, Mapping):
        raise ConfigError(f"critic: expected a mapping of {', '.join(_CRITIC)}, got {settings!r}")
    for key in settings:
        if key not in _CRITIC:
            raise ConfigError(
                f"critic: unknown key '{key}'{did_you_mean(str(key), _CRITIC)}; allowed: {', '.join(_CRITIC)}"
            )
    found = {**_CRITIC, **settings}
    for key, allowed in (("type", _CRITIC_TYPES), ("activation", tuple(ACTIVATIONS))):
        if found[key] not in allowed:
            raise ConfigError(f"critic.{key}: expected one of {', '.join(allowed)}, got {found[key]!r}")
    sizes, heads = found["hiddens"], found["heads"]
    if not isinstance(sizes, Sequence) or not sizes or not all(isinstance(n, int) and n >= 1 for n in sizes):
        raise ConfigError(f"critic.hiddens: expected sizes of at least 1, got {sizes!r}")
    if not isinstance(heads, int) or isinstance(heads, bool) or heads < 1:
        raise ConfigError(f"critic.heads: expected an integer of at least 1, got {heads!r}")
    if found["type"] == "attention" and sizes[0] % heads:
        raise ConfigError(f"critic.heads: {heads} heads do not divide the first hidden layer of {sizes[0]}")
    return found


register_trainable("MADDPG", MADDPG)
