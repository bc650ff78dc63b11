"""`sft/predict.py`: a sentence, a table, standard input; the same answers as `pipeline`."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import openpyxl
import pytest
from tiny_classifier import TEXTS, write_classifier
from transformers import pipeline

from sft import predict
from sft.commands import CommandError
from sft.predict import Classifier, predict_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_classifier(tmp_path_factory.mktemp("model") / "tiny")


def call(*args, out=None, sheet=None) -> None:
    options = {"text": None, "backend": "torch", "device": "cpu"} | {"out": out, "sheet": sheet}
    predict.main(*args, **options)


def refused(capsys, *args, **options) -> str:
    with pytest.raises(SystemExit) as ended:
        call(*args, **options)
    assert ended.value.code == 3
    told = capsys.readouterr().err
    assert told.startswith("predict: ") and told.count("\n") == 1
    return told


def test_answers_are_those_of_pipeline(folder):
    texts = [*TEXTS, "很长" * 100]  # cut to the folder's length by both
    ours = Classifier(folder).predict(texts, batch_size=4)
    theirs = pipeline("text-classification", model=str(folder), truncation=True, device="cpu")(texts)
    assert [one.label for one in ours] == [one["label"] for one in theirs]
    np.testing.assert_allclose([one.probability for one in ours], [one["score"] for one in theirs], atol=1e-5)
    assert {one.label for one in ours} == {"差评", "好评"}


def test_several_labels_are_each_decided_and_the_probability_is_that_of_the_whole(tmp_path):
    folder = write_classifier(tmp_path / "m", ("甲", "乙", "丙"), several=True)
    classifier = Classifier(folder)
    for row, one in zip(classifier.probabilities(TEXTS), classifier.predict(TEXTS), strict=True):
        chosen = [name for name, p in zip("甲乙丙", row, strict=True) if p > 0.5]
        assert one.label == "|".join(chosen)
        assert one.probability == pytest.approx(np.prod(np.maximum(row, 1 - row)))
    theirs = pipeline("text-classification", model=str(folder), top_k=None, device="cpu")(list(TEXTS))
    for one, scores in zip(classifier.predict(TEXTS), theirs, strict=True):
        assert one.scores == pytest.approx({s["label"]: s["score"] for s in scores}, abs=1e-5)


def test_no_text_no_rows(folder):
    assert Classifier(folder).probabilities([]).shape == (0, 2)


def test_half_a_surrogate_pair_is_read_as_an_unknown_character(folder):
    found = Classifier(folder).probabilities(["房间\ud800很干净", "房间\ufffd很干净"])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_a_table_keeps_rows_columns_and_order(folder):
    columns = {"id": [3, 1, 2], "text": ["早餐不错", None, "服务差"], "prediction": ["a", "b", "c"]}
    names, rows = predict_table(Classifier(folder), columns, "text")
    assert names == ["id", "text", "prediction", "prediction_2", "probability"]
    assert [row[:3] for row in rows] == [[3, "早餐不错", "a"], [1, None, "b"], [2, "服务差", "c"]]
    assert rows[1][3:] == ["", ""]
    expected = Classifier(folder).predict(["早餐不错", "服务差"])
    assert [rows[0][3], rows[2][3]] == [one.label for one in expected]


def test_a_sentence_is_answered_in_words(folder, capsys):
    call(folder, "早餐不错")
    told = capsys.readouterr().out
    one = Classifier(folder).predict(["早餐不错"])[0]
    assert told.startswith(f"{one.label}　{one.probability:.1%}") and "差评" in told and "好评" in told


def test_a_file_is_answered_row_by_row_and_formulas_are_escaped(folder, tmp_path, capsys):
    source, out = tmp_path / "rows.csv", tmp_path / "new" / "out.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "text"], *([i, text] for i, text in enumerate(TEXTS))])
    call(folder, str(source), out=out)
    assert out.read_bytes().startswith(b"\xef\xbb\xbf")
    with out.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == ["'=1+1" if t == "=1+1" else t for t in TEXTS]
    expected = Classifier(folder).predict(TEXTS)
    assert [row["prediction"] for row in rows] == [one.label for one in expected]
    assert [float(row["probability"]) for row in rows] == pytest.approx(
        [one.probability for one in expected], abs=1e-4
    )
    assert not list(tmp_path.glob("**/*.partial")) and f"{len(TEXTS)} 行" in capsys.readouterr().err


def test_standard_input_is_read_line_by_line(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("早餐不错\n\n服务差\n".encode())))
    call(folder, "-")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["text"] for row in rows] == ["早餐不错", "", "服务差"]
    assert rows[1]["prediction"] == "" and rows[0]["prediction"] in ("差评", "好评")


def test_what_cannot_be_done_is_one_line(folder, tmp_path, monkeypatch, capsys):
    assert "没有文件 nosuch.csv" in refused(capsys, folder, "nosuch.csv")
    assert "空的" in refused(capsys, folder, "  ")
    assert "没有文件夹" in refused(capsys, tmp_path / "none", "好")
    assert "不是模型文件夹" in refused(capsys, tmp_path, "好")
    assert "只会写 .csv" in refused(capsys, folder, "好", out=tmp_path / "a.xlsx")
    source = tmp_path / "same.csv"
    source.write_text("text\n房间很干净\n太吵了，睡不着\n", encoding="utf-8")
    assert "就是要读的文件" in refused(capsys, folder, str(source), out=source)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\xb7\xbf\xbc\xe4")))
    assert "不是 UTF-8" in refused(capsys, folder, "-")


def test_a_folder_whose_weights_do_not_fit_is_refused(tmp_path):
    """Issue 16, F4: such a folder loads with a random encoder and answers."""
    from safetensors.torch import load_file, save_file

    folder = write_classifier(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    renamed = {name.replace("bert.", ""): value for name, value in weights.items()}
    save_file(
        {n: v for n, v in renamed.items() if "pooler" not in n},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(CommandError, match="载入后会是随机数"):
        Classifier(folder)


def test_pickled_weights_are_never_opened(tmp_path):
    folder = write_classifier(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CommandError, match=r"没有 \*\.safetensors"):
        Classifier(folder)


@pytest.mark.parametrize("config", ["{", "[]", '{"model_type": "bert"}'])
def test_a_config_that_is_none_is_one_line(tmp_path, config):
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(CommandError):
        Classifier(tmp_path)


def test_a_backend_that_was_not_exported_names_the_command(folder):
    with pytest.raises(CommandError, match=r"sft\.export .* --onnx --int8"):
        Classifier(folder, backend="int8")


@pytest.mark.slow
def test_the_command_runs_from_a_shell(folder):
    command = [sys.executable, "-m", "sft.predict", str(folder), "早餐不错", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": "."})
    assert done.returncode == 0 and done.stderr == ""
    one = Classifier(folder).predict(["早餐不错"])[0]
    assert done.stdout.startswith(one.label)
    assert json.loads((folder / "config.json").read_text())["id2label"]["1"] == "好评"


def test_the_sheet_of_a_workbook_is_the_one_asked_for(folder, tmp_path, capsys):
    book = openpyxl.Workbook()
    book.active.append(["备注"])
    reviews = book.create_sheet("评论")
    for cell in ("text", *TEXTS[:2]):
        reviews.append([cell])
    book.save(tmp_path / "两张.xlsx")
    call(folder, str(tmp_path / "两张.xlsx"), sheet="评论")
    assert [row["text"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))] == list(TEXTS[:2])
