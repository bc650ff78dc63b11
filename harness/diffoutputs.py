"""Which cells of a notebook put out something else than in another run.

Text is compared after what varies from run to run anyway is blotted out: memory addresses, durations and
rates, points in time, temporary files. Images are compared by their bytes; other kinds of output are not.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from harness.model import CellResult, CellState
from harness.notebook import is_blank, read_document

EXCERPT_LINES = 8
"""So many lines of a cell's difference are kept …"""
_LINE_LENGTH = 160  # … each cut to so many characters
_WINDOW = 40  # lines from the first difference on that are looked at
_NUMBER = r" {0,4}(?<![\d.])\d{1,15}(\.\d{1,15})?"  # bounded: time must grow no faster than the text
_TEXTS = ("text/plain", "text/markdown", "text/latex")
_OBJECT = re.compile(r"<[\w.]+ object>")  # beside what the object shows

_VARYING = tuple(
    (re.compile(pattern, flags), shown)
    for pattern, shown, flags in (
        (r"\x1b\[[0-?]*[ -/]*[@-~]", "", 0),
        (r"\b0x[0-9a-fA-F]{6,}\b", "0x…", 0),
        (r"(?<=/)hk-[0-9a-f]{8}/tmp/", "", 0),  # a job's own temporary folder
        (r"(?<=/)ipykernel_\d+/\d+(?=\.py)", "ipykernel_…", 0),
        (r"(?<=/)tmp[a-z0-9_]{8}\b", "tmp…", 0),
        (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d:?\d\d)?", "<time>", 0),
        (r"^(CPU times|Wall time): .*$", r"\1: …", re.MULTILINE),
        (r"(?<!\d)\d{1,3}:\d\d(:\d\d)?<(\d{1,3}:\d\d(:\d\d)?|\?)", "…<…", 0),  # tqdm
        (rf"({_NUMBER}|\?) ?[A-Za-z]+/s\b|{_NUMBER} ?s/[a-z]+", "…/s", 0),
        (rf"{_NUMBER} ?(ns|µs|us|ms|s|secs?|seconds?|mins?|minutes?)(?![A-Za-z0-9_])", "… s", 0),
        (rf"({_NUMBER} ?分 ?)?{_NUMBER} ?秒|{_NUMBER} ?(毫秒|分钟)", "… s", 0),
    )
)


@dataclass(frozen=True)
class CellChange:
    """One cell whose outputs differ."""

    id: str
    index: int  # position among all cells of B's notebook, from 0; of A's, where only A has the cell
    what: tuple[str, ...]  # of "text", "image", "only in A", "only in B"
    code_changed: bool = False
    excerpt: tuple[str, ...] = ()  # of a unified diff of the texts, without heads: "-old", "+new"


def changed_cells(
    a: Path, b: Path, cells_a: Sequence[CellResult], cells_b: Sequence[CellResult]
) -> tuple[CellChange, ...]:
    """The cells of two executed notebooks whose outputs differ, in the order of B, then what only A has.

    Cells are matched by id, see :func:`counterparts`. One that either run did not reach is left out: the
    state of its job tells that.

    Args:
        a: the executed notebook of run A.
        b: that of run B.
        cells_a: how the cells of A ended.
        cells_b: how those of B ended.

    Raises:
        HarnessError: a file cannot be read or is no notebook.
    """
    if a.is_file() and b.is_file() and a.read_bytes() == b.read_bytes():
        return ()  # the one was kept for the other
    partners = counterparts(cells_a, cells_b)
    before = {partners.get(cell.index, -1): (cell, content) for cell, content in _cells(a, cells_a)}
    found = []
    for result, cell in _cells(b, cells_b):
        change = None
        if (old := before.get(result.index)) is None:
            if cell.get("outputs"):
                change = CellChange(result.id, result.index, ("only in B",))
        elif CellState.PENDING not in (result.state, old[0].state):
            change = _compare(old[1], cell, result)
        found += [change] if change else []
    found += [
        CellChange(result.id, result.index, ("only in A",))
        for result, cell in _cells(a, cells_a)
        if result.index not in partners and cell.get("outputs")
    ]
    return tuple(found)


def first_code_lines(notebook: Path, cells: Sequence[CellResult]) -> dict[int, str]:
    """The first line of each cell that is code and not a comment, by the cell's position."""
    lines = {}
    for result, cell in _cells(notebook, cells):
        code = (line.strip() for line in _joined(cell["source"]).splitlines() if not is_blank(line))
        lines[result.index] = next(code, "")[:_LINE_LENGTH]
    return lines


def counterparts(cells_a: Sequence[CellResult], cells_b: Sequence[CellResult]) -> dict[int, int]:
    """Position in B of each cell of A that B has, too: by id, and by order among cells of one id.

    By position alone where no id is shared: runs of a notebook without ids made new ones each time.
    """
    names_a, names_b = _names(cells_a), _names(cells_b)
    if not names_a.keys() & names_b.keys():
        places = {cell.index for cell in cells_b}
        return {cell.index: cell.index for cell in cells_a if cell.index in places}
    return {index: names_b[name] for name, index in names_a.items() if name in names_b}


def _names(cells: Sequence[CellResult]) -> dict[tuple[str, int], int]:
    """Position by id and, as an id may stand there twice, the how manieth of that id it is."""
    seen: Counter[str] = Counter()
    names = {}
    for cell in cells:
        names[cell.id, seen[cell.id]] = cell.index
        seen[cell.id] += 1
    return names


def _cells(path: Path, results: Sequence[CellResult]) -> list[tuple[CellResult, Mapping[str, Any]]]:
    """How the cells of an executed notebook ended, each with what it left there."""
    named: dict[str, list[Mapping[str, Any]]] = {}
    for cell in read_document(path)["cells"]:
        if cell["cell_type"] == "code":
            named.setdefault(cell.get("id", ""), []).append(cell)
    left = {name: iter(cells) for name, cells in named.items()}
    pairs = ((result, next(left.get(result.id, iter(())), None)) for result in results)
    return [(result, cell) for result, cell in pairs if cell is not None]


def _compare(a: Mapping[str, Any], b: Mapping[str, Any], result: CellResult) -> CellChange | None:
    text_a, text_b = "".join(_parts(a)), "".join(_parts(b))
    if text_a != text_b:
        text_a, text_b = _without_varying(text_a), _without_varying(text_b)
    what = ("text",) * (text_a != text_b) + ("image",) * (list(_images(a)) != list(_images(b)))
    if not what:
        return None
    code_changed = _joined(a["source"]) != _joined(b["source"])
    return CellChange(result.id, result.index, what, code_changed, _excerpt(text_a, text_b))


def _without_varying(text: str) -> str:
    for pattern, shown in _VARYING:
        text = pattern.sub(shown, text)
    return text


def _parts(cell: Mapping[str, Any]) -> Iterator[str]:
    """All text of a cell's outputs."""
    for output in cell.get("outputs", ()):
        if not isinstance(output, Mapping):
            continue
        if output.get("output_type") == "error":
            yield f"{output.get('ename')}: {output.get('evalue')}\n"
        for text in (output.get("text"), *(_data(output).get(kind) for kind in _TEXTS)):
            if text and not _OBJECT.fullmatch(_joined(text)):
                yield _joined(text).removesuffix("\n") + "\n"


def _images(cell: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for output in cell.get("outputs", ()):
        for kind, data in _data(output).items():
            if kind.startswith("image/"):
                yield kind, "".join(_joined(data).split())


def _data(output: Any) -> Mapping[str, Any]:
    data = output.get("data") if isinstance(output, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def _joined(value: Any) -> str:
    """Text as a notebook holds it: in one piece or as a list of lines."""
    return value if isinstance(value, str) else "".join(map(str, value)) if isinstance(value, list) else ""


def _excerpt(a: str, b: str) -> tuple[str, ...]:
    """The first changed lines. Only a window is compared: difflib's time grows with the square of its input."""
    lines_a, lines_b = a.splitlines(), b.splitlines()
    pairs = zip(lines_a, lines_b, strict=False)
    start = next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(lines_a), len(lines_b)))
    windows = (lines[start : start + _WINDOW] for lines in (lines_a, lines_b))
    lines = [line for line in difflib.unified_diff(*windows, n=0, lineterm="") if line[:2] != "@@"][2:]
    return tuple(line[:_LINE_LENGTH] for line in islice(lines, EXCERPT_LINES))
