"""The study of the influence reward: its cells, and what it makes of invented runs."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import influence
from influence import COEFFICIENT, STUDY
from tables import append, read

from qio_rllib.experiments.experiment import load_experiment

ROOT = Path(__file__).parents[2]


def test_cells_differ_in_the_influence_reward_alone():
    config, overrides = STUDY.tasks["small_forest"]
    found, others = {}, []
    for name, cell in STUDY.cells.items():
        lines = [f"{key}={json.dumps(value)}" for key, value in (overrides | cell).items()]
        experiment = load_experiment(ROOT / config, lines, 3)
        found[name] = experiment.validate().influence_reward
        others.append({key: value for key, value in experiment.config.items() if key != "influence_reward"})
    assert others[0] == others[1] == others[2]
    assert found == {
        "none": {"coefficient": 0.0},
        "influence": {"coefficient": COEFFICIENT},
        "permuted": {"coefficient": COEFFICIENT, "permuted": True},
    }


def test_made_up_runs_get_the_verdicts_that_they_deserve(tmp_path, monkeypatch):
    """Influence trains better than either control and ends as they do."""
    for seed in range(10):
        for cell in STUDY.cells:
            last = 100.0 + (-1) ** (seed + len(cell))
            row = {"task": "small_forest", "cell": cell, "seed": seed, "sampled": last, "greedy": -1e9}
            training = 90.0 if cell == "influence" else 80.0
            row |= {"actor_parameters": 17, "seconds": 1.0, "cpu_seconds": 1.0, "train_return_mean": training}
            append(tmp_path / "runs.csv", [row])
    monkeypatch.setattr(sys, "argv", ["influence.py", "--table", "--out", str(tmp_path)])
    influence.main()
    pairs = {(row["first"], row["second"]): row for row in read(tmp_path / "pairs.csv")}
    assert set(pairs) == set(STUDY.pairs)
    assert pairs["influence", "permuted"]["training_verdict"] == "better"
    assert pairs["permuted", "none"]["training_verdict"] == "null"
    assert pairs["influence", "none"]["final_verdict"] == "null"
    (cell,) = (row for row in read(tmp_path / "cells.csv") if row["cell"] == "none")
    assert 0.5 < float(cell["final_score"]) < 1.2  # between the scripted policies of this small forest
    monkeypatch.setattr(sys, "argv", ["influence.py", "--table", "--out", str(tmp_path / "none")])
    with pytest.raises(SystemExit):
        influence.main()
