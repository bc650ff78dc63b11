"""Repeats and near repeats: which texts say the same, and splits that never part them."""

from __future__ import annotations

import itertools
import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from datasets import Dataset, DatasetDict

from sft.packaged import DataError

SPLITS = ("train", "validation", "test")
WINDOW = 24
"""Two texts that share a run of so many normalised characters nearly repeat each other."""


@lru_cache(maxsize=50_000)  # the same corpus is cleaned, split and searched for leaks one after the other
def normalise(text: str) -> str:
    """The text as compared for repeats: NFKC, lower case, letters and digits only."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).lower())


def runs(text: str, window: int = WINDOW) -> Iterator[str]:
    """Every run of ``window`` normalised characters of a text; the whole of a shorter one."""
    key = normalise(text)
    return (key[start : start + window] for start in range(max(1, len(key) - window + 1)))


def near_duplicate_groups(texts: Iterable[str], window: int = WINDOW) -> np.ndarray:
    """Group number of each text; texts that share a run of ``window`` normalised characters share a group.

    Exact-substring linking, the idea of Lee et al. 2022, arXiv:2107.06499, at the size of a review: quoted,
    truncated and extended copies fall into one group. Texts shorter than the window group only when equal. The groups
    are those of :func:`linked_groups` on :func:`runs`, but runs are compared by hashes of 64 bits, a share of them at a
    time, so that a million texts take seconds and little more memory than their characters.

    Returns:
        int array of shape ``(len(texts),)``; numbers are dense and start at 0.
    """
    batches = list(_normalised_batches(texts))
    lengths = np.concatenate([np.zeros(0, np.int64), *(batch.lengths for batch in batches)])
    ends = lengths.cumsum()
    whole = np.concatenate([np.zeros(0, np.uint64), *map(_text_hashes, batches)])
    short = np.flatnonzero(lengths < window)
    rows = short[_repeated(whole[short])]
    links = [np.column_stack([ends[rows[:, 0]], rows])]  # (where in the text, row, first row)
    runs_of_all = int(np.maximum(lengths - window + 1, 0).sum())
    shares = 1 << (runs_of_all // _RUNS_AT_ONCE).bit_length()
    for share in range(shares):
        hashes, places = _runs_of_share(batches, window, share, shares, runs_of_all)
        pairs = places[_repeated(hashes)]
        rows = np.searchsorted(ends, pairs, side="right")
        links.append(np.column_stack([pairs[:, 0], rows])[rows[:, 0] != rows[:, 1]])
        del hashes, places  # before those of the next share
    del batches
    found = np.concatenate(links)
    found = found[np.lexsort((found[:, 0], found[:, 1]))][:, 1:]
    changes = np.ones(len(found), dtype=bool)
    changes[1:] = (found[1:] != found[:-1]).any(axis=1)
    return _joined(len(lengths), found[changes].tolist())


def text_hashes(texts: Iterable[str]) -> np.ndarray:
    """A number for each text, uint64 of shape ``(len(texts),)``: the same where :func:`normalise` makes them equal.

    A text of signs alone normalises to nothing; it is told by its signs.
    """
    hashes = []
    for some in _batched(texts):
        (batch,) = _normalised_batches(some)
        hashed = _text_hashes(batch)
        for i in np.flatnonzero(batch.lengths == 0):
            hashed[i] = hash(some[i].strip()) & 0xFFFF_FFFF_FFFF_FFFF
        hashes.append(hashed)
    return np.concatenate([np.zeros(0, np.uint64), *hashes])


def linked_groups(keys_of_rows: Iterable[Iterable[str]]) -> np.ndarray:
    """Group number of each row; rows that share a key share a group, and so do those linked through others.

    Args:
        keys_of_rows: keys in a fixed order (a list, not a set): the numbering of the groups depends on it.

    Returns:
        int array of shape ``(rows,)``; numbers are dense and start at 0.
    """
    seen: dict[str, int] = {}
    links: dict[tuple[int, int], None] = {}  # in their order; a second of the same changes nothing
    rows = 0
    for rows, keys in enumerate(keys_of_rows, 1):
        for key in keys:
            first = seen.setdefault(key, rows - 1)
            if first != rows - 1:
                links[rows - 1, first] = None
    return _joined(rows, links)


def _joined(rows: int, links: Iterable[Sequence[int]]) -> np.ndarray:
    """Group number of each row, dense from 0, after joining the groups of each pair in turn."""
    parent = array("q", range(rows))  # a list would hold as many objects

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in links:
        parent[root(i)] = root(j)
    return np.unique(np.fromiter(map(root, range(rows)), np.int64, rows), return_inverse=True)[1]


# --- many texts at once -------------------------------------------------------------------------------

_TEXTS_AT_ONCE = 5_000
_RUNS_AT_ONCE = 1 << 22
_UNKNOWN, _NOTHING, _SPECIAL = 0xFFFF_FFFF, 0xFFFF_FFFE, 0xFFFF_FFFD
_FACTOR = np.uint64(0x9E37_79B9_7F4A_7C15)
_NORMALISED = np.full(0x11_0000, _UNKNOWN, dtype=np.uint32)
"""What each code point becomes; filled as they occur."""


@dataclass(frozen=True)
class _Batch:
    """Normalised texts one after the other."""

    codes: np.ndarray  # (characters,), uint16 or uint32
    lengths: np.ndarray  # (texts,)

    @property
    def starts(self) -> np.ndarray:
        return self.lengths.cumsum() - self.lengths


def _batched(texts: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while some := list(itertools.islice(rest, _TEXTS_AT_ONCE)):
        yield some


def _normalised_batches(texts: Iterable[str]) -> Iterator[_Batch]:
    """Texts as :func:`normalise` makes them, character by character where its rules look at no neighbour."""
    for some in _batched(texts):
        lengths = np.fromiter(map(len, some), np.int64, len(some))
        codes = _codes("".join(some))
        mapped = _NORMALISED[codes]
        if (mapped == _UNKNOWN).any():
            for code in np.unique(codes[mapped == _UNKNOWN]).tolist():
                _NORMALISED[code] = _normalised_code(chr(code))
            mapped = _NORMALISED[codes]
        row = np.repeat(np.arange(len(some)), lengths)
        special = np.unique(row[mapped == _SPECIAL])
        if len(special):
            ends = lengths.cumsum()
            pieces, done = [], 0
            for i in special.tolist():
                own = _codes(normalise(some[i]))
                pieces += [mapped[done : ends[i] - lengths[i]], own]
                done = ends[i]
            before = np.bincount(row, minlength=len(some))
            before[special] = [len(piece) for piece in pieces[1::2]]
            mapped = np.concatenate([*pieces, mapped[done:]])
            row = np.repeat(np.arange(len(some)), before)
        kept = mapped != _NOTHING
        mapped = mapped[kept]
        narrow = np.uint16 if mapped.max(initial=0) < 1 << 16 else np.uint32
        yield _Batch(mapped.astype(narrow), np.bincount(row[kept], minlength=len(some)))


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _normalised_code(char: str) -> int:
    """The one character, or nothing, that a character becomes wherever it stands; else ``_SPECIAL``."""
    form = unicodedata.normalize("NFKC", char)
    composes = any(unicodedata.category(c)[0] == "M" or c == "Σ" or _is_jamo(c) for c in form)
    plain = normalise(char)
    if composes or len(plain) > 1:
        return _SPECIAL
    return ord(plain) if plain else _NOTHING


def _is_jamo(char: str) -> bool:
    return any(
        low <= char <= high
        for low, high in (("\u1100", "\u11ff"), ("\ua960", "\ua97f"), ("\ud7b0", "\ud7ff"))
    )


def _mixed(codes: np.ndarray) -> np.ndarray:
    """Each character as a number of 64 random bits."""
    mixed = (codes.astype(np.uint64) + np.uint64(1)) * np.uint64(0xBF58_476D_1CE4_E5B9)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0x94D0_49BB_1331_11EB)
    return mixed ^ (mixed >> np.uint64(32))


def _text_hashes(batch: _Batch) -> np.ndarray:
    """A polynomial of the characters of each text, 0 for an empty one."""
    filled = np.flatnonzero(batch.lengths)
    hashes = np.zeros(len(batch.lengths), dtype=np.uint64)
    if len(filled):
        powers = np.multiply.accumulate(np.full(batch.lengths.max(), _FACTOR))
        places = np.arange(len(batch.codes)) - np.repeat(batch.starts, batch.lengths)
        hashes[filled] = np.add.reduceat(_mixed(batch.codes) * powers[places], batch.starts[filled])
    return hashes


def _runs_of_share(
    batches: Sequence[_Batch], window: int, share: int, shares: int, runs_of_all: int
) -> tuple[np.ndarray, np.ndarray]:
    """The hashes of those runs whose hash ends in the bits of ``share``, and where each run begins among all texts."""
    room = min(
        runs_of_all, runs_of_all // shares + runs_of_all // (2 * shares) + 1
    )  # hashes of one run may be many
    characters = sum(len(batch.codes) for batch in batches)
    hashes = np.empty(room, np.uint64)
    places = np.empty(room, np.uint32 if characters < 1 << 32 else np.int64)
    count = offset = 0
    for batch in batches:
        hashed, inside = _run_hashes(batch, window)
        begins = np.flatnonzero(inside & (hashed & np.uint64(shares - 1) == share))
        hashed = hashed[begins]
        if count + len(hashed) > len(hashes):
            hashes, places = (np.resize(array, 2 * (count + len(hashed))) for array in (hashes, places))
        hashes[count : count + len(hashed)] = hashed
        places[count : count + len(hashed)] = begins + offset
        count += len(hashed)
        offset += len(batch.codes)
    return hashes[:count], places[:count]


def _run_hashes(batch: _Batch, window: int) -> tuple[np.ndarray, np.ndarray]:
    """The hash of every run of ``window`` characters, and whether it lies within one text.

    Runs of 2, 4, 8, … characters are put together from two of half the length.
    """
    if len(batch.codes) < window:
        return np.zeros(0, np.uint64), np.zeros(0, bool)
    power, size, factor = _mixed(batch.codes), 1, _FACTOR  # runs of `size`, factor to the power of `size`
    hashes, width = np.zeros(len(power) + 1, np.uint64), 0
    while True:
        if window & size:
            hashes = hashes[: len(power) - width] * factor + power[width:] if width else power
            width += size
        if 2 * size > window:
            break
        power = power[:-size] * factor + power[size:]
        with np.errstate(over="ignore"):  # modulo 2 ** 64, as everything here
            size, factor = 2 * size, factor * factor
    inside = np.ones(len(hashes), dtype=bool)
    for end in range(1, window):  # runs that begin so close to the end of a text reach into the next
        crossing = batch.lengths.cumsum() - end
        inside[crossing[(crossing >= 0) & (crossing < len(inside))]] = False
    return hashes, inside


def _repeated(hashes: np.ndarray) -> np.ndarray:
    """Pairs of places (one, the first with the same hash), int array of shape ``(pairs, 2)``.

    Most hashes occur once. Sorting them without their places is several times faster than with them, and tells which
    do not; those alone are sorted with their places.
    """
    ordered = np.sort(hashes)
    several = np.zeros(1 << 22, dtype=bool)  # by the first bits
    several[ordered[1:][ordered[1:] == ordered[:-1]] >> np.uint64(42)] = True
    del ordered
    blocks = range(0, len(hashes), 1 << 18)
    often = [np.flatnonzero(several[hashes[i : i + (1 << 18)] >> np.uint64(42)]) + i for i in blocks]
    places = np.concatenate([np.zeros(0, np.int64), *often])
    order = places[np.argsort(hashes[places], kind="stable")]
    new = np.ones(len(order), dtype=bool)
    new[1:] = hashes[order[1:]] != hashes[order[:-1]]
    first = order[new][new.cumsum() - 1] if len(order) else order
    return np.column_stack([order[~new], first[~new]])


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
