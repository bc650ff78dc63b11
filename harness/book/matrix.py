"""Tasks × models as jobs, and the published figures beside them: the YAML file of ``harness run --matrix``.

.. code-block:: yaml

    profile: full
    models: [google-bert/bert-base-chinese, hfl/chinese-roberta-wwm-ext]
    tasks:
      - name: ChnSentiCorp
        chapter: 05-1-fine-tuning
        takes: model_name                    # the chapter's parameter that takes a model's name
        models: [hfl/chinese-roberta-wwm-ext]   # those of the task; all by default
        without: {google-bert/bert-base-chinese: "…"}   # why one cannot do it; it gets no job, and the page says why
        parameters: {num_epochs: 3}          # on top of the profile's
        protocol: "…"                        # what ours does
        scores:
          - metric: test_accuracy
            title: 准确率
            margin: 0.01
            published:
              hfl/chinese-roberta-wwm-ext: {value: 0.948, citation: "…", split: test, protocol: "…"}

A cell is a task with one of its models: a job that runs the chapter's own cells, with other parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.book.config import Book, read_yaml
from harness.errors import HarnessError
from harness.model import Claim, Published


@dataclass(frozen=True)
class Score:
    """One number of a task, and what others published of it, by model."""

    metric: str  # the name given to harness.record.record
    title: str
    margin: float
    published: Mapping[str, Published] = field(default_factory=dict)

    def claim(self, model: str, profile: str) -> Claim:
        """What is published of *model*, for :mod:`harness.judge.rules` to judge a measurement by."""
        published = {profile: self.published[model]} if model in self.published else {}
        return Claim(self.metric, self.title, "fraction", "higher", self.margin, published=published)


@dataclass(frozen=True)
class Task:
    """A chapter under parameters that make it a public benchmark."""

    name: str
    chapter: str
    takes: str
    models: tuple[str, ...]
    scores: tuple[Score, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    protocol: str = ""
    without: Mapping[str, str] = field(default_factory=dict)

    def values(self, model: str) -> dict[str, Any]:
        """Parameters of the cell of *model*."""
        return {**self.parameters, self.takes: model}


@dataclass(frozen=True)
class Matrix:
    """All of the file."""

    profile: str
    tasks: tuple[Task, ...]


def read_matrix(path: Path, book: Book) -> Matrix:
    """Read the file at *path*.

    Raises:
        HarnessError: it cannot be read, a key is unknown or lacking, or the book has no such chapter or profile.
    """
    root = _Part(path, "the file", read_yaml(path), needed=("profile", "models", "tasks"))
    profile = book.profile(root.text("profile")).name
    models = root.texts("models")
    chapters = {chapter.stem for chapter in book.chapters}
    tasks = []
    for entry in root.parts("tasks", needed=("name", "chapter", "takes", "scores"),
                            also=("models", "parameters", "protocol", "without")):  # fmt: skip
        without = _Part(path, f"{entry.place}, without", entry.mapping("without"), also=tuple(models))
        own = entry.texts("models") if "models" in entry.data else models
        own = [model for model in own if model not in without.data]
        entry.only("models", own, models)
        entry.only("chapter", [entry.text("chapter")], chapters)
        scores = tuple(_score(part, models) for part in entry.parts(
            "scores", needed=("metric", "title", "margin"), also=("published",)))  # fmt: skip
        tasks.append(
            Task(
                entry.text("name"), entry.text("chapter"), entry.text("takes"), tuple(own), scores,
                entry.mapping("parameters"), entry.text("protocol", ""),
                {model: without.text(model) for model in without.data},
            )
        )  # fmt: skip
    return Matrix(profile, tuple(tasks))


def _score(part: _Part, models: list[str]) -> Score:
    published = {}
    for model, entry in part.mapping("published").items():
        part.only("published", [model], models)
        inside = _Part(part.path, f"{part.place}, published of {model}", entry,
                       needed=("value", "citation"), also=("split", "protocol"))  # fmt: skip
        published[model] = Published(
            inside.number("value"),
            inside.text("citation"),
            inside.text("split", ""),
            inside.text("protocol", ""),
        )
    return Score(part.text("metric"), part.text("title"), part.number("margin"), published)


@dataclass(frozen=True)
class _Part:
    """A mapping of the file, where it stands, and what may stand in it."""

    path: Path
    place: str
    data: Any
    needed: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.data, dict):
            self._fail(f"expected keys such as {', '.join(self.needed)}")
        for key in self.data:
            if key not in (*self.needed, *self.also):
                self._fail(f"unknown key {key!r}; keys: {', '.join((*self.needed, *self.also))}")
        for key in self.needed:
            if key not in self.data:
                self._fail(f"the key {key!r} is missing; add it")

    def _fail(self, what: str) -> None:
        raise HarnessError(f"{self.path}: {self.place}: {what}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.data.get(key, default)
        if not isinstance(value, str) or (not value.strip() and value != default):
            self._fail(f"{key} must be a text, not {value!r}")
        return value

    def number(self, key: str) -> float:
        value = self.data[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self._fail(f"{key} must be a number, not {value!r}")
        return float(value)

    def texts(self, key: str) -> list[str]:
        value = self.data[key]
        if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
            self._fail(f"{key} must be a list of names, not {value!r}")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        value = self.data.get(key) or {}
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            self._fail(f"{key} must map names to values, not {value!r}")
        return value

    def parts(self, key: str, *, needed: tuple[str, ...], also: tuple[str, ...]) -> list[_Part]:
        value = self.data[key]
        if not isinstance(value, list) or not value:
            self._fail(f"{key} must be a list, not {value!r}")
        found = []
        for number, one in enumerate(value, 1):
            name = one.get("name") or one.get("metric") if isinstance(one, dict) else None
            inside = f"{key} {number}" + (f" ({name})" if name else "")
            found.append(_Part(self.path, inside, one, needed, also))
        return found

    def only(self, key: str, values: list[str], known: Any) -> None:
        for value in values:
            if value not in known:
                self._fail(f"{key}: there is no {value!r}; there are {', '.join(sorted(known))}")
