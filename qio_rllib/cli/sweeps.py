"""Sweeps of ``rllib train``: their runs one after the other, and one table at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qio_envs.api import ConfigError
from qio_rllib.cli.output import console, relative, say, seeds_text
from qio_rllib.cli.progress import Display, Shown

if TYPE_CHECKING:
    from qio_rllib.experiments.experiment import Experiment
    from qio_rllib.experiments.failures import TrainingFailed
    from qio_rllib.experiments.finished_run import RunResult
    from qio_rllib.experiments.run_output import RunOutput
    from qio_rllib.experiments.sweep import Sweep, Variant

    Outcome = RunResult | TrainingFailed

SEED = "seed"


def print_variants(experiment: Experiment) -> None:
    """Print the runs that an experiment stands for, as comments of YAML."""
    found = list(experiment.variants())
    for number, (values, _) in enumerate(found, 1):
        say(f"# {number} of {len(found)}: {values_text(values)}")


def train_sweep(sweep: Sweep, display: Display, output: RunOutput) -> None:
    """Train what is missing of a sweep, and sum it up; the first run that failed is raised when all are done."""
    from qio_rllib.experiments.failures import TrainingFailed

    outcomes: list[tuple[Variant, Outcome]] = []
    count = len(sweep.variants)
    try:
        with sweep.lock():
            for variant in sweep.variants:
                if display.kind in (Shown.LINES, Shown.VERBOSE):
                    display.say(f"run {variant.number} of {count}: {values_text(variant.values)}")
                name = f"{variant.experiment.name} {variant.number}/{count}"
                try:
                    with display.begin(name, variant.experiment.stop, variant.number):
                        result = sweep.train(
                            variant, report=display.row, on_phase=display.phase, output=output
                        )
                except TrainingFailed as error:  # the others may still train
                    display.failed(error, str(error.run_dir), values=variant.values)
                    outcomes.append((variant, error))
                    continue
                display.result(result, values=variant.values)
                outcomes.append((variant, result))
    except ConfigError:
        if not sweep.runs():  # bad input that only the algorithm could see
            with contextlib.suppress(OSError):
                sweep.file.unlink()
        raise
    if display.kind in (Shown.LINES, Shown.VERBOSE):
        print_outcomes(outcomes)
    failed = [outcome for _, outcome in outcomes if isinstance(outcome, TrainingFailed)]
    if display.kind is not Shown.JSON:
        trained = f"{count - len(failed)} of {count} runs" if failed else f"{count} runs"
        display.say(f"results       {relative(sweep.file.parent)} ({trained}, listed by {sweep.file.name})")
    if failed:
        raise failed[0]


def train_population(sweep: Sweep, display: Display, output: RunOutput, resume: bool = False) -> None:
    """Train the runs of a population, or go on with those of one that was interrupted, and sum them up."""
    from qio_rllib.artifacts.metrics import ITERATION
    from qio_rllib.experiments.population import Population

    population = Population(sweep, resume)
    shown = display.kind in (Shown.LINES, Shown.VERBOSE)
    count = len(sweep.variants)

    def tell(row: Mapping[str, Any]) -> None:
        if display.kind is Shown.JSON:
            display.event("exploit", row["run"], row)
        elif shown and not display.is_live:
            values = values_text({key: row[key] for key in population.settings.hyperparam_mutations})
            display.say(
                f"run {row['run']} goes on from run {row['from']} at iteration {row[ITERATION]} "
                f"({row['score']:.4g} against {row['score_from']:.4g}): {values}"
            )

    if shown:
        for variant in sweep.variants:
            values = {**variant.values, **population.values(variant)}
            display.say(f"run {variant.number} of {count}: {values_text(values)}")
    try:
        with display.begin(sweep.experiment.name, sweep.experiment.stop):
            outcomes = population.train(display.row_of, tell, output)
    except ConfigError:
        if not sweep.runs():
            with contextlib.suppress(OSError):
                sweep.file.unlink()
        raise
    for variant, result in outcomes:
        display.result(result, number=variant.number, values=population.values(variant))
    if shown:
        print_outcomes(
            [
                (dataclasses.replace(variant, values=population.values(variant)), one)
                for variant, one in outcomes
            ]
        )
    if display.kind is not Shown.JSON:
        display.say(f"schedule      {relative(population.history_file)}")
        display.say(
            f"results       {relative(sweep.file.parent)} ({count} runs, listed by {sweep.file.name})"
        )


def print_outcomes(outcomes: Sequence[tuple[Variant, Outcome]]) -> None:
    """Print a row for each run, its final evaluation and where it lies, and one for the seeds of equal settings."""
    from rich import box
    from rich.table import Table

    from qio_rllib.artifacts.metrics import MODES

    keys = list(dict.fromkeys(key for variant, _ in outcomes for key in variant.values))
    table = Table(box=box.SIMPLE, pad_edge=False)
    for title in _titles(keys):
        table.add_column(title, overflow="fold")
    for mode in MODES:
        table.add_column(mode, justify="right")
    table.add_column("results", overflow="fold")
    groups: dict[str, list[tuple[Variant, Outcome]]] = {}
    for variant, outcome in outcomes:
        groups.setdefault(_settings_of(variant.values), []).append((variant, outcome))
    for group in groups.values():
        for variant, outcome in group:
            scores = [_score(outcome, mode) for mode in MODES]
            texts = ["" if score is None else f"{score:.4g}" for score in scores]
            if not hasattr(outcome, "evaluation"):
                texts[0] = "failed"
            values = [value_text(variant.values[key]) for key in keys]
            table.add_row(*values, *texts, relative(outcome.run_dir))
        if len(group) > 1:
            table.add_row(*_summary(group, keys, MODES), "", style="bold", end_section=True)
    console().print(table)


def _summary(
    group: Sequence[tuple[Variant, Outcome]], keys: Sequence[str], modes: Sequence[str]
) -> list[str]:
    """Return the row of runs that differ in their seeds alone."""
    from qio_rllib.evaluation.aggregate import IQM, Summary

    values = group[0][0].values
    seeds = seeds_text([variant.values[SEED] for variant, _ in group])
    row = [seeds if key == SEED else value_text(values[key]) for key in keys]
    for mode in modes:
        scores = [score for _, outcome in group if (score := _score(outcome, mode)) is not None]
        if not scores:
            row.append("")
            continue
        found = Summary.of(scores)
        kind = "IQM" if found.statistic == IQM else "mean"
        row.append(f"{kind} {found.score:.4g}\n{found.low:.4g} to {found.high:.4g}")
    return row


def _score(outcome: Outcome, mode: str) -> float | None:
    """Return the score of a run's final evaluation; None where it has none."""
    from qio_rllib.artifacts.metrics import score_name
    from qio_rllib.experiments.failures import TrainingFailed

    means = {} if isinstance(outcome, TrainingFailed) else outcome.evaluation.get(mode, {})
    name = score_name(means)
    return None if name is None else means[name]


def _titles(keys: Sequence[str]) -> list[str]:
    """Return short names of settings: the last part where that is enough."""
    last = [key.rpartition(".")[2] for key in keys]
    return [part if last.count(part) == 1 else key for key, part in zip(keys, last, strict=True)]


def _settings_of(values: Mapping[str, Any]) -> str:
    return json.dumps({key: value for key, value in values.items() if key != SEED}, default=str)


def values_text(values: Mapping[str, Any]) -> str:
    """Return settings in one line."""
    return ", ".join(f"{key} = {value_text(value)}" for key, value in values.items())


def value_text(value: Any) -> str:
    """Return a value as a file has it; numbers that were drawn in four digits."""
    if isinstance(value, float):
        short = f"{value:.4g}"
        return str(value) if len(str(value)) <= len(short) else short
    return json.dumps(value) if isinstance(value, dict | list | bool) or value is None else str(value)
