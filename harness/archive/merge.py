"""Put the shards of a run (``harness run --shard i/n``) together: ``harness report --merge FOLDER FOLDER …``.

The merged folder is that of one run: all jobs in the order of the plan, one manifest, and nothing judged yet.
Its manifest names, under ``shards``, which run and which machine each job comes from: numbers of different
hardware classes are judged apart.

Shards belong together when profile, commit, schema, number of shards and plan (notebooks, parameters, seeds)
agree. A job that two folders hold, as where a shard was uploaded twice, counts once if both tell the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.archive.recorded import Manifest, RecordedRun, read_result, read_run
from harness.archive.shard import Shard
from harness.errors import HarnessError
from harness.files import explain_os_error, write_json, write_text
from harness.model import FINISHED, SCHEMA, JobResult, JobState

_JOINT = " / "  # between the values of machines that differ


@dataclass(frozen=True)
class Part:
    """One shard's run folder."""

    folder: Path
    shard: Shard
    recorded: RecordedRun

    @property
    def manifest(self) -> Manifest:
        return self.recorded.manifest

    @property
    def results(self) -> dict[str, JobResult]:
        """Of the jobs that left one, by id."""
        return {r.id: r for r in self.recorded.results if r.id not in self.recorded.absent}

    @property
    def seconds(self) -> float:
        """Wall time; of a shard that was killed, what its jobs took."""
        if (self.folder / "result.json").is_file():
            return read_result(self.folder).seconds
        return sum(result.seconds for result in self.results.values())


@dataclass(frozen=True)
class Merger:
    """Shards that belong together, and which of them holds each job."""

    parts: tuple[Part, ...]
    home: Mapping[str, Part]  # by job id; jobs of missing shards are not in it

    @property
    def profile(self) -> str:
        return self.parts[0].manifest.profile

    @property
    def seconds(self) -> float:
        """Wall time of the longest shard: they run side by side."""
        return max(part.seconds for part in self.parts)


def plan_merger(folders: Sequence[Path], *, allow_missing: bool = False) -> Merger:
    """Read the shards in *folders* and check that they are those of one run; changes nothing.

    Args:
        folders: run folders, in any order.
        allow_missing: merge although shards are missing; their jobs then count as cancelled.

    Raises:
        HarnessError: a folder is no shard, is damaged or belongs to another run, two folders tell different
            things of one job, or shards are missing.
    """
    if not folders:
        raise HarnessError(
            "--merge needs the run folders of the shards: harness report --merge FOLDER FOLDER …"
        )
    parts = [_read_part(folder) for folder in dict.fromkeys(folder.resolve() for folder in folders)]
    for part in parts[1:]:
        _check_same_run(parts[0], part)
    home: dict[str, Part] = {}
    for part in parts:
        for name in part.shard.jobs:
            home[name] = _choose(name, home[name], part) if name in home else part
    if not allow_missing:
        _check_complete(parts)
    return Merger(tuple(parts), home)


def _read_part(folder: Path) -> Part:
    recorded = read_run(folder)
    manifest = recorded.manifest
    if manifest.schema != SCHEMA:
        raise HarnessError(
            f"{folder} has schema {manifest.schema!r}, this harness writes {SCHEMA}; run the shard again"
        )
    if manifest.shard is None:
        raise HarnessError(
            f"{folder} is no shard of a run; --merge takes what `harness run --shard i/n` left"
        )
    part = Part(folder, manifest.shard, recorded)
    held = tuple(result.id for result in recorded.results)
    if not held == part.shard.jobs == manifest.jobs:
        raise HarnessError(f"{folder} does not hold the jobs of shard {part.shard}; run the shard again")
    return part


def _check_same_run(first: Part, other: Part) -> None:
    for what, mine, its in (
        ("profile", first.manifest.profile, other.manifest.profile),
        ("commit", first.manifest.commit or "none", other.manifest.commit or "none"),
        ("number of shards", first.shard.of, other.shard.of),
    ):
        if mine != its:
            raise HarnessError(
                f"{other.folder} has another {what} than {first.folder} ({its}, {mine}); merge shards of one run"
            )
    if (first.shard.plan, first.shard.digest) != (other.shard.plan, other.shard.digest):
        raise HarnessError(
            f"{other.folder} was planned from other notebooks, parameters or seeds than {first.folder}; run all"
            " shards with the same command but for --shard"
        )


def _choose(name: str, one: Part, other: Part) -> Part:
    """Which of two folders gives the job; an error where they do not tell the same."""
    mine, its = one.results.get(name), other.results.get(name)
    if mine is None or its is None:  # the shard was killed and run again
        return other if mine is None else one
    if mine.key != its.key or _told(mine) != _told(its):
        raise HarnessError(
            f"the job {name} is in {one.folder} ({mine.state.value}) and in {other.folder} ({its.state.value}) with"
            " different results; leave one of the folders out"
        )
    return one


def _told(result: JobResult) -> tuple[Any, ...]:
    """What a result says, without times and places."""
    state = JobState.COMPLETED if result.state in FINISHED else result.state
    cells = tuple((cell.id, cell.state, cell.error) for cell in result.cells)
    return state, dict(result.parameters), cells, tuple(replace(m, time=None) for m in result.metrics)


def _check_complete(parts: Sequence[Part]) -> None:
    plan, of = parts[0].shard.plan, parts[0].shard.of
    given = {part.shard.index for part in parts}
    filled = range(1, min(of, len(plan)) + 1)  # the others are empty and leave no folder
    missing = [i for i in filled if i not in given]
    if missing:
        names = ", ".join(f"{i}/{of}" for i in missing)
        raise HarnessError(
            f"missing: shard {names}, given {len(given)} of {of}; add their folders, or say --allow-missing to"
            " report what there is"
        )


def refuse_overlap(merger: Merger, out: Path) -> None:
    """Writing to *out* replaces a run that lies there: it must not be one of the shards."""
    for part in merger.parts:
        if part.folder == out or part.folder.is_relative_to(out / "jobs"):
            raise HarnessError(f"--out {out} would replace the shard {part.folder}; name another folder")


def write_merged(merger: Merger, run_dir: Path, command: Sequence[str]) -> None:
    """Fill the empty run folder *run_dir*: jobs and events first, the manifest, which makes it a run, last.

    Raises:
        InfrastructureError: the folder cannot be written.
    """
    try:
        for name, part in merger.home.items():
            if (source := part.folder / "jobs" / name).is_dir():
                shutil.copytree(source, run_dir / "jobs" / name, symlinks=True, dirs_exist_ok=True)
        logs = [part.folder / "events.jsonl" for part in merger.parts]
        lines = [line for log in logs if log.is_file() for line in log.read_text("utf-8").splitlines()]
    except (OSError, shutil.Error, UnicodeDecodeError) as error:
        raise _explain(error, f"cannot copy the shards to {run_dir}") from None
    lines.sort()  # each begins with its time
    write_text(run_dir / "events.jsonl", "".join(f"{line}\n" for line in lines))
    write_json(run_dir / "manifest.json", _manifest(merger, run_dir.name, command))


def _explain(error: Exception, doing: str) -> HarnessError:
    """One line; copytree gathers what went wrong as (from, to, why) of each file."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        error = OSError(None, str(error.args[0][0][-1]))
    return explain_os_error(error if isinstance(error, OSError) else OSError(None, str(error)), doing)


def _manifest(merger: Merger, run: str, command: Sequence[str]) -> dict[str, Any]:
    manifests = [part.manifest for part in merger.parts]
    return {
        "schema": SCHEMA,
        "run": run,
        "command": list(command),
        "profile": merger.profile,
        "device": _agreed([manifest.device for manifest in manifests]),
        "started": min(manifest.started for manifest in manifests),
        "commit": manifests[0].commit,
        "dirty": any(manifest.dirty for manifest in manifests),
        "environment": joint_environment([manifest.environment for manifest in manifests]),
        "jobs": list(merger.parts[0].shard.plan),
        "shards": [
            {
                "index": part.shard.index,
                "run": part.manifest.run,
                "environment": part.manifest.environment,
                "jobs": [name for name, home in merger.home.items() if home is part],
            }
            for part in sorted(merger.parts, key=lambda part: part.shard.index)
        ],
    }


def joint_environment(environments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One environment for all shards; where they differ, texts stand side by side and numbers are unknown."""
    names = dict.fromkeys(name for environment in environments for name in environment if name != "versions")
    joint = {name: _agreed([one[name] for one in environments if name in one]) for name in names}
    joint["hardware"] = joint.get("hardware") or "unknown"
    versions = [v for environment in environments if isinstance(v := environment.get("versions"), dict)]
    packages = sorted({package for one in versions for package in one})
    joint["versions"] = {name: _agreed([one.get(name, "none") for one in versions]) for name in packages}
    return joint


def _agreed(values: Sequence[Any]) -> Any:
    """The value if it is the same everywhere; texts that differ joined; None for other things that differ."""
    if all(value == values[0] for value in values):
        return values[0]
    texts = [value for value in values if value is not None]
    if not all(isinstance(value, str) for value in texts):
        return None
    return _JOINT.join(dict.fromkeys(texts))
