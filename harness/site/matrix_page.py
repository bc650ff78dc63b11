"""The page of tasks × models: published figures, and beside them what run folders hold of ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.archive.folder import runs_dir
from harness.archive.recorded import RunResult, read_manifest, read_result
from harness.book.config import Book
from harness.book.matrix import Matrix, Score, Task, read_matrix
from harness.book.parameters import SET_BY_HARNESS, same_value
from harness.errors import HarnessError
from harness.judge.check import own_values
from harness.judge.rules import judge_claim
from harness.judge.statistics import mean
from harness.model import FINISHED, worst_of
from harness.report.dashboard import mark_of
from harness.report.history import LONGEST, newest_results
from harness.report.words import Words
from harness.wording import Language, markdown_text

MARKER = re.compile(r"^<!-- harness:matrix (\S+) -->[ \t]*$", re.MULTILINE)
"""Stands in a page where the tables go, with the matrix's file, beside the page."""

Value = tuple[float, int | None]  # a metric, and the seed of the job that recorded it

HIDDEN = frozenset({*SET_BY_HARNESS, "save_to"})
"""Parameters that do not decide what is measured."""


def fill(text: str, page: Path, book: Book, run_dir: Path | None = None, language: Language = "zh") -> str:
    """A page's text with its tables, from *run_dir* and the book's run folders: the newest that measured a cell."""
    if not MARKER.search(text):
        return text

    def tables(found: re.Match[str]) -> str:
        matrix = read_matrix(page.parent / found[1], book)
        own = {task.chapter: own_values(book, task.chapter, matrix.profile) for task in matrix.tasks}
        return render(matrix, list(runs_of(matrix.profile, book, run_dir)), own, Words(language))

    return MARKER.sub(tables, text)


def runs_of(profile: str, book: Book, run_dir: Path | None) -> Iterable[RunResult]:
    """Finished runs of a profile, the given one first, then the newest; one that cannot be read is passed over."""
    given = [run_dir / "result.json"] if run_dir else []
    for path in dict.fromkeys([*given, *newest_results(runs_dir(book.root))[:LONGEST]]):
        try:
            manifest = read_manifest(path.parent)
            if manifest.profile == profile and not manifest.shard:  # a shard is part of a merged run
                yield read_result(path.parent)
        except HarnessError:
            continue


def render(
    matrix: Matrix, runs: Sequence[RunResult], own: Mapping[str, Mapping[str, Any]], words: Words
) -> str:
    """A section a task, a table a score; *own* are the values of each chapter's parameters under the profile."""
    sections = []
    for task in matrix.tasks:
        told = f"{words.method}{task.protocol}\n\n" if task.protocol else ""
        set_to = words.comma.join(f"`{name} = {value!r}`" for name, value in task.parameters.items())
        where = words("task", task.chapter, task.takes) + (words("set_too", set_to) if set_to else "")
        tables = [_table(matrix, task, score, runs, own[task.chapter], words) for score in task.scores]
        sections += [f"## {markdown_text(task.name)}", f"{told}{where}{words.full_stop}", *tables]
    return "\n\n".join(sections)


def _table(
    matrix: Matrix, task: Task, score: Score, runs: Sequence[RunResult], own: Mapping[str, Any], words: Words
) -> str:
    rows = [f"**{markdown_text(score.title)}**", "", words.matrix_head, "|:--|--:|:--|--:|--:|:--|"]
    for model in task.models:
        wanted = {**own, **task.values(model)}
        found = ((measured_in(run, task.chapter, matrix.profile, wanted, score.metric), run) for run in runs)
        values, run = next(((values, run) for values, run in found if values), ([], None))
        cells = _cells(matrix, task, score, model, values, run, words)
        rows.append(_line(f"`{model}`", *cells))
    for model, why in task.without.items():
        rows.append(_line(f"`{model}`", "", words("not_applicable", why), "", "", ""))
    return "\n".join(rows)


def _line(*cells: str) -> str:
    return "".join(f"| {cell} " if cell else "| " for cell in cells) + "|"


def _cells(
    matrix: Matrix,
    task: Task,
    score: Score,
    model: str,
    values: Sequence[Value],
    run: RunResult | None,
    words: Words,
) -> tuple[str, ...]:
    """What others published and from where, ours, how far apart, and the verdict on that."""
    published = score.published.get(model)
    theirs = f"{published.value:.1%}" if published else "—"
    told = (published.citation, published.protocol) if published else (words.not_found,)
    source = words.semicolon.join(filter(None, told))
    if run is None:
        return theirs, source, words.unverified, "", ""
    numbers = [value for value, _ in values]
    ours = words("ours", f"{mean(numbers):.1%}", len(numbers), words.machine_of(run.manifest))
    if published is None:
        return theirs, source, ours, "", ""
    verdicts = judge_claim(
        score.claim(model, matrix.profile), numbers, matrix.profile, chapter=task.chapter,
        seeds=[seed for _, seed in values],
    )  # fmt: skip
    worst = worst_of(verdicts)
    mark = mark_of(words.outcome_words(worst), worst.value) if worst else ""
    return theirs, source, ours, f"{100 * (mean(numbers) - published.value):+.1f}", mark


def measured_in(
    run: RunResult, chapter: str, profile: str, wanted: Mapping[str, Any], metric: str
) -> list[Value]:
    """Values of *metric* with their seeds, of the jobs whose parameters were exactly those *wanted*."""
    return [
        (one.value, job.seed)
        for job in run.jobs
        if (job.chapter, job.profile) == (chapter, profile) and job.state in FINISHED
        if all(
            same_value(job.parameters.get(name, value), value)
            for name, value in wanted.items()
            if name not in HIDDEN
        )
        for one in job.metrics
        if one.name == metric
    ]
