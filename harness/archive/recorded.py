"""Read a run folder back. A damaged or unfinished one is told in one line that names the file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.archive.shard import shard_from_json
from harness.book.plan import job_stem
from harness.errors import HarnessError
from harness.files import read_json
from harness.model import JobResult, JobState, Verdict, job_result_from_json, verdict_from_json

NO_RESULT = "planned, but it has no result: the run was killed, or is still going on"


@dataclass(frozen=True)
class RecordedRun:
    """What a run folder holds."""

    manifest: Mapping[str, Any]
    results: tuple[JobResult, ...]  # of all planned jobs; one without a result counts as cancelled
    absent: tuple[str, ...]  # ids of the planned jobs that left no result


def read_run(run_dir: Path, chapters: Iterable[Path] = ()) -> RecordedRun:
    """Manifest and results of the run in *run_dir*, in the order of its plan.

    Args:
        run_dir: the run folder.
        chapters: of the book, to tell which of them a job that left nothing belonged to.

    Raises:
        HarnessError: a file is missing or is not what the harness writes.
    """
    manifest = read_manifest(run_dir)
    found = {result.id: result for result in map(_read_result, sorted(run_dir.glob("jobs/*/result.json")))}
    planned = list(manifest["jobs"])
    absent = tuple(name for name in planned if name not in found)
    for name in absent:
        found[name] = _cancelled(name, str(manifest.get("profile", "")), tuple(chapters))
    order = [*planned, *(name for name in found if name not in planned)]
    return RecordedRun(manifest, tuple(found[name] for name in order), absent)


def read_manifest(run_dir: Path) -> dict[str, Any]:
    """The run's manifest.json, with all that judging and reporting need."""
    path = run_dir / "manifest.json"
    manifest = _mapping(path)
    for key, kind in (
        ("run", str),
        ("profile", str),
        ("started", str),
        ("environment", dict),
        ("jobs", list),
    ):
        if not isinstance(manifest.get(key), kind):
            raise _damaged(path, f"no usable {key!r}")
    if not all(isinstance(name, str) for name in manifest["jobs"]):
        raise _damaged(path, "no usable 'jobs'")
    if "shard" in manifest:
        _parsed(shard_from_json, manifest["shard"], path)
    for part in _entries(manifest, "shards", path):
        _parsed(_check_part, part, path)
    for part in _entries(manifest, "nodes", path):
        _parsed(_check_machine, part, path)
    return manifest


def _check_part(part: Mapping[str, Any]) -> None:
    """One of the shards that a run was merged from."""
    if not isinstance(part["index"], int) or not isinstance(part["run"], str):
        raise ValueError("no usable 'index' and 'run' in 'shards'")
    _check_machine(part)


def _check_machine(part: Mapping[str, Any]) -> None:
    """A machine that jobs ran on: that of a shard, or a node of a cluster."""
    if not isinstance(part["environment"], dict) or not isinstance(part["jobs"], list):
        raise ValueError("no usable 'environment' and 'jobs' in 'shards' or 'nodes'")


def _machines(manifest: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    return (*manifest.get("shards", ()), *manifest.get("nodes", ()))


def environment_of(manifest: Mapping[str, Any], job: str) -> Mapping[str, Any]:
    """What the job of this id ran on: in a merged run the machine of its shard, on a cluster its node."""
    parts = (part["environment"] for part in _machines(manifest) if job in part["jobs"])
    environment: Mapping[str, Any] = next(parts, manifest.get("environment", {}))
    return environment


def hardware_by_job(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Class of the machine by job id, for the jobs of a merged run or of one on a cluster."""
    return {
        job: str(part["environment"].get("hardware", ""))
        for part in _machines(manifest)
        for job in part["jobs"]
    }


def read_document(run_dir: Path) -> dict[str, Any]:
    """The run's result.json, checked so far that it can be reported again."""
    path = run_dir / "result.json"
    if not path.exists():
        raise HarnessError(f"{run_dir} did not finish (no result.json); `harness check` judges what it left")
    document = _mapping(path)
    for key in ("run", "profile", "started", "seconds", "exit_code"):
        if not isinstance(document.get(key), str | int | float):
            raise _damaged(path, f"no usable {key!r}")
    if not isinstance(document.get("environment", {}), dict):
        raise _damaged(path, "no usable 'environment'")
    if "shard" in document:
        _parsed(lambda shard: int(shard["index"]) + int(shard["of"]), document["shard"], path)
    for part in _entries(document, "shards", path):
        _parsed(lambda part: [str(part[key]) for key in ("index", "run", "hardware")], part, path)
    document_jobs(document, path)
    document_verdicts(document, path)
    return document


def document_jobs(document: Mapping[str, Any], path: Path) -> list[JobResult]:
    """The jobs of a run document that was read from *path*."""
    return [_parsed(_job_result, job, path) for job in _entries(document, "jobs", path)]


def document_verdicts(document: Mapping[str, Any], path: Path) -> list[Verdict]:
    """The verdicts of a run document that was read from *path*."""
    return [_parsed(verdict_from_json, verdict, path) for verdict in _entries(document, "verdicts", path)]


def _entries(document: Mapping[str, Any], key: str, path: Path) -> list[Any]:
    entries = document.get(key, [])
    if not isinstance(entries, list):
        raise _damaged(path, f"no usable {key!r}")
    return entries


def _read_result(path: Path) -> JobResult:
    result: JobResult = _parsed(_job_result, read_json(path), path)
    if result.id != path.parent.name:
        raise _damaged(path, f"it is of the job {result.id!r}")
    return result


def _job_result(data: Any) -> JobResult:
    """One job of a result.json, its types checked so far that it can be compared and reported."""
    result = job_result_from_json(data)
    for name in ("id", "notebook", "profile", "reason", "started"):
        _check(name, getattr(result, name), str)
    for name in ("seconds", "peak_rss_mb"):
        _check(name, _or(getattr(result, name), 0), (int, float))
    for name in ("chapter", "cached_from"):
        _check(name, _or(getattr(result, name), ""), str)
    _check("parameters", result.parameters, dict)
    _check("passed_over", result.passed_over, dict)
    for cell in result.cells:
        _check("a cell's id", cell.id, str)
        _check("a cell's index", cell.index, int)
        _check("a cell's seconds", _or(cell.seconds, 0), (int, float))
    return result


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _check(name: str, value: Any, kind: type | tuple[type, ...]) -> None:
    if not isinstance(value, kind) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"no usable {name!r}")


def _parsed(parse: Any, data: Any, path: Path) -> Any:
    try:
        return parse(data)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from None


def _mapping(path: Path) -> dict[str, Any]:
    data = read_json(path)
    if not isinstance(data, dict):
        raise _damaged(path, f"it holds a {type(data).__name__}")
    return data


def _damaged(path: Path, what: str) -> HarnessError:
    return HarnessError(f"{path} is not what the harness writes ({what}); the run is damaged: run it again")


def _cancelled(name: str, profile: str, chapters: Iterable[Path]) -> JobResult:
    """The result of a job that left none; its chapter and seed stand in its id."""
    for chapter in chapters:
        stem = job_stem(chapter, profile)
        seed = name.removeprefix(f"{stem}-seed")
        if name == stem or (name != seed and seed.isdigit()):
            number = int(seed) if name != stem else None
            notebook = f"{chapter.parent.name}/{chapter.name}"
            return JobResult(name, notebook, chapter.stem, profile, number, JobState.CANCELLED, NO_RESULT)
    return JobResult(name, name, None, profile, None, JobState.CANCELLED, NO_RESULT)
