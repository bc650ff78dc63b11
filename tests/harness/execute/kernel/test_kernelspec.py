"""How kernels are talked to; that they start, and why they do not, is told in test_execution."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import zmq
import zmq.asyncio
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.session import Session

from harness.execute.kernel import kernelspec as kernels
from harness.execute.kernel.kernelspec import Channel, kernel_environment, kernel_manager


async def receive_unannounced(address):
    """What a channel receives whose message came while another one was sent over its socket."""
    session, context = Session(key=b"key"), zmq.asyncio.Context()
    socket, peer = context.socket(zmq.PAIR), zmq.Context.shadow(context.underlying).socket(zmq.PAIR)
    try:
        socket.bind(address)
        peer.connect(address)
        waiting = asyncio.ensure_future(Channel(socket, session).get_msg(timeout=60))
        await asyncio.sleep(0.3)
        session.send(peer, "execute_reply", {"status": "ok"})
        time.sleep(0.3)  # it arrives while the loop does not look
        zmq.Socket.shadow(socket.underlying).get(zmq.EVENTS)  # as sending does: takes the announcement
        return await asyncio.wait_for(waiting, 10)
    finally:
        peer.close(0)
        context.destroy(0)


def test_a_reply_that_comes_while_a_message_is_sent_is_found(tmp_path):
    """Else a cell with widgets waits until its limit for a reply that is there."""
    with ThreadPoolExecutor(1) as pool:  # beside browser tests, this thread has a loop that runs
        message = pool.submit(asyncio.run, receive_unannounced(f"ipc://{tmp_path}/s")).result()
    assert message["content"] == {"status": "ok"}


@pytest.fixture
def specs(monkeypatch):
    """Kernelspecs by name, by their argv."""
    found = {}
    monkeypatch.setattr(
        kernels.KernelSpecManager, "get_kernel_spec", lambda self, name: KernelSpec(argv=found[name])
    )
    return found


@pytest.mark.parametrize(
    ("argv", "transport"),
    [
        (["/opt/env/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"], "ipc"),
        (["/opt/env/bin/python", "-m", "ipykernel", "-f", "{connection_file}"], "ipc"),
        (["R", "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}"], "tcp"),
        (["deno", "jupyter", "--kernel", "--conn", "{connection_file}"], "tcp"),
        (["python", "-m", "bash_kernel", "-f", "{connection_file}"], "tcp"),
    ],
)
def test_files_for_ipykernel_and_loopback_for_all_others(specs, tmp_path, argv, transport):
    specs["some"] = argv
    manager = kernel_manager("some", tmp_path)
    assert manager.transport == transport
    assert transport == "ipc" or manager.ip == "127.0.0.1"


def test_programs_beside_a_kernels_own_python_come_first(specs, tmp_path, monkeypatch):
    interpreter = tmp_path / "env" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    interpreter.write_text("#!/bin/sh\n")
    interpreter.chmod(0o755)
    monkeypatch.setenv("PATH", f"/usr/bin{os.pathsep}{interpreter.parent}{os.pathsep}/bin")
    specs["own"] = [str(interpreter), "-m", "ipykernel_launcher"]
    specs["bash"] = ["/bin/sh"]
    assert kernel_environment("own")["PATH"].split(os.pathsep) == [
        str(interpreter.parent),
        "/usr/bin",
        "/bin",
    ]
    assert kernel_environment("bash")["PATH"] == os.environ["PATH"]
