"""Full-text search that finds Chinese: the text of every section, looked through as it stands.

Sphinx's search wants words, and Chinese has no spaces: with jieba (not bundled) it cuts pages and not queries; pairs of
neighbouring characters, the usual way out, find pages that hold the pairs anywhere. And it ranks whole pages, by
whether a term is there at all. This book's text is half a megabyte, which a browser searches in a few milliseconds, so
the search page loads it whole: phrases are phrases, code and diagrams are text like any other, a hit is a section with
its snippet. Pagefind was weighed and left: it splits by words, too, reads its index with ``fetch``, which ``file://``
forbids, and needs a page of its own as well. Sphinx's index stays, empty but for titles: its incremental build asks for
one.

Who looks for 早停 may know a thing by another name than the book does: names that the glossary gives to one thing, in
the term or after 同义：, find the same places.

``_static/search-data.js`` holds one entry a section: address, titles, prose, code; and the names that belong together.
``search/search.js`` does the rest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from local_assets import bring_scripts
from sphinx.application import Sphinx
from sphinx.search.zh import SearchChinese
from sphinxcontrib.mermaid import mermaid

DATA, SCRIPT, STYLE = "search-data.js", "search.js", "search.css"
_SOURCES = Path(__file__).resolve().parent / "search"
_SYNTAX = re.compile(
    r"^\s*(?:graph|flowchart)\s+\w+|accTitle:|<br\s*/?>|[-=.]+>|[-.=]{2,}|[\[\](){}|;]", re.M
)
_TEX = re.compile(r"\\[A-Za-z]+|[\\{}$]")
_SPACE = re.compile(r"\s+")
_HALF_WIDTH = {
    wide: wide - 0xFEE0
    for first, last in ("０９", "ＡＺ", "ａｚ")
    for wide in range(ord(first), ord(last) + 1)
}


class TitlesOnly(SearchChinese):
    """Leaves Sphinx's own index without words."""

    js_splitter_code = ""

    def split(self, input: str) -> list[str]:
        return []


def plain(text: str) -> str:
    """One form for what is written in several: letters and digits of half width, any white space as one blank."""
    return _SPACE.sub(" ", text.translate(_HALF_WIDTH)).strip()


def words_of(block: nodes.Element) -> str:
    """What a reader sees of a block: no HTML, and of formulas the letters."""
    texts = []
    for text in block.findall(nodes.Text):
        if isinstance(text.parent, nodes.math):
            texts.append(_TEX.sub(" ", text.astext()))
        elif not isinstance(text.parent, nodes.raw):
            texts.append(text.astext())
    return "".join(texts)


def sections(doctree: nodes.document) -> Iterator[dict[str, str]]:
    """Anchor, heading, prose and code of each section and each defined term, without what lies deeper."""
    for place in doctree.findall(lambda node: isinstance(node, nodes.section | nodes.definition_list_item)):
        if isinstance(place, nodes.definition_list_item):
            term = next(iter(place.findall(nodes.term)), None)
            if term is None or not term["ids"]:
                continue
            heading, anchor = words_of(term), term["ids"][0]
        else:
            heading, anchor = (
                place[place.first_child_matching_class(nodes.title) or 0].astext(),
                place["ids"][0],
            )
        prose: list[str] = []
        code: list[str] = []
        for child in place.children:
            if not isinstance(child, nodes.title | nodes.term):
                _collect(child, prose, code)
        yield {
            "anchor": anchor,
            "heading": plain(heading),
            "text": plain(" ".join(prose)),
            "code": plain(" ".join(code)),
        }


def _collect(node: nodes.Node, prose: list[str], code: list[str]) -> None:
    """Add the text below *node*, block by block."""
    if isinstance(node, mermaid):
        prose.append(_SYNTAX.sub(" ", node["code"]))
    elif isinstance(node, nodes.literal_block):
        code.append(node.astext())
    elif isinstance(node, nodes.TextElement):
        prose.append(words_of(node))
    elif isinstance(node, nodes.Element) and not _is_elsewhere(node):
        for child in node.children:
            _collect(child, prose, code)


def _is_elsewhere(node: nodes.Element) -> bool:
    """A deeper section, a term with an entry of its own, what no reader sees, or an output that is no prose."""
    if isinstance(
        node, nodes.section | nodes.comment | nodes.raw | nodes.substitution_definition | nodes.math_block
    ):
        return True
    if "quiz-answers" in node.get("classes", ()):  # they stand with the questions, too
        return True
    if isinstance(node, nodes.definition_list_item):
        return any(term["ids"] for term in node.findall(nodes.term))
    return node.get("mime_type", "text/markdown") not in ("text/markdown", "text/plain")


def entries(app: Sphinx) -> list[list[str]]:
    """Page, anchor, title of the page, heading, prose and code of all sections of the book."""
    found = []
    for name in sorted(app.env.found_docs):
        title = plain(words_of(app.env.titles[name]))
        page = app.builder.get_target_uri(name)
        for number, one in enumerate(sections(app.env.get_doctree(name))):
            anchor = "" if number == 0 else one["anchor"]
            found.append([page, anchor, title, one["heading"], one["text"], one["code"]])
    return found


_TERM = re.compile(r"([^（）]+)(?:（([^（）]+)）)?")
_SYNONYMS = re.compile(r"同义：([^。]+)。")


def names_of(term: str, text: str) -> list[str]:
    """What a thing of the glossary is called: its term, what follows it in brackets, its synonyms."""
    head = _TERM.fullmatch(term)
    inside = head[2].split("，") if head and head[2] else []
    also = [name for found in _SYNONYMS.findall(text) for name in found.split("、")]
    return [plain(name) for name in (head[1] if head else term, *inside, *also)]


def synonyms(app: Sphinx) -> list[list[str]]:
    """Names that belong together, of each thing in the glossary that has several."""
    groups = []
    for name in sorted(app.env.found_docs):
        for item in app.env.get_doctree(name).findall(nodes.definition_list_item):
            term = next(iter(item.findall(nodes.term)), None)
            if term is not None and term["ids"]:
                groups.append(names_of(words_of(term), item[-1].astext()))
    return [group for group in groups if len(group) > 1]


def _write(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.name != "html":
        return
    static = Path(app.outdir) / "_static"
    data, names = (
        json.dumps(what, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
        for what in (entries(app), synonyms(app))
    )
    (static / DATA).write_text(f"var SEARCH_DATA = {data};\nvar SEARCH_NAMES = {names};\n", encoding="utf-8")


def _load(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """The search page, and it alone, loads the data and the script."""
    if pagename == "search":
        for name in (DATA, SCRIPT):
            app.add_js_file(name, loading_method="defer")


def setup(app: Sphinx) -> dict[str, Any]:
    """Take the place of Sphinx's search."""
    app.add_search_language(TitlesOnly)
    app.add_css_file(STYLE)  # on every page: all have the same styles, so one file serves them all
    bring_scripts(app, [_SOURCES / SCRIPT, _SOURCES / STYLE])
    app.connect("html-page-context", _load)
    app.connect("build-finished", _write)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
