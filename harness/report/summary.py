"""The end of a run in a terminal: how each notebook ended, and what became of each claim."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.archive.recorded import RunResult
from harness.model import FINISHED, JobResult, Outcome, Verdict
from harness.report.view import VerdictView, View, count_verdicts
from harness.wording import SYMBOLS, ending, first_of, one_line, untold

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

NAMED = 8
"""So many claims are named where one sentence holds for all of them."""


def print_summary(console: Console, run: RunResult) -> None:
    """Print how the notebooks ended, the claims that hold in one line a chapter, and in full what needs attention.

    State and verdict are told by a symbol and a word, never by colour alone. Fits 80 columns and breaks no word.
    """
    view = View(run, "en")
    if run.jobs:
        console.print(_job_table(view), "", sep="\n")
    for job in run.jobs:
        if job.state not in FINISHED:
            _print_problem(console, job.id, _job_lines(job))
    if view.recorded:
        console.print(_metric_table(view), "", sep="\n")
    if run.verdicts:
        _print_chapters(console, view)
    for one in view.bad:
        if one.observed != "—":
            head = f"{one.words}: {one.verdict.title} ({one.verdict.claim}, {one.verdict.chapter})"
            _print_problem(console, head, [_numbers(one), one.message], kind=one.kind)
    unseen = [v for v in run.verdicts if v.outcome is Outcome.NOT_APPLICABLE or not v.observed]
    for (outcome, message), names in _by_message(unseen).items():
        _print_problem(console, f"{SYMBOLS[outcome]} {first_of(names, NAMED)}", [message], kind=outcome.value)
    for place, names in _by_foreign_reference(run.verdicts).items():
        _print_problem(console, f"≠ {first_of(names, NAMED)}", [place])
    if view.counts:
        told = ", ".join(f"{count.number} {count.words.split(maxsplit=1)[1]}" for count in view.counts)
        _print_lines(console, [f"claims: {told}"])


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
    """Columns of names, cut with “…” where they do not fit, and columns of *numbers*, set to the right."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
    )
    for name in names:
        narrow = name == "state"
        table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=None if narrow else 1)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _add(table: Table, *cells: str, kind: str = "") -> None:
    """A row; the first cell in the colour of *kind*."""
    from rich.text import Text

    first, *rest = map(one_line, cells)
    table.add_row(Text(first, style=_COLOURS.get(kind, "")), *map(Text, rest))


def _keep(table: Table) -> Table:
    """*table*, of which only the names are cut where it is too wide."""
    from rich.cells import cell_len

    for column in table.columns:
        if column.ratio is None:
            column.min_width = max(cell_len(str(cell)) for cell in (column.header, *column.cells))
    return table


def _job_table(view: View) -> Table:
    table = _table("Notebooks", ("state", "job"), ("time", "peak memory"))
    for one in view.jobs:
        name = one.job.id if one.job.chapter else one.job.notebook
        _add(table, one.words, name, one.seconds, one.memory, kind=one.kind)
    return _keep(table)


def _metric_table(view: View) -> Table:
    """What notebooks outside the book recorded: no claim shows it."""
    table = _table("Recorded", ("job", "metric"), ("value",))
    for one in view.recorded:
        _add(table, one["job"], one["name"], one["value"])
    return _keep(table)


def _print_chapters(console: Console, view: View) -> None:
    """How many claims of each chapter became what, in a line; chapters with one that does not hold first."""
    from rich.cells import cell_len
    from rich.text import Text

    console.print(Text("Claims", style="italic"))
    told = [
        (chapter, count_verdicts([v.verdict for v in mine], view.words))
        for chapter, mine in view.worst_chapters
    ]
    widest = max((cell_len(one_line(chapter)) for chapter, counts in told if counts), default=0)
    for chapter, counts in told:
        if not counts:
            continue
        worst = min(counts, key=lambda one: (one.kind == Outcome.NOT_APPLICABLE, one.rank()))
        name = one_line(chapter)
        line = Text(f"{worst.words[0]} ", style=_COLOURS.get(worst.kind, ""))
        numbers = " · ".join(f"{one.words} {one.number}" for one in counts)
        if 4 + widest + cell_len(numbers) <= console.width:
            line.append(f"{name}{' ' * (widest - cell_len(name))}  {numbers}", style="default")
            console.print(line)
        else:
            console.print(line.append(name, style="default"), overflow="ellipsis", no_wrap=True)
            _print_lines(console, [numbers], indent=4)
    console.print()


def _numbers(one: VerdictView) -> str:
    """What was measured, how far it lies outside, and what was expected."""
    seen = f"observed {one.observed}" + (f" (mean of {one.runs})" if one.runs > 1 else "")
    place = f"{one.beyond} outside {one.range}" if one.beyond else f"reproduced if in {one.range}"
    if one.range == "—":
        place = f"{one.beyond} outside the bounds" if one.beyond else ""
    compared = one.reference != "—" and one.verdict.rule != "bounds"  # there it is the bound itself
    rest = f"reference {one.reference}, difference {one.difference}" if compared else ""
    return "; ".join(part for part in (seen, place, rest) if part)


def _job_lines(job: JobResult) -> list[str]:
    return [ending(job).en, *(f"{cell.place}: {cell.error}" for cell in untold(job) if cell.error)]


def _print_problem(console: Console, head: str, lines: Sequence[str], *, kind: str = "") -> None:
    _print_lines(console, [head], style=f"bold {_COLOURS.get(kind, '')}".strip())
    _print_lines(console, lines, indent=2)


def _print_lines(console: Console, lines: Sequence[str], *, indent: int = 0, style: str = "") -> None:
    from rich.text import Text

    for line in lines:
        for part in wrapped(one_line(line), console.width - indent):
            console.print(Text(" " * indent + part, style=style), soft_wrap=True)


_PIECE = re.compile(
    r"\s*(?:[\u2e80-\u9fff\uff00-\uffef][，。；：、！？）》」』”’]*|[^\s\u2e80-\u9fff\uff00-\uffef]+)"
)
"""What stays together: a word, or one Chinese character with the marks that may not begin a line."""


def wrapped(text: str, width: int) -> list[str]:
    """*text* in lines of at most *width* columns, broken between words or Chinese characters.

    Rich breaks at spaces only: a Latin word within Chinese text would be cut. A word wider than a line is cut.
    """
    from rich.cells import cell_len, set_cell_size

    lines = [""]
    for piece in _PIECE.findall(text):
        if cell_len(lines[-1] + piece) <= width:
            lines[-1] += piece
            continue
        rest = piece.lstrip()
        if lines[-1]:
            lines.append("")
        while cell_len(rest) > width:
            head = set_cell_size(rest, width).rstrip()
            lines[-1], rest = head, rest[len(head) :]
            lines.append("")
        lines[-1] = rest
    return lines
