"""Staging to disk, the incremental build and what a user sees when it fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import mini_book
import psutil
import pytest

from harness.archive.recorded import read_result
from harness.book.config import load_book
from harness.cli.app import GENERATED, main
from harness.errors import ExitCode, HarnessError
from harness.model import JobState, Outcome
from harness.site import build as book_module
from harness.site.build import build, stage_tree
from harness.site.sphinx import overrides

LIMIT_MB = 8
LIMIT_OF_MODELS_MB = 25


@pytest.fixture
def small_book(tmp_path) -> Path:
    return mini_book.write_book(tmp_path)


def stage_run(root: Path, executed=None, **changes) -> tuple[Path, dict[str, bytes]]:
    run = mini_book.write_run(root, mini_book.document(**changes), executed)
    return run, stage_tree(load_book(root), read_result(run), root / "_build" / "site-src", GENERATED)


def test_the_staged_tree_mirrors_the_repository_without_claims(small_book):
    _, files = stage_run(small_book, mini_book.chapter(True))
    assert {"_config.yml", "_toc.yml", "_ext/local_assets.py", "chapters/05-mini.ipynb"} <= set(files)
    assert not any(path.startswith("chapters/claims") for path in files)


def test_another_book_has_the_harness_own_style_sheet(small_book):
    """Whatever the harness puts onto a chapter's page looks alike in any book."""
    shutil.rmtree(small_book / "_static")
    _, files = stage_run(small_book, mini_book.chapter(True))
    sheet, page = files["_static/harness.css"].decode(), files["chapters/05-mini.ipynb"].decode()
    classes = set(re.findall(r"run-card|recorded|verdict-\w+", page))
    assert {"run-card", "recorded", "verdict-pass"} <= classes
    outcomes = {f"verdict-{outcome.value}" for outcome in Outcome}
    assert {
        one for one in classes | outcomes | {"run-card-warn", "claim-figures"} if f".{one}" not in sheet
    } == set()
    used, own = set(re.findall(r"var\((--\w[\w-]*)\)", sheet)), set(re.findall(r"(--\w[\w-]*):", sheet))
    assert used <= own


def test_a_book_does_not_say_again_what_the_harness_brings():
    own = (mini_book.REPOSITORY / "_static" / "book.css").read_text(encoding="utf-8")
    assert not re.findall(r"run-card|\.verdict|\.recorded|claim-figures|--good:|--card:", own)


def test_a_book_may_have_a_style_sheet_of_its_own_for_that(small_book):
    (small_book / "_static" / "harness.css").write_text(".verdict { color: red }", encoding="utf-8")
    _, files = stage_run(small_book, mini_book.chapter(True))
    assert files["_static/harness.css"] == b".verdict { color: red }"


@pytest.fixture
def flat_book(tmp_path) -> Path:
    """Notebooks and pages beside harness.yml, among much that is none of the book's."""
    for name, text in {
        "harness.yml": "book: A\nchapters: .\nclaims: claims\n",
        "_toc.yml": "format: jb-book\nroot: index\nchapters:\n- file: a\n- file: more/b\n",
        "_config.yml": "title: A\nlogo: logo.svg\nbibtex_bibfiles: [sources.bib]\n",
        "index.md": "# A\n\n![a drawing](pictures/my%20drawing.svg) and [numbers](<data/one two.csv>), [c](c.md)\n",
        "more/b.md": "# B\n\n![b](../pictures/b.svg) <img src='/etc/hosts'> ../../out.txt ../.secret/key.pem\n",
        "c.md": "# Not in the table of contents\n",
        "env/pyvenv.cfg": "", "env/lib/site.py": "", "data/large.csv": "", "claims/a.yml": "claims: []\n",
        **dict.fromkeys(("logo.svg", "pictures/my drawing.svg", "pictures/b.svg"), "<svg xmlns='http://www.w3.org/2000/svg'/>"),
        **dict.fromkeys(("sources.bib", "data/one two.csv", ".secret/key.pem", "../out.txt"), ""),
    }.items():  # fmt: skip
        path = tmp_path / "book" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    source = mini_book.chapter(False)
    source["cells"] = [
        {"cell_type": "markdown", "id": "t", "metadata": {}, "source": "# One\n\n![x](pictures/b.svg)"}
    ]
    mini_book.write_notebook(tmp_path / "book" / "a.ipynb", source)
    return tmp_path / "book"


def test_of_a_flat_book_only_the_pages_and_what_they_name_are_staged(flat_book):
    files = stage_tree(load_book(flat_book), None, flat_book / "_build" / "site-src", GENERATED)
    assert set(files) == {
        "_toc.yml", "_config.yml", "_static/harness.css", "index.md", "a.ipynb", "more/b.md", "logo.svg",
        "sources.bib", "pictures/my drawing.svg", "pictures/b.svg", "data/one two.csv",
    }  # fmt: skip


def test_the_page_called_index_stays_the_first_one(flat_book):
    assert book_module._front_door(flat_book, "en") is None
    (flat_book / "_toc.yml").write_text("format: jb-book\nroot: intro\n", encoding="utf-8")
    assert "intro.html" in book_module._front_door(flat_book, "en")


def test_only_changed_files_are_written(small_book):
    run, files = stage_run(small_book, mini_book.chapter(True))
    target = small_book / "_build" / "site-src"
    before = {path: (target / path).stat().st_mtime_ns for path in files}
    (small_book / "chapters" / "bibliography.md").write_text("# 参考文献\n", encoding="utf-8")
    (small_book / "_static" / "favicon.svg").unlink()
    stage_tree(load_book(small_book), read_result(run), target, GENERATED)
    assert not (target / "_static" / "favicon.svg").exists()
    after = {path: (target / path).stat().st_mtime_ns for path in files if (target / path).exists()}
    assert {path for path in after if after[path] != before[path]} == {"chapters/bibliography.md"}


def test_links_out_of_the_book_lead_to_the_repository(small_book):
    _, files = stage_run(small_book, mini_book.chapter(True))
    text = files["chapters/05-mini.ipynb"].decode()
    assert re.search(r"\(https://[^)]+/blob/main/sft/training\.py\)", text)
    assert "(bibliography.md)" in text


def test_the_first_seed_stands_for_the_chapter(small_book):
    jobs = [mini_book.job(seed=0), mini_book.job(seed=1, id="05-mini-offline-seed1", seconds=1.0)]
    _, files = stage_run(small_book, mini_book.chapter(True), jobs=jobs)
    assert "3 分 52 秒" in files["chapters/05-mini.ipynb"].decode()


def test_a_chapter_in_a_folder_of_its_own_leads_to_the_dashboard_above(small_book):
    chapters, toc = small_book / "chapters", small_book / "_toc.yml"
    (chapters / "part").mkdir()
    (chapters / "05-mini.ipynb").rename(chapters / "part" / "05-mini.ipynb")
    toc.write_text(toc.read_text("utf-8").replace("chapters/05-mini", "chapters/part/05-mini"), "utf-8")
    _, files = stage_run(small_book, mini_book.chapter(True))
    page = files["chapters/part/05-mini.ipynb"].decode()
    assert re.findall(r'href=\\"([^"]*reproduction[^"]*)\\"', page) == ["../reproduction.html#claims-05-mini"]


def test_a_cached_job_takes_its_notebook_from_the_run_it_came_from(small_book):
    mini_book.write_run(small_book, mini_book.document(run="old"), mini_book.chapter(True))
    cached = mini_book.job(JobState.SKIPPED, cached_from="old")
    _, files = stage_run(small_book, None, jobs=[cached])
    text = files["chapters/05-mini.ipynb"].decode()
    assert "第 3 轮" in text and "结果沿用运行 `old`" in text


def test_without_a_run_the_pages_say_so(small_book):
    files = stage_tree(load_book(small_book), None, small_book / "_build" / "site-src", GENERATED)
    assert "本章还没有运行过" in files["chapters/05-mini.ipynb"].decode()
    assert "还没有运行记录" in files["chapters/reproduction.md"].decode()


def test_an_unknown_citation_names_the_page_the_cell_and_the_line(small_book):
    (small_book / "chapters" / "references.bib").write_text("", encoding="utf-8")
    place = r"chapters/05-mini\.ipynb, cell opening, line 3: no entry 'devlin2019bert'"
    with pytest.raises(HarnessError, match=place):
        stage_run(small_book)


def test_an_unknown_citation_in_a_cell_without_id_has_the_number_of_the_cell(small_book):
    (small_book / "chapters" / "references.bib").write_text("", encoding="utf-8")
    source = mini_book.chapter(False)
    for cell in source["cells"]:
        del cell["id"]
    mini_book.write_notebook(small_book / "chapters" / "05-mini.ipynb", source)
    with pytest.raises(HarnessError, match=r"05-mini\.ipynb, cell 1, line 3: no entry"):
        stage_run(small_book)


def test_the_front_page_names_a_chapter_whose_code_changed_since(small_book):
    _, files = stage_run(small_book, mini_book.chapter(True))
    assert "代码在运行之后改过" not in files["chapters/index.md"].decode()
    source = mini_book.chapter(False)
    source["cells"][1]["source"] = "num_epochs = 4"
    mini_book.write_notebook(small_book / "chapters" / "05-mini.ipynb", source)
    _, files = stage_run(small_book, mini_book.chapter(True))
    assert "**代码在运行之后改过**：第 5 章" in files["chapters/index.md"].decode()


def test_the_front_page_fills_in_how_long_each_chapter_takes(small_book):
    _, files = stage_run(small_book, mini_book.chapter(True))
    front = files["chapters/index.md"].decode()
    assert "读约 10 分钟，运行 3 分 52 秒" in front and "harness:time" not in front


def test_a_lost_marker_is_reported(small_book):
    (small_book / "chapters" / "reproduction.md").write_text("# 看板\n", encoding="utf-8")
    with pytest.raises(HarnessError, match=r"the line .* is missing"):
        stage_run(small_book)


def test_a_missing_configuration_is_reported(small_book):
    (small_book / "_config.yml").unlink()
    with pytest.raises(HarnessError, match=r"_config\.yml does not exist"):
        build(load_book(small_book), None, GENERATED)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "not valid YAML"),
        ("- a", "expected keys"),
        ("", "expected keys"),
        ("repository: 5", "repository must be a mapping"),
        ("repository: {url: [1]}", "repository must be a mapping"),
    ],
)
def test_a_broken_configuration_is_one_line(small_book, text, words):
    (small_book / "_config.yml").write_text(text, encoding="utf-8")
    with pytest.raises(HarnessError, match=words) as caught:
        build(load_book(small_book), None, GENERATED)
    assert "_config.yml" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("page", ["chapters/index.md", "chapters/references.bib"])
def test_a_page_in_another_encoding_is_named(small_book, page):
    (small_book / page).write_bytes("# 前言".encode("gbk"))
    with pytest.raises(HarnessError, match=f"{page}: not UTF-8"):
        stage_run(small_book)


def test_the_configuration_is_looked_at_before_anything_runs(small_book, monkeypatch, capsys):
    (small_book / "_config.yml").write_text("[", encoding="utf-8")
    shutil.rmtree(small_book / "chapters" / "claims")
    monkeypatch.chdir(small_book)
    assert main(["run", "--book"]) == ExitCode.USAGE
    assert "_config.yml" in capsys.readouterr().err and not (small_book / "_build").exists()


def test_a_build_that_is_terminated_takes_sphinx_along(small_book):
    run = mini_book.write_run(small_book, mini_book.document(), mini_book.chapter(True))
    environment = {**os.environ, "PYTHONPATH": str(Path(book_module.__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-m", "harness", "book", run.name], cwd=small_book,
                               stderr=subprocess.PIPE, text=True, env=environment)  # fmt: skip
    deadline = time.monotonic() + 30
    while not (children := psutil.Process(process.pid).children(recursive=True)):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert (err, process.returncode) == ("error: interrupted\n", ExitCode.INFRASTRUCTURE)
    deadline = time.monotonic() + 10  # a killed process takes a moment to give its memory back
    while any(child.is_running() and child.status() != "zombie" for child in children):
        assert time.monotonic() < deadline, children
        time.sleep(0.02)


def test_nothing_is_rendered_when_nothing_changed(built_book, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("Sphinx was started")

    monkeypatch.setattr(book_module, "_render", refuse)
    run = built_book / "_build" / "runs" / mini_book.RUN
    assert build(load_book(built_book), run, GENERATED) == built_book / "_build" / "site" / "index.html"
    with pytest.raises(AssertionError, match="Sphinx was started"):
        build(load_book(built_book), run, GENERATED, warnings_are_errors=False)


@dataclass(frozen=True)
class Damage:
    """What a Markdown cell is made to say below its heading, and the warning that follows."""

    cell: str
    words: str
    message: str
    tags: tuple[str, ...] = ()


_IMAGE = ("![一张图](nowhere.png)", "image file not readable")


@pytest.mark.parametrize(
    "damages",  # an error names the first three of a build
    [
        [Damage("opening", "[没有](nowhere.md)", "'myst' cross-reference target not found")],
        [
            Damage("opening", *_IMAGE),
            Damage("maths", *_IMAGE),
            Damage("diagram", *_IMAGE, ("solution",)),
        ],
        [
            Damage("opening", "```mermaid\ngraph LR\nA --> B\n```", "diagram without a line `accTitle"),
            Damage(
                "maths",
                '```mermaid\npie\naccTitle: 饼图\n"甲": 1\n```',
                "Mermaid's 'pie' is not among the kinds",
            ),
            Damage(
                "diagram",
                "```mermaid\ngantt\naccTitle: 图\n甲: 1d\n```",
                "Mermaid's 'gantt' is not among the kinds",
            ),
        ],
        [Damage("opening", "```mermaid\ngraph LR\naccTitle: 图\nA[$$x^2$$]\n```", "formulas in a diagram")],
    ],
    ids=["link", "images", "diagrams", "formula in a diagram"],
)
def test_warnings_stop_the_build_with_file_cell_and_line(small_book, damages):
    source, executed = mini_book.chapter(False), mini_book.chapter(True)
    for damage in damages:
        heading = "# 标题" if damage.cell == "opening" else "## 一节"
        for damaged in (source, executed):
            (one,) = (one for one in damaged["cells"] if one["id"] == damage.cell)
            one.update(source=f"{heading}\n\n{damage.words}", metadata={"tags": list(damage.tags)})
    mini_book.write_notebook(small_book / "chapters" / "05-mini.ipynb", source)
    run = mini_book.write_run(small_book, mini_book.document(), executed)
    with pytest.raises(HarnessError) as caught:
        build(load_book(small_book), run, GENERATED)
    for damage in damages:
        place = f"chapters/05-mini.ipynb, cell {damage.cell}, line 3: WARNING: {damage.message}"
        assert place in str(caught.value)
    assert str(caught.value).count("WARNING") == len(damages)
    assert "_build/site.log" in str(caught.value) and "\n" not in str(caught.value)
    assert not (small_book / "_build" / "site-stamp.json").exists()


def test_a_figure_without_text_stops_the_build(small_book):
    executed = mini_book.chapter(True)
    executed["cells"][5]["outputs"][0].update(metadata={})
    run = mini_book.write_run(small_book, mini_book.document(), executed)
    with pytest.raises(HarnessError, match="without alternative text"):
        build(load_book(small_book), run, GENERATED)


def test_a_missing_font_stops_the_build_with_file_and_line(small_book):
    sheet = small_book / "_static" / "book.css"
    lines = len(sheet.read_text(encoding="utf-8").splitlines())
    with sheet.open("a", encoding="utf-8") as end:
        end.write("@font-face { font-family: 宋; src: url('fonts/song.woff2?v=1') format('woff2'); }\n")
    with pytest.raises(
        HarnessError, match=rf"book\.css:{lines + 1}: WARNING: fonts/song\.woff2 is not there"
    ):
        build(load_book(small_book), None, GENERATED)


def test_what_frames_every_page_remakes_every_page(small_book):
    book = load_book(small_book)
    build(book, None, GENERATED)
    page = small_book / "_build" / "site" / "chapters" / "glossary.html"
    for changed, all_pages in (("chapters/errata.md", False), ("_static/book.css", True)):
        before = page.stat().st_mtime_ns
        with (small_book / changed).open("a", encoding="utf-8") as end:
            end.write("\n")
        build(book, None, GENERATED)
        assert (page.stat().st_mtime_ns != before) == all_pages
        check_styles(small_book / "_build" / "site")


def check_styles(site: Path) -> None:
    """All pages have the same style sheet, which is there with all that it asks for; no other is left."""
    linked = set()
    for page in (path for path in site.rglob("*.html") if "<head>" in path.read_text(encoding="utf-8")):
        names = re.findall(r'<link rel="stylesheet" href="([^"]+)"', page.read_text(encoding="utf-8"))
        assert len(names) == (page.parent != site or page.name != "index.html"), page
        linked |= {(page.parent / name).resolve() for name in names}
    (sheet,) = linked
    assert {sheet} == {path.resolve() for path in site.rglob("*.css")}
    text = sheet.read_text(encoding="utf-8")
    assert "@import" not in text and ".verdict" in text and "#search-results" in text
    names = set(re.findall(r"""url\(["']?(?!data:)([^"')?#]+)""", text))
    files = {name for name in names if not name.endswith(".ttf")}  # those are for browsers without WOFF2
    assert files and all((sheet.parent / name).is_file() for name in files)


def test_pages_have_one_style_sheet_and_no_script_holds_them_up(built_book):
    site = built_book / "_build" / "site"
    check_styles(site)
    text = (site / "chapters" / "05-mini.html").read_text(encoding="utf-8")
    waiting = [
        tag
        for tag in re.findall(r"<script [^>]*src=[^>]*>", text)
        if not re.search("defer|async|module", tag)
    ]
    assert len(waiting) == 1 and "documentation_options" in waiting[0]
    assert 'rel="preload"' not in text


def test_the_site_is_small_and_asks_nobody(built_book):
    site = built_book / "_build" / "site"
    files = [path for path in site.rglob("*") if path.is_file() and "_images" not in path.parts]
    for_models = [
        path for path in files if {"live", "onnxruntime-web"} & set(path.parts)
    ]  # fetched on a click
    assert sum(path.stat().st_size for path in set(files) - set(for_models)) <= LIMIT_MB * 2**20
    assert sum(path.stat().st_size for path in for_models) <= LIMIT_OF_MODELS_MB * 2**20
    remote = re.compile(
        r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=[\"'](?:https?:)?//", re.IGNORECASE
    )
    for page in site.rglob("*.html"):
        assert not remote.search(page.read_text(encoding="utf-8")), page


def test_licences_travel_with_what_is_vendored(built_book):
    mermaid = built_book / "_build" / "site" / "_static" / "mermaid"
    assert "MIT" in (mermaid / "LICENSE").read_text(encoding="utf-8")


def test_staged_notebooks_are_valid(built_book):
    nbformat = pytest.importorskip("nbformat")
    text = (built_book / "_build" / "site-src" / "chapters" / "05-mini.ipynb").read_text(encoding="utf-8")
    nbformat.validate(json.loads(text))


def test_pages_have_their_verdicts_as_spans_whatever_the_book_enables(tmp_path):
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: index\n")
    for parse, kept in (("{}", "colon_fence"), ("{myst_enable_extensions: [amsmath]}", "amsmath")):
        (tmp_path / "_config.yml").write_text(f"title: A\nparse: {parse}\n")
        found = overrides(tmp_path)
        assert {kept, "attrs_inline"} <= set(found.pop("myst_enable_extensions"))
        assert set(found) == {"external_toc_path", "latex_individualpages", "nb_execution_mode"}
