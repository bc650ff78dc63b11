"""Read a run folder back, once, into typed objects. What is damaged or unfinished is told in one line with its file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from harness.archive.shard import Shard, shard_from_json
from harness.book.plan import job_stem
from harness.errors import HarnessError
from harness.files import read_json
from harness.model import (
    SCHEMA,
    JobResult,
    JobState,
    Verdict,
    job_result_from_json,
    to_json,
    verdict_from_json,
)

NO_RESULT = "planned, but it has no result: the run was killed, or is still going on"

_T = TypeVar("_T")


@dataclass(frozen=True)
class Part:
    """Jobs of a run that ran on a machine of their own: a shard of a merged run, or a node of a cluster."""

    name: str  # the shard's run, the node's address
    environment: Mapping[str, Any]
    jobs: tuple[str, ...]
    index: int | None = None  # of the shard

    @property
    def hardware(self) -> str:
        """Class of the machine; empty where that is not known."""
        return str(self.environment.get("hardware") or "")


@dataclass(frozen=True)
class Manifest:
    """What a run was to do, when, with which code and on what."""

    run: str
    profile: str
    started: str  # ISO 8601
    environment: Mapping[str, Any] = field(default_factory=dict)  # see harness.archive.environment
    jobs: tuple[str, ...] = ()  # ids of all that was planned, in order
    commit: str = ""
    dirty: bool = False
    schema: int | None = SCHEMA
    device: str | None = None
    shard: Shard | None = None  # the part of a run that this is
    shards: tuple[Part, ...] = ()  # that it was merged from
    nodes: tuple[Part, ...] = ()  # of the cluster that it ran on
    asked: Any = None  # see harness.execute.resume
    digests: Mapping[str, str] = field(default_factory=dict)  # by job
    resumed: tuple[Mapping[str, Any], ...] = ()  # times at which the run went on

    @property
    def hardware(self) -> str:
        """Class of the machine; empty where that is not known."""
        return str(self.environment.get("hardware") or "")

    @property
    def versions(self) -> Mapping[str, str]:
        """Of the packages that decide a result."""
        return self.environment.get("versions") or {}

    def environment_of(self, job: str) -> Mapping[str, Any]:
        """What the job of this id ran on: in a merged run the machine of its shard, on a cluster its node."""
        parts = (part.environment for part in (*self.shards, *self.nodes) if job in part.jobs)
        return next(parts, self.environment)

    @property
    def hardware_by_job(self) -> dict[str, str]:
        """Class of the machine by job id, for the jobs of a merged run or of one on a cluster."""
        parts = (*self.shards, *self.nodes)
        return {job: part.hardware for part in parts for job in part.jobs}


@dataclass(frozen=True)
class RecordedRun:
    """What a run folder holds, judged or not."""

    manifest: Manifest
    results: tuple[JobResult, ...]  # of all planned jobs; one without a result counts as cancelled
    absent: tuple[str, ...]  # ids of the planned jobs that left no result


@dataclass(frozen=True)
class RunResult:
    """A run that was judged: all that reports are made from, and its result.json."""

    folder: Path
    manifest: Manifest
    jobs: tuple[JobResult, ...]
    verdicts: tuple[Verdict, ...]
    seconds: float  # wall time of the whole run
    exit_code: int

    def to_json(self) -> dict[str, Any]:
        """The run's result.json as plain JSON types."""
        manifest, parts = self.manifest, {}
        if manifest.shard:
            parts["shard"] = {"index": manifest.shard.index, "of": manifest.shard.of}
        if manifest.shards:
            parts["shards"] = [
                {"index": p.index, "run": p.name, "hardware": p.hardware, "jobs": p.jobs}
                for p in manifest.shards
            ]
        return to_json(
            {
                "schema": SCHEMA,
                "run": manifest.run,
                "profile": manifest.profile,
                "started": manifest.started,
                "seconds": round(self.seconds, 3),
                "commit": manifest.commit,
                "dirty": manifest.dirty,
                "environment": manifest.environment,
                "exit_code": self.exit_code,
                **parts,
                "jobs": self.jobs,
                "verdicts": self.verdicts,
            }
        )


# --- manifest.json -------------------------------------------------------------------------------------


def read_manifest(run_dir: Path) -> Manifest:
    """The run's manifest.json.

    Raises:
        HarnessError: it is missing, or not what the harness writes.
    """
    path = run_dir / "manifest.json"
    return manifest_from_json(_mapping(read_json(path), path), path)


def manifest_from_json(data: Mapping[str, Any], path: Path) -> Manifest:
    """The manifest that stands in *path*."""
    _parsed(lambda data: _check(data, _MANIFEST), data, path)
    if not all(isinstance(name, str) for name in data["jobs"]):
        raise _damaged(path, "no usable 'jobs'")
    return Manifest(
        **_common(data, path),
        jobs=tuple(data["jobs"]),
        schema=data.get("schema"),
        device=data.get("device"),
        shard=_parsed(shard_from_json, data["shard"], path) if "shard" in data else None,
        shards=tuple(_parsed(_shard, part, path) for part in _entries(data, "shards", path)),
        nodes=tuple(_parsed(_node, part, path) for part in _entries(data, "nodes", path)),
        asked=data.get("asked"),
        digests=data.get("digests") or {},
        resumed=tuple(data.get("resumed") or ()),
    )


def _common(data: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What manifest.json and result.json both say."""
    environment = data.get("environment", {})
    if not isinstance(environment, dict) or not isinstance(environment.get("versions", {}), dict):
        raise _damaged(path, "no usable 'environment'")
    return {name: data[name] for name in _HEAD} | {
        "commit": str(data.get("commit") or ""),
        "dirty": bool(data.get("dirty")),
        "environment": environment,
    }


def _shard(part: Mapping[str, Any]) -> Part:
    """One of the shards that a run was merged from."""
    if not isinstance(part["index"], int) or not isinstance(part["run"], str):
        raise ValueError("no usable 'index' and 'run' in 'shards'")
    return Part(part["run"], *_machine(part), index=part["index"])


def _node(part: Mapping[str, Any]) -> Part:
    return Part(str(part["node"]), *_machine(part))


def _machine(part: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Environment and jobs of a machine."""
    if not isinstance(part["environment"], dict) or not isinstance(part["jobs"], list):
        raise ValueError("no usable 'environment' and 'jobs' in 'shards' or 'nodes'")
    return part["environment"], tuple(part["jobs"])


def refuse_shard(manifest: Manifest, what: str) -> None:
    """A shard is not a run: *what* needs the whole."""
    if manifest.shard:
        raise HarnessError(
            f"{manifest.run} is shard {manifest.shard} of a run, and {what} needs the whole: put the shards together"
            " with `harness report --merge FOLDER FOLDER …` first"
        )


# --- jobs/*/result.json --------------------------------------------------------------------------------


def read_run(run_dir: Path, chapters: Iterable[Path] = ()) -> RecordedRun:
    """Manifest and results of the run in *run_dir*, in the order of its plan.

    Args:
        run_dir: the run folder.
        chapters: of the book, to tell which of them a job that left nothing belonged to.

    Raises:
        HarnessError: a file is missing or is not what the harness writes.
    """
    manifest = read_manifest(run_dir)
    found = {result.id: result for result in map(_read_job, sorted(run_dir.glob("jobs/*/result.json")))}
    absent = tuple(name for name in manifest.jobs if name not in found)
    for name in absent:
        found[name] = _cancelled(name, manifest.profile, tuple(chapters))
    order = dict.fromkeys((*manifest.jobs, *found))
    return RecordedRun(manifest, tuple(found[name] for name in order), absent)


def _read_job(path: Path) -> JobResult:
    result = _parsed(_job_result, read_json(path), path)
    if result.id != path.parent.name:
        raise _damaged(path, f"it is of the job {result.id!r}")
    return result


def _job_result(data: Any) -> JobResult:
    """One job of a result.json, its types checked so far that it can be compared and reported."""
    result = job_result_from_json(data)
    _check(vars(result), _JOB)
    for cell in result.cells:
        _check(vars(cell), _CELL, "a cell's ")
    return result


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


# --- result.json ---------------------------------------------------------------------------------------


def read_result(run_dir: Path) -> RunResult:
    """The run's result.json.

    Raises:
        HarnessError: the run did not finish, or the file is not what the harness writes.
    """
    path = run_dir / "result.json"
    if not path.exists():
        raise HarnessError(f"{run_dir} did not finish (no result.json); `harness check` judges what it left")
    return result_from_json(read_json(path), path)


def result_from_json(data: Any, path: Path) -> RunResult:
    """The judged run whose result.json is *path*."""
    data = _mapping(data, path)
    _parsed(lambda data: _check(data, _RESULT), data, path)
    shard = None
    if "shard" in data:
        shard = _parsed(lambda part: Shard(int(part["index"]), int(part["of"]), (), ""), data["shard"], path)
    manifest = Manifest(
        **_common(data, path),
        shard=shard,
        shards=tuple(_parsed(_reported_shard, part, path) for part in _entries(data, "shards", path)),
    )
    return RunResult(
        path.parent,
        manifest,
        tuple(_parsed(_job_result, job, path) for job in _entries(data, "jobs", path)),
        tuple(_parsed(_verdict, verdict, path) for verdict in _entries(data, "verdicts", path)),
        data["seconds"],
        data["exit_code"],
    )


def _reported_shard(part: Mapping[str, Any]) -> Part:
    hardware = {"hardware": str(part["hardware"])}
    return Part(str(part["run"]), hardware, tuple(part.get("jobs", ())), index=part["index"])


# --- damage --------------------------------------------------------------------------------------------

_Kinds = Mapping[str, tuple[type, ...]]
_NUMBER, _NONE = (int, float), type(None)
_HEAD: _Kinds = {"run": (str,), "profile": (str,), "started": (str,)}
_MANIFEST: _Kinds = {**_HEAD, "environment": (dict,), "jobs": (list,)}
_RESULT: _Kinds = {**_HEAD, "seconds": _NUMBER, "exit_code": (int,)}
_JOB: _Kinds = {
    **dict.fromkeys(("id", "notebook", "profile", "reason", "started"), (str,)),
    **dict.fromkeys(("chapter", "cached_from"), (str, _NONE)),
    **dict.fromkeys(("parameters", "passed_over"), (dict,)),
    "seconds": _NUMBER,
    "peak_rss_mb": (*_NUMBER, _NONE),
}
_CELL: _Kinds = {"id": (str,), "index": (int,), "seconds": (*_NUMBER, _NONE)}
_VERDICT: _Kinds = {
    **dict.fromkeys(("chapter", "claim", "title", "rule", "unit", "message", "message_zh"), (str,)),
    **dict.fromkeys(("reference", "delta", "margin"), (*_NUMBER, _NONE)),
}


class _Unusable(ValueError):
    """Says what is wrong with a value, on its own."""


def _check(data: Mapping[str, Any], kinds: _Kinds, of: str = "") -> None:
    """Whether the values are of these types, and numbers finite."""
    for name, kind in kinds.items():
        value = data.get(name)
        if not isinstance(value, kind) or (isinstance(value, float) and not math.isfinite(value)):
            raise _Unusable(f"no usable {of + name!r}")


def _verdict(data: Any) -> Verdict:
    verdict = verdict_from_json(data)
    _check(vars(verdict), _VERDICT)
    for value in verdict.observed:
        _check({"observed": value}, {"observed": _NUMBER})
    return verdict


def _entries(data: Mapping[str, Any], key: str, path: Path) -> list[Any]:
    entries = data.get(key, [])
    if not isinstance(entries, list):
        raise _damaged(path, f"no usable {key!r}")
    return entries


def _parsed(parse: Callable[[Any], _T], data: Any, path: Path) -> _T:
    try:
        return parse(data)
    except _Unusable as error:
        raise _damaged(path, str(error)) from None
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from None


def _mapping(data: Any, path: Path) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise _damaged(path, f"it holds a {type(data).__name__}")
    return data


def _damaged(path: Path, what: str) -> HarnessError:
    return HarnessError(f"{path} is not what the harness writes ({what}); the run is damaged: run it again")
