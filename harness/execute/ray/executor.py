"""Execute the jobs of a run on the nodes of a Ray cluster, with the results, states and files of a local run.

Each job is an actor of its own, which Ray places where cores, memory and a GPU are free. It works in a folder that
only it knows: the book travels as a tar file, the job's files come back when it ends, events and recorded metrics while
it runs. A node that is lost has its job started once more elsewhere; a job whose Ray worker alone was killed is dead.
"""

from __future__ import annotations

import io
import math
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.archive.nodes import Site
from harness.errors import HarnessError, InfrastructureError
from harness.execute.executor import Run
from harness.execute.kernel.process import PACKAGE_PARENT
from harness.execute.kernel.variables import DECIDING, matches
from harness.execute.ray import remote as ray_remote
from harness.execute.ray.node import BOOK
from harness.execute.ray.task import Cargo, Task, root_of
from harness.execute.schedule import Machine, Need
from harness.files import explain_os_error
from harness.model import Job, JobResult

CONNECT_TIMEOUT = 20.0  # seconds for a cluster to say that it is there
PACK_LIMIT = 500 * 2**20  # bytes of all files
LEFT_OUT = frozenset(
    {".git", ".hg", ".venv", "venv", "_build", "node_modules", "__pycache__", ".ipynb_checkpoints",
     ".mypy_cache", ".pytest_cache", ".ruff_cache"}
)  # fmt: skip
"""Names of folders that are made again or concern nobody but their owner."""


@contextmanager
def connected(address: str | None, device: str, *, shared: bool, jobs: int | None) -> Iterator[RayExecutor]:
    """An executor on the cluster at *address*, or on the one that RAY_ADDRESS or this machine names.

    Raises:
        HarnessError: Ray is not installed, or the cluster has nothing for *device*.
        InfrastructureError: no cluster answers there.
    """
    try:
        import ray
    except ImportError:
        raise HarnessError("--executor ray needs Ray: pip install ray") from None
    if device.startswith("cuda:"):
        raise HarnessError(f"--device {device} names a GPU of this machine; say cuda with --executor ray")
    address = address or os.environ.get("RAY_ADDRESS") or "auto"
    _check_address(address)
    _quieten(ray)
    kept = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", namespace="harness")
    except (Exception, SystemExit) as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise InfrastructureError(f"cannot connect to the Ray cluster at {address}: {what}") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, kept)  # Ray puts its own there
    try:
        yield RayExecutor(ray, _shares(ray, device, address), shared, jobs)
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Ray itself waits for minutes for a cluster that is not there, and ends the process then."""
    if address == "auto" or "://" in address:
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT).close()
        command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
        subprocess.run(command, capture_output=True, timeout=CONNECT_TIMEOUT, check=True)
    except (ValueError, OverflowError):
        raise InfrastructureError(
            f"--address {address!r}: expected HOST:PORT, ray://HOST:PORT or auto"
        ) from None
    except (OSError, subprocess.SubprocessError):
        raise InfrastructureError(
            f"no Ray cluster answers at {address}; start one with `ray start --head`, or correct --address"
        ) from None


def _quieten(ray: Any) -> None:
    """What Ray prints of a worker's or node's end, the harness says itself, in one line."""
    worker = getattr(getattr(ray, "_private", None), "worker", None)
    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda *arguments, **options: None


@dataclass(frozen=True)
class Share:
    """What a node has for jobs."""

    cores: int
    memory: int  # bytes
    gpus: int  # 0 where jobs take none


def _shares(ray: Any, device: str, address: str) -> list[Share]:
    """Of all nodes that can take a job on *device*; under auto, those with a GPU where there are any."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpu = device == "cuda" or (device == "auto" and any(r.get("GPU", 0) >= 1 for r in found))
    shares = [
        Share(int(r.get("CPU", 0)), int(r.get("memory", 0)), int(r.get("GPU", 0)) if gpu else 0)
        for r in found
        if r.get("CPU", 0) >= 1 and (not gpu or r.get("GPU", 0) >= 1)
    ]
    if not shares:
        lacks = "a GPU" if gpu else "a core for jobs"
        raise InfrastructureError(f"no node of the Ray cluster at {address} has {lacks}; add one to it")
    return shares


def divide(shares: Sequence[Share], count: int, jobs: int | None) -> tuple[int, int]:
    """Cores of each of *count* jobs, and how many run at once (at most *jobs*, if given)."""
    at_once = min(count, jobs or count)
    per_node = math.ceil(at_once / len(shares))
    if gpus := min(share.gpus for share in shares):
        per_node = min(per_node, gpus)
    cores = max(1, min(share.cores for share in shares) // per_node)
    room = sum(min(share.cores // cores, share.gpus) if gpus else share.cores // cores for share in shares)
    return cores, min(at_once, max(1, room))


@dataclass
class RayExecutor:
    """A connected cluster; see :class:`harness.execute.executor.Executor`."""

    ray: Any
    shares: Sequence[Share]
    shared: bool  # the nodes see the notebooks under the same paths
    jobs: int | None
    _run: Run = field(init=False)
    _needs: Mapping[str, Need] = field(init=False)
    _cargo: Cargo = field(init=False)

    def open(self, run: Run, jobs: Sequence[Job], needs: Mapping[str, Need]) -> Machine:
        cores, at_once = divide(self.shares, len(jobs), self.jobs)
        self._run, self._needs, self._cargo = run, needs, self._load(run, jobs, cores)
        return Machine(at_once, cores, memory_mb=math.inf)  # Ray finds each its place

    def run(self, job: Job, gpu: str | None) -> tuple[JobResult, Site | None]:
        task = Task(self._run, self._cargo, self._run.place(job), self._needs[job.id].memory_mb)
        return task.run(), task.site

    def _load(self, run: Run, jobs: Sequence[Job], cores: int) -> Cargo:
        """Put into the cluster's store what its nodes need."""
        ray = self.ray
        ray.cloudpickle.register_pickle_by_value(ray_remote)
        books: dict[Path, Any] = {}
        for root in {root_of(job, run) for job in jobs}:
            books[root] = None if self.shared else ray.put(pack(root, BOOK))
        names = (*DECIDING, *run.variables)
        plain = subprocess.run([sys.executable, "-c", "import harness"], cwd="/", capture_output=True)
        return Cargo(
            ray,
            actor=ray.remote(max_restarts=0, max_concurrency=4)(ray_remote.RemoteJob),
            code=ray.put(pack(PACKAGE_PARENT / "harness", "harness")),
            books=books,
            variables={name: value for name, value in os.environ.items() if matches(name, names)},
            harness_visible=plain.returncode == 0,
            cores=cores,
            gpus=1 if self.shares[0].gpus else 0,
            memory=max(share.memory for share in self.shares),
        )


# -- what travels to a node --------------------------------------------------------------------------


def pack(folder: Path, prefix: str = "", limit: int = PACK_LIMIT) -> bytes:
    """Every file below *folder* but for what lies in ``LEFT_OUT``, links followed; names begin with *prefix*.

    Raises:
        HarnessError: it holds more than *limit* bytes.
        InfrastructureError: a file cannot be read.
    """
    buffer, size = io.BytesIO(), 0
    try:
        with tarfile.open(fileobj=buffer, mode="w", dereference=True) as tar:
            for path in _files(folder):
                size += path.stat().st_size
                if size > limit:
                    raise HarnessError(
                        f"{folder} holds more than {limit >> 20} MB, too much to send to the nodes: move data out"
                        " of it, or use --shared where every node sees this folder under the same path"
                    )
                name = Path(prefix, path.relative_to(folder)).as_posix()
                tar.add(path, name, recursive=False)
    except OSError as error:
        raise explain_os_error(error, f"cannot read {error.filename or folder}") from None
    return buffer.getvalue()


def _files(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()  # a link may lead back
    for directory, names, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(directory)) in seen or Path(directory, "pyvenv.cfg").is_file():
            names.clear()
            continue
        seen.add(real)
        names[:] = sorted(set(names) - LEFT_OUT)
        for name in sorted(files):
            path = Path(directory, name)
            if path.is_file():  # no socket, no broken link
                yield path
