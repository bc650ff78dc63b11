"""Warm kernels: fork workers and kernels from a process that has imported the heavy packages once.

Importing torch, transformers and datasets costs a kernel 7 to 8 seconds of processor time, papermill a worker half
a second. ``python -m harness.forkserver DESCRIPTOR`` imports them once and touches nothing else; asked by
:class:`ForkServer`, it forks a worker, which forks its kernel's *seat* before it has a thread or an event loop, and
the seat becomes an ipykernel when the engine asks it to. A forked kernel is made equal to a fresh one: argv, path,
environment, directory, signals, random state, streams. What cannot be made equal runs in a fresh kernel:
:func:`harness.warmth.reason_for_cold` says when.

Linux only: there a fork is safe as long as no Python thread runs and no GPU was touched, which the server checks
after its imports; it forks nothing if the check fails.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from harness import worker
from harness.process import MARKER, PACKAGE_PARENT, adopt_orphans, is_linux

IMPORT_TIMEOUT = 180.0  # seconds for the heavy imports of a cold disk
_MESSAGE = 1 << 18  # bytes; an environment is a few thousand
_PACKAGES = (
    "harness.engine",
    "ipykernel.ipkernel",
    "ipykernel.kernelapp",
    "ipykernel.debugger",  # this and the rest are what a kernel imports before it answers
    "IPython.core.completerlib",
    "IPython.extensions.storemagic",
    "sqlite3",
    "tornado.platform.asyncio",
)
_STAT_ENVIRONMENT = (47, 48)  # env_start and env_end among the fields of /proc/self/stat after the name

Role = Callable[[], int]
"""What a forked process goes on as: called by the outermost frame, so that it ends as any program ends."""


# --- the harness's side --------------------------------------------------------------------------------


class ForkedProcess:
    """A worker that the server forked and this process adopted; like ``subprocess.Popen`` as far as needed."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """The exit code once it has ended, negative for a signal."""
        with self._lock:
            if self.returncode is None:
                try:
                    found, status = os.waitpid(self.pid, os.WNOHANG)
                except ChildProcessError:
                    self.returncode = 255  # somebody else collected it
                else:
                    self.returncode = os.waitstatus_to_exitcode(status) if found else None
            return self.returncode

    def wait(self) -> int:
        """Block until it has ended."""
        while (code := self.poll()) is None:
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """Starts the server at the first need and asks it for workers; safe from several threads.

    Args:
        environment: of the server, and so what every job has in common; libraries read it when they load.
        modules: names to import, ``package.module`` or ``package.module:attribute``.
        log: file for what the imports print.
    """

    def __init__(self, environment: Mapping[str, str], modules: Sequence[str], log: Path) -> None:
        self._environment = {**environment, MARKER: "0" * 32}
        self._modules = list(modules)
        self._log = log
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self.loaded: frozenset[str] = frozenset()  # top-level modules
        self.inherited = 0  # bytes that each forked process shares with the server
        self.trouble = "" if is_linux() else "this system cannot fork a loaded process safely"

    def start(self) -> bool:
        """Start it and wait until it has imported; False if it cannot serve, ``trouble`` then says why."""
        with self._lock:
            if self._process is None and not self.trouble:
                try:
                    self._start()
                except (OSError, ValueError) as error:
                    self._give_up(f"the fork server did not start: {error}")
            return not self.trouble

    def _start(self) -> None:
        adopt_orphans()  # a worker's parent is to be the harness, as if it had started it itself
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._log.open("ab") as log:
            self._socket = ours
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harness.forkserver", str(theirs.fileno()), *self._modules],
                cwd=PACKAGE_PARENT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        ours.settimeout(IMPORT_TIMEOUT)
        ready = self._receive()
        self.trouble = ready["trouble"]
        self.loaded = frozenset(ready["loaded"])
        self.inherited = ready["inherited"]

    def spawn(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        log: IO[Any],
        report: int,
        *,
        warm: bool,
    ) -> ForkedProcess:
        """Fork ``python -m harness.worker`` with these arguments; with *warm*, with a seat for its kernel.

        Raises:
            OSError: the server is gone.
        """
        request = {"arguments": list(arguments), "environment": dict(environment), "warm": warm}
        with self._lock:
            if self._socket is None:
                raise OSError(self.trouble or "the fork server does not run")
            leave_read, leave_write = os.pipe()
            try:
                descriptors = [log.fileno(), report, leave_read]
                socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
                process = ForkedProcess(self._receive()["pid"])
                os.write(leave_write, b"1")
                return process
            except (OSError, ValueError) as error:
                self._give_up(f"the fork server died: {error}")
                raise OSError(self.trouble) from None
            finally:
                os.close(leave_read)
                os.close(leave_write)

    def _receive(self) -> dict[str, Any]:
        assert self._socket is not None
        if not (data := self._socket.recv(_MESSAGE)):
            raise OSError(f"it ended, see {self._log}")
        return json.loads(data)

    def _give_up(self, trouble: str) -> None:
        self.trouble = trouble
        self._end()

    def close(self) -> None:
        """End the server; its workers live on."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()


# --- the server ----------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> Role:
    """Import, say so, then fork a worker for each request until the harness is gone."""
    with socket.socket(fileno=int(arguments[0])) as channel:
        channel.set_inheritable(False)
        fresh_path = sys.path[sys.path[0] == str(PACKAGE_PARENT) :]  # ours alone: the user may name it, too
        with _as_in_a_kernel():
            worker.import_papermill()
            for module in (*_PACKAGES, *arguments[1:]):
                _import(module)
            sys.modules["nbformat"].v4.new_notebook()  # compiles the validator
        _keep_finalizers()
        gc.collect()
        gc.freeze()  # a collection in a child leaves the shared pages alone
        loaded = sorted({name.partition(".")[0] for name in sys.modules})
        answer = {"trouble": _why_unsafe(), "loaded": loaded, "inherited": _private_bytes()}
        channel.send(json.dumps(answer).encode())
        while True:
            data, descriptors, _, _ = socket.recv_fds(channel, _MESSAGE, 3)
            if not data:
                return lambda: 0
            role = _fork_worker(json.loads(data), descriptors, channel, fresh_path)
            if role is not None:
                return role


def _import(name: str) -> None:
    """``module`` or ``module:attribute``, which some packages load at its first use. What fails stays for the cell."""
    module, _, attribute = name.partition(":")
    try:
        found = importlib.import_module(module)
        if attribute:
            getattr(found, attribute)
    except BaseException as error:
        print(f"{name} not imported: {type(error).__name__}: {error}", file=sys.__stderr__)


def _keep_finalizers() -> None:
    """What packages want done at exit for the objects they made at import is not for each forked process to do.

    torch takes back a thousand operators, which copies every page they lie on; a temporary folder would vanish for all.
    """
    for finalizer in weakref.finalize._registry:  # type: ignore[attr-defined]
        finalizer.atexit = False


def _private_bytes() -> int:
    """Memory that belongs to no file: what a forked process has from the start."""
    _, resident, of_files, *_ = map(int, Path("/proc/self/statm").read_text(encoding="ascii").split())
    return (resident - of_files) * os.sysconf("SC_PAGE_SIZE")


def _why_unsafe() -> str:
    """Why this process must not be forked; empty where it may."""
    threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if threads:
        return f"an import started a thread ({', '.join(threads)})"
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if descriptor.readlink().name.startswith("nvidia"):
                return "an import touched the GPU"
    return ""


def _fork_worker(
    request: Mapping[str, Any], descriptors: Sequence[int], channel: socket.socket, fresh_path: list[str]
) -> Role | None:
    """Fork twice, so that the worker's parent is the harness; its role in the worker, None in the server."""
    read_end, write_end = os.pipe()
    if (between := os.fork()) == 0:
        between = os.getpid()
        if worker := os.fork():
            os.write(write_end, str(worker).encode())
            os._exit(0)
        while os.getppid() == between:
            time.sleep(0.001)
        os.close(read_end)
        os.close(write_end)
        channel.close()
        return _become_worker(request, descriptors, fresh_path)
    os.close(write_end)
    os.waitpid(between, 0)
    pid = int(os.read(read_end, 20))
    os.close(read_end)
    for descriptor in descriptors:
        os.close(descriptor)
    channel.send(json.dumps({"pid": pid}).encode())
    return None


def _become_worker(request: Mapping[str, Any], descriptors: Sequence[int], fresh_path: list[str]) -> Role:
    os.setsid()
    log, report, leave = descriptors
    if not os.read(leave, 1):  # the harness does not know of this worker: it, or the server, died meanwhile
        return lambda: 0
    os.close(leave)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    _set_environment(request["environment"])
    seat = None
    if request["warm"]:
        seat = fork_seat(report)
        if seat is None:
            return _wait_for_kernel(fresh_path)
    return lambda: worker.main([*request["arguments"], str(report)], seat)


def _set_environment(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    _mark(environment[MARKER])


def _mark(marker: str) -> None:
    """Write the marker over the server's, where others read it: ``/proc/PID/environ`` shows this memory."""
    fields = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    start, end = (int(fields[i]) for i in _STAT_ENVIRONMENT)
    name = f"{MARKER}=".encode()
    block = ctypes.string_at(start, end - start)
    place = 0 if block.startswith(name) else block.index(b"\0" + name) + 1
    ctypes.memmove(start + place + len(name), marker.encode(), len(marker))


# --- the kernel ----------------------------------------------------------------------------------------


class Seat:
    """A child of the worker, ready to become a kernel; it ends by itself when the worker does without it."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self._channel = channel

    def take(self, command: Sequence[str], environment: Mapping[str, str], folder: str) -> ForkedProcess:
        """Let it become the kernel that *command* would start."""
        order = {"command": list(command), "environment": dict(environment), "folder": folder}
        with (
            self._channel,
            contextlib.suppress(OSError),
        ):  # one that was killed is seen to be dead, as any kernel
            self._channel.send(json.dumps(order).encode())
        return ForkedProcess(self.pid)


_orders: socket.socket | None = None  # of a seat: where its orders come from


def fork_seat(report: int) -> Seat | None:
    """Fork the seat of this worker's kernel; None in the child."""
    global _orders
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid:
        theirs.close()
        return Seat(pid, ours)
    ours.close()
    os.close(report)  # the harness sees at once when the worker is gone
    _orders = theirs
    return None


def _wait_for_kernel(fresh_path: list[str]) -> Role:
    """The seat: wait for the order, then be the kernel."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert _orders is not None
    with _orders:
        data = _orders.recv(_MESSAGE)
    if not data:
        return lambda: 0
    order = json.loads(data)
    return lambda: _be_kernel(order, fresh_path)


def _be_kernel(order: Mapping[str, Any], fresh_path: list[str]) -> int:
    """Go on as the fresh interpreter would that was started with the order's command."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(order["folder"])
    _set_environment(order["environment"])
    os.environ["PYDEVD_USE_FRAME_EVAL"] = "NO"  # as the debugger does where a kernel imports it
    _, _, module, *options = order["command"]
    sys.argv = [importlib.util.find_spec(module).origin, *options]
    sys.path[:] = fresh_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "harness"]:
        del sys.modules[name]  # the notebook imports the one on its own path
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed()  # Python's generator reseeds itself after a fork, NumPy's does not
    from ipykernel import kernelapp

    parent = int(order["environment"]["JPY_PARENT_PID"])  # ipykernel reads it at its import
    app = kernelapp.IPKernelApp.instance(parent_handle=parent)
    app.initialize()
    app.start()
    if app.control_thread is not None:  # it may still flush, through a thread that ipykernel ends first
        app.control_thread.stop()
        app.control_thread.join()
    app.shell.reset(new_session=False)  # close what the notebook left open
    gc.collect()
    return 0


def end(code: int) -> NoReturn:
    """End as an interpreter ends, but for the tearing down of all modules.

    That would write to each page that is shared with the server, and so copy it, to free it at once.
    """
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]  # joins threads that are no daemons
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(Exception):
            stream.flush()  # type: ignore[union-attr]
    os._exit(code)


@contextlib.contextmanager
def _as_in_a_kernel() -> Iterator[None]:
    """Packages look round while they are imported; let them see what they would see in a kernel.

    tqdm, transformers and huggingface_hub choose their progress bars by ``get_ipython()``, and logging handlers hold
    on to ``sys.stderr``: theirs must find the kernel's stream later.
    """
    import builtins

    import IPython

    class ZMQInteractiveShell:  # the name is what they look at
        config: Mapping[str, Any] = {"IPKernelApp": {}}

    shell = ZMQInteractiveShell()
    before = IPython.get_ipython
    IPython.get_ipython = builtins.get_ipython = lambda: shell  # type: ignore[attr-defined]
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # as ipykernel does
    sys.stdout, sys.stderr = _Later("stdout", sys.stdout), _Later("stderr", sys.stderr)  # type: ignore[assignment]
    try:
        yield
    finally:
        IPython.get_ipython = before
        del builtins.get_ipython  # type: ignore[attr-defined]
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__


class _Later:
    """Whatever ``sys.stdout`` or ``sys.stderr`` is when it is used."""

    def __init__(self, name: str, until_then: Any) -> None:
        self._name = name
        self._until_then = until_then

    def __getattr__(self, attribute: str) -> Any:
        now = getattr(sys, self._name)
        return getattr(self._until_then if now is self else now, attribute)


if __name__ == "__main__":
    from harness.forkserver import end as _end
    from harness.forkserver import main as _main  # this module, under the name others know it by

    _end(_main(sys.argv[1:])())
