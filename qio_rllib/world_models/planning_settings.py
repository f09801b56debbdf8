"""`PlanningSettings`: how a planner searches for actions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from qio_envs.api import ConfigError, check_keys, did_you_mean

METHODS = ("cem", "icem", "mppi")
"""Planning methods, by the name that ``planner.method`` gives them."""

_METHODS_OF = {
    "elites": ("cem", "icem"),
    "keep_elites": ("icem",),
    "shrink": ("icem",),
    "noise_exponent": ("icem",),
    "temperature": ("mppi",),
}
_LEAST_INTEGER = {"horizon": 1, "candidates": 1, "iterations": 1, "elites": 1}
# Name: least value, whether it is left out, largest value, whether it is left out.
_RANGES: dict[str, tuple[float, bool, float, bool]] = {
    "keep_elites": (0, False, 1, False),
    "momentum": (0, False, 1, True),
    "initial_deviation": (0, True, math.inf, True),
    "least_deviation": (0, False, math.inf, True),
    "noise_exponent": (0, False, math.inf, True),
    "shrink": (1, False, math.inf, True),
    "temperature": (0, True, math.inf, True),
    "uniform_share": (0, False, 1, False),
    "exploration": (0, False, math.inf, True),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanningSettings:
    """``planner={...}``: how a `Planner` searches.

    The defaults evaluate 282 action sequences a decision, with cem and mppi 401.

    Attributes:
        method: "cem", the cross-entropy method (Rubinstein & Kroese 2004; as a planner Chua et al. 2018); "icem", with
            coloured noise, kept elites and fewer candidates in later iterations (Pinneri et al. 2020); "mppi", model
            predictive path integral control (Williams et al. 2017), whose later iterations also fit the deviation, as
            Hansen et al. (2022) do.
        horizon: Steps of a plan ``H``, at least 1.
        candidates: Action sequences drawn in the first iteration ``N``, at least 1.
        iterations: Of drawing, evaluating and fitting, at least 1.
        elites: Best candidates that the distribution is fitted to, from 1 to ``candidates`` (cem, icem).
        keep_elites: Share of the elites, in [0, 1] and rounded down to whole ones, that is a candidate again in the
            next iteration and, one step later, in the first iteration of the next decision (icem).
        momentum: Weight in [0, 1) of the previous iteration's distribution in the one that is sampled next.
        initial_deviation: Standard deviation of the first iteration's continuous actions, above 0; actions are in
            [-1, 1].
        least_deviation: Least standard deviation of continuous actions in later iterations, from 0 to
            ``initial_deviation``.
        noise_exponent: Exponent ``beta`` of the power spectrum ``1 / f^beta`` of the noise over the steps of a plan,
            at least 0: 0 white, 2 Brownian. Continuous actions only (icem).
        shrink: Factor of at least 1 by which the number of candidates falls with every iteration, down to twice the
            elites (icem).
        temperature: Above 0, in units of the distance between the best return and the median return: a median candidate
            has ``exp(-1 / temperature)`` times the weight of the best. ``lambda`` of Williams et al. (2017) is
            ``temperature`` times that distance, so that the scale of rewards does not matter (mppi).
        uniform_share: Share in [0, 1] of the uniform distribution in the probabilities that discrete actions are drawn
            from.
        warm_start: Whether a decision starts from the previous plan, one step later; else memory is not needed.
        exploration: What is added to the action that is taken while exploring: standard deviation of Gaussian noise, at
            least 0; for discrete actions, the probability of a uniform legal action in its place, in [0, 1].

    Raises:
        ConfigError: A value that is not allowed; the message names the setting.
    """

    method: str = "icem"
    horizon: int = 8
    candidates: int = 80
    iterations: int = 5
    elites: int = 8
    keep_elites: float = 0.3
    momentum: float = 0.1
    initial_deviation: float = 0.5
    least_deviation: float = 0.05
    noise_exponent: float = 2.0
    shrink: float = 1.25
    temperature: float = 0.1
    uniform_share: float = 0.05
    warm_start: bool = True
    exploration: float = 0.05

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            hint = did_you_mean(str(self.method), METHODS)
            raise ConfigError(
                f"planner.method: expected one of {', '.join(METHODS)}, got {self.method!r}{hint}"
            )
        for name, least in _LEAST_INTEGER.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"planner.{name}: expected an integer of at least {least}, got {value!r}")
        for name in _RANGES:
            _check_number(name, getattr(self, name))
        if not isinstance(self.warm_start, bool):
            raise ConfigError(f"planner.warm_start: expected true or false, got {self.warm_start!r}")
        if self.method in _METHODS_OF["elites"] and self.elites > self.candidates:
            raise ConfigError(
                f"planner.elites: {self.elites} elites of {self.candidates} candidates; expected at most as many"
                " elites as candidates"
            )
        if self.least_deviation > self.initial_deviation:
            raise ConfigError(
                f"planner.least_deviation: {self.least_deviation} is above initial_deviation, which is"
                f" {self.initial_deviation}"
            )

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> PlanningSettings:
        """Read a mapping; missing keys take the defaults, None all of them.

        Raises:
            ConfigError: An unknown key, a value that is not allowed, or one other than the default of a setting that
                the method does not use.
        """
        given = {} if given is None else given
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        check_keys("planner", given, defaults)
        settings = cls(**given)
        for name, methods in _METHODS_OF.items():
            if settings.method not in methods and getattr(settings, name) != defaults[name]:
                raise ConfigError(
                    f"planner.{name}: method {settings.method} does not use it; {' and '.join(methods)} do"
                    f"{'es' if len(methods) == 1 else ''}"
                )
        return settings

    @property
    def candidate_counts(self) -> tuple[int, ...]:
        """Sequences drawn in each iteration; kept elites and means come on top."""
        if self.method != "icem":
            return (self.candidates,) * self.iterations
        least = min(2 * self.elites, self.candidates)
        return tuple(
            max(least, math.ceil(self.candidates / self.shrink**i - 1e-9)) for i in range(self.iterations)
        )

    @property
    def kept_elites(self) -> int:
        """Elites ``K`` that become candidates again; 0 for methods that keep none."""
        return math.floor(self.keep_elites * self.elites + 1e-9) if self.method == "icem" else 0

    @property
    def rollouts(self) -> int:
        """Sequences that a model evaluates in one decision, with a warm start where there is one."""
        kept = self.kept_elites * (self.iterations - (not self.warm_start))
        return sum(self.candidate_counts) + kept + (self.method == "icem") + 1


def _check_number(name: str, value: Any) -> None:
    """Refuse what is not a number in the setting's range."""
    low, low_open, high, high_open = _RANGES[name]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if (
        number
        and (value > low if low_open else value >= low)
        and (value < high if high_open else value <= high)
    ):
        return
    allowed = f"above {low}" if low_open else f"of at least {low}"
    if math.isfinite(high):
        allowed += f" and {'below' if high_open else 'at most'} {high}"
    raise ConfigError(f"planner.{name}: expected a finite number {allowed}, got {value!r}")
