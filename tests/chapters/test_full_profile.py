"""The `full` profile: the real loaders against a stand-in hub, and a hub that does not answer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from sft.hub import PRETRAINED
from tests.hub_server import (
    Behaviour,
    HubServer,
    make_alpaca_repo,
    make_chnsenticorp_repo,
    make_clue_repo,
    make_cluener_repo,
    make_cmrc_repo,
    make_duie_repo,
    make_tiny_bert_repo,
    make_tiny_marian_repo,
    make_tiny_qwen_repo,
    shared_data,
)

ROOT = Path(__file__).parents[2]
HUB_PARAMETERS = (
    *("data_name", "decoder_name", "judge_name", "llm_name", "model_name"),
    *("names_data", "pretrained_name", "relations_data", "writer_name"),
)
ABLE = {"06-2-2-preferences": ("sft_lr=1e-3",)}  # where Qwen must learn to answer, and what makes it quick
SMALL = (  # chapter 5's core
    "max_train=96", "max_validation=32", "max_test=1000", "max_length=48", "num_epochs=1", "compare_train=32",
    "own_rows=40", "own_epochs=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def repositories(tmp_path_factory) -> Path:
    """A tiny random model in the real layout, and the real rows."""
    folder = tmp_path_factory.mktemp("hub")
    make_tiny_bert_repo(
        folder / "models" / "google-bert" / "bert-base-chinese", shared_data("bert-base-chinese-tokenizer")
    )
    make_tiny_qwen_repo(folder / "models" / "Qwen" / "Qwen3-0.6B", PRETRAINED / "mini-gpt-zh")
    make_tiny_marian_repo(folder / "models" / "Helsinki-NLP" / "opus-mt-en-zh")
    make_alpaca_repo(folder / "datasets" / "llamafactory" / "alpaca_zh")
    make_clue_repo(folder / "datasets" / "clue" / "clue")
    make_cluener_repo(folder / "datasets" / "xusenlin" / "clue-ner")
    make_duie_repo(folder / "datasets" / "nlhappy" / "DuIE")
    make_cmrc_repo(folder / "datasets" / "hfl" / "cmrc2018")
    make_chnsenticorp_repo(
        folder / "datasets" / "lansinuote" / "ChnSentiCorp", shared_data("chnsenticorp_hfl")
    )
    return folder


@pytest.fixture(scope="module")
def able_repositories(repositories: Path, tmp_path_factory) -> Path:
    """The same hub whose Qwen can write: where a random model's answers earn nothing, no two of them make a pair."""
    folder = tmp_path_factory.mktemp("able") / "hub"
    shutil.copytree(repositories, folder, copy_function=os.link, ignore=shutil.ignore_patterns("Qwen3-0.6B"))
    shutil.copytree(PRETRAINED / "mini-gpt-zh", folder / "models" / "Qwen" / "Qwen3-0.6B")
    return folder


def run_full(
    out: Path, environment: dict[str, str], *options: str, chapter: str = "05-1", small: Sequence[str] = SMALL
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", "run", "--profile", "full", "--no-cache"]
    command += ["--chapters", chapter, "--out", str(out)]
    command += [part for value in (*small, *options) for part in ("--param", value)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)


def metrics(out: Path) -> dict[str, dict]:
    (job,) = json.loads((out / "result.json").read_text())["jobs"]
    return {m["name"]: m for m in job["metrics"]}


def test_loads_trains_and_judges_from_the_hub(repositories: Path, tmp_path: Path):
    out = tmp_path / "run"
    with HubServer(repositories) as hub:
        done = run_full(out, hub.environment(tmp_path / "home"))
    run = json.loads((out / "result.json").read_text())
    assert [job["state"] for job in run["jobs"]] == ["completed"], done.stdout[-2000:] + done.stderr[-2000:]
    measured = metrics(out)
    # the rows are real, so the leak is: a quarter of these test rows also stand in train
    assert measured["test_accuracy"]["n"] == 1000
    assert 650 < measured["unseen_test_accuracy"]["n"] < 800
    # a random model is far below the published score, and the harness must say so
    verdicts = {v["claim"]: v for v in run["verdicts"]}
    assert verdicts["test_accuracy"]["outcome"] == "fail"
    assert verdicts["test_accuracy"]["reference"] == pytest.approx(0.947)
    assert done.returncode == 1


@pytest.mark.parametrize(
    "chapter",
    [  # 01 takes nothing from the hub: with these parameters it is as in the smoke profile
        "02-core-concepts",
        "03-1-transformer",
        "03-2-decoder",
        "04-mathematics",
        "05-2-experiments",
        "06-1-question-answering",
        "06-2-text-generation",
        "06-2-2-preferences",
        "06-3-text-classification",
        "06-4-machine-translation",
        "06-5-language-understanding",
        "07-resources",
        "08-1-outlook",
        "08-2-challenges",
        "08-3-prospects",
        "09-1-faq",
        "09-2-speed-and-privacy",
    ],
)
def test_the_other_chapters_take_their_model_from_the_hub(
    repositories: Path, able_repositories: Path, tmp_path: Path, chapter: str
):
    profiles = yaml.safe_load((ROOT / "harness.yml").read_text(encoding="utf-8"))["parameters"][chapter]
    named = {key: profiles["full"].get(key) for key in HUB_PARAMETERS}
    small = [f"{name}={value}" for name, value in profiles["smoke"].items() if name not in named]
    small += ABLE.get(chapter, ())
    with HubServer(able_repositories if chapter in ABLE else repositories) as hub:
        done = run_full(tmp_path / "run", hub.environment(tmp_path / "home"), chapter=chapter, small=small)
        requests = " ".join(map(str, hub.requests))
    (job,) = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))["jobs"]
    assert job["state"] == "completed", done.stdout[-2000:] + done.stderr[-2000:]
    for key, name in named.items():
        assert name is None or job["parameters"].get(key) == name
    known = {
        values.get(key)
        for chapters in yaml.safe_load((ROOT / "harness.yml").read_text(encoding="utf-8"))[
            "parameters"
        ].values()
        for values in [chapters.get("full", {})]
        for key in HUB_PARAMETERS
    } - {None}
    asked = {name for name in known if name in requests}
    assert asked == {name for name in named.values() if name}


def test_local_folder_needs_no_hub(tmp_path: Path):
    source = shared_data("chnsenticorp_hfl")
    model = make_tiny_bert_repo(tmp_path / "model", shared_data("bert-base-chinese-tokenizer"))
    with HubServer(tmp_path / "nothing", behaviour=Behaviour.ABSENT) as hub:
        environment = hub.environment(tmp_path / "home", timeout=2)
        options = ("source=local", f"data_path={source}", f"model_name={model or tmp_path / 'model'}")
        done = run_full(tmp_path / "run", environment, *options)
    run = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [job["state"] for job in run["jobs"]] == ["completed"], done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.parametrize("behaviour", [Behaviour.ABSENT, Behaviour.UNAVAILABLE, Behaviour.HANG])
def test_a_hub_that_does_not_answer_is_one_clear_line(tmp_path: Path, behaviour: Behaviour):
    with HubServer(tmp_path / "nothing", behaviour=behaviour) as hub:
        done = run_full(tmp_path / "run", hub.environment(tmp_path / "home", timeout=2))
    assert done.returncode == 2
    (job,) = json.loads((tmp_path / "run" / "result.json").read_text())["jobs"]
    assert job["state"] == "failed"
    assert "DataError: the hub at http://127.0.0.1" in job["reason"]
    assert "set HF_ENDPOINT to a mirror" in job["reason"]
    assert "Traceback" not in done.stdout + done.stderr
    assert metrics(tmp_path / "run").keys() >= {"duplicate_fraction"}  # what was recorded before is kept
