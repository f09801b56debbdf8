"""Causal graphs and effects."""

from __future__ import annotations

from claims import figures as f
from claims.claim import Claim, Section

COMMAND = "python benchmarks/causal_discovery.py "
SEPARATION, PC, CHAIN = "causal/separation.csv", "causal/pc.csv", "causal/chain.csv"
INFORMATION = "causal/information/"
PARTS = tuple(INFORMATION + f"{part}.csv" for part in ("drift", "shapes", "independence"))
TRANSITIONS, POOLED, COVERAGE = "causal/transitions.csv", "causal/pooled.csv", "causal/coverage.csv"


def _mean(file: str, column: str, decimals: int = 2, **where: str) -> str:
    rows = f.rows_of(file, **where)
    return f"{sum(float(row[column]) for row in rows) / len(rows):.{decimals}f}"


def _all_equal(file: str, column: str) -> bool:
    return all(row[column] == "1" for row in f.rows_of(file))


def _by_degree(column: str, decimals: int = 2) -> str:
    return " and ".join(_mean(PC, column, decimals, degree=degree) for degree in ("2", "3"))


def _steps(
    column: str, scenario: str, data: str, transitions: str, alpha: str = "0.001", decimals: int = 2
) -> str:
    return f.cell(
        TRANSITIONS, column, decimals, scenario=scenario, data=data, transitions=transitions, alpha=alpha
    )


def _drift(kind: str, samples: str, column: str = "f1", decimals: int = 2) -> str:
    """Return the means of a column over runs, of information and of regressions of degree 2."""
    tests = ("information", "regression, degree 2")
    means = [_mean(PARTS[0], column, decimals, kind=kind, samples=samples, test=test) for test in tests]
    return " against ".join(means)


def _shapes(test: str, samples: str = "1000") -> str:
    rows = f.rows_of(PARTS[1], test=test, samples=samples)
    names = ("magnitude", "sign", "oscillation", "product", "spread")
    return ", ".join(str(sum(int(row[name]) for row in rows)) for name in names)


def _false_edges(column: str, test: str) -> str:
    rows = [row for part in PARTS for row in f.rows_of(part, test=test)]
    return f"{sum(int(row[column]) for row in rows):,}"


CAUSAL = Section(
    "Causal graphs and effects",
    "Structural Hamming distances (SHD) count the pairs of variables whose edges differ from the true equivalence "
    "class. "
    "Seconds are CPU seconds with one thread, the least of three turns.",
    (
        Claim(
            "{questions} questions of d-separation on random graphs: {wrong} answers differ from networkx's, "
            "{ratio} times as "
            "fast ({ours} against {theirs} microseconds)",
            {
                "questions": lambda: f.cell(SEPARATION, "questions", 0),
                "wrong": lambda: f.cell(SEPARATION, "disagreements", 0),
                "ratio": lambda: f.cell(SEPARATION, "ratio"),
                "ours": lambda: f.cell(SEPARATION, "qio_microseconds"),
                "theirs": lambda: f.cell(SEPARATION, "networkx_microseconds"),
            },
            COMMAND + "separation",
            (SEPARATION,),
        ),
        Claim(
            "PC on 20 graphs each of 10 variables with 2 and with 3 neighbours, 2,000 samples, alpha 0.05: SHD "
            "{ours} against "
            "{theirs} of causal-learn's, the same skeletons, {ratio} times as fast ({ms} against {their_ms} ms). "
            "The search by "
            "score on the same data: SHD {score} in {score_ms} ms",
            {
                "ours": lambda: _by_degree("qio_shd"),
                "theirs": lambda: _by_degree("causal_learn_shd"),
                "ratio": lambda: _by_degree("ratio", 1),
                "ms": lambda: _by_degree("qio_ms", 1),
                "their_ms": lambda: _by_degree("causal_learn_ms", 1),
                "score": lambda: _by_degree("score_shd"),
                "score_ms": lambda: _by_degree("score_ms", 0),
            },
            COMMAND + "pc",
            (PC,),
            lambda: _all_equal(PC, "same_skeleton"),
        ),
        Claim(
            "The chain with actions as variables, 1,000 samples: the exact graph in {strict} of 100 runs at alpha "
            "0.001, "
            "{loose} at 0.01 (500 samples: {fewer} and {fewer_loose}); from the states alone not one edge has a "
            "direction",
            {
                "strict": lambda: f.cell(CHAIN, "exact", 0, alpha="0.001", samples="1000"),
                "loose": lambda: f.cell(CHAIN, "exact", 0, alpha="0.01", samples="1000"),
                "fewer": lambda: f.cell(CHAIN, "exact", 0, alpha="0.001", samples="500"),
                "fewer_loose": lambda: f.cell(CHAIN, "exact", 0, alpha="0.01", samples="500"),
            },
            COMMAND + "chain",
            (CHAIN,),
            lambda: all(row["directed_by_states_alone"] == "0" for row in f.rows_of(CHAIN)),
        ),
        Claim(
            "Causes of drift control's four components, 20 runs, alpha 0.001: F1 {hundred} from 100 transitions "
            "after "
            "interventions ({exact} of 20 runs exact), {play} from 400 of random play and {more} from 1,600. With "
            "eight distractors, "
            "14 inputs: {few} from 200 interventions, {enough} from 400, {many} from 1,600; from 6,400 of random "
            "play {long}. "
            "Share of false edges among those that are not, at alpha 0.01 and 200 interventions: {false}",
            {
                "hundred": lambda: _steps("f1", "default", "intervened", "100"),
                "exact": lambda: _steps("exact", "default", "intervened", "100", decimals=0),
                "play": lambda: _steps("f1", "default", "observed", "400"),
                "more": lambda: _steps("f1", "default", "observed", "1600"),
                "few": lambda: _steps("f1", "distractors", "intervened", "200"),
                "enough": lambda: _steps("f1", "distractors", "intervened", "400"),
                "many": lambda: _steps("f1", "distractors", "intervened", "1600"),
                "long": lambda: _steps("f1", "distractors", "observed", "6400"),
                "false": lambda: _steps("false_edges", "default", "intervened", "200", "0.01", 3),
            },
            COMMAND + "transitions",
            (TRANSITIONS,),
        ),
        Claim(
            "Causes by conditional mutual information (masked networks) against nested regressions of degree 2, alpha "
            "0.001, F1, drift control: {many} from 1,600 transitions after interventions, {few} from 200, {play} from "
            "1,600 of random play; with eight distractors {distractors} (1,600 interventions, one run). A search takes "
            "{seconds} s (6 inputs, 1,600 transitions)",
            {
                "many": lambda: _drift("default, intervened", "1600"),
                "few": lambda: _drift("default, intervened", "200"),
                "play": lambda: _drift("default, observed", "1600"),
                "distractors": lambda: _drift("distractors, intervened", "1600"),
                "seconds": lambda: _drift("default, intervened", "1600", "seconds", 3),
            },
            "python benchmarks/causal_information.py drift",
            PARTS[:1],
        ),
        Claim(
            "Causes of a magnitude, a sign, sin(3x), a product with a magnitude and a spread, 1,000 samples: all of "
            "each found in {information} of 3 runs by information, in {two} by regressions of degree 2, in {three} of "
            "degree 3",
            {
                "information": lambda: _shapes("information"),
                "two": lambda: _shapes("regression, degree 2"),
                "three": lambda: _shapes("regression, degree 3"),
            },
            "python benchmarks/causal_information.py shapes",
            PARTS[1:2],
        ),
        Claim(
            "False edges in all of these data, and in 500, 3,000 and 20,000 samples of inputs that go together (0.8), "
            "of {others} that are not: {strict} by information at alpha 0.001, {loose} at 0.01; regressions of degree "
            "2 {theirs} and {theirs_loose}",
            {
                "others": lambda: _false_edges("others", "information"),
                "strict": lambda: _false_edges("false", "information"),
                "loose": lambda: _false_edges("false_at_0.01", "information"),
                "theirs": lambda: _false_edges("false", "regression, degree 2"),
                "theirs_loose": lambda: _false_edges("false_at_0.01", "regression, degree 2"),
            },
            "python benchmarks/causal_information.py",
            PARTS,
        ),
        Claim(
            "Ten owners of 200 samples each, who hand on sums alone: SHD {pooled} together, {alone} each by itself; "
            "the graph "
            "equals that of the concatenated data in every one of 20 runs",
            {
                "pooled": lambda: _mean(POOLED, "pooled_shd"),
                "alone": lambda: _mean(POOLED, "alone_shd"),
            },
            COMMAND + "pooled",
            (POOLED,),
            lambda: _all_equal(POOLED, "equal_to_concatenated"),
        ),
        Claim(
            "95% intervals of an effect of 0.5 from 1,000 samples, 1,000 simulations: they hold it in {back} (back "
            "door), {front} "
            "(front door) and {instrument} (instrument) of all; without adjustment the mean estimate is {naive}",
            {
                "back": lambda: f.cell(COVERAGE, "coverage", 3, way="back-door"),
                "front": lambda: f.cell(COVERAGE, "coverage", 3, way="front-door"),
                "instrument": lambda: f.cell(COVERAGE, "coverage", 3, way="instrument"),
                "naive": lambda: f.cell(COVERAGE, "mean", 2, way="naive"),
            },
            COMMAND + "coverage",
            (COVERAGE,),
        ),
    ),
)
