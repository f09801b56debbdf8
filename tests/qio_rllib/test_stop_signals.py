"""Signals that ask a run to stop."""

import signal
import threading

import pytest

from qio_rllib.experiments.stop_signals import StopSignals


@pytest.mark.parametrize("number", StopSignals.SIGNALS)
def test_the_first_is_noted_while_it_is_deferred_and_the_second_interrupts(number):
    before = signal.getsignal(number)
    with StopSignals() as signals:
        signals.deferred = True
        signal.raise_signal(number)
        assert signals.received == number
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signals.received == number
    assert signal.getsignal(number) is before


def test_where_nothing_is_deferred_the_first_interrupts():
    with StopSignals() as signals:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert signals.received == signal.SIGTERM


def test_what_is_ignored_stays_so_also_after_somebody_else_has_taken_it():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            signal.signal(signal.SIGHUP, signal.default_int_handler)
            signals.install()
            signal.raise_signal(signal.SIGHUP)
            assert signals.received is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_that_somebody_else_has_taken_are_taken_again():
    with StopSignals() as signals:
        signals.deferred = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signals.install()
        signal.raise_signal(signal.SIGTERM)
        assert signals.received == signal.SIGTERM


def test_another_thread_leaves_them_alone():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def run():
        with StopSignals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]
