"""After ``import qio_rllib`` Tune knows algorithms and environments by name, whatever was imported first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ray import tune
from ray.rllib.algorithms.ppo import PPOConfig as RLlibPPOConfig
from ray.tune.registry import ENV_CREATOR, _global_registry, get_trainable_cls
from ray.tune.search.variant_generator import generate_variants

import qio_envs
from qio_envs.api import ConfigError
from qio_rllib.algorithms import ALGORITHMS
from qio_rllib.registration import ALGORITHM_NAMES

ROOT = Path(__file__).parents[2]


def run(code, *arguments):
    """Run Python code in a process of its own; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


TRAIN = """
import ray, sys
from qio_rllib.experiments.experiment import Experiment
Experiment("PPO", "CartPole-v1", {"training_iteration": 1}).algorithm_config()  # leaves Tune's own files switched on
ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
analysis = tune.run(
    "A2C",
    config={
        "env": "forest_uav_v0",
        "num_env_runners": 0,
        "min_sample_timesteps_per_iteration": 0,
        "amplification": {"eta": 0.2},
    },
    stop={"training_iteration": 1},
    storage_path=sys.argv[1],
    verbose=0,
)
(trial,) = analysis.trials
print("trained", trial.last_result["training_iteration"], list(trial.last_result["learners"]))
"""


@pytest.mark.ray
@pytest.mark.long  # the README does it with PPO
@pytest.mark.parametrize(
    "imports",
    [
        "import qio_rllib, sys; assert 'ray' not in sys.modules; from ray import tune",
        "from ray import tune; import qio_rllib",
    ],
)
def test_tune_trains_an_algorithm_by_name_in_a_new_process(imports, tmp_path):
    printed = run(imports + TRAIN, str(tmp_path))
    (line,) = [line for line in printed.splitlines() if line.startswith("trained")]
    assert line.startswith("trained 1 ")
    assert "'shared'" in line


def test_names_that_tune_has_taken_from_rllib_become_ours():
    printed = run(
        "from ray.tune.registry import get_trainable_cls\n"
        "before = get_trainable_cls('PPO')\n"
        "import qio_rllib\n"
        "print(before.__module__, *[get_trainable_cls(name).__module__ for name in ('PPO', 'A2C', 'DQN')])"
    )
    assert printed.split() == [
        "ray.rllib.algorithms.ppo.ppo",
        "qio_rllib.algorithms.ppo",
        "qio_rllib.algorithms.a2c",
        "qio_rllib.algorithms.dqn",
    ]


def test_loading_tune_does_not_load_the_algorithms():
    printed = run(
        "import qio_rllib, sys; assert 'ray' not in sys.modules; from ray import tune\n"
        "import ray.rllib.algorithms.registry\n"
        "print('qio_rllib.algorithms' in sys.modules)\n"
        "from ray.tune.registry import get_trainable_cls\n"
        "print(*[get_trainable_cls(name).__module__ for name in ('A2C', 'PPO')])"
    )
    assert printed.split() == ["False", "qio_rllib.algorithms.a2c", "qio_rllib.algorithms.ppo"]


def test_rllibs_other_algorithms_keep_their_names():
    assert get_trainable_cls("SAC").__module__ == "ray.rllib.algorithms.sac.sac"


def test_every_algorithm_is_known():
    assert set(ALGORITHM_NAMES) == set(ALGORITHMS)
    for name, config_class in ALGORITHMS.items():
        assert get_trainable_cls(name) is config_class().algo_class
        assert config_class().algo_class.__name__ == name
        assert type(config_class().algo_class.get_default_config()) is config_class


@pytest.mark.parametrize("env_id", list(qio_envs.environments()))
def test_every_environment_is_known(env_id):
    env = _global_registry.get(ENV_CREATOR, env_id)({})
    env.reset(seed=0)
    env.close()


@pytest.mark.ray
def test_rllibs_own_ppo_trains_in_an_environment_of_ours(ray_runtime):
    config = RLlibPPOConfig().environment("qubit_control_v0").env_runners(num_env_runners=0)
    config.multi_agent(policies={"agent"}, policy_mapping_fn=lambda agent_id, episode, **kwargs: "agent")
    algorithm = config.training(train_batch_size_per_learner=64, minibatch_size=64, num_epochs=1).build_algo()
    try:
        assert algorithm.train()["env_runners"]["num_env_steps_sampled_lifetime"] == 64
    finally:
        algorithm.stop()


# --- one real run of every algorithm ------------------------------------------------------------------------------

TINY = {"num_env_runners": 0, "min_sample_timesteps_per_iteration": 0, "model_config": {"fcnet_hiddens": [8]}}
OFF_POLICY = {
    "num_steps_sampled_before_learning_starts": 0,
    "train_batch_size_per_learner": 32,
    "num_envs_per_env_runner": 4,
}
RUNS = {
    "PPO": {
        "env": "forest_uav_v0",
        "train_batch_size_per_learner": 128,
        "minibatch_size": 64,
        "num_epochs": 1,
        "amplification": {"eta": 0.2},
        "entropy_annealing": {"law": "quantum"},
        "central_value": "observations",
        "normalize_values": True,
        "agent_id": True,
        "lr": tune.grid_search([1e-3]),
    },
    "A2C": {"env": "qubit_control_v0", "circuit": {"num_qubits": 2, "num_layers": 1}},
    "COMA": {
        "env": "forest_uav_v0",
        "normalize_values": True,
        "critic": {"hiddens": [8]},
        "lambda_": tune.grid_search([0.5]),
    },
    "DQN": {"env": "forest_uav_v0", "policies": "independent", "n_step": tune.choice([2]), **OFF_POLICY},
    "MAAC": {"env": "forest_uav_v0", "policies": "independent", "critic": {"hiddens": [8]}, **OFF_POLICY},
    "MADDPG": {
        "env": "swarm_cooperative_v0",
        "communication": {"bandwidth": 1},
        "critic": {"type": "attention", "hiddens": [8], "heads": 2},
        **OFF_POLICY,
    },
    "MASAC": {"env": "swarm_cooperative_v0", "critic": {"type": "own"}, "agent_id": True, **OFF_POLICY},
    "QMIX": {"env": "forest_uav_v0", "n_step": 2, "mixer": {"embedding": tune.choice([4])}, **OFF_POLICY},
    "VDN": {"env": "forest_uav_v0", "policies": "independent", **OFF_POLICY},
    "Federated": {
        "env": "forest_uav_v0",
        "clients": [{"count": 3}],
        "local": {
            "run": "A2C",
            "rollout_fragment_length": 8,
            "train_batch_size_per_learner": 16,
            **{key: value for key, value in TINY.items() if key != "num_env_runners"},
        },
        "num_hosts": 1,
        "compression": {"type": tune.grid_search(["int8"])},
    },
    "WorldModel": {
        "env": "swarm_cooperative_v0",
        "world_model": {"members": 2, "hiddens": [8]},
        "planner": {"horizon": 2, "candidates": 4, "elites": 2, "iterations": 1},
        "agent_id": True,
        **OFF_POLICY,
    },
}


def check_settings(algorithm, name, given):
    """Compare what an algorithm has with what a dictionary of settings says."""
    wanted = ALGORITHMS[name]().update_from_dict(given)
    own = algorithm.federation if name == "Federated" else algorithm.config
    assert type(own) is ALGORITHMS[name]
    if name == "Federated":
        wanted = wanted.local_config()
    assert algorithm.config.model_config == wanted.model_config
    assert algorithm.config.learner_config_dict == wanted.learner_config_dict
    assert set(algorithm.config.policies) == set(wanted.policies)
    assert algorithm.config.lr == wanted.lr


@pytest.mark.ray
@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name != "Federated"])
def test_every_algorithm_trains_from_a_plain_dictionary(name, tmp_path, ray_runtime):
    """As Tune's trial makes it and goes on with it, in this process."""
    ((_, given),) = generate_variants({**TINY, **RUNS[name]})
    algorithm = get_trainable_cls(name)(config=given)
    assert algorithm.train()["training_iteration"] == 1
    path = algorithm.save_to_path(str(tmp_path / "checkpoint"))
    algorithm.stop()
    restored = ALGORITHMS[name]().algo_class.from_checkpoint(path)
    check_settings(restored, name, given)
    restored.stop()


# Through Tune PPO always, the others among the long tests.
@pytest.mark.ray
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "PPO" else [pytest.mark.long]) for name in ALGORITHMS]
)
def test_tune_trains_every_algorithm_from_a_plain_dictionary(name, tmp_path, ray_runtime):
    analysis = tune.run(
        name,
        config=RUNS[name] if name == "Federated" else {**TINY, **RUNS[name]},
        stop={"training_iteration": 1},
        storage_path=str(tmp_path),
        checkpoint_at_end=True,
        verbose=0,
    )
    (trial,) = analysis.trials
    assert trial.last_result["training_iteration"] == 1
    algorithm = ALGORITHMS[name]().algo_class.from_checkpoint(trial.checkpoint.path)
    try:
        check_settings(algorithm, name, trial.config)
    finally:
        algorithm.stop()


@pytest.mark.ray
@pytest.mark.parametrize("name", ALGORITHMS)
def test_tune_refuses_a_misspelt_key_before_it_starts(name, tmp_path, ray_runtime):
    misspelt = {**TINY, **RUNS[name], "gama": 0.9}
    if name == "Federated":
        misspelt = {**RUNS[name], "local": {**RUNS[name]["local"], "gama": 0.9}}
    with pytest.raises(ConfigError, match=r"unknown key 'gama' \(did you mean 'gamma'\?\)"):
        tune.run(
            name,
            config=misspelt,
            stop={"training_iteration": 1},
            storage_path=str(tmp_path),
            verbose=0,
        )
