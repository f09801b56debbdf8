"""A run that is interrupted and resumed equals one that is not, bit for bit, without remote runners."""

import copy
from typing import Any

import numpy as np
import pytest
from ray.rllib.algorithms.algorithm import Algorithm

from qio_rllib.algorithms import A2CConfig, DQNConfig, MADDPGConfig, PPOConfig
from qio_rllib.artifacts.metrics import progress_row

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_runtime")]

LAW = {"law": "quantum", "alpha_0": 0.1, "alpha_min": 0.01, "decay": 0.5}
TIMES = ("time", "per_s", "throughput", "timestamp")


def ppo(env: str) -> PPOConfig:
    masked = {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 30, "mask_blocked_moves": True}
    config = (
        PPOConfig()
        .environment(env, env_config=masked if env == "forest_uav_v0" else {})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2)
        .evaluation(evaluation_interval=2, evaluation_duration=2)
        .training(train_batch_size_per_learner=80, minibatch_size=30, num_epochs=2, grad_clip=0.5)
        .rl_module(model_config={"fcnet_hiddens": [16]})
        .debugging(seed=3)
    )
    return config.training(amplification={}, entropy_annealing=LAW) if env != "Pendulum-v1" else config


def a2c() -> A2CConfig:
    return (
        A2CConfig()
        .environment("CartPole-v1")
        .reporting(min_sample_timesteps_per_iteration=512)
        .rl_module(model_config={"fcnet_hiddens": [16]})
        .debugging(seed=3)
    )


SPRINT = {"scenario": "sprint", "max_steps": 15}


def ppo_lstm() -> PPOConfig:
    """Episodes of 15 steps, samples of 20: memories are carried over the checkpoint."""
    return (
        PPOConfig()
        .environment("forest_uav_v0", env_config=SPRINT)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2)
        .evaluation(evaluation_interval=2, evaluation_duration=2)
        .training(train_batch_size_per_learner=40, minibatch_size=40, num_epochs=2)
        .rl_module(
            model_config={"fcnet_hiddens": [8], "use_lstm": True, "lstm_cell_size": 8, "max_seq_len": 5}
        )
        .debugging(seed=3)
    )


def maddpg_gru() -> MADDPGConfig:
    return (
        MADDPGConfig()
        .environment("forest_uav_v0", env_config=SPRINT)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2)
        .training(
            train_batch_size_per_learner=8,
            num_steps_sampled_before_learning_starts=40,
            env_steps_per_update=16,
            burn_in=2,
        )
        .reporting(min_sample_timesteps_per_iteration=80)
        .rl_module(model_config={"fcnet_hiddens": [8], "use_gru": True, "gru_cell_size": 8, "max_seq_len": 5})
        .debugging(seed=3)
    )


def a2c_imagination() -> A2CConfig:
    imagined = {
        "horizon": 2,
        "members": 2,
        "model_hiddens": [8],
        "encoder_hiddens": [8],
        "model_batch_size": 16,
    }
    return (
        A2CConfig()
        .environment("forest_uav_v0", env_config=SPRINT)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2, rollout_fragment_length=20)
        .training(train_batch_size_per_learner=40, imagination=imagined)
        .reporting(min_sample_timesteps_per_iteration=80)
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .debugging(seed=3)
    )


def ppo_counterfactual() -> PPOConfig:
    """Draws other actions from the runner's random numbers, in every step."""
    return (
        PPOConfig()
        .environment("swarm_cooperative_v0", env_config={"max_steps": 15, "out_radius": 2.5})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2)
        .training(
            train_batch_size_per_learner=40,
            minibatch_size=40,
            num_epochs=2,
            central_value="state",
            normalize_values=True,
            counterfactual_baseline={"samples": 3},
        )
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .debugging(seed=3)
    )


def dqn() -> DQNConfig:
    return (
        DQNConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2, rollout_fragment_length=8)
        .evaluation(evaluation_interval=2, evaluation_duration=2)
        .training(
            train_batch_size_per_learner=16,
            num_steps_sampled_before_learning_starts=48,
            env_steps_per_update=4,
            n_step=3,
            exploration=[[0, 1.0], [200, 0.1]],
        )
        .reporting(min_sample_timesteps_per_iteration=80)
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .debugging(seed=3)
    )


def self_play(config: Any, env: str = "swarm_competitive_v0", **env_config: Any) -> Any:
    """Against snapshots of which some are dropped while an episode against them runs."""
    return (
        config.environment(env, env_config={"max_steps": 50, **env_config})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=4)
        .training(self_play={"matchmaking": "prioritized", "pool_size": 2, "snapshot_interval": 1})
        .debugging(seed=3)
    )


def ppo_self_play() -> PPOConfig:
    return (
        self_play(PPOConfig(), scenario="duel")
        .training(
            train_batch_size_per_learner=120,
            minibatch_size=60,
            num_epochs=2,
            opponent_model={"hiddens": [4]},
        )
        .rl_module(model_config={"fcnet_hiddens": [8], "use_gru": True, "gru_cell_size": 8, "max_seq_len": 5})
    )


def ppo_talking_self_play() -> PPOConfig:
    return (
        self_play(PPOConfig(), "swarm_mixed_v0")
        .training(
            train_batch_size_per_learner=120,
            minibatch_size=120,
            num_epochs=2,
            communication={"bits": 2, "gate": {}, "drop": 0.2},
        )
        .rl_module(model_config={"fcnet_hiddens": [8], "use_gru": True, "gru_cell_size": 8, "max_seq_len": 5})
    )


def maddpg_self_play() -> MADDPGConfig:
    return (
        self_play(MADDPGConfig(), scenario="duel")
        .training(
            train_batch_size_per_learner=8,
            num_steps_sampled_before_learning_starts=80,
            env_steps_per_update=16,
        )
        .reporting(min_sample_timesteps_per_iteration=120)
        .rl_module(model_config={"fcnet_hiddens": [8]})
    )


CONFIGS = {
    "forest": lambda: ppo("forest_uav_v0"),
    "spread": lambda: ppo("mpe2.simple_spread_v3"),
    "pendulum": lambda: ppo("Pendulum-v1"),
    "a2c": a2c,
    "a2c_imagination": a2c_imagination,
    "ppo_counterfactual": ppo_counterfactual,
    "ppo_lstm": ppo_lstm,
    "maddpg_gru": maddpg_gru,
    "ppo_self_play": ppo_self_play,
    "ppo_talking_self_play": ppo_talking_self_play,
    "maddpg_self_play": maddpg_self_play,
    "dqn": dqn,
}
RECURRENT = ("ppo_lstm", "maddpg_gru", "ppo_self_play", "ppo_talking_self_play")


def numbers(result: dict[str, Any]) -> dict[str, float]:
    row = progress_row(result)
    return {key: value for key, value in row.items() if not any(word in key for word in TIMES)}


def weights(algorithm: Algorithm) -> list[np.ndarray]:
    state = algorithm.learner_group.get_weights()
    return [np.asarray(array) for module in state.values() for array in module.values()]


def memories(algorithm: Algorithm) -> list[np.ndarray]:
    """Return what the agents remember at the end of the last sample."""
    return [array.copy() for memory in algorithm.env_runner.stepper.memory for array in memory.values()]


@pytest.mark.parametrize("name", list(CONFIGS))
def test_a_resumed_run_equals_an_uninterrupted_one(name, tmp_path):
    whole = CONFIGS[name]().build_algo()
    expected = [numbers(whole.train()) for _ in range(4)]
    final = weights(whole)
    whole.stop()

    first = CONFIGS[name]().build_algo()
    before = [numbers(first.train()) for _ in range(2)]
    checkpoint = first.save_to_path(str(tmp_path / "checkpoint"))
    remembered = memories(first)
    first.train()  # what comes after the checkpoint is lost
    first.stop()
    second = Algorithm.from_checkpoint(checkpoint)
    assert bool(remembered) == (name in RECURRENT)
    for ours, theirs in zip(memories(second), remembered, strict=True):
        assert theirs.any()  # the checkpoint lies within an episode
        np.testing.assert_array_equal(ours, theirs)
    after = [numbers(second.train()) for _ in range(2)]
    resumed = weights(second)
    second.stop()

    assert before == expected[:2]
    assert after == expected[2:]
    for ours, theirs in zip(resumed, final, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("name", "way"),
    [("forest", "path"), ("maddpg_gru", "state"), ("maddpg_self_play", "path"), ("ppo_self_play", "state")],
)
def test_an_older_checkpoint_takes_the_place_of_all_that_was_learned_since(name, way, tmp_path):
    algorithm = CONFIGS[name]().build_algo()
    algorithm.train()
    checkpoint, state = (
        algorithm.save_to_path(str(tmp_path / "checkpoint")),
        copy.deepcopy(algorithm.get_state()),
    )
    expected = [numbers(algorithm.train()) for _ in range(2)]
    learned = weights(algorithm)
    for _ in range(2):
        algorithm.train()
    if way == "path":
        algorithm.restore_from_path(checkpoint)
    else:
        algorithm.set_state(state)
    assert [numbers(algorithm.train()) for _ in range(2)] == expected
    for ours, theirs in zip(weights(algorithm), learned, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    learner = algorithm.learner_group.get_weights()
    for module_id, module in algorithm.env_runner.module.get_state().items():
        for key, value in module.items():
            np.testing.assert_array_equal(np.asarray(value), np.asarray(learner[module_id][key]))
    algorithm.stop()
