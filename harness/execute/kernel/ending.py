"""How a cell, a notebook or a process ended, told in one line: which error, in its own words, from which line."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.book.notebook import is_blank
from harness.model import CellResult, CellState, JobState

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_CELL_FRAME = re.compile(
    r"^(?P<indent>[ |+]*)(?:Cell|Input) In ?\[(?P<count>\d+)\], line (?P<line>\d+)", re.M
)
_ERROR_LINE = re.compile(r"\b(?:\w*Error|\w*Exception|error|fatal|panicked)\b")
_LAST_LINES = 20  # of a log, among which the error is looked for


@dataclass(frozen=True)
class Ending:
    """How a notebook ended."""

    state: JobState
    reason: str = ""
    cells: Sequence[CellResult] = ()
    trouble: str = ""  # of the machine: something could not be saved


HIDING = frozenset({"NoneType", "StdinNotImplementedError"})
"""Errors that come after the real one: a reply that was lost, a debugger that waits for somebody."""


def untouched_state(tags: Iterable[str], source: str) -> CellState:
    """Of a cell before it runs: not all are to."""
    return CellState.SKIPPED if "skip-execution" in tags or is_blank(source) else CellState.PENDING


def told_error(reply: Mapping[str, Any], shown: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The error by which a cell failed, None if by none.

    Args:
        reply: the content of the kernel's reply; says ``ok`` where a magic or a hook has caught the error.
        shown: the errors that the cell put out, in their order.
    """
    failed = reply["status"] != "ok"
    if not failed and not shown:
        return None
    if failed and not (shown and reply.get("ename") in HIDING):
        same = [error for error in shown if error["ename"] == reply.get("ename")]
        return same[-1] if same else {"ename": reply["status"].capitalize(), "evalue": "", **reply}
    return next((error for error in shown if error["ename"] not in HIDING), shown[0])


def failed_line(cell: Mapping[str, Any], error: Mapping[str, Any] | None = None) -> int | None:
    """The line of the cell, from 1, where *error* came from (the last one shown), if IPython's traceback tells."""
    shown = [output for output in cell.get("outputs", ()) if output.get("output_type") == "error"]
    error = error or (shown[-1] if shown else None)
    if error is None:
        return None
    text = plain("\n".join(error.get("traceback", ())))
    count = cell.get("execution_count")
    frames = [m for m in _CELL_FRAME.finditer(text) if int(m["count"]) == count]
    outermost = min((len(m["indent"]) for m in frames), default=0)  # errors of a group stand farther in
    lines = [int(m["line"]) for m in frames if len(m["indent"]) == outermost]
    return lines[-1] if lines and 0 < lines[-1] <= cell["source"].count("\n") + 1 else None


def telling_line(log: str) -> str:
    """The line of a log that says best why a program ended: its last error, else its last line; empty if none."""
    lines = [line for line in plain(log[-100_000:]).splitlines() if line.strip()][-_LAST_LINES:]
    told = [line for line in lines if _ERROR_LINE.search(line)] or lines
    return shorten(told[-1]) if told else ""


def plain(text: str) -> str:
    """*text* without terminal escapes and control characters other than white space."""
    return _CONTROL.sub("", _ESCAPE.sub("", text))


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return shorten(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)


def shorten(text: str) -> str:
    text = " ".join(plain(text[:100_000]).split())
    return text if len(text) <= 300 else text[:299] + "…"


def describe_exit(code: int | None) -> str:
    """``-9`` as ``killed by SIGKILL``: for the reason of a job."""
    if code is None:
        return "it vanished"
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
