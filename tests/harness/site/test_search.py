"""The search of the whole book, in a browser: what readers ask for stands among the first five hits."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.book.config import load_book
from harness.cli.app import GENERATED
from harness.site.build import build

ROOT = Path(__file__).parents[3]
QUERIES = {  # query -> pages of which one must be among the first five hits, with the anchor where there is one answer
    "微调": ("05-1-fine-tuning", "02-core-concepts", "glossary"),
    "监督微调": ("05-1-fine-tuning", "02-core-concepts", "glossary"),
    "学习率": ("05-1-fine-tuning", "glossary"),
    "交叉熵损失": ("04-mathematics", "02-core-concepts", "05-1-fine-tuning"),
    "梯度累积": ("05-1-fine-tuning", "glossary"),
    "词": ("01-background", "glossary"),
    "BertModel": ("03-1-transformer", "03-2-decoder", "04-mathematics", "02-core-concepts"),
    "logits 计算": (
        "04-mathematics",
        "05-1-fine-tuning",
        "02-core-concepts",
        "03-1-transformer",
        "03-2-decoder",
    ),
    "注意力": ("03-1-transformer", "03-2-decoder", "glossary"),
    "多头注意力": ("03-1-transformer", "03-2-decoder", "glossary"),
    "位置编码": ("03-1-transformer", "03-2-decoder", "04-mathematics", "glossary"),
    "旋转位置": ("04-mathematics", "03-1-transformer", "03-2-decoder"),
    "束搜索": ("03-1-transformer", "03-2-decoder", "glossary"),
    "KV 缓存": ("03-1-transformer", "03-2-decoder", "glossary"),
    "词向量": ("01-background", "glossary"),
    "负采样": ("01-background", "glossary"),
    "困惑度": ("01-background", "02-core-concepts", "04-mathematics", "glossary"),
    "指令微调": ("02-core-concepts", "glossary"),
    "偏好对齐": ("02-core-concepts", "glossary"),
    "LoRA": ("05-2-experiments", "glossary"),
    "混淆矩阵": ("05-2-experiments", "glossary"),
    "mcnemar": ("05-1-fine-tuning", "05-2-experiments", "harness/verdicts"),
    "TOST": ("harness/verdicts", "reproduction", "glossary"),
    "beam_search": (
        "03-1-transformer",
        "03-2-decoder",
    ),
    "train_skip_gram": ("01-background",),
    "逐层核对": ("03-1-transformer",),  # in a diagram
    "ＢＥＲＴ": (
        "02-core-concepts",
        "03-1-transformer",
        "03-2-decoder",
        "01-background",
        "05-1-fine-tuning",
        "glossary",
    ),
    "残差 归一化": ("03-1-transformer", "03-2-decoder", "04-mathematics"),
    "cell_timeout": ("harness/formats", "harness/usage", "harness/commands", "harness/faq"),
    "我喜欢吃苹果": ("04-mathematics",),
}
NONSENSE = ("魑魅魍魉量子", "zzqqxx", "的的的的", "……", "<script>")


@pytest.fixture(scope="module")
def whole_site(tmp_path_factory) -> Path:
    """The book's own site, built without a run: the search sees its prose, code and diagrams."""
    pytest.importorskip("jupyter_book", reason="the site extra is not installed")
    root = tmp_path_factory.mktemp("整本书")
    for name in ("_config.yml", "_toc.yml", "harness.yml"):
        shutil.copy2(ROOT / name, root / name)
    for name in ("_ext", "_static", "vendor", "chapters"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("sft", "benchmarks", "README.md", "constraints.txt"):  # the text links to them
        (root / name).symlink_to(ROOT / name)
    return build(load_book(root), None, GENERATED).parent


@pytest.fixture(scope="module")
def search_page(browser, whole_site):
    """The search, opened as a file: it needs no server."""
    context = browser.new_context(locale="zh-CN")
    page = context.new_page()
    page.goto((whole_site / "search.html").as_uri())
    yield page
    context.close()


def hits(page, query: str) -> list[str]:
    """Addresses of the hits, best first."""
    page.locator(".bd-search-container input[name=q]").fill(query)
    links = page.locator("#search-results ol a")
    return [
        href.removeprefix("chapters/")
        for href in links.evaluate_all("all => all.map(a => a.getAttribute('href'))")
    ]


def test_there_are_thirty():
    assert len(QUERIES) == 30


def test_what_readers_look_for_is_among_the_first_five(search_page):
    found = {query: hits(search_page, query)[:5] for query in QUERIES}
    missed = {
        query: first
        for query, first in found.items()
        if not any(hit.startswith(f"{page}.html") for hit in first for page in QUERIES[query])
    }
    assert len(missed) <= 1, missed


@pytest.mark.parametrize("query", NONSENSE)
def test_nonsense_has_no_answer(search_page, query):
    assert hits(search_page, query) == []
    assert "书里没有" in search_page.locator("#search-results [role=status]").inner_text()


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ("过拟合", "glossary.html"),
        ("overfitting", "glossary.html"),
        ("早停", "05-1-fine-tuning.html"),
        ("Early Stopping", "05-1-fine-tuning.html"),
        ("动态填充", "05-1-fine-tuning.html"),
        ("早停 学习率", "05-1-fine-tuning.html"),
    ],
)
def test_another_name_of_a_thing_leads_to_it(search_page, query, page):
    assert any(hit.startswith(page) for hit in hits(search_page, query)[:5])


def test_an_english_name_of_several_words_is_one(search_page):
    found = [set(hits(search_page, name)) for name in ("early stopping", "早停", "提前停止")]
    assert found[0] == found[1] == found[2]
    marks = search_page.locator("#search-results mark").all_inner_texts()
    assert "提前停止" in marks and "early" not in marks


def test_an_empty_query_says_nothing(search_page):
    assert hits(search_page, "  ") == []
    assert search_page.locator("#search-results [role=status]").inner_text() == ""


@pytest.mark.parametrize(
    ("query", "marked"),
    [
        ("梯度累积", {"梯度累积"}),
        ("logits计算", {"logits", "计算"}),
        ("ＬＯＲＡ", {"LoRA"}),
        ("残差 归一化", {"残差", "归一化"}),
        ("交叉熵损失", {"交叉熵", "损失"}),
    ],
)
def test_every_snippet_marks_the_hit(search_page, query, marked):
    hits(search_page, query)
    found = search_page.locator("#search-results li").evaluate_all(
        "all => all.map(item => [...item.querySelectorAll('mark')].map(mark => mark.textContent))"
    )
    assert all(found) and marked <= {mark for marks in found for mark in marks}


def test_a_term_of_the_glossary_leads_to_its_entry(search_page):
    assert any(hit.startswith("glossary.html#") for hit in hits(search_page, "负采样")[:5])


def test_a_click_marks_the_words_on_the_page(search_page):
    hits(search_page, "负采样")
    search_page.locator("#search-results ol a").first.click()
    search_page.wait_for_selector("span.highlighted")
    assert search_page.locator("span.highlighted").first.inner_text() == "负采样"
    search_page.go_back()
    search_page.wait_for_selector("#search-results li")
    assert search_page.locator(".bd-search-container input[name=q]").input_value() == "负采样"


def test_only_the_search_page_loads_the_text(whole_site):
    assert "search-data.js" in (whole_site / "search.html").read_text(encoding="utf-8")
    assert "search-data.js" not in (whole_site / "chapters" / "index.html").read_text(encoding="utf-8")
    assert (whole_site / "_static" / "search-data.js").stat().st_size < 2_000_000
