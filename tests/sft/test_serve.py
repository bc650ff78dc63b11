"""`sft/serve.py`: answers, refusals that say why, many clients at once. The model is a stand-in that counts."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_classifier import TEXTS, write_classifier

from sft import serve
from sft.commands import CommandError
from sft.predict import Classifier, Prediction

ROOT = Path(__file__).resolve().parents[2]


class Counting:
    """Says how long a text is; remembers the batches that it was given."""

    folder, backend, labels = Path("长短"), "torch", ["短", "<b>长</b>"]

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()

    def predict(self, texts: list[str]) -> list[Prediction]:
        self.gate.wait()
        self.batches.append(list(texts))
        if any(text == "坏" for text in texts):
            raise RuntimeError("broken on purpose")
        return [Prediction(str(len(text)), 0.75, {"短": 0.75, "<b>长</b>": 0.25}) for text in texts]


@pytest.fixture
def running():
    """A server on a free port with its stand-in."""
    model = Counting()
    with serve.start_server(model, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield SimpleNamespace(model=model, server=server, port=server.server_address[1])
        model.gate.set()
        server.shutdown()
        server.batcher.close()
        thread.join()


def ask(running, method: str, path: str, body: bytes | None = None, **headers: str):
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8"), response
    finally:
        connection.close()


def predict(running, content) -> tuple[int, dict]:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    status, text, _ = ask(running, "POST", "/predict", body)
    return status, json.loads(text)


def raw(running, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
        connection.sendall(sent)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
        return b"".join(parts)


def test_texts_are_answered_in_their_order(running):
    status, answer = predict(running, {"texts": ["一", "一二三", "一二"]})
    assert status == 200
    assert [one["label"] for one in answer["predictions"]] == ["1", "3", "2"]
    assert answer["predictions"][0]["scores"] == {"短": 0.75, "<b>长</b>": 0.25}


def test_the_page_is_self_contained_and_labels_are_escaped(running):
    status, page, response = ask(running, "GET", "/")
    assert status == 200 and "<textarea" in page
    assert "&lt;b&gt;长&lt;/b&gt;" in page and "<b>长" not in page
    assert "http://" not in page and "https://" not in page
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]


def test_health_tells_what_is_served(running):
    status, text, _ = ask(running, "GET", "/health")
    assert status == 200
    assert json.loads(text) == {"status": "ok", "backend": "torch", "labels": ["短", "<b>长</b>"]}


def test_a_head_request_has_no_body_and_the_length_of_the_page(running):
    status, text, response = ask(running, "HEAD", "/")
    assert (status, text) == (200, "") and int(response.headers["Content-Length"]) > 500


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{", "不是 JSON"),
        (b"\xff\xfe", "不是 JSON"),
        (b"", "不是 JSON"),
        (b"[" * 100_000, "不是 JSON"),
        (b'"texts"', "缺 texts"),
        (b'{"text": ["a"]}', "缺 texts"),
        (b'{"texts": "a"}', "缺 texts"),
        (b'{"texts": []}', "0 条"),
        (json.dumps({"texts": ["a"] * 257}).encode(), "257 条"),
        (b'{"texts": ["a", 1]}', "第 2 条"),
        (b'{"texts": [null]}', "第 1 条"),
        (b'{"texts": ["  "]}', "第 1 条"),
        (json.dumps({"texts": ["a", "a", "字" * 10_001]}).encode(), "第 3 条有 10,001 个字"),
    ],
)
def test_a_body_that_is_not_understood_is_told_why(running, body, told):
    status, answer = predict(running, body)
    assert status == 400 and told in answer["error"]
    assert running.model.batches == []


def test_other_addresses_and_methods_are_refused_in_json(running):
    for method, path, expected in (
        ("GET", "/predict", 404),
        ("POST", "/", 404),
        ("GET", "/../etc/passwd", 404),
        ("DELETE", "/predict", 501),
    ):
        status, text, _ = ask(running, method, path, b"{}" if method == "POST" else None)
        assert status == expected and json.loads(text)["error"]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"Content-Length: 100000000", b"413"),
        (b"Content-Length: 99999999999999999999999999", b"413"),
        (b"Content-Length: -1", b"400"),
        (b"Content-Length: 1\r\nContent-Length: 2", b"400"),
        (b"Transfer-Encoding: chunked", b"411"),
        (b"Accept: */*", b"411"),
    ],
)
def test_the_announced_length_decides_before_anything_is_read(running, head, status):
    answer = raw(running, b"POST /predict HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 " + status) and b'{"error": ' in answer


def test_nonsense_is_no_request(running):
    assert b'{"error": ' in raw(running, b"\x16\x03\x01 TLS here\r\n\r\n")
    assert predict(running, {"texts": ["一"]})[0] == 200


def test_a_client_that_asks_first_is_refused_before_it_sends(running):
    asked = b"POST /predict HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    assert raw(running, asked % 2_000_000).startswith(b"HTTP/1.1 413")
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
        body = b'{"texts": ["a"]}'
        connection.sendall(asked % len(body))
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        connection.sendall(body)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")


def test_a_request_that_is_sent_whole_although_too_large_still_gets_its_answer(running):
    status, answer = predict(running, b"x" * 5_000_000)
    assert status == 413 and "1,000,000" in answer["error"]


def test_a_hundred_megabytes_are_not_taken(running):
    block, sent = b"x" * (1 << 20), 0
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 104857600\r\n\r\n")
        answer = connection.recv(4096)
        try:
            while sent < 100:
                connection.sendall(block)
                sent += 1
        except OSError:
            pass
    assert answer.startswith(b"HTTP/1.1 413") and sent < 100
    assert predict(running, {"texts": ["一"]})[0] == 200


def test_one_connection_carries_several_requests(running):
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
    for n in (1, 2, 3):
        connection.request("POST", "/predict", json.dumps({"texts": ["字" * n]}))
        assert json.load(connection.getresponse())["predictions"][0]["label"] == str(n)
    connection.close()


def test_requests_that_wait_share_a_batch(running):
    running.model.gate.clear()
    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(predict, running, {"texts": ["首"]})
        others = [pool.submit(predict, running, {"texts": ["字" * n]}) for n in range(1, 20)]
        until = time.monotonic() + 10
        while running.server.batcher._waiting.qsize() < 17 and time.monotonic() < until:
            time.sleep(0.01)  # some of them may have gone along with the first
        running.model.gate.set()
        assert first.result()[0] == 200
        assert [one.result()[1]["predictions"][0]["label"] for one in others] == [
            str(n) for n in range(1, 20)
        ]
    assert max(map(len, running.model.batches)) >= 17


def test_two_hundred_clients_at_once(running):
    started = threading.Barrier(200)

    def client(n: int) -> tuple[int, str]:
        started.wait()
        status, answer = predict(running, {"texts": ["字" * (1 + n % 50)]})
        return status, answer["predictions"][0]["label"]

    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(client, range(200)))
    assert answers == [(200, str(1 + n % 50)) for n in range(200)]


def test_a_model_that_fails_fails_only_what_it_was_given(running):
    status, answer = predict(running, {"texts": ["坏"]})
    assert status == 500 and "broken" not in answer["error"]
    assert predict(running, {"texts": ["好"]})[0] == 200


def test_too_long_a_queue_turns_requests_away(running, monkeypatch):
    monkeypatch.setattr(serve, "MOST_WAITING", 3)
    status, answer = predict(running, {"texts": ["a"] * 4})
    assert status == 503 and "排队" in answer["error"]


def test_a_silent_client_does_not_keep_others_waiting(running):
    with socket.create_connection(("127.0.0.1", running.port)) as silent:
        silent.sendall(b"POST /predict HTTP/1.1\r\nContent-Length: 10\r\n\r\n{")
        assert predict(running, {"texts": ["一"]})[0] == 200


def test_a_port_that_is_taken_is_one_line(running):
    with pytest.raises(CommandError, match="换一个 --port"):
        serve.start_server(Counting(), "127.0.0.1", running.port)


@pytest.mark.slow
def test_the_command_serves_a_folder_and_stops_without_a_traceback(tmp_path):
    folder = write_classifier(tmp_path / "m")
    command = [sys.executable, "-m", "sft.serve", str(folder), "--port", "0", "--device", "cpu"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        port = int(re.search(r"127\.0\.0\.1:(\d+)/", process.stdout.readline())[1])
        status, answer = predict(SimpleNamespace(port=port), {"texts": list(TEXTS)})
        assert status == 200
        expected = Classifier(folder).predict(TEXTS)
        assert [one["label"] for one in answer["predictions"]] == [one.label for one in expected]
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 130 and told == "\nserve: 已停止\n"
