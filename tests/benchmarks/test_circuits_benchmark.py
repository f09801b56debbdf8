"""The script that measures circuits beside PennyLane's."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import circuits

ROOT = Path(__file__).parents[2]


def test_a_contestant_of_other_numbers_is_refused(monkeypatch):
    circuits.check_same_numbers(circuits.TASKS[0])
    monkeypatch.setitem(circuits.CONTESTANTS, "wrong", lambda n: lambda w, f: circuits.own(n)(w, 0.9 * f))
    with pytest.raises(AssertionError, match="wrong"):
        circuits.check_same_numbers(circuits.TASKS[0])


def test_inputs_are_the_same_numbers_in_each_dtype():
    single, double = (circuits.inputs(4, 3, dtype) for dtype in (torch.float32, torch.float64))
    for a, b in zip(single, double, strict=True):
        assert torch.equal(a.double(), b)


def test_the_script_writes_a_row_for_each_contestant(tmp_path):
    out = tmp_path / "circuits.csv"
    command = [sys.executable, "benchmarks/circuits.py", "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(circuits.TASKS) * len(circuits.CONTESTANTS) * len(circuits.DTYPES)
    for row in rows:
        assert row["task"] in done.stdout
        assert 0 < float(row["fastest_round_ms"]) <= float(row["ms"]) <= float(row["slowest_round_ms"])
        assert float(row["times_as_fast_as_pennylane"]) > 0
        assert row["torch"] == torch.__version__
        assert row["command"].startswith("python benchmarks/circuits.py --quick")
        assert row["cpu"] in done.stdout
        if row["contestant"] == circuits.BASE:
            assert float(row["times_as_fast_as_pennylane"]) == 1
