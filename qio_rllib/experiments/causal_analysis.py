"""Causal graphs and effects of recorded data: what ``rllib causal`` does, without the command line."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import qio_envs
from qio_envs.api import ConfigError, did_you_mean
from qio_rllib.artifacts.causal_plots import draw_graph
from qio_rllib.artifacts.files import write_atomically, write_csv
from qio_rllib.causal.datasets import (
    INTERVENED,
    RANDOM,
    TransitionData,
    intervened_transitions,
    observed_transitions,
    play_graph,
)
from qio_rllib.causal.estimation import Effect, linear_effect
from qio_rllib.causal.graph import CausalGraph, Edge
from qio_rllib.causal.identification import check_adjustment, identify
from qio_rllib.causal.independence import FisherZ
from qio_rllib.causal.knowledge import Knowledge
from qio_rllib.causal.moments import DataError, Moments
from qio_rllib.causal.partial_graph import PartialGraph
from qio_rllib.causal.pc import pc
from qio_rllib.causal.score_search import GaussianBIC, order_search
from qio_rllib.causal.transitions import TESTS, TransitionGraph, transition_graph

METHODS = ("pc", "score", "transitions")
_ENVS_AT_ONCE = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Data to analyse.

    Attributes:
        columns: By name, ``[n]`` each.
        transitions: The same as inputs and targets of steps, where it comes from an environment.
        name: For headings.
        graph: How it came about, where that is known: the environment's graph and the way of acting.
        notes: What one ought to know, in words.
    """

    columns: dict[str, np.ndarray]
    transitions: TransitionData | None
    name: str
    graph: CausalGraph | None = None
    notes: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        """Rows."""
        return len(next(iter(self.columns.values())))

    def only(self, variables: Sequence[str]) -> Source:
        """Return the data of some variables; all when empty. Without any input or target there are no steps.

        Raises:
            ConfigError: There is no such variable.
        """
        if not variables:
            return self
        for name in variables:
            if name not in self.columns:
                raise ConfigError(
                    f"--variables: there is no '{name}'{did_you_mean(name, tuple(self.columns))}"
                )
        steps = None if self.transitions is None else self.transitions.only(variables)
        if steps is not None and not (steps.input_names and steps.target_names):
            steps = None
        columns = {name: self.columns[name] for name in variables}
        return dataclasses.replace(self, columns=columns, transitions=steps)


@dataclasses.dataclass(frozen=True)
class Found:
    """A graph and how it was found.

    Attributes:
        graph: With directions where they follow.
        rows: A line for each edge: ``cause``, ``effect``, ``directed``, and the method's evidence.
        notes: What one ought to know, in words.
    """

    graph: CausalGraph | PartialGraph
    rows: list[dict[str, object]]
    notes: tuple[str, ...]


def read_source(
    source: str,
    samples: int = 1000,
    seed: int = 0,
    interventions: bool = False,
    variables: Sequence[str] = (),
) -> Source:
    """Return the data of a CSV file, or of random play in one of the environments of this suite.

    For runs, checkpoints and policy files see `causal_runs.read_policy`.

    Args:
        source: A path that ends in ``.csv``, or an environment's name.
        samples: Transitions from an environment.
        seed: Likewise.
        interventions: Whether the state is set at random before each transition.
        variables: Columns to keep; all when empty.

    Raises:
        ConfigError: No such file or environment, a table without rows, or a cell that is no number.
    """
    if source.endswith(".csv"):
        if interventions:
            raise ConfigError("--interventions: a file's rows are what they are; for environments alone")
        return Source(_read_columns(Path(source)), None, Path(source).name).only(variables)
    else:
        if source not in qio_envs.environments():
            raise ConfigError(
                f"SOURCE: expected a .csv file, a run, a checkpoint, a policy file, or one of "
                f"{', '.join(qio_envs.environments())}, got '{source}'"
                f"{did_you_mean(source, qio_envs.environments())}"
            )
        env = qio_envs.environment(source).batched_env(_ENVS_AT_ONCE)
        transitions = (intervened_transitions if interventions else observed_transitions)(env, samples, seed)
        graph = play_graph(env, INTERVENED if interventions else RANDOM)
        return source_of_steps(transitions, source, graph).only(variables)


def source_of_steps(
    transitions: TransitionData, name: str, graph: CausalGraph | None, notes: Sequence[str] = ()
) -> Source:
    """Return the data of steps; what never changes is left out and named in a note.

    An action of two choices is also one number, 0 or 1, by its name in the graph.
    """
    columns, kept = transitions.columns(), transitions.varying()
    left = [column for column in columns if column not in {*kept.input_names, *kept.target_names}]
    columns = kept.columns()
    if graph is not None and transitions.num_one_hot == 2:
        both = transitions.input_names[-1].rpartition("[")[0]
        if both in graph.variables:
            columns[both] = transitions.inputs[:, -1]
    notes = [*notes, *([f"never changes and is left out: {', '.join(left)}"] if left else [])]
    return Source(columns, kept, name, graph, tuple(notes))


def discover(
    source: Source,
    method: str | None = None,
    alpha: float | None = None,
    degree: int = 2,
    knowledge: Knowledge | None = None,
    test: str | None = None,
    seed: int = 0,
) -> Found:
    """Find the causal graph of data.

    Args:
        source: The data.
        method: "pc" (tests of conditional independence), "score" (BIC) or "transitions" (what follows a step);
            "transitions" for environments and "pc" for files when absent.
        alpha: Level of a test; 0.05 for pc and 0.001 for transitions when absent.
        degree: Of the products in regressions of transitions.
        knowledge: What is known beforehand, for pc and score.
        test: Of transitions: "regression", which is meant when absent, or "information".
        seed: Of the networks of "information".

    Raises:
        ConfigError: A method that does not fit, or what the method refuses.
    """
    kind = method or ("transitions" if source.transitions is not None else "pc")
    if kind not in METHODS:
        raise ConfigError(
            f"--method: expected one of {', '.join(METHODS)}, got '{kind}'{did_you_mean(kind, METHODS)}"
        )
    if test is not None and (kind != "transitions" or test not in TESTS):
        expected = f"{' or '.join(TESTS)} of transitions"
        raise ConfigError(f"--test: expected {expected}, got '{test}' of {kind}{did_you_mean(test, TESTS)}")
    if kind == "transitions":
        data = source.transitions
        if data is None:
            raise ConfigError("--method: transitions are those of an environment; for files pc or score")
        if knowledge is not None:
            raise ConfigError(
                "--tiers, --require, --forbid: transitions have their order from time; for pc and score"
            )
        steps = _steps(data, 0.001 if alpha is None else alpha, degree, test or TESTS[0], seed)
        rows = []
        for t, i in np.argwhere(steps.mask).tolist():
            evidence = {"p_value": steps.p_values[t, i]}
            if steps.information is not None:
                evidence["nats"] = steps.information[t, i]
            rows.append(_row(data.input_names[i], data.target_names[t], True, **evidence))
        return Found(steps.to_graph(), rows, source.notes)
    moments = Moments.of(source.columns)
    if kind == "score":
        if alpha is not None:
            raise ConfigError("--alpha: a search by score makes no tests; for pc and transitions")
        score = GaussianBIC([moments])
        best = order_search(score, knowledge)
        known = (knowledge or Knowledge()).read(moments.variables)
        by_data = not (known.required.any() or (~known.allowed).sum() > len(known.allowed))
        graph: CausalGraph | PartialGraph = PartialGraph.of(best) if by_data else best
        rows = [_row(a, b, True, gain=_gain(score, best, a, b)) for a, b in best.edges if _is_in(graph, a, b)]
        rows += [
            _row(a, b, False, gain=_gain(score, best, *((a, b) if (a, b) in best.edges else (b, a))))
            for a, b in (graph.undirected_edges if isinstance(graph, PartialGraph) else ())
        ]
        return Found(graph, rows, ())
    tested = pc(FisherZ(moments), 0.05 if alpha is None else alpha, knowledge)
    rows = []
    for directed, edges in ((True, tested.graph.directed_edges), (False, tested.graph.undirected_edges)):
        for first, second in edges:
            key = (first, second) if (first, second) in tested.p_values else (second, first)
            rows.append(_row(first, second, directed, p_value=tested.p_values.get(key, math.nan)))
    notes = (
        () if tested.graph.is_acyclic else ("the directed edges make a cycle: tests contradict each other",)
    )
    return Found(tested.graph, rows, notes)


def estimate(
    source: Source,
    graph: CausalGraph | None,
    treatment: str,
    outcome: str,
    adjustment: Sequence[str] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Effect:
    """Estimate the effect of a treatment on an outcome by what a graph says.

    Args:
        source: The data.
        graph: Which variables cause which; the data's own when absent.
        treatment: What is set.
        outcome: What it changes.
        adjustment: Variables to adjust for; what the graph asks for when absent.
        level: Of the interval, in (0, 1).
        seed: Of the bootstrap.

    Raises:
        ConfigError: The effect is not identified, or the data does not carry it.
    """
    graph = source.graph if graph is None else graph
    if graph is None:
        raise ConfigError(
            f"Missing option '--graph': nothing tells which variables of {source.name} cause which"
        )
    unseen = [name for name in graph.observed if name not in source.columns]
    if unseen:
        graph = CausalGraph(graph.edges, graph.variables, [*graph.hidden, *unseen])
    how = (
        identify(graph, treatment, outcome)
        if adjustment is None
        else check_adjustment(graph, treatment, outcome, adjustment)
    )
    return linear_effect(source.columns, how, level=level, seed=seed)


def save_found(found: Found, out: Path, title: str) -> None:
    """Write ``graph.json``, which `read_graph` reads, ``edges.csv`` and ``graph.png``."""
    out.mkdir(parents=True, exist_ok=True)
    graph = found.graph
    directed = graph.edges if isinstance(graph, CausalGraph) else graph.directed_edges
    undirected = () if isinstance(graph, CausalGraph) else graph.undirected_edges
    described = {"variables": graph.variables, "edges": directed, "undirected": undirected, "hidden": ()}
    write_atomically(out / "graph.json", json.dumps(described, indent=1) + "\n")
    write_csv(out / "edges.csv", found.rows or [{"cause": "", "effect": "", "directed": ""}])
    draw_graph(graph, out / "graph.png", title)


def read_graph(text: str, hidden: Sequence[str] = ()) -> CausalGraph:
    """Return the graph of a text such as ``u -> a, u -> y, a -> y``, or of a ``graph.json``.

    Args:
        text: Edges, or a path that ends in ``.json``.
        hidden: Variables that no data shows.

    Raises:
        ConfigError: No edge, an unreadable file, edges without a direction, or what `CausalGraph` refuses.
    """
    if text.endswith(".json"):
        try:
            described = json.loads(Path(text).read_text(encoding="utf-8"))
            edges = [(str(a), str(b)) for a, b in described["edges"]]
            variables = [str(name) for name in described["variables"]]
            undirected = described.get("undirected") or []
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigError(f"--graph: cannot read {text}: {error}") from error
        if undirected:
            first, second = undirected[0]
            raise ConfigError(f"--graph: {first} - {second} has no direction in {text}; write the edges out")
        return CausalGraph(edges, variables, hidden)
    return CausalGraph(read_edges("--graph", text), (), hidden)


def read_edges(option: str, text: str) -> list[Edge]:
    """Return the edges of a text such as ``a -> b, b -> c``.

    Raises:
        ConfigError: Something that is no edge.
    """
    edges = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\S+)\s*->\s*(\S+)\s*", part)
        if match is None:
            raise ConfigError(f"{option}: expected edges such as 'a -> b, b -> c', got '{part.strip()}'")
        edges.append((match[1], match[2]))
    return edges


def _steps(data: TransitionData, alpha: float, degree: int, test: str, seed: int) -> TransitionGraph:
    arrays = (data.inputs, data.targets, data.input_names, data.target_names)
    if test == "regression":
        return transition_graph(*arrays, alpha=alpha, degree=degree, num_one_hot=data.num_one_hot)
    from qio_rllib.causal.information import information_graph  # torch

    return information_graph(*arrays, alpha=alpha, seed=seed, num_one_hot=data.num_one_hot)


def _row(cause: str, effect: str, directed: bool, **evidence: float) -> dict[str, object]:
    return {"cause": cause, "effect": effect, "directed": int(directed), **evidence}


def _is_in(graph: CausalGraph | PartialGraph, cause: str, effect: str) -> bool:
    edges = graph.edges if isinstance(graph, CausalGraph) else graph.directed_edges
    return (cause, effect) in edges


def _gain(score: GaussianBIC, graph: CausalGraph, cause: str, effect: str) -> float:
    """Return by how much a score falls without an edge."""
    place = score.variables.index(effect)
    causes = frozenset(score.variables.index(name) for name in graph.parents(effect))
    return score.local(place, causes) - score.local(place, causes - {score.variables.index(cause)})


def _read_columns(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"SOURCE: cannot read {path}: {why}") from error
    if not header or not rows:
        raise DataError(f"{path}: expected a line of names and rows of numbers")
    if len(set(header)) < len(header):
        raise DataError(
            f"{path}: the column {next(n for n in header if header.count(n) > 1)} stands there twice"
        )
    columns: dict[str, list[float]] = {name: [] for name in header}
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise DataError(f"{path}, line {line}: {len(row)} cells, expected {len(header)}")
        for name, cell in zip(header, row, strict=True):
            try:
                columns[name].append(float(cell))
            except ValueError:
                raise DataError(f"{path}, line {line}: {name} is '{cell}', expected a number") from None
    return {name: np.array(values) for name, values in columns.items()}
