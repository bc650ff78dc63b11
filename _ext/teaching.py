"""What a chapter says in plain Markdown, dressed for the reader: call-outs, folds, numbers, drawings, quizzes.

A notebook's text is CommonMark, which reads as it stands in Colab and JupyterLab. Here its conventions get their looks:

* a block quote that begins with ``**先猜再跑**``, ``**常见误解**`` or ``**提示**`` is a call-out;
* what stands below a heading that ends in ``（选读）`` is folded;
* ``**图 5.2**　…`` in a paragraph of its own is a caption, ``\\tag{5.1}`` numbers an equation, and ``图 5.2``,
  ``表 5.1`` and ``式 (5.1)`` anywhere in the text lead there, across pages;
* an SVG file becomes part of its page and follows the page's theme;
* a numbered question, its options and their explanations in a ``<details>`` are a quiz: ``teaching/teaching.js`` lets
  the reader try. Without the script the details stay; in print the answers stand at the end of the page.
"""

from __future__ import annotations

import html
import posixpath
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from local_assets import bring_scripts
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

_log = logging.getLogger(__name__)
SCRIPT = "teaching.js"
_SOURCES = Path(__file__).resolve().parent / "teaching"

CALLOUTS = {"先猜再跑": "guess", "常见误解": "myth", "提示": "hint", "试一试": "live"}
_OPTIONAL = "（选读）"
_LABEL = re.compile(r"([图表]) (\d+\.\d+)")
_TAG = re.compile(r"\\tag\{(\d+\.\d+)\}")
_REFERENCE = re.compile(r"([图表])[ \xa0]?(\d+\.\d+)(?![.\d]*\d)|(式)[ \xa0]?[（(](\d+\.\d+)[）)]")
_KINDS = {"图": "fig", "表": "tab", "式": "eq"}
_NUMBER = re.compile(r"\d+\.")
_OPTION = re.compile(r"([A-H])\. ")
_ANSWER = re.compile(r"([A-H]) ([✓✗])")
_SVG = "http://www.w3.org/2000/svg"


class quiz(nodes.General, nodes.Element):
    """One question with its options and answers."""


class fold(nodes.General, nodes.Element):
    """What may be skipped."""


class drawing(nodes.image):
    """An SVG file that becomes part of the page."""


def anchor(kind: str, number: str) -> str:
    """The anchor of 图, 表 or 式 with this number: ``fig-5-2``."""
    return f"{_KINDS[kind]}-{number.replace('.', '-')}"


# --- call-outs -----------------------------------------------------------------------------------------


def _lead(node: nodes.Node) -> nodes.strong | None:
    """The bold words that a paragraph begins with, before which MyST leaves an empty text."""
    if not isinstance(node, nodes.paragraph):
        return None
    first = next((child for child in node if child.astext()), None)
    return first if isinstance(first, nodes.strong) else None


def _first_strong(node: nodes.Node) -> str:
    lead = _lead(node)
    return lead.astext() if lead is not None else ""


def _dress_callouts(document: nodes.document) -> None:
    for quote in document.findall(nodes.block_quote):
        kind = CALLOUTS.get(_first_strong(quote[0])) if quote.children else None
        if kind:
            quote["classes"] += ["callout", f"callout-{kind}"]


# --- numbers -------------------------------------------------------------------------------------------


def _number(document: nodes.document) -> Iterator[str]:
    """Give everything that carries a number its anchor; the anchors."""
    for paragraph in list(document.findall(nodes.paragraph)):
        lead = _lead(paragraph)
        found = lead is not None and _LABEL.fullmatch(lead.astext())
        if found and paragraph.astext().removeprefix(found[0]).startswith("\u3000"):
            name = anchor(*found.groups())
            paragraph["classes"].append("numbered")
            _carrier(paragraph, found[1])["ids"].append(name)
            lead.replace_self(nodes.reference("", "", lead.deepcopy(), refid=name))
            yield name
    for block in document.findall(nodes.math_block):
        for number in _TAG.findall(block.astext()):
            block["ids"].append(anchor("式", number))
            yield anchor("式", number)


def _carrier(caption: nodes.paragraph, kind: str) -> nodes.Element:
    """What a reader who follows a reference wants to see first: the picture, or the caption where it comes first."""
    place = caption.parent.index(caption)
    before = caption.parent[place - 1] if place and kind == "图" else None
    if isinstance(before, nodes.paragraph) and all(
        isinstance(one, nodes.image) or not one.astext() for one in before
    ):
        before["classes"].append("pictured")
        return before
    if isinstance(before, nodes.container) and before.get("nb_element") == "cell_code":
        shown = [
            one for one in before.findall(nodes.container) if one.get("nb_element") == "cell_code_output"
        ]
        return shown[-1] if shown else caption
    return caption


def _numbers(env: BuildEnvironment) -> dict[str, str]:
    """Anchor -> page, of the whole book."""
    if not hasattr(env, "teaching_numbers"):
        env.teaching_numbers = {}  # type: ignore[attr-defined]
    return env.teaching_numbers  # type: ignore[attr-defined]


def _forget(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    numbers = _numbers(env)
    for name in [name for name, page in numbers.items() if page == docname]:
        del numbers[name]


def _merge(app: Sphinx, env: BuildEnvironment, docnames: Iterable[str], other: BuildEnvironment) -> None:
    _numbers(env).update(_numbers(other))


def _link_references(app: Sphinx, document: nodes.document, docname: str) -> None:
    numbers = _numbers(app.env)
    for text in list(document.findall(nodes.Text)):
        if not _is_prose(text):
            continue
        parts: list[nodes.Node] = []
        end = 0
        for found in _REFERENCE.finditer(text):
            name = anchor(found[1] or found[3], found[2] or found[4])
            if name in numbers:
                page = (
                    "" if numbers[name] == docname else app.builder.get_relative_uri(docname, numbers[name])
                )
                link = nodes.reference("", found[0], internal=True, refuri=f"{page}#{name}")
                parts += [nodes.Text(text[end : found.start()]), link]
                end = found.end()
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(text[end:])])


def _is_prose(text: nodes.Text) -> bool:
    """Whether a reader would follow a link in this text: no code, no formula, no heading, no link already."""
    node: nodes.Node | None = text.parent
    while node is not None:
        if isinstance(
            node, nodes.literal | nodes.literal_block | nodes.math | nodes.math_block | nodes.raw
            | nodes.reference | nodes.title | nodes.term | nodes.comment
        ):  # fmt: skip
            return False
        node = node.parent
    return True


# --- folds ---------------------------------------------------------------------------------------------


def _fold_optional(document: nodes.document) -> None:
    for section in list(document.findall(nodes.section)):
        title = section[0] if section.children else None
        if isinstance(title, nodes.title) and title.astext().rstrip().endswith(_OPTIONAL):
            folded = fold("", *section.children[1:])
            section[:] = [title, folded]


def _visit_fold(self: Any, node: fold) -> None:
    self.body.append('<details class="optional"><summary>选读：跳过不影响后文，点开阅读</summary>\n')


def _depart_fold(self: Any, node: fold) -> None:
    self.body.append("</details>\n")


# --- quizzes -------------------------------------------------------------------------------------------


def _is_raw(node: nodes.Node, words: str) -> bool:
    return isinstance(node, nodes.raw) and words in node.astext()


def _listed(node: nodes.Node, form: re.Pattern[str]) -> bool:
    return isinstance(node, nodes.bullet_list) and all(form.match(item.astext()) for item in node)


def _make_quizzes(document: nodes.document) -> list[quiz]:
    """Put each question into one element with what belongs to it; the elements."""
    made = []
    for question in list(document.findall(nodes.paragraph)):
        if not _NUMBER.fullmatch(_first_strong(question)) or question.parent is None:
            continue
        parent, start = question.parent, question.parent.index(question)
        after = parent.children[start + 1 :]
        options = next((i for i, one in enumerate(after) if not _may_precede_options(one)), len(after))
        kinds = after[options : options + 4]
        if (
            len(kinds) == 4
            and _listed(kinds[0], _OPTION)
            and _is_raw(kinds[1], "<details")
            and _listed(kinds[2], _ANSWER)
            and _is_raw(kinds[3], "</details")
        ):
            kinds[0]["classes"].append("quiz-options")
            kinds[2]["classes"].append("quiz-reasons")
            for item in kinds[2]:
                item["classes"].append(
                    "quiz-right" if _ANSWER.match(item.astext())[2] == "✓" else "quiz-wrong"
                )
            end = start + options + 5
            one = quiz("", *parent.children[start:end], number=_first_strong(question).rstrip("."))
            parent[start:end] = [one]
            made.append(one)
    return made


def _may_precede_options(node: nodes.Node) -> bool:
    """A question may go on, with a formula or some code."""
    if isinstance(node, nodes.paragraph):
        return not _NUMBER.fullmatch(_first_strong(node))
    return isinstance(node, nodes.literal_block | nodes.math_block | nodes.table)


def _append_answers(document: nodes.document, quizzes: list[quiz]) -> None:
    """The answers once more at the end of the page, for print."""
    if not quizzes:
        return
    box = nodes.container("", nodes.paragraph("", "", nodes.strong("", "测验答案")), classes=["quiz-answers"])
    for one in quizzes:
        reasons = next(two for two in one if "quiz-reasons" in two.get("classes", ())).deepcopy()
        reasons["classes"].remove("quiz-reasons")
        box += [nodes.paragraph("", f"第 {one['number']} 题"), reasons]
    top = next(iter(document.findall(nodes.section)), document)
    top += box


def _visit_quiz(self: Any, node: quiz) -> None:
    self.body.append(
        f'<div class="quiz" role="group" aria-label="测验第 {html.escape(node["number"])} 题">\n'
    )


def _depart_quiz(self: Any, node: quiz) -> None:
    self.body.append("</div>\n")


# --- drawings ------------------------------------------------------------------------------------------

_COMMENT = re.compile(r"/\*.*?\*/", re.S)
_DARK = re.compile(r"@media[^{]*prefers-color-scheme:\s*dark[^{]*\{((?:[^{}]*\{[^{}]*\})*)[^{}]*\}")
_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
_POINTER = re.compile(r"url\(#([^)]+)\)")


def _take_drawings(document: nodes.document) -> None:
    for image in list(document.findall(nodes.image)):
        if image["uri"].endswith(".svg") and type(image) is nodes.image and "://" not in image["uri"]:
            image.replace_self(drawing("", **image.attributes))


def scoped(css: str, name: str) -> str:
    """A drawing's own style, for it alone, dark where the page is dark; on paper it is light."""
    css = _COMMENT.sub("", css)
    dark = "".join(_rules(rules, f'html[data-theme="dark"] #{name}') for rules in _DARK.findall(css))
    return _rules(_DARK.sub("", css), f"#{name}") + (f"@media screen{{{dark}}}" if dark else "")


def _rules(css: str, root: str) -> str:
    return "".join(
        ",".join(f"{root} {one.strip()}".removesuffix(" svg") for one in selectors.split(","))
        + f"{{{said.strip()}}}"
        for selectors, said in _RULE.findall(css)
    )


def inlined(text: str, name: str, alt: str, source: str) -> str:
    """An SVG file as part of a page, where nothing else is called as anything in it.

    Raises:
        ET.ParseError: it is no XML.
        ValueError: it has no viewBox.
    """
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    svg = ET.fromstring(text)
    box = svg.get("viewBox", "").replace(",", " ").split()
    if len(box) != 4:
        raise ValueError("it has no viewBox, which tells its size")
    for parent in svg.iter():
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}title", f"{{{_SVG}}}desc"):
                parent.remove(child)  # a reader has the alternative text; a title would come up as a hint
    for one in svg.iter():
        if one.tag == f"{{{_SVG}}}style":
            one.text = scoped(one.text or "", name)
        for key, value in one.attrib.items():
            if key == "id":
                one.set(key, f"{name}-{value}")
            elif key.endswith("href") and value.startswith("#"):
                one.set(key, f"#{name}-{value[1:]}")
            elif "url(#" in value:
                one.set(key, _POINTER.sub(rf"url(#{name}-\1)", value))
    for key in ("width", "height", "aria-labelledby", "aria-describedby"):
        svg.attrib.pop(key, None)
    svg.attrib |= {
        "id": name, "class": f"drawing {svg.get('class', '')}".strip(), "role": "img", "aria-label": alt,
        "width": box[2], "data-src": source,
    }  # fmt: skip
    return f'<span class="drawing-frame">{ET.tostring(svg, encoding="unicode")}</span>'


def _visit_drawing(self: Any, node: drawing) -> None:
    self.drawings = getattr(self, "drawings", 0) + 1
    path = Path(self.builder.srcdir) / node["uri"]
    source = posixpath.join(self.builder.imgpath, self.builder.images.get(node["uri"], ""))
    try:
        text = path.read_text(encoding="utf-8")
        self.body.append(inlined(text, f"drawing-{self.drawings}", node.get("alt", ""), source))
    except OSError:
        pass  # Sphinx has said so
    except (ET.ParseError, ValueError) as error:
        _log.warning("%s cannot be shown: %s", node["uri"], error, location=node, type="teaching")


def _depart_drawing(self: Any, node: drawing) -> None:
    pass


# --- hooks ---------------------------------------------------------------------------------------------


def _read(app: Sphinx, document: nodes.document) -> None:
    """What belongs to the document itself, once."""
    _dress_callouts(document)
    _append_answers(document, _make_quizzes(document))
    _take_drawings(document)
    _numbers(app.env).update(dict.fromkeys(_number(document), app.env.docname))


def _resolve(app: Sphinx, document: nodes.document, docname: str) -> None:
    """What needs the other pages, or would hide headings from the contents of the page."""
    _link_references(app, document, docname)
    _fold_optional(document)


def _load(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Pages with something to open or to try load the script."""
    needs = quiz | fold | drawing
    if doctree is not None and next(iter(doctree.findall(lambda node: isinstance(node, needs))), None):
        app.add_js_file(SCRIPT, loading_method="defer")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the steps."""
    app.add_node(quiz, html=(_visit_quiz, _depart_quiz))
    app.add_node(fold, html=(_visit_fold, _depart_fold))
    app.add_node(drawing, html=(_visit_drawing, _depart_drawing))
    bring_scripts(app, [_SOURCES / SCRIPT])
    app.connect("doctree-read", _read, priority=600)  # when the images have been collected
    app.connect("env-purge-doc", _forget)
    app.connect("env-merge-info", _merge)
    app.connect("doctree-resolved", _resolve)
    app.connect("html-page-context", _load)
    return {"version": "1", "env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}
