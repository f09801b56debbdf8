"""Does anything quantum-inspired help? Matched controls, paired seeds, raw results.

Two questions, each with controls that share everything but the thing in question:

operator   The Q operator in the policy, against no operator (identity), a softmax temperature that gives every state
           the same entropy (temperature), and a random operator that moves the amplitudes as far (random), another
           one for each seed.
circuits   Circuits as policy and value networks (observables, Born rule), against parameter-matched MLPs.

Within a task all cells share environment, algorithm, settings and seeds; none was tuned for one of them alone. Scores
are normalised between random play (0) and the scripted oracle (1) of the task; CartPole-v1 between 0 and 500.
Per cell: what `aggregate` says of the final score (sampled actions, fixed evaluation episodes: what a run is judged by)
and of the mean training return (how fast it got there).
Per pair: in how many of the seeds the first of two cells scored higher (equal scores count half), the probability of
improvement, with a 95% bootstrap interval over seeds, drawn within each task, from 10 seeds a task on. An interval that
holds 0.5 is a null result; fewer seeds have no interval and no verdict. With so many pairs some intervals leave 0.5 out
by chance: an exact sign test, corrected for their number (Holm), stands beside them.

    python benchmarks/quantum_controls.py operator --seeds 10
    python benchmarks/quantum_controls.py circuits --seeds 10
    python benchmarks/quantum_controls.py operator --table      # the table of what is there, without training
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
from aggregate import LEAST_SEEDS_FOR_INTERVAL, Summary
from scipy import stats
from tables import append, read, write

import qio_envs
from qio_envs.api import reference_scores
from qio_rllib.artifacts.run_description import run_description
from qio_rllib.sampling.evaluation import FIRST_EVALUATION_SEED

STEPS = "num_env_steps_sampled_lifetime"
EPISODES = 100
STRENGTH = {"eta": 0.1, "h_min": 0.05, "tau": 1.0}
STRONG = {"eta": 0.5, "h_min": 0.2, "tau": 1.0}


@dataclasses.dataclass(frozen=True)
class Study:
    """Cells to be compared on some tasks.

    Attributes:
        tasks: Config file and overrides by task.
        cells: Settings by cell, put on top.
        pairs: Which cells are compared: whose improvement over which.
    """

    tasks: dict[str, tuple[str, dict[str, Any]]]
    cells: dict[str, dict[str, Any]]
    pairs: tuple[tuple[str, str], ...]


def operator_cells() -> dict[str, dict[str, Any]]:
    cells: dict[str, dict[str, Any]] = {"identity": {"amplification": None}}
    for name, strength in (("", STRENGTH), (" strong", STRONG)):
        cells[f"Q operator{name}"] = {"amplification": strength}
        for control in ("temperature", "random"):
            cells[control + name] = {"amplification": {**strength, "operator": control}}
    return cells


def circuit_cells() -> dict[str, dict[str, Any]]:
    size = {"num_qubits": 4, "num_layers": 3, "inputs": "arctan"}
    return {
        f"{kind} ({policy})": {"circuit": {**size, "kind": kind, "policy": policy}, "amplification": None}
        for policy in ("observables", "born")
        for kind in ("circuit", "classical")
    }


STUDIES = {
    "operator": Study(
        tasks={
            "qubit_control": ("tune_configs/qubit_control_ppo.yaml", {}),
            "swarm": ("tune_configs/swarm_maa2c.yaml", {f"stop.{STEPS}": 128_000}),
            "cartpole": ("tune_configs/cartpole_a2c.yaml", {f"stop.{STEPS}": 100_000}),
        },
        cells=operator_cells(),
        pairs=tuple(
            (f"Q operator{name}", control)
            for name in ("", " strong")
            for control in ("identity", f"temperature{name}", f"random{name}")
        ),
    ),
    "circuits": Study(
        tasks={
            # of 2e-3 and 1e-2 the better one for circuits and for MLPs of their size, tried on seed 100
            "qubit_control": ("tune_configs/qubit_control_ppo.yaml", {"lr": 1e-2}),
            "cartpole": ("tune_configs/cartpole_a2c.yaml", {f"stop.{STEPS}": 100_000}),
        },
        cells=circuit_cells(),
        pairs=(
            ("circuit (observables)", "classical (observables)"),
            ("circuit (born)", "classical (born)"),
            ("circuit (observables)", "circuit (born)"),
        ),
    ),
}


def cell_settings(settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return the settings of a cell for one seed: each seed has a random operator of its own."""
    amplification = settings.get("amplification")
    if amplification is None or amplification.get("operator") != "random":
        return settings
    return settings | {"amplification": amplification | {"operator_seed": seed}}


@ray.remote(num_cpus=1, max_calls=8)
def run(config: str, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """Train once; return the learning curve, final scores and the number of parameters."""
    import torch

    from qio_rllib.experiments.experiment import load_experiment
    from qio_rllib.sampling.evaluation import evaluate, evaluation_seeds, mean_scores, policy_from_modules

    torch.set_num_threads(1)
    experiment = load_experiment(
        config, [f"{key}={json.dumps(value)}" for key, value in settings.items()], seed
    )
    algorithm_config = experiment.algorithm_config()
    algorithm_config.evaluation(evaluation_interval=None)
    algorithm, started = algorithm_config.build_algo(), time.perf_counter()
    curve: list[tuple[int, float]] = []
    try:
        while not curve or curve[-1][0] < experiment.stop[STEPS]:
            result = algorithm.train()
            runners = result["env_runners"]
            value = runners.get("team_return", runners.get("episode_return_mean", np.nan))
            curve.append((int(result[STEPS]), float(value)))
        seconds = time.perf_counter() - started
        modules = dict(algorithm.env_runner.module.items())
        policy = policy_from_modules(modules, algorithm.config)
        scores = {}
        for mode in ("greedy", "sampled"):
            rows = evaluate(
                policy,
                experiment.env,
                experiment.config.get("env_config") or {},
                evaluation_seeds(EPISODES),
                mode == "sampled",
            )
            means = mean_scores(rows)
            scores[mode] = means.get("team_return", means["episode_return"])
        parameters = sum(p.numel() for module in modules.values() for p in module.parameters())
    finally:
        algorithm.stop()
    return {"curve": curve, **scores, "actor_parameters": parameters, "seconds": seconds}


def train(name: str, study: Study, seeds: int, out: Path, jobs: int) -> None:
    """Run what is not there yet; each run leaves a row in runs.csv and a curve in curves.csv."""
    done = {(row["task"], row["cell"], int(row["seed"])) for row in read(out / "runs.csv")}
    wanted = [
        (task, cell, seed)
        for seed in range(seeds)
        for task in study.tasks
        for cell in study.cells
        if (task, cell, seed) not in done
    ]
    ray.init(num_cpus=jobs, include_dashboard=False, log_to_driver=False)
    try:
        waiting = {}
        for task, cell, seed in wanted:
            config, overrides = study.tasks[task]
            settings = cell_settings(overrides | study.cells[cell], seed)
            waiting[run.remote(config, settings, seed)] = (task, cell, seed)
        while waiting:
            (ready,), _ = ray.wait(list(waiting), num_returns=1)
            task, cell, seed = waiting.pop(ready)
            result = ray.get(ready)
            curve = result.pop("curve")
            place = {"task": task, "cell": cell, "seed": seed}
            append(out / "curves.csv", [{**place, "steps": s, "train_return": v} for s, v in curve])
            mean = float(np.nanmean([value for _, value in curve]))
            append(out / "runs.csv", [{**place, **result, "train_return_mean": mean}])
            print(
                f"{task}, {cell}, seed {seed}: sampled {result['sampled']:.3f} in {result['seconds']:.0f} s, "
                f"{len(waiting)} to go",
                flush=True,
            )
    finally:
        ray.shutdown()
    info = run_description(["python", "benchmarks/quantum_controls.py", name, "--seeds", str(seeds)])
    (out / "run.json").write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")


def references(study: Study, task: str) -> tuple[float, float]:
    """Return what counts as 0 and as 1 in a task."""
    from qio_rllib.experiments.experiment import load_experiment

    experiment = load_experiment(study.tasks[task][0])
    if experiment.env not in qio_envs.environments():
        return 0.0, 500.0
    env = qio_envs.environment(experiment.env).batched_env(
        EPISODES, **experiment.config.get("env_config") or {}
    )
    scores = list(reference_scores(env, seed=FIRST_EVALUATION_SEED).values())
    return scores[0], scores[-1]


def probability_of_improvement(
    first: np.ndarray, second: np.ndarray, tasks: np.ndarray | None = None
) -> tuple[float, float, float]:
    """Return the share of paired seeds in which the first is better, with its 95% bootstrap interval.

    Args:
        first: Scores ``[P]``.
        second: Those of the same seeds.
        tasks: Task of each pair ``[P]``; pairs are drawn with replacement within their task.
    """
    wins = (np.asarray(first) > second) + 0.5 * (np.asarray(first) == second)
    strata = np.zeros(len(wins)) if tasks is None else np.asarray(tasks)
    rng, total = np.random.default_rng(0), np.zeros(10_000)
    for stratum in np.unique(strata):
        mine = wins[strata == stratum]
        total += mine[rng.integers(len(mine), size=(10_000, len(mine)))].sum(axis=1)
    low, high = np.quantile(total / len(wins), [0.025, 0.975])
    return float(wins.mean()), float(low), float(high)


def sign_test(first: np.ndarray, second: np.ndarray) -> float:
    """Return the exact two-sided p-value of as many paired wins, ties left out."""
    wins, losses = int((first > second).sum()), int((first < second).sum())
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def holm(p_values: list[float]) -> list[float]:
    """Return p-values corrected for how many there are (Holm, 1979)."""
    order, count = np.argsort(p_values), len(p_values)
    stepped = np.maximum.accumulate([(count - k) * p_values[index] for k, index in enumerate(order)])
    corrected = np.empty(count)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected.tolist()


def summarise(study: Study, out: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the table of cells and the table of pairs, by task and over all tasks."""
    scores: dict[str, dict[tuple[str, str], dict[int, float]]] = {"final": {}, "training": {}}
    parameters: dict[tuple[str, str], int] = {}
    scales = {task: references(study, task) for task in study.tasks}
    for row in read(out / "runs.csv"):
        key, (zero, one) = (row["task"], row["cell"]), scales[row["task"]]
        for kind, column in (("final", "sampled"), ("training", "train_return_mean")):
            value = (float(row[column]) - zero) / (one - zero)
            scores[kind].setdefault(key, {})[int(row["seed"])] = value
        parameters[key] = int(row["actor_parameters"])
    cells, pairs = [], []
    for task in study.tasks:
        for cell in study.cells:
            if (task, cell) not in parameters:
                continue
            row = {"task": task, "cell": cell, "actor_parameters": parameters[task, cell]}
            for kind in scores:
                values = scores[kind][task, cell].values()
                summary = Summary.of(values)
                row |= {
                    "seeds": summary.seeds,
                    "statistic": summary.statistic,
                    f"{kind}_score": summary.score,
                    f"{kind}_low": summary.low,
                    f"{kind}_high": summary.high,
                }
            cells.append(row)
    for task in [*study.tasks, "all tasks"]:
        members = list(study.tasks) if task == "all tasks" else [task]
        for first, second in study.pairs:
            row = {"task": task, "first": first, "second": second}
            for kind, of in scores.items():
                both: list[tuple[float, float, int]] = []
                for place, member in enumerate(members):
                    one, two = of.get((member, first), {}), of.get((member, second), {})
                    both += [(one[seed], two[seed], place) for seed in sorted(set(one) & set(two))]
                if not both:
                    break
                a, b, strata = np.array(both).T
                middle, *interval = probability_of_improvement(a, b, strata)
                least = min(int((strata == place).sum()) for place in np.unique(strata))
                low, high = interval if least >= LEAST_SEEDS_FOR_INTERVAL else ("", "")
                row |= {
                    "pairs": len(both),
                    f"{kind}_difference": float(stats.trim_mean(a - b, 0.25)),
                    f"{kind}_improvement": middle,
                    f"{kind}_low": low,
                    f"{kind}_high": high,
                    f"{kind}_verdict": verdict(low, high),
                    f"{kind}_p": sign_test(a, b),
                }
            else:
                pairs.append(row)
    for kind in scores:
        corrected = holm([row[f"{kind}_p"] for row in pairs])
        for row, p in zip(pairs, corrected, strict=True):
            row[f"{kind}_p_holm"] = p
    return cells, pairs


def verdict(low: float | str, high: float | str) -> str:
    """Return what an interval of the probability of improvement says; empty ends are no interval."""
    if isinstance(low, str) or isinstance(high, str):
        return "too few seeds"
    return "null" if low <= 0.5 <= high else "better" if low > 0.5 else "worse"


def draw(study: Study, cells: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draw the final scores of all cells, a panel per task."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    tasks = [task for task in study.tasks if any(row["task"] == task for row in cells)]
    figure, panels = plt.subplots(
        1,
        len(tasks),
        figsize=(3.0 + 3.0 * len(tasks), 1.4 + 0.34 * len(study.cells)),
        sharey=True,
        layout="constrained",
        squeeze=False,
    )
    names = list(study.cells)
    colours = {"Q operator": "#2e7d5b", "circuit": "#2e7d5b"}
    for axes, task in zip(panels[0], tasks, strict=True):
        for row in (row for row in cells if row["task"] == task):
            place = names.index(row["cell"])
            colour = next((c for key, c in colours.items() if row["cell"].startswith(key)), "#666666")
            axes.plot([row["final_low"], row["final_high"]], [place, place], color=colour, linewidth=3)
            axes.plot(row["final_score"], place, "o", color=colour, markersize=7)
        axes.set_title(task.replace("_", " "))
        axes.set_xlabel(f"normalised score\n({row['statistic']})")
        axes.grid(axis="x", color="#dddddd")
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    labels = [name.replace("classical", "parameter-matched MLP") for name in names]
    panels[0][0].set_yticks(range(len(names)), labels)
    panels[0][0].invert_yaxis()
    figure.suptitle(title)
    figure.savefig(path, dpi=150)


def show(cells: list[dict[str, Any]], pairs: list[dict[str, Any]]) -> None:
    """Print both tables."""
    print(f"\n{'task':15}{'cell':26}{'parameters':>11}  {'final':<56}training")
    for row in cells:
        texts = [
            Summary(
                row["seeds"], row["statistic"], *(row[f"{kind}_{part}"] for part in ("score", "low", "high"))
            ).text(3)
            for kind in ("final", "training")
        ]
        print(f"{row['task']:15}{row['cell']:26}{row['actor_parameters']:>11,}  {texts[0]:<56}{texts[1]}")
    print(
        f"\n{'task':15}{'first':24}{'second':24}{'pairs':>5}"
        f"{'P(final)':>10}{'95%':>16}{'':>15}{'P(train)':>10}{'95%':>16}"
    )
    for row in pairs:
        print(
            f"{row['task']:15}{row['first']:24}{row['second']:24}{row['pairs']:>5}"
            f"{row['final_improvement']:>10.2f}{interval_text(row, 'final'):>16}{row['final_verdict']:>15}"
            f"{row['training_improvement']:>10.2f}{interval_text(row, 'training'):>16}{row['training_verdict']:>15}"
        )
    for kind in ("final", "training"):
        outside = [row for row in pairs if row[f"{kind}_verdict"] in ("better", "worse")]
        standing = [row for row in pairs if row[f"{kind}_p_holm"] < 0.05]
        names = "".join(
            f"; {row['task']}: {row['first']} {direction(row, kind)} than {row['second']}" for row in standing
        )
        print(
            f"{kind}: {len(outside)} of {len(pairs)} intervals leave 0.5 out; after Holm's correction of the "
            f"sign tests {len(standing)} differences stand{names}"
        )


def direction(row: dict[str, Any], kind: str) -> str:
    return "better" if row[f"{kind}_improvement"] > 0.5 else "worse"


def interval_text(row: dict[str, Any], kind: str) -> str:
    low, high = row[f"{kind}_low"], row[f"{kind}_high"]
    return "" if low == "" else f"{low:.2f} to {high:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=list(STUDIES), help="what to ask")
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds, from 0 (10)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one core each (2)")
    parser.add_argument("--out", type=Path, default=Path("results/quantum_controls"), help="where to write")
    parser.add_argument("--table", action="store_true", help="only sum up the runs that are there")
    arguments = parser.parse_args()
    study, out = STUDIES[arguments.study], arguments.out / arguments.study
    if not arguments.table:
        train(arguments.study, study, arguments.seeds, out, arguments.jobs)
    cells, pairs = summarise(study, out)
    if not cells:
        parser.error(f"there are no runs in {out}")
    write(out / "cells.csv", cells)
    write(out / "pairs.csv", pairs)
    draw(study, cells, out / "cells.png", f"{arguments.study}: final scores, paired seeds")
    show(cells, pairs)


if __name__ == "__main__":
    main()
