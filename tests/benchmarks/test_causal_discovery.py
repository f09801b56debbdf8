"""The benchmark of causal graphs at a small size: its tables and what they must say whatever the machine."""

import csv
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*arguments):
    return subprocess.run(
        [sys.executable, ROOT / "benchmarks/causal_discovery.py", *arguments],
        capture_output=True,
        text=True,
    )


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_parts_write_their_tables(tmp_path):
    done = run("separation", "chain", "pooled", "coverage", "--repeats", "2", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    (row,) = read(tmp_path / "separation.csv")
    assert row["questions"] == "2"
    assert row["disagreements"] == "0"
    rows = read(tmp_path / "chain.csv")
    assert [(row["alpha"], row["samples"]) for row in rows[2:4]] == [("0.01", "1000"), ("0.001", "200")]
    assert all(row["equal_to_concatenated"] == "1" for row in read(tmp_path / "pooled.csv"))
    means = {row["way"]: float(row["mean"]) for row in read(tmp_path / "coverage.csv")}
    assert means["naive"] < 0 < 0.4 < means["back-door"] < 0.6
    assert "separation:" in done.stdout


def test_an_unknown_part_is_refused():
    done = run("discovery")
    assert done.returncode == 2
    assert (
        "expected some of separation, pc, chain, transitions, pooled, coverage, got 'discovery'"
        in done.stderr
    )
