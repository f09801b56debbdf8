"""The study of return against bits: its cells, what it sums up from made-up evaluations, and the scripted division."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from communication_frontier import draw, main, summarise
from forest_division import DivisionPolicy
from frontier_tasks import TASKS, environment_of

from qio_envs import forest_uav_v0
from qio_envs.api import ConfigError
from qio_envs.api.scores import episode_scores
from qio_rllib.experiments.experiment import load_experiment

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tasks():
    return {name: kind(environment_of(kind, ["evaluation_duration=20"])) for name, kind in TASKS.items()}


def made_up(out, task):
    """Write evaluations of three seeds for each cell but the last."""
    for cell in task.cells[:-1]:
        for seed in range(3):
            path = out / cell.name / f"seed_{seed}" / "evaluation.csv"
            path.parent.mkdir(parents=True)
            columns = ["mode", "team_return"] + (["bits_sent"] if cell.settings else [])
            other = {"greedy": "sampled", "sampled": "greedy"}[task.mode]
            with path.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(columns)
                for mode, score, sent in ((task.mode, -300 - seed, 0.01 + seed / 100), (other, -9e9, 9e9)):
                    writer.writerow([mode, score, sent][: len(columns)])


@pytest.mark.parametrize("name", TASKS)
def test_every_cell_can_be_trained(tasks, name):
    task = tasks[name]
    assert len({cell.name for cell in task.cells}) == len(task.cells)
    for cell in task.cells:
        load_experiment(task.config, [*task.study, *task.overrides(cell)]).validate()


@pytest.mark.parametrize("name", TASKS)
def test_rows_hold_bits_and_return_of_the_mode_that_counts(tasks, tmp_path, name):
    task = tasks[name]
    made_up(tmp_path, task)
    rows = summarise(tmp_path, task.cells, task)
    assert [row["cell"] for row in rows] == [cell.name for cell in task.cells[:-1]]
    for row, cell in zip(rows, task.cells, strict=False):
        assert row["score"] == pytest.approx(-301)
        assert row["bits_sent"] == pytest.approx(0.02 if cell.settings else cell.radio * 404.643856)
        assert row["allowed"] == task.allowed(cell, row["bits_sent"])
    draw(tmp_path, rows, task, {"random": -1200.0, "controller": -120.0})
    assert (tmp_path / "communication_frontier.png").stat().st_size > 10_000


def test_a_hidden_target_allows_what_its_bound_says(tasks):
    task = tasks["hidden_target"]
    allowed = {cell.name: task.allowed(cell, 0.02 if cell.settings else 0.0) for cell in task.cells}
    assert allowed["silent"] == task.bound.of_constant(0.0)
    assert allowed["gate_0.03"] == task.bound.of_gated(2, 3 * 0.02)
    assert allowed["bits_3"] == task.bound.of_constant(3)
    assert allowed["targeted_bits_2"] == task.bound.of_constant(4)
    assert allowed["silent"] < allowed["bits_1"]
    free, gated = task.curves()
    assert free.score[0] == allowed["silent"]
    assert (np.diff(free.score) >= 0).all()
    assert (np.interp(gated.bits, free.bits, free.score) <= gated.score + 1e-9).all()


def test_a_forest_allows_what_the_script_reaches_with_no_more_bits(tasks):
    task = tasks["forest"]
    env = environment_of(type(task), ["evaluation_duration=20"])
    silent, radio = task.cells[0], task.cells[3]
    assert task.allowed(silent, 0.0) == episode_scores(env, lambda e: DivisionPolicy(e, 1), 1_000_000).mean()
    two_bits = episode_scores(env, lambda e: DivisionPolicy(e, 4), 1_000_000).mean()
    assert task.allowed(silent, 2 / 40) == two_bits
    assert task.allowed(silent, 2 / 40 - 1e-9) < two_bits
    assert task.allowed(radio, task.bits(radio, Path())) == task.curves()[0].score[-1]


def test_dividing_uavs_cover_the_forest_when_there_is_time_and_better_the_more_they_know():
    calm = forest_uav_v0.batched_env(50, max_steps=60, comm_budget=0.0)
    assert episode_scores(calm, lambda e: DivisionPolicy(e, 1), 0).mean() > 399
    hurried = forest_uav_v0.batched_env(50, max_steps=40, comm_budget=0.0)
    reached = [episode_scores(hurried, lambda e, n=n: DivisionPolicy(e, n), 0).mean() for n in (1, 2, 4, 20)]
    assert (np.diff(reached) > 2).all()
    assert reached[-1] > 388


def test_a_silent_uav_flies_by_its_own_place_alone():
    env = forest_uav_v0.batched_env(1, max_steps=60, comm_budget=0.0)
    env.reset(3)
    policy = DivisionPolicy(env, 1)
    row, column = env.arrays.position[0].T.copy()
    for n, action in enumerate(policy.act()[0]):
        if row[n] < 2 * n:
            assert action == 2
        elif row[n] > 2 * n + 1:
            assert action == 1
        elif row[n] == 2 * n:
            assert action == (4 if column[n] < 19 else 2)
        else:
            assert action == (3 if column[n] > 0 else 1)
    assert policy.bits_per_step == 0.0
    assert DivisionPolicy(env, 4).bits_per_step == pytest.approx(2 / 60)


@pytest.mark.parametrize(
    ("settings", "blocks", "message"),
    [
        ({"height": 30}, 1, "height: expected two rows to a UAV and no obstacles, got 30 rows"),
        ({"obstacle_density": 0.1}, 1, "obstacle_density 0.1"),
        ({}, 3, "blocks: expected a divisor of 20 rows, got 3"),
        ({}, 0, "blocks: expected a divisor of 20 rows, got 0"),
    ],
)
def test_forests_without_strips_are_refused(settings, blocks, message):
    with pytest.raises(ConfigError, match=message):
        DivisionPolicy(forest_uav_v0.batched_env(1, **settings), blocks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cells", "loud"], "--cells: loud is none of silent, radio_0.025"),
        (["--seeds", "0"], "--seeds: expected at least 1"),
        (["--set", "gama=0.9"], "unknown key 'gama' (did you mean 'gamma'?)"),
        (
            ["--set", "env_config.height=30"],
            "height: expected two rows to a UAV and no obstacles, got 30 rows",
        ),
        (["--table", "--out", "nowhere"], "--table: there are no runs in nowhere/forest"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["communication_frontier.py", "forest", *arguments])
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
