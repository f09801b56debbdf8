"""Train one config over several seeds and sum it up: raw CSV per seed, a table, a figure.

    python benchmarks/learning_curves.py tune_configs/forest_uav_ppo.yaml --seeds 5
    python benchmarks/learning_curves.py tune_configs/forest_uav_ppo.yaml --table     # of what is there, no training
    python benchmarks/learning_curves.py tune_configs/forest_uav_ppo.yaml --train     # raw CSV alone

A seed whose raw files are there is not trained again; they appear all at once, when its training has ended.
Scores are team returns, or returns where there is no team (environment steps on the x axis). Training: mean of the
last episodes (``metrics_num_episodes_for_smoothing``) at each iteration.
Evaluation: per seed the mean over the fixed evaluation episodes of the last checkpoint; across seeds what `Summary`
says: from 10 seeds on the interquartile mean with a 95% interval, of fewer the mean with the least and the greatest.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from tables import read, scores_of, write

import qio_envs
from qio_envs.api import ConfigError
from qio_envs.api.scores import normalized_score, reference_scores
from qio_rllib.artifacts.plot_style import EMPHASIS, Series, plot_series
from qio_rllib.evaluation.aggregate import Summary
from qio_rllib.experiments import training
from qio_rllib.experiments.experiment import Experiment, load_experiment
from qio_rllib.sampling.evaluation import FIRST_EVALUATION_SEED

KEPT = ("progress.csv", "evaluation.csv", "run.json", "config.yaml")
STEPS, SECONDS = "num_env_steps_sampled_lifetime", "time_total_s"


def is_trained(target: Path, experiment: Experiment) -> bool:
    """Return whether the raw files of an experiment with its seed lie in a folder.

    Raises:
        ConfigError: Those that lie there are of other settings.
    """
    if not (target / "evaluation.csv").exists():
        return False
    before, now = load_experiment(target / "config.yaml").as_dict(), experiment.as_dict()
    if before != now:
        key = _difference(before, now)
        raise ConfigError(
            f"{target}: was trained with other settings ({key}); remove it, or choose another --out"
        )
    return True


def train(config: Path, seeds: range, out: Path, overrides: list[str], with_pictures: bool = True) -> None:
    """Train one seed after the other; those that are there are kept.

    Args:
        config: The experiment's file.
        seeds: One training each.
        out: Gets ``seed_N`` with `KEPT`.
        overrides: As ``rllib train --set`` has them.
        with_pictures: Whether plots and video of the first seed are kept too; the policy file of seed 0 is anyway.

    Raises:
        ConfigError: The experiment cannot be used, or a seed is there with other settings.
    """
    for seed in seeds:
        target = out / f"seed_{seed}"
        experiment = load_experiment(config, overrides, seed=seed)
        if is_trained(target, experiment):
            print(f"seed {seed}: kept {target}")
            continue
        with tempfile.TemporaryDirectory() as runs:
            result = training.train(experiment, runs)
            part = target.with_name(f".{target.name}.part")
            for folder in (part, target):
                shutil.rmtree(folder, ignore_errors=True)
            part.mkdir(parents=True)
            for name in KEPT:
                shutil.copy(result.run_dir / name, part / name)
            more = ["policy.pt"] if seed == 0 else []
            if with_pictures and seed == seeds[0]:
                more += ["best.gif", "learning_curve.png", "losses.png", "entropy.png"]
            for name in more:
                if (result.run_dir / name).exists():  # not every algorithm has an entropy
                    shutil.copy(result.run_dir / name, part / name)
            part.rename(target)  # whole or not at all, whenever it is interrupted
        print(f"seed {seed}: {result.evaluation}", flush=True)


def summarise(
    config: Path, out: Path, overrides: list[str], metric: str | None = None
) -> list[dict[str, float | str]]:
    """Return one row per kind of evaluation, and the scripted policies on the same seeds.

    Args:
        config: The experiment's file.
        out: Holds ``seed_*``.
        overrides: As for `train`.
        metric: Column of ``evaluation.csv``; by default "team_return", or "episode_return" where there is no team.
    """
    experiment = load_experiment(config, overrides)
    references: dict[str, float] = {}
    if experiment.env in qio_envs.environments():
        settings = experiment.config.get("env_config") or {}
        env = qio_envs.environment(experiment.env).batched_env(
            experiment.config["evaluation_duration"], **settings
        )
        references = reference_scores(env, FIRST_EVALUATION_SEED, metric or "team_return")
    column = metric or ("team_return" if references else "episode_return")
    seconds = [float(read(path)[-1][SECONDS]) for path in sorted(out.glob("seed_*/progress.csv"))]
    rows: list[dict[str, float | str]] = []
    for mode in ("sampled", "greedy"):
        summary = Summary.of(scores_of(out, mode, column))
        rows.append(
            {
                "policy": f"{experiment.name} ({mode})",
                **summary.columns(),
                "training_s": round(float(np.mean(seconds)), 1),
                "text": summary.text(_decimals(column)),
            }
        )
    empty = dict.fromkeys(rows[0], "")
    for name, value in references.items():
        text = f"{value:.{_decimals(column)}f}"
        rows.append({**empty, "policy": f"scripted: {name}", "score": value, "text": text})
    worst, *_, best = references.values() or (0.0, 0.0)  # random play first, the oracle last
    for row in rows:
        row["normalized"] = ""
        if worst != best:
            row["normalized"] = normalized_score(float(row["score"]), worst, best)
    return rows


def draw(out: Path, rows: list[dict[str, float | str]], title: str, metric: str | None = None) -> None:
    """Draw the training curves of all seeds, their summary and the scripted policies.

    Args:
        out: Holds ``seed_*``; gets ``learning_curve.png``.
        rows: What `summarise` returned.
        title: Of the figure.
        metric: As for `summarise`.
    """
    curves = [read(path) for path in sorted(out.glob("seed_*/progress.csv"))]
    length = min(len(curve) for curve in curves)
    steps = np.array([float(row[STEPS]) for row in curves[0][:length]])
    team = f"env_runners/{metric or 'team_return'}"
    score = team if team in curves[0][0] else "env_runners/episode_return_mean"
    scores = np.array([[float(row[score] or "nan") for row in curve[:length]] for curve in curves])
    summaries = [Summary.of(scores[:, i], resamples=1000) for i in range(length)]
    middle, low, high = (
        np.array([getattr(one, end) for one in summaries]) for end in ("score", "low", "high")
    )
    series = Series(
        "training",
        steps,
        middle,
        low,
        high,
        len(curves),
        summaries[0].statistic if len(curves) > 1 else "",
        EMPHASIS,
    )
    references = {str(row["policy"]): float(row["score"]) for row in rows if not row["seeds"]}
    whose = "team" if score == team else "episode"
    label = f"{whose} return, sum over agents and steps" if metric in (None, "team_return") else metric
    plot_series([series], out / "learning_curve.png", str(label), references, title)


def report(config: Path, out: Path, overrides: list[str], metric: str | None = None) -> None:
    """Write the table and the figure of the runs that are there, and print the table.

    Args:
        config: The experiment's file.
        out: Holds ``seed_*``; gets ``summary.csv`` and ``learning_curve.png``.
        overrides: As for `train`.
        metric: As for `summarise`.
    """
    rows = summarise(config, out, overrides, metric)
    write(out / "summary.csv", rows)
    draw(out, rows, title_of(load_experiment(config, overrides)), metric)
    print(f"\n{'policy':<36}{'score':<46}{'normalised':>11}{'training':>11}")
    for row in rows:
        normalized = f"{row['normalized']:.3f}" if row["normalized"] != "" else ""
        seconds = f"{row['training_s']:.0f} s" if row["training_s"] != "" else ""
        print(f"{row['policy']:<36}{row['text']:<46}{normalized:>11}{seconds:>11}")
    if metric is None:
        print(
            "\nA return is the undiscounted sum of an episode's rewards over agents and steps (of the scored team, "
            "where there are\nopponents); steps are environment steps, in which all agents act."
        )


def title_of(experiment: Experiment) -> str:
    """Return what stands above the figure: experiment, algorithm and environment, with the scenario that is chosen."""
    scenario = experiment.config.get("env_config", {}).get("scenario", "default")
    chosen = "" if scenario == "default" else f", {scenario}"
    return f"{experiment.name}: {experiment.algorithm} on {experiment.env}{chosen}"


def _decimals(column: str) -> int:
    """Return the digits behind the point of a score: one of a return, three of a share such as the win rate."""
    return 1 if column.endswith("_return") else 3


def _difference(before: Any, now: Any, key: str = "") -> str:
    """Return the dotted key of the first setting in which two unequal mappings differ."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return key
    name = next(name for name in {**before, **now} if before.get(name) != now.get(name))
    return _difference(before.get(name), now.get(name), f"{key}.{name}" if key else name)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them (0)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="as rllib train has it",
    )
    parser.add_argument("--out", type=Path, help="default: results/<name of the file>")
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument("--table", action="store_true", help="only sum up the runs that are there")
    parts.add_argument("--train", action="store_true", help="only train: no table, no pictures")
    arguments = parser.parse_args()
    out = arguments.out or Path("results") / arguments.config.stem
    if not arguments.table:
        seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
        train(arguments.config, seeds, out, arguments.overrides, with_pictures=not arguments.train)
    elif not list(out.glob("seed_*/evaluation.csv")):
        parser.error(f"there are no runs in {out}")
    if not arguments.train:
        report(arguments.config, out, arguments.overrides)


if __name__ == "__main__":
    main()
