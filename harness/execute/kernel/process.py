"""The one module that touches processes: start a job's worker, watch its tree, leave nothing behind.

A job's processes are found in four ways, because each alone can be escaped: the worker's process group
and descendants, the environment marker that every child inherits, the descendants seen while the job
ran (a daemon that clears its environment and detaches was still seen as a child before), and, where the
worker was killed, the orphans that came to this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

MARKER = "HARNESS_JOB"
"""Environment variable whose value marks every process of one job."""

PACKAGE_PARENT = Path(__file__).resolve().parents[3]
"""Working folder of workers: puts the package on sys.path without touching the kernel's environment."""

PR_SET_CHILD_SUBREAPER = 36  # of prctl(2)

_starting = threading.Lock()
"""Held while a worker is started: until it has its own environment it could be taken for an orphan."""


class WorkerProcess:
    """A worker in a session of its own, with a pipe on which it reports.

    Args:
        arguments: of ``harness.execute.kernel.worker``, but for the descriptor of the pipe.
        environment: of the worker and so of the kernel.
        log: what both print outside the notebook.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        log: IO[Any],
    ) -> None:
        self.marker = environment[MARKER]
        self._seen: dict[tuple[int, float], psutil.Process] = {}
        self.rss = self.peak_rss = 0  # bytes, of the whole tree
        self._started = time.time()
        adopt_orphans()
        read_end, write_end = os.pipe()
        try:
            with _starting:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "harness.execute.kernel.worker", *arguments, str(write_end)],
                    cwd=PACKAGE_PARENT,
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(write_end,),
                    start_new_session=True,
                )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        self.reports = read_end

    @property
    def returncode(self) -> int | None:
        return self.process.poll()

    def sample(self) -> None:
        """Note every process of the tree and the memory that all of them hold together."""
        for process in self._descendants():
            with contextlib.suppress(psutil.Error):
                self._seen[process.pid, process.create_time()] = process
        self.rss = 0
        for process in self._seen.values():
            with contextlib.suppress(psutil.Error):
                self.rss += process.memory_info().rss
        self.peak_rss = max(self.peak_rss, self.rss)

    def ask_to_stop(self) -> None:
        """SIGTERM to the worker alone: it saves the notebook, then ends the kernel."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()

    def end(self) -> None:
        """Kill whatever is left of the job and collect the worker."""
        self.sample()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        kill_all([*self._seen.values(), *marked(self.marker)])
        kill_all(marked(self.marker))  # children that were started while we killed
        if self.process.wait():  # it could not do so itself
            kill_until_none(self._orphans)
        collect(pid for pid, _ in self._seen)
        with contextlib.suppress(OSError):
            os.close(self.reports)

    def _orphans(self) -> list[psutil.Process]:
        """What came to this process when the worker was killed, detached and without its marker.

        A worker and all that is its own carry a marker; other children of this process share its
        session, or are older than the job.
        """
        found, own = [], os.getsid(0)
        with _starting:
            for child in psutil.Process().children():
                with contextlib.suppress(psutil.Error, OSError):
                    if child.create_time() < self._started - 1 or os.getsid(child.pid) == own:
                        continue
                    if is_alive(child) and MARKER not in child.environ():
                        found += [child, *child.children(recursive=True)]
        return found

    def _descendants(self) -> list[psutil.Process]:
        try:
            worker = psutil.Process(self.process.pid)
            return [worker, *worker.children(recursive=True)]
        except psutil.Error:
            return []


def is_linux() -> bool:
    return sys.platform.startswith("linux")


def adopt_orphans() -> None:
    """On Linux, a process whose parent ends becomes a child of this one, which can then find and collect it.

    Without that a detached process with a cleared environment belongs to nobody.
    """
    if is_linux():
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def marked(marker: str) -> list[psutil.Process]:
    """Every process that carries *marker* in its environment."""
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARKER) == marker:
                found.append(process)
    return found


def kill_all(processes: Sequence[psutil.Process], wait: float = 5.0) -> None:
    """SIGKILL, then wait until they are gone. psutil compares start times, so a reused pid is safe."""
    alive = []
    for process in processes:
        if process.pid in (os.getpid(), 0, 1):
            continue
        with contextlib.suppress(psutil.Error):
            process.kill()
            alive.append(process)
    deadline, pause = time.monotonic() + wait, 0.001
    while (alive := [p for p in alive if is_alive(p)]) and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(2 * pause, 0.02)


def kill_until_none(find: Callable[[], Sequence[psutil.Process]], rounds: int = 5) -> None:
    """Kill what *find* returns; killing a parent may bring its children here, so look again."""
    for _ in range(rounds):
        if not (found := find()):
            return
        kill_all(found)
        collect(process.pid for process in found)


def running_below(pid: int) -> list[psutil.Process]:
    """Descendants of *pid* that are alive, without this process."""
    try:
        below = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
    return [process for process in below if process.pid != os.getpid() and is_alive(process)]


def cpu_seconds(pid: int | None) -> float:
    """Processor seconds that process *pid* and its descendants have used, those included that a parent waited for."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid) if pid is not None else None
        for one in [process, *process.children(recursive=True)] if process else ():
            with contextlib.suppress(psutil.Error):
                total += sum(one.cpu_times()[:4])  # own and of children that were waited for, user and system
    return total


def collect(pids: Iterable[int]) -> None:
    """Bury those that ended as children of this process: where it adopts orphans they would stay as zombies."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError, PermissionError):
            os.waitpid(pid, os.WNOHANG)


def is_alive(process: psutil.Process) -> bool:
    """It runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
