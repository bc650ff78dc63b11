"""What the site makes of a chapter's conventions: call-outs, folds, numbers, drawings, quizzes, in a real browser."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import mini_book
import pytest
from test_browser import PHONE, contrast, page_of

from harness.book.config import load_book
from harness.cli.app import GENERATED
from harness.site.build import build

ROOT = Path(__file__).parents[3]
CHAPTER = "chapters/05-mini"
MORE = "05-2-more"


@pytest.fixture(scope="module")
def teaching():
    """The extension, as Sphinx imports it."""
    sys.path.insert(0, str(ROOT / "_ext"))
    try:
        import teaching

        yield teaching
    finally:
        sys.path.remove(str(ROOT / "_ext"))


@pytest.fixture
def chapter(browser, site):
    """The chapter from file://, without a server."""
    with page_of(browser) as (page, faults):
        page.goto((site.folder / f"{CHAPTER}.html").as_uri(), wait_until="load")
        yield page
        assert faults == []


def colours(page, spot: str) -> tuple[str, str]:
    style = "e => [getComputedStyle(e, '::before').color, getComputedStyle(e, '::before').backgroundColor]"
    return tuple(page.locator(spot).evaluate(style))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_callouts_have_signs_that_differ_without_colour(browser, site, scheme):
    with page_of(browser, color_scheme=scheme) as (page, _):
        page.goto(f"{site.address}/{CHAPTER}.html")
        signs = page.locator(".callout").evaluate_all(
            "all => all.map(e => getComputedStyle(e, '::before').content.split(' / ')[0])"
        )
        assert signs == ['"?"', '"✗"', '"i"']
        for kind in ("guess", "myth", "hint"):
            assert contrast(*colours(page, f".callout-{kind}")) >= 4.5
        assert page.locator("blockquote:not(.callout)").count() == 1


def test_what_is_numbered_is_linked_from_the_text(chapter):
    links = chapter.locator(".callout a.reference").evaluate_all(
        "all => all.map(a => [a.textContent, a.hash])"
    )
    assert links == [["图 5.1", "#fig-5-1"], ["表 5.1", "#tab-5-1"], ["式 (5.1)", "#eq-5-1"]]
    assert chapter.locator("#fig-5-1 svg").count() == chapter.locator("#fig-5-2 img").count() == 1
    assert chapter.locator("#tab-5-1 + * table").count() == 1
    assert chapter.locator("#eq-5-1 mjx-container").count() == 1
    assert chapter.locator("code", has_text="图 5.1").count() == 1
    assert chapter.locator("code a").count() == 0


def test_another_notebook_of_the_chapter_leads_to_its_numbers(tmp_path):
    root = mini_book.write_book(tmp_path)
    source = "# 第 5 章 再谈\n\n先看图 5.1 和式（5.1），再看图 5.3。\n\n**图 5.3**　没有图的一张。"
    cells = [mini_book.markdown("a", source), mini_book.code("p", "x = 1", tags=("parameters",))]
    mini_book.write_notebook(root / "chapters" / f"{MORE}.ipynb", mini_book.notebook(*cells))
    toc = root / "_toc.yml"
    toc.write_text(toc.read_text().replace("05-mini\n", f"05-mini\n      - file: chapters/{MORE}\n", 1))
    site = build(load_book(root), None, GENERATED).parent
    text = (site / "chapters" / f"{MORE}.html").read_text(encoding="utf-8")
    links = re.findall(r'<a class="reference internal" href="([^"]+)">([^<]+)</a>', text)
    assert ("05-mini.html#fig-5-1", "图 5.1") in links and ("05-mini.html#eq-5-1", "式（5.1）") in links
    assert ("#fig-5-3", "图 5.3") in links and 'id="fig-5-3"' in text


def test_optional_parts_are_folded_with_all_that_lies_below_them(chapter):
    inside, after = chapter.get_by_text("深处的话"), chapter.get_by_text("外面的话")
    assert chapter.get_by_role("heading", name="更细的一节").is_visible()
    assert not inside.is_visible() and after.is_visible()
    chapter.locator("details.optional > summary").click()
    assert inside.is_visible()


@pytest.mark.parametrize("heading", ["更深一层", "更细的一节（选读）"])
def test_an_anchor_inside_a_fold_opens_it(browser, site, chapter, heading):
    anchor = chapter.locator(
        "section", has=chapter.get_by_role("heading", name=heading, include_hidden=True)
    ).last
    with page_of(browser) as (page, _):
        page.goto(f"{site.address}/{CHAPTER}.html#{anchor.get_attribute('id')}")
        page.get_by_text("深处的话").wait_for(state="visible")
        page.locator("details.optional > summary").click()
        page.evaluate("location.hash = ''")
        page.evaluate(f"location.hash = '{anchor.get_attribute('id')}'")
        page.get_by_text("深处的话").wait_for(state="visible")


def test_a_hit_of_the_search_inside_a_fold_opens_it(browser, site):
    with page_of(browser) as (page, _):
        page.goto(f"{site.address}/search.html?q=深处才有的词")
        page.locator("#search-results ol a").first.click()
        page.locator("span.highlighted").first.wait_for(state="visible")


def test_headings_inside_a_fold_stand_in_the_contents_of_the_page(chapter):
    assert "更深一层" in chapter.locator(".bd-sidebar-secondary, .page-toc").first.text_content()


def test_an_option_shows_its_own_explanation_and_whether_it_is_right(chapter):
    quiz = chapter.locator(".quiz").first
    wrong, right = quiz.get_by_role("button").all()
    assert (wrong.get_attribute("aria-labelledby"), right.count()) and quiz.locator("details").count() == 0
    assert not quiz.get_by_text("去重只少了几行").is_visible()
    wrong.click()
    assert quiz.get_by_text("✗ 不对。").is_visible() and quiz.get_by_text("去重只少了几行").is_visible()
    assert not quiz.get_by_text("考题进了课本").is_visible()
    right.focus()
    chapter.keyboard.press("Enter")
    assert quiz.get_by_text("✓ 对。").is_visible() and quiz.get_by_text("考题进了课本").is_visible()
    assert quiz.get_by_text("去重只少了几行").is_visible()  # what has been tried stays
    assert [b.get_attribute("aria-expanded") for b in (wrong, right)] == ["true", "true"]
    assert not chapter.locator(".quiz").nth(1).get_by_text("✗ 不对。").is_visible()
    edges = [
        quiz.locator(".quiz-choice").nth(i).evaluate("e => getComputedStyle(e).borderTopStyle")
        for i in (0, 1)
    ]
    assert edges == ["dashed", "solid"]  # not by colour alone


def test_a_screen_reader_hears_the_option_and_then_its_explanation(chapter):
    quiz = chapter.get_by_role("group", name="测验第 1 题")
    button = quiz.get_by_role("button", name="A. 这样训练更快")
    button.click()
    assert "去重只少了几行" in quiz.get_by_role("status").first.inner_text()


def test_without_javascript_the_answers_are_in_a_fold(browser, site):
    with page_of(browser, java_script_enabled=False) as (page, _):
        page.goto(f"{site.address}/{CHAPTER}.html")
        quiz = page.locator(".quiz").first
        assert quiz.locator("li").first.is_visible() and quiz.get_by_role("button").count() == 0
        assert quiz.locator("details").count() == 1 and not quiz.get_by_text("✓ 考题").is_visible()
        assert not page.locator(".quiz-answers").is_visible()


def test_on_paper_folds_are_open_and_answers_stand_at_the_end(chapter):
    chapter.locator(".quiz button").first.click()
    chapter.emulate_media(media="print")
    assert chapter.get_by_text("深处的话").is_visible()
    assert chapter.locator(".quiz-answers").get_by_text("B ✓ 考题进了课本").first.is_visible()
    assert not chapter.locator(".quiz-why").first.is_visible()
    below = "e => e.getBoundingClientRect().top"
    assert chapter.locator(".quiz-answers").evaluate(below) > chapter.locator(".quiz").last.evaluate(below)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_drawing_follows_the_theme_of_the_page_not_that_of_the_system(browser, site, scheme):
    other = {"light": "dark", "dark": "light"}[scheme]
    with page_of(browser, color_scheme=other) as (page, _):
        page.goto(f"{site.address}/{CHAPTER}.html")
        page.evaluate(f"document.documentElement.dataset.theme = '{scheme}'")
        drawing = page.get_by_role("img", name="一个方框里写着“编码器”，箭头从左边来")
        assert drawing.locator("text").text_content() == "编码器" and drawing.locator("title").count() == 0
        fill = drawing.locator("text").evaluate("e => getComputedStyle(e).fill")
        assert fill == {"light": "rgb(34, 34, 34)", "dark": "rgb(238, 238, 238)"}[scheme]
        page.emulate_media(media="print")
        assert drawing.locator("text").evaluate("e => getComputedStyle(e).fill") == "rgb(34, 34, 34)"


def test_a_drawing_is_legible_on_a_phone_and_the_keyboard_can_move_it(browser, site):
    with page_of(browser, viewport=PHONE) as (page, _):
        page.goto(f"{site.address}/{CHAPTER}.html")
        assert page.locator("svg.drawing").evaluate("e => e.getBoundingClientRect().width") == 700
        assert page.locator(".drawing-frame").evaluate("e => [e.tabIndex, e.clientWidth < 400]") == [0, True]


def test_a_numbered_equation_wider_than_a_phone_begins_where_the_reader_sees_it(browser, site):
    with page_of(browser, viewport=PHONE) as (page, _):
        page.goto(f"{site.address}/{CHAPTER}.html")
        page.wait_for_selector("#eq-5-1 mjx-mtable")
        first, frame = (
            page.locator(spot).first.evaluate("e => e.getBoundingClientRect().left")
            for spot in ("#eq-5-1 mjx-mi", "#eq-5-1")
        )
        assert page.locator("#eq-5-1").evaluate("e => e.scrollWidth > e.clientWidth") and first >= frame


def test_two_drawings_do_not_share_names(teaching):
    one, two = (
        teaching.inlined(mini_book.DRAWING, name, "画", "x.svg") for name in ("drawing-1", "drawing-2")
    )
    for name, text in (("drawing-1", one), ("drawing-2", two)):
        assert set(re.findall(r'\bid="([^"]+)"', text)) == {name, f"{name}-tip"}
        assert f'marker-end="url(#{name}-tip)"' in text


def test_a_style_is_for_its_drawing_alone(teaching):
    css = "/* a */ .a, svg{fill:red} @media (prefers-color-scheme: dark) { .a{fill:blue} .b{fill:tan} } .b{fill:pink}"
    dark = 'html[data-theme="dark"] #n'
    assert teaching.scoped(css, "n") == (
        f"#n .a,#n{{fill:red}}#n .b{{fill:pink}}@media screen{{{dark} .a{{fill:blue}}{dark} .b{{fill:tan}}}}"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [("<svg", "cannot be shown: unclosed"), ("<svg/>", "cannot be shown: it has no viewBox")],
)
def test_a_drawing_that_is_none_stops_the_build(tmp_path, text, message):
    root = mini_book.write_book(tmp_path)
    (root / "chapters" / "figures" / "05-flow.svg").write_text(text, encoding="utf-8")
    with pytest.raises(Exception, match=message):
        build(load_book(root), None, GENERATED)


def test_the_script_is_loaded_where_it_has_something_to_do(site):
    pages = {
        name: (site.folder / f"{name}.html").read_text(encoding="utf-8")
        for name in (CHAPTER, "chapters/glossary")
    }
    assert {name: "teaching.js" in text for name, text in pages.items()} == {
        CHAPTER: True,
        "chapters/glossary": False,
    }


def test_parameters_are_folded_with_a_word_on_how_to_change_them(chapter):
    fold = chapter.locator("details", has_text="num_epochs = 3").first
    assert not fold.get_by_text("num_epochs").is_visible()
    assert "harness run --param" in fold.locator("summary").inner_text()
