"""What helps a reader along: time, progress, the notebook, a look at what a link names; in a real browser."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mini_book
import pytest
from docutils import nodes
from test_browser import PHONE, page_of

ROOT = Path(__file__).parents[3]
CHAPTER = "chapters/05-mini"
KEPT = "Object.keys(localStorage).filter(key => /^(reading|quiz):/.test(key))"


@pytest.fixture(scope="module")
def reading():
    """The extension, as Sphinx imports it."""
    sys.path.insert(0, str(ROOT / "_ext"))
    try:
        import reading

        yield reading
    finally:
        sys.path.remove(str(ROOT / "_ext"))


def page_with(*parts: nodes.Node) -> nodes.section:
    return nodes.section("", *parts)


def test_prose_and_code_take_their_time_and_outputs_none(reading):
    prose = nodes.paragraph("", "字" * 255 * 4)
    code = nodes.literal_block("", "x = 1\n\n" * 40)
    output = nodes.container("", nodes.literal_block("", "y\n" * 4000), nb_element="cell_code_output")
    formula = nodes.math_block("", "x" * 4000)
    assert reading.minutes(page_with(prose)) == 4
    assert reading.minutes(page_with(prose, code)) == 6
    assert reading.minutes(page_with(prose, code, output, formula)) == 6
    assert reading.minutes(page_with(nodes.paragraph("", "word " * 228))) == 1


def test_the_notebook_to_take_away_has_the_code_and_no_outputs(site, browser):
    with page_of(browser) as (page, _):
        page.goto(f"{site.sub_address}/{CHAPTER}.html")
        with page.expect_download() as begun:
            page.get_by_role("link", name="下载笔记本").click()
        document = json.loads(Path(begun.value.path()).read_text(encoding="utf-8"))
    assert begun.value.suggested_filename == "05-mini.ipynb"
    code = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    written = [c["source"] for c in mini_book.chapter(False)["cells"] if c["cell_type"] == "code"]
    assert ["".join(cell["source"]) for cell in code if "injected-parameters" not in str(cell)] == written
    assert not any("run-card" in "".join(cell["source"]) for cell in document["cells"])


def test_a_page_without_code_has_no_notebook(site):
    text = (site.folder / "chapters" / "glossary.html").read_text(encoding="utf-8")
    assert "下载笔记本" not in text and "分钟读完" not in text


def test_the_first_page_leads_back_and_forgets_when_told(site, browser):
    with page_of(browser) as (page, faults):
        page.goto(f"{site.sub_address}/chapters/index.html")
        assert page.locator(".reading-back").count() == 0  # nobody has read anything yet
        page.goto(f"{site.sub_address}/{CHAPTER}.html")
        page.locator(".quiz-choice button").first.click()
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        page.wait_for_function(f"{KEPT}.length === 2")
        assert page.locator(".bd-links .reading-mark").count() == 1
        page.goto(f"{site.sub_address}/chapters/index.html")
        box = page.locator(".reading-back")
        assert (
            "上次读到：第 5 章 项目实践：有监督微调" in box.inner_text() and "读完 1 页" in box.inner_text()
        )
        box.get_by_role("link").click()
        assert page.url.startswith(f"{site.sub_address}/{CHAPTER}.html#")
        assert page.locator(".quiz-why:not([hidden])").count() == 1  # the answer of before
        page.go_back()
        page.get_by_role("button", name="清除阅读记录").click()
        assert page.evaluate(KEPT) == [] and page.locator(".reading-mark").count() == 0
        assert faults == []


@pytest.mark.parametrize(
    "kept", ["null", "7", "[]", "{", '{"read": 3, "last": {"page": "javascript:alert(1)"}}']
)
def test_what_others_left_in_the_storage_breaks_nothing(site, browser, kept):
    with page_of(browser) as (page, faults):
        page.goto(f"{site.address}/{CHAPTER}.html")
        page.evaluate(
            "kept => { localStorage['reading:/'] = localStorage['quiz:' + location.pathname] = kept; }", kept
        )
        page.reload()
        page.goto(f"{site.address}/chapters/index.html")
        assert page.locator("a[href^='javascript:']").count() == 0 and faults == []


@pytest.mark.parametrize(
    ("name", "inside"), [("图 5.1", "svg"), ("表 5.1", "table"), ("式 (5.1)", "mjx-container")]
)
def test_a_link_shows_what_it_names(site, browser, name, inside):
    with page_of(browser) as (page, faults):
        page.goto(f"{site.address}/{CHAPTER}.html")
        page.wait_for_function("!window.MathJax || document.querySelector('mjx-container')")
        link = page.locator(".callout a", has_text=name)
        link.focus()
        look = page.get_by_role("tooltip")
        look.wait_for()
        assert look.locator(inside).count() == 1
        assert link.get_attribute("aria-describedby") == look.get_attribute("id")
        page.keyboard.press("Escape")
        assert page.get_by_role("tooltip").count() == 0
        assert page.evaluate(
            "new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size"
        ) == page.evaluate("document.querySelectorAll('[id]').length")
        assert faults == []


def test_a_source_is_shown_from_its_page_and_from_a_file_it_is_only_linked(site, browser):
    with page_of(browser) as (page, _):
        page.goto(f"{site.sub_address}/{CHAPTER}.html")
        page.locator(".bd-article a[href*='bibliography.html#']").first.hover()
        page.get_by_role("tooltip").wait_for()
        assert "BERT" in page.get_by_role("tooltip").inner_text()
    with page_of(browser) as (page, _):
        page.goto((site.folder / f"{CHAPTER}.html").as_uri())
        page.locator(".bd-article a[href*='bibliography.html#']").first.focus()
        page.wait_for_timeout(500)
        assert page.get_by_role("tooltip").count() == 0


def test_letters_are_large_enough_and_a_phone_scrolls_one_way(site, browser):
    with page_of(browser, viewport=PHONE) as (page, _):
        page.goto(f"{site.address}/{CHAPTER}.html")
        size = page.locator(".bd-article section > p:not([class])").first.evaluate(
            "e => parseFloat(getComputedStyle(e).fontSize)"
        )
        assert 17 <= size <= 18
        page.locator(".callout a", has_text="图 5.1").focus()
        page.get_by_role("tooltip").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_on_paper_there_is_nothing_to_click(site, browser):
    with page_of(browser) as (page, _):
        page.goto(f"{site.address}/{CHAPTER}.html")
        page.emulate_media(media="print")
        for part in (".reading-line", ".bd-sidebar-primary", ".bd-header-article", ".prev-next-footer"):
            assert not page.locator(part).first.is_visible(), part
        assert page.locator("h1:visible").count() == 1
