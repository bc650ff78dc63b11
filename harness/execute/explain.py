"""``harness run --why``: which jobs would run, and what changed since the last time that counts against each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.archive.environment import hardware_class
from harness.book.config import Book
from harness.book.plan import Planned
from harness.execute import cache
from harness.model import Job

MOST_REASONS = 8  # told of one job


@dataclass(frozen=True)
class Why:
    """One job: whether it would run, and the reasons."""

    job: str
    runs: bool
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"{'run ' if self.runs else 'skip'}  {self.job}: {'; '.join(self.reasons)}"


def explain(book: Book | None, planned: Sequence[Planned], variables: Sequence[str] = ()) -> list[Why]:
    """Why each job would run or be skipped; nothing is run.

    Args:
        variables: of the environment, that the run would let through.
    """
    return [_explain(book, entry, variables) for entry in planned]


def _explain(book: Book | None, entry: Planned, variables: Sequence[str]) -> Why:
    job = entry.job
    if entry.problem:
        return Why(job.id, False, (f"it cannot run: {entry.problem}",))
    if book is None or job.chapter is None or entry.notebook is None:
        return Why(
            job.id, True, ("no chapter of a book: what it depends on is not known, so it always runs",)
        )
    try:
        parts = cache.key_parts(
            job,
            entry.notebook,
            book.root,
            book.packages,
            hardware_class(job.device),
            variables,
            book.data_files(job.chapter),
        )
    except OSError as error:
        return Why(job.id, True, (f"cannot read {error.filename}: {error.strerror}",))
    if (kept := cache.look(book.root, cache.key_of(parts))) is not None:
        if changed := kept.changes(book.root):
            return Why(job.id, True, (f"since run {kept.run}", *_few(changed)))
        return Why(job.id, False, (f"unchanged since run {kept.run}", *_unseen(book, job, kept)))
    kept_ones = [
        (list(differences(entry.parts, parts)), entry.run) for entry in cache.entries_of(book.root, job)
    ]
    if not kept_ones:
        return Why(job.id, True, ("no finished run of it is kept",))
    reasons, run = min(kept_ones, key=lambda one: len(one[0]))  # of equals the newest
    return Why(job.id, True, (f"since run {run}", *_few(reasons)) if reasons else ("its entry is damaged",))


def _few(reasons: Sequence[str]) -> list[str]:
    if len(reasons) <= MOST_REASONS:
        return list(reasons)
    return [*reasons[: MOST_REASONS - 1], f"and {len(reasons) - MOST_REASONS + 1} more"]


def _unseen(book: Book, job: Job, kept: cache.Entry) -> list[str]:
    """What it read without its being seen, unless the author named what it reads."""
    if not kept.reads.unseen or job.chapter in book.data:
        return []
    return [f"not seen: {', '.join(kept.reads.unseen)}"]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """One line for each thing that two keys do not have in common, the likeliest cause first."""
    yield from _cells(before.get("code") or [], now["code"])
    yield from _values("parameter", before.get("parameters") or {}, now["parameters"], "as in the notebook")
    yield from _values("variable", before.get("variables") or {}, now["variables"], "not set")
    for name in ("files", "local"):
        yield from _files(before.get(name) or {}, now[name])
    yield from _files(*({name: name for name in parts.get("data") or ()} for parts in (before, now)))
    yield from _packages(before.get("distributions") or [], now["distributions"])
    for name, word in (
        ("python", "Python"),
        ("hardware", "hardware"),
        ("kernel", "kernel"),
        ("folder", "folder"),
        ("tags", "tags"),
    ):
        if before.get(name) != now[name]:
            yield f"{word} changed" if name == "tags" else f"{word}: {before.get(name)} → {now[name]}"
    for name, word in (("record", "harness.record"), ("version", "the cache's format")):
        if before.get(name) != now[name]:
            yield f"{word} changed"


def _cells(before: Sequence[str], now: Sequence[str]) -> Iterator[str]:
    if len(before) != len(now):
        yield f"code cells: {len(before)} → {len(now)}"
    elif changed := [i for i, (a, b) in enumerate(zip(before, now, strict=True), 1) if a != b]:
        yield f"code cell {', '.join(map(str, changed))} changed"


def _values(word: str, before: Mapping[str, Any], now: Mapping[str, Any], absent: str) -> Iterator[str]:
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            yield f"{word} {name}: {before.get(name, absent)} → {now.get(name, absent)}"


def _files(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            yield f"{name} {'is new' if name not in before else 'is gone' if name not in now else 'changed'}"


def _packages(before: Sequence[str], now: Sequence[str]) -> Iterator[str]:
    """Distributions as ``name-version``."""
    old, new = (
        dict(one.rsplit("-", 1) if "-" in one else (one, "") for one in names) for names in (before, now)
    )
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            yield f"{name} {new[name]} was installed"
        elif name not in new:
            yield f"{name} was removed"
        elif old[name] != new[name]:
            yield f"{name} {old[name]} → {new[name]}"
