"""What `pip install .` brings: the harness alone, without what this book or a part of the harness needs besides."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, DATA = SETTINGS["project"], SETTINGS["tool"]["setuptools"]["package-data"]
EXTRAS = PROJECT["optional-dependencies"]
PARTS = {"site": ("site", "copies"), "execute/ray": ("ray",), "cli/pytest": ("test",)}
"""Beginnings of paths in harness/, and the extras that what is there may import."""
OPTIONAL = {"cli/reach.py": {"huggingface-hub"}}
"""What is asked for where it is installed, and not missed where it is not."""


def canonical(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", Requirement(requirement).name).lower()


@cache
def brought() -> frozenset[str]:
    """The distributions that come with the harness alone."""
    found: set[str] = set()
    waiting = [canonical(name) for name in PROJECT["dependencies"]]
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            needed = map(Requirement, metadata.requires(name) or ())
            waiting += [canonical(str(r)) for r in needed if not r.marker or r.marker.evaluate({"extra": ""})]
    return frozenset(found)


@cache
def providers() -> dict[str, set[str]]:
    """By the name that is imported: the distributions that it may come from."""
    return {
        module: {canonical(one) for one in distributions}
        for module, distributions in metadata.packages_distributions().items()
    }


def imports(file: Path) -> Iterator[str]:
    """The packages that a file imports, at its top or later."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_what_the_harness_imports_is_what_it_or_its_extra_names():
    for file in (ROOT / "harness").rglob("*.py"):
        place = file.relative_to(ROOT / "harness").as_posix()
        extras = [extra for part, names in PARTS.items() if place.startswith(part) for extra in names]
        named = {canonical(d) for d in (*PROJECT["dependencies"], *(d for e in extras for d in EXTRAS[e]))}
        for module in set(imports(file)) - set(sys.stdlib_module_names) - {"harness"}:
            allowed = named | OPTIONAL.get(place, set())
            assert providers().get(module, set()) & allowed, f"{place} imports {module}"


def test_what_only_this_book_or_the_site_needs_does_not_come_along():
    assert not brought() & {
        canonical(d) for extra in ("book", "site", "copies", "ray") for d in EXTRAS[extra]
    }
    assert {"torch", "transformers", "datasets", "evaluate", "jupyter-book", "papermill"} <= brought() | {
        canonical(d) for extra in ("book", "site") for d in EXTRAS[extra]
    }


ALONE = """
import importlib, pkgutil, sys
from importlib.abc import MetaPathFinder
import harness

class Nothing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Nothing())
for module in pkgutil.walk_packages(harness.__path__, "harness."):
    if not module.name.startswith(("harness.__main__", "harness.cli.pytest")):
        importlib.import_module(module.name)
from harness.cli.app import main
sys.exit(main(["--help"]))
"""


def test_every_module_is_imported_where_nothing_else_is_installed():
    """Those of the site, of Ray and of copies, too: what they need is missed once it is used."""
    blocked = {module for module, names in providers().items() if not names & brought()} - {"harness", "sft"}
    assert {"torch", "transformers", "jupyter_book", "sphinx", "ray", "pandas", "pytest"} <= blocked
    code = ALONE.format(blocked=blocked)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Usage: harness" in done.stdout


def test_the_files_that_the_harness_reads_come_along():
    """In a checkout they are there in any case; a template that only lies there is missed by every other book."""
    patterns = DATA["harness"]
    for file in (ROOT / "harness").rglob("*"):
        if file.is_file() and file.suffix not in (".py", ".pyc"):
            place = file.relative_to(ROOT / "harness")
            assert any(place.match(pattern) for pattern in patterns), f"{place} is not under package-data"
