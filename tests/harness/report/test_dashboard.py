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


def rows(page: str) -> list[list[str]]:
    """The text of the cells of each row of a table with claims."""
    found = []
    for row in re.findall(r'<tr role="row" data-kind.*?</tr>', page):
        cells = re.findall(r"<td.*?</td>", re.sub("<svg.*?</svg>", "", row))
        found.append([re.sub("<.*?>", "", cell).strip() for cell in cells])
    return found


def test_a_claim_is_one_row_with_all_that_was_compared():
    page = dashboard.render(result(), TITLES)
    row = next(row for row in rows(page) if "test_accuracy" in row[0])
    assert row == ["✓ 通过 测试集准确率 test_accuracy", "0.873", "0.871", "+0.002", "[0.856, 0.886]"]
    assert "测试集准确率：" in page and "（预测区间）" in page


def test_verdicts_on_the_same_claim_are_each_explained_and_foreign_references_named():
    """As where a merged run holds two classes of machine."""
    passed = next(v for v in mini_book.verdicts() if v.claim == "test_accuracy")
    here = replace(passed, message_zh="这里通过", reference_hardware="cpu-b", hardware="cpu-a")
    there = replace(
        here, outcome=Outcome.FAIL, message_zh="那里不行", reference_hardware="cpu-a", hardware="cpu-a"
    )
    page = dashboard.render(result(verdicts=[here, there]), TITLES)
    assert page.count("这里通过") == page.count("那里不行") == 1
    assert page.count("（来自 cpu-b）") == 1 and "（来自 cpu-a）" not in page
    assert "硬件不同：本次运行在 cpu-a 上；1 条判定（共 2 条）的参考来自 cpu-b。" in page


def test_one_sentence_says_whether_the_hardware_is_the_same():
    passed = next(v for v in mini_book.verdicts() if v.claim == "test_accuracy")
    alike = replace(passed, reference_hardware="cpu-a", hardware="cpu-a")
    assert "同属一类（cpu-a）" in dashboard.render(result(verdicts=[alike]), TITLES)
    alone = replace(passed, reference_hardware="", hardware="cpu-a")
    assert "硬件：" not in dashboard.render(result(verdicts=[alone]), TITLES).split("## ")[0]


def test_several_seeds_are_averaged_and_a_failure_is_explained():
    page = dashboard.render(result(), TITLES)
    row = next(row for row in rows(page) if "ECE" in row[0])
    assert row[1] == "0.120（2 次平均）"
    assert "比参考值大出容差" in page
    assert page.index("比参考值大出容差") < page.index("{dropdown}") < page.index("落在预测区间之内")


def test_the_first_sentence_says_whether_the_book_holds_and_chapters_that_fail_come_first_and_open():
    good, bad = (
        next(v for v in mini_book.verdicts() if v.outcome is o) for o in (Outcome.PASS, Outcome.FAIL)
    )
    page = dashboard.render(result(verdicts=[replace(good, chapter="01-first"), bad]), TITLES)
    assert "**✗ 有的数字没有站住：1 条声明不成立**" in page
    chapters = re.findall(r":{5}\{dropdown\} (.*?) · (.*)\n:class-container: chapter\n(:open:)?", page)
    assert [(name, opened) for name, _, opened in chapters] == [
        ("第 5 章 项目实践", ":open:"),
        ("01-first", ""),
    ]
    assert "✗ 未通过 1" in chapters[0][1] and "✓ 通过 1" in chapters[1][1]
    well = dashboard.render(result(verdicts=[good]), TITLES)
    assert "**✓ 书里的数字仍然成立：1 条声明通过，没有一条未通过**" in well
    assert ":open:" not in well and "没有站住的" not in well


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
    row = next(row for row in rows(page) if "test_accuracy" in row[0])
    assert row[1:].count("—") == 3 and "○ 未记录" in row[0]


def test_a_job_outside_the_book_is_named_by_its_path_and_its_reason():
    lone = mini_book.job(JobState.DEAD, chapter=None, notebook="a|b.ipynb", reason="内核 | 被杀死")
    page = dashboard.render(result(jobs=[lone]), TITLES)
    row = next(row for row in re.findall(r'<tr role="row">.*?</tr>', page) if "内核中止" in row)
    assert "内核 | 被杀死" in row and "<code>a|b.ipynb</code>" in row


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
    page = dashboard.render(result(), TITLES, known)
    (line,) = figures(page)
    (broken,) = (line for line in page.splitlines() if line.startswith('<div class="broken'))
    pictures = [re.findall(r"<svg.*?</svg>", part) for part in (line, broken)]
    labels = [[ET.fromstring(svg).get("aria-label") for svg in part] for part in pictures]
    assert [len(part) for part in labels] == [2, 2] and all(map(all, labels))
    assert labels[0][0].startswith("测试集准确率；参考 0.870、0.872；本次 0.873")
    assert "2 次运行，11-22 00:00 至 11-24 01:30" in labels[0][1]
    assert "✗ 未通过</span> <strong>校准误差 | ECE" in broken


def test_without_a_measured_value_nothing_is_drawn():
    missing = replace(mini_book.verdicts()[0], outcome=Outcome.MISSING, observed=())
    page = dashboard.render(result(verdicts=[missing]), TITLES)
    assert figures(page) == [] and "<svg" not in page and "实心点" not in page
    assert "实心点" in dashboard.render(result(), TITLES)


def test_a_title_is_no_markup_in_a_figure():
    hostile = replace(mini_book.verdicts()[0], title="<script>alert(1)</script>")
    (line,) = figures(dashboard.render(result(verdicts=[hostile]), TITLES))
    assert "<script" not in line and "&lt;script&gt;" in line
