"""Runs the cells of one notebook in a kernel: each one's end as it was, whoever noticed it, within its limits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.utils import run_sync
from jupyter_core.utils import ensure_async
from nbclient import NotebookClient
from nbclient.client import CellExecutionComplete
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat.v4 import output_from_msg

from harness.execute.kernel.cells import CellRecord
from harness.execute.kernel.ending import failed_line, first_line, shorten, told_error
from harness.execute.kernel.kernelspec import EXIT_POLL, kernel_environment, kernel_manager, start_error
from harness.execute.kernel.outputs import CellOutputs
from harness.execute.kernel.patience import Patience
from harness.execute.kernel.process import cpu_seconds
from harness.files import PACKAGE
from harness.model import Job

START_TIMEOUT = 60  # seconds for the kernel to start
START_TRIES = 3  # of a kernel whose ports another process took meanwhile
INTERRUPT_GRACE = 3.0  # seconds for a cell to end after its time-out's KeyboardInterrupt
IOPUB_TIMEOUT = 60  # seconds for outputs to arrive once a cell has ended
LEAST_GRACE = 1.0  # seconds for a kernel to end, however little the notebook's limit leaves

IN_KERNEL = ("startup.py", "opened.py")
"""Modules that run in a Python kernel before the first cell, from their source alone."""

_SHOWN = ("stream", "display_data", "execute_result", "error")
_BELONGS = (*_SHOWN, "update_display_data", "clear_output", "comm_open", "comm_msg", "comm_close")


class Cancelled(KeyboardInterrupt):
    """The harness asked the worker to stop. Not an Exception, so that asyncio lets it through."""


class ExitedEarly(Exception):
    """A cell ended the kernel on purpose."""


def kernel_source(fallback: str) -> str:
    """Code that prepares a Python kernel in a namespace of its own, so that the notebook sees nothing of it.

    Args:
        fallback: the end of ``sys.path`` where ``harness`` cannot be imported; empty for none.
    """
    sources = [Path(__file__).with_name(name).read_text(encoding="utf-8") for name in IN_KERNEL]
    text = "\n".join([*sources, f"set_up({fallback!r})", "note_opened()"])
    return f"exec(compile({text!r}, '<harness>', 'exec'), {{}})"


class Client(NotebookClient):
    """Runs the cells, records each one's end, and never lets a cell outlive its limit.

    Args:
        folder: of the kernel's sockets.
        log_file: where the kernel prints.
    """

    def __init__(
        self, nb: Any, kernel: str, record: CellRecord, job: Job, *, folder: Path, log_file: Path
    ) -> None:
        self.limits = job.limits
        self.deadline = time.monotonic() + self.limits.notebook if self.limits.notebook else None
        super().__init__(
            nb,
            kernel_name=kernel,
            log=logging.getLogger(__name__),
            resources={"metadata": {"path": str(job.notebook.parent)}},
            timeout=START_TIMEOUT,  # of messages that belong to no cell
            startup_timeout=START_TIMEOUT,
            iopub_timeout=IOPUB_TIMEOUT,
            raise_on_iopub_timeout=True,
            coalesce_streams=False,
            shutdown_kernel="immediate",  # once it has had its time to end by itself
        )
        self.record, self.folder, self.log_file = record, folder, log_file
        self.fallback = "" if job.chapter else str(PACKAGE.parent)
        self.limit_hit = ""
        self.timeout_func = self._seconds_left
        self.exit_asked = False
        self.shown: dict[int, CellOutputs] = {}
        self.displayed_in: dict[str, set[int]] = defaultdict(set)  # cells by display id
        self.requests: dict[str, int] = {}  # cells by the message that ran them
        self.current = -1  # the cell that ran last; before the first one what comes is the kernel's own
        self.late_errors: list[tuple[int, Mapping[str, Any]]] = []
        self.on_cell_executed = self._note_exit

    # -- start and end -------------------------------------------------------------------------------

    def create_kernel_manager(self) -> Any:
        self.km = kernel_manager(self.kernel_name, self.folder)
        return self.km

    async def async_start_new_kernel_client(self) -> Any:
        limit, log = START_TIMEOUT, f"(its log: {self.log_file})"
        overdue = f"did not answer in {START_TIMEOUT} s; does it speak Jupyter's protocol? {log}"
        if self._rest() < limit:
            limit, told, remedy = self._rest(), self.limits.told("notebook"), self.limits.remedy("notebook")
            overdue = f"ran past {told} as it started {log}; {remedy}"
        for tries_left in reversed(range(START_TRIES)):
            self.kc = self.km.client()
            self.kc.start_channels()
            try:
                await self.kc.wait_for_ready(timeout=limit)
                break
            except Exception:
                error = start_error(self.kernel_name, self.km, overdue, self.log_file)
                await self._async_cleanup_kernel()
                if not tries_left or error.running or "address already in use" not in str(error).lower():
                    raise error from None
                self.create_kernel_manager()
                await self.async_start_new_kernel(env=kernel_environment(self.kernel_name))
        self.kc.allow_stdin = False
        return self.kc

    start_new_kernel_client = run_sync(async_start_new_kernel_client)

    def execute(self) -> Any:
        self.reset_execution_trackers()
        with self.setup_kernel(env=kernel_environment(self.kernel_name)):
            try:
                self._prepare_kernel()
                self._run_cells()
            except DeadKernelError:
                self.record.kernel_exit = self.km.exit_code
                raise
            except (CellExecutionError, ExitedEarly):
                self._let_kernel_end()
                raise
            else:
                self._let_kernel_end()
                self._raise_late_error()
            finally:
                self._settle()
                self.set_widgets_metadata()
        return self.nb

    def _prepare_kernel(self) -> None:
        info = self.wait_for_reply(self.kc.kernel_info())
        if info is not None:
            self.nb.metadata["language_info"] = info["content"]["language_info"]
            if info["content"]["language_info"].get("name") != "python":
                return
        source = kernel_source(self.fallback)
        reply = self.wait_for_reply(self.kc.execute(source, silent=True, store_history=False))
        if reply is None or reply["content"]["status"] != "ok":
            raise RuntimeError("the kernel could not be prepared")

    async def _async_let_kernel_end(self) -> None:
        """As ``python script.py`` ends: threads are waited for and exit handlers run, but not for ever."""
        await ensure_async(self.km.request_shutdown())
        pid = self.km.pid
        patience = Patience(lambda: cpu_seconds(pid), most=max(self._rest(), LEAST_GRACE))
        while alive := await ensure_async(self.km.is_alive()):
            if patience.is_over():
                break
            await self._take_waiting(EXIT_POLL)
        if alive:
            self.record.warn(
                f"the kernel did not end within {patience.waited:.3g} s of its last cell, of which it worked "
                f"{patience.worked:.3g} s (a thread or an exit handler still ran), and was killed; what it was writing "
                "may be incomplete"
            )
        await self._take_waiting(0)

    _let_kernel_end = run_sync(_async_let_kernel_end)

    async def _take_waiting(self, patience: float) -> None:
        """Take the messages that are there; wait *patience* seconds for the first."""
        with contextlib.suppress(Empty):
            deadline = time.monotonic() + LEAST_GRACE
            while time.monotonic() < deadline:
                message = await self.kc.iopub_channel.get_msg(timeout=patience)
                self._take_other(message)

    # -- cells ---------------------------------------------------------------------------------------

    def _run_cells(self) -> None:
        for index, cell in enumerate(self.nb.cells):
            if not self.record.is_to_run(index):
                continue
            try:
                self.record.start(index)
                self.execute_cell(cell, index)
                if self.exit_asked and self.record.has_more_after(index):
                    raise ExitedEarly
            except BaseException as error:
                line = failed_line(self.nb.cells[index], getattr(error, "told", None))
                self.record.fail(index, _describe(error, self.limit_hit), line)
                raise
            finally:
                self._settle(index)
            self.record.complete(index)
            self._raise_late_error()

    def _settle(self, index: int | None = None) -> None:
        for shown in self.shown.values() if index is None else filter(None, [self.shown.get(index)]):
            shown.settle()

    async def _async_poll_output_msg(self, parent_msg_id: str, cell: Any, cell_index: int) -> None:
        """nbclient's loop, but it leaves the limits their turn however fast the messages come."""
        self.requests[parent_msg_id] = cell_index
        self.shown[cell_index] = CellOutputs(cell)
        with contextlib.suppress(CellExecutionComplete):
            while True:
                message = await self.kc.iopub_channel.get_msg(timeout=None)
                if message["parent_header"].get("msg_id") == parent_msg_id:
                    self.current = cell_index
                    self.process_message(message, cell, cell_index)
                else:
                    self._take_other(message)
                await asyncio.sleep(0)

    def _take_other(self, message: dict[str, Any]) -> None:
        """A message that answers no running cell: of a task or thread that an earlier one started, or of nobody.

        As in JupyterLab it goes below the cell that it belongs to; what names none goes below the one that ran last.
        """
        index = self.requests.get(message["parent_header"].get("msg_id"))
        if index is None and message["msg_type"] in _SHOWN and self.current in self.shown:
            index = self.current
        if index is None or message["msg_type"] not in _BELONGS:
            return
        cell = self.nb.cells[index]
        self.process_message(message, cell, index)
        if message["msg_type"] == "error" and not self._may_fail(cell, message["content"]):
            self.late_errors.append((index, message["content"]))

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] == "error":
            self.shown[cell_index].errors.append(output_from_msg(msg))
        output = super().process_message(msg, cell, cell_index)
        if self.record.is_save_due():
            self._settle()
            self.record.autosave()
        return output

    def output(self, outs: list[Any], msg: dict[str, Any], display_id: str | None, cell_index: int) -> Any:
        if hooks := self.output_hook_stack[msg["parent_header"].get("msg_id")]:
            return hooks[-1].output(outs, msg, display_id, cell_index)  # an Output widget takes it
        if msg["msg_type"] not in _SHOWN:
            return None
        shown = self.shown[cell_index]
        if msg["msg_type"] == "stream":
            shown.add_text(msg["content"]["name"], msg["content"]["text"])
        else:
            shown.add(output_from_msg(msg), display_id)
            if display_id:
                self.displayed_in[display_id].add(cell_index)
        return None

    def clear_output(self, outs: list[Any], msg: dict[str, Any], cell_index: int) -> None:
        if hooks := self.output_hook_stack[msg["parent_header"].get("msg_id")]:
            hooks[-1].clear_output(outs, msg, cell_index)
        else:
            self.shown[cell_index].clear(bool(msg["content"].get("wait")))

    def _update_display_id(self, display_id: str, msg: dict[str, Any]) -> None:
        for index in self.displayed_in.get(display_id, ()):
            as_shown = {**msg, "header": {**msg["header"], "msg_type": "display_data"}}
            self.shown[index].update(display_id, output_from_msg(as_shown))

    # -- how a cell ended ----------------------------------------------------------------------------

    async def _check_raise_for_error(
        self, cell: Any, cell_index: int, exec_reply: Mapping[str, Any] | None
    ) -> None:
        """A cell fails by the error that it showed, not by the reply alone: magics and hooks answer ``ok``."""
        if exec_reply is None:
            return
        error = told_error(exec_reply["content"], self.shown[cell_index].errors)
        code = _exit_code(exec_reply["content"])
        if error is None and code:
            error = {"ename": "SystemExit", "evalue": str(code), "traceback": []}
        if error is not None and not self._may_fail(cell, error):
            raise _failure(cell, error)

    def _may_fail(self, cell: Any, error: Mapping[str, Any]) -> bool:
        tags = cell.metadata.get("tags", ())
        return self.allow_errors or "raises-exception" in tags or error["ename"] in self.allow_error_names

    def _raise_late_error(self) -> None:
        """An error of a task or thread that an earlier cell started is that cell's."""
        for index, content in self.late_errors[:1]:
            error = _failure(self.nb.cells[index], content)
            self.record.fail(index, _describe(error, ""), failed_line(self.nb.cells[index], content))
            raise error

    async def _note_exit(self, cell: Any, cell_index: int, execute_reply: Mapping[str, Any]) -> None:
        if _exit_code(execute_reply["content"]) is not None:
            self.exit_asked = True

    # -- limits --------------------------------------------------------------------------------------

    def _rest(self) -> float:
        """Seconds that the notebook's limit leaves."""
        return float("inf") if self.deadline is None else max(self.deadline - time.monotonic(), 0.001)

    def _seconds_left(self, cell: Any) -> float | None:
        """Seconds the next cell may take: its own limit or what the notebook has left."""
        own, rest = self.limits.cell, None if self.deadline is None else self._rest()
        if rest is not None and (own is None or rest < own):
            self.limit_hit = f"{self.limits.told('notebook')}; {self.limits.remedy('notebook')}"
            return rest
        self.limit_hit = f"{self.limits.told('cell')}; {self.limits.remedy('cell')}" if own else ""
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


def _failure(cell: Any, error: Mapping[str, Any]) -> CellExecutionError:
    content = {
        "ename": error["ename"],
        "evalue": str(error["evalue"]),
        "traceback": error.get("traceback") or [],
    }
    failure = CellExecutionError.from_cell_and_msg(cell, content)
    failure.told = error  # type: ignore[attr-defined]
    return failure


def _exit_code(reply: Mapping[str, Any]) -> Any:
    """What a cell gave to ``exit`` or ``quit``, 0 if nothing; None where it was not called or keeps the kernel.

    Their one argument is ``keep_kernel``; whoever writes ``exit(1)`` does not mean that.
    """
    for entry in reply.get("payload") or ():
        if entry.get("source") == "ask_exit" and entry.get("keepkernel") is not True:
            return entry.get("keepkernel") or 0
    return None


def _describe(error: BaseException, limit: str) -> str:
    """What a cell ended with, in one line; *limit* is the one that it was about to pass."""
    if isinstance(error, CellExecutionError):
        return shorten(f"{error.ename}: {error.evalue}" if error.evalue else error.ename)
    if isinstance(error, CellTimeoutError):
        late = "IOPub" in str(error)
        return f"its outputs did not arrive in {IOPUB_TIMEOUT} s" if late else f"ran past {limit}"
    return _ENDS.get(type(error)) or first_line(error)


_ENDS = {DeadKernelError: "the kernel died", ExitedEarly: "ended the kernel", Cancelled: "interrupted"}
