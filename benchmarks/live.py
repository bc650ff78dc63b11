"""How long a reader waits for a live figure: ``python -m benchmarks.live [FOLDER]``, by default on ``_build/site``.

Chromium's own way to slow a processor slows the page and not its workers, where the models run. So the whole browser is
stopped and let go on, many times a second, and each of its threads has a quarter of its time: a processor four times
slower, as a loop that counts in the page and in the worker confirms. Times are the page's: from the click (of a first
answer: from the model being loaded) to the answer on the page. Downloads are from this machine, which no target is for.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

import psutil
from playwright.sync_api import Browser, Locator, Page

from harness.archive.environment import environment
from harness.site.copies import open_browser, served

SLOWER = 4
TURN = 0.02  # seconds: of going on and standing still together
TARGETS = {"first answer, ms": 3000, "later answer, ms": 300, "tokens a second": 15}
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
BEGINNINGS = ("酒店的位置很好，", "房间很", "今年以来，", "这本书", "我们")
_COUNT = (
    "() => { const end = performance.now() + 500; let n = 0; while (performance.now() < end) n++; return n; }"
)
_WATCH = """section => {
  section.times = {};
  new MutationObserver(all => all.forEach(one => { section.times[one.attributeName] = performance.now(); }))
    .observe(section, {attributes: true});
  section.addEventListener('submit', () => { section.times.asked = performance.now(); }, true);
}"""
_BETWEEN = "(section, [from, to]) => section.times[to] - section.times[from]"


@contextlib.contextmanager
def slowed(times: int) -> Iterator[None]:
    """All that this process started, its browser, has one part in *times* of its time."""
    if times == 1:
        yield
        return
    over = threading.Event()

    def each(processes: list[psutil.Process], act: Callable[[psutil.Process], None]) -> None:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                act(process)

    def alternate() -> None:
        free = time.monotonic()
        while not over.is_set():
            held = psutil.Process().children(recursive=True)
            try:
                each(held, psutil.Process.suspend)
                stopped = time.monotonic()
                over.wait((stopped - free) * (times - 1))
            finally:
                each(held, psutil.Process.resume)
            free = time.monotonic()
            over.wait(TURN / times)

    thread = threading.Thread(target=alternate)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def opened(browser: Browser, address: str, kind: str) -> tuple[Page, Locator]:
    """A fresh page and one of its figures, watched."""
    page = browser.new_page()
    page.set_default_timeout(300_000)
    page.goto(f"{address}/{PAGE}")
    figure = page.locator(f'.live[data-live="{kind}"]')
    figure.evaluate(_WATCH)
    return page, figure


def answers(figure: Locator, texts: Sequence[str], mark: str) -> Iterator[int]:
    """Ask one after another; the number of each, from 1, when `data-mark` says that it is answered."""
    for number, text in enumerate(texts, start=1):
        figure.locator("textarea").fill(text)
        figure.locator("button[type=submit]").click()
        figure.page.wait_for_selector(f'.live[data-{mark}="{number}"]')
        yield number


def classify(browser: Browser, address: str) -> dict[str, float]:
    """The classifier's waits, milliseconds."""
    page, figure = opened(browser, address, "classifier")
    waits = []
    for number in answers(figure, SENTENCES, "covered"):
        since = "asked" if number > 1 else "data-ready"
        waits.append(figure.evaluate(_BETWEEN, [since, "data-milliseconds"]))
    counts = [page.evaluate(_COUNT), page.workers[0].evaluate(_COUNT)]
    page.context.close()
    return {
        "first answer, ms": waits[0],
        "later answer, ms": median(waits[1:]),
        "slowest later answer, ms": max(waits[1:]),
        "loops of the page": counts[0],
        "loops of the worker": counts[1],
    }


def write(browser: Browser, address: str) -> dict[str, float]:
    """Tokens a second of the writer with its settings as they stand, of all but the first text."""
    page, figure = opened(browser, address, "writer")
    speeds = [float(figure.get_attribute("data-speed") or "nan") for _ in answers(figure, BEGINNINGS, "done")]
    page.context.close()
    return {"tokens a second": median(speeds[1:]), "slowest text, tokens a second": min(speeds[1:])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", nargs="?", type=Path, default=Path("_build/site"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "live.json")
    arguments = parser.parse_args()
    if not (arguments.site / PAGE).is_file():
        raise SystemExit(
            "needs a built site with the page of live figures: make book, or name the site's folder"
        )
    found = {}
    with open_browser() as browser, served(arguments.site) as address:
        for times in (1, SLOWER):
            with slowed(times):
                found[f"{times} times slower"] = classify(browser, address) | write(browser, address)
    plain, slow = found.values()
    slower = {name: plain[name] / slow[name] for name in ("loops of the page", "loops of the worker")}
    result = {"targets": TARGETS, "found": found, "slower by": slower, "environment": environment()}
    text = json.dumps(result, ensure_ascii=False, indent=1, default=str)
    arguments.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
