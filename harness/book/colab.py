"""What a chapter needs to be opened in Colab: a link at its top, and a first cell that brings the book.

`harness lint` holds both to ``_config.yml`` (the repository's address and branch, or tag) and ``colab`` in
``harness.yml`` (the book's own module that adds what Colab lacks, or true); the template below is the only one. The
link is a cell tagged ``colab``, which the site leaves out: its theme has a button of its own. The set-up cell is tagged
``setup``. Where the book is at hand, as in a checkout, it only finds it.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

from harness.book.config import CONFIG_NAME, Book, site_config, value_at
from harness.book.notebook import COLAB_TAG, read_document, text_of
from harness.errors import HarnessError
from harness.files import write_text
from harness.wording import Text

SETUP_TAG = "setup"
_HOST = "https://colab.research.google.com"
_GITHUB = re.compile(r"https://github\.com/(?P<name>[\w.-]+/[\w.-]+?)(?:\.git)?/?")
_REVISION = re.compile(r"[\w./-]+")

_LINK = Text("Open in Colab", "在 Colab 中打开")
_PURPOSE = Text(
    "Fetch the book where it is not at hand, as in Colab",
    "准备：书不在手边（比如在 Colab 里）就先取来",
)
_HELPED = Text("; $file adds missing packages", "；缺的包由书里的 $file 补上")

_CELL = Template("""\
# $purpose
import os, sys
if not any(map(os.path.exists, $signs)):
    os.system("git clone -q --depth 1 -b $version $repository")
sys.path[:0] = filter(os.path.isdir, $places)""")


@dataclass(frozen=True)
class Place:
    """Where the book is on GitHub, as ``_config.yml`` says it."""

    repository: str  # https://github.com/<name>
    name: str  # owner/repository
    revision: str  # branch or tag
    folder: str  # of the book in the repository, empty for its root
    host: str  # of Colab
    chinese: bool  # the book's language


def read_place(root: Path) -> Place:
    """What ``_config.yml`` says.

    Raises:
        HarnessError: there is no such file, or Colab cannot open what it names.
    """
    config, where = site_config(root), root / "_config.yml"
    repository = config.get("repository") or {}
    address, revision = repository.get("url", ""), repository.get("branch", "main")
    match = _GITHUB.fullmatch(address)
    if match is None:
        raise HarnessError(
            f"{where}: repository.url must be https://github.com/OWNER/NAME, which is what Colab opens, not {address!r}"
        )
    if not _REVISION.fullmatch(revision):
        raise HarnessError(f"{where}: repository.branch must be a branch or a tag, not {revision!r}")
    return Place(
        repository=f"https://github.com/{match['name']}",
        name=match["name"],
        revision=revision,
        folder=repository.get("path_to_book", "").strip("/"),
        host=str(value_at(config, "launch_buttons", "colab_url") or _HOST).rstrip("/"),
        chinese=str(value_at(config, "sphinx", "config", "language")).startswith("zh"),
    )


def badge(place: Place, chapter: str) -> str:
    """The link that opens *chapter*, a path inside the book, in Colab."""
    path = quote("/".join(filter(None, (place.folder, chapter))))
    words = _LINK.zh if place.chinese else _LINK.en
    return f"[{words}]({place.host}/github/{place.name}/blob/{place.revision}/{path})"


def setup_cell(place: Place, up: str, helper: str | None) -> str:
    """The source of the set-up cell: get the book, tell Python where it is, let it do the rest.

    Args:
        up: the way from the notebook's folder to the book's.
        helper: module of the book that adds what is missing, when it is imported.
    """
    folder = "/".join(filter(None, (place.name.partition("/")[2], place.folder)))
    here = list(dict.fromkeys([up, "."]))
    signs = [posixpath.normpath(f"{one}/{CONFIG_NAME}") for one in here] + [folder]
    purpose, helped = (text.zh if place.chinese else text.en for text in (_PURPOSE, _HELPED))
    cell = _CELL.substitute(
        purpose=purpose + (helped.replace("$file", _file_of(helper)) if helper else ""),
        version=place.revision,
        repository=place.repository,
        signs=json.dumps(signs, ensure_ascii=False),
        places=json.dumps([*here, folder], ensure_ascii=False),
    )
    return f"{cell}\nimport {helper}" if helper else cell


def _file_of(module: str) -> str:
    return f"{module.replace('.', '/')}.py"


def differences(book: Book) -> list[str]:
    """What the chapters lack to be opened in Colab, one line each."""
    return [
        f"{chapter.relative_to(book.root)}: {problem}"
        for chapter, document, cells in _adapted(book)
        for problem in _problems(document["cells"], cells)
    ]


def write(book: Book) -> list[Path]:
    """Put link and set-up cell into each chapter; the chapters that changed. Nothing else in them does."""
    changed = []
    for chapter, document, cells in _adapted(book):
        if cells != document["cells"]:
            before = chapter.read_text(encoding="utf-8")
            write_text(chapter.resolve(), _dump({**document, "cells": cells}, before))
            changed.append(chapter)
    return changed


def _adapted(book: Book) -> Iterator[tuple[Path, dict[str, Any], list[dict[str, Any]]]]:
    """Each chapter with its JSON and the cells it should have."""
    place, helper = read_place(book.root), book.colab_helper
    if helper and not (book.root / _file_of(helper)).is_file():
        raise HarnessError(f"{book.root / CONFIG_NAME}: colab: {_file_of(helper)} does not exist")
    for chapter in book.chapters:
        document = read_document(chapter)
        link = badge(place, chapter.relative_to(book.root).as_posix())
        up = Path(os.path.relpath(book.root, chapter.parent)).as_posix()
        setup = setup_cell(place, up, helper)
        ids = (document["nbformat"], document["nbformat_minor"]) >= (4, 5)
        cells = _placed(document["cells"], COLAB_TAG, "markdown", link, ids)
        yield chapter, document, _placed(cells, SETUP_TAG, "code", setup, ids)


def _placed(
    cells: Sequence[dict[str, Any]], tag: str, kind: str, source: str, ids: bool
) -> list[dict[str, Any]]:
    """*cells* with one cell of this tag: the link before all others, the set-up cell as the first with code."""
    before = (i for i, cell in enumerate(cells) if tag == COLAB_TAG or cell["cell_type"] == kind)
    first = next(before, len(cells))
    index = sum(not _has(cell, tag) for cell in cells[:first])
    rest = [cell for cell in cells if not _has(cell, tag)]
    made = next((cell for cell in cells if _has(cell, tag) and cell["cell_type"] == kind), None)
    if made is None:
        taken = {cell.get("id") for cell in rest}
        name = next(n for n in (tag, f"{tag}-cell", f"{tag}-of-harness") if n not in taken)
        made = {"cell_type": kind, **({"id": name} if ids else {}), "metadata": {"tags": [tag]}}
        made |= {"execution_count": None, "outputs": []} if kind == "code" else {}
    if text_of(made) != source:
        made = {**made, "source": source.splitlines(keepends=True)}
    return [*rest[:index], made, *rest[index:]]


def _has(cell: Mapping[str, Any], tag: str) -> bool:
    return tag in (cell["metadata"].get("tags") or ())


def _problems(now: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for tag, name, place in (
        (COLAB_TAG, "link to Colab", "above all other cells"),
        (SETUP_TAG, "set-up cell", "before all other code"),
    ):
        found, rank = [cell for cell in now if _has(cell, tag)], partial(_rank, tag=tag)
        if not found:
            yield f"no {name}"
            continue
        (target,) = (cell for cell in wanted if _has(cell, tag))
        pairs = zip_longest(text_of(found[0]).split("\n"), text_of(target).split("\n"), fillvalue="(nothing)")
        different = ((i, old, new) for i, (old, new) in enumerate(pairs, 1) if old != new)
        if line := next(different, None):
            yield f"{name}, line {line[0]}: {line[1]!r}, not {line[2]!r}"
        elif len(found) > 1 or found[0]["cell_type"] != target["cell_type"] or rank(now) != rank(wanted):
            yield f"{name}: there must be one, {place}"


def _rank(cells: Sequence[Mapping[str, Any]], tag: str) -> int:
    """How many of the chapter's own cells stand above the first of this tag."""
    index = next(i for i, cell in enumerate(cells) if _has(cell, tag))
    return sum(not (_has(cell, COLAB_TAG) or _has(cell, SETUP_TAG)) for cell in cells[:index])


def _dump(document: Mapping[str, Any], before: str) -> str:
    """*document* as JSON in the form that the file had."""
    indent = re.match(r"\{\n( +|\t+)", before)
    text = json.dumps(
        document,
        ensure_ascii=before.isascii() and "\\u" in before,
        indent=(indent[1] if "\t" in indent[1] else len(indent[1])) if indent else None,
    )
    return text + "\n" * before.endswith("\n")
