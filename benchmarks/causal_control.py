"""Controllers from confounded logs: what each way to the effect of an action is worth in the environment.

    python benchmarks/causal_control.py     # some three minutes

Ten logs of 5,000 transitions of confounded control, whose behaviour saw a variable u that moves the state as well. The
effect of the action by the back door (u recorded), the front door (the mediator recorded), an instrument (neither), and
by a regression whose graph leaves u out; the regulator for each, with the state's own dynamics known (1, as the oracle
has it) and estimated. Every controller plays the same 2,000 episodes as the oracle.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from tables import write

from qio_envs import confounded_control_v0
from qio_envs.api.scores import episode_scores, reference_scores
from qio_envs.confounded_control import logged, logged_graph
from qio_rllib.artifacts.run_description import cpu_model
from qio_rllib.causal.control import ControllerPolicy, ControlTask, offline_controller
from qio_rllib.causal.graph import CausalGraph
from qio_rllib.sampling.evaluation import FIRST_EVALUATION_SEED

TRANSITIONS, EPISODES = 5_000, 2_000
TASK = ControlTask.of(["s"], ["a"], ["s_next"], [1.0], [0.1])
UNRECORDED = {"back-door": (), "front-door": ("u",), "instrument": ("u", "m"), "naive": ("u", "m", "z")}
"""Way to the effect, and what the log does not hold for it."""


def known_graph(way: str) -> CausalGraph:
    """Return what whoever goes a way knows of causes; the naive way knows nothing of u."""
    edges = [edge for edge in logged_graph().edges if way != "naive" or "u" not in edge]
    return CausalGraph(edges)


def rows_of(logs: int, transitions: int, episodes: int) -> list[dict[str, Any]]:
    """Return a row for each log, way and kind of dynamics."""
    env = confounded_control_v0.batched_env(episodes)
    references = reference_scores(env, FIRST_EVALUATION_SEED)
    rows = []
    for seed in range(logs):
        log = logged(transitions, seed=seed)
        for way, unrecorded in UNRECORDED.items():
            data = {name: column for name, column in log.items() if name not in unrecorded}
            for kind, dynamics in (("known", np.eye(1)), ("estimated", None)):
                controller = offline_controller(data, known_graph(way), TASK, dynamics=dynamics, seed=seed)
                (effect,) = controller.effects
                scores = episode_scores(
                    env, lambda env, found=controller: ControllerPolicy(env, found), FIRST_EVALUATION_SEED
                )
                rows.append(
                    {
                        "way": way,
                        "dynamics": kind,
                        "log_seed": seed,
                        "transitions": transitions,
                        "effect": effect.value,
                        "low": effect.low,
                        "high": effect.high,
                        "state_effect": float(controller.dynamics[0, 0]),
                        "gain": float(controller.gain[0, 0]),
                        "episodes": episodes,
                        "score": float(scores.mean()),
                        "oracle": references["lqr"],
                        "no_action": references["zero"],
                        "behaviour": references["behaviour"],
                        "ratio": float(scores.mean() / references["lqr"]),
                        "how": str(effect.how),
                        "cpu": cpu_model(),
                    }
                )
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--logs", type=int, default=10, help="logs, by their seeds from 0 (10)")
    parser.add_argument("--transitions", type=int, default=TRANSITIONS, help="of a log (5000)")
    parser.add_argument("--episodes", type=int, default=EPISODES, help="of each controller (2000)")
    parser.add_argument("--out", type=Path, default=Path("results/causal"), help="folder of the results")
    args = parser.parse_args(arguments)
    rows = rows_of(args.logs, args.transitions, args.episodes)
    write(args.out / "control.csv", rows)
    print(f"{'way':12}{'dynamics':12}{'effect':>8}{'score':>10}{'over the oracle, mean and worst':>36}")
    for way in UNRECORDED:
        for kind in ("known", "estimated"):
            chosen = [row for row in rows if (row["way"], row["dynamics"]) == (way, kind)]
            effect, score, ratio = (
                np.mean([row[name] for row in chosen]) for name in ("effect", "score", "ratio")
            )
            worst = max(row["ratio"] for row in chosen)
            print(f"{way:12}{kind:12}{effect:8.3f}{score:10.1f}{ratio:24.4f}{worst:12.4f}")


if __name__ == "__main__":
    main()
