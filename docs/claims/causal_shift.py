"""Agents that were trained beside numbers that follow the state, where these become noise."""

from __future__ import annotations

from collections.abc import Callable

from claims import figures as f
from claims.claim import Claim, Figures

SHIFT = "causal/shift.csv"
_COMMAND = "python benchmarks/causal_shift.py "


def _returns(arm: str, decimals: int = 1) -> Figures:
    columns = {"before": "return_distractors", "after": "return_sensor_shift"}
    return {
        f"{arm}_{name}": lambda column=column: f.grouped(SHIFT, column, decimals, arm=arm)
        for name, column in columns.items()
    }


def _numbers(arm: str, column: str) -> list[float]:
    return [float(row[column]) for row in f.rows_of(SHIFT, arm=arm)]


def _largest_change(arm: str) -> Callable[[], str]:
    return lambda: f"{100 * max(abs(change) for change in _numbers(arm, 'change')):.1f}%"


def _raw(*arms: str) -> tuple[str, ...]:
    return (SHIFT, *(f"causal/shift/{arm}" for arm in arms))


CLAIMS = (
    Claim(
        "Drift control beside eight numbers that follow the state, a planner in an ensemble after 6,000 environment "
        "steps, 10 episodes a seed where these numbers go on as before, and where they have become noise. Causes found "
        "in 1,600 transitions after interventions: {masked_before}, then {masked_after}; the largest change of a "
        "seed is {largest}, with {false} false and {missed} missed of {edges} causes at most. A dense model: "
        "{dense_before}, then {dense_after}",
        {
            **_returns("masked"),
            **_returns("dense"),
            "largest": _largest_change("masked"),
            "false": lambda: f"{max(_numbers('masked', 'false_edges')):.0f}",
            "edges": lambda: f.rows_of("causal/shift/masked/seed_0/edges.csv")[0]["edges"],
            "missed": lambda: f"{max(_numbers('masked', 'missed_edges')):.0f}",
        },
        _COMMAND + "masked dense",
        _raw("masked", "dense"),
        lambda: all(abs(change) <= 0.05 for change in _numbers("masked", "change")),
    ),
    Claim(
        "The dense model with the interventional-consistency term (weight 10, of two that were tried on seed 100): "
        "{consistent_before}, then {consistent_after}; the largest change of a seed is {largest}",
        {**_returns("consistent"), "largest": _largest_change("consistent")},
        _COMMAND + "consistent",
        _raw("consistent"),
    ),
    Claim(
        "PPO on the same task, 61,440 environment steps: {ppo_before} beside numbers that follow the state, "
        "{ppo_after} beside noise; with the interventional-consistency term (coefficient 10, of three that were tried "
        "on seed 100; components found in the first 5,000 steps) {ppo_consistent_before}, then {ppo_consistent_after}",
        {**_returns("ppo"), **_returns("ppo_consistent")},
        _COMMAND + "ppo ppo_consistent",
        _raw("ppo", "ppo_consistent"),
    ),
)
