"""How numbers, states and judgements read: the one place for number formats and words in two languages."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
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


def format_number(value: float | None, unit: str = "", *, signed: bool = False) -> str:
    """0.8123 for a fraction, 3.4×, 12.3 s; else six significant digits and the unit; a dash for None."""
    if value is None:
        return "—"
    if not math.isfinite(value):
        return str(value)
    sign = "+" if signed else ""
    if unit == "fraction":
        return _without_negative_zero(f"{value:{sign}.4f}")
    if unit in _RATIOS or unit in _SECONDS:
        digits = ".1f" if abs(value) >= 1 else ".2g"
        return _without_negative_zero(f"{value:{sign}{digits}}") + (" s" if unit in _SECONDS else "×")
    text = _without_negative_zero(f"{value:{sign}.6g}")
    return f"{text} {unit}" if unit not in _DIMENSIONLESS else text


def _without_negative_zero(text: str) -> str:
    return text if float(text) else text.replace("-", "").replace("+", "")


def format_range(
    interval: tuple[float | None, float | None] | None, unit: str = "", *, signed: bool = False
) -> str:
    """“[0.7900, 0.8300]”; an open side reads −∞ or ∞."""
    if interval is None:
        return "—"
    low, high = (v if v is not None and math.isfinite(v) else None for v in interval)
    left = "−∞" if low is None else format_number(low, unit, signed=signed)
    right = "∞" if high is None else format_number(high, unit, signed=signed)
    return f"[{left}, {right}]"


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
