"""Skip a chapter when nothing that could change its result changed.

Two things are compared. The key covers what is known before a chapter runs: the code cells, the parameters, the profile
and seed, the files that its text reaches (:mod:`harness.book.sources`), ``harness/record.py``, the versions of all
installed distributions, the hardware class and the environment variables that choose data. The entry of a key also says
what the run really read (:mod:`harness.execute.reads`), and holds only as long as all of that is the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache as memoise
from pathlib import Path
from typing import Any

from harness.archive.folder import build_dir
from harness.book.notebook import Notebook
from harness.book.sources import files_below, follow
from harness.errors import HarnessError
from harness.execute.kernel.opened import READS
from harness.execute.kernel.variables import DECIDING, matches
from harness.execute.reads import NOTHING, Reads, changes, file_digest, read_reads
from harness.files import PACKAGE, explain_os_error, read_json, write_json
from harness.model import Job, JobResult, JobState, job_result_from_json

VERSION = 3  # raise it when the meaning of a key or an entry changes
KEPT_FILES = ("out.ipynb", "metrics.jsonl", "result.json", "log.txt", READS)


# -- the key -----------------------------------------------------------------------------------------


def key_of(parts: Mapping[str, Any]) -> str:
    """The key that these parts make."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def key_parts(
    job: Job,
    notebook: Notebook,
    root: Path,
    packages: Sequence[str],
    hardware: str,
    variables: Sequence[str] = (),
    data: Sequence[Path] = (),
) -> dict[str, Any]:
    """Everything that can change the result of *job*, in plain JSON types, by what it is.

    Args:
        packages: the book's own, below *root*.
        variables: names of the environment variables that the book adds, ``*`` at the end for any rest.
        data: files that the book says it reads; which they are belongs to the key, what is in them to the entry.
    """
    return {
        "version": VERSION,
        "code": [_short_digest(_normalised(cell.source)) for cell in notebook.code],
        "tags": [sorted(cell.tags) for cell in notebook.code],
        "kernel": notebook.kernel,
        "folder": os.path.relpath(notebook.path.parent, root),
        "parameters": {name: repr(value) for name, value in sorted(job.parameters.items())},
        "profile": job.profile,
        "seed": job.seed,
        "hardware": hardware,
        "python": sys.version,
        "distributions": list(distributions()),
        "variables": _variables(os.environ, (*DECIDING, "PYTHONPATH", *variables)),
        "files": _digests(root, follow(notebook, root, packages).files),
        "local": _digests(root, _parameter_files(job.parameters.values(), notebook.path.parent)),
        "data": sorted(os.path.relpath(path, root) for path in data),
        "record": file_digest(PACKAGE / "record.py"),
    }


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _normalised(source: str) -> str:
    return "\n".join(line.rstrip() for line in source.strip().splitlines())


def _variables(environment: Mapping[str, str], patterns: Sequence[str]) -> dict[str, str]:
    return {name: environment[name] for name in sorted(environment) if matches(name, patterns)}


@memoise
def distributions() -> tuple[str, ...]:
    """``name-version`` of every installed distribution, from the names of their metadata folders."""
    found, entries = set(), [Path(entry or ".").absolute() for entry in sys.path]
    for place in entries:
        inside = any(place != other and place.is_relative_to(other) for other in entries)
        if inside and place.name not in ("site-packages", "dist-packages"):
            continue  # what a package carries for itself, and puts there when it is imported (Ray does)
        try:
            names = [path.name for path in place.iterdir()]
        except OSError:
            continue
        found.update(n.rsplit(".", 1)[0] for n in names if n.endswith((".dist-info", ".egg-info")))
    return tuple(sorted(found))


def _digests(root: Path, files: Iterable[Path]) -> dict[str, str]:
    return {os.path.relpath(f, root): file_digest(f) for f in sorted(set(files))}


def _parameter_files(values: Iterable[Any], folder: Path) -> Iterator[Path]:
    """Files that a parameter names, so that local data counts."""
    for value in values:
        if not isinstance(value, str) or not value.strip() or len(value) > 1000:
            continue
        path = folder / Path(value).expanduser()
        try:
            if path.is_file():
                yield path
            elif path.is_dir():
                yield from files_below(path)
        except OSError:
            continue


# -- the store ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One kept job."""

    folder: Path
    run: str
    files: Mapping[str, str]
    parts: Mapping[str, Any]  # of its key
    reads: Reads = NOTHING

    def changes(self, root: Path) -> list[str]:
        """One line for each thing that the job read and that is no longer as it was; the entry holds if none is."""
        return list(changes(self.reads, root))


def cache_dir(root: Path) -> Path:
    """Where finished jobs are kept."""
    return build_dir(root) / "cache"


def find(root: Path, key: str) -> Entry | None:
    """The entry for *key*, whether it holds or not; None if there is none.

    Raises:
        HarnessError: the entry is damaged; it has been removed, and the message says so in one line.
    """
    folder = cache_dir(root) / key
    if not folder.is_dir():
        return None
    try:
        return _read_entry(folder)
    except _Damaged as damaged:
        shutil.rmtree(folder, ignore_errors=True)
        raise HarnessError(
            f"cache entry {key[:12]} is damaged ({damaged}); it was removed and the job runs again"
        ) from None


def look(root: Path, key: str) -> Entry | None:
    """As :func:`find`, but changes nothing, and a damaged entry is none."""
    with suppress(_Damaged):
        return _read_entry(cache_dir(root) / key)
    return None


class _Damaged(Exception):
    """Names the file of the entry that is not what was kept."""


def _read_entry(folder: Path) -> Entry:
    try:
        manifest = read_json(folder / "manifest.json")
        files = dict(manifest["files"])
        for name, digest in files.items():
            if file_digest(folder / name) != digest:
                raise _Damaged(name)
        if manifest["key"] != folder.name or "result.json" not in files:
            raise _Damaged("manifest.json")
        reads = read_reads(folder) if READS in files else NOTHING
        return Entry(folder, str(manifest["run"]), files, dict(manifest["parts"]), reads)
    except (HarnessError, OSError, KeyError, TypeError, ValueError, AttributeError):
        raise _Damaged("manifest.json") from None


def entries_of(root: Path, job: Job) -> list[Entry]:
    """The entries of the same chapter and profile, whatever their keys, the newest first."""
    found: list[tuple[float, Entry]] = []
    for folder in cache_dir(root).glob("*"):
        try:
            manifest = read_json(folder / "manifest.json")
            entry = Entry(folder, str(manifest["run"]), dict(manifest["files"]), dict(manifest["parts"]))
            if (manifest["about"]["chapter"], manifest["about"]["profile"]) == (job.chapter, job.profile):
                found.append((folder.stat().st_mtime, entry))
        except (HarnessError, OSError, KeyError, TypeError, ValueError):
            continue
    return [entry for _, entry in sorted(found, key=lambda item: -item[0])]


def restore(entry: Entry, job: Job, folder: Path, shown: str) -> JobResult:
    """Put the kept files into the job's *folder*; the result, as skipped and with where it came from."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in entry.files:
            shutil.copyfile(entry.folder / name, folder / name)
    except OSError as error:
        raise explain_os_error(error, f"cannot write to {folder}") from None
    kept = job_result_from_json(read_json(folder / "result.json"))
    return replace(
        kept, id=job.id, notebook=shown, chapter=job.chapter, state=JobState.SKIPPED, key=job.key,
        cached_from=entry.run, reason=f"unchanged since run {entry.run}",
    )  # fmt: skip


def keep(root: Path, job: Job, parts: Mapping[str, Any], folder: Path, run: str) -> None:
    """Keep the completed job in *folder* under its key, which *parts* make; atomic, so no half entry is ever found."""
    target = cache_dir(root) / job.key
    temporary = None
    try:
        cache_dir(root).mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=cache_dir(root)))
        names = [name for name in KEPT_FILES if (folder / name).is_file()]
        for name in names:
            shutil.copyfile(folder / name, temporary / name)
        digests = {name: file_digest(temporary / name) for name in names}
        about = {"chapter": job.chapter, "profile": job.profile}
        write_json(
            temporary / "manifest.json",
            {
                "version": VERSION,
                "key": job.key,
                "run": run,
                "about": about,
                "parts": parts,
                "files": digests,
            },
        )
        shutil.rmtree(target, ignore_errors=True)
        temporary.replace(target)
    except OSError as error:
        raise explain_os_error(error, f"cannot write to {cache_dir(root)}") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
