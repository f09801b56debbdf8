"""`BatchedEnvRunner`: one forward pass a step for all environments and agents, one `Rollout` for what came of it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import (
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    WEIGHTS_SEQ_NO,
)

from qio_rllib.acting.team import Team
from qio_rllib.fused.use import acting_kernels
from qio_rllib.games.self_play import SELF_PLAY, Games, Opponents, SelfPlaySettings
from qio_rllib.sampling.discounted_returns import DISCOUNTED_RETURNS
from qio_rllib.sampling.environments import make_vector_env
from qio_rllib.sampling.episodes import EpisodeLog
from qio_rllib.sampling.global_state import StateSource
from qio_rllib.sampling.groups import group_spaces, groups_of, team_of, whole_spaces
from qio_rllib.sampling.opponents import SelfPlay
from qio_rllib.sampling.recorder import RolloutRecorder
from qio_rllib.sampling.rollout import Array, Rollout, SamplingFailure, with_limits_as_ends
from qio_rllib.sampling.runner_callbacks import RunnerCallbacks
from qio_rllib.sampling.runner_settings import (
    branched_steps,
    check_runner_config,
    discounted_returns,
    limits_are_ends,
    rollout_learner,
)
from qio_rllib.sampling.stepper import EnvStepper, one_thread
from qio_rllib.sampling.streams import generator
from qio_rllib.sampling.vector_env import VectorEnv

_SAMPLING = "sampling"


class BatchedEnvRunner(EnvRunner, Checkpointable):
    """Steps environments of one kind together; ``config.env_runners(env_runner_cls=BatchedEnvRunner)``.

    ``num_envs_per_env_runner`` environments of ``qio_envs`` are one `BatchedEnv`; of anybody's PettingZoo parallel or
    Gymnasium environment, so many objects. Each step has one forward pass per module over all environments and agents.
    `sample` gives one `Rollout`; the Learner must take those (`OnPolicyLearner`, `OffPolicyLearner`).

    Metrics carry RLlib's names. Means over episodes, and over what the last infos hold, run over the last
    ``metrics_num_episodes_for_smoothing`` finished episodes that had the number, shared among the runners, so that
    each iteration after the first such episode has them; several runners' means are averaged.

    Callbacks: ``on_environment_created``, ``on_episode_start``, ``on_episode_step``, ``on_episode_end`` (with an
    `EpisodeRecord` for an episode and `VectorEnv` for the environments) and ``on_sample_end`` (with `Rollout`s).

    State (`get_state`): environments, random numbers, what was seen last, running and finished episodes; a runner
    that is restored goes on exactly, where the environments can be pickled, and with new episodes elsewhere.
    Another runner than the one that the state is of, by ``worker_index``, takes the weights only.

    An error in an environment reaches the caller, and the next `sample` starts anew.

    Raises:
        ConfigError: Another package's recurrent module, a Learner that takes no rollouts, connectors of the user's own,
            ``batch_mode="complete_episodes"``, agents that no module acts for or of different spaces in one module, or
            an environment that cannot be held in arrays.
    """

    config: Any

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        self.spaces = kwargs.get("spaces") or {}
        check_runner_config(self.config)
        self.callbacks = RunnerCallbacks(self)
        self._remote = bool(self.worker_index)
        if self._remote:
            torch.set_num_threads(1)
        self.env: VectorEnv | None = None
        self._teams: dict[tuple, Team] = {}
        self._self_play: SelfPlay | None = None
        self.stepper: EnvStepper | None = None
        self.num_envs = 0
        self._returns = discounted_returns(self.config)
        self._weights_seq_no = 0
        smoothing = self.config.metrics_num_episodes_for_smoothing
        window = math.ceil(smoothing / max(1, self.config.num_env_runners))
        self.episodes = EpisodeLog(window, self.config.is_multi_agent)
        if self._remote or self.config.num_env_runners == 0 or self.config.create_env_on_local_worker:
            self.make_env()
        self.module: MultiRLModule | None = None
        self.make_module()

    # -- construction -----------------------------------------------------------------------------------------

    def make_env(self) -> None:
        """Build the environments; the next `sample` starts them."""
        if self.env is not None:
            self.env.close()
        self.num_envs = self.config.num_envs_per_env_runner
        context = EnvContext(
            self.config.env_config or {},
            worker_index=self.worker_index or 0,
            num_workers=self.config.num_env_runners,
        )
        self.env = make_vector_env(self.config.env, context, self.num_envs)
        self._groups = groups_of(self.env, self.config)
        self._state_source = StateSource.of(
            self.config.model_config.get("state_source"),
            self.config.env,
            self.env.observation_spaces,
            self.env.state_size,
        )
        self.seed_streams(self.config.seed)
        self.episodes.watch(
            self.env,
            {
                module_id: [self.env.agents[index] for index in members]
                for module_id, members in self._groups.items()
            },
        )
        self.callbacks.call("on_environment_created", env=self.env, env_context=context)

    def seed_streams(self, seed: int | None) -> None:
        """Begin the random numbers of a seed; the next `sample` starts new episodes."""
        self._seed, self._started = seed, False
        self._rng = self._generator(0)

    def _generator(self, steps: int) -> np.random.Generator:
        """Return the random numbers of this runner after so many environment steps of all."""
        # Not RLlib's seed + worker_index: runner 1 of seed 0 would play as runner 0 of seed 1 does.
        purpose = "evaluation runner" if self.config.in_evaluation else "runner"
        return generator(self._seed, purpose, self.worker_index or 0, int(steps))

    def make_module(self) -> None:
        """Build the module, without what only the Learner needs, and the team that acts with it."""
        spec = self.config.get_multi_rl_module_spec(spaces=self.get_spaces(), inference_only=True)
        self.module = spec.build()
        for _, module in self.module.items():
            module.eval()
        self._teams = {}
        self._make_stepper()

    def change_env(self, env: Any, env_config: Mapping[str, Any]) -> None:
        """Take other environments, in which the same modules act; the next `sample` starts them.

        Args:
            env: As in ``config.environment``.
            env_config: Settings of it.
        """
        config: Any = self.config.copy(copy_frozen=False)
        config.env, config.env_config = env, dict(env_config)
        self.config = config
        self.make_env()
        self._make_stepper()

    def _make_stepper(self) -> None:
        """Build the team that acts, and what steps it."""
        assert self.module is not None
        if self.env is not None:
            learner = rollout_learner(self.config)
            agents = tuple(self.env.agents)
            if (
                agents not in self._teams
            ):  # what acts is traced, which takes longer than to build environments
                self._teams[agents] = team_of(
                    self.env, self._groups, self.module, self.config, learner.rollout_columns
                )
            team = self._teams[agents]
            self._memory_interval = learner.memory_interval(self.config)
            settings = SelfPlaySettings.of(self.config.learner_config_dict.get(SELF_PLAY))
            if settings is not None and not self.config.in_evaluation:
                self._self_play = SelfPlay(settings, team, self.module, learner.rollout_columns, self.env)
                team = self._self_play.team
            branches = branched_steps(self.config, self.env, team, self._state_source)
            self.stepper = EnvStepper(self.env, team, self._state_source, branches)

    def get_spaces(self) -> dict[str, Any]:
        """Return (observation space, action space) by module id, and those of the environment."""
        if self.env is None:
            return self.spaces
        whole = whole_spaces(self.env, self.config.is_multi_agent)
        return {
            INPUT_ENV_SPACES: whole,
            INPUT_ENV_SINGLE_SPACES: whole,
            **group_spaces(self.env, self._groups, self.config),
        }

    def assert_healthy(self) -> None:
        """Check that construction was completed."""
        assert self.env is not None
        assert self.module is not None

    # -- sampling -------------------------------------------------------------------------------------------------

    def sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool | None = None,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[Rollout] | list[SamplingFailure]:
        """Play on, and return what happened.

        Args:
            num_timesteps: Environment steps at least, over all environments; by default the rollout fragment length of
                each environment.
            num_episodes: Start anew and play until so many episodes have ended, instead; several `Rollout`s.
            explore: Sample actions (True) or take the most probable ones (False); by default as configured.
            random_actions: Act uniformly among the legal actions instead; in Box spaces, standard normal.
            force_reset: Start anew.

        A remote runner that trains returns a `SamplingFailure` for an error, which the Learner raises in the driver.

        Raises:
            InvalidSampleError: A reward or an observation is not finite or of the wrong shape, or an agent has no
                legal action.
            ValueError: Both numbers are given, or one below 1.
        """
        try:
            return self._sample(num_timesteps, num_episodes, explore, random_actions, force_reset)
        except Exception as error:
            if not self._remote or self.config.in_evaluation:
                raise
            # Sampling ends when there are enough steps.
            self.metrics.log_value(NUM_ENV_STEPS_SAMPLED, self.config.total_train_batch_size, reduce="sum")
            return [SamplingFailure(error, self.worker_index or 0)]

    def _sample(
        self,
        num_timesteps: int | None,
        num_episodes: int | None,
        explore: bool | None,
        random_actions: bool,
        force_reset: bool,
    ) -> list[Rollout]:
        if self.env is None:
            raise ValueError("this runner has no environment (create_local_env_runner)")
        if num_timesteps is not None and num_episodes is not None:
            raise ValueError("num_timesteps and num_episodes: give one of them")
        if (num_timesteps is not None and num_timesteps < 1) or (
            num_episodes is not None and num_episodes < 1
        ):
            raise ValueError("num_timesteps and num_episodes: expected at least 1")
        explore = self.config.explore if explore is None else explore
        if num_episodes is not None:
            steps = 64  # at a time
        elif num_timesteps is not None:
            steps = math.ceil(num_timesteps / self.num_envs)
        else:
            steps = self.config.get_rollout_fragment_length(self.worker_index or 0)
        with one_thread(), acting_kernels():
            if not self._started:
                self._restart(self._rng.integers(2**64, size=self.num_envs, dtype=np.uint64))
            elif force_reset or num_episodes is not None:
                self._restart(None)
            self._started = False  # after an error there is nothing to go on from
            rollouts: list[Rollout] = []
            ended = 0
            while True:
                left = None if num_episodes is None else num_episodes - ended
                part, more = self._play(steps, explore, random_actions, left)
                rollouts.append(part)
                ended += more
                if num_episodes is None or ended >= num_episodes:
                    break
            self._started = True
        self.num_env_steps_sampled_lifetime += self.episodes.log_steps(self.metrics, rollouts, ended)
        assert self.stepper is not None
        communication = self.stepper.team.communication
        if communication is not None:
            self.episodes.log_bits(self.metrics, rollouts, communication.message_bits)
        self.callbacks.call("on_sample_end", samples=rollouts)
        return rollouts

    def _play(
        self, steps: int, explore: bool, random_actions: bool, episodes_left: int | None
    ) -> tuple[Rollout, int]:
        """Play ``steps`` steps, or fewer once so many episodes have ended; return them and the number that ended."""
        stepper = self.stepper
        assert stepper is not None
        recorder = RolloutRecorder(stepper, steps, self._memory_interval, self.worker_index or 0)
        ended = 0
        while recorder.count < steps:
            recorder.before()
            step = stepper.step(self._rng, explore, random_actions)
            self.episodes.step(step.rewards)
            into = recorder.record(step)
            if self.callbacks.has("on_episode_step"):
                for e in range(self.num_envs):
                    self.callbacks.call_episode("on_episode_step", self.episodes.record(e))
            over = step.over
            if over.any():
                for e in np.flatnonzero(over).tolist():
                    if self._self_play is not None:
                        self._self_play.end(e, self.episodes.returns[e])
                    self.callbacks.call_episode("on_episode_end", self.episodes.end(e))
                ended += int(over.sum())
            stepper.advance(step, into, over)
            if over.any():
                self._begin(over)
            recorder.after()
            if episodes_left is not None and ended >= episodes_left:
                break
        rollout = recorder.finish()
        if self._returns is not None:
            for module_id, part in rollout.modules.items():
                self._returns.add(module_id, part)
        if limits_are_ends(self.config):
            for module_id, part in rollout.modules.items():
                rollout.modules[module_id] = with_limits_as_ends(part)
        return rollout, ended

    def _restart(self, seeds: Array | None) -> None:
        """Start new episodes in all environments."""
        assert self.stepper is not None
        self.episodes.begin(None)
        self.stepper.reset(seeds)
        self._begin(None)

    def _begin(self, mask: Array | None) -> None:
        begun = self.episodes.begin(mask)
        if self._self_play is not None:
            self._self_play.begin(begun, self._rng)
        for e in begun:
            self.callbacks.call_episode("on_episode_start", self.episodes.record(e))

    # -- self-play ------------------------------------------------------------------------------------------------

    def take_opponents(self, opponents: Opponents) -> None:
        """Draw the opponents of the episodes that begin from now on from these; for the setting ``self_play``."""
        if self._self_play is not None:
            self._self_play.take(opponents)

    def games(self) -> list[Games]:
        """Return the games against snapshots since the last call; for the setting ``self_play``."""
        return [] if self._self_play is None else self._self_play.games()

    # -- metrics --------------------------------------------------------------------------------------------------

    def get_metrics(self) -> dict[str, Any]:
        """Return the metrics since the last call, and the means over the window of finished episodes."""
        self.episodes.log_means(self.metrics)
        return self.metrics.reduce()

    # -- state ----------------------------------------------------------------------------------------------------

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the state: weights, counters, and (``sampling``) all that the next sample depends on."""
        state: dict[str, Any] = {NUM_ENV_STEPS_SAMPLED_LIFETIME: self.num_env_steps_sampled_lifetime}
        if self._check_component(COMPONENT_RL_MODULE, components, not_components):
            assert self.module is not None
            state[COMPONENT_RL_MODULE] = self.module.get_state(
                components=self._get_subcomponents(COMPONENT_RL_MODULE, components),
                not_components=self._get_subcomponents(COMPONENT_RL_MODULE, not_components),
                **kwargs,
            )
            state[WEIGHTS_SEQ_NO] = self._weights_seq_no
        if self._check_component(_SAMPLING, components, not_components) and self.stepper is not None:
            state[_SAMPLING] = {
                "worker_index": self.worker_index or 0,
                "started": self._started,
                "stepper": self.stepper.get_state(),
                "rng": self._rng.bit_generator.state,
                DISCOUNTED_RETURNS: {} if self._returns is None else self._returns.present,
                **self.episodes.get_state(),
            }
            if self._self_play is not None:
                state[_SAMPLING][SELF_PLAY] = self._self_play.get_state()
        return state

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over a state, or the parts of one that are there."""
        if COMPONENT_RL_MODULE in state:
            number = state.get(WEIGHTS_SEQ_NO, 0)
            if number == 0 or self._weights_seq_no < number:
                self._weights_seq_no = number  # behind weights without a number any number is newer
                import ray

                weights = state[COMPONENT_RL_MODULE]
                assert self.module is not None
                self.module.set_state(ray.get(weights) if isinstance(weights, ray.ObjectRef) else weights)
        if NUM_ENV_STEPS_SAMPLED_LIFETIME in state:
            self.num_env_steps_sampled_lifetime = state[NUM_ENV_STEPS_SAMPLED_LIFETIME]
            if self.env is not None and not self._started:
                # A remote runner of a restored run shall not play its first episodes again.
                self._rng = self._generator(self.num_env_steps_sampled_lifetime)
        sampling = state.get(_SAMPLING)
        # RLlib hands the local runner's state to those that it has restarted: each keeps its own random numbers.
        if (
            sampling is not None
            and self.stepper is not None
            and sampling["worker_index"] == (self.worker_index or 0)
        ):
            self._rng.bit_generator.state = sampling["rng"]
            same = len(sampling["lengths"]) == self.num_envs
            self._started = sampling["started"] and same and sampling["stepper"]["env"] is not None
            self.episodes.set_state(sampling, running=self._started)
            if self._started:
                self.stepper.set_state(sampling["stepper"])
                if self._self_play is not None:
                    self._self_play.set_state(sampling[SELF_PLAY])
                if self._returns is not None:
                    self._returns.present = {
                        key: value.copy() for key, value in sampling[DISCOUNTED_RETURNS].items()
                    }

    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        """Return what a checkpoint needs to build the runner again."""
        return (), {"config": self.config}

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        """Return the parts that have checkpoints of their own."""
        return [(COMPONENT_RL_MODULE, self.module)]

    def stop(self) -> None:
        """Close the environments."""
        if self.env is not None:
            self.env.close()
