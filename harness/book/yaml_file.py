"""YAML files that people write: read strictly, and every mistake named with file and line."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml

from harness.errors import HarnessError


def read_yaml(path: Path) -> Any:
    """The content of a YAML file in Python's plain types."""
    return _plain(_load(path))


def read_node(path: Path, text: str | None = None) -> Node:
    """The mapping that a YAML file holds, with its lines; *text* is its content where it is known already."""
    return Node(path, _load(path, text), 1, "the file", top=True)


class Node:
    """One mapping of a YAML file and its place there; each getter checks what stands under its key."""

    def __init__(self, path: Path, tree: Any, line: int, what: str, *, top: bool = False) -> None:
        self.path, self.tree, self.what, self._start = path, tree, what, line
        self._prefix = "" if top else f"{what}: "
        if not isinstance(tree, Mapping):
            self.fail(None, f"{what} must hold `key: value` lines, not {describe(tree)}")

    def __contains__(self, key: str) -> bool:
        return key in self.tree

    def names(self) -> list[str]:
        """The keys, which must all be strings."""
        for key in self.tree:
            if not isinstance(key, str):
                self.fail(key, f"key {key!r} must be text; put it in quotes")
        return list(self.tree)

    def line(self, key: Any) -> int:
        """Line of *key*, from 1; that of the node where the key is absent."""
        return int(self.tree.lines.get(key, self._start)) if isinstance(self.tree, _Map) else self._start

    def fail(self, key: Any, message: str) -> NoReturn:
        """Raise HarnessError at *key*."""
        raise HarnessError(f"{self.path}:{self.line(key)}: {message}")

    def refuse(self, key: str, wanted: str) -> NoReturn:
        """Raise HarnessError: what stands under *key* is not what is *wanted*."""
        self.fail(key, f"{self._prefix}{key} must be {wanted}, not {describe(self.tree.get(key))}")

    def need(self, required: Collection[str]) -> None:
        """Every key of *required* is there."""
        for key in required:
            if key not in self.tree:
                self.fail(None, f"{self.what} lacks {key!r}; add it")

    def keys(self, required: Collection[str] = (), optional: Collection[str] = ()) -> None:
        """Exactly these keys: all of *required*, none but these."""
        known = (*required, *optional)
        for key in self.names():
            if key not in known:
                self.fail(key, f"unknown key {key!r} in {self.what} (known keys: {', '.join(known)})")
        self.need(required)

    def only(self, key: str, values: Collection[str], known: Collection[str]) -> None:
        """Every one of *values*, which stand under *key*, is *known*."""
        for value in values:
            if value not in known:
                there = ", ".join(sorted(known))
                self.fail(key, f"{self._prefix}{key}: there is no {value!r}; there are {there}")

    def child(self, key: str) -> Node:
        """The mapping under *key*."""
        return Node(self.path, self.tree[key], self.line(key), key)

    def items(self, key: str, *, may_be_empty: bool = False) -> list[Node]:
        """The mappings in the list under *key*, called by their name or number."""
        value = self.tree[key]
        if not isinstance(value, list) or (not value and not may_be_empty):
            self.refuse(key, "a list of `- key: value` entries")
        found = []
        for number, (entry, line) in enumerate(lined(value), 1):
            name = entry.get("name") or entry.get("metric") if isinstance(entry, Mapping) else None
            found.append(Node(self.path, entry, line, f"{key} {number}" + (f" ({name})" if name else "")))
        return found

    def values(self, key: str) -> tuple[Any, ...]:
        """The plain values in the list under *key*."""
        value = self.tree[key]
        if not isinstance(value, list) or not value:
            self.refuse(key, "a list of values such as [a, b]")
        return tuple(map(_plain, value))

    def texts(self, key: str) -> tuple[str, ...]:
        """The strings in the list under *key*."""
        value = self.tree[key]
        if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
            self.refuse(key, "a list of names")
        return tuple(value)

    def mapping(self, key: str) -> dict[str, Any]:
        """Plain values by name; none where *key* is absent."""
        return {} if self.tree.get(key) is None else {n: _plain(v) for n, v in self._named(key).items()}

    def children(self, key: str) -> dict[str, Node]:
        """Mappings by name; none where *key* is absent."""
        if self.tree.get(key) is None:
            return {}
        lines = self.child(key)
        return {
            name: Node(self.path, value, lines.line(name), f"{self._prefix}{key} of {name}")
            for name, value in self._named(key).items()
        }

    def _named(self, key: str) -> Mapping[str, Any]:
        value = self.tree[key]
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            self.refuse(key, "`name: value` lines")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """The string under *key*, which is empty only where *default* is."""
        value = self.tree.get(key, default)
        if not isinstance(value, str):
            self.fail(key, f"{self._prefix}{key} must be text, not {describe(value)}; put it in quotes")
        if not value.strip() and value != default:
            self.fail(key, f"{self._prefix}{key} is empty; fill it in")
        return value

    def number(self, key: str) -> float:
        """The finite number under *key*."""
        value = self.tree[key]
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.refuse(key, "a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            self.fail(key, f"{self._prefix}{key} is {number}; give a finite number")
        return number


def lined(values: list[Any]) -> Iterator[tuple[Any, int]]:
    """The entries of a list that :func:`read_node` read, each with its line."""
    return zip(values, values.lines, strict=True)  # type: ignore[attr-defined]


def describe(value: Any) -> str:
    """*value* for a message: how a person would have written it."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value!s}" if isinstance(value, int | float) else repr(str(value))


def _load(path: Path, text: str | None = None) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8") if text is None else text, Loader=_StrictLoader)
    except OSError as error:
        raise HarnessError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise HarnessError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        line = mark.line + 1 if mark else 1
        raise HarnessError(f"{path}:{line}: not valid YAML: {problem}; mend it there") from None
    except (ValueError, RecursionError) as error:  # a date that does not exist, brackets by the thousand
        raise HarnessError(f"{path}: not valid YAML: {error}") from None


class _Map(dict[Any, Any]):
    """A mapping with the line of each key."""

    lines: Mapping[Any, int]


class _List(list[Any]):
    """A list with the line of each entry."""

    lines: list[int]


class _StrictLoader(yaml.SafeLoader):  # not the C one: brackets by the thousand overflow its stack
    """YAML's plain types; a key that stands twice in one mapping is an error, not overwritten."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} stands here twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def lined_map(self, node: yaml.MappingNode) -> Iterator[_Map]:
        made = _Map()
        yield made
        made.update(self.construct_mapping(node))
        made.lines = {self.construct_object(key): key.start_mark.line + 1 for key, _ in node.value}

    def lined_list(self, node: yaml.SequenceNode) -> Iterator[_List]:
        made = _List()
        yield made
        made.extend(self.construct_sequence(node))
        made.lines = [entry.start_mark.line + 1 for entry in node.value]


_StrictLoader.add_constructor("tag:yaml.org,2002:map", _StrictLoader.lined_map)
_StrictLoader.add_constructor("tag:yaml.org,2002:seq", _StrictLoader.lined_list)
_StrictLoader.add_implicit_resolver(  # as of YAML 1.2: 1e-4 is a number, too
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _plain(value: Any) -> Any:
    """*value* without lines."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value
