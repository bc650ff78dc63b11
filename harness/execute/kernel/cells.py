"""The truth about each cell of a notebook that runs; what papermill keeps in its metadata is kept beside it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from papermill.engines import NotebookExecutionManager

from harness.execute.kernel.ending import untouched_state
from harness.model import CellResult, CellState
from harness.wording import cell_label

AUTOSAVE_EVERY = 30.0  # seconds; only a killed worker needs it

Report = Callable[[Mapping[str, Any]], None]


class CellRecord:
    """How each cell stands, by its position in the notebook.

    Args:
        injected: where a cell was put in that the source has not.
        report: is told of every start and end.
        save: saves the notebook as it is.
    """

    def __init__(self, nb: Any, injected: int | None, report: Report, save: Callable[[], None]) -> None:
        self._nb, self._injected, self._report, self._save = nb, injected, report, save
        self.papermill = NotebookExecutionManager(nb, progress_bar=False)
        self.kernel_exit: int | None = None  # exit code of a kernel that died
        self._next_save = time.monotonic() + AUTOSAVE_EVERY
        self._started: dict[int, float] = {}
        self._results: dict[int, CellResult] = {}
        for index, cell in enumerate(nb.cells):
            if cell.cell_type == "code":
                in_source = index - (injected is not None and index >= injected)
                state = untouched_state(cell.metadata.get("tags", ()), cell.source)
                code = cell_label(cell.source)
                self._results[index] = CellResult(in_source, str(cell.id), state, code=code)

    def is_to_run(self, index: int) -> bool:
        return index in self._results and self._results[index].state is CellState.PENDING

    def has_more_after(self, index: int) -> bool:
        return any(i > index and i != self._injected and self.is_to_run(i) for i in self._results)

    def start(self, index: int) -> None:
        self._started[index] = time.monotonic()
        self.papermill.cell_start(self._nb.cells[index], index)
        total = len(self._nb.cells) - (self._injected is not None)
        self._tell("cell_start", index, total=total, code=self._results[index].code)

    def complete(self, index: int) -> None:
        self._end(index, CellState.COMPLETED)

    def fail(self, index: int, error: str, line: int | None) -> None:
        """A cell can fail after it completed: by a task that it started."""
        self.papermill.cell_exception(self._nb.cells[index], index)
        self._end(index, CellState.FAILED, error, line)

    def _end(self, index: int, state: CellState, error: str | None = None, line: int | None = None) -> None:
        old = self._results[index]
        seconds = old.seconds
        if old.state is not CellState.COMPLETED:
            seconds = round(time.monotonic() - self._started.get(index, time.monotonic()), 3)
            self.papermill.cell_complete(self._nb.cells[index], index)
        self._results[index] = replace(old, state=state, seconds=seconds, error=error, line=line)
        self._tell("cell_end", index, state=state.value, seconds=seconds, error=error, line=line)

    def _tell(self, event: str, index: int, **details: Any) -> None:
        if index != self._injected:
            self._report({"event": event, "cell": self._results[index].index + 1, **details})

    def warn(self, message: str) -> None:
        self._report({"event": "warning", "message": message})

    def is_save_due(self) -> bool:
        return time.monotonic() >= self._next_save

    def autosave(self) -> None:
        """Save; the next time is far enough off that a large notebook does not spend its time writing."""
        began = time.monotonic()
        with contextlib.suppress(Exception):
            self._save()
        self._next_save = time.monotonic() + max(AUTOSAVE_EVERY, 20 * (time.monotonic() - began))

    def mark(self) -> None:
        """Correct papermill's account in the notebook's metadata."""
        for index, cell in enumerate(self._nb.cells):
            if index in self._results:
                cell.metadata.papermill["status"] = self._results[index].state.value
            else:
                cell.metadata.pop("papermill", None)

    def results(self) -> list[CellResult]:
        return [result for index, result in self._results.items() if index != self._injected]

    def last_failed(self) -> CellResult | None:
        return next((r for r in reversed(self._results.values()) if r.state is CellState.FAILED), None)
