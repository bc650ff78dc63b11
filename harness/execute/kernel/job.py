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
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from harness.archive.folder import await_worker, load_metrics
from harness.archive.foreign import read_foreign
from harness.book.notebook import Notebook, first_code_line, is_blank, read_document, read_notebook
from harness.errors import HarnessError, InfrastructureError
from harness.execute.kernel.opened import NOTES, READS
from harness.execute.kernel.process import WorkerProcess, describe_exit
from harness.execute.kernel.variables import MASK, common_environment, job_environment, secrets
from harness.files import explain_os_error, write_json, write_text
from harness.model import SCHEMA, CellResult, CellState, Job, JobResult, JobState, Metric, to_json

SAMPLE_EVERY = 0.5  # seconds between looks at the process tree
HEARTBEAT_EVERY = 15.0  # seconds between signs of life of a running job
CANCEL_GRACE = 8.0  # seconds for a worker that was asked to stop
OVERRUN_GRACE = 15.0  # seconds past the notebook's limit before the worker itself is killed
EXIT_GRACE = 15.0  # seconds for a worker to exit after its last report
MAX_SOCKET_PATH = 100  # sun_path holds 104 bytes on macOS, 108 on Linux

NOT_SAVED = "the notebook could not be saved"

Emit = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Place:
    """What a job runs in."""

    environment: Mapping[str, str]  # of every job of the run
    gpu: str | None = None  # the one device that the job may see; None: whatever the caller sees


def run_job(
    job: Job,
    folder: Path,
    *,
    emit: Emit,
    cancel: threading.Event,
    shown: str | None = None,
    place: Place | None = None,
) -> JobResult:
    """Run *job* in *folder* and return how it ended, with nothing of it left running.

    Args:
        job: what to run.
        folder: the job's own folder, created here; holds out.ipynb, metrics.jsonl, log.txt, result.json.
        emit: called with every event (a mapping with the keys ``event`` and ``job``).
        cancel: once set, the job is stopped and ends as cancelled.
        shown: path of the notebook as the result states it; the job's own by default.
        place: a fresh worker and kernel by default.

    What could not be saved once the job ran (full disk) is told by an event called ``trouble``, and such a
    job never counts as completed.

    Raises:
        InfrastructureError: the job cannot start, as its folder cannot be written.
    """
    started = datetime.now(UTC)
    clock = time.monotonic()
    prepare(job, folder)
    emit({"event": "job_start", "job": job.id, "notebook": str(job.notebook)})
    watch = _Watch(job, folder, emit, cancel, place or Place(common_environment(job)))
    ending = watch.run()
    _mask_log(folder / "log.txt")
    seconds = time.monotonic() - clock
    return finish(job, folder, ending, emit, shown, started, seconds, watch.peak_rss_mb)


def finish(
    job: Job,
    folder: Path,
    ending: Mapping[str, Any],
    emit: Emit,
    shown: str | None,
    started: datetime,
    seconds: float,
    peak_rss_mb: float | None = None,
) -> JobResult:
    """Read what a job left in *folder*, write its result there and tell its end.

    Args:
        ending: ``state``, ``reason`` and ``cells``; ``trouble`` if the notebook could not be saved.
    """
    metrics, warnings = load_metrics(folder / "metrics.jsonl")
    foreign = read_foreign(folder / "out.ipynb", metrics)
    metrics += foreign.metrics
    for message in (*warnings, *foreign.warnings):
        emit({"event": "warning", "job": job.id, "message": message})
    ending = _with_trouble(ending, ending.get("trouble", ""), emit, job)
    result = _result(job, ending, metrics, shown, started, seconds, peak_rss_mb)
    result = replace(result, passed_over=dict(foreign.passed_over))
    try:
        folder.mkdir(parents=True, exist_ok=True)  # a notebook can remove any folder
        if not (folder / "out.ipynb").exists():
            _write_unrun(job, folder)
        write_json(folder / "result.json", {"schema": SCHEMA, **to_json(result)})
    except (OSError, InfrastructureError) as error:
        if not ending.get("trouble"):
            trouble = str(
                error
                if isinstance(error, InfrastructureError)
                else explain_os_error(error, f"cannot write to {folder}")
            )
            ending = _with_trouble(ending, trouble, emit, job)
            result = replace(result, state=JobState(ending["state"]), reason=ending["reason"])
    emit(end_event(result))
    return result


def end_event(result: JobResult) -> dict[str, Any]:
    """What the run is told when a job has ended, wherever and however that was."""
    return {"event": "job_end", "job": result.id, "state": result.state, "reason": result.reason,
            "seconds": result.seconds, "metrics": len(result.metrics)}  # fmt: skip


def _mask_log(log: Path) -> None:
    """What a kernel prints past its streams goes straight to the log: take the secrets out once it has ended."""
    with suppress(OSError):
        if values := [value.encode() for value in secrets()]:
            text = masked = log.read_bytes()
            for value in values:
                masked = masked.replace(value, MASK.encode())
            if masked != text:
                log.write_bytes(masked)


def _with_trouble(ending: Mapping[str, Any], trouble: str, emit: Emit, job: Job) -> Mapping[str, Any]:
    """An ending that owns up to what could not be saved, told to the whole run by an event."""
    if not trouble:
        return ending
    emit({"event": "trouble", "job": job.id, "message": f"{job.id}: {trouble}"})
    told = f"{NOT_SAVED}: {trouble}"
    if ending["state"] == JobState.COMPLETED:
        return {**ending, "state": JobState.DEAD, "reason": told, "trouble": trouble}
    return {**ending, "reason": f"{ending['reason']}; {told}", "trouble": trouble}


def unrun_result(
    job: Job, folder: Path, state: JobState, reason: str, shown: str | None = None, emit: Emit | None = None
) -> JobResult:
    """The result of a job that never started (invalid or cancelled), written like any other.

    Raises:
        InfrastructureError: the folder cannot be written; with *emit* this is told by an event instead.
    """
    ending = {"state": state, "reason": reason, "cells": _pending_cells(job)}
    result = _result(job, ending, (), shown, datetime.now(UTC), 0.0, None)
    try:
        prepare(job, folder)
        _write_unrun(job, folder)
        write_json(folder / "result.json", {"schema": SCHEMA, **to_json(result)})
    except InfrastructureError as error:
        if emit is None:
            raise
        emit({"event": "trouble", "job": job.id, "message": f"{job.id}: {error}"})
    return result


def prepare(job: Job, folder: Path) -> None:
    """Make the job's folder, empty it of what an earlier try left and write job.json.

    Raises:
        InfrastructureError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        await_worker(folder)
        for name in ("out.ipynb", "metrics.jsonl", "result.json", "log.txt", NOTES, READS):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise explain_os_error(error, f"cannot write to {folder}") from None
    exact = repr(dict(job.parameters))  # JSON knows neither tuples nor keys that are no strings
    write_json(folder / "job.json", {"schema": SCHEMA, **to_json(job), "literal": exact})


def _result(
    job: Job,
    ending: Mapping[str, Any],
    metrics: tuple[Metric, ...],
    shown: str | None,
    started: datetime,
    seconds: float,
    peak_rss_mb: float | None,
) -> JobResult:
    return JobResult(
        id=job.id,
        notebook=shown or str(job.notebook),
        chapter=job.chapter,
        profile=job.profile,
        seed=job.seed,
        state=JobState(ending["state"]),
        reason=ending.get("reason", ""),
        parameters=job.parameters,
        cells=tuple(CellResult(**{**c, "state": CellState(c["state"])}) for c in ending.get("cells", ())),
        metrics=metrics,
        seconds=round(seconds, 3),
        peak_rss_mb=peak_rss_mb,
        started=started.isoformat(timespec="seconds"),
        key=job.key,
    )


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

    def __init__(self, job: Job, folder: Path, emit: Emit, cancel: threading.Event, place: Place) -> None:
        self._at = place
        self._job = job
        self._folder = folder.resolve()
        self._emit = emit
        self._cancel = cancel
        self._cells: dict[int, dict[str, Any]] = {}
        self._place = {"cell": 0, "total": 0, "code": ""}  # of the running cell
        self._ending: dict[str, Any] | None = None
        self._stop_at = float("inf")  # when the worker is killed
        self._stopped_for = ""  # why we stopped it: "cancelled" or "timed_out"
        self.peak_rss_mb: float | None = None

    def run(self) -> Mapping[str, Any]:
        marker = uuid.uuid4().hex
        started = time.monotonic()
        if self._job.limits.notebook:
            self._stop_at = started + self._job.limits.notebook + OVERRUN_GRACE
        try:
            sockets = socket_folder()
            with (self._folder / "log.txt").open("wb") as log:
                worker = self._start(marker, sockets, log)
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

    def _start(self, marker: str, sockets: Path, log: IO[Any]) -> WorkerProcess:
        arguments = [str(self._folder), str(sockets), str(os.getpid())]
        environment = {**self._at.environment, **job_environment(self._folder, marker, self._at.gpu)}
        return WorkerProcess(arguments, environment, log)

    def _follow(self, worker: WorkerProcess) -> None:
        """Read reports until the worker is gone, has to go, or has said its last word."""
        buffer = b""
        next_sample = 0.0
        next_heartbeat = time.monotonic() + HEARTBEAT_EVERY
        while True:
            now = time.monotonic()
            if now >= next_heartbeat:
                self._emit(
                    {"event": "heartbeat", "job": self._job.id, "rss_mb": worker.rss / 2**20, **self._place}
                )
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
            self._ending = event
            self._stop_at = time.monotonic() + EXIT_GRACE
            return
        note_cell(event, self._cells)
        if event["event"] == "cell_start":
            self._place = {key: event[key] for key in ("cell", "total", "code")}
        self._emit({**event, "job": self._job.id})

    def _ending_of_lost_worker(self, code: int | None) -> Mapping[str, Any]:
        """The worker could not say how it ended: say what we know from outside."""
        cells = cells_so_far(self._job, self._cells)
        if self._stopped_for == "cancelled":
            return {"state": JobState.CANCELLED, "reason": "interrupted", "cells": cells}
        if self._stopped_for == "timed_out":
            limits = self._job.limits
            reason = f"did not stop at {limits.told('notebook')} and was killed; {limits.remedy('notebook')}"
            return {"state": JobState.TIMED_OUT, "reason": reason, "cells": cells}
        reason = f"the process that ran it died ({describe_exit(code)}); see {self._folder / 'log.txt'}"
        return {"state": JobState.DEAD, "reason": reason, "cells": cells}


def note_cell(event: Mapping[str, Any], cells: dict[int, dict[str, Any]]) -> None:
    """Keep in *cells*, by position, what an event says of one; a cell that starts has failed unless its end is told."""
    if event["event"] == "cell_start":
        cells[event["cell"] - 1] = {"state": CellState.FAILED}
    elif event["event"] == "cell_end":
        cells[event["cell"] - 1] = {k: event[k] for k in ("state", "seconds", "error", "line")}


def cells_so_far(job: Job, noted: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """All code cells of a job that was lost: what :func:`note_cell` kept, else as never run."""
    return [{**cell, **noted.get(cell["index"], {})} for cell in _pending_cells(job)]


def _pending_cells(job: Job) -> list[dict[str, Any]]:
    notebook = _readable(job)
    if notebook is None:
        return []
    return [
        {
            "index": cell.index,
            "id": cell.id,
            "state": CellState.SKIPPED
            if "skip-execution" in cell.tags or is_blank(cell.source)
            else CellState.PENDING,
            "code": first_code_line(cell.source),
        }
        for cell in notebook.code
    ]


def _readable(job: Job) -> Notebook | None:
    with suppress(Exception):
        return read_notebook(job.notebook)
    return None


def _write_unrun(job: Job, folder: Path) -> None:
    """out.ipynb of a job that saved none: the source without outputs, if it is a notebook at all."""
    try:
        document = read_document(job.notebook)
    except HarnessError:
        return
    for cell in document["cells"]:
        if cell.get("cell_type") == "code":
            cell["outputs"] = []
            cell["execution_count"] = None
    write_text(folder / "out.ipynb", json.dumps(document, ensure_ascii=False, indent=1) + "\n")
