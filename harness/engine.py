"""The one module that touches papermill: run a notebook and say truthfully how it ended.

papermill's own account cannot be trusted: after a time-out or a dead kernel it marks cells that never ran
as completed, ``sys.exit(0)`` counts as success, and a failing ``!command`` passes. This engine keeps its
own record of every cell and writes the notebook once, atomically, however the run ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

import nbformat
import zmq
import zmq.asyncio
from jupyter_client import AsyncKernelClient, AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from jupyter_core.utils import ensure_async
from nbclient.client import CellExecutionComplete
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.iorw import load_notebook_node
from papermill.log import logger
from papermill.parameterize import parameterize_notebook
from papermill.translators import PythonTranslator, papermill_translators
from traitlets import default

from harness.errors import HarnessError
from harness.model import CellResult, CellState, JobState, Limits, to_json
from harness.notebook import NATIVE_KERNEL, InvalidNotebook, is_blank, read_document
from harness.opened import kernel_source
from harness.parameters import render
from harness.process import describe_exit
from harness.store import write_text
from harness.streams import CellText, cut_output
from harness.variables import mask

ENGINE = "harness"
START_TIMEOUT = 60  # seconds for the kernel to start
INTERRUPT_GRACE = 3.0  # seconds for a cell to end after its time-out's KeyboardInterrupt
IOPUB_TIMEOUT = 60  # seconds for outputs to arrive once a cell has ended
RECONNECT_EVERY = 5  # milliseconds between tries to reach a kernel that does not listen yet
EXIT_POLL = 0.01  # seconds between looks at a kernel that was asked to end
AUTOSAVE_EVERY = 30.0  # seconds; only a killed worker needs it

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_CELL_FRAME = re.compile(r"^ *(?:Cell|Input) In ?\[(?P<count>\d+)\], line (?P<line>\d+)", re.M)

KERNEL_SETUP = """
def _set_up(fallback):
    import importlib.util, subprocess, sys
    from IPython import get_ipython
    shell = get_ipython()
    if hasattr(shell, "system_raise_on_error"):
        shell.system_raise_on_error = True
    else:
        system = shell.system
        def checked(command):
            system(command)
            if shell.user_ns.get("_exit_code"):
                raise subprocess.CalledProcessError(shell.user_ns["_exit_code"], command)
        shell.system = checked
    if fallback and importlib.util.find_spec("harness") is None:
        sys.path.append(fallback)
_set_up({fallback!r})
"""
"""Run silently in a namespace of its own before the first cell: a failing ``!command`` raises."""


class Cancelled(KeyboardInterrupt):
    """The harness asked the worker to stop. Not an Exception, so that asyncio lets it through."""


class _ExitedEarly(Exception):
    """A cell ended the kernel on purpose."""


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
        return render(parameters)


class OwnInterpreter(KernelSpecManager):
    """``python3`` is always the interpreter that runs the harness, whatever a kernelspec says."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        if kernel_name == NATIVE_KERNEL:
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="Python 3", language="python")
        return super().get_kernel_spec(kernel_name)


class KernelClient(AsyncKernelClient):
    """Starts at the kernel's first answer.

    The base class then reads on until nothing has come for a fifth of a second; nbclient passes over messages that
    belong to no cell anyway.
    """

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        while True:
            self.kernel_info()
            with contextlib.suppress(Empty):
                reply = await self.shell_channel.get_msg(timeout=1)
                if reply["msg_type"] == "kernel_info_reply":
                    await self.iopub_channel.get_msg(timeout=0.2)  # its outputs reach us, too; else once more
                    return
            if not await self.is_alive():
                raise RuntimeError("Kernel died before replying to kernel_info")
            if time.monotonic() > deadline:
                raise RuntimeError(f"Kernel didn't respond in {timeout:g} seconds")


class KernelManager(AsyncKernelManager):
    """Looks often whether the kernel listens and whether it has ended: a tenth of a second a notebook adds up."""

    client_factory = KernelClient

    @default("context")
    def _context_default(self) -> zmq.asyncio.Context:
        context = super()._context_default()
        context.setsockopt(zmq.RECONNECT_IVL, RECONNECT_EVERY)
        return context

    async def _async_wait(self, pollinterval: float = EXIT_POLL) -> None:
        await super()._async_wait(min(pollinterval, EXIT_POLL))


class Client(PapermillNotebookClient):
    """Runs the cells, records each one's end, and never lets a cell outlive its limit."""

    def __init__(
        self,
        nb_man: Any,
        *,
        cells: CellRecord,
        limits: Limits,
        folder: Path,
        fallback: str,
        **kw: Any,
    ):
        super().__init__(nb_man, **kw)
        self.record = cells
        self.limits = limits
        self.folder = folder
        self.fallback = fallback
        self.deadline = time.monotonic() + limits.notebook if limits.notebook else None
        self.limit_hit = ""
        self.timeout_func = self._seconds_left
        self.exit_asked = False
        self.text = CellText()
        self.on_cell_executed = self._note_exit

    # -- start ---------------------------------------------------------------------------------------

    def create_kernel_manager(self) -> AsyncKernelManager:
        """A kernel that talks through files in *folder*: no ports to race for, nothing on the network."""
        self.km = KernelManager(
            kernel_name=self.kernel_name,
            kernel_spec_manager=OwnInterpreter(),
            transport="ipc",
            connection_file=str(self.folder / "k.json"),
        )
        return self.km

    def execute(self, **kwargs: Any) -> Any:
        self.reset_execution_trackers()
        with self.setup_kernel(**kwargs):
            try:
                self._prepare_kernel()
                self.papermill_execute_cells()
                self.set_widgets_metadata()
            except BaseException as error:
                if isinstance(error, DeadKernelError):
                    self.record.kernel_exit = self._kernel_returncode()
                self.shutdown_kernel = "immediate"
                raise
        return self.nb

    async def _async_cleanup_kernel(self) -> None:
        """What nbclient calls for a kernel that did not start: note how it ended before its manager is gone."""
        self.record.kernel_exit = self._kernel_returncode()
        await super()._async_cleanup_kernel()

    def _prepare_kernel(self) -> None:
        info = self.wait_for_reply(self.kc.kernel_info())
        if info is not None:
            self.nb.metadata["language_info"] = info["content"]["language_info"]
            if info["content"]["language_info"].get("name") != "python":
                return
        source = KERNEL_SETUP.format(fallback=self.fallback) + kernel_source()
        wrapped = f"exec(compile({source!r}, '<harness>', 'exec'), {{}})"
        reply = self.wait_for_reply(self.kc.execute(wrapped, silent=True, store_history=False))
        if reply is None or reply["content"]["status"] != "ok":
            raise RuntimeError("the kernel could not be prepared")

    # -- cells ---------------------------------------------------------------------------------------

    def papermill_execute_cells(self) -> None:
        for index, cell in enumerate(self.nb.cells):
            if not self.record.is_to_run(index):
                continue
            self.nb_man.cell_start(cell, index)
            try:
                self.record.start(index)
                self.execute_cell(cell, index)
                if self.exit_asked and self.record.has_more_after(index):
                    raise _ExitedEarly
            except BaseException as error:
                self.nb_man.cell_exception(self.nb.cells[index], cell_index=index, exception=error)
                self.record.fail(index, _describe(error, self.limit_hit), failed_line(self.nb.cells[index]))
                raise
            finally:
                self.text.settle()
                self.nb_man.cell_complete(self.nb.cells[index], cell_index=index)
            self.record.complete(index)

    def process_message(self, *args: Any, **kwargs: Any) -> Any:
        output = super().process_message(*args, **kwargs)
        if self.record.is_save_due():
            self.text.settle()
            self.record.autosave(self.nb)
        return output

    def output(self, outs: list[Any], msg: Mapping[str, Any], display_id: str | None, cell_index: int) -> Any:
        """Collect text in our own way, in linear time; all else is nbclient's."""
        if msg["msg_type"] != "stream" or self.output_hook_stack[msg["parent_header"].get("msg_id")]:
            output = super().output(outs, msg, display_id, cell_index)
            if output:
                cut_output(output)
            return output
        if self.clear_before_next_output:
            outs[:] = []
            self.clear_display_id_mapping(cell_index)
            self.clear_before_next_output = False
        self.text.add(outs, msg["content"]["name"], msg["content"]["text"])
        return None

    async def _async_poll_output_msg(self, parent_msg_id: str, cell: Any, cell_index: int) -> None:
        """nbclient's loop, but it leaves the limits their turn however fast the messages come."""
        with contextlib.suppress(CellExecutionComplete):
            while True:
                message = await ensure_async(self.kc.iopub_channel.get_msg(timeout=None))
                if message["parent_header"].get("msg_id") == parent_msg_id:
                    self.process_message(message, cell, cell_index)
                await asyncio.sleep(0)

    async def _note_exit(self, cell: Any, cell_index: int, execute_reply: Mapping[str, Any]) -> None:
        payload = execute_reply["content"].get("payload") or ()
        if any(entry.get("source") == "ask_exit" and not entry.get("keepkernel") for entry in payload):
            self.exit_asked = True

    def _kernel_returncode(self) -> int | None:
        process = getattr(getattr(self.km, "provisioner", None), "process", None)
        return process.poll() if process is not None else None

    # -- limits --------------------------------------------------------------------------------------

    def _seconds_left(self, cell: Any) -> float | None:
        """Seconds the next cell may take: its own limit or what the notebook has left."""
        own, rest = self.limits.cell, None
        if self.deadline is not None:
            rest = max(self.deadline - time.monotonic(), 0.001)
        if rest is not None and (own is None or rest < own):
            self.limit_hit = f"the notebook's limit of {self.limits.notebook:g} s"
            return rest
        self.limit_hit = f"the cell's limit of {own:g} s" if own else ""
        return own

    async def _async_handle_timeout(self, timeout: float, cell: Any = None) -> None:
        """Interrupt, give the traceback a moment to arrive, then stop whatever the cell makes of it.

        nbclient either raises at once (and the reader never sees where the cell hung) or interrupts and
        goes on with the next cell, for ever if the cell ignores it.
        """
        with contextlib.suppress(Exception):
            await ensure_async(self.km.interrupt_kernel())
        deadline = time.monotonic() + INTERRUPT_GRACE
        with contextlib.suppress(Empty):
            while (rest := deadline - time.monotonic()) > 0:
                reply = await ensure_async(self.kc.shell_channel.get_msg(timeout=rest))
                if reply["msg_type"] == "execute_reply":
                    await asyncio.sleep(0.2)  # the traceback travels on another channel
                    break
        raise CellTimeoutError(f"{timeout:g} s")


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
        self.kernel_exit: int | None = None  # exit code of a kernel that died
        for index, cell in enumerate(nb.cells):
            if cell.cell_type != "code":
                continue
            self._source_index[index] = index - (1 if injected is not None and index >= injected else 0)
            idle = "skip-execution" in cell.metadata.get("tags", ()) or is_blank(cell.source)
            state = CellState.SKIPPED if idle else CellState.PENDING
            self._results[index] = CellResult(self._source_index[index], str(cell.get("id", index)), state)
        self._order = [i for i, r in self._results.items() if r.state is CellState.PENDING and i != injected]

    def is_to_run(self, index: int) -> bool:
        return index in self._results and self._results[index].state is CellState.PENDING

    def has_more_after(self, index: int) -> bool:
        return any(i > index and self.is_to_run(i) for i in self._order)

    def start(self, index: int) -> None:
        self._started[index] = time.monotonic()
        if index != self.injected:
            place = self._order.index(index) + 1
            self._tell("cell_start", index, number=place, total=len(self._order))

    def complete(self, index: int) -> None:
        self._end(index, CellState.COMPLETED)

    def fail(self, index: int, error: str, line: int | None) -> None:
        self._end(index, CellState.FAILED, error, line)

    def _end(self, index: int, state: CellState, error: str | None = None, line: int | None = None) -> None:
        old = self._results[index]
        seconds = round(time.monotonic() - self._started.get(index, time.monotonic()), 3)
        self._results[index] = CellResult(old.index, old.id, state, seconds, error, line)
        if index != self.injected:
            self._tell("cell_end", index, state=state.value, seconds=seconds, error=error, line=line)

    def _tell(self, event: str, index: int, **details: Any) -> None:
        self._report({"event": event, "cell": self._results[index].index, **details})

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
            timeout=START_TIMEOUT,  # of messages that belong to no cell
            startup_timeout=START_TIMEOUT,
            iopub_timeout=IOPUB_TIMEOUT,
            coalesce_streams=False,
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
    fallback: str = "",
    report: Report = lambda event: None,
    hidden: Sequence[str] = (),
) -> Ending:
    """Run *notebook* in its own folder and write what ran to *output*, whatever happens.

    *sockets* is an empty folder with a short path for the kernel's sockets; the caller removes it.
    *fallback* is put at the end of the kernel's ``sys.path`` where ``harness`` cannot be imported. The values of
    *hidden* are masked in all outputs.
    """
    try:
        nb = _load(notebook)
    except InvalidNotebook as error:
        return Ending(JobState.INVALID, str(error))
    except Exception as error:
        return Ending(JobState.INVALID, f"{notebook} is not a notebook: {_first_line(error)}")
    kernel = (nb.metadata.get("kernelspec") or {}).get("name") or NATIVE_KERNEL
    try:
        language = _language_of(kernel)
    except HarnessError as error:
        return Ending(JobState.INVALID, f"{notebook} wants the kernel {kernel!r}, {error}")
    injected = None
    if parameters:
        before = len(nb.cells)
        try:
            nb = parameterize_notebook(nb, dict(parameters), kernel_name=kernel, language=language)
        except Exception as error:
            return Ending(JobState.INVALID, f"{notebook} takes no parameters: {_first_line(error)}")
        if len(nb.cells) > before:  # else it took the place of an injected cell of an earlier run
            injected = next(
                i for i, c in enumerate(nb.cells) if "injected-parameters" in c.metadata.get("tags", ())
            )
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
        "fallback": fallback,
        "resources": {"metadata": {"path": str(notebook.parent)}},
    }
    return _execute(nb, kernel, record, save, options)


def _language_of(kernel: str) -> str:
    """The language of an installed kernel that can be started.

    Raises:
        HarnessError: there is none; the message goes on after the kernel's name.
    """
    remedy = "or choose python3 in the notebook"
    kernels = OwnInterpreter()
    try:
        spec = kernels.get_kernel_spec(kernel)
    except NoSuchKernel:
        raise HarnessError(f"which is not installed; install it, {remedy}") from None
    except Exception as error:  # whatever its JSON makes of it
        where = Path(kernels.find_kernel_specs().get(kernel, "")) / "kernel.json"
        raise HarnessError(f"but {where} is broken ({_first_line(error)}); mend it, {remedy}") from None
    if not spec.argv:
        raise HarnessError(f"but {spec.resource_dir}/kernel.json has no argv; mend it, {remedy}")
    return spec.language or "python"


def _load(notebook: Path) -> Any:
    """The notebook as papermill wants it, without what an earlier run of papermill left in it."""
    document = read_document(notebook)
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
    ending = _judge(error, record, kernel)
    ending.cells = record.results()
    try:
        record.mark(nb)
        save(nb)
    except Exception as trouble:
        ending.trouble = str(trouble) if isinstance(trouble, HarnessError) else _first_line(trouble)
    return ending


def _judge(error: BaseException | None, record: CellRecord, kernel: str) -> Ending:
    """The state that an exception (or none) of the engine stands for."""
    if error is None:
        return Ending(JobState.COMPLETED)
    cell = record.last_failed()
    where = f"cell {cell.index + 1} (id {cell.id})" if cell else "before the first cell"
    if cell and cell.line:
        where += f", line {cell.line}"
    what = (cell.error if cell else None) or _first_line(error)
    if isinstance(error, Cancelled):
        return Ending(JobState.CANCELLED, f"interrupted in {where}" if cell else "interrupted")
    if isinstance(error, CellTimeoutError):
        return Ending(JobState.TIMED_OUT, f"{where}: {what}" if cell else "the kernel did not answer in time")
    if isinstance(error, DeadKernelError):
        return Ending(JobState.DEAD, f"{where}: the kernel died ({describe_exit(record.kernel_exit)})")
    if isinstance(error, _ExitedEarly):
        return Ending(JobState.EXITED_EARLY, f"{where} ended the kernel (exit or quit)")
    if isinstance(error, CellExecutionError):
        if error.ename == "SystemExit" and str(error.evalue) in ("", "0", "None"):
            return Ending(JobState.EXITED_EARLY, f"{where} called sys.exit({error.evalue})")
        return Ending(JobState.FAILED, f"{where}: {what}")
    if cell is None and (record.kernel_exit or 0) < 0:
        return Ending(JobState.DEAD, f"{where}: the kernel died ({describe_exit(record.kernel_exit)})")
    if cell is None:
        return Ending(JobState.INVALID, f"the kernel {kernel!r} did not start: {_first_line(error)}")
    return Ending(JobState.DEAD, f"{where}: {what}")


def _describe(error: BaseException, limit: str) -> str:
    if isinstance(error, CellExecutionError):
        return _shorten(f"{error.ename}: {error.evalue}" if error.evalue else error.ename)
    if isinstance(error, CellTimeoutError):
        return (
            f"ran past {limit}"
            if "IOPub" not in str(error)
            else f"its outputs did not arrive in {IOPUB_TIMEOUT} s"
        )
    if isinstance(error, DeadKernelError):
        return "the kernel died"
    if isinstance(error, _ExitedEarly):
        return "ended the kernel"
    if isinstance(error, Cancelled):
        return "interrupted"
    return _first_line(error)


def failed_line(cell: Any) -> int | None:
    """The line of the cell, from 1, where its last error came from, if IPython's traceback tells."""
    errors = [output for output in cell.get("outputs", ()) if output.get("output_type") == "error"]
    if not errors:
        return None
    text = plain("\n".join(errors[-1].get("traceback", ())))
    count = cell.get("execution_count")
    frames = [int(m["line"]) for m in _CELL_FRAME.finditer(text) if int(m["count"]) == count]
    return frames[-1] if frames and 0 < frames[-1] <= cell.source.count("\n") + 1 else None


def plain(text: str) -> str:
    """*text* without terminal escapes and control characters other than white space."""
    return _CONTROL.sub("", _ESCAPE.sub("", text))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return _shorten(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)


def _shorten(text: str) -> str:
    text = " ".join(plain(text[:100_000]).split())
    return text if len(text) <= 300 else text[:299] + "…"
