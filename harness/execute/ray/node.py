"""``python -m harness.execute.ray.node FOLDER``: run the job that FOLDER/request asks for, on a node of a cluster.

Events go to standard output as JSON lines; the job's files to ``job/`` in FOLDER. The job is cancelled when standard
input ends: the one who started this wants it, or is gone.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.archive.environment import environment
from harness.archive.speed import find_speed
from harness.errors import InfrastructureError
from harness.execute.kernel.job import JobFolder, run_job
from harness.execute.kernel.opened import NOTES
from harness.execute.kernel.variables import job_environment
from harness.files import write_json
from harness.model import SCHEMA, Job, to_json

BOOK = "book"  # where the book lies in FOLDER

_NOT_PASSED = "job_end"  # the harness tells it once it holds the files


@dataclass(frozen=True)
class Request:
    """A job for a node. Paths of the sender stand in what a person reads."""

    job: Job  # its notebook absolute where the node sees it, else relative to FOLDER
    shown: str  # path of the notebook as the result states it
    root: Path  # of the sender, what was sent as the book
    folder: Path  # of the sender, of the job
    variables: Mapping[str, str]  # of the sender, that kernels get
    patterns: tuple[str, ...]  # names of variables that kernels get beside the usual ones
    threads: int
    gpu: bool
    harness_visible: bool  # to a kernel of the sender
    packages: tuple[str, ...]  # whose versions the run states beside the usual ones
    speed: float | None  # of the node, where the book says it; None: measure it


def main(folder: Path) -> int:
    """Run the job; 1 if it could not start, with the reason on stderr."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # Ray's threads block signals, and a child inherits that
    parent = os.getppid()
    request: Request = pickle.loads((folder / "request").read_bytes())
    job, cancel = request.job, threading.Event()
    job = replace(job, notebook=folder / job.notebook)
    threading.Thread(target=_watch_input, args=(cancel,), daemon=True).start()
    os.environ.pop("OMP_NUM_THREADS", None)  # Ray's, not the user's
    os.environ.update(request.variables)
    speed = find_speed(request.speed, job.device, request.threads)
    job = replace(job, limits=speed.adapt(job.limits))
    _emit({"event": "node", "environment": {**environment(job.device, request.packages), "speed": speed}})

    def here(text: str) -> str:
        """Names of this folder as the sender knows them."""
        text = text.replace(str(folder / "job"), str(request.folder))
        return text.replace(str(folder / BOOK), str(request.root))

    def emit(event: Mapping[str, Any]) -> None:
        if event["event"] != _NOT_PASSED:
            _emit({key: here(value) if isinstance(value, str) else value for key, value in event.items()})

    try:
        seen = _environment(request, folder)
        result = run_job(JobFolder(job, folder / "job", emit, request.shown), cancel, seen)
        result = replace(result, reason=here(result.reason))
        with suppress(OSError):
            notes = folder / "job" / NOTES
            notes.write_text(here(notes.read_text(encoding="utf-8")), encoding="utf-8")
        write_json(folder / "job" / "result.json", {"schema": SCHEMA, **to_json(result)})
    except InfrastructureError as error:
        print(here(str(error)), file=sys.stderr)
        return 1
    finally:
        if os.getppid() != parent:  # nobody is left to take the files
            shutil.rmtree(folder, ignore_errors=True)
    return 0


def _environment(request: Request, folder: Path) -> dict[str, str]:
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES") if request.gpu else None
    variables = job_environment(request.job, patterns=request.patterns, threads=request.threads, gpu=gpu)
    if request.harness_visible:
        paths = (str(folder), variables.get("PYTHONPATH", ""))
        variables["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return variables


def _watch_input(cancel: threading.Event) -> None:
    sys.stdin.buffer.read()
    cancel.set()


_lock = threading.Lock()


def _emit(event: Mapping[str, Any]) -> None:
    with _lock, suppress(BrokenPipeError):  # the Ray worker is gone: the job ends on its own
        print(json.dumps(to_json(event), ensure_ascii=False), flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
