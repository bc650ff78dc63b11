"""The terminal around a command: it may stop the command, or stop reading it, and it shows how a run goes on."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.wording import format_seconds

if TYPE_CHECKING:
    from rich.console import Console

# -- interrupts --------------------------------------------------------------------------------------

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, a polite kill, a closed terminal


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM and a closed terminal end a command as Ctrl-C does, so that it takes its children along."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    with _handled((signal.SIGTERM, signal.SIGHUP), interrupt):
        yield


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """An event that the stop signals set, so that everything ends in order instead of in a traceback."""
    cancel = threading.Event()
    with _handled(STOP_SIGNALS, lambda number, frame: cancel.set()):
        yield cancel


@contextmanager
def _handled(numbers: tuple[signal.Signals, ...], handler: Callable[[int, Any], None]) -> Iterator[None]:
    """*handler* for the signals of *numbers* that are not ignored: under ``nohup`` a hangup ends nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


# -- standard output ---------------------------------------------------------------------------------


class _Patient:
    """A text stream that goes silent when it cannot be written, as in ``harness run | head``.

    A reader that leaves must not end a run that takes an hour; neither must a full disk under its log.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.trouble: OSError | None = None  # other than a reader that left

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return int(self._stream.write(text))
        except OSError as error:
            self._silence(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._silence(error)

    def _silence(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            self.trouble = self.trouble or error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())  # what is still in the buffer goes there, too
        os.close(nowhere)


@contextmanager
def patient_stdout() -> Iterator[_Patient]:
    """Standard output as a patient stream; nowhere, if it was closed before the start."""
    before = sys.stdout
    with Path(os.devnull).open("w", encoding="utf-8") if before is None else nullcontext(before) as stream:
        sys.stdout = patient = _Patient(stream)  # type: ignore[assignment]
        try:
            yield patient
        finally:
            patient.flush()
            sys.stdout = before


# -- progress ----------------------------------------------------------------------------------------

STARTING = "the kernel is starting"
"""What is said of a job before its first cell."""


def make_progress(console: Console, *, quiet: bool) -> SilentProgress:
    """The display that suits *console*."""
    if quiet:
        return SilentProgress()
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)


class SilentProgress:
    """Takes every event of a run and shows nothing."""

    def __call__(self, event: Mapping[str, Any]) -> None:
        pass

    def close(self) -> None:
        """Give the terminal back."""


class PlainProgress(SilentProgress):
    """One line at the start, every fifteen seconds and at the end of a job."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started: dict[str, float] = {}

    def __call__(self, event: Mapping[str, Any]) -> None:
        self._follow(event)
        match event["event"]:
            case "job_end":
                self._print(_end_line(event))
            case "speed" if not event["usual"]:
                self._print(event["message"])
            case "warning":
                self._print(f"warning: {event['message']}")

    def _follow(self, event: Mapping[str, Any]) -> None:
        job, now = event.get("job", ""), time.monotonic()
        match event["event"]:
            case "job_start":
                self._started[job] = now
                self._print(f"{job}: started")
            case "heartbeat":
                elapsed = format_seconds(now - self._started.get(job, now))
                self._print(f"{job}: {_place(event)}, {elapsed}, {event['rss_mb']:.0f} MB")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class LiveProgress(PlainProgress):
    """A bar per running job with the current cell and the elapsed time; the line at a job's end stays."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        super().__init__(console)
        self._tasks: dict[str, Any] = {}
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[place]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._bars.start()

    def _follow(self, event: Mapping[str, Any]) -> None:
        job = event.get("job", "")
        match event["event"]:
            case "job_start":
                self._tasks[job] = self._bars.add_task(job, total=None, place=STARTING)
            case "cell_start" if job in self._tasks:
                self._bars.update(
                    self._tasks[job], total=event["total"], completed=event["cell"] - 1,
                    place=f"cell {event['cell']}/{event['total']} {event.get('code', '')[:32]}",
                )  # fmt: skip
            case "job_end" if job in self._tasks:
                self._bars.remove_task(self._tasks.pop(job))

    def close(self) -> None:
        self._bars.stop()


def _place(event: Mapping[str, Any]) -> str:
    """Where a job is, as a sign of life says it."""
    if not event["cell"]:  # none has run yet
        return STARTING
    code = f" “{event['code']}”" if event.get("code") else ""
    return f"cell {event['cell']}/{event['total']}{code}"


def _end_line(event: Mapping[str, Any]) -> str:
    mark = {"completed": "✓", "skipped": "="}.get(event["state"], "✗")
    reason = f" – {event['reason']}" if event.get("reason") else ""
    seconds = f" in {format_seconds(event['seconds'])}" if event["state"] != "skipped" else ""
    return f"{mark} {event['job']}: {event['state']}{seconds}{reason}"
