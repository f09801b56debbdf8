"""``rllib bench``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qio_rllib.cli.arguments import (
    AllowImport,
    ExperimentFile,
    check_output_file,
    experiment_of,
    one_experiment,
)
from qio_rllib.cli.output import console, relative, say

if TYPE_CHECKING:
    from qio_rllib.experiments.benchmark import Benchmark

_BAR = 40  # characters of a whole iteration


def bench(
    experiment_file: ExperimentFile = None,
    config: Annotated[str | None, typer.Option(help="The same as FILE|NAME.")] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Measure for so long (default: 60, without --rounds).")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Measure so many iterations of each at most.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: num_env_runners=0. Repeatable."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="CSV file for one row per path.")] = None,
    allow_import: AllowImport = None,
) -> None:
    """Time an experiment's training beside RLlib's own runner and Learner, in turns; keeps nothing that is trained."""
    check_output_file(out)
    config = one_experiment(experiment_file, config)
    experiment = experiment_of(config, None, None, None, settings or [], None, allow_import or ())

    from qio_rllib.artifacts.files import write_csv
    from qio_rllib.experiments.benchmark import benchmark

    measured = benchmark(experiment, rounds, seconds)
    _print_benchmark(measured)
    if out is not None:
        write_csv(out, measured.rows)
        say(f"written to {relative(out)}")


def _print_benchmark(measured: Benchmark) -> None:
    """Print one column per path, then what the numbers must be read with."""
    from rich import box
    from rich.table import Table

    experiment, rows = measured.experiment, measured.rows
    say(f"{experiment.name}: {experiment.algorithm} in {experiment.env}, seed {experiment.seed}")
    say(measured.settings)
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("median of an iteration")
    for row in rows:
        table.add_column(row["path"], justify="right")

    def line(label: str, text: Callable[[Mapping[str, Any]], str]) -> None:
        cells = [text(row) for row in rows]
        if any(cells):
            table.add_row(label, *cells)

    def phase(key: str) -> Callable[[Mapping[str, Any]], str]:
        whole = ("sample_s", "learn_s", "other_s")
        return lambda row: f"{row[key]:.3f} s {row[key] / sum(row[name] for name in whole):4.0%}"

    line("environment steps/s", lambda row: f"{row['env_steps_per_s']:,.0f}")
    line("slowest to fastest", lambda row: f"{row['slowest_round']:,.0f} to {row['fastest_round']:,.0f}")
    line("agent steps/s", lambda row: f"{row['agent_steps_per_s']:,.0f}")
    line("ratio", lambda row: f"{row['ratio']:.2f}" if row["ratio"] != "" else "")
    line("sampling", phase("sample_s"))
    line("learning", phase("learn_s"))
    line("weights and metrics", phase("other_s"))
    line("gradient steps", lambda row: f"{row['gradient_steps']:,}")
    line("torch threads here", lambda row: row["torch_threads"])
    line(
        "memory of a runner", lambda row: f"{row['runner_rss_mib']:,.0f} MiB" if row["runner_rss_mib"] else ""
    )
    console().print(table)
    _print_parts(rows[-1])
    first = rows[0]
    turns = f"{first['rounds']} round{'s' * (first['rounds'] != 1)}"
    say(f"measured      {turns}{', the paths took turns' if len(rows) > 1 else ''}")
    if first["process_rss_mib"] != "":
        held = ", with both paths in it" if len(rows) > 1 else ""
        say(f"memory        {first['process_rss_mib']:,.0f} MiB in this process{held}")
    say(f"machine       {first['cpu']}, {first['cpus']} CPUs")
    say(f"versions      {', '.join(f'{key} {first[key]}' for key in ('ray', 'torch', 'numpy', 'python'))}")
    for note in measured.notes:
        say(f"note          {note}")


def _print_parts(row: Mapping[str, Any]) -> None:
    """Print where an iteration of this package's path goes, a bar for each part, and what the machine would allow."""
    from qio_rllib.experiments.time_spent import parts_of

    parts = parts_of(row)
    whole = sum(parts.values())
    say("where an iteration of this package's path goes")
    for name, seconds in parts.items():
        bar = "\u2588" * round(_BAR * seconds / whole)
        say(f"{name:<25}{seconds:>8.3f} s {seconds / whole:>4.0%}  {bar}".rstrip())
    product, reached = float(row["product_gflop_per_s"]), row["update_gflop_per_s"]
    if reached != "":
        say(
            f"gradient steps multiply {reached:,.1f} GFLOP/s: {float(reached) / product:.0%} of torch's matrix product"
        )
    say(f"one thread here: matrix product {product:,.0f} GFLOP/s, copying {row['copy_gb_per_s']:,.1f} GB/s\n")
