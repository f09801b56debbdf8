"""The PC algorithm: a causal graph from tests of conditional independence."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from qio_envs.api import ConfigError
from qio_rllib.causal.knowledge import Constraints, Knowledge
from qio_rllib.causal.partial_graph import PartialGraph, apply_meek_rules, unshielded_triples

_TESTS_AT_ONCE = 50_000


class IndependenceTest(Protocol):
    """A test of conditional independence, over many questions at once."""

    variables: tuple[str, ...]

    def log_p_values(self, tests: np.ndarray) -> np.ndarray:
        """Return logarithms of p-values ``[K]`` of tests ``[K, 2 + |S|]``: places of first, second and given ones."""


@dataclasses.dataclass(frozen=True)
class Discovered:
    """What `pc` found.

    Attributes:
        graph: With directions where they follow.
        separating: By pair of names, in the order of the variables: what makes them independent.
        p_values: By pair of names: of the test that parted them, or the largest of those that did not.
        tests: Tests that were made.
    """

    graph: PartialGraph
    separating: dict[tuple[str, str], tuple[str, ...]]
    p_values: dict[tuple[str, str], float]
    tests: int


def pc(
    test: IndependenceTest,
    alpha: float = 0.05,
    knowledge: Knowledge | None = None,
    max_given: int | None = None,
) -> Discovered:
    """Find a graph by the PC algorithm (Spirtes, Glymour and Scheines 2000), in the order-independent form.

    Edges are removed at the end of each size of conditioning sets (PC-stable, Colombo and Maathuis 2014), so that the
    order of the variables does not matter; all tests of one size are made at once. Of the sets that part a pair the one
    with the largest p-value decides colliders (Ramsey 2016); contradicting colliders are settled in the order of these
    p-values. Meek's rules direct what follows.

    Assumes that there is no hidden common cause, and that independences in the data are those of the graph
    (faithfulness); the result may have cycles where tests contradict each other.

    Args:
        test: Such as `FisherZ`.
        alpha: Level above which a p-value counts as independence, in (0, 1).
        knowledge: What is known; required edges are not tested.
        max_given: Most variables in a conditioning set; without a limit when absent.

    Raises:
        ConfigError: A level out of range, or what the test or the knowledge refuses.
    """
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha: expected a number in (0, 1), got {alpha!r}")
    if max_given is not None and max_given < 0:
        raise ConfigError(f"max_given: expected at least 0, got {max_given!r}")
    known = (knowledge or Knowledge()).read(test.variables)
    skeleton, separating, log_p, tests = _skeleton(test, math.log(alpha), known, max_given)
    marks = _directed(skeleton, separating, log_p, known)
    names = test.variables
    return Discovered(
        PartialGraph(marks, names),
        {(names[i], names[j]): tuple(names[k] for k in given) for (i, j), given in separating.items()},
        {(names[i], names[j]): math.exp(value) for (i, j), value in log_p.items()},
        tests,
    )


Pair = tuple[int, int]


def _skeleton(
    test: IndependenceTest, log_alpha: float, known: Constraints, max_given: int | None
) -> tuple[np.ndarray, dict[Pair, tuple[int, ...]], dict[Pair, float], int]:
    skeleton = known.allowed | known.allowed.T
    fixed = known.required | known.required.T
    separating: dict[Pair, tuple[int, ...]] = {}
    log_p: dict[Pair, float] = {}
    count = 0
    for size in itertools.count():
        if max_given is not None and size > max_given:
            break
        rows, pairs = [], []
        for i, j in np.argwhere(np.triu(skeleton & ~fixed)).tolist():
            for given in _conditioning_sets(skeleton, known.tier, i, j, size):
                rows.append((i, j, *given))
                pairs.append((i, j))
        if not rows:
            break
        tests = np.array(rows, np.intp)
        values = np.concatenate(
            [
                test.log_p_values(tests[start : start + _TESTS_AT_ONCE])
                for start in range(0, len(tests), _TESTS_AT_ONCE)
            ]
        ).tolist()
        count += len(rows)
        best: dict[Pair, int] = {}
        for row, pair in enumerate(pairs):
            if pair not in best or values[row] > values[best[pair]]:
                best[pair] = row
        for pair, row in best.items():
            if values[row] > log_alpha:
                skeleton[pair] = skeleton[pair[::-1]] = False
                separating[pair], log_p[pair] = rows[row][2:], values[row]
            else:
                log_p[pair] = max(values[row], log_p.get(pair, -math.inf))
    return skeleton, separating, log_p, count


def _conditioning_sets(
    skeleton: np.ndarray, tier: np.ndarray, i: int, j: int, size: int
) -> Iterator[tuple[int, ...]]:
    """Yield the sets of neighbours of either that may part two variables: none from a tier after both."""
    latest = max(tier[i], tier[j])
    seen = set()
    for one, other in ((i, j), (j, i)):
        near = [k for k in np.flatnonzero(skeleton[one]).tolist() if k != other]
        if tier[i] >= 0 and tier[j] >= 0:
            near = [k for k in near if tier[k] <= latest]
        for given in itertools.combinations(near, size):
            if given not in seen:
                seen.add(given)
                yield given


def _directed(
    skeleton: np.ndarray,
    separating: dict[Pair, tuple[int, ...]],
    log_p: dict[Pair, float],
    known: Constraints,
) -> np.ndarray:
    """Return the skeleton with the directions of knowledge, of colliders, and of what follows."""
    marks = skeleton & known.allowed
    colliders = [
        (i, j, k)
        for i, j, k in unshielded_triples(skeleton)
        if (i, k) in separating and j not in separating[i, k]
    ]
    colliders.sort(key=lambda triple: -log_p[triple[0], triple[2]])
    for i, j, k in colliders:
        if marks[i, j] and marks[k, j] and not _reaches(marks & ~marks.T, j, (i, k)):
            marks[j, i] = marks[j, k] = False
    apply_meek_rules(marks)
    return marks


def _reaches(directed: np.ndarray, start: int, goals: tuple[int, ...]) -> bool:
    """Return whether directed edges lead from a variable to one of some others."""
    reached = np.zeros(len(directed), bool)
    frontier = directed[start]
    while (frontier & ~reached).any():
        reached |= frontier
        frontier = directed[frontier].any(0)
    return bool(reached[list(goals)].any())
