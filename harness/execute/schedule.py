"""Which job runs when, and with what: the longest first, as many at once as cores, memory and GPUs allow.

What a job needs is known from earlier runs. Cores are divided among the jobs, so that their thread pools do not
fight; a GPU belongs to one job at a time, across all runs of a user on the machine, by a lock on a file that the
system releases when the harness ends in whatever way.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from harness.archive.environment import cores, hardware_class, memory_bytes, nvidia_gpus
from harness.archive.folder import runs_dir
from harness.archive.speed import Speed
from harness.errors import HarnessError
from harness.files import read_json
from harness.model import Job, JobState

UNKNOWN_MB = 1024.0  # of memory, for a job that never ran here
MEMORY_SHARE = 0.9  # of what is free at the start
CORES_OF_USE = 4  # to one job: a small model gains little from more
JOBS_A_PLACE = 4  # one after another, at least, where jobs are to have fewer cores than that
HISTORY = 20  # newest runs that are looked through
POLL = 0.5  # seconds between tries for a GPU that another run holds

T = TypeVar("T")


@dataclass(frozen=True)
class Machine:
    """What the jobs of a run share."""

    jobs: int  # at once
    threads: int | None  # of each job's pools; None: as many as the libraries like
    memory_mb: float
    gpus: tuple[str, ...] = ()  # ids for CUDA_VISIBLE_DEVICES, one job each; empty: no job takes a GPU
    pinned: bool = False  # the user named the GPU (cuda:1): it is locked, not renumbered
    speed: Speed | None = None  # None: not known yet, or not one machine


@dataclass(frozen=True)
class Need:
    """What a job took the last time it ran."""

    seconds: float = 0.0  # 0: never seen
    memory_mb: float = UNKNOWN_MB


def find_machine(
    device: str,
    count: int,
    *,
    jobs: int | None = None,
    memory_gb: float | None = None,
    gpus: str | None = None,
) -> Machine:
    """What there is for *count* jobs on *device*; what the user gave goes before what is found.

    At once runs one job for every few cores; more, down to one a core, where each place will see several jobs: most
    chapters gain little from a second thread (measured on two cores: this book's eight took 8 min 5 s two at a time
    and 13 min 11 s one after another), but the last job runs alone with the threads that it began with.

    Args:
        gpus: ids with commas, or how many of those found; None takes all that this process may see.

    Raises:
        HarnessError: the user gave what cannot be.
    """
    import psutil

    if jobs is not None and jobs < 1:
        raise HarnessError(f"--jobs must be 1 or more, not {jobs}")
    if memory_gb is not None and not 0 < memory_gb < float("inf"):
        raise HarnessError(f"--memory must be a number of gigabytes above 0, not {memory_gb:g}")
    free = min(float(psutil.virtual_memory().available), float(memory_bytes())) * MEMORY_SHARE
    memory_mb = (memory_gb * 2**30 if memory_gb is not None else free) / 2**20
    on_gpu, pinned = hardware_class(device).startswith("cuda"), device.startswith("cuda:")
    ids = (device.partition(":")[2],) if pinned else _gpu_ids(gpus) if on_gpu or gpus is not None else ()
    if pinned and gpus is not None:
        raise HarnessError(f"--device {device} names a GPU and --gpus {gpus} others; give one of them")
    limit = len(ids) if ids else min(cores(), max(1, count // JOBS_A_PLACE, cores() // CORES_OF_USE))
    limit = min(max(1, count), limit)
    at_once = limit if jobs is None else min(jobs, max(1, count), len(ids) or jobs)
    return Machine(at_once, max(1, cores() // at_once) if at_once > 1 else None, memory_mb, ids, pinned)


def _gpu_ids(given: str | None) -> tuple[str, ...]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        found = tuple(part.strip() for part in visible.split(",") if part.strip())
    else:
        found = tuple(str(i) for i in range(len(nvidia_gpus())))
    if given is None:
        return found
    chosen = tuple(part.strip() for part in given.split(",") if part.strip())
    if len(chosen) == 1 and chosen[0].isdigit() and "," not in given:
        if not 1 <= int(given) <= len(found):
            raise HarnessError(
                f"--gpus {given}: this machine has {len(found)}; give 1 to that, or ids such as 0,2"
            )
        return found[: int(given)]
    if not chosen or any(one not in found for one in chosen):
        known = ", ".join(found) or "none"
        raise HarnessError(f"--gpus {given!r}: give a count, or ids among those of this machine: {known}")
    return chosen


# --- history -------------------------------------------------------------------------------------------


def needs(root: Path, jobs: Sequence[Job]) -> dict[str, Need]:
    """By job id: time and memory when it last completed; another seed of the notebook stands in for a new one."""
    wanted, found = {_kind(job.notebook, job.profile) for job in jobs}, {}
    folders = sorted((p for p in runs_dir(root).glob("*") if p.is_dir() and not p.is_symlink()), reverse=True)
    for folder in folders[:HISTORY]:
        if wanted <= found.keys():
            break
        for kind, need in _needs_of_run(folder).items():
            found.setdefault(kind, need)
    return {job.id: found.get(_kind(job.notebook, job.profile), Need()) for job in jobs}


def _kind(notebook: Path | str, profile: str) -> tuple[str, str]:
    return Path(notebook).name, profile


def _needs_of_run(folder: Path) -> Mapping[tuple[str, str], Need]:
    """The longest of each kind in one run; nothing of a run that cannot be read."""
    found: dict[tuple[str, str], Need] = {}
    try:
        for job in read_json(folder / "result.json")["jobs"]:
            if job["state"] == JobState.COMPLETED:
                kind, seconds = _kind(job["notebook"], job["profile"]), float(job["seconds"])
                if kind not in found or found[kind].seconds < seconds:
                    found[kind] = Need(seconds, float(job.get("peak_rss_mb") or UNKNOWN_MB))
    except (HarnessError, KeyError, TypeError, ValueError):
        return {}
    return found


# --- running -------------------------------------------------------------------------------------------


@dataclass
class Schedule(Generic[T]):
    """Hands out jobs to as many threads as may run at once.

    Args:
        entries: the jobs, in any order.
        need: of one of them.
        stopped: once true, waiting ends and the rest is handed out at once: to be cancelled.
    """

    machine: Machine
    entries: Sequence[T]
    need: Callable[[T], Need]
    stopped: Callable[[], bool]
    _waiting: list[T] = field(init=False)
    _free_mb: float = field(init=False)
    _running: int = field(init=False, default=0)
    _change: threading.Condition = field(init=False, default_factory=threading.Condition)

    def __post_init__(self) -> None:
        never_seen = max((self.need(entry).seconds for entry in self.entries), default=0.0)
        self._waiting = sorted(self.entries, key=lambda entry: -(self.need(entry).seconds or never_seen))
        self._free_mb = self.machine.memory_mb

    def run(self, start: Callable[[T, str | None], Any]) -> list[Any]:
        """Call ``start(entry, gpu)`` for each entry; the results in the order of ``entries``.

        Raises:
            BaseException: what a call raised, once all have ended.
        """
        results: dict[int, Any] = {}
        position = {id(entry): i for i, entry in enumerate(self.entries)}

        def work() -> None:
            while (entry := self._next()) is not None:
                try:
                    with self._gpu() as gpu:
                        results[position[id(entry)]] = start(entry, gpu)
                finally:
                    self._end(entry)

        with ThreadPoolExecutor(max_workers=self.machine.jobs, thread_name_prefix="job") as pool:
            futures = [pool.submit(work) for _ in range(min(self.machine.jobs, len(self.entries)))]
        for future in futures:
            future.result()
        return [results[i] for i in range(len(self.entries))]

    def _next(self) -> T | None:
        """The longest waiting job that fits into the memory; any job fits where none runs."""
        with self._change:
            while self._waiting:
                for i, entry in enumerate(self._waiting):
                    need = self.need(entry).memory_mb
                    if need <= self._free_mb or not self._running or self.stopped():
                        del self._waiting[i]
                        self._free_mb -= need
                        self._running += 1
                        return entry
                self._change.wait(POLL)
            return None

    def _end(self, entry: T) -> None:
        with self._change:
            self._free_mb += self.need(entry).memory_mb
            self._running -= 1
            self._change.notify_all()

    @contextmanager
    def _gpu(self) -> Iterator[str | None]:
        """A GPU that no other job of this user holds, where jobs take one."""
        if not self.machine.gpus:
            yield None
            return
        with _lock_one(self.machine.gpus, self.stopped) as gpu:
            yield None if self.machine.pinned else gpu


@contextmanager
def _lock_one(gpus: Sequence[str], stopped: Callable[[], bool]) -> Iterator[str | None]:
    """Lock the first free GPU, waiting for one; None if the wait was given up."""
    folder = Path(tempfile.gettempdir()) / f"harness-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    while (held := _try_each(folder, gpus)) is None:
        if stopped():
            yield None
            return
        time.sleep(POLL)
    gpu, handle = held
    try:
        yield gpu
    finally:
        os.close(handle)  # and with it the lock


def _try_each(folder: Path, gpus: Sequence[str]) -> tuple[str, int] | None:
    for gpu in gpus:
        handle = os.open(folder / f"{gpu.replace('/', '_')}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
        else:
            return gpu, handle
    return None
