"""Where the jobs of a run are executed: the seam between a run and its machines, and this machine as one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from harness.archive.nodes import Site
from harness.book.config import Book
from harness.book.plan import Planned
from harness.execute.kernel.job import Emit, Place, run_job
from harness.execute.kernel.variables import common_environment
from harness.execute.schedule import Machine, Schedule, needs
from harness.model import Job, JobResult

RunJob = Callable[[Job, Path, str], JobResult]
"""Runs a job in its folder, the notebook shown as the third argument: :func:`harness.execute.kernel.job.run_job`."""

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
    """This machine: as many jobs at once as its cores, memory and GPUs allow."""

    machine: Machine
    sites: Mapping[str, Site] = field(default_factory=dict)

    def run_all(self, entries: Sequence[Planned], setting: Setting, start: Start) -> list[JobResult]:
        known = needs(setting.root, [entry.job for entry in entries])
        schedule = Schedule(self.machine, entries, lambda entry: known[entry.job.id], setting.stopped)
        begin = partial(self._begin, setting=setting, start=start)
        return schedule.run(begin)

    def _begin(self, entry: Planned, gpu: str | None, *, setting: Setting, start: Start) -> JobResult:
        environment = common_environment(entry.job, patterns=setting.variables, threads=self.machine.threads)
        place = Place(environment, gpu)

        def run(job: Job, folder: Path, shown: str) -> JobResult:
            return run_job(job, folder, emit=setting.emit, cancel=setting.cancel, shown=shown, place=place)

        return start(entry, run)
