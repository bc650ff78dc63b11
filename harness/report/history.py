"""What stands beside a verdict: earlier runs of the same profile and the blessed values, and the figures of both.

Everything here is an extra for the eye. A past run or a claim file that cannot be read is left out; whoever
judges or reads it says what is wrong with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isclose
from pathlib import Path
from typing import Any

from harness.archive.folder import runs_dir
from harness.archive.recorded import RunResult, result_from_json
from harness.book.config import Book
from harness.book.notebook import PAPERMILL_TAGS, read_document, text_of
from harness.book.references import read_references, references_path
from harness.errors import HarnessError
from harness.files import refuse_constant
from harness.judge.statistics import mean
from harness.model import Outcome, Verdict, worst_of
from harness.report.figures import Reading, dot_plot, history_curve
from harness.wording import Language, cell_label

LONGEST = 60
"""Past runs that are read; the newest files."""

_WITHOUT_BLESSED = ("published", "bounds")
_NO_CURVE = Outcome.NOT_APPLICABLE  # measured on something else than the other runs

Key = tuple[str, str]  # chapter, name of the claim


@dataclass(frozen=True)
class Background:
    """What a page knows beyond the run itself."""

    history: Sequence[
        RunResult
    ] = ()  # newest first, with the run itself; of the others the jobs are not read
    blessed: Mapping[Key, Sequence[float]] = field(default_factory=dict)

    @cached_property
    def readings(self) -> Mapping[Key, Sequence[Reading]]:
        """What the runs measured, by claim, oldest first."""
        return claim_readings(self.history)


def background(run: RunResult, book: Book | None) -> Background:
    """Gather it for the *run* of *book*; each past result.json is read once."""
    if book is None:  # nothing is claimed outside a book
        return Background()
    blessed = {
        (chapter, name): values
        for chapter in dict.fromkeys(verdict.chapter for verdict in run.verdicts)
        for name, values in blessed_values(
            references_path(book.claims_dir, chapter), run.manifest.profile, run.manifest.hardware
        ).items()
    }
    return Background(past_runs(runs_dir(book.root), run), blessed)


def past_runs(runs: Path, run: RunResult) -> list[RunResult]:
    """Finished runs (no shards) of the same profile up to and including *run*, newest first."""
    found = {run.manifest.run: run}
    for path in newest_results(runs):
        if len(found) > LONGEST:
            break
        try:
            other = result_from_json(_without_jobs(path), path)
        except (OSError, ValueError, RecursionError, HarnessError):  # damaged: no part of the history
            continue
        theirs, mine = other.manifest, run.manifest
        if theirs.profile == mine.profile and theirs.started <= mine.started and not theirs.shard:
            found.setdefault(theirs.run, other)
    return sorted(found.values(), key=lambda one: one.manifest.started, reverse=True)


def _without_jobs(path: Path) -> Any:
    """A result.json without its jobs, nearly all of its text, where it is laid out as the harness writes it."""
    text = path.read_text(encoding="utf-8")
    start, end = text.find('\n "jobs": ['), text.find('\n "verdicts": [')  # no string holds a line break
    return json.loads(text[:start] + text[end:] if 0 < start < end else text, parse_constant=refuse_constant)


def newest_results(runs: Path) -> list[Path]:
    """The result.json of every run folder, the newest file first."""
    aged = []
    for path in runs.glob("*/result.json"):
        if not path.parent.is_symlink():
            try:
                aged.append((path.stat().st_mtime, path))
            except OSError:  # gone meanwhile
                continue
    return [path for _, path in sorted(aged, reverse=True)]


def claim_readings(history: Sequence[RunResult]) -> dict[Key, list[Reading]]:
    """What the runs of *history*, newest first, measured, by claim; oldest first, as it is drawn.

    Only runs on the newest run's class of hardware: one line through several would show a change that is none.
    """
    found: dict[Key, list[Reading]] = {}
    for run in reversed(history):
        if run.manifest.hardware != history[0].manifest.hardware:
            continue
        judged: dict[
            Key, list[Verdict]
        ] = {}  # a claim with several references has several verdicts on one value
        for verdict in run.verdicts:
            judged.setdefault((verdict.chapter, verdict.claim), []).append(verdict)
        for key, mine in judged.items():
            worst, observed = worst_of(mine), next((v.observed for v in mine if v.observed), ())
            if worst and worst is not _NO_CURVE and observed:
                found.setdefault(key, []).append(Reading(run.manifest.started, observed, worst))
    return found


def blessed_values(path: Path, profile: str, hardware: str) -> dict[str, tuple[float, ...]]:
    """Blessed values by claim, of this hardware where there are any, as :mod:`harness.judge.rules` compares."""
    try:
        references = read_references(path)
    except HarnessError:
        return {}
    found = {}
    for name, by_profile in references.items():
        runs = by_profile.get(profile, ())
        found[name] = tuple(run.value for run in runs if run.hardware == hardware) or tuple(
            run.value for run in runs
        )
    return found


def claim_figures(verdict: Verdict, known: Background, language: Language = "zh") -> tuple[str, str]:
    """Dot plot and curve over history of one verdict; empty where there is nothing to draw."""
    if verdict.outcome is _NO_CURVE:
        return "", ""
    key = (verdict.chapter, verdict.claim)
    blessed = () if verdict.rule in _WITHOUT_BLESSED else known.blessed.get(key, ())
    if (
        blessed
        and verdict.reference is not None
        and not isclose(mean(blessed), verdict.reference, rel_tol=1e-6)
    ):
        blessed = ()  # blessed anew since: not what this run was compared with
    look: dict[str, Any] = {"band": verdict.interval, "unit": verdict.unit, "title": verdict.title}
    dots = dot_plot(verdict.observed, blessed=blessed, reference=verdict.reference, language=language, **look)
    return dots, history_curve(known.readings.get(key, ()), language=language, **look)


def cell_texts(run: RunResult) -> dict[str, dict[int, str]]:
    """The line that each code cell is known by, by job and by place in the notebook, from what the jobs ran.

    Seeds of one notebook ran the same cells: the first that left a notebook stands for all.
    """
    found: dict[str, dict[int, str]] = {}
    for job in run.jobs:
        if not found.get(job.notebook):
            found[job.notebook] = _labels(run.folder / "jobs" / job.id / "out.ipynb")
    return {job.id: found[job.notebook] for job in run.jobs}


def _labels(path: Path) -> dict[int, str]:
    try:
        cells = read_document(path)["cells"]
    except HarnessError:
        return {}
    own = [cell for cell in cells if not PAPERMILL_TAGS & set(cell["metadata"].get("tags") or ())]
    code = ((place, cell) for place, cell in enumerate(own) if cell["cell_type"] == "code")
    return {place: cell_label(text_of(cell)) for place, cell in code}
