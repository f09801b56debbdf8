"""Causal graphs: separation beside networkx, discovery beside causal-learn, transitions, and how often intervals hold.

    python benchmarks/causal_discovery.py                  # everything, about five minutes
    python benchmarks/causal_discovery.py pc transitions   # some parts

Each part writes results/causal/<part>.csv. Seconds are CPU seconds of this process with one thread, the least of three
repetitions, both sides in turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tables import write

import qio_envs
from qio_rllib.artifacts.run_description import cpu_model
from qio_rllib.causal.datasets import intervened_transitions, observed_transitions, true_mask
from qio_rllib.causal.estimation import linear_effect
from qio_rllib.causal.graph import CausalGraph
from qio_rllib.causal.identification import BackDoor, FrontDoor, Instrument
from qio_rllib.causal.independence import FisherZ
from qio_rllib.causal.knowledge import Knowledge
from qio_rllib.causal.moments import Moments
from qio_rllib.causal.partial_graph import PartialGraph, structural_hamming_distance
from qio_rllib.causal.pc import pc
from qio_rllib.causal.scm import StructuralModel
from qio_rllib.causal.score_search import GaussianBIC, order_search
from qio_rllib.causal.transitions import transition_graph

Row = dict[str, Any]


def least_seconds(*functions: Callable[[], Any]) -> tuple[list[float], list[Any]]:
    """Return the least CPU seconds of three turns of each function, and what each returned."""
    seconds, found = [float("inf")] * len(functions), [None] * len(functions)
    for _ in range(3):
        for place, function in enumerate(functions):
            start = time.process_time()
            found[place] = function()
            seconds[place] = min(seconds[place], time.process_time() - start)
    return seconds, found


def random_graph(rng: np.random.Generator, size: int, degree: float) -> CausalGraph:
    """Return a graph of variables with so many neighbours each on average, in an order of no meaning."""
    upper = np.triu(rng.random((size, size)) < degree / (size - 1), 1)
    order = rng.permutation(size)
    return CausalGraph.from_adjacency(upper[order][:, order])


def linear_model(graph: CausalGraph, rng: np.random.Generator) -> StructuralModel:
    """Return slopes of size 0.5 to 1.5, either sign, and unit noises."""
    slopes = {
        name: {cause: rng.uniform(0.5, 1.5) * rng.choice([-1, 1]) for cause in sorted(graph.parents(name))}
        for name in graph.variables
    }
    return StructuralModel.linear(graph, slopes, dict.fromkeys(graph.variables, 1.0))


def separation(repeats: int) -> list[Row]:
    """Questions of d-separation on random graphs of 4 to 12 variables, beside networkx."""
    import networkx

    rng = np.random.default_rng(0)
    questions = []
    for _ in range(repeats):
        size = int(rng.integers(4, 13))
        graph = random_graph(rng, size, rng.uniform(0.5, 4.0))
        first, second, *rest = (graph.variables[i] for i in rng.permutation(size))
        given = {name for name in rest if rng.random() < 0.3}
        questions.append((graph, graph.to_networkx(), first, second, given))
    seconds, (ours, theirs) = least_seconds(
        lambda: [graph.is_d_separated(a, b, given) for graph, _, a, b, given in questions],
        lambda: [networkx.is_d_separator(other, a, b, given) for _, other, a, b, given in questions],
    )
    return [
        {
            "questions": repeats,
            "separated": sum(ours),
            "disagreements": sum(a != b for a, b in zip(ours, theirs, strict=True)),
            "qio_microseconds": seconds[0] / repeats * 1e6,
            "networkx_microseconds": seconds[1] / repeats * 1e6,
            "ratio": seconds[1] / seconds[0],
        }
    ]


def against_causal_learn(repeats: int) -> list[Row]:
    """The PC algorithm beside causal-learn's on the same data, and the search by score."""
    from causallearn.search.ConstraintBased.PC import pc as their_pc

    rows = []
    for degree in (2, 3):
        for seed in range(repeats):
            rng = np.random.default_rng([degree, seed])
            graph = random_graph(rng, 10, degree)
            columns = linear_model(graph, rng).sample(2_000, rng)
            data = np.stack([columns[name] for name in graph.variables], axis=1)

            def ours(data: np.ndarray = data, names: tuple[str, ...] = graph.variables) -> PartialGraph:
                return pc(FisherZ(Moments.of(data, names)), 0.05).graph

            def theirs(data: np.ndarray = data) -> np.ndarray:
                return their_pc(data, 0.05, "fisherz", show_progress=False).G.graph

            def by_score(data: np.ndarray = data, names: tuple[str, ...] = graph.variables) -> CausalGraph:
                return order_search(GaussianBIC([Moments.of(data, names)]))

            seconds, (found, other, scored) = least_seconds(ours, theirs, by_score)
            truth = PartialGraph.of(graph)
            other_graph = PartialGraph(other == -1, graph.variables)
            rows.append(
                {
                    "degree": degree,
                    "seed": seed,
                    "qio_shd": structural_hamming_distance(found, truth),
                    "causal_learn_shd": structural_hamming_distance(other_graph, truth),
                    "score_shd": structural_hamming_distance(PartialGraph.of(scored), truth),
                    "same_skeleton": int(np.array_equal(found.skeleton, other_graph.skeleton)),
                    "qio_ms": seconds[0] * 1e3,
                    "causal_learn_ms": seconds[1] * 1e3,
                    "score_ms": seconds[2] * 1e3,
                    "ratio": seconds[1] / seconds[0],
                }
            )
    return rows


def chain_model() -> StructuralModel:
    """Return the chain X1, X2, X3 with two actions, of which one does nothing."""
    edges = [("a0", "x2"), ("x1", "x2"), ("x1", "x3"), ("x2", "x3")]

    def uniform(rng: np.random.Generator, count: int) -> np.ndarray:
        return rng.uniform(-1.0, 1.0, count)

    return StructuralModel.linear(
        CausalGraph(edges, ["a0", "a1", "x1", "x2", "x3"]),
        {"x2": {"x1": 0.7, "a0": 0.5}, "x3": {"x2": 0.8, "x1": 0.3}},
        {"a0": uniform, "a1": uniform, "x1": 0.5, "x2": 0.3, "x3": 0.4},
    )


def chain(repeats: int) -> list[Row]:
    """How often the chain is found exactly, with actions as variables of an earlier tier and without."""
    model = chain_model()
    knowledge = Knowledge(tiers=[["a0", "a1"], ["x1", "x2", "x3"]], separate=[0])
    rows = []
    for alpha in (0.01, 0.001):
        for samples in (200, 500, 1_000):
            exact = directed = 0
            for seed in range(repeats):
                columns = model.sample(samples, np.random.default_rng([samples, seed]))
                found = pc(FisherZ(Moments.of(columns)), alpha, knowledge).graph
                exact += set(found.directed_edges) == set(model.graph.edges) and not found.undirected_edges
                states = {name: columns[name] for name in ("x1", "x2", "x3")}
                directed += len(pc(FisherZ(Moments.of(states)), alpha).graph.directed_edges)
            rows.append(
                {
                    "alpha": alpha,
                    "samples": samples,
                    "runs": repeats,
                    "exact": exact,
                    "directed_by_states_alone": directed,
                }
            )
    return rows


def transitions(repeats: int) -> list[Row]:
    """Edges of drift control's transitions from random play and after interventions."""
    rows = []
    for scenario, alpha in (("default", 0.001), ("default", 0.01), ("distractors", 0.001)):
        env = qio_envs.environment("drift_control_v0").batched_env(20, scenario=scenario)
        truth = true_mask(env)[:-1]  # of the components; the reward needs everything
        for kind, gather, counts in (
            ("observed", observed_transitions, (400, 1_600, 6_400)),
            ("intervened", intervened_transitions, (100, 200, 400, 1_600)),
        ):
            for count in counts:
                if count < 150 and scenario == "distractors":
                    continue  # fewer than the products of its inputs
                scores, false = [], []
                for seed in range(repeats):
                    data = gather(env, count, seed)
                    mask = transition_graph(data.inputs, data.targets[:, :-1], alpha=alpha).mask
                    scores.append(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
                    false.append((mask & ~truth).sum() / (~truth).sum())
                rows.append(
                    {
                        "scenario": scenario,
                        "alpha": alpha,
                        "data": kind,
                        "transitions": count,
                        "runs": repeats,
                        "f1": float(np.mean(scores)),
                        "exact": int(np.sum(np.array(scores) == 1.0)),
                        "false_edges": float(np.mean(false)),
                    }
                )
    return rows


def pooled(repeats: int) -> list[Row]:
    """Graphs from the sums of ten owners of data, beside those of each owner alone and of the concatenated data."""
    rows = []
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        graph = random_graph(rng, 10, 2)
        columns = linear_model(graph, rng).sample(2_000, rng)
        data = np.stack([columns[name] for name in graph.variables], axis=1)
        truth = PartialGraph.of(graph)
        parts = [Moments.of(part, graph.variables) for part in np.split(data, 10)]
        together = pc(FisherZ(Moments.pooled(parts)), 0.05).graph
        whole = pc(FisherZ(Moments.of(data, graph.variables)), 0.05).graph
        alone = [structural_hamming_distance(pc(FisherZ(part), 0.05).graph, truth) for part in parts]
        rows.append(
            {
                "seed": seed,
                "alone_shd": float(np.mean(alone)),
                "pooled_shd": structural_hamming_distance(together, truth),
                "equal_to_concatenated": int(together == whole),
            }
        )
    return rows


def confounded(count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return logs of the confounded system, whose effect of a on y is 0.5."""
    s, u, z = rng.standard_normal(count), 0.5 * rng.standard_normal(count), 0.3 * rng.standard_normal(count)
    a = -0.3 * s - u + z + 0.1 * rng.standard_normal(count)
    m = a + 0.3 * rng.standard_normal(count)
    return {"s": s, "u": u, "z": z, "a": a, "m": m, "y": s + 0.5 * m + u + 0.1 * rng.standard_normal(count)}


def coverage(repeats: int) -> list[Row]:
    """How often 95% intervals hold the true effect, and the estimates' mean and deviation."""
    ways = {
        "back-door": BackDoor("a", "y", ("s", "u")),
        "front-door": FrontDoor("a", "y", ("m",)),
        "instrument": Instrument("a", "y", "z", ("s",)),
        "naive": BackDoor("a", "y", ()),
    }
    found: dict[str, list[tuple[float, bool]]] = {name: [] for name in ways}
    for seed in range(repeats):
        data = confounded(1_000, np.random.default_rng(seed))
        for name, way in ways.items():
            effect = linear_effect(data, way, seed=seed)
            found[name].append((effect.value, effect.low <= 0.5 <= effect.high))
    return [
        {
            "way": name,
            "simulations": repeats,
            "mean": float(np.mean([value for value, _ in rows])),
            "deviation": float(np.std([value for value, _ in rows])),
            "coverage": float(np.mean([hit for _, hit in rows])),
        }
        for name, rows in found.items()
    ]


PARTS: dict[str, tuple[Callable[[int], list[Row]], int]] = {
    "separation": (separation, 1_500),
    "pc": (against_causal_learn, 20),
    "chain": (chain, 100),
    "transitions": (transitions, 20),
    "pooled": (pooled, 20),
    "coverage": (coverage, 1_000),
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all when absent")
    parser.add_argument("--out", type=Path, default=Path("results/causal"), help="folder of the results")
    parser.add_argument("--repeats", type=int, help="runs of each part, for a quick look")
    args = parser.parse_args(arguments)
    for name in args.parts:
        if name not in PARTS:
            parser.error(f"PART: expected some of {', '.join(PARTS)}, got {name!r}")
    for name in args.parts or PARTS:
        function, repeats = PARTS[name]
        rows = function(args.repeats or repeats)
        for row in rows:
            row |= {"cpu": cpu_model()}
        write(args.out / f"{name}.csv", rows)
        print(f"{name}:")
        for row in rows if len(rows) <= 24 else _means(rows):
            print("  " + ", ".join(f"{key} {_short(value)}" for key, value in row.items() if key != "cpu"))


def _means(rows: list[Row]) -> list[Row]:
    """Return the means of the numbers by the first column."""
    first = next(iter(rows[0]))
    groups = list(dict.fromkeys(row[first] for row in rows))
    numbers = [
        key for key, value in rows[0].items() if not isinstance(value, str) and key not in (first, "seed")
    ]
    return [
        {
            first: group,
            **{key: float(np.mean([row[key] for row in rows if row[first] == group])) for key in numbers},
        }
        for group in groups
    ]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
