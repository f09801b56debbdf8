"""What settings meet that come as a dictionary: numbers of NumPy, classes, Tune's own keys, outputs."""

import gymnasium
import numpy as np
import pytest
from ray import tune
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ways_of_settings import (
    content,
    from_yaml,
)

from qio_envs.api import ConfigError
from qio_rllib.algorithms import LOCAL_ALGORITHMS


def test_numbers_of_numpy_are_numbers():
    given = {"env": "CartPole-v1", "lr": np.float64(1e-3), "num_epochs": np.int64(3)}
    config = LOCAL_ALGORITHMS["PPO"]().update_from_dict(given)
    assert (config.lr, config.num_epochs) == (1e-3, 3)
    assert type(config.num_epochs) is int


def test_tunes_own_keys_are_left_alone():
    given = {"env": "CartPole-v1", "__trial_info__": object(), "__stdout_file__": None}
    assert content(LOCAL_ALGORITHMS["A2C"]().update_from_dict(given)) == content(
        LOCAL_ALGORITHMS["A2C"]().environment("CartPole-v1")
    )


def test_classes_can_stand_in_a_dictionary_but_not_in_a_file():
    runner = LOCAL_ALGORITHMS["PPO"]().env_runner_cls
    config = LOCAL_ALGORITHMS["PPO"]().update_from_dict({"env": "CartPole-v1", "env_runner_cls": runner})
    assert config.env_runner_cls is runner
    with pytest.raises(ConfigError, match="config.env_runner_cls: takes a Python object"):
        from_yaml("PPO", "CartPole-v1", {}, env_runner_cls=runner)


def test_a_class_can_be_the_environment():
    config = LOCAL_ALGORITHMS["PPO"]().update_from_dict({"env": gymnasium.Env, "amplification": {}})
    assert config.env is gymnasium.Env
    assert config.amplification is not None


def test_an_environment_that_only_tune_knows_is_left_to_rllib():
    tune.register_env("known_to_tune_alone", lambda env_config: gymnasium.make("CartPole-v1"))
    config = LOCAL_ALGORITHMS["PPO"]().update_from_dict({"env": "known_to_tune_alone", "lr": 1e-3})
    config.validate()
    assert (config.env, config.is_multi_agent) == ("known_to_tune_alone", False)


def test_evaluation_and_modules_take_their_own_settings():
    config = LOCAL_ALGORITHMS["PPO"]().update_from_dict(
        {
            "env": "forest_uav_v0",
            "num_env_runners": 0,
            "evaluation_interval": 1,
            "evaluation_config": {"explore": False, "env_config": {"scenario": "sprint"}},
            "algorithm_config_overrides_per_module": {"shared": AlgorithmConfig.overrides(lr=0.5)},
        }
    )
    evaluation = config.get_evaluation_config_object()
    assert (config.explore, evaluation.explore) == (True, False)
    assert evaluation.env_config == {"scenario": "sprint"}
    assert config.get_config_for_module("shared").lr == 0.5
    config.evaluation_config = {"explor": False}
    with pytest.raises(ConfigError, match="unknown key 'explor'"):
        config.get_evaluation_config_object()


def test_a_changed_environment_in_an_output_is_set_up_anew():
    output = LOCAL_ALGORITHMS["MADDPG"]().environment("CartPole-v1").to_dict()
    config = LOCAL_ALGORITHMS["MADDPG"]().update_from_dict({**output, "env": "swarm_cooperative_v0"})
    assert config.is_multi_agent
    assert config.model_config["state_size"] > 0
