"""The benchmark of the counterfactual baseline: closed forms from both sources, and cells that differ in it alone."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import causal_baseline
from causal_baseline import CELLS, KEY, STUDY
from tables import read

from qio_rllib.experiments.experiment import load_experiment

ROOT = Path(__file__).parents[2]


def test_variances_and_means_are_the_closed_forms(tmp_path, monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["causal_baseline.py", "variance", "--samples", "60000", "--out", str(tmp_path)]
    )
    causal_baseline.main()
    rows = read(tmp_path / "variance.csv")
    assert {row["source"] for row in rows} == {"environment", "model"}
    for row in rows:
        variance, exact = float(row["variance"]), float(row["closed_form"])
        assert variance == pytest.approx(exact, rel=0.05), row
        mean = 0.0 if row["baseline"] == "x2 held fixed" else 0.4
        assert float(row["mean"]) == pytest.approx(mean, abs=4 * np.sqrt(exact / 60_000) + 1e-9), row
    assert json.loads((tmp_path / "variance.json").read_text())


@pytest.mark.parametrize("task", STUDY.tasks)
def test_cells_differ_in_their_baseline_alone(task):
    config, overrides = STUDY.tasks[task]
    others = []
    for settings in CELLS.values():
        lines = [f"{key}={json.dumps(value)}" for key, value in (overrides | settings).items()]
        experiment = load_experiment(ROOT / config, lines, 3)
        assert experiment.validate().counterfactual_baseline == settings[KEY]
        others.append({key: value for key, value in experiment.config.items() if key != KEY})
    assert others[0] == others[1] == others[2]
