"""Where goes what Ray, Gymnasium and other libraries print while a run trains."""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path


class RunOutput(enum.Enum):
    """What becomes of the warnings, logs and printed lines of libraries and of Ray's workers.

    Attributes:
        DROPPED: Ray's are dropped, others left alone.
        LOGGED: All that comes to standard output and standard error goes to ``run.log`` of the run.
        SHOWN: All of it is shown.
    """

    DROPPED = "dropped"
    LOGGED = "logged"
    SHOWN = "shown"


@contextlib.contextmanager
def run_output(kind: RunOutput, log: Path) -> Iterator[None]:
    """Lead the output of this process to where it belongs, as long as a run trains.

    Args:
        kind: Where that is.
        log: The run's log, which is appended to.
    """
    with contextlib.ExitStack() as entered:
        if kind is not RunOutput.DROPPED:
            entered.enter_context(_all_is_said())
        if kind is RunOutput.LOGGED:
            entered.enter_context(_redirected(log))
        yield


@contextlib.contextmanager
def _all_is_said() -> Iterator[None]:
    """Let warnings and logs through that the command line keeps silent otherwise."""
    before = logging.root.manager.disable
    logging.disable(logging.NOTSET)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        try:
            yield
        finally:
            logging.disable(before)


@contextlib.contextmanager
def _redirected(log: Path) -> Iterator[None]:
    """Put a file in place of standard output and standard error: of Python's, and of the process's, for C libraries.

    A log that cannot be written ends no training.
    """
    try:
        file = log.open("a", encoding="utf-8", buffering=1)
    except OSError:
        file = open(os.devnull, "a", encoding="utf-8")  # noqa: SIM115, it is closed below
    _flush()
    saved: dict[int, int] = {}
    try:
        for number in (1, 2):
            with contextlib.suppress(OSError):  # it is closed, and stays so
                saved[number] = os.dup(number)
                os.dup2(file.fileno(), number)
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            yield
    finally:
        with contextlib.suppress(OSError, ValueError):  # what is left to be written has no room on the disk
            file.close()
        for number, copy in saved.items():
            os.dup2(copy, number)
            os.close(copy)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
