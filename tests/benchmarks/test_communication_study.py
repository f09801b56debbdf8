"""The communication study: what it sums up, from evaluations that are made up."""

import csv
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from communication import BANDWIDTHS, LOSSES, draw, folder_of, summarise


def write(path, mode_scores):
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["mode", "team_return"])
        writer.writerows(mode_scores)


def test_a_row_is_the_greedy_return_of_its_cell_over_seeds(tmp_path):
    cells = [*BANDWIDTHS, *LOSSES]
    for bandwidth, drop in cells:
        for seed in range(3):
            score = -100 * drop - 50 / (1 + bandwidth) - seed
            rows = [("greedy", score - 1), ("greedy", score + 1), ("sampled", -9e9)]
            write(folder_of(tmp_path, bandwidth, drop) / f"seed_{seed}" / "evaluation.csv", rows)
    rows = summarise(tmp_path, cells)
    assert [(row["bandwidth"], row["drop"], row["seeds"]) for row in rows] == [(*cell, 3) for cell in cells]
    for row in rows:
        best = -100 * row["drop"] - 50 / (1 + row["bandwidth"])
        assert (row["low"], row["high"]) == pytest.approx((best - 2, best))
        assert row["score"] == pytest.approx(best - 1)
        assert row["statistic"] == "mean, min to max"
        assert row["text"] == f"{best - 1:.1f} (mean of 3 seeds, {best - 2:.1f} to {best:.1f})"
    draw(tmp_path, rows, {"random": -200.0, "controller": -1.0})
    assert (tmp_path / "communication.png").stat().st_size > 10_000
