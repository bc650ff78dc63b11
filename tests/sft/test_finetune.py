"""`sft/finetune.py`, `sft/model_folder.py`, `sft/scores.py`: from a file to a folder that others load."""

from __future__ import annotations

import csv
import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, f1_score
from tiny_classifier import write_encoder
from transformers import AutoModelForSequenceClassification, pipeline

from sft import classifiers
from sft import finetune as module
from sft.commands import CommandError
from sft.finetune import finetune
from sft.model_folder import drawable, read_training
from sft.predict import Classifier
from sft.scores import probability_of_label, score, score_labels

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
GOOD, BAD, EVIL = "好评", "差评", '<script>alert("x")</script>'
PLACES = ["酒店", "餐厅", "景点", "商场", "机场", "车站", "书店", "影院", "公园", "医院"]
QUICK = {"epochs": 1, "device": "cpu", "progress": False}


def write_reviews(path: Path, labels: tuple[str, str] = (GOOD, BAD)) -> Path:
    """60 different rows; one is markup, one a formula."""
    praise = ("干净又安静", "服务热情，下次还来", "价格公道", "环境很好")
    blame = ("又脏又吵", "态度很差，不会再来", "太贵了", "设施陈旧")
    rows = [(f"{place}{said}，{n}", labels[0]) for n, place in enumerate(PLACES) for said in praise[:3]]
    rows += [(f"{place}{said}，{n}", labels[1]) for n, place in enumerate(PLACES) for said in blame[:3]]
    rows[0] = (f"{EVIL} 很好", labels[0])
    rows[31] = ('=cmd|" /C calc"!A1', labels[1])
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(result, the file) of one quick run."""
    place = tmp_path_factory.mktemp("finetune")
    source = write_reviews(place / "reviews.csv")
    return finetune(source, place / "模型 1", license="cc-by-4.0", **QUICK), source


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Options of a run of a second: a model of one layer, which learns little but does all the same things."""
    place = tmp_path_factory.mktemp("tiny")
    with write_reviews(place / "r.csv").open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    return QUICK | {"model": str(write_encoder(place / "model", texts))}


def predictions(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_pipeline_loads_the_folder_and_answers_as_it_says(finished):
    folder = finished[0].folder
    classify = pipeline("text-classification", model=str(folder), truncation=True, device="cpu")
    rows = [row for row in predictions(folder) if not row["text"].startswith("'")]
    for row, theirs in zip(rows, classify([row["text"] for row in rows]), strict=True):
        assert (row["prediction"], float(row["probability"])) == (
            theirs["label"],
            pytest.approx(theirs["score"], abs=2e-4),
        )
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert set(model.config.id2label.values()) == {GOOD, BAD}


def test_every_row_is_listed_once_the_most_doubtful_first(finished):
    result, source = finished
    rows = predictions(result.folder)
    with source.open(encoding="utf-8", newline="") as file:
        texts = {row["text"]: row["label"] for row in csv.DictReader(file)}
    assert len(rows) == len(texts) == 60
    given = [float(row["probability_of_label"]) for row in rows]
    assert given == sorted(given)
    for row in rows:
        assert texts[row["text"].removeprefix("'")] == row["label"]
        expected = float(row["probability"]) if row["prediction"] == row["label"] else None
        assert expected is None or float(row["probability_of_label"]) == pytest.approx(expected)
        assert row["file"] == "reviews.csv" and 1 <= int(row["row"]) <= 60


def test_figures_are_those_of_the_test_rows_and_the_same_everywhere(finished):
    result = finished[0]
    test = [row for row in predictions(result.folder) if row["split"] == "test"]
    labels, said = [row["label"] for row in test], [row["prediction"] for row in test]
    accuracy, macro = result.scores
    assert accuracy.value == pytest.approx(accuracy_score(labels, said))
    assert macro.value == pytest.approx(f1_score(labels, said, average="macro"))
    assert accuracy.interval[0] <= accuracy.value <= accuracy.interval[1]
    training = read_training(result.folder)
    assert training["scores"]["model"][0]["value"] == accuracy.value
    card = (result.folder / "README.md").read_text(encoding="utf-8")
    report = (result.folder / "report.html").read_text(encoding="utf-8")
    for who in (*result.scores, *result.baseline_scores):
        low, high = who.interval
        assert f"{who.value:.1%}（{low:.1%}–{high:.1%}）" in card
        assert f"{who.value:.1%}<br>" in report and f"{low:.1%}–{high:.1%}" in report
    assert html.escape(result.comparison.words) in report
    assert result.comparison.words.split("：")[0] in card


def test_the_folder_says_what_was_learnt_from_what(finished):
    result = finished[0]
    training = read_training(result.folder)
    card = (result.folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith('---\nlicense: "cc-by-4.0"\n') and "cc-by-4.0（由训练的人指明）" in card
    assert training["split_sizes"] == {
        name: sum(row["split"] == name for row in predictions(result.folder))
        for name in ("train", "validation", "test")
    }
    assert training["recipe"]["num_epochs"] == 1 and training["decides"]["seed"] == 0
    assert len(training["history"]) == 2 and training["data"]["rows"] == 60
    assert training["machine"]["torch"] and re.fullmatch("[0-9a-f]{64}", training["decides"]["data"])
    for image in ("confusion.png", "learning.png"):
        assert (result.folder / image).read_bytes().startswith(b"\x89PNG")


def test_a_strangers_text_is_text_in_every_file(finished):
    folder = finished[0].folder
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in report and 'src="http' not in report and "href=" not in report
    assert report.count("data:image/png;base64,") == 2
    assert "\n'=cmd" in (folder / "predictions.csv").read_text(encoding="utf-8") or any(
        row["text"].startswith("'=cmd") for row in predictions(folder)
    )


def test_markup_in_labels_is_text_in_report_and_card(quick, tmp_path):
    evil = ("<img src=x onerror=alert(1)>", "a|b `c` [d](javascript:e) $x_1$")
    result = finetune(write_reviews(tmp_path / "r.csv", evil), tmp_path / "m", method="frozen", **quick)
    report = (result.folder / "report.html").read_text(encoding="utf-8")
    card = (result.folder / "README.md").read_text(encoding="utf-8")
    for written in (report, card):
        assert "<img src=x" not in written
    assert "[d](javascript" not in card and "a|b" not in card
    assert html.escape(evil[0]) in report
    assert {row["label"] for row in predictions(result.folder)} == set(evil)
    config = json.loads((result.folder / "config.json").read_text(encoding="utf-8"))
    assert set(config["id2label"].values()) == set(evil)


def test_the_same_command_again_trains_nothing_and_other_settings_are_refused(finished, monkeypatch):
    result, source = finished
    monkeypatch.setattr(module, "tune", lambda *args, **options: pytest.fail("trained again"))
    again = finetune(source, result.folder, license="cc-by-4.0", **QUICK)
    assert again == result
    with pytest.raises(CommandError, match="seed 不同"):
        finetune(source, result.folder, seed=1, **QUICK)


class Stopped(Exception):
    pass


def test_a_run_that_is_stopped_after_an_epoch_ends_as_one_that_was_not(quick, tmp_path, monkeypatch):
    source, options = write_reviews(tmp_path / "r.csv"), quick | {"epochs": 2}
    whole = finetune(source, tmp_path / "whole", **options)
    save, saved = classifiers.fit.__globals__["_Checkpoint"].save, []

    def save_and_stop(self, *args):
        save(self, *args)
        saved.append(self.path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(classifiers.fit.__globals__["_Checkpoint"], "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            finetune(source, tmp_path / "stopped", **options)
    assert len(saved) == 1 and not (tmp_path / "stopped").exists()
    with pytest.raises(CommandError, match="lr 不同"):
        finetune(source, tmp_path / "stopped", lr=1e-3, **options)
    resumed = finetune(source, tmp_path / "stopped", **options)
    assert resumed.scores == whole.scores and resumed.comparison == whole.comparison
    ours, theirs = (load_file(one.folder / "model.safetensors") for one in (whole, resumed))
    assert ours.keys() == theirs.keys() and all((ours[name] == theirs[name]).all() for name in ours)
    assert (whole.folder / "predictions.csv").read_bytes() == (
        resumed.folder / "predictions.csv"
    ).read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["r.csv", "stopped", "whole"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_nothing_appears_until_all_is_written(quick, tmp_path, monkeypatch, error):
    source = write_reviews(tmp_path / "r.csv")

    def fail(*args, **options):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("sft.model_folder.draw_learning", fail)
        with pytest.raises((KeyboardInterrupt, OSError)):
            finetune(source, tmp_path / "m", **quick)
    assert not (tmp_path / "m").exists()
    (tmp_path / "m").mkdir()  # an empty folder is no obstacle
    assert finetune(source, tmp_path / "m", **quick).folder == tmp_path / "m"
    assert read_training(tmp_path / "m") and not (tmp_path / "m.partial").exists()


def test_what_is_not_ours_is_never_touched(quick, tmp_path):
    source = write_reviews(tmp_path / "r.csv")
    for name, make in {
        "notes": lambda path: (path.mkdir(), (path / "a.txt").write_text("a")),
        "file": lambda path: path.write_text("a"),
        "model.partial": lambda path: (path.mkdir(), (path / "a.txt").write_text("a")),
    }.items():
        make(tmp_path / name)
        with pytest.raises(CommandError, match="换一个"):
            finetune(source, tmp_path / name.removesuffix(".partial"), **quick)
    assert (tmp_path / "notes" / "a.txt").read_text() == (tmp_path / "file").read_text() == "a"


def test_the_tokenizer_of_another_model_is_refused_before_anything_is_trained(quick, tmp_path):
    foreign = write_encoder(tmp_path / "foreign", ["".join(map(chr, range(0x4E00, 0x4F00)))] * 2)
    mixed = shutil.copytree(quick["model"], tmp_path / "mixed")
    for file in foreign.glob("tokenizer*"):
        shutil.copy(file, mixed)
    source = write_reviews(tmp_path / "r.csv")
    with pytest.raises(CommandError, match=r"mixed：分词器有 \d+ 个词元，模型只有 \d+ 个"):
        finetune(source, tmp_path / "m", **quick | {"model": str(mixed)})
    assert not (tmp_path / "m").exists()


def test_a_tokenizer_that_does_not_know_the_texts_is_told_of(tmp_path, capsys):
    model = write_encoder(tmp_path / "english", ["plain english words"] * 2)
    source = write_reviews(tmp_path / "r.csv")
    finetune(source, tmp_path / "m", **QUICK | {"model": str(model), "progress": True})
    assert re.search(r"分词器不认识这些文字里 \d\d% 的词元", capsys.readouterr().out)


def test_several_labels_a_text(quick, tmp_path):
    rows = [(f"{place}{'很干净' * a}{'，太贵了' * b}{n}号", "|".join(["卫生"] * a + ["价格"] * b))
            for n, place in enumerate(PLACES) for a, b in ((1, 0), (0, 1), (1, 1))]  # fmt: skip
    with (tmp_path / "r.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    result = finetune(tmp_path / "r.csv", tmp_path / "m", separator="|", **quick)
    assert [score.name for score in result.scores] == ["全部标签都对", "逐个标签的准确率"]
    listed = predictions(result.folder)
    assert {row["label"] for row in listed} == {"卫生", "价格", "价格|卫生"} | (
        {"卫生|价格"} & {row["label"] for row in listed}
    ) or {row["label"] for row in listed} == {"卫生", "价格", "卫生|价格"}
    ours = Classifier(result.folder).predict([row["text"] for row in listed])
    assert [one.label for one in ours] == [row["prediction"] for row in listed]


@pytest.fixture
def sums(tmp_path):
    """Prompts with answers, in a file."""
    with (tmp_path / "p.jsonl").open("w", encoding="utf-8") as file:
        for n in range(24):
            row = {"prompt": f"{n} 加一是几？", "answer": f"是 {n + 1}。"}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return tmp_path / "p.jsonl"


def test_prompts_tune_a_language_model_that_pipeline_loads(sums, tmp_path, capsys):
    result = finetune(sums, tmp_path / "m", epochs=3, device="cpu")
    assert result.loss_after < result.loss_before
    talk = [{"role": "user", "content": "3 加一是几？"}]
    chat = pipeline("text-generation", model=str(result.folder), device="cpu")
    reply = chat(talk, max_new_tokens=8, do_sample=False)[0]["generated_text"][-1]
    assert reply["role"] == "assistant" and reply["content"].strip()
    card = (result.folder / "README.md").read_text(encoding="utf-8")
    assert f"{result.loss_before:.3f} | {result.loss_after:.3f}" in card and "24" in card
    assert finetune(sums, tmp_path / "m", epochs=3, device="cpu") == result
    assert "没有再训练" in capsys.readouterr().out


def test_a_conversation_that_cannot_be_learned_is_named_by_its_row(sums, tmp_path):
    with sums.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"prompt": "你好[SEP]助手：", "answer": "好。"}, ensure_ascii=False) + "\n")
    with pytest.raises(CommandError, match=r"p\.jsonl：row 25: .*\[SEP\]"):
        finetune(sums, tmp_path / "m", device="cpu", progress=False)
    assert not (tmp_path / "m").exists()


def test_options_of_classifiers_are_refused_for_conversations(sums, tmp_path):
    with pytest.raises(CommandError, match="--method"):
        finetune(sums, tmp_path / "m", method="lora", device="cpu", progress=False)


def test_training_loses_to_the_baseline_in_words(finished):
    assert re.match("微调值得|分不出高下|微调不如", finished[0].comparison.words)


# --- the command ---------------------------------------------------------------------------------------


def shell(*args: str, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "sft.finetune", *args]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def test_ctrl_c_ends_in_one_line_and_the_command_goes_on_from_there(quick, tmp_path):
    args = (
        str(write_reviews(tmp_path / "r.csv")),
        "--out",
        str(tmp_path / "m"),
        "--epochs",
        "4000",
        "--model",
        quick["model"],
        "--device",
        "cpu",
    )
    process = shell(*args)
    until = time.monotonic() + 120
    while not (tmp_path / "m.partial" / "checkpoint.pt").exists() and time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and "再执行同一条命令" in told and "Traceback" not in told
    assert not (tmp_path / "m").exists()


def test_a_full_disk_is_one_line(tmp_path):
    """A limit on the size of files stands in for it: torch and safetensors do not say OSError then."""
    resource = pytest.importorskip("resource")
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))  # noqa: E731
    process = shell(
        str(write_reviews(tmp_path / "r.csv")), "--out", str(tmp_path / "m"), "--epochs", "1",
        preexec_fn=limit, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    _, told = process.communicate(timeout=120)
    assert process.returncode == 3 and told.splitlines()[-1].startswith("finetune: 磁盘满了")
    assert "Traceback" not in told and not (tmp_path / "m").exists()


# --- scores and figures --------------------------------------------------------------------------------


def test_scores_of_several_labels_count_rows_and_single_labels():
    labels = np.array([[1, 0], [1, 1], [0, 0], [0, 1]], dtype=float)
    probabilities = np.array([[0.9, 0.1], [0.8, 0.4], [0.3, 0.2], [0.6, 0.7]])
    whole, single = score(probabilities, labels)
    assert (whole.value, single.value) == (0.5, 0.75)
    first, second = score_labels(probabilities, labels, ["甲", "乙"])
    assert (first.rows, first.precision, first.recall) == (2, pytest.approx(2 / 3), 1.0)
    assert (second.rows, second.precision, second.recall) == (2, 1.0, 0.5)
    np.testing.assert_allclose(
        probability_of_label(probabilities, labels), [0.9 * 0.9, 0.8 * 0.4, 0.7 * 0.8, 0.4 * 0.7]
    )


def test_all_right_is_not_said_to_be_certain():
    sure = np.eye(2)[np.arange(48) % 2]
    accuracy, macro = score(sure, np.arange(48) % 2)
    assert (accuracy.value, macro.value) == (1, 1)
    assert accuracy.interval == pytest.approx((0.025 ** (1 / 48), 1))
    lost = 1 - accuracy.interval[0]  # of one class, taken for the other
    confused = [0] * 500 + [1] * round(1000 * lost) + [1] * (500 - round(1000 * lost))
    truth = [0] * 500 + [0] * round(1000 * lost) + [1] * (500 - round(1000 * lost))
    assert macro.interval == (pytest.approx(f1_score(truth, confused, average="macro"), abs=0.005), 1)
    several = score(np.ones((10, 2)), np.ones((10, 2)))
    assert [one.interval for one in several] == [pytest.approx((0.025 ** (1 / 10), 1))] * 2


def test_a_label_that_no_test_row_has_is_listed_with_zero_rows():
    names = ["甲", "乙", "丙"]
    listed = score_labels(np.eye(3)[[0, 1, 1]], np.array([0, 1, 0]), names)
    assert [(one.name, one.rows) for one in listed] == [("甲", 2), ("乙", 1), ("丙", 0)]


def test_labels_in_figures_are_short_plain_and_drawable():
    assert drawable("好评", 0) == "好评"
    assert drawable("非常非常非常非常好的评论", 0) == "非常非常非常非常好…"
    assert drawable("$a$", 0) == r"\$a\$"
    assert drawable("\U0001f9ff", 2) == drawable("", 2) == "第 3 类"
