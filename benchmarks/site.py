"""What a reader's browser meets on every page of a built site: faults, accessibility, weight, speed.

Run as ``python -m benchmarks.site [FOLDER] [--out FILE]``, by default on ``_build/site``; it needs Debian's Chromium.

* each page, light and dark: console errors, failed and foreign requests, findings of axe-core by impact, diagrams
  that are drawn so small that their text has less than 12 pixels;
* each page at 360 pixels: does it scroll sideways?
* links and anchors inside the site that lead nowhere;
* the first page over a slow line (1.6 Mbit/s, 150 ms, processor four times slower; text compressed, as static hosts
  do), the median of seven first visits: bytes, first contentful paint, layout shift;
* the whole site without the notebooks' own images.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from harness.archive.environment import environment
from harness.site.copies import EPUB, PDF, SOURCE, Quiet, open_browser, served

TARGETS = {
    "first page, kB": 600,
    "site without notebooks' images, MB": 8.0,
    "first contentful paint, s": 1.5,
    "layout shift": 0.05,
}
TEXT = (".html", ".css", ".js", ".mjs", ".svg")
SERIOUS = ("serious", "critical")
SLOW_LINE = {"offline": False, "latency": 150, "downloadThroughput": 200_000, "uploadThroughput": 90_000}
CLUMSY = 4  # times slower than this processor
PHONE = {"width": 360, "height": 740}
LEFT = "net::ERR_ABORTED"  # of a request that the browser gave up as it went on to the next page
SMALL = 12  # pixels
VISITS = 7
_TEXT_SIZES = """() => [...document.querySelectorAll('pre.mermaid svg')].map(drawing => {
  const size = parseFloat(getComputedStyle(drawing).fontSize);
  return size * drawing.getBoundingClientRect().width / drawing.viewBox.baseVal.width;
})"""
_WIDTH = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
_PAINT = """() => new Promise(done => {
  let shift = 0;
  new PerformanceObserver(list => list.getEntries().forEach(e => { if (!e.hadRecentInput) shift += e.value; }))
    .observe({type: 'layout-shift', buffered: true});
  setTimeout(() => done([performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000, shift]), 1000);
})"""


class Compressing(Quiet):
    """Sends text compressed, as static hosts do."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file() or path.suffix not in TEXT:
            return super().do_GET()
        body = gzip.compress(path.read_bytes(), 6)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(path.name))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        return None


@contextmanager
def opened(browser: Browser, address: str, faults: list[str], **options: Any) -> Iterator[Page]:
    """A page in a fresh context; whatever goes wrong on it is added to *faults*.

    Args:
        address: of the site: a request to anywhere else is a fault; empty where it is none.
    """
    context = browser.new_context(locale="zh-CN", **options)
    page = context.new_page()
    page.on("console", lambda m: faults.append(f"console: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(f"script: {error}"))
    page.on("requestfailed", lambda r: faults.append(f"failed: {r.url}") if r.failure != LEFT else None)
    page.on("response", lambda r: faults.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
    page.on("request", lambda r: faults.append(f"foreign: {r.url}") if _is_foreign(r.url, address) else None)
    try:
        yield page
    finally:
        context.close()


def _is_foreign(url: str, address: str) -> bool:
    return not url.startswith((address, "data:", "blob:"))


def pages(site: Path) -> list[str]:
    """All pages but the door, which leads on at once."""
    found = (
        path.relative_to(site).as_posix() for path in site.rglob("*.html") if "_static" not in path.parts
    )
    return sorted(set(found) - {"index.html"})


def examine(browser: Browser, address: str, names: list[str]) -> dict[str, Any]:
    """Faults and findings of all pages, in both themes and on a phone."""
    faults: list[str] = []
    findings: list[dict[str, Any]] = []
    sideways: list[str] = []
    small: set[str] = set()
    for scheme in ("light", "dark"):
        with opened(browser, address, faults, color_scheme=scheme) as page:
            for name in names:
                page.goto(f"{address}/{name}", wait_until="networkidle")
                if any(size < SMALL for size in page.evaluate(_TEXT_SIZES)):
                    small.add(name)
                for finding in Axe().run(page, options={"preload": False}).response["violations"]:
                    findings.append(
                        {"page": name, "theme": scheme, "rule": finding["id"], "impact": finding["impact"],
                         "where": [node["target"][0] for node in finding["nodes"]][:5], "count": len(finding["nodes"])}
                    )  # fmt: skip
    with opened(browser, address, faults, viewport=PHONE) as page:
        for name in names:
            page.goto(f"{address}/{name}", wait_until="networkidle")
            if page.evaluate(_WIDTH) > PHONE["width"]:
                sideways.append(name)
    return {
        "faults": faults,
        "accessibility": dict(Counter(str(finding["impact"]) for finding in findings)),
        "findings": findings,
        "sideways": sideways,
        "small diagrams": sorted(small),
    }


def broken_links(browser: Browser, address: str, site: Path, names: list[str]) -> list[str]:
    """Links and anchors inside the site that lead nowhere, as ``page → target``."""
    anchors: dict[str, set[str]] = {}
    links: set[tuple[str, str]] = set()
    with opened(browser, address, []) as page:
        for name in names:
            page.goto(f"{address}/{name}", wait_until="domcontentloaded")
            anchors[name] = set(page.locator("[id]").evaluate_all("all => all.map(e => e.id)"))
            found = page.locator("a[href]").evaluate_all("all => all.map(e => e.getAttribute('href'))")
            links |= {(name, urljoin(f"{address}/{name}", href)) for href in found}
    broken = []
    for name, link in sorted(links):
        target, fragment = urldefrag(link)
        if not target.startswith(address + "/"):
            continue
        inside = unquote(target[len(address) + 1 :]) or "index.html"
        if not (site / inside).is_file() or (
            fragment and unquote(fragment) not in anchors.get(inside, set())
        ):
            broken.append(f"{name} → {inside}#{fragment}")
    return broken


def first_page(browser: Browser, address: str, name: str) -> dict[str, float]:
    """Bytes, first contentful paint and layout shift of a first visit over a slow line."""
    received = Counter[str]()
    with opened(browser, address, []) as page:
        line = page.context.new_cdp_session(page)
        line.send("Network.enable")
        line.send("Network.emulateNetworkConditions", SLOW_LINE)
        line.send("Emulation.setCPUThrottlingRate", {"rate": CLUMSY})
        line.on("Network.loadingFinished", lambda event: received.update(bytes=event["encodedDataLength"]))
        page.goto(f"{address}/{name}", wait_until="networkidle")
        paint, shift = page.evaluate(_PAINT)
    return {
        "first page, kB": received["bytes"] / 1000,
        "first contentful paint, s": paint,
        "layout shift": shift,
    }


def size(site: Path) -> float:
    """Megabytes of the site without the notebooks' own images, what is taken along, and models for live figures."""
    copies = [site / name for name in (PDF, EPUB, SOURCE)]
    apart = {"_images", "live", "onnxruntime-web"}
    files = [p for p in site.rglob("*") if p.is_file() and not apart & set(p.parts) and p not in copies]
    return sum(path.stat().st_size for path in files) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", nargs="?", type=Path, default=Path("_build/site"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "site.json")
    arguments = parser.parse_args()
    if not (arguments.site / "index.html").is_file():
        raise SystemExit("needs a built site: make book, or name the site's folder")
    names = pages(arguments.site)
    door = re.search(r'url=([^"]+)', (arguments.site / "index.html").read_text(encoding="utf-8"))
    with open_browser() as browser, served(arguments.site, Compressing) as address:
        found = examine(browser, address, names)
        found["broken links"] = broken_links(browser, address, arguments.site, names)
        visits = [first_page(browser, address, door[1] if door else "index.html") for _ in range(VISITS)]
    figures = {key: median(visit[key] for visit in visits) for key in visits[0]}
    figures["site without notebooks' images, MB"] = size(arguments.site)
    found |= {"pages": len(names), "figures": figures, "visits": visits, "machine": environment()}
    arguments.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for key in ("faults", "sideways", "small diagrams", "broken links"):
        print(f"{key}: {len(found[key])}", *found[key][:10], sep="\n  ")
    print("accessibility:", found["accessibility"] or "nothing found")
    for finding in found["findings"]:
        if finding["impact"] in SERIOUS:
            print("  {page} {theme}: {rule} ({impact}) x {count}: {where}".format(**finding))
    print("| figure | measured | target |\n|---|--:|--:|")
    for name, value in figures.items():
        print(f"| {name} | {value:.3g} | ≤ {TARGETS[name]} |")


if __name__ == "__main__":
    main()
