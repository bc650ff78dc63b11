"""What is shown while a run goes on; what the stop signals do, and that an ignored one stays ignored."""

from __future__ import annotations

import io
import re
import signal
import threading

import pytest
from rich.console import Console

from harness.cli.terminal import (
    STOP_SIGNALS,
    LiveProgress,
    PlainProgress,
    SilentProgress,
    interruptible,
    make_progress,
    stoppable,
)

EVENTS = [
    {"event": "run_start", "jobs": 1},
    {"event": "job_start", "job": "05-[x]", "notebook": "a"},
    {"event": "cell_start", "job": "05-[x]", "cell": 3, "total": 9, "code": "train([1])"},
    {"event": "heartbeat", "job": "05-[x]", "cell": 3, "total": 9, "code": "train([1])", "rss_mb": 812.4},
    {"event": "cell_end", "job": "05-[x]", "cell": 3, "state": "failed", "seconds": 1.0, "error": "E"},
    {"event": "warning", "job": "05-[x]", "message": "half a line"},
    {
        "event": "job_end",
        "job": "05-[x]",
        "state": "failed",
        "reason": "cell 3: E",
        "seconds": 75.2,
        "metrics": 0,
    },
    {"event": "run_end", "interrupted": False},
]


def shown(console: Console, *, quiet: bool = False) -> list[str]:
    progress = make_progress(console, quiet=quiet)
    for event in EVENTS:
        progress(event)
    progress.close()
    return without_clock(console.file.getvalue()).splitlines()


def without_clock(text: str) -> str:
    """The machine may have taken its time between two events."""
    return re.sub(r", [\d.]+ s, ", ", … s, ", text)


def test_plain_lines_where_there_is_no_terminal():
    lines = shown(Console(file=io.StringIO(), force_terminal=False))
    assert lines == [
        "05-[x]: started",
        "05-[x]: cell 3/9 “train([1])”, … s, 812 MB",
        "warning: half a line",
        "✗ 05-[x]: failed in 1 min 15 s – cell 3: E",
    ]


def test_before_the_first_cell_the_kernel_is_said_to_start():
    """Of a job that waits for its kernel no cell runs: “cell 0/0” would be none."""
    start, sign = EVENTS[1], {**EVENTS[3], "cell": 0, "total": 0, "code": ""}
    plain = PlainProgress(Console(file=io.StringIO(), force_terminal=False))
    live = LiveProgress(Console(file=io.StringIO(), force_terminal=True, width=100))
    for progress in (plain, live):
        progress(start)
        progress(sign)
        progress.close()
    text = without_clock(plain._console.file.getvalue())
    assert "05-[x]: the kernel is starting, … s, 812 MB" in text and "cell" not in text
    assert "the kernel is starting" in live._console.file.getvalue()


def test_a_live_line_on_a_terminal_that_leaves_the_end():
    text = "\n".join(shown(Console(file=io.StringIO(), force_terminal=True, width=100)))
    assert "warning: half a line" in text and "✗ 05-[x]: failed in 1 min 15 s – cell 3: E" in text


def test_which_display():
    assert isinstance(make_progress(Console(file=io.StringIO()), quiet=False), PlainProgress)
    live = make_progress(Console(file=io.StringIO(), force_terminal=True), quiet=False)
    live.close()
    assert isinstance(live, LiveProgress)
    assert isinstance(make_progress(Console(), quiet=True), SilentProgress)
    assert shown(Console(file=io.StringIO()), quiet=True) == []


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
