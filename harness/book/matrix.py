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

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.book.claims import read_published
from harness.book.config import Book
from harness.book.yaml_file import Node, read_node
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
    root = read_node(path)
    root.keys(required=("profile", "models", "tasks"))
    profile = book.profile(root.text("profile")).name
    models = root.texts("models")
    chapters = {chapter.stem for chapter in book.chapters}
    return Matrix(profile, tuple(_task(entry, models, chapters) for entry in root.items("tasks")))


def _task(entry: Node, models: tuple[str, ...], chapters: Collection[str]) -> Task:
    entry.keys(("name", "chapter", "takes", "scores"), ("models", "parameters", "protocol", "without"))
    without = {}
    if "without" in entry:
        reasons = entry.child("without")
        reasons.keys(optional=models)
        without = {model: reasons.text(model) for model in reasons.names()}
    own = entry.texts("models") if "models" in entry else models
    entry.only("models", own, models)
    entry.only("chapter", [entry.text("chapter")], chapters)
    return Task(
        name=entry.text("name"),
        chapter=entry.text("chapter"),
        takes=entry.text("takes"),
        models=tuple(model for model in own if model not in without),
        scores=tuple(_score(score, models) for score in entry.items("scores")),
        parameters=entry.mapping("parameters"),
        protocol=entry.text("protocol", ""),
        without=without,
    )


def _score(entry: Node, models: tuple[str, ...]) -> Score:
    entry.keys(("metric", "title", "margin"), ("published",))
    published = entry.children("published")
    entry.only("published", published, models)
    values = {model: read_published(node) for model, node in published.items()}
    return Score(entry.text("metric"), entry.text("title"), entry.number("margin"), values)
