"""Kernels: which one a notebook gets, how it is talked to, and why it did not start."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from pathlib import Path
from queue import Empty
from typing import Any

import zmq
import zmq.asyncio
from jupyter_client import AsyncKernelClient, AsyncKernelManager
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from traitlets import Type, default

from harness.book.notebook import NATIVE_KERNEL
from harness.errors import HarnessError
from harness.execute.kernel.ending import describe_exit, first_line, telling_line

RECONNECT_EVERY = 5  # milliseconds between tries to reach a kernel that does not listen yet
EXIT_POLL = 0.01  # seconds between looks at a kernel that was asked to end
LOOK_AGAIN = 0.2  # seconds after which a socket is looked at without having been told of a message
SILENT_ANSWERS = 5  # after which a kernel is believed to send no outputs for kernel_info


class KernelStartError(Exception):
    """A kernel did not start; the message says why."""

    def __init__(self, reason: str, *, running: bool) -> None:
        super().__init__(reason)
        self.running = running  # still


class OwnInterpreter(KernelSpecManager):
    """``python3`` is always the interpreter that runs the harness, whatever a kernelspec says."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        if kernel_name == NATIVE_KERNEL:
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="Python 3", language="python")
        return super().get_kernel_spec(kernel_name)


class Channel(AsyncZMQSocketChannel):
    """Finds a message even where nobody told of it.

    A widget's message is sent on the socket that waits for the reply; what arrives in that moment is not announced,
    and would be found only at the cell's limit.
    """

    async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        while True:
            rest = deadline - time.monotonic()
            try:
                return await super().get_msg(timeout=max(min(rest, LOOK_AGAIN), 0))
            except Empty:
                if rest <= LOOK_AGAIN:
                    raise


class KernelClient(AsyncKernelClient):
    """Starts at the kernel's first answer.

    The base class then reads on until nothing has come for a fifth of a second; nbclient passes over messages that
    belong to no cell anyway.
    """

    shell_channel_class = Type(Channel)
    iopub_channel_class = Type(Channel)

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        answers = 0
        while True:
            self.kernel_info()
            with contextlib.suppress(Empty):
                reply = await self.shell_channel.get_msg(timeout=min(1, max(deadline - time.monotonic(), 0)))
                if reply["msg_type"] == "kernel_info_reply":
                    answers += 1
                    if answers < SILENT_ANSWERS:
                        await self.iopub_channel.get_msg(
                            timeout=0.2
                        )  # its outputs reach us, too; else once more
                    return
            if not await self.is_alive():
                raise RuntimeError("it died")
            if time.monotonic() > deadline:
                raise TimeoutError


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

    @property
    def pid(self) -> int | None:
        """Of the kernel's process; None where it is not on this machine."""
        return getattr(self.provisioner, "pid", None)

    @property
    def exit_code(self) -> int | None:
        """How the kernel ended; None while it runs."""
        process = getattr(self.provisioner, "process", None)
        return process.poll() if process is not None else None


def kernel_manager(kernel: str, folder: Path) -> KernelManager:
    """What starts *kernel* and talks to it.

    IPython's own talks through files in *folder*: no ports to race for, nothing on the network. Of others few can do
    that: R's joins address and port with a colon, Deno's knows TCP alone.
    """
    kernels = OwnInterpreter()
    transport = "ipc" if _is_ipykernel(kernels.get_kernel_spec(kernel)) else "tcp"
    return KernelManager(
        kernel_name=kernel,
        kernel_spec_manager=kernels,
        transport=transport,
        connection_file=str(folder / "k.json"),
    )


def kernel_environment(kernel: str) -> dict[str, str]:
    """This process's environment, in which ``!pip`` and ``python`` are those of a Python kernel."""
    environment, spec = dict(os.environ), OwnInterpreter().get_kernel_spec(kernel)
    interpreter = shutil.which(spec.argv[0])
    if interpreter and _is_ipykernel(spec):
        own = str(Path(interpreter).absolute().parent)  # a virtual environment's is a link
        others = [part for part in environment.get("PATH", os.defpath).split(os.pathsep) if part != own]
        environment["PATH"] = os.pathsep.join([own, *others])
    return environment


def _is_ipykernel(spec: KernelSpec) -> bool:
    return any("ipykernel" in part for part in spec.argv)


def language_of(kernel: str) -> str:
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
        raise HarnessError(f"but {where} is broken ({first_line(error)}); mend it, {remedy}") from None
    if not spec.argv:
        raise HarnessError(f"but {spec.resource_dir}/kernel.json has no argv; mend it, {remedy}")
    return spec.language or "python"


def start_error(kernel: str, manager: KernelManager, overdue: str, log: Path) -> KernelStartError:
    """Why the kernel that *manager* started did not answer; where it still runs, it is *overdue*."""
    code = manager.exit_code
    reason = f"the kernel {kernel!r} {overdue}" if code is None else describe_death(kernel, code, log)
    return KernelStartError(reason, running=code is None)


def describe_death(kernel: str, code: int | None, log: Path) -> str:
    """How a kernel ended before it ran a cell."""
    told = ""
    with contextlib.suppress(OSError):
        told = telling_line(log.read_text(encoding="utf-8", errors="replace"))
    how = describe_exit(code) + (f": {told}" if told else "")
    what = "the kernel died" if (code or 0) < 0 else f"the kernel {kernel!r} did not start"
    return f"{what} ({how}{f'; see {log}' if told else ''})"
