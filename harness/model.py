"""What the harness decides and remembers, as frozen dataclasses.

Nothing here runs or judges anything. ``to_json`` and the ``from_json`` functions are the one place where
these objects meet the run folder's JSON files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

SCHEMA = 1
"""Version of every JSON document in a run folder."""

METRIC_MIME = "application/vnd.harness.metric.v1+json"
"""MIME type under which ``record`` leaves a metric in the notebook's outputs."""


class JobState(StrEnum):
    """How one notebook ended. Exactly one of these is true of a finished job."""

    COMPLETED = "completed"  # every cell ran to its end
    FAILED = "failed"  # a cell raised
    TIMED_OUT = "timed_out"  # a cell, or the whole notebook, ran past its limit
    DEAD = "dead"  # the kernel was killed or crashed, or what it did could not be saved
    EXITED_EARLY = "exited_early"  # the kernel ended cleanly before the last cell
    INVALID = "invalid"  # never started: not a notebook, unknown parameter, no kernel
    SKIPPED = "skipped"  # nothing that could change it changed; the cached result stands
    CANCELLED = "cancelled"  # interrupted by the user


FINISHED = frozenset({JobState.COMPLETED, JobState.SKIPPED})
"""States in which every cell ran to its end, now or when the kept result was made."""


class CellState(StrEnum):
    """How one code cell ended."""

    COMPLETED = "completed"
    FAILED = "failed"  # raised, timed out or took the kernel down: the job's state says which
    SKIPPED = "skipped"  # tagged skip-execution, or nothing but blank lines and comments
    PENDING = "pending"  # never reached


class Outcome(StrEnum):
    """The judgement on one claim."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    MISSING = "missing"  # claimed, but the run recorded no such metric
    UNEXPECTED = "unexpected"  # recorded, but nobody claims it
    NOT_APPLICABLE = "not_applicable"  # measured with parameters that the claim does not cover


WORST_FIRST = (
    Outcome.FAIL,
    Outcome.MISSING,
    Outcome.INCONCLUSIVE,
    Outcome.UNEXPECTED,
    Outcome.NOT_APPLICABLE,
    Outcome.PASS,
)
"""Where one of several judgements on a claim stands for all."""


@dataclass(frozen=True)
class Limits:
    """Wall-clock limits in seconds; ``None`` is no limit."""

    cell: float | None = None
    notebook: float | None = None
    given: tuple[str, ...] = ()  # those of the two that the user gave; the others are a profile's
    factor: float = 1.0  # what a profile's were multiplied by on a slow machine; see harness.archive.speed

    def told(self, name: str) -> str:
        """The limit called *name*, as the reason of a time-out says it."""
        seconds, slow = getattr(self, name), ""
        if self.factor != 1 and name not in self.given:
            slow = f" ({seconds / self.factor:g} s × {self.factor:g} for a slow machine)"
        return f"the {name}'s limit of {seconds:g} s{slow}"

    def remedy(self, name: str) -> str:
        """How to raise it."""
        if name in self.given:
            return f"give --{name}-timeout more"
        return f"raise it with --{name}-timeout, or with {name}_timeout in harness.yml"


@dataclass(frozen=True)
class Job:
    """One notebook to run under one profile with one seed."""

    id: str  # unique in the run and safe as a folder name, e.g. "05-fine-tuning-offline-seed0"
    notebook: Path
    chapter: str | None  # stem of a book chapter, None for a notebook outside the book
    profile: str
    seed: int | None  # None where the notebook has no parameter called seed
    parameters: Mapping[str, Any]
    limits: Limits
    device: str = "auto"
    network: bool = True  # False: the Hugging Face libraries are told to stay offline
    key: str = ""  # what the cache compares; see harness.execute.cache
    language: str = "en"  # of people, "en" or "zh": in which words are set into the notebook


def cell_name(index: int, name: str) -> str:
    """How every message names a cell: its number, as cells of all kinds are counted from 1, and its id."""
    return f"cell {index + 1} (id {name})"


@dataclass(frozen=True)
class CellResult:
    """One code cell: where it is, how it ended, how long it took."""

    index: int  # position among all cells of the source notebook, from 0
    id: str
    state: CellState
    seconds: float | None = None
    error: str | None = None  # "ValueError: …", one line
    line: int | None = None  # of the cell, from 1, where the error came from
    code: str = ""  # the line that it is known by; see harness.wording.cell_label

    @property
    def name(self) -> str:
        """Number and id."""
        return cell_name(self.index, self.id)

    @property
    def place(self) -> str:
        """The name, and the code that a person knows the cell by."""
        return f"{self.name} “{self.code}”" if self.code else self.name


@dataclass(frozen=True)
class Metric:
    """One recorded number."""

    name: str
    value: float
    unit: str = ""
    n: int | None = None  # examples behind the value
    split: str | None = None
    interval: tuple[float, float] | None = None  # 95 %, if the chapter computed one
    per_example: tuple[float, ...] | None = None
    time: str | None = None  # ISO 8601, UTC


@dataclass(frozen=True)
class JobResult:
    """All that is known of a job once it has ended."""

    id: str
    notebook: str  # path relative to the book's root where it lies inside it
    chapter: str | None
    profile: str
    seed: int | None
    state: JobState
    reason: str = ""  # one line for a person; empty when completed
    parameters: Mapping[str, Any] = field(default_factory=dict)
    cells: tuple[CellResult, ...] = ()
    metrics: tuple[Metric, ...] = ()
    seconds: float = 0.0
    peak_rss_mb: float | None = None  # of the job's whole process tree
    started: str = ""
    key: str = ""
    cached_from: str | None = None  # run id, when the state is skipped
    passed_over: Mapping[str, str] = field(default_factory=dict)  # what glue left that is no number, by name

    @property
    def failed(self) -> tuple[CellResult, ...]:
        """Cells that raised, timed out or took the kernel down."""
        return tuple(cell for cell in self.cells if cell.state is CellState.FAILED)


@dataclass(frozen=True)
class ReferenceRun:
    """One blessed run of one claim, with where it came from."""

    value: float
    seed: int | None
    commit: str
    date: str
    hardware: str
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """A value somebody else published, with how it was measured."""

    value: float
    citation: str
    split: str = ""
    protocol: str = ""


@dataclass(frozen=True)
class Bounds:
    """A range that needs no reference run, as for `smoke`: present, finite and inside."""

    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Claim:
    """One number that a chapter says it measures."""

    name: str
    title: str
    unit: str
    direction: str  # "higher", "lower" or "none": which way is better
    margin: float  # differences smaller than this do not matter to a reader
    blessed: Mapping[str, tuple[ReferenceRun, ...]] = field(default_factory=dict)  # by profile
    published: Mapping[str, Published] = field(default_factory=dict)
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    parameters: Mapping[str, tuple[Any, ...] | None] = field(default_factory=dict)
    """Parameters that decide what is measured, with the values it is claimed for; None: the book's own."""


@dataclass(frozen=True)
class ChapterClaims:
    """The claim file of one chapter."""

    chapter: str
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Verdict:
    """What was claimed, what was seen, and the judgement."""

    chapter: str
    claim: str
    title: str
    profile: str
    outcome: Outcome
    rule: str  # "prediction interval", "TOST", "published", "bounds", "recorded", "parameters"
    observed: tuple[float, ...] = ()
    reference: float | None = None
    delta: float | None = None  # mean of observed minus reference; under bounds, how far outside
    interval: tuple[float, float] | None = None  # values that count as reproduced, in the claim's unit
    margin: float | None = None
    unit: str = ""
    message: str = ""  # one line for a person, in English
    message_zh: str = ""  # the same line in Chinese
    delta_interval: tuple[float, float] | None = None  # of delta, 90 % confidence, where the rule needs it
    hardware: str = ""  # class of the machine of the observed runs
    reference_hardware: str = ""  # of the blessed runs they were compared with

    @property
    def foreign(self) -> bool:
        """Whether the reference was measured on another class of machine."""
        return bool(self.reference_hardware) and self.reference_hardware != self.hardware


def worst_of(verdicts: Iterable[Verdict]) -> Outcome | None:
    """The worst judgement among *verdicts*; None where there is none."""
    return min((verdict.outcome for verdict in verdicts), key=WORST_FIRST.index, default=None)


def to_json(value: Any) -> Any:
    """Plain JSON types for a dataclass of this module (or a list or dict of them)."""
    if hasattr(value, "__dataclass_fields__"):
        return to_json(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [to_json(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def metric_from_json(data: Any) -> Metric:
    """Read one metric; unknown keys are ignored so that newer files stay readable.

    Raises:
        ValueError: what stands there is no metric. Any program may have written the file.
    """
    if not isinstance(data, Mapping):
        raise ValueError("a metric must be a JSON object")
    name, n, interval = data.get("name"), data.get("n"), data.get("interval")
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"a metric's name must be an identifier, not {name!r}")
    if n is not None and (not isinstance(n, int) or isinstance(n, bool) or n < 0):
        raise ValueError(f"{name}: n must be a whole number, not {n!r}")
    if interval is not None and (not isinstance(interval, list | tuple) or len(interval) != 2):
        raise ValueError(f"{name}: interval must be two numbers")
    scores = data.get("per_example")
    if scores is not None and not isinstance(scores, list | tuple):
        raise ValueError(f"{name}: per_example must be a list of numbers")
    return Metric(
        name=name,
        value=_finite(name, "value", data.get("value")),
        unit=_text(name, "unit", data.get("unit", "")),
        n=n,
        split=None if data.get("split") is None else _text(name, "split", data["split"]),
        interval=None
        if interval is None
        else (
            _finite(name, "interval", interval[0]),
            _finite(name, "interval", interval[1]),
        ),
        per_example=None if scores is None else _scores(name, scores),
        time=None if data.get("time") is None else _text(name, "time", data["time"]),
    )


def _scores(name: str, scores: Sequence[Any]) -> tuple[float, ...]:
    if set(map(type, scores)) == {float} and math.isfinite(sum(scores)):
        return tuple(scores)  # thousands, in each of hundreds of files
    return tuple(_finite(name, "per_example", v) for v in scores)


def _finite(name: str, what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name}: {what} must be a number, not {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name}: {what} must be finite")
    return number


def _text(name: str, what: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name}: {what} must be text, not {value!r}")
    value.encode()  # half a surrogate pair is a UnicodeEncodeError, which is a ValueError
    return value


def job_result_from_json(data: Mapping[str, Any]) -> JobResult:
    """Read one job's result.json."""
    known = {k: data[k] for k in JobResult.__dataclass_fields__ if k in data}
    known["state"] = JobState(known["state"])
    known["cells"] = tuple(
        CellResult(**{**cell, "state": CellState(cell["state"])}) for cell in known.get("cells", ())
    )
    known["metrics"] = tuple(metric_from_json(m) for m in known.get("metrics", ()))
    return JobResult(**known)


def verdict_from_json(data: Mapping[str, Any]) -> Verdict:
    """Read one verdict of a run's result.json."""
    known = {k: data[k] for k in Verdict.__dataclass_fields__ if k in data}
    known["outcome"] = Outcome(known["outcome"])
    known["observed"] = tuple(known.get("observed", ()))
    for key in ("interval", "delta_interval"):
        if known.get(key) is not None:
            known[key] = tuple(known[key])
    return Verdict(**known)
