"""Labels of a user's own table as classes: words, numbers, or several to a text."""

from __future__ import annotations

import ast
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sft.columns import MOST_CLASSES, is_number, shown
from sft.packaged import DataError

Place = Callable[[int], str]
"""Says where a row stands, for an error: ``train.csv：第 7 条``."""

_MISSING = ("", "nan", "-nan", "<na>", "#n/a")  # NA, none and null are classes of real tasks
_SEPARATORS = "|;；、,，/ "
_MOST_NAMED_CLASSES = 500  # of a column that the user names


@dataclass(frozen=True)
class Labels:
    """The classes of every row.

    ``codes`` (rows,) numbers the class of each row, -1 where there is none; with several labels to a text, ``flags``
    (rows, classes) marks them and ``codes`` numbers their combinations.
    """

    names: tuple[str, ...]
    codes: np.ndarray
    flags: np.ndarray | None
    notes: tuple[str, ...] = ()


def distinct(columns: Iterable[pa.ChunkedArray | list[Any]], place: Place) -> tuple[list[Any], np.ndarray]:
    """The different values of a column over several files, and the number of each row's value, shape (rows,).

    Values are stripped text, or tuples of it where cells are lists; what is absent is the empty text.
    """
    number: dict[Any, int] = {}
    codes: list[np.ndarray] = []
    count = 0
    for column in columns:
        if isinstance(column, pa.ChunkedArray):
            coded = column.unify_dictionaries() if pa.types.is_dictionary(column.type) else column
            coded = coded.dictionary_encode().combine_chunks() if len(coded) else None
            if coded is None:
                continue
            coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
            kinds = [number.setdefault(_value(word), len(number)) for word in coded.dictionary.to_pylist()]
            missing = number.setdefault("", len(number)) if coded.null_count else 0
            indices = coded.indices.fill_null(len(kinds)).to_numpy(zero_copy_only=False)
            codes.append(np.array([*kinds, missing])[indices])
        else:
            try:
                codes.append(
                    np.array([number.setdefault(_value(v), len(number)) for v in column], dtype=np.int64)
                )
            except TypeError as error:
                bad = next(i for i, v in enumerate(column) if not _is_plain(v))
                raise DataError(
                    f'{place(count + bad)}的标签{error}：写成一个词，或一串词 ["甲", "乙"]'
                ) from None
        count += len(column)
    return list(number), np.concatenate(codes) if codes else np.empty(0, dtype=np.int64)


def _is_plain(value: Any) -> bool:
    return not isinstance(value, dict | bytes) and not (
        isinstance(value, list) and any(isinstance(part, dict | list | bytes) for part in value)
    )


def _value(value: Any) -> str | tuple[str, ...]:
    if not _is_plain(value):
        raise TypeError("不是词")
    if isinstance(value, list):
        return tuple(sorted({_value(part) for part in value} - {""}))
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    word = str(value).strip()
    return "" if word.casefold() in _MISSING else word


def order(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in a stable order: numbers by size, words by GB 18030, which is that of pinyin for common ones."""
    names = list(names)
    if all(map(is_number, names)):
        return tuple(sorted(names, key=float))
    return tuple(sorted(names, key=lambda name: name.encode("gb18030", errors="replace")))


def read_labels(
    columns: Sequence[pa.ChunkedArray | list[Any]],
    *,
    column: str,
    place: Place,
    separator: str | None = None,
    asked: bool = False,
    words: Sequence[str] = (),
) -> Labels:
    """The classes of one column of labels.

    Args:
        columns: its cells, file by file.
        separator: between the labels of one cell; the empty text says that a cell is one label whatever it holds.
        asked: the user named the column, so that it may hold more than 50 classes.
        words: the names of the classes, where the cells are their numbers.

    Raises:
        DataError: in one line, with row and remedy: a score where a class should be, too many classes, words that
            differ in case only, several labels in a cell without a separator.
    """
    kinds, codes = distinct(columns, place)
    first = dict(zip(*np.unique(codes, return_index=True), strict=True))
    if separator:
        kinds = [
            tuple(p.strip() for p in k.split(separator) if p.strip()) if isinstance(k, str) else k
            for k in kinds
        ]
        kinds = [kind or "" for kind in kinds]
    kinds = (
        [_as_list(kind, place(first[i]) if i in first else "") for i, kind in enumerate(kinds)]
        if _all_lists(kinds)
        else kinds
    )
    many = [i for i, kind in enumerate(kinds) if isinstance(kind, tuple)]
    if many:
        wrong = [i for i, kind in enumerate(kinds) if isinstance(kind, str) and kind]
        if wrong:
            raise DataError(
                f"{place(first[wrong[0]])}的标签 {shown(kinds[wrong[0]])} 不是一串词，别的行是："
                '每行都写成一串，如 ["甲"]'
            )
        return _several(kinds, codes, column=column, place=place, first=first, asked=asked)
    if separator is None:
        _refuse_combinations(kinds, column=column, place=place, first=first)
    if words:
        kinds = [_class_of_number(kind, words, place(first[i])) for i, kind in enumerate(kinds)]
    names, number = _classes(kinds, codes, column=column, place=place, first=first, asked=asked)
    notes = ()
    if len(names) > 2 and all(map(is_number, names)):
        notes = (f"标签 {names[0]} 到 {names[-1]} 按 {len(names)} 个类别学，不管它们的大小和次序",)
    return Labels(names, number[codes], None, notes)


def _class_of_number(kind: str, words: Sequence[str], where: str) -> str:
    if kind in ("", "-1"):
        return ""
    if not kind.isdigit() or int(kind) >= len(words):
        raise DataError(f"{where}的标签 {kind} 不是类别的序号（0 到 {len(words) - 1}）：重新导出这个文件")
    return words[int(kind)]


def _classes(
    kinds: Sequence[str],
    codes: np.ndarray,
    *,
    column: str,
    place: Place,
    first: Mapping[int, int],
    asked: bool,
) -> tuple[tuple[str, ...], np.ndarray]:
    """Class names in order, and the class of each kind of cell, -1 for an empty one."""
    counts = np.bincount(codes, minlength=len(kinds)) if len(codes) else np.zeros(len(kinds), dtype=int)
    filled = [i for i, kind in enumerate(kinds) if kind]
    numbers = [i for i in filled if is_number(kinds[i])]
    if numbers and len(numbers) < len(filled):
        words = [i for i in filled if i not in set(numbers)]
        odd, what = (words, "不是数") if counts[numbers].sum() >= counts[words].sum() else (numbers, "是数")
        i = min(odd, key=lambda i: first[i])
        raise DataError(
            f"{place(first[i])}，列 {column}：标签 {shown(kinds[i])} {what}，和别的不一样：改成同一种写法，或删去这一行"
        )
    names = {i: kinds[i] for i in filled}
    if numbers:
        broken = [i for i in filled if not float(kinds[i]).is_integer()]
        if broken:
            i = min(broken, key=lambda i: first[i])
            raise DataError(
                f"{place(first[i])}，列 {column}：标签 {kinds[i]} 是小数，像分数而不像类别："
                "先定好界线换成类别（如 0 和 1），或用 --label 另指一列"
            )
        names = {i: str(int(float(kinds[i]))) for i in filled}
    _refuse_too_many(
        names, column=column, place=place, first=first, asked=asked, rows=int(counts[filled].sum())
    )
    _refuse_spellings(set(names.values()), names, column=column, place=place, first=first, counts=counts)
    ordered = order(set(names.values()))
    number = np.array([ordered.index(names[i]) if i in names else -1 for i in range(len(kinds))] or [-1])
    return ordered, number


def _refuse_too_many(
    names: Mapping[int, str], *, column: str, place: Place, first: Mapping[int, int], asked: bool, rows: int
) -> None:
    seen: dict[str, int] = {}
    for i, name in names.items():
        seen.setdefault(name, first[i])
    most = _MOST_NAMED_CLASSES if asked and rows >= 5 * len(seen) else MOST_CLASSES
    if len(seen) <= most:
        return
    row, word = sorted((row, word) for word, row in seen.items())[most]
    remedy = "把它分成几档" if all(map(is_number, seen)) else "合并少见的类别"
    more = "" if asked else f"；真有这么多类，就写明 --label {column}"
    raise DataError(
        f"{place(row)}，列 {column}：到 {shown(word)} 已有 {most + 1} 种标签（共 {len(seen)} 种），像编号、分数或正文："
        f"{remedy}，或用 --label 另指一列{more}"
    )


def _refuse_spellings(
    words: set[str],
    names: Mapping[int, str],
    *,
    column: str,
    place: Place,
    first: Mapping[int, int],
    counts: np.ndarray,
) -> None:
    """Words that differ in case, width or spaces only are one class written in two ways."""
    alike: dict[str, list[str]] = {}
    for word in words:
        alike.setdefault(re.sub(r"\s+", "", unicodedata.normalize("NFKC", word)).casefold(), []).append(word)
    for spellings in alike.values():
        if len(spellings) > 1:
            rare = min((i for i, name in names.items() if name in spellings), key=lambda i: (counts[i], i))
            others = "、".join(sorted(set(spellings) - {names[rare]}))
            raise DataError(
                f"{place(first[rare])}，列 {column}：标签 {shown(names[rare])} 和 {shown(others)} "
                "只差大小写、全半角或空格：统一成一种写法"
            )


def _refuse_combinations(
    kinds: Sequence[Any], *, column: str, place: Place, first: Mapping[int, int]
) -> None:
    """Cells that hold several labels each, where nothing says by what they are separated."""
    whole = {kind for kind in kinds if isinstance(kind, str)}
    for mark in _SEPARATORS:
        combined = [
            (i, [p.strip() for p in kind.split(mark)])
            for i, kind in enumerate(kinds)
            if mark in kind.strip(mark)
        ]
        uses = Counter(part for _, parts in combined for part in set(parts))
        plain = [
            i for i, parts in combined if all(p in whole or uses[p] > 1 for p in parts) and "" not in parts
        ]
        if plain and 2 * len(plain) >= len(combined):
            i = min(plain, key=lambda i: first[i])
            raise DataError(
                f"{place(first[i])}，列 {column}：{shown(kinds[i])} 像是几个标签合在一格："
                f'是，就加 --separator "{mark}"；'
                '整格是一个类别，就加 --separator ""'
            )


def _all_lists(kinds: Sequence[Any]) -> bool:
    """Whether cells of text are lists as JSON or Python writes them."""
    filled = [kind for kind in kinds if kind]
    return bool(filled) and all(isinstance(k, str) and k.startswith("[") and k.endswith("]") for k in filled)


def _as_list(kind: str, where: str) -> str | tuple[str, ...]:
    if not kind:
        return ""
    for read in (json.loads, ast.literal_eval):
        try:
            return _value(read(kind))
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    raise DataError(
        f'{where}的标签 {shown(kind)} 不是完整的一串：写成 ["甲", "乙"]，或用 --separator 说明分隔符'
    )


def _several(
    kinds: Sequence[Any],
    codes: np.ndarray,
    *,
    column: str,
    place: Place,
    first: Mapping[int, int],
    asked: bool,
) -> Labels:
    """Classes of cells that hold several labels, or none (an empty list)."""
    if {part for kind in kinds if isinstance(kind, tuple) for part in kind} <= {"0", "1"}:
        raise DataError(
            f"{place(min(first.values()))}，列 {column}：标签是一串 0 和 1，不知道各是哪一类："
            "拆成几列，每列一类，用 --label 甲,乙,丙 指出；或改写成类别的词"
        )
    parts = {part: i for i in reversed(range(len(kinds))) if isinstance(kinds[i], tuple) for part in kinds[i]}
    numbering = list(parts)
    rows = np.array([first[parts[part]] for part in numbering], dtype=int)
    names, number = _classes(
        numbering,
        np.arange(len(numbering)),
        column=column,
        place=lambda row: place(int(rows[row])),
        first={i: i for i in range(len(numbering))},
        asked=asked,
    )
    table = np.zeros((len(kinds), len(names)), dtype=bool)
    for i, kind in enumerate(kinds):
        if isinstance(kind, tuple):
            table[i, [number[numbering.index(part)] for part in kind]] = True
    missing = np.array([not isinstance(kind, tuple) for kind in kinds])
    combinations = np.where(missing, -1, np.unique(table, axis=0, return_inverse=True)[1].ravel())
    return Labels(names, combinations[codes], table[codes])


def read_flags(columns: Mapping[str, Sequence[pa.ChunkedArray | list[Any]]], place: Place) -> Labels:
    """The classes of several columns of 0 and 1, one a class; a row with an empty cell has none.

    Raises:
        DataError: a cell holds something else.
    """
    flags, missing = [], []
    for name, cells in columns.items():
        kinds, codes = distinct(cells, place)
        marks = {"0": 0, "1": 1, "False": 0, "True": 1, "false": 0, "true": 1, "": -1}
        for i, kind in enumerate(kinds):
            if kind not in marks:
                row = int(np.flatnonzero(codes == i)[0])
                raise DataError(
                    f"{place(row)}，列 {name}：{shown(kind)} 不是 0 或 1：几列各是一类时，每格只能是 0 或 1"
                )
        values = np.array([marks[kind] for kind in kinds])[codes]
        flags.append(values == 1)
        missing.append(values == -1)
    table = np.stack(flags, axis=1)
    combinations = np.unique(table, axis=0, return_inverse=True)[1].ravel()
    return Labels(tuple(columns), np.where(np.any(missing, axis=0), -1, combinations), table)
