"""What the site shows of a notebook: pure functions on synthetic notebooks."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from pathlib import Path

import mini_book
import pytest

from harness.archive.recorded import result_from_json
from harness.model import JobState, Outcome, to_json
from harness.report.words import Words
from harness.site import pages as staging
from harness.site.pages import Evidence

CHINESE = Words("zh")


def evidence(**changes) -> Evidence:
    run = result_from_json(to_json(mini_book.document()), Path("r1/result.json"))
    return Evidence(run, mini_book.job(**changes))


def staged(executed=None, facts: Evidence | None = None) -> list[dict]:
    return staging.stage(mini_book.chapter(False), executed, facts)["cells"]


def by_id(cells: list[dict], name: str) -> dict:
    return next(cell for cell in cells if cell["id"] == name)


def test_outputs_of_the_run_stand_in_the_present_text():
    source = mini_book.chapter(False)
    source["cells"][0]["source"] += "\n\n运行之后改过的一句话。"
    cells = staging.stage(source, mini_book.chapter(True), evidence())["cells"]
    assert "运行之后改过的一句话" in "".join(cell["source"] for cell in cells)
    assert by_id(cells, "train")["outputs"][0]["text"].startswith("第 1 轮")


def test_papermill_traces_are_gone():
    executed = mini_book.chapter(True)
    executed["cells"].insert(
        0, mini_book.markdown("error", "An Exception", tags=["papermill-error-cell-tag"])
    )
    cells = staged(executed, evidence())
    assert not {"injected", "error"} & {cell["id"] for cell in cells}
    assert not any("papermill" in cell["metadata"] for cell in cells)


def test_changed_code_is_never_shown_with_old_numbers_as_new():
    source = mini_book.chapter(False)
    source["cells"][1]["source"] = "num_epochs = 5"
    cells = staging.stage(source, mini_book.chapter(True), evidence())["cells"]
    assert by_id(cells, "parameters")["source"] == "num_epochs = 3"
    box = by_id(cells, "run-card")["source"]
    assert "在这次运行之后改过" in box and "run-card-warn" in box


def test_a_chapter_that_was_not_run_says_so_and_drops_committed_outputs():
    cells = staging.stage(mini_book.chapter(True), None, None)["cells"]
    assert "本章还没有运行过" in by_id(cells, "run-card")["source"]
    assert not any(cell.get("outputs") for cell in cells)


@pytest.mark.parametrize("state", [s for s in JobState if s not in (JobState.COMPLETED, JobState.SKIPPED)])
def test_a_job_that_did_not_end_well_is_named_in_the_box(state):
    box = staging.banner(evidence(state=state, reason="单元 7 超过 60 秒"), True, False, CHINESE)
    assert "没有跑完" in box and "单元 7 超过 60 秒" in box and "run-card-warn" in box


def test_the_box_holds_cost_profile_hardware_and_verdicts():
    box = staging.banner(evidence(), True, False, CHINESE)
    for words in ("`offline` 配置", "num_epochs = 3", "2 核 CPU", "3 分 52 秒", "1.9 GB", "`0123456789`"):
        assert words in box
    assert "✓ 通过 1" in box and "✗ 未通过 1" in box and "(#claims-05-mini)" in box
    assert "run-card-warn" not in box and "`seed" not in box


def test_the_box_follows_the_first_heading():
    cells = staged(mini_book.chapter(True), evidence())
    assert [cell["id"] for cell in cells[:3]] == ["opening", "run-card", "opening-rest"]
    assert cells[0]["source"] == "# 第 5 章 项目实践：有监督微调"


def test_without_a_heading_the_box_comes_first():
    cells = staging.insert_after_title([mini_book.markdown("a", "没有标题")], "box")
    assert [cell["id"] for cell in cells] == ["run-card", "a"]


def test_solutions_are_folded():
    solution = by_id(staged(), "solution")
    assert "hide-cell" in solution["metadata"]["tags"]
    assert solution["metadata"]["mystnb"]["code_prompt_show"] == "参考答案"
    text = staging.stage(mini_book.notebook(mini_book.markdown("s", "答案", tags=["solution"])), None, None)
    assert by_id(text["cells"], "s")["source"].startswith("::::::{dropdown} 参考答案\n答案")


def test_alternative_text_is_keyed_by_the_hash_of_the_image():
    texts = staging.figure_texts(mini_book.figure("一条下降的曲线"))
    digest = hashlib.sha256(base64.b64decode(mini_book.png())).hexdigest()
    assert texts == {digest: "一条下降的曲线"}
    assert staging.figure_texts(mini_book.figure(None)) == {}


def test_a_recorded_number_is_shown_with_its_verdict():
    (output,) = by_id(staged(mini_book.chapter(True), evidence()), "record")["outputs"]
    shown = output["data"]["text/html"]
    assert "<code>test_accuracy</code> = 0.873 " in shown and "n = 2400，test" in shown
    assert 'href="reproduction.html#claims-05-mini"' in shown and "✓ 通过" in shown


def test_a_recorded_number_without_a_claim_has_no_verdict():
    assert (
        "verdict"
        not in staging._show_metric(mini_book.metric("other"), evidence(), CHINESE)["data"]["text/html"]
    )


def test_links_are_rewritten_outside_fences_only():
    text = "[a](../x.py)\n```\n[b](../x.py)\n```\n[c](y.md)"
    changed = staging.rewrite_links(text, str.upper)
    assert changed == "[a](../X.PY)\n```\n[b](../x.py)\n```\n[c](Y.MD)"


def test_citations_lead_to_their_entry():
    text = "见[Devlin 等，2019](bibliography.md#devlin2019bert)。"
    assert 'href="bibliography.html#ref-devlin2019bert"' in staging.cite(text, frozenset({"devlin2019bert"}))
    with pytest.raises(KeyError, match="devlin2019bert"):
        staging.cite(text, frozenset())


@pytest.mark.parametrize(
    ("outcomes", "shown"),
    [
        ((Outcome.PASS, Outcome.FAIL), "✗ 未通过"),
        ((Outcome.PASS, Outcome.MISSING), "○ 未记录"),
        ((Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.PASS), "≈ 无法判定"),
        ((Outcome.INCONCLUSIVE, Outcome.MISSING, Outcome.FAIL, Outcome.PASS), "✗ 未通过"),
        ((Outcome.INCONCLUSIVE, Outcome.MISSING), "○ 未记录"),
        ((Outcome.PASS, Outcome.PASS), "✓ 通过"),
        ((Outcome.NOT_APPLICABLE,), "– 不适用"),
        ((Outcome.PASS, Outcome.NOT_APPLICABLE), "– 不适用"),
    ],
)
def test_beside_a_number_stands_the_worst_of_its_verdicts(outcomes, shown):
    """One seed, one reference or one class of hardware may hold where another does not."""
    mine = tuple(replace(mini_book.verdicts()[0], outcome=outcome) for outcome in outcomes)
    facts = evidence()
    facts = replace(facts, run=replace(facts.run, verdicts=(*mine, mini_book.verdicts()[1])))
    text = staging._show_metric(mini_book.metric("test_accuracy"), facts, CHINESE)["data"]["text/html"]
    assert f">{shown}</a>" in text and text.count('class="verdict') == 1
