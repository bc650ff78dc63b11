"""Execute a plan: what is cached is taken over, the rest runs side by side; an orderly end when interrupted."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.archive.environment import environment, git_state, hardware_class
from harness.archive.folder import EventLog
from harness.archive.nodes import difference, sites_of, with_nodes
from harness.archive.recorded import Manifest, read_run
from harness.archive.shard import Shard
from harness.archive.speed import Speed, find_speed
from harness.book.config import CONFIG_NAME, Book
from harness.book.plan import Planned
from harness.errors import HarnessError, InfrastructureError
from harness.execute import cache
from harness.execute.executor import Executor, LocalExecutor, RunJob, Setting
from harness.execute.kernel.job import end_event, unrun_result
from harness.execute.kernel.opened import NOTES
from harness.execute.reads import Named, Unsettled, named_by, own_files, settle, still_holds, write_reads
from harness.execute.resume import Asked, digest, finished
from harness.execute.schedule import Machine
from harness.files import write_json
from harness.model import SCHEMA, Job, JobResult, JobState, to_json

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
    asked: Asked | None = None,
    shard: Shard | None = None,
) -> dict[str, Any]:
    """What is written before the first job starts, so that a run that dies can be told."""
    commit, dirty = git_state(book.root if book else Path.cwd())
    first = planned[0].job
    manifest = {
        "schema": SCHEMA,
        "run": run_dir.name,
        "command": list(command),
        "profile": first.profile,
        "device": first.device,
        "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "commit": commit,
        "dirty": dirty,
        "environment": environment(first.device),
        "asked": to_json(asked) if asked else None,
        "jobs": [p.job.id for p in planned],
    }
    return {**manifest, "shard": to_json(shard)} if shard else manifest


def continue_manifest(before: Manifest, now: Mapping[str, Any], kept: int) -> dict[str, Any]:
    """The manifest of a run that goes on: its start stays; what is no longer as it was then is told."""
    here = {"time": now["started"], "commit": now["commit"], "dirty": now["dirty"], "kept": kept}
    mixed = before.commit != now["commit"]
    return {
        **now,
        "started": before.started,
        "dirty": bool(now["dirty"] or before.dirty or mixed),
        "resumed": [*before.resumed, here],
    }


def execute(
    planned: Sequence[Planned],
    run_dir: Path,
    *,
    book: Book | None,
    command: Sequence[str],
    use_cache: bool = True,
    machine: Machine | None = None,
    asked: Asked | None = None,
    resume: bool = False,
    progress: Listener = lambda event: None,
    cancel: threading.Event | None = None,
    shard: Shard | None = None,
    executor: Executor | None = None,
) -> RunOutcome:
    """Run every job of the plan in *run_dir* and return all results, in the order of the plan.

    Once *cancel* is set, the running jobs and the rest are cancelled; their results are written all the same.
    A disk that is full cancels the rest, too: they could not be saved either.

    Args:
        machine: how many jobs may run at once, and with what; one at a time by default.
        asked: what the run was asked for, where that is known; stands in the manifest, for ``run --resume``.
        resume: go on with the run that *run_dir* holds: what completed and did not change since stands.
        shard: stands in the manifest where the plan is a part of a run.
        executor: in place of this machine; *machine* then counts for nothing.

    Raises:
        KeyboardInterrupt: *cancel* was set before anything was written.
    """
    clock = time.monotonic()
    cancel = cancel or threading.Event()
    manifest = make_manifest(run_dir, book, planned, command, asked, shard)
    before = read_run(run_dir, book.chapters if book else ()) if resume else None
    variables = (*(book.environment if book else ()), *(asked.variables if asked else ()))
    if cancel.is_set():
        raise KeyboardInterrupt
    if before is None:
        write_json(run_dir / "manifest.json", manifest)
    events = EventLog(run_dir / "events.jsonl", progress)
    try:
        events({"event": "run_start", "run": run_dir.name, "jobs": len(planned), "resume": resume})
        executor, here = executor or LocalExecutor(machine or SEQUENTIAL), manifest["environment"]
        room = _Room(book, run_dir, events, cancel, use_cache, executor, variables, here)
        planned = [replace(entry, job=replace(entry.job, key=room.key(entry))) for entry in planned]
        if before is not None:
            room.kept = {
                name: result
                for name, result in finished(before, planned).items()
                if still_holds(run_dir / "jobs" / name, root_of(result.notebook, book))
            }
            manifest = continue_manifest(before.manifest, manifest, len(room.kept))
        manifest["digests"] = {entry.job.id: digest(entry) for entry in planned}
        write_json(run_dir / "manifest.json", manifest)
        results = room.run_all(planned)
        if room.speed is not None:
            manifest["environment"] = here = {**here, "speed": to_json(room.speed)}
            write_json(run_dir / "manifest.json", manifest)
        earlier = sites_of(before.manifest, room.kept) if before else {}
        if sites := {**earlier, **executor.sites}:
            manifest = with_nodes(manifest, here, sites)
            write_json(run_dir / "manifest.json", manifest)
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
    executor: Executor
    variables: Sequence[str]
    here: Mapping[str, Any]  # the environment of this machine
    kept: Mapping[str, JobResult] = field(default_factory=dict)  # by job id: of an earlier start, which stand
    speed: Speed | None = None  # of this machine, once a job is to run on it
    began: int = field(default_factory=time.time_ns)
    _trouble: str = ""
    _unseen: dict[str, dict[str, None]] = field(default_factory=dict)  # of cached results, by chapter
    _unlike: set[str] = field(default_factory=set)  # differences of nodes that were told

    def run_all(self, planned: Sequence[Planned]) -> list[JobResult]:
        """All jobs to their ends: first those that need no kernel, then the rest side by side."""
        self._tell_unmatched({entry.job.chapter for entry in planned})
        results = {entry.job.id: self._settled(entry) for entry in planned}
        self._tell_unseen()
        rest = [entry for entry in planned if results[entry.job.id] is None]
        if rest:
            if isinstance(self.executor, LocalExecutor) and not self._is_over():
                self.speed = self._find_speed(self.executor.machine, rest[0].job)
            setting = Setting(self.book, self.run_dir, self.variables, self.emit, self.cancel, self._is_over)
            done = self.executor.run_all(rest, setting, self.run)
            results |= {entry.job.id: result for entry, result in zip(rest, done, strict=True)}
        return [results[entry.job.id] for entry in planned]

    def _find_speed(self, machine: Machine, job: Job) -> Speed:
        speed = find_speed(self.book.speed if self.book else None, job.device, machine.threads)
        self.emit({"event": "speed", "usual": speed.factor == 1, "message": str(speed)})
        return speed

    def _is_over(self) -> bool:
        return self.cancel.is_set() or bool(self.trouble)

    def _settled(self, entry: Planned) -> JobResult | None:
        """The result of a job that cannot run or need not; None if it has to."""
        if entry.problem:
            return self._unrun(entry, JobState.INVALID, entry.problem)
        if (kept := self.kept.get(entry.job.id)) is not None:
            self._ended(kept)
            return kept
        if entry.job.key and self.use_cache and not self._is_over():
            return self._cached(entry.job, self._folder(entry))
        return None

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

    def run(self, entry: Planned, run_job: RunJob) -> JobResult:
        """One job to its end, whatever that is."""
        job = entry.job
        if self.cancel.is_set():
            return self._unrun(entry, JobState.CANCELLED, "the run was interrupted before it started")
        if self.trouble:
            return self._unrun(entry, JobState.CANCELLED, f"not started: {self.trouble}")
        try:
            return self._run(entry, self._folder(entry), run_job)
        except InfrastructureError as error:
            self.emit({"event": "trouble", "job": job.id, "message": f"{job.id}: {error}"})
            return self._unrun(entry, JobState.CANCELLED, f"could not start: {error}")

    def _run(self, entry: Planned, folder: Path, run_job: RunJob) -> JobResult:
        parts = self.key_parts(entry) if entry.job.key else {}  # files may have changed since the run began
        job = replace(entry.job, key=cache.key_of(parts) if parts else "")
        if self.speed is not None:
            job = replace(job, limits=self.speed.adapt(job.limits))
        named = self._named(entry)
        result = run_job(job, folder, shown_path(job.notebook, self.book))
        if result.state is JobState.COMPLETED:
            try:
                self._keep(entry, job, parts, folder, named)
            except (InfrastructureError, Unsettled) as error:  # the run is whole without it
                if parts:
                    self._warn(job, f"not kept for the next run: {error}")
        with suppress(OSError):
            (folder / NOTES).unlink(missing_ok=True)
        return result

    def _named(self, entry: Planned) -> Named:
        """What the text of a notebook names, as it is before the notebook runs."""
        assert entry.notebook is not None
        book, job = self.book, entry.job
        try:
            data = book.data_files(job.chapter) if book and job.chapter else ()
            return named_by(entry.notebook, book.root if book else None, book.packages if book else (), data)
        except OSError:  # its key could not be made either
            return Named()

    def _keep(self, entry: Planned, job: Job, parts: Mapping[str, Any], folder: Path, named: Named) -> None:
        """Write down what a completed job read, and keep it for the next run if it has a key.

        Raises:
            Unsettled: what it read is no longer that; it stands in this run alone.
            InfrastructureError: there is no room for it.
        """
        site, own = self.executor.sites.get(job.id), own_files(folder)
        noted = entry.notebook is not None and entry.notebook.language == "python"
        root = root_of(job.notebook, self.book)
        reads = settle(folder, root, named, noted=noted, packed=self.began if site else None)
        now = self.key_parts(entry) if parts else parts
        if {**now, "files": _without(now, root, own)} != {**parts, "files": _without(parts, root, own)}:
            raise Unsettled("files that it depends on changed while it ran")
        write_reads(folder, reads)
        if now and self.book and self._stands_here(job):
            cache.keep(self.book.root, replace(job, key=cache.key_of(now)), now, folder, self.run_dir.name)

    def _stands_here(self, job: Job) -> bool:
        """Whether the job ran on what its key says: this machine, or a node like it."""
        site = self.executor.sites.get(job.id)
        unlike = difference(site, self.here) if site else ""
        if unlike and unlike not in self._unlike:
            self._unlike.add(unlike)
            self._warn(job, f"not kept for the next run: {unlike}")
        return not unlike

    def _warn(self, job: Job, message: str) -> None:
        self.emit({"event": "warning", "job": job.id, "message": f"{job.id}: {message}"})

    def key(self, entry: Planned) -> str:
        """The cache's key; empty where there is none."""
        parts = self.key_parts(entry)
        return cache.key_of(parts) if parts else ""

    def key_parts(self, entry: Planned) -> dict[str, Any]:
        """What the cache's key of a chapter is made of; empty where there is none.

        Notebooks outside the book may depend on anything, so they always run; so does a chapter with a file
        that cannot be read: what that means for it, its cells say.
        """
        book, job = self.book, entry.job
        if book is None or job.chapter is None or entry.notebook is None:
            return {}
        hardware = hardware_class(job.device)
        try:
            data = book.data_files(job.chapter)
            return cache.key_parts(
                job, entry.notebook, book.root, book.packages, hardware, self.variables, data
            )
        except OSError as error:
            what = f"cannot read {error.filename}: {error.strerror}" if error.filename else str(error)
            self._warn(job, f"{what}; it runs without the cache")
            return {}

    def _cached(self, job: Job, folder: Path) -> JobResult | None:
        assert self.book is not None
        try:
            entry = cache.find(self.book.root, job.key)
        except (HarnessError, OSError) as error:
            self._warn(job, str(error))
            return None
        if entry is None or entry.changes(self.book.root):
            return None
        if job.chapter and job.chapter not in self.book.data:  # else its author has named what it reads
            self._unseen.setdefault(job.chapter, {}).update(dict.fromkeys(entry.reads.unseen))
        result = cache.restore(entry, job, folder, shown_path(job.notebook, self.book))
        write_json(folder / "job.json", {"schema": SCHEMA, **to_json(job)})
        write_json(folder / "result.json", {"schema": SCHEMA, **to_json(result)})
        self._ended(result)
        return result

    def _tell_unmatched(self, chapters: Collection[str | None]) -> None:
        """What the book names as data and is not there: a slip of the pen would keep its change from being seen."""
        for chapter, patterns in self.book.data.items() if self.book else ():
            for pattern in patterns if chapter is None or chapter in chapters else ():
                if self.book and not any(self.book.files_like(pattern)):
                    message = f"{CONFIG_NAME}: data: {pattern} names no file; mend it, or make the file"
                    self.emit({"event": "warning", "message": message})

    def _tell_unseen(self) -> None:
        """Once a run, what the cached results just used may have read without its being seen."""
        if told := [
            f"{chapter} ({_first(list(unseen))})" for chapter, unseen in self._unseen.items() if unseen
        ]:
            message = (
                f"cached results do not notice a change of what is read through these: {_first(told)}; "
                f"name the files under data: in {CONFIG_NAME}, or run again with --no-cache"
            )
            self.emit({"event": "warning", "message": message})

    def _unrun(self, entry: Planned, state: JobState, reason: str) -> JobResult:
        shown = shown_path(entry.job.notebook, self.book)
        result = unrun_result(entry.job, self._folder(entry), state, reason, shown, self.emit)
        self._ended(result)
        return result

    def _ended(self, result: JobResult) -> None:
        self.events(end_event(result))


def _first(told: Sequence[str], most: int = 5) -> str:
    return ", ".join(told[:most]) + (f" and {len(told) - most} more" if len(told) > most else "")


def _without(parts: Mapping[str, Any], root: Path, own: set[str]) -> dict[str, str]:
    """The files of a key but for those that the notebook itself wrote."""
    files: Mapping[str, str] = parts.get("files") or {}
    return {name: one for name, one in files.items() if os.path.normpath(root / name) not in own}


def root_of(notebook: Path | str, book: Book | None) -> Path:
    """What paths of a job are relative to: the book's folder, or the notebook's own where there is no book."""
    return book.root if book else Path(notebook).absolute().parent


def shown_path(notebook: Path, book: Book | None) -> str:
    """Relative to the book where it lies inside it, else as it is; always with forward slashes."""
    if book is not None:
        relative = os.path.relpath(notebook.resolve(), book.root.resolve())
        if not relative.startswith(".."):
            return Path(relative).as_posix()
    return notebook.as_posix()
