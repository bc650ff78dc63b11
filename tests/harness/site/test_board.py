"""The dashboard in a real browser: nothing is cut off at any width, chapters fold, the filter needs no script."""

from __future__ import annotations

from dataclasses import replace

import mini_book
import pytest

from harness.archive.recorded import result_from_json
from harness.model import Outcome, to_json
from harness.report.dashboard import render
from harness.report.history import Background
from harness.report.view import html_report

pytest.importorskip("axe_playwright_python", reason="axe is not installed")

from test_browser import Axe, page_of

WIDTHS = (390, 1280, 1440)
BOARD = "chapters/reproduction.html"
CUT = """() => {
  const root = document.querySelector('article.bd-article') || document.querySelector('body > main');
  const room = root.getBoundingClientRect();
  return [...root.querySelectorAll('*')].filter(one => {
    if (!one.checkVisibility() || one.closest('svg, thead, .headerlink')) return false;
    const box = one.getBoundingClientRect();
    const scrolls = getComputedStyle(one).overflowX !== 'visible' && one.scrollWidth > one.clientWidth + 1;
    return box.width > 1 && (scrolls || box.right > room.right + 1 || box.left < room.left - 1);
  }).map(one => one.outerHTML.slice(0, 120));
}"""
OPEN = "document.querySelectorAll('details').forEach(one => one.open = true)"


def long_claims():
    """Judgements with the longest of everything."""
    first = mini_book.verdicts()[0]
    for number, outcome in enumerate(Outcome):
        yield replace(
            first, claim=f"tokens_per_character_{number}_english_bpe_over_both_corpora", outcome=outcome,
            unit="parameters",
            title="微调后的 BERT-base-chinese 模型在 MultiNLI 测试集（matched）上的准确率：" * 2,
            observed=(123456.7,) * 3,
            reference=234567.8, interval=(112345.6, 345678.9), delta=-111111.1, hardware="cpu-x86_64-bf16",
            reference_hardware="cuda-NVIDIA-H100-80GB-HBM3",
        )  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_on_the_dashboard_is_cut_off_or_scrolls(browser, site, width, scheme):
    viewport = {"width": width, "height": 900}
    with page_of(browser, viewport=viewport, color_scheme=scheme) as (page, faults):
        page.goto(f"{site.address}/{BOARD}", wait_until="networkidle")
        page.evaluate(OPEN)
        assert page.evaluate(CUT) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        names = page.locator(".board-table").first.locator("th").count()
        assert names == 5 and page.locator(".board-table tr[data-kind]").first.locator("td").count() == names
        found = [
            f["id"] for f in Axe().run(page).response["violations"] if f["impact"] in ("serious", "critical")
        ]
        assert found == [] and faults == []


@pytest.mark.parametrize("width", WIDTHS)
def test_the_longest_claims_fit_the_page_and_the_report(browser, site, width):
    """The site's own page with other rows, and report.html, at the width of its article."""
    run = result_from_json(
        to_json(mini_book.document(verdicts=list(long_claims()))), site.folder / "result.json"
    )
    text = render(run, {})
    parts = [
        line for line in text.splitlines() if line.startswith(('<div class="broken', "<table", "<fieldset"))
    ]
    assert len(parts) > 4
    with page_of(browser, viewport={"width": width, "height": 900}) as (page, _):
        page.goto(f"{site.address}/{BOARD}", wait_until="networkidle")
        page.evaluate("html => { document.querySelector('.board').innerHTML = html }", "".join(parts))
        assert page.evaluate(CUT) == []
        page.set_content(html_report(run, Background(), {}))
        page.evaluate(OPEN)
        assert page.evaluate(CUT) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_chapters_fold_and_one_verdict_can_be_chosen_without_a_script(browser, site):
    with page_of(browser, java_script_enabled=False, viewport={"width": 1280, "height": 900}) as (page, _):
        page.goto(f"{site.address}/{BOARD}")
        rows = page.locator(".board tr[data-kind]")
        chapter = page.locator("details.chapter")
        assert chapter.count() == 1 and chapter.get_attribute("open") is not None  # one of its claims fails
        assert rows.count() == 2 and all(row.is_visible() for row in rows.all())
        assert rows.first.get_attribute("data-kind") == "fail"
        page.get_by_label("✓ 通过 1").check(force=True)
        assert [row.is_visible() for row in rows.all()] == [False, True]
        page.get_by_label("全部 2").check(force=True)
        chapter.locator("summary").first.click()
        assert not any(row.is_visible() for row in rows.all())
        page.get_by_label("✗ 未通过 1").check(force=True)  # what is chosen is seen in a folded chapter, too
        assert [row.is_visible() for row in rows.all()] == [True, False]


def test_the_keyboard_chooses_and_folds(browser, site):
    with page_of(browser, viewport={"width": 1280, "height": 900}) as (page, faults):
        page.goto(f"{site.address}/{BOARD}", wait_until="networkidle")
        rows = page.locator(".board tr[data-kind]")
        focused = (
            "document.activeElement.matches(%r) && getComputedStyle(document.activeElement).outlineStyle"
        )
        page.locator(".show-all").focus()
        page.keyboard.press("ArrowRight")
        assert page.evaluate(focused % ".show-fail") not in (False, "none")
        assert [row.is_visible() for row in rows.all()] == [True, False]
        page.keyboard.press("ArrowRight")
        assert [row.is_visible() for row in rows.all()] == [False, True]
        page.keyboard.press("ArrowRight")  # on from the last to the first: all
        assert all(row.is_visible() for row in rows.all())
        page.keyboard.press("Tab")
        while not page.evaluate("document.activeElement.matches('details.chapter > summary')"):
            assert not page.evaluate("document.activeElement === document.body"), "the summary is not reached"
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert not any(row.is_visible() for row in rows.all())
        assert faults == []


def test_a_link_to_a_chapters_verdicts_opens_them(browser, site):
    with page_of(browser) as (page, _):
        page.goto(f"{site.address}/{BOARD}#claims-{mini_book.CHAPTER}", wait_until="networkidle")
        assert page.locator(f"#claims-{mini_book.CHAPTER}").count() == 1
        assert page.locator("details.chapter[open]").count() == 1
