"""What the configurations of off-policy algorithms have in common: replay, updates, exploration, joint critics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from ray.rllib.algorithms.algorithm_config import NotProvided

from qio_envs.api import ConfigError
from qio_rllib.algorithms.joint_config import JointConfig
from qio_rllib.algorithms.own_settings import checked_mapping
from qio_rllib.algorithms.search_spaces import holds_search_space
from qio_rllib.algorithms.setting_types import Range, Schedule
from qio_rllib.algorithms.settings import algorithm_name
from qio_rllib.learners.on_policy import window_length
from qio_rllib.models.joint_critics import CriticSettings
from qio_rllib.models.joint_module import CRITIC
from qio_rllib.models.values import NUM_AGENTS, STATE_SIZE, STATE_SOURCE
from qio_rllib.sampling.global_state import STATE
from qio_rllib.sampling.runner import BatchedEnvRunner


class OffPolicyConfig(JointConfig):
    """Base of the configurations of `OffPolicyAlgorithm`s, on `BatchedEnvRunner`.

    A module with memory (``model_config``: ``use_lstm`` or ``use_gru``) learns from sequences of ``burn_in`` and
    ``max_seq_len`` steps.
    """

    exploration: float | list | None
    learns_for_the_team: ClassVar[bool] = False
    """Whether one value is learned from one reward for all agents."""

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class)
        self.gamma = 0.99
        self.tau = 0.005
        self.target_network_update_freq: int | None = None
        self.exploration = None
        self.replay_capacity = 100_000
        self.num_steps_sampled_before_learning_starts = 1000
        self.env_steps_per_update: float = 8
        self.pretraining_updates = 0
        self.burn_in = 0
        self.n_step = 1
        self.sampling_lag = 0
        self.grad_clip_by = "global_norm"
        self.num_env_runners = 0
        self.num_envs_per_env_runner = 8
        self.rollout_fragment_length = 8
        self.train_batch_size_per_learner = 256
        self.min_sample_timesteps_per_iteration = 2000
        self._model_config = {"fcnet_hiddens": [64, 64], "fcnet_activation": "relu"}
        self.env_runners(env_runner_cls=BatchedEnvRunner)

    def training(
        self,
        *,
        tau: Annotated[float, Range(0, 1, low_open=True)] = NotProvided,
        replay_capacity: Annotated[int, Range(1)] = NotProvided,
        num_steps_sampled_before_learning_starts: Annotated[int, Range(0)] = NotProvided,
        env_steps_per_update: Annotated[float, Range(0, low_open=True)] = NotProvided,
        burn_in: Annotated[int, Range(0)] = NotProvided,
        sampling_lag: Annotated[int, Range(0, 1)] = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set the training parameters; the rest as in `ExploringConfig.training`.

        Args:
            tau: Share of the present network that the target networks take over after each update, in (0, 1].
            replay_capacity: Joint transitions that are kept.
            num_steps_sampled_before_learning_starts: Environment steps with random actions before the first update.
            env_steps_per_update: Environment steps to a gradient step, above 0; 0.25 are four gradient steps to one.
            burn_in: Steps at the start of a sequence that only fill memories; without effect where there are none.
            sampling_lag: 1 lets remote runners sample the next round during an update, with the policy of before it; 0
                lets them wait for the new one.
            **kwargs: The other arguments; ``train_batch_size_per_learner`` is the joint transitions, or sequences, in a
                gradient step.

        Raises:
            ConfigError: An unknown key or a value outside its range.
        """
        super().training(**kwargs)
        self._take(
            tau=tau,
            replay_capacity=replay_capacity,
            num_steps_sampled_before_learning_starts=num_steps_sampled_before_learning_starts,
            env_steps_per_update=env_steps_per_update,
            burn_in=burn_in,
            sampling_lag=sampling_lag,
        )
        return self

    @property
    def round_steps(self) -> int:
        """Environment steps that are sampled between two groups of updates."""
        if not isinstance(self.rollout_fragment_length, int):
            raise ConfigError(
                f"rollout_fragment_length: a number of steps is needed, got {self.rollout_fragment_length!r}"
            )
        runners = max(1, self.num_env_runners)
        return self.rollout_fragment_length * self.num_envs_per_env_runner * runners

    @property
    def round_updates(self) -> int:
        """Gradient steps after a round of sampling."""
        return round(self.round_steps / self.env_steps_per_update)

    @property
    def sequence_length(self) -> int:
        """Steps in a sample from the replay: 1 without memory."""
        length = window_length(self.model_config)
        return 1 if length is None else length + self.burn_in

    @property
    def replay_n_step(self) -> int:
        """Steps over which the replay sums rewards: 1 for sequences, in which the Learner does."""
        return 1 if self.sequence_length > 1 else self.n_step

    def validate(self) -> None:
        """Check the settings against each other.

        Raises:
            ConfigError: A value that does not fit another.
        """
        super().validate()
        if self.model_config.get("vf_share_layers"):
            raise ConfigError(
                f"model_config.vf_share_layers: {algorithm_name(type(self))} has no value network to share layers with"
            )
        self._check_replay()
        if self.sampling_lag and not self.num_env_runners and not self.in_evaluation:
            raise ConfigError(
                "sampling_lag: remote runners alone sample while the Learner updates; set num_env_runners, or "
                "sampling_lag to 0"
            )
        # RLlib gives evaluation a fragment length of its own.
        updates = self.round_steps / self.env_steps_per_update
        if not self.in_evaluation and (updates < 1 or abs(updates - round(updates)) > 1e-6):
            raise ConfigError(
                f"env_steps_per_update: {self.env_steps_per_update} does not divide the {self.round_steps} environment "
                "steps of a round (rollout_fragment_length x num_envs_per_env_runner x runners)"
            )

    def _check_replay(self) -> None:
        """Refuse a replay whose rings never hold a batch of different samples: nothing would ever be learned."""
        if self.in_evaluation:
            return
        rings = self.num_envs_per_env_runner * max(1, self.num_env_runners)
        steps, window = -(-self.replay_capacity // rings), max(self.sequence_length, self.replay_n_step)
        samples, batch = max(0, steps - window + 1) * rings, self.train_batch_size_per_learner
        if samples < batch:
            raise ConfigError(
                f"replay_capacity: {self.replay_capacity} joint transitions are {steps} steps of each of {rings} "
                f"environments, which hold {samples} different samples of {window} step{'s' if window > 1 else ''}, a "
                f"batch needs {batch} (train_batch_size_per_learner)"
            )

    def check_window(self) -> None:
        """Take any window: sequences are cut from the replay, not from a rollout."""


class JointCriticConfig(OffPolicyConfig):
    """Base of the configurations of algorithms with critics of actions, own or joint ones."""

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class)
        self.actor_lr: float | list = 1e-3
        self.critic_lr: float | list = 1e-3
        self.critic: dict[str, Any] | None = None
        self.critic_state: bool | None = None

    def environment(self, env: Any = NotProvided, **kwargs: Any) -> Self:
        """Set the environment; arguments as in `ExploringConfig.environment`."""
        super().environment(env, **kwargs)
        self._set_state_source()
        return self

    def training(
        self,
        *,
        actor_lr: Annotated[float | list, Schedule()] = NotProvided,
        critic_lr: Annotated[float | list, Schedule()] = NotProvided,
        critic: Mapping[str, Any] | None = NotProvided,
        critic_state: bool | None = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set the training parameters; the rest as in `OffPolicyConfig.training`.

        Args:
            actor_lr: Learning rate of the policies, or a schedule ``[[timestep, value], ...]``.
            critic_lr: Likewise of the critics.
            critic: ``{"type": "mlp" | "attention" | "own", "hiddens": [128, 128], "activation": "relu", "heads": 4}``,
                see `CriticSettings`; missing keys take these defaults.
            critic_state: Whether critics see the environment's ``state()`` beside all observations; None if it has one
                and they are joint.
            **kwargs: The other arguments.

        Raises:
            ConfigError: An unknown key or a value outside its range.
        """
        super().training(**kwargs)
        self._take(actor_lr=actor_lr, critic_lr=critic_lr)
        given = self._checked(critic=critic, critic_state=critic_state)
        if given:
            self._take(**{name: checked_mapping(value, _CHECKS.get(name)) for name, value in given.items()})
            self._set_state_source()
        return self

    def validate(self) -> None:
        """Check the settings against each other.

        Raises:
            ConfigError: A value that is out of range or does not fit another.
        """
        super().validate()
        if not self.normalize_actions:
            raise ConfigError(
                f"normalize_actions: {algorithm_name(type(self))}'s actors act in [-1, 1]; leave it on"
            )

    def module_settings(self) -> dict[str, Any]:
        """Return what a module is told beside ``model_config``: its critics."""
        return {CRITIC: self.critic}

    @property
    def central_value(self) -> None:
        """None: what critics see of the environment is said by ``critic`` and ``critic_state``."""
        return None

    def _set_state_source(self) -> None:
        """Let runners record states where critics shall see them."""
        description = self.describe_env()
        if description is None or holds_search_space([self.critic, self.critic_state]):
            return
        if self.critic_state and not description.state_size:
            raise ConfigError(
                f"critic_state: {self.env} has no state(); critics see all observations anyway, leave it null"
            )
        joint = CriticSettings.of(self.critic).type != "own"
        wanted = joint and self.critic_state is not False and description.state_size
        self._set_states(
            {STATE_SOURCE: STATE, STATE_SIZE: description.state_size, NUM_AGENTS: len(description.agents)}
            if wanted
            else {}
        )


def _critic(settings: Mapping[str, Any]) -> dict[str, Any]:
    CriticSettings.of(settings)
    return dict(settings)


_CHECKS = {"critic": _critic}
