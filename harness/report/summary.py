"""The end of a run in a terminal: how each notebook ended, and what became of each claim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.archive.recorded import RunResult
from harness.model import FINISHED, JobResult, Outcome, Verdict
from harness.report.view import View
from harness.wording import SYMBOLS, ending, one_line, untold

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_COLOURS = {
    "pass": "green",
    "fail": "red",
    "inconclusive": "yellow",
    "missing": "red",
    "unexpected": "yellow",
    "not_applicable": "bright_black",
}


def print_summary(console: Console, run: RunResult) -> None:
    """Print the tables, then what needs attention; claims with the same message share one line.

    State and verdict are told by a symbol and a word, never by colour alone. Fits 80 columns.
    """
    view = View(run, "en")
    if run.jobs:
        console.print(_job_table(view))
    for job in run.jobs:
        if job.state not in FINISHED:
            _print_problem(console, job.id, _job_lines(job))
    if view.recorded:
        console.print(_metric_table(view))
    if run.verdicts:
        console.print(_verdict_table(view))
    for (outcome, message), names in _by_message(run.verdicts).items():
        _print_problem(console, f"{SYMBOLS[outcome]} {', '.join(names)}", [message])
    for place, names in _by_foreign_reference(run.verdicts).items():
        _print_problem(console, f"≠ {', '.join(names)}", [place])
    if view.counts:
        told = ", ".join(f"{count.number} {count.words.split(maxsplit=1)[1]}" for count in view.counts)
        console.print(f"claims: {told}", markup=False)


def _by_message(verdicts: Sequence[Verdict]) -> dict[tuple[Outcome, str], list[str]]:
    """Claims that need attention, those with the same message together."""
    found: dict[tuple[Outcome, str], list[str]] = {}
    for verdict in verdicts:
        if verdict.outcome is not Outcome.PASS:
            found.setdefault((verdict.outcome, verdict.message), []).append(verdict.claim)
    return found


def _by_foreign_reference(verdicts: Sequence[Verdict]) -> dict[str, list[str]]:
    """Claims that pass against a reference of other hardware; of the rest, the message says it."""
    found: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.foreign and verdict.outcome is Outcome.PASS:
            here = verdict.hardware or "unknown hardware"
            text = f"pass against references from {verdict.reference_hardware}; this run is on {here}"
            found.setdefault(text, []).append(verdict.claim)
    return found


def _table(title: str, names: Sequence[str], numbers: Sequence[str]) -> Table:
    """Columns that may be folded, of which the last is the widest, and columns of *numbers*, set to the right."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        narrow = name in ("state", "verdict")
        table.add_column(name, no_wrap=narrow, overflow="fold", ratio=None if narrow else 1)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _add(table: Table, *cells: str, kind: str = "") -> None:
    """A row; the first cell in the colour of *kind*."""
    from rich.text import Text

    first, *rest = map(one_line, cells)
    table.add_row(Text(first, style=_COLOURS.get(kind, "")), *map(Text, rest))


def _job_table(view: View) -> Table:
    table = _table("Notebooks", ("state", "job"), ("time", "peak memory"))
    for one in view.jobs:
        name = one.job.id if one.job.chapter else one.job.notebook
        _add(table, one.words, name, one.seconds, one.memory, kind=one.kind)
    return table


def _metric_table(view: View) -> Table:
    """What notebooks outside the book recorded: no claim shows it."""
    table = _table("Recorded", ("job", "metric"), ("value",))
    for one in view.recorded:
        _add(table, one["job"], one["name"], one["value"])
    return table


def _verdict_table(view: View) -> Table:
    table = _table("Claims", ("verdict", "claim"), ("observed", "reference", "difference"))
    for one in view.verdicts:
        _add(table, one.words, one.verdict.title, one.observed, one.reference, one.difference, kind=one.kind)
    return table


def _job_lines(job: JobResult) -> list[str]:
    return [ending(job).en, *(f"{cell.place}: {cell.error}" for cell in untold(job) if cell.error)]


def _print_problem(console: Console, head: str, lines: Sequence[str]) -> None:
    from rich.padding import Padding
    from rich.text import Text

    console.print(Text(one_line(head), style="bold"))
    for line in lines:
        console.print(Padding(Text(one_line(line)), (0, 0, 0, 2), expand=False))
