import inspect

import pytest
from toy_experiments import CARTPOLE, FOREST, cartpole, forest

from qio_envs.api import ConfigError
from qio_rllib.algorithms import PPOConfig
from qio_rllib.algorithms.rllib_keys import OLD_STACK, RENAMED
from qio_rllib.artifacts.run_directory import RunDirectory
from qio_rllib.artifacts.yaml_files import yaml_text
from qio_rllib.experiments.experiment import Experiment, apply_overrides, load_experiment


def write(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return path


# --- keys find their methods -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "attribute"),
    [
        ("lr", 3e-4, "lr"),
        ("lr", [[0, 1e-3], [1000, 1e-4]], "lr"),
        ("gamma", 1, "gamma"),  # an integer is a number
        ("lambda", 0.9, "lambda_"),
        ("clip_param", 0.1, "clip_param"),
        ("num_env_runners", 3, "num_env_runners"),
        ("num_envs_per_env_runner", 4, "num_envs_per_env_runner"),
        ("num_cpus_per_env_runner", 0.5, "num_cpus_per_env_runner"),
        ("rollout_fragment_length", "auto", "rollout_fragment_length"),
        ("num_learners", 1, "num_learners"),
        ("evaluation_interval", 5, "evaluation_interval"),
        ("metrics_num_episodes_for_smoothing", 7, "metrics_num_episodes_for_smoothing"),
        ("restart_failed_env_runners", True, "restart_failed_env_runners"),
        ("normalize_actions", False, "normalize_actions"),
        ("seed", 5, "seed"),
        ("grad_clip", None, "grad_clip"),
    ],
)
def test_a_key_reaches_its_setting(key, value, attribute):
    assert getattr(cartpole(**{key: value}).algorithm_config(), attribute) == value


SCHEDULE = (
    r"expected a number of at least 0, or \[\[0, first\], \[steps, value\], ...\] with rising steps, .* got"
)
SETTERS = ("env_runners", "learners", "training", "evaluation", "reporting", "debugging", "fault_tolerance")


@pytest.mark.parametrize("setter", SETTERS)
def test_every_setting_of_a_setter_is_known_and_no_deprecated_one(setter):
    table = PPOConfig.settings()
    given_up = {*table.deprecated, *RENAMED, *OLD_STACK}
    for name, parameter in inspect.signature(getattr(PPOConfig, setter)).parameters.items():
        if name in ("self", "kwargs"):
            continue
        if parameter.default == -1:  # RLlib's mark of a deprecated name
            assert name not in table.known or table.known[name].setter != setter
        else:
            assert name in table.known or name in given_up


def test_the_projects_own_settings_reach_the_config():
    config = forest(
        amplification={"eta": 0.2},
        entropy_annealing={"law": "quantum", "alpha_0": 0.05},
        policies="independent",
    ).algorithm_config()
    operator = {"operator": "amplify", "operator_seed": 0}
    assert config.amplification == {"eta": 0.2, "h_min": 0.05, "tau": 1.0, **operator}
    assert config.entropy_annealing == {"law": "quantum", "alpha_0": 0.05}
    assert set(config.policies) == {f"uav_{i}" for i in range(4)}
    assert config.env_config == {"scenario": "sprint", "num_uavs": 4}
    assert config.model_config["fcnet_hiddens"] == [8]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lrr": 1}, r"config: unknown key 'lrr' \(did you mean 'lr'\?\)"),
        (
            {"qqqq": 1},
            "unknown key 'qqqq'; allowed: agent_id, amplification, bootstrap_at_time_limit, .*clip_param, .*lr, ",
        ),
        ({"num_sgd_iter": 3}, "config.num_sgd_iter: an old name; use 'num_epochs'"),
        ({"num_workers": 3}, "use 'num_env_runners'"),
        ({"num_rollout_workers": 3}, "use 'num_env_runners'"),
        ({"train_batch_size": 3}, "use 'train_batch_size_per_learner'"),
        ({"exploration_config": {}}, "config.exploration_config: RLlib's new API stack no longer takes it"),
        ({"env_runners": {"num_env_runners": 1}}, "its settings stand directly under config"),
        ({"env": "CartPole-v1"}, "config.env: stands beside config"),
        ({"lr": "3e-4"}, rf"config.lr: {SCHEDULE} '3e-4'"),
        ({"lr": True}, rf"config.lr: {SCHEDULE} True"),
        ({"lr": float("nan")}, rf"config.lr: {SCHEDULE} nan"),
        ({"lr": -1}, rf"config.lr: {SCHEDULE} -1"),
        ({"gamma": 1.01}, "config.gamma: expected a number from 0 to 1, got 1.01"),
        ({"num_epochs": 2.0}, "config.num_epochs: expected an integer, got 2.0"),
        ({"num_epochs": True}, "config.num_epochs: expected an integer, got True"),
        ({"num_epochs": 0}, "config.num_epochs: expected an integer of at least 1"),
        (
            {"num_epochs": 2**31},
            "config.num_epochs: expected an integer from 1 to 2147483647, got 2147483648",
        ),
        ({"num_env_runners": 2**63}, "config.num_env_runners: expected an integer from 0 to 10000"),
        ({"lr": float("inf")}, rf"config.lr: {SCHEDULE} inf"),
        ({"lr": [[0, 10**400]]}, "config.lr.0.1: expected an integer of at most 32 bits"),
        ({"lr": [[0, float("nan")]]}, "config.lr.0.1: expected a finite number up to 3.4e.38, got nan"),
        ({"imagination": {"model_lr": 1e308}}, "config.imagination.model_lr: expected a finite number"),
        (
            {"evaluation_config": {"lr": float("inf")}},
            "config.evaluation_config.lr: expected a finite number",
        ),
        (
            {"model_config": {"fcnet_hiddens": [2**40]}},
            "config.model_config.fcnet_hiddens.0: expected an integer of",
        ),
        ({"clip_param": 1e39}, "config.clip_param: expected a number, got 1e.39"),
        ({"clip_param": float("inf")}, "config.clip_param: expected a number, got inf"),
        (
            {"min_time_s_per_iteration": 1e7},
            "config.min_time_s_per_iteration: expected a number from 0 to 1000000",
        ),
        (
            {"custom_resources_per_learner": {"x": -1}},
            "custom_resources_per_learner.x: expected a number from 0",
        ),
        (
            {"placement_strategy": "PCK"},
            "config.placement_strategy: expected PACK or .* got 'PCK' .did you mean 'PACK'",
        ),
        ({"num_env_runners": -1}, "config.num_env_runners: expected an integer from 0 to 10000"),
        ({"explore": 1}, "config.explore: expected true or false, got 1"),
        ({"seed": 2**32}, "config.seed: expected an integer from 0 to 4294967295"),
        ({"batch_mode": "x"}, "config.batch_mode: expected truncate_episodes, got 'x'"),
        ({"framework": "tf2"}, "config.framework: expected torch"),
        ({"callbacks": "x"}, "takes a Python object"),
        ({"learner_class": "x"}, "config.learner_class: takes a Python object"),
        ({"num_learners": 0, "minibatch_size": 999}, "config.minibatch_size: .*minibatch_size.* must be <="),
        ({"action_mask_key": 3}, "config.action_mask_key: expected a text, got 3"),
        (
            {"fcnet_hidens": [8]},
            r"unknown key 'fcnet_hidens' \(did you mean 'model_config.fcnet_hiddens'\?\)",
        ),
        (
            {"num_env_runners": 1, "custom_resources_per_env_runner": {"tpu": 2}},
            "config.custom_resources_per_env_runner: 2 tpus are needed in all, (this machine|the running Ray) has 0",
        ),
        ({"num_gpus_per_learner": 99}, "config.num_gpus_per_learner: 99 GPUs are needed"),
        (
            {"model_config": {"fcnet_hidden": [8]}},
            r"unknown key 'fcnet_hidden' \(did you mean 'fcnet_hiddens'\?\)",
        ),
        ({"model_config": {"fcnet_hiddens": [8, 0]}}, "fcnet_hiddens: expected sizes of at least 1"),
        (
            {"model_config": {"fcnet_hiddens": [8, "x"]}},
            "config.model_config.fcnet_hiddens.1: expected an integer",
        ),
        ({"model_config": {"fcnet_activation": "rel"}}, "expected one of .*got 'rel' .did you mean 'relu'"),
        (
            {"model_config": {"conv_filters": [[1]]}},
            "config.model_config.conv_filters: expected the form .*List",
        ),
        ({"model_config": 3}, "config.model_config: expected a mapping, got 3"),
        ({"evaluation_config": {"exploree": True}}, "config.evaluation_config: unknown key 'exploree'"),
        ({"evaluation_config": {"explore": 3}}, "config.evaluation_config.explore: expected true or false"),
        ({"evaluation_duration": "auto"}, "config.evaluation_duration: expected an integer"),
        ({"amplification": {"etta": 1}}, "amplification: unknown key 'etta'.*did you mean 'eta'"),
        ({"amplification": {"eta": "x"}}, "amplification: eta must be a number or a 0-d tensor, got 'x'"),
        ({"amplification": {"h_min": 2}}, "amplification: h_min"),
        ({"entropy_annealing": {"law": "quantm"}}, "entropy_annealing: .*quantum"),
        ({"entropy_annealing": 3}, "config.entropy_annealing: expected a mapping or null, got 3"),
        ({"env_config": 3}, "config.env_config: expected a mapping or null, got 3"),
        ({"env_config": {"foo": 1}}, "env_config of CartPole-v1: .*foo"),
        ({"policies": "shared"}, "policies: CartPole-v1 has a single agent"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_in_one_line(settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        cartpole(**settings).validate()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"env_config": {"scenario": "defalt"}},
            "env_config: unknown scenario 'defalt' .did you mean 'default'",
        ),
        ({"env_config": {"num_uav": 3}}, "unknown environment setting 'num_uav' .did you mean 'num_uavs'"),
        ({"env_config": {"num_uavs": 401}}, "env_config: num_uavs: 401 UAVs do not fit"),
        ({"policies": "sharedd"}, "policies: expected shared, independent"),
        ({"policies": {"a": ["uav_99"]}}, "policies.a: unknown agent 'uav_99'"),
    ],
)
def test_settings_of_an_environment_are_checked_by_building_it(settings, message):
    with pytest.raises(ConfigError, match=message):
        forest(**settings).validate()


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        ({}, "stop: at least one criterion"),
        (
            {"training_iterations": 3},
            r"unknown metric 'training_iterations' \(did you mean 'training_iteration'\?\)",
        ),
        ({"training_iteration": "x"}, "stop.training_iteration: expected a number, got 'x'"),
        ({"training_iteration": 10**400}, "stop.training_iteration: expected a number, got 1000"),
        ({"training_iteration": True}, "stop.training_iteration: expected a number, got True"),
        ({"training_iteration": 0}, "stop.training_iteration: expected a number above 0"),
        ({"time_total_s": float("inf")}, "stop.time_total_s: expected a number"),
        ({"timesteps_total": 3}, "stop.timesteps_total: an old name; use 'num_env_steps_sampled_lifetime'"),
        ({"episode_reward_mean": 3}, "use 'env_runners/episode_return_mean'"),
        ({"env_runners/covrage": 1}, "unknown metric 'env_runners/covrage' .did you mean 'coverage'"),
        ({"env_runners/elegance": 1}, "unknown metric 'env_runners/elegance'; allowed: env_runners/<"),
        ({"evaluation/greedy/coverage": 1}, "there is no evaluation; set config.evaluation_interval"),
        ({"evaluation/greed/coverage": 1}, "unknown metric 'evaluation/greed/coverage'"),
    ],
)
def test_stop_criteria_are_checked(stop, message):
    with pytest.raises(ConfigError, match=message):
        Experiment.from_mapping({**FOREST, "stop": stop}).validate()


def test_a_run_that_ends_before_its_exploration_does_is_refused():
    values = {
        "run": "DQN",
        "env": "cart_pole_v0",
        "stop": {"num_env_steps_sampled_lifetime": 5000},
        "config": {"num_env_runners": 0, "exploration": [[0, 1.0], [6000, 0.1]]},
    }
    message = (
        r"config.exploration: its schedule is over after 6,000 environment steps, the run after 5,000 \(stop"
    )
    with pytest.raises(ConfigError, match=message):
        Experiment.from_mapping(values).validate()
    for stop in ({"num_env_steps_sampled_lifetime": 6000}, {"training_iteration": 1}):
        Experiment.from_mapping({**values, "stop": stop}).validate()


def test_metrics_of_the_environment_can_end_a_run():
    stop = {"env_runners/coverage": 0.9, "evaluation/sampled/team_return": 300, "time_total_s": 1.5}
    experiment = Experiment.from_mapping(
        {**FOREST, "stop": stop, "config": {**FOREST["config"], "evaluation_interval": 1}}
    )
    experiment.validate()
    assert experiment.stop == stop


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"env": "CartPole-v1", "stop": {}}, "run: missing"),
        ({**CARTPOLE, "run": "PPPO"}, "run: unknown algorithm 'PPPO' .did you mean 'PPO'"),
        ({**CARTPOLE, "run": 3}, "run: expected a text, got 3"),
        (
            {**CARTPOLE, "env": "forest_uav_v1"},
            "env: unknown environment 'forest_uav_v1' .did you mean 'forest_uav_v0'",
        ),
        ({**CARTPOLE, "confg": {}}, "unknown key 'confg' .did you mean 'config'"),
        ({**CARTPOLE, "config": [1]}, "config: expected a mapping"),
        ({**CARTPOLE, "stop": 3}, "stop: expected a mapping, got 3"),
        ({**CARTPOLE, "num_samples": 0}, "num_samples: expected an integer of at least 1, got 0"),
        ({**CARTPOLE, "num_samples": 10_001}, "num_samples: expected an integer of at most 10000"),
        (
            {**CARTPOLE, "checkpoint_config": {"num_to_kep": 1}},
            "checkpoint_config: unknown key .*'num_to_keep'",
        ),
        (
            {**CARTPOLE, "checkpoint_config": {"num_to_keep": 0}},
            "num_to_keep: expected an integer of at least 1",
        ),
        (
            {**CARTPOLE, "checkpoint_config": {"checkpoint_at_end": 1}},
            "checkpoint_at_end: expected true or false",
        ),
        (3, "expected a mapping with the keys run, env"),
        ({**CARTPOLE, "stop": {3: 4}}, "^stop: expected texts as keys, got 3$"),
        ({**CARTPOLE, "config": {3: 4}}, "^config: expected texts as keys, got 3$"),
    ],
)
def test_the_outer_form_is_checked(values, message):
    with pytest.raises(ConfigError, match=message):
        Experiment.from_mapping(values).validate()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", 3, None, "n" * 101, "é" * 51])
def test_a_name_must_name_a_directory(name):
    with pytest.raises(ConfigError, match="^name: expected up to 100 letters"):
        Experiment.from_mapping(CARTPOLE, name)


# --- files and overrides -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("[1]", "the file is a list"),
        ("a: {run: PPO}\nb: {run: PPO}", "exactly one experiment, found the keys a, b"),
        ("run: PPO\nenv: x", "run belongs under the name of the experiment"),
        ("a:\n  run: PPO\n  run: A2C\n", "x.yaml, line 3: not valid YAML: found duplicate key"),
        ("a:\n  run: [PPO\n  env: x\n", "x.yaml, line 3: not valid YAML"),
        ("a: 3", "x.yaml: a: expected a mapping"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_experiment(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="x.yaml: No such file"):
        load_experiment(tmp_path / "x.yaml")


def test_overrides_go_on_top_and_leave_the_original_alone():
    values = {
        "run": "PPO",
        "config": {"lr": 1, "model_config": {"fcnet_hiddens": [8]}},
        "stop": {"time_total_s": 1},
    }
    changed = apply_overrides(
        values,
        [
            "lr=3e-4",
            "config.gamma=0.9",
            "model_config.fcnet_hiddens=[16, 16]",
            "env_config.scenario=sprint",
            "stop.env_runners/coverage=0.5",
            "env=forest_uav_v0",
            "explore=no",
            "grad_clip=null",
            "checkpoint_config={num_to_keep: 3}",
        ],
    )
    assert changed == {
        "run": "PPO",
        "env": "forest_uav_v0",
        "config": {
            "lr": 3e-4,
            "gamma": 0.9,
            "model_config": {"fcnet_hiddens": [16, 16]},
            "env_config": {"scenario": "sprint"},
            "explore": "no",
            "grad_clip": None,
        },
        "stop": {"time_total_s": 1, "env_runners/coverage": 0.5},
        "checkpoint_config": {"num_to_keep": 3},
    }
    assert values["config"] == {"lr": 1, "model_config": {"fcnet_hiddens": [8]}}


@pytest.mark.parametrize("override", ["lr", "=3", "lr=", "a..b=1", ".lr=1", "lr=[1", "lr.x=3", "lr=a: b: c"])
def test_a_bad_override_is_refused(override):
    with pytest.raises(ConfigError, match="--set"):
        apply_overrides({"config": {"lr": 1}}, [override])


def test_the_seed_comes_from_the_caller_then_the_file_then_the_default(tmp_path):
    path = write(tmp_path, yaml_text({"x": CARTPOLE}))
    assert load_experiment(path).config["seed"] == 0
    assert load_experiment(path, ["seed=7"]).seed == 7
    assert load_experiment(path, ["seed=7"], seed=9).algorithm_config().seed == 9


def test_a_resolved_experiment_reads_back_as_itself(tmp_path):
    path = write(tmp_path, yaml_text({"x": {**FOREST, "checkpoint_config": {"num_to_keep": 2}}}))
    experiment = load_experiment(path, ["lr=1e-5", "amplification.eta=0.2"], seed=3)
    run = RunDirectory.create(tmp_path, "x")
    run.write_config({"x": experiment.as_dict()})
    again = load_experiment(run.config_file)
    assert again == experiment
    ours, theirs = experiment.algorithm_config().to_dict(), again.algorithm_config().to_dict()
    assert {key for key in ours if repr(ours[key]) != repr(theirs[key])} <= {"policy_mapping_fn"}


@pytest.mark.parametrize(
    ("settings", "checkpoints", "frequency"),
    [
        ({}, {}, 10),
        ({"evaluation_interval": 3}, {}, 3),
        ({"evaluation_interval": 3}, {"checkpoint_frequency": 0}, 0),
    ],
)
def test_checkpoints_are_as_frequent_as_evaluations(settings, checkpoints, frequency):
    values = {**CARTPOLE, "config": settings, "checkpoint_config": checkpoints}
    assert Experiment.from_mapping(values).checkpoint_frequency == frequency


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_env_runners": 50}, "config.num_env_runners: 50 CPUs are needed in all, this machine has 2"),
        ({"num_env_runners": 2, "num_learners": 1}, "num_env_runners: 3 CPUs are needed in all"),
        ({"num_env_runners": 1, "num_cpus_per_env_runner": 3}, "num_env_runners: 3 CPUs are needed"),
        ({"num_cpus_for_main_process": 3}, "config.num_cpus_for_main_process: 3 CPUs are needed"),
    ],
)
def test_more_than_the_machine_has_is_refused(monkeypatch, settings, message):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    with pytest.raises(ConfigError, match=message):
        cartpole(**settings).validate()


def test_what_the_machine_has_can_be_asked_for_and_shared(monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    cartpole(num_env_runners=2).validate()  # the main process waits while they sample
    cartpole(num_env_runners=4, num_cpus_per_env_runner=0.5).validate()
