import datetime
import signal
import subprocess
import sys

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


def test_a_run_that_is_being_made_has_no_name_yet(tmp_path):
    seen = []

    def prepare(run):
        run.update_info(status="running")
        seen.extend(path.name for path in (tmp_path / "forest").glob("[!.]*"))

    run = RunDirectory.create(tmp_path, "forest", NOW, prepare)
    assert seen == []
    assert run.info() == {"status": "running"}
    assert [path.name for path in (tmp_path / "forest").iterdir()] == [run.path.name]


def test_a_run_that_cannot_be_prepared_leaves_nothing(tmp_path):
    def prepare(run):
        run.update_info(status="running")
        raise OSError(28, "No space left on device")

    with pytest.raises(
        ConfigError, match="--out: cannot make a run directory in .*: No space left on device"
    ):
        RunDirectory.create(tmp_path, "forest", NOW, prepare)
    assert list((tmp_path / "forest").iterdir()) == []


def test_one_process_writes_and_its_death_frees_the_run(tmp_path):
    code = (
        "import sys, time; from qio_rllib.artifacts.run_directory import RunDirectory\n"
        "with RunDirectory(sys.argv[1]).lock(): print('locked', flush=True); time.sleep(3600)"
    )
    run = RunDirectory.create(tmp_path, "forest")
    with subprocess.Popen([sys.executable, "-c", code, str(run.path)], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(ConfigError, match="another process is training this run"), run.lock():
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
    for _ in range(2):
        with run.lock():
            pass


def test_what_cannot_be_written_to_cannot_be_locked(tmp_path):
    (tmp_path / "file").write_text("")
    run = RunDirectory(tmp_path / "file")
    with pytest.raises(ConfigError, match="file: cannot be written to"), run.lock():
        pass


def test_room_on_the_disk_is_kept_and_given_back(tmp_path):
    run = RunDirectory.create(tmp_path, "forest")
    run.reserve_space()
    (kept,) = run.path.iterdir()
    assert kept.stat().st_blocks * 512 >= 2**17
    run.release_space()
    run.release_space()
    assert list(run.path.iterdir()) == []
    with pytest.raises(ConfigError, match="cannot be written to .No such file"):
        RunDirectory(tmp_path / "nowhere").reserve_space()
