"""A user's own file or folder, read, checked, cleaned and split for fine-tuning.

The files are found by :mod:`sft.split_files` and their cells read by :mod:`sft.tables`; :mod:`sft.columns` tells which
column is what, and :mod:`sft.labels` makes classes of the labels. Here rows that cannot be used are dropped and
counted, splits are made or taken as they are, and all of it is said in a :class:`sft.data_report.DataReport`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, DatasetInfo, Features, List, Value
from datasets.fingerprint import generate_random_fingerprint
from datasets.table import InMemoryTable

from sft.columns import Roles, by_role, choose_columns, choose_text, find_column, shown
from sft.data_report import CONTRADICTORY, IN_CHINESE, REPEATED, DataReport, Dropped, FileFacts, Kind
from sft.labels import Labels, Place, read_flags, read_labels
from sft.packaged import DataError
from sft.repeats import SPLITS, WINDOW, near_duplicate_groups, stratified_split, text_hashes
from sft.split_files import SPLIT_WORDS, Part, read_parts, resolve
from sft.tables import Column, Table, read_table

LEAST_ROWS = 3
"""Rows of a class, one for each split; a class with fewer is dropped."""

_SHARES = {"test": 0.2, "validation": 0.1}
_MOST_ROWS = {"test": 5000, "validation": 2500}
_SPEAKERS = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "chatgpt", "bing", "model"), "assistant"),
    "system": "system",
}


@dataclass(frozen=True)
class OwnData:
    """Splits that a model can be tuned on, and how they came about.

    ``splits`` holds ``row`` (from 1; a header and blank lines do not count) and ``file`` beside ``text`` and ``label``
    (a class, or for several labels a list of 0.0 and 1.0), ``prompt`` and ``answer``, or ``messages``.
    """

    splits: DatasetDict
    kind: Kind
    label_names: tuple[str, ...]
    report: DataReport


# --- rows ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rows:
    """All rows of all files, before any is dropped; arrays have one entry a row."""

    data: pa.Table  # text, or prompt and answer, or messages
    labels: Labels | None
    file: np.ndarray  # number of its part
    row: np.ndarray  # from 1
    split: np.ndarray  # place in SPLITS, -1 where the data do not say
    names: tuple[str, ...]  # of the parts' files

    def place(self, i: int) -> str:
        """Where a row stands, for an error."""
        return f"{self.names[self.file[i]]}：第 {self.row[i]} 条"

    @cached_property
    def keys(self) -> np.ndarray:
        """A number for each row, the same for rows that repeat each other; dense from 0 in the order of the rows.

        The hashes themselves differ from one process to the next, and no split may depend on them.
        """
        texts = _spoken_texts(self.data)
        if self.labels is not None:
            hashes = text_hashes(texts)
        else:
            hashes = np.fromiter((hash(text.strip()) for text in texts), dtype=np.int64, count=len(self.row))
        _, first, number = np.unique(hashes, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[number]


def _spoken_texts(data: pa.Table) -> Iterator[str]:
    """What repeats are told by, row after row and never all at once: a text, prompt and answer, or all turns."""
    for batch in data.to_batches(max_chunksize=10_000):
        columns = [batch.column(name).to_pylist() for name in data.column_names]
        for cells in zip(*columns, strict=True):
            turns = (turn["content"] for turn in cells[0]) if isinstance(cells[0], list) else cells
            yield "\n".join(turns)


def _texts(column: Column, name: str, where: str) -> pa.ChunkedArray:
    """Cells as text; numbers are written out, what is absent is empty."""
    if isinstance(column, pa.ChunkedArray):
        return pc.fill_null(column, "")
    cells = []
    for row, cell in enumerate(column, 1):
        if isinstance(cell, dict | list | bytes):
            raise DataError(
                f"{where}：第 {row} 条，列 {name} 不是文字而是 {type(cell).__name__}："
                "写成一段文字，或用 --text 另指一列"
            )
        cells.append("" if cell is None or cell != cell else str(cell))  # NaN differs from itself
    try:
        return pa.chunked_array([pa.array(cells, pa.string())])
    except UnicodeEncodeError:
        bad = next(row for row, cell in enumerate(cells, 1) if not cell.isprintable() and _is_broken(cell))
        raise DataError(f"{where}：第 {bad} 条，列 {name} 有半个字符（代理项）：重新导出这个文件") from None


def _is_broken(cell: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in cell)


def _conversations(column: Column, where: str) -> pa.ChunkedArray:
    """Conversations with roles in order: one system message at most, then user and assistant in turn.

    Raises:
        DataError: a role out of order, an unknown one, an empty turn, an end without the assistant.
    """
    cells = column.to_pylist() if isinstance(column, pa.ChunkedArray) else column
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    told = [_conversation(cell, f"{where}：第 {row} 条") for row, cell in enumerate(cells, 1)]
    return pa.chunked_array([pa.array(told, kind)])


def _conversation(cell: Any, place: str) -> list[dict[str, str]]:
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except ValueError:
            raise DataError(f'{place}的对话不是 JSON：写成 [{{"role": …, "content": …}}, …]') from None
    if not isinstance(cell, list) or not cell:
        raise DataError(f"{place}没有对话：补上，或删去这一条")
    told: list[dict[str, str]] = []
    for number, turn in enumerate(cell, 1):
        turn = turn if isinstance(turn, dict) else {}
        speaker = turn.get("role") or turn.get("from")
        content = turn.get("content") if turn.get("content") is not None else turn.get("value")
        role = _SPEAKERS.get(str(speaker).casefold())
        if role is None:
            raise DataError(
                f"{place}，第 {number} 句的角色 {shown(speaker)} 不认识：用 system、user、assistant"
            )
        if content is not None and not isinstance(content, str):
            raise DataError(f"{place}，第 {number} 句（{role}）不是文字：写成一段文字")
        if not content or not content.strip():
            raise DataError(f"{place}，第 {number} 句（{role}）是空的：补上，或删去这一条")
        expected = "user" if not told or told[-1]["role"] in ("system", "assistant") else "assistant"
        if role != expected and not (role == "system" and number == 1):
            raise DataError(
                f"{place}，第 {number} 句该是 {expected}，却是 {role}：user 和 assistant 要轮流说，system 只能在最前"
            )
        told.append({"role": role, "content": content})
    if told[-1]["role"] != "assistant":
        raise DataError(f"{place}的最后一句不是 assistant 说的：补上回答，或删去最后一句")
    return told


def _read_rows(
    parts: Sequence[Part], roles: Roles, split: str | None, separator: str | None, *, asked: bool
) -> _Rows:
    tables = [part.table for part in parts]
    names = tuple(table.path.name for table in tables)
    sizes = [table.rows for table in tables]
    file = np.repeat(np.arange(len(parts), dtype=np.int32), sizes)
    row = np.concatenate([np.arange(1, size + 1) for size in sizes])
    columns: dict[str, list[pa.Array]] = {}
    for table in tables:
        for role, members in roles.columns.items():
            for name in members:
                find_column(name, table.columns, table.path.name)
            if role in ("text", "prompt", "answer"):
                cells = _joined([_texts(table.columns[name], name, table.path.name) for name in members])
                columns.setdefault(role, []).extend(cells.chunks)
            elif role == "messages":
                cells = _conversations(table.columns[members[0]], table.path.name)
                columns.setdefault(role, []).extend(cells.chunks)
    data = pa.table({role: pa.chunked_array(chunks) for role, chunks in columns.items()})
    given = [-1 if part.split is None else SPLITS.index(part.split) for part in parts]
    rows = _Rows(data, None, file, row, np.repeat(np.array(given, dtype=np.int8), sizes), names)
    if split is not None:
        rows = replace(rows, split=_split_column(tables, split, rows.place))
    if roles.kind == "labels":
        rows = replace(
            rows, labels=_labels(tables, roles.columns["label"], separator, rows.place, asked=asked)
        )
    return rows


def _joined(columns: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    """An instruction and its input as one prompt; a row without an input has the instruction alone."""
    if len(columns) == 1:
        return columns[0]
    pairs = zip(*(column.to_pylist() for column in columns), strict=True)
    return pa.chunked_array(
        [pa.array(["\n".join(p for p in pair if p.strip()) for pair in pairs], pa.string())]
    )


def _labels(
    tables: Sequence[Table], names: Sequence[str], separator: str | None, place: Place, *, asked: bool
) -> Labels:
    if len(names) > 1:
        return read_flags({name: [table.columns[name] for table in tables] for name in names}, place)
    (name,) = names
    words = {tuple(table.class_names.get(name, ())) for table in tables}
    if len(words) > 1:
        raise DataError(
            f"{tables[0].path.name} 和别的文件给列 {name} 的类别起的名字不同：用同一份名字重新导出"
        )
    return read_labels(
        [table.columns[name] for table in tables],
        column=name,
        place=place,
        separator=separator,
        asked=asked,
        words=words.pop(),
    )


def _split_column(tables: Sequence[Table], name: str, place: Place) -> np.ndarray:
    splits, count = [], 0
    for table in tables:
        for value in table.values(name):
            split = SPLIT_WORDS.get(str(value).strip().casefold())
            if split is None:
                raise DataError(
                    f"{place(count)}，列 {name}：{shown(value)} 不是 train、validation、test 之一："
                    "改好，或换一列作 --split"
                )
            splits.append(SPLITS.index(split))
            count += 1
    return np.array(splits, dtype=np.int8)


def _find_split_column(table: Table, split: str | None, taken: Sequence[str | None]) -> str | None:
    """The column that names the splits: the one asked for, or one whose name and every value say so."""
    if split is not None:
        return find_column(split, table.columns, table.path.name)
    for name in by_role(list(table.columns)).get("split", ()):
        if name not in taken and {str(v).strip().casefold() for v in table.sample(name)} <= set(SPLIT_WORDS):
            return name
    return None


# --- cleaning -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cleaned:
    keep: np.ndarray  # bool, a row
    dropped: tuple[Dropped, ...]
    names: tuple[str, ...]  # of the classes that are left
    rare: Mapping[str, int]
    empty: int
    missing: int
    repeats: int
    contradictions: int


def _clean(rows: _Rows, *, official: bool, strict: bool) -> _Cleaned:
    """Drop what cannot be used; where the splits are ours to make, also repeats and contradictions.

    Raises:
        DataError: ``strict`` and something would be dropped, or too little is left.
    """
    count = len(rows.row)
    keep = np.ones(count, dtype=bool)
    dropped: list[Dropped] = []

    def drop(reason: str, those: np.ndarray, remedy: str) -> int:
        places = np.flatnonzero(those & keep)
        if not len(places):
            return 0
        if strict:
            raise DataError(
                f"{rows.place(places[0])}：{reason}（共 {len(places)} 条）：{remedy}，或去掉 --strict"
            )
        dropped.append(Dropped(reason, len(places), tuple(map(rows.place, places[:3]))))
        keep[places] = False
        return len(places)

    blank = np.zeros(count, dtype=bool)
    for name in rows.data.column_names:
        if name != "messages":
            lengths = [pc.binary_length(pc.utf8_trim_whitespace(chunk)) for chunk in rows.data[name].chunks]
            blank |= pa.chunked_array(lengths, pa.int32()).to_numpy() == 0
    what = "提问或回答是空的" if "answer" in rows.data.column_names else "正文是空的"
    empty = drop(what, blank, "补上或删去")
    labels = rows.labels
    missing = drop("没有标签", labels.codes < 0, "补上或删去") if labels else 0
    codes = labels.codes if labels else np.zeros(count, dtype=int)
    repeated, contradictory = _repeats(rows.keys, codes, rows.split, keep)
    repeats, contradictions = int(repeated.sum()), int(contradictory.sum())
    if not official:
        drop(CONTRADICTORY, contradictory, "定下一个标签")
        drop(REPEATED, repeated, "只留一条")
    names, rare = (labels.names, {}) if labels else ((), {})
    if labels and labels.flags is None and not official:
        names, rare = _drop_rare(labels, keep, drop)
    _refuse_too_few(rows, labels, names, keep, rare)
    return _Cleaned(keep, tuple(dropped), names, rare, empty, missing, repeats, contradictions)


def _repeats(
    keys: np.ndarray, codes: np.ndarray, split: np.ndarray, keep: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that repeat an earlier one of their split with the same label, and rows whose text has several labels."""
    places = np.flatnonzero(keep)
    repeated, contradictory = np.zeros(len(keys), dtype=bool), np.zeros(len(keys), dtype=bool)
    of_text, code = keys[places], codes[places]
    low = np.full(keys.max(initial=-1) + 1, np.iinfo(np.int64).max)
    high = np.full(len(low), -1)
    np.minimum.at(low, of_text, code)
    np.maximum.at(high, of_text, code)
    contradictory[places] = (low != high)[of_text]
    _, first = np.unique(of_text * (len(SPLITS) + 1) + split[places], return_index=True)
    repeated[places] = True
    repeated[places[first]] = False
    return repeated & ~contradictory, contradictory


def _drop_rare(
    labels: Labels, keep: np.ndarray, drop: Callable[[str, np.ndarray, str], int]
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Classes of fewer rows than there are splits; unless all but one are."""
    counts = np.bincount(labels.codes[keep], minlength=len(labels.names))
    enough = counts >= LEAST_ROWS
    if enough.sum() < 2:
        return labels.names, {}
    for number in np.flatnonzero(~enough & (counts > 0)):
        reason = f"类别 {labels.names[number]} 太少，每类至少要 {LEAST_ROWS} 条"
        drop(reason, labels.codes == number, "补上更多，或并入别的类")
    names = tuple(name for name, is_enough in zip(labels.names, enough, strict=True) if is_enough)
    return names, {labels.names[i]: int(counts[i]) for i in np.flatnonzero(~enough)}


def _refuse_too_few(
    rows: _Rows, labels: Labels | None, names: Sequence[str], keep: np.ndarray, rare: Mapping[str, int]
) -> None:
    where = rows.names[0]
    left = int(keep.sum())
    if left < LEAST_ROWS:
        raise DataError(
            f"{where}：{len(keep)} 条里去掉空的、没有标签的、重复的、自相矛盾的，只剩 {left} 条："
            f"至少要 {LEAST_ROWS} 条不同的"
        )
    if labels is None or labels.flags is not None:
        return
    counts = np.bincount(labels.codes[keep], minlength=len(labels.names))
    present = [labels.names[i] for i in np.flatnonzero(counts)]
    if len(present) == 1:
        raise DataError(
            f"{where}：留下的 {left} 条都是一类（{present[0]}），没有可学的：补上别的类，或用 --label 另指一列"
        )
    if not rare and (rows.split < 0).all() and (counts >= LEAST_ROWS).sum() < 2:
        fewest = labels.names[int(np.argmin(np.where(counts > 0, counts, left + 1)))]
        row = int(np.flatnonzero(keep & (labels.codes == labels.names.index(fewest)))[0])
        raise DataError(
            f"{rows.place(row)}：类别 {fewest} 只有 {counts[labels.names.index(fewest)]} 条，"
            f"至少两类各要 {LEAST_ROWS} 条才能划分：补上更多"
        )


# --- splits -------------------------------------------------------------------------------------------


def _assign_splits(
    rows: _Rows, cleaned: _Cleaned, *, seed: int, sizes: Mapping[str, int | float | None]
) -> tuple[np.ndarray, str, tuple[str, ...]]:
    """The split of each row (place in SPLITS), how it came about, and notes; splits that lack are taken from train."""
    split = rows.split.copy()
    official = bool((split >= 0).any())
    absent = [name for name in ("test", "validation") if not (split == SPLITS.index(name)).any()]
    if not absent:
        given = [f"--{name}-size" for name, size in sizes.items() if size is not None]
        note = (f"划分是数据自带的，{'、'.join(given)} 没有用上",) if given else ()
        return split, "数据自带", note
    pool = np.flatnonzero(cleaned.keep & (split <= 0))
    strata = _strata(rows.labels, pool)
    amounts = [_amount(name, sizes[name], len(pool), len(np.unique(strata))) for name in absent]
    if sum(amounts) >= len(pool):
        raise DataError(
            f"{rows.names[0]}：验证和测试要 {sum(amounts)} 条，可分的只有 {len(pool)} 条，没有剩下的可训练："
            "把 --test-size 和 --validation-size 改小，或补上更多数据"
        )
    part, note = _split_pool(rows, pool, strata, amounts, seed)
    split[pool] = np.array([0, *(SPLITS.index(name) for name in absent)], dtype=np.int8)[part]
    origin = f"按种子 {seed} 随机分，相近的正文放在一起，各类按比例"
    made = "、".join(IN_CHINESE[name] for name in absent)
    return split, f"数据自带，{made}从训练中{origin}" if official else origin, note


def _split_pool(
    rows: _Rows, pool: np.ndarray, strata: np.ndarray, amounts: Sequence[int], seed: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Parts of the rows that may be split: 0 is train. Groups of near repeats stay together where that leaves a choice.

    Texts that share a long formula are near repeats of each other, all of them; then longer runs must be shared.
    """
    data = rows.data if len(pool) == len(rows.row) else rows.data.take(pool)
    for window in (WINDOW, 2 * WINDOW, 4 * WINDOW):
        groups = near_duplicate_groups(_spoken_texts(data), window)
        if np.bincount(groups).max() > max(0.2 * len(pool), 5):
            continue
        part = stratified_split(groups, strata, amounts, seed=seed)
        if np.bincount(part, minlength=len(amounts) + 1).all():
            formula = f"许多正文有大段一样的话，连续 {window} 个字相同才算相近"
            return part, (formula,) if window > WINDOW else ()
    groups = np.unique(rows.keys[pool], return_inverse=True)[1]
    part = stratified_split(groups, strata, amounts, seed=seed)
    if not np.bincount(part, minlength=len(amounts) + 1).all():
        raise DataError(
            f"{rows.names[0]}：{len(pool)} 条里不同的太少，分不出训练、验证和测试：补上更多不同的数据"
        )
    return part, ("许多正文彼此相近，只把完全相同的放在一起；测试分数会偏高",)


def _strata(labels: Labels | None, pool: np.ndarray) -> np.ndarray:
    """What is kept in proportion: the class of a row, of several the rarest, shape (len(pool),)."""
    if labels is None:
        return np.zeros(len(pool), dtype=np.int64)
    if labels.flags is None:
        return labels.codes[pool]
    flags = labels.flags[pool]
    counts = flags.sum(axis=0)
    rarest = np.where(flags, counts, len(flags) + 1).argmin(axis=1)
    return np.where(flags.any(axis=1), rarest, len(counts))


def _amount(name: str, size: int | float | None, rows: int, classes: int) -> int:
    """Rows of a split: as asked for, in rows or as a fraction, or a share that depends on how many there are."""
    if size is None:
        return min(max(round(_SHARES[name] * rows), min(classes, rows // 4), 1), _MOST_ROWS[name])
    if 0 < size < 1:
        return max(1, round(size * rows))
    if size >= 1 and float(size).is_integer():
        return int(size)
    raise DataError(f"--{name}-size {size} 不行：写行数（如 200）或比例（如 0.2）")


def _refuse_strange_classes(rows: _Rows, labels: Labels, keep: np.ndarray, split: np.ndarray) -> None:
    """Official splits whose train cannot teach what the others ask."""
    if labels.flags is not None:
        return
    train = keep & (split == 0)
    known = np.unique(labels.codes[train])
    if len(known) == 1:
        name = labels.names[known[0]]
        raise DataError(f"{rows.names[0]}：训练的各条都是一类（{name}），没有可学的：补上别的类")
    strange = np.flatnonzero(keep & (split > 0) & ~np.isin(labels.codes, known))
    if len(strange):
        i = strange[0]
        name = labels.names[labels.codes[i]]
        raise DataError(
            f"{rows.place(i)}：类别 {name} 在训练里没有（共 {len(strange)} 条这样的）：训练里补上，或删去它们"
        )


def _build(
    rows: _Rows, cleaned: _Cleaned, split: np.ndarray, *, shuffle: bool, seed: int
) -> tuple[DatasetDict, Kind]:
    """The splits as data sets, with the classes numbered in their order."""
    columns = {name: rows.data[name] for name in rows.data.column_names}
    turn = List({"role": Value("string"), "content": Value("string")})
    features = {name: turn if name == "messages" else Value("string") for name in columns}
    kind: Kind = "conversations" if "messages" in columns else "prompts"
    labels = rows.labels
    if labels is not None and labels.flags is None:
        kind = "single_label"
        number = np.array([cleaned.names.index(n) if n in cleaned.names else -1 for n in labels.names] + [-1])
        columns["label"] = pa.chunked_array([pa.array(number[labels.codes], pa.int64())])
        features["label"] = ClassLabel(names=list(cleaned.names))
    elif labels is not None:
        kind = "multi_label"
        offsets = np.arange(0, labels.flags.size + 1, labels.flags.shape[1], dtype=np.int32)
        flat = pa.array(labels.flags.ravel().astype(np.float32))
        columns["label"] = pa.chunked_array([pa.ListArray.from_arrays(pa.array(offsets), flat)])
        features["label"] = List(Value("float32"))
    columns["row"] = pa.chunked_array([pa.array(rows.row, pa.int64())])
    columns["file"] = pa.chunked_array([pa.array(rows.names, pa.string()).take(pa.array(rows.file))])
    features |= {"row": Value("int64"), "file": Value("string")}
    info = DatasetInfo(features=Features(features))
    table = pa.table(columns).cast(info.features.arrow_schema)
    rng = np.random.default_rng(seed)
    # its texts are held once, whatever the splits; a fingerprint of its own would pickle them all
    everything = Dataset(InMemoryTable(table), info=info, fingerprint=generate_random_fingerprint())
    splits = {}
    for number, name in enumerate(SPLITS):
        places = np.flatnonzero(cleaned.keep & (split == number))
        if shuffle:
            places = rng.permutation(places)  # a file is often sorted; a slice of a split must not be
        splits[name] = everything.select(places)
    return DatasetDict(splits), kind


# --- the whole ----------------------------------------------------------------------------------------


def load_own_data(
    path: str | Path,
    *,
    text: str | None = None,
    label: str | None = None,
    split: str | None = None,
    separator: str | None = None,
    sheet: str | int | None = None,
    strict: bool = False,
    seed: int = 0,
    test_size: int | float | None = None,
    validation_size: int | float | None = None,
) -> OwnData:
    """Read, check, clean and split a user's own data.

    Args:
        path: a file, or a folder with files named train, validation and test; relative to where the user is.
        text, label: their columns, by name or by place from 1; several columns of 0 and 1 as ``"甲,乙,丙"``.
        split: the column whose values name the splits.
        separator: between several labels in one cell; ``""`` says that a cell is one label whatever it holds.
        sheet: of a workbook, by name or number from 1.
        strict: refuse rows that would be dropped.
        seed: of the split alone.
        test_size, validation_size: rows, or a fraction below 1, where the data bring no split of their own.

    Raises:
        DataError: one line with file, row, column and remedy.
    """
    place = resolve(path)
    names = [part.strip() for given in (text, label, split) if given for part in re.split("[,，]", given)]
    parts = read_parts(place, sheet=None if sheet is None else str(sheet), names=names)
    first = parts[0].table
    roles, column, rows = _understand(parts, text=text, label=label, split=split, separator=separator)
    official = bool((rows.split >= 0).any())
    if official and not (rows.split == 0).any():
        where = f"{first.path.name}：列 {column} 里" if column else f"{place} 里"
        raise DataError(f"{where}没有训练的部分（train）：补上，或改好划分的名字")
    cleaned = _clean(rows, official=official, strict=strict)
    sizes = {"test": test_size, "validation": validation_size}
    assigned, origin, notes = _assign_splits(rows, cleaned, seed=seed, sizes=sizes)
    if rows.labels is not None and official:
        _refuse_strange_classes(rows, rows.labels, cleaned.keep, assigned)
    splits, kind = _build(rows, cleaned, assigned, shuffle=not official, seed=seed)
    for name, dataset in splits.items():
        if not len(dataset):
            raise DataError(f"{first.path.name}：{IN_CHINESE[name]}里没有一条能用的：补上正文和标签")
    used = {name for members in roles.columns.values() for name in members} | {column}
    report = DataReport(
        kind=kind,
        files=tuple(_facts(part) for part in parts),
        columns={**roles.columns, **({"split": (column,)} if column else {})},
        how=roles.how,
        unused=tuple(name for name in first.columns if name not in used),
        rows=len(rows.row),
        kept=int(cleaned.keep.sum()),
        classes=_class_counts(rows.labels, cleaned),
        rare_classes=cleaned.rare,
        lengths=_lengths(rows.data, cleaned.keep),
        empty=cleaned.empty,
        missing_labels=cleaned.missing,
        repeats=cleaned.repeats,
        contradictions=cleaned.contradictions,
        dropped=cleaned.dropped,
        splits={name: len(dataset) for name, dataset in splits.items()},
        split_origin=origin,
        leaks=_leaks(rows.keys, cleaned.keep, assigned),
        notes=(*notes, *(rows.labels.notes if rows.labels else ()), *_absent(rows.labels, cleaned, assigned)),
    )
    return OwnData(splits, kind, cleaned.names, report)


def _understand(
    parts: Sequence[Part],
    *,
    text: str | None = None,
    label: str | None = None,
    split: str | None = None,
    separator: str | None = None,
) -> tuple[Roles, str | None, _Rows]:
    """What the columns of a table are, the one that names the splits, and the rows of all tables."""
    first = parts[0].table
    column = _find_split_column(first, split, (text, label)) if parts[0].split is None else split
    samples = {name: first.sample(name) for name in first.columns}
    roles = choose_columns(samples, where=first.path.name, text=text, label=label, split=column)
    return roles, column, _read_rows(parts, roles, column, separator, asked=label is not None)


def read_official_splits(folder: Path) -> tuple[DatasetDict, tuple[str, ...]]:
    """The train, validation and test files of a folder of texts with one label each, and the names of the classes.

    Every row is there, in its order: nothing is cleaned.

    Raises:
        DataError: a split is absent, a row has no label, or it is another kind of data.
    """
    parts = read_parts(folder)
    found = {part.split for part in parts}
    missing = [name for name in SPLITS if name not in found]
    if missing:
        have = "、".join(part.table.path.name for part in parts)
        raise DataError(f"{folder} 里没有 {'、'.join(missing)}（有：{have}）：三个划分都要有，缺的补上文件")
    _, _, rows = _understand(parts)
    if rows.labels is None or rows.labels.flags is not None:
        raise DataError(f"{folder} 不是每条一个标签的正文：用 python -m sft.finetune 训练")
    unlabelled = np.flatnonzero(rows.labels.codes < 0)
    if len(unlabelled):
        raise DataError(f"{rows.place(unlabelled[0])}没有标签：补上，或删去这一条")
    everything = np.ones(len(rows.row), dtype=bool)
    cleaned = _Cleaned(everything, (), rows.labels.names, {}, 0, 0, 0, 0)
    return _build(rows, cleaned, rows.split, shuffle=False, seed=0)[0], cleaned.names


def _facts(part: Part) -> FileFacts:
    table = part.table
    return FileFacts(
        name=table.path.name,
        format=table.format,
        rows=table.rows,
        split=part.split,
        encoding=table.encoding,
        delimiter=table.delimiter,
        header=table.header,
        sheet=table.sheet,
    )


def _class_counts(labels: Labels | None, cleaned: _Cleaned) -> dict[str, int]:
    if labels is None:
        return {}
    if labels.flags is not None:
        counts = labels.flags[cleaned.keep].sum(axis=0)
    else:
        counts = np.bincount(labels.codes[cleaned.keep], minlength=len(labels.names))
    found = dict(zip(labels.names, map(int, counts), strict=True))
    return {name: found[name] for name in cleaned.names}


def _lengths(data: pa.Table, keep: np.ndarray) -> dict[str, int]:
    if "messages" in data.column_names:
        characters = np.array([len(text) for text in _spoken_texts(data)])
    else:
        characters = sum(pc.utf8_length(data[name]).to_numpy() for name in data.column_names)
    kept = characters[keep]
    median, p90, longest = np.quantile(kept, [0.5, 0.9, 1.0], method="inverted_cdf")
    return {"median": int(median), "p90": int(p90), "max": int(longest)}


def _leaks(keys: np.ndarray, keep: np.ndarray, split: np.ndarray) -> dict[str, int]:
    taught = np.zeros(keys.max(initial=-1) + 1, dtype=bool)
    taught[keys[keep & (split == 0)]] = True
    return {
        name: int(taught[keys[keep & (split == number)]].sum())
        for number, name in enumerate(SPLITS)
        if number
    }


def _absent(labels: Labels | None, cleaned: _Cleaned, split: np.ndarray) -> Iterator[str]:
    """Classes that a split lacks, which a score on it says nothing about."""
    if labels is None:
        return
    for number, name in enumerate(SPLITS):
        here = cleaned.keep & (split == number)
        if labels.flags is not None:
            seen = {labels.names[i] for i in np.flatnonzero(labels.flags[here].any(axis=0))}
        else:
            seen = {labels.names[i] for i in np.unique(labels.codes[here])}
        lacking = [word for word in cleaned.names if word not in seen]
        if lacking:
            yield f"{IN_CHINESE[name]}里没有类别 {'、'.join(lacking)}"


def read_texts(
    path: str | Path, *, text: str | None = None, sheet: str | int | None = None
) -> tuple[dict[str, list], str]:
    """All columns of a file in their order, labels or none, and the name of the one that holds the texts.

    Raises:
        DataError: one line with file, row, column and remedy.
    """
    place = resolve(path)
    if place.is_dir():
        raise DataError(f"{place} 是文件夹：写出其中一个文件")
    table = read_table(place, sheet=None if sheet is None else str(sheet), names=[text] if text else ())
    samples = {name: table.sample(name) for name in table.columns}
    chosen = choose_text(samples, where=table.path.name, text=text)
    columns = {name: table.values(name) for name in table.columns}
    columns[chosen] = _texts(table.columns[chosen], chosen, table.path.name).to_pylist()
    return columns, chosen
