"""Serve every script and font from the book itself: no page asks a third party for anything.

MathJax's files come out of the installed ``sphinx-mathjax-offline`` package, Mermaid's out of ``vendor/``.
Both are added behind Jupyter Book's back, because it links every ``*.js`` below a configured static folder
on every page. Both are classic scripts: browsers load no modules from ``file://``.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinxcontrib.mermaid import mermaid

_log = logging.getLogger(__name__)
_MATHJAX_PACKAGE = "sphinx-mathjax-offline"
_MATHJAX_PARTS = ("tex-chtml.js", "output/chtml/fonts/woff-v2/*.woff", "input/tex/extensions/*.js")
_MATHJAX_UNUSED = ("all-packages.js",)
_MERMAID_IMPORT = re.compile(r"^import mermaid from [^;]+;")
_DIAGRAMS = (
    "graph", "flowchart", "sequenceDiagram", "classDiagram", "stateDiagram", "stateDiagram-v2", "timeline",
)  # fmt: skip
"""Kinds that ``vendor/mermaid/`` can draw; the others would double its weight."""
STYLE_FILE = re.compile(r"""\burl\(\s*["']?(?!data:|https?:|//|#)([^"')?#\s]+)""")
"""A file of the site that a style sheet asks for."""


def bring_scripts(app: Sphinx, files: Sequence[Path], below: str = "") -> None:
    """Have *files* in ``_static/``, or a folder *below* it, before pages are written, which name their edition."""

    def copy(app: Sphinx) -> None:
        if app.builder.format != "html":
            return
        target = Path(app.outdir) / "_static" / below
        target.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copyfile(file, target / file.name)

    app.connect("builder-inited", copy)


def _add_vendor(app: Sphinx, config: Config) -> None:
    config.html_static_path.append(str(Path(app.confdir) / "vendor"))
    app.add_js_file(config.mermaid_use_local, loading_method="defer")


def _check_diagrams(app: Sphinx, doctree: nodes.document) -> None:
    """A diagram that the browser could not draw is a warning with its place, not an empty box for the reader."""
    for diagram in doctree.findall(mermaid):
        kind = next(iter(diagram["code"].split()), "nothing")
        if kind not in _DIAGRAMS:
            message = "Mermaid's %r is not among the kinds in vendor/mermaid; see vendor/README.md"
            _log.warning(message, kind, location=diagram)
        elif "$$" in diagram["code"]:
            _log.warning("formulas in a diagram need KaTeX, which is not in vendor/mermaid", location=diagram)


def _copy_mathjax(app: Sphinx) -> None:
    """Copy the parts of MathJax that TeX pages can load to ``_static/mathjax/``."""
    if app.builder.format != "html":
        return
    try:
        packaged = metadata.files(_MATHJAX_PACKAGE) or []
    except metadata.PackageNotFoundError as error:
        raise ExtensionError(f"{_MATHJAX_PACKAGE} is not installed: the formulas cannot be drawn") from error
    target = Path(app.outdir) / "_static" / "mathjax"
    for file in packaged:
        inside = str(file).partition("/static/mathjax/")[2]
        wanted = any(PurePosixPath("/" + inside).match("/" + part) for part in _MATHJAX_PARTS)
        if wanted and file.name not in _MATHJAX_UNUSED:
            copy = target / inside
            if not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file.locate(), copy)


def _is_foreign(script: Any) -> bool:
    """Thebe's set-up: an inline script with a remote address, and its loader."""
    body = str(getattr(script, "attributes", {}).get("body", ""))
    return "THEBE" in body or "sphinx-thebe" in str(getattr(script, "filename", ""))


def _is_mermaid(script: Any) -> bool:
    return "mermaid/mermaid." in str(getattr(script, "filename", ""))


def _draws_mermaid(script: Any) -> bool:
    return "mermaid.initialize" in str(getattr(script, "attributes", {}).get("body", ""))


def _draws_maths(script: Any) -> bool:
    return "mathjax/tex-" in str(getattr(script, "filename", ""))


def _has(doctree: nodes.document | None, *kinds: type[nodes.Node]) -> bool:
    return doctree is not None and any(next(iter(doctree.findall(kind)), None) is not None for kind in kinds)


def _choose_scripts(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Drop Thebe everywhere, Mermaid and MathJax where there is nothing for them to draw."""
    scripts = context.get("script_files")
    if scripts is None:
        return
    unwanted = [_is_foreign]
    unwanted += [] if _has(doctree, mermaid) else [_is_mermaid, _draws_mermaid]
    unwanted += [] if _has(doctree, nodes.math, nodes.math_block) else [_draws_maths]
    kept = [one for one in scripts if not any(test(one) for test in unwanted)]
    context["script_files"] = [_without_import(one) if _draws_mermaid(one) else one for one in kept]


def _without_import(script: Any) -> Any:
    """The module that draws the diagrams, with the Mermaid that a script before it has loaded."""
    body, found = _MERMAID_IMPORT.subn("const mermaid = globalThis.mermaid;", script.attributes["body"])
    if not found:
        raise ExtensionError("sphinxcontrib-mermaid no longer begins its script with the import of Mermaid")
    return type(script)(None, **(script.attributes | {"body": body}))


def _check_styles(app: Sphinx, error: Exception | None) -> None:
    """A font or image that a style sheet asks for and the site lacks is a warning with its place."""
    if error or app.builder.format != "html":
        return
    for sheet in Path(app.outdir).rglob("*.css"):
        for number, line in enumerate(sheet.read_text(encoding="utf-8").splitlines(), 1):
            for name in STYLE_FILE.findall(line):
                if not (sheet.parent / name).is_file():
                    place = f"{sheet.relative_to(app.outdir)}:{number}"
                    _log.warning("%s is not there", name, location=place)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the steps."""
    app.connect("config-inited", _add_vendor)
    app.connect("builder-inited", _copy_mathjax)
    app.connect("doctree-read", _check_diagrams)
    app.connect("html-page-context", _choose_scripts, priority=900)
    app.connect("build-finished", _check_styles, priority=800)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
