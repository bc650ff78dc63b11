"""Tables that a spreadsheet program will open: no cell of a stranger's text may become a formula.

Excel, LibreOffice and WPS run a cell of a CSV file that begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage
return. The remedy is OWASP's (CSV injection): an apostrophe before it, which these programs show as text.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from typing import IO, Any

_FORMULA = re.compile(r"'*[=+\-@\t\r]")  # apostrophes before it count, so that unescaping is exact
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?%?")


def escape_formula(cell: Any) -> str:
    """The cell as text that no spreadsheet takes for a formula; numbers, negative ones too, stay as they are."""
    if cell is None:
        return ""
    text = str(cell)
    if _FORMULA.match(text) and not _NUMBER.fullmatch(text):
        return "'" + text
    return text


def unescape_formula(text: str) -> str:
    """What :func:`escape_formula` was given."""
    return text[1:] if text[:1] == "'" and _FORMULA.match(text[1:]) else text


def write_csv(file: IO[str], names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a header and rows, every cell escaped. ``file`` is open for text with ``newline=""``."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(escape_formula, names))
    for row in rows:
        writer.writerow(map(escape_formula, row))
