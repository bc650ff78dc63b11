"""``python -m harness.worker JOB_FOLDER SOCKET_FOLDER REPORT_FD``: run one job in a process of its own.

The worker reads ``job.json``, runs the notebook through :mod:`harness.engine` and reports events as JSON
lines on the pipe it was given; the last one says how the job ended. Its own output goes to ``log.txt``.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

PARENT_CHECK_EVERY = 1.0  # seconds


def main(arguments: list[str]) -> int:
    folder, sockets, descriptor = Path(arguments[0]), Path(arguments[1]), int(arguments[2])
    os.set_inheritable(descriptor, False)
    pipe = os.fdopen(descriptor, "w", encoding="utf-8")

    def report(event: Mapping[str, Any]) -> None:
        pipe.write(json.dumps(event, ensure_ascii=False) + "\n")
        pipe.flush()

    parent = os.getppid()
    threading.Thread(target=stop_with_parent, args=(parent,), daemon=True).start()
    stopping: list[int] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.append(number))
    ending = run(folder, sockets, report, stopping)
    with contextlib.suppress(BrokenPipeError):  # the harness is gone
        report(ending)
    if os.getppid() != parent:
        tidy_up(sockets)
    return 0


def stop_with_parent(parent: int) -> None:
    """A harness that was killed outright cannot stop its worker, so the worker looks after itself."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_EVERY)
    os.kill(os.getpid(), signal.SIGTERM)


def tidy_up(sockets: Path) -> None:
    """What the harness does after every job, were it still there."""
    from harness.process import MARKER, kill_all, marked

    kill_all(marked(os.environ[MARKER]))
    shutil.rmtree(sockets, ignore_errors=True)


def run(
    folder: Path, sockets: Path, report: Callable[[Mapping[str, Any]], None], stopping: list[int]
) -> dict[str, Any]:
    """Run the job of *folder*; the event that says how it ended."""
    from harness.engine import Cancelled, run_notebook
    from harness.model import Limits, to_json

    def stop(number: int, frame: object) -> None:
        raise Cancelled

    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    try:
        signal.signal(signal.SIGTERM, stop)
        if stopping:  # asked to stop while papermill was being imported
            raise Cancelled
        ending = run_notebook(
            Path(job["notebook"]),
            folder / "out.ipynb",
            ast.literal_eval(job["literal"]),
            Limits(**job["limits"]),
            sockets=sockets,
            fallback="" if job["chapter"] else str(Path(__file__).resolve().parents[1]),
            report=report,
        )
    except Cancelled:
        return {
            "event": "end",
            "state": "cancelled",
            "reason": "interrupted",
            "cells": [],
        }
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return {"event": "end", **to_json(ending)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
