"""Tune's schedulers on our algorithms: trials are stopped, paused, cloned and changed, and nothing else changes."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import tune
from ray.rllib.algorithms.algorithm import Algorithm
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining

from qio_rllib.algorithms import A2CConfig, MADDPGConfig, PPOConfig
from qio_rllib.experiments.resources import quiet_ray

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_runtime")]

STEPS = 64


class Diary:
    """RLlib callbacks that write down weights, learning rates and steps, one file per configured learning rate."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __call__(self, *, algorithm: Algorithm, result: dict[str, Any] | None = None, **kwargs: Any) -> None:
        entry = {
            "what": "restored" if result is None else "trained",
            "iteration": algorithm.iteration if result is None else result["training_iteration"],
            "weights": digest(algorithm),
            "lr": rates(algorithm),
            "steps": algorithm.metrics.peek(("env_runners", "num_env_steps_sampled_lifetime"), default=0),
        }
        with open(f"{self.folder}/{algorithm.config.lr}.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def digest(algorithm: Algorithm) -> str:
    state = algorithm.learner_group.get_weights()
    arrays = [state[module][name] for module in sorted(state) for name in sorted(state[module])]
    return hashlib.sha256(b"".join(np.asarray(array).tobytes() for array in arrays)).hexdigest()


def rates(algorithm: Algorithm) -> list[float]:
    learner = algorithm.learner_group._learner
    return [
        float(group["lr"])
        for optimizer in learner._named_optimizers.values()
        for group in optimizer.param_groups
    ]


def diaries(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        file.stem: [json.loads(line) for line in file.read_text().splitlines()]
        for file in folder.glob("*.jsonl")
    }


def a2c(lr: Any, diary: Diary | None = None) -> A2CConfig:
    config = (
        A2CConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=4, rollout_fragment_length=4)
        .training(lr=lr, train_batch_size_per_learner=16)
        .reporting(min_sample_timesteps_per_iteration=STEPS)
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .debugging(seed=2)
    )
    if diary is not None:
        config.callbacks(on_train_result=diary, on_checkpoint_loaded=diary)
    return config


def fit(config: Any, scheduler: Any, folder: Path, iterations: int, at_once: int) -> tune.ResultGrid:
    with quiet_ray():
        return tune.Tuner(
            config.algo_class,
            param_space=config,
            tune_config=tune.TuneConfig(scheduler=scheduler, max_concurrent_trials=at_once),
            run_config=tune.RunConfig(
                storage_path=str(folder), stop={"training_iteration": iterations}, verbose=0
            ),
        ).fit()


@pytest.mark.long
def test_asha_stops_the_worse_trials(tmp_path):
    best, *worse = 3e-3, 2e-3, 1e-3
    scheduler = ASHAScheduler(metric="config/lr", mode="max", grace_period=1, max_t=4, reduction_factor=2)
    results = fit(a2c(tune.grid_search([best, *worse])), scheduler, tmp_path, iterations=9, at_once=1)
    assert not results.errors
    reached = {result.config["lr"]: result.metrics["training_iteration"] for result in results}
    assert reached == {best: 4, worse[0]: 1, worse[1]: 1}


@pytest.mark.long
def test_pbt_clones_weights_and_mutates_settings_that_are_in_force(tmp_path):
    scheduler = PopulationBasedTraining(
        metric="config/lr",  # a score that is known beforehand: the trial of the larger rate is the donor
        mode="max",
        time_attr="training_iteration",
        perturbation_interval=2,
        hyperparam_mutations={"lr": tune.uniform(1e-6, 1.0)},
        resample_probability=0.0,
        custom_explore_fn=lambda config: {**config, "lr": 5e-3},
        quantile_fraction=0.5,
        synch=True,
    )
    notes = tmp_path / "notes"
    notes.mkdir()
    results = fit(
        a2c(tune.grid_search([1e-2, 1e-5]), Diary(notes)), scheduler, tmp_path, iterations=4, at_once=2
    )
    assert not results.errors
    diary = diaries(notes)
    assert {lr: [entry["what"] for entry in entries] for lr, entries in diary.items()} == {
        "0.01": ["trained", "trained", "restored", "trained", "trained"],
        "1e-05": ["trained", "trained"],
        "0.005": ["restored", "trained", "trained"],
    }
    donor = {entry["iteration"]: entry for entry in diary["0.01"] if entry["what"] == "trained"}
    cloned, *after = diary["0.005"]
    assert cloned["weights"] == donor[2]["weights"] != diary["1e-05"][1]["weights"]
    assert cloned["lr"] == [5e-3]  # before the first update, in which RLlib would still use the donor's
    assert after[0]["weights"] != donor[3]["weights"]
    for entries in (donor.values(), [*diary["1e-05"], *after]):
        assert [entry["steps"] for entry in entries] == [STEPS * i for i in (1, 2, 3, 4)]

    # The donor was paused and restarted in another process: it went on as one that never was.
    alone = a2c(1e-2).build_algo()
    for iteration in (1, 2, 3, 4):
        alone.train()
        assert digest(alone) == donor[iteration]["weights"]
    alone.stop()


def ppo(eta: float, lr: Any) -> PPOConfig:
    return (
        PPOConfig()
        .environment("forest_uav_v0", env_config={"scenario": "sprint", "max_steps": 20})
        .env_runners(num_env_runners=0)
        .training(train_batch_size_per_learner=40, minibatch_size=40, num_epochs=1, lr=lr)
        .training(amplification={"eta": eta})
        .rl_module(model_config={"fcnet_hiddens": [8]})
    )


def maddpg(eta: float, lr: Any) -> MADDPGConfig:
    return (
        MADDPGConfig()
        .environment("forest_uav_v0", env_config={"scenario": "sprint", "max_steps": 20})
        .env_runners(num_env_runners=0)
        .training(actor_lr=lr, critic_lr=lr, amplification={"eta": eta})
        .rl_module(model_config={"fcnet_hiddens": [8]})
    )


def etas(algorithm: Algorithm) -> set[float]:
    """Return eta as it is in the Learner's networks and in the runner's."""
    learner = algorithm.learner_group._learner
    modules = [*(module for _, module in learner.module.items())]
    modules += [module for _, module in algorithm.env_runner.module.items()]
    found = {
        round(float(buffer), 6)
        for module in modules
        for name, buffer in module.named_buffers()
        if name.endswith("eta")
    }
    assert found
    return found


@pytest.mark.parametrize("make", [ppo, maddpg])
def test_a_checkpoint_that_is_continued_with_other_settings_takes_them(make, tmp_path):
    before = make(0.1, 1e-3).build_algo()
    path = before.save_to_path(str(tmp_path / "checkpoint"))
    expected = digest_without_eta(before)
    before.stop()
    after = make(0.4, 1e-4).build_algo()
    after.restore_from_path(path)
    assert digest_without_eta(after) == expected
    assert etas(after) == {0.4}
    assert set(rates(after)) == {1e-4}
    after.stop()


def digest_without_eta(algorithm: Algorithm) -> str:
    state = algorithm.learner_group.get_weights()
    arrays = [
        state[module][name] for module in sorted(state) for name in sorted(state[module]) if "eta" not in name
    ]
    return hashlib.sha256(b"".join(np.asarray(array).tobytes() for array in arrays)).hexdigest()


def test_operators_that_a_callback_moved_stay_where_the_settings_are_the_same(tmp_path):
    before = ppo(0.1, 1e-3).build_algo()
    before.learner_group._learner.module["shared"].policy.eta.fill_(0.25)
    path = before.save_to_path(str(tmp_path / "checkpoint"))
    before.stop()
    after = ppo(0.1, 1e-3).build_algo()
    after.restore_from_path(path)
    assert float(after.learner_group._learner.module["shared"].policy.eta) == pytest.approx(0.25)
    after.stop()


def test_a_scheduled_learning_rate_goes_on_where_it_was(tmp_path):
    schedule = [[0, 1e-2], [800, 1e-4]]
    whole = ppo(0.1, schedule).build_algo()
    for _ in range(3):
        whole.train()
    path = whole.save_to_path(str(tmp_path / "checkpoint"))
    expected = rates(whole)
    assert expected != [1e-2]
    whole.stop()
    again = ppo(0.1, schedule).build_algo()
    again.restore_from_path(path)
    assert rates(again) == expected
    again.stop()
