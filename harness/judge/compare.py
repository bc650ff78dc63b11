"""Two runs side by side: what they measured, how long and how much it took, what their cells put out.

Everything here is a pure function of two run folders (and, for the direction of a metric, the book's claim files).
:mod:`harness.judge.differences` says when a metric or a cell differs, :mod:`harness.report.comparison` shows it all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.archive.recorded import RecordedRun, read_manifest, read_result, read_run
from harness.book.claims import load_claims
from harness.book.parameters import SET_BY_HARNESS
from harness.errors import HarnessError
from harness.judge.check import own_values
from harness.judge.differences import (
    CellChange,
    Change,
    MetricDiff,
    changed_cells,
    compare_metric,
    counterparts,
    judge_together,
)
from harness.judge.statistics import mean
from harness.model import (
    FINISHED,
    WORST_FIRST,
    CellResult,
    Claim,
    JobResult,
    JobState,
    Metric,
    Outcome,
    Verdict,
)
from harness.wording import OUTCOMES, one_line

if TYPE_CHECKING:
    from harness.book.config import Book

SCHEMA = 1
"""Version of the JSON form of :class:`RunDiff`."""
SLOWER_RATIO = 1.2
SLOWER_SECONDS = 0.5
"""A cell got slower if it took more than SLOWER_RATIO times as long and SLOWER_SECONDS longer."""

Key = tuple[str, int | None]
"""Notebook and seed of a job."""
Pairs = Mapping[Key, tuple[JobResult | None, JobResult | None]]


@dataclass(frozen=True)
class Side:
    """Where one of the two runs comes from."""

    run: str
    started: str
    commit: str
    dirty: bool
    profile: str
    hardware: str
    cpu: str
    gpu: str


@dataclass(frozen=True)
class JobDiff:
    """One notebook under one seed in both runs; a side that did not plan it has neither id nor state."""

    notebook: str
    seed: int | None
    id_a: str | None = None
    id_b: str | None = None
    state_a: JobState | None = None
    state_b: JobState | None = None
    reason_b: str = ""
    seconds_a: float | None = None
    seconds_b: float | None = None
    time_ratio: float | None = None  # B to A; None unless both ran to their ends
    memory_a: float | None = None  # peak, in MB
    memory_b: float | None = None
    memory_ratio: float | None = None
    kept_a: str | None = None  # the run that a cached job's times and numbers are from
    kept_b: str | None = None
    parameters: Mapping[str, tuple[Any, Any]] | None = None  # that differ, by name: those of A and B


@dataclass(frozen=True)
class SlowerCell:
    """One cell that took longer in B: means over the seeds that both runs completed."""

    notebook: str
    id: str
    index: int  # position among all cells of B's notebook, from 0
    code: str  # the line that it is known by
    seconds_a: float
    seconds_b: float
    ratio: float | None  # None where A took no time at all
    jobs: int  # pairs of jobs behind the means
    kept: bool  # some of the times are those of an earlier run


@dataclass(frozen=True)
class OutputDiff:
    """One cell whose outputs changed; the excerpt is of the first of *seeds*."""

    notebook: str
    seeds: tuple[int | None, ...]
    cell: CellChange


@dataclass(frozen=True)
class VerdictDiff:
    """A claim that the two runs were judged differently on; of several verdicts the worst stands for all."""

    chapter: str
    claim: str
    title: str
    a: Outcome
    b: Outcome
    message: str  # of B's


@dataclass(frozen=True)
class RunDiff:
    """All that two runs differ in."""

    schema: int
    a: Side
    b: Side
    versions: Mapping[str, tuple[str, str]]  # that differ, Python's among them
    notes: tuple[str, ...]  # what keeps the two from being like for like
    metrics: tuple[MetricDiff, ...]
    tests: int  # behind the adjusted p-values
    verdicts: tuple[VerdictDiff, ...]  # that changed; each run was judged with the claims of then
    jobs: tuple[JobDiff, ...]
    slower: tuple[SlowerCell, ...]  # the worst first
    outputs: tuple[OutputDiff, ...]
    regressions: tuple[str, ...]  # one line each: what is worse, does not hold or does not complete any more


@dataclass(frozen=True)
class _Run:
    """A run folder that was read, with its jobs by notebook and seed."""

    folder: Path
    recorded: RecordedRun
    profile: str
    jobs: Mapping[Key, JobResult]
    verdicts: (
        Mapping[tuple[str, str], Verdict] | None
    )  # the worst by chapter and claim; None: it was not judged

    def executed(self, job: JobResult) -> Path:
        """Where the executed notebook of *job* is."""
        return self.folder / "jobs" / job.id / "out.ipynb"


def diff_runs(a: Path, b: Path, book: Book | None = None) -> RunDiff:
    """Compare the run in folder *b* with the earlier one in folder *a*.

    Args:
        a: a run folder.
        b: another.
        book: whose claims say which way a metric is better; without it a change is just one.

    Raises:
        HarnessError: both are the same run, or a run, an executed notebook or a claim file cannot be read.
    """
    if a.resolve() == b.resolve():
        raise HarnessError(f"both are the run {b.name}; name two different ones")
    runs = run_a, run_b = [_read(folder, book.chapters if book else ()) for folder in (a, b)]
    pairs = _pairs(run_a.jobs, run_b.jobs)
    metrics = judge_together(list(_metrics(run_a, run_b, book)))
    jobs = tuple(_compare_jobs(key, *pair) for key, pair in pairs.items())
    verdicts = tuple(_verdicts(run_a, run_b))
    sides = [_side(run) for run in runs]
    return RunDiff(
        SCHEMA,
        *sides,
        versions=_versions(run_a, run_b),
        notes=tuple(_notes(*sides, *runs, metrics)),
        metrics=tuple(metrics),
        tests=sum(metric.p_value is not None for metric in metrics),
        verdicts=verdicts,
        jobs=jobs,
        slower=_slower(pairs),
        outputs=_outputs(pairs, run_a, run_b),
        regressions=tuple(_regressions(metrics, jobs, _not_held(verdicts, run_b))),
    )


def previous_run(run_dir: Path) -> Path:
    """The newest finished run beside *run_dir* that started before it under the same profile.

    Raises:
        HarnessError: there is none, or *run_dir* cannot be read.
    """
    manifest = read_manifest(run_dir)
    earlier = []
    for folder in run_dir.parent.iterdir():
        if folder.is_symlink() or not (folder / "result.json").is_file():
            continue
        try:
            other = read_manifest(folder)
        except HarnessError:  # a damaged run is none to compare with
            continue
        age = (other.started, folder.name)
        if other.profile == manifest.profile and age < (manifest.started, run_dir.name):
            earlier.append((age, folder))
    if not earlier:
        raise HarnessError(
            f"no finished run of the profile {manifest.profile!r} before {run_dir.name}; name the two runs"
        )
    return max(earlier)[1]


# -- the runs ----------------------------------------------------------------------------------------


def _read(folder: Path, chapters: Iterable[Path]) -> _Run:
    recorded = read_run(folder, chapters)
    profile = recorded.manifest.profile
    jobs = {_key(job, profile): job for job in recorded.results}
    return _Run(folder, recorded, profile, jobs, _worst_verdicts(folder))


def _worst_verdicts(folder: Path) -> dict[tuple[str, str], Verdict] | None:
    if not (folder / "result.json").is_file():
        return None
    found: dict[tuple[str, str], Verdict] = {}
    for verdict in read_result(folder).verdicts:
        key = verdict.chapter, verdict.claim
        found[key] = min(found.get(key, verdict), verdict, key=lambda one: WORST_FIRST.index(one.outcome))
    return found


def _key(job: JobResult, profile: str) -> Key:
    """Notebook and seed as the job's id tells them: its path may differ from checkout to checkout."""
    found = re.fullmatch(rf"(.+)-{re.escape(profile)}(?:-seed(-?\d{{1,18}}))?(-\d+)?", job.id)
    if found is None:
        return job.id, job.seed
    stem, seed, number = found.groups()
    return stem + (f" ({number[1:]})" if number else ""), None if seed is None else int(seed)


def _side(run: _Run) -> Side:
    manifest, environment = run.recorded.manifest, run.recorded.manifest.environment
    return Side(
        run=run.folder.name,
        started=manifest.started,
        commit=manifest.commit,
        dirty=manifest.dirty,
        profile=run.profile,
        hardware=str(environment.get("hardware") or "unknown"),
        cpu=str(environment.get("cpu") or ""),
        gpu=str(environment.get("gpu") or ""),
    )


def _versions(a: _Run, b: _Run) -> dict[str, tuple[str, str]]:
    def of(run: _Run) -> dict[str, str]:
        manifest = run.recorded.manifest
        known = {str(name): str(version) for name, version in manifest.versions.items()}
        return {"Python": str(manifest.environment.get("python") or ""), **known}

    old, new = of(a), of(b)
    names = dict.fromkeys((*old, *new))
    return {n: (old.get(n, ""), new.get(n, "")) for n in names if old.get(n) != new.get(n)}


def _notes(a: Side, b: Side, run_a: _Run, run_b: _Run, metrics: Sequence[MetricDiff]) -> Iterator[str]:
    if a.profile != b.profile:
        common = any(metric.delta is not None for metric in metrics)
        what = "values differ by their settings, too" if common else "no metric in common, no value compared"
        yield f"different profiles, {a.profile} and {b.profile}: {what}"
    if a.hardware != b.hardware:
        yield f"different hardware classes, {a.hardware} and {b.hardware}: numbers and times differ by that, too"
    for name, run in (("A", run_a), ("B", run_b)):
        if run.recorded.absent:
            count = f"{len(run.recorded.absent)} of {len(run.jobs)} planned jobs"
            yield f"{name} is unfinished: {count} have no result"
    for name, run, other in (("A", run_a, run_b), ("B", run_b, run_a)):
        if run.verdicts is None and other.verdicts:
            yield f"{name} was not judged: no verdict is compared"
    if not {notebook for notebook, _ in run_a.jobs} & {notebook for notebook, _ in run_b.jobs}:
        yield "no notebook in common"


def _regressions(
    metrics: Sequence[MetricDiff], jobs: Sequence[JobDiff], not_held: Iterable[VerdictDiff]
) -> Iterator[str]:
    for metric in metrics:
        if metric.change is Change.WORSE:
            values = " → ".join(map(metric.rounded.number, (metric.a, metric.b)))
            yield f"{metric.notebook}: {metric.name} is significantly worse ({values})"
    for verdict in not_held:
        word = OUTCOMES[verdict.b].en
        yield f"{verdict.chapter}: the claim {verdict.claim} is a pass in A, {word} in B ({one_line(verdict.message)})"
    for job in jobs:
        if job.state_a in FINISHED and job.state_b is not None and job.state_b not in FINISHED:
            yield f"{job.id_b}: completed in A, {job.state_b.value.replace('_', ' ')} in B"


# -- verdicts ----------------------------------------------------------------------------------------


def _verdicts(a: _Run, b: _Run) -> Iterator[VerdictDiff]:
    for key, new in (b.verdicts or {}).items():
        old = (a.verdicts or {}).get(key)
        if old is not None and old.outcome is not new.outcome:
            yield VerdictDiff(*key, new.title, old.outcome, new.outcome, new.message)


def _not_held(verdicts: Iterable[VerdictDiff], b: _Run) -> Iterator[VerdictDiff]:
    """Those that a run's exit code counts; what a notebook that broke did not record is told of the notebook."""
    broken = {job.chapter for job in b.jobs.values() if job.state not in FINISHED}
    for verdict in verdicts:
        missing = verdict.b is Outcome.MISSING and verdict.chapter not in broken
        if verdict.a is Outcome.PASS and (verdict.b is Outcome.FAIL or missing):
            yield verdict


# -- metrics -----------------------------------------------------------------------------------------


def _metrics(a: _Run, b: _Run, book: Book | None) -> Iterator[MetricDiff]:
    """Every metric of either run, untested ones included, in the order in which they were recorded."""
    found_a, found_b = _by_name(a), _by_name(b)
    chapters = {key[0]: job.chapter for run in (a, b) for key, job in run.jobs.items() if job.chapter}
    for notebook in dict.fromkeys((*found_b, *found_a)):
        old, new = found_a.get(notebook, {}), found_b.get(notebook, {})
        claims = _claims(book, chapters.get(notebook), a, b) if old and new else {}
        for name in dict.fromkeys((*new, *old)):
            direction, apart = claims.get(name, ("", ""))
            yield compare_metric(notebook, name, old.get(name, {}), new.get(name, {}), direction, apart)


def _by_name(run: _Run) -> dict[str, dict[str, dict[int | None, Metric]]]:
    """Metrics by notebook, name and seed."""
    found: dict[str, dict[str, dict[int | None, Metric]]] = {}
    for (notebook, seed), job in run.jobs.items():
        for metric in job.metrics:
            found.setdefault(notebook, {}).setdefault(metric.name, {}).setdefault(seed, metric)
    return found


def _claims(book: Book | None, chapter: str | None, a: _Run, b: _Run) -> dict[str, tuple[str, str]]:
    """By metric, which way its claim says is better, and what keeps the runs from having measured the same."""
    if book is None or chapter is None:
        return {}
    notebook = next((path for path in book.chapters if path.stem == chapter), None)
    claims = load_claims(book.claims_dir, chapter, tuple(book.profiles), notebook)
    if claims is None:
        return {}
    set_a, set_b = (
        [
            own_values(book, chapter, run.profile) | job.parameters
            for job in run.jobs.values()
            if job.chapter == chapter
        ]
        for run in (a, b)
    )
    return {claim.name: (claim.direction, _apart(claim, set_a, set_b)) for claim in claims.claims}


def _apart(claim: Claim, a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> str:
    """The first parameter that decides what *claim* measures and has other values in B than in A; else empty."""
    for name in claim.parameters:
        old, new = (sorted({repr(job.get(name)) for job in jobs}) for jobs in (a, b))
        if old != new:
            return f"{name} = {', '.join(old)} in A, {', '.join(new)} in B"
    return ""


# -- jobs --------------------------------------------------------------------------------------------


def _pairs(a: Mapping[Key, JobResult], b: Mapping[Key, JobResult]) -> Pairs:
    """Jobs of two runs side by side, in the order of B, then what only A has.

    A notebook that cannot be read has one job without a seed; it is the counterpart of all its seeds.
    """
    pairs = {key: (a.get(key), job) for key, job in b.items()}
    for (name, seed), job in a.items():
        if (name, seed) not in b:
            whole = b.get((name, None))
            unread = whole if whole is not None and whole.state is JobState.INVALID else None
            if unread is not None:
                pairs.pop((name, None), None)
            pairs[name, seed] = (job, unread)
    return pairs


def _finished(a: JobResult | None, b: JobResult | None) -> bool:
    return a is not None and b is not None and a.state in FINISHED and b.state in FINISHED


def _compare_jobs(key: Key, a: JobResult | None, b: JobResult | None) -> JobDiff:
    finished = _finished(a, b)
    return JobDiff(
        *key,
        id_a=a and a.id,
        id_b=b and b.id,
        state_a=a and a.state,
        state_b=b and b.state,
        reason_b=b.reason if b and b.state not in FINISHED else "",
        seconds_a=a and a.seconds,
        seconds_b=b and b.seconds,
        time_ratio=_ratio(a.seconds, b.seconds) if finished else None,
        memory_a=a and a.peak_rss_mb,
        memory_b=b and b.peak_rss_mb,
        memory_ratio=_ratio(a.peak_rss_mb, b.peak_rss_mb) if finished else None,
        kept_a=a and a.cached_from,
        kept_b=b and b.cached_from,
        parameters=_parameters(a, b) if a and b else None,
    )


def _ratio(a: float | None, b: float | None) -> float | None:
    return round(b / a, 4) if a and b is not None else None


def _parameters(a: JobResult, b: JobResult) -> dict[str, tuple[Any, Any]]:
    names = [n for n in dict.fromkeys((*a.parameters, *b.parameters)) if n not in SET_BY_HARNESS]
    values = {n: (a.parameters.get(n), b.parameters.get(n)) for n in names}
    return {name: pair for name, pair in values.items() if pair[0] != pair[1]}


# -- cells -------------------------------------------------------------------------------------------


def _outputs(pairs: Pairs, run_a: _Run, run_b: _Run) -> tuple[OutputDiff, ...]:
    """Cells whose outputs changed, those of several seeds together; also of jobs that did not end well."""
    found: dict[tuple[str, int, bool], list[tuple[int | None, CellChange]]] = {}
    for (notebook, seed), (a, b) in pairs.items():
        if a is None or b is None:
            continue
        places = (run_a.executed(a), run_b.executed(b))
        if {a.state, b.state} - FINISHED and not all(path.is_file() for path in places):
            continue  # one of them never started
        for change in changed_cells(*places, a.cells, b.cells):
            place = (notebook, change.index, "only in A" in change.what)
            found.setdefault(place, []).append((seed, change))
    return tuple(
        OutputDiff(notebook, tuple(seed for seed, _ in changes), changes[0][1])
        for (notebook, *_), changes in found.items()
    )


def _slower(pairs: Pairs) -> tuple[SlowerCell, ...]:
    """Cells that got slower, those with the most seconds more first."""
    times: dict[tuple[str, int], list[tuple[float, float]]] = {}  # by notebook and position
    cells: dict[tuple[str, int], CellResult] = {}
    kept = {
        notebook
        for (notebook, _), (a, b) in pairs.items()
        if _finished(a, b) and (a.cached_from or b.cached_from)
    }
    for (notebook, _), (a, b) in pairs.items():
        for old, new in counterparts(a.cells, b.cells) if _finished(a, b) else ():
            if old.seconds is not None and new.seconds is not None:
                times.setdefault((notebook, new.index), []).append((old.seconds, new.seconds))
                cells[notebook, new.index] = new
    found = []
    for (notebook, index), seconds in times.items():
        before, now = (mean(column) for column in zip(*seconds, strict=True))
        if now > before * SLOWER_RATIO and now - before > SLOWER_SECONDS:
            cell = cells[notebook, index]
            took = round(before, 3), round(now, 3), _ratio(before, now)
            found.append(
                SlowerCell(notebook, cell.id, index, cell.code, *took, len(seconds), notebook in kept)
            )
    return tuple(sorted(found, key=lambda cell: cell.seconds_a - cell.seconds_b))
