"""The run folder: atomic files, pointers, and errors that say what to do."""

from __future__ import annotations

import errno
import os

import pytest

from harness import files
from harness.archive import folder as store
from harness.errors import HarnessError, InfrastructureError
from harness.model import JobState


def test_json_is_strict_readable_and_atomic(tmp_path):
    path = tmp_path / "结果.json"
    files.write_json(path, {"文字": "中文", "state": JobState.DEAD, "path": tmp_path, "many": (1, 2)})
    text = path.read_text(encoding="utf-8")
    assert "中文" in text and '"dead"' in text
    assert files.read_json(path)["many"] == [1, 2]
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"x": float("nan")})
    assert path.read_text(encoding="utf-8") == text
    assert [p.name for p in tmp_path.iterdir()] == ["结果.json"]


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "no permission"), (errno.EROFS, "no permission")],
)
def test_what_the_system_refuses_is_one_line(tmp_path, monkeypatch, number, words):
    def refuse(source, target):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(store.Path, "replace", refuse)
    with pytest.raises(InfrastructureError, match=words) as caught:
        files.write_json(tmp_path / "a.json", {})
    assert "a.json" in str(caught.value) and "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_runs_are_found_by_latest_id_beginning_and_path(tmp_path):
    with pytest.raises(HarnessError, match="no run yet"):
        store.find_run(tmp_path)
    first, second = store.create_run(tmp_path, "smoke"), store.create_run(tmp_path, "offline")
    for folder in (first, second):
        files.write_json(folder / "manifest.json", {})
    assert store.find_run(tmp_path, "latest") == second
    assert (store.runs_dir(tmp_path) / "latest").resolve() == second
    assert not (store.runs_dir(tmp_path) / "latest").readlink().is_absolute()
    assert store.find_run(tmp_path, first.name) == first
    assert store.find_run(tmp_path, str(first)) == first
    with pytest.raises(HarnessError, match="fits several"):
        store.find_run(tmp_path, first.name[:8])
    with pytest.raises(HarnessError, match="no run 'x'"):
        store.find_run(tmp_path, "x")


@pytest.mark.parametrize("content", [b"", b"gone", b"\xff\xfe"])
def test_a_pointer_that_names_no_run(tmp_path, content):
    runs = store.runs_dir(tmp_path)
    runs.mkdir(parents=True)
    (runs / "latest").write_bytes(content)
    assert store.latest_name(runs) is None


@pytest.mark.parametrize("name", ["**", "2*", "?", "[", "a" * 300, "\udcff"])
def test_a_run_by_a_name_that_no_run_can_have(tmp_path, name):
    """A name is no pattern, and one that no file can have is no accident of the machine."""
    files.write_json(store.create_run(tmp_path, "smoke") / "manifest.json", {})
    with pytest.raises(HarnessError, match="no run ") as caught:
        store.find_run(tmp_path, name)
    assert caught.value.exit_code == 3


def test_a_file_system_without_links(tmp_path, monkeypatch):
    monkeypatch.setattr(
        store.Path, "symlink_to", lambda *a, **k: (_ for _ in ()).throw(OSError(errno.EPERM, "no"))
    )
    folder = store.create_run(tmp_path, "smoke")
    assert store.find_run(tmp_path) == folder


def test_a_chosen_folder_is_cleared_of_an_earlier_run_only(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    store.create_run_at(tmp_path)
    files.write_json(tmp_path / "manifest.json", {"schema": 1, "run": "r", "jobs": []})
    (tmp_path / "jobs" / "old").mkdir()
    store.create_run_at(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "jobs", "mine.txt"]
    assert not list((tmp_path / "jobs").iterdir())


@pytest.mark.parametrize("name", ["manifest.json", "report.md", "result.json"])
def test_files_that_no_run_left_are_not_overwritten(tmp_path, name):
    """A browser extension has a manifest.json, too, and perhaps a folder called jobs."""
    (tmp_path / name).write_text('{"name": "mine"}')
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "mine.txt").write_text("keep")
    with pytest.raises(HarnessError, match=f"{name}, which no run .* name another folder with --out"):
        store.create_run_at(tmp_path)
    assert (tmp_path / name).read_text() == '{"name": "mine"}' and (tmp_path / "jobs" / "mine.txt").exists()


@pytest.mark.parametrize("place", ["_build", "_build/runs"])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path, place):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("")
    with pytest.raises(InfrastructureError, match=f"/{place} is a file; move it away"):
        store.create_run(tmp_path, "smoke")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InfrastructureError, match="cannot create"):
        store.create_run_at(tmp_path / "file" / "run")


def test_events_reach_the_file_and_the_listeners(tmp_path):
    heard = []
    log = store.EventLog(tmp_path / "events.jsonl", heard.append)
    log({"event": "开始"})
    log.close()
    assert heard[0]["event"] == "开始" and "time" in heard[0]
    assert "开始" in (tmp_path / "events.jsonl").read_text(encoding="utf-8")
