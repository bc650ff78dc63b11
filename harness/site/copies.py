"""The book to take along: one PDF and one EPUB, made from the built site, and its source.

Chromium opens each page of the table of contents, draws its formulas and diagrams, and prints it; pypdf joins the
prints under one outline, with links between chapters that lead to pages. The same visit yields the page as XHTML, with
formulas as MathML and diagrams as pictures, for the EPUB. The source is the commit of the run, for those who reach the
site and not the repository.

Chromium is shown the book's own fonts and none of the machine's: the copies look alike wherever they are made, and no
font that gives a character and its radical one glyph decides what a reader copies out of the PDF.
"""

from __future__ import annotations

import functools
import html
import http.server
import importlib.util
import io
import os
import re
import shutil
import subprocess
import tempfile
import threading
import uuid
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urldefrag

from harness.archive.recorded import RunResult
from harness.book.config import toc_pages
from harness.errors import HarnessError
from harness.files import PACKAGE
from harness.report import dashboard

PDF, EPUB, SOURCE = "book.pdf", "book.epub", "book.zip"
BROWSER_VARIABLE = "CHROMIUM"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_FONTS = PACKAGE.parent / "sft" / "fonts"  # both packages come in one distribution
_FONT_NAMES = ("SFTBookSans-*.ttf", "DejaVuSans.ttf", "DejaVuSans-*.ttf", "DejaVuSansMono*.ttf")
_FONT_SETTINGS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
{folders}<cachedir>{cache}</cachedir>
<selectfont><rejectfont><glob>*</glob></rejectfont><acceptfont>{names}</acceptfont></selectfont>
<match><edit name="family" mode="append_last"><string>SFT Book Sans</string><string>DejaVu Sans</string></edit></match>
<match><test name="family"><string>monospace</string></test>
  <edit name="family" mode="prepend" binding="same"><string>DejaVu Sans Mono</string></edit></match>
<match target="font"><edit name="hintstyle" mode="assign"><const>hintnone</const></edit></match>
</fontconfig>
"""
_PATIENCE = 60_000  # milliseconds for a page to be drawn
_MARGIN = {"top": "18mm", "bottom": "20mm", "left": "17mm", "right": "17mm"}
_READY = """async () => {
  document.querySelectorAll('details').forEach(one => one.open = true);
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  await document.fonts.ready;
}"""
# A busy browser has scripts, pictures and paint outstanding when the network is long idle. What is printed then differs
# from run to run: so wait until every picture is decoded, no script is due, and the print's style has been painted.
_SETTLED = """async () => {
  await Promise.all([...document.images].map(one => {
    one.loading = 'eager';
    return one.decode().catch(() => {});
  }));
  await document.fonts.ready;
  for (let i = 0; i < 2; i++) {
    await new Promise(done => requestIdleCallback(done));
    await new Promise(done => requestAnimationFrame(done));
  }
}"""
_PRINT_STYLE = """
* { font-variant-ligatures: none; } /* who searches for "offline" finds no ligature */
#jb-print-docs-body, #jb-print-toc { display: none !important; }
.bd-article h1 { display: block !important; }
a:is(.github, .gitlab)::before { content: none !important; } /* the icon would be copied as a box before the address */
.cell, .cell_input [class*="highlight"], pre { break-inside: auto !important; overflow: visible !important; }
.cell_input, .cell_input [class*="highlight"] { display: block !important; }
/* paper does not scroll: of a wide table a part would be cut off */
.bd-article table :is(th, td, code, .pre) { white-space: normal !important; }
.bd-article table :is(th, td:first-child, td.text-right) { word-break: keep-all; }
.cell_input { break-inside: avoid !important; } /* a cell moves to the next page whole, not its text without its box */
"""
_DRAWN = "() => [...document.querySelectorAll('pre.mermaid')].every(one => one.querySelector('svg'))"
_EXTRACT = """() => {
  const article = document.querySelector('article').cloneNode(true);
  article.querySelectorAll('script, style, button, .headerlink, .copybtn, mjx-container > :not(mjx-assistive-mml)')
    .forEach(one => one.remove());
  article.querySelectorAll('mjx-container').forEach(one => {
    const math = one.querySelector('math');
    if (one.getAttribute('display') === 'true') math.setAttribute('display', 'block');
    one.replaceWith(math);
  });
  article.querySelectorAll('pre.mermaid').forEach((one, i) => {
    const picture = document.createElement('img');
    picture.src = `diagram-${i}.png`;
    picture.alt = one.querySelector('svg title')?.textContent || '';
    one.replaceWith(picture);
  });
  article.querySelectorAll('svg.drawing').forEach(one => {
    const picture = document.createElement('img');
    picture.src = one.dataset.src;
    picture.alt = one.getAttribute('aria-label');
    one.replaceWith(picture);
  });
  article.querySelectorAll('details').forEach(one => {
    const box = document.createElement('div');
    box.className = 'folded';
    box.append(...one.childNodes);
    box.querySelectorAll(':scope > summary').forEach(summary => {
      const title = document.createElement('div');
      title.append(...summary.childNodes);
      summary.replaceWith(title);
    });
    one.replaceWith(box);
  });
  article.querySelectorAll('*').forEach(one => [...one.attributes].forEach(a => {
    if (/^(data-|on|aria-|tabindex|width$|height$|style$|role$|scope$|loading|align$)/.test(a.name)
        && !(a.name === 'width' && one.closest('svg'))) one.removeAttribute(a.name);
  }));
  return new XMLSerializer().serializeToString(article);
}"""


@dataclass
class Sheet:
    """One page of the site, printed."""

    path: str  # inside the site
    title: str
    label: str  # before its page numbers
    pdf: bytes = b""
    body: str = ""  # XHTML
    pictures: dict[str, bytes] = field(default_factory=dict)  # of diagrams, by name


def offered(root: Path, run: RunResult | None) -> dict[str, str]:
    """Copies that can be made of the book in *root*: kind -> file; the source where git has the run's commit."""
    source = {"源代码": SOURCE} if _has_commit(root, run) else {}
    return {"PDF": PDF, "EPUB": EPUB} | source


def _has_commit(root: Path, run: RunResult | None) -> bool:
    commit = run.manifest.commit if run else ""
    if not re.fullmatch(r"[0-9a-f]{7,64}", commit):
        return False
    try:
        asked = ["git", "-C", str(root), "cat-file", "-e", f"{commit}^{{commit}}"]
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0
    except OSError:  # no git
        return False


def pack_source(root: Path, commit: str, target: Path) -> None:
    """Write the book in *root* as it was at *commit* to a ZIP file, below one folder of the file's name.

    Raises:
        HarnessError: git cannot do it.
    """
    command = ["git", "-C", str(root), "archive", "--format=zip", f"--prefix={target.stem}/", commit]
    with target.open("wb") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        target.unlink()
        raise HarnessError(f"git cannot pack the source: {done.stderr.strip()}")


def make_copies(root: Path, site: Path, run: RunResult | None, title: str, author: str) -> list[Path]:
    """Print the built *site* of the book in *root* as PDF and EPUB, into the site itself; returns both files.

    Raises:
        HarnessError: no Chromium, a package that is not installed, or a page that cannot be drawn.
    """
    sheets = list(_sheets(root / "_toc.yml", site))
    facts = _facts(run)
    with served(site) as address, open_browser() as browser:
        context = browser.new_context(color_scheme="light", device_scale_factor=2)
        page = context.new_page()
        page.set_default_timeout(_PATIENCE)
        for sheet in sheets:
            _visit(page, address, sheet)
        if lacking := _lacking(sheets):
            print(f"warning: the copies' fonts lack {' '.join(lacking)}; add them in sft/fonts/subset.py")
        _write_pdf(site / PDF, page, sheets, address, title, author, facts)
        context.close()
    _write_epub(site / EPUB, site, sheets, title, author, facts)
    return [site / PDF, site / EPUB]


def _lacking(sheets: Sequence[Sheet]) -> list[str]:
    """The characters of the sheets that no font of the copies has; formulas bring their own fonts."""
    from fontTools.ttLib import TTFont

    texts = (
        html.unescape(re.sub(r"<math.*?</math>|<[^>]*>", "", sheet.body, flags=re.S)) for sheet in sheets
    )
    used = {character for text in texts for character in text if character.isprintable()}
    for file in font_files():
        with TTFont(file) as font:
            used -= set(map(chr, font.getBestCmap()))
    return sorted(used)


def _sheets(toc: Path, site: Path) -> Iterator[Sheet]:
    """The pages in the order of the table of contents."""
    appendix = iter("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    for page in toc_pages(toc):
        path = (site / page.relative_to(toc.parent)).with_suffix(".html")
        if not path.is_file():
            raise HarnessError(f"{path} does not exist; build the site first")
        article = path.read_text(encoding="utf-8").partition("<article")[2]
        heading = re.search(r"<h1>(.*?)<a class=\"headerlink\"", article, re.S)
        title = html.unescape(re.sub(r"<[^>]+>", "", heading[1])).strip() if heading else path.stem
        number = re.match(r"\d+", path.stem)
        label = f"{int(number[0])}-" if number else "0-" if path.stem == "index" else f"{next(appendix)}-"
        yield Sheet(path.relative_to(site).as_posix(), title, label)


def _facts(run: RunResult | None) -> list[str]:
    """What the title page says of the run that the numbers come from."""
    if run is None:
        return ["还没有运行记录"]
    counts = re.sub(r"\[([^\]]+)\]\{[^}]+\}", r"\1", dashboard.counts_text(run.verdicts))
    commit = dashboard.commit_text(run.manifest).replace("`", "")
    return [
        f"数字取自运行 {run.manifest.run}",
        f"{run.manifest.profile} 配置 · {dashboard.hardware_text(run.manifest)}",
        f"{dashboard.date_text(run.manifest.started)} · 提交 {commit}",
        counts,
    ]


# --- the browser ---------------------------------------------------------------------------------------


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path, handler: type[Quiet] = Quiet) -> Iterator[str]:
    """The address of a local server with a site's folder: the pages as readers get them."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def find_browser() -> str:
    """Chromium's program.

    Raises:
        HarnessError: there is none.
    """
    named = os.environ.get(BROWSER_VARIABLE)
    found = shutil.which(named) if named else next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found is None:
        what = f"{BROWSER_VARIABLE}={named} is no program" if named else "Chromium is not installed"
        raise HarnessError(
            f"{what}; install Debian's chromium, or set {BROWSER_VARIABLE} to a Chromium or Chrome"
        )
    return found


def check_copies() -> None:
    """Whether PDF and EPUB can be made: what can be told before the site is built.

    Raises:
        HarnessError: a package or the browser is missing.
    """
    try:
        import playwright  # noqa: F401
        import pypdf  # noqa: F401
    except ImportError as error:
        raise HarnessError(f"{error.name} is not installed; install the book's `copies` extra") from None
    find_browser()


@contextmanager
def open_browser() -> Iterator[Any]:
    """Playwright's Chromium, without a window.

    Raises:
        HarnessError: a package or the browser is missing.
    """
    check_copies()
    from playwright.sync_api import sync_playwright

    with _font_settings() as fonts, sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=find_browser(),
            args=list(_FLAGS),
            env=os.environ | {"FONTCONFIG_FILE": str(fonts)},
        )
        try:
            yield browser
        finally:
            browser.close()


def font_files() -> list[Path]:
    """The copies' fonts: the book's own and, for code and signs, some of those that matplotlib brings.

    Raises:
        HarnessError: there are none.
    """
    spec = importlib.util.find_spec("matplotlib")
    brought = Path(spec.origin or "").parent / "mpl-data" / "fonts" / "ttf" if spec else Path("matplotlib")
    found: list[Path] = []
    for folder, name in ((_FONTS, _FONT_NAMES[0]), *((brought, name) for name in _FONT_NAMES[1:])):
        files = sorted(folder.glob(name))
        if not files:
            raise HarnessError(f"the copies' font {name} is not in {folder}; install the book again")
        found += files
    return found


@contextmanager
def _font_settings() -> Iterator[Path]:
    """A file for fontconfig that knows the copies' fonts and no other."""
    files = font_files()
    with tempfile.TemporaryDirectory() as own:
        file = Path(own, "fonts.conf")
        folders = "".join(
            f"<dir>{html.escape(str(folder))}</dir>\n" for folder in {one.parent for one in files}
        )
        names = "".join(f"<glob>*/{one.name}</glob>" for one in files)
        file.write_text(
            _FONT_SETTINGS.format(folders=folders, cache=html.escape(own), names=names), encoding="utf-8"
        )
        yield file


def _visit(page: Any, address: str, sheet: Sheet) -> None:
    """Print one page, and take its article and its diagrams."""
    from playwright.sync_api import Error

    try:
        page.emulate_media(media="screen")
        page.goto(f"{address}/{sheet.path}", wait_until="networkidle")
        page.evaluate(_READY)
        page.wait_for_function(_DRAWN)
        for number, diagram in enumerate(page.locator("pre.mermaid svg").all()):
            sheet.pictures[f"diagram-{number}.png"] = diagram.screenshot()
        sheet.body = page.evaluate(_EXTRACT)
        page.add_style_tag(content=_PRINT_STYLE)
        page.emulate_media(media="print")
        page.evaluate(_SETTLED)
        sheet.pdf = _print(
            page, f"{html.escape(sheet.title)} · {sheet.label}<span class='pageNumber'></span>"
        )
    except Error as error:
        raise HarnessError(f"{sheet.path} cannot be drawn: {str(error).splitlines()[0]}") from None


def _print(page: Any, footer: str = "") -> bytes:
    style = "font-size:8px;width:100%;text-align:center;color:#555"
    return page.pdf(
        format="A4",
        margin=_MARGIN,
        print_background=True,
        outline=True,
        tagged=True,
        display_header_footer=bool(footer),
        header_template="<span></span>",
        footer_template=f"<div style='{style}'>{footer}</div>",
    )


# --- PDF -----------------------------------------------------------------------------------------------


def _write_pdf(
    target: Path,
    page: Any,
    sheets: Sequence[Sheet],
    address: str,
    title: str,
    author: str,
    facts: Sequence[str],
) -> None:
    from pypdf import PdfReader, PdfWriter
    from pypdf.generic import BooleanObject, DictionaryObject, NameObject, TextStringObject

    page.set_content(_cover(sheets, title, author, facts))
    cover = PdfReader(io.BytesIO(_print(page)))
    if not any("SFTBookSans" in name for name in _font_names(cover.pages[0])):
        print(
            "warning: this browser shows this machine's fonts, not the book's; Debian's Chromium takes them"
        )
    writer = PdfWriter()
    writer.append(cover, outline_item=title, import_outline=False)
    writer.set_page_label(0, len(writer.pages) - 1, style="/r")
    anchors: dict[str, dict[str, tuple[int, Any]]] = {}  # sheet -> anchor -> page and height; "" is the top
    ranges: list[tuple[range, str]] = []
    for sheet in sheets:
        reader, first = PdfReader(io.BytesIO(sheet.pdf)), len(writer.pages)
        anchors[sheet.path] = {"": (first, None)} | {
            name.lstrip("/"): (first + (reader.get_destination_page_number(one) or 0), one.get("/Top"))
            for name, one in reader.named_destinations.items()
        }
        writer.append(reader, outline_item=sheet.title, import_outline=True)
        writer.set_page_label(first, len(writer.pages) - 1, style="/D", prefix=sheet.label, start=1)
        ranges.append((range(first, len(writer.pages)), sheet.path))
    for numbers, path in ranges:
        for number in numbers:
            _lead_links(writer, number, path, anchors, address)
    catalogue = writer.root_object
    catalogue.pop("/Dests", None)  # several sheets use the same names; links now lead to pages
    catalogue[NameObject("/Lang")] = TextStringObject("zh-CN")
    catalogue[NameObject("/ViewerPreferences")] = DictionaryObject(
        {NameObject("/DisplayDocTitle"): BooleanObject(True)}
    )
    writer.add_metadata({"/Title": title, "/Author": author})
    writer.compress_identical_objects()
    with target.open("wb") as file:
        writer.write(file)


def _font_names(page: Any) -> set[str]:
    """The names of the fonts that a page of a PDF holds."""
    fonts = (font.get_object() for font in page["/Resources"].get("/Font", {}).values())
    return {str(font.get("/BaseFont", "")) for font in fonts}


def _lead_links(
    writer: Any, number: int, path: str, anchors: Mapping[str, Mapping[str, tuple[int, Any]]], address: str
) -> None:
    """Links of one page to pages of this PDF; those to what it does not hold are taken out."""
    from pypdf.generic import ArrayObject, NameObject, NullObject

    page, kept = writer.pages[number], []
    for reference in page.get("/Annots", ()):
        annotation = reference.get_object()
        uri, named = str(annotation.get("/A", {}).get("/URI", "")), annotation.get("/Dest")
        if uri.startswith(f"{address}/"):
            inside, anchor = urldefrag(uri[len(address) + 1 :])
        elif isinstance(named, str):
            inside, anchor = path, named.lstrip("/")
        else:
            kept.append(reference)
            continue
        places = anchors.get(unquote(inside))
        if places is None:
            continue
        to, top = places.get(unquote(anchor), places[""])
        annotation.pop("/A", None)
        annotation[NameObject("/Dest")] = ArrayObject(
            [
                writer.pages[to].indirect_reference,
                NameObject("/XYZ"),
                NullObject(),
                top or NullObject(),
                NullObject(),
            ]
        )
        kept.append(reference)
    if "/Annots" in page:
        page[NameObject("/Annots")] = ArrayObject(kept)


def _cover(sheets: Sequence[Sheet], title: str, author: str, facts: Sequence[str]) -> str:
    """Title page and contents as HTML."""
    return _COVER.format(
        title=html.escape(title),
        author=html.escape(author),
        facts="".join(f"<p>{html.escape(fact)}</p>" for fact in facts),
        lines="".join(f"<li>{html.escape(sheet.title)}<span>{sheet.label}1</span></li>" for sheet in sheets),
    )


_COVER = """<!DOCTYPE html><html lang="zh-CN"><head><title>{title}</title><style>
body {{ font-family: sans-serif; line-height: 1.7; }}
header {{ height: 240mm; display: flex; flex-direction: column; justify-content: center; break-after: page; }}
h1 {{ font-size: 30pt; line-height: 1.4; text-wrap: balance; }}
header p {{ margin: 0.2em 0; color: #444; }}
ul {{ list-style: none; padding: 0; }}
li {{ display: flex; justify-content: space-between; border-bottom: 1px dotted #999; padding: 0.4em 0; }}
</style></head><body><header><h1>{title}</h1><p>{author}</p><br>{facts}</header>
<main><h2>目录</h2><ul>{lines}</ul></main></body></html>"""


# --- EPUB ----------------------------------------------------------------------------------------------


def _write_epub(
    target: Path, site: Path, sheets: Sequence[Sheet], title: str, author: str, facts: Sequence[str]
) -> None:
    """EPUB 3: a page each, the images they show, one style sheet."""
    names = {
        sheet.path: f"{number:02}-{PurePosixPath(sheet.path).stem}.xhtml"
        for number, sheet in enumerate(sheets)
    }
    images: dict[str, bytes] = {}
    texts = {}
    for sheet in sheets:
        body = _own_links(sheet, names, images, site)
        texts[names[sheet.path]] = _PAGE.format(title=html.escape(sheet.title), body=body)
    front = "".join(f"<p>{html.escape(fact)}</p>" for fact in (author, *facts))
    texts["title.xhtml"] = _PAGE.format(
        title=html.escape(title), body=f"<h1>{html.escape(title)}</h1>{front}"
    )
    items = "".join(
        f'<li><a href="{names[sheet.path]}">{html.escape(sheet.title)}</a></li>' for sheet in sheets
    )
    texts["nav.xhtml"] = _PAGE.format(
        title="目录", body=f'<nav epub:type="toc" id="toc"><h1>目录</h1><ol>{items}</ol></nav>'
    )
    order = ["title.xhtml", "nav.xhtml", *names.values()]
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)
        book.writestr("META-INF/container.xml", _CONTAINER)
        book.writestr("EPUB/package.opf", _package(texts, images, order, title, author))
        book.writestr("EPUB/style.css", _STYLE)
        for name, text in texts.items():
            book.writestr(f"EPUB/{name}", text)
        for name, data in images.items():
            book.writestr(f"EPUB/{name}", data)


def _own_links(sheet: Sheet, names: Mapping[str, str], images: dict[str, bytes], site: Path) -> str:
    """The sheet's XHTML with links and images of the site turned into those of the EPUB."""
    folder, stem = PurePosixPath(sheet.path).parent, PurePosixPath(sheet.path).stem

    def link(found: re.Match[str]) -> str:
        target, anchor = urldefrag(html.unescape(found[1]))
        if ":" in target or not target:
            return found[0]
        inside = os.path.normpath(folder / unquote(target))
        if inside not in names:
            return ""  # what the copy does not hold: the words stay, the link goes
        return f'href="{names[inside]}{f"#{anchor}" if anchor else ""}"'

    def image(found: re.Match[str]) -> str:
        name = html.unescape(found[1])
        if name in sheet.pictures:
            images[f"{stem}-{name}"] = sheet.pictures[name]
            return f'src="{stem}-{name}"'
        path = site / os.path.normpath(folder / unquote(name))
        images[path.name] = path.read_bytes()
        return f'src="{path.name}"'

    return re.sub(r'src="([^"]*)"', image, re.sub(r'href="([^"]*)"', link, sheet.body))


def _package(
    texts: Mapping[str, str], images: Mapping[str, bytes], order: Sequence[str], title: str, author: str
) -> str:
    def item(name: str) -> str:
        suffix = PurePosixPath(name).suffix
        held = [word for tag, word in (("<math", "mathml"), ("<svg", "svg")) if tag in texts.get(name, "")]
        held += ["nav"] if name == "nav.xhtml" else []
        extra = f' properties="{" ".join(held)}"' if held else ""
        return f'<item id="{_identifier(name)}" href="{name}" media-type="{_TYPES[suffix]}"{extra}/>'

    return _PACKAGE.format(
        identifier=uuid.uuid5(uuid.NAMESPACE_URL, title),
        title=html.escape(title),
        author=html.escape(author),
        modified=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        manifest="".join(map(item, [*texts, *images, "style.css"])),
        spine="".join(f'<itemref idref="{_identifier(name)}"/>' for name in order),
    )


def _identifier(name: str) -> str:
    return "i-" + re.sub(r"[^\w-]", "-", name)


_TYPES = {
    ".xhtml": "application/xhtml+xml",
    ".css": "text/css",
    ".png": "image/png",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".gif": "image/gif",
    ".svg": "image/svg+xml",
}
_CONTAINER = """<?xml version="1.0" encoding="UTF-8"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>
<rootfile full-path="EPUB/package.opf" media-type="application/oebps-package+xml"/></rootfiles></container>
"""
_PACKAGE = """<?xml version="1.0" encoding="UTF-8"?>
<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id" xml:lang="zh-CN">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:identifier id="id">urn:uuid:{identifier}</dc:identifier>
<dc:title>{title}</dc:title><dc:creator>{author}</dc:creator><dc:language>zh-CN</dc:language>
<meta property="dcterms:modified">{modified}</meta></metadata>
<manifest>{manifest}</manifest><spine>{spine}</spine></package>
"""
_PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops" lang="zh-CN" xml:lang="zh-CN">
<head><title>{title}</title><link rel="stylesheet" type="text/css" href="style.css"/></head><body>{body}</body></html>
"""
_STYLE = """body { line-height: 1.7; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 0.85em; background: #f3f4f5; padding: 0.6em; }
table { border-collapse: collapse; font-size: 0.9em; }
th, td { border: 1px solid #bbb; padding: 0.2em 0.5em; text-align: start; }
img { max-width: 100%; }
blockquote, .run-card, .folded {
  border-inline-start: 3px solid #2b5c8a; margin-inline: 0; padding-inline-start: 0.8em;
}
.folded > div:first-child { font-weight: bold; }
"""
