"""The blessed runs of a chapter's claims: ``chapters/claims/blessed/<chapter>.jsonl``.

One line of JSON a run, with the values of all claims; before them a line for each environment that runs share:

.. code-block:: json

    {"schema": 1, "written_by": "harness bless"}
    {"environment": "1f0c2ab9", "versions": {"torch": "2.13.0"}}
    {"profile": "offline", "seed": 0, "commit": "abc1234", "date": "2026-11-24", "hardware": "cpu-x86_64",
     "environment": "1f0c2ab9", "values": {"accuracy": 0.8123}, "sum": "9d3e51aa"}

(the third is one line, too). ``harness bless`` alone writes the file: ``sum`` is the check sum of its line, and the key
of an environment that of its versions, so that a number changed by hand is told. Lines are sorted, newest last.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.files import refuse_constant
from harness.model import ReferenceRun

FOLDER = "blessed"
SUFFIX = ".jsonl"
HEADER = {"schema": 1, "written_by": "harness bless"}

References = Mapping[str, Mapping[str, Sequence[ReferenceRun]]]
"""Blessed runs by claim and profile."""


def references_path(claims_dir: Path, chapter: str) -> Path:
    """Where the references of *chapter* stand."""
    return claims_dir / FOLDER / f"{chapter}{SUFFIX}"


def read_references(path: Path) -> dict[str, dict[str, tuple[ReferenceRun, ...]]]:
    """The references in *path*, in the order of its lines; none where there is no file.

    Raises:
        HarnessError: the file cannot be read, or a line is not as ``harness bless`` wrote it.
    """
    try:
        return parse_references(path.read_text(encoding="utf-8"), path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise HarnessError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise _damaged(path, 1, f"not UTF-8 text, byte {error.start}") from None


def parse_references(text: str, path: Path) -> dict[str, dict[str, tuple[ReferenceRun, ...]]]:
    """As :func:`read_references`, of the *text* that stands in *path*."""
    versions: dict[str | None, Mapping[str, str]] = {None: {}}
    found: dict[str, dict[str, tuple[ReferenceRun, ...]]] = {}
    lines: dict[tuple[Any, ...], int] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        try:
            entry = json.loads(line, parse_constant=refuse_constant)
            if number == 1:
                _same("schema", entry["schema"], HEADER["schema"])
            elif "versions" in entry:
                _same("environment", entry["environment"], _sum(entry["versions"]))
                versions[entry["environment"]] = entry["versions"]
            else:
                _same("sum", entry.pop("sum"), _sum(entry))
                for name, value in entry["values"].items():
                    run = _run(entry, float(value), versions)
                    first = lines.setdefault((name, entry["profile"], *identity(run)), number)
                    if first != number:
                        raise ValueError(f"line {first} has {name} of this run already")
                    of_claim = found.setdefault(name, {})
                    of_claim[entry["profile"]] = (*of_claim.get(entry["profile"], ()), run)
        except KeyError as error:
            raise _damaged(path, number, f"no {error}") from None
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise _damaged(path, number, str(error)) from None
    return found


def references_text(references: References) -> str:
    """The content of the file that holds *references*: the same for the same runs, in whatever order they come."""
    runs: dict[tuple[Any, ...], dict[str, Any]] = {}
    environments: dict[str | None, Mapping[str, str]] = {}
    for name, by_profile in sorted(references.items()):
        for profile, blessed in by_profile.items():
            for run in blessed:
                key = _sum(run.versions) if run.versions else None
                environments[key] = run.versions
                seed = -1 if run.seed is None else run.seed
                place = (profile, run.date, run.commit, seed, run.hardware, key or "")
                line = runs.setdefault(place, _entry(run, profile, key))
                line["values"][name] = run.value
    ordered = [runs[place] for place in sorted(runs)]
    used = dict.fromkeys(line["environment"] for line in ordered)
    lines = [
        HEADER,
        *({"environment": key, "versions": environments[key]} for key in used if key),
        *({**line, "sum": _sum(line)} for line in ordered),
    ]
    return "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)


def identity(run: ReferenceRun) -> tuple[int | None, str, str]:
    """What two blessed runs of one claim and profile must differ in."""
    return run.seed, run.commit, run.hardware


def _entry(run: ReferenceRun, profile: str, environment: str | None) -> dict[str, Any]:
    return {
        "profile": profile, "seed": run.seed, "commit": run.commit, "date": run.date,
        "hardware": run.hardware, "environment": environment, "values": {},
    }  # fmt: skip


def _run(
    entry: Mapping[str, Any], value: float, versions: Mapping[str | None, Mapping[str, str]]
) -> ReferenceRun:
    environment = entry["environment"]
    if environment not in versions:
        raise ValueError(f"no line above names the environment {environment}")
    return ReferenceRun(
        value, entry["seed"], entry["commit"], entry["date"], entry["hardware"], versions[environment]
    )


def _sum(content: Any) -> str:
    text = json.dumps(content, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _same(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise ValueError(f"{what} is {found}, not {expected}")


def _damaged(path: Path, line: int, why: str) -> HarnessError:
    return HarnessError(
        f"{path}:{line}: not as `harness bless` wrote it ({' '.join(why.split())}); take the file back from git,"
        " or delete it and bless anew"
    )
