"""``rllib list``."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from qio_rllib.cli.output import console, say

if TYPE_CHECKING:
    from rich.table import Table


def list_() -> None:
    """Show environments with their scenarios and scripted policies, families, algorithms, and ready experiments."""
    import qio_envs
    from qio_rllib.experiments.ready import ready_experiments, subject
    from qio_rllib.registration import ALGORITHM_NAMES

    shown = console()
    table = _table("environment", "scenarios")
    table.add_column("scripted policies", overflow="fold")
    environments = qio_envs.environments()
    longest = max(len(scenario) for one in environments.values() for scenario in one.scenarios())
    table.columns[1].min_width = longest + 1  # a comma behind it: names are not broken
    left = shown.width - max(map(len, environments)) - longest - 7  # that comma, and what is between columns
    table.columns[2].max_width = max(10, min(left, shown.width // 3))
    for name, environment in environments.items():
        table.add_row(
            name, ", ".join(environment.scenarios()), ", ".join(environment.batched_class.scripted_policies)
        )
    shown.print(table)
    _say_wrapped(
        "Gymnasium ids (CartPole-v1, lbforaging:Foraging-8x8-2p-3f-v3), PettingZoo modules (mpe2.simple_spread_v3) and "
        "module:callable go too.",
        shown.width,
    )
    say("")
    table = _table("family", "environment", "members")
    for name, family in qio_envs.families().items():
        table.add_row(name, family.env, family.described())
    shown.print(table)
    _say_wrapped(f"algorithms: {', '.join(ALGORITHM_NAMES)}", shown.width)
    say("")
    table = _table("ready experiment", "about")
    for name, path in ready_experiments().items():
        table.add_row(name, subject(path))
    shown.print(table)
    _say_wrapped("rllib train NAME trains one of them; --dry-run shows it.", shown.width)


def _table(*columns: str) -> Table:
    """Return a table whose first column is never broken; the others are wrapped, between words where they can be."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, no_wrap=index == 0, overflow="fold")
    return table


def _say_wrapped(text: str, width: int) -> None:
    """Print an empty line and a text in lines of at most ``width`` characters, broken between words."""
    say("\n" + textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False))
