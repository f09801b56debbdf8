"""The list of complete checkpoints: what it names is whole, whenever the process dies."""

import pytest

from qio_envs.api import ConfigError
from qio_rllib.artifacts import kept_checkpoints
from qio_rllib.artifacts.kept_checkpoints import KeptCheckpoints
from qio_rllib.artifacts.run_directory import RunDirectory


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path)


def written(run, number):
    path = run.trial / f"checkpoint_{number:06d}"
    path.mkdir(parents=True)
    (path / "state").write_text("x")
    return path


def present(run):
    return sorted(int(path.name[-6:]) for path in run.trial.iterdir())


def row(iteration):
    return {"training_iteration": iteration, "evaluation/greedy/team_return": 0.1 + 0.2}


def test_a_list_that_is_read_again_is_the_same(run):
    kept = KeptCheckpoints(run)
    for number in range(3):
        kept.add(written(run, number), row(number + 1))
    again = KeptCheckpoints(run).all
    assert again == kept.all
    assert [one.path.name for one in again] == ["checkpoint_000000", "checkpoint_000001", "checkpoint_000002"]
    assert [one.metrics for one in again] == [row(1), row(2), row(3)]


def test_a_run_that_is_moved_takes_its_list_along(run):
    KeptCheckpoints(run).add(written(run, 0), row(1))
    moved = run.path.rename(run.path.with_name("elsewhere"))
    (kept,) = KeptCheckpoints(RunDirectory(moved)).all
    assert kept.path.joinpath("state").read_text() == "x"


def test_the_newest_stay_and_what_is_not_listed_goes(run):
    kept = KeptCheckpoints(run, keep=2)
    written(run, 7)  # of a process that was killed while it wrote
    for number in (8, 9, 10):
        kept.add(written(run, number), row(number))
    assert present(run) == [9, 10]
    assert [one.metrics["training_iteration"] for one in KeptCheckpoints(run).all] == [9, 10]


def test_nothing_is_removed_before_the_list_is_written(run, monkeypatch):
    kept = KeptCheckpoints(run, keep=1)
    kept.add(written(run, 0), row(1))

    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept_checkpoints, "write_atomically", full)
    newer = written(run, 1)
    with pytest.raises(OSError, match="No space left"):
        kept.add(newer, row(2))
    assert present(run) == [0, 1]
    assert [one.metrics["training_iteration"] for one in KeptCheckpoints(run).all] == [1]


def test_numbers_go_on_behind_directories_that_are_not_listed(run):
    kept = KeptCheckpoints(run)
    assert kept.last_number == -1
    kept.add(written(run, 0), row(1))
    written(run, 3)
    (run.trial / "error.txt").write_text("")
    assert KeptCheckpoints(run).last_number == 3


def test_what_is_newer_can_be_taken_off(run):
    kept = KeptCheckpoints(run)
    for number in range(3):
        kept.add(written(run, number), row(number))
    kept.drop_after(kept.all[1].number)
    assert [one.metrics["training_iteration"] for one in KeptCheckpoints(run).all] == [0, 1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "3",
        "[1]",
        "[" * 100_000,
        '[{"path": "x"}]',
        '[{"path": "x", "metrics": {}}]',
        '[{"path": 1, "metrics": {"training_iteration": 1}}]',
        '[{"path": "x", "metrics": {"training_iteration": "1"}}]',
        '[{"path": "../x", "metrics": {"training_iteration": 1}}]',
        '[{"path": "/x", "metrics": {"training_iteration": 1}}]',
    ],
)
def test_a_damaged_list_is_refused(run, text):
    run.checkpoints_file.write_text(text)
    with pytest.raises(ConfigError, match="checkpoints.json: damaged"):
        KeptCheckpoints(run)
