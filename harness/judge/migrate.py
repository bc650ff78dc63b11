"""``harness bless --migrate``: blessed runs move out of the claim files, where all stood once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from harness.book.claims import BLESSED, claim_path, parse_claims
from harness.book.references import identity, read_references, references_path, references_text
from harness.book.yaml_file import Node, describe, read_node
from harness.errors import HarnessError
from harness.files import write_text
from harness.judge.bless import write_references
from harness.model import ReferenceRun

if TYPE_CHECKING:
    from harness.book.config import Book


def migrate(
    book: Book, chapters: Sequence[str] | None, *, replace: bool, say: Callable[[str], None] = print
) -> list[Path]:
    """Move the blessed runs out of the claim files of *chapters* (of all for None); the claim files that changed.

    What was moved before stays where it is. With *replace*, it is dropped for the claims and profiles that a claim
    file still holds runs of.

    Raises:
        HarnessError: a file cannot be read, or says something else of a run than was moved before. Nothing is
            written then.
    """
    texts: dict[Path, str] = {}
    said = []
    for chapter in chapters or [path.stem for path in book.chapters]:
        path, place = claim_path(book.claims_dir, chapter), references_path(book.claims_dir, chapter)
        old, text = _split(path) if path.exists() else ({}, "")
        if not old:
            continue
        references = {name: dict(by_profile) for name, by_profile in read_references(place).items()}
        for name, by_profile in old.items():
            for profile, runs in by_profile.items():
                kept = () if replace else references.get(name, {}).get(profile, ())
                references.setdefault(name, {})[profile] = _together(path, name, kept, runs)
        texts[place] = references_text(references)  # first: the values must never be in neither file
        texts[path] = text
        parse_claims(read_node(path, text), tuple(book.profiles))
        count = sum(len(runs) for by_profile in old.values() for runs in by_profile.values())
        said.append(f"{path}: {count} blessed values of {len(old)} claims moved to {place.name}")
    for path, text in texts.items():
        (write_text if path.suffix == ".yml" else write_references)(path, text)
    for line in said:
        say(line)
    return [path for path in texts if path.suffix == ".yml"]


def _together(
    path: Path, name: str, kept: Sequence[ReferenceRun], more: Sequence[ReferenceRun]
) -> tuple[ReferenceRun, ...]:
    known = {identity(run): run for run in kept}
    for run in more:
        if known.setdefault(identity(run), run) != run:
            raise HarnessError(
                f"{path}: claim {name} has two blessed runs of seed {run.seed}, commit {run.commit},"
                f" {run.hardware}; drop those that were moved before with --replace, or one of the two"
            )
    return tuple(known.values())


def _split(path: Path) -> tuple[dict[str, dict[str, tuple[ReferenceRun, ...]]], str]:
    """The blessed runs in a claim file, and its text without them, otherwise the same to the letter."""
    root = read_node(path)
    root.need(("claims",))
    found: dict[str, dict[str, tuple[ReferenceRun, ...]]] = {}
    gone: set[int] = set()
    for claim in root.items("claims", may_be_empty=True):
        for profile in claim.names():
            if not isinstance(claim.tree[profile], dict) or BLESSED not in (entry := claim.child(profile)):
                continue
            runs = entry.items(BLESSED)
            found.setdefault(claim.text("name"), {})[profile] = tuple(map(_run, runs))
            first = entry.line(BLESSED)
            del entry.tree[BLESSED]
            if not entry.tree:
                first = claim.line(profile)
                del claim.tree[profile]
            gone |= set(range(first, runs[-1].line(None) + 1))  # each run was written on a line of its own
    lines = path.read_text(encoding="utf-8").split("\n")
    kept = (line for n, line in enumerate(lines, 1) if n not in gone or line.lstrip().startswith("#"))
    text = "\n".join(kept)
    try:
        same = read_node(path, text).tree == root.tree
    except HarnessError:
        same = False
    if not same:
        raise HarnessError(
            f"{path}: `{BLESSED}` is not laid out as `harness bless` did; write each run on a line"
        )
    return found, text


def _run(node: Node) -> ReferenceRun:
    node.keys(required=("value", "seed", "commit", "date", "hardware"), optional=("versions",))
    seed = node.tree["seed"]
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        node.refuse("seed", "a whole number or null")
    versions = node.child("versions") if "versions" in node else None
    return ReferenceRun(
        value=node.number("value"),
        seed=seed,
        commit=node.text("commit"),
        date=_day(node),
        hardware=node.text("hardware"),
        versions={name: versions.text(name) for name in versions.names()} if versions else {},
    )


def _day(node: Node) -> str:
    value = node.tree["date"]
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    try:
        return date.fromisoformat(value).isoformat()
    except (TypeError, ValueError):
        node.fail("date", f"date must be such as 2026-11-24, not {describe(value)}")
