"""Short experiments for tests, with a network of eight units."""

from qio_rllib.experiments.experiment import Experiment

FAST = {
    "num_env_runners": 0,
    "train_batch_size_per_learner": 200,
    "minibatch_size": 100,
    "num_epochs": 1,
    "model_config": {"fcnet_hiddens": [8]},
}
CARTPOLE = {"run": "PPO", "env": "CartPole-v1", "stop": {"training_iteration": 2}, "config": FAST}
FOREST = {
    "run": "PPO",
    "env": "forest_uav_v0",
    "stop": {"training_iteration": 2},
    "config": {**FAST, "env_config": {"scenario": "sprint", "num_uavs": 4}},
}


def cartpole(**config):
    return Experiment.from_mapping({**CARTPOLE, "config": {**FAST, **config}})


def forest(**config):
    return Experiment.from_mapping({**FOREST, "config": {**FOREST["config"], **config}})
