"""What a committed notebook must look like, and the one normal form of its JSON.

Rules: no outputs or execution counts; stable, unique cell ids; at most one cell tagged ``parameters``; Markdown that
reads the same in Colab, JupyterLab and the site (no MyST directives or roles); code lines that need no scrolling;
no measured number typed into prose; and what :mod:`harness.book.conventions` says of quizzes, numbers, pictures,
call-outs.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.book.conventions import glossary_problems, number_problems, problems
from harness.book.notebook import cell_ids, read_document
from harness.files import write_text

_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
_MYST = re.compile(
    r"^\s*(`{3,}|~{3,}|:{3,})\{\w|^\s*:{3,}\s*\w|\{(?:doc|ref|numref|cite\w*|eq|term|glue\w*):?\w*\}`", re.M
)
_MEASURED = re.compile(
    r"(?<![\w.])(?:\d+(?:\.\d+)?\s?[%％]|0\.\d{2,}|\d+(?:\.\d+)?\s?(?:个百分点|倍|秒|分钟|条/秒|GB|MB))(?!\w*\()"
)
WIDTH = 88  # columns of a code line that the site and a notebook show without scrolling
_NOT_PROSE = re.compile(r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]+\$", re.S)
_CITED = re.compile(r"\]\([^)]+\)|\d{4}[）)]")


@dataclass(frozen=True)
class Finding:
    """One thing to mend, with its place."""

    notebook: Path
    cell: str  # id, or number where there is none; empty where the file has no cells
    message: str

    def __str__(self) -> str:
        return f"{self.notebook}: " + (f"cell {self.cell}: " if self.cell else "") + self.message


def normal_form(notebook: Mapping[str, Any]) -> str:
    """The notebook as it is committed: no outputs, only tags as cell metadata, sorted keys, one-space indent."""
    cells = []
    for cell, name in zip(notebook["cells"], cell_ids(notebook["cells"]), strict=True):
        tags = cell.get("metadata", {}).get("tags") or []
        plain = {
            "cell_type": cell["cell_type"],
            "id": cell.get("id") or name,
            "metadata": {"tags": tags} if tags else {},
            "source": _text(cell).splitlines(keepends=True),
        }
        if cell["cell_type"] == "code":
            plain |= {"execution_count": None, "outputs": []}
        cells.append(dict(sorted(plain.items())))
    document = {"cells": cells, "metadata": _METADATA, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def lint(path: Path) -> list[Finding]:
    """All findings of one notebook, in cell order.

    Raises:
        HarnessError: the file cannot be read or is not a notebook.
    """
    notebook = read_document(path)
    return [Finding(path, cell, message) for cell, message in _findings(notebook, path)]


def lint_glossary(path: Path) -> list[Finding]:
    """Names that the glossary *path* gives to two things; nothing where there is no such file."""
    found = glossary_problems(path) if path.is_file() else ()
    return [Finding(path, "", f"line {line}: {message}") for line, message in found]


def fix(path: Path) -> bool:
    """Write the normal form; True when the file changed."""
    wanted = normal_form(read_document(path))
    if path.read_text(encoding="utf-8") == wanted:
        return False
    write_text(path.resolve(), wanted)
    return True


def _findings(notebook: Mapping[str, Any], path: Path) -> Iterator[tuple[str, str]]:
    cells = notebook["cells"]
    tagged = [c for c in cells if "parameters" in (c["metadata"].get("tags") or ())]
    if len(tagged) > 1:
        yield "-", f"{len(tagged)} cells are tagged parameters; at most one may be"
    ids = [c.get("id") for c in cells]
    for number, cell in enumerate(cells, 1):
        name = cell.get("id") or str(number)
        if not cell.get("id") or ids.count(cell["id"]) > 1:
            yield name, "no id, or one that is not unique"
        if cell["cell_type"] == "code" and (cell.get("outputs") or cell.get("execution_count") is not None):
            yield name, "carries outputs or an execution count; run `python -m harness lint --fix`"
        if cell["cell_type"] == "code":
            yield from ((name, message) for message in _wide(_text(cell)))
        if cell["cell_type"] == "markdown":
            yield from ((name, message) for message in _prose(_text(cell)))
    yield from problems(notebook, path)
    yield from number_problems(path)
    if path.read_text(encoding="utf-8") != normal_form(notebook):
        yield "-", "JSON is not in normal form; run `python -m harness lint --fix`"


def _wide(source: str) -> Iterator[str]:
    """Code lines that must be scrolled; a Chinese character takes two columns."""
    for number, line in enumerate(source.splitlines(), 1):
        columns = sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in line)
        if columns > WIDTH:
            yield f"line {number} is {columns} columns wide, more than {WIDTH}"


def _prose(source: str) -> Iterator[str]:
    """MyST syntax, and numbers that look measured in a paragraph that cites nobody."""
    if match := _MYST.search(source):
        yield f"MyST syntax {match.group().strip()!r} does not read in Colab"
    for paragraph in re.split(r"\n\s*\n", _NOT_PROSE.sub(" ", source)):
        if not _CITED.search(paragraph) and (match := _MEASURED.search(paragraph)):
            yield f"{match.group()!r} looks measured: let a code cell display it, or cite its source"


def _text(cell: Mapping[str, Any]) -> str:
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(source)
