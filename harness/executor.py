"""Where the jobs of a run are executed: the seam between a run and its machines, and this machine as one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from harness.config import HEAVY, Book
from harness.execution import Emit, Place, run_job
from harness.forkserver import ForkServer
from harness.model import Job, JobResult
from harness.nodes import Site
from harness.plan import Planned
from harness.process import is_linux
from harness.schedule import Machine, Schedule, needs
from harness.variables import common_environment
from harness.warmth import modules_to_import, reason_for_cold

RunJob = Callable[[Job, Path, str], JobResult]
"""Runs a job in its folder, the notebook shown as the third argument; see :func:`harness.execution.run_job`."""

Start = Callable[[Planned, RunJob], JobResult]
"""What an executor calls when a job's turn has come: it decides whether the job still runs."""


@dataclass(frozen=True)
class Setting:
    """What an executor knows of the run."""

    book: Book | None
    run_dir: Path
    variables: Sequence[str]  # names that kernels get beside the usual ones
    emit: Emit
    cancel: threading.Event
    stopped: Callable[[], bool]  # once true, nothing more is to be started

    @property
    def root(self) -> Path:
        return self.book.root if self.book else Path.cwd()


class Executor(Protocol):
    """Executes jobs somewhere; their results and folders are the same wherever that is."""

    @property
    def sites(self) -> Mapping[str, Site]:
        """By job id, what it ran on; a job that is not in it ran on this machine."""

    def run_all(self, entries: Sequence[Planned], setting: Setting, start: Start) -> list[JobResult]:
        """Call ``start(entry, run_job)`` once for each entry; the results in the order of *entries*."""


@dataclass(frozen=True)
class LocalExecutor:
    """This machine: as many jobs at once as its cores, memory and GPUs allow, kernels forked where that is safe."""

    machine: Machine
    warm: bool = True
    sites: Mapping[str, Site] = field(default_factory=dict)

    def run_all(self, entries: Sequence[Planned], setting: Setting, start: Start) -> list[JobResult]:
        known = needs(setting.root, [entry.job for entry in entries])
        schedule = Schedule(self.machine, entries, lambda entry: known[entry.job.id], setting.stopped)
        with self._server(entries, setting) as server:

            def begin(entry: Planned, gpu: str | None) -> JobResult:
                place = self._place(entry, setting, server, gpu)
                return start(
                    entry,
                    lambda job, folder, shown: run_job(
                        job, folder, emit=setting.emit, cancel=setting.cancel, shown=shown, place=place
                    ),
                )

            return schedule.run(begin)

    @contextmanager
    def _server(self, entries: Sequence[Planned], setting: Setting) -> Iterator[ForkServer | None]:
        """A fork server with what the notebooks of *entries* import; None where warm kernels are off."""
        if not self.warm or setting.stopped():
            yield None
            return
        notebooks = [entry.notebook for entry in entries if entry.notebook]
        heavy = setting.book.warm if setting.book else HEAVY
        modules = modules_to_import(notebooks, *_local(setting), heavy)
        common = self._environment(entries[0].job, setting)
        server = ForkServer(common, modules, setting.run_dir / "forkserver.log")
        try:
            started = server.start()
            if not started and is_linux():
                setting.emit({"event": "warning", "message": f"warm kernels are off: {server.trouble}"})
            yield server if started else None
        finally:
            server.close()

    def _environment(self, job: Job, setting: Setting) -> dict[str, str]:
        return common_environment(job, patterns=setting.variables, threads=self.machine.threads)

    def _place(self, entry: Planned, setting: Setting, server: ForkServer | None, gpu: str | None) -> Place:
        warm = False
        if server is not None and entry.notebook is not None:
            reason = reason_for_cold(entry.notebook, server.loaded, *_local(setting))
            event: dict[str, Any] = {"event": "kernel", "job": entry.job.id, "warm": not reason}
            setting.emit({**event, "reason": reason})
            warm = not reason
        return Place(self._environment(entry.job, setting), server, warm, gpu)


def _local(setting: Setting) -> tuple[Path | None, tuple[str, ...]]:
    """Root and packages of the book, where there is one."""
    return (setting.book.root, setting.book.packages) if setting.book else (None, ())
