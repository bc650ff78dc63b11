"""Execute a plan: jobs one after another, events, the cache, and an orderly end when interrupted."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import cache
from harness.config import Book
from harness.environment import environment, git_state, hardware_class
from harness.errors import HarnessError, InfrastructureError
from harness.execution import run_job, unrun_result
from harness.model import SCHEMA, Job, JobResult, JobState, to_json
from harness.plan import Planned
from harness.store import EventLog, write_json

Listener = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class RunOutcome:
    """What a run left behind."""

    manifest: Mapping[str, Any]
    results: list[JobResult]
    seconds: float
    interrupted: bool  # not every job had its turn: stopped by a signal or by trouble
    trouble: str = ""  # of the machine, one line: something could not be saved


def make_manifest(
    run_dir: Path, book: Book | None, planned: Sequence[Planned], command: Sequence[str]
) -> dict[str, Any]:
    """What is written before the first job starts, so that a run that dies can be told."""
    commit, dirty = git_state(book.root if book else Path.cwd())
    first = planned[0].job
    return {
        "schema": SCHEMA,
        "run": run_dir.name,
        "command": list(command),
        "profile": first.profile,
        "device": first.device,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": dirty,
        "environment": environment(first.device),
        "jobs": [p.job.id for p in planned],
    }


def execute(
    planned: Sequence[Planned],
    run_dir: Path,
    *,
    book: Book | None,
    command: Sequence[str],
    use_cache: bool = True,
    progress: Listener = lambda event: None,
    cancel: threading.Event | None = None,
) -> RunOutcome:
    """Run every job of the plan in *run_dir* and return all results, in the order of the plan.

    Once *cancel* is set, the running job and the rest are cancelled; their results are written all the same.
    A disk that is full cancels the rest, too: they could not be saved either.

    Raises:
        KeyboardInterrupt: *cancel* was set before anything was written.
    """
    clock = time.monotonic()
    cancel = cancel or threading.Event()
    manifest = make_manifest(run_dir, book, planned, command)
    if cancel.is_set():
        raise KeyboardInterrupt
    write_json(run_dir / "manifest.json", manifest)
    events = EventLog(run_dir / "events.jsonl", progress)
    results: list[JobResult] = []
    try:
        events({"event": "run_start", "run": run_dir.name, "jobs": len(planned)})
        room = _Room(book, run_dir, events, cancel, use_cache)
        for entry in planned:
            results.append(room.run(entry))
        stopped = cancel.is_set() or bool(room.trouble)
        events({"event": "run_end", "interrupted": stopped, "trouble": room.trouble})
        return RunOutcome(manifest, results, time.monotonic() - clock, stopped, room.trouble)
    finally:
        events.close()


@dataclass
class _Room:
    """What all jobs of one run share. ``run`` may be called from several threads."""

    book: Book | None
    run_dir: Path
    events: EventLog
    cancel: threading.Event
    use_cache: bool
    _trouble: str = ""

    @property
    def trouble(self) -> str:
        """The first thing that could not be saved; nothing more is started after it."""
        return self._trouble or self.events.trouble

    def emit(self, event: Mapping[str, Any]) -> None:
        """Write and show an event; remember the first one of trouble."""
        if event["event"] == "trouble":
            self._trouble = self._trouble or event["message"]
        self.events(event)

    def run(self, entry: Planned) -> JobResult:
        """One job to its end, whatever that is."""
        job, folder = entry.job, self.run_dir / "jobs" / entry.job.id
        shown = shown_path(job.notebook, self.book)
        if entry.problem:
            return self._unrun(entry, folder, JobState.INVALID, entry.problem)
        if self.cancel.is_set():
            return self._unrun(entry, folder, JobState.CANCELLED, "the run was interrupted before it started")
        if self.trouble:
            return self._unrun(entry, folder, JobState.CANCELLED, f"not started: {self.trouble}")
        try:
            return self._run(entry, folder, shown)
        except InfrastructureError as error:
            self.emit({"event": "trouble", "job": job.id, "message": f"{job.id}: {error}"})
            return self._unrun(entry, folder, JobState.CANCELLED, f"could not start: {error}")

    def _run(self, entry: Planned, folder: Path, shown: str) -> JobResult:
        job = entry.job
        cacheable = self._key(entry)
        if cacheable:
            job = replace(job, key=cacheable)
            if self.use_cache and (kept := self._cached(job, folder, shown)) is not None:
                return kept
        result = run_job(job, folder, emit=self.emit, cancel=self.cancel, shown=shown)
        if cacheable and self.book and result.state is JobState.COMPLETED:
            try:
                cache.keep(self.book.root, job, folder, self.run_dir.name)
            except InfrastructureError as error:  # the run is whole without it
                self._warn(job, f"not kept for the next run: {error}")
        return result

    def _warn(self, job: Job, message: str) -> None:
        self.emit({"event": "warning", "job": job.id, "message": f"{job.id}: {message}"})

    def _key(self, entry: Planned) -> str:
        """The cache key of a chapter; empty where there is none.

        Notebooks outside the book may depend on anything, so they always run; so does a chapter with a file
        that cannot be read: what that means for it, its cells say.
        """
        if self.book is None or entry.job.chapter is None or entry.notebook is None:
            return ""
        hardware = hardware_class(entry.job.device)
        try:
            return cache.job_key(entry.job, entry.notebook, self.book.root, self.book.packages, hardware)
        except OSError as error:
            what = f"cannot read {error.filename}: {error.strerror}" if error.filename else str(error)
            self._warn(entry.job, f"{what}; it runs without the cache")
            return ""

    def _cached(self, job: Job, folder: Path, shown: str) -> JobResult | None:
        assert self.book is not None
        try:
            entry = cache.find(self.book.root, job.key)
        except (HarnessError, OSError) as error:
            self._warn(job, str(error))
            return None
        if entry is None:
            return None
        result = cache.restore(entry, job, folder, shown)
        write_json(folder / "job.json", {"schema": SCHEMA, **to_json(job)})
        write_json(folder / "result.json", {"schema": SCHEMA, **to_json(result)})
        self._ended(result)
        return result

    def _unrun(self, entry: Planned, folder: Path, state: JobState, reason: str) -> JobResult:
        shown = shown_path(entry.job.notebook, self.book)
        result = unrun_result(entry.job, folder, state, reason, shown, self.emit)
        self._ended(result)
        return result

    def _ended(self, result: JobResult) -> None:
        self.events({"event": "job_end", "job": result.id, "state": result.state, "reason": result.reason,
                     "seconds": result.seconds, "metrics": len(result.metrics)})  # fmt: skip


def shown_path(notebook: Path, book: Book | None) -> str:
    """Relative to the book where it lies inside it, else as it is; always with forward slashes."""
    if book is not None:
        relative = os.path.relpath(notebook.resolve(), book.root.resolve())
        if not relative.startswith(".."):
            return Path(relative).as_posix()
    return notebook.as_posix()
