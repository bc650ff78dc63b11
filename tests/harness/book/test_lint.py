"""The form of committed notebooks."""

from __future__ import annotations

import json

import pytest
from test_notebook import BROKEN

from harness.book.lint import fix, lint, lint_glossary, normal_form
from harness.cli.app import main
from harness.errors import ExitCode, HarnessError


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
    (message,) = messages(path)
    assert message == (
        "not in the form that is committed: outputs and execution counts of 1 cell(s) go;"
        " the notebook's metadata become those of any kernel of its language"
    )
    assert fix(path)
    assert messages(path) == []
    assert not fix(path)
    assert json.loads(path.read_text(encoding="utf-8"))["cells"][1]["source"] == ["1 + 1"]


def test_what_the_normal_form_changes_is_said_with_the_command_that_writes_it(tmp_path, capsys):
    path = tmp_path / "my book" / "a.ipynb"
    path.parent.mkdir()
    plain = json.loads(normal_form({"cells": [cell(metadata={"tags": ["x"]})]}))
    plain["cells"][0]["metadata"] |= {"collapsed": True}
    path.write_text(json.dumps(plain), encoding="utf-8")
    assert main(["lint", str(path)]) == ExitCode.USAGE
    first, last = capsys.readouterr().out.splitlines()
    assert first == f"{path}: cell -: not in the form that is committed: cell metadata but tags go: collapsed"
    assert last == f"`harness lint --fix '{path}'` writes that form; the text of the cells stays as it is"
    del plain["cells"][0]["metadata"]["collapsed"]
    path.write_text(json.dumps(plain), encoding="utf-8")
    assert messages(path) == [
        "not in the form that is committed: only the order of keys, the indent or line ends"
    ]
    assert main(["lint", "--fix", str(path)]) == ExitCode.OK
    assert capsys.readouterr().out == f"{path}: rewritten\n"


def test_what_cannot_be_fixed_names_no_command(notebook, capsys):
    assert main(["lint", str(notebook(cell(source="准确率是 85.3%")))]) == ExitCode.USAGE
    assert "--fix" not in capsys.readouterr().out


def test_the_normal_form_keeps_attached_pictures_and_another_language(tmp_path):
    picture = {"a.png": {"image/png": "aGk="}}
    spec = {"name": "ir", "display_name": "R", "language": "R", "env": {}}
    written = {
        "nbformat": 4,
        "metadata": {"kernelspec": spec, "language_info": {"name": "R", "version": "4"}},
        "cells": [cell(source="![a](attachment:a.png)", attachments=picture), cell("code", "x <- 1")],
    }
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(written), encoding="utf-8")
    assert fix(path)
    fixed = json.loads(path.read_text(encoding="utf-8"))
    assert fixed["cells"][0]["attachments"] == picture
    assert fixed["metadata"]["kernelspec"] == {"name": "ir", "display_name": "R", "language": "R"}
    assert fixed["metadata"]["language_info"] == {"name": "R"} and not fix(path)


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


QUIZ = """\
**1.** 为什么？

- A. 甲
- B. 乙

<details><summary>答案与解析</summary>

- A ✗ 不是甲
- B ✓ 是乙

</details>"""


def question(source, **tags):
    return cell(source=source, metadata={"tags": ["quiz"]})


def test_quizzes_that_may_stand(notebook):
    assert messages(notebook(question(QUIZ), question(QUIZ.replace("**1.**", "**2.**")))) == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("B ✓", "B ✗", "line 6: no right answer; exactly one carries ✓"),
        ("A ✗", "A ✓", "line 6: 2 right answers (A, B); exactly one carries ✓"),
        ("- A ✗ 不是甲\n", "", "line 3: option A has no explanation"),
        ("- A ✗ 不是甲", "- A ✗ ", "line 3: option A has no explanation"),
        ("- B. 乙", "- C. 乙", "line 1: options must be `- A. …`, `- B. …` and so on, not A, C"),
        ("- B. 乙\n", "", "line 8: B explains no option"),
        ("**1.**", "**2.**", "line 1: question 2 where 1 comes next"),
        ("**1.**", "1.", "line 1: a quiz without the question, `**1.** …`"),
        ("</details>", "", "line 1: a quiz without the answers in `<details>…</details>`"),
    ],
)
def test_a_quiz_that_nobody_could_answer_is_found(notebook, old, new, told):
    assert told in messages(notebook(question(QUIZ.replace(old, new))))


NUMBERED = """\
**图 5.1**　一张。

**表 5.1**　一张表，见图 5.1。

$$a \\tag{5.1}$$

见式 (5.1)、表 5.1 和 `图 5.9`。"""


@pytest.fixture
def chapter(tmp_path):
    def write(**notebooks):
        for name, source in notebooks.items():
            path = tmp_path / f"{name.replace('_', '-').removeprefix('n')}.ipynb"
            cells = [PARAMETERS, cell(source=source)]
            path.write_text(normal_form({"cells": cells}), encoding="utf-8")
        return path

    return write


def test_numbers_that_may_stand(chapter):
    second = "**图 5.2**　又一张。见图 5.1、图 6.1。"
    path = chapter(n05_1_a=NUMBERED, n05_2_b=second, n06_c="**图 6.1**　下一章的。")
    for name in ("05-1-a", "05-2-b", "06-c"):
        assert messages(path.with_name(f"{name}.ipynb")) == []


def test_numbers_run_in_the_order_of_the_table_of_contents(chapter, tmp_path):
    path = chapter(n05_1_a=NUMBERED, n05_2_text="**图 5.2**　先读。", n05_2_2_more="**图 5.3**　后读。")
    folder = tmp_path / "chapters"
    folder.mkdir()
    for one in path.parent.glob("*.ipynb"):
        one.rename(folder / one.name)
    pages = "".join(f"- file: chapters/{name}\n" for name in ("05-2-text", "05-2-2-more"))
    toc = tmp_path / "_toc.yml"
    toc.write_text(f"format: jb-book\nroot: chapters/05-1-a\nchapters:\n{pages}", encoding="utf-8")
    assert [messages(one) for one in sorted(folder.glob("*.ipynb"))] == [[], [], []]
    toc.unlink()  # then by name, where 05-2-2 comes before 05-2-t
    assert any("where 5.2 comes next" in told for told in messages(folder / "05-2-2-more.ipynb"))


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("\n\n见图 5.9。", "line 3: 图 5.9 is nowhere; mend the number or add it"),
        ("见式（5.2）。", "line 1: 式 (5.2) is nowhere; mend the number or add it"),
        ("表 5.2 里有。", "line 1: 表 5.2 is nowhere; mend the number or add it"),
        ("**图 5.1**　又是一。", "line 1: 图 5.1 is given twice, first in 05-1-a.ipynb, cell "),
        ("**图 5.3**　跳了。", "line 1: 图 5.3 where 5.2 comes next"),
        ("**图 5.3**　倒了。\n\n**图 5.2**　倒了。", "line 1: 图 5.3 where 5.2 comes next"),
        ("**表 4.1**　错了。", "line 1: 表 4.1 in chapter 5"),
        ("$$x \\tag{5.3}$$", "line 1: 式 (5.3) where 5.2 comes next"),
    ],
)
def test_numbers_that_lead_nowhere_or_astray_are_found(chapter, source, told):
    assert any(message.startswith(told) for message in messages(chapter(n05_1_a=NUMBERED, n05_2_b=source)))


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("![](a.svg)", "line 1: a.svg has no alternative text: say in a sentence what it shows"),
        ("文字\n\n![一张图](figures/no.svg)", "line 3: figures/no.svg does not exist"),
        ("> **常见误解** 原文说大。", "line 1: a 常见误解 that names the article; it must stand without it"),
        ("> **常见误解** 有人说大。\n>\n> 原文也说。", "line 3: a 常见误解 that names the article"),
        ("> **勘误** 应为小。", "line 1: 勘误 boxes stand on the page 勘误"),
    ],
)
def test_pictures_and_call_outs_that_fail_the_reader_are_found(notebook, source, told):
    path = notebook(cell(source=source))
    (path.parent / "a.svg").touch()
    (message,) = messages(path)
    assert message.startswith(told)


def test_pictures_and_call_outs_that_may_stand(notebook):
    path = notebook(
        cell(source="> **常见误解** 有人说大。\n\n![画](a.svg) ![远处的](https://example.org/b.svg)")
    )
    (path.parent / "a.svg").touch()
    assert messages(path) == []


def test_a_finding_names_file_cell_and_line(notebook):
    path = notebook(cell(id="here", source="文字\n\n![一张图](no.svg)"))
    assert [str(finding) for finding in lint(path)] == [f"{path}: cell here: line 3: no.svg does not exist"]


def test_a_name_that_two_terms_claim_is_found(tmp_path):
    path = tmp_path / "glossary.md"
    assert lint_glossary(path) == []
    path.write_text(
        "# 术语表\n\n:::{glossary}\n早停（early stopping）\n  停下。同义：提前停止。\n\n"
        "停车（parking）\n  停下。同义：Early Stopping。\n:::\n",
        encoding="utf-8",
    )
    (finding,) = lint_glossary(path)
    assert str(finding).startswith(f"{path}: line 8: 'Early Stopping' is claimed by 早停 and by 停车")
