"""The book's own results: references read seed by seed, and a run that is empty, unfinished or of another version."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.book.references import references_path, references_text
from harness.model import SCHEMA, ReferenceRun
from sft import results
from sft.packaged import DataError
from sft.results import HEADLINES, Comparison, find_run, read_references, read_run

CLAIMS = """
chapter: 01-a
claims:
  - {name: rule, title: 规则, direction: none, margin: 0.02}
  - {name: model, title: 模型, direction: higher, margin: 0.02}
  - {name: loss, title: 损失, direction: lower, margin: 0.02}
  - name: bounded
    title: 有界
    direction: none
    margin: 0.02
    offline: {bounds: {low: 0, high: 1}}
"""
BLESSED = {"rule": [(0.5, 0), (0.4, 1)], "model": [(0.8, 1), (0.7, 0), (0.9, 2)], "loss": [(0.1, 0)]}


def bless(folder: Path, values: dict[str, list[tuple[float, int]]], profile: str = "offline") -> Path:
    """As ``harness bless`` would write it."""
    runs = {
        name: {profile: [ReferenceRun(value, seed, "c", "2026-11-27", "cpu") for value, seed in pairs]}
        for name, pairs in values.items()
    }
    path = references_path(folder, "01-a")
    path.parent.mkdir(exist_ok=True)
    path.write_text(references_text(runs), encoding="utf-8")
    return path


def test_it_reads_what_the_harness_writes():
    assert results.SCHEMA == SCHEMA


@pytest.fixture
def claims(tmp_path: Path) -> Path:
    (tmp_path / "01-a.yml").write_text(CLAIMS, encoding="utf-8")
    bless(tmp_path, BLESSED)
    return tmp_path


def document(**changes: object) -> dict[str, object]:
    job = {"chapter": "01-a", "metrics": [{"name": "model", "value": 0.75}]}
    return {
        "schema": SCHEMA, "run": "r", "commit": "abc", "profile": "offline", "jobs": [job, job], **changes,
    }  # fmt: skip


def run_folder(place: Path, name: str = "r", **changes: object) -> Path:
    (place / name).mkdir()
    (place / name / "result.json").write_text(json.dumps(document(**changes)), encoding="utf-8")
    return place / name


def test_seeds_are_paired_by_number_and_those_of_one_side_left_out(claims):
    found = read_references(claims).compare("01-a", "rule", "model")
    assert found.baseline == (0.5, 0.4) and found.model == (0.7, 0.8)
    assert found.gains == pytest.approx((0.2, 0.4))


@pytest.mark.parametrize(
    ("model", "verdict"),
    [((0.7, 0.9), "better"), ((0.3, 0.2), "worse"), ((0.7, 0.2), "mixed"), ((0.51, 0.39), "alike")],
)
def test_a_verdict_holds_for_all_seeds_and_knows_what_does_not_matter(model, verdict):
    assert Comparison((0.5, 0.4), model, higher_is_better=True, margin=0.02).verdict == verdict


def test_a_loss_gains_by_falling(claims):
    assert read_references(claims).compare("01-a", "rule", "loss").gains == pytest.approx((0.4,))


@pytest.mark.parametrize("name", ["bounded", "misspelt"])
def test_a_metric_without_reference_is_told(claims, name):
    with pytest.raises(DataError, match=f"01-a 没有 {name} 的参考值"):
        read_references(claims).compare("01-a", "rule", name)


def test_no_common_seed_is_told(claims):
    bless(claims, {**BLESSED, "loss": [(0.1, 7)]})
    with pytest.raises(DataError, match="没有一个共同的种子"):
        read_references(claims).compare("01-a", "rule", "loss")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("claims: [", "读不懂"),
        ("- 1", "读不懂"),
        ("claims: [{name: a}]", "读不懂.*direction"),
        ("claims: [{name: a, direction: none, margin: x}]", "读不懂"),
        ("claims: []", "没有 offline 的参考值"),
    ],
)
def test_a_broken_or_empty_claim_file_is_one_line(claims, text, told):
    (claims / "01-a.yml").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=told) as caught:
        read_references(claims)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text + "<<<<<<< HEAD\n", "读不懂"),
        (lambda text: text.replace("0.5", '"x"'), "读不懂.*could not convert"),
        (lambda text: text.replace('"seed": 0', '"seed": null'), "读不懂"),
        (lambda text: text.replace("offline", "full"), "没有 offline 的参考值"),
    ],
)
def test_a_broken_or_empty_file_of_references_is_one_line(claims, change, told):
    path = claims / "blessed" / "01-a.jsonl"
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(DataError, match=told) as caught:
        read_references(claims)
    assert "\n" not in str(caught.value)
    assert "01-a.jsonl" in str(caught.value) or "参考值" in str(caught.value)


def test_a_value_that_nobody_claims_is_no_reference(claims):
    bless(claims, {**BLESSED, "gone": [(0.5, 0)]})
    assert ("01-a", "gone") not in read_references(claims).values


def test_a_folder_without_claims_is_told(tmp_path):
    with pytest.raises(DataError, match="没有声明文件"):
        read_references(tmp_path)


def test_each_headline_has_references_of_five_seeds_and_losses_are_among_them():
    references = read_references()
    compared = [references.compare(one.chapter, one.baseline, one.model) for one in HEADLINES]
    assert {len(c.gains) for c in compared} == {5}
    assert {"better", "worse", "alike"} <= {c.verdict for c in compared}
    assert len({one.task for one in HEADLINES}) == len(HEADLINES)


def test_a_run_gives_a_value_for_each_job(tmp_path):
    run = read_run(run_folder(tmp_path))
    assert (run.name, run.commit, run.profile) == ("r", "abc", "offline")
    assert run.values == {("01-a", "model"): [0.75, 0.75]}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"schema": SCHEMA + 1}, f"第 {SCHEMA + 1} 版的记录，这本书读第 {SCHEMA} 版"),
        ({"schema": None}, "第 None 版"),
        ({"jobs": []}, "是空的，0 个任务"),
        ({"jobs": [{"chapter": "01-a", "metrics": []}]}, "是空的，1 个任务"),
        ({"jobs": [{"chapter": "01-a"}]}, "缺了 'metrics'"),
    ],
)
def test_an_empty_run_or_a_record_of_another_version_is_one_line(tmp_path, changes, told):
    with pytest.raises(DataError, match=told) as caught:
        read_run(run_folder(tmp_path, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_broken_record_is_told(tmp_path, text):
    folder = run_folder(tmp_path)
    (folder / "result.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="不是完整的 JSON"):
        read_run(folder)


def test_the_latest_is_the_newest_that_is_finished(tmp_path):
    first, second = (run_folder(tmp_path, f"2026112{n}T000000-offline-ab") for n in (5, 6))
    (tmp_path / "20261127T000000-offline-ab").mkdir()  # the one that is at work
    assert find_run("latest", tmp_path) == second
    assert find_run(first.name, tmp_path) == find_run(str(first), Path("elsewhere")) == first


def test_no_such_run_is_told(tmp_path):
    with pytest.raises(DataError, match="还没有跑完的一次"):
        find_run("latest", tmp_path)
    with pytest.raises(DataError, match="没有叫 x 的一次"):
        find_run("x", tmp_path)
    (tmp_path / "x").mkdir()
    with pytest.raises(DataError, match=r"没有 result\.json"):
        read_run(find_run("x", tmp_path))
