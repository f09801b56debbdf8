"""The counterfactual baseline: its variance against closed forms, and whether PPO learns better with it.

    python benchmarks/causal_baseline.py variance          # the causal chain: environment branches and structural model
    python benchmarks/causal_baseline.py cost              # what the branches cost in CPU seconds
    python benchmarks/causal_baseline.py control --seeds 10
    python benchmarks/causal_baseline.py control --table   # the table of what is there, without training
    python benchmarks/causal_baseline.py model --seeds 10   # likewise, with a learned model in the environment's place

``variance``: single-sample gradients with respect to the mean of the policy N(0, sigma^2) over a0. With a perfect value
baseline their variance is 0.32 + 0.2176 / sigma^2, with the counterfactual one 0.32. The negative control takes x2 as
exogenous and holds it fixed: the mean gradient, 0.4, is lost. Without clipping: sigma is so small that a0 stays in
[-1, 1].

``control``: PPO on a small forest of four UAVs, MAPPO on the swarm, PPO on confounded control, in cells that share
environment, settings and seeds, and differ in what advantages are taken against. ``value``: the value estimate.
``counterfactual``: other actions under the same noise. ``average later``: these, and later temporal differences
averaged over actions too. Final score: 100 fixed evaluation episodes of the sampled policy;
training: the mean training return, that is the area under the learning curve. What is reported, and when a difference
counts as one, is said in `paired`. ``model``: ``learned model`` against ``value``, on the tasks without a central
value.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from paired import STEPS, Study, report, train
from tables import write

from qio_envs import causal_chain_v0
from qio_rllib.artifacts.run_description import run_description
from qio_rllib.causal.baseline import (
    environment_baseline,
    gaussian_gradients,
    gaussian_nodes,
    model_baseline,
)
from qio_rllib.causal.graph import CausalGraph
from qio_rllib.causal.scm import StructuralModel

EDGES = (("x1", "x2"), ("a0", "x2"), ("x1", "x3"), ("x2", "x3"))
SLOPES = {"x2": {"x1": 0.7, "a0": 0.5}, "x3": {"x2": 0.8, "x1": 0.3}}
NOISES = {"x1": 0.5, "x2": 0.3, "x3": 0.4}
VALUE_SLOPE = 0.86  # of the expected x3 on x1, the perfect value baseline
SIGMAS, NODES, ENVS = (0.3, 0.1), 2, 4096
KEY = "counterfactual_baseline"
CELLS: dict[str, dict[str, Any]] = {
    "value": {KEY: None},
    "counterfactual": {KEY: {}},
    "average later": {KEY: {"average_later": True}},
}
SMALL_FOREST = {
    "env_config.height": 12,
    "env_config.width": 12,
    "env_config.num_uavs": 4,
    "env_config.max_steps": 40,
    "minibatch_size": 1600,
}
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "forest": ("tune_configs/forest_uav_sprint_ppo.yaml", {**SMALL_FOREST, f"stop.{STEPS}": 32_000}),
    "swarm": ("tune_configs/swarm_mappo.yaml", {f"stop.{STEPS}": 64_000}),
    "confounded_control": ("tune_configs/confounded_control_ppo.yaml", {f"stop.{STEPS}": 32_000}),
}
STUDY = Study(
    tasks=TASKS,
    cells=CELLS,
    pairs=(("counterfactual", "value"), ("average later", "value"), ("average later", "counterfactual")),
)

MODEL_STUDY = Study(
    tasks={name: task for name, task in TASKS.items() if name != "swarm"},
    cells={"value": CELLS["value"], "learned model": {KEY: {"source": "model"}}},
    pairs=(("learned model", "value"),),
)
STUDIES = {"control": STUDY, "model": MODEL_STUDY}


def chain(sigma: float, edges: tuple[tuple[str, str], ...] = EDGES) -> StructuralModel:
    """Return the chain with the policy N(0, sigma^2); without some of its edges, as a wrong graph has it."""
    slopes = {
        effect: {cause: slope for cause, slope in causes.items() if (cause, effect) in edges}
        for effect, causes in SLOPES.items()
    }
    return StructuralModel.linear(
        CausalGraph(edges, ("a0", "x1", "x2", "x3")), slopes, {**NOISES, "a0": sigma}
    )


def model_gradients(sigma: float, samples: int) -> dict[str, np.ndarray]:
    """Return gradients by baseline, float64 ``[n]``, of samples of the structural model."""
    data = chain(sigma).sample(samples, np.random.default_rng(0))
    nodes = gaussian_nodes(0.0, sigma, NODES)
    wrong = chain(sigma, tuple(edge for edge in EDGES if edge[1] != "x2"))
    baselines = {
        "value": VALUE_SLOPE * data["x1"],
        "counterfactual": model_baseline(chain(sigma), data, "a0", "x3", *nodes),
        "x2 held fixed": model_baseline(wrong, data, "a0", "x3", *nodes),
    }
    return {
        name: gaussian_gradients(data["a0"], data["x3"], baseline, 0.0, sigma)
        for name, baseline in baselines.items()
    }


def environment_gradients(sigma: float, samples: int) -> dict[str, np.ndarray]:
    """Return gradients by baseline, float64 ``[n]``, of rounds of ``causal_chain_v0`` and of its branches."""
    env = causal_chain_v0.batched_env(ENVS, rounds=1_000_000)
    env.reset(seeds=0)
    rng = np.random.default_rng(0)
    nodes, weights = gaussian_nodes(0.0, sigma, NODES)
    others = np.zeros((NODES, ENVS, 1, 2), np.float32)
    others[..., 0] = nodes[:, None, None]
    found: dict[str, list[np.ndarray]] = {"value": [], "counterfactual": []}
    for _ in range(-(-samples // ENVS)):
        value = VALUE_SLOPE * env.observe()[:, 0, 0].astype(np.float64)
        counterfactual = environment_baseline(env, others, weights)[:, 0]
        actions = np.zeros((ENVS, 1, 2), np.float32)
        actions[:, 0, 0] = rng.normal(0.0, sigma, ENVS)
        rewards = env.step(actions).rewards[:, 0].astype(np.float64)
        taken = actions[:, 0, 0].astype(np.float64)
        for name, baseline in (("value", value), ("counterfactual", counterfactual)):
            found[name].append(gaussian_gradients(taken, rewards, baseline, 0.0, sigma))
    return {name: np.concatenate(parts)[:samples] for name, parts in found.items()}


def variance(out: Path, samples: int) -> None:
    """Write variance.csv: mean and variance of gradients by source, sigma and baseline, beside the closed forms."""
    rows = []
    for sigma in SIGMAS:
        exact = {
            "value": 0.32 + 0.2176 / sigma**2,
            "counterfactual": 0.32,
            "x2 held fixed": 0.0,
        }
        for source, gradients in (("environment", environment_gradients), ("model", model_gradients)):
            found = gradients(sigma, samples)
            for name, values in found.items():
                rows.append(
                    {
                        "source": source,
                        "sigma": sigma,
                        "baseline": name,
                        "samples": samples,
                        "mean": float(values.mean()),
                        "variance": float(values.var()),
                        "closed_form": exact[name],
                        "times_less_than_value": float(found["value"].var() / max(values.var(), 1e-12)),
                        "cpu": run_description()["cpu"],
                    }
                )
    write(out / "variance.csv", rows)
    for row in rows:
        print(
            f"{row['source']:<12} sigma {row['sigma']:<4} {row['baseline']:<15} mean {row['mean']:7.4f}   variance "
            f"{row['variance']:8.4f} (closed form {row['closed_form']:8.4f})"
        )


def cost(out: Path, iterations: int) -> None:
    """Write cost.csv: CPU seconds of an iteration by task and cell, the first iteration left out."""
    from qio_rllib.experiments.experiment import load_experiment

    rows = []
    for task, (path, overrides) in TASKS.items():
        for cell, settings in CELLS.items():
            lines = [f"{key}={json.dumps(value)}" for key, value in (overrides | settings).items()]
            experiment = load_experiment(path, lines, 100)
            algorithm = experiment.algorithm_config().evaluation(evaluation_interval=None).build_algo()
            algorithm.train()
            seconds, ratios = [], []
            for _ in range(iterations):
                started = time.process_time()
                learners = algorithm.train()["learners"]
                seconds.append(time.process_time() - started)
                ratios.append(float(learners["shared"].get("advantage_variance_ratio", 1.0)))
            algorithm.stop()
            steps = experiment.config["train_batch_size_per_learner"]
            rows.append(
                {
                    "task": task,
                    "cell": cell,
                    "env_steps": steps,
                    "cpu_seconds": min(seconds),
                    "advantage_variance_ratio": float(np.mean(ratios)),
                    "cpu": run_description()["cpu"],
                }
            )
            print(rows[-1], flush=True)
    write(out / "cost.csv", rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("variance", "cost", "control", "model"))
    parser.add_argument("--samples", type=int, default=1_000_000, help="gradients in variance (1,000,000)")
    parser.add_argument("--iterations", type=int, default=5, help="in cost, of each cell (5)")
    parser.add_argument("--seeds", type=int, default=10, help="of a study, from 0 (10)")
    parser.add_argument("--jobs", type=int, default=2, help="of a study, runs at a time (2)")
    parser.add_argument("--task", choices=tuple(TASKS), help="of a study, train this one alone (all)")
    parser.add_argument(
        "--out", type=Path, help="default: results/causal_baseline, of model results/causal_baseline_model"
    )
    parser.add_argument(
        "--table", action="store_true", help="of a study, only sum up the runs that are there"
    )
    arguments = parser.parse_args()
    command = ["python", "benchmarks/causal_baseline.py", arguments.part]
    if arguments.out is None:
        arguments.out = Path("results/causal_baseline" + ("_model" if arguments.part == "model" else ""))
    if arguments.part in STUDIES:
        whole = STUDIES[arguments.part]
        if not arguments.table:
            if arguments.task and arguments.task not in whole.tasks:
                parser.error(f"--task {arguments.task}: expected {' or '.join(whole.tasks)}")
            chosen = {arguments.task: whole.tasks[arguments.task]} if arguments.task else whole.tasks
            command += ["--seeds", str(arguments.seeds)]
            study = dataclasses.replace(whole, tasks=chosen)
            train(study, arguments.seeds, arguments.out, arguments.jobs, command)
        if not report(whole, arguments.out, "counterfactual baseline"):
            parser.error(f"there are no runs in {arguments.out}")
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.part == "variance":
        variance(arguments.out, arguments.samples)
    else:
        cost(arguments.out, arguments.iterations)
    info = json.dumps(run_description(command), indent=1)
    (arguments.out / f"{arguments.part}.json").write_text(info + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
