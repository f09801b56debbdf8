"""Population-based training by an experiment's ``scheduler``: what is refused, what it changes, and a run of it."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from qio_envs.api import ConfigError
from qio_rllib.algorithms import algorithm_config_class
from qio_rllib.artifacts.files import read_csv
from qio_rllib.artifacts.progress_file import ProgressFile
from qio_rllib.artifacts.run_directory import RunDirectory
from qio_rllib.artifacts.yaml_files import yaml_text
from qio_rllib.cli import main
from qio_rllib.experiments.experiment import Experiment
from qio_rllib.experiments.population_scheduler import PopulationScheduler
from qio_rllib.experiments.population_settings import CHANGEABLE, PopulationSettings

LR = {"loguniform": [1e-4, 1e-2]}
SCHEDULER = {
    "type": "pbt",
    "perturbation_interval": 1,
    "quantile_fraction": 0.5,
    "hyperparam_mutations": {"lr": LR},
}
SETTINGS = {
    "num_env_runners": 0,
    "num_envs_per_env_runner": 4,
    "train_batch_size_per_learner": 80,
    "minibatch_size": 40,
    "num_epochs": 1,
    "evaluation_duration": 1,
    "env_config": {"game": "matching_pennies", "rounds": 10},
    "self_play": {"snapshot_interval": 1},
    "model_config": {"fcnet_hiddens": [4]},
}
PENNIES = {
    "run": "PPO",
    "env": "matrix_game_v0",
    "stop": {"training_iteration": 3},
    "num_samples": 2,
    "scheduler": SCHEDULER,
    "config": SETTINGS,
}


def changed(scheduler=None, config=None, **values):
    """Return the experiment with other values."""
    return {
        **PENNIES,
        "scheduler": {**SCHEDULER, **(scheduler or {})},
        "config": {**SETTINGS, **(config or {})},
        **values,
    }


def mutations(**samplers):
    return {"hyperparam_mutations": samplers}


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (changed({"type": "asha"}), "scheduler.type: expected pbt, got 'asha'"),
        (changed({"kind": 1}), "scheduler: unknown key 'kind'"),
        (
            {**PENNIES, "scheduler": "pbt"},
            "scheduler: expected a mapping such as {type: pbt, ...}, got 'pbt'",
        ),
        (
            changed({"perturbation_interval": 0}),
            "scheduler.perturbation_interval: expected an integer of at least 1, got 0",
        ),
        (
            changed({"perturbation_interval": 3}),
            "scheduler.perturbation_interval: expected fewer than the 3 iterations of a run",
        ),
        (
            changed({"quantile_fraction": 0.6}),
            "scheduler.quantile_fraction: expected a number above 0 and at most 0.5, got 0.6",
        ),
        (changed({"mode": "best"}), "scheduler.mode: expected max or min, got 'best'"),
        (
            changed({"metric": "env_runners/episode_retrn_mean"}),
            "scheduler.metric: env_runners/episode_retrn_mean: unknown metric",
        ),
        (
            changed({"metric": "evaluation/greedy/episode_return"}),
            "scheduler.metric: evaluation/greedy/episode_return: there is no evaluation; set config.",
        ),
        (
            changed(
                {"metric": "evaluation/greedy/episode_return"},
                {"evaluation_interval": 2},
            ),
            "scheduler.perturbation_interval: expected a multiple of evaluation_interval (2)",
        ),
        (changed(mutations()), "scheduler.hyperparam_mutations: expected a sampler by setting"),
        (changed(mutations(lr=0.1)), "scheduler.hyperparam_mutations: expected a sampler by setting"),
        (
            changed(mutations(lr={"loguniform": [0, 1]})),
            "scheduler.hyperparam_mutations.lr: loguniform takes [lower, upper]",
        ),
        (
            changed(mutations(lrr=LR)),
            "scheduler.hyperparam_mutations.lrr: is no setting of PPO that can change in a run (did you mean 'lr'?)",
        ),
        (
            changed(mutations(train_batch_size_per_learner={"choice": [80, 160]})),
            "scheduler.hyperparam_mutations.train_batch_size_per_learner: is no setting of PPO that can change in a run"
            "; allowed: lr, gamma",
        ),
        (changed(mutations(gamma={"uniform": [0.9, 1.0001]})), "config.gamma: expected a number from 0 to 1"),
        (
            changed(mutations(minibatch_size={"choice": [20, 500]})),
            "config.minibatch_size",
        ),
        (changed(config={"lr": 1e-3}), "config.lr: the scheduler draws it; leave it out here or there"),
        (changed(num_samples=1), "num_samples: a population has at least 2 members, got 1"),
        (
            changed(config={"gamma": {"grid_search": [0.9, 1.0]}}),
            "scheduler: a population has one seed and no other search",
        ),
        (changed(run="DQN"), "scheduler: pbt changes settings of PPO, A2C, MADDPG, got DQN"),
        (
            changed(checkpoint_config={"num_to_keep": 1}),
            "checkpoint_config.num_to_keep: runs of a population go on from each other's checkpoints; leave it out",
        ),
        (changed(storage="file:///tmp/copy"), "storage: a population has no copy; leave it out"),
    ],
)
def test_bad_input_is_one_line(values, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(yaml_text({"x": values}))
    assert main(["train", "--config", "x.yaml"]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"rllib: {message}")
    assert err.count("\n") == 1
    assert out == ""
    assert not Path("runs").exists()


def test_seeds_are_refused_and_a_dry_run_shows_the_first_values(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(yaml_text({"x": PENNIES}))
    assert main(["train", "--config", "x.yaml", "--seeds", "0-1"]) == 2
    assert "--seeds: a population has one seed" in capsys.readouterr().err
    assert main(["train", "--config", "x.yaml", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "# 1 of 2: scheduler" not in printed
    assert "# 1 of 2: lr = " in printed
    Path("y.yaml").write_text(printed)
    assert main(["train", "--config", "y.yaml", "--dry-run"]) == 0
    assert capsys.readouterr().out == printed


def test_members_have_seeds_that_count_up_and_values_of_their_own():
    experiment = Experiment.from_mapping(changed(num_samples=3)).with_seed(5)
    found = [variant for _, variant in experiment.variants()]
    assert [variant.seed for variant in found] == [5, 6, 7]
    rates = [variant.config["lr"] for variant in found]
    assert len(set(rates)) == 3
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert not any(variant.is_sweep for variant in found)


@pytest.mark.parametrize("algorithm", CHANGEABLE)
def test_what_may_change_are_settings_of_the_algorithm(algorithm):
    settings = algorithm_config_class(algorithm).settings()
    for key in CHANGEABLE[algorithm]:
        assert settings.find(key).setter == "training"


# -- what it changes ----------------------------------------------------------------------------------------------


def explored(seed, count=200):
    """Return values that follow each other when a run goes on again and again."""
    settings = PopulationSettings.of(
        {
            **SCHEDULER,
            **mutations(
                lr=LR,
                lambda_={"uniform": [0.8, 1.0]},
                num_epochs={"randint": [1, 5]},
                clip_param={"choice": [0.1, 0.2, 0.4]},
            ),
        }
    )
    scheduler = PopulationScheduler(settings, seed)
    config = {"lr": 1e-3, "lambda": 0.9, "num_epochs": 3, "clip_param": 0.2, "gamma": 0.5}
    found = []
    for _ in range(count):
        with scheduler._own_numbers():
            config, _ = scheduler._get_new_config(None, SimpleNamespace(config=config))
        found.append(config)
    return settings, found


def test_values_stay_within_their_ranges_and_of_their_types():
    settings, found = explored(3)
    assert {config["gamma"] for config in found} == {0.5}
    assert {config["num_epochs"] for config in found} == {1, 2, 3, 4}
    assert {config["clip_param"] for config in found} == {0.1, 0.2, 0.4}
    for key, (low, high) in {"lr": (1e-4, 1e-2), "lambda": (0.8, 1.0)}.items():
        values = [config[key] for config in found]
        assert all(type(value) is float and low <= value <= high for value in values)
        assert {low, high} <= set(values)  # steps that lead out end at the bounds
        ratios = [later / earlier for earlier, later in itertools.pairwise(values)]
        assert any(ratio == pytest.approx(1.2) for ratio in ratios)
        assert any(ratio == pytest.approx(0.8) for ratio in ratios)
    assert settings.values_of(found[-1]).keys() == {"lr", "lambda_", "num_epochs", "clip_param"}
    json.dumps(settings.values_of(found[-1]))  # a file can hold them


def test_what_is_drawn_follows_from_the_seed_and_leaves_other_random_numbers_alone():
    import random

    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = random.random(), np.random.rand()  # noqa: NPY002
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    first = explored(3, 20)[1]
    assert (random.random(), np.random.rand()) == expected  # noqa: NPY002
    assert explored(3, 20)[1] == first
    assert explored(4, 20)[1] != first


# -- a population -------------------------------------------------------------------------------------------------


@pytest.mark.ray
@pytest.mark.long
def test_a_population_learns_from_its_best(tmp_path, monkeypatch, capsys, ray_runtime):
    monkeypatch.chdir(tmp_path)
    experiment = changed({"resample_probability": 0.0}, stop={"training_iteration": 2})
    Path("x.yaml").write_text(yaml_text({"x": experiment}))
    assert main(["train", "--config", "x.yaml", "--seed", "3", "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["run"] for event in events if event["event"] == "result"] == [1, 2]
    exploits = [event for event in events if event["event"] == "exploit"]
    (file,) = Path("runs/x").glob("sweep_*.csv")
    history = read_csv(file)
    assert [row["training_iteration"] for row in history] == [0, 0, 1]
    assert [row["lr"] for row in exploits] == [row["lr"] for row in history[2:]]
    runs = {}
    for folder in sorted(path for path in Path("runs/x").iterdir() if path.is_dir()):
        run = RunDirectory.open(folder)
        runs[run.info()["sweep"]["run"]] = run
    present = {row["run"]: row["lr"] for row in history[:2]}
    for row in history[2:]:
        assert {row["run"], row["from"]} == {1, 2}
        steps = [np.clip(present[row["from"]] * factor, 1e-4, 1e-2) for factor in (0.8, 1.2)]
        assert row["lr"] in [pytest.approx(step) for step in steps]
        present[row["run"]] = row["lr"]
    for number, run in runs.items():
        assert run.info()["status"] == "finished"
        assert run.config()["x"]["config"]["lr"] == present[number]
        rows = ProgressFile(run.progress_file).rows
        assert [row["training_iteration"] for row in rows] == [1, 2]
        assert [row["num_env_steps_sampled_lifetime"] for row in rows] == [80, 160]
        assert (run.path / run.info()["checkpoint"]).parent == run.trial
        assert [row["self_play/pool"] for row in rows] == [2, 3]  # snapshots go along
        rates = [value for key, value in rows[-1].items() if key.endswith("learning_rate")]
        assert rates == [pytest.approx(present[number])]
        assert (run.path / "policy.pt").exists()


def test_an_interval_without_an_end_is_allowed():
    stop = {"env_runners/episode_return_mean": 1.0}
    Experiment.from_mapping(changed({"perturbation_interval": 100}, stop=stop)).validate()


def test_other_sections_hold_no_search():
    with pytest.raises(ConfigError, match="stop: .* has no place here"):
        Experiment.from_mapping(changed(stop={"training_iteration": {"choice": [1, 2]}}))
