"""``rllib evaluate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from qio_envs.api import ConfigError
from qio_rllib.cli.arguments import (
    AllowImport,
    check_output_file,
    evaluation_env,
    load_policy_of,
    modes_of,
    needed_checkpoint,
    scripted_env,
    seeds_of,
)
from qio_rllib.cli.output import console, say, seeds_text


def evaluate(
    checkpoint: Annotated[
        Path | None, typer.Argument(help="Checkpoint, run directory or policy file.")
    ] = None,
    episodes: Annotated[int | None, typer.Option(min=1, help="Number of episodes.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds of the episodes, such as 1,2,3.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Most probable actions only.")] = False,
    sampled: Annotated[bool, typer.Option("--sampled", help="Sampled actions only.")] = False,
    env: Annotated[str | None, typer.Option(help="Another environment than that of the training.")] = None,
    env_config: Annotated[str | None, typer.Option(help="Its settings as a JSON object.")] = None,
    scripted: Annotated[
        str | None, typer.Option(metavar="NAME", help="A scripted policy of --env in place of a checkpoint.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="CSV file for one row per episode.")] = None,
    allow_import: AllowImport = None,
) -> None:
    """Score a policy on fixed seeds; without options, on those of the run's own final evaluation."""
    if episodes is not None and seeds is not None:
        raise ConfigError("--episodes: cannot go with --seeds, which says how many there are")
    check_output_file(out)
    modes = modes_of(greedy, sampled)
    chosen = seeds_of(seeds)
    rows: dict[str, list[dict[str, Any]]]
    if scripted is not None:
        if greedy or sampled:
            raise ConfigError(
                "--scripted: cannot go with --greedy or --sampled, a scripted policy has one way to act"
            )
        env_id, settings = scripted_env(checkpoint, env, env_config)

        from qio_rllib.experiments.scripted import evaluate_scripted
        from qio_rllib.sampling.evaluation import evaluation_seeds

        chosen = _counted(evaluation_seeds(10) if chosen is None else chosen, episodes)
        rows = {scripted: evaluate_scripted(scripted, env_id, settings, chosen)}
    else:
        policy, own_seeds = load_policy_of(needed_checkpoint(checkpoint), allow_import or ())
        chosen = _counted(own_seeds if chosen is None else chosen, episodes)
        env_id, checked = evaluation_env(policy, env, env_config)

        from qio_rllib.sampling.evaluation import evaluate as play

        rows = {mode: play(policy, env_id, checked, chosen, explore=mode == "sampled") for mode in modes}
    if out is not None:
        from qio_rllib.artifacts.files import write_csv

        write_csv(out, [{"mode": mode, **row} for mode, each in rows.items() for row in each])
    _print_scores(rows, f"{env_id}, {len(chosen)} episodes, seeds {seeds_text(chosen)}")


def _counted(seeds: list[int], episodes: int | None) -> list[int]:
    """Return as many seeds as episodes: the first ones, then those that count on from the largest."""
    if episodes is None:
        return seeds
    return [*seeds, *range(max(seeds) + 1, max(seeds) + 1 + episodes)][:episodes]


def _print_scores(rows: Mapping[str, Sequence[Mapping[str, Any]]], title: str) -> None:
    """Print mean and standard deviation of every metric, one column per mode."""
    import statistics

    from rich import box
    from rich.table import Table

    from qio_rllib.sampling.evaluation import mean_scores

    means = {mode: mean_scores(episodes) for mode, episodes in rows.items()}
    say(title)
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("mean ± deviation")
    for mode in rows:
        table.add_column(mode, justify="right")
    for name in dict.fromkeys(key for values in means.values() for key in values):
        cells = []
        for mode, episodes in rows.items():
            values = [row[name] for row in episodes if name in row]
            spread = f" ± {statistics.stdev(values):.4g}" if len(values) > 1 else ""
            cells.append(f"{means[mode][name]:.6g}{spread}" if name in means[mode] else "")
        table.add_row(name, *cells)
    console().print(table)
