"""Read what a chapter claims to measure: ``chapters/claims/<chapter>.yml``.

.. code-block:: yaml

    chapter: 05-fine-tuning            # the name of the file without .yml
    parameters: [source]               # what is claimed is claimed for the book's own value of these
    claims:
      - name: scratch_test_accuracy    # the name given to harness.record.record
        title: 从零训练的编码器：测试集准确率
        parameters: {source: [packaged, hub]}  # of this claim, instead of the file's: for these values
        unit: fraction                 # as recorded; "" or absent for a plain number
        direction: higher              # which way is better: higher, lower or none
        margin: 0.02                   # differences up to this do not matter to a reader
        smoke: {bounds: {low: 0.3, high: 1.0}}
        offline:
          blessed:                     # written by `harness bless`, never by hand
            - {value: 0.8123, seed: 0, commit: abc1234, date: 2026-11-24, hardware: cpu-x86_64, versions: {…}}
        full:
          published: {value: 0.947, citation: "…", split: test, protocol: "mean of 10 seeds, lr 2e-5"}

Every other key of a claim is the name of a profile and holds one or more of ``blessed``, ``published`` and
``bounds``; each of them is judged by its own rule (see :mod:`harness.judge.rules`). A profile without an entry has
no reference: the metric must then be recorded, and no more is said about it.

``parameters`` names what decides *what* is measured: the data, the model. Under another value of one of them the
claim is not applicable. A list names parameters that must have the value they have in the book under the run's
profile; a mapping gives the values. A parameter that is not named may have any value: the claim is judged.

Reading is strict: an unknown key, a wrong type, a duplicate or a number that is not finite is an error that
names file and line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from harness.book.notebook import read_notebook
from harness.book.parameters import Parameter, ParameterError, check_value, read_parameters
from harness.errors import HarnessError
from harness.model import Bounds, ChapterClaims, Claim, Published, ReferenceRun

if TYPE_CHECKING:
    from harness.book.config import Book

SUFFIX = ".yml"
DIRECTIONS = ("higher", "lower", "none")
_FIELDS = ("name", "title", "unit", "direction", "margin", "parameters")
_REFERENCES = ("blessed", "published", "bounds")
_PROFILE = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def claim_path(claims_dir: Path, chapter: str) -> Path:
    """Where the claims of *chapter* stand."""
    return claims_dir / f"{chapter}{SUFFIX}"


def load_claims(
    claims_dir: Path, chapter: str, profiles: Collection[str] | None = None, notebook: Path | None = None
) -> ChapterClaims | None:
    """Claims of one chapter; None where it has no claim file.

    Args:
        claims_dir: folder of the claim files.
        chapter: stem of the chapter's notebook.
        profiles: names that may stand in the file; None lets any name pass.
        notebook: the chapter, whose parameters the file may name; None lets any name pass.

    Raises:
        HarnessError: the file cannot be read or breaks the format described above.
    """
    path = claim_path(claims_dir, chapter)
    if not path.exists():
        return None
    return parse_claims(read_claim_yaml(path), path, profiles, notebook)


def book_claims(book: Book) -> dict[str, ChapterClaims]:
    """Claims of all chapters of *book* that have any, by chapter."""
    notebooks = {path.stem: path for path in book.chapters}
    return load_all_claims(book.claims_dir, tuple(notebooks), tuple(book.profiles), notebooks)


def load_all_claims(
    claims_dir: Path,
    chapters: Sequence[str],
    profiles: Collection[str] | None = None,
    notebooks: Mapping[str, Path] = MappingProxyType({}),
) -> dict[str, ChapterClaims]:
    """Claims of all *chapters* that have any, by chapter; a claim file of no chapter is an error."""
    for path in sorted(claims_dir.glob("*")) if claims_dir.is_dir() else ():
        if path.suffix == ".yaml":
            raise HarnessError(f"{path}: claim files end in {SUFFIX}; rename it to {path.stem}{SUFFIX}")
        if path.suffix == SUFFIX and path.stem not in chapters:
            known = ", ".join(chapters) or "none"
            raise HarnessError(
                f"{path}: no chapter is called {path.stem!r} (chapters: {known}); rename or remove it"
            )
    loaded = {c: load_claims(claims_dir, c, profiles, notebooks.get(c)) for c in chapters}
    return {chapter: claims for chapter, claims in loaded.items() if claims is not None}


def claim_yaml() -> Any:
    """The one YAML reader and writer of claim files: keeps comments, order, quotes and line numbers."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 4096  # one blessed run stays on one line
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def read_claim_yaml(path: Path) -> Any:
    """The YAML tree of a claim file, with line numbers and comments."""
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return claim_yaml().load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise HarnessError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise HarnessError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join((error.problem or error.context or "not valid YAML").split())
        raise HarnessError(f"{path}:{mark.line + 1 if mark else 1}: {problem}; mend the YAML there") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise HarnessError(f"{path}:1: not valid YAML ({' '.join(str(error).split())})") from None


def parse_claims(
    tree: Any, path: Path, profiles: Collection[str] | None = None, notebook: Path | None = None
) -> ChapterClaims:
    """Turn the YAML tree of *path* into claims, or raise HarnessError with file and line."""
    root = _Node(path, tree, 1, "the file")
    root.keys(required=("chapter", "claims"), optional=("parameters",))
    chapter = root.text("chapter")
    if chapter != path.stem:
        root.fail("chapter", f"chapter is {chapter!r} but the file is called {path.stem!r}; make them agree")
    declared = _Declared(notebook)
    common = _covered(root, declared) if "parameters" in root else {}
    claims: list[Claim] = []
    lines: dict[str, int] = {}
    for node in root.items("claims", may_be_empty=True):
        claim = _claim(node, profiles)
        if claim.name in lines:
            first = lines[claim.name]
            node.fail("name", f"claim {claim.name!r} stands already on line {first}; keep one of them")
        lines[claim.name] = node.line("name")
        covered = _covered(node, declared) if "parameters" in node else common
        claims.append(replace(claim, parameters=covered))
    return ChapterClaims(chapter, tuple(claims))


def _claim(node: _Node, profiles: Collection[str] | None) -> Claim:
    node.need(("name", "title", "direction", "margin"))
    name = node.text("name")
    if not name.isidentifier():
        node.fail("name", f"{name!r} is no metric name; use letters, digits and _ as in record({name!r}, …)")
    direction = node.text("direction")
    if direction not in DIRECTIONS:
        node.fail("direction", f"unknown direction {direction!r}; use {', '.join(DIRECTIONS)}")
    margin = node.number("margin")
    if margin < 0:
        node.fail(
            "margin", f"margin {margin:g} is negative; give the largest difference that does not matter"
        )
    blessed: dict[str, tuple[ReferenceRun, ...]] = {}
    published: dict[str, Published] = {}
    bounds: dict[str, Bounds] = {}
    for profile in node.names():
        if profile in _FIELDS:
            continue
        entry = _profile(node, profile, profiles)
        if "blessed" in entry:
            blessed[profile] = tuple(_reference_run(run) for run in entry.items("blessed"))
        if "published" in entry:
            published[profile] = _published(entry.child("published"))
        if "bounds" in entry:
            bounds[profile] = _bounds(entry.child("bounds"))
    unit = node.text("unit", "")
    return Claim(name, node.text("title"), unit, direction, margin, blessed, published, bounds)


class _Declared:
    """The parameters of a chapter, read once a claim file names any; None: unknown, so any name passes."""

    def __init__(self, notebook: Path | None) -> None:
        self._notebook = notebook

    @cached_property
    def parameters(self) -> Mapping[str, Parameter] | None:
        if self._notebook is None:
            return None
        try:
            return read_parameters(read_notebook(self._notebook)) or {}
        except HarnessError:
            return None  # whoever runs the chapter says what is wrong with it


def _covered(node: _Node, declared: _Declared) -> dict[str, tuple[Any, ...] | None]:
    """What stands under ``parameters``: names with the values that are covered, None for the book's own."""
    value = node.tree["parameters"]
    if isinstance(value, list):
        found = [(name, None, int(value.lc.item(i)[0]) + 1) for i, name in enumerate(value)]
    elif isinstance(value, Mapping):
        entry = node.child("parameters")
        found = [(name, entry.values(name), entry.line(name)) for name in entry.names()]
    else:
        node.fail("parameters", f"'parameters' must be names or `name: [values]`, not {_describe(value)}")
    covered: dict[str, tuple[Any, ...] | None] = {}
    for name, values, line in found:
        place = f"{node.path}:{line}"
        if not isinstance(name, str) or not name.isidentifier():
            raise HarnessError(f"{place}: {_describe(name)} under 'parameters' is no parameter's name")
        if declared.parameters is not None:
            if name not in declared.parameters:
                known = ", ".join(declared.parameters) or "none"
                raise HarnessError(f"{place}: the chapter has no parameter {name!r}; its parameters: {known}")
            try:
                values = values and tuple(check_value(declared.parameters[name], one) for one in values)
            except ParameterError as error:
                raise HarnessError(f"{place}: {error}") from None
        covered[str(name)] = values
    return covered


def _profile(node: _Node, name: str, profiles: Collection[str] | None) -> _Node:
    known = f"known keys: {', '.join(_FIELDS)}, and profiles"
    if profiles is not None and name not in profiles:
        node.fail(name, f"unknown key or profile {name!r} ({known} {', '.join(profiles)})")
    if not _PROFILE.fullmatch(name) or (profiles is None and not isinstance(node.tree[name], Mapping)):
        node.fail(name, f"unknown key {name!r} ({known}, each with {', '.join(_REFERENCES)})")
    entry = node.child(name)
    entry.keys(optional=_REFERENCES)
    if not entry.tree:
        references = ", ".join(_REFERENCES)
        node.fail(name, f"profile {name!r} holds nothing; give one of {references} or take it out")
    return entry


def _reference_run(node: _Node) -> ReferenceRun:
    node.keys(required=("value", "seed", "commit", "date", "hardware"), optional=("versions",))
    versions = node.child("versions") if "versions" in node else None
    return ReferenceRun(
        value=node.number("value"),
        seed=node.whole_number_or_none("seed"),
        commit=node.text("commit"),
        date=node.day("date"),
        hardware=node.text("hardware"),
        versions={name: versions.text(name) for name in versions.names()} if versions else {},
    )


def _published(node: _Node) -> Published:
    node.keys(required=("value", "citation"), optional=("split", "protocol"))
    citation = node.text("citation")
    if not citation.strip():
        node.fail("citation", "citation is empty; say where the value was published")
    return Published(node.number("value"), citation, node.text("split", ""), node.text("protocol", ""))


def _bounds(node: _Node) -> Bounds:
    node.keys(optional=("low", "high"))
    low = node.number("low") if "low" in node else None
    high = node.number("high") if "high" in node else None
    if low is None and high is None:
        node.fail(None, "bounds hold neither low nor high; give at least one")
    if low is not None and high is not None and low > high:
        node.fail("low", f"low {low:g} lies above high {high:g}; swap them")
    return Bounds(low, high)


class _Node:
    """One mapping of the YAML tree, with its place in the file; each getter checks the type."""

    def __init__(self, path: Path, tree: Any, line: int, what: str) -> None:
        self.path, self.tree, self.what = path, tree, what
        self._start = line
        if not isinstance(tree, Mapping):
            self.fail(None, f"{what} must hold `key: value` lines, not {_describe(tree)}")

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
        if isinstance(self.tree, Mapping) and key is not None and key in self.tree:
            return int(self.tree.lc.key(key)[0]) + 1
        return self._start

    def fail(self, key: Any, message: str) -> NoReturn:
        """Raise HarnessError at *key*."""
        raise HarnessError(f"{self.path}:{self.line(key)}: {message}")

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

    def child(self, key: str) -> _Node:
        """The mapping under *key*."""
        return _Node(self.path, self.tree[key], self.line(key), f"{key!r}")

    def items(self, key: str, *, may_be_empty: bool = False) -> list[_Node]:
        """The mappings in the list under *key*."""
        value = self.tree[key]
        if not isinstance(value, list) or (not value and not may_be_empty):
            self.fail(key, f"{key!r} must be a list of `- key: value` entries, not {_describe(value)}")
        return [
            _Node(self.path, item, int(value.lc.item(i)[0]) + 1, f"entry {i + 1} of {key!r}")
            for i, item in enumerate(value)
        ]

    def values(self, key: str) -> tuple[Any, ...]:
        """The plain values in the list under *key*."""
        value = self.tree[key]
        if not isinstance(value, list) or not value:
            self.fail(key, f"{key!r} must be a list of values such as [a, b], not {_describe(value)}")
        return tuple(map(_plain, value))

    def text(self, key: str, default: str | None = None) -> str:
        """The string under *key*."""
        if key not in self.tree and default is not None:
            return default
        value = self.tree[key]
        if not isinstance(value, str):
            self.fail(key, f"{key!r} must be text, not {_describe(value)}; put it in quotes")
        return str(value)

    def number(self, key: str) -> float:
        """The finite number under *key*."""
        value = self.tree[key]
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(key, f"{key!r} must be a number, not {_describe(value)}")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            self.fail(key, f"{key!r} is {number}; give a finite number")
        return number

    def whole_number_or_none(self, key: str) -> int | None:
        """The integer under *key*, or None for null."""
        value = self.tree[key]
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(key, f"{key!r} must be a whole number or null, not {_describe(value)}")
        return int(value)

    def day(self, key: str) -> str:
        """The ISO date under *key*, as YYYY-MM-DD."""
        value = self.tree[key]
        if isinstance(value, date) and not isinstance(value, datetime):
            return value.isoformat()
        try:
            return date.fromisoformat(value).isoformat()
        except (TypeError, ValueError):
            self.fail(key, f"{key!r} must be a date such as 2026-11-24, not {_describe(value)}")


def _plain(value: Any) -> Any:
    """*value* without the classes in which ruamel.yaml keeps quotes, comments and formats."""
    if isinstance(value, Mapping):
        return {_plain(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    kinds = (one for one in (str, bool, int, float) if isinstance(value, one))
    return next((kind(value) for kind in kinds), value)


def _describe(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value!s}" if isinstance(value, int | float) else repr(str(value))
