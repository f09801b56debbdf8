"""How ``rllib train`` shows what happens: a live line, a plain line or a JSON object an iteration, or nothing."""

from __future__ import annotations

import contextlib
import enum
import io
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any, TextIO, cast

from rich.console import Console, ConsoleDimensions
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from qio_rllib.artifacts.metrics import ITERATION, ITERATION_TIME, MODES, SPEED, STEPS, TIME, score_column

if TYPE_CHECKING:
    from qio_rllib.experiments.finished_run import RunResult

_COUNTERS = (ITERATION, STEPS, TIME)
_LONGEST_BAR, _SHORTEST_BAR, _SHORTEST_NAME = 24, 4, 8  # characters
_RATE_ROWS = (
    20  # iterations over which the speed is averaged: a replay that is being filled tells little of later
)


class Shown(enum.Enum):
    """How progress is shown."""

    LINES = "lines"
    QUIET = "quiet"
    VERBOSE = "verbose"
    JSON = "json"


class Estimate:
    """How far a run is, by the stop criterion that it will reach first.

    Args:
        stop: Stop criteria.
        clock: Seconds; only differences count.
    """

    def __init__(self, stop: Mapping[str, float], clock: Callable[[], float] = time.monotonic) -> None:
        self._goals = {key: stop[key] for key in _COUNTERS if key in stop}
        self._clock = clock
        self._points: deque[tuple[float, dict[str, float]]] = deque(maxlen=_RATE_ROWS + 1)

    def add(self, row: Mapping[str, float]) -> None:
        """Take in an iteration's row of ``progress.csv``."""
        now, seconds = self._clock(), row.get(ITERATION_TIME, 0.0)
        if not self._points and seconds > 0:  # the state before it
            before = {ITERATION: row[ITERATION] - 1, TIME: row.get(TIME, seconds) - seconds}
            if STEPS in row and SPEED in row:
                before[STEPS] = row[STEPS] - row[SPEED] * seconds
            self._points.append((now - seconds, before))
        self._points.append((now, {key: row[key] for key in _COUNTERS if key in row}))

    def leading(self) -> tuple[str | None, float, float | None]:
        """Return the criterion that will be reached first, how much of it is done, and the seconds that are left.

        The criterion is None where none can be counted, such as a return; the seconds are None before the first
        iteration.
        """
        found = []
        for key, goal in self._goals.items():
            points = [(at, values[key]) for at, values in self._points if key in values]
            if not points:
                continue
            (first_at, first), (last_at, last) = points[0], points[-1]
            done = min(last / goal, 1.0)
            if last > first and last_at > first_at:
                left = (goal - last) * (last_at - first_at) / (last - first) - (self._clock() - last_at)
                found.append((max(left, 0.0), key, done))
        if found:
            left, key, done = min(found)
            return key, done, left
        return next(iter(self._goals), None), 0.0, None


class ProgressLine:
    """The live line: name, phase, iteration, steps, bar, time that is left, return.

    Args:
        name: Of the run.
        stop: Stop criteria.
        width: Returns the columns of the terminal.
        clock: As for `Estimate`.
    """

    def __init__(
        self,
        name: str,
        stop: Mapping[str, float],
        width: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.phase = "starting"
        self._name, self._stop, self._width = name, stop, width
        self._estimate = Estimate(stop, clock)
        self._row: Mapping[str, float] = {}

    def add(self, row: Mapping[str, float]) -> None:
        """Take in an iteration's row of ``progress.csv``."""
        self._row = row
        self._estimate.add(row)

    def __rich__(self) -> Table | Text:
        """Return the line in the width of the terminal; where that is narrow, without time and bar."""
        leading, done, left = self._estimate.leading()
        middle = " ".join([f"{self.phase:<10}", *self._counters(leading)])
        time_left, score = [] if left is None else [_duration(left)], self._score()
        end = " ".join([*time_left, *score])
        if self._width() - len(f" {middle} {end}") < _SHORTEST_NAME:
            end = " ".join(score)
        room = self._width() - len(f" {middle} {end}".rstrip())
        name, longest = self._name, max(_SHORTEST_NAME, room - _SHORTEST_BAR - 1)
        if len(name) > longest:
            name = f"{name[: longest - 1]}…"
        bar = min(room - len(name) - 1, _LONGEST_BAR)
        if leading is None or bar < _SHORTEST_BAR:
            text = Text.assemble((name, "bold"), f" {middle} {end}".rstrip())
            text.no_wrap, text.overflow = True, "ellipsis"
            return text
        line = Table.grid(padding=(0, 1, 0, 0))
        for _ in range(4):
            line.add_column(no_wrap=True)
        line.add_row(
            Text(name, "bold"),
            Text(middle),
            # Before the first iteration nothing is known: an empty bar.
            ProgressBar(total=1.0, completed=done, width=bar),
            Text(end),
        )
        return line

    def _counters(self, leading: str | None) -> list[str]:
        """Return iterations and steps, the goal beside the criterion that is reached first."""
        row, texts = self._row, []
        for key, text in ((ITERATION, "it {}"), (STEPS, "{} steps"), (TIME, "{}")):
            shown = _duration if key == TIME else _short
            if key == leading:
                texts.append(text.format(f"{shown(row.get(key, 0))}/{shown(self._stop[key])}"))
            elif key != TIME and key in row:
                texts.append(text.format(shown(row[key])))
        return texts

    def _score(self) -> list[str]:
        column = score_column(self._row, "env_runners/")
        if column is None:
            return ["warming up"] if self._row.get("replay/warming_up") else []
        goal = f"/{self._stop[column]:g}" if column in self._stop else ""
        return [f"return {self._row[column]:.1f}{goal}"]


def _short(count: float) -> str:
    """Return a count in three digits."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if count >= limit:
            return f"{count / (1e3 if unit == 'k' else limit):.3g}{unit}"
    return f"{count:.0f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Display:
    """Shows the runs of a command; `begin` comes before each of them.

    Args:
        kind: How.
        stream: Where; by default a copy of standard output, which a run may take for its log meanwhile.
        console: Of rich, in place of one on the stream.
    """

    def __init__(self, kind: Shown, stream: IO[str] | None = None, console: Console | None = None) -> None:
        self.kind = kind
        self._stream = cast(IO[str], _Stream(_own_output())) if stream is None else stream
        self._console = Console(file=self._stream, highlight=False) if console is None else console
        self._stop: Mapping[str, float] = {}
        self._number = 0
        self._line: ProgressLine | None = None
        self._live: Live | None = None

    @property
    def is_live(self) -> bool:
        """Whether there is a line that changes."""
        on_terminal = self._console.is_terminal and not self._console.is_dumb_terminal
        return self.kind is Shown.LINES and on_terminal

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """Show that something happens while libraries are loaded and the experiment is checked."""
        if self.is_live:
            with self._on_terminal(Spinner("dots", "loading"), transient=True):
                yield
        else:
            yield

    @contextlib.contextmanager
    def begin(self, name: str, stop: Mapping[str, float], number: int = 1) -> Iterator[None]:
        """Show a run meanwhile; whatever ends it, the terminal's cursor is there again.

        Args:
            name: Of the run.
            stop: Its stop criteria.
            number: Of the run among those of the command.
        """
        self._stop, self._number = stop, number
        if not self.is_live:
            yield
            return
        line = self._line = ProgressLine(name, stop, self._width)
        live = self._live = self._on_terminal(line)
        live.start(refresh=True)
        try:
            yield
            line.phase = "done"
        except BaseException:
            line.phase = "stopped"
            raise
        finally:
            live.stop()
            self._live = self._line = None

    def phase(self, phase: str) -> None:
        """Show what the run does."""
        if self._line is not None and self._live is not None:
            self._line.phase = phase
            self._live.refresh()

    def row(self, row: Mapping[str, float]) -> None:
        """Show an iteration.

        Args:
            row: Of ``progress.csv``.
        """
        if self._line is not None and self._live is not None:
            self._line.add(row)
            self._live.refresh()
        elif self.kind is Shown.JSON:
            self._object("iteration", row)
        elif self.kind is not Shown.QUIET:
            self.say(progress_line(row, self._stop))

    def row_of(self, number: int, row: Mapping[str, float]) -> None:
        """Show an iteration of one of several runs that are trained at once.

        Args:
            number: Of the run.
            row: Of its ``progress.csv``.
        """
        self._number = number
        if self.is_live or self.kind in (Shown.JSON, Shown.QUIET):
            self.row(row)
        else:
            self.say(f"run {number}  {progress_line(row, self._stop)}")

    def event(self, event: str, number: int, values: Mapping[str, Any]) -> None:
        """Give something that happened to a run as a JSON object."""
        self._number = number
        self._object(event, values)

    def result(self, result: RunResult, number: int | None = None, **values: Any) -> None:
        """Give a finished run as a JSON object, where that is how progress is shown."""
        self._number = self._number if number is None else number
        if self.kind is Shown.JSON:
            outcome = {
                "status": "finished",
                "run_dir": str(result.run_dir),
                "checkpoint": str(result.checkpoint),
                "evaluation": result.evaluation,
                "notes": list(result.notes),
            }
            self._object("result", {**outcome, **values})

    def failed(self, error: Exception, run_dir: str, **values: Any) -> None:
        """Give a run that failed as a JSON object, where that is how progress is shown."""
        if self.kind is Shown.JSON:
            self._object("result", {"status": "failed", "run_dir": run_dir, "error": str(error), **values})

    def say(self, text: str) -> None:
        """Print a line at once."""
        print(text, file=self._stream, flush=True)

    def _on_terminal(self, shown: Any, transient: bool = False) -> Live:
        # Ray's log keeps the standard error that it finds: it must be the process's, not one that the display lends.
        return Live(
            shown, console=self._console, transient=transient, redirect_stdout=False, redirect_stderr=False
        )

    def _object(self, event: str, values: Mapping[str, Any]) -> None:
        self.say(json.dumps({"event": event, "run": self._number, **values}))

    def _width(self) -> int:
        with contextlib.suppress(OSError, ValueError):  # no terminal
            self._console.size = ConsoleDimensions(*os.get_terminal_size(self._stream.fileno()))
        return self._console.width


def progress_line(row: Mapping[str, float], stop: Mapping[str, float] | None = None) -> str:
    """Return what is shown of an iteration where there is no terminal.

    Args:
        row: A row of ``progress.csv``.
        stop: Stop criteria; goals of iterations and steps are shown beside them.
    """
    parts = []
    for label, key in (("iteration", ITERATION), ("steps", STEPS)):
        if key in row:
            goal = f"/{stop[key]:,.0f}" if stop and key in stop else ""
            parts.append(f"{label} {row[key]:,.0f}{goal}")
    score = score_column(row, "env_runners/")
    if score is not None:
        parts.append(f"return {row[score]:.1f}")
    if "env_runners/coverage" in row:
        parts.append(f"coverage {row['env_runners/coverage']:.2f}")
    if row.get("replay/warming_up"):
        parts.append("warming up")
    for label, name, digits in (
        ("entropy", "normalized_entropy", 3),
        ("alpha", "alpha", 4),
        ("exploration", "exploration", 3),
    ):
        values = [
            value for key, value in row.items() if key.startswith("learners/") and key.endswith(f"/{name}")
        ]
        if values:
            parts.append(f"{label} {sum(values) / len(values):.{digits}f}")
    for mode in MODES:
        evaluation = score_column(row, f"evaluation/{mode}/")
        if evaluation is not None:
            parts.append(f"{mode} {row[evaluation]:.1f}")
    if SPEED in row:
        parts.append(f"{row[SPEED]:,.0f} steps/s")
    return "  ".join(parts)


def _own_output() -> TextIO:
    """Return a stream that stays what standard output is now."""
    try:
        sys.stdout.flush()
        return os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding=sys.stdout.encoding or "utf-8")
    except (OSError, ValueError):  # no file
        return sys.stdout


class _Stream(io.TextIOBase):
    """Writes where another stream writes; that a terminal or a pipe is closed meanwhile does not matter."""

    def __init__(self, stream: TextIO) -> None:
        self._of = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream."""
        return getattr(self._of, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write a text."""
        with contextlib.suppress(OSError):
            self._of.write(text)
        return len(text)

    def flush(self) -> None:
        """Let what is written be seen."""
        with contextlib.suppress(OSError, ValueError):
            self._of.flush()

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self._of.isatty()

    def fileno(self) -> int:
        """Return the number of the file."""
        return self._of.fileno()
