"""Copies of runs in other storage: whole at every moment, what a resumed run goes on from, and what is refused."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest
from toy_experiments import CARTPOLE

from qio_envs.api import ConfigError
from qio_rllib.artifacts.files import read_csv
from qio_rllib.artifacts.kept_checkpoints import KeptCheckpoints
from qio_rllib.artifacts.remote_copy import RemoteCopy, download, open_storage
from qio_rllib.artifacts.run_directory import RunDirectory
from qio_rllib.artifacts.yaml_files import yaml_text
from qio_rllib.cli import main
from qio_rllib.experiments.experiment import Experiment

ROOT = Path(__file__).parents[2]


def run_with(tmp_path, *numbers, keep=None):
    """Return a run directory by hand, with checkpoints of one file each."""
    directory = RunDirectory(tmp_path / "walk/now")
    directory.trial.mkdir(parents=True, exist_ok=True)
    if not directory.info_file.exists():
        directory.write_config({"walk": {}})
        directory.update_info(status="running")
        (directory.path / ".lock").write_text("")
    kept = KeptCheckpoints(directory, keep)
    for number in numbers:
        path = directory.trial / f"checkpoint_{number:06}"
        (path / "inner").mkdir(parents=True)
        (path / "inner/weights").write_bytes(bytes([number]) * 1000)
        kept.add(path, {"training_iteration": number})
    (directory.trial / "params.pkl").write_bytes(b"Tune's own")
    (directory.path / "progress.csv").write_text("training_iteration\n" + "".join(f"{n}\n" for n in numbers))
    return directory


def memory_files(root):
    storage = fsspec.filesystem("memory")
    return (
        {name.removeprefix(root).lstrip("/") for name in storage.find(root)}
        if storage.exists(root)
        else set()
    )


@pytest.fixture
def bucket():
    """Return the URI of an empty folder in fsspec's memory, a file system with a scheme of its own."""
    fsspec.filesystem("memory").store.clear()
    return "memory://bucket/runs"


def test_a_copy_follows_and_comes_back(tmp_path, bucket):
    directory = run_with(tmp_path, 1, 2)
    copy = RemoteCopy(directory, bucket, "walk")
    assert copy.uri == f"{bucket}/walk/now"
    copy.update()
    checkpoint = "checkpoints/trial/checkpoint_00000{}/inner/weights"
    common = {"config.yaml", "run.json", "checkpoints.json", "progress.csv"}
    assert memory_files("/bucket/runs/walk/now") == common | {checkpoint.format(1), checkpoint.format(2)}
    run_with(tmp_path, 3, keep=2)
    copy.update()
    assert memory_files("/bucket/runs/walk/now") == common | {checkpoint.format(2), checkpoint.format(3)}
    back = RunDirectory.open(download(copy.uri, tmp_path / "elsewhere"))
    assert back.path == tmp_path / "elsewhere/walk/now"
    kept = KeptCheckpoints(back).all
    assert [one.metrics["training_iteration"] for one in kept] == [2, 3]
    assert (kept[-1].path / "inner/weights").read_bytes() == bytes([3]) * 1000
    assert (back.path / "progress.csv").read_text() == (directory.path / "progress.csv").read_text()


def test_whatever_write_fails_the_copy_names_only_what_is_whole_in_it(tmp_path, bucket, monkeypatch):
    """The connection dies at every write in turn; what can be downloaded then has all checkpoints that it lists."""
    directory = run_with(tmp_path, 1, 2)
    RemoteCopy(directory, bucket, "walk").update()
    run_with(tmp_path, 3, 4, keep=2)
    put, left, lists = RemoteCopy._put, 0, []

    def failing(self, file):
        nonlocal left
        if left == 0:
            raise OSError("connection reset")
        left -= 1
        put(self, file)

    monkeypatch.setattr(RemoteCopy, "_put", failing)
    for allowed in range(10):
        left = allowed
        copy = RemoteCopy(directory, bucket, "walk")
        with contextlib.suppress(OSError):
            copy.update()
        back = RunDirectory(download(copy.uri, tmp_path / f"back{allowed}"))
        kept = KeptCheckpoints(back).all
        lists.append([one.metrics["training_iteration"] for one in kept])
        for one in kept:
            assert (one.path / "inner/weights").read_bytes() == bytes(
                [one.metrics["training_iteration"]]
            ) * 1000
    assert lists[0] == [1, 2]
    assert lists[-1] == [3, 4]


def test_what_is_there_already_is_not_sent_again(tmp_path, bucket, monkeypatch):
    copy = RemoteCopy(run_with(tmp_path, 1), bucket, "walk")
    copy.update()
    sent, put = [], RemoteCopy._put
    monkeypatch.setattr(RemoteCopy, "_put", lambda self, file: (sent.append(file.name), put(self, file)))
    copy.update()
    assert sent == []
    (tmp_path / "walk/now/progress.csv").write_text("longer than it was before\n")
    copy.update()
    assert sent == ["progress.csv"]


def test_a_download_refuses_what_is_no_run_or_is_here(tmp_path, bucket):
    with pytest.raises(ConfigError, match="--resume: there is no run in memory://bucket/runs/walk/now"):
        download(f"{bucket}/walk/now", tmp_path)
    copy = RemoteCopy(run_with(tmp_path, 1), bucket, "walk")
    copy.update()
    with pytest.raises(ConfigError, match="now is here already; resume that, or move it away"):
        download(copy.uri, tmp_path)
    assert sorted(path.name for path in (tmp_path / "walk").iterdir()) == ["now"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("runs", "storage: expected a URI such as s3://bucket/runs"),
        (3, "storage: expected a URI"),
        ("nowhere://x", "storage: nowhere://x cannot be used"),
    ],
)
def test_what_is_no_storage_is_named(given, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Experiment.from_mapping({**CARTPOLE, "storage": given}).validate()
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError):
        open_storage(given)


def test_out_is_local(capsys):
    assert main(["train", "--config", "x.yaml", "--out", "s3://bucket/runs"]) == 2
    line = capsys.readouterr().err
    assert line.startswith(
        "rllib: --out: a run directory is local, got s3:/bucket/runs; a copy elsewhere is kept with"
    )


@pytest.mark.long
@pytest.mark.ray
def test_a_run_whose_machine_is_lost_goes_on_from_its_copy(tmp_path):
    """The run directory is gone, the copy is not: the rest equals what the run itself would have done."""
    experiment = {
        **CARTPOLE,
        "stop": {"training_iteration": 2},
        "checkpoint_config": {"checkpoint_frequency": 1},
    }
    uri = f"file://{tmp_path}/bucket"
    (tmp_path / "walk.yaml").write_text(yaml_text({"walk": {**experiment, "storage": uri}}))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}

    def rllib(*arguments, machine):
        (tmp_path / machine).mkdir(exist_ok=True)
        return subprocess.run(
            [sys.executable, "-m", "qio_rllib.cli", *arguments],
            cwd=tmp_path / machine, capture_output=True, text=True, env=env,
        )  # fmt: skip

    first = rllib("train", "--config", "../walk.yaml", machine="first")
    assert first.returncode == 0, first.stderr
    (copy,) = (tmp_path / "bucket/walk").iterdir()
    assert f"copy          {uri}/walk/{copy.name}\n" in first.stdout
    assert json.loads((copy / "run.json").read_text())["status"] == "finished"
    assert (copy / "policy.pt").is_file()
    second = rllib(
        "train", "--resume", f"{uri}/walk/{copy.name}", "--set", "stop.training_iteration=3", machine="second"
    )
    assert second.returncode == 0, second.stderr
    assert "Ray's checkpoints are pickles" in second.stderr
    third = rllib(
        "train", "--resume", f"runs/walk/{copy.name}", "--set", "stop.training_iteration=3", machine="first"
    )
    assert third.returncode == 0, third.stderr
    rows = [
        read_csv(tmp_path / machine / "runs/walk" / copy.name / "progress.csv")
        for machine in ("first", "second")
    ]
    assert [row["training_iteration"] for row in rows[0]] == [1, 2, 3]
    timeless = [
        [
            {key: value for key, value in row.items() if "time" not in key and "_per_s" not in key}
            for row in each
        ]
        for each in rows
    ]
    assert timeless[0] == timeless[1]
