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

from markupsafe import Markup

from harness.archive.recorded import RunResult
from harness.book.config import toc_pages
from harness.errors import HarnessError
from harness.files import PACKAGE
from harness.report import dashboard
from harness.report.fill import fill
from harness.report.words import Words
from harness.wording import Language, html_language

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
_TEMPLATES = Path(__file__).with_name("templates")
_PATIENCE = 60_000  # milliseconds for a page to be drawn
_MARGIN = {"top": "18mm", "bottom": "20mm", "left": "17mm", "right": "17mm"}
_DRAWN = "() => [...document.querySelectorAll('pre.mermaid')].every(one => one.querySelector('svg'))"


@dataclass(frozen=True)
class Cover:
    """What a copy says of itself on its first page."""

    title: str
    author: str
    facts: Sequence[str]  # of the run that the numbers come from
    words: Words

    @property
    def lang(self) -> str:
        return html_language(self.words.language)


@dataclass
class Sheet:
    """One page of the site, printed."""

    path: str  # inside the site
    title: str
    label: str  # before its page numbers
    pdf: bytes = b""
    body: str = ""  # XHTML
    pictures: dict[str, bytes] = field(default_factory=dict)  # of diagrams, by name


def offered(root: Path, run: RunResult | None, language: Language) -> dict[str, str]:
    """Copies that can be made of the book in *root*: kind -> file; the source where git has the run's commit."""
    source = {Words(language).source: SOURCE} if _has_commit(root, run) else {}
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


def make_copies(
    root: Path, site: Path, run: RunResult | None, title: str, author: str, language: Language
) -> list[Path]:
    """Print the built *site* of the book in *root* as PDF and EPUB, into the site itself; returns both files.

    Raises:
        HarnessError: no Chromium, a package that is not installed, or a page that cannot be drawn.
    """
    sheets = list(_sheets(root / "_toc.yml", site))
    words = Words(language)
    cover = Cover(title, author, _facts(run, words), words)
    with served(site) as address, open_browser() as browser:
        context = browser.new_context(color_scheme="light", device_scale_factor=2)
        page = context.new_page()
        page.set_default_timeout(_PATIENCE)
        for sheet in sheets:
            _visit(page, address, sheet)
        if lacking := _lacking(sheets):
            print(f"warning: the copies' fonts lack {' '.join(lacking)}; add them in sft/fonts/subset.py")
        _write_pdf(site / PDF, page, sheets, address, cover)
        context.close()
    _write_epub(site / EPUB, site, sheets, cover)
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


def _facts(run: RunResult | None, words: Words) -> list[str]:
    """What the title page says of the run that the numbers come from."""
    if run is None:
        return [words.cover_no_run]
    counts = re.sub(r"\[([^\]]+)\]\{[^}]+\}", r"\1", dashboard.counts_text(run, words))
    commit = dashboard.commit_text(run.manifest, words).replace("`", "")
    return [
        words("cover_run", run.manifest.run),
        words("cover_profile", run.manifest.profile, words.machine_of(run.manifest)),
        f"{words.moment_of(run.manifest.started)} · {words('of_commit', commit)}",
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
        names = [one.name for one in files]
        text = fill(
            _TEMPLATES / "fonts.conf.j2", folders={one.parent for one in files}, cache=own, names=names
        )
        file.write_text(text, encoding="utf-8")
        yield file


def _script(name: str) -> str:
    """What Chromium is given, without comments before its first line."""
    text = (_TEMPLATES / name).read_text(encoding="utf-8")
    return re.sub(r"\A(//.*\n)+", "", text)


def _visit(page: Any, address: str, sheet: Sheet) -> None:
    """Print one page, and take its article and its diagrams."""
    from playwright.sync_api import Error

    try:
        page.emulate_media(media="screen")
        page.goto(f"{address}/{sheet.path}", wait_until="networkidle")
        page.evaluate(_script("ready.js"))
        page.wait_for_function(_DRAWN)
        for number, diagram in enumerate(page.locator("pre.mermaid svg").all()):
            sheet.pictures[f"diagram-{number}.png"] = diagram.screenshot()
        sheet.body = page.evaluate(_script("extract.js"))
        page.add_style_tag(content=_script("print.css"))
        page.emulate_media(media="print")
        page.evaluate(_script("settled.js"))
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


def _write_pdf(target: Path, page: Any, sheets: Sequence[Sheet], address: str, cover: Cover) -> None:
    from pypdf import PdfReader, PdfWriter
    from pypdf.generic import BooleanObject, DictionaryObject, NameObject, TextStringObject

    contents = cover.words.Contents
    page.set_content(fill(_TEMPLATES / "cover.html.j2", cover=cover, sheets=sheets, contents=contents))
    front = PdfReader(io.BytesIO(_print(page)))
    if not any("SFTBookSans" in name for name in _font_names(front.pages[0])):
        print(
            "warning: this browser shows this machine's fonts, not the book's; Debian's Chromium takes them"
        )
    writer = PdfWriter()
    writer.append(front, outline_item=cover.title, import_outline=False)
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
    catalogue[NameObject("/Lang")] = TextStringObject(cover.lang)
    catalogue[NameObject("/ViewerPreferences")] = DictionaryObject(
        {NameObject("/DisplayDocTitle"): BooleanObject(True)}
    )
    writer.add_metadata({"/Title": cover.title, "/Author": cover.author})
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


# --- EPUB ----------------------------------------------------------------------------------------------


def _write_epub(target: Path, site: Path, sheets: Sequence[Sheet], cover: Cover) -> None:
    """EPUB 3: a page each, the images they show, one style sheet."""

    def page(title: str, body: str) -> str:
        return fill(_TEMPLATES / "page.xhtml.j2", cover=cover, title=title, body=Markup(body))

    names = {
        sheet.path: f"{number:02}-{PurePosixPath(sheet.path).stem}.xhtml"
        for number, sheet in enumerate(sheets)
    }
    images: dict[str, bytes] = {}
    texts = {names[sheet.path]: page(sheet.title, _own_links(sheet, names, images, site)) for sheet in sheets}
    front = "".join(f"<p>{html.escape(fact)}</p>" for fact in (cover.author, *cover.facts))
    texts["title.xhtml"] = page(cover.title, f"<h1>{html.escape(cover.title)}</h1>{front}")
    contents, pages = cover.words.Contents, [(names[sheet.path], sheet.title) for sheet in sheets]
    nav = fill(_TEMPLATES / "nav.xhtml.j2", contents=contents, pages=pages)
    texts["nav.xhtml"] = page(contents, nav.strip())
    order = ["title.xhtml", "nav.xhtml", *names.values()]
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)
        book.writestr("META-INF/container.xml", _script("container.xml"))
        book.writestr("EPUB/package.opf", _package(texts, images, order, cover))
        book.writestr("EPUB/style.css", _script("epub.css"))
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
    texts: Mapping[str, str], images: Mapping[str, bytes], order: Sequence[str], cover: Cover
) -> str:
    def held(name: str) -> str:
        found = [word for tag, word in (("<math", "mathml"), ("<svg", "svg")) if tag in texts.get(name, "")]
        return " ".join([*found, *(["nav"] if name == "nav.xhtml" else [])])

    return fill(
        _TEMPLATES / "package.opf.j2",
        cover=cover,
        identifier=uuid.uuid5(uuid.NAMESPACE_URL, cover.title),
        modified=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        items=[
            {"id": _identifier(n), "name": n, "type": _TYPES[PurePosixPath(n).suffix], "held": held(n)}
            for n in (*texts, *images, "style.css")
        ],
        spine=map(_identifier, order),
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
