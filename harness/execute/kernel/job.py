"""Run one job: a worker, a watch over it, and a truthful result. A scheduler may call it from threads."""

from __future__ import annotations

import json
import os
import select
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.archive.folder import await_worker, load_metrics
from harness.archive.foreign import read_foreign
from harness.book.notebook import read_document, read_notebook
from harness.errors import HarnessError, InfrastructureError
from harness.execute.kernel.ending import Ending, describe_exit, untouched_state
from harness.execute.kernel.opened import NOTES, READS
from harness.execute.kernel.process import WorkerProcess
from harness.execute.kernel.variables import MASK, job_environment, secrets, worker_environment
from harness.files import explain_os_error, write_json, write_text
from harness.model import SCHEMA, CellResult, CellState, Job, JobResult, JobState, to_json
from harness.wording import cell_label

SAMPLE_EVERY = 0.5  # seconds between looks at the process tree
HEARTBEAT_EVERY = 15.0  # seconds between signs of life of a running job
CANCEL_GRACE = 8.0  # seconds for a worker that was asked to stop
OVERRUN_GRACE = 15.0  # seconds past the notebook's limit before the worker itself is killed
EXIT_GRACE = 15.0  # seconds for a worker to exit after its last report
MAX_SOCKET_PATH = 100  # sun_path holds 104 bytes on macOS, 108 on Linux

NOT_SAVED = "the notebook could not be saved"

Emit = Callable[[Mapping[str, Any]], None]


def run_job(
    place: JobFolder, cancel: threading.Event | None = None, environment: Mapping[str, str] | None = None
) -> JobResult:
    """Run the job of *place* there and return how it ended, with nothing of it left running.

    Args:
        place: the folder is created here; holds out.ipynb, metrics.jsonl, log.txt, result.json.
        cancel: once set, the job is stopped and ends as cancelled.
        environment: of the kernel; what a job sees by default.

    What could not be saved once the job ran (full disk) is told by an event called ``trouble``, and such a
    job never counts as completed.

    Raises:
        InfrastructureError: the job cannot start, as its folder cannot be written.
    """
    place.prepare()
    place.tell("job_start", notebook=str(place.job.notebook))
    watch = _Watch(place, cancel or threading.Event(), environment or job_environment(place.job))
    ending = watch.run()
    _mask_log(place.path / "log.txt")
    return place.finish(ending, watch.peak_rss_mb)


def _mask_log(log: Path) -> None:
    """What a kernel prints past its streams goes straight to the log: take the secrets out once it has ended."""
    with suppress(OSError):
        if values := [value.encode() for value in secrets()]:
            text = masked = log.read_bytes()
            for value in values:
                masked = masked.replace(value, MASK.encode())
            if masked != text:
                log.write_bytes(masked)


@dataclass
class JobFolder:
    """Where one job leaves what it did, and the run that hears of it."""

    job: Job
    path: Path
    emit: Emit = lambda event: None
    shown: str = ""  # path of the notebook as the result states it; the job's own by default
    _started: datetime = field(default_factory=lambda: datetime.now(UTC))
    _clock: float = field(default_factory=time.monotonic)

    def tell(self, event: str, **details: Any) -> None:
        self.emit({"event": event, "job": self.job.id, **details})

    def tell_end(self, result: JobResult) -> JobResult:
        """What the run is told when a job has ended, wherever and however that was."""
        self.tell("job_end", state=result.state, reason=result.reason, seconds=result.seconds,
                  metrics=len(result.metrics))  # fmt: skip
        return result

    def warn(self, message: str) -> None:
        """What is odd about the job: several run at a time, so it says which one."""
        self.tell("warning", message=f"{self.job.id}: {message}")

    def tell_trouble(self, error: Exception | str) -> None:
        """What stops the run: something of the job could not be saved."""
        self.tell("trouble", message=f"{self.job.id}: {error}")

    def prepare(self) -> None:
        """Make the folder, empty it of what an earlier try left and write job.json.

        Raises:
            InfrastructureError: it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            await_worker(self.path)
            for name in ("out.ipynb", "metrics.jsonl", "result.json", "log.txt", NOTES, READS):
                (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise explain_os_error(error, f"cannot write to {self.path}") from None
        exact = repr(dict(self.job.parameters))  # JSON knows neither tuples nor keys that are no strings
        write_json(self.path / "job.json", {"schema": SCHEMA, **to_json(self.job), "literal": exact})

    def unrun(self, state: JobState, reason: str) -> JobResult:
        """The result of a job that never started (invalid or cancelled), written and told like any other."""
        result = replace(self._result(Ending(state, reason, pending_cells(self.job))), seconds=0.0)
        try:
            self.prepare()
            self._save(result)
        except InfrastructureError as error:
            self.tell_trouble(error)
        return self.tell_end(result)

    def finish(self, ending: Ending, peak_rss_mb: float | None = None) -> JobResult:
        """Read what the job left, write its result and tell its end."""
        metrics, warnings = load_metrics(self.path / "metrics.jsonl")
        foreign = read_foreign(self.path / "out.ipynb", metrics)
        for message in (*warnings, *foreign.warnings):
            self.warn(message)
        if ending.trouble:
            ending = self._owning_up(ending)
        result = replace(
            self._result(ending), metrics=metrics + foreign.metrics, peak_rss_mb=peak_rss_mb,
            passed_over=dict(foreign.passed_over),
        )  # fmt: skip
        try:
            self.path.mkdir(parents=True, exist_ok=True)  # a notebook can remove any folder
            self._save(result)
        except (OSError, InfrastructureError) as error:
            if not ending.trouble:
                if isinstance(error, OSError):
                    error = explain_os_error(error, f"cannot write to {self.path}")
                ending = self._owning_up(replace(ending, trouble=str(error)))
                result = replace(result, state=ending.state, reason=ending.reason)
        return self.tell_end(result)

    def _owning_up(self, ending: Ending) -> Ending:
        """The ending that its trouble makes of it; the run is told."""
        self.tell_trouble(ending.trouble)
        told = f"{NOT_SAVED}: {ending.trouble}"
        if ending.state is JobState.COMPLETED:
            return replace(ending, state=JobState.DEAD, reason=told)
        return replace(ending, reason=f"{ending.reason}; {told}")

    def _result(self, ending: Ending) -> JobResult:
        job = self.job
        return JobResult(
            id=job.id, notebook=self.shown or str(job.notebook), chapter=job.chapter, profile=job.profile,
            seed=job.seed, state=ending.state, reason=ending.reason, parameters=job.parameters,
            cells=tuple(ending.cells), seconds=round(time.monotonic() - self._clock, 3),
            started=self._started.isoformat(timespec="seconds"), key=job.key,
        )  # fmt: skip

    def _save(self, result: JobResult) -> None:
        """Write the result, and where the job saved no notebook its source without outputs."""
        if not (self.path / "out.ipynb").exists():
            self._write_source()
        write_json(self.path / "result.json", {"schema": SCHEMA, **to_json(result)})

    def _write_source(self) -> None:
        try:
            document = read_document(self.job.notebook)
        except HarnessError:
            return  # it is no notebook at all
        for cell in document["cells"]:
            if cell.get("cell_type") == "code":
                cell.update(outputs=[], execution_count=None)
        write_text(self.path / "out.ipynb", json.dumps(document, ensure_ascii=False, indent=1) + "\n")


def socket_folder() -> Path:
    """A short path for the kernel's sockets, whose own must fit in ``sun_path``. Nothing is there yet.

    The worker makes the folder: were it made here, a harness killed before it has a worker would leave it.
    """
    for base in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        room = MAX_SOCKET_PATH - len(os.fsencode(base)) - len("/hk-12345678/k-ipc-5")
        if room > 0 and os.access(base, os.W_OK):
            return Path(base) / f"hk-{uuid.uuid4().hex[:8]}"
    raise InfrastructureError(
        "no writable folder with a short path for the kernel's sockets; set TMPDIR=/tmp"
    )


class _Watch:
    """Reads a worker's reports, watches its memory and its limits, and cleans up after it."""

    def __init__(self, place: JobFolder, cancel: threading.Event, environment: Mapping[str, str]) -> None:
        self._place, self._job, self._folder = place, place.job, place.path.resolve()
        self._cancel, self._environment = cancel, environment
        self._cells: dict[int, dict[str, Any]] = {}
        self._running = {"cell": 0, "total": 0, "code": ""}  # the cell that does
        self._ending: Ending | None = None
        self._stop_at = float("inf")  # when the worker is killed
        self._stopped_for = ""  # why we stopped it: "cancelled" or "timed_out"
        self.peak_rss_mb: float | None = None

    def run(self) -> Ending:
        if self._job.limits.notebook:
            self._stop_at = time.monotonic() + self._job.limits.notebook + OVERRUN_GRACE
        try:
            sockets = socket_folder()
            with (self._folder / "log.txt").open("wb") as log:
                arguments = [str(self._folder), str(sockets), str(os.getpid())]
                own = worker_environment(self._folder, uuid.uuid4().hex)
                worker = WorkerProcess(arguments, {**self._environment, **own}, log)
        except OSError as error:
            raise explain_os_error(error, f"cannot start a worker for {self._job.id}") from None
        try:
            self._follow(worker)
        finally:
            code = worker.returncode
            worker.end()
            shutil.rmtree(sockets, ignore_errors=True)
            self.peak_rss_mb = round(worker.peak_rss / 2**20, 1) or None
        return self._ending or self._ending_of_lost_worker(code)

    def _follow(self, worker: WorkerProcess) -> None:
        """Read reports until the worker is gone, has to go, or has said its last word."""
        buffer = b""
        next_sample = 0.0
        next_heartbeat = time.monotonic() + HEARTBEAT_EVERY
        while True:
            now = time.monotonic()
            if now >= next_heartbeat:
                self._place.tell("heartbeat", rss_mb=worker.rss / 2**20, **self._running)
                next_heartbeat = now + HEARTBEAT_EVERY
            if now >= next_sample:
                worker.sample()
                next_sample = now + SAMPLE_EVERY
            if self._cancel.is_set() and not self._stopped_for and self._ending is None:
                self._stopped_for = "cancelled"
                self._stop_at = now + CANCEL_GRACE
                worker.ask_to_stop()
            if now >= self._stop_at:
                self._stopped_for = self._stopped_for or "timed_out"
                return
            if not select.select([worker.reports], [], [], 0.2)[0]:
                if worker.returncode is not None:
                    return
                continue
            data = os.read(worker.reports, 65536)
            if not data:
                self._wait_for_exit(worker)
                return
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                self._take(json.loads(line))

    def _wait_for_exit(self, worker: WorkerProcess) -> None:
        deadline = time.monotonic() + EXIT_GRACE
        while worker.returncode is None and time.monotonic() < deadline:
            time.sleep(0.01)

    def _take(self, event: dict[str, Any]) -> None:
        if event["event"] == "end":
            cells = [CellResult(**{**cell, "state": CellState(cell["state"])}) for cell in event["cells"]]
            self._ending = Ending(JobState(event["state"]), event["reason"], cells, event["trouble"])
            self._stop_at = time.monotonic() + EXIT_GRACE
            return
        if event["event"] == "warning":
            self._place.warn(event["message"])
            return
        note_cell(event, self._cells)
        if event["event"] == "cell_start":
            self._running = {key: event[key] for key in ("cell", "total", "code")}
        self._place.emit({**event, "job": self._job.id})

    def _ending_of_lost_worker(self, code: int | None) -> Ending:
        """The worker could not say how it ended: say what we know from outside."""
        state, limits = JobState.DEAD, self._job.limits
        reason = f"the process that ran it died ({describe_exit(code)}); see {self._folder / 'log.txt'}"
        if self._stopped_for == "cancelled":
            state, reason = JobState.CANCELLED, "interrupted"
        elif self._stopped_for == "timed_out":
            state = JobState.TIMED_OUT
            reason = f"did not stop at {limits.told('notebook')} and was killed; {limits.remedy('notebook')}"
        return Ending(state, reason, cells_so_far(self._job, self._cells))


def note_cell(event: Mapping[str, Any], cells: dict[int, dict[str, Any]]) -> None:
    """Keep in *cells*, by position, what an event says of one; a cell that starts has failed unless its end is told."""
    if event["event"] == "cell_start":
        cells[event["cell"] - 1] = {"state": CellState.FAILED}
    elif event["event"] == "cell_end":
        told = {key: event[key] for key in ("seconds", "error", "line")}
        cells[event["cell"] - 1] = {"state": CellState(event["state"]), **told}


def cells_so_far(job: Job, noted: Mapping[int, Mapping[str, Any]]) -> list[CellResult]:
    """All code cells of a job that was lost: what :func:`note_cell` kept, else as never run."""
    return [replace(cell, **noted.get(cell.index, {})) for cell in pending_cells(job)]


def pending_cells(job: Job) -> list[CellResult]:
    with suppress(Exception):
        return [
            CellResult(
                cell.index,
                cell.id,
                untouched_state(cell.tags, cell.source),
                code=cell_label(cell.source),
            )
            for cell in read_notebook(job.notebook).code
        ]
    return []
