"""One small book, built once; and a browser to look at it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mini_book
import pytest

from harness.book.config import load_book
from harness.cli.app import GENERATED
from harness.errors import HarnessError
from harness.site.build import build
from harness.site.copies import check_copies, open_browser, served


@dataclass(frozen=True)
class Site:
    """The built mini book and where it is served."""

    folder: Path
    address: str  # at the server's root
    sub_address: str  # the same files below a sub-path


@pytest.fixture(scope="session")
def built_book(tmp_path_factory) -> Path:
    """Root of a book with one run, its site built with warnings as errors."""
    pytest.importorskip("jupyter_book", reason="the site extra is not installed")
    root = mini_book.write_book(tmp_path_factory.mktemp("一 本 书"))
    run = mini_book.write_run(root, mini_book.document(), mini_book.chapter(with_outputs=True))
    build(load_book(root), run, GENERATED)
    return root


@pytest.fixture(scope="session")
def site(built_book, tmp_path_factory) -> Iterator[Site]:
    """The site on a local server, once at the root and once below /a/b/."""
    folder = built_book / "_build" / "site"
    top = tmp_path_factory.mktemp("www")
    shutil.copytree(folder, top / "a" / "b")
    with served(folder) as first, served(top) as second:
        yield Site(folder, first, f"{second}/a/b")


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium with a profile of its own."""
    try:
        check_copies()
    except HarnessError as error:
        pytest.skip(str(error))
    with open_browser() as chromium:
        yield chromium
