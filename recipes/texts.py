"""What the small models read: the training rows of four corpora, without those that repeat an evaluation row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from datasets import Dataset, DatasetDict

from sft.corpora import (
    definition_keys,
    definition_text,
    load_dictionary,
    load_people_daily,
    load_xiehouyu,
    saying_keys,
    saying_text,
)
from sft.data import load_reviews
from sft.repeats import SPLITS, runs


@dataclass(frozen=True)
class HeldOut:
    """How many training rows of a corpus were left out of pre-training because they repeat an evaluation row."""

    corpus: str
    rows: int
    dropped: int


def load_pretraining_texts() -> Dataset:
    """Text to pre-train on: columns ``text`` and ``corpus``, the training rows of the four corpora.

    A dictionary entry reads ``word：definition``, a saying ``riddle——answer``. Every row that repeats or nearly repeats
    a validation or test row of any corpus is left out: rows that share a run of 24 normalised characters, that are
    equal after :func:`sft.repeats.normalise`, or that share a headword, a sense or (nearly) a riddle, as
    :func:`sft.corpora.definition_keys` and :func:`sft.corpora.saying_keys` say.

    Raises:
        DataError: a package is not installed, or its files are not those the book was measured on.
    """
    return build_pretraining_texts()[0]


def group_by_corpus(texts: Dataset) -> dict[str, list[str]]:
    """The texts of :func:`load_pretraining_texts` by the corpus that they belong to, in their order."""
    groups: dict[str, list[str]] = {}
    for text, corpus in zip(texts["text"], texts["corpus"], strict=True):
        groups.setdefault(corpus, []).append(text)
    return groups


def build_pretraining_texts() -> tuple[Dataset, tuple[HeldOut, ...]]:
    """:func:`load_pretraining_texts` and, for each corpus, what was left out."""
    splits_of_corpus = {
        "reviews": _texts_and_keys(load_reviews(), lambda text: text, runs, "text"),
        "people_daily": _texts_and_keys(load_people_daily(), lambda text: text, runs, "text"),
        "dictionary": _texts_and_keys(
            load_dictionary(), definition_text, definition_keys, "word", "definition"
        ),
        "xiehouyu": _texts_and_keys(load_xiehouyu(), saying_text, saying_keys, "riddle", "answer"),
    }
    evaluated = {
        key
        for splits in splits_of_corpus.values()
        for name in SPLITS[1:]
        for _, keys in splits[name]
        for key in keys
    }
    texts: list[str] = []
    corpora: list[str] = []
    report = []
    for corpus, splits in splits_of_corpus.items():
        rows = list(splits["train"])
        kept = [text for text, keys in rows if evaluated.isdisjoint(keys)]
        texts += kept
        corpora += [corpus] * len(kept)
        report.append(HeldOut(corpus, len(rows), len(rows) - len(kept)))
    return Dataset.from_dict({"text": texts, "corpus": corpora}), tuple(report)


def _texts_and_keys(
    splits: DatasetDict,
    text_of: Callable[..., str],
    keys_of: Callable[..., Iterable[str]],
    *columns: str,
) -> dict[str, Iterator[tuple[str, Iterable[str]]]]:
    """For each split, its rows' texts and the keys by which a row repeats another, made when asked for."""
    return {
        name: (
            (text_of(*row), keys_of(*row))
            for row in zip(*(table[:][column] for column in columns), strict=True)
        )
        for name, table in splits.items()
    }
