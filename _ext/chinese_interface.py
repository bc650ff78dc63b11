"""Chinese words for what the theme's own catalogues leave in English.

The theme's translators are asked first; only what they do not know is looked up here. A few labels are
written into templates without a translator, or missing there: those are mended in the finished pages.
"""

from __future__ import annotations

import gettext
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sphinx.application import Sphinx
from sphinx.locale import translators

_WORDS = {
    "Back to top": "回到顶部",
    "Breadcrumb": "当前位置",
    "Collapse Sidebar": "收起侧栏",
    "Color mode": "配色",
    "Dark": "深色",
    "Error": "错误",
    "Expand Sidebar": "展开侧栏",
    "Fullscreen mode": "全屏",
    "Launch interactive content": "打开交互环境",
    "Launch on": "运行于",
    "Light": "浅色",
    "Link to this heading": "此标题的链接",
    "Link to this image": "此图的链接",
    "Link to this table": "此表的链接",
    "Link to this term": "此术语的链接",
    "On this page": "本页目录",
    "Open an issue": "提出问题",
    "Open issue": "提出问题",
    "Please activate JavaScript to enable the search functionality.": "搜索需要启用 JavaScript。",
    "Print to PDF": "打印或存为 PDF",
    "Repository": "代码仓库",
    "Search": "搜索",
    "Section Navigation": "本节导航",
    "Site navigation": "全站导航",
    "Skip to main content": "跳到正文",
    "Source repositories": "代码仓库",
    "Source repository": "代码仓库",
    "Suggest edit": "修改本页",
    "System Settings": "跟随系统",
    "Table of contents": "目录",
    "next": "下一页",
    "next page": "下一页",
    "previous": "上一页",
    "previous page": "上一页",
}
_LABELS = {
    "Hide search": "关闭搜索",
    "Main": "主导航",
    "Toggle hidden content": "展开或收起",
    "Toggle primary sidebar": "显示或隐藏目录",
    "Toggle secondary sidebar": "显示或隐藏本页目录",
}
_LABEL = re.compile(f"""(?<=(?:title|label)=")(?:{"|".join(_LABELS)})(?=")""")
_MENDED = {
    '<summary><span class="toctree-toggle"': '<summary aria-label="展开或收起这一节"><span class="toctree-toggle"',
    '<div role="list" class="citation-list"': '<div class="citation-list"',  # its children are no list items
    "Issue%20on%20page%20": quote("页面 "),  # title and text of a new issue, in the address of its button
    "Your%20issue%20content%20here.": "",
}


class _Chinese(gettext.NullTranslations):
    def gettext(self, message: str) -> str:
        return _WORDS.get(message, message)


def _add_fallback(app: Sphinx) -> None:
    for catalogue in translators.values():
        catalogue.add_fallback(_Chinese())


def _translate_labels(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        translated = _LABEL.sub(lambda found: _LABELS[found[0]], text)
        for wrong, right in _MENDED.items():
            translated = translated.replace(wrong, right)
        if translated != text:
            page.write_text(translated, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Hook in once every extension has loaded its catalogue, and once the pages are written."""
    app.connect("build-finished", _translate_labels, priority=900)
    app.connect("builder-inited", _add_fallback, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
