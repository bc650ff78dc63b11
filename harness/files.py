"""Files read and written whole: atomically, as strict JSON, and what the system refuses in one line."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, InfrastructureError
from harness.model import to_json

PACKAGE = Path(__file__).resolve().parent
"""The harness's own code."""

_FULL = {errno.ENOSPC, errno.EDQUOT}


def explain_os_error(
    error: OSError, doing: str, remedy: str = "change its permissions"
) -> InfrastructureError:
    """One clear line for what the operating system refused; *remedy* helps where a right to write lacks."""
    if error.errno in _FULL:
        return InfrastructureError(
            f"{doing}: the disk is full; free some space, in _build/runs for one: any run there may be deleted"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return InfrastructureError(f"{doing}: no permission there; {remedy}")
    return InfrastructureError(f"{doing}: {error.strerror or error}")


def write_text(path: Path, text: str) -> None:
    """Write *path* atomically: a reader sees the old file or the new one, never half of it."""
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")
        temporary = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise explain_os_error(error, f"cannot write {path}") from error


def write_json(path: Path, obj: Any) -> None:
    """Write dataclasses, mappings and sequences as strict UTF-8 JSON, atomically."""
    write_text(path, json.dumps(to_json(obj), ensure_ascii=False, allow_nan=False, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of a run folder."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse_constant)
    except FileNotFoundError:
        raise HarnessError(f"{path} does not exist; is this a finished run?") from None
    except (ValueError, RecursionError) as error:
        raise HarnessError(f"{path} is not valid JSON ({error})") from None
    except OSError as error:
        raise HarnessError(f"cannot read {path}: {error.strerror or error}") from None


def refuse_constant(constant: str) -> float:
    """For ``json.loads``: NaN and infinities are not JSON."""
    raise ValueError(f"{constant} is not JSON")
