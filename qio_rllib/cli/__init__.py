"""The ``rllib`` command, each of its commands in a file of its own.

Ray and torch are imported by the commands that need them, so that ``rllib --help`` answers at once.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated, Any

from qio_envs.api import ConfigError
from qio_envs.api.distribution import distribution_name, install_command, version

try:
    import typer
    import typer.core
except ModuleNotFoundError as missing:  # a bare install has the environments only
    print(f"rllib: needs {missing.name}; install the plug-ins: {install_command('rllib')}", file=sys.stderr)
    raise SystemExit(2) from missing

from qio_rllib.cli import (
    bench,
    causal,
    compare,
    credit,
    diagnose,
    evaluate,
    exploit,
    export,
    league,
    policies,
    study,
    tournament,
    train,
    video,
)
from qio_rllib.cli import list as list_command
from qio_rllib.cli.output import complain, say

SUCCESS, FAILURE, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
SIGNALLED = 128
"""A command that a signal stopped ends with this and the signal's number, as a shell says it."""

ELSEWHERE = {
    "plot": "'rllib compare RUNS --out DIR' draws learning curves, and 'rllib train' one of each run",
    "resume": "'rllib train --resume RUN_DIR' continues a run",
    "sweep": "'rllib train' runs one: --seeds 0-4, or grid_search in the experiment file",
    "tune": "'rllib train' runs sweeps (grid_search, samplers) and populations (scheduler)",
    "render": "'rllib evaluate POLICY --render' shows episodes, 'rllib video' records one",
    "play": "'rllib evaluate POLICY --render' shows episodes, 'rllib video' records one",
    "benchmark": "'rllib bench' measures the speed of training",
}
"""Where users find what they may look for under the name of a command that is not there."""


class _Commands(typer.core.TyperGroup):
    """Commands by name; some that are not there say where they are."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, None where there is none.

        Raises:
            ConfigError: It is one of `ELSEWHERE`.
        """
        if cmd_name in ELSEWHERE:
            raise ConfigError(f"there is no command '{cmd_name}': {ELSEWHERE[cmd_name]}")
        return super().get_command(ctx, cmd_name)


app = typer.Typer(
    name="rllib",
    cls=_Commands,
    help="Train and evaluate multi-agent policies with Ray RLlib. This command is QIO's; Ray no longer has one.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        try:
            ray = f"Ray {metadata.version('ray')}"
        except metadata.PackageNotFoundError:
            ray = "Ray, which is not installed"
        say(f"{distribution_name() or 'qio'} {version()}: QIO's rllib command, for {ray}")
        raise typer.Exit()


@app.callback()
def _options(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=_show_version,
            help="Show whose command this is, its version and Ray's.",
        ),
    ] = False,
) -> None:
    """Take options that go before every command."""


app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("export")(export.export)
app.command("compare")(compare.compare)
app.command("study")(study.study)
app.command("tournament")(tournament.tournament)
app.command("league")(league.league)
app.command("exploit")(exploit.exploit)
app.command("diagnose")(diagnose.diagnose)
app.command("credit")(credit.credit)
app.add_typer(causal.app, name="causal")
app.command("list")(list_command.list_)
app.command("policies")(policies.policies)
app.command("video")(video.video)
app.command("bench")(bench.bench)


def console_script() -> int:
    """Run what is installed as ``rllib``; where Ray has a command of that name too, say how to get either.

    Which of the two lies in ``bin/`` depends on which was installed last, so that neither may pass for the other.
    ``python -m qio_rllib.cli`` is always ours.
    """
    for command in metadata.entry_points(group="console_scripts", name="rllib"):
        if command.dist is not None and command.dist.name.lower() == "ray":
            run = f"from {command.module} import {command.attr}; {command.attr}()"
            return complain(
                f"Ray {command.dist.version} has a command 'rllib' of its own, which this one would hide; take "
                f"'python -m qio_rllib.cli' for QIO's, or 'python -c \"{run}\"' for Ray's",
                BAD_INPUT,
            )
    return main()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; every error is one line on stderr.

    Args:
        argv: Arguments, by default those of the process.

    Returns:
        The exit status: 0, 1 if a training failed, 2 for bad input, 128 and the number of the signal that stopped it
        (130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP).
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)  # Ray's; what a user has to know is printed
    if os.getcwd() not in sys.path:
        # Environments of the user's own lie where the command is given; last, so that no file there takes the place of
        # an installed package.
        sys.path.append(os.getcwd())
    arguments = [*(sys.argv[1:] if argv is None else argv)] or ["--help"]
    try:
        status = app(args=arguments, prog_name="rllib", standalone_mode=False)
    except ConfigError as error:
        return complain(str(error), BAD_INPUT)
    except KeyboardInterrupt as error:
        return complain(str(error) or "interrupted", INTERRUPTED)
    except (typer.Abort, EOFError):
        return complain("interrupted", INTERRUPTED)
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error; its class depends on the version of typer
            return complain(error.format_message(), BAD_INPUT) if error.format_message() else BAD_INPUT
        if type(error).__name__ == "TrainingFailed":  # by name: its module imports Ray
            return complain(str(error), FAILURE)
        if type(error).__name__ == "TrainingInterrupted":
            return complain(str(error), SIGNALLED + error.signal)  # type: ignore[attr-defined]
        raise
    finally:
        logging.disable(before)
    if status == INTERRUPTED:  # typer has taken the KeyboardInterrupt
        return complain("interrupted", INTERRUPTED)
    return status if isinstance(status, int) else SUCCESS
