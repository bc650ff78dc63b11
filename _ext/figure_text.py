"""Words for what is drawn: alternative text of figures and diagrams.

Staging leaves ``figure_alt`` in a code cell's metadata, a map from the image's SHA-256 (which MyST-NB uses
as its file name) to its text. An image output without text is a build warning: a reader who cannot see
the figure would get nothing.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinxcontrib.mermaid import mermaid

_log = logging.getLogger(__name__)
_ACCESSIBLE = re.compile(r"^\s*acc(?:Title|Descr)\s*:\s*(.+)$", re.MULTILINE)


def _describe_figures(app: Sphinx, document: nodes.document) -> None:
    for cell in document.findall(nodes.container):
        if cell.get("nb_element") != "cell_code":
            continue
        texts = cell.get("cell_metadata", {}).get("figure_alt", {})
        for image in cell.findall(nodes.image):
            text = texts.get(PurePosixPath(image["uri"].replace("\\", "/")).stem)
            if text:
                image["alt"] = text
            elif not image.get("alt"):
                _log.warning(
                    "figure without alternative text in code cell %s: give display() the metadata"
                    ' {"image/png": {"alt": "…"}}',
                    cell.get("cell_index"),
                    location=cell,
                    type="figure_text",
                )


def _describe_diagrams(app: Sphinx, document: nodes.document) -> None:
    for diagram in document.findall(mermaid):
        code = diagram["code"]
        if not _ACCESSIBLE.search(code):
            _log.warning(
                "diagram without a line `accTitle: …`: a screen reader has nothing to read",
                location=diagram,
                type="figure_text",
            )


def _describe(app: Sphinx, document: nodes.document) -> None:
    _describe_figures(app, document)
    _describe_diagrams(app, document)


def setup(app: Sphinx) -> dict[str, Any]:
    """Work on each document once it has been read."""
    app.connect("doctree-read", _describe)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
