"""Small federations for tests."""

from qio_rllib.algorithms import FederatedConfig
from qio_rllib.artifacts.metrics import progress_row

FOREST = {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 12}
POLE, SWARM = {"max_steps": 30}, {"max_steps": 20}
ON_POLICY = {
    "num_envs_per_env_runner": 4,
    "train_batch_size_per_learner": 48,
    "min_sample_timesteps_per_iteration": 48,
    "model_config": {"fcnet_hiddens": [8]},
}
OFF_POLICY = {
    "num_envs_per_env_runner": 4,
    "rollout_fragment_length": 8,
    "train_batch_size_per_learner": 16,
    "num_steps_sampled_before_learning_starts": 32,
    "env_steps_per_update": 8,
    "min_sample_timesteps_per_iteration": 64,
    "replay_capacity": 400,
    "model_config": {"fcnet_hiddens": [8]},
}
LOCAL = {
    "PPO": (
        "forest_uav_v0",
        FOREST,
        {**ON_POLICY, "num_epochs": 2, "minibatch_size": 48, "amplification": {}},
    ),
    "A2C": ("cart_pole_v0", POLE, ON_POLICY),
    "COMA": (
        "forest_uav_v0",
        FOREST,
        {**ON_POLICY, "rollout_fragment_length": 12},
    ),
    "MAAC": ("forest_uav_v0", FOREST, OFF_POLICY),
    "MADDPG": ("swarm_cooperative_v0", SWARM, OFF_POLICY),
    "DQN": ("cart_pole_v0", POLE, OFF_POLICY),
    "MASAC": ("swarm_cooperative_v0", SWARM, OFF_POLICY),
    "QMIX": ("forest_uav_v0", FOREST, {**OFF_POLICY, "mixer": {"embedding": 4, "hypernet_hiddens": []}}),
    "VDN": ("forest_uav_v0", FOREST, OFF_POLICY),
    "WorldModel": (
        "drift_control_v0",
        {"max_steps": 20},
        {
            **{key: value for key, value in OFF_POLICY.items() if key != "model_config"},
            "pretraining_updates": 0,
            "world_model": {"hiddens": [8]},
            "planner": {"candidates": 8, "horizon": 2, "iterations": 1},
        },
    ),
}
UNEQUAL = [{"label": "small"}, {"label": "wide", "env_config": {"width": 9, "num_uavs": 2}}]
"""Clients whose environments differ."""


def federation(run="PPO", local=None, clients=3, seed=0, evaluation=2, **settings):
    """Return a federation of equal clients (or of those that are given) around an algorithm."""
    env, env_config, chosen = LOCAL[run]
    config = FederatedConfig().environment(env, env_config=env_config).debugging(seed=seed)
    config.evaluation(evaluation_duration=evaluation)
    if isinstance(clients, int):
        clients = [{"count": clients, "label": "client"}]
    return config.training(local={"run": run, **chosen, **(local or {})}, clients=clients, **settings)


def trained(config, rounds=1):
    algorithm = config.build_algo()
    results = [progress_row(algorithm.train()) for _ in range(rounds)]
    return algorithm, results
