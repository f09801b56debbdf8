"""The script that kills runs: what it takes for a difference, what it sees being written, what it kills."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import campaign

from qio_rllib.experiments.experiment import Experiment


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"status": "finished"}))
    write(tmp_path, range(1, campaign.ITERATIONS + 1))
    return tmp_path


def write(run, iterations, loss=0.5, seconds=1.0):
    rows = [f"{iteration},{seconds},{loss + iteration}" for iteration in iterations]
    (run / "progress.csv").write_text("\n".join(["training_iteration,time_total_s,loss", *rows, ""]))


def test_only_times_may_differ(run):
    expected = campaign.table(run)
    write(run, range(1, campaign.ITERATIONS + 1), seconds=2.0)
    assert campaign.problem_of(expected, run) == ""
    write(run, range(1, campaign.ITERATIONS + 1), loss=0.25)
    assert campaign.problem_of(expected, run) == "row 1: loss"


def test_rows_that_are_lost_or_doubled_are_a_problem(run):
    expected = campaign.table(run)
    for iterations in (range(1, campaign.ITERATIONS), [1, *range(1, campaign.ITERATIONS + 1)]):
        write(run, iterations)
        assert campaign.problem_of(expected, run).startswith("rows ")


def test_a_status_that_is_not_finished_is_a_problem(run):
    (run / "run.json").write_text(json.dumps({"status": "running"}))
    assert campaign.problem_of(campaign.table(run), run) == "status"


def test_what_is_written_is_seen_also_in_new_directories(tmp_path):
    watch = campaign.Watch(tmp_path)
    try:
        assert watch.next(0.0) == []
        (tmp_path / "new").mkdir()
        assert tmp_path / "new" in watch.next(60.0)
        (tmp_path / "new" / "a").write_text("x")
        os.replace(tmp_path / "new" / "a", tmp_path / "new" / "b")
        assert {tmp_path / "new" / "a", tmp_path / "new" / "b"} <= set(watch.next(60.0))
    finally:
        watch.close()


@pytest.mark.parametrize("how", ["command", "all"])
def test_a_command_is_killed_and_with_it_what_it_has_started(how):
    code = (
        "import subprocess, time; subprocess.Popen(['sleep', '{}']); print('x', flush=True); time.sleep(3600)"
    )
    seconds = "2" if how == "command" else "3600"  # what loses its command ends by itself
    with subprocess.Popen([sys.executable, "-c", code.format(seconds)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"x\n"
        (child,) = campaign.descendants(process.pid)
        campaign.strike(process, how)
        assert process.returncode == -9
    while campaign.alive(child):
        time.sleep(0.01)


@pytest.mark.parametrize("family", list(campaign.FAMILIES))
def test_experiments_of_families_are_valid(family):
    env, settings = campaign.FAMILIES[family]
    Experiment(family, env, {"training_iteration": campaign.ITERATIONS}, settings).validate()
