"""Does the code of an old tutorial still fit the libraries that are installed? Asked without running it.

Names that are imported are looked up, and the keywords of calls are compared with what the called object takes. That
finds what is gone or renamed; a default that has changed its value is not found.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Stale:
    """One thing that the code asks for and that is not there."""

    line: int
    what: str  # as the code writes it
    close: str = ""  # what is there under a similar name

    def __str__(self) -> str:
        hint = f"，相近的有 {self.close}" if self.close else ""
        return f"第 {self.line} 行：没有 {self.what}{hint}"


def find_stale(code: str) -> tuple[Stale, ...]:
    """What is imported or passed by name in ``code`` and does not exist here, in the order of lines.

    Modules that the code imports are imported; nothing else of it is run. A call is checked where the called object is
    known by an import (``f(…)``, ``module.f(…)``, ``Class.method(…)``) and takes no arbitrary keywords.

    Raises:
        ValueError: the code is no Python.
    """
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        raise ValueError(
            f"line {error.lineno} is no Python ({error.msg}); take out prompts and `!` lines"
        ) from None
    names: dict[str, Any] = {}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found += _bind(node, names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found += _check_call(node, names)
    return tuple(sorted(set(found), key=lambda stale: stale.line))


def _bind(node: ast.Import | ast.ImportFrom, names: dict[str, Any]) -> Iterator[Stale]:
    """Put what the statement imports under the names it gives; yield what is not there."""
    for alias in node.names:
        if isinstance(node, ast.Import):
            wanted, name = alias.name, alias.asname or alias.name.partition(".")[0]
            if _module(wanted) is None:
                yield Stale(node.lineno, f"模块 {wanted}")
            else:
                names[name] = _module(wanted if alias.asname else name)
        elif node.level == 0 and (module := _module(node.module or "")) is None:
            yield Stale(node.lineno, f"模块 {node.module}")
            return
        elif node.level == 0:
            here = getattr(module, alias.name, None) or _module(f"{node.module}.{alias.name}")
            if here is None and alias.name != "*":
                yield Stale(node.lineno, f"{node.module}.{alias.name}", _close(alias.name, dir(module)))
            else:
                names[alias.asname or alias.name] = here


def _check_call(node: ast.Call, names: dict[str, Any]) -> Iterator[Stale]:
    called = _resolve(node.func, names)
    if called is None:
        return
    try:
        parameters = inspect.signature(called).parameters
    except (TypeError, ValueError):  # written in C, or not callable
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for keyword in node.keywords:
        if keyword.arg and keyword.arg not in parameters:
            what = f"参数 {ast.unparse(node.func)}({keyword.arg}=…)"
            yield Stale(keyword.value.lineno, what, _close(keyword.arg, parameters))


def _resolve(node: ast.expr, names: dict[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        return getattr(_resolve(node.value, names), node.attr, None)
    return None


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _close(name: str, there: Any) -> str:
    """Names that contain this one or its last word, or are spelled alike; at most two."""
    public = [other for other in there if not other.startswith("_")]
    tail = name.rpartition("_")[2]
    inside = [other for other in public if name in other or (len(tail) > 3 and other.endswith(tail))]
    alike = difflib.get_close_matches(name, public, n=2, cutoff=0.75)
    return "、".join(dict.fromkeys([*alike, *inside][:2]))
