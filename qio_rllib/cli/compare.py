"""``rllib compare``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qio_envs.api import ConfigError, did_you_mean
from qio_rllib.cli.output import console, note, relative, say, seeds_text

if TYPE_CHECKING:
    from qio_rllib.experiments.comparison import Group, Run

CURVES, SUMMARY, SCORES, IMPROVEMENT = "curves.png", "summary.csv", "scores.csv", "improvement.csv"
"""What ``--out`` gets."""


def compare(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="RUNS...", help="Run directories, folders that hold some, files of sweeps."),
    ],
    metric: Annotated[
        str | None,
        typer.Option(help="Column of progress.csv, such as coverage (default: the return, and evaluations)."),
    ] = None,
    x: Annotated[str, typer.Option("--x", help="Curves against steps, seconds or iterations.")] = "steps",
    by: Annotated[
        str | None,
        typer.Option(help="Group runs by a setting, such as lr, or by name (default: by all settings)."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="New directory for the figure and the tables.")
    ] = None,
) -> None:
    """Compare runs: a table over the seeds of each group, who beats whom, and with --out the learning curves.

    Runs with the same name and settings are a group. From 10 runs on a group has its interquartile mean with a 95%
    interval, with fewer the mean, the least and the greatest.
    """
    from qio_rllib.experiments import comparison

    if x not in comparison.AXES:
        axes = ", ".join(comparison.AXES)
        raise ConfigError(f"--x: unknown axis '{x}'{did_you_mean(x, comparison.AXES)}; allowed: {axes}")
    if out is not None and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise ConfigError(f"--out: {out} exists already")
    runs = comparison.find_runs(paths)
    groups = comparison.group_runs(runs, by)
    column = comparison.metric_column(runs, metric)
    rows = comparison.compare(groups, column, with_evaluation=metric is None)
    beaten = comparison.improvements(groups, column, with_evaluation=metric is None)
    for remark in comparison.remarks(groups):
        note(remark)
    print_comparison(groups, rows, column)
    print_improvements(groups, beaten)
    if out is not None:
        write_comparison(out, groups, rows, beaten, column, x, with_evaluation=metric is None)
        say(f"written to {relative(out)}: {', '.join(sorted(path.name for path in out.iterdir()))}")


def print_comparison(groups: Sequence[Group], rows: Sequence[Mapping[str, Any]], column: str) -> None:
    """Print a row for each group and a column for each score."""
    from rich import box
    from rich.table import Table

    names = list(dict.fromkeys(row["score_of"] for row in rows))
    say(f"{column}: last value in training; greedy, sampled: final evaluation" if len(names) > 1 else column)
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("group", overflow="fold")
    table.add_column("seeds")
    for name in names:
        table.add_column(name if len(names) > 1 else column.rpartition("/")[2], justify="right")
    found = {(row["group"], row["score_of"]): row for row in rows}
    for group in groups:
        texts = [summary_text(found.get((group.label, name))) for name in names]
        table.add_row(group.label, seeds_text([run.seed for run in group.runs]), *texts)
    console().print(table)


def summary_text(row: Mapping[str, Any] | None) -> str:
    """Return a group's score as a cell of a table: mean or interquartile mean, below it the range or interval."""
    from qio_rllib.evaluation.aggregate import IQM

    if row is None:
        return ""
    if row["seeds"] == 1:
        return f"{row['score']:.4g}"
    kind = "IQM" if row["statistic"] == IQM else "mean"
    ends = f"{row['low']:.4g} to {row['high']:.4g}"
    return f"{kind} {row['score']:.4g}\n{f'95%: {ends}' if kind == 'IQM' else ends}"


def print_improvements(groups: Sequence[Group], beaten: Sequence[Mapping[str, Any]]) -> None:
    """Print how likely a run of the group in a row beats one of the group in a column."""
    from rich import box
    from rich.table import Table

    if not beaten:
        return
    found = {(row["group"], row["over"]): row["probability"] for row in beaten}
    labels = [group.label for group in groups if any(group.label in pair for pair in found)]
    say(f"probability that a run of the row scores higher than one of the column ({beaten[0]['score_of']})")
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("", overflow="fold")
    for number in range(1, len(labels) + 1):
        table.add_column(f"({number})", justify="right")
    for number, label in enumerate(labels, 1):
        values = [found.get((label, other)) for other in labels]
        table.add_row(f"({number}) {label}", *("" if value is None else f"{value:.2f}" for value in values))
    console().print(table)


def write_comparison(
    out: Path,
    groups: Sequence[Group],
    rows: Sequence[Mapping[str, Any]],
    beaten: Sequence[Mapping[str, Any]],
    column: str,
    x: str,
    with_evaluation: bool,
) -> None:
    """Write the figure and the tables into a directory."""
    from qio_rllib.artifacts.comparison_plot import plot_comparison
    from qio_rllib.artifacts.files import write_csv
    from qio_rllib.experiments.comparison import AXES, scores_of_run

    try:
        out.mkdir(parents=True, exist_ok=True)
        write_csv(out / SUMMARY, rows)
        scores = [
            {
                "group": group.label,
                "seed": run.seed,
                "run": str(run.path),
                **scores_of_run(run, column, with_evaluation),
            }
            for group in groups
            for run in group.runs
        ]
        write_csv(out / SCORES, scores)
        if beaten:
            write_csv(out / IMPROVEMENT, beaten)
        curves = {group.label: [_curve(run, AXES[x], column) for run in group.runs] for group in groups}
        label = {"steps": "environment steps", "seconds": "seconds of training", "iterations": "iterations"}
        plot_comparison(curves, out / CURVES, label[x], column)
    except OSError as error:
        raise ConfigError(f"--out: cannot write to {out}: {error.strerror}") from error


def _curve(run: Run, axis: str, column: str) -> list[tuple[float, float]]:
    return [(row[axis], row[column]) for row in run.rows if axis in row and column in row]
