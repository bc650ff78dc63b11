"""From a request to jobs: seeds, parameters and what cannot run."""

from __future__ import annotations

import json

import pytest
from notebooks import write_book, write_notebook

from harness.book.config import load_book
from harness.book.plan import Request, parse_seeds, plan
from harness.errors import HarnessError


@pytest.fixture
def book(tmp_path):
    root = tmp_path / "book"
    write_notebook(
        root / "chapters" / "01-a.ipynb", "1", parameters="seed = 7\nprofile = ''\ndevice = 'auto'\nn = 1"
    )
    write_notebook(root / "chapters" / "02-b.ipynb", "1")
    return load_book(write_book(root, {}, parameters={"01-a": {"smoke": {"n": 5}}}))


def test_chapters_times_seeds(book):
    planned = plan(book, book.chapters, Request("smoke", seeds=(0, 3), device="cpu", cell_timeout=9))
    assert [p.job.id for p in planned] == ["01-a-smoke-seed0", "01-a-smoke-seed3", "02-b-smoke"]
    assert not planned[2].problem  # a chapter without a seed runs once beside others
    assert "no parameter 'seed'" in plan(book, book.chapters[1:], Request(seeds=(0,)))[0].problem
    other = write_notebook(book.root / "draft.ipynb", "1")
    assert "no parameter 'seed'" in plan(book, [*book.chapters, other], Request(seeds=(0,)))[2].problem
    assert planned[1].job.parameters == {"n": 5, "profile": "smoke", "device": "cpu", "seed": 3}
    assert planned[1].job.seed == 3 and planned[2].job.seed is None
    assert planned[0].job.limits.cell == 9 and planned[0].job.limits.notebook == 60
    assert planned[0].job.chapter == "01-a"


def test_default_profile_and_the_notebooks_own_seed(book):
    job = plan(book, book.select(["01"]), Request())[0].job
    assert (job.profile, job.seed, job.id) == ("offline", 7, "01-a-offline-seed7")
    assert job.parameters == {"profile": "offline", "device": "auto"}


def test_param_wins_and_sets_the_seed(book):
    job = plan(book, book.select(["01"]), Request("smoke", texts={"n": "9", "seed": "2"}))[0].job
    assert job.parameters["n"] == 9 and job.seed == 2
    with pytest.raises(HarnessError, match="contradict"):
        plan(book, book.chapters, Request(seeds=(1,), texts={"seed": "2"}))


def test_what_cannot_run_is_planned_with_its_problem(book, tmp_path):
    broken = tmp_path / "broken.ipynb"
    broken.write_text("{")
    other = tmp_path / "text.ipynb"
    other.write_text('{"a": 1}')
    old = tmp_path / "old.ipynb"
    old.write_text('{"nbformat": 3, "worksheets": []}')
    binary = tmp_path / "binary.ipynb"
    binary.write_bytes(b"\xff\xfe\x00")
    folder = tmp_path / "folder.ipynb"
    folder.mkdir()
    paths = [broken, other, old, binary, folder, tmp_path / "none.ipynb", book.chapters[1]]
    problems = [p.problem for p in plan(book, paths, Request(texts={"n": "1"}))]
    expected = [
        "broken JSON in line 1",
        "no nbformat",
        "format 3",
        "not UTF-8",
        "cannot read",
        "not found",
        "no cell tagged",
    ]
    for problem, part in zip(problems, expected, strict=True):
        assert part in problem and ".ipynb" in problem and "\n" not in problem


def test_notebooks_outside_a_book_need_none(tmp_path):
    a = write_notebook(tmp_path / "甲" / "笔记 {x}.ipynb", "1", kernel=None)
    b = write_notebook(tmp_path / "乙" / "笔记 {x}.ipynb", "1", parameters="a = b = 3")
    planned = plan(None, [a, b, a], Request())
    assert [p.job.id for p in planned] == ["笔记_x-offline", "笔记_x-offline-2"]
    assert all(p.job.chapter is None and not p.problem and p.job.limits.cell for p in planned)


def test_seeds():
    assert parse_seeds("5") == (0, 1, 2, 3, 4)
    assert parse_seeds("3,") == (3,)
    assert parse_seeds(" 0, 7 ") == (0, 7)
    assert parse_seeds(None) is None
    assert len(parse_seeds("1000") or ()) == 1000
    for text in ("1001", "99999999999999"):
        with pytest.raises(HarnessError, match="at most 1000 seeds"):
            parse_seeds(text)
    for text in ("0", "-1", "a", "1,1", ",", "1,-2", ""):
        with pytest.raises(HarnessError, match="--seeds"):
            parse_seeds(text)


def test_unknown_device(book):
    with pytest.raises(HarnessError, match="unknown device 'tpu'"):
        plan(book, book.chapters, Request(device="tpu"))


def in_language(path, language, *sources, parameters=None, tags=None):
    write_notebook(path, *sources, parameters=parameters, tags=tags)
    document = json.loads(path.read_text(encoding="utf-8"))
    document["metadata"]["kernelspec"] = {"name": language, "display_name": language, "language": language}
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_a_rerun_keeps_what_the_earlier_run_set(tmp_path):
    path = write_notebook(
        tmp_path / "out.ipynb", "seed = 0\nlr = 0.1\nprofile = ''", "# old\nseed = 3\nprofile = 'smoke'\nextra = 1",
        tags={0: ["parameters"], 1: ["injected-parameters"]},
    )  # fmt: skip
    (again,) = plan(None, [path], Request())
    assert (again.job.seed, again.job.id) == (3, "out-offline-seed3")
    assert again.job.parameters == {"seed": 3, "profile": "offline", "extra": 1}
    (changed,) = plan(None, [path], Request(texts={"lr": "0.5"}))
    assert changed.job.parameters == {"seed": 3, "profile": "offline", "extra": 1, "lr": 0.5}
    assert [p.job.seed for p in plan(None, [path], Request(seeds=(5, 6)))] == [5, 6]


def test_parameters_of_a_notebook_in_another_language(tmp_path):
    path = in_language(tmp_path / "b.ipynb", "bash", "echo $name", parameters="name=x\nseed=4\ndevice=cpu")
    (entry,) = plan(None, [path], Request(texts={"name": "y"}, device="cuda"))
    assert (entry.problem, entry.job.seed) == ("", 4)
    assert entry.job.parameters == {"device": "cuda", "name": "y"}
    assert [p.job.seed for p in plan(None, [path], Request(seeds=(1, 2)))] == [1, 2]


@pytest.mark.parametrize(
    ("language", "parameters", "words"),
    [
        ("bash", None, "has no cell tagged parameters, so name cannot be set"),
        ("bash", "other=1", "has no parameter 'name'; its parameters: other"),
        (
            "haskell",
            "name = 1",
            "is in haskell, not Python, and papermill sets no parameters in that language",
        ),
        ("haskell", None, "is in haskell, not Python"),
    ],
)
def test_what_cannot_be_set_in_another_language_is_told_by_its_own_reason(
    tmp_path, language, parameters, words
):
    path = in_language(tmp_path / "b.ipynb", language, "1", parameters=parameters)
    assert words in plan(None, [path], Request(texts={"name": "y"}))[0].problem
    assert plan(None, [path], Request())[0].problem == ""
    assert plan(None, [path], Request(device="cpu"))[0].job.parameters == {}


@pytest.mark.parametrize(
    ("config", "source", "language"),
    [
        (None, "x = 1  # 一", "zh"),
        (None, "x = 1  # one", "en"),
        ("sphinx: {config: {language: zh_CN}}", "x = 1", "zh"),
        ("sphinx: {config: {language: en}}", "x = 1  # 一", "en"),
        ("sphinx: [", "x = 1", "en"),
        ("title: t", "x = 1  # 一", "zh"),
    ],
)
def test_the_books_language_decides_or_the_notebooks_own(tmp_path, config, source, language):
    path = write_notebook(tmp_path / "chapters" / "01-a.ipynb", source)
    if config:
        (tmp_path / "_config.yml").write_text(config, encoding="utf-8")
    book = load_book(write_book(tmp_path, {}))
    assert plan(book, book.chapters, Request())[0].job.language == language
    assert plan(None, [path], Request())[0].job.language == ("zh" if "一" in source else "en")
