"""The image files of `docker/`: they install what the Makefile installs, from pinned names, and copy what exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from tools import run_tool

from sft.setup import DATA

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)


def instructions(path: Path) -> list[tuple[str, str]]:
    """Keyword and rest of each instruction, continued lines joined."""
    text = re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.M).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


def test_there_are_the_two():
    assert [path.name for path in FILES] == ["cpu.Dockerfile", "cuda.Dockerfile"]


@each_file
def test_hadolint_finds_nothing(path: Path):
    run_tool("hadolint", "--failure-threshold", "warning", str(path))


@each_file
def test_the_base_can_be_given_by_digest_and_is_never_the_latest(path: Path):
    found = instructions(path)
    (base,) = (rest for word, rest in found if word == "FROM")
    assert base == "${PYTHON_IMAGE}"
    default = next(rest for word, rest in found if word == "ARG" and rest.startswith("PYTHON_IMAGE"))
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.11-slim-\w+", default)


@each_file
def test_it_installs_what_the_makefile_installs(path: Path):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "--constraint constraints.txt" in makefile and f"$(PIP) --no-deps {' '.join(DATA)}\n" in makefile
    commands = [rest for word, rest in instructions(path) if word == "RUN" and "pip install" in rest]
    installs = [shlex.split(c) for c in " ".join(commands).split("&&") if "pip install" in c]
    assert installs[0][-1] == (
        ".[book,site,qlora]" if path.stem == "cuda" else ".[book,site]"
    )  # a card holds four bits
    assert tuple(installs[1][installs[1].index("--no-deps") + 1 :]) == DATA
    for words in installs:
        assert words[words.index("--constraint") + 1] == "constraints.txt"
        assert {"--no-cache-dir", "--no-compile"} <= set(words)
    assert "--no-deps" in installs[1] and "--no-deps" not in installs[0]


@each_file
def test_it_copies_what_exists_and_leaves_no_lists_of_packages(path: Path):
    for word, rest in instructions(path):
        assert word in {"ARG", "FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "CMD"}
        if word == "COPY":
            *sources, _ = [part for part in rest.split() if not part.startswith("--")]
            assert all((ROOT / source).exists() for source in sources)
        if "apt-get install" in rest:
            assert "--no-install-recommends" in rest and "rm -rf /var/lib/apt/lists/*" in rest


def test_the_book_is_not_run_by_root():
    words = [(word, rest) for word, rest in instructions(ROOT / "docker" / "cpu.Dockerfile")]
    assert words.index(("USER", "reader")) < [word for word, _ in words].index("CMD")


def test_git_in_a_job_of_the_gpu_image_trusts_the_checkout():
    assert "safe.directory" in (ROOT / "docker" / "cuda.Dockerfile").read_text(encoding="utf-8")


def test_no_image_takes_along_what_is_generated():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    generated = [line.strip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()]
    assert {"_build", ".venv", ".git"} <= set(ignored)
    assert {"_build", ".venv"} <= set(generated)


def test_what_pages_link_to_comes_into_the_image():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    pages = [page for page in (ROOT / "chapters").rglob("*") if page.suffix in {".md", ".ipynb"}]
    links = {
        (page.parent / link).resolve().relative_to(ROOT)
        for page in pages
        for link in re.findall(r"\]\((\.\./[^)#]+)", page.read_text(encoding="utf-8"))
    }
    assert Path("benchmarks/verdicts.py") in links
    assert [link for link in links if link.parts[0] in ignored] == []
