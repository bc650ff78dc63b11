"""The parameters of a notebook, read strictly from the cell tagged ``parameters``.

papermill only warns of an unknown name and guesses at types with a regular expression; here the cell is
read with :mod:`ast`, and anything that is not ``name = literal`` is an error before anything runs.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from harness.book.notebook import Cell, Notebook
from harness.errors import HarnessError
from harness.wording import Text

PARAMETERS_TAG = "parameters"
INJECTED_TAG = "injected-parameters"
"""Of the cell in which an earlier run of papermill set parameters; it stands after the parameters cell."""
SET_BY_HARNESS = ("seed", "device", "profile")
"""Parameters that the harness sets of itself: what a run was asked for tells them elsewhere."""
_NO_LITERAL = (ValueError, TypeError, SyntaxError, MemoryError, RecursionError)  # by ast.literal_eval


class ParameterError(HarnessError):
    """A parameter that cannot be used; the message names it and says what is expected."""


@dataclass(frozen=True)
class Parameter:
    """One parameter: its default and the types it accepts."""

    name: str
    default: Any
    types: tuple[type, ...]  # empty: any literal (default None, no annotation)
    optional: bool  # None is allowed
    element: type | None = None  # of a list or tuple whose annotation says so
    injected: bool = False  # the default is what an earlier run set, not what the author wrote

    @property
    def expected(self) -> str:
        names = [t.__name__ for t in self.types] or ["a literal"]
        if self.element is not None:
            names = [f"{n}[{self.element.__name__}]" for n in names]
        return " or ".join(names + (["None"] if self.optional and self.types else []))


def read_parameters(notebook: Notebook) -> dict[str, Parameter] | None:
    """Parameters of *notebook* by name; None if no cell is tagged ``parameters`` or ``injected-parameters``.

    In the notebook that a run left, what the run set overrides the author's cell, as it does in the kernel.
    """
    own, injected = (
        _only_cell(notebook, [cell for cell in notebook.code if tag in cell.tags], tag)
        for tag in (PARAMETERS_TAG, INJECTED_TAG)
    )
    if own is None and injected is None:
        return None
    if own and injected and injected.index < own.index:
        raise ParameterError(
            f"{notebook.path}: the cell tagged {INJECTED_TAG} stands before the one tagged {PARAMETERS_TAG}, which"
            " overrides it; remove it"
        )
    read = _read_cell if notebook.language == "python" else _read_other_cell
    found = read(f"{notebook.path}, cell tagged {PARAMETERS_TAG}", own.source) if own else {}
    if injected:
        for name, then in read(f"{notebook.path}, cell tagged {INJECTED_TAG}", injected.source).items():
            found[name] = replace(found.get(name, then), default=then.default, injected=True)
    return found


def _only_cell(notebook: Notebook, cells: Sequence[Cell], tag: str) -> Cell | None:
    if len(cells) > 1:
        raise ParameterError(f"{notebook.path}: {len(cells)} cells are tagged {tag}; only one may be")
    return cells[0] if cells else None


def _read_cell(where: str, source: str) -> dict[str, Parameter]:
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ParameterError(f"{where}, line {error.lineno}: not plain Python ({error.msg})") from None
    found: dict[str, Parameter] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # a docstring
        parameter = _read_statement(where, statement)
        if parameter.name in found:
            raise ParameterError(f"{where}, line {statement.lineno}: {parameter.name} is set twice")
        found[parameter.name] = parameter
    return found


_COMMENT = re.compile(r"(?:^|\s)(?:#|//|%|--).*$", re.M)
_ASSIGNMENT = re.compile(  # n=3, n <- 3L, $n = 3, val n: Int = 3; let n = 3, string n = "a";
    r"(?:^|[;\s$])(?P<name>[^\W\d]\w*)\s*(?::\s*[\w.\[\]<>]+\s*)?(?:<-|:=|=(?!=))\s*"
    r"(?P<value>\"[^\"\n]*\"|'[^'\n]*'|[^;\n]*)",
    re.M,
)
_WORDS: Mapping[str, bool] = {"true": True, "false": False}


def _read_other_cell(where: str, source: str) -> dict[str, Parameter]:
    """The parameters of a cell in another language: names, and types where a value reads the same in Python."""
    found: dict[str, Parameter] = {}
    for match in _ASSIGNMENT.finditer(_COMMENT.sub("", source)):
        text = match["value"].strip()
        try:
            value: Any = ast.literal_eval(re.sub(r"(?<=\d)[lLfFdD]$", "", text))
        except _NO_LITERAL:
            value = _WORDS.get(text.lower().lstrip("$"), text)
        types: tuple[type, ...] = ()
        if isinstance(value, bool) or text[:1] in ("'", '"'):
            types = (type(value),)
        elif isinstance(value, int | float):
            types = (int, float)  # few languages tell 3 from 3.0
        found[match["name"]] = Parameter(match["name"], value, types, optional=False)
    return found


def has_translator(notebook: Notebook) -> bool:
    """Whether papermill can set parameters in the language of *notebook*."""
    if notebook.language == "python":
        return True
    from papermill.exceptions import PapermillException
    from papermill.translators import papermill_translators

    for language in (notebook.language, notebook.language.upper()):  # only that of R is in capitals
        try:
            return bool(papermill_translators.find_translator(notebook.kernel, language))
        except PapermillException:
            continue
    return False


_TYPES: Mapping[str, type] = {t.__name__: t for t in (int, float, str, bool, list, tuple, dict, set)}


def _read_statement(where: str, statement: ast.stmt) -> Parameter:
    place, annotation = f"{where}, line {statement.lineno}", None
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            pass
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value, annotation=annotation):
            pass
        case _:
            text = ast.unparse(statement).splitlines()[0]
            raise ParameterError(f"{place}: `{text}` is not of the form name = literal")
    try:
        default = ast.literal_eval(value)
    except _NO_LITERAL:
        raise ParameterError(
            f"{place}: the value of {name} must be a plain literal, not `{ast.unparse(value)}`"
        ) from None
    types, optional, element = _read_annotation(annotation)
    types = types or (() if default is None else (type(default),))
    parameter = Parameter(name, default, types, optional or default is None, element)
    if annotation is not None:
        try:
            check_value(parameter, default)
        except ParameterError as error:
            raise ParameterError(f"{place}: its default does not fit its annotation: {error}") from None
    return parameter


def _read_annotation(node: ast.expr | None) -> tuple[tuple[type, ...], bool, type | None]:
    """Accepted types, whether None is, and the element type; unknown annotations accept anything."""
    match node:
        case ast.Constant(value=None):
            return (), True, None
        case ast.Constant(value=str(text)):
            with suppress(SyntaxError):
                return _read_annotation(ast.parse(text, mode="eval").body)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            a, b = _read_annotation(left), _read_annotation(right)
            return a[0] + b[0], a[1] or b[1], a[2] or b[2]
        case ast.Name(id=name) | ast.Attribute(attr=name):
            found = _TYPES.get(name) or _TYPES.get(name.lower())
            return ((found,) if found else ()), False, None
        case ast.Subscript(value=ast.Name(id="Optional") | ast.Attribute(attr="Optional"), slice=inner):
            types, _, element = _read_annotation(inner)
            return types, True, element
        case ast.Subscript(value=ast.Name(id="Literal") | ast.Attribute(attr="Literal"), slice=inner):
            values = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            kinds = {type(value.value) for value in values if isinstance(value, ast.Constant)}
            return tuple(kinds - {type(None)}), type(None) in kinds, None
        case ast.Subscript(value=outer, slice=ast.Tuple(elts=[inner, *_]) | inner):
            types, _, _ = _read_annotation(outer)
            element = _TYPES.get(inner.id) if isinstance(inner, ast.Name) else None
            return types, False, element if types and types[0] in (list, tuple) else None
    return (), False, None


def check_value(parameter: Parameter, value: Any) -> Any:
    """*value* in the type the notebook expects, or ParameterError."""
    if value is None:
        if parameter.optional:
            return None
        raise ParameterError(f"parameter {parameter.name} must be {parameter.expected}, not None")
    _check_plain(parameter.name, value)
    if not parameter.types:
        return value
    for accepted in parameter.types:
        fitted = _fit(accepted, parameter.element, value)
        if fitted is not None:
            return fitted
    found = f"{type(value).__name__} ({_short(value)})"
    raise ParameterError(f"parameter {parameter.name} must be {parameter.expected}, not {found}")


def _fit(accepted: type, element: type | None, value: Any) -> Any:
    """*value* as *accepted*, None if it does not fit. An int fits a float; a bool fits only a bool."""
    if accepted is float and type(value) is int:
        return float(value)
    if accepted is tuple and type(value) is list:
        value = tuple(value)
    if type(value) is not accepted:
        return None
    if element is not None and isinstance(value, list | tuple):
        fitted = [_fit(element, None, v) for v in value]
        return None if any(v is None for v in fitted) else accepted(fitted)
    return value


def _check_plain(name: str, value: Any) -> None:
    """Only what a notebook and a JSON file can hold."""
    if isinstance(value, str) and value != value.encode(errors="replace").decode():
        raise ParameterError(f"parameter {name} must be UTF-8 text, not {_short(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ParameterError(f"parameter {name} must be finite, not {value}")
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        for item in value:
            _check_plain(name, item)
    elif not isinstance(value, str | int | float | None):
        raise ParameterError(
            f"parameter {name} must be text, numbers, None, lists or dicts of them, "
            f"not {type(value).__name__} ({_short(value)})"
        )


def same_value(a: Any, b: Any) -> bool:
    """Whether two values of a parameter are one, as a run folder's JSON holds them."""
    return json.dumps(a, sort_keys=True, default=str) == json.dumps(b, sort_keys=True, default=str)


def parse_value(parameter: Parameter, text: str) -> Any:
    """The value that ``--param NAME=text`` means for this parameter; strings may be bare."""
    try:
        value = ast.literal_eval(text.strip())
    except _NO_LITERAL:
        value = text
    if str in parameter.types and not isinstance(value, str):
        try:
            return check_value(parameter, value)  # e.g. None, or 3 for an int | str
        except ParameterError:
            value = text
    return check_value(parameter, value)


def split_option(option: str) -> tuple[str, str]:
    """``NAME=VALUE`` in two; raises for anything else."""
    name, equals, text = option.partition("=")
    if not equals or not name.strip().isidentifier():
        raise ParameterError(f"--param {option!r} is not of the form NAME=VALUE")
    return name.strip(), text


def resolve(
    notebook: Notebook,
    declared: Mapping[str, Parameter] | None,
    values: Mapping[str, Any],
    texts: Mapping[str, str],
) -> dict[str, Any]:
    """Checked values to inject: *values* (from harness.yml, seed …) overridden by *texts* (--param)."""
    wanted = {**dict.fromkeys(values), **dict.fromkeys(texts)}
    if not wanted:
        return {}
    if declared is None:
        raise ParameterError(
            f"{notebook.path} has no cell tagged parameters, so {', '.join(wanted)} cannot be set; "
            "tag one, or leave it out"
        )
    for name in wanted:
        if name not in declared:
            known = ", ".join(declared) or "none"
            raise ParameterError(f"{notebook.path} has no parameter {name!r}; its parameters: {known}")
    try:
        resolved = {name: check_value(declared[name], value) for name, value in values.items()}
        return resolved | {name: parse_value(declared[name], text) for name, text in texts.items()}
    except ParameterError as error:
        raise ParameterError(f"{notebook.path}: {error}") from None


INJECTED_COMMENT = Text("Parameters set by harness", "由 harness 设置的参数")
"""First line of the injected cell, as a comment."""


def render(values: Mapping[str, Any], comment: str = INJECTED_COMMENT.en) -> str:
    """Source of the injected cell: plain ``repr``, so Chinese text stays readable."""
    return "\n".join([f"# {comment}", *(f"{name} = {value!r}" for name, value in values.items())])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
