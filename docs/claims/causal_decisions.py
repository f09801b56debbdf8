"""Decisions from causes: intentions, confounded logs, and estimates beside other libraries'."""

from __future__ import annotations

from claims import figures as f
from claims.claim import Claim, Section

PPO, BANDITS = "casino/ppo.csv", "casino/bandits.csv"
CONTROL = "causal/control.csv"
IDENTIFICATION, EFFECTS = "causal/agreement/identification.csv", "causal/agreement/effects.csv"
WITH, WITHOUT, TOLD = "with intent", "without", "1000"
UNCONFOUNDED = ("back-door", "front-door", "instrument")


def _numbers(file: str, column: str, **where: str) -> list[float]:
    return [float(row[column]) for row in f.rows_of(file, **where)]


def _bandit(policy: str, rounds: str, logged: str = "0") -> str:
    return f.cell(BANDITS, "payout_rate", 3, policy=policy, rounds=rounds, logged_rounds=logged)


def _control(column: str, decimals: int, dynamics: str = "known") -> str:
    means = []
    for way in UNCONFOUNDED:
        values = _numbers(CONTROL, column, way=way, dynamics=dynamics)
        means.append(f"{sum(values) / len(values):.{decimals}f}")
    return f"{means[0]}, {means[1]} and {means[2]}"


def _naive(column: str, decimals: int, dynamics: str = "known") -> str:
    values = _numbers(CONTROL, column, way="naive", dynamics=dynamics)
    return f"{sum(values) / len(values):,.{decimals}f}"


def _worst_ratio() -> float:
    return max(float(row["ratio"]) for row in f.rows_of(CONTROL) if row["way"] != "naive")


def _ways(way: str) -> str:
    return str(len(f.rows_of(IDENTIFICATION, way=way)))


def _identifiable(*ways: str) -> int:
    return sum(len(f.rows_of(IDENTIFICATION, way=way, causalrl_identifiable="1")) for way in ways)


def _agrees() -> bool:
    rows = f.rows_of(IDENTIFICATION)
    return (
        all(row["back_door"] == row["pgmpy_back_door"] for row in rows)
        and all(row["back_door_valid_for_pgmpy"] != "0" for row in rows)
        and all(row["same_single_mediators"] == "1" for row in rows)
        and _identifiable("BackDoor", "FrontDoor")
        == sum(row["way"] in ("BackDoor", "FrontDoor") for row in rows)
    )


def _differences() -> list[float]:
    return [float(row["difference"]) for row in f.rows_of(EFFECTS) if row["difference"]]


def _widths() -> str:
    means = []
    for way in UNCONFOUNDED:
        rows = f.rows_of(CONTROL, way=way, dynamics="known")
        means.append(sum(float(row["high"]) - float(row["low"]) for row in rows) / len(rows))
    return f"{means[0]:.2f}, {means[1]:.2f} and {means[2]:.2f}"


DECISIONS = Section(
    "Decisions from causes",
    "In the greedy casino whoever follows the intention is paid in 0.15 of the rounds, any policy that does not "
    "know it "
    "in 0.30, and the best that does in 0.45. In confounded control the action's effect is 0.5; costs are of "
    "episodes of "
    "50 steps.",
    (
        Claim(
            "PPO in the greedy casino, 100,000 rounds: expected payout {known} where it observes its intention, "
            "{unknown} "
            "where it does not, exact from its probabilities; paid in 200,000 rounds a run: {known_paid} and "
            "{unknown_paid}",
            {
                "known": lambda: f.grouped(PPO, "exact", 4, policy=WITH),
                "unknown": lambda: f.grouped(PPO, "exact", 4, policy=WITHOUT),
                "known_paid": lambda: f.grouped(PPO, "payout_rate", 4, policy=WITH),
                "unknown_paid": lambda: f.grouped(PPO, "payout_rate", 4, policy=WITHOUT),
            },
            "python benchmarks/casino.py --parts ppo",
            (PPO,),
            lambda: (
                min(_numbers(PPO, "exact", policy=WITH) + _numbers(PPO, "payout_rate", policy=WITH)) >= 0.445
                and max(_numbers(PPO, "exact", policy=WITHOUT) + _numbers(PPO, "payout_rate", policy=WITHOUT))
                <= 0.305
            ),
        ),
        Claim(
            "Thompson sampling in the greedy casino, means of 1,000 gamblers: paid in {hundred} of the first 100 "
            "rounds "
            "and {thousand} of 1,000 with the intention as context, {without} of 1,000 without; {told} of the first "
            "100 "
            "after 1,000 recorded rounds of gamblers who followed theirs",
            {
                "hundred": lambda: _bandit(WITH, "100"),
                "thousand": lambda: _bandit(WITH, "1000"),
                "without": lambda: _bandit(WITHOUT, "1000"),
                "told": lambda: _bandit(WITH, "100", TOLD),
            },
            "python benchmarks/casino.py --parts bandits",
            (BANDITS,),
        ),
        Claim(
            "Controllers from confounded logs of 5,000 transitions, 10 logs: back door, front door and instrument "
            "estimate "
            "{effects} (95% intervals on average {widths} wide) and score {scores}, the oracle {oracle} on the same "
            "2,000 "
            "episodes; the worst of all costs {worst} times as much. Without adjustment the estimate is {naive} and "
            "the "
            "score {naive_score} (no action: {nothing}). With the state's own dynamics estimated from the same log: "
            "{estimated}, and {naive_estimated} without adjustment",
            {
                "effects": lambda: _control("effect", 3),
                "widths": _widths,
                "scores": lambda: _control("score", 2),
                "oracle": lambda: f"{_numbers(CONTROL, 'oracle')[0]:.2f}",
                "worst": lambda: f"{_worst_ratio():.4f}",
                "naive": lambda: _naive("effect", 3),
                "naive_score": lambda: _naive("score", 0),
                "nothing": lambda: f"{_numbers(CONTROL, 'no_action')[0]:.0f}",
                "estimated": lambda: _control("score", 2, "estimated"),
                "naive_estimated": lambda: _naive("score", 0, "estimated"),
            },
            "python benchmarks/causal_control.py",
            (CONTROL,),
            lambda: _worst_ratio() <= 1.05,
        ),
        Claim(
            "Identification on {questions} random graphs with hidden variables: a back-door set wherever pgmpy "
            "finds one and "
            "only there, each valid for pgmpy; the same single mediators for the front door. All {back} effects by "
            "the back "
            "door and {front} by the front door are identifiable for causalrl's ID algorithm, which is complete and "
            "identifies {more} more; {instruments} have an instrument",
            {
                "questions": lambda: f"{len(f.rows_of(IDENTIFICATION)):,}",
                "back": lambda: _ways("BackDoor"),
                "front": lambda: _ways("FrontDoor"),
                "more": lambda: str(_identifiable("Instrument", "not identified")),
                "instruments": lambda: _ways("Instrument"),
            },
            "python benchmarks/causal_agreement.py",
            (IDENTIFICATION,),
            _agrees,
        ),
        Claim(
            "Estimates on the same data beside pgmpy's (back door), statsmodels' (front door, two-stage least "
            "squares) and "
            "causalrl's (frequencies): {count} effects, the greatest difference {difference}",
            {
                "count": lambda: str(len(_differences())),
                "difference": lambda: f"{max(_differences()):.0e}",
            },
            "python benchmarks/causal_agreement.py",
            (EFFECTS,),
        ),
    ),
)
