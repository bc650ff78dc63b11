"""What is shown while a run goes on."""

from __future__ import annotations

import io

from rich.console import Console

from harness.cli.progress import LiveProgress, PlainProgress, SilentProgress, make_progress

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
    return console.file.getvalue().splitlines()


def test_plain_lines_where_there_is_no_terminal():
    lines = shown(Console(file=io.StringIO(), force_terminal=False))
    assert lines == [
        "05-[x]: started",
        "05-[x]: cell 3/9 “train([1])”, 0.0 s, 812 MB",
        "warning: half a line",
        "✗ 05-[x]: failed in 1 min 15 s – cell 3: E",
    ]


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
