"""The jobs of two runs side by side: how they ended, what they took, which of their cells got slower."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.archive.recorded import RecordedRun, read_run
from harness.book.parameters import SET_BY_HARNESS
from harness.judge.diff_outputs import counterparts, first_code_lines
from harness.judge.statistics import mean
from harness.model import FINISHED, JobResult, JobState

SLOWER_RATIO = 1.2
SLOWER_SECONDS = 0.5
"""A cell got slower if it took more than SLOWER_RATIO times as long and SLOWER_SECONDS longer."""


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
    code: str  # its first line of code
    seconds_a: float
    seconds_b: float
    ratio: float | None  # None where A took no time at all
    jobs: int  # pairs of jobs behind the means
    kept: bool  # some of the times are those of an earlier run


@dataclass(frozen=True)
class Run:
    """A run folder that was read, with its jobs by notebook and seed."""

    folder: Path
    recorded: RecordedRun
    jobs: Mapping[tuple[str, int | None], JobResult]

    @property
    def profile(self) -> str:
        return self.recorded.manifest.profile

    def executed(self, job: JobResult) -> Path:
        """Where the executed notebook of *job* is."""
        return self.folder / "jobs" / job.id / "out.ipynb"


def read_jobs(folder: Path, chapters: Iterable[Path] = ()) -> Run:
    """Read the run in *folder*; *chapters* of the book as in :func:`harness.archive.recorded.read_run`."""
    recorded = read_run(folder, chapters)
    profile = recorded.manifest.profile
    return Run(folder, recorded, {key_of(job, profile): job for job in recorded.results})


def key_of(job: JobResult, profile: str) -> tuple[str, int | None]:
    """Notebook and seed as the job's id tells them: its path may differ from checkout to checkout."""
    found = re.fullmatch(rf"(.+)-{re.escape(profile)}(?:-seed(-?\d{{1,18}}))?(-\d+)?", job.id)
    if found is None:
        return job.id, job.seed
    stem, seed, number = found.groups()
    return stem + (f" ({number[1:]})" if number else ""), None if seed is None else int(seed)


Pairs = Mapping[tuple[str, int | None], tuple[JobResult | None, JobResult | None]]


def pairs_of(a: Run, b: Run) -> Pairs:
    """The jobs of both runs side by side, in the order of B, then what only A has.

    A notebook that cannot be read has one job without a seed; it is the counterpart of all its seeds.
    """
    only_a = [key for key in a.jobs if key not in b.jobs]
    pairs = {key: (a.jobs.get(key), job) for key, job in b.jobs.items()}
    for name, seed in only_a:
        whole = b.jobs.get((name, None))
        if whole is not None and whole.state is JobState.INVALID:
            pairs.pop((name, None), None)
        else:
            whole = None
        pairs[name, seed] = (a.jobs[name, seed], whole)
    return pairs


def _finished(a: JobResult | None, b: JobResult | None) -> bool:
    return a is not None and b is not None and a.state in FINISHED and b.state in FINISHED


def compare_job(key: tuple[str, int | None], a: JobResult | None, b: JobResult | None) -> JobDiff:
    """One pair of jobs side by side."""
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


def slower_cells(pairs: Pairs, b: Run) -> tuple[SlowerCell, ...]:
    """Cells that got slower from one run to run *b*, those with the most seconds more first."""
    times: dict[tuple[str, int], list[tuple[float, float]]] = {}  # by notebook and position
    last: dict[tuple[str, int], tuple[JobResult, str]] = {}
    kept: set[str] = set()
    for (notebook, _), (old, new) in pairs.items():
        if not _finished(old, new):
            continue
        if old.cached_from or new.cached_from:
            kept.add(notebook)
        partners = counterparts(old.cells, new.cells)
        before = {partners.get(cell.index, -1): cell.seconds for cell in old.cells}
        for cell in new.cells:
            seconds = before.get(cell.index)
            if seconds is not None and cell.seconds is not None:
                times.setdefault((notebook, cell.index), []).append((seconds, cell.seconds))
                last[notebook, cell.index] = (new, cell.id)
    lines: dict[str, dict[int, str]] = {}
    found = []
    for (notebook, index), seconds in times.items():
        took_a, took_b = (mean(column) for column in zip(*seconds, strict=True))
        if took_b <= took_a * SLOWER_RATIO or took_b - took_a <= SLOWER_SECONDS:
            continue
        job, identity = last[notebook, index]
        if job.id not in lines:
            lines[job.id] = first_code_lines(b.executed(job), job.cells)
        found.append(
            SlowerCell(
                notebook,
                identity,
                index,
                lines[job.id].get(index, ""),
                round(took_a, 3),
                round(took_b, 3),
                _ratio(took_a, took_b),
                len(seconds),
                notebook in kept,
            )
        )
    return tuple(sorted(found, key=lambda cell: cell.seconds_a - cell.seconds_b))
