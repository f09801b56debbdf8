import datetime

import pytest

from qio_envs.api import ConfigError
from qio_rllib.artifacts.run_directory import RunDirectory

NOW = datetime.datetime(2030, 1, 2, 3, 4, 5)


def test_a_new_run_never_takes_the_directory_of_another(tmp_path):
    paths = [RunDirectory.create(tmp_path, "forest", NOW).path for _ in range(3)]
    assert [path.name for path in paths] == [
        "2030-01-02_03-04-05",
        "2030-01-02_03-04-05_2",
        "2030-01-02_03-04-05_3",
    ]
    assert all(path.parent.name == "forest" for path in paths)


def test_a_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--out: cannot make a run directory in .*file"):
        RunDirectory.create(tmp_path / "file", "forest")


def test_an_opened_run_is_the_one_that_was_written(tmp_path):
    run = RunDirectory.create(tmp_path, "forest")
    run.write_config({"forest": {"run": "PPO", "config": {"lr": 3e-5}}})
    run.update_info(status="running", seed=3)
    run.update_info(status="finished")
    opened = RunDirectory.open(run.path)
    assert opened.config() == {"forest": {"run": "PPO", "config": {"lr": 3e-5}}}
    assert opened.info() == {"status": "finished", "seed": 3}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: run.info_file.unlink(), "run.json is missing"),
        (lambda run: run.config_file.unlink(), "config.yaml is missing"),
        (lambda run: run.info_file.write_text('{"status": "fin'), "run.json: damaged"),
        (lambda run: run.info_file.write_text("{}"), "run.json: damaged .no status"),
        (lambda run: run.config_file.write_text("a: [1"), "config.yaml, line 1: not valid YAML"),
    ],
)
def test_a_damaged_run_is_refused(tmp_path, damage, message):
    run = RunDirectory.create(tmp_path, "forest")
    run.write_config({"forest": {}})
    run.update_info(status="running")
    damage(run)
    with pytest.raises(ConfigError, match=message):
        RunDirectory.open(run.path)


def test_a_missing_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="nowhere: no such run directory"):
        RunDirectory.open(tmp_path / "nowhere")
