"""Skip a chapter when nothing that could change its result changed, and say what did (``harness run --why``).

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
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache as memoise
from pathlib import Path
from typing import Any

from harness.archive.environment import hardware_class
from harness.archive.folder import build_dir
from harness.book.config import Book
from harness.book.notebook import Cell, Notebook
from harness.book.parameters import read_parameters
from harness.book.plan import Planned
from harness.book.sources import files_below, follow
from harness.errors import HarnessError
from harness.execute.kernel.opened import READS
from harness.execute.kernel.variables import DECIDING, matches
from harness.execute.reads import NOTHING, Reads, changes, file_digest, read_reads
from harness.files import PACKAGE, explain_os_error, read_json, write_json
from harness.model import Job, JobResult, JobState, cell_name, job_result_from_json

VERSION = 4  # raise it when the meaning of a key or an entry changes
MOST_REASONS = 8  # told of one job
KEPT_FILES = ("out.ipynb", "metrics.jsonl", "result.json", "log.txt", READS)


# -- the key -----------------------------------------------------------------------------------------


def key_of(parts: Mapping[str, Any]) -> str:
    """The key that these parts make; no parts, no key."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest() if parts else ""


def parts_of(entry: Planned, book: Book | None, variables: Sequence[str]) -> dict[str, Any]:
    """What the key of a chapter's job is made of; empty for other notebooks: they may depend on anything.

    Raises:
        OSError: a file that counts cannot be read.
    """
    job = entry.job
    if book is None or job.chapter is None or entry.notebook is None:
        return {}
    hardware, data = hardware_class(job.device), book.data_files(job.chapter)
    return key_parts(job, entry.notebook, book.root, book.packages, hardware, variables, data)


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
        "parameters": _set_parameters(job.parameters, notebook),
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


def without_files(parts: Mapping[str, Any], root: Path, own: Collection[str]) -> dict[str, Any]:
    """The parts of a key but for the files that the notebook itself wrote, its *own*."""
    files: Mapping[str, str] = parts.get("files") or {}
    return {**parts, "files": {f: one for f, one in files.items() if os.path.normpath(root / f) not in own}}


def _set_parameters(given: Mapping[str, Any], notebook: Notebook) -> dict[str, str]:
    """The values that a job sets, without those that the notebook's own cell, part of the key by its code, has anyway.

    A run without ``--seeds`` and one with the seed that stands in the notebook do the same.
    """
    try:
        declared = read_parameters(notebook) if notebook.language == "python" else None
    except HarnessError:
        declared = None
    own = {name: repr(one.default) for name, one in (declared or {}).items() if not one.injected}
    return {name: repr(value) for name, value in sorted(given.items()) if own.get(name) != repr(value)}


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
    about: Mapping[str, Any]  # chapter and profile
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
        return _whole_entry(folder)
    except _Damaged as damaged:
        shutil.rmtree(folder, ignore_errors=True)
        raise HarnessError(
            f"cache entry {key[:12]} is damaged ({damaged}); it was removed and the job runs again"
        ) from None


def look(root: Path, key: str) -> Entry | None:
    """As :func:`find`, but changes nothing, and a damaged entry is none."""
    with suppress(_Damaged):
        return _whole_entry(cache_dir(root) / key)
    return None


def entries_of(root: Path, job: Job) -> list[Entry]:
    """The entries of the same chapter and profile, whatever their keys, the newest first."""
    found: list[tuple[float, Entry]] = []
    for folder in cache_dir(root).glob("*"):
        with suppress(_Damaged, OSError):
            entry = _entry(folder)
            if entry.about == {"chapter": job.chapter, "profile": job.profile}:
                found.append((folder.stat().st_mtime, entry))
    return [entry for _, entry in sorted(found, key=lambda item: -item[0])]


class _Damaged(Exception):
    """Names the file of the entry that is not what was kept."""


def _entry(folder: Path) -> Entry:
    """What the entry's manifest says."""
    try:
        manifest = read_json(folder / "manifest.json")
        files, parts, about = (dict(manifest[name]) for name in ("files", "parts", "about"))
        if manifest["key"] == folder.name and "result.json" in files:
            return Entry(folder, str(manifest["run"]), files, parts, about)
    except (HarnessError, OSError, KeyError, TypeError, ValueError):
        pass
    raise _Damaged("manifest.json")


def _whole_entry(folder: Path) -> Entry:
    entry = _entry(folder)
    for name, digest in entry.files.items():
        try:
            same = file_digest(folder / name) == digest
        except OSError:
            same = False
        if not same:
            raise _Damaged(name)
    try:
        return replace(entry, reads=read_reads(folder)) if READS in entry.files else entry
    except (HarnessError, KeyError, TypeError, ValueError, AttributeError):
        raise _Damaged(READS) from None


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
        kept, id=job.id, notebook=shown, chapter=job.chapter, parameters=job.parameters,
        state=JobState.SKIPPED, key=job.key, cached_from=entry.run, reason=f"unchanged since run {entry.run}",
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
        manifest = {
            "version": VERSION,
            "key": job.key,
            "run": run,
            "about": about,
            "parts": parts,
            "files": digests,
        }
        write_json(temporary / "manifest.json", manifest)
        shutil.rmtree(target, ignore_errors=True)
        temporary.replace(target)
    except OSError as error:
        raise explain_os_error(error, f"cannot write to {cache_dir(root)}") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


# -- why a job would run -----------------------------------------------------------------------------


def explain(book: Book | None, planned: Sequence[Planned], variables: Sequence[str] = ()) -> Iterator[str]:
    """A line for each job: whether it would run or be skipped, and why; nothing is run.

    Args:
        variables: of the environment, that the run would let through.
    """
    for entry in planned:
        runs, reasons = _why(book, entry, variables)
        if len(reasons) > MOST_REASONS:
            reasons = [*reasons[: MOST_REASONS - 1], f"and {len(reasons) - MOST_REASONS + 1} more"]
        yield f"{'run ' if runs else 'skip'}  {entry.job.id}: {'; '.join(reasons)}"


def _why(book: Book | None, entry: Planned, variables: Sequence[str]) -> tuple[bool, list[str]]:
    if entry.problem:
        return False, [f"it cannot run: {entry.problem}"]
    try:
        parts = parts_of(entry, book, variables)
    except OSError as error:
        return True, [f"cannot read {error.filename}: {error.strerror}"]
    if book is None or not parts:
        return True, ["no chapter of a book: what it depends on is not known, so it always runs"]
    if (kept := look(book.root, key_of(parts))) is not None:
        if changed := kept.changes(book.root):
            return True, [f"since run {kept.run}", *changed]
        named = entry.job.chapter in book.data  # its author has named what it reads
        unseen = [f"not seen: {', '.join(kept.reads.unseen)}"] if kept.reads.unseen and not named else []
        return False, [f"unchanged since run {kept.run}", *unseen]
    entries = entries_of(book.root, entry.job)
    if not entries:
        return True, ["no finished run of it is kept"]
    cells = entry.notebook.code if entry.notebook else ()
    told = [(list(differences(one.parts, parts, cells)), one.run) for one in entries]
    reasons, run = min(told, key=lambda one: len(one[0]))  # of equals the newest
    return True, [f"since run {run}", *reasons] if reasons else ["its entry is damaged"]


def differences(before: Mapping[str, Any], now: Mapping[str, Any], cells: Sequence[Cell]) -> Iterator[str]:
    """One line for each thing that two keys do not have in common, the likeliest cause first.

    *cells* are the code cells that *now* stands for.
    """
    yield from _changed_cells(before.get("code") or [], now["code"], cells)
    for name, word, absent in (
        ("parameters", "parameter", "as in the notebook"),
        ("variables", "variable", "not set"),
    ):
        for key, old, new in _changed(before.get(name), now[name]):
            yield f"{word} {key}: {absent if old is None else old} → {absent if new is None else new}"
    named = (dict.fromkeys(parts.get("data") or (), "") for parts in (before, now))
    for files in ((before.get("files"), now["files"]), (before.get("local"), now["local"]), named):
        for key, old, new in _changed(*files):
            yield f"{key} {'is new' if old is None else 'is gone' if new is None else 'changed'}"
    for key, old, new in _changed(*map(_versions, (before.get("distributions"), now["distributions"]))):
        if old is None or new is None:
            yield f"{key} {new} was installed" if old is None else f"{key} was removed"
        else:
            yield f"{key} {old} → {new}"
    for name, word in (("python", "Python"), *((name, name) for name in ("hardware", "kernel", "folder"))):
        if before.get(name) != now[name]:
            yield f"{word}: {before.get(name)} → {now[name]}"
    for name, word in (("tags", "tags"), ("record", "harness.record"), ("version", "the cache's format")):
        if before.get(name) != now[name]:
            yield f"{word} changed"


def _changed_cells(before: Sequence[str], now: Sequence[str], cells: Sequence[Cell]) -> Iterator[str]:
    """Both are digests of code cells; a cell is named by its number among all cells, as everywhere."""
    if len(before) != len(now):
        yield f"number of code cells: {len(before)} → {len(now)}"
        return
    pairs = zip(before, now, cells, strict=True)
    if changed := [cell_name(cell.index, cell.id) for old, new, cell in pairs if old != new]:
        yield f"{', '.join(changed)} changed"


def _changed(before: Mapping[str, str] | None, now: Mapping[str, str]) -> Iterator[tuple[str, Any, Any]]:
    """Name, old and new value (None: there is none) of what differs."""
    before = before or {}
    names = sorted(before.keys() | now.keys())
    return ((name, before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name))


def _versions(distributions: Sequence[str] | None) -> dict[str, str]:
    """Of distributions as ``name-version``, the versions by name."""
    return {name or version: version if name else "" for name, _, version in
            (one.rpartition("-") for one in distributions or ())}  # fmt: skip
