"""The run folder: where everything a run leaves behind is written, atomically."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, InfrastructureError
from harness.files import explain_os_error, refuse_constant
from harness.model import Metric, metric_from_json, to_json

LATEST = "latest"
OWN_FILES = (
    "manifest.json", "events.jsonl", "result.json", "junit.xml",
    "report.md", "report.en.md", "report.html", "report.en.html",
)  # fmt: skip
WORKER_GRACE = 25.0  # seconds for the worker of a harness that was killed to end


_ELSEWHERE = "name another folder with --out"


def build_dir(root: Path) -> Path:
    """The gitignored folder of everything that can be made again."""
    return root / "_build"


def runs_dir(root: Path) -> Path:
    """Where the runs of the book at *root* lie."""
    return build_dir(root) / "runs"


def create_run(root: Path, profile: str) -> Path:
    """A new, empty run folder under *root*; ``latest`` points at it afterwards."""
    runs = runs_dir(root)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    folder = runs / f"{stamp}-{profile}-{secrets.token_hex(2)}"
    _make_folder(folder / "jobs", "move it away")
    _point_latest(runs, folder.name)
    return folder


def create_run_at(folder: Path) -> Path:
    """A run folder at a place the user chose; what an earlier run left there is replaced.

    Raises:
        HarnessError: files in the way that no run left; the message names one.
        InfrastructureError: the folder cannot be made or written.
    """
    _make_folder(folder, _ELSEWHERE)
    try:
        found = [name for name in OWN_FILES if (folder / name).exists()]
        if found and not _is_of_run(folder / "manifest.json"):
            raise HarnessError(f"{folder} holds {found[0]}, which no run of the harness left; {_ELSEWHERE}")
        with claimed(folder):
            if found:
                for job in (folder / "jobs").glob("*/"):
                    await_worker(job)
                shutil.rmtree(folder / "jobs", ignore_errors=True)
            for name in found:
                (folder / name).unlink()
            (folder / "jobs").mkdir(exist_ok=True)
            probe = folder / "jobs" / f".{secrets.token_hex(4)}"
            probe.touch()
            probe.unlink()
    except OSError as error:
        raise explain_os_error(error, f"cannot write to {folder}", _ELSEWHERE) from None
    return folder


def await_worker(folder: Path) -> None:
    """Wait until nobody writes to this job's folder: the worker of a harness that was killed may still be ending.

    Raises:
        InfrastructureError: it does not end.
        OSError: there is no such folder.
    """
    handle = os.open(folder, os.O_RDONLY)
    deadline = time.monotonic() + WORKER_GRACE
    try:
        while not _try_to_lock(handle):
            if time.monotonic() > deadline:
                raise InfrastructureError(f"a worker does not end in {folder}; kill it, or {_ELSEWHERE}")
            time.sleep(0.1)
    finally:
        os.close(handle)


def _try_to_lock(handle: int) -> bool:
    """False where another process holds it; a file system may have no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Nobody else writes to this run folder meanwhile; the system lets it go however this process ends.

    Raises:
        HarnessError: another harness is at work in it.
    """
    try:
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise explain_os_error(error, f"cannot write to {folder}", _ELSEWHERE) from None
    try:
        if not _try_to_lock(handle):
            raise HarnessError(f"another harness is at work in {folder}; wait for it, or {_ELSEWHERE}")
        yield
    finally:
        os.close(handle)


def _is_of_run(manifest: Path) -> bool:
    """Whether it is the manifest of a run: other programs have a manifest.json, too."""
    try:
        data = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return is_manifest(data)


def is_manifest(data: Any) -> bool:
    """Whether *data* is the manifest of a run."""
    return isinstance(data, dict) and {"schema", "run", "jobs"} <= data.keys()


def _make_folder(folder: Path, remedy: str) -> None:
    try:
        place = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        if not place.is_dir():
            raise InfrastructureError(f"cannot create {folder}: {place} is a file; {remedy}")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, f"cannot create {folder}", _ELSEWHERE) from None


def _point_latest(runs: Path, name: str) -> None:
    temporary = runs / f".{LATEST}-{secrets.token_hex(4)}"
    try:
        temporary.symlink_to(name, target_is_directory=True)
    except OSError:  # a file system without links
        temporary.write_text(name, encoding="utf-8")
    temporary.replace(runs / LATEST)


def latest_name(runs: Path) -> str | None:
    """Name of the newest run, None where there is none."""
    pointer = runs / LATEST
    if pointer.is_symlink():
        name = pointer.readlink().name
    elif pointer.is_file():
        name = pointer.read_text(encoding="utf-8", errors="replace").strip()
    else:
        return None
    return name if name and (runs / name).is_dir() else None


def find_run(root: Path, name: str = LATEST) -> Path:
    """The run folder called *name*: ``latest``, an id, the beginning of one, or a path."""
    runs = runs_dir(root)
    if name == LATEST:
        newest = latest_name(runs)
        if newest is None:
            raise HarnessError(f"no run yet under {runs}; start one with `harness run`")
        return runs / newest
    for folder in (runs / name, Path(name)):
        if _holds_run(folder):
            return folder
    names = (path.name for path in runs.glob("*"))
    found = sorted(runs / full for full in names if full.startswith(name) and _holds_run(runs / full))
    if len(found) == 1:
        return found[0]
    if found:
        raise HarnessError(f"run {name!r} fits several: {', '.join(p.name for p in found)}; type more of it")
    raise HarnessError(f"no run {name!r} under {runs}; see the folder, or use latest")


def _holds_run(folder: Path) -> bool:
    try:
        return (folder / "manifest.json").is_file()
    except (OSError, ValueError):  # no file can have such a name
        return False


def load_metrics(path: Path) -> tuple[tuple[Metric, ...], tuple[str, ...]]:
    """Metrics of a ``metrics.jsonl``, and one warning for each kind of line that was left out.

    A kernel that dies in the middle of a write leaves half a line, and nothing stops a chapter from writing to
    the file itself: all that is right is kept, and of a repeated name the first.
    """
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return (), ()
    except OSError as error:
        return (), (f"{path.name} cannot be read: {error.strerror or error}",)
    metrics: dict[str, Metric] = {}
    broken = 0
    repeated: list[str] = []
    for line in lines:
        try:
            metric = metric_from_json(json.loads(line, parse_constant=refuse_constant))
        except (ValueError, RecursionError):
            broken += bool(line.strip())
            continue
        if metric.name in metrics:
            repeated.append(metric.name)
        metrics.setdefault(metric.name, metric)
    warnings = []
    if broken:
        warnings.append(f"{broken} unreadable line(s) in {path.name} left out")
    if repeated:
        shown = ", ".join(dict.fromkeys(repeated))
        warnings.append(f"recorded more than once in {path.name}, the first counts: {shown}")
    return tuple(metrics.values()), tuple(warnings)


class EventLog:
    """Append every event of a run to ``events.jsonl`` and hand it on; safe from several threads.

    A file that cannot be written any more (full disk) stops nothing: ``trouble`` says what happened.
    """

    def __init__(self, path: Path, *listeners: Callable[[Mapping[str, Any]], None]) -> None:
        self._lock = threading.Lock()
        self._listeners = listeners
        self._path = path
        self.trouble = ""
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise explain_os_error(error, f"cannot write {path}") from None

    def __call__(self, event: Mapping[str, Any]) -> None:
        event = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **event}
        with self._lock:
            try:
                self._file.write(json.dumps(to_json(event), ensure_ascii=False, allow_nan=False) + "\n")
                self._file.flush()
            except OSError as error:
                self._note(error)
            for listener in self._listeners:
                listener(event)

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            self._note(error)

    def _note(self, error: OSError) -> None:
        self.trouble = self.trouble or str(explain_os_error(error, f"cannot write {self._path}"))
