"""``rllib diagnose``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qio_envs.api import ConfigError
from qio_rllib.cli.arguments import AllowImport, MaxSteps, load_policy_of
from qio_rllib.cli.output import console, note, relative, say, seeds_text


def diagnose(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint, run directory or policy file.")],
    episodes: Annotated[int, typer.Option(min=1, help="Number of episodes.")] = 10,
    horizon: Annotated[int, typer.Option(min=1, help="Steps to predict without observations.")] = 15,
    random_actions: Annotated[
        bool, typer.Option("--random-actions", help="Uniform random actions in place of the policy's.")
    ] = False,
    max_steps: MaxSteps = None,
    out: Annotated[Path, typer.Option(help="Directory for tables, figures and the GIF.")] = Path("diagnosis"),
    allow_import: AllowImport = None,
) -> None:
    """Compare what a policy's world model predicts with what happens, on the fixed evaluation seeds."""
    if out.exists() or not out.parent.is_dir():
        raise ConfigError(
            f"--out: {out} {'exists already' if out.exists() else 'is in no directory that exists'}"
        )
    policy, _ = load_policy_of(checkpoint, allow_import or ())

    from qio_rllib.experiments.diagnosis import check_world_model, summary
    from qio_rllib.experiments.diagnosis import diagnose as compare
    from qio_rllib.sampling.evaluation import evaluation_seeds

    check_world_model(policy, str(checkpoint))
    seeds = evaluation_seeds(episodes)
    found = compare(policy, seeds, horizon, out, random_actions, max_steps)

    from rich import box
    from rich.table import Table

    actions = "random actions" if random_actions else "greedy"
    say(f"{policy.env}, {actions}, seeds {seeds_text(seeds)}; errors in deviations of the data")
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("world model of")
    columns = {one.module_id: summary(one) for one in found}
    for module_id in columns:
        table.add_column(module_id, justify="right")
    for name in dict.fromkeys(name for lines in columns.values() for name in lines):
        table.add_row(name, *(lines.get(name, "") for lines in columns.values()))
    console().print(table)
    if found[0].cut is not None:
        note(f"{found[0].cut} (--max-steps)")
    say(f"written to {relative(out)}")
