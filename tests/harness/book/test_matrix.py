"""Tasks × models: the file, its jobs, and the page that they fill."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from notebooks import write_book, write_notebook

from harness.archive.shard import take_shard
from harness.book.config import Book, load_book
from harness.book.matrix import read_matrix
from harness.book.plan import Request, plan_matrix
from harness.cli.app import main
from harness.errors import ExitCode, HarnessError
from harness.execute.resume import Asked, asked_from_json
from harness.model import to_json
from harness.site import matrix_page

FILE = {
    "profile": "full",
    "models": ["org/small", "org/large"],
    "tasks": [
        {
            "name": "读数",
            "chapter": "01-a",
            "takes": "model_name",
            "parameters": {"n": 5},
            "protocol": "三轮。",
            "scores": [
                {
                    "metric": "accuracy",
                    "title": "准确率",
                    "margin": 0.01,
                    "published": {"org/small": {"value": 0.9, "citation": "[论文](https://example.org)"}},
                }
            ],
        },
        {
            "name": "写字",
            "chapter": "02-b",
            "takes": "writer",
            "without": {"org/small": "太小"},
            "scores": [{"metric": "bleu", "title": "BLEU", "margin": 0.01}],
        },
    ],
}
CODE = """from harness.record import record
record("accuracy", 0.9 + 0.001 * seed + (0.05 if model_name == "org/large" else 0), unit="fraction");"""


@pytest.fixture
def book(tmp_path: Path) -> Book:
    root = tmp_path / "book"
    declared = "seed = 0\nprofile = ''\nmodel_name = 'tiny'\nn = 1\nwidth = 2"
    write_notebook(root / "chapters" / "01-a.ipynb", CODE, parameters=declared)
    write_notebook(root / "chapters" / "02-b.ipynb", "1", parameters="writer = 'tiny'")
    full = {"full": {"cell_timeout": 30, "notebook_timeout": 60}, "smoke": {}}
    return load_book(write_book(root, {}, profiles=full, parameters={"01-a": {"full": {"width": 8}}}))


def write(book: Book, data: object = FILE) -> Path:
    path = book.chapters_dir / "matrix.yml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    return path


def test_a_cell_is_a_job_of_its_chapter_with_the_values_on_top(book: Book):
    planned = plan_matrix(
        book, read_matrix(write(book), book), book.chapters, Request(seeds=(0, 1), texts={"width": "9"})
    )
    assert [entry.job.id for entry in planned][:3] == [
        "01-a-full-读数-small-seed0",
        "01-a-full-读数-small-seed1",
        "01-a-full-读数-large-seed0",
    ]
    job = planned[2].job
    assert job.parameters == {"width": 9, "n": 5, "model_name": "org/large", "profile": "full", "seed": 0}
    assert (job.profile, job.chapter) == ("full", "01-a")


def test_chapters_narrow_the_matrix_and_shards_share_it(book: Book):
    matrix = read_matrix(write(book), book)
    assert [e.job.chapter for e in plan_matrix(book, matrix, book.select(["02"]), Request())] == ["02-b"]
    planned = plan_matrix(book, matrix, book.chapters, Request(seeds=(0, 1)))
    parts = [take_shard(planned, i, 2)[1] for i in (1, 2)]
    assert sorted(e.job.id for part in parts for e in part) == sorted(e.job.id for e in planned)


def test_a_parameter_that_the_chapter_lacks_is_told(book: Book):
    data = yaml.safe_load(yaml.safe_dump(FILE))
    data["tasks"][0]["parameters"] = {"nn": 5}
    planned = plan_matrix(book, read_matrix(write(book, data), book), book.chapters, Request())
    assert "no parameter 'nn'" in planned[0].problem


def test_another_profile_is_refused(book: Book):
    with pytest.raises(HarnessError, match="take --profile out"):
        plan_matrix(book, read_matrix(write(book), book), book.chapters, Request("smoke"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"profile": "fast"}, "unknown profile 'fast'"),
        ({"models": []}, "models must be a list of names"),
        ({"tasks": [{"name": "a"}]}, r"tasks 1 \(a\) lacks 'chapter'; add it"),
        ({"speed": 1}, "unknown key 'speed'"),
        ({"tasks": [FILE["tasks"][1] | {"chapter": "09-z"}]}, "there is no '09-z'; there are 01-a, 02-b"),
        ({"tasks": [FILE["tasks"][1] | {"models": ["org/none"]}]}, "there is no 'org/none'"),
        ({"tasks": [FILE["tasks"][1] | {"without": {"org/none": "…"}}]}, "unknown key 'org/none'"),
        (
            {"tasks": [FILE["tasks"][1] | {"scores": [{"metric": "m", "title": "t", "margin": "x"}]}]},
            r"scores 1 \(m\): margin must be a number, not 'x'",
        ),
    ],
)
def test_a_wrong_file_is_one_clear_line(book: Book, change: dict, message: str):
    with pytest.raises(HarnessError, match=message) as error:
        read_matrix(write(book, FILE | change), book)
    assert "\n" not in str(error.value)


def test_what_was_asked_is_kept_for_resume(book: Book):
    asked = Asked(None, ("01",), Request(seeds=(0,)), matrix=write(book))
    again = asked_from_json(json.loads(json.dumps(to_json(asked))))
    assert again == asked
    assert [entry.job.id for entry in again.plan(book)] == [
        "01-a-full-读数-small-seed0",
        "01-a-full-读数-large-seed0",
    ]


@pytest.mark.slow
def test_the_page_says_unverified_until_a_run_measured_that_very_cell(book: Book, monkeypatch):
    path = write(book)
    page, text = book.chapters_dir / "page.md", "前\n\n<!-- harness:matrix matrix.yml -->\n"
    before = matrix_page.fill(text, page, book)
    assert before.count("*未验证*") == 3
    assert "| `org/small` | | 不适用：太小 | | | |" in before
    assert "90.0%" in before and "[论文](https://example.org)" in before and "没有查到" in before

    monkeypatch.chdir(book.root)
    for options in (["--param", "n=1"], []):  # the first is smaller than the cell, and fills nothing
        command = ["run", "--matrix", str(path), "--chapters", "01", "--seeds", "3", "--quiet", *options]
        assert main(command) == ExitCode.OK  # the metric has no claim in this book
        after = matrix_page.fill(text, page, book)
        if options:
            assert after == before
    cells = re.search(r"\| `org/small` \|(.*)\|(.*)\|(.*)\|(.*)\|(.*)\|", after)
    assert "90.1%（3 次" in cells[3] and cells[4].strip() == "+0.1" and cells[5].strip()
    assert "95.1%（3 次" in after and after.count("*未验证*") == 1


def test_matrix_and_notebooks_exclude_each_other(book: Book, monkeypatch):
    monkeypatch.chdir(book.root)
    assert main(["run", "chapters/01-a.ipynb", "--matrix", str(write(book))]) == ExitCode.USAGE
