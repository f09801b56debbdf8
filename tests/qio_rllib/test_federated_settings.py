"""Settings of `Federated`: what is refused, and that they are the same by whatever way they come."""

import pytest
from toy_federations import FOREST, LOCAL

from qio_envs.api import ConfigError
from qio_rllib.algorithms import FederatedConfig
from qio_rllib.algorithms.federated_hosts import Layouts
from qio_rllib.experiments.experiment import Experiment
from qio_rllib.learners.common import as_module

pytestmark = pytest.mark.usefixtures("ray_runtime")


def experiment(**config):
    settings = {
        "env_config": FOREST,
        "local": {"run": "PPO", **LOCAL["PPO"][2]},
        "clients": [{"count": 4}],
        **config,
    }
    return Experiment.from_mapping(
        {"run": "Federated", "env": "forest_uav_v0", "stop": {"training_iteration": 1}, "config": settings}
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"clients": "six_forrests"},
            "clients.family: unknown family 'six_forrests' (did you mean 'six_forests'?)",
        ),
        ({"clients": None}, "config.clients: expected a text, a mapping or a list, got None"),
        ({"clients": []}, "clients: expected the name of a family or a list of clients, got []"),
        ({"clients": [{"count": 0}]}, "clients[0].count: expected an integer of at least 1, got 0"),
        ({"clients": [{"number": 2}]}, "clients[0]: unknown key 'number'"),
        ({"clients": [{"label": "a"}, {"label": "a"}]}, "clients.label: 'a' stands for 2 clients"),
        (
            {"clients": {"family": "six_forests", "count": 0}},
            "clients.count: expected an integer of at least 1",
        ),
        (
            {"clients": [{"env": "swarm_cooperative_v0"}]},
            "clients: 'client_0' (swarm_cooperative_v0) has shared: observations",
        ),
        ({"clients": [{"env_config": {"hight": 3}}]}, "did you mean 'height'"),
        ({"lr": 1e-3}, "config.lr: a setting of the local algorithm (config.local.lr)"),
        ({"num_env_runners": 2}, "config.num_env_runners: a setting of the local algorithm"),
        ({"local": {"run": "PPO", "lrr": 1e-3}}, "config.local: unknown key 'lrr'"),
        ({"local": {"run": "PPO", "lr": "fast"}}, "config.local.lr"),
        ({"local": {"run": "Federated"}}, "config.local.run: expected one of A2C, COMA, DQN"),
        ({"local": {"run": "PPO", "seed": 3}}, "config.seed: stands beside local, not in it"),
        ({"local": {"run": "PPO", "num_learners": 2}}, "config.local.num_learners: a client is one process"),
        (
            {"local": {"run": "PPO", "normalize_values": True}},
            "config.local.normalize_values: the scale of its values is a client's own",
        ),
        ({"local": {"run": "MADDPG", "amplification": {"eta": -1}}}, "config.local"),
        ({"secure": {}, "clients": [{"count": 2}]}, "secure.min_clients: 2 clients take part"),
        ({"secure": {"threshold": 9}}, "secure.threshold: expected 2 to 3"),
        ({"secure": {}, "aggregation": {"rule": "median"}}, "aggregation.rule: secure gives the sum"),
        ({"secure": {"group_size": 2}}, "secure.group_size: expected an integer of at least 3, got 2"),
        ({"secure": {"group_size": 5}}, "secure.group_size: 4 clients take part in a round"),
        (
            {"secure": {"group_size": 3}, "aggregation": {"rule": "median"}},
            "secure.group_size: median needs at least 3 groups of 3; 4 clients make 1",
        ),
        ({"secure": {}, "compression": {"type": "top_k"}}, "compression.type: with secure"),
        ({"privacy": {"noise_multiplier": 0}}, "privacy.noise_multiplier: expected a number above 0"),
        (
            {"participation": {"probability": 1.2}},
            "participation.probability: expected a probability in (0, 1]",
        ),
        ({"participation": {"clients": 5}}, "participation.clients: there are 4 clients"),
        ({"num_hosts": 100_000}, "config.num_hosts: expected at most the"),
        ({"personal": ["valeu"]}, "personal: no parameter begins with 'valeu'"),
        ({"personal": ["policy", "value"]}, "personal: no parameter is left to be shared"),
        ({"correction": {"type": "fedprox"}}, "correction.coefficient"),
        (
            {"correction": {"type": "fedkl", "coefficient": 1.0}, "local": {"run": "MADDPG"}},
            "correction.type",
        ),
        ({"local_iterations": 0}, "config.local_iterations"),
        ({"round_timeout_s": 0}, "config.round_timeout_s"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_before_anything_starts(settings, message):
    with pytest.raises(ConfigError) as error:
        experiment(**settings).validate()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["lr", "amplification", "agent_id", "num_epochs"])
def test_settings_of_the_local_algorithm_are_refused_by_the_builder_too(key):
    with pytest.raises(
        ConfigError, match=rf"config.{key}: a setting of the local algorithm \(config.local.{key}\)"
    ):
        FederatedConfig().environment("cart_pole_v0").training(**{key: 1})


def as_file(**config):
    return experiment(**config).algorithm_config()


def as_dictionary(**config):
    given = {
        "env": "forest_uav_v0",
        "env_config": FOREST,
        "local": {"run": "PPO", **LOCAL["PPO"][2]},
        **config,
    }
    return FederatedConfig().update_from_dict(given)


def as_builder(**config):
    built = FederatedConfig().environment("forest_uav_v0", env_config=FOREST)
    return built.training(local={"run": "PPO", **LOCAL["PPO"][2]}, **config)


def as_output(**config):
    return FederatedConfig().update_from_dict(as_builder(**config).to_dict())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("participation", {"clients": 2}),
        ("local_iterations", 3),
        ("num_hosts", 1),
        ("round_timeout_s", 10.0),
        ("aggregation", {"rule": "median"}),
        ("server", {"momentum": 0.5}),
        ("correction", {"type": "fedprox", "coefficient": 0.1}),
        ("compression", {"type": "int8"}),
        ("quantization", {"bound": 1.0}),
        ("secure", {"group_size": 3}),
        ("privacy", {"clip": 0.5}),
        ("attack", {"clients": [1]}),
        ("dropouts", {"probability": 0.2}),
        ("personal", ["value"]),
        ("optimizer_state", "reset"),
        ("evaluation_clients", 2),
    ],
)
def test_a_setting_is_the_same_by_whatever_way_it_comes(key, value):
    default = repr(as_builder(clients=[{"count": 4}]).to_dict()[key])
    for way in (as_file, as_dictionary, as_builder, as_output):
        config = way(clients=[{"count": 4}], **{key: value})
        config.copy(copy_frozen=False).validate()
        assert repr(config.to_dict()[key]) == repr(value) != default


def test_a_file_that_is_right_is_taken():
    config = experiment(
        clients="six_forests",
        correction={"type": "scaffold"},
        server={"type": "adam", "betas": [0.9, 0.99]},
        personal=["value"],
    ).validate()
    assert len(config.all_clients()) == 6
    layouts = Layouts.of(as_module(config.build_algo().learner_group._learner.module), config.personal)
    assert layouts.personal is not None
