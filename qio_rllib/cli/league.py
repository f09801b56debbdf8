"""``rllib league``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qio_rllib.cli.arguments import OWN_RUNS, AllowImport
from qio_rllib.cli.output import relative, say
from qio_rllib.cli.progress import Display, Shown
from qio_rllib.cli.tournament import print_cross_play, write_cross_play
from qio_rllib.cli.train import output_of

if TYPE_CHECKING:
    from qio_rllib.artifacts.run_directory import RunDirectory
    from qio_rllib.experiments.experiment import Experiment
    from qio_rllib.experiments.finished_run import RunResult
    from qio_rllib.experiments.league import Round


def league(
    file: Annotated[Path, typer.Argument(help="The league (YAML): an experiment, rounds and method.")],
    seed: Annotated[int | None, typer.Option(min=0, help="In place of the file's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where leagues are kept (default: runs).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but the tables.")] = False,
    allow_import: AllowImport = None,
) -> None:
    """Train a population in rounds against itself: PSRO, or a league of a main policy and exploiters.

    The same command goes on where it was interrupted: what is there is not trained again.
    """
    display = Display(Shown.QUIET if quiet else Shown.LINES)
    with display.loading():
        from qio_rllib.experiments import training
        from qio_rllib.experiments.failures import TrainingInterrupted
        from qio_rllib.experiments.league import EXACT, League
        from qio_rllib.experiments.tuning import ray_runtime

        read = League.read(file, seed, allow_import or ())
    experiment = read.experiment
    if dry_run:
        say(
            f"{experiment.name}: {read.rounds} rounds of {experiment.algorithm} on {experiment.env}, {read.method}"
        )
        return
    folder = (out if out is not None else Path(OWN_RUNS)) / experiment.name / f"seed_{experiment.seed}"

    def train(one: Experiment, run: RunDirectory | None, where: Path) -> RunResult:
        is_there = run is not None and run.info()["status"] == "finished"
        if is_there:
            return training.train_or_go_on(one, run, where)
        if not quiet:
            say(f"{one.name.replace('_', ' ')} of {read.rounds} rounds")
        with display.begin(one.name, one.stop):
            return training.train_or_go_on(
                one, run, where, report=display.row, on_phase=display.phase, output=output_of(display.kind)
            )

    def tell(found: Round) -> None:
        if not quiet and not math.isnan(found.gain):
            mixed = int((found.weights > 1e-3).sum())
            say(
                f"round {found.number}: {found.members[-1].role.replace('_', ' ')} gains {found.gain:.4g} on the "
                f"mixture before; the next one mixes {mixed} of {len(found.members)} policies"
            )

    try:
        with ray_runtime(experiment.validate()):
            found = read.play(folder, train, tell)
    except TrainingInterrupted as error:
        again = TrainingInterrupted(error.run_dir, error.signal)
        again.args = (f"the league was interrupted; go on with: rllib league {file}",)
        raise again from error
    if found.cross_play is not None:
        names = [member.name for member in found.members]
        print_cross_play(names, found.cross_play, read.payoffs == EXACT)
        write_cross_play(folder, names, found.cross_play, found.pairings)
    say(f"results       {relative(folder)} ({len(found.members)} policies)")
    say(f"exploit it    rllib exploit {relative(folder)}")
