"""What a job really read, and whether all of it is still as it was.

:mod:`harness.execute.kernel.opened` notes it in the kernel. After the run each file's digest is kept beside the job's
result, with the names in each folder that was listed and, for each place where modules are looked for, those that could
be meant by what was imported: a new file there would be imported instead. A kept result holds as long as nothing of
that changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache as memoise
from pathlib import Path
from typing import Any

from harness.book.notebook import Notebook
from harness.book.sources import follow, named_files
from harness.errors import HarnessError
from harness.execute.kernel.opened import NOTES, READS
from harness.files import PACKAGE, read_json, write_json

HASHED_AGAIN = 2**20  # bytes; a larger file whose size and times are the same is not read again
CLOCK_TICK = 10**7  # nanoseconds that the times of files may be behind the clock
_OWN_CODE = str(PACKAGE) + os.sep  # what of it can change a number is in the key

Mark = tuple[int, int, int]
"""Size and times of modification and change: another one, and the file was written."""


@dataclass(frozen=True)
class Reads:
    """What a job read, by paths relative to the book where they lie inside it."""

    files: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # digest and mark; empty: there was none
    listed: Mapping[str, Mapping[str, Any]] = field(
        default_factory=dict
    )  # folder: digest of names, own names
    imported: Sequence[str] = ()  # top-level names
    places: Mapping[str, Sequence[str]] = field(default_factory=dict)  # folder: entries that fit one of them
    unseen: Sequence[str] = ()  # what else was read, in words


NOTHING = Reads()


class Unsettled(Exception):
    """What the job read is no longer what it read; the message says so."""


# -- digests -----------------------------------------------------------------------------------------


def file_digest(path: Path) -> str:
    """sha256 of a file's content, read once a process as long as size and times stay the same."""
    status = path.stat()
    return _digest(str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@memoise
def _digest(path: str, *mark: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def mark_of(path: str | Path) -> Mark | None:
    """The mark of a regular file, None for anything else."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return None
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns) if stat.S_ISREG(status.st_mode) else None


def _stamp(path: str) -> list[Any]:
    """Digest and mark; empty for no file."""
    mark = mark_of(path)
    if mark is None:
        return []
    try:
        return [_digest(path, *mark), *mark]
    except OSError:
        return ["unreadable", *mark]


def _same(path: str, stamp: Sequence[Any]) -> bool:
    mark = mark_of(path)
    if mark is None or not stamp:
        return mark is None and not stamp
    if mark[0] != stamp[1]:
        return False
    return (mark[0] > HASHED_AGAIN and list(mark) == list(stamp[1:])) or _stamp(path)[0] == stamp[0]


def _digest_of_names(names: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(sorted(names)).encode(errors="surrogateescape")).hexdigest()


# -- after a run -------------------------------------------------------------------------------------


@dataclass
class _Notes:
    """The notes of a kernel, in the order they were made."""

    started: int | None = None
    files: dict[str, Mark | None] = field(default_factory=dict)
    own: set[str] = field(default_factory=set)
    made: set[str] = field(default_factory=set)
    listed: dict[str, list[str]] = field(default_factory=dict)
    imported: set[str] = field(default_factory=set)
    places: set[str] = field(default_factory=set)
    unseen: list[str] = field(default_factory=list)

    def take(self, kind: str, *fact: Any) -> None:
        match kind:
            case "start":
                self.started = fact[0]
            case "read" if not self.is_own(fact[0]) and not fact[0].startswith(_OWN_CODE):
                self.files.setdefault(fact[0], tuple(fact[1:]) or None)  # type: ignore[arg-type]
            case "own":
                if self.files.get(fact[0], ()) is None:  # looked for, then made
                    del self.files[fact[0]]
                self.own.add(fact[0])
            case "made":
                self.made.add(fact[0])
            case "listed" if not self.is_own(fact[0]):
                self.listed.setdefault(fact[0], fact[1])
            case "import":
                self.imported.add(fact[0])
            case "places":
                self.places.update(fact[0])
            case "unseen":
                self.unseen.append(fact[0])

    def is_own(self, path: str) -> bool:
        """Whether the notebook made the file, or a folder above it."""
        if path in self.own or path in self.made:
            return True
        return any(parent in self.made for parent in map(str, Path(path).parents)) if self.made else False


def _read_notes(folder: Path) -> _Notes:
    notes = _Notes()
    try:
        lines = (folder / NOTES).read_text(encoding="utf-8").splitlines()
    except OSError:
        return notes
    for line in lines:
        try:
            notes.take(*json.loads(line))
        except (ValueError, TypeError, LookupError):  # cut off by a full disk
            return _Notes()
    return notes


def own_files(folder: Path) -> set[str]:
    """Files that the notebook wrote anew before it read them, as its kernel noted it in the job's *folder*."""
    notes = _read_notes(folder)
    return notes.own - notes.files.keys()


@dataclass(frozen=True)
class Named:
    """What is known of a notebook's reads before it runs."""

    files: Mapping[Path, Mark | None] = field(
        default_factory=dict
    )  # that it names; written meanwhile: outputs
    data: Collection[Path] = ()  # those of them that the book says are read
    unseen: Sequence[str] = ()  # what goes on where no hook sees it, in words


def named_by(notebook: Notebook, root: Path | None, packages: Sequence[str], data: Sequence[Path]) -> Named:
    """What the text of *notebook* names, and *data*, as it is now."""
    found = follow(notebook, root or notebook.path.parent, packages)
    files = (*named_files(found.strings, notebook.path.parent), *data)
    return Named({path: mark_of(path) for path in files}, data, sorted(found.unseen))


def settle(folder: Path, root: Path, named: Named, *, noted: bool = True, packed: int | None = None) -> Reads:
    """What the job in *folder* read, from its kernel's notes and from what it names, with digests as of now.

    Args:
        root: of the book.
        named: before the run.
        noted: whether the kernel takes notes at all.
        packed: when the book was sent to another machine, in nanoseconds; None for a job of this one.

    Raises:
        Unsettled: something was not the same from when it was read until now.
    """
    notes = _read_notes(folder)
    if noted and notes.started is None:
        raise Unsettled("its kernel did not note what it opened")
    if packed is not None:
        _keep_to_book(notes, root)
    for path, mark in named.files.items():
        name = str(path)
        if name in notes.files or notes.is_own(name):
            continue
        if mark_of(path) == mark:
            notes.files[name] = mark
        elif path in named.data:
            raise Unsettled(f"{_shown(name, root)} changed while it ran")
    files = {}
    for name, mark in notes.files.items():
        now = mark_of(name)
        if packed is not None and mark is not None and now is not None and now[2] < packed:
            mark = now  # the node's copy has times of its own
        if now is None and mark is not None and notes.started and mark[2] >= notes.started - CLOCK_TICK:
            continue  # made by compiled code or a command, and gone: a temporary file
        if mark is not None and now != mark and not (now and now[0] == mark[0] == 0):
            # (nothing stands in an empty file, however often it is written: evaluate does so to its __init__.py)
            raise Unsettled(f"{_shown(name, root)} {'changed' if now else 'went'} while it ran")
        files[name] = _stamp(name) if mark is not None else []
    for name in [name for name, stamp in files.items() if stamp and _is_plain_module(name)]:
        for other in (Path(name).parent, Path(name).with_suffix("")):  # a package would go before the module
            files.setdefault(str(other / "__init__.py"), _stamp(str(other / "__init__.py")))
    listed = {}
    for place, names in notes.listed.items():
        own = sorted(Path(path).name for path in notes.own | notes.made if str(Path(path).parent) == place)
        listed[_shown(place, root)] = {"names": _digest_of_names(_told(names, own)), "own": own}
    imported = sorted(notes.imported)
    return Reads(
        files={_shown(name, root): stamp for name, stamp in files.items()},
        listed=listed,
        imported=imported,
        places={
            _shown(place, root): _importable(place, imported)
            for place in sorted(notes.places)
            if Path(place).is_dir()
        },
        unseen=[*dict.fromkeys((*named.unseen, *notes.unseen))],
    )


def _is_plain_module(name: str) -> bool:
    return name.endswith(".py") and not name.endswith("/__init__.py")


def _keep_to_book(notes: _Notes, root: Path) -> None:
    """Of another machine, only what was sent there can be compared with this one."""
    inside = str(root) + os.sep
    notes.files = {name: mark for name, mark in notes.files.items() if name.startswith(inside)}
    notes.listed = {name: names for name, names in notes.listed.items() if (name + os.sep).startswith(inside)}
    notes.places = {name for name in notes.places if (name + os.sep).startswith(inside)}


def _shown(path: str, root: Path) -> str:
    inside = str(root) + os.sep
    return path[len(inside) :] if path.startswith(inside) else path


_NOT_TOLD = {"__pycache__", ".ipynb_checkpoints"}


def _told(names: Iterable[str], own: Collection[str]) -> Iterator[str]:
    return (name for name in names if name not in own and name not in _NOT_TOLD)


def _names_in(place: str) -> list[str] | None:
    try:
        return os.listdir(place)  # noqa: PTH208 – paths are not wanted, and a hundred notebooks are asked for at once
    except OSError:
        return None


def _importable(place: str, imported: Collection[str]) -> list[str]:
    """Entries of *place* that an import of one of the names could mean."""
    names = _names_in(place) or ()
    return sorted(name for name in names if name.partition(".")[0] in imported and _is_module(name))


def _is_module(name: str) -> bool:
    return "." not in name or name.endswith((".py", ".pyc", ".so"))


# -- before the next ---------------------------------------------------------------------------------


def changes(reads: Reads, root: Path) -> Iterator[str]:
    """One line for each thing that is no longer as the job read it."""
    for name, stamp in reads.files.items():
        path = str(root / name)
        if not _same(path, stamp):
            yield f"{name} {'is new' if not stamp else 'changed' if mark_of(path) else 'is gone'}"
    for name, then in reads.listed.items():
        names = _names_in(str(root / name))
        if names is None or _digest_of_names(_told(names, then["own"])) != then["names"]:
            yield f"{name or '.'}/ lists other files"
    imported = set(reads.imported)
    for name, entries in reads.places.items():
        now = _importable(str(root / name), imported)
        for entry in sorted(set(now) ^ set(entries)):
            yield f"{Path(name, entry)} {'is new' if entry in now else 'is gone'}"


def write_reads(folder: Path, reads: Reads) -> None:
    """Keep them beside the job's result.

    Raises:
        Unsettled: a name cannot be written.
    """
    try:
        write_json(folder / READS, reads)
    except UnicodeEncodeError:
        raise Unsettled("it read a file whose name is no UTF-8; rename the file") from None


def read_reads(folder: Path) -> Reads:
    """What :func:`write_reads` wrote.

    Raises:
        HarnessError, TypeError, KeyError, ValueError: there is none, or it is damaged.
    """
    data = read_json(folder / READS)
    return Reads(**{name: data[name] for name in Reads.__dataclass_fields__})


def still_holds(folder: Path, root: Path) -> bool:
    """Whether the job in *folder* wrote down what it read, and all of it is the same."""
    try:
        return not any(changes(read_reads(folder), root))
    except (HarnessError, TypeError, KeyError, ValueError, AttributeError, LookupError):
        return False
