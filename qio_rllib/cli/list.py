"""``rllib list``."""

from __future__ import annotations

import textwrap

from qio_rllib.cli.output import console, say


def list_() -> None:
    """Show environments with their scenarios and scripted policies, families, algorithms, and ready experiments."""
    from rich import box
    from rich.table import Table

    import qio_envs
    from qio_rllib.experiments.ready import ready_experiments, subject
    from qio_rllib.registration import ALGORITHM_NAMES

    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in ("environment", "scenarios", "scripted policies"):
        table.add_column(column, overflow="fold")
    for name, environment in qio_envs.environments().items():
        table.add_row(
            name, ", ".join(environment.scenarios()), ", ".join(environment.batched_class.scripted_policies)
        )
    console().print(table)
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in ("family", "environment", "members"):
        table.add_column(column, overflow="fold")
    for name, family in qio_envs.families().items():
        table.add_row(name, family.env, family.described())
    console().print(table)
    say(f"algorithms    {', '.join(ALGORITHM_NAMES)}")
    say(
        "Gymnasium ids (CartPole-v1, lbforaging:Foraging-8x8-2p-3f-v3), PettingZoo modules (mpe2.simple_spread_v3) and "
        "module:callable go too."
    )
    ready = ready_experiments()
    longest = max(map(len, ready))
    room = max(20, console().width - longest - 4)  # a line for each, on narrow terminals too
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("ready experiment", no_wrap=True)
    table.add_column("about", no_wrap=True)
    for name, path in ready.items():
        table.add_row(name, textwrap.shorten(subject(path), room, placeholder=" ..."))
    console().print(table)
    say("rllib train NAME trains one of them; --dry-run shows it.")
