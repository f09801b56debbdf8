"""``rllib train``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qio_envs.api import ConfigError
from qio_rllib.cli.arguments import OWN_RUNS, AllowImport, experiment_of, is_own_run, note_foreign_code
from qio_rllib.cli.output import console, note, print_yaml, progress, relative, say

if TYPE_CHECKING:
    from qio_rllib.experiments.experiment import Experiment
    from qio_rllib.experiments.failures import TrainingFailed
    from qio_rllib.experiments.finished_run import RunResult


def train(
    config: Annotated[
        str | None, typer.Option(help="Experiment file (YAML), or with --run a JSON object of settings.")
    ] = None,
    run: Annotated[str | None, typer.Option(help="Algorithm, in place of an experiment file.")] = None,
    env: Annotated[str | None, typer.Option(help="Environment, with --run.")] = None,
    stop: Annotated[str | None, typer.Option(help="Stop criteria as a JSON object, with --run.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting: lr=1e-4, stop.training_iteration=3. Repeatable.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the run.")] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN_DIR",
            help="Continue an interrupted run, or extend a finished one; or its copy's URI.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where runs are kept (default: runs).")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the experiment, write nothing.")
    ] = False,
    allow_import: AllowImport = None,
) -> None:
    """Train an experiment; checkpoints, tables and plots go to a new directory of their own.

    Where a setting is ``{grid_search: [...]}``, all combinations are trained one after the other.
    """
    overrides = settings or []
    if resume is not None:
        given = {"--config": config, "--run": run, "--env": env, "--stop": stop, "--seed": seed, "--out": out}
        for option, value in given.items():
            if value is not None:
                raise ConfigError(f"{option}: cannot go with --resume, the run keeps what it began with")
        if dry_run:
            raise ConfigError("--dry-run: cannot go with --resume")
        from qio_rllib.artifacts.remote_copy import download, is_uri
        from qio_rllib.artifacts.run_directory import RunDirectory
        from qio_rllib.experiments import training
        from qio_rllib.experiments.experiment import load_experiment

        if is_uri(resume):
            note(f"{resume}: Ray's checkpoints are pickles, and loading one runs what is in it")
            run_dir, is_own = download(resume, OWN_RUNS), False
        else:
            run_dir, is_own = Path(resume), is_own_run(Path(resume))
            note_foreign_code(run_dir)
        allowed = None if is_own else allow_import or ()
        goal = load_experiment(RunDirectory.open(run_dir).config_file, overrides, allow_import=allowed).stop
        with progress(goal) as report:
            result = training.resume(run_dir, overrides, report, allowed)
        _print_result(result)
        return
    if out is not None and ":/" in str(out):
        raise ConfigError(
            f"--out: a run directory is local, got {out}; a copy elsewhere is kept with --set storage=URI"
        )
    experiment = experiment_of(config, run, env, stop, overrides, seed, allow_import or ())

    if experiment.has_grids:
        found = list(experiment.variants())
        for _, variant in found:
            variant.validate()
        if dry_run:
            print_yaml({experiment.name: experiment.as_dict()})
            for number, (values, _) in enumerate(found, 1):
                say(f"# {number} of {len(found)}: {_values_text(values)}")
        else:
            _train_variants(found, out if out is not None else Path(OWN_RUNS))
        return
    if dry_run:
        experiment.validate()
        print_yaml({experiment.name: experiment.as_dict()})
        return
    from qio_rllib.experiments import training

    with progress(experiment.stop) as report:
        result = training.train(experiment, out if out is not None else OWN_RUNS, report)
    _print_result(result)


def _train_variants(found: Sequence[tuple[Mapping[str, Any], Experiment]], out: Path) -> None:
    """Train one variant after the other and compare them; the first that failed is raised when all are done."""
    from qio_rllib.experiments.failures import TrainingFailed
    from qio_rllib.experiments.training import train as train_one

    outcomes: list[tuple[Mapping[str, Any], RunResult | TrainingFailed]] = []
    failed: list[TrainingFailed] = []
    for number, (values, variant) in enumerate(found, 1):
        say(f"variant {number} of {len(found)}: {_values_text(values)}")
        try:
            with progress(variant.stop) as report:
                outcomes.append((values, train_one(variant, out, report)))
        except TrainingFailed as error:  # the others may still train
            failed.append(error)
            outcomes.append((values, error))
    _print_variants(outcomes)
    if failed:
        raise failed[0]


def _print_variants(outcomes: Sequence[tuple[Mapping[str, Any], RunResult | TrainingFailed]]) -> None:
    """Print one row per variant: its values, the final evaluation, and where it lies."""
    from rich import box
    from rich.table import Table

    from qio_rllib.artifacts.metrics import MODES, score_name
    from qio_rllib.experiments.failures import TrainingFailed

    table = Table(box=box.SIMPLE, pad_edge=False)
    keys = list(outcomes[0][0])
    last_parts = [key.rpartition(".")[2] for key in keys]
    for key, last in zip(keys, last_parts, strict=True):
        table.add_column(
            last if last_parts.count(last) == 1 else key.removeprefix("config."), overflow="fold"
        )
    for mode in MODES:
        table.add_column(mode, justify="right")
    table.add_column("results", overflow="fold")
    for values, outcome in outcomes:
        if isinstance(outcome, TrainingFailed):
            scores = ["failed", ""]
        else:
            means = [outcome.evaluation.get(mode, {}) for mode in MODES]
            names = [score_name(each) for each in means]
            scores = [
                f"{each[name]:.4g}" if name is not None else ""
                for each, name in zip(means, names, strict=True)
            ]
        table.add_row(*map(_value_text, values.values()), *scores, relative(outcome.run_dir))
    console().print(table)


def _values_text(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.removeprefix('config.')} = {_value_text(value)}" for key, value in values.items())


def _value_text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list | bool) or value is None else str(value)


def _print_result(result: RunResult) -> None:
    from qio_rllib.artifacts.metrics import score_name

    say(f"results       {relative(result.run_dir)}")
    say(f"checkpoint    {relative(result.checkpoint)}")
    if result.storage is not None:
        say(f"copy          {result.storage}")
    for mode, means in result.evaluation.items():
        name = score_name(means)
        coverage = f", coverage {means['coverage']:.3f}" if "coverage" in means else ""
        if name is not None:
            say(f"{mode:<14}{name.replace('_', ' ')} {means[name]:.4g}{coverage}")
    for one in result.notes:
        say(f"note          {one}")
    say(f"evaluate it   rllib evaluate {relative(result.checkpoint)}")
