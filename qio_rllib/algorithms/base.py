"""Algorithms on the batched runner: what their training steps have in common."""

from __future__ import annotations

import logging
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import ALL_MODULES
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

from qio_rllib.algorithms.checkpoints import CheckpointedAlgorithm
from qio_rllib.sampling.replay import JointReplay
from qio_rllib.sampling.rollout import Rollout, SamplingFailure

PRETRAINING = "pretraining"
"""Key of an iteration's result: what the Learner logged for each part of the pretraining, in the form of a result."""

_REPLAY = "replay"
_NEXT_ROUND = "next_round"
_UPDATES_AT_ONCE = 32  # of pretraining: their samples lie in memory together

logger = logging.getLogger(__name__)


class RolloutAlgorithm(CheckpointedAlgorithm):
    """Samples rollouts, lets a Learner update, and hands the weights on."""

    def sample(self, env_steps: int, random_actions: bool = False) -> list[Rollout]:
        """Return rollouts of at least so many environment steps; none if all runners failed (RLlib restarts them).

        Args:
            env_steps: Over all runners.
            random_actions: Whether agents act uniformly at random.
        """
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            rollouts, results = synchronous_parallel_sample(
                worker_set=self.env_runner_group,
                max_env_steps=env_steps,
                sample_timeout_s=self.config.sample_timeout_s,
                random_actions=random_actions,
                _uses_new_env_runners=True,
                _return_metrics=True,
            )
        return self.taken(rollouts, results)

    def taken(
        self, rollouts: list[Rollout | SamplingFailure], results: list[dict[str, Any]]
    ) -> list[Rollout]:
        """Return what runners sampled, and take in their metrics.

        Args:
            rollouts: Of all runners.
            results: Metrics of each.

        Raises:
            Exception: What an environment raised in a runner.
        """
        if rollouts:
            self.metrics.aggregate(results, key=ENV_RUNNER_RESULTS)
        for rollout in rollouts:
            if isinstance(rollout, SamplingFailure):
                rollout.throw()
        return rollouts  # type: ignore[return-value]

    @property
    def env_steps_sampled(self) -> int:
        """Environment steps that were sampled so far, by all runners."""
        return self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0)

    def learn(self, experience: list[Any], **kwargs: Any) -> None:
        """Let the Learners update from experience, and give the new weights to the runners.

        Args:
            experience: What the Learner takes as ``episodes``.
            **kwargs: Further arguments of ``LearnerGroup.update``.
        """
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            results = self.learner_group.update(
                episodes=experience,
                timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: self.env_steps_sampled},
                **kwargs,
            )
            self.metrics.aggregate(results, key=LEARNER_RESULTS)
        with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
            self.env_runner_group.sync_weights(
                from_worker_or_learner_group=self.learner_group,
                policies=set(results[0]) - {ALL_MODULES},
                inference_only=True,
            )


class OnPolicyAlgorithm(RolloutAlgorithm):
    """One batch, one update."""

    def training_step(self) -> None:
        """Sample a batch, learn from it, and hand the weights on."""
        rollouts = self.sample(self.config.total_train_batch_size)
        if rollouts:
            self.learn(rollouts)


class OffPolicyAlgorithm(RolloutAlgorithm):
    """Samples into a replay and learns from what it holds.

    An iteration is many short rounds: each samples ``rollout_fragment_length`` steps of each environment and takes one
    gradient step for every ``env_steps_per_update`` of them. Until ``num_steps_sampled_before_learning_starts`` steps
    and a batch are there, actions are random and nothing is learned: ``replay/warming_up`` is 1 in the result.
    The replay is part of checkpoints.

    With ``sampling_lag: 1`` remote runners sample the next round while the Learner updates, with the policy of before
    the update; ``replay/policy_lag`` says by how many gradient steps it lies behind.
    """

    replay: JointReplay
    _pretraining: list[dict[str, Any]]
    _ahead: list[Rollout] | None = None
    """The next round, where a checkpoint was written after it was asked for."""

    def setup(self, config: AlgorithmConfig) -> None:
        """Build the algorithm and an empty replay."""
        super().setup(config)
        self.replay = JointReplay(
            self.config.replay_capacity,
            self.config.seed,
            sequence_length=self.config.sequence_length,
            n_step=self.config.replay_n_step,
            gamma=self.config.gamma,
            num_runners=max(1, self.config.num_env_runners),
            team=self.config.learns_for_the_team,
        )
        self._told_of_warm_up = False

    def training_step(self) -> None:
        """Sample a round into the replay, take the gradient steps that it is due, and hand the weights on."""
        config = self.config
        first = config.num_steps_sampled_before_learning_starts
        before = self.env_steps_sampled
        asked = config.sampling_lag and self._is_asked_for
        rollouts = self.sample(config.round_steps, random_actions=before < first)
        if not rollouts:
            return
        for rollout in rollouts:
            self.replay.add(rollout)
        batch = config.train_batch_size_per_learner
        warming_up = self.env_steps_sampled < first or self.replay.num_samples < batch
        self.metrics.log_value((_REPLAY, "joint_steps"), len(self.replay), window=1)
        self.metrics.log_value((_REPLAY, "warming_up"), int(warming_up), window=1)
        if warming_up:
            if not self._told_of_warm_up:
                logger.warning(
                    "%s is warming up: it learns nothing before %d environment steps are in the replay",
                    type(self).__name__,
                    max(first, batch),
                )
                self._told_of_warm_up = True
            return
        if config.sampling_lag:
            self.metrics.log_value((_REPLAY, "policy_lag"), config.round_updates if asked else 0, window=1)
            self.env_runner_group.foreach_env_runner_async(
                lambda runner: (runner.sample(), runner.get_metrics()), tag=_NEXT_ROUND
            )
        module_id = next(iter(self.env_runner.module.keys()))
        first_time = not self.metrics.peek((LEARNER_RESULTS, module_id, "updates_lifetime"), default=0)
        anew = self.prepare_learning(0 if first_time else before)
        due = config.round_updates + (config.pretraining_updates if first_time or anew else 0)
        while due:
            updates = min(due, max(config.round_updates, _UPDATES_AT_ONCE))
            self.learn([self.replay.sample(updates * batch)], num_epochs=updates)
            due -= updates
            if first_time and config.pretraining_updates:
                self._pretraining.append({LEARNER_RESULTS: self.metrics.peek(LEARNER_RESULTS)})

    def sample(self, env_steps: int, random_actions: bool = False) -> list[Rollout]:
        """Return the round that runners were asked for during the last update; one with the present policy otherwise.

        Args:
            env_steps: As `RolloutAlgorithm.sample` has it.
            random_actions: Likewise.
        """
        self._wait_for_next_round()
        ahead, self._ahead = self._ahead, None
        return ahead or super().sample(env_steps, random_actions)

    @property
    def _is_asked_for(self) -> bool:
        """Whether runners have been asked for the next round."""
        return self._ahead is not None or self.env_runner_group.num_in_flight_async_reqs(_NEXT_ROUND) > 0

    def _wait_for_next_round(self) -> None:
        """Take the round that runners were asked for during the last update, if they were; what failed is left out."""
        if not self.config.sampling_lag or not self.env_runner_group.num_in_flight_async_reqs(_NEXT_ROUND):
            return
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            found = self.env_runner_group.fetch_ready_async_reqs(
                tags=_NEXT_ROUND, timeout_seconds=self.config.sample_timeout_s
            )
        sampled = [result for _, result in found]
        self._ahead = self.taken(
            [part for rollouts, _ in sampled for part in rollouts], [one for _, one in sampled]
        )

    def step(self) -> dict[str, Any]:
        """Return an iteration's result; under `PRETRAINING` what the Learner logged after each part of it."""
        self._pretraining = []
        result = super().step()
        return {**result, PRETRAINING: self._pretraining} if self._pretraining else result

    def prepare_learning(self, before: int) -> bool:
        """Do what has to be done before a round's gradient steps; nothing here.

        Args:
            before: Environment steps that were sampled before this round; 0 where nothing has been learned yet.

        Returns:
            Whether something learns anew and pretraining is due again.
        """
        return False

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the state, the replay included, and the round that is being sampled."""
        self._wait_for_next_round()
        state = super().get_state(components, not_components=not_components, **kwargs)
        if self._check_component(_REPLAY, components, not_components):
            state[_REPLAY] = self.replay.get_state()
        state[_NEXT_ROUND] = self._ahead
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        super().set_state(state)
        if _REPLAY in state:
            self.replay.set_state(state[_REPLAY])
        self._ahead = state.get(_NEXT_ROUND)

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        """Return the parts that have checkpoints of their own."""
        return [*super().get_checkpointable_components(), (_REPLAY, self.replay)]
