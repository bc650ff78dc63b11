"""Small notebooks and small books for the tests of the harness."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat

RECORD = "from harness.record import record"


def write_notebook(
    path: Path,
    *sources: str,
    parameters: str | None = None,
    tags: Mapping[int, Sequence[str]] | None = None,
    kernel: str | None = "python3",
) -> Path:
    """A notebook of code cells; *parameters* becomes a first cell with that tag, *tags* go by position."""
    notebook = nbformat.v4.new_notebook()
    if kernel is not None:
        notebook.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
    for i, source in enumerate(sources):
        cell = nbformat.v4.new_code_cell(source)
        cell.metadata["tags"] = list((tags or {}).get(i, ()))
        notebook.cells.append(cell)
    if parameters is not None:
        cell = nbformat.v4.new_code_cell(parameters)
        cell.metadata["tags"] = ["parameters"]
        notebook.cells.insert(0, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def write_book(root: Path, chapters: Mapping[str, Path | Sequence[str]], **config: object) -> Path:
    """A book with a harness.yml and one notebook per chapter (given as its code cells)."""
    (root / "chapters").mkdir(parents=True, exist_ok=True)
    for name, cells in chapters.items():
        if not isinstance(cells, Path):
            write_notebook(root / "chapters" / f"{name}.ipynb", *cells)
    settings = {
        "book": "小书",
        "chapters": "chapters",
        "claims": "chapters/claims",
        "packages": ["lib"],
        "speed": "off",  # limits are meant as they stand, however busy the machine is
        "profiles": {
            "smoke": {"cell_timeout": 30, "notebook_timeout": 60},
            "offline": {"cell_timeout": 30, "notebook_timeout": 60, "default": True},
        },
        **config,
    }
    (root / "harness.yml").write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
    return root


def outputs_of(path: Path) -> list[str]:
    """All text that the code cells of a notebook put out, cell by cell."""
    texts = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            parts = [o.get("text", "") or "\n".join(o.get("traceback", ())) for o in cell.outputs]
            parts += [str(o.data.get("text/plain", "")) for o in cell.outputs if "data" in o]
            texts.append("".join(parts))
    return texts
