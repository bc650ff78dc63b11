"""What a fork server imports for a run, and which notebooks a forked kernel would not serve truthfully."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from harness.cache import imported_files, parse, without_magics
from harness.notebook import NATIVE_KERNEL, Notebook

_ENVIRONMENT = re.compile(r"\benviron\b|\bputenv\b|^\s*%(env|set_env)\b", re.M)


def modules_to_import(
    notebooks: Iterable[Notebook], root: Path | None, packages: Sequence[str], heavy: Collection[str]
) -> list[str]:
    """``module`` and ``module:attribute`` for what the notebooks and the local files they reach import at once.

    Args:
        root: of the book, None outside one.
        packages: the book's own.
        heavy: top-level names of those that count.
    """
    found: set[str] = set()
    for source in {source for notebook in notebooks for source in _sources(notebook, root, packages)}:
        if (tree := parse(source)) is not None:
            found.update(name for name in _imports(tree) if re.split("[.:]", name)[0] in heavy)
    return sorted(found, key=lambda name: (":" in name, name))


def _sources(notebook: Notebook, root: Path | None, packages: Sequence[str]) -> Iterable[str]:
    for cell in notebook.code:
        yield without_magics(cell.source)
    for path in sorted(imported_files(notebook, root or notebook.path.parent, packages if root else ())):
        if path.suffix == ".py":
            yield path.read_text(encoding="utf-8", errors="replace")


def _imports(node: ast.AST) -> Iterable[str]:
    """What running *node* imports: not what a function imports when it is called, nor what only types need."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module
        yield from (f"{node.module}:{alias.name}" for alias in node.names if alias.name != "*")
    elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.expr):
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in node.orelse if typing_only else ast.iter_child_nodes(node):
            yield from _imports(child)


def reason_for_cold(
    notebook: Notebook, loaded: Collection[str], root: Path | None, packages: Sequence[str]
) -> str:
    """Why this notebook needs a fresh kernel; empty if a forked one gives the same result.

    Args:
        loaded: top-level modules that the server has imported.
    """
    if notebook.language != "python" or (notebook.kernel or NATIVE_KERNEL) != NATIVE_KERNEL:
        return f"it asks for the kernel {notebook.kernel!r}"
    for source in (*(cell.source for cell in notebook.code), *_sources(notebook, root, packages)):
        if _ENVIRONMENT.search(source):
            return "it deals with environment variables, which a library may read at its import"
    for path in notebook.path.parent.iterdir():
        if path.stem in loaded and (path.suffix == ".py" or (path / "__init__.py").is_file()):
            return f"{path.name} lies beside it and would be imported in place of the package"
    return ""
