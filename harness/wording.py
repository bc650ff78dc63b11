"""How numbers, states and judgements read: the one place for number formats and words in two languages."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from harness.model import CellResult, JobResult, JobState, Outcome

Language = Literal["en", "zh"]


def html_language(language: Language) -> str:
    """The ``lang`` of a page."""
    return "zh-CN" if language == "zh" else "en"


_SECONDS = ("s", "seconds")
_DIMENSIONLESS = ("", "1", "absolute")  # an absolute difference has the unit of what differs
_RATIOS = ("ratio", "x", "×")


class Text(NamedTuple):
    """One sentence in the two languages of the project."""

    en: str
    zh: str

    def into(self, language: Language) -> str:
        """The sentence in *language*."""
        return self.en if language == "en" else self.zh


def join(texts: Iterable[Text | None]) -> Text:
    """Several sentences as one line; None is left out."""
    kept = [text for text in texts if text is not None]
    return Text("; ".join(t.en for t in kept), "；".join(t.zh for t in kept))


SYMBOLS: Mapping[Outcome, str] = {
    Outcome.PASS: "✓",
    Outcome.FAIL: "✗",
    Outcome.INCONCLUSIVE: "≈",
    Outcome.MISSING: "○",
    Outcome.UNEXPECTED: "+",
    Outcome.NOT_APPLICABLE: "–",
}
OUTCOMES: Mapping[Outcome, Text] = {
    Outcome.PASS: Text("pass", "通过"),
    Outcome.FAIL: Text("fail", "未通过"),
    Outcome.INCONCLUSIVE: Text("inconclusive", "无法判定"),
    Outcome.MISSING: Text("missing", "未记录"),
    Outcome.UNEXPECTED: Text("unexpected", "未声明"),
    Outcome.NOT_APPLICABLE: Text("not applicable", "不适用"),
}
STATES: Mapping[JobState, Text] = {
    JobState.COMPLETED: Text("completed", "完成"),
    JobState.FAILED: Text("failed", "出错"),
    JobState.TIMED_OUT: Text("timed out", "超时"),
    JobState.DEAD: Text("dead", "内核中止"),
    JobState.EXITED_EARLY: Text("exited early", "提前退出"),
    JobState.INVALID: Text("invalid", "无法运行"),
    JobState.SKIPPED: Text("cached", "沿用缓存"),
    JobState.CANCELLED: Text("cancelled", "已取消"),
}
RULES: Mapping[str, Text] = {
    "prediction interval": Text("prediction interval", "预测区间"),
    "TOST": Text("equivalence (TOST)", "等价检验（TOST）"),
    "published": Text("published value", "发表值"),
    "bounds": Text("bounds", "取值范围"),
    "recorded": Text("recorded", "有无记录"),
    "parameters": Text("parameters", "适用的参数"),
}


def _without_negative_zero(text: str) -> str:
    return text if float(text) else text.replace("-", "").replace("+", "")


_KEPT_DIGITS = 6
"""Significant digits that are shown at most; behind them a number says nothing."""
_UNKNOWN_DIGITS = 4
"""Significant digits of a number of which no uncertainty is known."""

Interval = tuple[float | None, float | None]


@dataclass(frozen=True)
class Rounding:
    """How the numbers of one claim are written: all to the same place. Made by :func:`rounding`."""

    unit: str = ""
    place: int | None = None  # decimals, negative before the point; None: so many significant *digits*
    digits: int = _UNKNOWN_DIGITS

    def number(self, value: float | None, *, signed: bool = False) -> str:
        """“0.873”, “+0.012”, “3.41×”, “5.52 bits”; a dash for None."""
        if value is None:
            return "—"
        if not math.isfinite(value):
            return str(value)
        return self._plain(value, signed) + self.suffix

    def range(self, interval: Interval | None, *, signed: bool = False) -> str:
        """“[0.790, 0.830]”, “[5.47, 5.57] bits”; an open side reads −∞ or ∞."""
        if interval is None:
            return "—"
        low, high = (None if v is None or not math.isfinite(v) else self._plain(v, signed) for v in interval)
        return f"[{'−∞' if low is None else low}, {'∞' if high is None else high}]{self.suffix}"

    @property
    def suffix(self) -> str:
        """The unit as it stands behind a number; empty where the number has none."""
        if self.unit == "fraction" or self.unit in _DIMENSIONLESS:
            return ""
        return "×" if self.unit in _RATIOS else " s" if self.unit in _SECONDS else f" {self.unit}"

    def _plain(self, value: float, signed: bool) -> str:
        sign = "+" if signed else ""
        if self.place is None:
            whole = float(value).is_integer() and abs(value) < 1e15
            return _without_negative_zero(f"{value:{sign}{'.0f' if whole else f'.{self.digits}g'}}")
        digits = self.place + _magnitude(value) + 1 if value else 0
        if digits > 0 and (self.place > _KEPT_DIGITS or abs(value) >= 1e9):  # too many zeros to count
            return f"{value:{sign}.{digits - 1}e}"
        if self.place > _KEPT_DIGITS:
            return "0"
        return _without_negative_zero(f"{round(value, self.place):{sign}.{max(self.place, 0)}f}")


def rounding(
    unit: str = "",
    values: Sequence[float] = (),
    interval: Interval | None = None,
    *,
    reference: float | None = None,
    uncertain: bool = True,
) -> Rounding:
    """The one rule by which reports, pages, terminal and messages round the numbers of a claim.

    Values, reference, difference and interval end at the second significant digit of the uncertainty, as the
    *Guide to the expression of uncertainty in measurement* has it (JCGM 100:2008, 7.2.6: at most two digits of an
    uncertainty, and the estimate to the same place). The uncertainty is half of *interval*'s width; without one, half
    of the spread of *values* over the seeds. So a difference that is nothing beside the interval reads 0.000.

    Three limits. Never more than six significant digits. Where nothing is known of
    the uncertainty, four, and whole numbers whole. And where a value lies outside the interval, as many digits more as
    it takes to see that.

    Args:
        values: of the runs.
        interval: values that count as reproduced, or of a confidence interval.
        reference: what the values are compared with.
        uncertain: False where *interval* is no uncertainty but a range that was set (bounds).
    """
    finite = [v for v in values if math.isfinite(v)]
    sides = [v for v in interval or () if v is not None and math.isfinite(v)]
    known = [*finite, *sides, *(v for v in (reference,) if v is not None and math.isfinite(v))]
    largest = max(map(abs, known), default=0.0)
    finest = _KEPT_DIGITS - 1 - _magnitude(largest) if largest else _KEPT_DIGITS
    half = None
    if uncertain and len(sides) == 2:
        half = abs(sides[1] - sides[0]) / 2
    elif len(finite) > 1 and min(finite) < max(finite):
        half = (max(finite) - min(finite)) / 2
    broken = [(v, side) for v in finite for side in _broken(v, interval)]
    if half is None or not math.isfinite(half):
        found = Rounding(unit)
        while found.digits < _KEPT_DIGITS and _alike(found, broken):
            found = Rounding(unit, digits=found.digits + 1)
        return found
    found = Rounding(unit, min(1 - _magnitude(half), finest) if half else finest)
    while found.place is not None and found.place < finest and _alike(found, broken):
        found = Rounding(unit, found.place + 1)
    return found


def rounding_apart(unit: str, a: float, b: float, interval: Interval | None = None) -> Rounding:
    """The same rule for two values and their difference, whose 95 % *interval* is the uncertainty.

    Without one nothing is known of it: four significant digits of the smaller one, whole numbers whole, and so many
    more that the two do not read alike; never more than six of the larger.
    """
    if interval is not None:
        return rounding(unit, (b - a,), interval, reference=max(a, b, key=abs))
    values = [value for value in (a, b) if value and math.isfinite(value)]
    if not values:
        return Rounding(unit)
    finest = _KEPT_DIGITS - 1 - max(map(_magnitude, values))
    place = min(_UNKNOWN_DIGITS - 1 - min(map(_magnitude, values)), finest)
    if all(float(value).is_integer() for value in values):
        return Rounding(unit, 0)
    while place < finest and a != b and _alike(Rounding(unit, place), [(a, b)]):
        place += 1
    return Rounding(unit, place)


def _broken(value: float, interval: Interval | None) -> list[float]:
    """The side of *interval* that *value* lies beyond, if any."""
    low, high = interval or (None, None)
    return [low] if low is not None and value < low else [high] if high is not None and value > high else []


def _alike(found: Rounding, pairs: Iterable[tuple[float, float]]) -> bool:
    return any(found.number(a) == found.number(b) for a, b in pairs)


def _magnitude(value: float) -> int:
    """Power of ten of the first significant digit, once it is rounded to two: 0.0996 is 0.10."""
    return int(f"{abs(value):.1e}".partition("e")[2])


def format_seconds(seconds: float | None, language: Language = "en") -> str:
    """“4.2 s”, “3 min 52 s”, “1 h 04 min”; in Chinese “3 分 52 秒” and so on."""
    if seconds is None:
        return "—"
    hour, minute, second = ("h", "min", "s") if language == "en" else ("小时", "分", "秒")
    if seconds < 59.95:
        return f"{seconds:.1f} {second}"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} {minute} {rest:02d} {second}"
    return f"{minutes // 60} {hour} {minutes % 60:02d} {minute}"


def format_memory(megabytes: float | None) -> str:
    """“512 MB”, “1.9 GB”."""
    if megabytes is None:
        return "—"
    return f"{megabytes / 1024:.1f} GB" if megabytes >= 1024 else f"{megabytes:.0f} MB"


def one_line(text: object) -> str:
    """*text* on one line, without terminal escapes and control characters."""
    plain = "".join(c if c.isprintable() else " " for c in _strip_escapes(str(text)))
    return " ".join(plain.split())


def _strip_escapes(text: str) -> str:
    return re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?", "", text)


LABEL_LENGTH = 60
_PREPARES = re.compile(r"(?:import|from)\s|[%@]")
"""How a line begins that many cells have and that tells none of them: an import, a magic, a decorator."""


def cell_label(source: str) -> str:
    """The line of its code that a person knows a cell by: the first that does more than prepare; cut if it is long.

    Comments are passed over, and imports, magics and decorators too where there is anything else.
    """
    lines = [line for line in map(one_line, source.splitlines()) if line and not line.startswith("#")]
    label = next(_telling(lines), lines[0] if lines else "")
    return label if len(label) <= LABEL_LENGTH else label[: LABEL_LENGTH - 1] + "…"


def _telling(lines: Iterable[str]) -> Iterator[str]:
    """Those of *lines* that do more than prepare; an import may go on over several."""
    until = ""  # what an import that goes on ends with
    for line in lines:
        code = line.partition("#")[0].rstrip()
        if until == ")":
            until = "" if ")" in code else until
        elif until or _PREPARES.match(line):
            until = "\\" if code.endswith("\\") else ")" if "(" in code and ")" not in code else ""
        else:
            yield line


def markdown_text(text: str) -> str:
    """*text* as literal Markdown on one line: no markup, no HTML, no new table column."""
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", one_line(text)).replace("<", "&lt;")


def markdown_code(text: str) -> str:
    """*text* as inline code that may stand in a table."""
    plain = one_line(text).replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", plain)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {plain} {fence}" if longest else f"`{plain}`"


def ending(job: JobResult) -> Text:
    """How a job ended, and why."""
    state = STATES[job.state]
    if not job.reason:
        return state
    reason = one_line(job.reason)
    return Text(f"{state.en}: {reason}", f"{state.zh}：{reason}")


def untold(job: JobResult) -> tuple[CellResult, ...]:
    """The cells that failed and that the job's reason does not already name, by number and id."""
    return tuple(cell for cell in job.failed if cell.name not in job.reason)


def first_of(names: Sequence[str], most: int = 5) -> str:
    """*names*, of many only the first."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
