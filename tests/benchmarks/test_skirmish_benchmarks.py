"""The benchmarks of the skirmish, with a stand-in for the Python that has JaxMARL."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import skirmish_throughput
import skirmish_win_rates
import smax_agreement
from tables import read

REFERENCE = Path(__file__).parents[1] / "qio_envs" / "smax_reference.npz"


def run(monkeypatch, module, *arguments):
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    module.main()


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(skirmish_throughput, "STEPS", {"2s3z": (3, 5)})
    monkeypatch.setattr(skirmish_throughput.os, "sched_setaffinity", lambda *_: None, raising=False)


def stand_in(folder, script):
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_the_two_take_turns_and_the_ratio_is_that_of_the_medians(tmp_path, monkeypatch):
    ready = 'echo hello; echo "ready 1.2.3 4.5.6"; echo "$2 $3 $4" > "$(dirname "$0")/asked"'
    script = f"{ready}; while read x; do echo 0.5; done"
    python, out = stand_in(tmp_path, script), tmp_path / "speed.csv"
    run(monkeypatch, skirmish_throughput, "--jaxmarl-python", python, "--rounds", 3, "--out", out)
    (row,) = read(out)
    assert (tmp_path / "asked").read_text().split() == ["2s3z", "64", "5"]
    assert row["smax"] == str(64 * 5 * 2)
    assert float(row["ratio"]) == pytest.approx(int(row["skirmish_v0"]) / 640, abs=0.1)
    assert (row["jax"], row["jaxmarl"], row["rounds"]) == ("1.2.3", "4.5.6", "3")


def test_a_worker_that_fails_ends_the_benchmark(tmp_path, monkeypatch):
    python = stand_in(tmp_path, "exit 3")
    with pytest.raises(SystemExit, match="smax_worker.py ended with exit status 3"):
        run(monkeypatch, skirmish_throughput, "--jaxmarl-python", python, "--out", tmp_path / "speed.csv")


def test_win_rates_are_of_every_scenario_and_policy(tmp_path, monkeypatch):
    monkeypatch.setattr(skirmish_win_rates.skirmish_v0, "scenarios", lambda: ("3m", "3s_vs_5z"))
    out = tmp_path / "rates.csv"
    run(monkeypatch, skirmish_win_rates, "--episodes", 12, "--out", out)
    rows = {(row["scenario"], row["policy"]): row for row in read(out)}
    assert len(rows) == 6
    assert float(rows["3s_vs_5z", "focus"]["win_rate"]) > 0.8
    assert float(rows["3s_vs_5z", "nearest"]["loss_rate"]) == 1
    assert float(rows["3m", "random"]["mean_return"]) < float(rows["3m", "nearest"]["mean_return"])


def test_agreement_has_a_row_for_each_episode(tmp_path, monkeypatch):
    episodes = smax_agreement.load(REFERENCE)[:2]
    monkeypatch.setattr(smax_agreement, "load", lambda path: episodes)
    out = tmp_path / "agreement.csv"
    run(monkeypatch, smax_agreement, "--episodes", REFERENCE, "--out", out)
    rows = read(out)
    assert [row["map"] for row in rows] == [episode.map for episode in episodes]
    assert all(row["first_apart"] == "-1" for row in rows)
