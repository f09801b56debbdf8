"""``rllib policies``."""

from __future__ import annotations

from typing import Annotated

import typer

from qio_rllib.cli.output import console, print_yaml, say


def policies(
    name: Annotated[str | None, typer.Argument(help="Show the whole card of this one.")] = None,
) -> None:
    """Show the pretrained policies that are installed; policy:NAME stands for one in place of a policy file."""
    from rich import box
    from rich.table import Table

    from qio_rllib.artifacts.pretrained import PREFIX, card_of, cards

    if name is not None:
        print_yaml(card_of(name).as_dict())
        return
    found = cards().values()
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in ("policy", "task", "algorithm"):
        table.add_column(column, overflow="fold")
    for column in ("random", "score", "best scripted", "normalised", "seed"):
        table.add_column(column, justify="right")
    for card in found:
        table.add_row(
            card.name,
            card.task,
            card.algorithm,
            f"{card.random:.1f}",
            f"{card.score:.1f}",
            f"{card.best:.1f}",
            f"{card.normalized:.2f}",
            str(card.seed),
        )
    console().print(table)
    for card in found:
        say(f"{PREFIX}{card.name}: {card.command}  ({card.licence})")
