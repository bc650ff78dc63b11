"""Standard output that outlives its reader."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any


class _Patient:
    """A text stream that goes silent when it cannot be written, as in ``harness run | head``.

    A reader that leaves must not end a run that takes an hour; neither must a full disk under its log.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.trouble: OSError | None = None  # other than a reader that left

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return int(self._stream.write(text))
        except OSError as error:
            self._silence(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._silence(error)

    def _silence(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            self.trouble = self.trouble or error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())  # what is still in the buffer goes there, too
        os.close(nowhere)


@contextmanager
def patient_stdout() -> Iterator[_Patient]:
    """Standard output as a patient stream; nowhere, if it was closed before the start."""
    before = sys.stdout
    with Path(os.devnull).open("w", encoding="utf-8") if before is None else nullcontext(before) as stream:
        sys.stdout = patient = _Patient(stream)  # type: ignore[assignment]
        try:
            yield patient
        finally:
            patient.flush()
            sys.stdout = before
