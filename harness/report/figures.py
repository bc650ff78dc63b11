"""Small figures as inline SVG, for report.html and for the site's 复现看板: no script, no style sheet needed.

Ink is ``currentColor``, so that a figure follows the text of any theme; the few colours are custom properties
of the page (``--good``, ``--bad``, ``--card-edge``) that fall back to it. Colour never says anything alone: what
differs, differs in shape, too. Every figure is 320 units wide, the width of a phone, and tells its content in
``aria-label``. Values that are no finite numbers are left out, since any program may have written the file.
"""

from __future__ import annotations

import html
import itertools
import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.judge.statistics import mean
from harness.model import Outcome
from harness.report.words import Words
from harness.wording import Language, Rounding, one_line, rounding

WIDTH = 320
TEXT_COLUMNS = 47
"""Columns of monospaced text that fit the width; a Chinese character takes two."""

_LARGEST = 1e300
_LEFT, _RIGHT = 52, 268  # of the axis in a dot plot, with room for the labels of the rows and of the band
_DIGIT = 5.8  # width of one
_GOOD, _BAD, _BAR = (f"var(--{name},currentColor)" for name in ("good", "bad", "card-edge"))


@dataclass(frozen=True)
class Reading:
    """What one run measured for a claim, and the verdict on it then."""

    when: str  # ISO 8601, or any text where it is none
    values: tuple[float, ...]  # one for each seed
    outcome: Outcome


@dataclass(frozen=True)
class Bar:
    """One cell and its time."""

    text: str
    seconds: float
    broken: bool = False


def dot_plot(
    values: Sequence[float],
    *,
    band: Sequence[float | None] | None = None,
    blessed: Sequence[float] = (),
    reference: float | None = None,
    unit: str = "",
    title: str = "",
    language: Language = "zh",
) -> str:
    """This run's values as dots, the blessed ones as hollow dots above, over the band that counts as reproduced.

    Empty where there is nothing to draw. A short line marks *reference*.
    """
    seen, past, sides = finite(values), finite(blessed), finite(band or ())
    low, high = (min(sides), max(sides)) if len(sides) == 2 else (None, None)
    if not seen and not past:
        return ""
    axis = _Axis((*seen, *past, *sides, *finite([reference])), _LEFT, _RIGHT)
    rounded = rounding(unit, seen or past, None if low is None else (low, high))
    words = Words(language)
    both = ((words.blessed, past, True), (words.this_run, seen, False))
    rows = [(name, row, hollow) for name, row, hollow in both if row]
    bottom = 6 + 18 * len(rows)
    parts = []
    if low is not None and high is not None:
        left, right = axis(low), axis(high)
        parts.append(_rectangle(left, 4, max(right - left, 1.5), bottom - 2, _GOOD, 0.18))
        parts.append(_path(f"M{left:.4g} 4V{bottom + 2}M{right:.4g} 4V{bottom + 2}", width=1, stroke=_GOOD))
    if marks := finite([reference]):
        parts.append(_path(f"M{axis(marks[0]):.4g} 4V{bottom + 2}", width=1, more=";stroke-dasharray:3 3"))
    for number, (name, row, hollow) in enumerate(rows):
        y = 15 + 18 * number
        parts.append(_label(0, y + 4, name))
        tips = ((axis(value), rounded.number(value)) for value in row)
        parts.append(_dots(tips, y, hollow=hollow))
    ends = (low, high) if low is not None and high is not None else (min(seen + past), max(seen + past))
    for place, (value, text) in enumerate(axis.labels(*ends).items()):
        width = _DIGIT * len(text)  # a long one moves inwards rather than off the figure
        x = min(axis(value) + 2, WIDTH - width) if place else max(axis(value) - 2, width)
        parts.append(_label(x, bottom + 14, text, "" if place else "end"))
    told = [title, *(f"{name} {_listed(row, rounded, words)}" for name, row, _ in rows)]
    if low is not None:
        told.append(words("reproduced", rounded.range((low, high))))
    return _svg(bottom + 18, parts, told, words)


def strip(values: Sequence[float], *, band: Sequence[float | None] | None = None) -> str:
    """Where *values* stand to *band*, which fills the middle half: so all claims of a column can be compared.

    A value inside is a dot, one outside a cross, at the edge where it lies further off. The text beside it tells the
    same, so it is hidden from screen readers. Empty without values or without both sides of the band.
    """
    seen, sides = finite(values), finite(band or ())
    if not seen or len(sides) != 2:
        return ""
    low, high = min(sides), max(sides)
    parts = [_rectangle(30, 1, 60, 10, _GOOD, 0.22), _path("M30 1V11M90 1V11", width=1, stroke=_GOOD)]
    for value in seen:
        share = (value - low) / (high - low) if high > low else 0.5 + (value > high) - (value < low)
        x = min(max(30 + 60 * share, 5), 115)
        if low <= value <= high:
            parts.append(f'<circle cx="{x:.4g}" cy="6" r="3.5" fill-opacity=".75"/>')
        else:
            parts.append(_path(f"M{x - 4:.4g} 2l8 8m0-8l-8 8", width=2, stroke=_BAD))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 120 12" width="120" height="12" aria-hidden="true"'
        f' fill="currentColor">{"".join(parts)}</svg>'
    )


def history_curve(
    readings: Sequence[Reading],
    *,
    band: Sequence[float | None] | None = None,
    unit: str = "",
    title: str = "",
    language: Language = "zh",
) -> str:
    """Means of several runs, oldest first, evenly spaced; a thin upright line spans the seeds of a run.

    A dot is a pass, a cross a failure, a hollow dot any other verdict. *band* is today's range. Empty for
    fewer than two runs.
    """
    kept = [(one, values) for one in readings if (values := finite(one.values))]
    if len(kept) < 2:
        return ""
    means, ends = [mean(values) for _, values in kept], finite(band or ())
    low, high = min(means), max(means)
    axis = _Axis([*ends, *(v for _, values in kept for v in values)], 78, 8)
    step = (WIDTH - 84) / (len(kept) - 1)
    spots = [(76 + step * i, axis(value)) for i, value in enumerate(means)]
    parts = []
    if len(ends) == 2:
        top, bottom = axis(max(ends)), axis(min(ends))
        parts.append(_rectangle(70, top, WIDTH - 70, max(bottom - top, 1.5), _GOOD, 0.18))
    spread = "".join(
        f"M{x:.0f} {axis(min(values)):.0f}V{axis(max(values)):.0f}"
        for (x, _), (_, values) in zip(spots, kept, strict=True)
        if min(values) < max(values)
    )
    parts.append(_path(spread, width=1, more=";stroke-opacity:0.55"))
    parts.append(
        _path("M" + "L".join(f"{x:.0f} {y:.0f}" for x, y in spots), width=1.2, more=";stroke-opacity:0.6")
    )
    parts += _markers([(x, y, one.outcome) for (x, y), (one, _) in zip(spots, kept, strict=True)])
    edges = {axis.label(high): axis(high), axis.label(low): axis(low)}  # one where they read alike
    if len(edges) == 2 and axis(low) - axis(high) < 13:  # the two labels would touch
        middle = (axis(low) + axis(high)) / 2
        edges = {axis.label(high): middle - 6.5, axis.label(low): middle + 6.5}
    parts += [_label(64, y + 4, text, "end") for text, y in edges.items()]
    first, last = _day(kept[0][0].when), _day(kept[-1][0].when)
    parts += [_label(72, 98, first), _label(WIDTH, 98, last, "end")]
    words = Words(language)
    rounded = rounding(unit, means, (min(ends), max(ends)) if len(ends) == 2 else None)
    told = [
        title,
        words("runs_from_to", len(kept), first, last),
        words("lowest", rounded.number(low)),
        words("highest", rounded.number(high)),
        words("latest", rounded.number(means[-1])),
    ]
    return _svg(102, [part for part in parts if part], told, words)


def cell_bars(bars: Iterable[Bar], *, most: int = 10, title: str = "", language: Language = "zh") -> str:
    """The *most* slowest cells, slowest first, each with its text; the rest as one bar. Empty without any."""
    timed = sorted((b for b in bars if finite([b.seconds])), key=lambda b: b.seconds, reverse=True)
    if not timed:
        return ""
    words, shown, rest = Words(language), timed[:most], timed[most:]
    if rest:
        name = words("more_cells", len(rest))
        shown = [*shown, Bar(name, sum(b.seconds for b in rest))]
    longest = max(b.seconds for b in shown) or 1.0
    texts, blocks, times = [], [], []
    for number, bar in enumerate(shown):
        y, length = 30 * number, max(250 * bar.seconds / longest, 1)
        texts.append(_label(0, y + 12, clip(("✗ " if bar.broken else "") + bar.text, TEXT_COLUMNS)))
        look = f' style="fill:{_BAD}"' if bar.broken else ""
        blocks.append(f'<rect y="{y + 17}" width="{length:.4g}" height="7"{look}/>')
        times.append(_label(length + 5, y + 24.5, words.took_time(bar.seconds)))
    parts = [
        f'<g font-family="monospace">{"".join(texts)}</g>',
        f'<g style="fill:{_BAR}">{"".join(blocks)}</g>',
        *times,
    ]
    slowest = timed[0]
    told = [
        title,
        words("cells", len(timed)),
        words("slowest", words.took_time(slowest.seconds), clip(slowest.text, TEXT_COLUMNS)),
    ]
    return _svg(30 * len(shown), parts, told, words)


def finite(values: Iterable[Any]) -> tuple[float, ...]:
    """The numbers among *values*, without NaN, infinities and what is too large to reckon with."""
    numbers = (v for v in values if isinstance(v, int | float) and not isinstance(v, bool))
    return tuple(float(v) for v in numbers if abs(v) <= _LARGEST)


def clip(text: str, columns: int) -> str:
    """*text* on one line of at most so many *columns*, with an ellipsis where some of it is left out."""
    line = one_line(text)
    widths = [2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in line]
    if sum(widths) <= columns:
        return line
    ends = itertools.accumulate(widths)
    return line[: sum(end < columns for end in ends)] + "…"


class _Axis:
    """Maps values to one coordinate; a single value stands in the middle."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        self._low, self._span = min(values), max(values) - min(values)
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (value - self._low) / self._span if self._span else 0.5
        return self._start + share * (self._end - self._start)

    def labels(self, *values: float) -> dict[float, str]:
        """Each of *values* as :meth:`label` has it, but with so many more digits that no two read alike."""
        texts = {value: self.label(value) for value in values}
        digits = 3
        while len(set(texts.values())) < len(texts):
            digits += 1  # 17 tell any two floats apart
            texts = {value: f"{value:#.{digits}g}" for value in values}
        return texts

    def label(self, value: float) -> str:
        """*value* with as many digits as this axis can show, without its unit."""
        decimals = 2 - math.floor(math.log10(self._span or abs(value) or 1.0))
        text = f"{value:.{max(decimals, 0)}f}" if decimals < 7 else f"{value:.3g}"
        return text if len(text) <= 8 else f"{value:.3g}"


def _svg(height: float, parts: Sequence[str], told: Sequence[str], words: Words) -> str:
    label = _escape(words.semicolon.join(text for text in told if text))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}"'
        f' height="{height:g}" role="img" aria-label="{label}" font-size="11" fill="currentColor"'
        f' style="max-width:100%;height:auto">{"".join(parts)}</svg>'
    )


def _escape(text: str) -> str:
    return html.escape(one_line(text))


def _label(x: float, y: float, text: str, anchor: str = "") -> str:
    more = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text x="{x:.4g}" y="{y:.4g}"{more}>{_escape(text)}</text>'


def _rectangle(x: float, y: float, width: float, height: float, fill: str, opacity: float) -> str:
    return (
        f'<rect x="{x:.4g}" y="{y:.4g}" width="{width:.4g}" height="{height:.4g}"'
        f' style="fill:{fill};fill-opacity:{opacity:g}"/>'
    )


def _path(d: str, *, width: float, stroke: str = "currentColor", more: str = "") -> str:
    """Lines without a fill; empty where *d* is."""
    if not d:
        return ""
    style = f"stroke:{stroke};stroke-width:{width:g}{more}"
    return f'<path d="{d}" fill="none" stroke-linecap="round" style="{style}"/>'


def _dots(places: Iterable[tuple[float, str]], y: float, *, hollow: bool) -> str:
    """A row of dots, each with what a pointer is told."""
    look = 'fill="none" stroke="currentColor" stroke-width="1.3"' if hollow else 'fill-opacity=".75"'
    dots = (
        f'<circle cx="{x:.4g}" cy="{y:g}" r="4"><title>{_escape(tip)}</title></circle>' for x, tip in places
    )
    return f"<g {look}>{''.join(dots)}</g>"


def _markers(spots: Sequence[tuple[float, float, Outcome]]) -> list[str]:
    """All passes in one path, all failures in another, whole units: a curve of fifty runs stays small."""
    passed = [(x, y) for x, y, outcome in spots if outcome is Outcome.PASS]
    failed = [(x, y) for x, y, outcome in spots if outcome is Outcome.FAIL]
    others = [(x, y) for x, y, outcome in spots if outcome not in (Outcome.PASS, Outcome.FAIL)]
    dots = "".join(f"M{x:.0f} {y:.0f}h0" for x, y in passed)
    crosses = "".join(f"M{x - 3:.0f} {y - 3:.0f}l6 6m0-6l-6 6" for x, y in failed)
    rings = "".join(f"M{x - 3:.0f} {y:.0f}a3 3 0 1 0 6 0a3 3 0 1 0-6 0" for x, y in others)
    return [_path(dots, width=6), _path(crosses, width=2, stroke=_BAD), _path(rings, width=1.3)]


def _listed(values: Sequence[float], rounded: Rounding, words: Words) -> str:
    """Up to five numbers; of more, how many and their range."""
    if len(values) <= 5:
        return words.list_comma.join(map(rounded.number, values))
    return words("many_values", len(values), rounded.range((min(values), max(values))))


def _day(when: str) -> str:
    """“11-24 13:30” of an ISO 8601 time; the beginning of any other text."""
    return when[5:16].replace("T", " ") if when[4:5] == "-" and when[10:11] == "T" else when[:16] or "—"
