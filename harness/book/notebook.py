"""Read a notebook's source without jupyter: the parent process stays light and starts at once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError

NATIVE_KERNEL = "python3"
"""The kernel that always is the interpreter which runs the harness."""

ERROR_MARKER = "papermill-error-cell-tag"
PAPERMILL_TAGS = frozenset({"injected-parameters", ERROR_MARKER})
"""Tags of the cells that papermill adds to an executed notebook: they are not in the source."""

PASSED_OVER = frozenset({"_build", ".ipynb_checkpoints"})
"""Folders whose notebooks are nobody's source; Jupyter Book passes over them, too."""

COLAB_TAG = "colab"
"""Of the cell that links a notebook to Colab; the site has a button for that."""


class InvalidNotebook(HarnessError):
    """This file cannot be run as a notebook; the message says why."""


@dataclass(frozen=True)
class Cell:
    """One cell of the source notebook."""

    index: int
    id: str
    type: str  # "code", "markdown" or "raw"
    source: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Notebook:
    """What the harness needs to know of a notebook before running it."""

    path: Path
    cells: tuple[Cell, ...]
    kernel: str | None  # name in the kernelspec, None where the notebook names none
    language: str

    @property
    def code(self) -> tuple[Cell, ...]:
        return tuple(cell for cell in self.cells if cell.type == "code")

    @property
    def written_in(self) -> str:
        """The language of its text: ``zh`` where a cell holds a Chinese character, else ``en``."""
        return "zh" if any(re.search("[\u4e00-\u9fff]", cell.source) for cell in self.cells) else "en"

    @property
    def title(self) -> str:
        """The first heading of the notebook, or its file name."""
        for cell in self.cells:
            if cell.type == "markdown":
                for line in cell.source.splitlines():
                    if line.startswith("# "):
                        return line[2:].strip()
        return self.path.stem


def notebooks_in(path: Path) -> list[Path]:
    """*path* itself, or all notebooks below it in order where it is a folder.

    Raises:
        HarnessError: the folder holds none.
    """
    if not path.is_dir():
        return [path]
    below = (p for p in sorted(path.rglob("*.ipynb")) if p.is_file())
    found = [p for p in below if not PASSED_OVER & {*p.relative_to(path).parts}]
    if not found:
        raise HarnessError(f"{path} holds no notebook (*.ipynb); name another folder, or notebooks")
    return found


def read_notebook(path: Path) -> Notebook:
    """Read *path*; raises InvalidNotebook with one clear line if that is not possible."""
    document = read_document(path)
    metadata, ids = document["metadata"], cell_ids(document["cells"])
    spec = metadata.get("kernelspec") or {}
    language = (metadata.get("language_info") or {}).get("name") or spec.get("language") or "python"
    cells = (
        Cell(
            index=index,
            id=ids[index],
            type=cell["cell_type"],
            source=text_of(cell),
            tags=tuple(tags_of(cell)),
        )
        for index, cell in enumerate(document["cells"])
    )
    return Notebook(path, tuple(cells), spec.get("name") or None, language.lower())


def cell_ids(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """An id of its own for each cell: one without, or with that of an earlier cell, is called by its number.

    nbformat would draw new ones, other ones in every run.
    """
    taken = {cell.get("id") for cell in cells}
    ids: list[str] = []
    for number, cell in enumerate(cells, 1):
        name = cell.get("id")
        if not name or name in ids:
            name = f"cell-{number}"
            while name in taken:
                name += "-"
        ids.append(name)
    return ids


def read_document(path: Path) -> dict[str, Any]:
    """The JSON of *path*, with its types checked, what may be missing filled in, without papermill's error markers.

    Raises:
        InvalidNotebook: it cannot be read or is no notebook of format 4; cells are counted from 1.
    """
    document = _load(path)
    if not isinstance(document, dict) or "nbformat" not in document:
        raise InvalidNotebook(f"{path} is not a notebook: it has no nbformat field")
    version = document["nbformat"]
    if type(version) is not int or version != 4:
        raise InvalidNotebook(
            f"{path} has notebook format {version!r:.40}; save it in format 4, as JupyterLab does"
        )
    if not isinstance(document.get("cells"), list):
        raise InvalidNotebook(f"{path} is not a notebook: it has no list of cells")
    if problem := next(_problems(document), None):
        raise InvalidNotebook(f"{path} is not a valid notebook: {problem}")
    # papermill's own cell in an executed notebook tells where an earlier run failed
    document["cells"] = [c for c in document["cells"] if ERROR_MARKER not in tags_of(c)]
    return document


def _load(path: Path) -> Any:
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # would be read for ever
            raise InvalidNotebook(f"{path} is not a notebook: it is a pipe or a device, not a file")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InvalidNotebook(f"notebook not found: {path}; check the path") from None
    except UnicodeDecodeError as error:
        raise InvalidNotebook(f"{path} is not a notebook: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise InvalidNotebook(f"cannot read {path}: {error.strerror or error}") from None
    if not text.strip():
        raise InvalidNotebook(f"{path} is not a notebook: the file is empty")
    try:
        document = json.loads(text)
        if "\\ud" in text.lower():  # half a surrogate pair is valid JSON but no text
            json.dumps(document, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise InvalidNotebook(
            f"{path} is not a notebook: broken JSON in line {error.lineno} ({error.msg})"
        ) from None
    except RecursionError:
        raise InvalidNotebook(f"{path} is not a notebook: its JSON is nested too deep") from None
    except UnicodeEncodeError:
        raise InvalidNotebook(f"{path} is not a valid notebook: it holds half a surrogate pair") from None
    except ValueError as error:  # a number of thousands of digits
        raise InvalidNotebook(f"{path} is not a notebook: {error}") from None
    return document


def _problems(document: dict[str, Any]) -> Iterator[str]:
    """What is wrong; only the first is to be asked for, as the next takes for granted that it is mended.

    Fields that may be missing are filled in.
    """
    if type(document.setdefault("nbformat_minor", 4)) is not int:
        yield "nbformat_minor must be a whole number"
    metadata = document.setdefault("metadata", {})
    yield from _must_be("an object", "metadata", metadata, isinstance(metadata, dict))
    for field in ("kernelspec", "language_info"):
        entry = metadata.get(field) or {}
        yield from _must_be("an object", f"metadata.{field}", entry, isinstance(entry, dict))
        for key in ("name", "language", "display_name"):
            value = entry.get(key) or ""
            yield from _must_be("text", f"metadata.{field}.{key}", value, isinstance(value, str))
    for number, cell in enumerate(document["cells"], 1):
        yield from (f"cell {number}: {problem}" for problem in _cell_problems(cell))


def _cell_problems(cell: Any) -> Iterator[str]:
    if not isinstance(cell, dict) or not isinstance(cell.get("cell_type"), str):
        yield "it has no cell_type"
    source, metadata = cell.setdefault("source", ""), cell.setdefault("metadata", {})
    lines = isinstance(source, str) or _is_texts(source)
    yield from _must_be("text or a list of lines", "source", source, lines)
    yield from _must_be("an object", "metadata", metadata, isinstance(metadata, dict))
    tags, name = metadata.get("tags") or [], cell.get("id", "")
    yield from _must_be("a list of texts", "tags", tags, _is_texts(tags))
    yield from _must_be("text", "id", name, isinstance(name, str))
    if cell["cell_type"] == "code":
        cell.setdefault("execution_count", None)
        outputs = cell.setdefault("outputs", [])
        yield from _must_be("a list", "outputs", outputs, isinstance(outputs, list))


def _must_be(wanted: str, what: str, value: Any, fits: bool) -> Iterator[str]:
    if not fits:
        yield f"{what} must be {wanted}, not {_kind(value)}"


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "null"}
    if isinstance(value, list) and any(not isinstance(part, str) for part in value):
        return "a list that holds something else"
    return names.get(type(value), "a number")


def text_of(cell: Mapping[str, Any], key: str = "source") -> str:
    """A multi-line field of the notebook format, which may be a list of lines."""
    value = cell.get(key, "")
    return value if isinstance(value, str) else "".join(value)


def tags_of(cell: Mapping[str, Any]) -> Sequence[str]:
    """The tags of a cell; a notebook may hold null where there are none."""
    return cell["metadata"].get("tags") or ()


def is_blank(source: str) -> bool:
    """Nothing but blank lines and comments: there is nothing to run."""
    return all(not line.strip() or line.lstrip().startswith("#") for line in source.splitlines())
