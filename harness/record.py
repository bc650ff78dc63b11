"""The one function a chapter takes from the harness: ``from harness.record import record``.

Standard library only, so that a chapter loads it at no cost and in any environment.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.model import METRIC_MIME, SCHEMA

METRICS_VARIABLE = "HARNESS_METRICS"
"""Environment variable that names the file to append to; unset where no harness runs."""


def record(
    name: str,
    value: Any,
    *,
    unit: str = "",
    n: int | None = None,
    split: str | None = None,
    interval: tuple[float, float] | None = None,
    per_example: Iterable[Any] | None = None,
) -> float:
    """Record one measured number, once a run, and show it.

    Under the harness one strict JSON line is appended to the job's ``metrics.jsonl`` and flushed to the
    disk, so it survives a dead kernel; an output under a private MIME type stays in the notebook.
    Anywhere else the number is printed and nothing else happens.

    Args:
        name: a Python identifier, unique in the notebook.
        value: anything that ``float()`` takes and that is finite: Python, NumPy or torch scalar.
        unit: "fraction", "s", "MB" …
        n: number of examples behind the value; taken from ``per_example`` if left out.
        split: the split it was measured on.
        interval: 95 % interval, (low, high).
        per_example: one score per example, for paired comparisons.

    Returns:
        The value as a plain float.

    Raises:
        ValueError: a bad name, a value that is no finite number, or a name recorded before.
    """
    metric = _metric(name, value, unit, n, split, interval, per_example)
    shown = f"{name} = {metric['value']:.6g}{' ' + unit if unit else ''}"
    path = os.environ.get(METRICS_VARIABLE)
    if not path:
        print(shown)
        return metric["value"]
    if name in _recorded(path):
        raise ValueError(f"record({name!r}): recorded before in this run; give each number its own name")
    _append(path, metric)
    _display({k: v for k, v in metric.items() if k != "per_example"}, shown)
    return metric["value"]


def _metric(
    name: str,
    value: Any,
    unit: str,
    n: int | None,
    split: str | None,
    interval: tuple[float, float] | None,
    per_example: Iterable[Any] | None,
) -> dict[str, Any]:
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"record({name!r}): a metric's name must be a Python identifier, e.g. test_accuracy")
    metric: dict[str, Any] = {
        "schema": SCHEMA,
        "name": name,
        "value": _number(name, "value", value),
        "unit": _text(name, "unit", unit),
    }
    scores = None
    if per_example is not None:
        scores = [
            _number(name, "per_example", v, flags=True) for v in _several(name, "per_example", per_example)
        ]
        if n is None:
            n = len(scores)
        elif n != len(scores):
            raise ValueError(f"record({name!r}): n is {n} but per_example holds {len(scores)} scores")
    if n is not None:
        count = _number(name, "n", n)
        if count < 0 or not count.is_integer():
            raise ValueError(f"record({name!r}): n must be a whole number of examples, not {n!r}")
        metric["n"] = int(count)
    if split is not None:
        metric["split"] = _text(name, "split", str(split))
    if interval is not None:
        bounds = [_number(name, "interval", v) for v in _several(name, "interval", interval)]
        if len(bounds) != 2 or bounds[0] > bounds[1]:
            raise ValueError(f"record({name!r}): interval must be (low, high), not {interval!r}")
        metric["interval"] = bounds
    if scores is not None:
        metric["per_example"] = scores
    metric["time"] = datetime.now(UTC).isoformat(timespec="seconds")
    return metric


def _number(name: str, what: str, value: Any, *, flags: bool = False) -> float:
    """A finite float; True and False only where *flags* allows them (right or wrong, per example)."""
    kind = str(getattr(value, "dtype", ""))  # of NumPy and torch
    is_bool = isinstance(value, bool) or kind in ("bool", "torch.bool")
    if (is_bool and not flags) or isinstance(value, str | bytes) or "complex" in kind:
        raise ValueError(f"record({name!r}): {what} must be a number, not {value!r}")
    try:
        number = float(value.detach() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise ValueError(f"record({name!r}): {what} must be one number, not {type(value).__name__}") from None
    if not math.isfinite(number):
        raise ValueError(f"record({name!r}): {what} is {number}; only finite numbers can be checked")
    return number


def _several(name: str, what: str, values: Any) -> list[Any]:
    try:
        return list(values)
    except TypeError:
        raise ValueError(f"record({name!r}): {what} must be several numbers, not {values!r}") from None


def _text(name: str, what: str, value: Any) -> str:
    """*value*, if it is text that a file can hold."""
    if not isinstance(value, str) or value != value.encode(errors="replace").decode():
        raise ValueError(f"record({name!r}): {what} must be text, not {value!r}")
    return value


_names: dict[str, tuple[int, set[str]]] = {}
"""By file: how many bytes of it were read, and the names recorded there."""


def _recorded(path: str) -> set[str]:
    """The names in the file. Only what was added since the last look is read; another process may have."""
    position, names = _names.get(path, (0, set()))
    try:
        with Path(path).open("rb") as file:
            if os.fstat(file.fileno()).st_size < position:  # a new file took its place
                position, names = 0, set()
            file.seek(position)
            added = file.read()
    except FileNotFoundError:
        _names.pop(path, None)
        return set()
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; record() writes there", path) from None
    whole = added.rfind(b"\n") + 1  # half a line may yet be completed
    for line in added[:whole].splitlines():
        name = _name_in(line)
        if name is not None:
            names.add(name)
    _names[path] = (position + whole, names)
    return names


def _name_in(line: bytes) -> str | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None  # the harness leaves such a line out and says so
    name = entry.get("name") if isinstance(entry, dict) else None
    return name if isinstance(name, str) else None


def _append(path: str, metric: dict[str, Any]) -> None:
    line = json.dumps(metric, ensure_ascii=False, allow_nan=False) + "\n"
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    data, written, start = line.encode(), 0, os.fstat(file).st_size
    try:
        while written < len(data):
            written += os.write(file, data[written:])
        os.fsync(file)
    except OSError:
        with contextlib.suppress(OSError):
            if os.fstat(file).st_size == start + written:  # no half line, which would spoil the next
                os.ftruncate(file, start)
        raise
    finally:
        os.close(file)


def _display(metric: dict[str, Any], shown: str) -> None:
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        print(shown)
        return
    if get_ipython() is None:
        print(shown)
    else:
        display({METRIC_MIME: metric, "text/plain": shown}, raw=True)
