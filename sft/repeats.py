"""Repeats and near repeats: which texts say the same, and splits that never part them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import numpy as np
from datasets import Dataset, DatasetDict

from sft.packaged import DataError

SPLITS = ("train", "validation", "test")
WINDOW = 24
"""Two texts that share a run of so many normalised characters nearly repeat each other."""


@cache  # the same corpus is cleaned, split and searched for leaks one after the other
def normalise(text: str) -> str:
    """The text as compared for repeats: NFKC, lower case, letters and digits only."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).lower())


def runs(text: str, window: int = WINDOW) -> Iterator[str]:
    """Every run of ``window`` normalised characters of a text; the whole of a shorter one."""
    key = normalise(text)
    return (key[start : start + window] for start in range(max(1, len(key) - window + 1)))


def near_duplicate_groups(texts: Sequence[str], window: int = WINDOW) -> np.ndarray:
    """Group number of each text; texts that share a run of ``window`` normalised characters share a group.

    Exact-substring linking, the idea of Lee et al. 2022, arXiv:2107.06499, at the size of a review: quoted,
    truncated and extended copies fall into one group. Texts shorter than the window group only when equal.

    Returns:
        int array of shape ``(len(texts),)``; numbers are dense and start at 0.
    """
    return linked_groups(runs(text, window) for text in texts)


def linked_groups(keys_of_rows: Iterable[Iterable[str]]) -> np.ndarray:
    """Group number of each row; rows that share a key share a group, and so do those linked through others.

    Args:
        keys_of_rows: keys in a fixed order (a list, not a set): the numbering of the groups depends on it.

    Returns:
        int array of shape ``(rows,)``; numbers are dense and start at 0.
    """
    parent: list[int] = []

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    seen: dict[str, int] = {}
    for i, keys in enumerate(keys_of_rows):
        parent.append(i)
        for key in keys:
            j = seen.setdefault(key, i)
            if j != i:
                parent[root(i)] = root(j)
    return np.unique([root(i) for i in range(len(parent))], return_inverse=True)[1]


def split_by_group(dataset: Dataset, groups: np.ndarray, *, test_size: int, seed: int) -> DatasetDict:
    """Shuffled train / validation / test split that never parts a group.

    Args:
        groups: int array of shape ``(len(dataset),)``, dense from 0.
        test_size: rows of the test split, and again of the validation split (a group may overshoot it).
        seed: of the split alone; it has nothing to do with the seed of a training run.
    """
    if 2 * test_size >= len(dataset):
        raise DataError(f"test_size {test_size} leaves no training rows of {len(dataset)}")
    rng = np.random.default_rng(seed)
    order = rng.permutation(groups.max() + 1)
    size_in_order = np.bincount(groups)[order].cumsum()
    split_of_group = np.empty(len(order), dtype=int)
    split_of_group[order] = np.searchsorted([test_size, 2 * test_size], size_in_order - 1, side="right")
    split_of_row = split_of_group[groups]
    shuffled = rng.permutation(len(dataset))  # a source is often sorted; a slice of a split must not be
    rows = {
        name: shuffled[split_of_row[shuffled] == i] for i, name in enumerate(("test", "validation", "train"))
    }
    return DatasetDict({name: dataset.select(rows[name]) for name in SPLITS})


def stratified_split(
    groups: np.ndarray, strata: np.ndarray, sizes: Sequence[int], *, seed: int
) -> np.ndarray:
    """Parts of rows that never divide a group and keep every stratum in proportion, as far as the groups allow.

    Groups are taken in a seeded order, stratum by stratum; one that would overfill a part goes to what is left over. At
    least one group of each stratum is left over, and each part gets one where there are enough.

    Args:
        groups: int array of shape ``(rows,)``, dense from 0.
        strata: int array of shape ``(rows,)``; a group belongs to the rarest of its rows' strata.
        sizes: rows of the parts 1, 2, ….

    Returns:
        int array of shape ``(rows,)``: the part of each row, 0 for what is left over.
    """
    rng = np.random.default_rng(seed)
    _, strata, counts = np.unique(strata, return_inverse=True, return_counts=True)
    rank = np.argsort(np.argsort(counts, kind="stable"), kind="stable")  # 0 is the rarest
    size_of_group = np.bincount(groups)
    stratum_of_group = np.full(len(size_of_group), len(counts))
    np.minimum.at(stratum_of_group, groups, rank[strata])
    rows_of_stratum = np.bincount(stratum_of_group, weights=size_of_group, minlength=len(counts))
    targets = [_shares_of(size, rows_of_stratum) for size in sizes]
    part_of_group = np.zeros(len(size_of_group), dtype=np.int64)
    order = rng.permutation(len(size_of_group))
    order = order[np.argsort(stratum_of_group[order], kind="stable")]
    bounds = np.searchsorted(stratum_of_group[order], np.arange(len(counts) + 1))
    for stratum in range(len(counts)):
        members = order[bounds[stratum] : bounds[stratum + 1]].tolist()
        left = len(members)
        filled = [0] * len(sizes)
        for group in members:
            size = int(size_of_group[group])
            for part, target in enumerate(targets):
                if left > 1 and filled[part] + size <= target[stratum]:
                    filled[part] += size
                    part_of_group[group] = part + 1
                    left -= 1
                    break
            if all(done >= target[stratum] for done, target in zip(filled, targets, strict=True)):
                break
        for part, target in enumerate(targets):  # every group is larger than what the part may hold
            free = [group for group in members if part_of_group[group] == 0]
            if not filled[part] and target[stratum] and len(free) > 1:
                part_of_group[min(free, key=size_of_group.__getitem__)] = part + 1
    return part_of_group[groups]


def _shares_of(size: int, rows: np.ndarray) -> np.ndarray:
    """``size`` rows divided in proportion to ``rows``; where it suffices, at least one to each that has any."""
    exact = size * rows / rows.sum()
    shares = np.floor(exact).astype(int)
    shares[np.argsort(shares - exact, kind="stable")[: size - shares.sum()]] += 1
    needy = np.flatnonzero((shares == 0) & (rows > 0))
    if size >= np.count_nonzero(rows):
        for stratum in needy:
            shares[shares.argmax()] -= 1
            shares[stratum] += 1
    return shares
