"""The book against the article it rewrites: headings, errors put right, and one name for one thing.

The article itself is not in the repository; what it says stands in the 勘误 page (`chapters/errata.md`) and in
`ARTICLE` below. An entry of that page and the call-out that puts the error right are bound by the article's own
words: what the entry quotes in “…” or `…`, one `> **勘误**` block of the linked section must quote too.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest

CHAPTERS = Path(__file__).parents[2] / "chapters"
# The article's headings that fall in chapters 1-5; of the chapters' own titles the part before “&” or “：”.
ARTICLE = {
    "01-background": ["第 1 章 背景介绍", "1.1 大语言模型的发展历程", "1.2 大语言模型的优势"],
    "02-core-concepts": [
        "第 2 章 核心概念与联系",
        "2.1 核心概念",
        "2.2 原理与架构",
        "2.3 Mermaid 流程图",
        "2.4 核心算法原理",
        "2.5 具体操作步骤",
    ],
    "03-algorithm": [
        "第 3 章 核心算法原理",
        "3.1 算法原理概述",
        "3.2 算法步骤详解",
        "3.3 算法优缺点",
        "3.4 算法应用领域",
    ],
    "04-mathematics": [
        "第 4 章 数学模型和公式",
        "4.1 数学模型构建",
        "4.2 公式推导过程",
        "4.3 案例分析与讲解",
    ],
    "05-1-fine-tuning": ["第 5 章 项目实践", "5.1 开发环境搭建", "5.2 源代码详细实现"],
    "05-2-experiments": ["第 5 章 项目实践", "5.3 代码解读与分析"],
}
# In the order of the page. E56-E81 belong to chapters 6-9; E82 was found when chapter 2 was written.
ERRATA = [f"E{n:02d}" for n in (*range(1, 23), 82, *range(23, 56))]
# Characters that GB 2312 does not file under the reading they have here, and one that it does.
READ_AS = str.maketrans({"熵": "伤", "重": "虫", "校": "叫"})
NOT_TERMS = {"learned"}  # an English word in brackets that glosses a phrase, not a term


class Heading(NamedTuple):
    level: int
    title: str
    cell: str


class Line(NamedTuple):
    cell: str
    text: str
    path: tuple[Heading, ...]  # the headings it stands under, outermost first


@functools.cache
def lines(page: str) -> list[Line]:
    """Every line of a page's Markdown outside fences, with where it stands."""
    path = CHAPTERS / page
    assert path.is_file(), f"chapters/{page} does not exist"
    cells = [("page", path.read_text(encoding="utf-8"))]
    if path.suffix == ".ipynb":
        cells = [
            (cell["id"], "".join(cell["source"]))
            for cell in json.loads(cells[0][1])["cells"]
            if cell["cell_type"] == "markdown"
        ]
    found: list[Line] = []
    above: tuple[Heading, ...] = ()
    for cell, source in cells:
        fenced = False
        for text in source.splitlines():
            if text.startswith("```"):
                fenced = not fenced
            elif not fenced:
                if heading := re.match(r"(#{1,6}) +(.+)", text):
                    level = len(heading[1])
                    above = (*(h for h in above if h.level < level), Heading(level, heading[2].strip(), cell))
                found.append(Line(cell, text, above))
    return found


def headings(page: str) -> list[Heading]:
    return [line.path[-1] for line in lines(page) if line.text.startswith("#")]


def anchor(title: str) -> str:
    """MyST's anchor of a heading: GitHub's, but formulas do not count."""
    return re.sub(r"[^\w\- ]", "", re.sub(r"\$[^$]*\$", "", title).lower()).replace(" ", "-")


def section(page: str, fragment: str) -> list[Line]:
    """The lines under the heading that `page#fragment` points to."""
    inside = [
        line for line in lines(page) if fragment in (anchor(h.title) for h in line.path if h.level <= 3)
    ]
    assert inside, f"chapters/{page} has no heading with the anchor #{fragment}"
    return inside


def callouts(part: list[Line]) -> list[str]:
    """The `> **勘误** …` blocks among some lines."""
    text = "\n".join(line.text for line in part)
    return [block for block in re.findall(r"(?:^>.*\n?)+", text, re.M) if "**勘误**" in block]


def bare(text: str) -> str:
    """A text without what may differ between two quotations: spaces, mark-up, the dress of a formula."""
    text = re.sub(r"\\(?:text|mathrm|operatorname|left|right)\b", "", text).replace(r"\top", "T")
    return re.sub(r"[\s`*${}\\>]", "", text).lower()


class Entry(NamedTuple):
    number: str
    target: str
    term: str
    body: str

    @property
    def quotes(self) -> list[str]:
        return [a or b for a, b in re.findall(r"“([^”]+)”|`([^`]+)`", self.term)]

    @property
    def places(self) -> list[tuple[str, str]]:
        return re.findall(r"\]\(([\w-]+\.(?:ipynb|md))#([^)]+)\)", self.body)


@functools.cache
def errata() -> list[Entry]:
    text = (CHAPTERS / "errata.md").read_text(encoding="utf-8")
    entry = r"^\[\*\*(E\d\d)\*\*\]\{#(\w+)\} (.+)\n((?::.+\n)+)"
    return [Entry(*parts) for parts in re.findall(entry, text, re.M)]


@pytest.mark.parametrize(
    ("chapter", "wanted"),
    [(c, h) for c, titles in ARTICLE.items() for h in titles],
    ids=lambda value: value.replace(" ", ""),
)
def test_every_heading_of_the_article_has_its_anchor(chapter: str, wanted: str):
    level = 1 if wanted.startswith("第") else 2
    number, words = re.fullmatch(r"(第 \d 章|\d\.\d) (.+)", wanted).groups()
    fitting = [
        h.title for h in headings(f"{chapter}.ipynb") if h.level == level and h.title.startswith(number + " ")
    ]
    assert len(fitting) == 1, f"{chapter} has {fitting or 'no heading'} for {wanted!r}"
    assert words in fitting[0]


@pytest.mark.parametrize("chapter", ARTICLE)
def test_sections_stand_in_the_order_of_the_article(chapter: str):
    numbers = [h.title[:3] for h in headings(f"{chapter}.ipynb") if re.match(r"\d\.\d ", h.title)]
    assert numbers == [title[:3] for title in ARTICLE[chapter] if not title.startswith("第")]


def test_the_errata_page_lists_exactly_the_known_errors_in_order():
    assert [entry.number for entry in errata()] == ERRATA
    assert [entry.target for entry in errata()] == [number.lower() for number in ERRATA]


@pytest.mark.parametrize("number", ERRATA)
def test_every_error_is_put_right_where_the_errata_page_says(number: str):
    entry = next((entry for entry in errata() if entry.number == number), None)
    assert entry, f"{number} has no entry on the 勘误 page"
    assert entry.quotes, f"{number} quotes nothing of the article"
    assert entry.places, f"{number} does not say where it is put right"
    for page, fragment in entry.places:
        blocks = callouts(section(page, fragment))
        assert any(all(bare(quote) in bare(block) for quote in entry.quotes) for block in blocks), (
            f"{number}: no 勘误 call-out under chapters/{page}#{fragment} quotes {' and '.join(entry.quotes)}"
        )


@pytest.mark.parametrize("chapter", ARTICLE)
def test_every_callout_of_a_chapter_is_listed(chapter: str):
    """A call-out that no entry of the page leads to is an error that the page forgot."""
    page = f"{chapter}.ipynb"
    listed = [
        [bare(quote) for quote in entry.quotes]
        for entry in errata()
        if page in (place for place, _ in entry.places)
    ]
    forgotten = [
        block
        for block in callouts(lines(page))
        if not any(all(quote in bare(block) for quote in quotes) for quotes in listed)
    ]
    assert forgotten == []


class Term(NamedTuple):
    name: str
    others: tuple[str, ...]  # English, abbreviations; of a name in Latin script its Chinese
    text: str
    page: str
    fragment: str


@functools.cache
def glossary() -> list[Term]:
    text = (CHAPTERS / "glossary.md").read_text(encoding="utf-8")
    found = []
    for block in re.findall(r"^:::\{glossary\}\n(.*?)\n:::$", text, re.M | re.S):
        for entry in block.split("\n\n"):
            head, body = entry.split("\n", 1)
            name, others = re.fullmatch(r"([^（）]+)(?:（([^（）]+)）)?", head).groups()
            page, fragment = re.search(r"\]\(([\w-]+\.ipynb)#([^)]+)\)", body).groups()
            found.append(
                Term(name, tuple((others or "").split("，")) if others else (), body, page, fragment)
            )
    return found


def test_every_term_has_one_name():
    names = [name.casefold() for term in glossary() for name in (term.name, *term.others)]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_terms_are_sorted_latin_first_then_by_pinyin():
    def place(name: str) -> tuple[int, bytes]:
        if name[0].isascii():
            return 0, name.lower().encode()
        return 1, name.translate(READ_AS).encode("gb2312")

    names = [term.name for term in glossary()]
    assert names == sorted(names, key=place)


@pytest.mark.parametrize("term", glossary(), ids=lambda term: term.name)
def test_a_terms_link_leads_to_where_it_is_used(term: Term):
    part = "\n".join(line.text for line in section(term.page, term.fragment)).casefold()
    part = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", part)  # links read as their text
    assert any(name.casefold() in part for name in (term.name, *term.others)), (
        f"{term.page}#{term.fragment} says nothing of {term.name}"
    )


@pytest.mark.parametrize("chapter", ARTICLE)
def test_terms_of_a_chapter_agree_with_the_glossary(chapter: str):
    """Each 中文（English） in a chapter is a term of the glossary, with the same English for the same Chinese."""
    english = {t.name: {other.casefold() for other in t.others} for t in glossary()}
    taken = {o.casefold(): t.name for t in glossary() for o in t.others if not o.isupper()}
    short = {other.casefold() for t in glossary() for other in t.others if other.isupper()}
    wrong = []
    for line in lines(f"{chapter}.ipynb"):
        text = (
            re.sub(r"“[^”]*”", "“”", line.text) if line.text.startswith(">") else line.text
        )  # the article's words
        for before, inside in re.findall(r"([^（）]*[\u4e00-\u9fff])（([^（）]+)", text.replace("*", "")):
            said = re.split(r"[，；：]", inside)[0].strip()
            if not re.fullmatch(r"[A-Za-z][A-Za-z '–-]*", said) or said in NOT_TERMS:
                continue
            where, said = f"{chapter}, cell {line.cell}: …{before[-12:]}（{said}）", said.casefold()
            name = max((n for n in english if before.endswith(n)), key=len, default=None)
            if name and said not in english[name]:
                wrong.append(f"{where}; the glossary has {name}（{'，'.join(sorted(english[name]))}）")
            elif not name and said in taken:
                wrong.append(f"{where}; the glossary calls it {taken[said]}")
            elif not name and said not in short:
                wrong.append(f"{where}; the glossary does not know it")
    assert wrong == []
