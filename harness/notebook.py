"""Read a notebook's source without jupyter: the parent process stays light and starts at once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError


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
    def title(self) -> str:
        """The first heading of the notebook, or its file name."""
        for cell in self.cells:
            if cell.type == "markdown":
                for line in cell.source.splitlines():
                    if line.startswith("# "):
                        return line[2:].strip()
        return self.path.stem


def read_notebook(path: Path) -> Notebook:
    """Read *path*; raises InvalidNotebook with one clear line if that is not possible."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InvalidNotebook(f"notebook not found: {path}; check the path") from None
    except UnicodeDecodeError as error:
        raise InvalidNotebook(f"{path} is not a notebook: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise InvalidNotebook(f"cannot read {path}: {error.strerror or error}") from None
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidNotebook(
            f"{path} is not a notebook: broken JSON in line {error.lineno} ({error.msg})"
        ) from None
    return _parse(path, document)


def _parse(path: Path, document: Any) -> Notebook:
    if not isinstance(document, dict) or "nbformat" not in document:
        raise InvalidNotebook(f"{path} is not a notebook: it has no nbformat field")
    if document["nbformat"] != 4:
        raise InvalidNotebook(
            f"{path} has notebook format {document['nbformat']}; save it in format 4, as JupyterLab does"
        )
    if not isinstance(document.get("cells"), list):
        raise InvalidNotebook(f"{path} is not a notebook: it has no list of cells")
    metadata = document.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    spec = metadata.get("kernelspec") or {}
    language = (metadata.get("language_info") or {}).get("name") or spec.get("language") or "python"
    return Notebook(
        path=path,
        cells=tuple(_parse_cell(path, i, cell) for i, cell in enumerate(document["cells"])),
        kernel=spec.get("name") or None,
        language=str(language).lower(),
    )


def _parse_cell(path: Path, index: int, cell: Any) -> Cell:
    if not isinstance(cell, dict) or "cell_type" not in cell:
        raise InvalidNotebook(f"{path} is not a valid notebook: cell {index} has no cell_type")
    source = cell.get("source", "")
    tags = (cell.get("metadata") or {}).get("tags") or ()
    return Cell(
        index=index,
        id=str(cell.get("id", index)),
        type=str(cell["cell_type"]),
        source="".join(source) if isinstance(source, list) else str(source),
        tags=tuple(str(tag) for tag in tags),
    )


def is_blank(source: str) -> bool:
    """Nothing but blank lines and comments: there is nothing to run."""
    return all(not line.strip() or line.lstrip().startswith("#") for line in source.splitlines())
