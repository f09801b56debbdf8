"""Figures of docs/results.md, each computed from files under results/ by the function that all summaries share."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
sys.path.insert(0, str(ROOT / "benchmarks"))

from tables import read, scores_of  # noqa: E402

from qio_rllib.evaluation.aggregate import Summary, describe  # noqa: E402

STEPS = "num_env_steps_sampled_lifetime"


def seeds(folder: str, mode: str = "sampled", column: str = "team_return", decimals: int = 1) -> str:
    """Return the final evaluation of all seeds of a study in words, see `describe`."""
    return describe(scores_of(RESULTS / folder, mode, column), decimals)


def score(folder: str, mode: str = "sampled", column: str = "team_return") -> float:
    """Return the number of `seeds` alone."""
    return Summary.of(scores_of(RESULTS / folder, mode, column)).score


def all_scores(folder: str, mode: str = "sampled", column: str = "team_return") -> list[float]:
    """Return the final evaluation of each seed."""
    return [float(value) for value in scores_of(RESULTS / folder, mode, column)]


def scripted_score(folder: str, policy: str) -> float:
    """Return the score of a scripted policy on the evaluation episodes."""
    (row,) = rows_of(f"{folder}/summary.csv", policy=f"scripted: {policy}")
    return float(row["score"])


def scripted(folder: str) -> str:
    """Return the scores of the scripted policies on the evaluation episodes, "random 309.5, greedy 375.1"."""
    rows = [row for row in read(RESULTS / folder / "summary.csv") if row["policy"].startswith("scripted: ")]
    return ", ".join(f"{row['policy'].removeprefix('scripted: ')} {float(row['score']):.1f}" for row in rows)


def normalized(folder: str, mode: str = "sampled") -> str:
    """Return the score between random play (0) and the oracle (1)."""
    (row,) = [row for row in read(RESULTS / folder / "summary.csv") if row["policy"].endswith(f"({mode})")]
    return f"{float(row['normalized']):.2f}"


def relative(folder: str, policy: str, mode: str = "greedy") -> str:
    """Return each seed's score over that of a scripted policy on the same episodes, in words."""
    reference = scripted_score(folder, policy)
    return describe((score / reference for score in all_scores(folder, mode)), 3)


def steps(folder: str) -> str:
    """Return the environment steps of a run, "192,000"."""
    return f"{int(float(read(RESULTS / folder / 'seed_0' / 'progress.csv')[-1][STEPS])):,}"


def training_seconds(folder: str) -> str:
    """Return the mean seconds of a training over seeds."""
    paths = sorted((RESULTS / folder).glob("seed_*/progress.csv"))
    return f"{sum(float(read(path)[-1]['time_total_s']) for path in paths) / len(paths):.0f}"


def on_the_way(folder: str, at: int, column: str = "evaluation/sampled/team_return") -> str:
    """Return an evaluation after so many environment steps, over seeds."""
    rows = [row for path in sorted((RESULTS / folder).glob("seed_*/progress.csv")) for row in read(path)]
    return describe(float(row[column]) for row in rows if float(row[STEPS]) == at)


def cell(file: str, column: str, decimals: int = 1, **where: str) -> str:
    """Return one number of a table under results/, from the only row in which the columns have these values."""
    return f"{number(file, column, **where):,.{decimals}f}"


def number(file: str, column: str, **where: str) -> float:
    """Return the number of `cell`.

    Raises:
        ValueError: No row or several have these values.
    """
    rows = rows_of(file, **where)
    if len(rows) != 1:
        raise ValueError(f"{file}: {len(rows)} rows with {where}")
    return float(rows[0][column])


def only(file: str, column: str, **where: str) -> float:
    """Return the number that a column holds in every row in which the other columns have these values.

    Raises:
        ValueError: It holds several, or there is no such row.
    """
    found = {float(row[column]) for row in rows_of(file, **where)}
    if len(found) != 1:
        raise ValueError(f"{file}: {column} is {sorted(found)} with {where}")
    return found.pop()


def rows_of(file: str, **where: str) -> list[dict[str, str]]:
    """Return the rows of a table in which the columns have these values."""
    return [
        row for row in read(RESULTS / file) if all(row[column] == value for column, value in where.items())
    ]


def last(file: str, column: str, decimals: int = 1, **where: str) -> str:
    """Return one number of a table under results/, from the last row in which the columns have these values."""
    return f"{float(rows_of(file, **where)[-1][column]):,.{decimals}f}"


def grouped(file: str, column: str, decimals: int = 1, **where: str) -> str:
    """Return a column of several rows, one a seed, in words."""
    return describe((float(row[column]) for row in rows_of(file, **where)), decimals)


def summary_columns(row: dict[str, str], kind: str, decimals: int = 2) -> str:
    """Return the text of a row of cells.csv for ``kind`` "final" or "training"."""
    parts = [float(row[f"{kind}_{part}"]) for part in ("score", "low", "high")]
    return Summary(int(row["seeds"]), row["statistic"], *parts).text(decimals)


def improvement(folder: str, kind: str, first: str, second: str, task: str = "all tasks") -> str:
    """Return the probability of improvement with its interval, "0.62 (0.45 to 0.78)"."""
    (row,) = rows_of(f"{folder}/pairs.csv", task=task, first=first, second=second)
    middle, low, high = (float(row[f"{kind}_{part}"]) for part in ("improvement", "low", "high"))
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def verdict(folder: str, kind: str, first: str, second: str, task: str = "all tasks") -> str:
    """Return "null", "better" or "worse"."""
    (row,) = rows_of(f"{folder}/pairs.csv", task=task, first=first, second=second)
    return row[f"{kind}_verdict"]


def outside(folder: str, kind: str) -> int:
    """Return how many intervals of the probability of improvement leave 0.5 out."""
    rows = read(RESULTS / folder / "pairs.csv")
    return sum(row[f"{kind}_verdict"] in ("better", "worse") for row in rows)


def smallest_corrected_p(folder: str) -> float:
    """Return the smallest p-value of the sign tests after Holm's correction."""
    rows = read(RESULTS / folder / "pairs.csv")
    columns = [column for column in rows[0] if column.endswith("_p_holm")]
    return min(float(row[column]) for row in rows for column in columns)


def num_pairs(folder: str) -> int:
    """Return how many pairs of cells a study compares."""
    return len(read(RESULTS / folder / "pairs.csv"))


def contraction_factor(metric: str, eta: str = "0.1", h_min: str = "0.05") -> float:
    """Return the geometric mean factor by which the Q operator changes distances between policies."""
    return math.exp(
        number("contraction/contraction.csv", "log_factor", mode="pairs", metric=metric, eta=eta, h_min=h_min)
    )


def contracts_from(floor: float, metrics: Iterable[str]) -> bool:
    """Return whether the operator contracts on average for each eta at each floor from this one on."""
    return all(
        row["contracts_on_average"] == "True"
        for row in read(RESULTS / "contraction" / "contraction.csv")
        if float(row["h_min"]) >= floor and row["metric"] in metrics
    )


def cpus(paths: Iterable[str]) -> str:
    """Return the processors on which the raw files of a claim were made."""
    found: list[str] = []
    for path in paths:
        place = RESULTS / path
        if place.suffix == ".csv":
            named = [row["cpu"] for row in read(place)[:1] if "cpu" in row]
            beside = [
                place.with_suffix(".json"),
                place.parent / "run.json",
            ]  # of the study that wrote the file
            written = [json.loads(file.read_text()).get("cpu") for file in beside if file.is_file()]
            found += named or [name for name in written[:1] if name]
        else:
            found += [json.loads(file.read_text())["cpu"] for file in sorted(place.rglob("run.json"))]
    makers = ["Intel Xeon" if "Xeon" in name else "AMD EPYC" if "EPYC" in name else name for name in found]
    return ", ".join(dict.fromkeys(makers))
