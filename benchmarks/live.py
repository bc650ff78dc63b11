"""How long a reader waits for a live figure: ``python -m benchmarks.live [FOLDER]``, by default on ``_build/site``.

Chromium's processor is slowed four times through its debugging protocol. That slows the page and not its workers, as a
loop that counts in both shows: a worker's times are to be multiplied by four. Loading is from this machine: the line
is not part of the figures.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

from playwright.sync_api import Browser

from harness.archive.environment import environment
from harness.site.copies import open_browser, served

CLUMSY = 4
TARGETS = {"first answer, ms": 3000, "later answer, ms": 300, "download, MB": 25}
PAGE = "chapters/try-it.html"
SENTENCES = (
    "房间干净，服务也好，下次还来",
    "等了一个小时才办好入住，再也不来了",
    "不是不好，就是贵了点",
    "屏幕有坏点，客服也不理人",
    "这本书看了两遍，很受启发",
    "电池很耐用，就是屏幕小了点",
    "早餐丰富，位置也方便",
    "写得太乱，浪费时间",
    "隔音差，半夜还在装修，睡不着",
    "物流很快，包装完好，满意",
)
_COUNT = (
    "() => { const end = performance.now() + 300; let n = 0; while (performance.now() < end) n++; return n; }"
)


def measure(browser: Browser, address: str, rate: int) -> dict[str, Any]:
    """The classifier's waits with the processor slowed *rate* times."""
    page = browser.new_page()
    page.set_default_timeout(300_000)
    session = page.context.new_cdp_session(page)
    session.send("Emulation.setCPUThrottlingRate", {"rate": rate})
    page.goto(f"{address}/{PAGE}")
    figure = page.locator('.live[data-live="classifier"]')
    figure.locator("textarea").fill(SENTENCES[0])
    began = time.perf_counter()
    figure.locator("button").click()
    page.wait_for_selector(".live[data-milliseconds]")
    loaded = time.perf_counter() - began
    worker = page.workers[0]
    before = worker.evaluate(_COUNT)
    first = float(figure.get_attribute("data-milliseconds") or "nan")
    page.wait_for_selector('.live[data-covered="1"]')
    later = []
    for number, text in enumerate(SENTENCES[1:], start=2):
        figure.locator("textarea").fill(text)
        figure.locator("button").click()
        page.wait_for_selector(f'.live[data-covered="{number}"]')
        later.append(float(figure.get_attribute("data-milliseconds") or "nan"))
    main = page.evaluate(_COUNT)
    page.context.close()
    return {
        "click to first answer, s": loaded,
        "first answer, ms": first,
        "later answer, ms": median(later),
        "slowest later answer, ms": max(later),
        "loops in 300 ms, worker": before,
        "loops in 300 ms, page": main,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", nargs="?", type=Path, default=Path("_build/site"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "live.json")
    arguments = parser.parse_args()
    if not (arguments.site / PAGE).is_file():
        raise SystemExit(
            "needs a built site with the page of live figures: make book, or name the site's folder"
        )
    with open_browser() as browser, served(arguments.site) as address:
        found = {f"{rate} times slower": measure(browser, address, rate) for rate in (1, CLUMSY)}
    found["worker slowed by"] = (
        found["1 times slower"]["loops in 300 ms, worker"]
        / found[f"{CLUMSY} times slower"]["loops in 300 ms, worker"]
    )
    result = {"targets": TARGETS, "found": found, "environment": environment()}
    text = json.dumps(result, ensure_ascii=False, indent=1, default=str)
    arguments.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
