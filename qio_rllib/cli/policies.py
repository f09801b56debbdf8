"""``rllib policies``."""

from __future__ import annotations

from typing import Annotated

import typer

from qio_rllib.cli.output import print_yaml, say


def policies(
    name: Annotated[str | None, typer.Argument(help="Show the whole card of this one.")] = None,
) -> None:
    """Show the pretrained policies that are installed; policy:NAME stands for one in place of a policy file."""
    from qio_rllib.artifacts.pretrained import PREFIX, card_of, cards

    if name is not None:
        print_yaml(card_of(name).as_dict())
        return
    for card in cards().values():
        say(f"{PREFIX}{card.name}")
        say(f"  {card.task}, {card.algorithm}, seed {card.seed}, {card.licence}")
        say(
            f"  {card.mode} {card.shown(card.score)}{card.measure}: {card.normalized:.2f} between random play "
            f"({card.shown(card.random)}) and {card.best_scripted} ({card.shown(card.best)})"
        )
        say(f"  {card.command}")
