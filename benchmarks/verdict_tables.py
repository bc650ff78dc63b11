"""Write what ``verdicts.py`` measured into the page 判定规则 of the book: tables and the sentences that hold numbers.

Run as ``python -m benchmarks.verdict_tables`` after ``results/verdicts.json`` changed; seconds. What stands between
``<!-- rates: NAME -->`` and ``<!-- /rates -->`` is replaced, the rest of the page is left alone.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "verdicts.json"
PAGE = ROOT / "chapters" / "harness" / "verdicts.md"

_BLOCK = re.compile(
    r"(?P<head>^<!-- rates: (?P<name>[\w-]+) -->\n).*?(?P<tail>^<!-- /rates -->$)", re.M | re.S
)
_RATIOS = ("1", "2", "4")  # margin / spread, of those simulated
_WORDS = {
    "prediction interval": "预测区间",
    "published": "发表值",
    "floor": "单侧下限",
    "bootstrap": "自助法",
    "normal": "正态",
    "heavy tails (t, 3 df)": "厚尾（t，自由度 3）",
    "new spread doubled": "新运行的波动加倍",
    "new spread halved": "新运行的波动减半",
    "skewed (exponential)": "偏斜（指数分布）",
    "right or wrong": "对错",
    "numbers": "分数",
    "at the worst margin / spread": "最不利的容差与波动之比下",
    "false fails without a difference": "没有差别却判未通过",
    "false fails on the margin": "恰好相差一个容差却判未通过",
    "false passes on the margin": "恰好相差一个容差却判通过",
    "false alarms": "没有差别却判有差别",
}
"""What the results say in English."""
_PHRASES = (
    *((re.escape(english), chinese) for english, chinese in _WORDS.items()),
    (r"(\d+) new\b", r"新跑 \1 次"),
    (r"(\d+)% disagree", r"\1% 的样例判得不同"),
    (r"(\d+) examples", r"\1 个样例"),
    (r",\s*", "，"),
    (r":\s*", "："),
)


def in_chinese(text: str) -> str:
    """A label of the results in Chinese."""
    for english, chinese in _PHRASES:
        text = re.sub(english, chinese, text)
    return text


def percent(rate: float) -> str:
    """“4.6”."""
    return f"{100 * rate:.1f}"


def fill(page: str, report: Mapping[str, Any]) -> str:
    """*page* with every block as *report* has it.

    Raises:
        SystemExit: a block that is not known, or one that the page lacks.
    """
    found = [block["name"] for block in _BLOCK.finditer(page)]
    if sorted(found) != sorted(BLOCKS):
        raise SystemExit(f"the page has the blocks {', '.join(found) or 'none'}; needed: {', '.join(BLOCKS)}")

    def made(block: re.Match[str]) -> str:
        return block["head"] + "\n".join(BLOCKS[block["name"]](report)) + "\n" + block["tail"]

    return _BLOCK.sub(made, page)


# -- blocks -----------------------------------------------------------------------------------------


def _setting(report: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"每种情形模拟 {report['draws']:,} 次，成对比较 {report['paired_draws']:,} 次；参考是"
        f" {report['blessed_runs']} 次运行；NumPy {report['numpy']}，SciPy {report['scipy']}。"
    )


def _one_claim(rule: str) -> Callable[[Mapping[str, Any]], Iterator[str]]:
    """The table of one rule, for normal seeds."""

    def block(report: Mapping[str, Any]) -> Iterator[str]:
        rates = report["pass_and_fail"]
        rows = [
            [
                in_chinese(name.removeprefix(f"{rule}, ")).removeprefix("新跑 "),
                ratio,
                *_pairs(name, rates[name]["normal"][ratio]),
            ]
            for name in rates
            if name.startswith(f"{rule},")
            for ratio in _RATIOS
        ]
        yield from _table(["新运行", "容差 ÷ 波动", *_differences(report)], rows)

    return block


def _unlucky(report: Mapping[str, Any]) -> Iterator[str]:
    rates = report["false_fails_given_the_blessed_runs"]
    quantiles = "，".join(
        f"{name} {percent(rates[key])}%"
        for key, name in (("50%", "中位数"), ("90%", "90% 分位数"), ("99%", "99% 分位数"))
    )
    yield (
        f"这张表是对参考取的平均。参考不同，误判率也不同：{report['blessed_runs']} 次一组的参考，"
        f"使数字未变的单次运行误判为未通过的机会，{quantiles}。"
    )


def _other_seeds(report: Mapping[str, Any]) -> Iterator[str]:
    rates = report["pass_and_fail"]
    rows = [
        [in_chinese(name), in_chinese(seeds), *_pairs(name, by_ratio["2"])]
        for seeds in dict.fromkeys(s for by_seeds in rates.values() for s in by_seeds if s != "normal")
        for name in rates
        for kind, by_ratio in rates[name].items()
        if kind == seeds
    ]
    yield from _table(["规则", "各种子的数值", *_differences(report)], rows)


def _paired(report: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        [f"{in_chinese(test)}，{n} 个样例", in_chinese(what), *map(percent, rates)]
        for test, by_what in report["different"].items()
        for what, by_n in by_what.items()
        for n, rates in by_n.items()
    ]
    yield from _table(["检验", "比较的是", *_differences(report)], rows)


def _above(report: Mapping[str, Any]) -> Iterator[str]:
    yield from [f"- {in_chinese(line).replace(' %', '%')}" for line in report["above_nominal"]] or ["- 没有"]


def _differences(report: Mapping[str, Any]) -> list[str]:
    return [f"{d:g}" for d in report["true_difference_in_margins"]]


def _pairs(name: str, pairs: Sequence[Sequence[float]]) -> list[str]:
    """“pass / fail”; a floor is only ever shown or not."""
    if name.startswith("floor"):
        return [percent(shown) for shown, _ in pairs]
    return [f"{percent(passed)} / {percent(failed)}" for passed, failed in pairs]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    ruler = [":--"] * 2 + ["--:"] * (len(head) - 2)
    for row in (head, ruler, *rows):
        yield "| " + " | ".join(row) + " |"


BLOCKS: Mapping[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {
    "setting": _setting,
    "prediction": _one_claim("prediction interval"),
    "unlucky": _unlucky,
    "tost": _one_claim("TOST"),
    "published": _one_claim("published"),
    "floor": _one_claim("floor"),
    "other-seeds": _other_seeds,
    "above": _above,
    "paired": _paired,
}


def main() -> None:
    report = json.loads(RESULTS.read_text(encoding="utf-8"))
    before = PAGE.read_text(encoding="utf-8")
    after = fill(before, report)
    if after != before:
        PAGE.write_text(after, encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {'written' if after != before else 'up to date'}", file=sys.stderr)


if __name__ == "__main__":
    main()
