"""Execute a plan: what is cached is taken over, the rest runs side by side; an orderly end when interrupted."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import cache
from harness.config import HEAVY, Book
from harness.environment import environment, git_state, hardware_class
from harness.errors import HarnessError, InfrastructureError
from harness.execution import Place, run_job, unrun_result
from harness.forkserver import ForkServer
from harness.model import SCHEMA, Job, JobResult, JobState, to_json
from harness.plan import Planned
from harness.process import is_linux
from harness.schedule import Machine, Schedule, needs
from harness.shard import Shard
from harness.store import EventLog, hold, write_json
from harness.variables import common_environment
from harness.warmth import modules_to_import, reason_for_cold

Listener = Callable[[Mapping[str, Any]], None]

SEQUENTIAL = Machine(jobs=1, threads=None, memory_mb=float("inf"))
"""One job after another."""


@dataclass(frozen=True)
class RunOutcome:
    """What a run left behind."""

    manifest: Mapping[str, Any]
    results: list[JobResult]
    seconds: float
    interrupted: bool  # not every job had its turn: stopped by a signal or by trouble
    trouble: str = ""  # of the machine, one line: something could not be saved


def make_manifest(
    run_dir: Path,
    book: Book | None,
    planned: Sequence[Planned],
    command: Sequence[str],
    shard: Shard | None = None,
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
        **({"shard": to_json(shard)} if shard else {}),
    }


def execute(
    planned: Sequence[Planned],
    run_dir: Path,
    *,
    book: Book | None,
    command: Sequence[str],
    use_cache: bool = True,
    warm: bool = True,
    machine: Machine | None = None,
    variables: Sequence[str] = (),
    progress: Listener = lambda event: None,
    cancel: threading.Event | None = None,
    shard: Shard | None = None,
) -> RunOutcome:
    """Run every job of the plan in *run_dir* and return all results, in the order of the plan.

    Once *cancel* is set, the running jobs and the rest are cancelled; their results are written all the same.
    A disk that is full cancels the rest, too: they could not be saved either.

    Args:
        warm: fork kernels from a process with the heavy imports where that gives the same results.
        machine: how many jobs may run at once, and with what; one at a time by default.
        variables: names of environment variables that kernels get beside the usual ones.
        shard: stands in the manifest where the plan is a part of a run.

    Raises:
        KeyboardInterrupt: *cancel* was set before anything was written.
        HarnessError: another run is at work in *run_dir*.
    """
    clock = time.monotonic()
    cancel = cancel or threading.Event()
    manifest = make_manifest(run_dir, book, planned, command, shard)
    if cancel.is_set():
        raise KeyboardInterrupt
    with hold(run_dir):
        write_json(run_dir / "manifest.json", manifest)
        with closing(EventLog(run_dir / "events.jsonl", progress)) as events:
            events({"event": "run_start", "run": run_dir.name, "jobs": len(planned)})
            room = _Room(book, run_dir, events, cancel, use_cache, warm, machine or SEQUENTIAL, variables)
            results = room.run_all(planned)
            stopped = cancel.is_set() or bool(room.trouble)
            events({"event": "run_end", "interrupted": stopped, "trouble": room.trouble})
            return RunOutcome(manifest, results, time.monotonic() - clock, stopped, room.trouble)


@dataclass
class _Room:
    """What all jobs of one run share. ``run`` may be called from several threads."""

    book: Book | None
    run_dir: Path
    events: EventLog
    cancel: threading.Event
    use_cache: bool
    warm: bool
    machine: Machine
    variables: Sequence[str]
    _trouble: str = ""

    def run_all(self, planned: Sequence[Planned]) -> list[JobResult]:
        """All jobs to their ends: first those that need no kernel, then the rest side by side."""
        planned = [replace(entry, job=replace(entry.job, key=self._key(entry))) for entry in planned]
        results = {entry.job.id: self._settled(entry) for entry in planned}
        rest = [entry for entry in planned if results[entry.job.id] is None]
        if rest:
            known = needs(self.book.root if self.book else Path.cwd(), [entry.job for entry in rest])
            schedule = Schedule(self.machine, rest, lambda entry: known[entry.job.id], self._is_over)
            with self._server(rest) as server:
                done = schedule.run(lambda entry, gpu: self.run(entry, self._place(entry, server, gpu)))
            results |= {entry.job.id: result for entry, result in zip(rest, done, strict=True)}
        return [results[entry.job.id] for entry in planned]

    def _is_over(self) -> bool:
        return self.cancel.is_set() or bool(self.trouble)

    def _settled(self, entry: Planned) -> JobResult | None:
        """The result of a job that cannot run or need not; None if it has to."""
        if entry.problem:
            return self._unrun(entry, JobState.INVALID, entry.problem)
        if entry.job.key and self.use_cache and not self._is_over():
            return self._cached(entry.job, self._folder(entry))
        return None

    @contextmanager
    def _server(self, entries: Sequence[Planned]) -> Iterator[ForkServer | None]:
        """A fork server with what the notebooks of *entries* import; None where warm kernels are off."""
        if not self.warm or self._is_over():
            yield None
            return
        notebooks = [entry.notebook for entry in entries if entry.notebook]
        heavy = self.book.warm if self.book else HEAVY
        modules = modules_to_import(notebooks, *self._local(), heavy)
        common = self._environment(entries[0].job)
        server = ForkServer(common, modules, self.run_dir / "forkserver.log")
        try:
            started = server.start()
            if not started and is_linux():
                message = f"warm kernels are off: {server.trouble}"
                self.emit({"event": "warning", "message": message})
            yield server if started else None
        finally:
            server.close()

    def _environment(self, job: Job) -> dict[str, str]:
        return common_environment(job, patterns=self.variables, threads=self.machine.threads)

    def _place(self, entry: Planned, server: ForkServer | None, gpu: str | None) -> Place:
        warm = False
        if server is not None and entry.notebook is not None:
            reason = reason_for_cold(entry.notebook, server.loaded, *self._local())
            self.events({"event": "kernel", "job": entry.job.id, "warm": not reason, "reason": reason})
            warm = not reason
        return Place(self._environment(entry.job), server, warm, gpu)

    def _local(self) -> tuple[Path | None, tuple[str, ...]]:
        """Root and packages of the book, where there is one."""
        return (self.book.root, self.book.packages) if self.book else (None, ())

    def _folder(self, entry: Planned) -> Path:
        return self.run_dir / "jobs" / entry.job.id

    @property
    def trouble(self) -> str:
        """The first thing that could not be saved; nothing more is started after it."""
        return self._trouble or self.events.trouble

    def emit(self, event: Mapping[str, Any]) -> None:
        """Write and show an event; remember the first one of trouble."""
        if event["event"] == "trouble":
            self._trouble = self._trouble or event["message"]
        self.events(event)

    def run(self, entry: Planned, place: Place) -> JobResult:
        """One job to its end, whatever that is."""
        job = entry.job
        if self.cancel.is_set():
            return self._unrun(entry, JobState.CANCELLED, "the run was interrupted before it started")
        if self.trouble:
            return self._unrun(entry, JobState.CANCELLED, f"not started: {self.trouble}")
        try:
            return self._run(job, self._folder(entry), place)
        except InfrastructureError as error:
            self.emit({"event": "trouble", "job": job.id, "message": f"{job.id}: {error}"})
            return self._unrun(entry, JobState.CANCELLED, f"could not start: {error}")

    def _run(self, job: Job, folder: Path, place: Place) -> JobResult:
        shown = shown_path(job.notebook, self.book)
        result = run_job(job, folder, emit=self.emit, cancel=self.cancel, shown=shown, place=place)
        if job.key and self.book and result.state is JobState.COMPLETED:
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
            return cache.job_key(
                entry.job, entry.notebook, self.book.root, self.book.packages, hardware, self.variables
            )
        except OSError as error:
            what = f"cannot read {error.filename}: {error.strerror}" if error.filename else str(error)
            self._warn(entry.job, f"{what}; it runs without the cache")
            return ""

    def _cached(self, job: Job, folder: Path) -> JobResult | None:
        assert self.book is not None
        try:
            entry = cache.find(self.book.root, job.key)
        except (HarnessError, OSError) as error:
            self._warn(job, str(error))
            return None
        if entry is None:
            return None
        result = cache.restore(entry, job, folder, shown_path(job.notebook, self.book))
        write_json(folder / "job.json", {"schema": SCHEMA, **to_json(job)})
        write_json(folder / "result.json", {"schema": SCHEMA, **to_json(result)})
        self._ended(result)
        return result

    def _unrun(self, entry: Planned, state: JobState, reason: str) -> JobResult:
        shown = shown_path(entry.job.notebook, self.book)
        result = unrun_result(entry.job, self._folder(entry), state, reason, shown, self.emit)
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
