"""`sft/export.py`: ONNX answers as PyTorch does; 8 bits that change answers are refused."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from tiny_classifier import TEXTS, write_classifier

pytest.importorskip("onnxruntime", reason="pip install -c constraints.txt onnx onnxruntime onnxscript")

from sft import export as module
from sft.commands import CommandError
from sft.export import Agreement, agree, export, held_out_texts
from sft.predict import Classifier

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = write_classifier(tmp_path_factory.mktemp("model") / "tiny", ("甲", "乙", "丙"))
    return folder, export(folder, int8=True, allow_changes=True)


def test_onnx_gives_the_probabilities_of_pytorch_for_any_number_of_texts_of_any_length(exported):
    folder, done = exported
    onnx, torch = Classifier(folder, backend="onnx"), Classifier(folder)
    for texts in (["早"], list(TEXTS), ["很长" * 100], ["短", "不短的一句话" * 4, ""]):
        np.testing.assert_allclose(onnx.probabilities(texts), torch.probabilities(texts), atol=1e-4)
    assert done.agreement["onnx"].changed == 0 and done.agreement["onnx"].n == len(TEXTS)


def test_eight_bits_are_smaller_and_near(exported):
    folder, done = exported
    found = Classifier(folder, backend="int8").probabilities(TEXTS)
    assert np.abs(found - Classifier(folder).probabilities(TEXTS)).max() < 0.2
    assert done.megabytes["int8"] < done.megabytes["onnx"]
    assert done.agreement["int8"].largest > 0  # it is not the same model under another name


def test_what_was_checked_is_kept_beside_the_models(exported):
    folder, done = exported
    kept = json.loads((folder / "onnx" / "export.json").read_text(encoding="utf-8"))
    assert kept["agreement"]["int8"]["n"] == len(TEXTS) and set(kept["milliseconds"]) == {
        "torch",
        "onnx",
        "int8",
    }
    assert all(value > 0 for value in done.milliseconds.values())
    assert sorted(file.name for file in (folder / "onnx").iterdir()) == [
        "export.json",
        "model.onnx",
        "model_int8.onnx",
    ]


@pytest.fixture
def again(exported, tmp_path, monkeypatch):
    """A copy of the folder whose export is not computed a second time."""
    folder = shutil.copytree(exported[0], tmp_path / "m")
    graph = exported[0] / "onnx" / "model.onnx"
    monkeypatch.setattr(module, "write_onnx", lambda folder, classifier, file: shutil.copy(graph, file))
    return folder


def test_eight_bits_that_change_answers_are_refused_and_not_left(again, monkeypatch):
    real = module.agree

    def agree_but_for_two(expected, found, several):
        return replace(real(expected, found, several), n=100, changed=2)

    monkeypatch.setattr(module, "agree", agree_but_for_two)
    with pytest.raises(CommandError, match="100 条里 2 条的答案"):
        export(again, int8=True)
    assert [file.name for file in (again / "onnx").iterdir()] == ["model.onnx"]
    assert export(again, int8=True, allow_changes=True).agreement["int8"].changed == 2


def test_a_graph_that_answers_otherwise_is_refused_and_not_left(again, monkeypatch):
    other = write_classifier(again.parent / "other", ("甲", "乙", "丙"), scale=-1.0)
    shutil.copy(other / "model.safetensors", again / "model.safetensors")
    with pytest.raises(CommandError, match="继续用 PyTorch"):
        export(again)
    assert list((again / "onnx").iterdir()) == []


def test_answers_are_compared_by_label_or_by_every_label():
    a = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    b = np.array([[0.8, 0.2], [0.6, 0.4], [0.6, 0.8]])
    assert agree(a, b, several=False) == Agreement(3, 1, pytest.approx(0.4))
    assert agree(a, b, several=True).changed == 2


def test_the_texts_to_check_on_are_the_rows_not_trained_on_as_they_were(tmp_path):
    folder = write_classifier(tmp_path / "m")
    assert held_out_texts(folder) == list(TEXTS)
    with pytest.raises(CommandError, match="没有文字可供核对"):
        export(folder, texts=[])
    (folder / "predictions.csv").unlink()
    with pytest.raises(CommandError, match="--data"):
        export(folder)


def test_without_the_packages_one_line_says_how_to_get_them(tmp_path, monkeypatch):
    folder = write_classifier(tmp_path / "m")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(CommandError, match=r"pip install -c constraints\.txt onnx onnxruntime onnxscript"):
        export(folder)
