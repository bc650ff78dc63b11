"""A small HTTP server for a folder that :mod:`sft.finetune` left: a page to type into, and an endpoint for programs.

    python -m sft.serve FOLDER --port 8000 --backend int8
    curl -d '{"texts": ["房间不错"]}' http://127.0.0.1:8000/predict

``GET /`` is the page, ``GET /health`` tells what is served, ``POST /predict`` takes ``{"texts": […]}`` and gives
``{"predictions": [{"label", "probability", "scores"}, …]}``; everything that goes wrong is ``{"error": "…"}``.

The standard library's server has one thread for each connection; they wait for one thread that runs the model on what
has come in meanwhile, so that many small requests cost little more than a few large ones. Connections beyond
:data:`MOST_CONNECTIONS` wait where the system keeps them: a thousand threads that want Python's lock would, on one
core, do nothing but wake each other.
"""

from __future__ import annotations

from sft.commands import CommandError, expect_interrupts, one_line_errors

if __name__ == "__main__":
    expect_interrupts()

import json
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import typer

from sft.predict import ONNX_FILES, Classifier, Prediction
from sft.templates import render

MOST_BYTES = 1_000_000  # of a request
MOST_TEXTS = 256  # in a request
MOST_CHARACTERS = 10_000  # of a text; the model reads fewer
MOST_WAITING = 20_000  # texts that wait for the model; more are turned away
MOST_CONNECTIONS = 64  # that are heard at once

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_BATCH = 32
_PATIENCE = 5.0  # seconds that a connection may be silent
_LINGER = (2.0, 16_000_000)  # seconds and bytes for which a refused request is still heard out


class RequestError(Exception):
    """A request that is refused: a status and one line that says why."""

    def __init__(self, status: HTTPStatus, told: str) -> None:
        super().__init__(told)
        self.status = status


class Batcher:
    """Gathers the texts of all requests and runs the model on them in one thread.

    Args:
        predict: called with a list of at most ``batch_size`` texts, never twice at once.
    """

    def __init__(
        self, predict: Callable[[list[str]], Sequence[Prediction]], batch_size: int = _BATCH
    ) -> None:
        self._predict, self._batch_size = predict, batch_size
        self._waiting: queue.SimpleQueue[tuple[str, Future[Prediction]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True, name="model")
        self._thread.start()

    def submit(self, texts: Sequence[str]) -> list[Future[Prediction]]:
        """One future a text, in order.

        Raises:
            RequestError: too many texts wait already.
        """
        if self._waiting.qsize() + len(texts) > MOST_WAITING:
            raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, "排队的文字太多：过一会儿再试")
        futures: list[Future[Prediction]] = [Future() for _ in texts]
        for pair in zip(texts, futures, strict=True):
            self._waiting.put(pair)
        return futures

    def close(self) -> None:
        """Finish what waits, then end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch = [first]
            while len(batch) < self._batch_size:
                try:
                    following = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    self._waiting.put(None)
                    break
                batch.append(following)
            try:
                for (_, future), prediction in zip(
                    batch, self._predict([text for text, _ in batch]), strict=True
                ):
                    future.set_result(prediction)
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)


class Server(ThreadingHTTPServer):
    """Serves one classifier.

    Raises:
        OSError: the port is taken, or the address is not of this machine.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 2048  # a thousand clients knock at once

    def __init__(self, address: tuple[str, int], classifier: Classifier) -> None:
        self.classifier = classifier
        self.batcher = Batcher(classifier.predict)
        self.page = render(
            "serve.html",
            name=classifier.folder.resolve().name,
            labels=classifier.labels,
            most_texts=MOST_TEXTS,
        ).encode()
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for a connection, once there is one to spare."""
        self._free.acquire()
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The thread's work; its place is free afterwards."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news; anything else keeps its traceback."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "sft", ""
    timeout = _PATIENCE
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body leave in one packet

    def do_GET(self) -> None:
        """The page, the health, or 404."""
        if {"Content-Length", "Transfer-Encoding"} & set(self.headers):
            self.close_connection = True  # a body that nobody reads is not the next request
        path = self.path.partition("?")[0]
        if path == "/":
            self._send(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")
        elif path == "/health":
            classifier = self.server.classifier
            self._answer(
                HTTPStatus.OK, {"status": "ok", "backend": classifier.backend, "labels": classifier.labels}
            )
        else:
            self.send_error(HTTPStatus.NOT_FOUND, "没有这个地址：GET /、GET /health、POST /predict")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Predictions."""
        try:
            if self.path.partition("?")[0] != "/predict":
                raise RequestError(HTTPStatus.NOT_FOUND, "没有这个地址：POST /predict")
            texts = parse_texts(self.rfile.read(self._length()))
            predictions = [future.result() for future in self.server.batcher.submit(texts)]
        except RequestError as error:
            self.send_error(error.status, str(error))
            return
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:
            self.log_error("%s: %s", type(error).__name__, error)
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, "模型出错了，服务器的终端里有原因")
            return
        self._answer(HTTPStatus.OK, {"predictions": [vars(prediction) for prediction in predictions]})

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Every error is JSON and ends the connection: what it still sends would be taken for a request."""
        told = message or HTTPStatus(code).phrase
        self.close_connection = True
        self._answer(code, {"error": told})
        self._linger()

    def handle_expect_100(self) -> bool:
        """A client that asks before it sends is told at once if it is too much."""
        try:
            self._length()
        except RequestError as error:
            self.send_error(error.status, str(error))
            return False
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Requests are not logged: what people type is theirs."""

    def _length(self) -> int:
        """Bytes of the body, as announced.

        Raises:
            RequestError: not announced, no number, or too many.
        """
        announced = self.headers.get_all("Content-Length") or []
        if self.headers.get("Transfer-Encoding") or not announced:
            raise RequestError(HTTPStatus.LENGTH_REQUIRED, "请求要写明 Content-Length")
        if len(set(announced)) > 1 or not announced[0].isascii() or not announced[0].isdigit():
            raise RequestError(HTTPStatus.BAD_REQUEST, "Content-Length 不是一个数")
        length = int(announced[0][:20])
        if length > MOST_BYTES:
            raise RequestError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"请求太大：最多 {MOST_BYTES:,} 字节，分几次发"
            )
        return length

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        self._send(
            status, json.dumps(content, ensure_ascii=False).encode(), "application/json; charset=utf-8"
        )

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", _POLICY)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.wfile.flush()

    def _linger(self) -> None:
        """Hear a refused request out for a moment: to close at once would reset the connection, and the client would
        see that instead of the answer."""
        seconds, left = _LINGER
        until = time.monotonic() + seconds
        self.connection.settimeout(0.2)
        try:
            self.connection.shutdown(socket.SHUT_WR)
            while left > 0 and time.monotonic() < until and (part := self.connection.recv(1 << 16)):
                left -= len(part)
        except OSError:  # gone, or silent
            pass


def parse_texts(body: bytes) -> list[str]:
    """The texts of a request.

    Raises:
        RequestError: what is wrong with it.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(HTTPStatus.BAD_REQUEST, '不是 JSON：要 {"texts": ["…"]}，UTF-8 编码') from None
    texts = request.get("texts") if isinstance(request, dict) else None
    if not isinstance(texts, list):
        raise RequestError(HTTPStatus.BAD_REQUEST, '缺 texts：要 {"texts": ["…"]}')
    if not 1 <= len(texts) <= MOST_TEXTS:
        raise RequestError(HTTPStatus.BAD_REQUEST, f"texts 里有 {len(texts):,} 条：每次 1 到 {MOST_TEXTS} 条")
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str) or not text.strip():
            raise RequestError(HTTPStatus.BAD_REQUEST, f"texts 的第 {number} 条不是文字，或是空的")
        if len(text) > MOST_CHARACTERS:
            raise RequestError(
                HTTPStatus.BAD_REQUEST,
                f"texts 的第 {number} 条有 {len(text):,} 个字，最多 {MOST_CHARACTERS:,} 个",
            )
    return texts


def start_server(classifier: Classifier, host: str, port: int) -> Server:
    """A server that listens; ``serve_forever`` answers.

    Raises:
        CommandError: the port is taken or not allowed, or the address is not of this machine.
    """
    try:
        return Server((host, port), classifier)
    except (OSError, OverflowError) as error:
        told = getattr(error, "strerror", None) or error
        raise CommandError(f"不能在 {host}:{port} 上等待请求（{told}）：换一个 --port 或 --host") from None


def main(
    folder: Annotated[Path, typer.Argument(help="模型文件夹，sft.finetune 的 --out")],
    host: Annotated[str, typer.Option(help="在哪个地址上等待；默认只有这台机器能访问")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="端口，0 为随便一个空的")] = 8000,
    onnx: Annotated[bool, typer.Option("--onnx", help="用 sft.export 导出的模型，有 int8 就用 int8")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="模型用几个线程")] = None,
    device: Annotated[str, typer.Option(help="不用 --onnx 时：auto、cpu、cuda 或 mps")] = "auto",
) -> None:
    """开一个小服务：浏览器里有一页可以打字，程序可以 POST /predict。"""
    with one_line_errors("serve", interrupted="已停止"):
        backend = "torch"
        if onnx:
            backend = next(
                (name for name in ("int8", "onnx") if (folder / ONNX_FILES[name]).is_file()), "onnx"
            )
        server = start_server(Classifier(folder, backend=backend, device=device, threads=threads), host, port)
        with server:
            where, chosen = server.server_address[:2]
            print(f"http://{where}:{chosen}/　{backend}；Ctrl-C 停止", flush=True)
            if host not in ("127.0.0.1", "localhost", "::1"):
                print("注意：同一网络里的任何人都能用它，没有密码", file=sys.stderr)
            try:
                server.serve_forever()
            finally:
                server.batcher.close()


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    app()
