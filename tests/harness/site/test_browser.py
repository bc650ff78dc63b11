"""The built mini book in a real browser: nothing foreign, nothing broken, readable, searchable."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

Axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe

from benchmarks.site import PHONE, broken_links, opened, pages  # noqa: E402

PAGES = (
    "chapters/index",
    "chapters/05-mini",
    "chapters/reproduction",
    "chapters/bibliography",
    "search",
    "genindex",
)
CHAPTER = "chapters/05-mini"


@contextmanager
def page_of(browser, address: str = "", **options) -> Iterator[tuple]:
    """A page in a fresh context, and the list of everything that went wrong on it."""
    faults: list[str] = []
    with opened(browser, address, faults, **options) as page:
        page.context.set_default_timeout(15_000)
        yield page, faults


def contrast(colour: str, background: str) -> float:
    """WCAG contrast ratio of two computed colours."""

    def luminance(text: str) -> float:
        channels = [int(c) / 255 for c in re.findall(r"\d+", text)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(colour), luminance(background)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


COLOURS = """element => {
  let ground = element, paint = 'rgba(0, 0, 0, 0)';
  while (ground && paint === 'rgba(0, 0, 0, 0)') {
    paint = getComputedStyle(ground).backgroundColor;
    ground = ground.parentElement;
  }
  return [getComputedStyle(element).color, paint];
}"""


@pytest.mark.parametrize(("place", "names"), [("address", PAGES), ("sub_address", (CHAPTER, "search"))])
def test_no_page_fails_or_asks_a_third_party(browser, site, place, names):
    address = getattr(site, place)
    with page_of(browser, address) as (page, faults):
        for name in names:
            page.goto(f"{address}/{name}.html", wait_until="networkidle")
            assert page.locator("html").get_attribute("lang") == "zh-CN"
        page.goto(f"{address}/", wait_until="networkidle")
        assert page.url.endswith("/chapters/index.html")
        assert faults == []


def test_maths_and_diagrams_are_drawn_without_a_server(browser, site):
    with page_of(browser) as (page, faults):
        page.goto(f"{(site.folder / f'{CHAPTER}.html').as_uri()}")
        page.wait_for_selector("mjx-container[display='true'] mjx-mo")
        page.wait_for_selector("pre.mermaid svg[role] :text('分类头')")
        assert faults == []


def test_the_chapter_draws_maths_diagram_figure_and_box(browser, site):
    with page_of(browser) as (page, faults):
        page.goto(f"{site.address}/{CHAPTER}.html")
        page.wait_for_selector("mjx-container[display='true'] mjx-mo")
        page.wait_for_selector("pre.mermaid svg[role] :text('分类头')")  # drawn some time after the page
        assert "从分词到评估" in page.locator("pre.mermaid svg title").first.text_content()
        assert page.locator(".cell_output img").first.get_attribute("alt").startswith("损失曲线")
        assert page.locator(".run-card").get_by_text("✗ 未通过 1").is_visible()
        assert page.locator(".cell_output pre").first.inner_text().startswith("第 3 轮")
        solution = page.locator("details", has_text="参考答案")
        assert not solution.get_by_text("assert").is_visible()
        solution.locator("summary").click()
        assert solution.get_by_text("assert").is_visible()
        assert "injected" not in page.content() and "# Parameters" not in page.content()
        assert faults == []


def test_heavy_scripts_are_loaded_only_where_they_draw(browser, site):
    loaded = {}
    for name in ("chapters/index", CHAPTER):
        with page_of(browser) as (page, _):
            names = loaded.setdefault(name, [])
            page.on("request", lambda request, names=names: names.append(request.url))
            page.goto(f"{site.address}/{name}.html", wait_until="networkidle")
    heavy = re.compile(r"mathjax/tex-|mermaid\.min\.js|fontawesome\.js")
    assert not [url for url in loaded["chapters/index"] if heavy.search(url)]
    assert len([url for url in loaded[CHAPTER] if heavy.search(url)]) == 2


def test_edit_and_colab_links_open_the_right_file(browser, site):
    with page_of(browser) as (page, _):
        page.goto(f"{site.address}/{CHAPTER}.html")
        links = page.locator("a").evaluate_all("links => links.map(link => link.href)")
    assert any(re.search(r"/edit/main/chapters/05-mini\.ipynb$", link) for link in links)
    assert any(re.search(r"colab\.research\.google\.com/.*/chapters/05-mini\.ipynb$", link) for link in links)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_themes(browser, site, scheme):
    spots = (
        "article p",
        "article h2",
        ".run-card p",
        ".verdict-pass",
        ".verdict-fail",
        ".recorded",
        ".recorded code",
    )
    spots += (
        ".recorded a",
        ".bd-sidebar-primary a.current",
        "div.cell_input pre",
        ".cell_output pre",
        "article p a",
    )
    with page_of(browser, color_scheme=scheme) as (page, faults):
        page.goto(f"{site.address}/{CHAPTER}.html", wait_until="networkidle")
        assert page.locator("html").get_attribute("data-theme") == scheme
        for spot in spots:
            colour, ground = page.locator(spot).first.evaluate(COLOURS)
            assert contrast(colour, ground) >= 4.5, f"{spot}: {colour} on {ground}"
        node = page.locator("pre.mermaid svg .node rect").first
        light = [int(c) for c in re.findall(r"\d+", node.evaluate("e => getComputedStyle(e).fill"))[:3]]
        assert (sum(light) > 3 * 128) == (scheme == "light")
        assert page.locator("pre.mermaid svg").first.evaluate("e => getComputedStyle(e).filter") == "none"
        assert faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, site, scheme):
    with page_of(browser, color_scheme=scheme) as (page, _):
        found = []
        for name in PAGES:
            page.goto(f"{site.address}/{name}.html", wait_until="networkidle")
            for finding in Axe().run(page).response["violations"]:
                if finding["impact"] in ("serious", "critical"):
                    found.append((name, finding["id"], [node["target"] for node in finding["nodes"]]))
    assert found == []


INTERACTIVE = "a[href], button, summary, input, [tabindex='0']"
FOCUSED = """() => {
  const element = document.activeElement, style = getComputedStyle(element);
  element.dataset.reached = true;
  return [element.outerHTML.slice(0, 90), style.outlineStyle !== 'none' || style.boxShadow !== 'none'];
}"""


@pytest.mark.parametrize("viewport", [{"width": 1280, "height": 800}, PHONE])
@pytest.mark.parametrize("name", [CHAPTER, "search"])
def test_the_keyboard_reaches_everything_and_shows_where_it_is(browser, site, name, viewport):
    with page_of(browser, viewport=viewport) as (page, _):
        page.goto(f"{site.address}/{name}.html", wait_until="networkidle")
        page.add_style_tag(content="* { transition: none !important; }")  # the sign would fade in
        count = page.locator(INTERACTIVE).count()
        reached = []
        for _ in range(count + 1):
            page.keyboard.press("Tab")
            reached.append(page.evaluate(FOCUSED))
            if reached[-1][0].startswith("<body"):
                break
        missed = page.locator(INTERACTIVE).evaluate_all(
            "all => all.filter(e => e.checkVisibility({visibilityProperty: true}) && !e.dataset.reached"
            " && e.tabIndex >= 0).map(e => e.outerHTML.slice(0, 80))"
        )
    assert missed == [] and len(reached) > 5
    assert [tag for tag, shown in reached[:-1] if not shown] == []


@pytest.mark.parametrize("name", PAGES[:4])
def test_a_phone_never_scrolls_sideways(browser, site, name):
    with page_of(browser, viewport=PHONE) as (page, _):
        page.goto(f"{site.address}/{name}.html", wait_until="networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert page.evaluate("document.body.scrollWidth") <= PHONE["width"]


def test_a_figure_keeps_its_shape_on_a_phone(browser, site):
    with page_of(browser, viewport=PHONE) as (page, _):
        page.goto(f"{site.address}/{CHAPTER}.html", wait_until="networkidle")
        figure = page.locator(".cell_output img").first
        width, height, natural = figure.evaluate(
            "e => [e.clientWidth, e.clientHeight, e.naturalWidth / e.naturalHeight]"
        )
    assert width < PHONE["width"] and width / height == pytest.approx(natural, rel=0.03)


def test_the_theme_speaks_chinese(browser, site):
    with page_of(browser) as (page, _):
        page.goto(f"{site.address}/{CHAPTER}.html")
        words = page.locator("button, a, summary, input").evaluate_all(
            "all => all.flatMap(e => [e.title, e.ariaLabel, e.placeholder, e.dataset.bsOriginalTitle])"
        )
    english = {word for word in words if word and re.search(r"[A-Za-z]{3}", word)}
    allowed = {"Colab", "PDF", "GitHub"}
    assert not {word for word in english if not any(name in word for name in allowed)}


def test_every_internal_link_and_anchor_resolves(browser, site):
    assert broken_links(browser, site.address, site.folder, pages(site.folder)) == []
