"""``rllib study``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qio_envs.api import ConfigError
from qio_rllib.cli.arguments import OWN_RUNS, AllowImport, seeds_of
from qio_rllib.cli.compare import print_comparison, print_improvements
from qio_rllib.cli.output import note, relative, say, seeds_text
from qio_rllib.cli.progress import Display, Shown
from qio_rllib.cli.train import output_of

if TYPE_CHECKING:
    from qio_rllib.experiments.study import Study


def study(
    file: Annotated[Path, typer.Argument(help="The study (YAML): algorithms, tasks, seeds, settings.")],
    seeds: Annotated[
        str | None, typer.Option(metavar="LIST", help="In place of the file's: 0-4, or 1,3,7.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where studies are kept (default: runs).")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, list what would be trained, write nothing.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but the tables.")] = False,
    allow_import: AllowImport = None,
) -> None:
    """Train every algorithm on every task with every seed, and compare them task by task.

    The same command goes on where it was interrupted: what is there is not trained again.
    """
    chosen = seeds_of(seeds)
    display = Display(Shown.QUIET if quiet else Shown.LINES)
    with display.loading():
        from qio_rllib.experiments.failures import TrainingFailed, TrainingInterrupted
        from qio_rllib.experiments.study import Study

        read = Study.read(file, chosen, allow_import or ())
    folder = out if out is not None else Path(OWN_RUNS)
    cells = list(read.runs(folder))
    if dry_run:
        for cell, run in cells:
            state = "to be trained" if run is None else f"{run.info()['status']}: {relative(run.path)}"
            say(f"{cell.task}, {cell.algorithm}, seed {cell.experiment.seed}: {state}")
        return
    done = sum(run is not None and run.info()["status"] == "finished" for _, run in cells)
    if not quiet:
        say(f"{read.name}: {done} of {len(cells)} runs are there")
    paths: list[tuple[str, Path]] = []
    failed: list[TrainingFailed] = []
    for number, (cell, run) in enumerate(cells, 1):
        is_there = run is not None and run.info()["status"] == "finished"
        title = f"{cell.task}, {cell.algorithm}, seed {cell.experiment.seed}"
        if not quiet and not is_there:
            say(f"run {number} of {len(cells)}: {title}")
        try:
            if is_there:
                result = read.train(cell, run, folder)
            else:
                with display.begin(f"{cell.algorithm} {number}/{len(cells)}", cell.experiment.stop, number):
                    result = read.train(
                        cell,
                        run,
                        folder,
                        report=display.row,
                        on_phase=display.phase,
                        output=output_of(display.kind),
                    )
        except TrainingFailed as error:  # the others may still train
            failed.append(error)
            continue
        except TrainingInterrupted as error:
            again = TrainingInterrupted(error.run_dir, error.signal)
            again.args = (f"the study was interrupted; go on with: rllib study {file}",)
            raise again from error
        paths.append((cell.task, result.run_dir))
    _print_tables(read, paths)
    say(f"results       {relative(folder / read.name)} ({len(paths)} of {len(cells)} runs)")
    if failed:
        raise failed[0]


def _print_tables(read: Study, paths: Sequence[tuple[str, Path]]) -> None:
    """Print a table for each task: a row for each algorithm."""
    from qio_rllib.experiments import comparison

    for task in dict.fromkeys(cell.task for cell in read.cells):
        try:
            runs = comparison.find_runs(path for of, path in paths if of == task)
            if not runs:
                note(f"{task}: no run has ended")
                continue
            groups = comparison.group_runs(runs, "name")
            column = comparison.metric_column(runs, None)
        except ConfigError as error:
            note(f"{task}: {error}")
            continue
        seeds = seeds_text(sorted({run.seed for run in runs}))
        say(f"\ntask {task} (seeds {seeds})")
        print_comparison(groups, comparison.compare(groups, column, True), column)
        print_improvements(groups, comparison.improvements(groups, column, True))
