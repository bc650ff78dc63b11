"""The stand-in hub, asked by the real libraries; and what they do when a hub fails."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.numpy import load_file

from tests.hub_server import (
    Behaviour,
    HubServer,
    make_chnsenticorp_repo,
    make_tiny_bert_repo,
    shared_data,
)

BERT = "google-bert/bert-base-chinese"
REVIEWS = "lansinuote/ChnSentiCorp"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A hub with the two repositories of the chapter's `full` profile."""
    folder = tmp_path_factory.mktemp("hub")
    make_tiny_bert_repo(folder / "models" / BERT, shared_data("bert-base-chinese-tokenizer"))
    make_chnsenticorp_repo(folder / "datasets" / REVIEWS, shared_data("chnsenticorp_hfl"))
    return folder


@pytest.fixture
def small(tmp_path) -> Path:
    """A hub with one small model repository that needs no shared data."""
    repository = tmp_path / "hub" / "models" / "someone" / "model"
    (repository / "sub").mkdir(parents=True)
    (repository / "config.json").write_text('{"a": 1}', encoding="utf-8")
    (repository / "sub" / "weights.bin").write_bytes(bytes(range(256)) * 40)
    return tmp_path / "hub"


@pytest.fixture(autouse=True)
def _online(monkeypatch):
    """This process may be offline or behind a proxy; the hub of these tests is on this machine."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")


def run_python(code: str, hub: HubServer, home: Path) -> subprocess.CompletedProcess[str]:
    """A fresh process with an empty cache that knows no other hub."""
    return subprocess.run(
        [sys.executable, "-c", code], env=hub.environment(home), capture_output=True, text=True, timeout=120
    )


LOAD_BERT = """
import json
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer
name = "google-bert/bert-base-chinese"
tokenizer = AutoTokenizer.from_pretrained(name)
model, information = AutoModel.from_pretrained(name, output_loading_info=True)
classifier = AutoModelForSequenceClassification.from_pretrained(name, num_labels=2)
norm = model.encoder.layer[1].output.LayerNorm.weight
print(json.dumps({
    "entries": len(tokenizer),
    "ids": tokenizer("酒店很好")["input_ids"],
    "layers": AutoConfig.from_pretrained(name).num_hidden_layers,
    "missing": sorted(information["missing_keys"]),
    "norm": norm.tolist(),
    "logits": list(classifier(**tokenizer(["好", "差"], return_tensors="pt")).logits.shape),
}))
"""


@pytest.mark.slow
def test_transformers_loads_tokenizer_and_model(folder, tmp_path):
    with HubServer(folder) as hub:
        done = run_python(LOAD_BERT, hub, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["entries"] == 21128
    assert seen["ids"] == [101, 6983, 2421, 2523, 1962, 102]
    assert seen["layers"] == 2
    assert seen["missing"] == []
    assert seen["logits"] == [2, 2]
    tensors = load_file(folder / "models" / BERT / "model.safetensors")
    assert seen["norm"] == tensors["bert.encoder.layer.1.output.LayerNorm.gamma"].tolist()
    weights = [request for request in hub.requests if request.path.endswith("model.safetensors")]
    assert [request.status for request in weights][:1] == [302]  # fetched from the content host


LOAD_REVIEWS = """
import json
from datasets import load_dataset
splits = load_dataset("lansinuote/ChnSentiCorp")
print(json.dumps({
    "rows": {name: len(split) for name, split in splits.items()},
    "types": [splits["train"].features[column].dtype for column in ("text", "label")],
    "positive": sum(splits["test"]["label"]),
    "first": splits["train"][0]["text"][:14],
}))
"""


@pytest.mark.slow
def test_datasets_loads_the_real_rows(folder, tmp_path):
    with HubServer(folder) as hub:
        done = run_python(LOAD_REVIEWS, hub, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "rows": {"train": 9600, "validation": 1200, "test": 1200},
        "types": ["string", "int64"],
        "positive": 608,
        "first": "选择珠江花园的原因就是方便，",
    }


def test_datasets_says_that_an_unknown_data_set_does_not_exist(small, tmp_path):
    code = "from datasets import load_dataset; load_dataset('someone/nothing')"
    with HubServer(small) as hub:
        done = run_python(code, hub, tmp_path / "home")
    assert done.returncode == 1
    assert "DatasetNotFoundError: Dataset 'someone/nothing' doesn't exist" in done.stderr


def test_information_tree_and_paths(small):
    with HubServer(small) as hub:
        api = HfApi(endpoint=hub.endpoint)
        information = api.model_info("someone/model")
        assert [one.rfilename for one in information.siblings] == ["config.json", "sub/weights.bin"]
        assert len(information.sha) == 40
        assert [one.path for one in api.list_repo_tree("someone/model")] == ["config.json", "sub"]
        everything = list(api.list_repo_tree("someone/model", recursive=True, revision=information.sha))
        assert [one.path for one in everything] == ["config.json", "sub", "sub/weights.bin"]
        found = api.get_paths_info("someone/model", ["sub/weights.bin", "absent"])
        assert [(one.path, one.size, one.lfs.size) for one in found] == [("sub/weights.bin", 10240, 10240)]
        assert [one.name for one in api.list_repo_refs("someone/model").branches] == ["main"]


def test_a_download_begun_earlier_goes_on_where_it_stopped(small, tmp_path):
    with HubServer(small) as hub:
        etag = HfApi(endpoint=hub.endpoint).get_paths_info("someone/model", "sub/weights.bin")[0].lfs.sha256
        cache = tmp_path / "cache"
        part = cache / "models--someone--model" / "blobs" / f"{etag}.incomplete"
        part.parent.mkdir(parents=True)
        part.write_bytes(bytes(range(256)) * 3)
        path = hf_hub_download("someone/model", "sub/weights.bin", cache_dir=cache, endpoint=hub.endpoint)
    assert Path(path).read_bytes() == bytes(range(256)) * 40


@pytest.mark.parametrize(
    ("asked", "status", "start", "stop"),
    [("bytes=0-9", 206, 0, 10), ("bytes=10230-", 206, 10230, 10240), ("bytes=-5", 206, 10235, 10240)],
)
def test_ranges(small, asked, status, start, stop):
    content = bytes(range(256)) * 40
    with HubServer(small) as hub:
        url = f"{hub.endpoint}/someone/model/resolve/main/sub/weights.bin"
        answer = huggingface_hub.get_session().get(url, headers={"Range": asked}, follow_redirects=True)
    assert answer.status_code == status
    assert answer.content == content[start:stop]
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/10240"


def test_a_range_beyond_the_end_is_refused(small):
    with HubServer(small) as hub:
        url = f"{hub.endpoint}/someone/model/resolve/main/config.json"
        answer = huggingface_hub.get_session().get(url, headers={"Range": "bytes=100-"})
    assert (answer.status_code, answer.headers["Content-Range"]) == (416, "bytes */8")


@pytest.mark.parametrize(
    ("repository", "file", "revision", "error"),
    [
        ("someone/nothing", "config.json", "main", RepositoryNotFoundError),
        ("someone/model", "absent.json", "main", EntryNotFoundError),
        ("someone/model", "config.json", "v9", RevisionNotFoundError),
    ],
)
def test_what_is_not_there_is_the_libraries_own_error(small, tmp_path, repository, file, revision, error):
    with HubServer(small) as hub, pytest.raises(error):
        hf_hub_download(repository, file, revision=revision, cache_dir=tmp_path / "c", endpoint=hub.endpoint)


@pytest.mark.parametrize("behaviour", [Behaviour.UNAVAILABLE, Behaviour.HANG, Behaviour.ABSENT])
def test_a_hub_that_fails_ends_the_download_after_some_attempts(small, tmp_path, monkeypatch, behaviour):
    pauses = []
    monkeypatch.setattr(
        time, "sleep", pauses.append
    )  # huggingface_hub waits 23 s in all between its attempts
    monkeypatch.setattr(huggingface_hub.file_download, "_ETAG_RETRY_TIMEOUT", 0.3, raising=False)  # else 60 s
    with HubServer(small, behaviour) as hub, pytest.raises(LocalEntryNotFoundError):
        hf_hub_download(
            "someone/model", "config.json", cache_dir=tmp_path / "c", endpoint=hub.endpoint, etag_timeout=0.5
        )
    attempts = {request.status for request in hub.requests}
    assert attempts == {Behaviour.UNAVAILABLE: {503}, Behaviour.HANG: {0}, Behaviour.ABSENT: set()}[behaviour]
    assert 0 < len(pauses) < 10


def test_stopping_the_hub_lets_go_of_a_request_that_hangs(small):
    with HubServer(small, Behaviour.HANG) as hub:
        port = int(hub.endpoint.rpartition(":")[2])
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(b"GET /api/models/someone/model HTTP/1.1\r\nHost: x\r\n\r\n")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
    client.settimeout(10)
    assert client.recv(1) == b""
    client.close()


def test_shared_data_that_is_absent_skips_and_says_why():
    with pytest.raises(pytest.skip.Exception, match=r"needs no-such-data.*\.\./shared/data"):
        shared_data("no-such-data")
