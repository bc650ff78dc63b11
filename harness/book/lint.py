"""What a committed notebook must look like, and the one normal form of its JSON.

Form: no outputs or execution counts; stable, unique cell ids; at most one cell tagged ``parameters``; Markdown that
reads the same in Colab, JupyterLab and the site (no MyST directives or roles); code lines that need no scrolling.

Text: no measured number typed into prose; quizzes with one right answer and a word on each option; numbers of figures,
tables and equations that count up through the notebooks of a chapter and that references hit; pictures that are there
and described; call-outs that stand without the article that this book puts right.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.book.colab import SETUP_TAG
from harness.book.config import toc_pages
from harness.book.notebook import cell_ids, read_document, tags_of, text_of
from harness.book.parameters import PARAMETERS_TAG
from harness.errors import HarnessError
from harness.files import write_text

QUIZ_TAG = "quiz"
WIDTH = 88  # columns of a code line that the site and a notebook show without scrolling

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
_NOT_PROSE = re.compile(r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]+\$", re.S)
_CITED = re.compile(r"\]\([^)]+\)|\d{4}[）)]")
_FENCE = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.M | re.S)
_CODE = re.compile(r"`[^`\n]*`")
_MATHS = re.compile(r"\$\$.*?\$\$|\$[^$\n]+\$", re.S)
_CAPTION = re.compile(r"^\*\*(?P<kind>[图表]) (?P<number>\d+\.\d+)\*\*\s*", re.M)
_TAG = re.compile(r"\\tag\{(\d+\.\d+)\}")
_REFERENCE = re.compile(
    r"(?P<kind>[图表]) ?(?P<number>\d+\.\d+)(?![.\d]*\d)|式 ?[（(](?P<equation>\d+\.\d+)[）)]"
)
_IMAGE = re.compile(r"!\[([^\]]*)\]\(\s*<?([^)>\s]+)")
_QUOTE = re.compile(r"(?:^>.*\n?)+", re.M)
_QUESTION = re.compile(r"^\*\*(\d+)\.\*\*", re.M)
_OPTION = re.compile(r"^- ([A-Z])\.[ \t]*(.*)$", re.M)
_ANSWER = re.compile(r"^- ([A-Z])[ \t]*([✓✗])[ \t]*(.*)$", re.M)
_DETAILS = re.compile(r"<details>.*?</details>", re.S)

Problem = tuple[str, str]  # id of a cell, what is wrong with it


@dataclass(frozen=True)
class Finding:
    """One thing to mend, with its place."""

    notebook: Path
    cell: str  # id, or number where there is none; empty where the file has no cells
    message: str
    fixable: bool = False  # by `harness lint --fix`

    def __str__(self) -> str:
        return f"{self.notebook}: " + (f"cell {self.cell}: " if self.cell else "") + self.message


def lint(path: Path) -> list[Finding]:
    """All findings of one notebook, in cell order.

    Raises:
        HarnessError: the file cannot be read or is not a notebook.
    """
    notebook = read_document(path)
    found = [Finding(path, cell, message) for cell, message in _problems(notebook, path)]
    return [*found, *(Finding(path, cell, message, fixable=True) for cell, message in _form(notebook, path))]


def lint_glossary(path: Path) -> list[Finding]:
    """Names that two entries of the glossary *path* claim; nothing where there is no such file."""
    owners: dict[str, str] = {}
    term, found = "", []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.is_file() else (), 1):
        head = re.fullmatch(r"([^\s:#（）：。][^（）：。]*)(?:（([^（）]+)）)?", line)
        names = [name for same in re.findall(r"同义：([^。]+)。", line) for name in same.split("、")]
        if head:
            term = head[1]
            names += [term, *(head[2].split("，") if head[2] else ())]
        for name in names:
            owner = owners.setdefault(name.casefold(), term)
            if owner != term:
                message = f"{name!r} is claimed by {owner} and by {term}; give it to one of them"
                found.append(Finding(path, "", f"line {number}: {message}"))
    return found


def fix(path: Path) -> bool:
    """Write the normal form; True when the file changed."""
    wanted = normal_form(read_document(path))
    if path.read_text(encoding="utf-8") == wanted:
        return False
    write_text(path.resolve(), wanted)
    return True


def normal_form(notebook: Mapping[str, Any]) -> str:
    """The notebook as it is committed: no outputs, only tags as cell metadata, sorted keys, one-space indent.

    What a reader sees or runs stays: the cells' text, pictures attached to it, the language and its kernel.
    """
    cells = []
    for cell, name in zip(notebook["cells"], cell_ids(notebook["cells"]), strict=True):
        tags = cell.get("metadata", {}).get("tags") or []
        plain = {
            "cell_type": cell["cell_type"],
            "id": cell.get("id") or name,
            "metadata": {"tags": tags} if tags else {},
            "source": text_of(cell).splitlines(keepends=True),
        }
        if cell.get("attachments"):
            plain["attachments"] = cell["attachments"]
        if cell["cell_type"] == "code":
            plain |= {"execution_count": None, "outputs": []}
        cells.append(dict(sorted(plain.items())))
    document = {"cells": cells, "metadata": _metadata(notebook), "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def _metadata(notebook: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a notebook in Python always the same; of another its kernel and its language."""
    metadata = notebook.get("metadata") or {}
    spec, info = (metadata.get(name) or {} for name in ("kernelspec", "language_info"))
    language = info.get("name") or spec.get("language") or "python"
    if language.lower() == "python":
        return _METADATA
    kept = {name: spec[name] for name in ("display_name", "language", "name") if spec.get(name)}
    return {**({"kernelspec": kept} if kept else {}), "language_info": {"name": language}}


def _form(notebook: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    """What :func:`fix` would change, in words."""
    wanted = normal_form(notebook)
    if path.read_text(encoding="utf-8") == wanted:
        return
    cells, metadata = notebook["cells"], notebook.get("metadata") or {}
    ran = [cell for cell in cells if cell.get("outputs") or cell.get("execution_count") is not None]
    extra = dict.fromkeys(key for cell in cells for key in cell["metadata"] if key != "tags")
    changes = [
        f"outputs and execution counts of {len(ran)} cell(s) go" if ran else "",
        f"cell metadata but tags go: {', '.join(map(str, extra))}" if extra else "",
        "each cell gets an id" if any(not cell.get("id") for cell in cells) else "",
        "the notebook's metadata become those of any kernel of its language"
        if metadata != json.loads(wanted)["metadata"]
        else "",
    ]
    told = "; ".join(filter(None, changes)) or "only the order of keys, the indent or line ends"
    yield "-", f"not in the form that is committed: {told}"


def _problems(notebook: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    cells, ids = notebook["cells"], [cell.get("id") for cell in notebook["cells"]]
    tagged = [cell for cell in cells if PARAMETERS_TAG in tags_of(cell)]
    if len(tagged) > 1:
        yield "-", f"{len(tagged)} cells are tagged {PARAMETERS_TAG}; at most one may be"
    asked = 0
    for number, cell in enumerate(cells, 1):
        name, source = cell.get("id") or str(number), text_of(cell)
        if not cell.get("id") or ids.count(name) > 1:
            yield name, "no id, or one that is not unique"
        if cell["cell_type"] == "code" and SETUP_TAG not in tags_of(cell):  # that one the harness has written
            yield from ((name, message) for message in _wide(source))
        if cell["cell_type"] == "markdown":
            yield from ((name, message) for message in _prose(source))
            if QUIZ_TAG in tags_of(cell):
                asked += 1
                yield from ((name, message) for message in _quiz(source, asked))
            shown = _blanked(source, _FENCE, _CODE)
            yield from ((name, message) for message in (*_pictures(shown, path.parent), *_callouts(shown)))
    yield from _numbers(notebook, path)


def _blanked(text: str, *forms: re.Pattern[str]) -> str:
    """*text* with what these forms match made blank; lines stay where they are."""
    for form in forms:
        text = form.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    return text


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


# -- one cell ----------------------------------------------------------------------------------------


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


def _quiz(source: str, rank: int) -> Iterator[str]:
    """What is wrong with one question, the *rank*-th of its notebook."""
    question, details = _QUESTION.search(source), _DETAILS.search(source)
    if question is None or details is None:
        missing = "the question, `**1.** …`" if question is None else "the answers in `<details>…</details>`"
        yield f"line 1: a quiz without {missing}"
        return
    if int(question[1]) != rank:
        yield f"line {_line(source, question.start())}: question {question[1]} where {rank} comes next"
    head = source[: details.start()]
    options = {found[1]: found for found in _OPTION.finditer(head)}
    answers = {found[1]: found for found in _ANSWER.finditer(source, details.start(), details.end())}
    start = _line(source, question.start())
    if list(options) != [chr(ord("A") + i) for i in range(len(options))] or len(options) < 2:
        yield f"line {start}: options must be `- A. …`, `- B. …` and so on, not {', '.join(options) or 'none'}"
    right = [letter for letter, found in answers.items() if found[2] == "✓"]
    if len(right) != 1:
        said = f"{len(right)} right answers ({', '.join(right)})" if right else "no right answer"
        yield f"line {_line(source, details.start())}: {said}; exactly one carries ✓"
    for letter, option in options.items():
        if letter not in answers or not answers[letter][3].strip():
            yield f"line {_line(source, option.start())}: option {letter} has no explanation"
    for letter in answers.keys() - options.keys():
        yield f"line {_line(source, answers[letter].start())}: {letter} explains no option"


def _pictures(prose: str, folder: Path) -> Iterator[str]:
    for found in _IMAGE.finditer(prose):
        place, (words, target) = _line(prose, found.start()), found.groups()
        if not words.strip():
            yield f"line {place}: {target} has no alternative text: say in a sentence what it shows"
        if not re.match(r"[a-z][\w+.-]*:", target) and not (folder / target).is_file():
            yield f"line {place}: {target} does not exist"


def _callouts(prose: str) -> Iterator[str]:
    for found in _QUOTE.finditer(prose):
        place = _line(prose, found.start())
        if found[0].startswith("> **勘误**"):
            yield f"line {place}: 勘误 boxes stand on the page 勘误; what teaches is a 常见误解"
        elif found[0].startswith("> **常见误解**") and "原文" in found[0]:
            line = place + found[0].count("\n", 0, found[0].index("原文"))
            yield f"line {line}: a 常见误解 that names the article; it must stand without it"


# -- numbers through a chapter -----------------------------------------------------------------------


@dataclass(frozen=True)
class Mark:
    """A number that a figure, a table or an equation carries, with its place."""

    kind: str  # 图, 表 or 式
    chapter: int
    rank: int
    path: Path
    cell: str
    line: int

    @property
    def label(self) -> str:
        return _label(self.kind, f"{self.chapter}.{self.rank}")


def _label(kind: str, number: str) -> str:
    return f"式 ({number})" if kind == "式" else f"{kind} {number}"


def _numbers(notebook: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    """Numbers out of order or given twice, and references to nothing; the notebooks beside it count, too."""
    siblings = _in_reading_order(path.parent)
    marks = {one: _marks(one) for one in siblings}
    earlier = siblings[: siblings.index(path)] if path in siblings else siblings
    before = [mark for one in earlier if _chapter_of(one) == _chapter_of(path) for mark in marks[one]]
    yield from _order(marks.get(path, ()), before, _chapter_of(path))
    known = {mark.label for found in marks.values() for mark in found}
    for cell, source in _markdown(notebook):
        prose = _blanked(source, _FENCE, _CODE, _MATHS, _CAPTION)
        for found in _REFERENCE.finditer(prose):
            label = _label(found["kind"] or "式", found["number"] or found["equation"])
            if label not in known:
                line = _line(prose, found.start())
                yield cell, f"line {line}: {label} is nowhere; mend the number or add it"


def _in_reading_order(folder: Path) -> list[Path]:
    """The notebooks of *folder* as the table of contents beside it has them, those that it lacks last, by name."""
    found, toc = sorted(folder.glob("*.ipynb")), folder.parent / "_toc.yml"
    pages = toc_pages(toc) if toc.is_file() else []
    place = {page.resolve(): rank for rank, page in enumerate(pages)}
    return sorted(found, key=lambda path: place.get(path.resolve(), len(place)))


def _markdown(notebook: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Id and text of each Markdown cell."""
    for number, cell in enumerate(notebook["cells"], 1):
        if cell["cell_type"] == "markdown":
            yield cell.get("id") or str(number), text_of(cell)


def _chapter_of(path: Path) -> int | Path:
    """The number that the file's name begins with; a file without one is a chapter of its own."""
    found = re.match(r"(\d+)-", path.name)
    return int(found[1]) if found else path


def _marks(path: Path) -> list[Mark]:
    """The numbers that a notebook gives, in order; none where it is no notebook."""
    try:
        notebook = read_document(path)
    except HarnessError:
        return []
    marks = []
    for cell, source in _markdown(notebook):
        prose = _blanked(source, _FENCE, _CODE)
        found = [(f.start(), f["kind"], f["number"]) for f in _CAPTION.finditer(_blanked(prose, _MATHS))]
        found += [(f.start(), "式", f[1]) for f in _TAG.finditer(prose)]
        for start, kind, number in sorted(found):
            chapter, rank = map(int, number.split("."))
            marks.append(Mark(kind, chapter, rank, path, cell, _line(prose, start)))
    return marks


def _order(mine: Sequence[Mark], before: Sequence[Mark], chapter: int | Path) -> Iterator[Problem]:
    """Numbers of one notebook that are another chapter's, given twice, or not the next of their kind."""
    last = {kind: max((m.rank for m in before if m.kind == kind), default=0) for kind in "图表式"}
    seen = {mark.label: mark for mark in before}
    for mark in mine:
        where = f"line {mark.line}: {mark.label}"
        if isinstance(chapter, int) and mark.chapter != chapter:
            yield mark.cell, f"{where} in chapter {chapter}"
        elif first := seen.get(mark.label):
            yield mark.cell, f"{where} is given twice, first in {first.path.name}, cell {first.cell}"
        elif mark.rank != last[mark.kind] + 1:
            yield mark.cell, f"{where} where {mark.chapter}.{last[mark.kind] + 1} comes next"
        seen.setdefault(mark.label, mark)
        last[mark.kind] = max(last[mark.kind], mark.rank)
