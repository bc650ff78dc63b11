"""Execute a plan: what is kept or cached is taken over, an executor runs the rest; an orderly end when interrupted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.archive.environment import environment, git_state
from harness.archive.folder import EventLog
from harness.archive.nodes import Site, sites_of, with_nodes
from harness.archive.recorded import Manifest, read_run
from harness.archive.speed import Speed
from harness.book.config import Book
from harness.book.plan import Planned
from harness.errors import InfrastructureError
from harness.execute.executor import Executor, LocalExecutor, Run
from harness.execute.resume import Origin, digest
from harness.execute.reuse import Reuse
from harness.execute.schedule import Machine, Schedule, needs
from harness.files import write_json
from harness.model import SCHEMA, JobResult, JobState, to_json

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


def execute(
    planned: Sequence[Planned],
    run_dir: Path,
    origin: Origin,
    *,
    book: Book | None,
    use_cache: bool = True,
    resume: bool = False,
    executor: Executor | None = None,
    progress: Callable[[Mapping[str, Any]], None] = lambda event: None,
    cancel: threading.Event | None = None,
) -> RunOutcome:
    """Run every job of the plan in *run_dir* and return all results, in the order of the plan.

    Once *cancel* is set, the running jobs and the rest are cancelled; their results are written all the same.
    A disk that is full cancels the rest, too: they could not be saved either.

    Args:
        origin: what asked for the run; stands in its manifest.
        resume: go on with the run that *run_dir* holds: what completed and did not change since stands.
        executor: runs the jobs; this machine by default, one after another.
        progress: is told every event.

    Raises:
        KeyboardInterrupt: *cancel* was set before anything was written.
    """
    clock, cancel = time.monotonic(), cancel or threading.Event()
    manifest = make_manifest(run_dir, book, planned, origin)
    before = read_run(run_dir, book.chapters if book else ()) if resume else None
    if cancel.is_set():
        raise KeyboardInterrupt
    if before is None:
        write_json(run_dir / "manifest.json", manifest)
    variables = (*(book.environment if book else ()), *(origin.asked.variables if origin.asked else ()))
    run = Run(run_dir, book, variables, EventLog(run_dir / "events.jsonl", progress), cancel)
    try:
        run.emit({"event": "run_start", "run": run_dir.name, "jobs": len(planned), "resume": resume})
        reuse = Reuse(run, manifest["environment"])
        planned, kept = reuse.keyed(planned), {}
        if before is not None:
            kept = reuse.resumed(before, planned)
            manifest = continue_manifest(before.manifest, manifest, len(kept))
        manifest["digests"] = {entry.job.id: digest(entry) for entry in planned}
        write_json(run_dir / "manifest.json", manifest)
        runner = _Runner(run, executor or LocalExecutor(SEQUENTIAL), reuse)
        results = runner.run_all(planned, kept, use_cache)
        written, earlier = manifest, sites_of(before.manifest, kept) if before else {}
        if (manifest := with_machines(written, runner, earlier)) is not written:
            write_json(run_dir / "manifest.json", manifest)
        run.emit({"event": "run_end", "interrupted": run.stopped, "trouble": run.trouble})
        return RunOutcome(manifest, results, time.monotonic() - clock, run.stopped, run.trouble)
    finally:
        run.events.close()


# -- the manifest ------------------------------------------------------------------------------------


def make_manifest(
    run_dir: Path, book: Book | None, planned: Sequence[Planned], origin: Origin
) -> dict[str, Any]:
    """What is written before the first job starts, so that a run that dies can be told."""
    commit, dirty = git_state(book.root if book else Path.cwd())
    first = planned[0].job
    manifest = {
        "schema": SCHEMA,
        "run": run_dir.name,
        "command": list(origin.command),
        "profile": first.profile,
        "device": first.device,
        "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "commit": commit,
        "dirty": dirty,
        "environment": environment(first.device, book.requires if book else ()),
        "asked": to_json(origin.asked) if origin.asked else None,
        "jobs": [p.job.id for p in planned],
    }
    return {**manifest, "shard": to_json(origin.shard)} if origin.shard else manifest


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


def with_machines(manifest: dict[str, Any], runner: _Runner, earlier: Mapping[str, Site]) -> dict[str, Any]:
    """The manifest with what its jobs ran on; *earlier* are the nodes of those that were kept."""
    if runner.speed is not None:
        manifest = {**manifest, "environment": {**manifest["environment"], "speed": to_json(runner.speed)}}
    sites = {**earlier, **runner.sites}
    return with_nodes(manifest, manifest["environment"], sites) if sites else manifest


# -- the jobs ----------------------------------------------------------------------------------------


@dataclass
class _Runner:
    """Brings every job of one run to its end. A job's turn may come in any thread."""

    run: Run
    executor: Executor
    reuse: Reuse
    sites: dict[str, Site] = field(default_factory=dict)  # by job id, of those that ran elsewhere
    speed: Speed | None = None  # of this machine, once a job is to run on it

    def run_all(
        self, planned: Sequence[Planned], kept: Mapping[str, JobResult], use_cache: bool
    ) -> list[JobResult]:
        """The results of all jobs: first those that need no kernel, then the rest side by side."""
        results = {entry.job.id: self._without_kernel(entry, kept, use_cache) for entry in planned}
        self.reuse.tell_unseen()
        if rest := [entry for entry in planned if results[entry.job.id] is None]:
            done = [self._turn(entry, None) for entry in rest] if self.run.stopped else self._execute(rest)
            results |= {entry.job.id: result for entry, result in zip(rest, done, strict=True)}
        return [result for result in results.values() if result is not None]

    def _without_kernel(
        self, entry: Planned, kept: Mapping[str, JobResult], use_cache: bool
    ) -> JobResult | None:
        """The result of a job that cannot run or need not; None if it has to."""
        place = self.run.place(entry.job)
        if entry.problem:
            return place.unrun(JobState.INVALID, entry.problem)
        result = kept.get(entry.job.id)
        if result is None and use_cache and entry.job.key and not self.run.stopped:
            result = self.reuse.cached(entry.job)
        return None if result is None else place.tell_end(result)

    def _execute(self, rest: Sequence[Planned]) -> list[JobResult]:
        jobs = [entry.job for entry in rest]
        need = needs(self.run.root, jobs)
        machine = self.executor.open(self.run, jobs, need)
        self.speed = machine.speed
        schedule = Schedule(machine, rest, lambda entry: need[entry.job.id], lambda: self.run.stopped)
        return schedule.run(self._turn)

    def _turn(self, entry: Planned, gpu: str | None) -> JobResult:
        """One job to its end, whatever that is."""
        place = self.run.place(entry.job)
        if self.run.cancel.is_set():
            return place.unrun(JobState.CANCELLED, "the run was interrupted before it started")
        if self.run.trouble:
            return place.unrun(JobState.CANCELLED, f"not started: {self.run.trouble}")
        inputs = self.reuse.inputs(entry)
        try:
            result, site = self.executor.run(replace(entry.job, key=inputs.key), gpu)
        except InfrastructureError as error:
            place.tell_trouble(error)
            return place.unrun(JobState.CANCELLED, f"could not start: {error}")
        if site is not None:
            self.sites[entry.job.id] = site
        self.reuse.keep(entry, inputs, result, site)
        return result
