"""Where the jobs of a run are executed: what an executor knows of the run, its two methods, this machine as one."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from harness.archive.folder import EventLog
from harness.archive.nodes import Site
from harness.archive.speed import find_speed
from harness.book.config import Book
from harness.execute.kernel.job import JobFolder, run_job
from harness.execute.kernel.variables import job_environment
from harness.execute.schedule import Machine, Need
from harness.model import Job, JobResult


@dataclass
class Run:
    """The run that jobs belong to: what they may see, what they tell it, and whether it goes on."""

    folder: Path
    book: Book | None
    variables: Sequence[str]  # names that kernels get beside the usual ones
    events: EventLog
    cancel: threading.Event
    _trouble: str = ""

    @property
    def root(self) -> Path:
        return self.book.root if self.book else Path.cwd()

    @property
    def speed(self) -> float | None:
        """What the book says of the machine's speed; None: measure it."""
        return self.book.speed if self.book else None

    @property
    def trouble(self) -> str:
        """The first thing that could not be saved."""
        return self._trouble or self.events.trouble

    @property
    def stopped(self) -> bool:
        """Nothing more is to be started."""
        return self.cancel.is_set() or bool(self.trouble)

    def emit(self, event: Mapping[str, Any]) -> None:
        """Write and show an event; remember the first one of trouble. Safe from several threads."""
        if event["event"] == "trouble":
            self._trouble = self._trouble or event["message"]
        self.events(event)

    def warn(self, message: str, job: Job | None = None) -> None:
        about = {"job": job.id, "message": f"{job.id}: {message}"} if job else {"message": message}
        self.emit({"event": "warning", **about})

    def place(self, job: Job) -> JobFolder:
        """Where the job leaves what it does."""
        shown = shown_path(job.notebook, self.book)
        return JobFolder(job, self.folder / "jobs" / job.id, self.emit, shown)

    def root_of(self, notebook: Path | str) -> Path:
        """What paths that a job read are relative to: the book's folder, or its own where there is no book."""
        return self.book.root if self.book else Path(notebook).absolute().parent


def shown_path(notebook: Path, book: Book | None) -> str:
    """Relative to the book where it lies inside it, else as it is; always with forward slashes."""
    if book is not None:
        relative = os.path.relpath(notebook.resolve(), book.root.resolve())
        if not relative.startswith(".."):
            return Path(relative).as_posix()
    return notebook.as_posix()


class Executor(Protocol):
    """Executes jobs somewhere; their results and folders are the same wherever that is."""

    def open(self, run: Run, jobs: Sequence[Job], needs: Mapping[str, Need]) -> Machine:
        """Get ready for *jobs*, whose *needs* stand by their ids, before the first is run; what they will share."""

    def run(self, job: Job, gpu: str | None) -> tuple[JobResult, Site | None]:
        """One job to its end, and the node it ran on (None: this machine), on the *gpu* that it was given.

        Raises:
            InfrastructureError: it cannot start.
        """


@dataclass
class LocalExecutor:
    """This machine: as many jobs at once as its cores, memory and GPUs allow."""

    machine: Machine
    _run: Run = field(init=False)

    def open(self, run: Run, jobs: Sequence[Job], needs: Mapping[str, Need]) -> Machine:
        speed = find_speed(run.speed, jobs[0].device, self.machine.threads)
        run.emit({"event": "speed", "usual": speed.factor == 1, "message": str(speed)})
        self._run, self.machine = run, replace(self.machine, speed=speed)
        return self.machine

    def run(self, job: Job, gpu: str | None) -> tuple[JobResult, None]:
        run, speed = self._run, self.machine.speed
        if speed is not None:
            job = replace(job, limits=speed.adapt(job.limits))
        environment = job_environment(job, patterns=run.variables, threads=self.machine.threads, gpu=gpu)
        return run_job(run.place(job), run.cancel, environment), None
