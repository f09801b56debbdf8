"""TensorBoard files of a run's numbers."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import scalar


class ScalarEvents:
    """An event file that holds each row when `add` returns.

    (``SummaryWriter`` leaves the writing to a thread; a full disk ends the thread, and the next rows wait for ever.)

    Args:
        folder: Where event files lie; it is made.
        first_step: What earlier files hold of this step and later ones does not count.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.iterdir()))
        self._writer = EventsWriter(str(folder / "events"), f".{number}")
        self._write(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def add(self, row: Mapping[str, float], step: int) -> None:
        """Write the finite numbers of a row.

        Raises:
            OSError: They cannot be written.
        """
        values = [
            part for key, value in row.items() if math.isfinite(value) for part in scalar(key, value).value
        ]
        self._write(Event(step=step, summary=Summary(value=values)))

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.write_event(event)
        self._writer.flush()
