"""Callbacks of every algorithm: what the environment says of an episode, and weights after a checkpoint."""

from __future__ import annotations

from typing import Any

import ray
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE
from ray.rllib.utils.metrics import EVALUATION_RESULTS

from qio_rllib.sampling.episodes import EpisodeRecord
from qio_rllib.sampling.vector_env import numbers_of


class EpisodeMetrics(RLlibCallback):
    """Logs what the environment itself says of an episode (numbers in the last ``info``) beside RLlib's return.

    A value of -1 for a key that begins with ``steps_to_`` means «not reached» and is left out of the mean.
    """

    def on_episode_end(
        self, *, episode: Any, env_runner: Any, metrics_logger: Any = None, **kwargs: Any
    ) -> None:
        """Log the numbers of the last info, averaged as RLlib averages returns."""
        if isinstance(episode, EpisodeRecord):
            return  # `BatchedEnvRunner` does so itself
        infos = episode.get_infos(-1)
        info = next(iter(infos.values()), {}) if hasattr(episode, "agent_episodes") else infos
        window = env_runner.config.metrics_num_episodes_for_smoothing
        for key, value in numbers_of(info).items():
            if not (key.startswith("steps_to_") and value < 0):
                metrics_logger.log_value(key, value, window=window)

    def on_train_result(self, *, algorithm: Any, result: dict[str, Any], **kwargs: Any) -> None:
        """Drop what RLlib repeats of an earlier evaluation in an iteration that had none."""
        interval = algorithm.config.evaluation_interval
        if not interval or algorithm.iteration % interval:
            result.pop(EVALUATION_RESULTS, None)


class RestoredWeights(RLlibCallback):
    """Waits until remote runners have the weights of a checkpoint; RLlib lets some sample with their first ones.

    Runners that RLlib has restarted get the pool of opponents again.
    """

    def on_env_runners_recreated(
        self, *, algorithm: Any, env_runner_indices: list[int], is_evaluation: bool, **kwargs: Any
    ) -> None:
        """Hand the pool of opponents to new runners."""
        if algorithm.opponents is not None and not is_evaluation:
            algorithm.opponents.share(env_runner_indices)

    def on_checkpoint_loaded(self, *, algorithm: Any, **kwargs: Any) -> None:
        """Hand the Learner's weights to every remote runner."""
        group = algorithm.env_runner_group
        if group is not None and group.num_remote_env_runners():
            state = algorithm.learner_group.get_state(
                components=f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}", inference_only=True
            )[COMPONENT_LEARNER]
            reference = ray.put({COMPONENT_RL_MODULE: state[COMPONENT_RL_MODULE]})
            group.foreach_env_runner(
                "set_state", kwargs={"state": reference}, local_env_runner=False, timeout_seconds=60
            )
