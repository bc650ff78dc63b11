"""When what two runs measured differs, and when what their cells put out does: metrics with their tests, and outputs.

Metrics. Which test applies depends on what both runs recorded of a metric:

two or more common seeds: *paired t*
    Student's test of the differences, seed by seed. Differences that are all the same leave nothing to
    estimate a spread from: they are tested by their *signs*. A metric that three or more seeds do not change
    in either run differs for certain: *exact*.
one common seed, one score per example: *McNemar* for scores of 0 and 1, *paired bootstrap* for others
    The bootstrap gives the interval, the randomization of signs the p-value. Both speak of these examples
    under this seed: the spread from seed to seed is not in them. The scores must be what the value is the
    mean of, on the same split and of the same number.
no common seed, two or more runs each: *Welch*
anything else: none, and the note says why.

The tests that go by signs (*signs*, *McNemar* and the randomization) give no p-value below 2 / 2ⁿ for n seeds or
examples. Where that does not reach ALPHA, whatever was measured, the metric is *undecided*, and how many it takes is
said.

The p-values of one comparison are adjusted together (Holm), so that among many metrics of two equal runs the
chance of calling any of them different stays ALPHA.

Outputs. Text is compared after what varies from run to run anyway is blotted out: memory addresses, durations and
rates, points in time, temporary files. Images are compared by their bytes; other kinds of output are not.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from harness.book.notebook import read_document
from harness.judge.statistics import (
    holm,
    mcnemar,
    mean,
    paired_bootstrap,
    paired_t,
    randomization,
    rounding_of,
    welch_t,
)
from harness.model import CellResult, CellState, Metric
from harness.wording import Rounding, rounding_apart

ALPHA = 0.05
"""An adjusted p-value below this is significant."""
SEEDS_FOR_CERTAINTY = 3
"""So many seeds that give the same value show that the seed does not matter."""
LARGEST = 1e100
"""Beyond this the squares of a test would overflow."""
_RESAMPLES = 2000
_MEAN_TOLERANCE = 1e-4  # relative: a mean that was computed in float32

EXCERPT_LINES = 8
"""So many lines of a cell's difference are kept …"""
_LINE_LENGTH = 160  # … each cut to so many characters
_WINDOW = 40  # lines from the first difference on that are looked at
# bounded: time must grow no faster than the text
_NUMBER = r" {0,4}(?<![\d.])\d{1,15}(\.\d{1,15})?"
_VARYING = tuple(
    (re.compile(pattern, flags), shown)
    for pattern, shown, flags in (
        (r"\x1b\[[0-?]*[ -/]*[@-~]", "", 0),
        (r"\b0x[0-9a-fA-F]{6,}\b", "0x…", 0),
        (r"(?<=/)hk-[0-9a-f]{8}/tmp/", "", 0),  # a job's own temporary folder
        (r"(?<=/)ipykernel_\d+/\d+(?=\.py)", "ipykernel_…", 0),
        (r"(?<=/)tmp[a-z0-9_]{8}\b", "tmp…", 0),
        (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d:?\d\d)?", "<time>", 0),
        (r"^(CPU times|Wall time): .*$", r"\1: …", re.MULTILINE),
        (r"(?<!\d)\d{1,3}:\d\d(:\d\d)?<(\d{1,3}:\d\d(:\d\d)?|\?)", "…<…", 0),  # tqdm
        (rf"({_NUMBER}|\?) ?[A-Za-z]+/s\b|{_NUMBER} ?s/[a-z]+", "…/s", 0),
        (rf"{_NUMBER} ?(ns|µs|us|ms|s|secs?|seconds?|mins?|minutes?)(?![A-Za-z0-9_])", "… s", 0),
        (rf"({_NUMBER} ?分 ?)?{_NUMBER} ?秒|{_NUMBER} ?(毫秒|分钟)", "… s", 0),
    )
)
_TEXTS = ("text/plain", "text/markdown", "text/latex")
_OBJECT = re.compile(r"<[\w.]+ object>")  # beside what the object shows

_T = TypeVar("_T")

BySeed = Mapping[int | None, Metric]
"""What the jobs of one notebook recorded under one name; None is a notebook without a seed."""


class Change(StrEnum):
    """What became of one metric from A to B."""

    IDENTICAL = "identical"
    BETTER = "better"  # significantly, by the direction of its claim
    WORSE = "worse"
    DIFFERENT = "different"  # significantly, and no claim says which way is better
    NOT_SIGNIFICANT = "not significant"
    UNDECIDED = "too few to tell"  # the test could not have called any change significant
    UNTESTED = "untested"  # they differ, and nothing tells whether by chance
    NOT_APPLICABLE = "not applicable"  # the claim's parameters differ: not the same thing was measured
    ONLY_A = "only in A"
    ONLY_B = "only in B"


@dataclass(frozen=True)
class MetricDiff:
    """One metric of one notebook in two runs."""

    notebook: str
    name: str
    unit: str
    change: Change
    a: float | None = None  # mean over the seeds compared
    b: float | None = None
    delta: float | None = None  # B minus A
    seeds: tuple[int | None, ...] = ()  # that both ran; empty where they have none in common
    runs_a: int = 0  # values recorded, of whatever seed
    runs_b: int = 0
    test: str = ""  # as in the module's docstring; empty without a test
    interval: tuple[float, float] | None = None  # of the difference, 95 %, not adjusted
    p_value: float | None = None
    p_adjusted: float | None = None  # for all tests of the comparison
    direction: str = ""  # of the claim; empty where nothing is claimed
    note: str = ""
    too_few: str = ""  # why the test cannot reach ALPHA, and what it takes

    @property
    def rounded(self) -> Rounding:
        """How far its numbers are told."""
        if self.a is None or self.b is None or self.delta is None:
            return Rounding(self.unit)  # one of two that are not compared says nothing of the other
        return rounding_apart(self.unit, self.a, self.b, self.interval)


@dataclass(frozen=True)
class CellChange:
    """One cell whose outputs differ."""

    id: str
    index: int  # position among all cells of B's notebook, from 0; of A's, where only A has the cell
    what: tuple[str, ...]  # of "text", "image", "only in A", "only in B"
    code_changed: bool = False
    excerpt: tuple[str, ...] = ()  # of a unified diff of the texts, without heads: "-old", "+new"


# -- metrics -----------------------------------------------------------------------------------------


def compare_metric(
    notebook: str, name: str, a: BySeed, b: BySeed, direction: str = "", apart: str = ""
) -> MetricDiff:
    """One metric in two runs, tested but not yet judged: that takes all tests (:func:`judge_together`).

    *apart* says in which parameters the runs differ that decide what is measured; they are not compared then.
    """
    seeds = tuple(seed for seed in a if seed in b)
    metrics_a, metrics_b = ([run[s] for s in seeds] or list(run.values()) for run in (a, b))
    values_a, values_b = ([metric.value for metric in metrics] for metrics in (metrics_a, metrics_b))
    unit_a, unit_b = (next((m.unit for m in ms if m.unit), "") for ms in (metrics_a, metrics_b))
    found = MetricDiff(
        notebook, name, unit_b or unit_a, Change.UNTESTED,
        seeds=seeds, runs_a=len(a), runs_b=len(b), direction=direction,
    )  # fmt: skip
    if any(abs(value) > LARGEST for value in (*values_a, *values_b)):
        return replace(found, note=f"a value beyond {LARGEST:g}: not compared")
    means = [mean(values) if values else None for values in (values_a, values_b)]
    found = replace(found, a=means[0], b=means[1])
    if not a or not b:
        return replace(found, change=Change.ONLY_A if a else Change.ONLY_B)
    if unit_a and unit_b and unit_a != unit_b:
        note = f"recorded in {unit_a!r} in A and in {unit_b!r} in B: not compared"
        return replace(found, unit="", note=note)
    if apart:
        return replace(found, change=Change.NOT_APPLICABLE, note=apart)
    found = replace(found, delta=mean(values_b) - mean(values_a))
    if seeds and values_a == values_b:
        return replace(found, change=Change.IDENTICAL)
    if min(len(values_a), len(values_b)) >= SEEDS_FOR_CERTAINTY and len({*values_a}) == len({*values_b}) == 1:
        return replace(found, test="exact")
    if len(seeds) >= 2:
        return _paired(found, values_b, values_a)
    if seeds:
        return _per_example(found, metrics_b[0], metrics_a[0])
    if min(len(values_a), len(values_b)) >= 2:
        return _unpaired(found, values_b, values_a)
    return replace(found, note="no common seed, and one run is too few: no significance")


def _paired(found: MetricDiff, b: Sequence[float], a: Sequence[float]) -> MetricDiff:
    differences = [y - x for y, x in zip(b, a, strict=True)]
    if _no_spread(differences, (*a, *b)):
        note = "the same difference under every seed"
        found = replace(found, test="signs", p_value=randomization(differences, seed=0), note=note)
        return replace(found, too_few=_too_few(len(differences), "seeds"))
    result = paired_t(b, a)
    return replace(found, test="paired t", interval=result.interval, p_value=result.p_value)


def _unpaired(found: MetricDiff, b: Sequence[float], a: Sequence[float]) -> MetricDiff:
    if _no_spread(a, a) and _no_spread(b, b):
        return replace(found, note="no common seed, and no spread in either run: no significance")
    result = welch_t(b, a)
    return replace(found, test="Welch", interval=result.interval, p_value=result.p_value)


def _no_spread(values: Sequence[float], terms: Sequence[float]) -> bool:
    """Whether *values*, computed from *terms*, are equal but for rounding."""
    return max(values) - min(values) <= rounding_of(*terms)


def _per_example(found: MetricDiff, b: Metric, a: Metric) -> MetricDiff:
    problem = _unpairable(b, a)
    if problem:
        return replace(found, note=f"{problem}: no significance")
    assert a.per_example is not None and b.per_example is not None
    found = replace(found, too_few=_too_few(len(a.per_example), "examples"))
    if {*a.per_example, *b.per_example} <= {0.0, 1.0}:
        result = mcnemar([v == 1 for v in b.per_example], [v == 1 for v in a.per_example])
        note = f"{result.only_b} examples score 1 in B alone, {result.only_a} in A"
        return replace(found, test="McNemar", p_value=result.p_value, note=note)
    differences = [y - x for y, x in zip(b.per_example, a.per_example, strict=True)]
    interval = paired_bootstrap(differences, seed=0, n=_RESAMPLES).interval
    return replace(
        found, test="paired bootstrap", interval=interval, p_value=randomization(differences, seed=0)
    )


SIGNS_NEEDED = math.floor(1 - math.log2(ALPHA)) + 1
"""So many differences it takes before 2 / 2ⁿ, were all of one sign, is below ALPHA."""


def _too_few(count: int, what: str) -> str:
    """That *count* differences cannot show anything by their signs; empty where they can."""
    if count >= SIGNS_NEEDED:
        return ""
    return f"{count} {what} cannot show p < {ALPHA:g}: at least {SIGNS_NEEDED} are needed"


def _unpairable(b: Metric, a: Metric) -> str:
    """Why the scores of two runs cannot be compared example by example; empty if they can."""
    if not a.per_example or not b.per_example:
        return "one run each"
    if len(a.per_example) != len(b.per_example):
        return f"one run each, on {len(a.per_example)} and {len(b.per_example)} examples"
    if a.split != b.split:
        return f"one run each, on the splits {a.split} and {b.split}"
    if max(map(abs, (*a.per_example, *b.per_example))) > LARGEST:
        return f"one run each, and a score beyond {LARGEST:g}"
    if not all(math.isclose(m.value, mean(m.per_example or ()), rel_tol=_MEAN_TOLERANCE, abs_tol=1e-9)
               for m in (a, b)):  # fmt: skip
        return "one run each, and the value is not the mean of its per_example"
    return ""


def judge_together(diffs: Sequence[MetricDiff]) -> list[MetricDiff]:
    """All metrics of one comparison, judged with p-values adjusted for how many were tested."""
    adjusted = iter(holm([d.p_value for d in diffs if d.p_value is not None]))
    return [_judged(d if d.p_value is None else replace(d, p_adjusted=next(adjusted))) for d in diffs]


def _judged(diff: MetricDiff) -> MetricDiff:
    if not diff.test:
        return diff
    if diff.p_adjusted is not None and diff.p_adjusted >= ALPHA:
        return replace(diff, change=Change.UNDECIDED if diff.too_few else Change.NOT_SIGNIFICANT)
    if diff.direction not in ("higher", "lower") or not diff.delta:
        return replace(diff, change=Change.DIFFERENT)
    better = (diff.delta > 0) == (diff.direction == "higher")
    return replace(diff, change=Change.BETTER if better else Change.WORSE)


# -- outputs of cells --------------------------------------------------------------------------------


def _keyed(cells: Iterable[_T], name: Callable[[_T], str]) -> dict[tuple[str, int], _T]:
    """By id and, as an id may stand there twice, the how manieth of that id it is."""
    seen: Counter[str] = Counter()
    keyed = {}
    for cell in cells:
        keyed[name(cell), seen[name(cell)]] = cell
        seen[name(cell)] += 1
    return keyed


def counterparts(a: Sequence[CellResult], b: Sequence[CellResult]) -> list[tuple[CellResult, CellResult]]:
    """The cells that both have, in the order of B: by id, and by order among cells of one id.

    By position alone where no id is shared: runs of a notebook without ids made new ones each time.
    """
    old, new = (_keyed(cells, lambda cell: cell.id) for cells in (a, b))
    if not old.keys() & new.keys():
        old, new = ({("", cell.index): cell for cell in cells} for cells in (a, b))
    return [(old[key], cell) for key, cell in new.items() if key in old]


def _cells(path: Path, results: Sequence[CellResult]) -> list[tuple[CellResult, Mapping[str, Any]]]:
    """How the cells of an executed notebook ended, each with what it left there."""
    code = (cell for cell in read_document(path)["cells"] if cell["cell_type"] == "code")
    left = _keyed(code, lambda cell: cell.get("id", ""))
    ended = _keyed(results, lambda result: result.id)
    return [(result, left[key]) for key, result in ended.items() if key in left]


def changed_cells(
    a: Path, b: Path, cells_a: Sequence[CellResult], cells_b: Sequence[CellResult]
) -> tuple[CellChange, ...]:
    """The cells of two executed notebooks whose outputs differ, in the order of B, then what only A has.

    *cells_a* and *cells_b* say how the cells ended. One that either run did not reach is left out: the state of its
    job tells that.

    Raises:
        HarnessError: a file cannot be read or is no notebook.
    """
    if a.is_file() and b.is_file() and a.read_bytes() == b.read_bytes():
        return ()  # the one was kept for the other
    partners = {new.index: old.index for old, new in counterparts(cells_a, cells_b)}
    before = {result.index: (result, cell) for result, cell in _cells(a, cells_a)}
    found: list[CellChange | None] = []
    for result, cell in _cells(b, cells_b):
        old = before.get(partners.get(result.index, -1))
        if old is not None and CellState.PENDING not in (result.state, old[0].state):
            found.append(_compare_cells(old[1], cell, result))
        elif old is None and cell.get("outputs"):
            found.append(CellChange(result.id, result.index, ("only in B",)))
    found += [
        CellChange(result.id, index, ("only in A",))
        for index, (result, cell) in before.items()
        if index not in partners.values() and cell.get("outputs")
    ]
    return tuple(change for change in found if change is not None)


def _compare_cells(a: Mapping[str, Any], b: Mapping[str, Any], result: CellResult) -> CellChange | None:
    text_a, text_b = "".join(_parts(a)), "".join(_parts(b))
    if text_a != text_b:
        text_a, text_b = _without_varying(text_a), _without_varying(text_b)
    what = ("text",) * (text_a != text_b) + ("image",) * (list(_images(a)) != list(_images(b)))
    if not what:
        return None
    code_changed = _joined(a["source"]) != _joined(b["source"])
    return CellChange(result.id, result.index, what, code_changed, _excerpt(text_a, text_b))


def _without_varying(text: str) -> str:
    for pattern, shown in _VARYING:
        text = pattern.sub(shown, text)
    return text


def _parts(cell: Mapping[str, Any]) -> Iterator[str]:
    """All text of a cell's outputs."""
    for output in cell.get("outputs", ()):
        if not isinstance(output, Mapping):
            continue
        if output.get("output_type") == "error":
            yield f"{output.get('ename')}: {output.get('evalue')}\n"
        for text in (output.get("text"), *(_data(output).get(kind) for kind in _TEXTS)):
            if text and not _OBJECT.fullmatch(_joined(text)):
                yield _joined(text).removesuffix("\n") + "\n"


def _images(cell: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for output in cell.get("outputs", ()):
        for kind, data in _data(output).items():
            if kind.startswith("image/"):
                yield kind, "".join(_joined(data).split())


def _data(output: Any) -> Mapping[str, Any]:
    data = output.get("data") if isinstance(output, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def _joined(value: Any) -> str:
    """Text as a notebook holds it: in one piece or as a list of lines."""
    return value if isinstance(value, str) else "".join(map(str, value)) if isinstance(value, list) else ""


def _excerpt(a: str, b: str) -> tuple[str, ...]:
    """The first changed lines. Only a window is compared: difflib's time grows with the square of its input."""
    lines_a, lines_b = a.splitlines(), b.splitlines()
    pairs = zip(lines_a, lines_b, strict=False)
    start = next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(lines_a), len(lines_b)))
    windows = (lines[start : start + _WINDOW] for lines in (lines_a, lines_b))
    lines = [line for line in difflib.unified_diff(*windows, n=0, lineterm="") if line[:2] != "@@"][2:]
    return tuple(line[:_LINE_LENGTH] for line in islice(lines, EXCERPT_LINES))
