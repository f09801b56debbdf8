"""Settings of a federation that are mappings, each checked key by key."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from qio_envs.api import ConfigError, did_you_mean
from qio_rllib.federated import aggregation
from qio_rllib.federated.attacks import ATTACKS
from qio_rllib.federated.compression import COMPRESSORS
from qio_rllib.federated.quantization import Quantizer
from qio_rllib.federated.secure.round import MIN_CLIENTS
from qio_rllib.mapping_settings import MappingSettings, is_number

Check = tuple[str, str, bool]

RULES = ("mean", "median", "trimmed_mean", "geometric_median", "multi_krum", "distance_filter")
ENVIRONMENT_ATTACKS = ("random_actions", "flipped_rewards")
"""Attacks in which a client learns honestly from an environment that lies."""

LYING_COUNT = "lying_count"
"""The attack in which a client says that it learned from more steps than it did."""


def _is_count(value: Any, low: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _choice(name: str, value: Any, allowed: tuple[str, ...]) -> Check:
    hint = did_you_mean(value, allowed) if isinstance(value, str) else ""
    return name, f"one of {', '.join(allowed)}{hint}", value in allowed


@dataclasses.dataclass(frozen=True)
class ParticipationSettings(MappingSettings):
    """Who takes part in a round; all clients, where neither is set.

    Attributes:
        clients: So many, drawn without replacement; at least 1.
        probability: Each client by itself with this probability (Poisson sampling), in (0, 1].
    """

    key = "participation"
    clients: int | None = None
    probability: float | None = None

    def checks(self) -> list[Check]:
        """Return what is allowed."""
        q = self.probability
        return [
            ("clients", "an integer of at least 1", self.clients is None or _is_count(self.clients)),
            ("probability", "a probability in (0, 1]", q is None or (is_number(q) and 0 < q <= 1)),
            ("probability", "null where clients is set", q is None or self.clients is None),
        ]

    def expected(self, num_clients: int) -> float:
        """Return the expected number of clients in a round."""
        if self.probability is not None:
            return self.probability * num_clients
        return num_clients if self.clients is None else self.clients


@dataclasses.dataclass(frozen=True)
class AggregationSettings(MappingSettings):
    """How one update is made of many.

    Attributes:
        rule: "mean", "median", "trimmed_mean", "geometric_median", "multi_krum" or "distance_filter". With
            `secure.group_size` it combines the means of groups, of which one malicious client spoils one.
        weights: "equal", or of "mean" and "geometric_median" "env_steps": by the environment steps that a client
            says it learned from.
        trim: Of "trimmed_mean": share of clients (or groups) left out at either end, in [0, 1/2).
        byzantine: Share of a round's clients (or groups) that may be malicious, in [0, 1/2): of "multi_krum" and
            "distance_filter".
        max_norm: Longer updates are left out, above 0; None for none.
    """

    key = "aggregation"
    rule: str = "mean"
    weights: str = "equal"
    trim: float = 0.2
    byzantine: float = 0.2
    max_norm: float | None = None

    def checks(self) -> list[Check]:
        """Return what is allowed."""
        return [
            _choice("rule", self.rule, RULES),
            _choice("weights", self.weights, ("equal", "env_steps")),
            (
                "weights",
                f"equal with rule {self.rule}",
                self.weights == "equal" or self.rule in ("mean", "geometric_median"),
            ),
            ("trim", "a share in [0, 1/2)", is_number(self.trim) and 0 <= self.trim < 0.5),
            ("byzantine", "a share in [0, 1/2)", is_number(self.byzantine) and 0 <= self.byzantine < 0.5),
            (
                "max_norm",
                "a number above 0",
                self.max_norm is None or (is_number(self.max_norm) and self.max_norm > 0),
            ),
        ]

    def combined(self, updates: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
        """Return one update of many by the rule, float32 ``[d]``.

        Args:
            updates: ``[n, d]``.
            weights: ``[n]``, for the mean and the geometric median; None for equal ones.

        Raises:
            ConfigError: Wrong updates, or too few of them.
        """
        if self.rule == "median":
            return aggregation.median(updates)
        if self.rule == "trimmed_mean":
            return aggregation.trimmed_mean(updates, self.trim)
        if self.rule == "geometric_median":
            return aggregation.geometric_median(updates, weights)
        if self.rule == "multi_krum":
            # 0.29 of 100 comes to 28.999999999999996
            return aggregation.multi_krum(updates, int(self.byzantine * len(updates) + 1e-9))
        if self.rule == "distance_filter":
            return aggregation.distance_filter(updates, self.byzantine)[0]
        return aggregation.mean(updates, weights)


@dataclasses.dataclass(frozen=True)
class CompressionSettings(MappingSettings):
    """How updates become fewer bytes.

    Attributes:
        type: "none", "int8", "top_k" or "random_k".
        keep: Share of the numbers that "top_k" and "random_k" send, in (0, 1]; None for 0.01 and 0.1.
        error_feedback: Whether clients send later what was left out.
    """

    key = "compression"
    type: str = "int8"
    keep: float | None = None
    error_feedback: bool = True

    def checks(self) -> list[Check]:
        """Return what is allowed."""
        return [
            _choice("type", self.type, tuple(COMPRESSORS)),
            (
                "keep",
                "a share in (0, 1]",
                self.keep is None or (is_number(self.keep) and 0 < self.keep <= 1),
            ),
            ("keep", f"null with type {self.type}", self.keep is None or self.type in ("top_k", "random_k")),
            ("error_feedback", "true or false", isinstance(self.error_feedback, bool)),
        ]


@dataclasses.dataclass(frozen=True)
class QuantizationSettings(MappingSettings):
    """Updates as integers, whose sums are exact and can be masked; see `Quantizer`.

    Attributes:
        bound: Every number of an update is clipped to ``[-bound, bound]``, above 0.
        fraction_bits: Binary digits behind the point, 0 to 30.
    """

    key = "quantization"
    bound: float = 4.0
    fraction_bits: int = 16

    def checks(self) -> list[Check]:
        """Return what is allowed."""
        try:
            self.quantizer()
        except (ConfigError, TypeError) as error:
            raise ConfigError(f"quantization.{error}") from error
        return []

    def quantizer(self) -> Quantizer:
        """Return what makes the integers."""
        return Quantizer(self.bound, self.fraction_bits)


@dataclasses.dataclass(frozen=True)
class SecureSettings(MappingSettings):
    """Secure aggregation: the server learns sums only; see `Round`.

    Attributes:
        neighbours: Clients that each one shares secrets with; None for all others of its sum.
        threshold: Neighbours that restore the secrets of a client that is gone, more than half; None for two thirds.
        min_clients: Clients whose sum may be released at least, 3 or more.
        group_size: The clients of a round are divided at random into groups of at least so many, 3 or more; each group
            has a sum of its own, and `aggregation.rule` combines their means. A group that fails is left out. None for
            one sum of all.
    """

    key = "secure"
    neighbours: int | None = None
    threshold: int | None = None
    min_clients: int = MIN_CLIENTS
    group_size: int | None = None

    def checks(self) -> list[Check]:
        """Return what is allowed."""
        return [
            (
                "neighbours",
                "an even integer of at least 2",
                self.neighbours is None or (_is_count(self.neighbours, 2) and self.neighbours % 2 == 0),
            ),
            (
                "threshold",
                "an integer of at least 1",
                self.threshold is None or _is_count(self.threshold),
            ),
            (
                "min_clients",
                f"an integer of at least {MIN_CLIENTS}",
                _is_count(self.min_clients, MIN_CLIENTS),
            ),
            (
                "group_size",
                f"an integer of at least {MIN_CLIENTS}",
                self.group_size is None or _is_count(self.group_size, MIN_CLIENTS),
            ),
        ]


@dataclasses.dataclass(frozen=True)
class PrivacySettings(MappingSettings):
    """Differential privacy of clients.

    Attributes:
        mechanism: "gaussian": the server adds noise to the sum of a Poisson sample, and readers of the weights are
            bound; "skellam": clients add integer noise before a secure sum, which binds the server too.
        clip: Greatest Euclidean norm of an update, above 0.
        noise_multiplier: Standard deviation of the noise in the sum over `clip`, above 0.
        delta: Probability of a failure of the guarantee, in (0, 1).
        randomness: "system" (seeded by the operating system each round), or "seeded": noise and participation from the
            run's seed, which can be repeated and protects nobody; reports say "simulated" then.
        colluders: Of "skellam": clients whose noise is not counted, since the server may know it.
    """

    key = "privacy"
    mechanism: str = "gaussian"
    clip: float = 1.0
    noise_multiplier: float = 1.0
    delta: float = 1e-5
    randomness: str = "system"
    colluders: int = 0

    def checks(self) -> list[Check]:
        """Return what is allowed."""
        return [
            _choice("mechanism", self.mechanism, ("gaussian", "skellam")),
            ("clip", "a number above 0", is_number(self.clip) and self.clip > 0),
            (
                "noise_multiplier",
                "a number above 0 (without noise nothing is private; leave privacy out)",
                is_number(self.noise_multiplier) and self.noise_multiplier > 0,
            ),
            ("delta", "a probability in (0, 1)", is_number(self.delta) and 0 < self.delta < 1),
            _choice("randomness", self.randomness, ("system", "seeded")),
            ("colluders", "an integer of at least 0", _is_count(self.colluders, 0)),
            ("colluders", "0 with mechanism gaussian", not self.colluders or self.mechanism == "skellam"),
        ]


@dataclasses.dataclass(frozen=True)
class AttackSettings(MappingSettings):
    """What malicious clients do; for measuring what a rule of aggregation bears.

    Attributes:
        type: What they send: "sign_flip", "noise", "normalized" (see `ATTACKS`), "lying_count" (more steps than they
            took); or how their environments lie: "random_actions", "flipped_rewards".
        share: Share of all clients that are malicious, in (0, 1); the first ones, rounded to whole clients.
        clients: Which ones are, by index, in place of `share`.
        scale: Of what they send, above 0.
    """

    key = "attack"
    type: str = "sign_flip"
    share: float | None = None
    clients: tuple[int, ...] | None = None
    scale: float = 3.0

    def __post_init__(self) -> None:
        if isinstance(self.clients, list):
            object.__setattr__(self, "clients", tuple(self.clients))

    def checks(self) -> list[Check]:
        """Return what is allowed."""
        given = (self.share is None) != (self.clients is None)
        names = self.clients
        return [
            _choice("type", self.type, (*ATTACKS, LYING_COUNT, *ENVIRONMENT_ATTACKS)),
            ("share", "a share in (0, 1), or clients in place of it", given),
            (
                "share",
                "a share in (0, 1)",
                self.share is None or (is_number(self.share) and 0 < self.share < 1),
            ),
            (
                "clients",
                "a list of different indices from 0",
                names is None
                or (
                    isinstance(names, tuple)
                    and all(_is_count(one, 0) for one in names)
                    and len({*names}) == len(names)
                ),
            ),
            ("scale", "a number above 0", is_number(self.scale) and self.scale > 0),
        ]

    def malicious(self, num_clients: int) -> frozenset[int]:
        """Return which clients are malicious.

        Raises:
            ConfigError: All are, or an index that no client has.
        """
        if self.clients is not None:
            found = frozenset(self.clients)
            if found and max(found) >= num_clients:
                raise ConfigError(f"attack.clients: there are {num_clients} clients, got index {max(found)}")
        else:
            assert self.share is not None
            found = frozenset(range(round(self.share * num_clients)))
        if len(found) == num_clients:
            raise ConfigError("attack: expected at least one honest client")
        return found


@dataclasses.dataclass(frozen=True)
class DropoutSettings(MappingSettings):
    """Clients that are lost in the middle of a round, to see what a federation bears.

    Attributes:
        probability: That a client of a round is lost in it, in [0, 1); with secure aggregation in any of its five
            steps, else before its update arrives.
    """

    key = "dropouts"
    probability: float = 0.1

    def checks(self) -> list[Check]:
        """Return what is allowed."""
        return [
            (
                "probability",
                "a probability in [0, 1)",
                is_number(self.probability) and 0 <= self.probability < 1,
            )
        ]
