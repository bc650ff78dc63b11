"""``harness bless --migrate``: blessed runs move out of the claim files, where all stood once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from harness.book.claims import BLESSED, claim_path, parse_claims
from harness.book.references import identity, read_references, references_path, references_text
from harness.book.yaml_file import Node, describe, read_node
from harness.errors import HarnessError
from harness.files import write_text
from harness.judge.bless import write_references
from harness.model import ReferenceRun

if TYPE_CHECKING:
    from harness.book.config import Book

Found = dict[str, dict[str, tuple[ReferenceRun, ...]]]
"""Blessed runs by claim and profile."""


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
        old = _old_runs(path) if path.exists() else {}
        if not old:
            continue
        references = {name: dict(by_profile) for name, by_profile in read_references(place).items()}
        for name, by_profile in old.items():
            for profile, runs in by_profile.items():
                kept = () if replace else references.get(name, {}).get(profile, ())
                references.setdefault(name, {})[profile] = _together(path, name, kept, runs)
        texts[place] = references_text(references)  # first: the values must never be in neither file
        texts[path] = _claims_alone(path)
        parse_claims(read_node(path, texts[path]), tuple(book.profiles))
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


def _old_runs(path: Path) -> Found:
    found: Found = {}
    for claim in read_node(path).items("claims", may_be_empty=True):
        for profile in claim.names():
            if isinstance(claim.tree[profile], dict) and BLESSED in (entry := claim.child(profile)):
                runs = tuple(map(_run, entry.items(BLESSED)))
                found.setdefault(claim.text("name"), {})[profile] = runs
    return found


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


# --- the text of a claim file without its blessed runs: all else stays to the letter --------------------


def _claims_alone(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    kept, position = [], 0
    for start, end in sorted(_cuts(text)):
        kept.append(text[position : max(start, position)])
        position = max(end, position)
    new = "".join(kept) + text[position:]
    expected = read_node(path).tree
    for claim in expected["claims"]:
        for profile, entry in list(claim.items()):
            if isinstance(entry, dict) and entry.pop(BLESSED, None) is not None and not entry:
                del claim[profile]
    if read_node(path, new).tree != expected:
        raise HarnessError(
            f"{path}: its YAML is too intricate to be changed; write each `{BLESSED}` in lines"
        )
    return new


def _cuts(text: str) -> Iterator[tuple[int, int]]:
    """The places of *text* to leave out: `blessed` with its runs, and a profile that holds nothing else."""
    for claim in _value(yaml.compose(text, Loader=yaml.SafeLoader), "claims").value:
        for number, (_, entry) in enumerate(claim.value):
            keys = [key.value for key, _ in entry.value] if isinstance(entry, yaml.MappingNode) else []
            if keys == [BLESSED]:
                yield from _cut(text, claim, number)
            elif BLESSED in keys:
                yield from _cut(text, entry, keys.index(BLESSED))


def _value(mapping: Any, name: str) -> Any:
    return next(value for key, value in mapping.value if key.value == name)


def _cut(text: str, mapping: Any, number: int) -> Iterator[tuple[int, int]]:
    """The places of one key and its value."""
    key, value = mapping.value[number]
    start, line = key.start_mark.index, text.rfind("\n", 0, key.start_mark.index) + 1
    following = mapping.value[number + 1 : number + 2]
    if mapping.flow_style or text[line:start].strip():  # in brackets, or behind the dash of a list
        end = following[0][0].start_mark.index if following else value.end_mark.index
        yield (mapping.value[number - 1][1].end_mark.index if number and not following else start), end
        return
    while (
        isinstance(value, yaml.CollectionNode) and not value.flow_style
    ):  # a block ends where its last part does
        value = value.value[-1][1] if isinstance(value, yaml.MappingNode) else value.value[-1]
    last = text.find("\n", value.end_mark.index)
    for full in text[line : last + 1 or None].splitlines(keepends=True):
        if not full.lstrip().startswith("#"):
            yield line, line + len(full)
        line += len(full)
