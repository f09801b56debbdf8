"""Experiments as they run: recording, failures, interruption, Tune by itself."""

import os
import signal
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import ray
from ray import tune
from toy_experiments import CARTPOLE, cartpole, forest

from qio_envs.api import ConfigError
from qio_rllib.artifacts.files import read_csv
from qio_rllib.artifacts.progress_file import ProgressFile
from qio_rllib.artifacts.run_directory import RunDirectory
from qio_rllib.experiments.experiment import Experiment, load_experiment
from qio_rllib.experiments.failures import TrainingFailed, TrainingInterrupted
from qio_rllib.experiments.recorder import RunRecorder
from qio_rllib.experiments.timed_turns import ray_for
from qio_rllib.experiments.training import resume, train
from qio_rllib.experiments.tuning import ray_runtime


@pytest.mark.parametrize("start", [ray_runtime, ray_for])
def test_a_run_joins_the_ray_that_it_is_told_of_and_no_other(monkeypatch, start):
    """Without an address Ray joins any cluster that was started on the machine, or refuses, where a size is given."""
    started = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(
        ray, "init", lambda **options: started.append(options) or SimpleNamespace(address_info={})
    )
    config = cartpole().algorithm_config()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with start(config):
        pass
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with start(config):
        pass
    assert [options.get("address") for options in started] == ["local", None]
    assert ["num_cpus" in options for options in started] == [True, False]


def test_the_recorder_gives_the_speed_and_survives_a_restart(tmp_path):
    def result(iteration):
        steps = 100.0 * iteration
        return {
            "training_iteration": iteration,
            "num_env_steps_sampled_lifetime": steps,
            "time_this_iter_s": 2.0,
        }

    run = RunDirectory(tmp_path)
    told = []
    for iterations in ((1, 2, 3), (3, 4)):  # the checkpoint was at iteration 2
        recorder = RunRecorder(run, told.append)
        for iteration in iterations:
            recorder.on_trial_result(0, [], None, result(iteration))
        recorder.close()
    rows = ProgressFile(run.progress_file).rows
    assert [row["training_iteration"] for row in rows] == [1, 2, 3, 4]
    assert [row["env_steps_per_s"] for row in rows] == [50.0] * 4
    assert [row["training_iteration"] for row in told] == [1, 2, 3, 3, 4]
    assert len(list(run.tensorboard.iterdir())) == 2


def test_what_was_logged_of_pretraining_is_a_table_of_its_own(tmp_path):
    run = RunDirectory(tmp_path)
    recorder = RunRecorder(run)
    result = {"training_iteration": 1, "num_env_steps_sampled_lifetime": 100}
    recorder.on_trial_result(0, [], None, result)
    assert not run.pretraining_file.exists()
    parts = [{"learners": {"m": {"model_loss": 5.0 - i, "updates_lifetime": 32 * i}}} for i in (1, 2)]
    recorder.on_trial_result(0, [], None, result | {"training_iteration": 2, "pretraining": parts})
    recorder.on_trial_result(0, [], None, result | {"training_iteration": 3})
    recorder.close()
    assert read_csv(run.pretraining_file) == [
        {"learners/m/model_loss": 5.0 - i, "learners/m/updates_lifetime": 32 * i} for i in (1, 2)
    ]
    assert set(read_csv(run.progress_file)[1]) == {"training_iteration", "num_env_steps_sampled_lifetime"}


class Broken(gymnasium.Env):
    """Raises in its 150th step."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps == 250:
            raise RuntimeError("the motor is broken")
        return np.zeros(2, np.float32), 1.0, self.steps % 10 == 0, False, {}


@pytest.mark.ray
def test_a_failing_environment_ends_the_run_with_its_cause(tmp_path, ray_runtime):
    experiment = Experiment.from_mapping(
        {**CARTPOLE, "env": "test_experiment_runs:Broken", "stop": {"training_iteration": 9}}
    )
    with pytest.raises(
        TrainingFailed, match="training failed in iteration 2: .*RuntimeError: the motor is broken"
    ) as caught:
        train(experiment, tmp_path)
    assert "\n" not in str(caught.value)
    run = RunDirectory(caught.value.run_dir)
    assert run.info()["status"] == "failed"
    assert "the motor is broken" in run.error_file.read_text()
    assert [row["training_iteration"] for row in ProgressFile(run.progress_file).rows] == [1]
    assert run.path.joinpath("learning_curve.png").exists()


def test_a_run_that_cannot_begin_leaves_no_directory(tmp_path):
    with pytest.raises(ConfigError):
        train(cartpole(lr="x"), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ray
def test_an_interrupted_run_goes_on_from_its_last_checkpoint(tmp_path, ray_runtime):
    experiment = Experiment.from_mapping(
        {**CARTPOLE, "stop": {"training_iteration": 50}, "checkpoint_config": {"checkpoint_frequency": 2}}
    )
    told = []

    def interrupt_in_the_third(row):
        told.append(row["training_iteration"])
        if row["training_iteration"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(TrainingInterrupted, match="rllib train --resume") as caught:
        train(experiment, tmp_path, interrupt_in_the_third)
    run = RunDirectory.open(caught.value.run_dir)
    assert run.info()["status"] == "interrupted"
    assert told == [1, 2, 3]

    with pytest.raises(ConfigError, match="only stop.<metric> may change"):
        resume(run.path, ["lr=1"])
    moved = tmp_path / "elsewhere"
    run.path.rename(moved)
    result = resume(moved, ["stop.training_iteration=4"], lambda row: told.append(row["training_iteration"]))
    assert told == [1, 2, 3, 4]  # iteration 3 has got a checkpoint
    rows = ProgressFile(result.run_dir / "progress.csv").rows
    assert [row["training_iteration"] for row in rows] == [1, 2, 3, 4]
    assert [row["num_env_steps_sampled_lifetime"] for row in rows] == [200, 400, 600, 800]
    run = RunDirectory.open(moved)
    assert run.info()["status"] == "finished"
    assert len(run.info()["resumed_at"]) == 1
    assert load_experiment(run.config_file).stop == {"training_iteration": 4}

    with pytest.raises(ConfigError, match="nothing to do, the run is finished .training_iteration = 4 of 4"):
        resume(moved)
    # Killed behind its last iteration: what is left to do is done, and no row is added.
    run.update_info(status="running")
    result = resume(moved, report=lambda row: told.append(row["training_iteration"]))
    assert told == [1, 2, 3, 4]
    assert run.info()["status"] == "finished"
    assert len(ProgressFile(run.progress_file).rows) == 4

    (result.checkpoint / "learner_group" / "learner" / "state.pkl").write_bytes(b"")  # no policy needs it
    result = resume(moved, ["stop.training_iteration=5"], lambda row: told.append(row["training_iteration"]))
    assert told == [1, 2, 3, 4, 4, 5]  # from the checkpoint before
    assert any("checkpoint_000002: checkpoint: " in note for note in result.notes)
    rows = ProgressFile(run.progress_file).rows
    assert [row["num_env_steps_sampled_lifetime"] for row in rows] == [200, 400, 600, 800, 1000]

    damaged = set(moved.glob("checkpoints/trial/*/class_and_ctor_args.pkl"))
    for file in damaged:
        file.write_bytes(b"")
    before = {path: path.stat().st_mtime_ns for path in moved.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="checkpoint: .* is damaged"):
        resume(moved, ["stop.training_iteration=6"])
    assert {path: path.stat().st_mtime_ns for path in moved.rglob("*") if path.is_file()} == before


@pytest.mark.ray
@pytest.mark.long
def test_tune_runs_an_experiments_config_by_itself(tmp_path, ray_runtime):
    experiment = forest(
        amplification={"eta": 0.3, "h_min": 0.1}, entropy_annealing={"law": "quantum", "alpha_0": 0.02}
    )
    results = tune.run(
        "PPO",
        config=experiment.algorithm_config(),
        stop={"training_iteration": 1},
        storage_path=str(tmp_path),
        verbose=0,
    )
    learner = results.trials[0].last_result["learners"]["shared"]
    assert 0.1 <= learner["normalized_entropy"] <= 1
    assert 0 < learner["alpha"] < 0.02
