import csv
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qio_envs.api import ConfigError
from qio_rllib.artifacts.progress_file import ProgressFile


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_new_columns_widen_the_table_and_leave_older_rows_empty(tmp_path):
    progress = ProgressFile(tmp_path / "progress.csv")
    progress.append({"training_iteration": 1, "env_runners/coverage": 0.5})
    progress.append({"training_iteration": 2, "env_runners/coverage": 0.6, "evaluation/greedy/coverage": 0.9})
    progress.append({"training_iteration": 3})
    assert rows_of(progress.path) == [
        {"training_iteration": "1", "env_runners/coverage": "0.5", "evaluation/greedy/coverage": ""},
        {"training_iteration": "2", "env_runners/coverage": "0.6", "evaluation/greedy/coverage": "0.9"},
        {"training_iteration": "3", "env_runners/coverage": "", "evaluation/greedy/coverage": ""},
    ]


def test_values_that_are_not_finite_are_left_empty(tmp_path):
    progress = ProgressFile(tmp_path / "progress.csv")
    progress.append({"training_iteration": 1, "a": math.nan, "b": math.inf, "c": 1.0})
    assert rows_of(progress.path) == [{"training_iteration": "1", "c": "1.0"}]


@settings(deadline=None)
@given(
    restarts=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6)), min_size=1, max_size=5),
    evaluated=st.sets(st.integers(1, 30)),
)
def test_restarts_neither_repeat_nor_lose_rows(tmp_path_factory, restarts, evaluated):
    path = tmp_path_factory.mktemp("run") / "progress.csv"
    last, generation = 0, {}
    for count, (back, ahead) in enumerate(restarts):
        progress = ProgressFile(path)
        first = max(1, last + 1 - back)
        for iteration in range(first, first + ahead):
            row = {"training_iteration": iteration, "start": count}
            if iteration in evaluated:
                row[f"evaluation/greedy/{count}"] = 1.0
            progress.append(row)
            generation[iteration] = count
        last = first + ahead - 1
    found = [(int(row["training_iteration"]), int(row["start"])) for row in rows_of(path)]
    assert found == [(iteration, generation[iteration]) for iteration in range(1, last + 1)]


def test_a_reopened_table_holds_the_same_numbers_and_types(tmp_path):
    row = {"training_iteration": 1, "num_env_steps_sampled_lifetime": 4000, "learners/a/loss": 0.1 + 0.2}
    ProgressFile(tmp_path / "progress.csv").append(row)
    (again,) = ProgressFile(tmp_path / "progress.csv").rows
    assert again == row
    assert [type(value) for value in again.values()] == [int, int, float]


def test_wherever_a_line_is_cut_off_it_does_not_count(tmp_path):
    """Also behind its last comma, or within a number, where it still has all columns."""
    progress = ProgressFile(tmp_path / "progress.csv")
    for iteration in (1, 2):
        progress.append({"training_iteration": iteration, "num_env_steps_sampled_lifetime": 1000, "x": 0.125})
    whole = progress.path.read_text()
    last = whole.splitlines(keepends=True)[-1]
    for cut in range(1, len(last)):
        progress.path.write_text(whole[:-cut])
        again = ProgressFile(progress.path)
        assert [row["training_iteration"] for row in again.rows] == [1], cut
        again.append({"training_iteration": 2, "num_env_steps_sampled_lifetime": 1000, "x": 0.125})
        assert progress.path.read_text() == whole, cut


@pytest.mark.parametrize("text", ["", "training_iter"])
def test_a_header_that_was_cut_off_is_no_table(tmp_path, text):
    path = tmp_path / "progress.csv"
    path.write_text(text)
    progress = ProgressFile(path)
    assert progress.rows == []
    progress.append({"training_iteration": 1})
    assert rows_of(path) == [{"training_iteration": "1"}]


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n",
        "training_iteration,x\n1,hello\n",
        "training_iteration\n1,2\n3\n",
        "training_iteration\n1,2\n",
    ],
)
def test_a_table_of_something_else_is_refused(tmp_path, text):
    path = tmp_path / "progress.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match="progress.csv: damaged table"):
        ProgressFile(path)
    assert path.read_text() == text
