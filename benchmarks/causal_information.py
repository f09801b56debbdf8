"""Causes of a step by conditional mutual information (masked networks) beside nested regressions.

    python benchmarks/causal_information.py                 # everything, some four minutes of one thread
    python benchmarks/causal_information.py shapes          # one part

``drift`` seeks the causes of drift control's components, in random play and after interventions. ``shapes`` has targets
whose dependence no polynomial of low degree shows. ``independence`` counts false edges among inputs that go together
(pairwise correlation 0.8) and have linear effects. Each part writes results/causal/information/<part>.csv, a row a run
and test. Edges are told at alpha 0.001; false edges are counted at 0.01 as well. Seconds are CPU seconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tables import write

import qio_envs
from qio_rllib.artifacts.run_description import cpu_model
from qio_rllib.causal.datasets import intervened_transitions, observed_transitions, true_mask
from qio_rllib.causal.information import information_graph
from qio_rllib.causal.transitions import TransitionGraph, transition_graph

ALPHA, LOOSE = 0.001, 0.01
SHAPES = ("magnitude", "sign", "oscillation", "product", "spread")
TESTS: dict[str, Callable[[np.ndarray, np.ndarray, int], TransitionGraph]] = {
    "regression, degree 2": lambda x, y, seed: transition_graph(x, y, degree=2),
    "regression, degree 3": lambda x, y, seed: transition_graph(x, y, degree=3),
    "information": lambda x, y, seed: information_graph(x, y, seed=seed),
}


class Case(NamedTuple):
    """Data whose causes are known."""

    kind: str
    samples: int
    inputs: np.ndarray
    targets: np.ndarray
    truth: np.ndarray  # bool [T, I]


def drift(seed: int) -> Iterator[Case]:
    """Yield transitions of drift control; the reward, which needs everything, is left out."""
    for scenario, gather, counts in (
        ("default", observed_transitions, (1_600,)),
        ("default", intervened_transitions, (200, 1_600)),
        ("distractors", intervened_transitions, (1_600,)),
    ):
        if scenario != "default" and seed >= 1:
            continue  # 14 inputs take long
        env = qio_envs.environment("drift_control_v0").batched_env(20, scenario=scenario)
        name = "observed" if gather is observed_transitions else "intervened"
        for count in counts:
            data = gather(env, count, seed)
            kind = f"{scenario}, {name}"
            yield Case(kind, count, data.inputs, data.targets[:, :-1], true_mask(env)[:-1])


def shapes(seed: int) -> Iterator[Case]:
    """Yield inputs uniform in [-2, 2] and a target for each of `SHAPES`, with noise of deviation 0.3."""
    for count in (400, 1_000):
        rng = np.random.default_rng([count, seed])
        x = rng.uniform(-2, 2, (count, 6))
        noise = rng.standard_normal((count, 5))
        targets = [np.abs(x[:, 0]), np.sign(x[:, 1]), np.sin(3 * x[:, 2]), x[:, 3] * np.abs(x[:, 4])]
        y = np.stack(
            [target + 0.3 * noise[:, place] for place, target in enumerate(targets)]
            + [(0.2 + np.abs(x[:, 5])) * noise[:, 4]],
            axis=1,
        )
        truth = np.zeros((5, 6), bool)
        truth[[0, 1, 2, 3, 3, 4], [0, 1, 2, 3, 4, 5]] = True
        yield Case("shapes", count, x, y, truth)


def independence(seed: int) -> Iterator[Case]:
    """Yield linear effects of inputs that go together, on four targets of which one has no cause."""
    weights = np.zeros((4, 6))
    weights[0, 0], weights[1, [1, 2]], weights[2, 3] = 1.0, (0.6, -0.8), 0.5
    for count in (500, 3_000, 20_000):
        rng = np.random.default_rng([count, seed])
        x = np.sqrt(0.2) * rng.standard_normal((count, 6)) + np.sqrt(0.8) * rng.standard_normal((count, 1))
        yield Case("correlated", count, x, x @ weights.T + rng.standard_normal((count, 4)), weights != 0)


PARTS: dict[str, tuple[Callable[[int], Iterator[Case]], int]] = {
    "drift": (drift, 3),
    "shapes": (shapes, 3),
    "independence": (independence, 5),
}


def row_of(case: Case, test: str, seed: int, part: str) -> dict[str, Any]:
    """Return what a test finds in a case."""
    start = time.process_time()
    found = TESTS[test](case.inputs, case.targets, seed)
    seconds = time.process_time() - start
    mask, truth = found.p_values < ALPHA, case.truth
    row = {
        "kind": case.kind,
        "samples": case.samples,
        "test": test,
        "seed": seed,
        "f1": float(2 * (mask & truth).sum() / (mask.sum() + truth.sum())),
        "edges": int(truth.sum()),
        "found": int((mask & truth).sum()),
        "others": int((~truth).sum()),
        "false": int((mask & ~truth).sum()),
        "false_at_0.01": int(((found.p_values < LOOSE) & ~truth).sum()),
        "seconds": seconds,
    }
    if part == "shapes":
        whole = [int(mask[place][truth[place]].all()) for place in range(len(SHAPES))]
        row |= dict(zip(SHAPES, whole, strict=True))
    return row | {"cpu": cpu_model()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all when absent", default=[]
    )
    parser.add_argument(
        "--out", type=Path, default=Path("results/causal/information"), help="folder of the results"
    )
    parser.add_argument("--runs", type=int, help="runs of each part, for a quick look")
    args = parser.parse_args(arguments)
    for name in args.parts:
        if name not in PARTS:
            parser.error(f"PART: expected some of {', '.join(PARTS)}, got {name!r}")
    for part in args.parts or PARTS:
        cases, runs = PARTS[part]
        rows = []
        for seed in range(args.runs or runs):
            for case in cases(seed):
                rows += [row_of(case, test, seed, part) for test in TESTS]
            write(args.out / f"{part}.csv", rows)
        print(f"{part}:")
        for kind, samples, test in dict.fromkeys((r["kind"], r["samples"], r["test"]) for r in rows):
            chosen = [r for r in rows if (r["kind"], r["samples"], r["test"]) == (kind, samples, test)]
            total = {
                key: sum(r[key] for r in chosen) for key in chosen[0] if key not in ("kind", "test", "cpu")
            }
            print(
                f"  {kind:24}{samples:7,}  {test:22} F1 {total['f1'] / len(chosen):.3f}, found {total['found']} of "
                f"{total['edges']}, false {total['false']} of {total['others']} ({total['false_at_0.01']} at 0.01), "
                f"{total['seconds'] / len(chosen):.2f} s"
                + "".join(f", {shape} {total[shape]}" for shape in SHAPES if shape in total)
            )


if __name__ == "__main__":
    main()
