"""The study of imagination: its cells, and what it makes of invented runs."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import imagination_controls
from imagination_controls import SOURCES, STUDY
from tables import append, read

from qio_rllib.experiments.experiment import load_experiment

ROOT = Path(__file__).parents[2]


def runs_of(folder, seeds=10):
    """Learned is the better one at first and in the mean, and as good as none at the end; random is the worst."""
    for seed in range(seeds):
        for source in SOURCES:
            early = {"learned": -50.0, "none": -60.0, "random": -90.0}[source] - seed
            last = -10.0 - seed / 10 if source != "random" else -20.0
            if source == "learned":
                last += 0.01 * (-1) ** seed
            curve = [(steps, early if steps <= STUDY.early else last) for steps in range(2048, 102_401, 2048)]
            place = {"task": "drift_control", "cell": source, "seed": seed}
            append(folder / "curves.csv", [{**place, "steps": s, "train_return": v} for s, v in curve])
            scores = {"greedy": last, "sampled": -1e9, "actor_parameters": 17, "seconds": 1.0}
            mean = sum(value for _, value in curve) / len(curve)
            append(folder / "runs.csv", [{**place, **scores, "train_return_mean": mean}])


def test_made_up_runs_get_the_verdicts_that_they_deserve(tmp_path, monkeypatch, capsys):
    runs_of(tmp_path)
    monkeypatch.setattr(sys, "argv", ["imagination_controls.py", "--table", "--out", str(tmp_path)])
    imagination_controls.main()
    cells = {row["cell"]: row for row in read(tmp_path / "cells.csv")}
    assert float(cells["none"]["final_score"]) == pytest.approx(-10.45, abs=0.06)  # a return as it is
    assert float(cells["learned"]["early_score"]) == pytest.approx(-54.5, abs=0.3)
    pairs = {(row["first"], row["second"]): row for row in read(tmp_path / "pairs.csv")}
    assert set(pairs) == set(STUDY.pairs)
    found = {pair: [row[f"{kind}_verdict"] for kind in STUDY.kinds] for pair, row in pairs.items()}
    assert found == {
        ("learned", "none"): ["null", "better", "better"],
        ("learned", "random"): ["better"] * 3,
        ("random", "none"): ["worse"] * 3,
    }
    printed = capsys.readouterr().out
    assert "P(early)" in printed
    assert "early: 3 of 3 intervals leave 0.5 out" in printed
    assert (tmp_path / "cells.png").stat().st_size > 5_000


def test_a_table_without_runs_is_an_error_in_words(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["imagination_controls.py", "--table", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        imagination_controls.main()
    assert caught.value.code == 2
    assert f"there are no runs in {tmp_path}" in capsys.readouterr().err


def test_cells_differ_in_their_source_alone():
    config, overrides = STUDY.tasks["drift_control"]
    settings = []
    for source in SOURCES:
        cell = overrides | STUDY.cells[source]
        lines = [f"{key}={json.dumps(value)}" for key, value in cell.items()]
        experiment = load_experiment(ROOT / config, lines, 3)
        found = experiment.validate()
        assert found.imagination["source"] == source
        settings.append({**experiment.config, "imagination": {**found.imagination, "source": None}})
    assert settings[0] == settings[1] == settings[2]
