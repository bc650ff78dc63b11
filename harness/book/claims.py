"""Read what a chapter claims to measure: ``chapters/claims/<chapter>.yml``, written by hand.

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
        full:
          published: {value: 0.947, citation: "…", split: test, protocol: "mean of 10 seeds, lr 2e-5"}

Every other key of a claim is the name of a profile and holds ``published``, ``bounds`` or both. The runs that were
blessed stand beside it, written by ``harness bless`` (see :mod:`harness.book.references`). Each kind of reference is
judged by its own rule (see :mod:`harness.judge.rules`). A profile without any has no reference: the metric must then
be recorded, and no more is said about it.

``parameters`` names what decides *what* is measured: the data, the model. Under another value of one of them the
claim is not applicable. A list names parameters that must have the value they have in the book under the run's
profile; a mapping gives the values. A parameter that is not named may have any value: the claim is judged.

Reading is strict: an unknown key, a wrong type, a duplicate or a number that is not finite is an error that
names file and line.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.book.notebook import read_notebook
from harness.book.parameters import Parameter, ParameterError, check_value, read_parameters
from harness.book.references import FOLDER, read_references, references_path
from harness.book.references import SUFFIX as REFERENCES_SUFFIX
from harness.book.yaml_file import Node, describe, lined, read_node
from harness.errors import HarnessError
from harness.model import Bounds, ChapterClaims, Claim, Published

if TYPE_CHECKING:
    from harness.book.config import Book

SUFFIX = ".yml"
DIRECTIONS = ("higher", "lower", "none")
_FIELDS = ("name", "title", "unit", "direction", "margin", "parameters")
_REFERENCES = ("published", "bounds")
BLESSED = "blessed"
"""In files of the old layout the key of the blessed runs, which stand in a file of their own now."""
_PROFILE = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def claim_path(claims_dir: Path, chapter: str) -> Path:
    """Where the claims of *chapter* stand."""
    return claims_dir / f"{chapter}{SUFFIX}"


def load_claims(
    claims_dir: Path, chapter: str, profiles: Collection[str] | None = None, notebook: Path | None = None
) -> ChapterClaims | None:
    """Claims of one chapter with the runs that were blessed; None where it has no claim file.

    A blessed value that nobody claims is passed over; the next `harness bless` of the chapter drops it.

    Args:
        claims_dir: folder of the claim files.
        chapter: stem of the chapter's notebook.
        profiles: names that may stand in the file; None lets any name pass.
        notebook: the chapter, whose parameters the file may name; None lets any name pass.

    Raises:
        HarnessError: one of the two files cannot be read or breaks its format.
    """
    path = claim_path(claims_dir, chapter)
    if not path.exists():
        return None
    found = parse_claims(read_node(path), profiles, notebook)
    blessed = read_references(references_path(claims_dir, chapter))
    claims = tuple(replace(claim, blessed=blessed.get(claim.name, {})) for claim in found.claims)
    return ChapterClaims(chapter, claims)


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
    """Claims of all *chapters* that have any, by chapter; a file of no chapter is an error."""
    for path in sorted(claims_dir.glob("*")) if claims_dir.is_dir() else ():
        if path.suffix == ".yaml":
            raise HarnessError(f"{path}: claim files end in {SUFFIX}; rename it to {path.stem}{SUFFIX}")
        if path.suffix == SUFFIX and path.stem not in chapters:
            known = ", ".join(chapters) or "none"
            raise HarnessError(
                f"{path}: no chapter is called {path.stem!r} (chapters: {known}); rename or remove it"
            )
    for path in sorted((claims_dir / FOLDER).glob(f"*{REFERENCES_SUFFIX}")):
        if not (claims := claim_path(claims_dir, path.stem)).exists():
            raise HarnessError(
                f"{path}: there is no {claims} whose references these are; rename or remove it"
            )
    loaded = {c: load_claims(claims_dir, c, profiles, notebooks.get(c)) for c in chapters}
    return {chapter: claims for chapter, claims in loaded.items() if claims is not None}


def parse_claims(
    root: Node, profiles: Collection[str] | None = None, notebook: Path | None = None
) -> ChapterClaims:
    """Turn what a claim file holds into claims, or raise HarnessError with file and line."""
    root.keys(required=("chapter", "claims"), optional=("parameters",))
    chapter = root.text("chapter")
    if chapter != root.path.stem:
        root.fail(
            "chapter", f"chapter is {chapter!r} but the file is called {root.path.stem!r}; make them agree"
        )
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


def _claim(node: Node, profiles: Collection[str] | None) -> Claim:
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
    published: dict[str, Published] = {}
    bounds: dict[str, Bounds] = {}
    for profile in node.names():
        if profile in _FIELDS:
            continue
        entry = _profile(node, profile, profiles)
        if "published" in entry:
            published[profile] = read_published(entry.child("published"))
        if "bounds" in entry:
            bounds[profile] = _bounds(entry.child("bounds"))
    unit = node.text("unit", "")
    title = node.text("title")
    return Claim(name, title, unit, direction, margin, published=published, bounds=bounds)


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


def _covered(node: Node, declared: _Declared) -> dict[str, tuple[Any, ...] | None]:
    """What stands under ``parameters``: names with the values that are covered, None for the book's own."""
    value = node.tree["parameters"]
    found: list[tuple[Any, tuple[Any, ...] | None, int]]
    if isinstance(value, list):
        found = [(name, None, line) for name, line in lined(value)]
    elif isinstance(value, Mapping):
        entry = node.child("parameters")
        found = [(name, entry.values(name), entry.line(name)) for name in entry.names()]
    else:
        node.refuse("parameters", "names or `name: [values]`")
    covered: dict[str, tuple[Any, ...] | None] = {}
    for name, values, line in found:
        place = f"{node.path}:{line}"
        if not isinstance(name, str) or not name.isidentifier():
            raise HarnessError(f"{place}: {describe(name)} under 'parameters' is no parameter's name")
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


def _profile(node: Node, name: str, profiles: Collection[str] | None) -> Node:
    known = f"known keys: {', '.join(_FIELDS)}, and profiles"
    if profiles is not None and name not in profiles:
        node.fail(name, f"unknown key or profile {name!r} ({known} {', '.join(profiles)})")
    if not _PROFILE.fullmatch(name) or (profiles is None and not isinstance(node.tree[name], Mapping)):
        node.fail(name, f"unknown key {name!r} ({known}, each with {', '.join(_REFERENCES)})")
    entry = node.child(name)
    if BLESSED in entry:
        entry.fail(BLESSED, "blessed values stand in a file of their own now; run `harness bless --migrate`")
    entry.keys(optional=_REFERENCES)
    if not entry.tree:
        references = ", ".join(_REFERENCES)
        node.fail(name, f"profile {name!r} holds nothing; give one of {references} or take it out")
    return entry


def read_published(node: Node) -> Published:
    """A value that somebody else published, and where."""
    node.keys(required=("value", "citation"), optional=("split", "protocol"))
    return Published(
        node.number("value"), node.text("citation"), node.text("split", ""), node.text("protocol", "")
    )


def _bounds(node: Node) -> Bounds:
    node.keys(optional=("low", "high"))
    low = node.number("low") if "low" in node else None
    high = node.number("high") if "high" in node else None
    if low is None and high is None:
        node.fail(None, "bounds hold neither low nor high; give at least one")
    if low is not None and high is not None and low > high:
        node.fail("low", f"low {low:g} lies above high {high:g}; swap them")
    return Bounds(low, high)
