"""What helps a reader along: how long a page takes, where they were, its notebook, a look at what a link names.

Below a notebook's title stands how long it takes and a link to it without outputs. ``reading/reading.js`` does
the rest, in the reader's browser alone: it marks the pages that were read, leads back to the last place from the first
page, and shows a figure, table, equation or source beside the link that names it. Nothing is sent anywhere; without
the script or without the browser's storage the pages read as before.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from local_assets import bring_scripts
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

SCRIPT = "reading.js"
_SOURCES = Path(__file__).resolve().parent / "reading"
NOTEBOOKS = "_downloads/notebooks"

CHARACTERS_A_MINUTE = 255
"""Chinese read silently: 255 ± 29 characters a minute (Trauzettel-Klosinski & Dietz 2012, IReST, table 2)."""
WORDS_A_MINUTE = 228
"""English, there."""
CODE_LINES_A_MINUTE = 20
"""Our own estimate: three seconds a line, for somebody who follows a program and does not only skim it."""
LEAST = 3
"""Minutes below which it is not said how long a page takes."""

_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_WORD = re.compile(r"[A-Za-z][A-Za-z'’-]*")
_NOT_READ = (nodes.literal_block, nodes.math, nodes.math_block, nodes.raw, nodes.comment)


def minutes(document: nodes.Node) -> int:
    """How long *document* takes to read: prose, and the code of its cells; outputs and formulas do not count."""
    characters = words = lines = 0
    for text in document.findall(nodes.Text):
        if not _inside(text, _NOT_READ) and not _in_output(text):
            characters += len(_CHINESE.findall(text))
            words += len(_WORD.findall(text))
    for block in document.findall(nodes.literal_block):
        if not _in_output(block):
            lines += sum(bool(line.strip()) for line in block.astext().splitlines())
    return round(characters / CHARACTERS_A_MINUTE + words / WORDS_A_MINUTE + lines / CODE_LINES_A_MINUTE)


def _inside(node: nodes.Node, kinds: tuple[type[nodes.Node], ...]) -> bool:
    parent = node.parent
    while parent is not None:
        if isinstance(parent, kinds):
            return True
        parent = parent.parent
    return False


def _in_output(node: nodes.Node) -> bool:
    parent = node.parent
    while parent is not None:
        if parent.get("nb_element") == "cell_code_output":
            return True
        parent = parent.parent
    return False


def _measure(app: Sphinx, document: nodes.document) -> None:
    env: BuildEnvironment = app.env
    env.metadata[env.docname]["minutes"] = minutes(document)


def _say(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Put the line below the title of the page, and the script on every page."""
    if app.builder.name not in ("html", "dirhtml") or doctree is None:
        return
    app.add_js_file(SCRIPT, loading_method="defer")
    parts = []
    if app.env.doc2path(pagename, base=False).endswith(".ipynb"):  # other pages are for looking things up
        took = app.env.metadata.get(pagename, {}).get("minutes", 0)
        if took >= LEAST:
            parts.append(f"<span>约 {took} 分钟读完</span>")
        notebook = f"{context['pathto'](NOTEBOOKS, resource=True)}/{Path(pagename).name}.ipynb"
        parts.append(f'<a href="{notebook}" download>下载笔记本（不带输出）</a>')
    if parts:
        line = f'<p class="reading-line screen-only">{" · ".join(parts)}</p>'
        context["body"] = context["body"].replace("</h1>", f"</h1>\n{line}", 1)


def without_outputs(notebook: Path) -> str:
    """The notebook's text with its code cells as nobody has run them yet, without what the site put in."""
    document = json.loads(notebook.read_text(encoding="utf-8"))
    cells = [cell for cell in document["cells"] if "run-card" not in "".join(cell["source"])[:200]]
    for cell in cells:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    return json.dumps({**document, "cells": cells}, ensure_ascii=False, indent=1) + "\n"


def _write(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.name not in ("html", "dirhtml"):
        return
    site = Path(app.outdir)
    for page in app.env.found_docs:
        source = Path(app.env.doc2path(page))
        if source.suffix == ".ipynb":
            target = site / NOTEBOOKS / source.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(without_outputs(source), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the steps."""
    bring_scripts(app, [_SOURCES / SCRIPT])
    app.connect("doctree-read", _measure, priority=700)  # when the outputs have their places
    app.connect("html-page-context", _say)
    app.connect("build-finished", _write)
    return {"version": "1", "env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}
