"""Search spaces inside settings: grids are checked before anything starts, samples when their trial is made."""

import pytest
from ray import tune
from ray.tune.search.variant_generator import generate_variants

from qio_envs.api import ConfigError
from qio_rllib.algorithms import ALGORITHMS
from qio_rllib.algorithms.search_spaces import combinations, grids, holds_search_space, variants
from qio_rllib.experiments.experiment import Experiment, load_experiment

FAST = {"num_env_runners": 0, "train_batch_size_per_learner": 200, "minibatch_size": 100, "num_epochs": 1}
OUTER = {"run": "PPO", "env": "CartPole-v1", "stop": {"training_iteration": 1}}


def cartpole(**config):
    return Experiment.from_mapping({**OUTER, "config": {**FAST, **config}})


def grid(*values):
    return {"grid_search": list(values)}


def test_grids_are_found_at_any_depth_and_combined_in_order():
    settings = {"lr": grid(1, 2), "a": {"b": [0, {"c": grid("x", "y")}]}, "d": 3}
    assert grids(settings) == {("lr",): [1, 2], ("a", "b", 1, "c"): ["x", "y"]}
    found = list(combinations(settings))
    assert [values for values, _ in found] == [
        {("lr",): lr, ("a", "b", 1, "c"): c} for lr in (1, 2) for c in ("x", "y")
    ]
    assert found[1][1] == {"lr": 1, "a": {"b": [0, {"c": "y"}]}, "d": 3}
    assert settings["lr"] == grid(1, 2)


def test_settings_without_a_grid_have_one_combination():
    assert list(combinations({"lr": 1})) == [({}, {"lr": 1})]
    assert not holds_search_space({"lr": [1, {"x": 2}]})
    assert holds_search_space({"lr": [1, {"x": tune.uniform(0, 1)}]})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": {"grid_search": []}}, "lr: grid_search takes a list of at least one value"),
        ({"lr": {"grid_search": 3}}, "lr: grid_search takes a list of at least one value, got 3"),
        ({"a": grid({"b": grid(1)})}, "a: a grid_search cannot stand inside another"),
    ],
)
def test_a_grid_that_is_none_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        grids(settings)


# --- in experiments ----------------------------------------------------------------------------------------------


def test_an_experiment_yields_a_variant_for_every_combination(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(
        "x:\n  run: PPO\n  env: CartPole-v1\n  stop: {training_iteration: 1}\n  config:\n"
        "    lr: {grid_search: [1e-3, 1e-4]}\n    amplification: {eta: {grid_search: [0.1, 0.2]}, tau: 2.0}\n"
    )
    experiment = load_experiment(path, seed=3)
    assert experiment.is_sweep
    variants = list(experiment.variants())
    assert [values for values, _ in variants] == [
        {"lr": lr, "amplification.eta": eta} for lr in (1e-3, 1e-4) for eta in (0.1, 0.2)
    ]
    config = variants[1][1].algorithm_config()
    assert (config.lr, config.seed) == (1e-3, 3)
    assert (config.amplification["eta"], config.amplification["tau"]) == (0.2, 2.0)
    assert not variants[1][1].is_sweep
    assert experiment.validate().lr == 1e-3


def test_an_experiment_without_grids_is_its_own_variant():
    experiment = cartpole(lr=1e-3)
    assert not experiment.is_sweep
    assert list(experiment.variants()) == [({}, experiment)]


def test_an_experiment_with_grids_has_no_single_configuration():
    with pytest.raises(ConfigError, match=r"config.lr: .* take one of the experiment's variants\(\)"):
        cartpole(lr=grid(1e-3, 1e-4)).algorithm_config()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"lr": grid(1e-3, -1)}, r"config.lr: expected a number of at least 0, .* got -1"),
        ({"gamma": grid(0.9, 1.9)}, "config.gamma: expected a number from 0 to 1, got 1.9"),
        ({"amplification": {"eta": grid(0.1, "x")}}, "amplification: eta must be a number"),
        ({"amplification": grid(None, {"etta": 1})}, "amplification: unknown key 'etta'"),
        ({"minibatch_size": grid(100, 999)}, r"minibatch_size.*\(with minibatch_size = 999\)"),
        ({"env_config": {"sutton_barto_reward": grid(True, False), "x": 1}}, "env_config of CartPole-v1"),
        ({"lrr": grid(1e-3)}, r"unknown key 'lrr' \(did you mean 'lr'\?\)"),
    ],
)
def test_every_alternative_of_a_grid_is_checked_before_anything_starts(config, message):
    with pytest.raises(ConfigError, match=message):
        cartpole(**config).validate()


@pytest.mark.parametrize("section", ["run", "env", "stop", "checkpoint_config"])
def test_a_grid_outside_the_config_is_refused(section):
    value = grid("PPO", "A2C")
    given = value if section in ("run", "env") else {"training_iteration": value}
    with pytest.raises(ConfigError, match=f"{section}: .* has no place here; a search stands under config"):
        Experiment.from_mapping({**OUTER, section: given})


# --- in dictionaries and the builder -----------------------------------------------------------------------------


def resolved(space):
    """Return the configurations of the trials that Tune makes of a search space."""
    return [config for _, config in generate_variants(space)]


def test_tune_resolves_spaces_anywhere_in_a_dictionary():
    space = {
        "env": "forest_uav_v0",
        "lr": tune.grid_search([1e-3, 1e-4]),
        "amplification": {"eta": tune.grid_search([0.1, 0.2]), "tau": tune.choice([2.0])},
        "model_config": {"fcnet_hiddens": tune.choice([[8]])},
    }
    configs = [ALGORITHMS["PPO"]().update_from_dict(trial) for trial in resolved(space)]
    assert {(config.lr, config.amplification["eta"]) for config in configs} == {
        (lr, eta) for lr in (1e-3, 1e-4) for eta in (0.1, 0.2)
    }
    assert all(config.amplification["tau"] == 2.0 for config in configs)
    assert all(config.model_config["fcnet_hiddens"] == [8] for config in configs)


def test_a_sample_outside_its_range_is_refused_when_its_trial_is_made():
    (trial,) = resolved({"env": "CartPole-v1", "gamma": tune.choice([1.5])})
    with pytest.raises(ConfigError, match="config.gamma: expected a number from 0 to 1, got 1.5"):
        ALGORITHMS["A2C"]().update_from_dict(trial)


@pytest.mark.parametrize("name", ["PPO", "MADDPG"])
def test_the_builder_takes_spaces_and_the_trials_are_checked(name):
    config = (
        ALGORITHMS[name]()
        .environment("forest_uav_v0")
        .training(
            lr=tune.grid_search([1e-3, 1e-4]),
            amplification={"eta": tune.grid_search([0.1, 0.2]), "tau": tune.choice([2.0])},
        )
    )
    trials = [ALGORITHMS[name]().update_from_dict(trial) for trial in resolved(config.to_dict())]
    assert {(trial.lr, trial.amplification["eta"]) for trial in trials} == {
        (lr, eta) for lr in (1e-3, 1e-4) for eta in (0.1, 0.2)
    }
    assert all(trial.amplification["h_min"] == 0.05 for trial in trials)
    with pytest.raises(ConfigError, match="gamma: expected a number from 0 to 1, got 2"):
        config.training(gamma=tune.grid_search([0.9, 2]))
    with pytest.raises(ConfigError, match="amplification: unknown key 'etta'"):
        config.training(amplification=tune.grid_search([None, {"etta": 1}]))


def test_a_bad_sample_inside_a_setting_of_the_builder_is_refused_with_its_trial():
    config = ALGORITHMS["PPO"]().environment("CartPole-v1")
    config.training(amplification={"h_min": tune.choice([7.0])})
    (trial,) = resolved(config.to_dict())
    with pytest.raises(ConfigError, match="amplification: h_min"):
        ALGORITHMS["PPO"]().update_from_dict(trial)


def test_a_central_value_can_be_searched_for():
    config = ALGORITHMS["PPO"]().environment("forest_uav_v0")
    config.training(central_value=tune.grid_search([None, "observations"]))
    trials = [ALGORITHMS["PPO"]().update_from_dict(trial) for trial in resolved(config.to_dict())]
    assert [trial.central_value for trial in trials] == [None, "observations"]
    assert trials[1].model_config["state_size"] > 0
    for trial in trials:
        trial.validate()


def test_a_critic_can_be_searched_for():
    config = ALGORITHMS["MADDPG"]().environment("swarm_cooperative_v0")
    config.training(critic={"type": tune.grid_search(["mlp", "own"])})
    mlp, own = (ALGORITHMS["MADDPG"]().update_from_dict(trial) for trial in resolved(config.to_dict()))
    assert (mlp.critic, own.critic) == ({"type": "mlp"}, {"type": "own"})
    assert mlp.model_config["state_size"] > 0
    assert "state_size" not in own.model_config


# --- samplers of files -------------------------------------------------------------------------------------------

SAMPLERS = {
    "a": {"uniform": [-2, 3]},
    "b": {"c": [{"loguniform": [1e-5, 1e-1]}]},
    "d": {"randint": [3, 6]},
    "e": {"choice": ["x", [8, 8], None]},
}


def test_draws_lie_in_their_ranges_and_cover_them():
    found = [settings for _, settings in variants(SAMPLERS, 300, 1)]
    a, b, d = (
        [each["a"] for each in found],
        [each["b"]["c"][0] for each in found],
        [each["d"] for each in found],
    )
    assert -2 <= min(a) < -1.8
    assert 2.8 < max(a) <= 3
    assert sum(each < 1e-3 for each in b) == pytest.approx(150, abs=40)  # half of the decades
    assert min(b) >= 1e-5
    assert max(b) <= 1e-1
    assert set(d) == {3, 4, 5}
    assert {str(each["e"]) for each in found} == {"x", "[8, 8]", "None"}
    assert {type(each) for each in a + b} == {float}
    assert {type(each) for each in d} == {int}


def test_draws_are_those_of_the_seed_and_more_of_them_change_none():
    few, many = (list(variants(SAMPLERS, count, 7)) for count in (2, 4))
    assert many[:2] == few
    assert list(variants(SAMPLERS, 2, 8)) != few
    assert few[0] != few[1]


def test_each_draw_is_tried_with_every_combination():
    settings = {"lr": {"uniform": [0, 1]}, "gamma": grid(0.9, 0.99)}
    found = [values for values, _ in variants(settings, 2, 0)]
    assert [values[("gamma",)] for values in found] == [0.9, 0.99] * 2
    assert found[0][("lr",)] == found[1][("lr",)] != found[2][("lr",)]


def test_seeds_get_the_same_draws():
    experiment = cartpole(lr={"uniform": [1e-5, 1e-3]}).with_seeds([4, 5])
    one, two = (values for values, _ in experiment.variants())
    assert one["lr"] == two["lr"]
    assert [one["seed"], two["seed"]] == [4, 5]
    other = next(values for values, _ in cartpole(lr={"uniform": [1e-5, 1e-3]}, seed=9).variants())
    assert other["lr"] != one["lr"]


@pytest.mark.parametrize(
    ("settings", "samples", "message"),
    [
        ({"lr": {"uniform": [1, 0]}}, 1, "lr: uniform takes .lower, upper., two numbers with lower < upper"),
        ({"lr": {"uniform": [0, float("inf")]}}, 1, "lr: uniform takes"),
        ({"lr": {"uniform": 3}}, 1, "lr: uniform takes .* got 3"),
        ({"lr": {"loguniform": [0, 1]}}, 1, "lr: loguniform takes .* two numbers above 0"),
        ({"lr": {"randint": [0, 1.5]}}, 1, "lr: randint takes .* two integers"),
        ({"lr": {"choice": []}}, 1, "lr: choice takes a list of at least one value"),
        ({"lr": {"choice": [{"uniform": [0, 1]}]}}, 1, "lr: a search cannot stand inside a choice"),
        ({"lr": grid({"uniform": [0, 1]})}, 1, "lr: a search cannot stand inside a grid_search"),
        ({"lr": 1}, 2, "num_samples: nothing is drawn"),
        ({"a": grid(*range(101)), "b": {"uniform": [0, 1]}}, 100, "10,100 runs; at most 10,000"),
    ],
)
def test_a_sampler_that_is_none_is_refused(settings, samples, message):
    with pytest.raises(ConfigError, match=message):
        next(variants(settings, samples, 0))
