"""The benchmark beside Flower, with a stand-in for the Python that has it."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import federated_flower
from secure_aggregation import UPLOADS, Setting, lost
from tables import read


def stand_in(folder, script):
    """Return an executable that is called as Python is, with a worker, what it shall do and numbers."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    monkeypatch.setattr(federated_flower, "SETTINGS", (Setting(5, 64, 4, 3, lost(1, UPLOADS)),))
    monkeypatch.setattr(federated_flower.os, "sched_setaffinity", lambda *_: None, raising=False)


def test_both_sides_run_in_turns_with_the_same_numbers_and_other_parts_of_the_table_stay(tmp_path):
    out = tmp_path / "flower.csv"
    answer = """echo '{"cpu_seconds": '$3.5', "wall_seconds": '$6', "error": '$5', "answers": '$4'}'"""
    python = stand_in(tmp_path, answer)
    federated_flower.main(
        ["--flower-python", python, "--repeats", "2", "--what", "secure_sum", "--out", str(out)]
    )
    rows = read(out)
    assert [row["who"] for row in rows] == ["this package", "Flower"] * 2
    ours, theirs = rows[:2]
    assert float(ours["cpu_seconds"]) > 0
    assert float(ours["error"]) < 2**-18  # of the mean of 4 roundings
    assert (theirs["cpu_seconds"], theirs["error"]) == ("5.5", "1")  # clients, lost
    federated_flower.main(
        ["--flower-python", python, "--repeats", "1", "--what", "simulation", "--out", str(out)]
    )
    assert [row["what"] for row in read(out)] == ["secure_sum"] * 4 + ["simulation"]
    assert read(out)[-1]["wall_seconds"] == "5"  # rounds


def test_what_goes_wrong_there_is_said(tmp_path):
    python = stand_in(tmp_path, "echo no flwr here >&2; exit 3")
    with pytest.raises(SystemExit, match="flower_worker.py secure_sum 5 64 1 3 failed:\nno flwr here"):
        federated_flower.theirs(python, "secure_sum", 5, 64, 1, 3)
    python = stand_in(tmp_path, """echo '{"cpu_seconds": 1, "wall_seconds": 1, "answers": 99}'""")
    with pytest.raises(SystemExit, match="simulation: 99 of 100 clients answered"):
        federated_flower.simulations_of(python, 1, 1)
