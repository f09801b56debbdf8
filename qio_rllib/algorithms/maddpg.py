"""MADDPG (multi-agent deep deterministic policy gradient), which RLlib dropped: decentralised actors, joint critics."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from typing import Any, Self

import gymnasium
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
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)
from ray.tune.registry import register_trainable

from qio_envs.api import ConfigError, check_keys
from qio_rllib.acting.communication import Communication
from qio_rllib.algorithms.config import OWN_MODEL_SETTINGS, ExploringConfig
from qio_rllib.learners.off_policy import MADDPGLearner
from qio_rllib.models.central import NUM_AGENTS, STATE_SIZE, STATE_SOURCE
from qio_rllib.models.circuits import CIRCUIT
from qio_rllib.models.coordination import COORDINATION
from qio_rllib.models.maddpg import MADDPGModule
from qio_rllib.models.networks import ACTIVATIONS
from qio_rllib.sampling.environments import EnvDescription, describe_env
from qio_rllib.sampling.replay import JointReplay
from qio_rllib.sampling.rollout import SamplingFailure
from qio_rllib.sampling.runner import BatchedEnvRunner
from qio_rllib.sampling.states import STATE
from qio_rllib.sampling.vector_env import bare_space

_CRITIC = {"type": "mlp", "hiddens": [128, 128], "activation": "relu", "heads": 4}
_CRITIC_TYPES = ("mlp", "attention")
_REPLAY = "replay"
_MODEL_SETTINGS = ("fcnet_hiddens", "fcnet_activation", *OWN_MODEL_SETTINGS)

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
        for key in (CIRCUIT, COORDINATION):
            if self.model_config.get(key) is not None:
                raise ConfigError(f"{key}: MADDPG's actors are MLPs; PPO and A2C take it")
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
        for name in ("exploration", "actor_lr", "critic_lr"):
            _check_schedule(name, getattr(self, name))
        for key in self._model_config:
            if key not in _MODEL_SETTINGS:
                raise ConfigError(
                    f"model_config.{key}: MADDPG's actors have fcnet_hiddens and fcnet_activation, and nothing else"
                )
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


def _action_size(agent: Any, space: gymnasium.Space) -> int:
    if isinstance(space, gymnasium.spaces.Discrete):
        return int(space.n)
    if isinstance(space, gymnasium.spaces.Box) and space.is_bounded():
        return math.prod(space.shape)
    raise ConfigError(f"env: MADDPG needs Discrete or bounded Box actions, {agent} has {space}")


def _check_schedule(name: str, value: Any) -> None:
    """Refuse what is neither a number of at least 0 nor a schedule of such over environment steps from 0 on."""

    def fits(number: Any, kinds: Any = int | float) -> bool:
        return isinstance(number, kinds) and not isinstance(number, bool) and number >= 0

    points = value if isinstance(value, Sequence) and not isinstance(value, str) else [[0, value]]
    pairs = [tuple(point) if isinstance(point, Sequence) else () for point in points]
    if (
        not pairs
        or not all(len(pair) == 2 and fits(pair[0], int) and fits(pair[1]) for pair in pairs)
        or pairs[0][0] != 0
        or any(before[0] >= after[0] for before, after in itertools.pairwise(pairs))
    ):
        raise ConfigError(
            f"{name}: expected a number of at least 0, or [[0, first], [steps, value], ...] with rising steps, "
            f"got {value!r}"
        )


def _checked_critic(settings: Any) -> dict[str, Any]:
    """Return a critic's settings with defaults for what is missing."""
    if settings is None:
        return dict(_CRITIC)
    check_keys("critic", settings, _CRITIC)
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
