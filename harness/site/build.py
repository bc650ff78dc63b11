"""Publish the book: stage a source tree from chapters and a run, let Jupyter Book render it.

The staged tree mirrors the repository, so that edit links open the right file. Only files whose content
changed are written, which is what Sphinx's incremental build goes by; where nothing changed since the last
good build, Sphinx is not started at all.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

from harness.archive.folder import build_dir, runs_dir
from harness.archive.recorded import RunResult, read_result, refuse_shard
from harness.book.config import Book, site_config, toc_pages
from harness.book.notebook import read_notebook
from harness.book.sources import is_file
from harness.book.yaml_file import read_yaml
from harness.errors import HarnessError
from harness.files import PACKAGE, explain_os_error, read_json, write_json, write_text
from harness.model import JobResult
from harness.report import dashboard
from harness.report.fill import fill
from harness.report.history import background
from harness.report.words import Words
from harness.site import matrix_page
from harness.site.copies import EPUB, PDF, SOURCE, check_copies, make_copies, offered, pack_source
from harness.site.pages import (
    Evidence,
    Notebook,
    cite,
    find_citation,
    is_stale,
    place_in,
    rewrite_links,
    stage,
)
from harness.wording import Language, html_language

_TEMPLATES = Path(__file__).with_name("templates")
_PARTS = ("_config.yml", "_toc.yml", "_ext", "_static", "vendor")
_SKIPPED = frozenset({"__pycache__", ".ipynb_checkpoints", "_build"})
_PACKAGES = (
    "jupyter-book",
    "Sphinx",
    "myst-nb",
    "myst-parser",
    "pydata-sphinx-theme",
    "sphinx-book-theme",
    "sphinx-mathjax-offline",
    "sphinxcontrib-bibtex",
    "sphinxcontrib-mermaid",
)
_PROBLEM = re.compile(r"\b(?:WARNING|ERROR|CRITICAL|Extension error|Configuration error|Exception)\b")
_PAGES = frozenset({".ipynb", ".md", ".rst"})
_NAME = re.compile(
    r"""<([^<>\n]+)>|([^\s()<>\[\]{}"'`,]+)"""
)  # what may be the path of a file in a page's text
_BIB_KEY = re.compile(r"^@\w+\{([^,\s]+),", re.MULTILINE)
_CELL_LINE = re.compile(r"(?P<page>[^\s:]+\.ipynb):(?P<cell>\d+)(?P<line>\d{4})\b")  # as MyST-NB counts them
_READ: Mapping[Language, re.Pattern[str]] = {"zh": re.compile("[\u4e00-\u9fff]"), "en": re.compile(r"\w+")}
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_DASHBOARD_PAGE = "reproduction.md"
_GENERATED = re.compile(r"^<!-- harness:(?P<name>[\w-]+) -->[ \t]*$", re.MULTILINE)
_STYLE = "_static/harness.css"  # Jupyter Book links every style sheet of that folder on every page
_FILLED_ELSEWHERE = frozenset({"dashboard", "last-run"})


Generated = Mapping[str, Callable[[], str]]
"""What the line ``<!-- harness:NAME -->`` of a Markdown page becomes, by name."""


def build(
    book: Book,
    run_dir: Path | None,
    generated: Generated,
    *,
    warnings_are_errors: bool = True,
    copies: bool = False,
) -> Path:
    """Render the site with the outputs of *run_dir*; returns the page to open.

    Args:
        generated: parts of pages that are made from the harness itself; see :data:`harness.cli.app.GENERATED`.
        copies: make PDF, EPUB and an archive of the source, too, for the front page to offer.

    Raises:
        HarnessError: no configuration, an unreadable run or notebook, or a build with warnings.
    """
    check_site(book)
    if copies:
        check_copies()
    folder = build_dir(book.root)
    source, site, stamp = folder / "site-src", folder / "site", folder / "site-stamp.json"
    run = read_result(run_dir) if run_dir else None
    language = language_of(book)
    kinds = offered(book.root, run, language) if copies else {}
    files = stage_tree(book, run, source, generated, kinds)
    fingerprint = _fingerprint(files, warnings_are_errors)
    index = site / "index.html"
    before = read_json(stamp) if index.is_file() and stamp.is_file() else {}
    if before == fingerprint:
        return index
    stamp.unlink(missing_ok=True)
    if any(before.get(key) != fingerprint[key] for key in ("frame", "python", "versions")):
        for rendered in (folder / "site-doctrees", site):  # Sphinx would keep pages that look the same to it
            shutil.rmtree(rendered, ignore_errors=True)
    _render(book.root, source, site, warnings_are_errors)
    if (door := _front_door(source, language)) is not None:
        write_text(index, door)
    for name in (PDF, EPUB, SOURCE):  # those of an earlier run
        (site / name).unlink(missing_ok=True)
    if copies:
        config = site_config(source)
        title, author = (str(config.get(key, "")) for key in ("title", "author"))
        make_copies(source, site, run, title, author, language)
        if run and SOURCE in kinds.values():
            pack_source(book.root, run.manifest.commit, site / SOURCE)
    write_json(stamp, fingerprint)
    return index


def check_site(book: Book) -> None:
    """Whether a site can be built at all: what can be told before an hour of training.

    Raises:
        HarnessError: a configuration file is missing or broken, or Jupyter Book is not installed.
    """
    if not (book.root / "_toc.yml").is_file():
        raise HarnessError(f"{book.root / '_toc.yml'} does not exist; the site needs it")
    site_config(book.root)
    if importlib.util.find_spec("jupyter_book") is None:
        raise HarnessError("jupyter-book is not installed; install the book's `site` extra")


def fill_markers(page: str, text: str, generated: Generated) -> str:
    """*text*, the content of *page*, with each marker replaced by what it stands for.

    Raises:
        HarnessError: a marker of no known name.
    """

    def made(found: re.Match[str]) -> str:
        name = found["name"]
        if name in _FILLED_ELSEWHERE:
            return found[0]
        if name not in generated:
            known = ", ".join(sorted({*generated, *_FILLED_ELSEWHERE}))
            raise HarnessError(f"{page}: nothing is called harness:{name}; names: {known}")
        return generated[name]().rstrip("\n")

    return _GENERATED.sub(made, text)


def _decoded(path: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise HarnessError(f"{path}: not UTF-8 text; save it as UTF-8") from None


def stage_tree(
    book: Book,
    run: RunResult | None,
    target: Path,
    generated: Generated,
    copies: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, bytes]:
    """Bring *target* up to date and return what it holds, by path; its front page offers *copies*: kind -> file."""
    if run:
        refuse_shard(run.manifest, "the site")
    files = {path: (book.root / path).read_bytes() for path in _source_files(book)}
    files.setdefault(_STYLE, (_TEMPLATES / "pages.css").read_bytes())
    link = _repository_link(book.root, frozenset(files))
    keys = frozenset(
        key
        for path in files
        if path.endswith(".bib")
        for key in _BIB_KEY.findall(_decoded(path, files[path]))
    )
    language = language_of(book)
    evidence, changed = _evidence(book, run), set()
    for chapter in book.chapters:
        path = chapter.relative_to(book.root).as_posix()
        facts = evidence.get(chapter.stem)
        executed = _executed(book, facts) if facts else None
        source = _read_notebook(chapter)
        staged = stage(source, executed, facts, language)
        if is_stale(source, executed):
            changed.add(chapter.stem)
        for cell in staged["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = _link_text(cell["source"], source, path, link, keys)
        files[path] = json.dumps(staged, ensure_ascii=False, indent=1).encode()
    board = (book.chapters_dir / _DASHBOARD_PAGE).relative_to(book.root).as_posix()
    lengths = {chapter.stem: _length(chapter, language) for chapter in book.chapters}

    def time(found: re.Match[str]) -> str:
        mine = {name: count for name, count in lengths.items() if name.startswith(f"{found[1]}-")}
        return dashboard.time_text(run, mine, language)

    titles = {chapter.stem: read_notebook(chapter).title for chapter in book.chapters}
    for path, content in files.items():
        if path.endswith(".md") and not path.startswith(("vendor/", "_")):
            text = dashboard.TIME.sub(time, fill_markers(path, _decoded(path, content), generated))
            text = matrix_page.fill(text, book.root / path, book, run.folder if run else None, language)
            if dashboard.LAST_RUN in text:
                place = os.path.relpath(board, PurePosixPath(path).parent) if board in files else ""
                up = os.path.relpath(".", PurePosixPath(path).parent)
                links = {kind: f"{up}/{name}" for kind, name in copies.items()}
                said = dashboard.last_run(run, titles, place, links, changed, language)
                text = text.replace(dashboard.LAST_RUN, said)
            files[path] = rewrite_links(text, lambda to, page=path: link(page, to)).encode()
    if board in files:
        files[board] = _dashboard_page(book, run, files[board].decode(), titles, language).encode()
    _synchronise(files, target)
    return files


def language_of(book: Book) -> Language:
    """In which words the harness speaks on the book's pages: as _config.yml says, else as its chapters are written."""
    if book.language:
        return "zh" if book.language == "zh" else "en"
    return "zh" if any(read_notebook(chapter).written_in == "zh" for chapter in book.chapters) else "en"


def _length(chapter: Path, language: Language) -> int:
    """Chinese characters, or words, of a chapter's prose."""
    prose = (cell.source for cell in read_notebook(chapter).cells if cell.type == "markdown")
    return sum(len(_READ[language].findall(text)) for text in prose)


def _link_text(
    text: str, chapter: Notebook, page: str, link: Callable[[str, str], str], keys: frozenset[str]
) -> str:
    """A notebook's Markdown with its citations and its links out of the book resolved."""
    try:
        text = cite(text, keys)
    except KeyError as missing:
        place = find_citation(chapter, missing.args[0])
        raise HarnessError(
            f"{page}{place}: no entry {missing} in the bibliography; add it to references.bib"
        ) from None
    return rewrite_links(text, lambda target: link(page, target))


def _source_files(book: Book) -> list[str]:
    """Everything the site is made from, relative to the root; claim files stay out.

    The chapters' folder counts whole where it is one of their own. Of the rest of the book, which may hold anything
    (environments, data), the pages that _toc.yml names count, with the files that they and _config.yml name.
    """
    own = [] if book.chapters_dir == book.root else [book.chapters_dir]
    found: dict[Path, None] = {}
    for top in (*(book.root / part for part in _PARTS), *own):
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file():
                found[path] = None
    pages = dict.fromkeys((*toc_pages(book.root / "_toc.yml"), *book.chapters))
    elsewhere = [page for page in pages if page not in found]
    found |= dict.fromkeys(elsewhere)
    for page in (*elsewhere, book.root / "_config.yml"):
        found |= dict.fromkeys(path for path in _named_by(page) if _is_plain(path, book.root))
    inside = [path.relative_to(book.root) for path in found if book.claims_dir not in path.parents]
    return [path.as_posix() for path in inside if not _SKIPPED & set(path.parts)]


def _named_by(page: Path) -> Iterator[Path]:
    """Files that the text of *page* names, as pictures and links do; other pages are for _toc.yml to name."""
    if page.suffix == ".ipynb":
        text = "\n".join(cell.source for cell in read_notebook(page).cells if cell.type == "markdown")
    else:
        text = _decoded(str(page), page.read_bytes())
    for found in _NAME.finditer(text):
        name = unquote((found[1] or found[2]).partition("#")[0])
        path = Path(os.path.normpath(page.parent / name)) if "." in name else None
        if path is not None and path.suffix not in _PAGES and is_file(path):
            yield path


def _is_plain(path: Path, root: Path) -> bool:
    """Whether *path* lies in the book, and in nothing that is hidden."""
    return path.is_relative_to(root) and not any(n.startswith(".") for n in path.relative_to(root).parts)


def _evidence(book: Book, run: RunResult | None) -> dict[str, Evidence]:
    """What the run says of each chapter; the first seed stands for the chapter."""
    jobs: dict[str, JobResult] = {}
    for job in run.jobs if run else ():
        if job.chapter:
            jobs.setdefault(job.chapter, job)
    page, found = book.chapters_dir / _DASHBOARD_PAGE, {}
    for chapter in book.chapters if run else ():
        if job := jobs.get(chapter.stem):
            link = Path(os.path.relpath(page.with_suffix(".html"), chapter.parent)).as_posix()
            found[chapter.stem] = Evidence(run, job, link if page.is_file() else None)
    return found


def _executed(book: Book, evidence: Evidence) -> Notebook | None:
    """The notebook a job left behind, in this run or in the one its cached result comes from."""
    job, places = evidence.job, [evidence.run.folder]
    if job.cached_from:
        places += [places[0].parent / job.cached_from, runs_dir(book.root) / job.cached_from]
    for place in places:
        path = place / "jobs" / job.id / "out.ipynb"
        if path.is_file():
            return _read_notebook(path)
    return None


def _read_notebook(path: Path) -> Notebook:
    notebook = read_json(path)
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise HarnessError(
            f"{path} is not a notebook (no list of cells); run the chapter again or mend the file"
        )
    return notebook


def _dashboard_page(
    book: Book, run: RunResult | None, page: str, titles: Mapping[str, str], language: Language
) -> str:
    if run is None:
        generated = Words(language).no_run
    else:
        generated = dashboard.render(run, titles, background(run, book), language)
    if dashboard.MARKER not in page:
        raise HarnessError(f"{book.chapters_dir / _DASHBOARD_PAGE}: the line {dashboard.MARKER} is missing")
    return page.replace(dashboard.MARKER, generated)


def _repository_link(root: Path, staged: frozenset[str]) -> Callable[[str, str], str]:
    """A function (page, target) → target: what the site does not hold is linked in the repository."""
    repository = site_config(root).get("repository") or {}
    address, branch = str(repository.get("url", "")).rstrip("/"), repository.get("branch", "main")

    def link(page: str, target: str) -> str:
        name, _, fragment = target.partition("#")
        if not address or not name or ":" in name or name.startswith("/"):
            return target
        inside = os.path.normpath(PurePosixPath(page).parent / name)
        if inside in staged or inside.startswith("..") or not (root / inside).exists():
            return target
        kind = "tree" if (root / inside).is_dir() else "blob"
        return f"{address}/{kind}/{branch}/{inside}" + (f"#{fragment}" if fragment else "")

    return link


def _synchronise(files: Mapping[str, bytes], target: Path) -> None:
    """Write what changed, remove what is gone, leave the rest and its time stamps alone."""
    try:
        for path, content in files.items():
            place = target / path
            if not place.is_file() or place.read_bytes() != content:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
        for place in target.rglob("*"):
            inside = place.relative_to(target)
            if place.is_file() and inside.as_posix() not in files and "__pycache__" not in inside.parts:
                place.unlink()
    except OSError as error:
        raise explain_os_error(error, f"cannot stage the site under {target}") from None


def _fingerprint(files: Mapping[str, bytes], strict: bool) -> dict[str, Any]:
    """What a site is made from: its pages, and the frame that each of them stands in."""
    digests = {"pages": hashlib.sha256(), "frame": hashlib.sha256()}
    for path in sorted(files):
        digest = digests["frame" if path.partition("/")[0] in _PARTS else "pages"]
        digest.update(path.encode() + b"\0" + hashlib.sha256(files[path]).digest())
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = ""
    made_from = {part: digest.hexdigest() for part, digest in digests.items()}
    return made_from | {"strict": strict, "python": sys.version, "versions": versions}


def _render(root: Path, source: Path, site: Path, strict: bool) -> None:
    """Run Sphinx in a process of its own, its output in a log."""
    log, doctrees = site.with_name("site.log"), site.with_name("site-doctrees")
    command = [
        sys.executable,
        "-m",
        "harness.site.sphinx",
        str(source),
        str(site),
        str(doctrees),
        str(int(strict)),
    ]
    search = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, search)),
        "PYTHONUTF8": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "NO_COLOR": "1",
    }
    try:
        with log.open("w", encoding="utf-8") as output:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
            )
    except OSError as error:
        raise explain_os_error(error, f"cannot build the site under {site}") from None
    if done.returncode:
        raise HarnessError(_explain(log.read_text(encoding="utf-8", errors="replace"), root, source, log))


def _explain(text: str, root: Path, source: Path, log: Path) -> str:
    """One line: how many problems, where the log is, the first of them with file and line."""
    lines = [_ANSI.sub("", line).replace(f"{source}/", "") for line in text.splitlines()]
    problems = list(dict.fromkeys(line.strip() for line in lines if _PROBLEM.search(line)))
    problems = problems or [line.strip() for line in lines if line.strip()][-1:]
    more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
    place = log.relative_to(root) if log.is_relative_to(root) else log
    named = [_CELL_LINE.sub(lambda found: _name_cell(found, root, source), line) for line in problems[:3]]
    return f"the site did not build, see {place}: {' | '.join(named) or 'no output'}{more}"


def _name_cell(found: re.Match[str], root: Path, source: Path) -> str:
    """MyST-NB's count of cells and lines in the staged notebook as a place in the chapter."""
    page, number, line = found["page"], int(found["cell"]) - 1, int(found["line"]) - 1
    try:
        staged = _read_notebook(source / page)["cells"][number]
        return page + place_in(_read_notebook(root / page), staged, line)
    except (HarnessError, LookupError):  # a count that is none of ours
        return found[0]


def _front_door(source: Path, language: Language) -> str | None:
    """The site's index.html: straight on to the book's first page; None where it is that page."""
    toc, config = read_yaml(source / "_toc.yml"), site_config(source)
    page = f"{PurePosixPath(toc['root']).with_suffix('')}.html"
    if page == "index.html":
        return None
    return fill(
        _TEMPLATES / "index.html.j2",
        lang=html_language(language),
        page=page,
        title=str(config.get("title", "")),
    )
