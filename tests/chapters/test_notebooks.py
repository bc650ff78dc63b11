"""Every chapter's source: form, set-up cell, and definitions that stand in `sft/` too."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from harness.colab import differences
from harness.config import load_book
from harness.lint import lint

ROOT = Path(__file__).parents[2]
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
TAUGHT = {  # chapter -> what later chapters take from `sft/` because this one taught it
    "03-algorithm": {
        "attention",
        "causal_mask",
        "padding_mask",
        "position_angles",
        "sinusoidal_positions",
        "MultiHeadAttention",
        "TransformerConfig",
        "Embeddings",
        "FeedForward",
        "Residual",
        "EncoderLayer",
        "DecoderLayer",
        "Encoder",
        "Decoder",
        "Transformer",
        "bert_encoder",
        "greedy",
        "beam_search",
    },
    "04-mathematics": {"rotate"},
    "05-1-fine-tuning": {"training_loop", "predict"},
    "05-2-experiments": {"length_buckets"},
}
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)


def code_cells(path: Path) -> list[dict]:
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]


def tagged(path: Path, tag: str) -> list[str]:
    return ["".join(c["source"]) for c in code_cells(path) if tag in c["metadata"].get("tags", [])]


def definitions(source: str) -> dict[str, str]:
    """Name -> dump of every function and class at the top level, without docstrings and annotations."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            for inner in ast.walk(node):
                if isinstance(inner, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(inner) is not None:
                    inner.body = inner.body[1:]
                if isinstance(inner, ast.FunctionDef):
                    inner.returns = None
                if isinstance(inner, ast.arg):
                    inner.annotation = None
            node.decorator_list = []
            found[node.name] = ast.dump(node)
    return found


def test_there_are_chapters():
    assert CHAPTERS


@each_chapter
def test_lint(path: Path):
    assert [str(finding) for finding in lint(path)] == []


def test_links_to_colab_and_setup_cells_are_those_of_the_configuration():
    assert differences(load_book(ROOT)) == []


@each_chapter
def test_definitions_equal_those_in_sft(path: Path):
    library: dict[str, str] = {}
    for module in (ROOT / "sft").glob("*.py"):
        if module.stem != "prelude":  # machinery, which no chapter teaches
            library |= definitions(module.read_text())
    taught = definitions("\n".join("".join(c["source"]) for c in code_cells(path) if not is_magic(c)))
    shared = taught.keys() & library.keys()
    different = [name for name in sorted(shared) if taught[name] != library[name]]
    assert different == []
    assert TAUGHT.get(path.stem, set()) <= shared


def is_magic(cell: dict) -> bool:
    return any(line.lstrip().startswith(("%", "!")) for line in cell["source"])


@each_chapter
def test_cells_are_short_enough_to_read(path: Path):
    sizes = sorted(len(c["source"]) for c in code_cells(path))
    assert sizes[len(sizes) // 2] <= 12
    assert sizes[int(len(sizes) * 0.9)] <= 25


@each_chapter
def test_solutions_are_tagged_and_assert_something(path: Path):
    prose = "\n".join(
        "".join(c["source"])
        for c in json.loads(path.read_text())["cells"]
        if c["cell_type"] == "markdown" and "quiz" not in c["metadata"].get("tags", [])
    )
    exercises = len(re.findall(r"^\*\*\d+\.\*\*", prose, re.M))
    solutions = tagged(path, "solution")
    assert 3 <= len(solutions) == exercises
    assert sum("assert " in s for s in solutions) >= len(solutions) - 1  # one exercise may be open-ended
