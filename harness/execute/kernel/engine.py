"""The one module that touches papermill: run a notebook and say truthfully how it ended.

papermill's own account cannot be trusted: after a time-out or a dead kernel it marks cells that never ran
as completed, ``sys.exit(0)`` counts as success, and a failing ``!command`` passes. This engine keeps its
own record of every cell and writes the notebook once, atomically, however the run ends.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nbformat
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from papermill.engines import NBClientEngine, papermill_engines
from papermill.iorw import load_notebook_node
from papermill.log import logger
from papermill.parameterize import parameterize_notebook
from papermill.translators import PythonTranslator, papermill_translators

from harness.book.notebook import (
    NATIVE_KERNEL,
    InvalidNotebook,
    cell_ids,
    first_code_line,
    is_blank,
    read_document,
)
from harness.book.parameters import INJECTED_COMMENT, INJECTED_TAG, render
from harness.errors import HarnessError
from harness.execute.kernel.client import Cancelled, Client, ExitedEarly
from harness.execute.kernel.failures import first_line
from harness.execute.kernel.kernelspec import KernelStartError, describe_death, language_of
from harness.execute.kernel.process import describe_exit
from harness.execute.kernel.variables import mask
from harness.files import write_text
from harness.model import CellResult, CellState, JobState, Limits, to_json

ENGINE = "harness"
AUTOSAVE_EVERY = 30.0  # seconds; only a killed worker needs it


@dataclass
class Ending:
    """How a notebook ended."""

    state: JobState
    reason: str = ""
    cells: list[CellResult] = field(default_factory=list)
    trouble: str = ""  # of the machine: the notebook could not be saved


Report = Callable[[Mapping[str, Any]], None]


class ReadableTranslator(PythonTranslator):
    """Parameters as plain ``repr``: Chinese text stays text, tuples stay tuples."""

    @classmethod
    def codify(cls, parameters: Mapping[str, Any], comment: str = "") -> str:
        return render(parameters, comment)


class CellRecord:
    """The truth about each cell, by its position in the source notebook."""

    def __init__(self, nb: Any, injected: int | None, report: Report, save: Callable[[Any], None]) -> None:
        self._report = report
        self._save = save
        self._next_save = time.monotonic() + AUTOSAVE_EVERY
        self._results: dict[int, CellResult] = {}
        self._started: dict[int, float] = {}
        self._source_index: dict[int, int] = {}
        self.injected = injected
        self._total = len(nb.cells) - (injected is not None)
        self.kernel_exit: int | None = None  # exit code of a kernel that died
        for index, cell in enumerate(nb.cells):
            if cell.cell_type != "code":
                continue
            self._source_index[index] = index - (1 if injected is not None and index >= injected else 0)
            idle = "skip-execution" in cell.metadata.get("tags", ()) or is_blank(cell.source)
            state = CellState.SKIPPED if idle else CellState.PENDING
            self._results[index] = CellResult(
                self._source_index[index], str(cell.id), state, code=first_code_line(cell.source)
            )
        self._order = [i for i, r in self._results.items() if r.state is CellState.PENDING and i != injected]

    def is_to_run(self, index: int) -> bool:
        return index in self._results and self._results[index].state is CellState.PENDING

    def has_more_after(self, index: int) -> bool:
        return any(i > index and self.is_to_run(i) for i in self._order)

    def start(self, index: int) -> None:
        self._started[index] = time.monotonic()
        if index != self.injected:
            self._tell("cell_start", index, total=self._total, code=self._results[index].code)

    def complete(self, index: int) -> None:
        self._end(index, CellState.COMPLETED)

    def fail(self, index: int, error: str, line: int | None) -> None:
        self._end(index, CellState.FAILED, error, line)

    def _end(self, index: int, state: CellState, error: str | None = None, line: int | None = None) -> None:
        old = self._results[index]
        seconds = round(time.monotonic() - self._started.get(index, time.monotonic()), 3)
        if old.state is CellState.COMPLETED:  # it failed afterwards
            seconds = old.seconds
        self._results[index] = replace(old, state=state, seconds=seconds, error=error, line=line)
        if index != self.injected:
            self._tell("cell_end", index, state=state.value, seconds=seconds, error=error, line=line)

    def warn(self, message: str) -> None:
        self._report({"event": "warning", "message": message})

    def _tell(self, event: str, index: int, **details: Any) -> None:
        self._report({"event": event, "cell": self._results[index].index + 1, **details})

    def is_save_due(self) -> bool:
        return time.monotonic() >= self._next_save

    def autosave(self, nb: Any) -> None:
        """Save; the next time is far enough off that a large notebook does not spend its time writing."""
        now = time.monotonic()
        with contextlib.suppress(Exception):
            self._save(nb)
        self._next_save = time.monotonic() + max(AUTOSAVE_EVERY, 20 * (time.monotonic() - now))

    def mark(self, nb: Any) -> None:
        """Correct papermill's account in the notebook's metadata."""
        for index, result in self._results.items():
            papermill = nb.cells[index].metadata.get("papermill")
            if papermill is not None:
                papermill["status"] = result.state.value
        for index, cell in enumerate(nb.cells):
            if index not in self._results:
                cell.metadata.pop("papermill", None)

    def results(self) -> list[CellResult]:
        return [result for index, result in self._results.items() if index != self.injected]

    def last_failed(self) -> CellResult | None:
        return next((r for r in reversed(self._results.values()) if r.state is CellState.FAILED), None)


class Engine(NBClientEngine):
    """Hands the notebook to our client, with the options that Engine.execute_notebook was given."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, log_output: bool = False, **kwargs: Any
    ) -> Any:
        client = Client(
            nb_man,
            kernel_name=kernel_name,
            log=logger,
            **kwargs,
        )
        return client.execute()


papermill_engines.register(ENGINE, Engine)
papermill_translators.register("python", ReadableTranslator)


def run_notebook(
    notebook: Path,
    output: Path,
    parameters: Mapping[str, Any],
    limits: Limits,
    *,
    sockets: Path,
    log_file: Path,
    fallback: str = "",
    report: Report = lambda event: None,
    hidden: Sequence[str] = (),
    words: str = "en",
) -> Ending:
    """Run *notebook* in its own folder and write what ran to *output*, whatever happens.

    *sockets* is an empty folder with a short path for the kernel's sockets; the caller removes it. *log_file* is
    where this process and the kernel print.
    *fallback* is put at the end of the kernel's ``sys.path`` where ``harness`` cannot be imported. The values of
    *hidden* are masked in all outputs. What the harness writes into the notebook is in the language *words*.
    """
    try:
        nb = _load(notebook)
    except InvalidNotebook as error:
        return Ending(JobState.INVALID, str(error))
    except Exception as error:
        return Ending(JobState.INVALID, f"{notebook} is not a notebook: {first_line(error)}")
    kernel = (nb.metadata.get("kernelspec") or {}).get("name") or NATIVE_KERNEL
    try:
        language = language_of(kernel)
    except HarnessError as error:
        return Ending(JobState.INVALID, f"{notebook} wants the kernel {kernel!r}, {error}")
    injected = None
    if parameters:
        before = len(nb.cells)
        try:
            said = INJECTED_COMMENT.into("zh" if words == "zh" else "en")
            nb = parameterize_notebook(
                nb, dict(parameters), comment=said, kernel_name=kernel, language=language
            )
        except Exception as error:
            return Ending(JobState.INVALID, f"{notebook} takes no parameters: {first_line(error)}")
        place = next(i for i, cell in enumerate(nb.cells) if INJECTED_TAG in cell.metadata.get("tags", ()))
        nb.cells[place].id = INJECTED_TAG  # papermill draws one
        if len(nb.cells) > before:  # else it took the place of an injected cell of an earlier run
            injected = place
    nb.metadata.papermill["parameters"] = to_json(dict(parameters))  # JSON takes no keys of mixed types
    nb.metadata.papermill["input_path"] = notebook.name
    nb.metadata.papermill["output_path"] = output.name

    def save(current: Any) -> None:
        with contextlib.suppress(OSError):
            output.parent.mkdir(parents=True, exist_ok=True)  # a notebook can remove any folder
        for cell in current.cells if hidden else ():
            mask(cell.get("outputs", []), hidden)
        write_text(output, nbformat.writes(current))

    record = CellRecord(nb, injected, report, save)
    options = {
        "cells": record,
        "limits": limits,
        "folder": sockets,
        "log_file": log_file,
        "fallback": fallback,
        "resources": {"metadata": {"path": str(notebook.parent)}},
    }
    return _execute(nb, kernel, record, save, options)


def _load(notebook: Path) -> Any:
    """The notebook as papermill wants it, without what an earlier run of papermill left in it."""
    document = read_document(notebook)
    for cell, name in zip(document["cells"], cell_ids(document["cells"]), strict=True):
        cell["id"] = name
    document["nbformat_minor"] = max(
        document["nbformat_minor"], 5
    )  # an older form has no ids: new ones are drawn
    for part in (document, *document["cells"]):
        part["metadata"].pop("papermill", None)
    return load_notebook_node(nbformat.reads(json.dumps(document), as_version=4))


def _execute(
    nb: Any, kernel: str, record: CellRecord, save: Callable[[Any], None], options: Mapping[str, Any]
) -> Ending:
    error: BaseException | None = None
    try:
        papermill_engines.execute_notebook_with_engine(
            ENGINE, nb, kernel, output_path=None, progress_bar=False, autosave_cell_every=0, **options
        )
    except BaseException as caught:
        error = caught
    if isinstance(error, Cancelled):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the notebook is saved undisturbed
    ending = _judge(error, record, kernel, options["log_file"])
    ending.cells = record.results()
    try:
        record.mark(nb)
        save(nb)
    except Exception as trouble:
        ending.trouble = str(trouble) if isinstance(trouble, HarnessError) else first_line(trouble)
    return ending


def _judge(error: BaseException | None, record: CellRecord, kernel: str, log: Path) -> Ending:
    """The state that an exception (or none) of the engine stands for."""
    if error is None:
        return Ending(JobState.COMPLETED)
    cell = record.last_failed()
    where = cell.place if cell else "before the first cell"
    if cell and cell.line:
        where += f", line {cell.line}"
    what = (cell.error if cell else None) or first_line(error)
    if isinstance(error, Cancelled):
        return Ending(JobState.CANCELLED, f"interrupted in {where}" if cell else "interrupted")
    if isinstance(error, CellTimeoutError):
        return Ending(JobState.TIMED_OUT, f"{where}: {what}" if cell else "the kernel did not answer in time")
    if isinstance(error, KernelStartError):
        return Ending(JobState.TIMED_OUT if error.running else JobState.DEAD, f"{where}: {error}")
    if isinstance(error, DeadKernelError) and cell is None:
        return Ending(JobState.DEAD, f"{where}: {describe_death(kernel, record.kernel_exit, log)}")
    if isinstance(error, DeadKernelError):
        return Ending(JobState.DEAD, f"{where}: the kernel died ({describe_exit(record.kernel_exit)})")
    if isinstance(error, ExitedEarly):
        return Ending(JobState.EXITED_EARLY, f"{where} ended the kernel (exit or quit)")
    if isinstance(error, CellExecutionError):
        if error.ename == "SystemExit" and str(error.evalue) in ("", "0", "None"):
            return Ending(JobState.EXITED_EARLY, f"{where} called sys.exit({error.evalue})")
        return Ending(JobState.FAILED, f"{where}: {what}")
    if cell is None:
        return Ending(JobState.INVALID, f"the kernel {kernel!r} did not start: {first_line(error)}")
    return Ending(JobState.DEAD, f"{where}: {what}")
