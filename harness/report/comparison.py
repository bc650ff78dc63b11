"""Two runs side by side for people: in a terminal, and as Markdown for a comment on a pull request.

Both are made of the same sections of plain text; only how a table and an excerpt look differs.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from harness.judge.compare import SLOWER_RATIO, SLOWER_SECONDS, JobDiff, OutputDiff, RunDiff, Side
from harness.judge.differences import ALPHA, Change, MetricDiff
from harness.model import FINISHED, JobState, Outcome, cell_name, to_json
from harness.wording import (
    OUTCOMES,
    STATES,
    SYMBOLS,
    format_memory,
    format_seconds,
    markdown_code,
    markdown_text,
    one_line,
)

if TYPE_CHECKING:
    from rich.console import Console

SHOWN = 15
"""So many slower cells and changed outputs are shown; the JSON form holds all."""

_SYMBOLS = {
    Change.BETTER: "✓",
    Change.WORSE: "✗",
    Change.DIFFERENT: "!",
    Change.NOT_SIGNIFICANT: "≈",
    Change.UNDECIDED: "?",
    Change.UNTESTED: "?",
    Change.NOT_APPLICABLE: "–",
}
_COLOURS = {"✓": "green", "✗": "red", "!": "yellow"}  # by the symbol that a cell begins with


@dataclass(frozen=True)
class Section:
    """A part of the report: a table, excerpts each with a heading, and sentences below them."""

    title: str
    head: Sequence[str] = ()
    align: str = ""  # l or r for each column
    rows: Sequence[Sequence[str]] = ()
    excerpts: Sequence[tuple[str, Sequence[str]]] = ()
    lines: Collection[str] = ()


def sections(diff: RunDiff) -> list[Section]:
    """What there is to say of *diff*, the most important first."""
    return [_runs(diff), *_metrics(diff), *_verdicts(diff), _jobs(diff), _slower(diff), _outputs(diff)]


def print_diff(console: Console, diff: RunDiff) -> None:
    """Print *diff* as tables that fit 80 columns; a symbol and a word say what colour says."""
    from rich import box
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text as RichText

    for section in sections(diff):
        if section.rows:
            table = Table(title=section.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
            for name, side in zip(section.head, section.align, strict=True):
                table.add_column(name, justify="right" if side == "r" else "left", overflow="fold")
            table.columns[0].ratio = 1
            for row in section.rows:
                table.add_row(*(RichText(one_line(c), style=_COLOURS.get(c[:1], "")) for c in row))
            console.print(table)
        else:
            console.print(RichText(section.title, style="italic"))
        for heading, lines in section.excerpts:
            console.print(RichText(one_line(heading), style="bold"))
            for line in lines:
                colour = {"-": "red", "+": "green"}.get(line[:1], "")
                console.print(Padding(RichText(_visible(line), style=colour), (0, 0, 0, 2), expand=False))
        for line in section.lines:
            console.print(RichText(one_line(line)))
        console.print()


def write_diff(diff: RunDiff, form: Literal["markdown", "json"]) -> str:
    """*diff* as one text in the format *form*."""
    if form == "markdown":
        return markdown_diff(diff)
    return json.dumps(to_json(diff), ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def markdown_diff(diff: RunDiff) -> str:
    """*diff* as GitHub-flavoured Markdown."""
    parts = [f"# {markdown_code(diff.a.run)} → {markdown_code(diff.b.run)}"]
    for section in sections(diff):
        parts.append(f"## {section.title}")
        if section.rows:
            ruler = ["--:" if side == "r" else ":--" for side in section.align]
            rows = (section.head, ruler, *([markdown_text(c) for c in row] for row in section.rows))
            parts.append("\n".join("| " + " | ".join(row) + " |" for row in rows))
        for heading, lines in section.excerpts:
            parts.append(f"**{markdown_text(heading)}**")
            if lines:  # each begins with + or -, so none can close the fence
                parts.append("\n".join(["```diff", *map(_visible, lines), "```"]))
        parts += [markdown_text(line) for line in section.lines]
    return "\n\n".join(parts) + "\n"


def _visible(line: str) -> str:
    """A line of an excerpt as it stands, but without what a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in line)


def _grouped(pairs: Iterable[tuple[Any, str]]) -> dict[Any, list[str]]:
    """The names that go with each thing, each once, both in the order in which they come."""
    groups: dict[Any, dict[str, None]] = {}
    for thing, name in pairs:
        groups.setdefault(thing, {})[name] = None
    return {thing: list(names) for thing, names in groups.items()}


def _runs(diff: RunDiff) -> Section:
    def commit(side: Side) -> str:
        return (side.commit[:10] or "—") + (" (with uncommitted changes)" if side.dirty else "")

    def hardware(side: Side) -> str:
        names = ", ".join(name for name in (side.gpu, side.cpu) if name)
        return f"{side.hardware} ({names})" if names else side.hardware

    def value(one: Any) -> str:
        return "its default" if one is None else json.dumps(one, ensure_ascii=False)

    a, b = diff.a, diff.b
    rows = [
        ["run", a.run, b.run],
        ["started", a.started, b.started],
        ["commit", commit(a), commit(b)],
        ["profile", a.profile, b.profile],
        ["hardware", hardware(a), hardware(b)],
        *([name, old or "—", new or "—"] for name, (old, new) in diff.versions.items()),
    ]
    parameters = _grouped(
        (f"{name}: {value(old)} in A, {value(new)} in B", job.notebook)
        for job in diff.jobs
        for name, (old, new) in (job.parameters or {}).items()
    )
    lines = [f"! {note}" for note in diff.notes]
    lines += [f"! parameter {text} ({', '.join(notebooks)})" for text, notebooks in parameters.items()]
    return Section("Runs", ("", "A", "B"), "lll", rows, lines=lines)


def _metrics(diff: RunDiff) -> Iterator[Section]:
    """One table for each notebook in which a metric changed, then what needs no table."""
    changed = [metric for metric in diff.metrics if metric.change in _SYMBOLS]
    for notebook in dict.fromkeys(metric.notebook for metric in changed):
        mine = [metric for metric in changed if metric.notebook == notebook]
        head = ("metric", "A", "B", "difference", "finding")
        yield Section(f"Metrics of {notebook}", head, "lrrrl", [*map(_row, mine)], lines=[*_tests(mine)])
    lines = []
    for change in (Change.IDENTICAL, Change.ONLY_A, Change.ONLY_B):
        found = _grouped((m.notebook, m.name) for m in diff.metrics if m.change is change)
        if found:
            lines.append(f"{change.value}: " + "; ".join(f"{n}: {', '.join(m)}" for n, m in found.items()))
    if diff.tests:
        lines.append(
            f"p-values are adjusted for the {diff.tests} test(s) of this comparison (Holm), significant below"
            f" {ALPHA:g}; intervals hold the difference with 95 %, each by itself"
        )
    if lines or not changed:
        yield Section("All metrics", lines=lines or ["none was recorded"])


def _verdicts(diff: RunDiff) -> Iterator[Section]:
    """What became of the claims: a test of differences and a verdict may say two things."""
    if diff.verdicts:
        said = [[f"{v.chapter}: {v.claim}", *(_outcome(one) for one in (v.a, v.b))] for v in diff.verdicts]
        lines = [f"{v.claim} in B: {v.message}" for v in diff.verdicts if v.message]
        yield Section("Verdicts that changed", ("claim", "A", "B"), "lll", said, lines=lines)


def _outcome(outcome: Outcome) -> str:
    return f"{SYMBOLS[outcome]} {OUTCOMES[outcome].en}"


def _row(metric: MetricDiff) -> list[str]:
    rounded, finding = metric.rounded, f"{_SYMBOLS[metric.change]} {metric.change.value}"
    bare = replace(rounded, unit="")  # it stands beside the metric's name
    unit = f" ({rounded.suffix.strip()})" if rounded.suffix else ""
    numbers = [bare.number(metric.a), bare.number(metric.b), bare.number(metric.delta, signed=True)]
    return [metric.name + unit, *numbers, finding]


def _tests(metrics: Sequence[MetricDiff]) -> Iterator[str]:
    """How the metrics of one notebook were tested, those with the same test and seeds together."""

    def told(m: MetricDiff) -> str:
        details: list[str] = []
        if m.p_adjusted is not None:
            details.append(f"p = {m.p_adjusted:.2g}" if m.p_adjusted >= 0.001 else "p < 0.001")
        if m.interval is not None:
            details.append(m.rounded.range(m.interval, signed=True))
        if m.test and m.note:
            details.append(m.note)
        if m.change is Change.UNDECIDED:
            details.append(m.too_few)
        return f"{m.name} ({', '.join(details)})" if details else m.name

    groups = _grouped(((m.test or m.note, _seeds(m)), told(m)) for m in metrics)
    for (test, seeds), names in groups.items():
        label = "exact, no seed changes it" if test == "exact" else test
        yield f"{label}; {seeds}: {', '.join(names)}"


def _seeds(metric: MetricDiff) -> str:
    """Which seeds the values of a metric are the means of."""
    if not metric.seeds:
        return f"means over {metric.runs_a} and {metric.runs_b} runs, no common seed"
    if metric.seeds == (None,):
        return "no seed"
    seeds = ", ".join(str(seed) for seed in metric.seeds)
    return f"seed {seeds}" if len(metric.seeds) == 1 else f"means over seeds {seeds}"


def _jobs(diff: RunDiff) -> Section:
    def state(state: JobState | None) -> str:
        return "not planned" if state is None else f"{'✓' if state in FINISHED else '✗'} {STATES[state].en}"

    def both(a: str, b: str, ratio: float | None) -> str:
        return (f"{a} → {b}" if a != b else a) + (f" ({ratio:.2f}×)" if ratio is not None else "")

    rows = [
        [
            _job_name(job),
            state(job.state_a),
            state(job.state_b),
            both(format_seconds(job.seconds_a), format_seconds(job.seconds_b), job.time_ratio),
            both(format_memory(job.memory_a), format_memory(job.memory_b), job.memory_ratio),
        ]
        for job in diff.jobs
    ]
    lines = []
    for side, kept in (("A", [job.kept_a for job in diff.jobs]), ("B", [job.kept_b for job in diff.jobs])):
        found = _grouped((run, _job_name(job)) for run, job in zip(kept, diff.jobs, strict=True) if run)
        lines += [
            f"cached in {side}, times are those of run {run}: {', '.join(jobs)}"
            for run, jobs in found.items()
        ]
    lines += [f"{_job_name(job)} in B: {job.reason_b}" for job in diff.jobs if job.reason_b]
    return Section("Jobs", ("job", "A", "B", "time", "peak memory"), "lllrr", rows, lines=lines)


def _job_name(job: JobDiff) -> str:
    return job.notebook + ("" if job.seed is None else f" seed {job.seed}")


def _slower(diff: RunDiff) -> Section:
    rows = [
        [
            f"{cell.notebook} {cell_name(cell.index, cell.id)}",
            format_seconds(cell.seconds_a),
            format_seconds(cell.seconds_b),
            "—" if cell.ratio is None else f"{cell.ratio:.2f}×",
            cell.code,
        ]
        for cell in diff.slower[:SHOWN]
    ]
    lines = [] if rows else ["none"]
    if any(cell.kept for cell in diff.slower):
        lines.append("some of these times were kept from an earlier run (see Jobs)")
    title = f"Slower cells (by more than {SLOWER_RATIO - 1:.0%} and {SLOWER_SECONDS:g} s)"
    head = ("cell", "A", "B", "ratio", "code")
    return Section(title, head, "lrrrl", rows, lines=[*lines, *_more(diff.slower)])


def _outputs(diff: RunDiff) -> Section:
    excerpts = [(_change(output), output.cell.excerpt) for output in diff.outputs[:SHOWN]]
    return Section("Changed outputs", lines=_more(diff.outputs) if excerpts else ["none"], excerpts=excerpts)


def _change(output: OutputDiff) -> str:
    cell = output.cell
    what = ", ".join(w if w.startswith("only") else f"{w} changed" for w in cell.what)
    seeds = [str(seed) for seed in output.seeds if seed is not None]
    under = f", seed {seeds[0]}" if len(seeds) == 1 else f", seeds {', '.join(seeds)}" if seeds else ""
    code = "; so was its code" if cell.code_changed else ""
    return f"{output.notebook} {cell_name(cell.index, cell.id)}{under}: {what}{code}"


def _more(found: Sequence[Any]) -> list[str]:
    return [f"{len(found) - SHOWN} more: see --format json"] if len(found) > SHOWN else []
