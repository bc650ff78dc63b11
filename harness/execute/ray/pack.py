"""A folder as the bytes of a tar file: what a node needs of a book."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from harness.errors import HarnessError
from harness.files import explain_os_error

LIMIT = 500 * 2**20  # bytes of all files
LEFT_OUT = frozenset(
    {".git", ".hg", ".venv", "venv", "_build", "node_modules", "__pycache__", ".ipynb_checkpoints",
     ".mypy_cache", ".pytest_cache", ".ruff_cache"}
)  # fmt: skip
"""Names of folders that are made again or concern nobody but their owner."""


def pack(folder: Path, prefix: str = "", limit: int = LIMIT) -> bytes:
    """Every file below *folder* but for what lies in ``LEFT_OUT``, links followed; names begin with *prefix*.

    Raises:
        HarnessError: it holds more than *limit* bytes.
        InfrastructureError: a file cannot be read.
    """
    buffer, size = io.BytesIO(), 0
    try:
        with tarfile.open(fileobj=buffer, mode="w", dereference=True) as tar:
            for path in _files(folder):
                size += path.stat().st_size
                if size > limit:
                    raise HarnessError(
                        f"{folder} holds more than {limit >> 20} MB, too much to send to the nodes: move data out"
                        " of it, or use --shared where every node sees this folder under the same path"
                    )
                name = Path(prefix, path.relative_to(folder)).as_posix()
                tar.add(path, name, recursive=False)
    except OSError as error:
        raise explain_os_error(error, f"cannot read {error.filename or folder}") from None
    return buffer.getvalue()


def _files(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()  # a link may lead back
    for directory, names, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(directory)) in seen or Path(directory, "pyvenv.cfg").is_file():
            names.clear()
            continue
        seen.add(real)
        names[:] = sorted(set(names) - LEFT_OUT)
        for name in sorted(files):
            path = Path(directory, name)
            if path.is_file():  # no socket, no broken link
                yield path
