"""What recorded runs are told as, byte for byte: reports, the terminal, and the pages of the site.

Where words change on purpose: ``python tests/harness/report/test_golden.py`` writes what is expected anew; read the
difference before it is committed. The runs themselves come from ``tests/harness/golden/record.py``.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
from contextlib import chdir, redirect_stdout
from pathlib import Path

import pytest

from harness.archive.folder import OWN_FILES
from harness.archive.recorded import read_result
from harness.book.config import load_book
from harness.cli.app import main
from harness.report.words import WORDS
from harness.site.build import language_of, stage_tree

GOLDEN = Path(__file__).parents[1] / "golden"
EXPECTED = GOLDEN / "expected"
MAIN = "20261124T013000-offline-ab12"
REPORTED = (MAIN, "merged", "shard", "nothing", "outside")


def book_with_runs(folder: Path) -> Path:
    shutil.copytree(GOLDEN / "book", folder)
    shutil.copytree(GOLDEN / "runs", folder / "_build" / "runs")
    return folder


def reports_of(book: Path, run: str) -> dict[str, str]:
    """Text of each file that `harness report` writes, and what it prints."""
    run_dir, said = book / "_build" / "runs" / run, io.StringIO()
    for name in OWN_FILES:
        if name.startswith(("report", "junit")):
            (run_dir / name).unlink(missing_ok=True)
    os.environ["COLUMNS"] = "100"
    with chdir(book), redirect_stdout(said):
        assert main(["report", run]) == 0
    *summary, place = said.getvalue().splitlines()
    assert place == f"run folder {run_dir}"
    files = {name: (run_dir / name).read_text(encoding="utf-8") for name in OWN_FILES
             if name.startswith(("report", "junit"))}  # fmt: skip
    return {**files, "summary.txt": "\n".join(summary) + "\n"}


def pages_of(book: Path, run: str | None) -> dict[str, str]:
    """The pages of the site, as Jupyter Book gets them."""
    run_dir = book / "_build" / "runs" / run if run else None
    files = stage_tree(
        load_book(book), read_result(run_dir) if run_dir else None, book / "_build" / "site-src", {}
    )
    return {path: files[path].decode() for path in files if path.startswith("chapters/")}


def in_english(book: Path) -> Path:
    config = book / "_config.yml"
    config.write_text(config.read_text(encoding="utf-8").replace("zh_CN", "en"), encoding="utf-8")
    return book


def check(found: dict[str, str], place: str) -> None:
    folder = EXPECTED / place
    expected = {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert set(found) == set(expected)
    for name, text in found.items():
        assert text == expected[name], f"{place}/{name}"


@pytest.fixture
def book(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("COLUMNS", "100")  # given back at the end
    return book_with_runs(tmp_path / "book")


@pytest.mark.parametrize("run", REPORTED)
def test_a_recorded_run_is_reported_as_ever(book, run):
    result = book / "_build" / "runs" / run / "result.json"
    before = result.read_bytes()
    check(reports_of(book, run), run)
    assert result.read_bytes() == before


def test_the_pages_show_a_recorded_run_as_ever(book):
    check(pages_of(book, MAIN), "site")
    check(pages_of(book, None), "site-without-a-run")


def test_a_book_in_english_is_spoken_to_in_english(book):
    check(pages_of(in_english(book), MAIN), "site-in-english")
    (book / "_config.yml").write_text(
        "title: A book\n", encoding="utf-8"
    )  # does not say: as its chapters are
    assert language_of(load_book(book)) == "zh"
    for chapter in (book / "chapters").glob("*.ipynb"):
        shutil.copy(GOLDEN / "book" / "chapters" / "02-b.ipynb", chapter)
        chapter.write_text(
            re.sub("[\u4e00-\u9fff]+", "x", chapter.read_text(encoding="utf-8")), encoding="utf-8"
        )
    assert language_of(load_book(book)) == "en"


def test_no_word_lacks_its_translation():
    for name, text in WORDS.items():
        assert text.en and text.zh and not re.search("[\u3000-\u9fff]", text.en), name
        assert text.en.count("{") == text.zh.count("{") or name in ("date", "moment"), name


def rewrite() -> None:
    """Write what is expected, from what is told now."""
    shutil.rmtree(EXPECTED, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        book = book_with_runs(Path(folder).resolve() / "book")
        found = {run: reports_of(book, run) for run in REPORTED}
        found |= {"site": pages_of(book, MAIN), "site-without-a-run": pages_of(book, None)}
        found |= {"site-in-english": pages_of(in_english(book), MAIN)}
    for place, files in found.items():
        for name, text in files.items():
            (EXPECTED / place / name).parent.mkdir(parents=True, exist_ok=True)
            (EXPECTED / place / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    rewrite()
