"""What a chapter's text keeps to, so that the site can dress it and the reader can follow it.

All of it is plain Markdown that reads as it stands in Colab: quizzes with one right answer and a word on each option,
numbers of figures, tables and equations that count up through the notebooks of a chapter and that references hit,
pictures that are there and described, call-outs that stand without the article that this book puts right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.book.config import toc_pages
from harness.book.notebook import read_document
from harness.errors import HarnessError

QUIZ_TAG = "quiz"

_FENCE = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.M | re.S)
_CODE = re.compile(r"`[^`\n]*`")
_MATHS = re.compile(r"\$\$.*?\$\$|\$[^$\n]+\$", re.S)
_CAPTION = re.compile(r"^\*\*(?P<kind>[图表]) (?P<number>\d+\.\d+)\*\*(?P<space>\s*)", re.M)
_TAG = re.compile(r"\\tag\{(\d+\.\d+)\}")
_REFERENCE = re.compile(r"([图表]) ?(\d+\.\d+)(?![.\d]*\d)|(式) ?[（(](\d+\.\d+)[）)]")
_IMAGE = re.compile(r"!\[([^\]]*)\]\(\s*<?([^)>\s]+)")
_QUOTE = re.compile(r"(?:^>.*\n?)+", re.M)
_CHAPTER = re.compile(r"(\d+)-")
_QUESTION = re.compile(r"^\*\*(\d+)\.\*\*", re.M)
_OPTION = re.compile(r"^- ([A-Z])\.[ \t]*(.*)$", re.M)
_ANSWER = re.compile(r"^- ([A-Z])[ \t]*([✓✗])[ \t]*(.*)$", re.M)
_DETAILS = re.compile(r"<details>.*?</details>", re.S)

Problem = tuple[str, str]  # id of a cell, what is wrong with its line


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
        number = f"{self.chapter}.{self.rank}"
        return f"式 ({number})" if self.kind == "式" else f"{self.kind} {number}"


def problems(notebook: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    """What is wrong with the text of a notebook, beside the numbers."""
    asked = 0
    for cell, source, tags in _texts(notebook):
        if QUIZ_TAG in tags:
            asked += 1
            yield from ((cell, message) for message in _quiz(source, asked))
        prose = _blanked(source, _FENCE, _CODE)
        yield from ((cell, message) for message in _pictures(prose, path.parent))
        yield from ((cell, message) for message in _callouts(prose))


def number_problems(path: Path) -> Iterator[Problem]:
    """Numbers out of order or given twice, and references to nothing; the notebooks beside it count, too."""
    siblings = _in_reading_order(path.parent)
    marks = [mark for one in siblings for mark in _marks(one)]
    earlier = siblings[: siblings.index(path)] if path in siblings else siblings
    mine = [mark for mark in marks if mark.path == path]
    yield from _order(mine, [mark for mark in marks if mark.path in earlier], path)
    known = {mark.label for mark in marks}
    for cell, source, _ in _texts(read_document(path)):
        prose = _blanked(source, _FENCE, _CODE, _MATHS)
        for found in _REFERENCE.finditer(_CAPTION.sub(lambda caption: " " * len(caption[0]), prose)):
            label = f"式 ({found[4]})" if found[3] else f"{found[1]} {found[2]}"
            if label not in known:
                yield (
                    cell,
                    f"line {_line(prose, found.start())}: {label} is nowhere; mend the number or add it",
                )


def _in_reading_order(folder: Path) -> list[Path]:
    """The notebooks of *folder* as the table of contents beside it has them, those that it lacks last, by name."""
    found, toc = sorted(folder.glob("*.ipynb")), folder.parent / "_toc.yml"
    pages = toc_pages(toc) if toc.is_file() else []
    place = {page.resolve(): rank for rank, page in enumerate(pages)}
    return sorted(found, key=lambda path: place.get(path.resolve(), len(place)))


def glossary_problems(path: Path) -> Iterator[tuple[int, str]]:
    """Names of the glossary that two of its entries claim: line, message."""
    owners: dict[str, str] = {}
    term = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        head = re.fullmatch(r"([^\s:#（）：。][^（）：。]*)(?:（([^（）]+)）)?", line)
        names = [name for found in re.findall(r"同义：([^。]+)。", line) for name in found.split("、")]
        if head:
            term = head[1]
            names += [term, *(head[2].split("，") if head[2] else ())]
        for name in names:
            owner = owners.setdefault(name.casefold(), term)
            if owner != term:
                yield number, f"{name!r} is claimed by {owner} and by {term}; give it to one of them"


def _texts(notebook: Mapping[str, Any]) -> Iterator[tuple[str, str, Sequence[str]]]:
    """Id, text and tags of each Markdown cell."""
    for number, cell in enumerate(notebook["cells"], 1):
        if cell["cell_type"] == "markdown":
            yield cell.get("id") or str(number), "".join(cell["source"]), cell["metadata"].get("tags") or ()


def _blanked(text: str, *forms: re.Pattern[str]) -> str:
    """*text* with what these forms match made blank; lines stay where they are."""
    for form in forms:
        text = form.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    return text


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


# --- quizzes -------------------------------------------------------------------------------------------


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


# --- pictures and call-outs ----------------------------------------------------------------------------


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


# --- numbers -------------------------------------------------------------------------------------------


def _marks(path: Path) -> list[Mark]:
    """The numbers that a notebook gives, in order; none where it is no notebook."""
    try:
        notebook = read_document(path)
    except HarnessError:
        return []
    marks = []
    for cell, source, _ in _texts(notebook):
        prose = _blanked(source, _FENCE, _CODE)
        found = [(f.start(), f["kind"], f["number"]) for f in _CAPTION.finditer(_blanked(prose, _MATHS))]
        found += [(f.start(), "式", f[1]) for f in _TAG.finditer(prose)]
        for start, kind, number in sorted(found):
            chapter, rank = map(int, number.split("."))
            marks.append(Mark(kind, chapter, rank, path, cell, _line(prose, start)))
    return marks


def _order(mine: Sequence[Mark], earlier: Sequence[Mark], path: Path) -> Iterator[Problem]:
    """Numbers of *path* that are another chapter's, given twice, or not the next of their kind."""
    of_chapter = _CHAPTER.match(path.name)
    before = [mark for mark in earlier if _same_chapter(mark.path, path)]
    last = {kind: max((m.rank for m in before if m.kind == kind), default=0) for kind in "图表式"}
    seen = {mark.label: mark for mark in before}
    for mark in mine:
        where = f"line {mark.line}: {mark.label}"
        if of_chapter and mark.chapter != int(of_chapter[1]):
            yield mark.cell, f"{where} in chapter {int(of_chapter[1])}"
        elif first := seen.get(mark.label):
            yield mark.cell, f"{where} is given twice, first in {first.path.name}, cell {first.cell}"
        elif mark.rank != last[mark.kind] + 1:
            yield mark.cell, f"{where} where {mark.chapter}.{last[mark.kind] + 1} comes next"
        seen.setdefault(mark.label, mark)
        last[mark.kind] = max(last[mark.kind], mark.rank)


def _same_chapter(one: Path, other: Path) -> bool:
    names = [_CHAPTER.match(path.name) for path in (one, other)]
    return all(names) and names[0][1] == names[1][1]  # type: ignore[index]
