"""`python -m sft.serve`: many clients at once, texts a second on one core, a request far too large.

Run as ``python -m benchmarks.serving [--folder FOLDER] [--clients 1000] [--out FILE]``. Without a folder mini-bert-zh
with an output layer of two random labels is exported first: how fast it answers does not hang on what it answers.

The server is a process of its own on one core with one thread; the clients run on another core where there is one.
For each backend:

* ``clients``: so many connections at once, one short text each; how many failed, texts a second, time to an answer;
* ``alone``: one client after another, one text each, for the time of a single answer;
* ``refused``: 100 MB announced and sent; what came back, how much was sent, and by how much the server's memory grew.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from sft.machine import machine

TEXTS = (
    "房间很干净，服务员也热情",
    "等了一个小时才上菜，味道一般",
    "电池不耐用，用了两天就坏了",
    "故事写得很好，一口气读完",
    "离地铁站近，早餐种类多",
)
WANTED = 50  # texts a second, int8, one core


@contextmanager
def serving(folder: Path, backend: str) -> Iterator[tuple[int, psutil.Process]]:
    """The port and process of a server on the first core."""
    options = [] if backend == "torch" else ["--onnx"]
    command = [sys.executable, "-m", "sft.serve", str(folder), "--port", "0", "--threads", "1", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        [*command, "--device", "cpu"], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            line = process.stdout.readline()
            if not (found := re.search(r":(\d+)/", line)):
                raise SystemExit(f"the server did not start: {line}")
            server = psutil.Process(process.pid)
            if hasattr(server, "cpu_affinity"):
                cores = server.cpu_affinity()
                server.cpu_affinity(cores[:1])
                psutil.Process().cpu_affinity(cores[1:] or cores)
            yield int(found[1]), server
        finally:
            process.terminate()


async def ask(port: int, text: str) -> float:
    """Seconds to the answer of one request on a connection of its own.

    Raises:
        OSError, ValueError: no connection, or no prediction.
    """
    body = json.dumps({"texts": [text]}).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + body)
    answer = await reader.read(-1)
    writer.close()
    if not answer.startswith(b"HTTP/1.1 200"):
        raise ValueError(answer[:200].decode(errors="replace"))
    json.loads(answer.partition(b"\r\n\r\n")[2])["predictions"][0]["label"]
    return time.perf_counter() - began


async def crowd(port: int, clients: int) -> dict[str, Any]:
    """All clients at once."""
    began = time.perf_counter()
    asked = (ask(port, TEXTS[n % len(TEXTS)]) for n in range(clients))
    answers = await asyncio.gather(*asked, return_exceptions=True)
    seconds = time.perf_counter() - began
    times = sorted(one for one in answers if isinstance(one, float))
    errors = [repr(one) for one in answers if not isinstance(one, float)]
    return {
        "clients": clients,
        "errors": len(errors),
        "first_error": errors[:1],
        "texts_per_second": len(times) / seconds,
        "median_seconds": statistics.median(times),
        "slowest_seconds": times[-1],
    }


async def alone(port: int, count: int = 50) -> dict[str, float]:
    """One after another."""
    times = [await ask(port, TEXTS[n % len(TEXTS)]) for n in range(count)]
    return {"texts_per_second": count / sum(times), "median_seconds": statistics.median(times)}


def send_too_much(port: int, server: psutil.Process, megabytes: int = 100) -> dict[str, Any]:
    """What a client sees that sends 100 MB without asking, and what it costs the server."""
    before, sent, answer = server.memory_info().rss, 0, b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(
            f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: {megabytes << 20}\r\n\r\n".encode()
        )
        try:
            while sent < megabytes:
                connection.sendall(bytes(1 << 20))
                sent += 1
        except OSError:
            pass
        try:
            answer = connection.recv(4096)
        except OSError:
            answer = b"reset"
    grown = server.memory_info().rss - before
    return {
        "answer": answer.split(b"\r\n")[0].decode(),
        "sent_mb": sent,
        "server_grew_mb": round(grown / 2**20, 1),
    }


def export_mini_bert(folder: Path) -> Path:
    """mini-bert-zh with an output layer of random numbers, in ONNX and 8 bits."""
    from transformers import AutoTokenizer

    from sft.export import export
    from sft.fine_tuning import load_classifier
    from sft.hub import locate_model

    location = locate_model("mini-bert-zh")
    load_classifier(location, id2label={0: "差评", 1: "好评"}).save_pretrained(folder)
    AutoTokenizer.from_pretrained(location).save_pretrained(folder)
    export(folder, int8=True, texts=TEXTS, allow_changes=True)
    return folder


def measure(folder: Path, backend: str, clients: int) -> dict[str, Any]:
    with serving(folder, backend) as (port, server):
        asyncio.run(alone(port, 10))  # the first ones prepare kernels
        return {
            "alone": asyncio.run(alone(port)),
            "clients": asyncio.run(crowd(port, clients)),
            "refused": send_too_much(port, server),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, help="made by sft.finetune, exported by sft.export --onnx --int8"
    )
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "serving.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = arguments.folder or export_mini_bert(Path(place) / "mini-bert")
        found = {backend: measure(folder, backend, arguments.clients) for backend in ("torch", "int8")}
    for backend, one in found.items():
        crowded = one["clients"]
        print(
            f"{backend}: {crowded['clients']} clients at once, {crowded['errors']} errors, "
            f"{crowded['texts_per_second']:.0f} texts/s, slowest {crowded['slowest_seconds']:.2f} s; "
            f"alone {1000 * one['alone']['median_seconds']:.1f} ms; 100 MB: {one['refused']}"
        )
    print(f"int8, one core: {found['int8']['clients']['texts_per_second']:.0f} texts/s, wanted {WANTED}")
    found["machine"] = machine()
    arguments.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
