"""Secure aggregation beside Flower's, and what a round of Flower's simulation costs."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean, median

from claims import figures as f
from claims.claim import Claim, Section

FLOWER, ROUNDS = "federated/flower.csv", "federated/secure_aggregation.csv"
POISON = "federated/poison.csv"
OURS, THEIRS = "this package", "Flower"


def _seconds(who: str, clients: str, what: str = "secure_sum", column: str = "cpu_seconds") -> float:
    rows = f.rows_of(FLOWER, what=what, who=who, clients=clients)
    return median(float(row[column]) for row in rows)


def _text(who: str, clients: str, decimals: int, **where: str) -> Callable[[], str]:
    return lambda: f"{_seconds(who, clients, **where):.{decimals}f}"


def _times(clients: str) -> Callable[[], str]:
    return lambda: f"{_seconds(THEIRS, clients) / _seconds(OURS, clients):.0f}"


def _poisoned(rule: str, share: str) -> Callable[[], str]:
    return lambda: f.grouped(POISON, "score", 2, rule=rule, attack="sign_flip", share=share)


def _sign_flips_are_borne() -> bool:
    """Return whether the mean loses half under flipped signs, and the median and the trimmed mean keep nine tenths."""

    def scores(rule: str, attack: str, share: str) -> float:
        return mean(float(row["score"]) for row in f.rows_of(POISON, rule=rule, attack=attack, share=share))

    clean = scores("mean", "none", "0.200")
    return all(
        scores("mean", "sign_flip", share) < 0.5 * clean
        and min(scores(rule, "sign_flip", share) for rule in ("median", "trimmed_mean")) >= 0.9 * clean
        for share in ("0.200", "0.400")
    )


FEDERATED = Section(
    "Federated learning",
    "CPU seconds on one core; beside Flower, medians of three runs in turns.",
    (
        Claim(
            "Secure aggregation here and Flower 1.42's SecAgg+, all parties in one process, from float vectors of "
            "100,000 numbers to their mean: 32 clients of which 6 are lost before the upload {here_32} against "
            "{there_32} CPU seconds, {times_32} times; 64 and 13 {here_64} against {there_64}, {times_64} times",
            {
                "here_32": _text(OURS, "32", 2),
                "there_32": _text(THEIRS, "32", 1),
                "times_32": _times("32"),
                "here_64": _text(OURS, "64", 2),
                "there_64": _text(THEIRS, "64", 1),
                "times_64": _times("64"),
            },
            "python benchmarks/federated_flower.py --flower-python PYTHON --what secure_sum",
            (FLOWER,),
        ),
        Claim(
            "Flower's simulation of 1,000 nodes of which 100 a round send back 28,000 numbers: {cpu} CPU seconds "
            "a round of all its processes ({wall} on the clock)",
            {
                "cpu": _text(THEIRS, "100", 2, what="simulation"),
                "wall": _text(THEIRS, "100", 1, what="simulation", column="wall_seconds"),
            },
            "python benchmarks/federated_flower.py --flower-python PYTHON --what simulation",
            (FLOWER,),
        ),
        Claim(
            "Secure aggregation among 1,000 clients with 100 neighbours each, 10,000 numbers, 120 lost in four "
            "steps: {seconds} CPU seconds of all parties together, an exact sum of {left} vectors",
            {
                "seconds": lambda: f.cell(ROUNDS, "cpu_seconds", 0, clients="1000"),
                "left": lambda: f.cell(ROUNDS, "contributors", 0, clients="1000"),
            },
            "python benchmarks/secure_aggregation.py",
            (ROUNDS,),
            holds=lambda: all(row["exact"] == "True" for row in f.rows_of(ROUNDS)),
        ),
        Claim(
            "Ten equal poles that learn one policy, where some send three times their update with its sign flipped; "
            "random play 0, the greatest return 1: with 2 malicious clients mean {mean_2}, median "
            "{median_2}, trimmed mean {trimmed_2}; with 4 mean {mean_4}, median {median_4}, trimmed mean {trimmed_4}; "
            "the mean without an attack {clean}",
            {
                "mean_2": _poisoned("mean", "0.200"),
                "median_2": _poisoned("median", "0.200"),
                "trimmed_2": _poisoned("trimmed_mean", "0.200"),
                "mean_4": _poisoned("mean", "0.400"),
                "median_4": _poisoned("median", "0.400"),
                "trimmed_4": _poisoned("trimmed_mean", "0.400"),
                "clean": lambda: f.grouped(POISON, "score", 2, rule="mean", attack="none", share="0.200"),
            },
            "python benchmarks/federated_poison.py poles",
            (POISON,),
            holds=_sign_flips_are_borne,
        ),
    ),
)
