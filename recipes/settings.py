"""Settings on the command line: a value of a configuration, ``NAME=JSON``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any


def parse_settings(config: type, settings: Sequence[str]) -> dict[str, Any]:
    """``["lr=2e-4", "layers=[1,12]"]`` as arguments of a configuration dataclass.

    Raises:
        ValueError: no such setting, or a value that is not JSON.
    """
    known = {field.name for field in fields(config)}
    values: dict[str, Any] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in known:
            raise ValueError(f"--set {setting}: no setting {name!r}; there are {', '.join(sorted(known))}")
        try:
            parsed = json.loads(value)
        except ValueError:
            raise ValueError(f"--set {setting}: {value!r} is not JSON") from None
        if isinstance(parsed, dict):
            parsed = list(parsed.items())
        values[name] = tuple(parsed) if isinstance(parsed, list) else parsed
    return values
