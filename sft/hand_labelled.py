"""Sentences of People's Daily with hand-made labels: who holds which office, and the roles around 把 and 被.

The files under ``labelled/`` hold where a sentence stands in the newspaper and what labellers wrote, not the text:
that belongs to its publisher and comes out of the installed package. ``labelled/README.md`` says who labelled.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path

from sft.corpora import load_people_daily
from sft.packaged import DataError

FOLDER = Path(__file__).parent / "labelled"
ROLES = {"agent": "施事", "predicate": "谓语", "patient": "受事"}

Span = tuple[int, int]  # first character, one past the last
Pair = tuple[int, int]  # number of the person, number of the office, from 0


@dataclass(frozen=True)
class OfficeSentence:
    """A sentence with its persons and offices, and which person holds which office."""

    text: str
    persons: tuple[Span, ...]
    offices: tuple[Span, ...]
    pairs: frozenset[Pair] = frozenset()  # of the first labeller
    second: frozenset[Pair] | None = None  # of the second one; None where there is none


@dataclass(frozen=True)
class RoleSentence:
    """A sentence, its 把 or 被, and the spans of the roles that are there."""

    text: str
    words: tuple[tuple[str, str], ...]  # word and part of speech, as the newspaper's annotators cut it
    paragraph: int  # number of the paragraph in its split, which is in time order
    marker: int  # position of 把 or 被, in characters
    roles: Mapping[str, Span]  # of the first labeller; keys among ROLES
    second: Mapping[str, Span] | None = None


def locate(text: str, part: str, marker: int, place: str, ends: frozenset[int] | None = None) -> Span:
    """Where ``part`` stands in ``text``: of several places the one nearest to ``marker`` that does not hold it.

    Args:
        place: file and row, for the message.
        ends: positions between words; a place that begins and ends there goes before one that does not.

    Raises:
        DataError: ``part`` is not in ``text``.
    """
    starts = [i for i in range(len(text)) if text.startswith(part, i)] if part else []
    spans = [(i, i + len(part)) for i in starts if not i <= marker < i + len(part)]
    spans = [span for span in spans if ends is None or ends.issuperset(span)] or spans
    if not spans:
        raise DataError(f"{place}: the span {part!r} is not in its text {text!r}")
    return min(spans, key=lambda span: max(span[0] - marker, marker - span[1]))


def load_office_sentences() -> list[OfficeSentence]:
    """The test set of relations, from the last week of January 1998.

    Raises:
        DataError: the newspaper is not installed, or a row names a person or an office that is not there.
    """
    found = []
    for row, place, text in _rows("relations.tsv", "test"):
        persons, offices = (
            tuple(_span(cell, text, place) for cell in row[name].split()) for name in ("persons", "offices")
        )
        first, second = (
            _pairs(row[name], len(persons), len(offices), place) if row[name] else None
            for name in ("first", "second")
        )
        found.append(OfficeSentence(text, persons, offices, first or frozenset(), second))
    return found


def load_role_sentences(split: str) -> list[RoleSentence]:
    """Sentences with 把 or 被 and their roles; ``split`` is "train" (papers of 1 to 22 January) or "test".

    Raises:
        DataError: the newspaper is not installed, or a span is not in its text.
    """
    file = {"train": "roles_train.tsv", "test": "roles.tsv"}[split]
    found = []
    for row, place, text in _rows(file, split):
        marker = int(row["marker"])
        if text[marker : marker + 1] not in ("把", "被"):
            raise DataError(f"{place}: no 把 or 被 stands at {marker} of {text!r}")
        words = _words(row, split)
        ends = frozenset(accumulate((len(word) for word, _ in words), initial=0))
        first = _roles(row, "", text, marker, place, ends)
        second = _roles(row, "_2", text, marker, place, ends) if row.get("predicate_2") else None
        found.append(RoleSentence(text, words, int(row["row"]), marker, first, second))
    return found


@cache
def _paragraphs(split: str) -> dict[str, list]:
    return load_people_daily()[split][:]


def _words(row: dict[str, str], split: str) -> tuple[tuple[str, str], ...]:
    paragraph, start, stop = (int(row[name]) for name in ("row", "start", "stop"))
    found, end = [], 0
    columns = (_paragraphs(split)[name][paragraph] for name in ("tokens", "tags"))
    for word, tag in zip(*columns, strict=True):
        if start <= end < stop:
            found.append((word, tag))
        end += len(word)
    return tuple(found)


def _rows(file: str, split: str) -> Iterator[tuple[dict[str, str], str, str]]:
    """Each row of a file, where it stands, and its sentence."""
    with (FOLDER / file).open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            place = f"{file}, row {row['id']}"
            yield (
                row,
                place,
                _paragraphs(split)["text"][int(row["row"])][int(row["start"]) : int(row["stop"])],
            )


def _span(cell: str, text: str, place: str) -> Span:
    start, _, stop = cell.partition("-")
    if not 0 <= int(start) < int(stop) <= len(text):
        raise DataError(f"{place}: the span {cell} is not in its text of {len(text)} characters")
    return int(start), int(stop)


def _pairs(cell: str, persons: int, offices: int, place: str) -> frozenset[Pair]:
    pairs = set()
    for written in [] if cell == "-" else cell.split():
        person, _, office = written.partition("-")
        pair = (int(person.removeprefix("P")) - 1, int(office.removeprefix("T")) - 1)
        if not (0 <= pair[0] < persons and 0 <= pair[1] < offices):
            raise DataError(f"{place}: {written} names no person and office of a sentence with P1 to P{persons} "
                            f"and T1 to T{offices}")  # fmt: skip
        pairs.add(pair)
    return frozenset(pairs)


def _roles(
    row: dict[str, str], labeller: str, text: str, marker: int, place: str, ends: frozenset[int]
) -> dict[str, Span]:
    cells = {role: row[role + labeller] for role in ROLES}
    return {
        role: locate(text, cell, marker, f"{place}, {role}", ends)
        for role, cell in cells.items()
        if cell != "-"
    }
