"""Causal graphs and effects."""

from __future__ import annotations

from claims import causal_shift
from claims import figures as f
from claims.claim import Claim, Section

COMMAND = "python benchmarks/causal_discovery.py "
SEPARATION, PC, CHAIN = "causal/separation.csv", "causal/pc.csv", "causal/chain.csv"
INFORMATION = "causal/information/"
PARTS = tuple(INFORMATION + f"{part}.csv" for part in ("drift", "shapes", "independence"))
BASELINE_COMMAND = "python benchmarks/causal_baseline.py "
VARIANCE, COST = "causal_baseline/variance.csv", "causal_baseline/cost.csv"
TASKS = {
    "forest": "PPO in a forest of four UAVs, 32,000 steps",
    "swarm": "MAPPO in the swarm, 64,000 steps",
    "confounded_control": "PPO in confounded control, 32,000 steps",
}
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


def _by_sigma(column: str, baseline: str, decimals: int, source: str = "environment") -> str:
    return " and ".join(
        f.cell(VARIANCE, column, decimals, source=source, sigma=sigma, baseline=baseline)
        for sigma in ("0.3", "0.1")
    )


def _largest_error() -> float:
    """Return the largest relative difference of a variance from its closed form."""
    return max(
        abs(float(row["variance"]) / float(row["closed_form"]) - 1)
        for row in f.rows_of(VARIANCE)
        if float(row["closed_form"])
    )


def _cost(task: str) -> str:
    with_it, without = (
        f.number(COST, "cpu_seconds", task=task, cell=cell) for cell in ("counterfactual", "value")
    )
    return f"{with_it / without:.2f}"


def _ratio(task: str, cell: str) -> str:
    return f.cell(COST, "advantage_variance_ratio", 2, task=task, cell=cell)


def _control(task: str) -> Claim:
    """Return the claim of a task of the study; its verdicts are what the raw files give."""

    def text(kind: str, first: str, second: str) -> str:
        improved = f.improvement("causal_baseline", kind, first, second, task)
        return f"{improved}, {f.verdict('causal_baseline', kind, first, second, task)}"

    def score(kind: str, cell: str) -> str:
        (row,) = f.rows_of("causal_baseline/cells.csv", task=task, cell=cell)
        return f.summary_columns(row, kind, 3)

    return Claim(
        f"{TASKS[task]}, ten paired seeds. Probability that the counterfactual baseline is better than the value "
        "baseline (95% interval): final score {final}; area under the learning curve {training}. With `average_later` "
        "{later} and {later_training}. Normalised final scores: {ours} against {value}; CPU seconds a run {cpu}",
        {
            "final": lambda: text("final", "counterfactual", "value"),
            "training": lambda: text("training", "counterfactual", "value"),
            "later": lambda: text("final", "average later", "value"),
            "later_training": lambda: text("training", "average later", "value"),
            "ours": lambda: score("final", "counterfactual"),
            "value": lambda: score("final", "value"),
            "cpu": lambda: " against ".join(
                _mean("causal_baseline/runs.csv", "cpu_seconds", 1, task=task, cell=cell)
                for cell in ("counterfactual", "value")
            ),
        },
        BASELINE_COMMAND + f"control --task {task} --seeds 10",
        ("causal_baseline/runs.csv", "causal_baseline/pairs.csv"),
    )


def _influence(kind: str, first: str, second: str) -> str:
    improved = f.improvement("influence", kind, first, second, "small_forest")
    return f"{improved}, {f.verdict('influence', kind, first, second, 'small_forest')}"


TOGETHER = Claim(
    "The three tasks together, 30 pairs: the counterfactual baseline is better than the value baseline with the "
    "probability {final} (final score) and {training} (area under the learning curve), with `average_later` {later} "
    "and {later_training}; each interval leaves 0.5 out",
    {
        name: (lambda kind=kind, cell=cell: f.improvement("causal_baseline", kind, cell, "value"))
        for name, kind, cell in (
            ("final", "final", "counterfactual"),
            ("training", "training", "counterfactual"),
            ("later", "final", "average later"),
            ("later_training", "training", "average later"),
        )
    },
    BASELINE_COMMAND + "control --seeds 10",
    ("causal_baseline/pairs.csv",),
    lambda: all(
        f.verdict("causal_baseline", kind, cell, "value") == "better"
        for kind in ("final", "training")
        for cell in ("counterfactual", "average later")
    ),
)


def _learned(task: str, kind: str = "final") -> str:
    pair = ("causal_baseline_model", kind, "learned model", "value", task)
    return f"{f.improvement(*pair)}, {f.verdict(*pair)}"


LEARNED = Claim(
    "The counterfactual baseline by a learned model (`source: model`, which sees no branches), ten paired seeds, "
    "probability that it is better than the value baseline (95% interval): confounded control, final score {control}, "
    "area under the learning curve {control_training}; forest {forest} and {forest_training}. In the forest other UAVs "
    "are noise to the model, and its errors bias the gradient. CPU seconds a run {control_cpu} and {forest_cpu}",
    {
        "control": lambda: _learned("confounded_control"),
        "control_training": lambda: _learned("confounded_control", "training"),
        "forest": lambda: _learned("forest"),
        "forest_training": lambda: _learned("forest", "training"),
        **{
            name: (
                lambda task=task: " against ".join(
                    _mean("causal_baseline_model/runs.csv", "cpu_seconds", 1, task=task, cell=cell)
                    for cell in ("learned model", "value")
                )
            )
            for name, task in (("control_cpu", "confounded_control"), ("forest_cpu", "forest"))
        },
    },
    BASELINE_COMMAND + "model --seeds 10",
    ("causal_baseline_model/runs.csv", "causal_baseline_model/pairs.csv"),
)


INFLUENCE = Claim(
    "Pay for influence, ten times its nats, PPO in the same forest, ten paired seeds. Probability that it is better "
    "than without (95% interval): final score {final}; area under the learning curve {training}. Than the permuted "
    "control, the same pay without information: {permuted} and {permuted_training}",
    {
        "final": lambda: _influence("final", "influence", "none"),
        "training": lambda: _influence("training", "influence", "none"),
        "permuted": lambda: _influence("final", "influence", "permuted"),
        "permuted_training": lambda: _influence("training", "influence", "permuted"),
    },
    "python benchmarks/influence.py --seeds 10",
    ("influence/runs.csv", "influence/pairs.csv"),
)


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
        *causal_shift.CLAIMS,
        Claim(
            "Policy gradients on the chain, 1,000,000 samples, policy N(0, 0.3^2) and N(0, 0.1^2): their variance is "
            "{value} with a perfect value baseline and {ours} with the counterfactual one from branches of the "
            "environment, {less} times less ({model} by the structural model); every one within {off}% of its closed "
            "form. The mean gradient is {mean}; with x2 taken as exogenous and held fixed it is {wrong}",
            {
                "value": lambda: _by_sigma("variance", "value", 2),
                "ours": lambda: _by_sigma("variance", "counterfactual", 3),
                "less": lambda: _by_sigma("times_less_than_value", "counterfactual", 1),
                "model": lambda: _by_sigma("variance", "counterfactual", 3, "model"),
                "off": lambda: f"{100 * _largest_error():.1f}",
                "mean": lambda: _by_sigma("mean", "counterfactual", 3),
                "wrong": lambda: _by_sigma("mean", "x2 held fixed", 3, "model"),
            },
            BASELINE_COMMAND + "variance",
            (VARIANCE,),
            lambda: _largest_error() < 0.05,
        ),
        Claim(
            "What branches cost: CPU seconds of an iteration with the counterfactual baseline over those without, "
            "{forest} in the forest of four UAVs, {swarm} in the swarm, {control} in confounded control (8 drawn "
            "actions); the variance of the advantages early in training is {forest_ratio}, {swarm_ratio} and "
            "{control_ratio} of that without, with `average_later` {forest_later}, {swarm_later} and {control_later}",
            {
                "forest": lambda: _cost("forest"),
                "swarm": lambda: _cost("swarm"),
                "control": lambda: _cost("confounded_control"),
                "forest_ratio": lambda: _ratio("forest", "counterfactual"),
                "swarm_ratio": lambda: _ratio("swarm", "counterfactual"),
                "control_ratio": lambda: _ratio("confounded_control", "counterfactual"),
                "forest_later": lambda: _ratio("forest", "average later"),
                "swarm_later": lambda: _ratio("swarm", "average later"),
                "control_later": lambda: _ratio("confounded_control", "average later"),
            },
            BASELINE_COMMAND + "cost",
            (COST,),
        ),
        *(_control(task) for task in TASKS),
        TOGETHER,
        LEARNED,
        INFLUENCE,
    ),
)
