"""The matrix of the page 基准 against the stand-in hub: its chapters, models and data, small and with real rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness.book.config import load_book
from harness.book.matrix import read_matrix
from harness.book.plan import Request, plan_matrix
from harness.site import matrix_page
from sft.hub import PRETRAINED
from tests.hub_server import (
    HubServer,
    make_chnsenticorp_repo,
    make_clue_repo,
    make_cluener_repo,
    make_cmrc_repo,
    make_duie_repo,
    make_msra_repo,
    make_tiny_bert_repo,
    make_tiny_qwen_repo,
    shared_data,
)

ROOT = Path(__file__).parents[2]
MATRIX = ROOT / "chapters" / "benchmarks.yml"
TASKS = [task["name"] for task in yaml.safe_load(MATRIX.read_text(encoding="utf-8"))["tasks"]]
SMALL = {  # beside the smoke profile's values
    "05-1-fine-tuning": {"num_epochs": 1},
    "06-1-question-answering": {"num_squad": 24, "squad_test_size": 40},
    "06-3-text-classification": {"lr": 1e-4},
    "06-5-language-understanding": {"batch_size": 8},
}


@pytest.fixture(scope="module")
def repositories(tmp_path_factory) -> Path:
    """Tiny random models in the real layouts; the real rows, but TNEWS's and CLUENER's."""
    folder = tmp_path_factory.mktemp("hub")
    vocabulary = shared_data("bert-base-chinese-tokenizer")
    for name in ("google-bert/bert-base-chinese", "hfl/chinese-roberta-wwm-ext", "hfl/chinese-macbert-base"):
        make_tiny_bert_repo(folder / "models" / name, vocabulary)
    make_tiny_qwen_repo(folder / "models" / "Qwen" / "Qwen3-0.6B", PRETRAINED / "mini-gpt-zh")
    data = folder / "datasets"
    make_clue_repo(data / "clue" / "clue")
    make_cluener_repo(data / "xusenlin" / "clue-ner")
    make_duie_repo(data / "nlhappy" / "DuIE")
    make_msra_repo(data / "levow" / "msra_ner", shared_data("msra_ner_hfl"))
    make_cmrc_repo(data / "hfl" / "cmrc2018", shared_data("cmrc2018_hfl"))
    make_chnsenticorp_repo(data / "lansinuote" / "ChnSentiCorp", shared_data("chnsenticorp_hfl"))
    return folder


def small_matrix(place: Path, task_name: str) -> tuple[Path, dict]:
    """The book's matrix with one task, one of its models, each time another, and smoke-sized values."""
    data = yaml.safe_load(MATRIX.read_text(encoding="utf-8"))
    (task,) = [task for task in data["tasks"] if task["name"] == task_name]
    models = task.get("models", data["models"])
    own = {task["takes"], *(name for name in ("names_data", "names_revision", "names_split", "use_list"))}
    chapter = yaml.safe_load((ROOT / "harness.yml").read_text(encoding="utf-8"))["parameters"][
        task["chapter"]
    ]
    smaller = {**chapter["smoke"], **SMALL[task["chapter"]]}
    kept = {name: value for name, value in task.get("parameters", {}).items() if name in own}
    task |= {"models": [models[TASKS.index(task_name) % 3]] if len(models) > 1 else models}
    task |= {"parameters": {**smaller, **kept}}
    place.write_text(yaml.safe_dump(data | {"tasks": [task]}, allow_unicode=True), encoding="utf-8")
    return place, task


@pytest.mark.parametrize("name", TASKS)
def test_a_task_loads_trains_and_fills_its_cells(repositories: Path, tmp_path: Path, name: str):
    matrix, task = small_matrix(tmp_path / "matrix.yml", name)
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "harness",
        "run",
        "--matrix",
        str(matrix),
        "--no-cache",
        "--out",
        str(out),
    ]
    with HubServer(repositories) as hub:
        done = subprocess.run(
            command, cwd=ROOT, env=hub.environment(tmp_path / "home"), capture_output=True, text=True, timeout=600
        )  # fmt: skip
        asked = " ".join(map(str, hub.requests))
    assert (out / "result.json").is_file(), done.stdout[-2000:] + done.stderr[-2000:]
    run = json.loads((out / "result.json").read_text(encoding="utf-8"))
    states = {job["id"]: (job["state"], job["reason"]) for job in run["jobs"]}
    assert {state for state, _ in states.values()} == {"completed"}, f"{states}\n{done.stderr[-2000:]}"
    assert len(states) == len(task["models"])
    assert all(model in asked for model in task["models"])

    page, book = tmp_path / "page.md", load_book(ROOT)
    shown = matrix_page.fill(f"<!-- harness:matrix {matrix.name} -->", page, book, out)
    assert "*未验证*" not in shown
    published = sum(
        model in score.get("published", {}) for score in task["scores"] for model in task["models"]
    )
    assert shown.count("未通过") == published, "a random model is far below what is published"


def test_the_books_matrix_can_be_planned_whole():
    book = load_book(ROOT)
    planned = plan_matrix(book, read_matrix(MATRIX, book), book.chapters, Request(seeds=(0, 1, 2)))
    assert {entry.problem for entry in planned} == {""}
    assert len({entry.job.id for entry in planned}) == len(planned) == 3 * 16


def test_the_page_shows_every_cell_unverified_where_nothing_ran(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(matrix_page, "runs_of", lambda *_: [])
    page = ROOT / "chapters" / "benchmarks.md"
    shown = matrix_page.fill(page.read_text(encoding="utf-8"), page, load_book(ROOT))
    unverified = shown.count("| *未验证* | | |")
    assert unverified == 19  # 16 cells, three of them with a second score
