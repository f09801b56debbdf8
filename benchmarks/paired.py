"""Studies of matched controls: cells that share everything but the thing in question, over paired seeds.

Per cell: what `Summary` says of the final score (fixed evaluation episodes: what a run is judged by) and of the mean
training return (how fast it got there).
Per pair: in how many of the seeds the first of two cells scored higher (equal scores count half), the probability of
improvement, with a 95% bootstrap interval over seeds, drawn within each task, from 10 seeds a task on. An interval that
holds 0.5 is a null result; fewer seeds have no interval and no verdict. With many pairs some intervals leave 0.5 out
by chance: an exact sign test, corrected for their number (Holm), stands beside them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
from scipy import stats
from tables import append, read, write

import qio_envs
from qio_envs.api import reference_scores
from qio_rllib.artifacts.plot_style import EMPHASIS, GRID, LABEL_SIZE, REST, new_figure
from qio_rllib.artifacts.run_description import run_description
from qio_rllib.evaluation.aggregate import LEAST_SEEDS_FOR_INTERVAL, Summary
from qio_rllib.sampling.evaluation import FIRST_EVALUATION_SEED

STEPS = "num_env_steps_sampled_lifetime"
EPISODES = 100


@dataclasses.dataclass(frozen=True)
class Study:
    """Cells to be compared on some tasks.

    Attributes:
        tasks: Config file and overrides by task.
        cells: Settings by cell, put on top.
        pairs: Which cells are compared: whose improvement over which.
        seeded: Makes the settings of a cell those of a seed, where they differ.
        final: Evaluation that a run is judged by, "sampled" or "greedy".
        early: Environment steps up to which the mean training return is compared too, if any.
        is_normalized: Whether scores are between random play (0) and the scripted oracle (1); else returns.
    """

    tasks: dict[str, tuple[str, dict[str, Any]]]
    cells: dict[str, dict[str, Any]]
    pairs: tuple[tuple[str, str], ...]
    seeded: Callable[[dict[str, Any], int], dict[str, Any]] = lambda settings, seed: settings
    final: str = "sampled"
    early: int | None = None
    is_normalized: bool = True

    @property
    def kinds(self) -> tuple[str, ...]:
        """What is compared: the final score, the mean training return, and likewise that of the early steps."""
        return ("final", "training") if self.early is None else ("final", "training", "early")


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
    algorithm = algorithm_config.build_algo()
    started, cpu = time.perf_counter(), time.process_time()
    curve: list[tuple[int, float]] = []
    try:
        while not curve or curve[-1][0] < experiment.stop[STEPS]:
            result = algorithm.train()
            runners = result["env_runners"]
            value = runners.get("team_return", runners.get("episode_return_mean", np.nan))
            curve.append((int(result[STEPS]), float(value)))
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
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
    return {
        "curve": curve,
        **scores,
        "actor_parameters": parameters,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
    }


def train(study: Study, seeds: int, out: Path, jobs: int, command: list[str]) -> None:
    """Run what is not there yet; each run leaves a row in runs.csv and a curve in curves.csv.

    Args:
        study: What is trained.
        seeds: How many, from 0.
        out: Folder of the files.
        jobs: Runs at a time.
        command: What makes the files anew, for run.json.
    """
    done = {(row["task"], row["cell"], int(row["seed"])) for row in read(out / "runs.csv")}
    wanted = [
        (task, cell, seed)
        for seed in range(seeds)
        for task in study.tasks
        for cell in study.cells
        if (task, cell, seed) not in done
    ]
    ray.init("local", num_cpus=jobs, include_dashboard=False, log_to_driver=False)
    try:
        waiting = {}
        for task, cell, seed in wanted:
            config, overrides = study.tasks[task]
            settings = study.seeded(overrides | study.cells[cell], seed)
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
                f"{task}, {cell}, seed {seed}: {study.final} {result[study.final]:.3f} in {result['seconds']:.0f} s, "
                f"{len(waiting)} to go",
                flush=True,
            )
    finally:
        ray.shutdown()
    info = run_description(command)
    (out / "run.json").write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")


def references(study: Study, task: str) -> tuple[float, float]:
    """Return what counts as 0 and as 1 in a task."""
    if not study.is_normalized:
        return 0.0, 1.0
    from qio_rllib.experiments.experiment import load_experiment

    config, overrides = study.tasks[task]
    experiment = load_experiment(config, [f"{key}={json.dumps(value)}" for key, value in overrides.items()])
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
    scores: dict[str, dict[tuple[str, str], dict[int, float]]] = {kind: {} for kind in study.kinds}
    parameters: dict[tuple[str, str], int] = {}
    scales = {task: references(study, task) for task in study.tasks}
    early = early_returns(study, out)
    for row in read(out / "runs.csv"):
        key, (zero, one) = (row["task"], row["cell"]), scales[row["task"]]
        found = {
            "final": float(row[study.final]),
            "training": float(row["train_return_mean"]),
            "early": early.get((*key, row["seed"]), np.nan),
        }
        for kind in study.kinds:
            scores[kind].setdefault(key, {})[int(row["seed"])] = (found[kind] - zero) / (one - zero)
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
    for task in [*study.tasks, *(["all tasks"] if len(study.tasks) > 1 else [])]:
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


def early_returns(study: Study, out: Path) -> dict[tuple[str, str, str], float]:
    """Return the mean training return over the early steps, by task, cell and seed."""
    returns: dict[tuple[str, str, str], list[float]] = {}
    for row in read(out / "curves.csv") if study.early else []:
        if int(row["steps"]) <= (study.early or 0):
            returns.setdefault((row["task"], row["cell"], row["seed"]), []).append(float(row["train_return"]))
    return {key: float(np.nanmean(values)) for key, values in returns.items()}


def verdict(low: float | str, high: float | str) -> str:
    """Return what an interval of the probability of improvement says; empty ends are no interval."""
    if isinstance(low, str) or isinstance(high, str):
        return "too few seeds"
    return "null" if low <= 0.5 <= high else "better" if low > 0.5 else "worse"


def draw(study: Study, cells: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draw the final scores of all cells, a panel per task."""
    tasks = [task for task in study.tasks if any(row["task"] == task for row in cells)]
    size = 3.0 + 3.0 * len(tasks), 1.4 + 0.34 * len(study.cells)
    figure, panels = new_figure(len(tasks), len(tasks), size, title, sharey=True)
    names = list(study.cells)
    colours = {"Q operator": EMPHASIS, "circuit": EMPHASIS}
    for axes, task in zip(panels, tasks, strict=True):
        for row in (row for row in cells if row["task"] == task):
            place = names.index(row["cell"])
            colour = next((c for key, c in colours.items() if row["cell"].startswith(key)), REST)
            axes.plot([row["final_low"], row["final_high"]], [place, place], color=colour, linewidth=3)
            axes.plot(row["final_score"], place, "o", color=colour, markersize=7)
        seeds = max(row["seeds"] for row in cells if row["task"] == task)
        axes.set_title(f"{task.replace('_', ' ')}, {seeds} seeds", loc="left", fontsize=LABEL_SIZE)
        measure = "normalised score" if study.is_normalized else f"{study.final} return"
        axes.set_xlabel(f"{measure}\n({row['statistic']})", fontsize=LABEL_SIZE)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", color=GRID)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    labels = [name.replace("classical", "parameter-matched MLP") for name in names]
    panels[0].set_yticks(range(len(names)), labels)
    panels[0].set_ylim(len(names) - 0.5, -0.5)  # the first on top
    figure.savefig(path)


def show(cells: list[dict[str, Any]], pairs: list[dict[str, Any]]) -> None:
    """Print both tables."""
    kinds = [kind for kind in ("final", "training", "early") if f"{kind}_score" in cells[0]]
    heads = "".join(f"{kind:<56}" for kind in kinds).rstrip()
    print(f"\n{'task':15}{'cell':26}{'parameters':>11}  {heads}")
    for row in cells:
        texts = [
            Summary(
                row["seeds"], row["statistic"], *(row[f"{kind}_{part}"] for part in ("score", "low", "high"))
            ).text(3)
            for kind in kinds
        ]
        line = "".join(f"{text:<56}" for text in texts).rstrip()
        print(f"{row['task']:15}{row['cell']:26}{row['actor_parameters']:>11,}  {line}")
    heads = "".join(f"{f'P({kind})':>13}{'95%':>16}{'':>15}" for kind in kinds).rstrip()
    print(f"\n{'task':15}{'first':24}{'second':24}{'pairs':>5}{heads}")
    for row in pairs:
        texts = [
            f"{row[f'{kind}_improvement']:>13.2f}{interval_text(row, kind):>16}{row[f'{kind}_verdict']:>15}"
            for kind in kinds
        ]
        print(f"{row['task']:15}{row['first']:24}{row['second']:24}{row['pairs']:>5}{''.join(texts)}")
    for kind in kinds:
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


def report(study: Study, out: Path, title: str) -> bool:
    """Write and print the tables of what is there, and draw it; False if there is nothing."""
    cells, pairs = summarise(study, out)
    if not cells:
        return False
    write(out / "cells.csv", cells)
    write(out / "pairs.csv", pairs)
    draw(study, cells, out / "cells.png", f"{title}: final scores, paired seeds")
    show(cells, pairs)
    return True


def command_line(study: Study, name: str, title: str, description: str | None) -> None:
    """Train and report a study as the command line says.

    Args:
        study: What is compared.
        name: Of the script, and of its folder in ``results``.
        title: Of the figure.
        description: For ``--help``.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds, from 0 (10)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one core each (2)")
    parser.add_argument("--out", type=Path, default=Path("results") / name)
    parser.add_argument("--table", action="store_true", help="only sum up the runs that are there")
    arguments = parser.parse_args()
    if not arguments.table:
        command = ["python", f"benchmarks/{name}.py", "--seeds", str(arguments.seeds)]
        train(study, arguments.seeds, arguments.out, arguments.jobs, command)
    if not report(study, arguments.out, title):
        parser.error(f"there are no runs in {arguments.out}")
