"""Figures that run a model in the reader's browser, from files of the site: ``{live} classifier``.

A chapter has no directive, which Colab would show as code: there a block quote that begins with ``**试一试**`` and
links to ``try-it.md#classifier`` reads as it stands, and on the site the figure follows it.

The directive leaves a form that is hidden, and one sentence for those without JavaScript. ``live/live.js`` shows the
form; its button starts a worker, ``live/classifier.js`` or ``live/writer.js``, which fetches the model below
``_static/live/`` and, for an ONNX model, onnxruntime-web from ``vendor/``, all packed: the worker unpacks them, so any
static server will do. Nothing is loaded before the click.
PDF, EPUB and paper leave out what is ``screen-only``.
"""

from __future__ import annotations

import hashlib
import html
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from local_assets import bring_scripts
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

_SOURCES = Path(__file__).resolve().parent / "live"
_WORKERS = ("files.js", "wordpiece.js", "classifier.js", "product.js", "llama.js", "writer.js")
_SCRIPTS = ("live.js", *_WORKERS)
_RUNTIME = "onnxruntime-web"
_RUNTIME_BYTES = "ort-wasm-simd-threaded.wasm"
_PAGE = "try-it"
_NO_SCRIPT = "这里可以在浏览器里运行书里的模型，要打开 JavaScript；没有它，别的内容照读不误。"


@dataclass(frozen=True)
class Figure:
    """What a kind of figure is called and starts with."""

    worker: str
    folder: str  # below _static/live/
    title: str
    label: str  # of the field
    example: str


FIGURES = {
    "classifier": Figure(
        "classifier.js",
        "review-classifier-zh",
        "给一句评论打分",
        "写一句酒店、图书或电脑的评论",
        "房间干净，服务也好，就是早餐贵了点。",
    ),
    "attention": Figure(
        "classifier.js",
        "review-classifier-zh",
        "它看着哪里",
        "写一句短的",
        "早餐不是不好，就是贵了点。",
    ),
    "writer": Figure(
        "writer.js",
        "mini-gpt-zh",
        "接着往下写",
        "写一个开头",
        "酒店的位置很好，",
    ),
}


class live(nodes.General, nodes.Element):
    """One figure."""


class LiveDirective(Directive):
    """```{live} classifier```"""

    required_arguments = 1

    def run(self) -> Sequence[nodes.Node]:
        """The figure's node, or an error that names the kinds there are."""
        kind = self.arguments[0].strip()
        if kind not in FIGURES:
            raise self.error(f"no live figure {kind!r}; there are {', '.join(FIGURES)}")
        return [live("", kind=kind)]


def _lead(app: Sphinx, document: nodes.document) -> None:
    """Let ``page.md#classifier`` lead to the figure, and put one after each block quote that offers it."""
    found = list(document.findall(live))
    for figure in found:
        kind = figure["kind"]
        figure["ids"] = [kind]
        # where MyST looks for an anchor
        slugs = app.env.metadata[app.env.docname].setdefault("myst_slugs", {})
        slugs[kind] = (figure.line or 1, kind, FIGURES[kind].title)
    for quote in list(document.findall(nodes.block_quote)):
        if "callout-live" not in quote["classes"]:  # of teaching.py
            continue
        kinds = [
            kind
            for link in quote.findall(pending_xref)
            for page, _, kind in [f"{link['reftarget']}#{link.get('reftargetid') or ''}".partition("#")]
            if page.endswith(_PAGE) and kind in FIGURES
        ]
        if not kinds:
            raise ExtensionError(
                f"{app.env.docname}: “试一试” links to no figure; there are {', '.join(FIGURES)}"
            )
        place = quote.parent.index(quote) + 1
        offered = [live("", kind=kind) for kind in kinds]
        quote.parent.insert(place, offered)
        found += offered
    if twice := [kind for kind, count in Counter(one["kind"] for one in found).items() if count > 1]:
        raise ExtensionError(f"{app.env.docname}: more than one figure {twice[0]!r}; a page can hold one")


# --- files ---------------------------------------------------------------------------------------------


def _described(
    role: str, name: str, paths: Sequence[Path], where: str, size: int, packed: bool
) -> dict[str, Any]:
    """One file for the worker: its parts' addresses, which change with their content, and its size unpacked."""
    parts = []
    for path in paths:
        content = path.read_bytes()
        parts.append({"address": f"{where}/{path.name}?v={_mark(content)}", "bytes": len(content)})
    return {"role": role, "name": name, "parts": parts, "bytes": size, "packed": packed}


def _mark(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _unpacked_size(path: Path) -> int:
    """Of a gzip file below 4 GB: its last four bytes say."""
    return int.from_bytes(path.read_bytes()[-4:], "little")


def manifest(root: Path, kind: str, static: str) -> dict[str, Any]:
    """All that the worker fetches for a kind of figure; *static* is how the page reaches ``_static``.

    Raises:
        ExtensionError: a file is not there.
    """
    figure = FIGURES[kind]
    folder = root / "_static" / "live" / figure.folder
    where = f"{static}/live/{folder.name}"
    described: dict[str, Any] = {"worker": f"{static}/live/{figure.worker}?v={_mark(_scripts())}"}
    try:
        card = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        sized = [("card", folder / "model.json"), ("tokenizer", folder / "tokenizer.json")]
        files = [
            _described(role, path.name, [path], where, path.stat().st_size, False) for role, path in sized
        ]
        parts = [folder / one for one in card["parts"]]
        if parts[0].name.startswith("model.onnx"):
            runtime = root / "vendor" / _RUNTIME / f"{_RUNTIME_BYTES}.gz"
            size = _unpacked_size(runtime)
            files.append(_described("runtime", _RUNTIME_BYTES, [runtime], f"{static}/{_RUNTIME}", size, True))
            described["runtime"] = {
                "script": f"../{_RUNTIME}/ort.wasm.min.js",  # from the worker
                "loader": f"../{_RUNTIME}/ort-wasm-simd-threaded.js",
            }
        name = parts[0].name.partition(".gz")[0]
        files.append(_described("model", name, parts, where, card["bytes"], True))
    except (OSError, KeyError, IndexError, ValueError) as error:
        raise ExtensionError(
            f"live figure {kind!r}: {error}; recipes/live.py and live_writer.py make the models"
        ) from error
    return described | {"files": files}


def _scripts() -> bytes:
    """All that a worker may import: where any of it changes, so does the worker's address."""
    return b"".join((_SOURCES / name).read_bytes() for name in _WORKERS)


def _megabytes(files: dict[str, Any]) -> float:
    return sum(part["bytes"] for file in files["files"] for part in file["parts"]) / 1e6


# --- the page ------------------------------------------------------------------------------------------


def _visit(self: Any, node: live) -> None:
    kind = node["kind"]
    figure = FIGURES[kind]
    page = self.builder.current_docname
    static = self.builder.get_relative_uri(page, "_static/x").rpartition("/")[0]
    files = manifest(Path(self.builder.app.confdir), kind, static)
    self.lives = getattr(self, "lives", 0) + 1
    name = node["ids"][0] if node["ids"] else f"live-{self.lives}"
    self.body.append(f"""\
<section class="live screen-only" data-live="{kind}" aria-labelledby="{name}-title" id="{name}">
<p class="live-title" id="{name}-title">{html.escape(figure.title)}</p>
<p class="live-none">{_NO_SCRIPT}</p>
<script type="application/json" class="live-files">{json.dumps(files, ensure_ascii=False)}</script>
<form hidden novalidate>
<label for="{name}-text">{html.escape(figure.label)}</label>
<textarea id="{name}-text" rows="3" lang="zh-CN" spellcheck="false">{html.escape(figure.example)}</textarea>
<p class="live-do"><button type="submit">在浏览器里运行（下载 {_megabytes(files):.0f} MB）</button></p>
<progress aria-label="下载进度" hidden></progress>
<p class="live-status" role="status" aria-live="polite"></p>
</form>
<div class="live-answer" hidden></div>
</section>
""")
    raise nodes.SkipNode


def _skip(self: Any, node: live) -> None:
    raise nodes.SkipNode


def _load(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Pages with a figure load the script."""
    if doctree is not None and next(iter(doctree.findall(live)), None) is not None:
        app.add_js_file("live/live.js", loading_method="defer")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the steps."""
    app.add_node(live, html=(_visit, None), text=(_skip, None), latex=(_skip, None))
    app.add_directive("live", LiveDirective)
    bring_scripts(app, [_SOURCES / name for name in _SCRIPTS], "live")
    app.connect("doctree-read", _lead, priority=700)  # teaching.py, before, knows the quotes by their words
    app.connect("html-page-context", _load)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
