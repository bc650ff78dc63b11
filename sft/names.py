"""Named entities as BIO labels: reading and checking them, spans, a list of names.

Chapter 6.5 writes out ``spans``, ``list_names`` and ``look_up``; a test holds the sources equal.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_dataset

from sft.corpora import load_people_daily_ner
from sft.hub import HubError, locate
from sft.packaged import DataError

Row = dict[str, list[str]]  # tokens and labels, of equal length


def load_names(name: str | None = None, *, max_chars: int = 126, revision: str | None = None) -> DatasetDict:
    """Sentences with names: columns ``tokens`` and ``labels`` (BIO), splits train / validation / test.

    Args:
        name: a data set of the hub or a folder, with columns tokens and ner_tags (MSRA NER) or text and entities
            (CLUENER: entity, start_offset, end_offset, label). People's Daily by default.
        max_chars: longer paragraphs of People's Daily are cut; longer rows of others are left out.

    Raises:
        DataError: the data set cannot be had, has other columns, an unknown label, or a span not in its text.
    """
    if name is None:
        splits = load_people_daily_ner(max_chars=max_chars)
    else:
        try:
            place = name if Path(name).is_dir() else locate(name, "datasets")
            splits = load_dataset(place, revision=revision)
        except HubError as error:
            raise DataError(str(error)) from error
        if "validation" not in splits:
            splits["validation"], splits["train"] = (
                splits["train"].train_test_split(test_size=0.1, seed=0)[part] for part in ("test", "train")
            )
        if "test" not in splits:
            raise DataError(f"{name}: no split test (found: {', '.join(splits)})")
    return DatasetDict(
        {part: _labelled(splits[part], max_chars, name) for part in ("train", "validation", "test")}
    )


def _labelled(rows: Dataset, max_chars: int, name: str | None) -> Dataset:
    if {"tokens", "ner_tags"} <= set(rows.column_names):
        names, columns = rows.features["ner_tags"].feature.names, rows[:]
        found = [
            {"tokens": tokens, "labels": [names[tag] for tag in tags]}
            for tokens, tags in zip(columns["tokens"], columns["ner_tags"], strict=True)
        ]
    elif {"text", "entities"} <= set(rows.column_names):
        found = [from_entities(row, f"{name}, row {i + 1}") for i, row in enumerate(rows)]
    else:
        raise DataError(
            f"{name}: columns {rows.column_names}; needs tokens and ner_tags, or text and entities"
        )
    found = [row for row in found if 0 < len(row["tokens"]) <= max_chars]
    check_labels(found, name or "people_daily")
    return Dataset.from_dict({part: [row[part] for row in found] for part in ("tokens", "labels")})


def from_entities(row: dict[str, Any], place: str) -> Row:
    """BIO labels out of entities with offsets, as CLUENER has them.

    Raises:
        DataError: the text between the offsets is not the entity.
    """
    text, labels = row["text"], ["O"] * len(row["text"])
    for entity in row["entities"]:
        start, stop = entity["start_offset"], entity["end_offset"]
        if not entity["entity"] or text[start:stop] != entity["entity"]:
            raise DataError(
                f"{place}: the span {entity['entity']!r} is not at {start}-{stop} of its text {text!r}"
            )
        labels[start:stop] = [f"B-{entity['label']}", *[f"I-{entity['label']}"] * (stop - start - 1)]
    return {"tokens": list(text), "labels": labels}


def check_labels(rows: Sequence[Row], place: str, known: Sequence[str] = ()) -> None:
    """Every label is BIO, one for each token, and among the known ones where those are given.

    Raises:
        DataError: it is not; the message names the row, counted from 1.
    """
    for number, row in enumerate(rows, 1):
        if len(row["tokens"]) != len(row["labels"]):
            raise DataError(
                f"{place}, row {number}: {len(row['tokens'])} tokens, {len(row['labels'])} labels"
            )
        wrong = {
            label for label in set(row["labels"]) if not _is_bio(label) or (known and label not in known)
        }
        if not wrong:  # a corpus has a million labels, few of them different
            continue
        position, label = next((i, label) for i, label in enumerate(row["labels"], 1) if label in wrong)
        if not _is_bio(label):
            raise DataError(
                f"{place}, row {number}: {label!r} at token {position} is not O, B-TYPE or I-TYPE"
            )
        raise DataError(
            f"{place}, row {number}: unknown label {label!r} at token {position}; "
            f"the training data have {', '.join(known)}"
        )


def _is_bio(label: str) -> bool:
    return label == "O" or (label[:2] in ("B-", "I-") and len(label) > 2)


def read_bio(path: str | Path) -> list[Row]:
    """Rows of a file with a character and its label on each line and an empty line after each sentence.

    Raises:
        DataError: a line that is not two fields, or a label that is not BIO: file, line or row, what is wrong.
    """
    place = Path(path)
    rows: list[Row] = [{"tokens": [], "labels": []}]
    for number, line in enumerate(place.read_text(encoding="utf-8-sig").splitlines(), 1):
        fields = line.split()
        if not fields:
            rows.append({"tokens": [], "labels": []})
        elif len(fields) != 2:
            raise DataError(f"{place.name}, line {number}: {line!r} is not a character and its label")
        else:
            rows[-1]["tokens"].append(fields[0])
            rows[-1]["labels"].append(fields[1])
    rows = [row for row in rows if row["tokens"]]
    if not rows:
        raise DataError(f"{place.name}: no line holds a character and its label")
    check_labels(rows, place.name)
    return rows


def spans(labels):
    """Entities of BIO labels as (start, stop, type); an I- that continues nothing begins one, as CoNLL scores."""
    found, start, kind = [], 0, ""
    for i, label in enumerate([*labels, "O"]):
        if kind and label != f"I-{kind}":
            found.append((start, i, kind))
            kind = ""
        if label != "O" and not kind:
            start, kind = i, label[2:]
    return found


def list_names(rows):
    """Every name of two characters or more, with the type that it has most often."""
    kinds = defaultdict(Counter)
    for row in rows:
        for start, stop, kind in spans(row["labels"]):
            kinds["".join(row["tokens"][start:stop])][kind] += 1
    return {name: count.most_common(1)[0][0] for name, count in kinds.items() if len(name) > 1}


def look_up(tokens, names, longest=12):
    """BIO labels by the list: at each position the longest name that begins there."""
    text, labels, i = "".join(tokens), ["O"] * len(tokens), 0
    while i < len(text):
        sizes = range(min(longest, len(text) - i), 1, -1)
        size = next((n for n in sizes if text[i : i + n] in names), 1)
        if size > 1:
            kind = names[text[i : i + size]]
            labels[i : i + size] = [f"B-{kind}", *[f"I-{kind}"] * (size - 1)]
        i += size
    return labels
