"""One small book, built once; and a browser to look at it."""

from __future__ import annotations

import functools
import http.server
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import mini_book

from harness.book import build
from harness.config import load_book

_CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass(frozen=True)
class Site:
    """The built mini book and where it is served."""

    folder: Path
    address: str  # at the server's root
    sub_address: str  # the same files below a sub-path


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def built_book(tmp_path_factory) -> Path:
    """Root of a book with one run, its site built with warnings as errors."""
    pytest.importorskip("jupyter_book", reason="the site extra is not installed")
    root = mini_book.write_book(tmp_path_factory.mktemp("一 本 书"))
    run = mini_book.write_run(root, mini_book.document(), mini_book.chapter(with_outputs=True))
    build(load_book(root), run)
    return root


@pytest.fixture(scope="session")
def site(built_book, tmp_path_factory) -> Iterator[Site]:
    """The site on a local server, once at the root and once below /a/b/."""
    folder = built_book / "_build" / "site"
    top = tmp_path_factory.mktemp("www")
    shutil.copytree(folder, top / "a" / "b")
    servers = []
    for place in (folder, top):
        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(_Quiet, directory=str(place))
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
    first, second = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    yield Site(folder, first, f"{second}/a/b")
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium with a profile of its own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=executable, args=_CHROMIUM_FLAGS, headless=True)
        yield chromium
        chromium.close()
