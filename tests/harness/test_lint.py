"""The form of committed notebooks."""

from __future__ import annotations

import json

import pytest
from test_notebook import BROKEN

from harness.errors import HarnessError
from harness.lint import fix, lint, normal_form


def cell(kind="markdown", source="文字", **more):
    plain = {"cell_type": kind, "id": f"c{abs(hash(source)) % 10**6}", "metadata": {}, "source": source}
    return {**plain, **({"outputs": [], "execution_count": None} if kind == "code" else {}), **more}


PARAMETERS = cell("code", "seed: int = 0", metadata={"tags": ["parameters"]})


@pytest.fixture
def notebook(tmp_path):
    def write(*cells):
        path = tmp_path / "a.ipynb"
        path.write_text(normal_form({"cells": [PARAMETERS, *cells]}), encoding="utf-8")
        return path

    return write


def messages(path):
    return [finding.message for finding in lint(path)]


@pytest.mark.parametrize(
    "prose",
    [
        "没有数字",
        "BERT 的 94.7%（[Cui 等](https://example.org)）",
        "学习率 2e-5，批大小 32，2 到 4 轮",
        "均匀乱猜时 $\\ell\\approx 0.693$",
        "`0.85` 是代码",
        "```python\nx = 0.85  # 85%\n```",
        "第 5.2 节，95% 区间（Efron 与 Tibshirani 1993）",
    ],
)
def test_prose_that_may_stand(notebook, prose):
    assert messages(notebook(cell(source=prose))) == []


@pytest.mark.parametrize(
    "prose",
    ["准确率是 85.3%", "准确率升到 0.853", "快了 4.2 倍", "约 40 秒", "提高 3 个百分点", "峰值 2.1 GB"],
)
def test_a_measured_number_in_prose_is_found(notebook, prose):
    (message,) = messages(notebook(cell(source=prose)))
    assert "looks measured" in message


@pytest.mark.parametrize("prose", ["```{note}\n```", ":::{tip}\n:::", "见 {ref}`x`", "{cite:t}`x`"])
def test_myst_is_found(notebook, prose):
    (message,) = messages(notebook(cell(source=prose)))
    assert "does not read in Colab" in message


def test_a_wide_line_counts_chinese_twice(notebook):
    assert messages(notebook(cell("code", "x = '" + "字" * 41 + "'"))) == []
    (message,) = messages(notebook(cell("code", "x = '" + "字" * 42 + "'")))
    assert message == "line 1 is 90 columns wide, more than 88"


def test_outputs_are_found_and_removed(tmp_path):
    path = tmp_path / "a.ipynb"
    ran = cell("code", "1 + 1", execution_count=3, outputs=[{"output_type": "stream", "text": "x"}])
    path.write_text(json.dumps({"nbformat": 4, "cells": [PARAMETERS, ran]}), encoding="utf-8")
    assert any("carries outputs" in message for message in messages(path))
    assert fix(path)
    assert messages(path) == []
    assert not fix(path)
    assert json.loads(path.read_text(encoding="utf-8"))["cells"][1]["source"] == ["1 + 1"]


def test_ids_and_the_parameters_cell(tmp_path):
    path = tmp_path / "a.ipynb"
    path.write_text(normal_form({"cells": [cell(id="same"), cell(id="same")]}), encoding="utf-8")
    found = messages(path)
    assert not any("tagged parameters" in message for message in found)  # none is needed
    assert found.count("no id, or one that is not unique") == 2
    twice = {"cells": [{**PARAMETERS, "id": name} for name in ("a", "b")]}
    path.write_text(normal_form(twice), encoding="utf-8")
    assert messages(path) == ["2 cells are tagged parameters; at most one may be"]


@pytest.mark.parametrize("text", BROKEN)
@pytest.mark.parametrize("act", [lint, fix])
def test_what_is_no_notebook_is_said_and_left_alone(tmp_path, text, act):
    path = tmp_path / "a.ipynb"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(HarnessError, match=r"a\.ipynb") as caught:
        act(path)
    assert "\n" not in str(caught.value) and "Errno" not in str(caught.value)
    assert str(caught.value).count("a.ipynb") == 1
    assert path.read_text(encoding="utf-8") == text


def test_a_file_that_is_not_there_is_one_clean_line(tmp_path):
    with pytest.raises(HarnessError) as caught:
        lint(tmp_path / "a.ipynb")
    assert str(caught.value) == f"notebook not found: {tmp_path / 'a.ipynb'}; check the path"


def test_a_link_is_followed(tmp_path, notebook):
    real = notebook().rename(tmp_path / "real.ipynb")
    real.write_text(real.read_text(encoding="utf-8") + " ", encoding="utf-8")
    link = tmp_path / "link.ipynb"
    link.symlink_to(real)
    assert fix(link) and link.is_symlink() and messages(real) == []
