"""A run as people read it, in one language: what every renderer shows, and nothing of how it looks.

The templates of this wing lay it out as Markdown, HTML and MyST.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from markupsafe import Markup

from harness.archive.recorded import RunResult
from harness.judge.statistics import mean
from harness.model import FINISHED, WORST_FIRST, CellResult, CellState, JobResult, Outcome, Verdict
from harness.report.figures import Bar, cell_bars, strip
from harness.report.fill import fill
from harness.report.history import Background, claim_figures
from harness.report.words import Words, tone_of
from harness.wording import (
    Language,
    Rounding,
    format_memory,
    html_language,
    rounding,
    untold,
)

TEMPLATES = Path(__file__).with_name("templates")

CellTexts = Mapping[str, Mapping[int, str]]
"""The line that each code cell is known by, by job and by the cell's place in its notebook."""


@dataclass(frozen=True)
class Count:
    """How many claims have one outcome."""

    kind: str  # for a style sheet
    words: str
    number: int

    def rank(self) -> int:
        return WORST_FIRST.index(Outcome(self.kind))


@dataclass(frozen=True)
class VerdictView:
    """One judgement; a dash stands where there is no number."""

    verdict: Verdict
    kind: str
    words: str
    runs: int
    observed: str  # mean of the runs
    reference: str
    difference: str
    range: str
    beyond: str  # how far outside the range; empty inside
    rule: str
    message: str

    def rank(self) -> int:
        return WORST_FIRST.index(self.verdict.outcome)


@dataclass(frozen=True)
class Problem:
    """A cell that failed."""

    cell: CellResult
    code: str  # the line that it is known by, or its id


@dataclass(frozen=True)
class JobView:
    """How one notebook ended."""

    job: JobResult
    kind: str
    words: str
    seed: str
    seconds: str
    memory: str
    share_of_seconds: float  # of the longest job
    share_of_memory: float
    failed: tuple[Problem, ...]
    untold: tuple[CellResult, ...]  # failed cells that the job's reason does not name


class View:
    """A run in one language, with what is known beyond it."""

    def __init__(
        self,
        run: RunResult,
        language: Language,
        known: Background | None = None,
        cells: CellTexts | None = None,
    ) -> None:
        self.run, self.manifest, self.language = run, run.manifest, language
        self.words, self._known, self._cells = Words(language), known or Background(), cells or {}

    @property
    def seconds(self) -> str:
        return self.words.took_time(self.run.seconds)

    @property
    def commit(self) -> str:
        """Its first digits."""
        return self.manifest.commit[:10]

    @property
    def uncommitted(self) -> str:
        """What is said where the tree held more than the commit."""
        return self.words.uncommitted if self.manifest.dirty else ""

    @property
    def machine(self) -> str:
        """Names of its processors."""
        environment = self.manifest.environment
        return ", ".join(str(environment[key]) for key in ("gpu", "cpu") if environment.get(key))

    @property
    def hardware(self) -> str:
        """Class of the machine, and its processors."""
        return (self.manifest.hardware or "—") + (f" ({self.machine})" if self.machine else "")

    @property
    def environment(self) -> Mapping[str, Any]:
        return defaultdict(lambda: None, self.manifest.environment)

    @property
    def versions(self) -> list[tuple[str, str]]:
        return sorted(self.manifest.versions.items())

    @property
    def started(self) -> str:
        """To the minute; the text itself where it is no date."""
        try:
            return f"{datetime.fromisoformat(self.manifest.started):%Y-%m-%d %H:%M} UTC"
        except ValueError:
            return self.manifest.started or "—"

    @property
    def broken(self) -> list[JobView]:
        return [job for job in self.jobs if job.job.state not in FINISHED]

    @property
    def counts(self) -> list[Count]:
        return count_verdicts(self.run.verdicts, self.words)

    @cached_property
    def verdicts(self) -> list[VerdictView]:
        return [self._verdict(verdict) for verdict in self.run.verdicts]

    @cached_property
    def chapters(self) -> dict[str, list[VerdictView]]:
        """Verdicts by chapter: of those that ran, and of those that are claimed about."""
        names = [job.chapter for job in self.run.jobs if job.chapter]
        found: dict[str, list[VerdictView]] = {name: [] for name in names}
        for view in self.verdicts:
            found.setdefault(view.verdict.chapter, []).append(view)
        return found

    @property
    def bad(self) -> list[VerdictView]:
        """What is not as claimed, the worst first."""
        return sorted((view for view in self.verdicts if _bad(view.verdict)), key=VerdictView.rank)

    @property
    def worst_chapters(self) -> list[tuple[str, list[VerdictView]]]:
        """All chapters with their verdicts: those with one that is not as claimed first, in each the bad ones first."""
        mine = [(name, sorted(views, key=VerdictView.rank)) for name, views in self.chapters.items()]
        return sorted(mine, key=lambda pair: not self.needs_attention(pair[1]))

    def needs_attention(self, views: Sequence[VerdictView]) -> bool:
        """Whether one of them is not as claimed."""
        return any(_bad(view.verdict) for view in views)

    @property
    def worst_counts(self) -> list[Count]:
        """The counts, the bad ones first."""
        return sorted(self.counts, key=Count.rank)

    def counts_of(self, views: Sequence[VerdictView]) -> list[Count]:
        """Those of some verdicts, the bad ones first."""
        return sorted(count_verdicts([view.verdict for view in views], self.words), key=Count.rank)

    @property
    def headline(self) -> str:
        """Whether all holds, in one sentence."""
        found = Counter(verdict.outcome for verdict in self.run.verdicts)
        failed = found[Outcome.FAIL] + found[Outcome.MISSING]
        parts = [self.words("claims_failed", failed)] if failed else []
        parts += [self.words("notebooks_broke", len(self.broken))] if self.broken else []
        if parts:
            return self.words("does_not_hold", self.words.comma.join(parts))
        return self.words("holds", found[Outcome.PASS]) if found[Outcome.PASS] else self.words.nothing_shown

    @property
    def hardware_sentence(self) -> str:
        """What hardware this run and its references differ in; empty where nothing was compared with a run."""
        compared = [verdict for verdict in self.run.verdicts if verdict.reference_hardware]
        foreign = [verdict for verdict in compared if verdict.foreign]
        here = ", ".join(
            dict.fromkeys(v.hardware or self.words.unknown_hardware for v in foreign or compared)
        )
        if not compared:
            return ""
        if not foreign:
            return self.words("same_hardware", here)
        there = ", ".join(dict.fromkeys(verdict.reference_hardware for verdict in foreign))
        return self.words("other_hardware", here, len(foreign), len(compared), there)

    @property
    def finished(self) -> list[JobView]:
        return [job for job in self.jobs if job.job.state in FINISHED]

    def strip(self, verdict: Verdict) -> Markup:
        """Where the values stand to the range, as a small SVG; empty where there is nothing to draw."""
        if verdict.outcome is Outcome.NOT_APPLICABLE:
            return Markup()
        return Markup(strip(verdict.observed, band=verdict.interval))

    @cached_property
    def jobs(self) -> list[JobView]:
        longest = max((job.seconds for job in self.run.jobs), default=0.0) or 1.0
        largest = max((job.peak_rss_mb or 0.0 for job in self.run.jobs), default=0.0) or 1.0
        return [self._job(job, longest, largest) for job in self.run.jobs]

    @property
    def recorded(self) -> list[dict[str, str]]:
        """What notebooks outside the book recorded: nobody judges it."""
        return [
            {
                "job": job.id,
                "notebook": job.notebook,
                "name": metric.name,
                "value": rounded.number(metric.value),
                "n": "—" if metric.n is None else str(metric.n),
                "split": metric.split or "—",
                "interval": rounded.range(metric.interval),
            }
            for job in self.run.jobs
            if job.chapter is None
            for metric in job.metrics
            for rounded in (rounding(metric.unit, (metric.value,), metric.interval),)
        ]

    @property
    def history(self) -> list[View]:
        """The runs of the same profile up to this one, newest first; none where it is the only one."""
        past = self._known.history
        return [View(one, self.language) for one in past] if len(past) > 1 else []

    def figures(self, verdict: Verdict) -> tuple[Markup, Markup]:
        """Dot plot and curve over history as SVG; empty where there is nothing to draw."""
        dots, curve = claim_figures(verdict, self._known, self.language)
        return Markup(dots), Markup(curve)

    def bars(self, job: JobResult) -> Markup:
        """The slowest cells as SVG; empty where no time is known."""
        texts = self._cells.get(job.id, {})
        bars = [
            Bar(texts.get(cell.index) or cell.id, cell.seconds, cell.state is CellState.FAILED)
            for cell in job.cells
            if cell.seconds is not None
        ]
        return Markup(cell_bars(bars, title=job.id, language=self.language))

    def _verdict(self, verdict: Verdict) -> VerdictView:
        chinese, set_range = self.language == "zh", verdict.rule == "bounds"
        centre = mean(verdict.observed) if verdict.observed else None
        rounded = verdict_rounding(verdict)
        beyond = verdict.delta if set_range else _beyond(centre, verdict.interval)
        if verdict.outcome is Outcome.PASS:  # by less than references were rounded by
            beyond = None
        return VerdictView(
            verdict,
            kind=verdict.outcome.value,
            words=self.words.outcome_words(verdict.outcome),
            runs=len(verdict.observed),
            observed=rounded.number(centre),
            reference=rounded.number(verdict.reference),
            difference=rounded.number(verdict.delta, signed=True),
            range=rounded.range(verdict.interval),
            beyond=rounded.number(abs(beyond)) if beyond else "",
            rule=self.words.rule_name(verdict.rule),
            message=(verdict.message_zh or verdict.message) if chinese else verdict.message,
        )

    def _job(self, job: JobResult, longest: float, largest: float) -> JobView:
        texts = self._cells.get(job.id, {})
        return JobView(
            job,
            kind=tone_of(job.state).value,
            words=self.words.state_words(job.state),
            seed="—" if job.seed is None else str(job.seed),
            seconds=self.words.took_time(job.seconds),
            memory=format_memory(job.peak_rss_mb),
            share_of_seconds=job.seconds / longest,
            share_of_memory=(job.peak_rss_mb or 0.0) / largest,
            failed=tuple(Problem(cell, texts.get(cell.index) or cell.id) for cell in job.failed),
            untold=untold(job),
        )


def markdown_report(run: RunResult, language: Language) -> str:
    """*run* as GitHub-flavoured Markdown in *language*, for a CI step's summary."""
    view = View(run, language)
    return fill(TEMPLATES / "report.md.j2", view=view, w=view.words)


def html_report(run: RunResult, known: Background, cells: CellTexts, language: Language = "zh") -> str:
    """*run* as one HTML file that needs nothing else: no script, no request, light and dark, screen and paper.

    Args:
        known: past runs and blessed values, for the figures.
        cells: the line that each cell is known by; a cell without it is named by its id.
        language: of the page.
    """
    view = View(run, language, known, cells)
    return fill(
        TEMPLATES / "report.html.j2",
        view=view,
        w=view.words,
        style=Markup(
            "".join((TEMPLATES / n).read_text(encoding="utf-8") for n in ("report.css", "filter.css"))
        ),
        lang=html_language(language),
    )


def verdict_rounding(verdict: Verdict) -> Rounding:
    """How far the numbers of a claim are told, wherever they stand."""
    bounds = verdict.rule == "bounds"
    judged = verdict.interval is not None and not bounds and verdict.observed
    return rounding(
        verdict.unit,
        (mean(verdict.observed),) if judged else verdict.observed,
        verdict.interval,
        reference=verdict.reference,
        uncertain=not bounds,
    )


def _bad(verdict: Verdict) -> bool:
    return verdict.outcome not in (Outcome.PASS, Outcome.NOT_APPLICABLE)


def _beyond(value: float | None, interval: tuple[float | None, float | None] | None) -> float | None:
    """How far *value* lies outside *interval*; None inside, or where that is not known."""
    if value is None or interval is None:
        return None
    low, high = interval
    below = low - value if low is not None else 0.0
    above = value - high if high is not None else 0.0
    return max(below, above) if max(below, above) > 0 else None


def count_verdicts(verdicts: Sequence[Verdict], words: Words) -> list[Count]:
    """Only what occurs, the good first."""
    found = Counter(verdict.outcome for verdict in verdicts)
    return [Count(one.value, words.outcome_words(one), found[one]) for one in Outcome if found[one]]
