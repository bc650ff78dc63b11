"""What GitHub Actions is told: the right file, the right line of the file, nothing that breaks its syntax."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from notebooks import RECORD, write_book, write_notebook

from harness.archive.folder import find_run
from harness.archive.recorded import read_result
from harness.book.config import load_book
from harness.cli.app import main
from harness.errors import ExitCode
from harness.files import read_json, write_json
from harness.model import CellResult, CellState, JobResult, JobState, Outcome, Verdict, to_json
from harness.report.annotations import (
    SUMMARY_LIMIT,
    Annotation,
    annotations,
    append_summary,
    claim_lines,
    source_line,
)

COMMAND = re.compile(r"::(error|warning) file=([^,]*),line=(\d+),title=([^:,\r\n]*)::([^\r\n]*)")
BROKEN = JobResult(
    "01-a-offline-seed0", "chapters/01-a.ipynb", "01-a", "offline", 0, JobState.FAILED, reason="it raised",
    cells=(CellResult(1, "broken", CellState.FAILED, 1.0, "ValueError: 100%, a:b", 2),),
)  # fmt: skip
FAILED = Verdict("01-a", "acc", "准确率", "offline", Outcome.FAIL, "bounds", (0.9,), message="0.9 is outside")
CLAIMS = """\
chapter: 01-a
claims:
  - title: 别的
    name: other
    direction: none
    margin: 0
  - {name: acc, title: 准确率, direction: higher, margin: 0.01, offline: {bounds: {low: 0.4, high: 0.6}}}
"""


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book whose chapter has three cells, and a claim file."""
    root = write_book(tmp_path / "我的 书", {})
    path = write_notebook(
        root / "chapters" / "01-a.ipynb", "a = 1", "b = 2\nraise ValueError(b)\nc = 3", "d = 4"
    )
    notebook = json.loads(path.read_text(encoding="utf-8"))
    notebook["cells"][1]["id"] = "broken"
    path.write_text(json.dumps(notebook, ensure_ascii=False, indent=1), encoding="utf-8")
    (root / "chapters" / "claims").mkdir()
    (root / "chapters" / "claims" / "01-a.yml").write_text(CLAIMS, encoding="utf-8")
    monkeypatch.chdir(root)
    for name in ("GITHUB_ACTIONS", "GITHUB_WORKSPACE", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    return load_book(root)


def run_of(book, jobs=(), verdicts=()) -> Path:
    """A run folder with this outcome."""
    run_dir = book.root / "_build" / "runs" / "r1"
    run_dir.mkdir(parents=True, exist_ok=True)
    document = {"run": "r1", "profile": "offline", "started": "", "seconds": 1.0, "exit_code": 2,
                "jobs": to_json(list(jobs)), "verdicts": to_json(list(verdicts))}  # fmt: skip
    write_json(run_dir / "result.json", document)
    return run_dir


def told(book, jobs=(), verdicts=()) -> list[Annotation]:
    return annotations(read_result(run_of(book, jobs, verdicts)), book)


def text_at(annotation: Annotation) -> str:
    return annotation.file.read_text(encoding="utf-8").splitlines()[annotation.line - 1]


# -- places -----------------------------------------------------------------------------------------


def test_a_failed_cell_is_shown_at_its_line_of_the_file(book):
    (one,) = told(book, [BROKEN])
    assert text_at(one) == '    "raise ValueError(b)\\n",'
    assert one.level == "error" and one.message == "cell 2 (id broken), line 2: ValueError: 100%, a:b"
    assert one.title == "01-a-offline-seed0: failed"


def test_a_cell_that_does_not_know_its_line_is_shown_at_its_first(book):
    cell = replace(BROKEN.cells[0], line=None)
    (one,) = told(book, [replace(BROKEN, state=JobState.TIMED_OUT, cells=(cell,))])
    assert text_at(one) == '    "b = 2\\n",' and "timed out" in one.title


def test_a_job_without_a_failed_cell_is_shown_at_the_top_with_its_reason(book):
    (one,) = told(book, [replace(BROKEN, state=JobState.INVALID, cells=(), reason="no kernel")])
    assert (one.line, one.message) == (1, "no kernel")
    gone = replace(BROKEN, notebook="chapters/gone.ipynb")
    assert told(book, [gone])[0].line == 1


def test_claims_are_shown_in_their_file_and_metrics_without_a_claim_at_its_top(book):
    missing = replace(FAILED, claim="other", outcome=Outcome.MISSING)
    doubt, new = (
        replace(FAILED, outcome=Outcome.INCONCLUSIVE),
        replace(FAILED, claim="new", outcome=Outcome.UNEXPECTED),
    )
    good = replace(FAILED, outcome=Outcome.PASS)
    found = told(book, [], [good, doubt, FAILED, new, missing])
    assert [(one.level, one.line, one.file.name) for one in found] == [
        ("error", 7, "01-a.yml"), ("error", 4, "01-a.yml"), ("warning", 7, "01-a.yml"), ("warning", 1, "01-a.yml"),
    ]  # fmt: skip
    assert text_at(found[1]).strip() == "name: other"
    unclaimed = replace(new, chapter="02-b")
    assert told(book, [], [unclaimed])[0].file == book.root / "chapters" / "02-b.ipynb"


def test_seeds_that_break_alike_are_told_once(book):
    seeds = [replace(BROKEN, id=f"01-a-offline-seed{i}", seed=i) for i in range(3)]
    (one,) = told(book, seeds)
    assert one.title == "01-a-offline-seed0: failed (and 2 more)"
    assert len(told(book, [*seeds, replace(seeds[0], cells=())])) == 2


def cells(*sources, **layout) -> str:
    made = [
        {"cell_type": "code", "id": f"c{i}", "source": s, "metadata": {"a": [1]}}
        for i, s in enumerate(sources)
    ]
    return json.dumps({"metadata": {"cells": [], "x": '\\"{['}, "cells": made}, **layout)


@pytest.mark.parametrize("layout", [{"indent": 1}, {"indent": 4, "sort_keys": True}, {"indent": "\t"}])
def test_every_source_line_is_found_in_any_layout(layout):
    sources = (["a\n", 'b "[{\n', "é\\"], [], ["x"], ["\n", "last\n", "end"])
    text = cells(*sources, **layout)
    for index, source in enumerate(sources):
        for line, content in enumerate(source, 1):
            place = source_line(text, index, f"c{index}", line)
            assert json.loads(text.splitlines()[place - 1].strip().rstrip(",")) == content


def test_the_id_finds_a_cell_that_has_moved_and_the_place_one_without_id():
    text = cells(["new"], ["old"], indent=1)
    assert "old" in text.splitlines()[source_line(text, 0, "c1", 1) - 1]
    assert "old" in text.splitlines()[source_line(text, 1, "1", 1) - 1]


def test_a_source_in_one_string_is_one_line_of_the_file():
    text = cells("a\nb\nc", indent=1)
    assert '"a\\nb\\nc"' in text.splitlines()[source_line(text, 0, "c0", 3) - 1]
    assert source_line(cells(["a\n", "b"]), 0, "c0", 2) == 1
    two = cells(["a\nb\n", "c"], indent=1).splitlines()
    assert '"c"' in two[source_line("\n".join(two), 0, "c0", 3) - 1]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"cells": 3}', '{"cells": [3]}', '{"cells": [{}]}', '{"cells": [{"source": ["',
             '{"cells": [{"source": 3}]}', '{"cells": [' + "[" * 100_000, '{"other": []}',
             '{"cells": [{"source": [3]}]}']
)  # fmt: skip
def test_what_is_no_notebook_has_line_one(text):
    assert source_line("\n" + text, 0, "a", 2) == 1


@pytest.mark.parametrize("text", ["[", "claims: 3", "claims: [3]", "- a", "chapter: a", ""])
def test_a_broken_claim_file_has_no_lines(tmp_path, text):
    (tmp_path / "a.yml").write_text(text, encoding="utf-8")
    assert claim_lines(tmp_path / "a.yml") == {} == claim_lines(tmp_path / "none.yml")


# -- syntax -----------------------------------------------------------------------------------------


def test_nothing_in_a_message_can_end_or_fake_a_command(tmp_path):
    nasty = "a,b:c%0A\r\n::error::x\x1b[31m\x00"
    one = Annotation("error", tmp_path / "a,b:c%.ipynb", 3, nasty, nasty)
    level, file, line, title, message = COMMAND.fullmatch(one.command(tmp_path)).groups()
    assert (level, line, file) == ("error", "3", "a%2Cb%3Ac%25.ipynb")
    assert title == "a%2Cb%3Ac%250A %3A%3Aerror%3A%3Ax" and message == "a,b:c%250A ::error::x"


def test_files_are_named_from_the_workspace(tmp_path):
    one = Annotation("error", tmp_path / "book" / "a.ipynb", 1, "t", "m")
    assert "file=book/a.ipynb," in one.command(tmp_path)
    assert f"file={tmp_path.as_posix()}/book/a.ipynb," in one.command(tmp_path / "elsewhere")


# -- the summary ------------------------------------------------------------------------------------


def test_the_summary_grows_by_the_report(tmp_path):
    report, summary = tmp_path / "report.md", tmp_path / "summary"
    report.write_text("# 运行\n", encoding="utf-8")
    assert append_summary(summary, report) == append_summary(summary, report) == ""
    assert summary.read_text(encoding="utf-8") == "# 运行\n\n# 运行\n"


@pytest.mark.parametrize("taken", [0, 1000, SUMMARY_LIMIT - 5000])
def test_a_long_report_is_cut_at_a_line_and_says_so(tmp_path, taken):
    report, summary = tmp_path / "report.md", tmp_path / "summary"
    line = "| ✗ 未通过 | 准确率 |\n"
    report.write_text(line * 80_000, encoding="utf-8")
    summary.write_bytes(b"x" * taken)
    assert append_summary(summary, report) == ""
    content = summary.read_bytes()
    assert len(content) <= SUMMARY_LIMIT and len(content) > SUMMARY_LIMIT - 1000
    lines = content[taken:].decode().strip().splitlines()
    assert set(lines[:-2]) == {line.strip()} and str(report) in lines[-1] and "cut here" in lines[-1]


def test_a_summary_that_cannot_take_the_report_is_one_warning(tmp_path):
    report, summary = tmp_path / "report.md", tmp_path / "summary"
    report.write_text("a\n" * 100, encoding="utf-8")
    summary.write_bytes(b"x" * SUMMARY_LIMIT)
    assert "is full" in append_summary(summary, report) and summary.stat().st_size == SUMMARY_LIMIT
    assert "cannot add" in append_summary(tmp_path / "none" / "summary", report)
    assert "cannot add" in append_summary(summary, tmp_path / "none.md")


# -- the commands -----------------------------------------------------------------------------------


def commands(capsys) -> list[tuple[str, ...]]:
    lines = capsys.readouterr().out.splitlines()
    return [COMMAND.fullmatch(line).groups() for line in lines if line.startswith("::")]


@pytest.mark.slow
def test_run_and_check_speak_under_github_actions_only(book, monkeypatch, capsys, tmp_path):
    write_notebook(book.root / "chapters" / "01-a.ipynb", f"{RECORD}\nrecord('acc', 0.9)", "x = 1\n1 / 0")
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    assert main(["run", "--quiet"]) == ExitCode.NOTEBOOK_FAILED
    assert "::" not in capsys.readouterr().out
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert main(["run", "--quiet"]) == ExitCode.NOTEBOOK_FAILED
    broken, *claims = commands(capsys)
    path = tmp_path / broken[1]
    assert path == book.root / "chapters" / "01-a.ipynb" and "ZeroDivisionError" in broken[4]
    assert path.read_text(encoding="utf-8").splitlines()[int(broken[2]) - 1].strip() == '"1 / 0"'
    assert {(one[0], one[2]) for one in claims} == {("error", "7"), ("error", "4")}
    report = (find_run(book.root) / "report.md").read_text(encoding="utf-8")
    assert summary.read_text(encoding="utf-8") == report

    assert main(["check"]) == ExitCode.NOTEBOOK_FAILED
    assert commands(capsys) == [broken, *claims]
    assert main(["check", "--no-annotations"]) == ExitCode.NOTEBOOK_FAILED
    assert commands(capsys) == [] and summary.read_text(encoding="utf-8").count("# 运行") == 2
    monkeypatch.delenv("GITHUB_ACTIONS")
    assert main(["check", "--annotations"]) == ExitCode.NOTEBOOK_FAILED
    assert commands(capsys) == [broken, *claims]


@pytest.mark.slow
def test_a_notebook_outside_a_book_is_annotated_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    write_notebook(tmp_path / "lone.ipynb", "1 / 0")
    assert main(["run", "--quiet", "--annotations", "--out", "out", "lone.ipynb"]) == ExitCode.NOTEBOOK_FAILED
    ((level, file, line, _, message),) = commands(capsys)
    assert (level, file) == ("error", "lone.ipynb") and int(line) > 1 and "ZeroDivisionError" in message
    assert read_json(tmp_path / "out" / "result.json")["exit_code"] == 2


def test_of_two_cells_with_one_id_the_one_that_failed_is_annotated():
    cells = [{"id": "same", "source": f"x = {i}"} for i in range(3)]
    text = json.dumps({"cells": cells}, indent=1)
    places = [source_line(text, index, "same", 1) for index in range(3)]
    assert [text.splitlines()[place - 1].split('"')[-2] for place in places] == ["x = 0", "x = 1", "x = 2"]
