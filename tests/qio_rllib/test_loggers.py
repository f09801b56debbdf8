"""Trackers: wandb itself, offline; fakes of the packages that cannot be installed beside the others."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ray.tune.logger import LoggerCallback
from toy_experiments import CARTPOLE

from qio_envs.api import ConfigError
from qio_rllib.artifacts.yaml_files import yaml_text
from qio_rllib.experiments.experiment import Experiment
from qio_rllib.experiments.loggers import LOGGERS, check_installed, logger_callbacks

ROOT = Path(__file__).parents[2]

# What Ray's callbacks call of mlflow and aim, each call a line of JSON in the file FAKE_LOG.
RECORD = """
import json, os
def record(package, call, **values):
    with open(os.environ["FAKE_LOG"], "a") as file:
        file.write(json.dumps({"package": package, "call": call, **values}, default=str) + "\\n")
"""
MLFLOW = """
from types import SimpleNamespace
from fake_record import record
__version__ = "3.0.0"
def set_tracking_uri(uri): record("mlflow", "uri", uri=uri)
def get_tracking_uri(): return None
def set_registry_uri(uri): pass
def get_run(run_id): return run_id
def active_run(): return None
def get_registry_uri(): return None
def get_experiment_by_name(name): return None
def create_experiment(name, artifact_location=None): record("mlflow", "experiment", name=name); return "7"
"""
MLFLOW_TRACKING = """
from types import SimpleNamespace
from fake_record import record
class MlflowClient:
    def __init__(self, **uris): pass
    def create_run(self, experiment_id, tags=None, run_name=None):
        record("mlflow", "run", experiment=experiment_id, tags=tags)
        return SimpleNamespace(info=SimpleNamespace(run_id="r"))
    def log_param(self, run_id, key, value): record("mlflow", "param", key=key)
    def log_metric(self, run_id, key, value, step): record("mlflow", "metric", key=key, value=value, step=step)
    def set_terminated(self, run_id, status): record("mlflow", "end", status=status)
"""
AIM = """
from fake_record import record
class Repo: pass
class Run:
    def __init__(self, repo, experiment): record("aim", "run", repo=repo, experiment=experiment)
    def __setitem__(self, key, value): pass
    def track(self, value, name, epoch, step, context): record("aim", "metric", key=name, value=value, step=step)
    def close(self): record("aim", "end")
"""
FILES = {
    "fake_record.py": RECORD,
    "mlflow/__init__.py": MLFLOW,
    "mlflow/tracking.py": MLFLOW_TRACKING,
    "mlflow/exceptions.py": "class MlflowException(Exception): pass\n",
    "mlflow/utils/__init__.py": "",
    "mlflow/utils/mlflow_tags.py": "MLFLOW_RUN_NAME = 'mlflow.runName'\n",
    "aim/__init__.py": "",
    "aim/sdk.py": AIM,
}


@pytest.mark.ray
@pytest.mark.long
def test_a_run_tells_all_three_trackers_of_every_iteration_and_keeps_it_in_its_directory(tmp_path):
    for name, text in FILES.items():
        (tmp_path / "fakes" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fakes" / name).write_text(text)
    (tmp_path / "tracked.yaml").write_text(yaml_text({"tracked": {**CARTPOLE, "loggers": list(LOGGERS)}}))
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "MLFLOW_"))}
    env = {
        **plain,
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "fakes"), str(ROOT)]),
        "FAKE_LOG": str(tmp_path / "calls"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "qio_rllib.cli", "train", "--config", "tracked.yaml"],
        cwd=tmp_path, capture_output=True, text=True, env=env, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs/tracked").iterdir()
    calls = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]

    def of(package, call):
        return [one for one in calls if (one["package"], one["call"]) == (package, call)]

    assert of("mlflow", "uri")[0]["uri"] == f"sqlite:///{run}/mlflow.db"
    assert of("mlflow", "experiment")[0]["name"] == "tracked"
    assert of("mlflow", "run")[0]["tags"]["run_directory"] == str(run)
    assert [(one["repo"], one["experiment"]) for one in of("aim", "run")] == [(str(run), "tracked")]
    for package in ("mlflow", "aim"):
        steps = [one["step"] for one in of(package, "metric") if one["key"].endswith("episode_return_mean")]
        assert sorted(set(steps)) == [1, 2]
        assert of(package, "end")
    (offline,) = (run / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"episode_return_mean" in offline.read_bytes()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["wandbb"],
            r"loggers: unknown logger 'wandbb' \(did you mean 'wandb'\?\); allowed: wandb, mlflow, aim",
        ),
        (["wandb", "wandb"], "loggers: 'wandb' stands there twice"),
        ("wandb", "loggers: expected a list of wandb, mlflow, aim, got 'wandb'"),
        ([{"wandb": 1}], "loggers: unknown logger"),
    ],
)
def test_what_is_no_list_of_loggers_is_named(given, message):
    with pytest.raises(ConfigError, match=message):
        Experiment.from_mapping({**CARTPOLE, "loggers": given})


def test_a_missing_package_is_named_before_anything_starts(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match="loggers: mlflow is not installed; install it with: pip install mlflow"
    ):
        Experiment.from_mapping({**CARTPOLE, "loggers": ["mlflow"]}).validate()
    check_installed(())


def test_the_trackers_own_variables_come_first(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_PROJECT", "elsewhere")
    _, callback = logger_callbacks(("wandb",), "forest", tmp_path)
    assert callback.project == "elsewhere"
    assert (callback.group, callback.kwargs["mode"], callback.kwargs["dir"]) == (
        "forest",
        "disabled",
        str(tmp_path),
    )


def test_a_trial_that_ends_without_tunes_word_is_ended_for_the_trackers(monkeypatch):
    """Ray's callback for wandb would wait half an hour for a trial that nobody has ended."""

    class Tracker(LoggerCallback):
        def __init__(self, ended, broken=False):
            self.ended, self.broken = ended, broken

        def log_trial_end(self, trial, failed=False):
            if self.broken:
                raise KeyError(trial)
            self.ended.append((trial, failed))

    for tells, expected in ((False, [("trial", True)]), (True, [])):
        ended = []
        made = {"aim": lambda *_: Tracker([], broken=True), "wandb": lambda *_, ended=ended: Tracker(ended)}
        monkeypatch.setattr("qio_rllib.experiments.loggers.LOGGERS", made)
        first, *_ = logger_callbacks(("aim", "wandb"), "x", Path())
        if tells:
            first.on_trial_complete(1, ["trial"], "trial")
        first.on_experiment_end(["trial"])
        assert ended == expected


def test_an_experiment_keeps_its_loggers():
    experiment = Experiment.from_mapping({**CARTPOLE, "loggers": ["wandb"]})
    assert Experiment.from_mapping(experiment.as_dict()).loggers == ("wandb",)
    assert "loggers" not in Experiment.from_mapping(CARTPOLE).as_dict()
