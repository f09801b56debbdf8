"""Ranges of settings, declared where a setting is: ``Annotated[float, Range(0, 1)]`` in the signature that takes it."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from qio_envs.api import ConfigError

LARGEST_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class Range:
    """Allowed numbers of a setting; schedules and null are left to the algorithm.

    Attributes:
        low: Least value; None for none.
        high: Largest value; None for none.
        above: Whether the least value itself is excluded.
    """

    low: float
    high: float | None = None
    above: bool = False

    def check(self, key: str, value: Any) -> None:
        """Refuse a number outside.

        Raises:
            ConfigError: With the key and what is allowed.
        """
        if isinstance(value, bool) or not isinstance(value, int | float):
            return
        fits = value > self.low if self.above else value >= self.low
        if fits and (self.high is None or value <= self.high):
            return
        least = f"above {self.low:g}" if self.above else f"of at least {self.low:g}"
        if self.high is None:
            allowed = least
        elif self.above:
            allowed = f"{least}, up to {self.high:.10g}"
        else:
            allowed = f"from {self.low:g} to {self.high:.10g}"
        raise ConfigError(f"{key}: expected a value {allowed}, got {value!r}")


SHARE, AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE = Range(0, 1), Range(1), Range(0), Range(0, above=True)

RLLIB_RANGES: dict[str, Range] = {
    **dict.fromkeys(("gamma", "lambda_"), SHARE),
    **dict.fromkeys(
        (
            "evaluation_duration",
            "evaluation_interval",
            "metrics_num_episodes_for_smoothing",
            "minibatch_size",
            "num_envs_per_env_runner",
            "num_epochs",
            "rollout_fragment_length",
            "train_batch_size_per_learner",
        ),
        AT_LEAST_ONE,
    ),
    **dict.fromkeys(
        (
            "clip_param",
            "entropy_coeff",
            "env_runner_health_probe_timeout_s",
            "env_runner_restore_timeout_s",
            "evaluation_num_env_runners",
            "evaluation_sample_timeout_s",
            "evaluation_unhealthy_workers_timeout_s",
            "grad_clip",
            "kl_coeff",
            "kl_target",
            "lr",
            "max_num_env_runner_restarts",
            "num_aggregator_actors_per_learner",
            "num_consecutive_env_runner_failures_tolerance",
            "num_cpus_for_main_process",
            "num_cpus_per_env_runner",
            "num_cpus_per_learner",
            "num_env_runners",
            "num_gpus_per_env_runner",
            "num_gpus_per_learner",
            "num_learners",
            "sample_timeout_s",
            "vf_clip_param",
            "vf_loss_coeff",
        ),
        NOT_NEGATIVE,
    ),
    "seed": Range(0, LARGEST_SEED),
}
"""Of RLlib's own settings."""


def range_of(name: str, annotation: Any) -> Range | None:
    """Return the range of a setting: what its annotation declares, or RLlib's; None without one."""
    if typing.get_origin(annotation) is typing.Annotated:
        for item in annotation.__metadata__:
            if isinstance(item, Range):
                return item
    return RLLIB_RANGES.get(name)


def bare_annotation(annotation: Any) -> Any:
    """Return an annotation without what `Annotated` adds."""
    if typing.get_origin(annotation) is typing.Annotated:
        return typing.get_args(annotation)[0]
    return annotation
