"""Settings of a federation that cannot be used, each refused in one line that names the key."""

import functools

import numpy as np
import pytest

from qio_envs.api import ConfigError
from qio_rllib.federated.federation_settings import FederationSettings
from qio_rllib.federated.server import FederatedServer
from qio_rllib.federated.server_optimizers import ServerOptimizerSettings
from qio_rllib.federated.settings import (
    AggregationSettings,
    AttackSettings,
    CompressionSettings,
    DropoutSettings,
    ParticipationSettings,
    PrivacySettings,
    QuantizationSettings,
    SecureSettings,
)
from qio_rllib.sampling.streams import generator


@pytest.mark.parametrize(
    ("settings_class", "given_settings", "message"),
    [
        (
            ParticipationSettings,
            {"probability": 0},
            "participation.probability: expected a probability in (0, 1]",
        ),
        (
            ParticipationSettings,
            {"probability": 1.5},
            "participation.probability: expected a probability in (0, 1]",
        ),
        (ParticipationSettings, {"clients": 0}, "participation.clients: expected an integer of at least 1"),
        (
            ParticipationSettings,
            {"clients": 2, "probability": 0.5},
            "participation.probability: expected null",
        ),
        (AggregationSettings, {"rule": "meen"}, "aggregation.rule: expected one of mean, median"),
        (
            AggregationSettings,
            {"rule": "median", "weights": "env_steps"},
            "aggregation.weights: expected equal",
        ),
        (AggregationSettings, {"trim": 0.5}, "aggregation.trim: expected a share in [0, 1/2)"),
        (AggregationSettings, {"max_norm": 0}, "aggregation.max_norm: expected a number above 0"),
        (CompressionSettings, {"type": "gzip"}, "compression.type: expected one of none, int8"),
        (
            CompressionSettings,
            {"type": "int8", "keep": 0.1},
            "compression.keep: expected null with type int8",
        ),
        (
            QuantizationSettings,
            {"fraction_bits": 40},
            "quantization.fraction_bits: expected an integer from 0 to 30",
        ),
        (SecureSettings, {"min_clients": 2}, "secure.min_clients: expected an integer of at least 3"),
        (SecureSettings, {"group_size": 2}, "secure.group_size: expected an integer of at least 3, got 2"),
        (
            SecureSettings,
            {"group_size": "3"},
            "secure.group_size: expected an integer of at least 3, got '3'",
        ),
        (SecureSettings, {"neighbours": 3}, "secure.neighbours: expected an even integer"),
        (PrivacySettings, {"noise_multiplier": 0}, "privacy.noise_multiplier: expected a number above 0"),
        (PrivacySettings, {"noise": 1}, "privacy: unknown key 'noise'"),
        (PrivacySettings, {"colluders": 1}, "privacy.colluders: expected 0 with mechanism gaussian"),
        (AttackSettings, {"type": "flip"}, "attack.type: expected one of sign_flip"),
        (AttackSettings, {"type": "sign_flip"}, "attack.share: expected a share in (0, 1), or clients"),
        (AttackSettings, {"clients": [1, 1]}, "attack.clients: expected a list of different indices"),
        (DropoutSettings, {"probability": 1}, "dropouts.probability: expected a probability in [0, 1)"),
    ],
)
def test_values_outside_their_range_are_refused(settings_class, given_settings, message):
    with pytest.raises(ConfigError) as error:
        settings_class.of(given_settings)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"participation": ParticipationSettings(clients=9)}, "participation.clients: there are 6 clients"),
        (
            {"num_clients": 2, "secure": SecureSettings()},
            "secure.min_clients: 2 clients take part in a round, expected at least 3",
        ),
        ({"secure": SecureSettings(threshold=2)}, "secure.threshold: expected 3 to 5"),
        ({"secure": SecureSettings(threshold=6)}, "secure.threshold: expected 3 to 5"),
        (
            {"secure": SecureSettings(), "aggregation": AggregationSettings(rule="median")},
            "aggregation.rule: secure gives the sum of updates alone; median looks at single ones",
        ),
        (
            {"secure": SecureSettings(), "compression": CompressionSettings("top_k")},
            "compression.type: with secure all clients send the same numbers; top_k does not",
        ),
        (
            {"secure": SecureSettings(), "aggregation": AggregationSettings(max_norm=1.0)},
            "aggregation.max_norm: a server that sees sums alone cannot measure updates",
        ),
        (
            {"secure": SecureSettings(), "uses_variates": True},
            "correction.type: scaffold sends variates in the clear",
        ),
        (
            {"privacy": PrivacySettings(), "aggregation": AggregationSettings(rule="multi_krum")},
            "privacy: the noise is measured for a mean with equal weights",
        ),
        (
            {"privacy": PrivacySettings(), "aggregation": AggregationSettings(weights="env_steps")},
            "privacy: the noise is measured for a mean with equal weights",
        ),
        (
            {"privacy": PrivacySettings(), "participation": ParticipationSettings(clients=3)},
            "participation.clients: epsilon is accounted for Poisson sampling; set participation.probability, such "
            "as 0.5",
        ),
        ({"privacy": PrivacySettings("skellam")}, "privacy.mechanism: skellam needs secure aggregation"),
        (
            {"privacy": PrivacySettings("skellam", colluders=3), "secure": SecureSettings()},
            "privacy.colluders: expected fewer than secure.min_clients = 3",
        ),
        (
            {"attack": AttackSettings(clients=[6])},
            "attack.clients: there are 6 clients, got index 6",
        ),
        (
            {"num_clients": 1, "attack": AttackSettings(clients=[0])},
            "attack: expected at least one honest client",
        ),
        (
            {"attack": AttackSettings("lying_count", clients=[0])},
            "attack.type: a lying_count changes nothing where aggregation.weights is equal",
        ),
        (
            {"quantization": QuantizationSettings(bound=2.0**12, fraction_bits=20)},
            "fraction_bits, bound: 6 clients of at most",
        ),
        (
            {"num_clients": 4, "aggregation": AggregationSettings(rule="multi_krum", byzantine=0.4)},
            "byzantine: expected 0 to 0 of 4 updates",
        ),
        (
            {"secure": SecureSettings(), "aggregation": AggregationSettings(rule="median")},
            "expected mean, or sums of groups (secure.group_size)",
        ),
        (
            {"secure": SecureSettings(group_size=3, min_clients=4)},
            "secure.group_size: expected at least min_clients = 4, got 3",
        ),
        (
            {"secure": SecureSettings(group_size=7)},
            "secure.group_size: 6 clients take part in a round, expected at most as many, got 7",
        ),
        (
            {"secure": SecureSettings(group_size=3), "aggregation": AggregationSettings(rule="median")},
            "secure.group_size: median needs at least 3 groups of 3; 6 clients make 2",
        ),
        (
            {
                "num_clients": 40,
                "participation": ParticipationSettings(probability=0.2),
                "secure": SecureSettings(group_size=3),
                "aggregation": AggregationSettings(rule="median"),
            },
            "secure.group_size: median needs at least 3 groups of 3; 8 clients make 2",
        ),
        (
            {
                "num_clients": 12,
                "secure": SecureSettings(group_size=3),
                "aggregation": AggregationSettings(rule="multi_krum", byzantine=0.3),
            },
            "byzantine: expected 0 to 0 of 4 updates",
        ),
        (
            {"num_clients": 8, "secure": SecureSettings(group_size=4, threshold=4)},
            "secure.threshold: expected 2 to 3 (more than half of the neighbours), got 4",
        ),
        (
            {"num_clients": 11, "secure": SecureSettings(group_size=5, threshold=2)},
            "secure.threshold: expected 3 to 5",
        ),
        (
            {
                "secure": SecureSettings(group_size=3),
                "privacy": PrivacySettings("skellam", clip=0.5, randomness="seeded"),
            },
            "secure.group_size: privacy is accounted for one sum of all clients; leave group_size or privacy out",
        ),
        (
            {
                "num_clients": 12,
                "secure": SecureSettings(group_size=3),
                "aggregation": AggregationSettings(weights="env_steps"),
            },
            "aggregation.weights: secure sums updates as they are; expected equal",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ConfigError) as error:
        FederatedServer(
            FederationSettings(**{"num_clients": 6, "seed": 0, **settings}),
            np.zeros(40, np.float32),
            b"layout",
            1000,
            functools.partial(generator, 0),
        )
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"type": "sgdd"}, "server.type"),
        ({"momentum": 1}, "server.momentum: expected a number in [0, 1)"),
        ({"rate": 1}, "server: unknown key 'rate'"),
    ],
)
def test_settings_of_the_server_optimizer_are_checked(given_settings, message):
    with pytest.raises(ConfigError, match=message.replace("[", r"\[").replace(")", r"\)")):
        ServerOptimizerSettings.of(given_settings)
