"""Secure aggregation beside Flower's, and what a round of Flower's simulation costs."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from claims import figures as f
from claims.claim import Claim, Section

FLOWER, ROUNDS = "federated/flower.csv", "federated/secure_aggregation.csv"
SPEEDUP, SPEEDUPS = "federated/speedup.csv", "federated/speedup_summary.csv"
PRIVACY, OVERHEAD = "federated/privacy.csv", "federated/overhead.csv"
OURS, THEIRS = "this package", "Flower"


def _seconds(who: str, clients: str, what: str = "secure_sum", column: str = "cpu_seconds") -> float:
    rows = f.rows_of(FLOWER, what=what, who=who, clients=clients)
    return median(float(row[column]) for row in rows)


def _text(who: str, clients: str, decimals: int, **where: str) -> Callable[[], str]:
    return lambda: f"{_seconds(who, clients, **where):.{decimals}f}"


def _times(clients: str) -> Callable[[], str]:
    return lambda: f"{_seconds(THEIRS, clients) / _seconds(OURS, clients):.0f}"


def _speedup(clients: str) -> Callable[[], str]:
    def text() -> str:
        parts = [f.cell(SPEEDUPS, f"speedup{part}", 1, clients=clients) for part in ("", "_low", "_high")]
        return "{} ({} to {})".format(*parts)

    return text


def _private(noise: str, column: str, decimals: int = 0) -> Callable[[], str]:
    """Return a column over the reported seeds; seed 100 chose the clip."""

    def text() -> str:
        rows = f.rows_of(PRIVACY, noise_multiplier=noise)
        return f.describe((float(row[column]) for row in rows if row["seed"] != "100"), decimals)

    return text


def _epsilon(noise: str) -> Callable[[], str]:
    return lambda: f"{float(f.rows_of(PRIVACY, noise_multiplier=noise)[-1]['epsilon_simulated']):.1f}"


def _cpu_ms(who: str, first: int = 0) -> float:
    return median(float(row["cpu_ms"]) for row in f.rows_of(OVERHEAD, who=who)[first:])


def _trainer_ms() -> float:
    """Return CPU milliseconds of a client and round, without the first round, which compiles."""
    return _cpu_ms("in the driver", 1)


def _mib(who: str, at: str, column: str = "trainer_mib") -> Callable[[], str]:
    return lambda: f.cell(OVERHEAD, column, 0, who=who, round=at)


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
    ),
)
