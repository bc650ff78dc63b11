"""What a person sees while a run goes on: a live line per job on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.wording import format_seconds

if TYPE_CHECKING:
    from rich.console import Console

_MARKS = {"completed": "✓", "skipped": "="}


def make_progress(console: Console, *, quiet: bool) -> SilentProgress:
    """The display that suits *console*."""
    if quiet:
        return SilentProgress()
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)


class SilentProgress:
    """Takes every event and shows nothing; ``close`` gives the terminal back."""

    def __call__(self, event: Mapping[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


class PlainProgress(SilentProgress):
    """One line at the start, every fifteen seconds and at the end of a job."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started: dict[str, float] = {}

    def __call__(self, event: Mapping[str, Any]) -> None:
        job, now = event.get("job", ""), time.monotonic()
        match event["event"]:
            case "job_start":
                self._started[job] = now
                self._print(f"{job}: started")
            case "heartbeat":
                elapsed = format_seconds(now - self._started.get(job, now))
                code = f" “{event['code']}”" if event.get("code") else ""
                place = f"cell {event['cell']}/{event['total']}{code}"
                self._print(f"{job}: {place}, {elapsed}, {event['rss_mb']:.0f} MB")
            case _:
                self._print_lasting(event)

    def _print_lasting(self, event: Mapping[str, Any]) -> None:
        """What stays to be read, on any display."""
        match event["event"]:
            case "job_end":
                self._print(end_line(event))
            case "speed" if not event["usual"]:
                self._print(event["message"])
            case "warning":
                self._print(f"warning: {event['message']}")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class LiveProgress(PlainProgress):
    """A bar per running job with the current cell and the elapsed time."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        super().__init__(console)
        self._tasks: dict[str, Any] = {}
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=24),
            TextColumn("cell {task.fields[cell]}", markup=False), TimeElapsedColumn(),
            console=console, transient=True,
        )  # fmt: skip
        self._bars.start()

    def __call__(self, event: Mapping[str, Any]) -> None:
        job = event.get("job", "")
        if event["event"] == "job_start":
            self._tasks[job] = self._bars.add_task(job, total=None, cell="–")
        elif event["event"] == "cell_start" and job in self._tasks:
            cell = f"{event['cell']}/{event['total']} {event.get('code', '')[:32]}"
            self._bars.update(self._tasks[job], total=event["total"], completed=event["cell"] - 1, cell=cell)
        elif event["event"] == "job_end" and job in self._tasks:
            self._bars.remove_task(self._tasks.pop(job))
        self._print_lasting(event)

    def close(self) -> None:
        self._bars.stop()


def end_line(event: Mapping[str, Any]) -> str:
    """The line that stays when a job has ended."""
    mark = _MARKS.get(event["state"], "✗")
    reason = f" – {event['reason']}" if event.get("reason") else ""
    seconds = f" in {format_seconds(event['seconds'])}" if event["state"] != "skipped" else ""
    return f"{mark} {event['job']}: {event['state']}{seconds}{reason}"
