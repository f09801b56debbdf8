"""``rllib credit``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from qio_envs.api import ConfigError
from qio_rllib.cli.arguments import AllowImport
from qio_rllib.cli.output import console, relative, say

_LINES = {
    "bias": "bias",
    "offset": "offset",
    "distortion": "distortion",
    "noise": "noise",
    "rmse": "error",
    "correlation": "correlation",
    "sign": "right signs",
    "order": "right order",
}
"""Statistics of the table, by their names in `Agreement`."""


def credit(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint, run directory or policy file.")],
    states: Annotated[int, typer.Option(min=1, help="Decisions, each of an episode of its own.")] = 32,
    branches: Annotated[int, typer.Option(min=1, help="Of each decision and action.")] = 64,
    agent: Annotated[str | None, typer.Option(help="Whose decisions; else all agents' in turn.")] = None,
    horizon: Annotated[
        int | None, typer.Option(min=1, help="Steps to play on; else to the end of the episode.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of episodes and branches; else the first evaluation seed.")
    ] = None,
    given_others: Annotated[
        bool,
        typer.Option(
            "--given-others", help="Let the others do in the decision what they did in the episode."
        ),
    ] = False,
    gamma: Annotated[
        float | None, typer.Option(min=0, max=1, help="Discount; else the run's. A policy file has none.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory for tables and figure.")] = Path("credit"),
    allow_import: AllowImport = None,
) -> None:
    """Measure the true advantages of decisions by exact branches, and how far the run's estimators are off."""
    if out.exists() or not out.parent.is_dir():
        raise ConfigError(
            f"--out: {out} {'exists already' if out.exists() else 'is in no directory that exists'}"
        )
    if checkpoint.is_file() and gamma is None:
        raise ConfigError(f"--gamma: {checkpoint} is a policy file, which has no discount; give one")

    from rich import box
    from rich.table import Table

    from qio_rllib.cli.arguments import checkpoint_of
    from qio_rllib.experiments.credit import Plan, Subject, measure
    from qio_rllib.sampling.evaluation import FIRST_EVALUATION_SEED

    if checkpoint.is_file():
        from qio_rllib.artifacts.policy_file import load_policy

        assert gamma is not None
        subject = Subject.of_policy(load_policy(checkpoint, allow_import or ()), gamma)
    else:
        subject = Subject.of_checkpoint(checkpoint_of(checkpoint), gamma)
    first = FIRST_EVALUATION_SEED if seed is None else seed
    found = measure(subject, Plan(states, branches, agent, horizon, first, given_others))
    say(found.title)
    _say_truth(found.summary())
    if found.estimators:
        agreements = found.agreements()
        table = Table(box=box.SIMPLE, pad_edge=False)
        table.add_column("")
        for name in agreements:
            table.add_column(name, justify="right")
        for key, label in _LINES.items():
            cells = [getattr(one, key) for one in agreements.values()]
            table.add_row(
                label, *(f"{_short(one.value)}\n({_short(one.low)} to {_short(one.high)})" for one in cells)
            )
        console().print(table)
    else:
        say("no estimators: a policy file has no value network and no critics; give the run or a checkpoint")
    plan = found.plan
    command = ["rllib", "credit", relative(checkpoint), "--states", str(states), "--branches", str(branches)]
    command += ["--seed", str(plan.seed), "--gamma", str(subject.trained.gamma)]
    command += [] if agent is None else ["--agent", agent]
    command += [] if horizon is None else ["--horizon", str(horizon)]
    command += ["--given-others"] if given_others else []
    found.write(out, command)
    say(f"written to {relative(out)}")


def _say_truth(summary: Mapping[str, float]) -> None:
    parts = [f"true advantages of the actions taken: root mean square {summary['spread']:.3g}"]
    if summary["branches"] > 1:
        parts.append(f"standard error {summary['mean_error']:.2g}")
        parts.append(f"{summary['distinguishable']:.0%} differ from 0 by two of them")
    if summary["pairing"] == summary["pairing"]:
        parts.append(f"{summary['pairing']:.2g} times as much without common random numbers")
    parts.append(f"{summary['env_steps']:,} environment steps")
    say("; ".join(parts))


def _short(value: float) -> str:
    return f"{round(value, 6):.2g}"
