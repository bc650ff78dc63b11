"""report.html: one file that asks nobody for anything, says everything in words, and survives what it is given."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from notebooks import write_notebook

from harness.archive.recorded import Manifest, RunResult
from harness.book.references import references_path, references_text
from harness.judge.bless import write_references
from harness.model import CellResult, CellState, JobResult, JobState, Metric, Outcome, ReferenceRun, Verdict
from harness.report.history import (
    Background,
    background,
    blessed_values,
    cell_texts,
    claim_readings,
    past_runs,
)
from harness.report.view import html_report
from harness.report.write import write_reports

HOSTILE = "<script>alert(1)</script>\"'&"
CPU = "cpu-x86_64"
VOID = {"meta", "link", "br", "input"}

PASSED = Verdict(
    "05-a", "accuracy", "测试集准确率", "offline", Outcome.PASS, "prediction interval", (0.81, 0.82), 0.81, 0.005,
    (0.79, 0.83), 0.02, "fraction", "inside the interval", "在预测区间之内",
)  # fmt: skip
FAILED = replace(PASSED, claim="loss", title="损失", outcome=Outcome.FAIL, message_zh="比参考差")
MISSING = Verdict("05-a", "gone", "没有了", "offline", Outcome.MISSING, "recorded", message="never reached")
DONE = JobResult(
    "05-a-offline-seed0", "chapters/05-a.ipynb", "05-a", "offline", 0, JobState.COMPLETED,
    cells=(CellResult(0, "fast", CellState.COMPLETED, 0.1), CellResult(2, "slow", CellState.COMPLETED, 9.0)),
    metrics=(Metric("accuracy", 0.81),), seconds=9.2, peak_rss_mb=1945.6,
)  # fmt: skip
BROKEN = replace(
    DONE, id="05-a-offline-seed1", seed=1, state=JobState.FAILED, reason="cell 3 (id slow), line 2: ValueError",
    cells=(CellResult(2, "slow", CellState.FAILED, 1.0, "ValueError: 坏", 2),),
)  # fmt: skip


def result(jobs=(DONE,), verdicts=(PASSED, FAILED, MISSING), **changes) -> RunResult:
    facts = {
        "run": "r1", "profile": "offline", "started": "2026-11-24T01:30:00+00:00", "commit": "0123456789abcdef",
        "dirty": True,
        "environment": {"hardware": CPU, "cpu": "a processor", "memory_gb": 7.7, "versions": {"torch": "2.13"}},
    }  # fmt: skip
    return RunResult(Path("r1"), Manifest(**{**facts, **changes}), tuple(jobs), tuple(verdicts), 10.0, 1)


class Page(HTMLParser):
    """Tags in balance, their attributes, the text outside figures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(*arguments, language="zh", known=None, cells=None, **changes) -> Page:
    return Page(html_report(result(*arguments, **changes), known or Background(), cells or {}, language))


def past(number: int, *verdicts: Verdict, **changes) -> RunResult:
    return result(
        verdicts=verdicts, run=f"p{number}", started=f"2026-11-{number:02}T00:00:00+00:00", **changes
    )


# -- the page ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("language", "code"), [("zh", "zh-CN"), ("en", "en")])
def test_it_asks_nobody_and_runs_nothing(language, code):
    known = Background([result(), past(20, PASSED)], {("05-a", "accuracy"): (0.8, 0.82)})
    shown = page((DONE, BROKEN), language=language, known=known)
    assert shown.all("html") == [{"lang": code}]
    assert not {"script", "img", "iframe", "object"} & {tag for tag, _ in shown.tags}
    for tag, attributes in shown.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("href", "src"):
            assert tag == "link" or (attributes.get(name) or "#").startswith("#")
    (style,) = re.findall(r"<style>(.*?)</style>", html_report(result(), known, {}, language), re.S)
    assert not re.search(r"url\(|@import|//", style)
    assert "prefers-color-scheme: dark" in style and "@media print" in style
    policy = next(a for a in shown.all("meta") if "http-equiv" in a)
    assert policy["content"].startswith("default-src 'none'")


def test_every_link_finds_its_section_and_every_section_has_a_name():
    shown = page((DONE, BROKEN))
    places = {a["id"] for _, a in shown.tags if a.get("id")}
    assert {a["href"][1:] for a in shown.all("a")} <= places
    assert all(a["aria-labelledby"] in places for a in shown.all("section"))


def test_figures_are_described_and_tables_have_heads():
    known = Background([result(), past(20, PASSED), past(21, PASSED)])
    shown = page((DONE, BROKEN), known=known)
    assert len(shown.all("svg")) >= 4
    assert all(a["role"] == "img" and a["aria-label"] for a in shown.all("svg"))
    assert len(shown.all("table")) == len(shown.all("thead")) > 2
    assert all(a["scope"] in ("col", "row") for a in shown.all("th"))


def test_a_claim_shows_all_that_was_compared_and_the_bad_ones_come_first():
    text = page().text
    assert "✗ 未通过 1" in text and "✓ 通过 1" in text and "○ 未记录 1" in text
    for words in (
        "0.815（2 次平均）",
        "参考 0.810",
        "差 +0.005",
        "[0.790, 0.830]",
        "预测区间",
        "比参考差",
    ):
        assert words in text
    assert text.index("✗ 未通过 损失") < text.index("○ 未记录 没有了") < text.index("✓ 通过 测试集准确率")


def test_the_english_page_is_english():
    text = page((DONE, BROKEN), (replace(PASSED, title="accuracy"), MISSING), language="en").text
    assert "✓ pass" in text and "mean of 2" in text and "inside the interval" in text
    assert set(re.findall("[\u4e00-\u9fff]", text)) <= set("没有了坏")


def test_a_broken_notebook_is_told_with_cell_line_and_error():
    cells = {BROKEN.id: {2: "train(model)"}}
    text = page((DONE, BROKEN), cells=cells).text
    assert "✗ 1 个笔记本没有跑完" in text
    start = text.index("出错的笔记本", text.index("环境"))  # past the contents
    told = text[start : text.index("声明与判定", start)]
    for words in (
        "✗ 出错",
        "chapters/05-a.ipynb",
        "种子 1",
        "第 3 个 slow",
        "train(model)",
        " 2 ",
        "ValueError: 坏",
    ):
        assert words in told
    dead = replace(BROKEN, state=JobState.DEAD, cells=(), reason="the kernel was killed")
    assert "the kernel was killed" in page((dead,)).text
    assert "出错的笔记本" not in page((DONE,)).text


def test_the_slowest_cell_comes_first_under_its_first_line():
    text = page(cells={DONE.id: {0: "import torch", 2: "train(model)"}}).text
    assert text.index("train(model)") < text.index("import torch") < text.index("9.0 秒 0.1 秒")
    assert "slow" in page().text  # without the notebook: by its id


def test_a_run_of_nothing_says_so():
    text = page((), ()).text
    assert "没有声明，也没有记录。" in text and "没有运行笔记本。" in text
    assert "单元格用时" not in text and "历次运行" not in text
    lone = replace(DONE, chapter=None, notebook="/tmp/a.ipynb")
    assert "/tmp/a.ipynb accuracy 0.81" in page((lone,), ()).text


def test_hostile_names_stay_text():
    verdict = replace(
        PASSED, chapter=HOSTILE, claim=HOSTILE, title=HOSTILE, rule=HOSTILE, unit=HOSTILE, message_zh=HOSTILE
    )
    job = replace(
        BROKEN, id=HOSTILE, notebook=HOSTILE, reason=HOSTILE,
        cells=(CellResult(0, HOSTILE, CellState.FAILED, 1.0, HOSTILE, 1),),
    )  # fmt: skip
    changes = dict.fromkeys(("run", "profile", "started", "commit"), HOSTILE)
    changes["environment"] = {"hardware": HOSTILE, "gpu": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    known = Background([result(**changes), result(**changes)], {(HOSTILE, HOSTILE): (0.81,)})
    text = html_report(result((job,), (verdict,), **changes), known, {HOSTILE: {0: HOSTILE}})
    assert "<script" not in text and "&lt;script&gt;" in text
    assert not Page(text).all("script")


def test_numbers_that_are_missing_or_not_finite_do_not_stop_the_page():
    nan = float("nan")
    odd = [
        replace(PASSED, observed=(nan, 0.5), reference=nan, interval=(None, nan)),
        replace(PASSED, observed=(), reference=None, delta=None, interval=None, margin=None),
    ]
    job = replace(DONE, peak_rss_mb=None, seconds=0.0, cells=(CellResult(0, "a", CellState.PENDING),))
    text = html_report(result((job,), odd, environment={}), Background([result((), odd)] * 3), {})
    Page(text)
    for svg in re.findall(r"<svg.*?</svg>", text, re.S):
        ET.fromstring(svg)


# -- what stands beside a verdict -------------------------------------------------------------------


def test_the_curve_joins_runs_on_the_same_hardware_only():
    other = {"hardware": "cuda-H100"}
    history = [result(), past(22, PASSED), past(21, PASSED, environment=other), past(20, FAILED, MISSING)]
    found = claim_readings(history)
    assert [one.when[8:10] for one in found["05-a", "accuracy"]] == ["22", "24"]
    assert [one.outcome for one in found["05-a", "loss"]] == [Outcome.FAIL, Outcome.FAIL]
    assert ("05-a", "gone") not in found and claim_readings([]) == {}


def test_a_claim_with_several_references_is_one_point_of_its_curve():
    twice = [PASSED, replace(PASSED, rule="bounds", outcome=Outcome.FAIL)]
    assert len(claim_readings([result(verdicts=twice)])["05-a", "accuracy"]) == 1


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"profile": "offline", "started": "", "verdicts": [{}]}', "[" * 100_000,
     '{"profile": "offline", "started": "", "verdicts": 3}', '{"profile": "offline", "environment": 3}',
     '{"profile": "offline", "started": "", "seconds": "long"}'],
)  # fmt: skip
def test_a_damaged_past_run_is_no_part_of_the_history(tmp_path, text):
    (tmp_path / "p1").mkdir()
    (tmp_path / "p1" / "result.json").write_text(text, encoding="utf-8")
    assert [one.manifest.run for one in past_runs(tmp_path, result())] == ["r1"]


def blessed_file(folder, *runs):
    path = references_path(folder, "05-a")
    made = [ReferenceRun(value, seed, "c", "2026-11-24", where) for seed, (value, where) in enumerate(runs)]
    write_references(path, references_text({"accuracy": {"offline": made}}))
    return path


def test_blessed_values_of_this_hardware_are_preferred(tmp_path):
    path = blessed_file(tmp_path, (0.8, CPU), (0.9, "gpu"))
    assert blessed_values(path, "offline", CPU) == {"accuracy": (0.8,)}
    assert blessed_values(path, "offline", "other") == {"accuracy": (0.8, 0.9)}
    assert blessed_values(path, "full", CPU) == {"accuracy": ()}


@pytest.mark.parametrize(
    "change", [lambda text: "", lambda text: "[", lambda text: text.replace("0.8", "0.7")]
)
def test_a_broken_file_of_references_has_no_blessed_values(tmp_path, change):
    path = blessed_file(tmp_path, (0.8, CPU))
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    assert blessed_values(path, "offline", CPU) == {}
    assert blessed_values(tmp_path / "none.jsonl", "offline", CPU) == {}


def test_values_blessed_after_the_run_are_not_shown_as_its_reference():
    """The hollow dots are what the verdict was compared with, or they are not there."""
    ours, anew = ({("05-a", "accuracy"): values} for values in ((0.80, 0.82), (0.70, 0.72)))
    hollow = '<g fill="none" stroke="currentColor"'
    assert html_report(result(), Background(blessed=ours), {}).count(hollow) == 1
    assert hollow not in html_report(result(), Background(blessed=anew), {})


def test_cells_are_named_by_what_ran(tmp_path):
    """Papermill's own cells do not shift the places; seeds share one notebook; a job without one has no names."""
    out = tmp_path / "jobs" / DONE.id / "out.ipynb"
    write_notebook(
        out, "a = 1", "# Parameters\na = 2", "import os\n\n# 训练\ntrain()", tags={1: ["injected-parameters"]}
    )
    other = replace(DONE, id="x", notebook="x.ipynb")
    expected = {0: "a = 1", 1: "train()"}
    ran = replace(result([DONE, BROKEN, other]), folder=tmp_path)
    assert cell_texts(ran) == {DONE.id: expected, BROKEN.id: expected, "x": {}}


def test_the_page_is_written_with_what_the_book_knows(tmp_path):
    runs = tmp_path / "_build" / "runs"
    mine = replace(result(), folder=runs / "r1")
    for one in (mine, past(20, PASSED)):
        (runs / one.manifest.run).mkdir(parents=True)
        (runs / one.manifest.run / "result.json").write_text(json.dumps(one.to_json()), encoding="utf-8")
    blessed_file(tmp_path, (0.8, CPU), (0.82, CPU))
    book = SimpleNamespace(root=tmp_path, claims_dir=tmp_path)
    known = background(mine, book)
    assert len(known.history) == 2 and known.blessed == {("05-a", "accuracy"): (0.8, 0.82)}
    write_reports(mine, book)
    text = (runs / "r1" / "report.html").read_text(encoding="utf-8")
    assert "2 次运行，11-20 00:00 至 11-24 01:30" in text and "参考 0.800、0.820" in text
    assert 'lang="en"' in (runs / "r1" / "report.en.html").read_text(encoding="utf-8")
    assert background(mine, None) == Background()


def test_a_large_run_makes_a_small_page():
    """100 jobs with 80 cells each, 160 claims, 50 past runs."""
    cells = tuple(CellResult(i, f"cell-{i}", CellState.COMPLETED, 1.0 + i) for i in range(80))
    jobs = [replace(DONE, id=f"job-{i}", seed=i % 5, cells=cells) for i in range(100)]
    verdicts = [
        replace(PASSED, chapter=f"{i // 8:02}", claim=f"claim_{i % 8}", observed=(0.8, 0.81, 0.82, 0.83, 0.8))
        for i in range(160)
    ]
    history = [result(jobs, verdicts), *(past(20, *verdicts) for _ in range(50))]
    blessed = {(v.chapter, v.claim): (0.79, 0.81, 0.81, 0.82, 0.82) for v in verdicts}
    texts = {job.id: {i: f"result_{i} = train(model, lr=0.1)" for i in range(80)} for job in jobs}
    page = html_report(history[0], Background(history, blessed), texts)
    assert len(page.encode()) < 1_000_000
