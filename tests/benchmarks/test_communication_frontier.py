"""The study of return against bits: its cells, and what it sums up, from evaluations that are made up."""

import csv
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from communication_frontier import CELLS, CONFIG, STUDY, bound_of, draw, summarise

from qio_envs import swarm_cooperative_v0
from qio_rllib.evaluation.hidden_target import HiddenTargetBound
from qio_rllib.experiments.experiment import load_experiment


@pytest.fixture(scope="module")
def bound():
    config = load_experiment(CONFIG, STUDY).config["env_config"]
    return HiddenTargetBound(swarm_cooperative_v0.batched_env(1, **config).config)


def test_every_cell_can_be_trained():
    assert len({cell.name for cell in CELLS}) == len(CELLS)
    for cell in CELLS:
        load_experiment(CONFIG, [*STUDY, f"communication={json.dumps(cell.settings)}"]).validate()


def test_rows_hold_bits_return_and_the_bound_for_so_many_bits(tmp_path, bound):
    for cell in CELLS[:-1]:
        columns = ["mode", "team_return"] + (["bits_sent"] if cell.settings else [])
        for seed in range(3):
            path = tmp_path / cell.name / f"seed_{seed}" / "evaluation.csv"
            path.parent.mkdir(parents=True)
            with path.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(columns)
                for mode, score, sent in (("greedy", -300 - seed, 0.01 + seed / 100), ("sampled", -9e9, 9e9)):
                    writer.writerow([mode, score, sent][: len(columns)])
    rows = summarise(tmp_path, CELLS, bound)
    assert [row["cell"] for row in rows] == [cell.name for cell in CELLS[:-1]]
    for row, cell in zip(rows, CELLS, strict=False):
        assert row["score"] == pytest.approx(-301)
        assert row["bits_sent"] == pytest.approx(0.02 if cell.settings else 0)
        assert row["bound"] == bound_of(cell, row["bits_sent"], bound)
    by_name = {row["cell"]: row["bound"] for row in rows}
    assert by_name["silent"] == bound.of_constant(0.0)
    assert by_name["gate_0.03"] == bound.of_gated(2, 3 * 0.02)
    assert by_name["bits_3"] == bound.of_constant(3)
    assert by_name["targeted_bits_2"] == bound.of_constant(4)
    assert by_name["silent"] < by_name["bits_1"]
    draw(tmp_path, rows, bound, {"random": -1200.0, "controller": -120.0})
    assert (tmp_path / "communication_frontier.png").stat().st_size > 10_000
