"""The generated part of 复现看板."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import mini_book
import pytest

from harness.archive.recorded import RunResult, result_from_json
from harness.model import JobState, Outcome, to_json
from harness.report import dashboard
from harness.report.history import Background, past_runs
from harness.report.words import Words

TITLES = {mini_book.CHAPTER: "第 5 章 项目实践"}


def result(**changes) -> RunResult:
    return result_from_json(to_json(mini_book.document(**changes)), Path("r1/result.json"))


def test_every_outcome_has_its_own_symbol_and_a_word():
    words = [Words("zh").outcome_words(outcome).split() for outcome in Outcome]
    assert len({symbol for symbol, _ in words}) == len(Outcome)
    assert all(len(word) >= 2 for _, word in words)
    assert "✗ 超时" in Words("zh").state_words(JobState.TIMED_OUT)


def test_a_claim_is_one_row_with_all_that_was_compared():
    page = dashboard.render(result(), TITLES)
    row = next(line for line in page.splitlines() if "`test_accuracy`" in line)
    cells = [cell.strip() for cell in row.strip("|").split(" | ")]
    assert cells == [
        "[✓ 通过]{.verdict .verdict-pass}",
        "测试集准确率<br>`test_accuracy`",
        "0.8731",
        "0.8712",
        "+0.0019",
        "\\[0.8562, 0.8862\\]",
        "预测区间",
    ]


def test_verdicts_on_the_same_claim_are_each_explained_and_foreign_references_named():
    """As where a merged run holds two classes of machine."""
    passed = next(v for v in mini_book.verdicts() if v.claim == "test_accuracy")
    here = replace(passed, message_zh="这里通过", reference_hardware="cpu-b", hardware="cpu-a")
    there = replace(
        here, outcome=Outcome.FAIL, message_zh="那里不行", reference_hardware="cpu-a", hardware="cpu-a"
    )
    page = dashboard.render(result(verdicts=[here, there]), TITLES)
    assert page.count("这里通过") == page.count("那里不行") == 1
    assert page.count("<br>来自 cpu-b") == 1 and "来自 cpu-a" not in page


def test_several_seeds_are_averaged_and_a_failure_is_explained():
    page = dashboard.render(result(), TITLES)
    assert "0.1200<br>2 次平均" in page
    assert "- [✗ 未通过]{.verdict .verdict-fail} 校准误差 \\| ECE：比参考值大出容差" in page
    assert page.index("比参考值大出容差") < page.index("{dropdown}") < page.index("落在预测区间之内")


def test_the_summary_counts_verdicts_and_names_the_run():
    summary = dashboard.render(result(dirty=True), TITLES).split("## ")[0]
    for words in ("✓ 通过 1", "✗ 未通过 1", "`offline` 配置", "4 分 01 秒", mini_book.RUN, "未提交的改动"):
        assert words in summary


def test_the_front_page_names_the_chapters_that_have_no_numbers():
    whole = dashboard.last_run(result(), TITLES, "reproduction.md")
    for words in ("✓ 通过 1", "✗ 未通过 1", "[复现看板](reproduction.md)", "2 核 CPU", "2026 年 11 月 24 日"):
        assert words in whole
    assert "没有" not in whole and "warn" not in whole
    dead = result(jobs=[mini_book.job(JobState.DEAD)])
    partial = dashboard.last_run(dead, {**TITLES, "06-more": "第 6 章 应用"})
    assert "**没有跑完**：第 5 章 项目实践\n" in partial and "**没有运行**：第 6 章 应用\n" in partial
    assert "run-card-warn" in partial and "复现看板" not in partial
    assert "还没有运行记录" in dashboard.last_run(None, TITLES)


def test_the_front_page_hides_no_seed_that_failed_and_says_what_is_of_an_earlier_run():
    dead, well = mini_book.job(JobState.DEAD, seed=0), mini_book.job(seed=1, id="05-mini-offline-seed1")
    assert "**没有跑完**：第 5 章" in dashboard.last_run(result(jobs=[dead, well]), TITLES)
    cached = mini_book.job(JobState.SKIPPED, cached_from="old", started="2026-11-20T08:00:00+00:00")
    since = "1 章没有变，沿用 2026 年 11 月 20 日 08:00（UTC）以来的结果"
    assert since in dashboard.last_run(result(jobs=[cached]), TITLES)


def test_the_front_page_says_when_the_numbers_were_made_and_not_when_they_were_looked_up():
    cached = mini_book.job(
        JobState.SKIPPED, cached_from="old", started="2026-11-20T08:00:00+00:00", seconds=232.4
    )
    box = dashboard.last_run(result(jobs=[cached], started="2026-11-26T09:00:00+00:00", seconds=1.1), TITLES)
    assert "做于 2026 年 11 月 20 日 ·" in box and "各章合计 3 分 52 秒" in box
    assert "11 月 26 日" not in box and "1.1 秒" not in box
    fresh = mini_book.job(id="06", chapter="06-more", started="2026-11-26T09:00:00+00:00", seconds=60.0)
    box = dashboard.last_run(result(jobs=[cached, fresh]), TITLES | {"06-more": "第 6 章 应用"})
    assert "做于 2026 年 11 月 20 日至 2026 年 11 月 26 日" in box and "各章合计 4 分 52 秒" in box
    assert "做于 —" in dashboard.last_run(result(jobs=[], started=""), TITLES)


@pytest.mark.parametrize(
    ("chapters", "said"),
    [
        ({"05-mini": 9800}, "读约 40 分钟，运行 3 分 52 秒"),
        ({"05-mini": 5000, "05-2-more": 5000}, "读约 40 分钟"),  # one of them did not run
        ({"05-mini": 12}, "读约 10 分钟，运行 3 分 52 秒"),
        ({}, "—"),
    ],
)
def test_the_front_page_says_how_long_a_chapter_takes(chapters, said):
    again = mini_book.job(seed=1, id="05-mini-offline-seed1", seconds=999.0)
    assert dashboard.time_text(result(jobs=[mini_book.job(), again]), chapters) == said


def test_without_a_run_or_without_success_no_time_is_told():
    dead = result(jobs=[mini_book.job(JobState.DEAD)])
    assert [dashboard.time_text(d, {"05-mini": 2500}) for d in (None, dead)] == ["读约 10 分钟"] * 2


def test_a_chapter_without_claims_still_has_its_place():
    page = dashboard.render(result(verdicts=[]), TITLES)
    assert "(claims-05-mini)=" in page and "没有声明" in page


def test_missing_values_are_dashes_not_guesses():
    missing = replace(
        mini_book.verdicts()[0], outcome=Outcome.MISSING, observed=(), delta=None, interval=None, margin=None
    )
    page = dashboard.render(result(verdicts=[missing]), TITLES)
    row = next(line for line in page.splitlines() if "`test_accuracy`" in line)
    assert row.count("—") == 3 and "○ 未记录" in row


def test_a_job_outside_the_book_is_named_by_its_path_and_its_reason():
    lone = mini_book.job(JobState.DEAD, chapter=None, notebook="a|b.ipynb", reason="内核 | 被杀死")
    row = next(
        line for line in dashboard.render(result(jobs=[lone]), TITLES).splitlines() if "内核中止" in line
    )
    assert "被杀死" in row and "内核 \\| 被杀死" in row


def test_history_holds_finished_runs_of_the_same_profile_up_to_this_one(tmp_path):
    for name, profile, started in [
        ("a", "offline", "2026-11-22T00:00:00+00:00"),
        ("b", "smoke", "2026-11-23T00:00:00+00:00"),
        ("c", "offline", "2026-11-25T00:00:00+00:00"),
    ]:
        (tmp_path / name).mkdir()
        other = result(run=name, profile=profile, started=started).to_json()
        (tmp_path / name / "result.json").write_text(json.dumps(other), encoding="utf-8")
    (tmp_path / "shard").mkdir()
    shard = {**result(run="shard").to_json(), "shard": {"index": 1, "of": 2}}
    (tmp_path / "shard" / "result.json").write_text(json.dumps(shard), encoding="utf-8")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "result.json").write_text("{", encoding="utf-8")
    history = past_runs(tmp_path, result())
    assert [one.manifest.run for one in history] == [mini_book.RUN, "a"]
    assert "## 历次运行" in dashboard.render(result(), TITLES, Background(history))
    assert "## 历次运行" not in dashboard.render(result(), TITLES, Background(history[:1]))


def figures(page: str) -> list[str]:
    """The line of figures of each chapter."""
    return [line for line in page.splitlines() if line.startswith('<div class="claim-figures">')]


def test_each_measured_claim_is_drawn_with_its_reference_runs_and_its_history():
    earlier = result(run="a", started="2026-11-22T00:00:00+00:00")
    key = (mini_book.CHAPTER, "test_accuracy")
    known = Background([result(), earlier], {key: (0.8702, 0.8722)})
    (line,) = figures(dashboard.render(result(), TITLES, known))
    pictures = re.findall(r"<svg.*?</svg>", line)
    labels = [ET.fromstring(svg).get("aria-label") for svg in pictures]
    assert len(labels) == 4 and all(labels)
    assert labels[0].startswith("测试集准确率；参考 0.8702、0.8722；本次 0.8731")
    assert "2 次运行，11-22 00:00 至 11-24 01:30" in labels[1]
    assert "✗ 未通过 校准误差 | ECE" in line and "\n" not in line


def test_without_a_measured_value_nothing_is_drawn():
    missing = replace(mini_book.verdicts()[0], outcome=Outcome.MISSING, observed=())
    page = dashboard.render(result(verdicts=[missing]), TITLES)
    assert figures(page) == [] and "<svg" not in page and "实心点" not in page
    assert "实心点" in dashboard.render(result(), TITLES)


def test_a_title_is_no_markup_in_a_figure():
    hostile = replace(mini_book.verdicts()[0], title="<script>alert(1)</script>")
    (line,) = figures(dashboard.render(result(verdicts=[hostile]), TITLES))
    assert "<script" not in line and "&lt;script&gt;" in line
