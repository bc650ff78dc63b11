"""Numbers that other tools left in a notebook's outputs: MyST's ``glue``, scrapbook's and papermill's records.

A chapter written for another tool needs no change to be judged. What is read:

- ``glue(name, value)`` of MyST-NB, with ``display`` true or false: the value is a *repr*, such as
  ``np.float64(0.91)``, and is read as one. A formatted text that plainly is a number is one: ``'92.3%'`` is 0.923, a
  fraction; ``'1,234'`` is 1234; of ``'0.87 ± 0.01'`` the first counts.
- ``sb.glue(name, value)`` of scrapbook, encoders ``json`` and ``text``, and the ``pm.record`` of old papermills.

What is no number (a figure, a table, a text, True) is no metric and is passed over, which is told only where a claim
asks for that name. NaN, infinity and an array's rounded print-out are left out with a warning. A name that is no
Python identifier is kept with ``_`` for what does not fit (``test-acc`` is ``test_acc``), as claims are looked up by
identifier; that is told by a warning, too. Of a name that stands there twice the last counts, as in MyST.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from harness.model import Metric
from harness.wording import one_line

GLUE_PREFIX = "application/papermill.record/"
SCRAP_MIMES = ("application/scrapbook.scrap.json+json", "application/scrapbook.scrap.text+json")
RECORD_MIME = "application/papermill.record+json"

_TRACES = (b'"scrapbook"', b'"application/scrapbook.', b'"application/papermill.record')
_SHOWN = 40  # characters of what is no number
_LONGEST = 100  # characters of a repr that is looked at; no number worth judging is longer
_SCALAR = re.compile(r"(?:np|numpy)\.(?:float|int|uint|longdouble|longlong|ulonglong)\d*\((?P<value>.*)\)")
_ROUNDED = re.compile(r"(?:array|tensor)\([-+]?[\d.]+(?:e[-+]?\d+)?(?:, .*)?\)")
_NOT_FINITE = re.compile(r"[-+]?(?:nan|inf|infinity)", re.IGNORECASE)


_NUMBER = r"[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?"
_FORMATTED = re.compile(
    rf"(?P<value>{_NUMBER})\s*(?P<unit>[%％])?(?:\s*(?:±|\+/-|\+-)\s*{_NUMBER}\s*(?P<last>[%％])?)?"
)


class Foreign(NamedTuple):
    """What other tools left in a notebook."""

    metrics: tuple[Metric, ...] = ()
    warnings: tuple[str, ...] = ()
    passed_over: Mapping[str, str] = MappingProxyType(
        {}
    )  # names of what is no number, with how it shows itself


class _LeftOut(Exception):
    """A number that cannot be a metric; says why."""


def read_foreign(path: Path, recorded: tuple[Metric, ...]) -> Foreign:
    """What other tools left in the executed notebook at *path*; nothing if it cannot be read.

    Args:
        path: the notebook a job left behind; need not exist.
        recorded: what ``harness.record`` recorded; such a name is not read again.
    """
    try:
        content = path.read_bytes()
        if not any(trace in content for trace in _TRACES):  # most notebooks: nothing to parse
            return Foreign()
        document = json.loads(content)
    except (OSError, ValueError, RecursionError):
        return Foreign()  # how the job ended says why there is no notebook
    return foreign_metrics(document, recorded)


def foreign_metrics(document: Any, recorded: tuple[Metric, ...] = ()) -> Foreign:
    """Metrics of other tools in an output notebook (as JSON), one-line warnings on what was odd, what is no number.

    A name in *recorded* is left to ``harness.record``, with a warning where the two values differ.
    """
    own = {metric.name: metric.value for metric in recorded}
    found: dict[str, Metric] = {}
    passed_over: dict[str, str] = {}
    warnings: list[str] = []
    for tool, given, raw in _entries(document):
        try:
            value, unit = _number(raw)
        except _LeftOut as reason:
            warnings.append(f"{tool}({given!r}) left out: {reason}")
            value = None
        name = _safe_name(given)
        if value is None:
            if name is not None:
                passed_over[name] = _shown(raw)
            continue
        if name is None:
            warnings.append(f"{tool}({given!r}) left out: its name has no letter or digit; give it one")
            continue
        if name != given:
            warnings.append(f"{tool}({given!r}) is kept as {name}, the name a claim can have")
        if name in own:
            if not math.isclose(own[name], value, rel_tol=1e-6):
                warnings.append(
                    f"{tool}({given!r}) is {value:g} but recorded was {own[name]:g}, which counts"
                )
            continue
        if name in found:
            warnings.append(f"{tool}({given!r}): {name} stands there more than once, the last counts")
        found[name] = Metric(name, value, unit)
    passed_over = {name: text for name, text in passed_over.items() if name not in found and name not in own}
    return Foreign(tuple(found.values()), tuple(dict.fromkeys(warnings)), passed_over)


def _shown(raw: Any) -> str:
    """How something that is no number shows itself, in a few words."""
    text = one_line(raw.text if isinstance(raw, _Repr) else repr(raw))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _entries(document: Any) -> Iterator[tuple[str, str, Any]]:
    """Tool, name and raw value of everything another tool recorded; a repr is wrapped as :class:`_Repr`."""
    for output in _outputs(document):
        data, metadata = output.get("data"), output.get("metadata")
        if not isinstance(data, Mapping):
            continue
        for mime in SCRAP_MIMES:
            scrap = data.get(mime)
            if isinstance(scrap, Mapping) and isinstance(scrap.get("name"), str):
                as_text = scrap.get("encoder") == "text"
                value = scrap.get("data")
                yield "scrapbook glue", scrap["name"], _Repr(value, is_text=True) if as_text else value
        records = data.get(RECORD_MIME)
        if isinstance(records, Mapping):
            for name, value in records.items():
                yield "papermill record", str(name), value
        mark = metadata.get("scrapbook") if isinstance(metadata, Mapping) else None
        if isinstance(mark, Mapping) and "mime_prefix" in mark and isinstance(mark.get("name"), str):
            prefix = GLUE_PREFIX if mark["mime_prefix"] else ""
            yield "glue", mark["name"], _Repr(data.get(f"{prefix}text/plain"))


def _outputs(document: Any) -> Iterator[Mapping[str, Any]]:
    cells = document.get("cells") if isinstance(document, Mapping) else None
    for cell in cells if isinstance(cells, list) else ():
        outputs = cell.get("outputs") if isinstance(cell, Mapping) else None
        yield from (o for o in (outputs if isinstance(outputs, list) else ()) if isinstance(o, Mapping))


class _Repr:
    """How Python shows a value, rather than the value; a notebook may hold it as a list of lines."""

    def __init__(self, text: Any, *, is_text: bool = False) -> None:
        self.is_text = is_text  # text that stands there without quotes
        parts = text if isinstance(text, list) else [text]
        self.text = "".join(parts).strip() if all(isinstance(part, str) for part in parts) else ""


def _number(raw: Any) -> tuple[float | None, str]:
    """*raw* as a finite float with its unit, None if it is no number.

    Raises:
        _LeftOut: it is a number, but none that can be judged.
    """
    if isinstance(raw, _Repr):
        if raw.is_text and (found := _formatted(raw.text))[0] is not None:
            return found
        value = _evaluated(raw.text)
        if isinstance(value, str):
            return _formatted(value)
        raw = value
    elif isinstance(raw, str):  # scrapbook writes NaN so; any other text went through the text encoder
        raw = float(raw) if _NOT_FINITE.fullmatch(raw) else None
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        return None, ""
    try:
        value = float(raw)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise _LeftOut(f"it is {value}; only finite numbers can be checked")
    return value, ""


def _formatted(text: str) -> tuple[float | None, str]:
    """The number that was formatted as *text*, with its unit; None where that is not plain."""
    match = _FORMATTED.fullmatch(text.strip())
    if match is None or len(text) > _LONGEST:
        return None, ""
    try:
        value = Decimal(match["value"].replace(",", "").replace("−", "-"))
    except InvalidOperation:  # a sign alone, or nothing
        return None, ""
    percent = bool(match["unit"] or match["last"])
    number = float(value / 100 if percent else value)
    return (number, "fraction" if percent else "") if math.isfinite(number) else (None, "")


def _evaluated(text: str) -> Any:
    """The Python value that shows itself as *text*; None if that cannot be told."""
    if len(text) > _LONGEST:
        return None
    if _ROUNDED.fullmatch(text):
        raise _LeftOut(f"{text} is an array's print-out, which is rounded; give float(…) of it")
    if scalar := _SCALAR.fullmatch(text):
        text = scalar["value"].strip("'")  # np.longdouble('0.5')
    if _NOT_FINITE.fullmatch(text):
        return float(text)
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _safe_name(name: str) -> str | None:
    """*name* as an identifier: what does not fit becomes ``_``; None where nothing of it would be left."""
    if name.isidentifier():
        return name
    safe = re.sub(r"\W", "_", name.strip())
    if not safe.strip("_"):
        return None
    safe = safe if safe.isidentifier() else f"_{safe}"
    return safe if safe.isidentifier() else None
