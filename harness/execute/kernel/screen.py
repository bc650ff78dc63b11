"""What a terminal shows in the end of text with progress bars, cursor movements and colours.

nbclient's ``coalesce_streams`` looks for carriage returns with a pattern whose time grows with the square of a
line's length and that holds the interpreter lock meanwhile. Here everything is linear in what was printed.
"""

from __future__ import annotations

import re
import unicodedata

_REACH = 100  # rows that the cursor can go up; a terminal's window is smaller
_WIDEST = 1000  # columns that the cursor can go past a row's end
_MOST_STYLES = 8  # colour codes at a time
_LONGEST_ESCAPE = 60  # characters

_MOVE = re.compile(r"[\r\b]|\x1b\[[0-9;?]*[A-GJK]")
_CONTROL = re.compile(
    r"(?P<char>[\n\r\b])|\x1b\[(?P<number>[0-9;?]*)(?P<code>[A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"
)
_NOT_ONE_WIDE = re.compile(r"[^\n\r -\u02ff\u2500-\u259f]")

_Cell = str | tuple[str, str]  # a character; with its style where it has one; "" behind a wide character


class Screen:
    """A terminal that text is fed to.

    Rows that no control character has touched stay plain strings; of the others each column is a cell of its own.
    """

    def __init__(self) -> None:
        self._above: list[str] = []  # rows that the cursor cannot reach any more, with their line ends
        self._rows: list[str | list[_Cell]] = [""]
        self._row = 0
        self._column: int | None = None  # None: behind the row's last character
        self._styles: dict[str, str] = {}
        self._style = ""

    def feed(self, text: str) -> None:
        """Take what was printed; it may be cut anywhere but inside an escape sequence."""
        text = text.replace("\r\n", "\n")
        at = 0
        while at < len(text):
            if self._is_at_end():
                move = _MOVE.search(text, at)
                plain = len(text) if move is None else max(text.rfind("\n", at, move.start()) + 1, at)
                self._append(text[at:plain])
                at = plain
            line_end = text.find("\n", at) + 1 or len(text)
            self._take_line(_overlaid(text[at:line_end]))
            at = line_end

    def _is_at_end(self) -> bool:
        return self._row == len(self._rows) - 1 and self._column is None and isinstance(self._rows[-1], str)

    def _take_line(self, text: str) -> None:
        position = 0
        for control in _CONTROL.finditer(text):
            if control.start() > position:
                self._write(text[position : control.start()])
            position = control.end()
            self._obey(control)
        if position < len(text):
            self._write(text[position:])

    def text(self) -> str:
        *rows, bottom = map(_joined, self._rows)
        if bottom and self._column == 0 and self._row == len(rows):
            bottom += "\r"  # what comes next overwrites this line
        return "".join(self._above) + "\n".join([*rows, bottom])

    def _append(self, text: str) -> None:
        """Text without movements behind all else: only its last rows can be reached."""
        reachable = len(text)
        for _ in range(_REACH):
            if (reachable := text.rfind("\n", 0, max(reachable, 0))) < 0:
                break
        if reachable >= 0:
            self._above += (f"{_joined(row)}\n" for row in self._rows[:-1])
            self._above += (_joined(self._rows[-1]), text[: reachable + 1])
            self._rows, text = [""], text[reachable + 1 :]
        head, *lines = text.split("\n")
        self._rows[-1] = _joined(self._rows[-1]) + head
        self._rows += lines
        self._row = len(self._rows) - 1
        self._forget()

    def _forget(self) -> None:
        if (beyond := len(self._rows) - _REACH) >= _REACH:
            self._above += (f"{_joined(row)}\n" for row in self._rows[:beyond])
            del self._rows[:beyond]
            self._row -= beyond

    def _cells(self) -> list[_Cell]:
        """The cursor's row, column by column."""
        row = self._rows[self._row]
        if isinstance(row, str):
            self._rows[self._row] = cells = []
            column, self._column = self._column, None
            position = 0
            for control in _CONTROL.finditer(row):
                cells += _row_cells(row[position : control.start()], self._style)
                self._restyle(control)
                position = control.end()
            cells += _row_cells(row[position:], self._style)
            self._column = column
            return cells
        return row

    def _write(self, text: str) -> None:
        cells, new = self._cells(), _row_cells(text, self._style)
        start = len(cells) if self._column is None else self._column
        cells += [" "] * (start - len(cells))
        end = start + len(new)
        if 0 < start < len(cells) and cells[start] == "":  # half of a wide character is none
            cells[start - 1] = " "
        if end < len(cells) and cells[end] == "":
            cells[end] = " "
        cells[start:end] = new
        self._column = None if end == len(cells) else end

    def _obey(self, control: re.Match[str]) -> None:
        char, code = control["char"], control["code"]
        if char == "\n":
            if self._row == len(self._rows) - 1:
                self._rows.append("")
            self._row += 1
            self._column = None if not self._rows[self._row] else 0
            self._forget()
        elif char == "\r":
            self._column = 0 if self._rows[self._row] else None
        elif char == "\b":
            self._column = max(self._at() - 1, 0)
        elif code and code in "ABCDEFGJK":
            self._move(code, control["number"])
        else:
            self._restyle(control)

    def _at(self) -> int:
        return len(self._cells()) if self._column is None else self._column

    def _move(self, code: str, number: str) -> None:
        count = int(number) if number.isdigit() and len(number) < 6 else 0
        column, steps = self._at(), max(count, 1)
        if code in "JK":
            self._erase(code, count, column)
        elif code in "ABEF":
            row = self._row - steps if code in "AF" else self._row + steps
            self._row = min(max(row, 0), len(self._rows) - 1)
            self._column = column if code in "AB" else 0
        else:
            column = {"C": column + steps, "D": column - steps, "G": steps - 1}[code]
            self._column = min(max(column, 0), max(len(self._cells()), _WIDEST))

    def _erase(self, code: str, count: int, column: int) -> None:
        cells = self._cells()
        if count == 0:
            del cells[column:]
            if code == "J":
                del self._rows[self._row + 1 :]
        elif code == "K":
            cells[: column + 1] = [" "] * min(column + 1, len(cells))
            if count == 2:
                cells.clear()
        self._column = column

    def _restyle(self, control: re.Match[str]) -> None:
        """Colours go on until they are reset; other sequences change nothing that is seen."""
        if control["code"] != "m":
            return
        reset, number = re.fullmatch(r"(0*(?:;|$))?(.*)", control["number"]).groups()
        if reset is not None:
            self._styles.clear()
        if number:
            kind = re.sub(r"^(?:3|9|4|10)(?=\d).*", lambda m: "on" if m[0][0] in "41" else "in", number)
            self._styles.pop(kind, None)
            self._styles[kind] = f"\x1b[{number}m"
            if len(self._styles) > _MOST_STYLES:
                del self._styles[next(iter(self._styles))]
        self._style = "".join(self._styles.values())


def _overlaid(line: str) -> str:
    """*line* with what is overwritten taken out at once; a bar may be drawn a million times on one line."""
    if line.count("\r") < 3 or "\b" in line or _NOT_ONE_WIDE.search(line):
        return line
    before, *drawn, last = line.split("\r")
    shown, width = [], 0
    for text in reversed(drawn):
        shown.append(text[width:])
        width = max(width, len(text))
    return f"{before}\r{''.join(shown)}\r{last}"


def _row_cells(text: str, style: str) -> list[_Cell]:
    chars = list(text)
    if not text.isascii():
        chars = []
        for char in text:
            if chars and unicodedata.category(char) in ("Mn", "Me", "Cf"):
                chars[-1 if chars[-1] else -2] += char
            else:
                chars += [char, ""] if unicodedata.east_asian_width(char) in "WF" else [char]
    return [(style, char) if char else "" for char in chars] if style else chars


def _joined(row: str | list[_Cell]) -> str:
    """A row as text; blanks at its end are what a bar was wiped out with."""
    if isinstance(row, str):
        return row
    parts, style = [], ""
    for cell in row:
        new, char = cell if isinstance(cell, tuple) else (style if cell == "" else "", cell)
        if new != style:
            parts += ["\x1b[0m" if style else "", new]
            style = new
        parts.append(char)
    return "".join(parts).rstrip(" ") + ("\x1b[0m" if style else "")


def render(text: str) -> str:
    """What a terminal shows of *text* in the end."""
    screen = Screen()
    screen.feed(text)
    return screen.text()


def complete(text: str) -> int:
    """How much of *text* can be fed: not an escape sequence at its end whose rest is yet to come."""
    escape = text.rfind("\x1b", -_LONGEST_ESCAPE)
    return escape if escape >= 0 and not _CONTROL.match(text, escape) else len(text)
