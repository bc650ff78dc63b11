"""Run folders at any address that fsspec reads: ``s3://…``, ``gs://…``, ``memory://…``, ``file://…``, ``https://…``.

A run is written to a local folder and copied while it goes on: its manifest first, each job's folder when it ends,
result.json last of all, so that whoever sees that file sees a whole run. A run that is read is copied here first.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.archive.folder import OWN_FILES, create_run, create_run_at, is_manifest, runs_dir
from harness.errors import HarnessError, InfrastructureError

JOB_FILES = ("job.json", "log.txt", "metrics.jsonl", "out.ipynb", "result.json")
_LAST = "result.json"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_fetched: list[Path] = []  # temporary copies, to be removed
_names: dict[Path, str] = {}  # of temporary folders, the addresses they stand for


def is_url(name: str) -> bool:
    """``s3://bucket/run`` is one, a path is not."""
    return _URL.match(name) is not None


# --- writing -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunPlace:
    """Where a run is written."""

    folder: Path
    name: str  # what the user knows it as
    listen: Callable[[Mapping[str, Any]], None] = lambda event: None  # to be told every event of the run


@contextmanager
def run_place(out: str | None, root: Path, profile: str) -> Iterator[RunPlace]:
    """An empty run folder: at *out*, a folder or a URL, else among the runs of the book at *root*.

    A folder of the book in which no run began is removed; what went to a URL is complete when this ends.
    """
    if out is not None and is_url(out):
        with _copied(out) as place:
            yield place
        return
    if out is not None:
        folder = create_run_at(Path(out).absolute())
        yield RunPlace(folder, str(folder))
        return
    latest = runs_dir(root) / "latest"
    if latest.is_dir() and not latest.is_symlink():
        raise HarnessError(f"{latest} is a folder where the harness keeps a link; rename or remove it")
    folder = create_run(root, profile)
    try:
        yield RunPlace(folder, str(folder))
    except BaseException:
        if not (folder / "manifest.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def _copied(url: str) -> Iterator[RunPlace]:
    mirror = _open(url)
    with _explained(f"cannot write to {url}"):
        mirror.clear()
    base = Path(tempfile.mkdtemp(prefix="harness-out-"))
    folder = create_run_at(base / mirror.name)
    _names[folder] = url
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="copy") as pool:
        copies: list[Future[None]] = []

        def listen(event: Mapping[str, Any]) -> None:
            if event["event"] == "run_start":
                copies.append(pool.submit(mirror.put, folder, Path("manifest.json")))
            elif event["event"] == "job_end":
                copies.append(pool.submit(mirror.put_job, folder, str(event["job"])))

        try:
            yield RunPlace(folder, url, listen)
        except BaseException:
            if (folder / "manifest.json").exists():  # what there is of a run is the user's
                with suppress(Exception):
                    mirror.put_rest(folder)
            shutil.rmtree(base, ignore_errors=True)
            raise
        with _explained(f"cannot write to {url}", f"; the run is in {folder}"):
            for copy in copies:
                copy.result()
            mirror.put_rest(folder)
    shutil.rmtree(base, ignore_errors=True)


@dataclass
class _Mirror:
    """A run folder on a file system of fsspec."""

    url: str
    system: Any
    path: str
    _made: set[str] = field(default_factory=set)  # folders
    _jobs: set[str] = field(default_factory=set)  # that were copied

    @property
    def name(self) -> str:
        return Path(self.path).name or "run"

    def at(self, relative: Path | str) -> str:
        return f"{self.path.rstrip('/')}/{Path(relative).as_posix()}"

    def clear(self) -> None:
        """Remove what an earlier run left; show that one can write there."""
        found = [name for name in OWN_FILES if self.system.exists(self.at(name))]
        if found and not self._holds_run():
            raise HarnessError(
                f"{self.url} holds {found[0]}, which no run of the harness left; name another --out"
            )
        for name in sorted(found, key=lambda name: name != _LAST):  # what says that it is whole goes first
            self.system.rm_file(self.at(name))
        if found and self.system.exists(self.at("jobs")):
            self.system.rm(self.at("jobs"), recursive=True)
        self.system.makedirs(self.path, exist_ok=True)
        self.system.pipe_file(self.at(".harness"), b"")
        self.system.rm_file(self.at(".harness"))

    def _holds_run(self) -> bool:
        with suppress(OSError, ValueError, RecursionError):
            return is_manifest(json.loads(self.system.cat_file(self.at("manifest.json"))))
        return False

    def put(self, folder: Path, relative: Path) -> None:
        parent = self.at(relative.parent)
        if parent not in self._made:
            self.system.makedirs(parent, exist_ok=True)
            self._made.add(parent)
        self.system.put_file(str(folder / relative), self.at(relative))

    def put_job(self, folder: Path, job: str) -> None:
        for path in sorted((folder / "jobs" / job).rglob("*")):
            if path.is_file():
                self.put(folder, path.relative_to(folder))
        self._jobs.add(job)

    def put_rest(self, folder: Path) -> None:
        """What is not of a job that ended, and what changed since the start; result.json last."""
        for path in sorted((folder / "jobs").glob("*")):
            if path.name not in self._jobs:
                self.put_job(folder, path.name)
        for path in sorted(folder.glob("[!.]*"), key=lambda path: path.name == _LAST):
            if path.is_file():
                self.put(folder, Path(path.name))

    def get(self, relative: Path, folder: Path) -> bool:
        """Copy one file here, if it is there."""
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        try:
            self.system.get_file(self.at(relative), str(folder / relative))
        except FileNotFoundError:
            (folder / relative).unlink(missing_ok=True)
            return False
        return True


# --- reading -------------------------------------------------------------------------------------------


def fetch(url: str) -> Path:
    """A temporary copy of the run folder at *url*; see :func:`fetched_folders`.

    Raises:
        HarnessError: there is no run, or it is damaged.
        InfrastructureError: the address cannot be read.
    """
    from harness.archive.recorded import read_manifest

    mirror = _open(url)
    folder = Path(tempfile.mkdtemp(prefix="harness-run-")) / mirror.name
    _fetched.append(folder)
    _names[folder] = url
    with _explained(f"cannot read {url}"):
        if not mirror.get(Path("manifest.json"), folder):
            raise HarnessError(f"no run at {url}: it holds no manifest.json")
        for name in OWN_FILES:
            if name != "manifest.json":
                mirror.get(Path(name), folder)
        for job in read_manifest(folder).jobs:
            if Path(job).name != job:
                raise HarnessError(f"{url}/manifest.json: {job!r} is no job of the harness")
            for name in JOB_FILES:
                mirror.get(Path("jobs", job, name), folder)
    return folder


def name_of(folder: Path) -> str:
    """What the user knows a run folder as."""
    return _names.get(folder, str(folder))


@contextmanager
def fetched_folders() -> Iterator[None]:
    """Remove what :func:`fetch` copied, at the end of a command."""
    try:
        yield
    finally:
        for folder in _fetched:
            shutil.rmtree(folder.parent, ignore_errors=True)
        _fetched.clear()


# --- addresses -----------------------------------------------------------------------------------------


def _open(url: str) -> _Mirror:
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(url)
    except (ValueError, ImportError) as error:  # an unknown scheme, a package that speaks it is missing
        raise HarnessError(f"cannot use {url}: {_line(error)}") from None
    except Exception as error:
        raise InfrastructureError(f"cannot use {url}: {_line(error)}") from None
    return _Mirror(url.rstrip("/"), system, str(path))


@contextmanager
def _explained(doing: str, more: str = "") -> Iterator[None]:
    """File systems raise whatever their client library does: one line for all of it."""
    try:
        yield
    except HarnessError:
        raise
    except Exception as error:
        raise InfrastructureError(f"{doing}: {_line(error)}{more}") from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
