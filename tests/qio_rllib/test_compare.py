"""Runs side by side: groups, tables, figure; runs are written by hand."""

import numpy as np
import pytest
from PIL import Image

from qio_rllib.artifacts.files import read_csv
from qio_rllib.artifacts.run_directory import RunDirectory
from qio_rllib.cli import main
from qio_rllib.evaluation.aggregate import interquartile_mean, probability_of_improvement

ITERATION, STEPS = "training_iteration", "num_env_steps_sampled_lifetime"


def write_run(out, name, seed, scores, final=None, status="finished", sweep=None, **config):
    """Write a run: its return in each iteration of 100 steps, and the greedy score of its final evaluation."""
    run = RunDirectory.create(out, name)
    experiment = {"run": "PPO", "env": "CartPole-v1", "stop": {ITERATION: 9}}
    run.write_config({name: {**experiment, "config": {"lr": 1e-3, "seed": seed, **config}}})
    evaluation = {} if final is None else {"greedy": {"episode_return": final}}
    run.update_info(
        status=status, seed=seed, evaluation=evaluation, **({} if sweep is None else {"sweep": sweep})
    )
    lines = [f"{ITERATION},{STEPS},time_total_s,env_runners/episode_return_mean"]
    lines += [f"{i},{100 * i},{2.5 * i},{score}" for i, score in enumerate(scores, 1)]
    run.progress_file.write_text("\n".join(lines) + "\n")
    return run.path


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compare(*arguments):
    return main(["compare", *map(str, arguments)])


def test_groups_are_experiments_and_few_seeds_have_a_mean_and_a_range(here, capsys):
    for seed, final in ((0, 10.0), (1, 20.0), (2, 60.0)):
        write_run(here, "one", seed, [1, 2 + seed], final)
        write_run(here, "two", seed, [1, 3], 20.0)
    assert compare(here / "one", here / "two", "--out", "c") == 0
    rows = {(row["group"], row["score_of"]): row for row in read_csv("c/summary.csv")}
    greedy = rows["one", "greedy"]
    assert (greedy["seeds"], greedy["score"], greedy["low"], greedy["high"]) == (3, 30, 10, 60)
    assert greedy["statistic"] == "mean, min to max"
    assert rows["one", "training"]["score"] == 3  # the last rows: 2, 3, 4
    pairs = {(row["group"], row["over"]): row["probability"] for row in read_csv("c/improvement.csv")}
    assert pairs == {("one", "two"): 0.5, ("two", "one"): 0.5}  # one loses, one draws, one wins
    assert {(row["group"], row["seed"], row["greedy"]) for row in read_csv("c/scores.csv")} >= {
        ("one", 2, 60)
    }
    with Image.open("c/curves.png") as image:
        assert image.size == (1080, 630)
    out, err = capsys.readouterr()
    assert err == ""
    for part in ("one", "0,1,2", "mean 30", "10 to 60", "probability", "0.50", "written to c: curves.png"):
        assert part in out


def test_ten_seeds_have_an_interquartile_mean_with_an_interval(here, capsys):
    finals = np.arange(10.0) ** 2
    for seed, final in enumerate(finals):
        write_run(here, "x", seed, [1], final)
    assert compare(here / "x", "--out", "c") == 0
    (row,) = (row for row in read_csv("c/summary.csv") if row["score_of"] == "greedy")
    assert row["score"] == pytest.approx(interquartile_mean(finals))
    assert finals.min() < row["low"] < row["score"] < row["high"] < finals.max()
    assert "IQM" in capsys.readouterr().out


def test_runs_of_one_name_are_set_apart_by_the_settings_that_differ(here, capsys):
    for seed in (0, 1):
        for lr in (1e-3, 1e-4):
            write_run(here, "x", seed, [1], 5.0, lr=lr, model_config={"fcnet_hiddens": [8]})
    assert compare(here, "--out", "c") == 0
    labels = [row["group"] for row in read_csv("c/summary.csv")]
    assert set(labels) == {"x, lr = 0.001", "x, lr = 0.0001"}
    assert "probability" not in capsys.readouterr().out  # two seeds say nothing of that
    assert compare(here, "--by", "name", "--out", "d") == 0
    assert {(row["group"], row["seeds"]) for row in read_csv("d/summary.csv")} == {("x", 4)}
    assert "several runs of the seed 0, 1" in capsys.readouterr().err
    assert compare(here, "--by", "model_config.fcnet_hiddens", "--out", "e") == 0
    assert {row["group"] for row in read_csv("e/summary.csv")} == {"model_config.fcnet_hiddens = [8]"}


def test_a_metric_takes_the_place_of_the_evaluations(here, capsys):
    for seed in range(3):
        write_run(here, "one", seed, [1, seed], 100.0)
        write_run(here, "two", seed, [1, seed + 3], 0.0)
    assert compare(here, "--metric", "episode_return_mean", "--x", "seconds", "--out", "c") == 0
    rows = read_csv("c/summary.csv")
    assert [(row["group"], row["score_of"], row["score"]) for row in rows] == [
        ("one", "training", 1),
        ("two", "training", 4),
    ]
    pairs = {(row["group"], row["over"]): row["probability"] for row in read_csv("c/improvement.csv")}
    assert pairs == {("one", "two"): 0, ("two", "one"): 1}
    assert "100" not in capsys.readouterr().out


def test_a_sweep_is_its_runs(here, capsys):
    (here / "x").mkdir()
    file = here / "x" / "sweep_1.yaml"
    file.write_text("x: {}\n")
    write_run(here, "x", 0, [1], 7.0)  # of no sweep
    for number in (1, 2):
        write_run(here, "x", number, [1], 5.0, sweep={"file": file.name, "run": number})
    assert compare(file) == 0
    out = capsys.readouterr().out
    assert "1,2" in out
    assert "5 to 5" in out


def test_what_must_be_known_is_said(here, capsys):
    write_run(here, "one", 0, [1], None, status="interrupted")
    write_run(here, "two", 0, [1], 2.0)
    (run,) = (here / "two").iterdir()
    directory = RunDirectory(run)
    config = directory.config()
    config["two"]["env"] = "Acrobot-v1"
    directory.write_config(config)
    assert compare(here) == 0
    err = capsys.readouterr().err
    assert "not comparable: Acrobot-v1, CartPole-v1" in err
    assert "(interrupted)" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument"),
        (["nowhere"], "nowhere: there is no such run"),
        (["empty"], "empty: there are no runs in it"),
        (["x", "fresh"], "this run has no rows yet"),
        (["x", "--metric", "episode_return_men"], "(did you mean 'episode_return_mean'?)"),
        (["x", "--metric", "zzz"], "--metric: no run has 'zzz'; there are: training_iteration, "),
        (["x", "--x", "step"], "--x: unknown axis 'step' (did you mean 'steps'?); allowed: steps, seconds"),
        (["x", "--by", "lrr"], "--by: no run has the setting 'lrr' (did you mean 'lr'?)"),
        (["x", "--out", "x"], "--out: x exists already"),
    ],
)
def test_bad_input_is_one_line(here, capsys, arguments, message):
    (here / "empty").mkdir()
    write_run(here, "x", 0, [1], 2.0)
    write_run(here, "fresh", 0, [], None, status="running")
    assert compare(*arguments) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.startswith("rllib: ")
    assert err.count("\n") == 1
    assert out == ""


def test_the_probability_of_improvement_is_the_share_of_pairs():
    assert probability_of_improvement([1, 2, 3], [0, 2]) == pytest.approx((1 + 1.5 + 2) / 6)
    assert probability_of_improvement([1, 1], [1]) == 0.5
    with pytest.raises(ValueError, match="there are none"):
        probability_of_improvement([], [1])
