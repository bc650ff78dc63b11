"""One file of a user's own as a plain table: CSV, TSV, text, JSON, JSON lines, Parquet or Excel.

What a file does not say is found: its encoding, its delimiter, whether its first row names the columns, whether its
quotation marks enclose cells or belong to the text. Where that is not certain the reader stops and says what to do;
no value is guessed, and an empty cell or ``NA`` stays the text it is. Pickled files are never loaded.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sft.columns import has_header, is_number, looks_like_label, role_of, shown
from sft.packaged import DataError

Column = pa.ChunkedArray | list[Any]

SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet", ".xlsx")
DELIMITERS = {"\t": "制表符", ",": "逗号", ";": "分号", "|": "竖线"}

_BYTES_TO_JUDGE = 1 << 18
_ROWS_TO_JUDGE = 1000
_ROWS_AT_ONCE = 20_000
_FASTTEXT = "__label__"
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MAGIC = (
    (b"PK\x03\x04", "一个压缩包或 Excel 工作簿：把扩展名改回 .xlsx，或先解压"),
    (b"\xd0\xcf\x11\xe0", "旧式 Excel（.xls）或加了密码的工作簿：去掉密码，另存为 .xlsx"),
    (b"PAR1", "Parquet 文件：把扩展名改成 .parquet"),
    (b"\x1f\x8b", "gzip 压缩包：先解压"),
    (b"%PDF", "PDF：把其中的表存成 .csv 或 .xlsx"),
)
_FREQUENT = frozenset(
    "的是一不了有我人在这书很个大到本中上来看好就和国要以为也还间房时没说们会店多都年可酒对得作后过地生小出能家子他下点么发务经住"
    "实自感服理但当去前面于觉里方天行用开事心业而现然日学比者电成如那所想工次样部之新给道定些全其最文进同买着分太入只情读价内真月意"
    "常高员动长市水总知主让问体重关因起民度从种己话错果外设合力无差法明建什与较第非通你位等公机程喜加两客已结更再提此三美才解性车元"
    "题产政正打活展完爱品餐早几平别记格应相又化区把容并报费且女少物强老做该写受便评气手表论直被系各管制每代改接路利先晚调值教原近字"
    "這書個來國為還間時沒說們會對後過發務經實覺裡當開業現學電給樣從進買著價內員動長總讓問體關種話錯設無與較還題產愛幾記應區報費強"
    "寫評氣論係華環點麼兩結乾淨髒難"
    "，。！？：；、“”‘’（）《》「」…　"
)


@dataclass(frozen=True)
class Table:
    """The rows of one file, column by column.

    Cells of delimited text and of Excel are text; JSON and Parquet keep their own types, with None for what is absent.
    """

    path: Path
    columns: Mapping[str, Column]
    rows: int
    format: str
    encoding: str | None = None  # None: a binary format
    delimiter: str | None = None  # None: the format has none
    header: bool | None = None  # None: the format names its columns
    sheet: str | None = None
    class_names: Mapping[str, Sequence[str]] = field(
        default_factory=dict
    )  # of a Hugging Face ClassLabel, by column
    notes: tuple[str, ...] = ()

    def values(self, name: str) -> list[Any]:
        """The cells of a column as Python objects."""
        column = self.columns[name]
        return column.to_pylist() if isinstance(column, pa.ChunkedArray) else column

    def sample(self, name: str, rows: int = _ROWS_TO_JUDGE) -> list[Any]:
        """Cells spread over the whole of a column, in their order."""
        column = self.columns[name]
        cells = [column[i] for i in range(0, self.rows, max(1, math.ceil(self.rows / rows)))]
        return [cell.as_py() for cell in cells] if isinstance(column, pa.ChunkedArray) else cells


def read_table(path: Path, *, sheet: str | None = None, names: Sequence[str] = ()) -> Table:
    """Read one file.

    Args:
        sheet: of a workbook, by name or number from 1; needed where several hold data.
        names: columns that the caller will ask for. One that stands in the first row makes it a header; a number from 1
            is a column's place, and where the rows do not tell, it says that there is no header.

    Raises:
        DataError: in one line, with the file, the row, the column and the remedy.
    """
    suffix = path.suffix.lower()
    readers: dict[str, Callable[[], Table]] = {
        ".json": lambda: _read_json(path, names),
        ".jsonl": lambda: _read_json(path, names),
        ".ndjson": lambda: _read_json(path, names),
        ".parquet": lambda: _read_parquet(path),
        ".xlsx": lambda: _read_excel(path, sheet, names),
    }
    if suffix not in SUFFIXES:
        raise DataError(_unreadable_suffix(path))
    if sheet is not None and suffix != ".xlsx":
        raise DataError(f"{path}：只有 .xlsx 才有工作表：去掉 --sheet {sheet}")
    try:
        table = readers.get(suffix, lambda: _read_text(path, names))()
    except FileNotFoundError:
        raise DataError(f"没有文件 {path}：核对路径和文件名") from None
    except PermissionError:
        raise DataError(f"没有权限读 {path}：改它的权限（chmod u+r），或复制一份到自己的文件夹") from None
    except IsADirectoryError:
        raise DataError(f"{path} 是文件夹，不是文件：给出其中的文件") from None
    except OSError as error:
        raise DataError(f"读不了 {path}（{error.strerror}）：检查磁盘，或复制一份再试") from None
    except MemoryError:
        raise DataError(f"{path} 太大，内存放不下：拆成几个文件，或另存为 .parquet 并只留要用的列") from None
    if not table.rows:
        raise DataError(f"{path} 没有数据：文件是空的，或只有表头")
    return table


def _unreadable_suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in (".pkl", ".pickle", ".pt", ".pth", ".joblib", ".npy", ".npz"):
        return f"{path}：不读 {suffix}，打开它就可能执行其中的代码：用写它的程序另存为 .csv 或 .parquet"
    if suffix == ".xls":
        return f"{path}：不读旧式 .xls：在 Excel 里另存为 .xlsx"
    kinds = "、".join(SUFFIXES)
    return f"{path}：不认识扩展名 {suffix or '（没有）'}：改成它真正的格式，认识的有 {kinds}"


# --- encoding -----------------------------------------------------------------------------------------


def find_encoding(path: Path) -> str:
    """The encoding of a text file: by its mark, by being valid UTF-8, or by which decoding reads as Chinese.

    charset-normalizer takes short GB18030 files for Korean, so the two Chinese encodings are weighed here.
    """
    with path.open("rb") as file:
        head = file.read(_BYTES_TO_JUDGE)
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            _check_encoding(path, encoding)
            return encoding
    for magic, what in _MAGIC:
        if head.startswith(magic):
            raise DataError(f"{path} 不是文本，是{what}")
    if b"\0" in head:
        weights = {name: _plausibility(head, name) for name in ("utf-16-le", "utf-16-be")}
        best = max(weights, key=weights.__getitem__)
        if weights[best] < 0.3:
            raise DataError(
                f"{path} 不是文本（有零字节）：用写它的程序另存为 UTF-8 的 .csv，或改成真正的扩展名"
            )
        _check_encoding(path, best)
        return best
    if _first_fault(path, "utf-8") is None:
        return "utf-8"
    text = head.decode("utf-8", errors="replace")
    if text.count("�") <= 0.1 * sum(ord(char) > 127 for char in text):
        _check_encoding(path, "utf-8")  # UTF-8 with a few broken bytes: says where
    weights = {name: _plausibility(head, name) for name in ("gb18030", "big5hkscs")}
    best = max(weights, key=weights.__getitem__)
    if weights[best] < 0.3:
        raise DataError(f"{path}：认不出编码（不是 UTF-8、UTF-16、GB18030、Big5）：用编辑器另存为 UTF-8")
    _check_encoding(path, best)
    return best


def _plausibility(head: bytes, encoding: str) -> float:
    """How much bytes read as Chinese: 1 for frequent characters, 0.4 for those of a standard's first level."""
    text = head.decode(encoding, errors="replace")
    wide = [char for char in text if ord(char) > 127]
    if not wide:
        return 1.0 if encoding.startswith("utf-16") and "\n" in text else 0.0
    return sum(1.0 if char in _FREQUENT else 0.4 * _is_common(char, encoding) for char in wide) / len(wide)


def _is_common(char: str, encoding: str) -> bool:
    """Whether a character is one of the first level of GB 2312 or Big5, those in daily use."""
    standard, low, high = ("big5", 0xA4, 0xC6) if encoding == "big5hkscs" else ("gb2312", 0xB0, 0xD7)
    coded = char.encode(standard, errors="ignore")
    return len(coded) == 2 and low <= coded[0] <= high


def _first_fault(path: Path, encoding: str) -> int | None:
    """The line of the first bytes that are not text in an encoding, or None."""
    decoder = codecs.getincrementaldecoder(encoding)()
    lines = 1
    with path.open("rb") as file:
        try:
            while block := file.read(1 << 20):
                lines += decoder.decode(block).count("\n")
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            return lines + error.object[: error.start].decode(encoding, errors="ignore").count("\n")
    return None


def _check_encoding(path: Path, encoding: str) -> None:
    line = _first_fault(path, encoding)
    if line is not None:
        name = encoding_name(encoding)
        raise DataError(
            f"{path}：第 {line} 行有不属于 {name} 的字节（文件坏了，或混了两种编码）：改好这一行，存成 UTF-8"
        )


def encoding_name(encoding: str) -> str:
    """An encoding as its users call it."""
    names = {"utf-8": "UTF-8", "utf-8-sig": "UTF-8（带 BOM）", "gb18030": "GB18030", "big5hkscs": "Big5"}
    return names.get(encoding, encoding.upper()[:6])


# --- delimited text -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """How the cells of a text file are told apart; without a delimiter, a line is a cell."""

    delimiter: str | None
    quoted: bool


class _RowError(Exception):
    """A row that a layout cannot read."""


def _read_text(path: Path, names: Sequence[str]) -> Table:
    encoding = find_encoding(path)
    with path.open(encoding=encoding, newline="") as file:
        sample = file.read(_BYTES_TO_JUDGE)
    if len(sample) == _BYTES_TO_JUDGE:  # the last line may be cut
        sample = sample[: sample.rfind("\n") + 1] or sample
    lines = [line for line in sample.splitlines()[:_ROWS_TO_JUDGE] if line.strip()]
    if lines and sum(line.startswith(_FASTTEXT) for line in lines) > len(lines) / 2:
        return _read_fasttext(path, encoding)
    layout = _find_layout(sample, path.suffix.lower(), names)
    try:
        header, columns, lines_in_cells = _parse(path, encoding, layout, names)
    except _RowError as error:
        plain = _as_written(path, encoding, layout, names)
        if plain is None:
            raise DataError(str(error)) from None
        layout, (header, columns, _) = plain
    else:
        # an opening mark that nothing closes swallows lines; where each line alone is a whole row, it did
        plain = _as_written(path, encoding, layout, names) if lines_in_cells and len(columns) > 1 else None
        if plain is not None:
            layout, (header, columns, _) = plain
    rows = len(next(iter(columns.values()))) if columns else 0
    delimiter = DELIMITERS[layout.delimiter] if layout.delimiter and len(columns) > 1 else None
    kind = path.suffix[1:].upper()
    return Table(path, columns, rows, kind, encoding_name(encoding), delimiter, header)


def _as_written(path: Path, encoding: str, layout: _Layout, names: Sequence[str]):
    """The file read with its quotation marks as text, where that leaves a row to every line."""
    if not layout.quoted or layout.delimiter is None:
        return None
    plain = _Layout(layout.delimiter, quoted=False)
    try:
        return plain, _parse(path, encoding, plain, names)
    except (_RowError, DataError):
        return None


def _find_layout(sample: str, suffix: str, names: Sequence[str]) -> _Layout:
    """The delimiter by which most rows of a sample have the same number of cells, at least two."""
    own = {".csv": ",", ".tsv": "\t"}.get(suffix)
    found: list[tuple[tuple[bool, bool, float], str]] = []
    for delimiter in DELIMITERS:
        share, width, rows = max(
            (_most_alike(sample, delimiter, quoting) for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE)),
            key=lambda judged: judged[0],
        )
        if width < 2 or share < 0.8:
            continue
        if own is None and delimiter != "\t" and not _is_tabular([r for r in rows if len(r) == width], names):
            continue  # sentences hold commas, too
        found.append(((share == 1, delimiter == own, share), delimiter))
    if found:
        return _Layout(max(found, key=lambda pair: pair[0])[1], quoted=True)
    return _Layout(own, quoted=own is not None)


def _most_alike(sample: str, delimiter: str, quoting: int) -> tuple[float, int, list[list[str]]]:
    """The share of rows with the most common number of cells, that number, and the rows."""
    with _long_fields():
        reader = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter, quoting=quoting)
        rows = list(itertools.islice((row for row in reader if row), _ROWS_TO_JUDGE))
    if not rows:
        return 0.0, 0, rows
    width, count = Counter(map(len, rows)).most_common(1)[0]
    return count / len(rows), width, rows


def _is_tabular(rows: Sequence[Sequence[str]], names: Sequence[str]) -> bool:
    """Whether rows of cells are a table: by the names in the first, or by a column of numbers or few short values."""
    if any(role_of(cell) or cell.strip() in names for cell in rows[0]):
        return True
    if len(rows) < 4:
        return False
    columns = list(zip(*rows, strict=True))
    return any(
        all(map(is_number, column[1:])) or (looks_like_label(column[1:]) and max(map(len, column)) <= 10)
        for column in columns
    )


@contextmanager
def _long_fields() -> Iterator[None]:
    """Cells of any length: the limit of :mod:`csv` is 131,072 characters."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _records(file: io.TextIOBase, layout: _Layout, path: Path) -> Iterator[tuple[int, int, list[str]]]:
    """The rows that are not blank, each with the first and the last line that it stands on."""
    if layout.delimiter is None:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, number, [line.rstrip("\r\n")]
        return
    quoting = csv.QUOTE_MINIMAL if layout.quoted else csv.QUOTE_NONE
    reader = csv.reader(file, delimiter=layout.delimiter, quoting=quoting, strict=True)
    begins = 1
    try:
        for row in reader:
            if row:
                yield begins, reader.line_num, row
            begins = reader.line_num + 1
    except csv.Error:
        raise _RowError(
            f'{path}：从第 {begins} 行起引号不成对，或引号后面还有字：正文里的双引号写成两个（""），或另存为 .xlsx'
        ) from None


def _parse(
    path: Path, encoding: str, layout: _Layout, names: Sequence[str]
) -> tuple[bool, dict[str, Column], bool]:
    """Whether the first row names the columns, the columns, and whether a cell holds several lines."""
    with path.open(encoding=encoding, newline="") as file, _long_fields():
        records = _records(file, layout, path)
        head = list(itertools.islice(records, _ROWS_TO_JUDGE))
        if not head:
            return False, {}, False
        first = head[0][-1]
        width = len(first)
        alike = [row for *_, row in head[1:] if len(row) == width]
        if len(head) > 1 and not alike:  # a first row like no other
            _check_width(path, 2, head[1], width, layout)
        header = _decide_header(path, first, alike, names)
        columns = header_names(path, first) if header else [str(i + 1) for i in range(width)]
        chunks: list[list[pa.Array]] = [[] for _ in columns]
        count, spans = 0, False
        data = itertools.chain(head[1:] if header else head, records)
        while batch := list(itertools.islice(data, _ROWS_AT_ONCE)):
            for record in batch:
                count += 1
                begin, end, row = record
                spans |= end > begin
                if len(row) != width:
                    del row[_check_width(path, count, record, width, layout) :]
            cells = zip(*(row for *_, row in batch), strict=True)
            for chunk, values in zip(chunks, cells, strict=True):
                chunk.append(pa.array(values, pa.string()))
    kept = {
        name: pa.chunked_array(chunk, pa.string())
        for name, cell, chunk in zip(columns, first, chunks, strict=True)
        if not header or cell.strip() or any(map(_is_filled, chunk))  # Excel ends rows with empty cells
    }
    return header, kept, spans


def _is_filled(cells: pa.Array) -> bool:
    return bool(pc.any(pc.greater(pc.binary_length(cells), 0)).as_py())


def _check_width(
    path: Path, count: int, record: tuple[int, int, list[str]], width: int, layout: _Layout
) -> int:
    """Where a row that is too long may be cut, since nothing follows; one that holds other cells is refused."""
    begin, _, row = record
    if len(row) > width and not any(cell.strip() for cell in row[width:]):
        return width
    mark = DELIMITERS[layout.delimiter or ","]
    if len(row) > width:
        remedy = f"正文里有{mark}，就给整格加双引号，或另存为 .xlsx"
    else:
        remedy = f"补上缺的格，哪怕空着（多写一个{mark}）"
    raise _RowError(
        f"{path}：第 {count} 条（文件第 {begin} 行）有 {len(row)} 列，第一行有 {width} 列：{remedy}"
    )


def _decide_header(
    path: Path, first: Sequence[str], rest: Sequence[Sequence[str]], names: Sequence[str]
) -> bool:
    """Whether the first row is a header, by what the caller asks for and by the rows.

    Raises:
        DataError: neither tells.
    """
    cells = [cell.strip() for cell in first]
    if any(name in cells for name in names if not name.isdigit()):
        return True
    told = has_header(first, rest)
    if told is None and names and all(name.isdigit() for name in names):
        return False
    if told is None:
        first_cells = "、".join(shown(cell, 12) for cell in cells[:6])
        raise DataError(
            f"{path}：看不出第一行（{first_cells}）是表头还是数据：是表头，就用 --text 和 --label 写出其中的列名；"
            "是数据，就写第几列，如 --text 2 --label 1"
        )
    return told


def header_names(path: Path, cells: Iterable[str]) -> list[str]:
    """Names of columns from the cells of a header; a column without one goes by its place.

    Raises:
        DataError: two columns share a name.
    """
    names = [" ".join(cell.split()) or str(i) for i, cell in enumerate(cells, 1)]
    for i, name in enumerate(names):
        if name in names[:i]:
            first = names.index(name) + 1
            raise DataError(f"{path}：第 {first} 列和第 {i + 1} 列都叫 {name}：给其中一列换个名字")
    return names


def _read_fasttext(path: Path, encoding: str) -> Table:
    """Lines of fastText: ``__label__word``, one or several, then the text."""
    labels: list[list[str]] = []
    texts: list[str] = []
    with path.open(encoding=encoding) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            match = re.match(rf"((?:{_FASTTEXT}\S+[\s,]*)+)(.*)", line.strip(), re.S)
            if match is None:
                raise DataError(
                    f"{path}：第 {number} 行不像别的行那样以 {_FASTTEXT} 开头：补上标签，或删去这一行"
                )
            labels.append(re.findall(rf"{_FASTTEXT}(.+?)(?=[\s,]*(?:{_FASTTEXT}|$))", match[1].strip()))
            texts.append(match[2])
    several = any(len(words) > 1 for words in labels)
    column: list[Any] = labels if several else [words[0] for words in labels]
    kind = f"fastText（{_FASTTEXT}）"
    return Table(path, {"label": column, "text": texts}, len(texts), kind, encoding_name(encoding))


# --- JSON ---------------------------------------------------------------------------------------------


class _NamedTwice(ValueError):
    pass


def _read_json(path: Path, names: Sequence[str]) -> Table:
    encoding = find_encoding(path)
    suffix = path.suffix.lower()
    with path.open(encoding=encoding) as file:
        rows = _json_values(path, file.read()) if suffix == ".json" else _json_lines(path, file)
        header, columns, count = _tabulate(path, rows, names)
    return Table(path, columns, count, suffix[1:].upper(), encoding_name(encoding), header=header)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _NamedTwice(next(name for name in names if names.count(name) > 1))
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=lambda word: None)  # NaN is no value


def _load_json(path: Path, text: str, first_line: int) -> Any:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise DataError(f"{path}：第 {line} 行不是 JSON（第 {error.colno} 个字符处）：改好这一行") from None
    except _NamedTwice as error:
        raise DataError(f"{path}：第 {first_line} 行起的一条里，键 {error} 写了两次：删去一个") from None
    except RecursionError:
        raise DataError(f"{path}：第 {first_line} 行起嵌套太深：改成一条一个对象") from None


def _json_lines(path: Path, lines: Iterable[str]) -> Iterator[Any]:
    return (_load_json(path, line.strip(), number) for number, line in enumerate(lines, 1) if line.strip())


def _json_values(path: Path, text: str) -> Iterable[Any]:
    """The rows of a .json file: an array, one table as an object, or JSON lines by another name."""
    if not text.lstrip().startswith("{"):
        whole = _load_json(path, text, 1) if text.strip() else []
        return whole if isinstance(whole, list) else [whole]
    try:
        table = _DECODER.decode(text)
    except (json.JSONDecodeError, _NamedTwice):
        return _json_lines(path, io.StringIO(text))
    named = [value for name, value in table.items() if name in ("data", "rows", "records", "examples")]
    if len(named) == 1 and isinstance(named[0], list):
        return named[0]
    if table and all(isinstance(value, list) for value in table.values()):  # column -> cells
        lengths = {name: len(value) for name, value in table.items()}
        if len(set(lengths.values())) == 1:
            return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    if table and all(isinstance(value, dict) for value in table.values()):  # pandas: column -> index -> cell
        keys = list(next(iter(table.values())))
        if all(list(value) == keys for value in table.values()):
            return [{name: value[key] for name, value in table.items()} for key in keys]
    if any(role_of(name) for name in table):
        return [table]
    raise DataError(f"{path}：看不出哪里是各条数据：写成一个数组 [{{…}}, {{…}}]，或每行一个对象（.jsonl）")


def _tabulate(
    path: Path, rows: Iterable[Any], names: Sequence[str]
) -> tuple[bool | None, dict[str, Column], int]:
    """Rows of JSON as columns: objects, lists of cells, or texts alone."""
    columns: dict[str, list[Any]] = {}
    count = 0
    plain: list[list[str]] = []
    for count, row in enumerate(rows, 1):
        if isinstance(row, dict) and not plain:
            for name, value in row.items():
                if name not in columns:
                    columns[name] = [None] * (count - 1)
                columns[name].append(value)
            if len(row) < len(columns):
                for column in columns.values():
                    if len(column) < count:
                        column.append(None)
        elif isinstance(row, list | str) and not columns:
            cells = row if isinstance(row, list) else [row]
            plain.append(["" if cell is None else str(cell) for cell in cells])
        else:
            raise DataError(
                f'{path}：第 {count} 条不是和别的条一样的对象：每条写成 {{"text": …, "label": …}}'
            )
    if plain:
        header, cells = rows_to_columns(path, plain, names)
        return header, cells, count - header
    return None, columns, count


def rows_to_columns(
    path: Path, rows: list[list[str]], names: Sequence[str]
) -> tuple[bool, dict[str, Column]]:
    """Rows of cells as columns, with the first row taken as a header where it is one."""
    width = len(rows[0])
    for count, row in enumerate(rows, 1):
        if len(row) != width:
            raise DataError(f"{path}：第 {count} 行有 {len(row)} 格，第一行有 {width} 格：补齐或删去多的格")
    header = _decide_header(path, rows[0], rows[1 : _ROWS_TO_JUDGE + 1], names)
    columns = header_names(path, rows[0]) if header else [str(i + 1) for i in range(width)]
    cells = list(zip(*rows[header:], strict=True)) or [()] * width
    return header, {
        name: list(values)
        for name, values in zip(columns, cells, strict=True)
        if any(values) or not (header and name.isdigit())
    }


# --- binary formats -----------------------------------------------------------------------------------


def _read_parquet(path: Path) -> Table:
    try:
        with pq.ParquetFile(path) as file:
            header_names(path, file.schema_arrow.names)
            table = file.read()
    except (pa.ArrowException, OSError, EOFError) as error:
        if isinstance(error, OSError) and error.errno:  # of the file system
            raise
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path} 不是完好的 Parquet 文件（{reason}）：重新导出一次") from None
    columns: dict[str, Column] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        columns[name] = column.cast(pa.string()) if is_text else column.to_pylist()
    return Table(path, columns, table.num_rows, "Parquet", class_names=_class_names(table.schema))


def _class_names(schema: pa.Schema) -> dict[str, Sequence[str]]:
    """The words of the ClassLabel columns of a file that `datasets` wrote."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name: f["names"] for name, f in features.items() if f.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, AttributeError, ValueError):
        return {}


def _read_excel(path: Path, sheet: str | None, names: Sequence[str]) -> Table:
    try:
        import openpyxl
    except ImportError:
        raise DataError(f"{path}：读 .xlsx 要装 openpyxl：pip install openpyxl，或另存为 .csv") from None
    with path.open("rb") as file:
        head = file.read(4)
        if head == _MAGIC[1][0]:
            raise DataError(f"{path} 是{_MAGIC[1][1]}")
        if head != _MAGIC[0][0]:
            raise DataError(f"{path} 不是 Excel 工作簿：在 Excel 里另存为 .xlsx，或改成真正的扩展名")
        try:
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            sheets = {s.title: s for s in book.worksheets}
            chosen = _choose_sheet(path, sheets, sheet)
            rows = [
                ["" if cell is None else _cell_text(cell) for cell in row]
                for row in sheets[chosen].iter_rows(values_only=True)
            ]
        except (DataError, OSError):
            raise
        except Exception as error:  # zipfile, xml and openpyxl raise a dozen kinds for a damaged workbook
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
            raise DataError(f"{path} 打不开（{reason}）：在 Excel 里打开，另存为新的 .xlsx") from None
    filled = [row for row in rows if any(row)]
    if not filled:
        return Table(path, {}, 0, "Excel", sheet=chosen)
    width = max(i + 1 for row in filled for i, cell in enumerate(row) if cell)
    padded = [(row + [""] * width)[:width] for row in filled]
    header, columns = rows_to_columns(path, padded, names)
    return Table(path, columns, len(padded) - header, "Excel", header=header, sheet=chosen)


def _choose_sheet(path: Path, sheets: Mapping[str, Any], sheet: str | None) -> str:
    """The sheet asked for, or the only one that holds anything."""
    titles = list(sheets)
    if sheet is not None:
        if sheet in sheets:
            return sheet
        if sheet.isdigit() and 1 <= int(sheet) <= len(titles):
            return titles[int(sheet) - 1]
        raise DataError(f"{path}：没有工作表 {sheet}：有 {'、'.join(titles)}")
    filled = [title for title in titles if any(any(row) for row in sheets[title].iter_rows(values_only=True))]
    if len(filled) > 1:
        raise DataError(
            f"{path}：有 {len(filled)} 个工作表有数据（{'、'.join(filled)}）：用 --sheet 说明用哪一个"
        )
    if not titles:
        raise DataError(f"{path}：没有工作表：另存为新的 .xlsx")
    return filled[0] if filled else titles[0]


def _cell_text(cell: Any) -> str:
    """A cell as Excel shows it: 1.0 is 1."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)
