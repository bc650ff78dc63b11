"""What a run was asked for, as the manifest keeps it, so that ``run --resume`` can plan the same run again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.archive.recorded import RecordedRun, read_manifest
from harness.archive.shard import Shard
from harness.book.config import Book
from harness.book.matrix import read_matrix
from harness.book.plan import Planned, Request, plan, plan_matrix
from harness.errors import HarnessError
from harness.model import FINISHED, JobResult


@dataclass(frozen=True)
class Asked:
    """Enough to plan a run; how it runs (jobs at once, cache) is not part of it."""

    notebooks: tuple[Path, ...] | None  # None: chapters of the book
    chapters: tuple[str, ...] | None  # beginnings of their names; None: all
    request: Request
    variables: tuple[str, ...] = ()  # of the environment, beside the book's
    shard: tuple[int, int] | None = None
    matrix: Path | None = None  # file of tasks × models, whose cells are the jobs

    def plan(self, book: Book | None) -> list[Planned]:
        """All jobs, those of other shards too."""
        if self.matrix and book:
            return plan_matrix(book, read_matrix(self.matrix, book), book.select(self.chapters), self.request)
        return plan(book, self.notebooks or (book.select(self.chapters) if book else ()), self.request)


@dataclass(frozen=True)
class Origin:
    """Where a run comes from, as its manifest says."""

    command: Sequence[str]
    asked: Asked | None = None  # where that is known: for ``run --resume``
    shard: Shard | None = None  # where the plan is a part of a run


def asked_from_json(data: Any) -> Asked:
    """Read what ``to_json`` made of it.

    Raises:
        TypeError, ValueError, KeyError: what stands there is not that.
    """
    request = dict(data["request"])
    request["seeds"] = None if request["seeds"] is None else tuple(request["seeds"])
    return Asked(
        notebooks=None if data["notebooks"] is None else tuple(map(Path, data["notebooks"])),
        chapters=None if data["chapters"] is None else tuple(data["chapters"]),
        request=Request(**request),
        variables=tuple(data["variables"]),
        shard=None if data["shard"] is None else (int(data["shard"][0]), int(data["shard"][1])),
        matrix=None if data.get("matrix") is None else Path(data["matrix"]),
    )


def read_asked(run_dir: Path) -> Asked:
    """What the run in *run_dir* was asked for.

    Raises:
        HarnessError: it does not say so.
    """
    try:
        return asked_from_json(read_manifest(run_dir).asked)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        where = run_dir / "manifest.json"
        raise HarnessError(f"{where} does not say what was asked for; start a new run") from None


def digest(entry: Planned) -> str:
    """Equal as long as the job would do the same: the cache's key, for other notebooks code and parameters."""
    if entry.job.key or entry.notebook is None:
        return entry.job.key
    code = [(cell.source, sorted(cell.tags)) for cell in entry.notebook.code]
    text = json.dumps([code, repr(sorted(entry.job.parameters.items())), asdict(entry.job.limits)])
    return hashlib.sha256(text.encode()).hexdigest()


def finished(before: RecordedRun, planned: Sequence[Planned]) -> dict[str, JobResult]:
    """By id, the results of a run that stand: the job completed, and nothing changed since.

    Raises:
        HarnessError: the plan is no longer that of the run.
    """
    if list(before.manifest.jobs) != [entry.job.id for entry in planned]:
        name = before.manifest.run
        raise HarnessError(f"what run {name} was to run has changed: notebooks came or went; start a new run")
    then: Mapping[str, str] = before.manifest.digests
    now = {entry.job.id: digest(entry) for entry in planned}
    return {
        result.id: result
        for result in before.results
        if result.state in FINISHED and now.get(result.id) and then.get(result.id) == now[result.id]
    }
