"""``rllib train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qio_envs.api import ConfigError
from qio_rllib.cli.arguments import (
    OWN_RUNS,
    AllowImport,
    ExperimentFile,
    experiment_of,
    is_own_run,
    note_foreign_code,
    one_experiment,
    seeds_of,
    sets_seed,
)
from qio_rllib.cli.output import note, print_yaml, relative
from qio_rllib.cli.progress import Display, Shown

if TYPE_CHECKING:
    from qio_rllib.experiments.finished_run import RunResult
    from qio_rllib.experiments.run_output import RunOutput


def train(
    experiment_file: ExperimentFile = None,
    config: Annotated[
        str | None, typer.Option(help="The same as FILE|NAME, or with --run a JSON object of settings.")
    ] = None,
    run: Annotated[str | None, typer.Option(help="Algorithm, in place of an experiment file.")] = None,
    env: Annotated[str | None, typer.Option(help="Environment, with --run.")] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE|JSON",
            help="Stop criterion, with --run: training_iteration=100. Repeatable.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting: lr=1e-4, stop.training_iteration=3. Repeatable.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the run.")] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="LIST", help="One run for each of several seeds: 0-4, or 1,3,7.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN_DIR",
            help="Continue an interrupted run, extend a finished one, or go on with a sweep or population (its "
            "file); or the URI of a run's copy.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where runs are kept (default: runs).")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the experiment, write nothing.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing but where the results lie.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", help="Show what Ray and its workers print too (otherwise: run.log of the run)."
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: an object for each iteration, and one for the result.")
    ] = False,
    allow_import: AllowImport = None,
) -> None:
    """Train an experiment; checkpoints, tables and plots go to a new directory of their own.

    Several runs are trained one after the other: one for each of ``--seeds``, each value of ``{grid_search: [...]}``
    and each of ``num_samples`` draws from samplers such as ``{loguniform: [1e-5, 1e-3]}``, in all combinations. With a
    ``scheduler`` they are a population, and trained at once.
    """
    overrides = settings or []
    config = one_experiment(experiment_file, config)
    kinds = {"--quiet": quiet, "--verbose": verbose, "--json": as_json, "--dry-run": dry_run}
    chosen = [option for option, is_set in kinds.items() if is_set]
    if len(chosen) > 1:
        raise ConfigError(f"{chosen[0]}: cannot go with {chosen[1]}")
    kind = Shown.QUIET if quiet else Shown.VERBOSE if verbose else Shown.JSON if as_json else Shown.LINES
    if resume is not None:
        given: dict[str, Any] = {
            "--config": config,
            "--run": run,
            "--env": env,
            "--stop": stop,
            "--seed": seed,
            "--seeds": seeds,
            "--out": out,
        }
        for option, value in given.items():
            if value is not None:
                raise ConfigError(f"{option}: cannot go with --resume, the run keeps what it began with")
        if dry_run:
            raise ConfigError("--dry-run: cannot go with --resume")
        _resume(resume, overrides, allow_import or (), kind)
        return
    if out is not None and ":/" in str(out):
        raise ConfigError(
            f"--out: a run directory is local, got {out}; a copy elsewhere is kept with --set storage=URI"
        )
    if seed is not None and seeds is not None:
        raise ConfigError("--seed: cannot go with --seeds")
    several = seeds_of(seeds)
    if several is not None and sets_seed(overrides):
        raise ConfigError("--seeds: cannot go with --set seed=...")
    display = Display(kind)
    with display.loading():
        experiment = experiment_of(config, run, env, stop, overrides, seed, allow_import or ())
        if several is not None:
            if experiment.population is not None:
                raise ConfigError("--seeds: a population has one seed, and its members those that follow")
            experiment = experiment.with_seeds(several)
        experiment.validate()
    if dry_run:
        print_yaml({experiment.name: experiment.as_dict()})
        if experiment.is_sweep:
            from qio_rllib.cli.sweeps import print_variants

            print_variants(experiment)
        return
    earlier = experiment.config.get("initial_weights")
    if isinstance(earlier, str):
        note_foreign_code(Path(earlier))
    target = out if out is not None else Path(OWN_RUNS)
    if experiment.is_sweep:
        from qio_rllib.cli.sweeps import train_population, train_sweep
        from qio_rllib.experiments.sweep import Sweep

        sweep = Sweep.create(experiment, target)
        if experiment.population is not None:
            train_population(sweep, display, output_of(kind))
        else:
            train_sweep(sweep, display, output_of(kind))
        return
    from qio_rllib.experiments import training

    with display.begin(experiment.name, experiment.stop):
        result = training.train(
            experiment, target, display.row, on_phase=display.phase, output=output_of(kind)
        )
    print_result(display, result)


def _resume(given: str, overrides: list[str], allow_import: list[str] | tuple[()], kind: Shown) -> None:
    """Go on with a run, a sweep, or a copy of a run, which is brought here first."""
    from qio_rllib.artifacts.remote_copy import download, is_uri

    if is_uri(given):
        note(f"{given}: Ray's checkpoints are pickles, and loading one runs what is in it")
        path, is_own = download(given, OWN_RUNS), False
    else:
        path = Path(given)
        is_own = is_own_run(path)
    allowed = None if is_own else allow_import
    if path.is_file():
        if overrides:
            raise ConfigError("--set: cannot go with --resume of a sweep, it keeps what it began with")
        from qio_rllib.cli.sweeps import train_population, train_sweep
        from qio_rllib.experiments.sweep import Sweep

        sweep = Sweep.open(path, allowed)
        if sweep.experiment.population is not None:
            train_population(sweep, Display(kind), output_of(kind), resume=True)
        else:
            train_sweep(sweep, Display(kind), output_of(kind))
        return
    if not is_uri(given):
        note_foreign_code(path)
    from qio_rllib.artifacts.run_directory import RunDirectory
    from qio_rllib.experiments import training
    from qio_rllib.experiments.experiment import load_experiment

    goal = load_experiment(RunDirectory.open(path).config_file, overrides, allow_import=allowed)
    display = Display(kind)
    with display.begin(goal.name, goal.stop):
        result = training.resume(
            path, overrides, display.row, allowed, on_phase=display.phase, output=output_of(kind)
        )
    print_result(display, result)


def output_of(kind: Shown) -> RunOutput:
    """Return what becomes of libraries' output where progress is shown in a way."""
    from qio_rllib.experiments.run_output import RunOutput

    return RunOutput.SHOWN if kind is Shown.VERBOSE else RunOutput.LOGGED


def print_result(display: Display, result: RunResult) -> None:
    """Say what a run has left, in the way of the display."""
    from qio_rllib.artifacts.metrics import score_name

    if display.kind is Shown.JSON:
        display.result(result)
        return
    display.say(f"results       {relative(result.run_dir)}")
    if display.kind is Shown.QUIET:
        return
    display.say(f"checkpoint    {relative(result.checkpoint)}")
    if result.storage is not None:
        display.say(f"copy          {result.storage}")
    for mode, means in result.evaluation.items():
        name = score_name(means)
        coverage = f", coverage {means['coverage']:.3f}" if "coverage" in means else ""
        if name is not None:
            display.say(f"{mode:<14}{name.replace('_', ' ')} {means[name]:.4g}{coverage}")
    for one in result.notes:
        display.say(f"note          {one}")
    display.say(f"evaluate it   rllib evaluate {relative(result.checkpoint)}")
