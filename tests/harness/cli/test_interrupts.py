"""What the stop signals do, and that an ignored one stays ignored."""

from __future__ import annotations

import signal
import threading

import pytest

from harness.cli.interrupts import STOP_SIGNALS, interruptible, stoppable


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_in_a_run_they_set_an_event_however_often_they_come(number):
    before = signal.getsignal(number)
    with interruptible() as cancel:
        assert not cancel.is_set()
        signal.raise_signal(number)
        signal.raise_signal(number)
        assert cancel.is_set()
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_outside_a_run_they_raise(number):
    with pytest.raises(KeyboardInterrupt), stoppable():
        signal.raise_signal(number)


@pytest.mark.parametrize("context", [interruptible, stoppable])
def test_under_nohup_a_closed_terminal_ends_nothing(context):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with context() as cancel:
            signal.raise_signal(signal.SIGHUP)
            assert cancel is None or not cancel.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_thread_has_no_signals_to_handle():
    found = []

    def work():
        with interruptible() as cancel, stoppable():
            found.append(cancel.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
