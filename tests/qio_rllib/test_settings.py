"""Every setting of every algorithm: the same from YAML, the Python builder, a plain dictionary and `to_dict`."""

import inspect

import pytest
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ways_of_settings import (
    WAYS,
    content,
    from_builder,
    from_changed_output,
    from_dictionary,
    from_yaml,
)

from qio_envs.api import ConfigError
from qio_rllib.algorithms import ALGORITHMS, LOCAL_ALGORITHMS
from qio_rllib.algorithms.rllib_keys import TYPES
from qio_rllib.algorithms.setting_types import Range, Schedule, checked_value, members

FOREST = ("forest_uav_v0", {"scenario": "sprint", "num_uavs": 3})
QUBITS = ("qubit_control_v0", {})
TEAM = ("chsh_v0", {"as_team": True})
SWARM = ("swarm_cooperative_v0", {"actions": "discrete"})

# A value of each setting that `training` takes here beside RLlib's, and where it can be used.
VALUES = {
    "action_regularization": (0.5, FOREST),
    "actor_lr": ([[0, 1e-3], [100, 1e-4]], FOREST),
    "agent_id": (True, FOREST),
    "alpha_lr": (1e-2, FOREST),
    "amplification": ({"eta": 0.2}, FOREST),
    "attention_regularization": (0.2, FOREST),
    "behaviour": ("actor", FOREST),
    "bootstrap_at_time_limit": (False, FOREST),
    "burn_in": (3, FOREST),
    "central_value": ("observations", FOREST),
    "circuit": ({"num_qubits": 2, "num_layers": 1}, QUBITS),
    "communication": ({"bandwidth": 2, "drop": 0.1}, FOREST),
    "coordination": ({"num_agents": 2}, TEAM),
    "counterfactual_baseline": ({"samples": 4, "average_later": True}, FOREST),
    "critic": ({"type": "attention", "hiddens": [8], "heads": 2}, FOREST),
    "critic_lr": (1e-2, FOREST),
    "critic_state": (False, SWARM),
    "double_q": (False, FOREST),
    "dueling": (False, FOREST),
    "entropy_annealing": ({"law": "exponential", "alpha_0": 0.02}, FOREST),
    "entropy_coeff": ([[0, 0.1], [1000, 0.0]], FOREST),
    "env_steps_per_update": (16, FOREST),
    "exploration": ([[0, 0.9], [1000, 0.1]], FOREST),
    "gumbel_temperature": (0.5, FOREST),
    "imagination": ({"horizon": 2, "encoder_hiddens": [8]}, FOREST),
    "interventional_consistency": ({"coefficient": 0.1, "components": [0, 3]}, FOREST),
    "imagination_horizon": (4, FOREST),
    "influence_reward": ({"coefficient": 0.2, "permuted": True}, FOREST),
    "initial_alpha": (0.1, FOREST),
    "lambda_": (0.9, FOREST),
    "mixer": ({"type": "monotonic", "embedding": 8}, FOREST),
    "model_lr": (1e-2, FOREST),
    "model_resets": ([500], FOREST),
    "model_sequence_length": (9, FOREST),
    "model_weight_decay": (0.1, FOREST),
    "n_step": (3, FOREST),
    "sampling_lag": (1, FOREST),
    "normalize_observations": (True, FOREST),
    "normalize_rewards": (True, FOREST),
    "normalize_values": (True, FOREST),
    "num_critic_updates": (5, FOREST),
    "num_steps_sampled_before_learning_starts": (10, FOREST),
    "causal_mask": ({"alpha": 0.01}, FOREST),
    "planner": ({"horizon": 3}, FOREST),
    "pretraining_updates": (7, FOREST),
    "reward_scale": (0.1, FOREST),
    "replay_capacity": (500, FOREST),
    "self_play": ({"matchmaking": "elo", "pool_size": 3}, FOREST),
    "opponent_model": ({"coefficient": 0.2, "feed": False}, FOREST),
    "standardize_advantages": (True, FOREST),
    "target_entropy": (0.3, FOREST),
    "target_entropy_share": (0.25, FOREST),
    "target_network_update_freq": (7, FOREST),
    "tau": (0.25, FOREST),
    "team_reward": ("mean", FOREST),
    "vf_loss_coeff": (0.1, FOREST),
    "world_model": ({"type": "rssm", "deterministic": 16}, FOREST),
}

OTHERWISE = {("QMIX", "bootstrap_at_time_limit"): True}
"""Values where that of `VALUES` is an algorithm's default."""

BESIDE = {(name, "team_reward"): {"central_value": "observations"} for name in ("A2C", "PPO")} | {
    (name, "sampling_lag"): {"num_env_runners": 1} for name in LOCAL_ALGORITHMS
}
"""Settings that a setting needs."""


def own_settings(name):
    """Return the settings that the classes of this project, not RLlib's, declare."""
    return [
        parameter
        for owner in LOCAL_ALGORITHMS[name].__mro__
        if owner.__module__.startswith("qio_rllib") and "training" in vars(owner)
        for parameter in inspect.signature(vars(owner)["training"]).parameters
        if parameter not in ("self", "kwargs")
    ]


# initial_weights names a checkpoint that must be there: test_opponents_from_files.py.
CASES = [(name, key) for name in LOCAL_ALGORITHMS for key in own_settings(name) if key != "initial_weights"]


@pytest.mark.parametrize(("name", "key"), CASES)
def test_a_setting_is_the_same_or_refused_alike_by_whatever_way_it_comes(name, key):
    value, (env, env_config) = VALUES[key]
    value = OTHERWISE.get((name, key), value)
    beside = BESIDE.get((name, key), {})
    found, messages = [], []
    for way in WAYS:
        try:
            found.append(content(way(name, env, env_config, **beside, **{key: value})))
        except ConfigError as error:
            messages.append(str(error))
    if messages:
        assert found == []
        assert set(messages) == {messages[0]}
        assert messages[0].startswith(f"{key}: {name}")
    else:
        default = content(from_builder(name, env, env_config, **beside))
        assert found[0] != default
        assert found == [found[0]] * len(WAYS)


@pytest.mark.parametrize("name", LOCAL_ALGORITHMS)
def test_many_settings_together_keep_their_order_out_of_it(name):
    settings = {
        "PPO": {"amplification": {}, "central_value": "observations", "lr": 1e-3, "clip_param": 0.1},
        "A2C": {"amplification": {}, "entropy_annealing": {"law": "quantum"}, "lr": 1e-3},
        "COMA": {"critic": {"hiddens": [8]}, "central_value": "observations", "normalize_values": True},
        "DQN": {"dueling": False, "exploration": 0.2, "lr": 1e-3},
        "MAAC": {"critic": {"hiddens": [8], "heads": 2}, "amplification": {}, "agent_id": True},
        "MADDPG": {"critic": {"type": "own"}, "amplification": {}, "communication": {"bandwidth": 1}},
        "MASAC": {"critic": {"type": "own"}, "amplification": {}, "agent_id": True},
        "QMIX": {"mixer": {"state": "observations"}, "team_reward": "sum", "n_step": 3},
        "VDN": {"team_reward": "sum", "dueling": False},
        "WorldModel": {"world_model": {"type": "rssm"}, "behaviour": "actor", "model_lr": 1e-4},
    }[name]
    for given in (settings, dict(reversed(settings.items()))):
        configs = [content(way(name, *FOREST, **given)) for way in WAYS]
        assert configs == [configs[0]] * len(WAYS)


@pytest.mark.parametrize(("policies", "modules"), [("shared", {"shared"}), ("independent", None)])
@pytest.mark.parametrize("name", LOCAL_ALGORITHMS)
def test_policies_of_a_dictionary_are_those_of_a_file(name, policies, modules):
    env, env_config = FOREST
    config = from_dictionary(name, env, env_config, policies=policies)
    assert set(config.policies) == (modules or {"uav_0", "uav_1", "uav_2"})
    assert content(config) == content(from_yaml(name, env, env_config, policies=policies))
    again = LOCAL_ALGORITHMS[name]().update_from_dict(config.to_dict())
    assert content(again) == content(config)


@pytest.mark.parametrize("name", LOCAL_ALGORITHMS)
def test_an_environment_needs_no_settings_of_its_own(name):
    config = LOCAL_ALGORITHMS[name]().update_from_dict({"env": "forest_uav_v0"})
    assert set(config.policies) == {"shared"}
    config.validate()


# --- refused by name ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [from_dictionary, from_changed_output, from_yaml, from_builder])
@pytest.mark.parametrize("name", LOCAL_ALGORITHMS)
def test_a_misspelt_key_is_refused_with_the_one_that_was_meant(name, way):
    with pytest.raises(ConfigError, match=r"unknown key 'gama' \(did you mean 'gamma'\?\)"):
        way(name, *FOREST, gama=0.9)
    with pytest.raises(ConfigError, match=r"unknown key 'agentid' \(did you mean 'agent_id'\?\)"):
        way(name, *FOREST, agentid=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_workers": 1}, "config.num_workers: an old name; use 'num_env_runners'"),
        ({"num_sgd_iter": 1}, "config.num_sgd_iter: an old name; use 'num_epochs'"),
        ({"exploration_config": {}}, "config.exploration_config: RLlib's new API stack no longer takes it"),
        ({"env_runners": {"num_env_runners": 1}}, "config.env_runners: its settings stand directly under"),
        (
            {"tau": 0.1},
            "config.tau: a setting of COMA, DQN, MAAC, MADDPG, MASAC, QMIX, VDN or WorldModel, which PPO does not",
        ),
        ({"lr": "3e-4"}, "config.lr: expected a number of at least 0, or .* got '3e-4'"),
        ({"num_epochs": 0}, "config.num_epochs: expected an integer of at least 1, got 0"),
        ({"num_env_runners": -1}, "config.num_env_runners: expected an integer from 0 to 10000, got -1"),
        ({"amplification": {"etta": 1}}, "amplification: unknown key 'etta' .did you mean 'eta'"),
        ({"amplification": 3}, "config.amplification: expected a mapping or null, got 3"),
        ({"agent_id": 1}, "config.agent_id: expected true or false, got 1"),
        ({"central_value": "stat"}, "config.central_value: expected .* got 'stat' .did you mean 'state'"),
        ({"policies": {"a": ["uav_99"]}}, "policies.a: unknown agent 'uav_99'"),
        ({"env_config": {"num_uav": 3}}, "unknown environment setting 'num_uav' .did you mean 'num_uavs'"),
        ({"model_config": {"use_lstn": True}}, "config.model_config: unknown key 'use_lstn' .*'use_lstm'"),
        ({"model_config": {"agent_id": True}}, "config.model_config.agent_id: stands directly under config"),
        ({"callbacks": "x"}, "takes a Python object"),
        ({"evaluation_config": {"exploree": True}}, "config.evaluation_config: unknown key 'exploree'"),
    ],
)
def test_a_dictionary_is_checked_to_the_last_key(settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        LOCAL_ALGORITHMS["PPO"]().update_from_dict({"env": "forest_uav_v0", **settings})
    assert "\n" not in str(caught.value)


IN_PYTHON = {"custom_stats_cls_lookup", "evaluation_config", "model_config", "policies"}
"""Settings of RLlib that hold more than a type can say; their own checks know what."""


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_setting_of_rllib_has_a_type_that_takes_its_default(name):
    config = ALGORITHMS[name]()
    own = {*own_settings(name)} if name in LOCAL_ALGORITHMS else set()
    known = config.settings().known
    for key, setting in known.items():
        if setting.in_file and setting.setter != "training" and key not in IN_PYTHON | own:
            assert setting.annotation == TYPES[key], key
        if key in TYPES and key != "framework" and hasattr(config, key):  # `framework` is a method too
            setting.checked(getattr(config, key), config.settings(), "config", in_python=True)


@pytest.mark.parametrize("key", sorted(TYPES))
def test_null_and_what_is_not_finite_is_taken_only_where_a_type_says_so(key):
    kinds = members(TYPES[key])
    for value in (None, float("nan"), float("inf"), -float("inf"), -(2**63), 10**400, 2**63):
        if value == 2**63 and float in kinds:
            continue
        if value is None and (type(None) in kinds or None in kinds or "nullable=True" in str(TYPES[key])):
            continue
        with pytest.raises(ConfigError, match=rf"^config\.{key}: ") as caught:
            checked_value(f"config.{key}", value, TYPES[key])
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("PPO", {"gamma": 1.5}, "config.gamma: expected a number from 0 to 1, got 1.5"),
        ("PPO", {"clip_param": -0.1}, "config.clip_param: expected a number of at least 0"),
        ("PPO", {"minibatch_size": 0}, "config.minibatch_size: expected an integer of at least 1"),
        ("A2C", {"lambda_": 1.5}, "config.lambda_: expected a number from 0 to 1"),
        ("A2C", {"vf_loss_coeff": -1}, "config.vf_loss_coeff: expected a number of at least 0"),
        ("COMA", {"num_critic_updates": 0}, "config.num_critic_updates: expected an integer of at least 1"),
        ("DQN", {"n_step": 0}, "config.n_step: expected an integer of at least 1"),
        ("DQN", {"exploration": 1.5}, "config.exploration: expected a number from 0 to 1, or "),
        ("DQN", {"target_network_update_freq": 0}, "config.target_network_update_freq: expected an integer"),
        (
            "MAAC",
            {"attention_regularization": -1},
            "config.attention_regularization: expected a number of at",
        ),
        ("MADDPG", {"tau": 0.0}, "config.tau: expected a number above 0, up to 1, got 0.0"),
        ("MADDPG", {"gumbel_temperature": 0}, "config.gumbel_temperature: expected a number above 0, got 0"),
        ("MADDPG", {"exploration": [[5, 0.1]]}, "config.exploration: .* with rising steps"),
        ("MASAC", {"target_entropy_share": 2}, "config.target_entropy_share: expected a number from 0 to 1"),
        ("MASAC", {"alpha_lr": True}, "config.alpha_lr: expected a number of at least 0, or"),
    ],
)
def test_a_range_is_kept_with_the_same_message_by_whatever_way(name, settings, message):
    messages = set()
    for way in (from_yaml, from_builder, from_dictionary, from_changed_output):
        with pytest.raises(ConfigError, match=message) as caught:
            way(name, *FOREST, **settings)
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_training_refuses_what_another_method_sets():
    with pytest.raises(ConfigError, match=r"config.num_env_runners: is set by env_runners\(\)"):
        LOCAL_ALGORITHMS["PPO"]().training(num_env_runners=2)


@pytest.mark.parametrize(
    ("limit", "value", "admitted"),
    [
        (Range(0, 1), 0, True),
        (Range(0, 1), 1, True),
        (Range(0, 1), 1.01, False),
        (Range(0, low_open=True), 0, False),
        (Range(0, low_open=True), 1e-9, True),
        (Range(1), 0, False),
        (Range(1), 10**9, True),
    ],
)
def test_a_range_has_its_bounds(limit, value, admitted):
    assert limit.admits(value) is admitted


@pytest.mark.parametrize(
    "value", [None, "x", -1, True, [], [[0]], [[1, 0.1]], [[0, 0.1], [0, 0.2]], [[0, 2]]]
)
def test_a_schedule_refuses_what_is_none(value):
    with pytest.raises(ConfigError, match="lr: expected a number from 0 to 1, or"):
        Schedule(high=1).check("lr", value)


# --- networks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_config", "message"),
    [
        ({"use_gru": 1}, "config.model_config.use_gru: expected true or false, got 1"),
        ({"gru_cell_size": 0}, "config.model_config.gru_cell_size: expected an integer of at least 1, got 0"),
        ({"max_seq_len": 0}, "config.model_config.max_seq_len: expected an integer of at least 1, got 0"),
        ({"use_gru": True, "use_lstm": True}, "use_lstm and use_gru exclude each other"),
        ({"lstm_use_prev_action": True}, "lstm_use_prev_action: the networks of this package have no such"),
        ({"fcnet_activation": "rel"}, "expected one of .*got 'rel' .did you mean 'relu'"),
    ],
)
def test_a_network_is_checked_by_whatever_way(model_config, message):
    builder = LOCAL_ALGORITHMS["PPO"]().environment("CartPole-v1")
    for attempt in (
        lambda: builder.rl_module(model_config=model_config),
        lambda: LOCAL_ALGORITHMS["PPO"]().update_from_dict(
            {"env": "CartPole-v1", "model_config": model_config}
        ),
        lambda: from_yaml("PPO", "CartPole-v1", {}, model_config=model_config),
    ):
        with pytest.raises(ConfigError, match=message):
            attempt()


def test_an_object_of_rllib_is_taken_for_a_network_but_not_what_it_cannot_have_here():
    config = LOCAL_ALGORITHMS["PPO"]().rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[8]))
    assert config.model_config["fcnet_hiddens"] == [8]
    with pytest.raises(ConfigError, match="lstm_use_prev_reward: the networks of this package have no"):
        LOCAL_ALGORITHMS["PPO"]().rl_module(model_config=DefaultModelConfig(lstm_use_prev_reward=True))


def test_a_window_longer_than_a_rollout_is_refused():
    memory = {"use_gru": True, "gru_cell_size": 8, "max_seq_len": 33}
    for settings in ({"rollout_fragment_length": 32}, {"rollout_fragment_length": "auto"}):
        with pytest.raises(
            ConfigError, match="max_seq_len: a window of 33 steps is longer than the 32 steps of a rollout"
        ):
            from_yaml("A2C", "CartPole-v1", {}, model_config=memory, **settings)
    from_yaml("A2C", "CartPole-v1", {}, model_config={**memory, "max_seq_len": 32})
    from_yaml("DQN", "CartPole-v1", {}, model_config=memory, rollout_fragment_length=8)


def test_agent_id_needs_the_batched_runner_and_memory_does_not():
    config = LOCAL_ALGORITHMS["PPO"]().environment("forest_uav_v0").env_runners(env_runner_cls=None)
    with pytest.raises(ConfigError, match="env_runner_cls: agent_id needs BatchedEnvRunner"):
        config.training(agent_id=True).validate()
    config.training(agent_id=False).rl_module(model_config={"use_lstm": True}).validate()


def test_an_agent_id_needs_several_agents():
    with pytest.raises(ConfigError, match="agent_id: CartPole-v1 has a single agent; set it to false"):
        from_yaml("PPO", "CartPole-v1", {}, agent_id=True)
