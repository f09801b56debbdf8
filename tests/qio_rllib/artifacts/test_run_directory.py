import csv
import datetime
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qio_envs.api import ConfigError
from qio_rllib.artifacts.files import read_csv, write_csv
from qio_rllib.artifacts.metrics import flatten, progress_row, score_column
from qio_rllib.artifacts.progress_file import ProgressFile
from qio_rllib.artifacts.run_directory import RunDirectory
from qio_rllib.artifacts.yaml_files import read_yaml, yaml_text

NOW = datetime.datetime(2030, 1, 2, 3, 4, 5)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def result(iteration, **more):
    return {
        "training_iteration": iteration,
        "num_env_steps_sampled_lifetime": 100.0 * iteration,
        "time_this_iter_s": 0.5,
        **more,
    }


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


def test_a_line_cut_off_by_a_kill_is_dropped(tmp_path):
    progress = ProgressFile(tmp_path / "progress.csv")
    for iteration in (1, 2):
        progress.append(
            {"training_iteration": iteration, "num_env_steps_sampled_lifetime": 10 * iteration, "x": 1}
        )
    text = progress.path.read_text()
    progress.path.write_text(text + "3")
    again = ProgressFile(progress.path)
    again.append({"training_iteration": 3, "num_env_steps_sampled_lifetime": 30, "x": 1})
    assert [row["training_iteration"] for row in rows_of(progress.path)] == ["1", "2", "3"]
    assert rows_of(progress.path)[2]["x"] == "1"


@pytest.mark.parametrize(
    "text", ["a,b\n1,2\n", "training_iteration,x\n1,hello\n", "training_iteration\n1,2\n3\n"]
)
def test_a_table_of_something_else_is_refused(tmp_path, text):
    path = tmp_path / "progress.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match="progress.csv: damaged table"):
        ProgressFile(path)
    assert path.read_text() == text


def test_flatten_keeps_numbers_only():
    values = {
        "a": {"b": 1, "c": np.float32(0.5), "d": np.int64(3)},
        "e": "text",
        "f": True,
        "g": [1],
        "h": None,
    }
    flat = flatten({**values, "i": np.array(2.5), "j": np.bool_(True)})
    assert flat == {"a/b": 1, "a/c": 0.5, "a/d": 3, "i": 2.5}
    assert all(type(value) in (int, float) for value in flat.values())


@pytest.mark.parametrize("returns", [{"shared": 3.0}, {"chasers": 3.0, "prey": -2.0}])
def test_returns_by_module_are_told_where_there_are_several(returns):
    row = progress_row(result(1, env_runners={"module_episode_returns_mean": returns}))
    expected = returns if len(returns) > 1 else {}
    assert {
        key.rpartition("/")[2]: value for key, value in row.items() if "module_episode" in key
    } == expected


def test_a_row_holds_results_and_no_bookkeeping():
    row = progress_row(
        result(
            3,
            config={"lr": 1.0},
            pid=7,
            timers={"x": 1.0},
            env_runners={
                "team_return": np.float64(5.0),
                "num_episodes_lifetime": 4.0,
                "sample": 3.0,
                "agent_steps": {"a": 1.0},
                "connector_pipeline_timer": 1.0,
                "episode_return_mean": math.nan,
            },
            learners={"shared": {"alpha": 0.1, "weights_seq_no": 2.0}},
            evaluation={"greedy": {"team_return": 9.0}, "num_healthy_workers": 0},
        ),
        previous_steps=200,
    )
    assert row == {
        "training_iteration": 3,
        "num_env_steps_sampled_lifetime": 300,
        "time_this_iter_s": 0.5,
        "env_steps_per_s": 200.0,
        "env_runners/num_episodes_lifetime": 4,
        "env_runners/team_return": 5.0,
        "evaluation/greedy/team_return": 9.0,
        "learners/shared/alpha": 0.1,
    }
    assert list(row)[:2] == ["training_iteration", "num_env_steps_sampled_lifetime"]
    assert isinstance(row["num_env_steps_sampled_lifetime"], int)


def test_the_score_is_the_teams_return_where_there_is_one():
    columns = [
        "env_runners/episode_return_mean",
        "env_runners/team_return",
        "evaluation/greedy/episode_return",
    ]
    assert score_column(columns, "env_runners/") == "env_runners/team_return"
    assert score_column(columns[:1], "env_runners/") == "env_runners/episode_return_mean"
    assert score_column(columns, "evaluation/greedy/") == "evaluation/greedy/episode_return"
    assert score_column(columns, "evaluation/sampled/") is None


def test_tables_of_episodes_round_trip(tmp_path):
    rows = [{"mode": "greedy", "seed": 1, "return": 0.1}, {"mode": "sampled", "seed": 2, "coverage": 1e-17}]
    write_csv(tmp_path / "evaluation.csv", rows)
    assert read_csv(tmp_path / "evaluation.csv") == rows


TEXTS = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), max_size=20)
KEYS = st.text("abc/_", min_size=1, max_size=8)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(KEYS, PLAIN, min_size=1, max_size=4))
def test_yaml_gives_back_what_was_written(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("yaml") / "x.yaml"
    path.write_text(yaml_text(values), encoding="utf-8", newline="")
    again = read_yaml(path)
    assert again == values
    assert list(again) == list(values)
    assert json.dumps(again) == json.dumps(values)


def test_yaml_is_version_1_2(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("{a: 3e-4, b: no, c: 010, d: 0o10}")
    assert read_yaml(path) == {"a": 3e-4, "b": "no", "c": 10, "d": 8}
