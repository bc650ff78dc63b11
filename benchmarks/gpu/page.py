"""Write what ``results/gpu.json`` holds into the page 基准: ``python -m benchmarks.gpu.page``; needs nothing installed.

What stands between ``<!-- gpu-kit -->`` and ``<!-- /gpu-kit -->`` is replaced, the rest of the page is left alone.
Without a file that a card's name stands in, the page says that nothing was verified on a GPU.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.results import EQUAL_LOSS, RESULTS, ResultsError, judged, read_results

PAGE = Path(__file__).resolve().parents[2] / "chapters" / "benchmarks.md"
UNVERIFIED = "未在 GPU 上验证"
_BLOCK = re.compile(r"(?P<head>^<!-- gpu-kit -->\n).*?(?P<tail>^<!-- /gpu-kit -->$)", re.M | re.S)
_PARTS = {
    "encoders": "文本分类：第 5 章的循环与 HF Trainer",
    "decoders": "微调解码器：打包、LoRA 与 TRL",
    "kernels": "注意力的内核，编译与不编译",
}
_STATES = {"completed": "跑完", "cut": "到点停下", "failed": "没有跑成"}
_OUTCOMES = {
    "pass": "通过",
    "fail": "未通过",
    "inconclusive": "未定",
    "missing": "缺数",
    "unexpected": "没有声明",
    "not_applicable": "不适用",
}


def fill(page: str, report: Mapping[str, Any] | None) -> str:
    """*page* with the section as *report* has it; None where there is no file.

    Raises:
        ResultsError: the page lacks the marks.
    """
    if not _BLOCK.search(page):
        raise ResultsError(f"{PAGE.name} 里没有 <!-- gpu-kit --> 和 <!-- /gpu-kit --> 两行；补上")
    lines = list(_measured(report) if report and report["card"] and not report["tiny"] else _unverified())
    return _BLOCK.sub(lambda block: block["head"] + "\n".join(lines) + "\n" + block["tail"], page)


def _unverified() -> Iterator[str]:
    yield f"**{UNVERIFIED}**。写书的机器没有显卡，下面的目标还没有数字；同样的代码，在 CPU 上用极小的形状跑通过。"
    yield ""
    yield from _targets(judged([]))


def _measured(report: Mapping[str, Any]) -> Iterator[str]:
    versions = "，".join(f"{name} {version}" for name, version in report["versions"].items())
    driver, day = report["driver"] or "未知", report["started"][:10]
    yield f"{report['card']}，驱动 {driver}；{versions}。{day}，一共 {report['seconds']:.0f} 秒。"
    if not report["peak_bf16_flops"]:
        yield ""
        yield "这块显卡的峰值不在表里，所以没有 MFU。"
    yield ""
    yield from _targets(report["targets"])
    for part, title in _PARTS.items():
        rows = [row for row in report["rows"] if row["part"] == part]
        if rows:
            yield from ("", f"**{title}**", "")
            yield from _rows(rows)
    for part, told in report["parts"].items():
        if told["state"] != "completed":
            yield from ("", f"`{part}`：{_STATES[told['state']]}。")
    if run := report["parts"].get("chapters", {}).get("run"):
        yield from ("", _chapters(run))


def _targets(targets: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from ("| 目标 | 至少 | 测得 | 达到 |", "|:--|--:|--:|:--|")
    for target in targets:
        measured = "–" if target["measured"] is None else f"{target['measured']:.2f}"
        apart = target["loss_difference"]
        told = {None: "*未验证*", True: "是", False: "否"}[target["reached"]]
        told += "" if apart is None else f"（末段损失相差 {100 * apart:.2f}%，容许 {100 * EQUAL_LOSS:g}%）"
        yield f"| {target['title']} | {target['at_least']:g} | {measured} | {told} |"


def _rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    unit = {"examples/s": "样例/秒", "tokens/s": "词元/秒"}[rows[0]["unit"]]
    yield f"| 模型 | 做法 | {unit} | 波动 | 次数 | MFU | 显存峰值（GB） | 末段损失 |"
    yield "|:--|:--|--:|--:|--:|--:|--:|--:|"
    for row in rows:
        head = f"| {row['model']} | {row['name']} |"
        if row["error"]:
            error = row["error"].replace("|", "\\|").replace("<", "&lt;")
            yield f"{head} 没有跑成：{error} | | | | | |"
            continue
        mfu = "–" if row["mfu"] is None else f"{row['mfu']:.2f}"
        peak = "–" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e9:.1f}"
        loss = f"{row['losses'][-1]:.3f}" if row["losses"] else "–"
        measured = f"{row['median']:,.0f} | {100 * row['spread']:.1f}% | {len(row['values'])}"
        yield f"{head} {measured} | {mfu} | {peak} | {loss} |"


def _chapters(run: Mapping[str, Any]) -> str:
    done = [chapter for chapter in run["chapters"] if chapter["state"] == "completed"]
    claims = "，".join(f"{_OUTCOMES.get(name, name)} {count}" for name, count in run["claims"].items())
    failed = f"；未通过的：{'、'.join(f'`{name}`' for name in run['failed'])}" if run["failed"] else ""
    return (
        f"各章的 `{run['profile']}` 在这块显卡上跑完 {len(done)}/{len(run['chapters'])} 章；"
        f"硬件类别是 `{run['hardware']}`，与 CPU 的参考分开判定：{claims or '没有声明'}{failed}。"
    )


def main() -> int:
    try:
        report = read_results(RESULTS) if RESULTS.exists() else None
        before = PAGE.read_text(encoding="utf-8")
        after = fill(before, report)
    except ResultsError as error:
        print(f"benchmarks.gpu.page: {error}", file=sys.stderr)
        return 2
    if after != before:
        PAGE.write_text(after, encoding="utf-8")
    print(f"chapters/{PAGE.name}: {'written' if after != before else 'up to date'}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
