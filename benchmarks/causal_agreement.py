"""Identification and effects beside pgmpy, causalrl and statsmodels, on random graphs with hidden variables.

    pip install -c constraints.txt pgmpy==1.1.2 causalrl==3.0.0
    python benchmarks/causal_agreement.py     # half a minute

pgmpy is no test dependency: it brings ten packages that nothing else here needs (huggingface_hub, httpx2, ...).

``identification`` asks for the effect between two variables of random graphs: seven variables with two neighbours each
on average, one of them hidden, and four hidden common causes of two each. It records whether what `identify` returns is
valid for pgmpy, whether pgmpy finds a way where `identify` has none, and what the ID algorithm says (causalrl; sound
and complete, Shpitser and Pearl 2006), which assumes no linear effects, as instruments do.
``effects`` compares estimates on data. Each part writes results/causal/agreement/<part>.csv.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from causal_discovery import linear_model, random_graph
from tables import write

from qio_rllib.causal.estimation import WeakInstrument, discrete_effect, linear_effect
from qio_rllib.causal.graph import CausalGraph
from qio_rllib.causal.identification import (
    BackDoor,
    FrontDoor,
    Identification,
    NotIdentified,
    back_door_set,
    front_door_sets,
    identify,
)

SIZE, DEGREE, COMMON_CAUSES, SAMPLES = 7, 2.0, 4, 500
NONE = "not identified"
Row = dict[str, Any]


def question(seed: int) -> tuple[CausalGraph, str, str]:
    """Return a random graph with hidden variables, and an observed pair of which the first is a cause of the second."""
    rng = np.random.default_rng(seed)
    while True:
        graph = random_graph(rng, SIZE, DEGREE)
        edges, hidden = list(graph.edges), [str(rng.choice(graph.variables))]
        for place in range(COMMON_CAUSES):
            hidden.append(f"u{place}")
            edges += [(f"u{place}", str(name)) for name in rng.choice(graph.variables, 2, replace=False)]
        graph = CausalGraph(edges, (*graph.variables, *hidden[1:]), hidden)
        treatment, outcome = rng.choice(graph.observed, 2, replace=False).tolist()
        if outcome in graph.descendants(treatment):
            return graph, treatment, outcome


def answer(graph: CausalGraph, treatment: str, outcome: str) -> Identification | None:
    """Return the way to an effect, None without one."""
    try:
        return identify(graph, treatment, outcome)
    except NotIdentified:
        return None


def is_identifiable(graph: CausalGraph, treatment: str, outcome: str) -> bool:
    """Return what causalrl's ID algorithm says of the latent projection."""
    import causalrl

    whole = causalrl.CausalGraph(list(graph.edges), nodes=list(graph.variables))
    return bool(causalrl.is_identifiable(whole.latent_projection(graph.observed), treatment, outcome))


def _pgmpy(graph: CausalGraph) -> Any:
    from pgmpy.base import DAG
    from pgmpy.inference import CausalInference

    dag = DAG(list(graph.edges))
    dag.add_nodes_from([name for name in graph.variables if name not in dag.nodes])
    dag.latents = set(graph.hidden)
    return CausalInference(dag)


def identification(count: int) -> Iterator[Row]:
    """Yield what each says of a question."""
    for seed in range(count):
        graph, treatment, outcome = question(seed)
        how, theirs = answer(graph, treatment, outcome), _pgmpy(graph)
        adjustment = back_door_set(graph, treatment, outcome)
        fronts = set(front_door_sets(graph, treatment, outcome))
        between = graph.descendants(treatment) & graph.ancestors(outcome) - {
            treatment,
            outcome,
            *graph.hidden,
        }
        single = {(name,) for name in between}
        their_single = {
            one for one in single if theirs.is_valid_frontdoor_adjustment_set(treatment, outcome, one)
        }
        valid = adjustment is not None and theirs.is_valid_backdoor_adjustment_set(
            treatment, outcome, list(adjustment)
        )
        yield {
            "seed": seed,
            "way": NONE if how is None else type(how).__name__,
            "how": NONE if how is None else str(how),
            "back_door": int(adjustment is not None),
            "back_door_valid_for_pgmpy": int(valid) if adjustment is not None else "",
            "pgmpy_back_door": int(_pgmpy_back_door(theirs, treatment, outcome)),
            "single_mediators": len(fronts & single),
            "pgmpy_single_mediators": len(their_single),
            "same_single_mediators": int(fronts & single == their_single),
            "causalrl_identifiable": int(is_identifiable(graph, treatment, outcome)),
        }


def _pgmpy_back_door(theirs: Any, treatment: str, outcome: str) -> bool:
    """Return whether pgmpy finds an adjustment set; it refuses where there is none."""
    try:
        theirs.get_all_backdoor_adjustment_sets(treatment, outcome)
    except ValueError:
        return False
    return True


def effects(count: int) -> Iterator[Row]:
    """Yield estimates of linear effects beside least squares and instrumental variables of statsmodels and pgmpy's."""
    import pandas
    import statsmodels.api as sm
    from pgmpy.estimators.LinearModel import LinearEstimator
    from statsmodels.sandbox.regression.gmm import IV2SLS

    for seed in range(count):
        graph, treatment, outcome = question(seed)
        how = answer(graph, treatment, outcome)
        if how is None:
            continue
        rng = np.random.default_rng([seed, 1])
        data = linear_model(CausalGraph(graph.edges, graph.variables), rng).sample(SAMPLES, rng)
        frame = pandas.DataFrame({name: data[name] for name in graph.observed})

        def slopes(target: str, *regressors: str, frame: pandas.DataFrame = frame) -> pandas.Series:
            return sm.OLS(frame[target], sm.add_constant(frame[list(regressors)])).fit().params

        try:
            ours = linear_effect(dict(frame.items()), how, resamples=100).value
        except WeakInstrument:
            yield {
                "seed": seed,
                "way": "weak instrument",
                "ours": "",
                "theirs": "",
                "by": "",
                "difference": "",
            }
            continue
        if isinstance(how, BackDoor):
            by = "pgmpy"
            fitted = LinearEstimator(graph.to_networkx()).fit(treatment, outcome, how.adjustment, frame)
            theirs = fitted.ate
        elif isinstance(how, FrontDoor):
            by = "statsmodels"
            onto = slopes(outcome, *how.mediators, treatment)
            theirs = sum(slopes(name, treatment)[treatment] * onto[name] for name in how.mediators)
        else:
            by = "statsmodels"
            given = list(how.given)
            found = IV2SLS(
                frame[outcome],
                sm.add_constant(frame[[treatment, *given]]),
                sm.add_constant(frame[[how.instrument, *given]]),
            ).fit()
            theirs = found.params[treatment]
        yield {
            "seed": seed,
            "way": type(how).__name__,
            "ours": ours,
            "theirs": float(theirs),
            "by": by,
            "difference": abs(ours - float(theirs)),
        }
    yield from _discrete()


def _discrete() -> Iterator[Row]:
    """Yield E[y | do(x = 1)] of binary data by the formulas of `discrete_effect` and by causalrl's estimand."""
    import causalrl

    for way, edges in (
        ("BackDoor", [("z", "x"), ("z", "y"), ("x", "y")]),
        ("FrontDoor", [("z", "x"), ("z", "y"), ("x", "m"), ("m", "y")]),
    ):
        hidden = ["z"] if way == "FrontDoor" else []
        graph = CausalGraph(edges, hidden=hidden)
        whole = causalrl.CausalGraph(list(edges), nodes=list(graph.variables)).latent_projection(
            graph.observed
        )
        for seed in range(10):
            rng = np.random.default_rng(seed)
            z = rng.random(2000) < 0.5
            x = rng.random(2000) < np.where(z, 0.7, 0.3)
            m = rng.random(2000) < np.where(x, 0.8, 0.2)
            y = rng.random(2000) < 0.1 + 0.3 * z + 0.4 * (m if way == "FrontDoor" else x)
            data = {name: column.astype(int) for name, column in (("z", z), ("x", x), ("m", m), ("y", y))}
            data = {name: data[name] for name in graph.observed}
            how = identify(graph, "x", "y")
            assert isinstance(how, BackDoor | FrontDoor)
            ours = discrete_effect(data, how)[1.0]
            theirs = causalrl.estimate_effect(whole, ["x"], ["y"], data, do={"x": 1})[1,]
            yield {
                "seed": seed,
                "way": f"{way}, frequencies",
                "ours": ours,
                "theirs": theirs,
                "by": "causalrl",
                "difference": abs(ours - theirs),
            }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--graphs", type=int, default=1000, help="random graphs, by their seeds from 0 (1000)"
    )
    parser.add_argument("--out", type=Path, default=Path("results/causal/agreement"), help="where to write")
    args = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    rows = list(identification(args.graphs))
    write(args.out / "identification.csv", rows)
    for way in ("BackDoor", "FrontDoor", "Instrument", NONE):
        chosen = [row for row in rows if row["way"] == way]
        print(
            f"{way:16} {len(chosen):4}; identifiable by ID: {sum(row['causalrl_identifiable'] for row in chosen)}"
        )
    both = sum(row["back_door"] == row["pgmpy_back_door"] for row in rows)
    valid = [row["back_door_valid_for_pgmpy"] for row in rows if row["back_door"]]
    print(f"back door: {both} of {len(rows)} as pgmpy; {sum(valid)} of {len(valid)} sets valid for pgmpy")
    same = sum(row["same_single_mediators"] for row in rows)
    found = sum(row["single_mediators"] for row in rows)
    print(f"front door by one mediator: {same} of {len(rows)} as pgmpy, {found} found")
    rows = list(effects(args.graphs))
    write(args.out / "effects.csv", rows)
    for way, by in dict.fromkeys((row["way"], row["by"]) for row in rows):
        found = [row["difference"] for row in rows if (row["way"], row["by"]) == (way, by)]
        worst = f", greatest difference {max(found):.1e}" if by else ""
        print(f"{way} by {by or 'nobody'}: {len(found)}{worst}")


if __name__ == "__main__":
    main()
