"""`FederationSettings`: what a server has to know of a federation, its mappings checked against each other."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from qio_envs.api import ConfigError
from qio_rllib.federated.quantization import Quantizer
from qio_rllib.federated.server_optimizers import ServerOptimizerSettings
from qio_rllib.federated.settings import (
    LYING_COUNT,
    AggregationSettings,
    AttackSettings,
    CompressionSettings,
    DropoutSettings,
    ParticipationSettings,
    PrivacySettings,
    QuantizationSettings,
    SecureSettings,
)
from qio_rllib.mapping_settings import MappingSettings

MIN_GROUPS = 3
"""Groups of which a robust rule can tell a bad one."""


@dataclasses.dataclass(frozen=True)
class FederationSettings:
    """What a server has to know of a federation.

    Attributes:
        num_clients: Clients in all.
        participation: Who takes part.
        aggregation: How updates are combined.
        server: How the weights follow.
        compression: Fewer bytes; None for float32.
        quantization: Integers; None for none, or with `secure` for the defaults.
        secure: Secure aggregation; None for none.
        privacy: Noise; None for none.
        attack: Malicious clients; None for none.
        dropouts: Clients that are lost; None for none.
        uses_variates: Whether clients send control variates (SCAFFOLD).
        seed: Of the run.

    Raises:
        ConfigError: Settings that do not go together; the message names them.
    """

    MAPPINGS: ClassVar[tuple[type[MappingSettings], ...]] = (
        ParticipationSettings,
        AggregationSettings,
        ServerOptimizerSettings,
        CompressionSettings,
        QuantizationSettings,
        SecureSettings,
        PrivacySettings,
        AttackSettings,
        DropoutSettings,
    )

    num_clients: int
    participation: ParticipationSettings = dataclasses.field(default_factory=ParticipationSettings)
    aggregation: AggregationSettings = dataclasses.field(default_factory=AggregationSettings)
    server: ServerOptimizerSettings = dataclasses.field(default_factory=ServerOptimizerSettings)
    compression: CompressionSettings | None = None
    quantization: QuantizationSettings | None = None
    secure: SecureSettings | None = None
    privacy: PrivacySettings | None = None
    attack: AttackSettings | None = None
    dropouts: DropoutSettings | None = None
    uses_variates: bool = False
    seed: int | None = None

    def __post_init__(self) -> None:
        self._check_participation()
        if self.attack is not None:
            self.attack.malicious(self.num_clients)
            if self.attack.type == LYING_COUNT and self.aggregation.weights == "equal":
                raise ConfigError(
                    "attack.type: a lying_count changes nothing where aggregation.weights is equal"
                )
        if self.secure is not None:
            self._check_secure(self.secure)
        if self.integers is not None:
            self._check_integers()
        if self.privacy is not None:
            self._check_privacy(self.privacy)

    @property
    def largest_cohort(self) -> int:
        """Clients in a round at most."""
        few = self.participation.clients
        return self.num_clients if few is None else few

    @property
    def group_size(self) -> int | None:
        """Clients of which the server sees a sum at least, where it sees several; else None."""
        return None if self.secure is None else self.secure.group_size

    @property
    def largest_sum(self) -> int:
        """Clients at most whose integers are summed."""
        count, size = self.largest_cohort, self.group_size
        if size is None:
            return count
        if self.participation.probability is None:
            return -(-count // (count // size))
        return min(count, 2 * size - 1)  # of so many there is one group

    @property
    def integers(self) -> Quantizer | None:
        """What makes integers of updates; None where they stay floating-point numbers."""
        if self.privacy is not None and self.privacy.mechanism == "skellam":
            return Quantizer(self.privacy.clip, (self.quantization or QuantizationSettings()).fraction_bits)
        if self.quantization is None and self.secure is None:
            return None
        return (self.quantization or QuantizationSettings()).quantizer()

    def _check_participation(self) -> None:
        few = self.participation.clients
        if few is not None and few > self.num_clients:
            raise ConfigError(
                f"participation.clients: there are {self.num_clients} clients, expected at most as many, got {few}"
            )

    def _check_secure(self, secure: SecureSettings) -> None:
        expected = self.participation.expected(self.num_clients)
        if expected < secure.min_clients:
            raise ConfigError(
                f"secure.min_clients: {expected:g} clients take part in a round, expected at least "
                f"{secure.min_clients}"
            )
        if secure.group_size is not None:
            self._check_groups(expected, secure.group_size, secure.min_clients)
        others = self.largest_sum - 1
        neighbours = others if secure.neighbours is None else min(secure.neighbours, others)
        if secure.threshold is not None and not neighbours // 2 < secure.threshold <= neighbours:
            raise ConfigError(
                f"secure.threshold: expected {neighbours // 2 + 1} to {neighbours} (more than half of the "
                f"neighbours), got {secure.threshold}"
            )

    def _check_groups(self, expected: float, size: int, fewest: int) -> None:
        if size < fewest:
            raise ConfigError(f"secure.group_size: expected at least min_clients = {fewest}, got {size}")
        if size > expected:
            raise ConfigError(
                f"secure.group_size: {expected:g} clients take part in a round, expected at most as many, got {size}"
            )
        rule = self.aggregation.rule
        found = int((expected + 1e-9) // size)  # 0.29 of 100 comes to 28.999999999999996
        if rule != "mean" and found < MIN_GROUPS:
            raise ConfigError(
                f"secure.group_size: {rule} needs at least {MIN_GROUPS} groups of {size}; {expected:g} clients make "
                f"{found}"
            )

    def _check_integers(self) -> None:
        what = "secure" if self.secure is not None else "quantization"
        rule, compression = self.aggregation.rule, self.compression
        if rule != "mean" and self.group_size is None:
            more = "" if self.secure is None else ", or sums of groups (secure.group_size)"
            raise ConfigError(
                f"aggregation.rule: {what} gives the sum of updates alone; {rule} looks at single ones; expected mean"
                f"{more}"
            )
        if self.aggregation.weights != "equal":
            raise ConfigError(f"aggregation.weights: {what} sums updates as they are; expected equal")
        if compression is not None and compression.type not in ("none", "random_k"):
            raise ConfigError(
                f"compression.type: with {what} all clients send the same numbers; {compression.type} does not; "
                "expected none or random_k"
            )
        if self.secure is not None:
            if self.uses_variates:
                raise ConfigError("correction.type: scaffold sends variates in the clear; leave secure out")
            if self.aggregation.max_norm is not None:
                raise ConfigError(
                    "aggregation.max_norm: a server that sees sums alone cannot measure updates; set "
                    "quantization.bound"
                )

    def _check_privacy(self, privacy: PrivacySettings) -> None:
        if self.group_size is not None:
            raise ConfigError(
                "secure.group_size: privacy is accounted for one sum of all clients; leave group_size or privacy out"
            )
        if self.aggregation.rule != "mean" or self.aggregation.weights != "equal":
            raise ConfigError(
                "privacy: the noise is measured for a mean with equal weights; set aggregation to its defaults, got "
                f"rule {self.aggregation.rule}, weights {self.aggregation.weights}"
            )
        if self.uses_variates:
            raise ConfigError("correction.type: scaffold sends variates without noise; leave privacy out")
        if privacy.mechanism == "gaussian":
            if self.participation.clients is not None and self.participation.clients < self.num_clients:
                raise ConfigError(
                    "participation.clients: epsilon is accounted for Poisson sampling; set "
                    f"participation.probability, such as {self.participation.clients / self.num_clients:g}"
                )
            if self.integers is not None and self.secure is None:
                raise ConfigError(
                    "quantization: the server's Gaussian noise is not of integers; leave it out"
                )
        elif self.secure is None:
            raise ConfigError("privacy.mechanism: skellam needs secure aggregation (secure: {})")
        elif privacy.colluders >= self.secure.min_clients:
            raise ConfigError(
                f"privacy.colluders: expected fewer than secure.min_clients = {self.secure.min_clients}, got "
                f"{privacy.colluders}"
            )
