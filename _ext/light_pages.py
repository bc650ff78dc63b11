"""Pages that weigh little and show early: without what the theme ships and no page needs, with one style sheet.

What is not needed is half of the site. No script holds up the first paint, and what a page's style sheets say comes as
one file, instead of ten that ask for one another.
"""

from __future__ import annotations

import functools
import hashlib
import os
import posixpath
import re
import shutil
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Any

from local_assets import STYLE_FILE
from sphinx.application import Sphinx

_UNUSED = (
    "README.md",  # of vendor, with its script
    "bundle.mjs",
    "**/*.map",
    "locales",
    "*macros.html",  # templates
    "searchtools.js",
    "language_data.js",
    "scripts/fontawesome.js",
    "vendor/fontawesome/webfonts/*.ttf",
    "sphinx-thebe.*",
)
_UNUSED_TAG = re.compile(
    r"""<script [^>]*src="[^"]*scripts/fontawesome\.js[^"]*"></script>\n?"""
    r"""|<link [^>]*sphinx-thebe\.css[^>]*>\n?"""
    r"""|<script src="[^"]*(?:searchtools|language_data|searchindex)\.js[^"]*"></script>\n?"""
    r"""|<link rel="preload" as="script"[^>]*>\n?"""  # they would come before the styles, which are waited for
)
_IMPORT = re.compile(r"""@import "([^":]+)";""")
_ICON = re.compile(r"""((?:\.fa-[\w-]+::?before,?)+)\{content:"[^"]*"\}""")
_ICON_NAME = re.compile(r"\bfa-[\w-]+")
_CHARSET = re.compile(r"""@charset "[^"]*";""")
_STYLE_TAG = re.compile(r"""<link (?=[^>]*rel="stylesheet")[^>]*href="([^"?]+)[^"]*"[^>]*>\n?""")
_BLOCKING_TAG = re.compile(
    r"""(?<=<script )(?=(?:data-[\w-]+="[^"]*" )?src="[^"]*_static/(?!documentation_options)[^"]*"></script>)"""
)


def _slim(app: Sphinx, error: Exception | None) -> None:
    """Take out source maps, catalogues and the icons' script, whose job the icon fonts do; defer the rest."""
    if error or app.builder.format != "html":
        return
    site = Path(app.outdir).resolve()
    static = site / "_static"
    for pattern in _UNUSED:
        for path in list(static.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    pages = {page: page.read_text(encoding="utf-8") for page in site.rglob("*.html")}
    scripts = (path.read_text(encoding="utf-8") for path in static.rglob("*.js"))
    icons = {name for text in (*pages.values(), *scripts) for name in _ICON_NAME.findall(text)}
    join = functools.cache(lambda sheets: _join(sheets, static, icons))  # most pages link the same sheets
    linked: set[Path] = set()
    for page, text in pages.items():
        slim = _BLOCKING_TAG.sub("defer ", _UNUSED_TAG.sub("", text))
        slim = _one_style(page, slim, join)
        if slim != text:
            page.write_text(slim, encoding="utf-8")
        linked.update(_sheets(page, slim))
    for sheet in static.rglob("*.css"):
        if sheet not in linked:
            sheet.unlink()


def _sheets(page: Path, text: str) -> tuple[Path, ...]:
    """The style sheets that *page* with this *text* links, in their order."""
    return tuple((page.parent / name).resolve() for name in _STYLE_TAG.findall(text))


def _one_style(page: Path, text: str, join: Callable[[tuple[Path, ...]], Path]) -> str:
    """*text* of *page* with one style sheet, which *join* makes of all that it links."""
    sheets = _sheets(page, text)
    if len(sheets) < 2:
        return text
    link = f'<link rel="stylesheet" href="{os.path.relpath(join(sheets), page.parent)}" />\n'
    tags = iter([link])
    return _STYLE_TAG.sub(lambda _: next(tags, ""), text)


def _join(sheets: Sequence[Path], target: Path, icons: Set[str]) -> Path:
    """The file in *target* that says what *sheets* and those that they import say, in their order.

    A fifth of it would be the rules of 1,900 icons; those that are not among *icons* are left out.
    """

    def wanted(rule: re.Match[str]) -> str:
        return rule[0] if icons.intersection(_ICON_NAME.findall(rule[1])) else ""

    def said(sheet: Path) -> str:
        up = sheet.parent.relative_to(target).as_posix()
        text = _CHARSET.sub("", sheet.read_text(encoding="utf-8"))
        text = STYLE_FILE.sub(lambda url: url[0].replace(url[1], posixpath.normpath(f"{up}/{url[1]}")), text)
        return _IMPORT.sub(lambda found: said((sheet.parent / found[1]).resolve()), text)

    text = _ICON.sub(wanted, "\n".join(said(sheet) for sheet in sheets))
    joined = target / f"styles-{hashlib.sha256(text.encode()).hexdigest()[:8]}.css"
    joined.write_text(text, encoding="utf-8")
    return joined


def setup(app: Sphinx) -> dict[str, Any]:
    """Work on the finished site, after all others."""
    app.connect("build-finished", _slim, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
