"""Signals that ask a run to stop: the first lets it end its iteration and write a checkpoint, the second does not."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Self


class StopRequested(Exception):
    """Ends Tune's loop where a signal has asked for it."""


class StopSignals:
    """Takes SIGINT, SIGTERM and SIGHUP while it is entered; what is ignored (``nohup``) stays so.

    In another thread than the main one it does nothing: Python handles signals there only.

    Attributes:
        received: The first signal that came, None before.
        deferred: Whether the first one is only noted. Otherwise, and from the second on, each raises KeyboardInterrupt.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.deferred = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Remember who takes the signals, and take them."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in self.SIGNALS}
            self.install()
        return self

    def __exit__(self, *exception: object) -> None:
        """Give them back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def install(self) -> None:
        """Take the signals again, after Ray and Tune have taken them."""
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is signal.SIG_IGN else self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first = self.received is None
        if first:
            self.received = signal.Signals(number)
        if not (first and self.deferred):
            raise KeyboardInterrupt
