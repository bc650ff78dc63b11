"""The book against the article it rewrites: headings, errors put right, and one name for one thing.

The article itself is not in the repository; what it says stands in the 勘误 page (`chapters/errata.md`) and in
`ARTICLE` below. That page is the only place that speaks of it: it lists every error with what is right, and why.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest

CHAPTERS = Path(__file__).parents[2] / "chapters"
# The article's headings, chapter by chapter; of the chapters' own titles the part before “&” or “：”.
# The article's headings by their number; of the chapters' own titles the part before “&” or “：”.
ARTICLE = {
    "01": ["第 1 章 背景介绍", "1.1 大语言模型的发展历程", "1.2 大语言模型的优势"],
    "02": [
        "第 2 章 核心概念与联系",
        "2.1 核心概念",
        "2.2 原理与架构",
        "2.3 Mermaid 流程图",
        "2.4 核心算法原理",
        "2.5 具体操作步骤",
    ],
    "03": [
        "第 3 章 核心算法原理",
        "3.1 算法原理概述",
        "3.2 算法步骤详解",
        "3.3 算法优缺点",
        "3.4 算法应用领域",
    ],
    "04": [
        "第 4 章 数学模型和公式",
        "4.1 数学模型构建",
        "4.2 公式推导过程",
        "4.3 案例分析与讲解",
    ],
    "05": ["第 5 章 项目实践", "5.1 开发环境搭建", "5.2 源代码详细实现", "5.3 代码解读与分析"],
    "06": [
        "第 6 章 实际应用场景",
        "6.1 问答系统",
        "6.2 文本生成",
        "6.3 文本分类",
        "6.4 机器翻译",
        "6.5 语言理解",
    ],
    "07": ["第 7 章 工具和资源", "7.1 学习资源推荐", "7.2 开发工具推荐", "7.3 相关论文推荐"],
    "08": ["第 8 章 总结", "8.1 研究成果总结", "8.2 未来发展趋势", "8.3 面临的挑战", "8.4 研究展望"],
    "09": [
        "第 9 章 附录",
        "9.1 什么是大语言模型",
        "9.2 大语言模型有哪些应用场景",
        "9.3 如何实现大语言模型的有监督微调",
        "9.4 大语言模型的训练需要多少计算资源",
        "9.5 如何优化大语言模型的训练速度",
        "9.6 如何保护大语言模型训练中的用户隐私",
    ],
}
# First and last error of each part of the page; E82 was found when chapter 2 was written and stands at its end.
PARTS = {
    "形式与全文": (1, 4),
    "第 1 章": (5, 11),
    "第 2 章": (12, 22),
    "第 3 章": (23, 31),
    "第 4 章": (32, 40),
    "第 5 章": (41, 55),
    "第 6 章": (56, 61),
    "第 7 章": (62, 67),
    "第 8 章": (68, 72),
    "第 9 章": (73, 81),
}
LATER = {"第 2 章": [82]}
KINDS = {"错误", "不准确", "遗漏", "过时", "无依据", "形式"}
NOTEBOOKS = sorted(path.name for path in CHAPTERS.glob("*.ipynb"))
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


class Entry(NamedTuple):
    part: str  # heading it stands under
    number: str
    target: str
    term: str
    kind: str
    right: str
    source: str

    @property
    def quotes(self) -> list[str]:
        return [a or b for a, b in re.findall(r"“([^”]+)”|`([^`]+)`", self.term)]


@functools.cache
def errata() -> list[Entry]:
    text = (CHAPTERS / "errata.md").read_text(encoding="utf-8")
    entry = r"^\[\*\*(E\d\d)\*\*\]\{#(\w+)\} (.+)（(\w+)）\n: (.+)\n: 依据：(.+)\n"
    return [
        Entry(part.split("\n", 1)[0], *found)
        for part in re.split(r"^## ", text, flags=re.M)[1:]
        for found in re.findall(entry, part, re.M)
    ]


def chapter(number: str) -> list[str]:
    """The notebooks of a chapter."""
    found = [name for name in NOTEBOOKS if name.startswith(f"{number}-")]
    assert found, f"there is no notebook of chapter {number}"
    return found


@pytest.mark.parametrize(
    ("number", "wanted"),
    [(n, h) for n, titles in ARTICLE.items() for h in titles],
    ids=lambda value: value.replace(" ", ""),
)
def test_every_heading_of_the_article_has_its_anchor(number: str, wanted: str):
    level = 1 if wanted.startswith("第") else 2
    pages = chapter(number)[:1] if level == 1 else chapter(number)
    place, words = re.fullmatch(r"(第 \d 章|\d\.\d) (.+)", wanted).groups()
    fitting = [
        h.title
        for page in pages
        for h in headings(page)
        if h.level == level and h.title.startswith(place + " ")
    ]
    assert len(fitting) == 1, f"chapter {number} has {fitting or 'no heading'} for {wanted!r}"
    assert words in fitting[0]


@pytest.mark.parametrize("number", ARTICLE)
def test_sections_stand_in_the_order_of_the_article(number: str):
    titles = [h.title for page in chapter(number) for h in headings(page)]
    numbers = [title[:3] for title in titles if re.match(r"\d\.\d ", title)]
    assert numbers == [title[:3] for title in ARTICLE[number] if not title.startswith("第")]


def test_the_errata_page_lists_each_known_error_once_by_chapter_and_in_order():
    found = {name: [int(e.number[1:]) for e in errata() if e.part.startswith(name)] for name in PARTS}
    assert found == {
        name: [*range(first, last + 1), *LATER.get(name, [])] for name, (first, last) in PARTS.items()
    }
    text = (CHAPTERS / "errata.md").read_text(encoding="utf-8")
    assert len(errata()) == text.count("{#e") == 82  # all 81 of the list, and one more
    assert [entry.target for entry in errata()] == [entry.number.lower() for entry in errata()]


@pytest.mark.parametrize("entry", errata(), ids=lambda entry: entry.number)
def test_an_error_is_quoted_put_right_and_sourced(entry: Entry):
    assert entry.kind in KINDS
    assert entry.quotes, f"{entry.number} quotes nothing of the article"
    assert len(re.findall("[\u4e00-\u9fff]", entry.right)) >= 20, f"{entry.number} does not say what is right"
    assert re.search(r"\]\(https://[^)]+\)|原文", entry.source), f"{entry.number} names no source"


def test_the_errata_page_does_not_hang_on_the_chapters():
    """Chapters are rewritten and split; the page must not lose its footing."""
    text = (CHAPTERS / "errata.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\([^):]*\.ipynb[^)]*\)", text) == []


class Term(NamedTuple):
    name: str
    others: tuple[str, ...]  # English, abbreviations; of a name in Latin script its Chinese
    synonyms: tuple[str, ...]  # what it is called elsewhere
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
            others = tuple(others.split("，")) if others else ()
            synonyms = tuple(s for list_ in re.findall(r"同义：([^。]+)。", body) for s in list_.split("、"))
            found.append(Term(name, others, synonyms, body, page, fragment))
    return found


def test_every_term_has_one_name_and_no_name_means_two_things():
    names = [n.casefold() for term in glossary() for n in (term.name, *term.others, *term.synonyms)]
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


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_terms_of_a_chapter_agree_with_the_glossary(page: str):
    """Each 中文（English） in a chapter is a term of the glossary, with the same English for the same Chinese."""
    english = {t.name: {other.casefold() for other in t.others} for t in glossary()}
    taken = {o.casefold(): t.name for t in glossary() for o in t.others if not o.isupper()}
    short = {other.casefold() for t in glossary() for other in t.others if other.isupper()}
    wrong = []
    for line in lines(page):
        text = (
            re.sub(r"“[^”]*”", "“”", line.text) if line.text.startswith(">") else line.text
        )  # the article's words
        for before, inside in re.findall(r"([^（）]*[\u4e00-\u9fff])（([^（）]+)", text.replace("*", "")):
            said = re.split(r"[，；：]", inside)[0].strip()
            if not re.fullmatch(r"[A-Za-z][A-Za-z '–-]*", said) or said in NOT_TERMS:
                continue
            where, said = f"{page}, cell {line.cell}: …{before[-12:]}（{said}）", said.casefold()
            name = max((n for n in english if before.endswith(n)), key=len, default=None)
            if name and said not in english[name]:
                wrong.append(f"{where}; the glossary has {name}（{'，'.join(sorted(english[name]))}）")
            elif not name and said in taken:
                wrong.append(f"{where}; the glossary calls it {taken[said]}")
            elif not name and said not in short:
                wrong.append(f"{where}; the glossary does not know it")
    assert wrong == []
