"""Run folders at addresses: written while the run goes on, result.json last; read by way of a copy."""

from __future__ import annotations

import functools
import http.server
import json
import tempfile
import threading
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from notebooks import RECORD, write_book, write_notebook

from harness.archive.recorded import read_run
from harness.archive.remote import is_url
from harness.cli.app import main

CLAIM = """
chapter: 01-a
claims:
  - {name: acc, title: 准确率, unit: fraction, direction: higher, margin: 0.01, offline: {bounds: {low: 0.5}}}
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    write_notebook(tmp_path / "a.ipynb", f"{RECORD}\nrecord('x', 1.5)", parameters="seed = 0")
    return tmp_path


def left(folder: Path) -> list[str]:
    """Temporary folders of runs that nobody removed."""
    return [path.name for path in (folder / "tmp").glob("harness-*") if "gpus" not in path.name]


def last_error(capsys) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_run_is_written_to_an_address_and_read_from_it(here, capsys, kind):
    url = "memory://bucket/runs/one" if kind == "memory" else f"file://{here}/书/one"
    assert main(["run", "--out", url, "--seeds", "0,1", "a.ipynb"]) == 0
    assert f"run folder {url}" in capsys.readouterr().out
    system, path = fsspec.core.url_to_fs(url)
    names = {name.removeprefix(path + "/") for name in system.find(path)}
    assert {"manifest.json", "events.jsonl", "result.json", "junit.xml", "report.md"} <= names
    assert {f"jobs/a-offline-seed{i}/{n}" for i in (0, 1) for n in ("out.ipynb", "result.json")} <= names
    assert not any(name.startswith(".") for name in names)
    document = json.loads(system.cat_file(f"{path}/result.json"))
    assert document["run"] == "one" and [j["state"] for j in document["jobs"]] == ["completed"] * 2
    assert not left(here) and not (here / "_build").exists()

    assert main(["report", url]) == 0
    out = capsys.readouterr().out
    assert f"run folder {url}" in out and "a-offline-seed1" in out
    assert main(["diff", url, url]) == 0
    assert not left(here)


def test_check_judges_a_run_at_an_address(here, monkeypatch, capsys):
    book = write_book(here / "book", {"01-a": ["1 + 1"]})
    monkeypatch.chdir(book)
    assert main(["run", "--out", "memory://b/run", "--quiet"]) == 0
    (book / "chapters" / "claims").mkdir()
    (book / "chapters" / "claims" / "01-a.yml").write_text(CLAIM)
    assert main(["check", "memory://b/run"]) == 1
    out = capsys.readouterr().out
    assert "acc" in out and "run folder memory://b/run" in out


def test_result_json_is_written_last(monkeypatch):
    order = []
    put = MemoryFileSystem.put_file
    monkeypatch.setattr(
        MemoryFileSystem, "put_file", lambda self, a, b, **kw: (order.append(b), put(self, a, b, **kw))[1]
    )
    assert main(["run", "--out", "memory://b/run", "--quiet", "a.ipynb"]) == 0
    assert order[0] == "/b/run/manifest.json" and order[-1] == "/b/run/result.json"
    first_report = order.index("/b/run/junit.xml")
    assert any("/jobs/" in name for name in order[:first_report])


def test_an_earlier_run_there_is_replaced_and_other_files_are_not(capsys):
    system = MemoryFileSystem()
    assert main(["run", "--out", "memory://b/run", "--seeds", "3,", "--quiet", "a.ipynb"]) == 0
    assert main(["run", "--out", "memory://b/run", "--seeds", "4,", "--quiet", "a.ipynb"]) == 0
    assert not [name for name in system.find("/b/run") if "seed3" in name]
    system.pipe_file("/b/other/manifest.json", b'{"not": "ours"}')
    capsys.readouterr()
    assert main(["run", "--out", "memory://b/other", "a.ipynb"]) == 3
    assert "holds manifest.json, which no run of the harness left" in last_error(capsys)
    assert system.cat_file("/b/other/manifest.json") == b'{"not": "ours"}'


def refuse(*arguments, **options):
    raise RuntimeError("403\nForbidden")


def test_an_address_that_cannot_be_written_is_told_before_anything_runs(here, monkeypatch, capsys):
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuse)
    assert main(["run", "--out", "memory://b/run", "a.ipynb"]) == 4
    assert last_error(capsys) == "error: cannot write to memory://b/run: 403 Forbidden"
    assert not left(here)


def test_a_run_that_cannot_be_copied_is_kept_here(here, monkeypatch, capsys):
    monkeypatch.setattr(MemoryFileSystem, "put_file", refuse)
    assert main(["run", "--out", "memory://b/run", "--quiet", "a.ipynb"]) == 4
    message = last_error(capsys)
    assert "cannot write to memory://b/run: 403 Forbidden; the run is in " in message
    folder = Path(message.rpartition("the run is in ")[2])
    assert read_run(folder).results[0].metrics[0].value == 1.5


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("memory://b/none", 3, "no run at memory://b/none: it holds no manifest.json"),
        ("nosuch://b/run", 3, "cannot use nosuch://b/run: Protocol not known: nosuch"),
        ("http://127.0.0.1:1/run", 4, "cannot read http://127.0.0.1:1/run: "),
    ],
)
def test_an_address_without_a_run_is_one_line(here, capsys, url, code, said):
    for command in (["report", url], ["diff", url, url]):
        assert main(command) == code
        assert said in last_error(capsys)
    assert not left(here)


@pytest.mark.parametrize(
    ("text", "said"),
    [(b"{", "is not valid JSON"), (b"[]", "not what the harness writes"), (None, "is no job of the harness")],
)
def test_a_damaged_manifest_there_is_one_line(capsys, text, said):
    system = MemoryFileSystem()
    assert main(["run", "--out", "memory://b/run", "--quiet", "a.ipynb"]) == 0
    manifest = json.loads(system.cat_file("/b/run/manifest.json"))
    manifest["jobs"] = ["../../escape"]
    system.pipe_file("/b/run/manifest.json", json.dumps(manifest).encode() if text is None else text)
    assert main(["report", "memory://b/run"]) == 3
    assert said in last_error(capsys)


def test_a_run_is_read_over_http(here, capsys):
    """No listing is needed: what a run consists of stands in its manifest."""
    assert main(["run", "--out", "served/run", "--quiet", "a.ipynb"]) == 0
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=here / "served")
    handler.func.log_message = lambda *arguments: None
    handler.func.list_directory = lambda self, path: self.send_error(403)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert main(["report", f"http://127.0.0.1:{server.server_port}/run"]) == 0
        server.shutdown()
    assert "a-offline" in capsys.readouterr().out


def test_shards_are_merged_from_addresses_to_an_address(here, capsys):
    for i in (1, 2):
        given = [
            "run",
            "--shard",
            f"{i}/2",
            "--seeds",
            "2",
            "--out",
            f"memory://ci/{i}",
            "--quiet",
            "a.ipynb",
        ]
        assert main(given) == 0
    merge = ["report", "--merge", "memory://ci/1", "memory://ci/2", "--out", "memory://ci/all"]
    assert main(merge) == 0
    assert "run folder memory://ci/all" in capsys.readouterr().out
    system = MemoryFileSystem()
    assert len(json.loads(system.cat_file("/ci/all/result.json"))["jobs"]) == 2
    assert system.exists("/ci/all/jobs/a-offline-seed1/out.ipynb")
    assert not left(here)


def test_resume_needs_a_folder(capsys):
    assert main(["run", "--resume", "--out", "memory://b/run"]) == 3
    assert "goes on in a folder of this machine; copy memory://b/run here" in last_error(capsys)


def test_what_is_an_address():
    assert is_url("s3://b/x") and is_url("memory://x")
    assert not any(map(is_url, ("a/b", "/a://b", "C:/x", "20260101T", "")))
