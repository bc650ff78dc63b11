"""What the doctor says of the network, asked against stand-ins on this machine."""

from __future__ import annotations

import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from notebooks import write_book

from harness.book.config import load_book
from harness.cli import reach
from harness.cli.reach import Answer
from tests.hub_server import Behaviour, HubServer

NOBODY = "http://127.0.0.1:9"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.fixture
def index(tmp_path):
    """A package index that has what is asked for."""
    page = tmp_path / "simple" / reach.PROBE / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(
        f'<!DOCTYPE html><a href="{reach.PROBE}-1.0-py3-none-any.whl">{reach.PROBE}-1.0-py3-none-any.whl</a>'
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """Nothing of this machine's own mirrors, and no proxy to this machine."""
    for name in (
        "PIP_EXTRA_INDEX_URL",
        "PIP_FIND_LINKS",
        "PIP_NO_INDEX",
        "HF_HUB_OFFLINE",
        "HF_ENDPOINT",
        "BOOK_HUB",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_the_package_index_is_the_one_that_pip_is_told(index, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", index)
    assert reach.ask_index().reached
    monkeypatch.setenv("PIP_INDEX_URL", NOBODY)
    answer = reach.ask_index()
    assert not answer.reached and "index-url" in answer.remedy


@pytest.mark.parametrize(
    ("address", "words"),
    [(NOBODY, "does not answer"), ("file:///etc", "no web address"), ("http://[", "does not answer")],
)
def test_a_hub_that_does_not_answer_is_told_with_the_remedy(monkeypatch, address, words):
    monkeypatch.setenv("HF_ENDPOINT", address)
    answer = reach.ask_hub(None)
    assert not answer.reached and words in answer.message and answer.remedy


@pytest.mark.parametrize(
    ("behaviour", "reached"), [(Behaviour.SERVE, True), (Behaviour.ABSENT, False), (Behaviour.HANG, False)]
)
def test_hub_and_modelscope_are_asked_where_the_variables_point(monkeypatch, tmp_path, behaviour, reached):
    monkeypatch.setattr(reach, "TIMEOUT", 0.3)
    with HubServer(tmp_path, behaviour) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.endpoint)
        for answer in (reach.ask_hub(None), reach.ask_modelscope("BOOK_HUB")):
            assert answer.reached is reached and server.endpoint in answer.message


def test_a_hub_that_was_switched_off_is_not_asked(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert reach.ask_hub("BOOK_HUB").message == "HF_HUB_OFFLINE is set"


@pytest.mark.parametrize(
    ("branch", "address", "reached", "words"),
    [
        ("main", "origin.git", True, "has main, so a notebook alone can fetch the book"),
        ("v9", "origin.git", False, "has no v9"),
        ("main", "nothing.git", False, "does not answer"),
    ],
)
def test_the_repository_is_asked_for_the_version_that_set_up_cells_fetch(
    tmp_path, branch, address, reached, words
):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@localhost", "-C", str(tmp_path / "origin.git")]
    subprocess.run(["git", "init", "-q", "-b", "main", str(tmp_path / "origin.git")], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    (tmp_path / "_config.yml").write_text(f"repository: {{url: {tmp_path / address}, branch: {branch}}}\n")
    answer = reach.ask_repository(tmp_path)
    assert answer.reached is reached and words in answer.message


def test_no_repository_is_no_question(tmp_path):
    assert reach.ask_repository(tmp_path) is None


def test_every_place_is_asked_and_none_raises(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_INDEX_URL", NOBODY)
    monkeypatch.setenv("HF_ENDPOINT", NOBODY)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", NOBODY)
    (tmp_path / "_config.yml").write_text(f"repository: {{url: {tmp_path / 'nothing.git'}}}\n")
    book = load_book(write_book(tmp_path, {"01-a": ["1"]}, hub="BOOK_HUB", colab=True))
    assert [(a.place, a.reached) for a in reach.ask_all(book)] == [
        ("package index", False), ("hub", False), ("ModelScope", False), ("repository", False)
    ]  # fmt: skip


def test_what_a_book_does_not_want_is_not_asked(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_INDEX_URL", NOBODY)
    monkeypatch.setattr(reach, "default_hub", lambda: "")
    (tmp_path / "_config.yml").write_text(f"repository: {{url: {tmp_path / 'nothing.git'}}}\n")
    book = load_book(write_book(tmp_path, {"01-a": ["1"]}, profiles={"full": {}}))
    assert (
        [a.place for a in reach.ask_all(book)] == [a.place for a in reach.ask_all(None)] == ["package index"]
    )
    assert list(reach.profiles_that_run(book, {})) == [Answer("profiles", True, "full: may use the network")]


# -- which profiles that allows ----------------------------------------------------------------------


@pytest.fixture
def full(tmp_path, monkeypatch):
    """What is said of the profile that loads a model, given what answers."""
    profiles = {"offline": {"network": False, "default": True}, "full": {}}
    parameters = {"01-a": {"full": {"model_name": "org/model", "lr": 0.1, "data_path": "data/none"}}}
    book = write_book(
        tmp_path / "book", {"01-a": ["1"]}, profiles=profiles, parameters=parameters, hub="BOOK_HUB"
    )
    (book / "data" / "none").mkdir(parents=True)
    monkeypatch.setattr(reach, "is_cached", lambda name: False)

    def say(*, hub: bool = False, modelscope: bool = False) -> Answer:
        answers = [
            Answer("hub", hub, "http://hub answers"),
            Answer("ModelScope", modelscope, "http://ms answers"),
        ]
        free, answer = reach.profiles_that_run(load_book(book), {a.place: a for a in answers})
        assert free.message == "offline: need no network"
        return answer

    return say


def test_a_profile_loads_from_what_answers(full, monkeypatch):
    assert full(hub=True).message == "full: loads from http://hub"
    assert full(modelscope=True).message == "full: no hub, and org/model not in the cache"
    monkeypatch.setenv("BOOK_HUB", "modelscope")
    assert full(modelscope=True).message == "full: loads from http://ms"
    assert full(hub=True).message == "full: no ModelScope"
    monkeypatch.setattr(reach, "find_spec", lambda name: None)
    assert full(modelscope=True).message == "full: modelscope-hub is not installed"


def test_a_profile_loads_from_the_cache(full, monkeypatch):
    monkeypatch.setattr(reach, "is_cached", lambda name: name == "org/model")
    answer = full()
    assert (
        answer.message == "full: no hub, but the cache has org/model" and "HF_HUB_OFFLINE=1" in answer.remedy
    )


def test_a_profile_loads_from_a_folder(full, monkeypatch, tmp_path):
    monkeypatch.setenv("BOOK_HUB", str(tmp_path))
    assert full(hub=True).message == f"full: org/model not in {tmp_path} (BOOK_HUB)"
    (tmp_path / "org" / "model").mkdir(parents=True)
    answer = full()
    assert answer.reached and answer.message == f"full: loads from the folder {tmp_path} (BOOK_HUB)"
