"""``rllib causal explain``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from qio_envs.api import ConfigError
from qio_rllib.cli.arguments import AllowImport, MaxSteps, load_policy_of
from qio_rllib.cli.output import console, relative, say

_SHOWN = 12  # lines of the table in the terminal


def explain(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint, run directory or policy file.")],
    out: Annotated[Path, typer.Option(help="Directory for the table, the picture and the sentence.")],
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the episode; else the first evaluation seed.")
    ] = None,
    step: Annotated[
        int | None, typer.Option(min=0, help="Of the decision, from 0; else mid-episode.")
    ] = None,
    agent: Annotated[str | None, typer.Option(help="Whose decision; else the first agent's.")] = None,
    lags: Annotated[int | None, typer.Option(help="Steps to go back; else 5, or all there are.")] = None,
    draws: Annotated[int, typer.Option(min=1, help="Values to which each variable is set.")] = 16,
    episodes: Annotated[int, typer.Option(min=1, help="From which these values are drawn.")] = 16,
    sampled: Annotated[
        bool, typer.Option("--sampled", help="Sampled actions in place of greedy ones.")
    ] = False,
    max_steps: MaxSteps = None,
    allow_import: AllowImport = None,
) -> None:
    """Say which variables moved a decision of a policy, and how far, by exact counterfactuals."""
    if out.exists() or not out.parent.is_dir():
        raise ConfigError(
            f"--out: {out} {'exists already' if out.exists() else 'is in no directory that exists'}"
        )
    policy, seeds = load_policy_of(checkpoint, allow_import or ())

    from rich import box
    from rich.table import Table

    from qio_rllib.artifacts.causal_plots import draw_influences
    from qio_rllib.artifacts.files import write_atomically, write_csv
    from qio_rllib.experiments.explanation import explain as find

    seed = seeds[0] if seed is None else seed
    found = find(policy, seed, step, agent, lags, draws, episodes, sampled, max_steps)
    who = f", {found.agent}" if found.agent else ""
    say(f"{found.env}{who}, step {found.step} of the episode of seed {found.seed}, {found.mode}")
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("variable", no_wrap=True)
    for name in ("steps before", "value", "shift", "±", *found.change_names):
        table.add_column(name.replace("_", " "), justify="right")
    moving = [one for one in found.ordered if one.shift > 0]
    for one in moving[:_SHOWN]:
        value = "" if one.value != one.value else f"{one.value:.3g}"
        table.add_row(
            one.variable,
            str(one.lag),
            value,
            f"{one.shift:.3g}",
            f"{one.standard_error:.1g}",
            *(f"{change:.3g}" for change in one.changes),
        )
    console().print(table, markup=False)
    rest = len(moving) - _SHOWN
    still = sum(not one.is_ancestor for one in found.influences)
    if rest > 0:
        say(f"{rest} more in the table that is written")
    if still:
        say(f"{still} of {len(found.influences)} are no ancestors of the decision in the graph: exactly 0")
    for note in found.notes:
        say(f"note: {note}")
    say(found.sentence())
    out.mkdir()
    write_csv(out / "explanation.csv", found.rows())
    write_atomically(out / "explanation.json", json.dumps(found.as_dict(), indent=1) + "\n")
    draw_influences(found, out / "explanation.png")
    say(f"written to {relative(out)}")
