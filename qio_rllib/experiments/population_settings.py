"""The section ``scheduler`` of an experiment: population-based training, and which settings it may change."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from qio_envs.api import ConfigError, did_you_mean
from qio_rllib.algorithms.rllib_keys import ALIASES
from qio_rllib.algorithms.search_spaces import is_sampler, samplers
from qio_rllib.artifacts.metrics import ITERATION
from qio_rllib.experiments.stop_criteria import check_criterion, check_metrics
from qio_rllib.mapping_settings import MappingSettings, is_number

SCHEDULER = "scheduler"
MUTATIONS = "hyperparam_mutations"
PBT = "pbt"

CHANGEABLE: Mapping[str, tuple[str, ...]] = {
    "PPO": (
        "lr", "gamma", "lambda_", "clip_param", "vf_clip_param", "vf_loss_coeff", "entropy_coeff", "kl_target",
        "grad_clip", "num_epochs", "minibatch_size",
    ),
    "A2C": ("lr", "gamma", "lambda_", "vf_loss_coeff", "entropy_coeff", "grad_clip"),
    "MADDPG": ("actor_lr", "critic_lr", "gamma", "tau", "action_regularization", "grad_clip"),
}  # fmt: skip
"""By algorithm, the settings that a checkpoint can be continued with other values of: no network, replay or rollout is
of a shape that follows from them."""


@dataclasses.dataclass(frozen=True)
class PopulationSettings(MappingSettings):
    """``scheduler: {type: pbt, ...}``: several runs at once, of which the worse go on from the better (PBT).

    Jaderberg et al., "Population based training of neural networks", 2017, by ``PopulationBasedTraining`` of Ray Tune,
    whose arguments of the same names these are, in its synchronous form.

    Attributes:
        type: "pbt".
        perturbation_interval: Training iterations from one comparison to the next, at least 1.
        hyperparam_mutations: By setting, a sampler as in a sweep: its first values, and what it is drawn from anew. Of
            a ``choice`` the next or previous value is taken, a number is multiplied by 0.8 or 1.2, within its range.
        metric: What runs are compared by, as in ``stop``.
        mode: "max" or "min".
        quantile_fraction: Share of the runs that go on from one of as many best ones, above 0 and at most 0.5.
        resample_probability: How often a value is drawn anew in place of that, from 0 to 1.
    """

    key: ClassVar[str] = SCHEDULER

    type: str = PBT
    perturbation_interval: int = 10
    hyperparam_mutations: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metric: str = "env_runners/episode_return_mean"
    mode: str = "max"
    quantile_fraction: float = 0.25
    resample_probability: float = 0.25

    @classmethod
    def of(cls, given: Any) -> Self | None:
        """Return the settings of a mapping; None for None.

        Raises:
            ConfigError: An unknown key, or a value that is not allowed.
        """
        if given is not None and not isinstance(given, Mapping):
            raise ConfigError(f"{SCHEDULER}: expected a mapping such as {{type: {PBT}, ...}}, got {given!r}")
        return super().of(given)

    def checks(self) -> list[tuple[str, str, bool]]:
        """Return what is checked; see `MappingSettings`."""
        interval, share, anew = self.perturbation_interval, self.quantile_fraction, self.resample_probability
        mutations = self.hyperparam_mutations
        are_samplers = isinstance(mutations, Mapping) and bool(mutations)
        return [
            ("type", PBT, self.type == PBT),
            ("perturbation_interval", "an integer of at least 1", type(interval) is int and interval >= 1),
            (
                MUTATIONS,
                "a sampler by setting, such as lr: {loguniform: [1e-5, 1e-3]}",
                are_samplers and all(map(is_sampler, mutations.values())),
            ),
            ("metric", "the name of a metric", isinstance(self.metric, str)),
            ("mode", "max or min", self.mode in ("max", "min")),
            ("quantile_fraction", "a number above 0 and at most 0.5", is_number(share) and 0 < share <= 0.5),
            ("resample_probability", "a number from 0 to 1", is_number(anew) and 0 <= anew <= 1),
        ]

    def check_algorithm(self, algorithm: str, config: Mapping[str, Any], num_samples: int) -> None:
        """Refuse settings that cannot change while a run goes on, and a population of one.

        Args:
            algorithm: Its name.
            config: Settings of the experiment.
            num_samples: Members.

        Raises:
            ConfigError: Naming the setting.
        """
        known = CHANGEABLE.get(algorithm)
        if known is None:
            raise ConfigError(
                f"{SCHEDULER}: {PBT} changes settings of {', '.join(CHANGEABLE)}, got {algorithm}"
            )
        where = f"{SCHEDULER}.{MUTATIONS}"
        for key in self.hyperparam_mutations:
            if ALIASES.get(key, key) not in known:
                hint = did_you_mean(str(key), known) or f"; allowed: {', '.join(known)}"
                raise ConfigError(
                    f"{where}.{key}: is no setting of {algorithm} that can change in a run{hint}"
                )
            if key in config:
                raise ConfigError(f"config.{key}: the {SCHEDULER} draws it; leave it out here or there")
        samplers(self.hyperparam_mutations, (SCHEDULER, MUTATIONS))
        if num_samples < 2:
            raise ConfigError(
                f"num_samples: a population has at least 2 members, got {num_samples} (num_samples: 8 beside config)"
            )

    def check_run(self, stop: Mapping[str, float], config: AlgorithmConfig) -> None:
        """Refuse a metric that no result will hold, and an interval that no run reaches.

        Raises:
            ConfigError: Naming the setting.
        """
        try:
            check_criterion(self.metric, 1.0)
            check_metrics({self.metric: 1.0}, config)
        except ConfigError as error:
            reason = str(error).removeprefix("stop").removeprefix(f".{self.metric}").removeprefix(": ")
            raise ConfigError(f"{SCHEDULER}.metric: {self.metric}: {reason}") from error
        last = stop.get(ITERATION, math.inf)
        if self.perturbation_interval >= last:
            raise ConfigError(
                f"{SCHEDULER}.perturbation_interval: expected fewer than the {last:g} iterations of a run "
                f"(stop.{ITERATION}), got {self.perturbation_interval}"
            )
        every = config.evaluation_interval
        if self.metric.startswith("evaluation/") and every and self.perturbation_interval % every:
            raise ConfigError(
                f"{SCHEDULER}.perturbation_interval: expected a multiple of evaluation_interval ({every}), by whose "
                f"results runs are compared, got {self.perturbation_interval}"
            )

    def mutations(self, rng: np.random.Generator) -> dict[str, Any]:
        """Return what Tune draws from, by key of a configuration: lists of choices, and functions without arguments.

        Args:
            rng: Source of what those draw.
        """
        found: dict[str, Any] = {}
        for key, given in self.hyperparam_mutations.items():
            (name, values), *_ = given.items()
            domain = next(iter(samplers({key: given}).values()))
            draw = functools.partial(domain.sample, random_state=rng)
            found[_dict_key(key)] = list(values) if name == "choice" else draw
        return found

    def extremes(self) -> list[dict[str, Any]]:
        """Return the least and the largest values by setting; of choices that are no numbers the first and last."""
        found: list[dict[str, Any]] = [{}, {}]
        for key, given in self.hyperparam_mutations.items():
            (name, values), *_ = given.items()
            ordered = [values[0], values[1] - 1] if name == "randint" else values
            if name == "choice" and all(map(is_number, values)):
                ordered = sorted(values)
            found[0][key], found[1][key] = ordered[0], ordered[-1]
        return found

    def within(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return a configuration whose numbers lie within the ranges of their samplers."""
        for key, given in self.hyperparam_mutations.items():
            (name, values), *_ = given.items()
            if name != "choice":
                low, high = values[0], values[1] - 1 if name == "randint" else values[1]
                place = _dict_key(key)
                kind = int if name == "randint" else float
                config[place] = kind(min(max(config[place], low), high))
        return config

    def values_of(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the present values of what is changed, by setting, in a configuration as Tune has it."""
        return {key: config[_dict_key(key)] for key in self.hyperparam_mutations}


def _dict_key(key: str) -> str:
    """Return the name of a setting in ``AlgorithmConfig.to_dict()``, which calls one of them as Python cannot."""
    name = ALIASES.get(key, key)
    return "lambda" if name == "lambda_" else name
