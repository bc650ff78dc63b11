"""Run a notebook with papermill's parameters and nbclient's kernels, and say truthfully how it ended.

papermill's own account cannot be trusted: after a time-out or a dead kernel it marks cells that never ran
as completed, ``sys.exit(0)`` counts as success, and a failing ``!command`` passes. What counts here is
:class:`harness.execute.kernel.cells.CellRecord`; the notebook is written once, atomically, however the run ends.
"""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from papermill.translators import PythonTranslator, papermill_translators

from harness.book.notebook import NATIVE_KERNEL, cell_ids, read_document
from harness.book.parameters import INJECTED_COMMENT, INJECTED_TAG, render
from harness.errors import HarnessError
from harness.execute.kernel.cells import CellRecord, Report
from harness.execute.kernel.client import Cancelled, Client, ExitedEarly
from harness.execute.kernel.ending import Ending, describe_exit, first_line
from harness.execute.kernel.kernelspec import KernelStartError, describe_death, language_of
from harness.execute.kernel.variables import mask
from harness.files import write_text
from harness.model import Job, JobState, to_json


class ReadableTranslator(PythonTranslator):
    """Parameters as plain ``repr``: Chinese text stays text, tuples stay tuples."""

    @classmethod
    def codify(cls, parameters: Mapping[str, Any], comment: str = "") -> str:
        return render(parameters, comment)


papermill_translators.register("python", ReadableTranslator)


def run_notebook(
    job: Job, folder: Path, sockets: Path, report: Report = lambda event: None, hidden: Sequence[str] = ()
) -> Ending:
    """Run the notebook of *job* in its own folder and write what ran to out.ipynb in *folder*, whatever happens.

    Args:
        sockets: an empty folder with a short path for the kernel's sockets; the caller removes it.
        hidden: values that are masked in all outputs.
    """
    try:
        nb, kernel, injected = _prepare(job)
    except HarnessError as invalid:
        return Ending(JobState.INVALID, str(invalid))
    output = folder / "out.ipynb"

    def save() -> None:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)  # a notebook can remove any folder
        for cell in nb.cells if hidden else ():
            mask(cell.get("outputs", []), hidden)
        write_text(output, nbformat.writes(nb))

    record = CellRecord(nb, injected, report, save)
    error: BaseException | None = None
    record.papermill.notebook_start()
    try:
        Client(nb, kernel, record, job, folder=sockets, log_file=folder / "log.txt").execute()
    except BaseException as caught:
        error = caught
    if isinstance(error, Cancelled):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the notebook is saved undisturbed
    ending = replace(_judge(error, record, kernel, folder / "log.txt"), cells=record.results())
    try:
        record.papermill.notebook_complete()
        record.mark()
        save()
    except Exception as trouble:
        told = str(trouble) if isinstance(trouble, HarnessError) else first_line(trouble)
        return replace(ending, trouble=told)
    return ending


def _prepare(job: Job) -> tuple[Any, str, int | None]:
    """The notebook with its parameters, its kernel, and where a cell was put in for them.

    Raises:
        HarnessError: it cannot be run.
    """
    path = job.notebook
    try:
        nb = _load(path)
    except HarnessError:
        raise
    except Exception as error:
        raise HarnessError(f"{path} is not a notebook: {first_line(error)}") from None
    kernel = (nb.metadata.get("kernelspec") or {}).get("name") or NATIVE_KERNEL
    try:
        language = language_of(kernel)
    except HarnessError as error:
        raise HarnessError(f"{path} wants the kernel {kernel!r}, {error}") from None
    injected = None
    if job.parameters:
        before, said = len(nb.cells), INJECTED_COMMENT.into("zh" if job.language == "zh" else "en")
        try:
            nb = parameterize_notebook(
                nb, dict(job.parameters), comment=said, kernel_name=kernel, language=language
            )
        except Exception as error:
            raise HarnessError(f"{path} takes no parameters: {first_line(error)}") from None
        place = next(i for i, cell in enumerate(nb.cells) if INJECTED_TAG in cell.metadata.get("tags", ()))
        nb.cells[place].id = INJECTED_TAG  # papermill draws one
        if len(nb.cells) > before:  # else it took the place of an injected cell of an earlier run
            injected = place
    parameters = to_json(dict(job.parameters))  # JSON takes no keys of mixed types
    nb.metadata.papermill.update(parameters=parameters, input_path=path.name, output_path="out.ipynb")
    return nb, kernel, injected


def _load(notebook: Path) -> Any:
    """The notebook as papermill wants it, without what an earlier run of papermill left in it."""
    document = read_document(notebook)
    for cell, name in zip(document["cells"], cell_ids(document["cells"]), strict=True):
        cell["id"] = name
    document["nbformat_minor"] = max(document["nbformat_minor"], 5)  # an older form has no ids: new are drawn
    for part in (document, *document["cells"]):
        part["metadata"].pop("papermill", None)
    return load_notebook_node(nbformat.reads(json.dumps(document), as_version=4))


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
