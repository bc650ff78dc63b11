"""A stand-in for the Hugging Face hub: serves folders of this machine in the hub's protocol.

    with HubServer(folder) as hub:
        subprocess.run([...], env=hub.environment(home))

`folder` holds `models/<organisation>/<name>/…` and `datasets/<organisation>/<name>/…`. The server answers
what `huggingface_hub`, `transformers` and `datasets` ask when they load a repository: its information, its
tree, its files with HEAD, GET and ranges, and errors with the hub's codes. Large files are redirected to
another host name, as the hub does with its content network. It also answers what `modelscope_hub` asks of
ModelScope when it downloads a repository. `Behaviour` makes the hub fail instead.

`make_tiny_bert_repo` and `make_chnsenticorp_repo` build repositories like two real ones.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

LARGE = (".safetensors", ".parquet", ".bin")  # stored by the hub outside of git, reached by a redirect
_DATE = "2024-01-01T00:00:00.000Z"


class Behaviour(StrEnum):
    """What the hub does with a request."""

    SERVE = "serve"
    UNAVAILABLE = "unavailable"  # answers 503 to everything
    HANG = "hang"  # takes the request and never answers
    ABSENT = "absent"  # nobody listens on the port: the connection is refused


@dataclass(frozen=True)
class Request:
    """One request that the hub answered."""

    method: str
    path: str
    status: int


@dataclass(frozen=True)
class StoredFile:
    """One file of a repository."""

    path: str  # inside the repository
    source: Path

    @cached_property
    def content(self) -> bytes:
        return self.source.read_bytes()

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def blob_id(self) -> str:
        return hashlib.sha1(
            b"blob %d\0" % len(self.content) + self.content, usedforsecurity=False
        ).hexdigest()

    @property
    def is_large(self) -> bool:
        return self.path.endswith(LARGE)

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_large else self.blob_id

    def entry(self) -> dict:
        """As the hub lists it in a tree."""
        entry = {"type": "file", "path": self.path, "size": len(self.content), "oid": self.blob_id}
        if self.is_large:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": 134}
        return entry


@dataclass(frozen=True)
class Repository:
    """A folder, seen as a hub repository with one branch, `main`, of one commit."""

    kind: str  # "models" or "datasets"
    id: str  # "organisation/name"
    files: Mapping[str, StoredFile]

    @classmethod
    def read(cls, kind: str, folder: Path) -> Repository:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        names = [path.relative_to(folder).as_posix() for path in paths]
        files = {name: StoredFile(name, path) for name, path in zip(names, paths, strict=True)}
        return cls(kind, f"{folder.parent.name}/{folder.name}", files)

    @cached_property
    def commit(self) -> str:
        listing = "".join(f"{name} {file.blob_id}\n" for name, file in self.files.items())
        return hashlib.sha1(listing.encode(), usedforsecurity=False).hexdigest()

    def knows_revision(self, revision: str) -> bool:
        return revision in ("main", "refs/heads/main", "refs/convert/parquet", self.commit)

    def information(self) -> dict:
        """As `model_info` and `dataset_info` read it."""
        siblings = [
            {"rfilename": name, "size": len(file.content), "blobId": file.blob_id}
            for name, file in self.files.items()
        ]
        return {
            "_id": self.commit[:24],
            "id": self.id,
            "modelId": self.id,
            "author": self.id.split("/")[0],
            "sha": self.commit,
            "lastModified": _DATE,
            "createdAt": _DATE,
            "private": False,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": siblings,
        }

    def tree(self, folder: str, recursive: bool) -> list[dict] | None:
        """Files and folders under a folder ("" is the root); None where there is no such folder."""
        prefix = f"{folder}/" if folder else ""
        inside = [file for name, file in self.files.items() if name.startswith(prefix)]
        if not inside:
            return None
        entries: dict[str, dict] = {}
        for file in inside:
            parts = file.path.removeprefix(prefix).split("/")
            for depth in range(1, len(parts) if recursive else min(2, len(parts))):
                path = prefix + "/".join(parts[:depth])
                entries[path] = {"type": "directory", "path": path, "size": 0, "oid": self.commit}
            if recursive or len(parts) == 1:
                entries[file.path] = file.entry()
        return list(entries.values())

    def paths(self, wanted: list[str]) -> list[dict]:
        """Those of the wanted paths that exist."""
        everything = {entry["path"]: entry for entry in self.tree("", recursive=True) or []}
        return [everything[path] for path in wanted if path in everything]


@dataclass
class HubServer:
    """A hub on a free port of this machine, for as long as the `with` block lasts."""

    folder: Path
    behaviour: Behaviour = Behaviour.SERVE
    requests: list[Request] = field(default_factory=list)  # what was asked, in order
    endpoint: str = ""  # http://127.0.0.1:<port>, once started

    def __enter__(self) -> HubServer:
        if self.behaviour is Behaviour.ABSENT:
            self._reserved = socket.socket()
            self._reserved.bind(("127.0.0.1", 0))  # bound but not listening: refuses, and nobody else gets it
            self.endpoint = f"http://127.0.0.1:{self._reserved.getsockname()[1]}"
            return self
        self._server = _Server(self._repositories(), self.behaviour, self.requests)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.behaviour is Behaviour.ABSENT:
            self._reserved.close()
            return
        self._server.stopped.set()  # lets go of the requests that hang
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def environment(self, home: Path, *, timeout: int = 10) -> dict[str, str]:
        """Variables of a process that is to use this hub, with its cache in `home`.

        Args:
            home: becomes HF_HOME; an empty folder makes the libraries download everything.
            timeout: seconds that `huggingface_hub` waits for an answer (10 is its default).
        """
        unwanted = ("HF_", "HUGGING", "TRANSFORMERS_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
        return kept | {
            "HF_ENDPOINT": self.endpoint,
            "MODELSCOPE_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "MODELSCOPE_CACHE": str(home / "modelscope"),
            **dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "0"),
            "HF_HUB_ETAG_TIMEOUT": str(timeout),
            "HF_HUB_DOWNLOAD_TIMEOUT": str(timeout),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def _repositories(self) -> dict[tuple[str, str], Repository]:
        found = {}
        for kind in ("models", "datasets"):
            for folder in sorted(self.folder.glob(f"{kind}/*/*/")):
                repository = Repository.read(kind, folder)
                found[kind, repository.id] = repository
        return found


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        repositories: Mapping[tuple[str, str], Repository],
        behaviour: Behaviour,
        requests: list[Request],
    ) -> None:
        self.repositories = repositories
        self.behaviour = behaviour
        self.requests = requests
        self.stopped = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.behaviour is Behaviour.HANG:
            self.server.requests.append(Request(self.command, self.path, 0))
            self.server.stopped.wait()
            self.close_connection = True
            return
        if self.server.behaviour is Behaviour.UNAVAILABLE:
            answer = _error(HTTPStatus.SERVICE_UNAVAILABLE, None, "Service Temporarily Unavailable")
        else:
            answer = _route(self.server.repositories, self.command, self.path, self.headers, body)
        self.server.requests.append(Request(self.command, self.path, answer.status))
        self.send_response(answer.status)
        headers = {"Content-Length": str(len(answer.body))} | dict(answer.headers)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_HEAD = do_POST = _answer  # the names that http.server looks for

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr: `HubServer.requests` is the log."""


_API = re.compile(
    r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info|refs)(?:/([^/]+)(?:/(.+))?)?)?"
)
_RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_CONTENT = re.compile(r"/content/([0-9a-f]{64})")
_MODELSCOPE = re.compile(r"/api/v1/(models|datasets)/([^/]+/[^/]+)(?:/(repo|repo/files|repo/tree))?")


def _route(
    repositories: Mapping[tuple[str, str], Repository], method: str, url: str, headers: Mapping, body: bytes
) -> _Answer:
    parts = urlsplit(url)
    if match := _API.fullmatch(parts.path):
        kind, identifier, action, revision, path = match.groups()
        repository = repositories.get((kind, unquote(identifier)))
        if problem := _problem(repository, unquote(revision or "main")):
            return problem
        return _api(repository, action, unquote(path or ""), parse_qs(parts.query), headers, body)
    if match := _RESOLVE.fullmatch(parts.path):
        dataset, identifier, revision, path = match.groups()
        repository = repositories.get(("datasets" if dataset else "models", unquote(identifier)))
        if problem := _problem(repository, unquote(revision)):
            return problem
        return _resolve(repository, unquote(path), headers)
    if match := _MODELSCOPE.fullmatch(parts.path):
        kind, identifier, action = match.groups()
        return _modelscope(
            repositories.get((kind, unquote(identifier))), action, parse_qs(parts.query), headers
        )
    if match := _CONTENT.fullmatch(parts.path):
        for file in (file for repository in repositories.values() for file in repository.files.values()):
            if file.is_large and file.sha256 == match[1]:
                return _file(file, headers, {"ETag": f'"{file.etag}"'})
    return _error(HTTPStatus.NOT_FOUND, None, f"{method} {parts.path}: nothing here")


def _problem(repository: Repository | None, revision: str) -> _Answer | None:
    if repository is None:
        return _error(HTTPStatus.NOT_FOUND, "RepoNotFound", "Repository not found")
    if not repository.knows_revision(revision):
        return _error(HTTPStatus.NOT_FOUND, "RevisionNotFound", f"Invalid rev id: {revision}")
    return None


def _api(
    repository: Repository, action: str | None, path: str, query: Mapping, headers: Mapping, body: bytes
) -> _Answer:
    if action in (None, "revision"):
        return _json(repository.information())
    if action == "refs":
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.commit}
        return _json({"branches": [main], "converts": [], "tags": []})
    if action == "tree":
        entries = repository.tree(path, recursive=query.get("recursive", [""])[0].lower() in ("true", "1"))
        if entries is None:
            return _error(HTTPStatus.NOT_FOUND, "EntryNotFound", f"{path} does not exist")
        return _json(entries)
    is_json = "json" in (headers.get("Content-Type") or "")
    wanted = (json.loads(body) if is_json else parse_qs(body.decode())).get("paths", [])
    return _json(repository.paths([wanted] if isinstance(wanted, str) else wanted))


def _modelscope(
    repository: Repository | None, action: str | None, query: Mapping, headers: Mapping
) -> _Answer:
    if repository is None:
        return _error(HTTPStatus.NOT_FOUND, None, "record not found")
    if action == "repo":
        file = repository.files.get(query["FilePath"][0])
        return _file(file, headers, {}) if file else _error(HTTPStatus.NOT_FOUND, None, "no such file")
    data: dict = {"Name": repository.id.split("/")[1]}
    if action:
        data["Files"] = [
            {"Path": file.path, "Type": "blob", "Size": len(file.content), "Sha256": file.sha256}
            for file in repository.files.values()
        ]
    return _json({"Code": HTTPStatus.OK, "Success": True, "Data": data})


def _resolve(repository: Repository, path: str, headers: Mapping) -> _Answer:
    commit = {"X-Repo-Commit": repository.commit}
    file = repository.files.get(path)
    if file is None:
        missing = _error(HTTPStatus.NOT_FOUND, "EntryNotFound", "Entry not found")
        return _Answer(missing.status, missing.body, {**missing.headers, **commit})
    if not file.is_large:
        return _file(file, headers, {**commit, "ETag": f'"{file.etag}"'})
    linked = {"X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(len(file.content))}
    port = headers["Host"].rpartition(":")[2]
    location = f"http://localhost:{port}/content/{file.sha256}"  # clients must see another host than the hub
    return _Answer(HTTPStatus.FOUND, b"", {**commit, **linked, "Location": location})


def _file(file: StoredFile, headers: Mapping, extra: Mapping[str, str]) -> _Answer:
    total = len(file.content)
    common = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **extra}
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", headers.get("Range") or "")
    if match is None or match.groups() == ("", ""):
        return _Answer(HTTPStatus.OK, file.content, common)
    first, last = match.groups()
    start = int(first) if first else max(0, total - int(last))
    stop = min(int(last) + 1, total) if first and last else total
    if start >= stop:
        unsatisfiable = {**common, "Content-Range": f"bytes */{total}"}
        return _Answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, b"", unsatisfiable)
    partial = {**common, "Content-Range": f"bytes {start}-{stop - 1}/{total}"}
    return _Answer(HTTPStatus.PARTIAL_CONTENT, file.content[start:stop], partial)


def _json(value: object) -> _Answer:
    return _Answer(HTTPStatus.OK, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _error(status: int, code: str | None, message: str) -> _Answer:
    headers = {"Content-Type": "application/json", "X-Error-Message": message}
    if code is not None:
        headers["X-Error-Code"] = code
    return _Answer(status, json.dumps({"error": message}).encode(), headers)


def shared_data(name: str) -> Path:
    """The folder `../shared/data/<name>` beside the repository; skips the calling test where it is absent."""
    folder = SHARED_DATA / name
    if not folder.is_dir():
        pytest.skip(f"needs {name}, real hub files that are not part of the repository, in ../shared/data")
    return folder


def make_tiny_bert_repo(
    dest: Path, vocab_source: Path, *, hidden_size: int = 32, num_layers: int = 2
) -> Path:
    """A model repository in the layout of google-bert/bert-base-chinese, with a tiny random model.

    Tokenizer and vocabulary (21,128 entries) are the real ones. The tensors have the names of a checkpoint
    converted from TensorFlow: pre-training heads, LayerNorm.gamma and LayerNorm.beta.

    Args:
        dest: the repository's folder, `<folder>/models/google-bert/bert-base-chinese`.
        vocab_source: the folder with config.json, tokenizer.json, tokenizer_config.json and vocab.txt.
        hidden_size: width, a multiple of 16 (768 in the real model).
        num_layers: depth (12 in the real model).
    """
    import numpy as np
    from safetensors.numpy import save_file

    dest.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copyfile(vocab_source / name, dest / name)
    config = json.loads((vocab_source / "config.json").read_text(encoding="utf-8")) | {
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_attention_heads": hidden_size // 16,
        "num_hidden_layers": num_layers,
    }
    (dest / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in _bert_shapes(config):
        centre = 1 if name.endswith("gamma") else 0
        tensors[name] = rng.normal(centre, config["initializer_range"], shape).astype(np.float32)
    save_file(tensors, dest / "model.safetensors", metadata={"format": "pt"})
    return dest


def make_tiny_qwen_repo(dest: Path, tokenizer_source: Path) -> Path:
    """A model repository in the layout of Qwen/Qwen3-0.6B, with a tiny random model and the tokenizer of another.

    Args:
        dest: the repository's folder, `<folder>/models/Qwen/Qwen3-0.6B`.
        tokenizer_source: a folder with config.json, tokenizer.json, tokenizer_config.json and chat_template.jinja.
    """
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    dest.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(tokenizer_source / name, dest / name)
    vocab_size = json.loads((tokenizer_source / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
    )
    Qwen3ForCausalLM(config).save_pretrained(dest)
    return dest


def make_tiny_marian_repo(dest: Path) -> Path:
    """A model repository in the layout of Helsinki-NLP/opus-mt-en-zh, with a tiny random model and tiny subwords."""
    import sentencepiece
    import torch
    from transformers import MarianConfig, MarianMTModel, MarianTokenizer

    dest.mkdir(parents=True)
    texts = {
        "source": [
            "open the file",
            "close the window",
            "save {0}",
            "delete {1}",
            "could not open the folder",
        ],
        "target": ["打开文件", "关闭窗口", "保存 {0}", "删除 {1}", "无法打开文件夹"],
    }
    pieces = ["<pad>", "</s>", "<unk>", ">>cmn_Hans<<"]
    for name, lines in texts.items():
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines * 20),
            model_prefix=str(dest / name),
            vocab_size=40,
            hard_vocab_limit=False,
            minloglevel=2,
        )
        (dest / f"{name}.model").rename(dest / f"{name}.spm")
        (dest / f"{name}.vocab").unlink()
        model = sentencepiece.SentencePieceProcessor(model_file=str(dest / f"{name}.spm"))
        pieces += [model.id_to_piece(i) for i in range(model.get_piece_size())]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    (dest / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    MarianTokenizer(
        str(dest / "source.spm"), str(dest / "target.spm"), str(dest / "vocab.json"), source_lang="en",
        target_lang="zh",
    ).save_pretrained(dest)  # fmt: skip
    torch.manual_seed(0)
    config = MarianConfig(
        vocab_size=len(vocabulary),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=256,
        pad_token_id=0,
        eos_token_id=1,
        forced_eos_token_id=1,
        decoder_start_token_id=0,
    )
    MarianMTModel(config).save_pretrained(dest)
    return dest


def _bert_shapes(config: Mapping[str, int]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each tensor of a pre-trained BERT checkpoint."""
    width, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    yield "bert.embeddings.word_embeddings.weight", (vocabulary, width)
    yield "bert.embeddings.position_embeddings.weight", (config["max_position_embeddings"], width)
    yield "bert.embeddings.token_type_embeddings.weight", (config["type_vocab_size"], width)
    linear = {"bert.pooler.dense": (width, width), "cls.predictions.transform.dense": (width, width)}
    linear["cls.seq_relationship"] = (2, width)
    norms = ["bert.embeddings", "cls.predictions.transform"]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"bert.encoder.layer.{layer}"
        linear |= {f"{prefix}.attention.self.{part}": (width, width) for part in ("query", "key", "value")}
        linear[f"{prefix}.attention.output.dense"] = (width, width)
        linear[f"{prefix}.intermediate.dense"] = (inner, width)
        linear[f"{prefix}.output.dense"] = (width, inner)
        norms += [f"{prefix}.attention.output", f"{prefix}.output"]
    for name, shape in linear.items():
        yield f"{name}.weight", shape
        yield f"{name}.bias", shape[:1]
    for name in norms:
        yield f"{name}.LayerNorm.gamma", (width,)
        yield f"{name}.LayerNorm.beta", (width,)
    yield "cls.predictions.bias", (vocabulary,)


def make_chnsenticorp_repo(dest: Path, source: Path) -> Path:
    """A data set repository in the layout of lansinuote/ChnSentiCorp: Parquet, one file a split.

    Args:
        dest: the repository's folder, `<folder>/datasets/lansinuote/ChnSentiCorp`.
        source: the folder with train.tsv, dev.tsv and test.tsv (columns label and text_a).
    """
    import pyarrow as pa
    from pyarrow import parquet

    (dest / "data").mkdir(parents=True)
    schema = pa.schema({"text": pa.string(), "label": pa.int64()})
    card = ["---", "dataset_info:", "  features:", "  - name: text", "    dtype: string", "  - name: label"]
    card += ["    dtype: int64", "  splits:"]
    for split, stem in (("train", "train"), ("validation", "dev"), ("test", "test")):
        with (source / f"{stem}.tsv").open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
        columns = {"text": [row["text_a"] for row in rows], "label": [int(row["label"]) for row in rows]}
        file = dest / "data" / f"{split}-00000-of-00001.parquet"
        parquet.write_table(pa.table(columns, schema=schema), file)
        size = sum(len(text.encode()) + 12 for text in columns["text"])
        card += [f"  - name: {split}", f"    num_bytes: {size}", f"    num_examples: {len(rows)}"]
    (dest / "README.md").write_text("\n".join([*card, "---", ""]), encoding="utf-8")
    return dest


def make_cluener_repo(dest: Path) -> Path:
    """A data set repository in the layout of xusenlin/clue-ner: text, and entities with offsets.

    Args:
        dest: the repository's folder, `<folder>/datasets/xusenlin/clue-ner`.
    """
    dest.mkdir(parents=True)
    for split, size in {"train": 300, "validation": 30, "test": 60}.items():
        rows = []
        for i in range(size):
            name, company = f"王{'小大中'[i % 3]}{'明华强'[i % 5 % 3]}", f"{'海江河'[i % 3]}天公司"
            entities = [
                {"id": 0, "entity": name, "start_offset": 2, "end_offset": 5, "label": "name"},
                {"id": 1, "entity": company, "start_offset": 7, "end_offset": 11, "label": "company"},
            ]
            rows.append(
                {
                    "text": f"记者{name}从{company}报道" if i % 2 else f"天气{name}到了{company}",
                    "entities": entities,
                }
            )
            if i % 2:
                entities[1] |= {"start_offset": 6, "end_offset": 10}
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (dest / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return dest


def make_duie_repo(dest: Path) -> Path:
    """A data set repository in the layout of nlhappy/DuIE: text, and triples of subject, predicate and object.

    Args:
        dest: the repository's folder, `<folder>/datasets/nlhappy/DuIE`.
    """
    dest.mkdir(parents=True)
    for split, size in {"train": 60, "validation": 20}.items():
        rows = []
        for i in range(size):
            company, chair, city = f"{'海江河'[i % 3]}天集团", f"王{'小大中'[i % 3]}", "上海"
            triples = [("董事长", company, chair), ("总部地点", company, city)]
            rels = [
                {
                    "s": {"text": s, "indices": [], "label": ""},
                    "p": p,
                    "o": {"text": o, "indices": [], "label": ""},
                }
                for p, s, o in triples[: 1 + i % 2]
            ]
            rows.append({"text": f"{company}董事长{chair}在{city}说", "rels": rels})
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (dest / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return dest


def make_msra_repo(dest: Path, source: Path, size: int = 600) -> Path:
    """A data set repository in the layout of levow/msra_ner's branch refs/convert/parquet: tokens and ner_tags.

    Args:
        dest: the repository's folder, `<folder>/datasets/levow/msra_ner`.
        source: the folder with train.txt and dev.txt: a character and its label on each line.
        size: rows of each split, the first ones.
    """
    from datasets import ClassLabel, Dataset, Features, Sequence, Value

    names = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]
    features = Features({"tokens": Sequence(Value("string")), "ner_tags": Sequence(ClassLabel(names=names))})
    for split, file in (("train", "train.txt"), ("test", "dev.txt")):
        text = (source / file).read_text(encoding="utf-8")[: 2000 * size]
        rows = [[line.split() for line in block.splitlines()] for block in text.split("\n\n")[:size]]
        columns = {
            "tokens": [[token for token, _ in row] for row in rows],
            "ner_tags": [[names.index(label) for _, label in row] for row in rows],
        }
        folder = dest / "msra_ner" / split
        folder.mkdir(parents=True)
        Dataset.from_dict(columns, features=features).to_parquet(folder / "0000.parquet")
    return dest


def make_cmrc_repo(dest: Path, source: Path | None = None) -> Path:
    """A data set repository in the layout of hfl/cmrc2018: Parquet, one file a split, SQuAD's columns.

    As in the real one, some answers do not stand where they say: every tenth of those that are made up.

    Args:
        dest: the repository's folder, `<folder>/datasets/hfl/cmrc2018`.
        source: the folder with the real cmrc2018_dev.json, our validation, and cmrc2018_trial.json, our train (the
            real one is not at hand); made-up rows by default.
    """
    import pyarrow as pa
    from pyarrow import parquet

    (dest / "data").mkdir(parents=True)
    answers = pa.struct({"text": pa.list_(pa.string()), "answer_start": pa.list_(pa.int32())})
    schema = pa.schema(
        {"id": pa.string(), "context": pa.string(), "question": pa.string(), "answers": answers}
    )
    for split, size in (("train", 40), ("validation", 60)):
        rows = [
            {
                "id": f"{split}_{i}",
                "context": f"第{i}条街上" + "有许多人。" * (i % 30) + f"住着王{i}和李{i}。",
                "question": f"第{i}条街上住着谁？",
                "answers": {
                    "text": [f"王{i}和李{i}"],
                    "answer_start": [-1 if i % 10 == 9 else len(f"第{i}条街上") + 5 * (i % 30) + 2],
                },
            }
            for i in range(size)
        ]
        if source is not None:
            rows = _squad_rows(
                source / {"train": "cmrc2018_trial.json", "validation": "cmrc2018_dev.json"}[split]
            )
        parquet.write_table(
            pa.Table.from_pylist(rows, schema=schema), dest / "data" / f"{split}-00000-of-00001.parquet"
        )
    return dest


def _squad_rows(file: Path) -> list[dict]:
    """Rows of a file in the layout of SQuAD."""
    return [
        {
            "id": asked["id"],
            "context": paragraph["context"],
            "question": asked["question"],
            "answers": {
                "text": [answer["text"] for answer in asked["answers"]],
                "answer_start": [answer["answer_start"] for answer in asked["answers"]],
            },
        }
        for article in json.loads(file.read_text(encoding="utf-8"))["data"]
        for paragraph in article["paragraphs"]
        for asked in paragraph["qas"]
    ]


def make_alpaca_repo(dest: Path) -> Path:
    """A data set repository in the layout of llamafactory/alpaca_zh: one JSON file, instruction, input and output.

    Args:
        dest: the repository's folder, `<folder>/datasets/llamafactory/alpaca_zh`.
    """
    dest.mkdir(parents=True)
    rows = [
        {
            "instruction": f"第{i}个字是什么？",
            "input": "海江河" if i % 2 else "",
            "output": "海" * (i % 9 + 1),
        }
        for i in range(100)
    ]
    (dest / "alpaca_data_zh_51k.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return dest


def make_clue_repo(dest: Path) -> Path:
    """A data set repository in the layout of clue/clue, of which only the part tnews is there.

    Args:
        dest: the repository's folder, `<folder>/datasets/clue/clue`.
    """
    import pyarrow as pa
    from pyarrow import parquet

    (dest / "tnews").mkdir(parents=True)
    sections = ["100", "103", "107", "116"]
    words = ["民生", "球赛", "汽车", "电竞"]
    card = ["---", "configs:", "- config_name: tnews", "  data_files:"]
    for split, size in (("train", 400), ("validation", 100), ("test", 20)):
        labels = [-1 if split == "test" else i % 4 for i in range(size)]
        rows = {
            "sentence": [f"{words[i % 4]}新闻{split}第{i}条" for i in range(size)],
            "label": labels,
            "idx": list(range(size)),
        }
        parquet.write_table(pa.table(rows), dest / "tnews" / f"{split}-00000-of-00001.parquet")
        card += [f"  - split: {split}", f"    path: tnews/{split}-*"]
    card += [
        "dataset_info:",
        "- config_name: tnews",
        "  features:",
        "  - name: sentence",
        "    dtype: string",
    ]
    card += ["  - name: label", "    dtype:", "      class_label:", "        names:"]
    card += [f"          '{i}': '{name}'" for i, name in enumerate(sections)]
    card += ["  - name: idx", "    dtype: int32", "---", ""]
    (dest / "README.md").write_text("\n".join(card), encoding="utf-8")
    return dest
