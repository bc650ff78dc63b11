"""``python -m harness.execute.kernel.worker JOB_FOLDER SOCKET_FOLDER HARNESS_PID REPORT_FD``: run one job, alone.

The worker reads ``job.json``, runs the notebook through :mod:`harness.execute.kernel.engine` and reports events as JSON
lines on the pipe it was given; the last one says how the job ended. Its own output goes to ``log.txt``.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.execute.kernel.ending import Ending
    from harness.model import Job

PARENT_CHECK_EVERY = 1.0  # seconds
GUARD_GRACE = 12.0  # seconds for a worker to end in order after its harness was killed


def main(arguments: list[str]) -> int:
    """Run the job and report on it."""
    folder, sockets = map(Path, arguments[:2])
    harness, descriptor = map(int, arguments[2:])  # its pid as it says: it may be gone by now
    os.set_inheritable(descriptor, False)
    hold_folder(folder)
    start_guard(descriptor, sockets, harness)
    from harness.execute.kernel.process import adopt_orphans, kill_until_none, running_below
    from harness.execute.kernel.variables import SECRETS_VARIABLE, mask
    from harness.model import to_json

    adopt_orphans()
    hidden = json.loads(os.environ.pop(SECRETS_VARIABLE, "[]"))  # the kernel inherits what is left
    pipe = os.fdopen(descriptor, "w", encoding="utf-8")

    def report(event: Mapping[str, Any]) -> None:
        pipe.write(json.dumps(mask(to_json(event), hidden), ensure_ascii=False) + "\n")
        pipe.flush()

    stopping: list[int] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.append(number))
    threading.Thread(target=stop_with_parent, args=(harness,), daemon=True).start()
    ending = run(folder, sockets, report, stopping, hidden)
    with contextlib.suppress(BrokenPipeError):  # the harness is gone
        report({"event": "end", **to_json(ending)})
    kill_until_none(
        lambda: running_below(os.getpid())
    )  # what the notebook started; the kernel is gone by now
    shutil.rmtree(sockets, ignore_errors=True)  # the harness may be killed before it comes to do so
    if os.getppid() != harness:
        tidy_up(sockets)
    return 0


def hold_folder(folder: Path) -> None:
    """For :func:`harness.archive.folder.await_worker`, until this worker and its guard are gone."""
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_SH | fcntl.LOCK_NB)


def start_guard(descriptor: int, sockets: Path, harness: int) -> None:
    """A process that ends the job when the harness is gone and this worker is too busy to notice.

    The thread of :func:`stop_with_parent` needs the interpreter lock, which a single call may hold for long.
    The guard is forked before anything is loaded, so it costs a few megabytes; it ends with its worker.
    """
    worker = os.getpid()
    if os.fork():
        return
    try:
        os.close(descriptor)  # the harness sees at once when the worker is gone
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        guard(worker, harness)
        tidy_up(sockets)
    finally:
        os._exit(0)  # never into the worker's own code


def guard(worker: int, harness: int) -> None:
    """Wait until the worker is gone, or make it so once its harness is."""
    while os.getppid() == worker and _parent_of(worker) == harness:
        time.sleep(PARENT_CHECK_EVERY)
    deadline = time.monotonic() + GUARD_GRACE  # for the worker to save and to stop by itself
    while os.getppid() == worker and time.monotonic() < deadline:
        time.sleep(PARENT_CHECK_EVERY / 4)
    if os.getppid() == worker:
        from harness.execute.kernel.process import kill_until_none, running_below

        os.kill(worker, signal.SIGSTOP)  # it starts nothing more
        kill_until_none(lambda: running_below(worker))  # while they still are its own
        os.kill(worker, signal.SIGKILL)


def _parent_of(pid: int) -> int | None:
    import psutil

    try:
        return psutil.Process(pid).ppid()
    except psutil.Error:
        return None


def stop_with_parent(parent: int) -> None:
    """A harness that was killed outright cannot stop its worker, so the worker looks after itself."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_EVERY)
    os.kill(os.getpid(), signal.SIGTERM)


def tidy_up(sockets: Path) -> None:
    """What the harness does after every job, were it still there."""
    from harness.execute.kernel.process import MARKER, kill_all, marked

    kill_all(marked(os.environ[MARKER]))
    shutil.rmtree(sockets, ignore_errors=True)


def give_temporary_folder(folder: Path) -> None:
    """Let the kernel's temporary files lie in *folder*, which goes with the job however that ends.

    A notebook that saves a model in ``tempfile.mkdtemp()`` leaves a hundred megabytes on the machine otherwise.
    """
    folder.mkdir()
    os.environ["TMPDIR"] = str(folder)


def import_papermill() -> None:
    """Import papermill, but without pyarrow, which it wants for HDFS alone: that costs a third of all its imports."""
    already = "pyarrow.fs" in sys.modules
    if not already:
        sys.modules["pyarrow.fs"] = None  # type: ignore[assignment]  # so that its import fails at once
    try:
        import papermill.iorw  # noqa: F401
    finally:
        if not already:
            del sys.modules["pyarrow.fs"]


def run(
    folder: Path,
    sockets: Path,
    report: Callable[[Mapping[str, Any]], None],
    stopping: list[int],
    hidden: list[str],
) -> Ending:
    """Run the job of *folder* and say how it ended."""
    import_papermill()
    from harness.execute.kernel.ending import Ending
    from harness.execute.kernel.engine import Cancelled, run_notebook
    from harness.model import JobState

    def stop(number: int, frame: object) -> None:
        raise Cancelled

    try:
        sockets.mkdir(mode=0o700)
        give_temporary_folder(sockets / "tmp")
    except OSError as error:
        return Ending(JobState.DEAD, f"cannot make {sockets} for the kernel's sockets: {error.strerror}")
    try:
        signal.signal(signal.SIGTERM, stop)
        if stopping:  # asked to stop while papermill was being imported
            raise Cancelled
        return run_notebook(read_job(folder), folder, sockets, report, hidden)
    except Cancelled:
        return Ending(JobState.CANCELLED, "interrupted")
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def read_job(folder: Path) -> Job:
    """What :func:`harness.execute.kernel.job.prepare` wrote."""
    from harness.model import Job, Limits

    told = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    exact = {
        "notebook": Path(told["notebook"]),
        "parameters": ast.literal_eval(told["literal"]),
        "limits": Limits(**told["limits"]),
    }
    return Job(**{name: told[name] for name in Job.__dataclass_fields__} | exact)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
