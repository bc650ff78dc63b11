"""Two runs side by side: what they measured, how long and how much it took, what their cells put out.

Everything here is a pure function of two run folders (and, for the direction of a metric, the book's claim
files). :mod:`harness.report.diff_text` shows the result, :func:`harness.model.to_json` makes it plain JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.archive.recorded import read_manifest
from harness.book.claims import load_claims
from harness.errors import HarnessError
from harness.judge.check import own_values
from harness.judge.diff_jobs import (
    JobDiff,
    Pairs,
    Run,
    SlowerCell,
    compare_job,
    key_of,
    pairs_of,
    read_jobs,
    slower_cells,
)
from harness.judge.diff_metrics import BySeed, Change, MetricDiff, compare_metric, judge_together
from harness.judge.diff_outputs import CellChange, changed_cells
from harness.model import FINISHED, Claim

if TYPE_CHECKING:
    from harness.book.config import Book

SCHEMA = 1
"""Version of the JSON form of :class:`RunDiff`."""


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
class OutputDiff:
    """One cell whose outputs changed; the excerpt is of the first of *seeds*."""

    notebook: str
    seeds: tuple[int | None, ...]
    cell: CellChange


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
    jobs: tuple[JobDiff, ...]
    slower: tuple[SlowerCell, ...]  # the worst first
    outputs: tuple[OutputDiff, ...]
    regressions: tuple[str, ...]  # one line each: what is significantly worse or does not complete any more


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
    chapters = book.chapters if book else ()
    run_a, run_b = read_jobs(a, chapters), read_jobs(b, chapters)
    pairs = pairs_of(run_a, run_b)
    metrics = judge_together(list(_metrics(run_a, run_b, book)))
    jobs = tuple(compare_job(key, *pair) for key, pair in pairs.items())
    side_a, side_b = _side(run_a), _side(run_b)
    return RunDiff(
        SCHEMA,
        side_a,
        side_b,
        _versions(run_a, run_b),
        tuple(_notes(side_a, side_b, run_a, run_b, metrics)),
        tuple(metrics),
        sum(metric.p_value is not None for metric in metrics),
        jobs,
        slower_cells(pairs, run_b),
        _outputs(pairs, run_a, run_b),
        tuple(_regressions(metrics, jobs)),
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


def _side(run: Run) -> Side:
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


def _versions(a: Run, b: Run) -> dict[str, tuple[str, str]]:
    def of(run: Run) -> dict[str, str]:
        manifest = run.recorded.manifest
        known = {str(k): str(v) for k, v in manifest.versions.items()}
        return {"Python": str(manifest.environment.get("python") or ""), **known}

    old, new = of(a), of(b)
    names = dict.fromkeys((*old, *new))
    return {n: (old.get(n, ""), new.get(n, "")) for n in names if old.get(n) != new.get(n)}


def _notes(a: Side, b: Side, run_a: Run, run_b: Run, metrics: Sequence[MetricDiff]) -> Iterator[str]:
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
    if not {name for name, _ in run_a.jobs} & {name for name, _ in run_b.jobs}:
        yield "no notebook in common"


def _metrics(a: Run, b: Run, book: Book | None) -> Iterator[MetricDiff]:
    """Every metric of either run, untested ones included, in the order in which they were recorded."""
    found_a, found_b = _by_name(a), _by_name(b)
    jobs = [(key_of(job, run.profile)[0], job) for run in (a, b) for job in run.jobs.values()]
    chapters = {notebook: job.chapter for notebook, job in jobs if job.chapter}
    for notebook in dict.fromkeys((*found_b, *found_a)):
        old, new = found_a.get(notebook, {}), found_b.get(notebook, {})
        claims = _claims(book, chapters.get(notebook), a, b) if old and new else {}
        for name in dict.fromkeys((*new, *old)):
            direction, apart = claims.get(name, ("", ""))
            yield compare_metric(notebook, name, old.get(name, {}), new.get(name, {}), direction, apart)


def _by_name(run: Run) -> dict[str, dict[str, BySeed]]:
    """Metrics by notebook, name and seed."""
    found: dict[str, dict[str, dict[int | None, Any]]] = {}
    for (notebook, seed), job in run.jobs.items():
        for metric in job.metrics:
            found.setdefault(notebook, {}).setdefault(metric.name, {}).setdefault(seed, metric)
    return found  # type: ignore[return-value]


def _claims(book: Book | None, chapter: str | None, a: Run, b: Run) -> dict[str, tuple[str, str]]:
    """By metric, which way its claim says is better, and what keeps the runs from having measured the same."""
    notebook = next((c for c in book.chapters if c.stem == chapter), None) if book else None
    claims = (
        load_claims(book.claims_dir, chapter, tuple(book.profiles), notebook) if book and chapter else None
    )
    if book is None or claims is None:
        return {}
    ways = [_values(book, chapter, run) for run in (a, b)]
    return {claim.name: (claim.direction, _apart(claim, *ways)) for claim in claims.claims}


def _values(book: Book, chapter: str | None, run: Run) -> list[dict[str, Any]]:
    """The parameters of each job of *chapter*, those that were not set, too."""
    own = own_values(book, chapter, run.profile)
    return [{**own, **job.parameters} for job in run.jobs.values() if job.chapter == chapter]


def _apart(claim: Claim, a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> str:
    """The first parameter that decides what *claim* measures and has other values in B than in A; else empty."""
    for name in claim.parameters:
        old, new = (sorted({repr(job.get(name)) for job in jobs}) for jobs in (a, b))
        if old != new:
            return f"{name} = {', '.join(old)} in A, {', '.join(new)} in B"
    return ""


def _outputs(pairs: Pairs, run_a: Run, run_b: Run) -> tuple[OutputDiff, ...]:
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


def _regressions(metrics: Sequence[MetricDiff], jobs: Sequence[JobDiff]) -> Iterator[str]:
    for metric in metrics:
        if metric.change is Change.WORSE:
            yield f"{metric.notebook}: {metric.name} is significantly worse ({metric.a:.6g} → {metric.b:.6g})"
    for job in jobs:
        if job.state_a in FINISHED and job.state_b is not None and job.state_b not in FINISHED:
            yield f"{job.id_b}: completed in A, {job.state_b.value.replace('_', ' ')} in B"
