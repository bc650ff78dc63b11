"""The end of a run in a terminal: how each notebook ended, and what became of each claim."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.judge.statistics import mean
from harness.model import FINISHED, CellState, JobResult, Outcome, Verdict
from harness.wording import (
    OUTCOMES,
    STATES,
    SYMBOLS,
    format_memory,
    format_number,
    format_seconds,
    names_cell,
    one_line,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_COLOURS = {
    Outcome.PASS: "green",
    Outcome.FAIL: "red",
    Outcome.INCONCLUSIVE: "yellow",
    Outcome.MISSING: "red",
    Outcome.UNEXPECTED: "yellow",
    Outcome.NOT_APPLICABLE: "bright_black",
}


def print_summary(console: Console, results: Sequence[JobResult], verdicts: Sequence[Verdict]) -> None:
    """Print the tables, then what needs attention; claims with the same message share one line.

    State and verdict are told by a symbol and a word, never by colour alone. Fits 80 columns.
    """
    if results:
        console.print(_job_table(results))
    for job in results:
        if job.state not in FINISHED:
            _print_problem(console, job.id, _job_lines(job))
    if any(job.metrics for job in results if job.chapter is None):
        console.print(_metric_table(results))
    if verdicts:
        console.print(_verdict_table(verdicts))
    for (outcome, message), names in _by_message(verdicts).items():
        _print_problem(console, f"{SYMBOLS[outcome]} {', '.join(names)}", [message])
    for place, names in _by_foreign_reference(verdicts).items():
        _print_problem(console, f"≠ {', '.join(names)}", [place])
    if verdicts:
        counts = Counter(verdict.outcome for verdict in verdicts)
        console.print(
            "claims: " + ", ".join(f"{counts[o]} {OUTCOMES[o].en}" for o in Outcome if counts[o]),
            markup=False,
        )


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


def _new_table(title: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)


def _job_table(results: Sequence[JobResult]) -> Table:
    from rich.text import Text as RichText

    table = _new_table("Notebooks")
    table.add_column("state", no_wrap=True)
    table.add_column("job", overflow="fold", ratio=1)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("peak memory", justify="right", no_wrap=True)
    for job in results:
        good = job.state in FINISHED
        table.add_row(
            RichText(f"{'✓' if good else '✗'} {STATES[job.state].en}", style="green" if good else "red"),
            RichText(one_line(job.id if job.chapter else job.notebook)),
            format_seconds(job.seconds),
            format_memory(job.peak_rss_mb),
        )
    return table


def _metric_table(results: Sequence[JobResult]) -> Table:
    """What notebooks outside the book recorded: no claim shows it."""
    from rich.text import Text as RichText

    table = _new_table("Recorded")
    table.add_column("job", overflow="fold", ratio=1)
    table.add_column("metric", overflow="fold", ratio=1)
    table.add_column("value", justify="right", no_wrap=True)
    for job in results:
        for metric in job.metrics if job.chapter is None else ():
            table.add_row(
                RichText(one_line(job.id)),
                RichText(one_line(metric.name)),
                RichText(one_line(format_number(metric.value, metric.unit))),
            )
    return table


def _verdict_table(verdicts: Sequence[Verdict]) -> Table:
    from rich.text import Text as RichText

    table = _new_table("Claims")
    table.add_column("verdict", no_wrap=True)
    table.add_column("claim", overflow="fold", ratio=1)
    for name in ("observed", "reference", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    for verdict in verdicts:
        unit = verdict.unit
        observed = format_number(mean(verdict.observed), unit) if verdict.observed else "—"
        table.add_row(
            RichText(
                f"{SYMBOLS[verdict.outcome]} {OUTCOMES[verdict.outcome].en}", style=_COLOURS[verdict.outcome]
            ),
            RichText(one_line(verdict.title)),
            observed,
            format_number(verdict.reference, unit),
            format_number(verdict.delta, unit, signed=True),
        )
    return table


def _job_lines(job: JobResult) -> list[str]:
    lines = [f"{STATES[job.state].en}: {job.reason}" if job.reason else STATES[job.state].en]
    lines += [
        f"{c.place}: {c.error}"
        for c in job.cells
        if c.state is CellState.FAILED and c.error and not names_cell(job.reason, c)
    ]
    return lines


def _print_problem(console: Console, head: str, lines: Sequence[str]) -> None:
    from rich.padding import Padding
    from rich.text import Text as RichText

    console.print(RichText(one_line(head), style="bold"))
    for line in lines:
        console.print(Padding(RichText(one_line(line)), (0, 0, 0, 2), expand=False))
