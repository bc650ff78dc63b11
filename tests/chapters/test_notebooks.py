"""Every chapter's source: form, set-up cell, and definitions that stand in `sft/` too."""

from __future__ import annotations

import ast
import json
import re
import statistics
from pathlib import Path

import pytest

from harness.book.colab import differences
from harness.book.config import load_book
from harness.book.lint import lint, lint_glossary

ROOT = Path(__file__).parents[2]
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
TAUGHT = {  # number of the chapter -> what later chapters take from `sft/` because this one taught it
    "03": {
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
        "Encoder",
        "Block",
        "remember",
        "CachedAttention",
        "DecoderLayer",
        "Decoder",
        "Transformer",
        "RMSNorm",
        "SwiGLU",
        "GroupedAttention",
        "ModernLayer",
    },
    "04": {"rotate"},
    "05": {"training_loop", "predict", "length_buckets"},
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


def test_no_name_of_the_glossary_means_two_things():
    assert lint_glossary(ROOT / "chapters" / "glossary.md") == []


def test_links_to_colab_and_setup_cells_are_those_of_the_configuration():
    assert differences(load_book(ROOT)) == []


UNTAUGHT = {
    "prelude",
    "classifiers",
    "scores",
    "finetune",
    "predict",
    "export",
    "serve",
    "model_folder",
    "own_data",
}
"""Machinery, and the commands for one's own data: no chapter teaches what they are made of."""


@each_chapter
def test_definitions_equal_those_in_sft(path: Path):
    library: dict[str, str] = {}
    for module in (ROOT / "sft").glob("*.py"):
        if module.stem not in UNTAUGHT:
            library |= definitions(module.read_text())
    source = "\n".join("".join(c["source"]) for c in code_cells(path) if not is_magic(c))
    for before, after in hunks(path):
        assert source.count(before) == 1, before
        source = source.replace(before, after)
    taught = definitions(source)
    shared = taught.keys() & library.keys()
    different = [name for name in sorted(shared) if taught[name] != library[name]]
    assert different == []


def hunks(path: Path) -> list[tuple[str, str]]:
    """What the page's ```diff fences change in the code above them: lines before and after, a pair for each hunk."""
    found = []
    for text, _ in markdown_cells(path):
        for fence in re.findall(r"^```diff\n(.*?)^```", text, re.M | re.S):
            for hunk in re.split(r"^@@.*\n", fence, flags=re.M):
                rows = hunk.splitlines(keepends=True)
                found.append(
                    tuple("".join(row[1:] for row in rows if row[0] in kept) for kept in (" -", " +"))
                )
    return found


@pytest.mark.parametrize("number", TAUGHT)
def test_a_chapter_teaches_what_later_ones_take_from_the_library(number: str):
    notebooks = [path for path in CHAPTERS if path.name.startswith(f"{number}-")]
    sources = ["".join(c["source"]) for path in notebooks for c in code_cells(path) if not is_magic(c)]
    assert notebooks and TAUGHT[number] - definitions("\n".join(sources)).keys() == set()


def is_magic(cell: dict) -> bool:
    return any(line.lstrip().startswith(("%", "!")) for line in cell["source"])


@each_chapter
def test_cells_are_short_enough_to_read(path: Path):
    sizes = sorted(len(c["source"]) for c in code_cells(path))
    assert sizes[len(sizes) // 2] <= 12
    assert sizes[int(len(sizes) * 0.9)] <= 25


@each_chapter
def test_solutions_are_tagged_and_assert_something(path: Path):
    texts = markdown_cells(path)
    exercises = sum(
        len(re.findall(r"^\*\*\d+\.\*\*", text, re.M)) for text, tags in texts if "quiz" not in tags
    )
    solutions = tagged(path, "solution")
    assert 3 <= len(solutions) == exercises
    assert sum("assert " in s for s in solutions) >= len(solutions) - 1  # one exercise may be open-ended


def markdown_cells(path: Path) -> list[tuple[str, list[str]]]:
    """Text and tags of each Markdown cell."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [
        ("".join(c["source"]), c["metadata"].get("tags", [])) for c in cells if c["cell_type"] == "markdown"
    ]


@each_chapter
def test_the_reader_comes_first(path: Path):
    """Short cells, more words than code, no article and no machinery in the reader's way."""
    prose = "\n".join(text for text, _ in markdown_cells(path))
    code = [
        "".join(cell["source"])
        for cell in code_cells(path)
        if not {"setup", "parameters", "solution"} & set(cell["metadata"].get("tags", []))
    ]
    sizes = sorted(sum(bool(line.strip()) for line in source.splitlines()) for source in code)
    broken = {
        "median of lines a cell": statistics.median(sizes) if statistics.median(sizes) > 6 else None,
        "90th percentile": at if (at := sizes[int(len(sizes) * 0.9)]) > 19 else None,
        "longest cell": sizes[-1] if sizes[-1] > 30 else None,
        "characters of prose a line of code": ratio
        if (ratio := len(re.findall("[\u4e00-\u9fff]", prose)) / sum(sizes)) < 10
        else None,
        "the article is named": prose.count("原文") or None,
        "what the prelude does is done by hand": re.findall(
            r"def say|use_book_style\(|set_verbosity_error", "\n".join(code)
        )
        or None,
        "call-outs 常见误解": n if (n := prose.count("> **常见误解**")) > 6 else None,
    }
    assert {name: value for name, value in broken.items() if value is not None} == {}


@pytest.mark.parametrize("number", sorted({path.name[:2] for path in CHAPTERS}))
def test_a_chapter_ends_with_quizzes_of_five_to_eight_questions(number: str):
    notebooks = [path for path in CHAPTERS if path.name.startswith(number)]
    asked = [sum("quiz" in tags for _, tags in markdown_cells(path)) for path in notebooks]
    assert any(asked) and all(5 <= questions <= 8 for questions in asked if questions)
