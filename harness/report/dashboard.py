"""The page 复现看板: what was claimed, what was measured, the verdict, when and on what hardware.

Pure text out of a run's ``result.json``: MyST Markdown, no script. The words shared with the box at the
head of each chapter live here too.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

from harness.archive.recorded import Manifest, RunResult
from harness.judge.statistics import mean
from harness.model import FINISHED, JobResult, JobState, Outcome, Verdict
from harness.report.history import LEGEND, Background, claim_figures
from harness.wording import (
    OUTCOMES,
    RULES,
    STATES,
    SYMBOLS,
    format_memory,
    format_number,
    format_range,
    format_seconds,
    one_line,
)

MARKER = "<!-- harness:dashboard -->"
"""Stands in the page's source where the generated part goes."""

LAST_RUN = "<!-- harness:last-run -->"
"""Stands in any page where the last run's verdicts in a few lines go."""

TIME = re.compile(r"<!-- harness:time (\d+) -->")
"""Stands where the time goes that the chapter of this number takes."""

_HISTORY = 10
_CHARACTERS_A_MINUTE = 250  # of a text that one learns from


def outcome_words(outcome: Outcome) -> str:
    """Symbol and word of a judgement: colour alone never says it."""
    return f"{SYMBOLS[outcome]} {OUTCOMES[outcome].zh}"


def outcome_text(outcome: Outcome, count: int | None = None) -> str:
    """Symbol and word, coloured by class; with *count*, how many."""
    words = outcome_words(outcome) + ("" if count is None else f" {count}")
    return f"[{words}]{{.verdict .verdict-{outcome.value}}}"


def state_text(state: JobState) -> str:
    """Symbol and word of a notebook's end state."""
    tone = Outcome.PASS if state in FINISHED else Outcome.FAIL
    return f"[{SYMBOLS[tone]} {STATES[state].zh}]{{.verdict .verdict-{tone.value}}}"


def counts_text(verdicts: Iterable[Verdict]) -> str:
    """“✓ 通过 5 · ✗ 未通过 1”, only what occurs, the good first."""
    counts = Counter(verdict.outcome for verdict in verdicts)
    return " · ".join(outcome_text(one, counts[one]) for one in Outcome if counts[one]) or "没有声明"


def date_text(iso: str) -> str:
    """“2026 年 11 月 24 日 01:30（UTC）”; the text itself where it is no date."""
    try:
        when = datetime.fromisoformat(iso)
    except ValueError:
        return iso or "—"
    return f"{when.year} 年 {when.month} 月 {when.day} 日 {when:%H:%M}（UTC）"


def commit_text(manifest: Manifest) -> str:
    """Short commit in code style, marked when the tree held more than the commit."""
    commit = manifest.commit[:10]
    if not commit:
        return "未提交的代码"
    return f"`{commit}`" + ("（另有未提交的改动）" if manifest.dirty else "")


def hardware_text(manifest: Manifest) -> str:
    """“2 核 CPU（cpu-x86_64-bf16）” or the GPU's name with its class."""
    environment = manifest.environment
    hardware = environment.get("hardware") or "未知硬件"
    gpu, cores = environment.get("gpu"), environment.get("cores")
    if gpu:
        return f"{gpu}（{hardware}）"
    return f"{cores} 核 CPU（{hardware}）" if cores else str(hardware)


def chapter_anchor(chapter: str) -> str:
    """Identifier of a chapter's section on the page."""
    return f"claims-{chapter}"


def render(run: RunResult, titles: Mapping[str, str], known: Background = Background()) -> str:  # noqa: B008
    """The generated part of the page.

    Args:
        titles: a chapter's name -> its heading.
        known: earlier runs of the same profile, and values of the reference runs.
    """
    verdicts, history = run.verdicts, known.history
    parts = [_summary(run), "## 声明与判定"]
    parts += [LEGEND.zh] * any(v.observed and v.outcome is not Outcome.NOT_APPLICABLE for v in verdicts)
    parts += _claims(run, titles, known)
    parts += ["## 各章的运行", _chapters(run, titles), "## 环境", _environment(run.manifest)]
    if len(history) > 1:
        parts += ["## 历次运行", _history(history)]
    return "\n\n".join(parts) + "\n"


def last_run(
    run: RunResult | None,
    titles: Mapping[str, str],
    link: str = "",
    copies: Mapping[str, str] = MappingProxyType({}),
    changed: Collection[str] = (),
) -> str:
    """What a front page says: verdict counts, when, on what, and which chapters have no numbers to show, or old ones.

    Args:
        run: None where there is no run.
        titles: a chapter's name -> its heading, for all chapters of the book.
        link: target of the dashboard's page, where there is one.
        copies: of the book to take along, by kind: their addresses.
        changed: names of chapters whose code is no longer the code that ran.
    """
    if run is None:
        return card(["**还没有运行记录**：书里没有数字可看。先运行 `make book`，再回到这里。"], good=False)
    lines = [f"**书里的数字** {counts_text(run.verdicts)}" + (f" · [复现看板]({link})" if link else "")]
    jobs = [job for job in run.jobs if job.chapter]
    ran = {job.chapter for job in jobs}
    unfinished = {job.chapter for job in jobs if job.state not in FINISHED}
    absent = [title for name, title in titles.items() if name not in ran]
    broken = [title for name, title in titles.items() if name in unfinished]
    old = [title for name, title in titles.items() if name in changed]
    for what, chapters in (("没有跑完", broken), ("没有运行", absent), ("代码在运行之后改过", old)):
        if chapters:
            lines.append(f"**{what}**：{_cell('、'.join(chapters))}")
    lines.append(" · ".join([*_made(run.manifest, jobs), *_kept(jobs)]))
    if copies:
        links = "、".join(f'<a href="{address}">{kind}</a>' for kind, address in copies.items())
        lines.append(f"**带走** 整本书的 {links}")
    return card(lines, good=not (absent or broken or old))


def _made(manifest: Manifest, jobs: Sequence[JobResult]) -> list[str]:
    """When and on what the numbers were made, and how long that took: of a chapter taken from the cache, then."""
    starts = sorted(job.started for job in jobs if job.started) or [manifest.started]
    first, last = (
        date_text(when).partition(" 日")[0] + " 日" if when else "—" for when in (starts[0], starts[-1])
    )
    return [
        f"做于 {first if first == last else f'{first}至 {last}'}",
        hardware_text(manifest),
        f"`{manifest.profile}` 配置",
        f"各章合计 {format_seconds(sum(job.seconds for job in jobs), 'zh')}",
        f"提交 {commit_text(manifest)}",
    ]


def _kept(jobs: Sequence[JobResult]) -> list[str]:
    """How many chapters have their results of an earlier run, and since when."""
    cached = [job for job in jobs if job.cached_from]
    if not cached:
        return []
    since = min((job.started for job in cached if job.started), default="")
    what = f" {date_text(since)}以来的结果" if since else "先前的结果"
    return [f"{len({job.chapter for job in cached})} 章没有变，沿用{what}"]


def time_text(run: RunResult | None, chapters: Mapping[str, int]) -> str:
    """How long it takes to read *chapters* (name -> Chinese characters of prose), and how long their run took."""
    if not chapters:
        return "—"
    minutes = sum(chapters.values()) / _CHARACTERS_A_MINUTE
    read = f"读约 {max(10, round(minutes / 10) * 10)} 分钟"
    taken: dict[str, float] = {}
    for job in run.jobs if run else ():
        if job.chapter in chapters and job.state in FINISHED:
            taken.setdefault(job.chapter, job.seconds)  # the first seed, which the chapter shows
    if taken.keys() != chapters.keys():
        return read
    return f"{read}，运行 {format_seconds(sum(taken.values()), 'zh')}"


def card(lines: Sequence[str], *, good: bool = True) -> str:
    """A box of paragraphs; one that is not good warns."""
    return "\n".join(
        [f":::{{container}} run-card{'' if good else ' run-card-warn'}", "\n\n".join(lines), ":::"]
    )


def _summary(run: RunResult) -> str:
    manifest = run.manifest
    facts = [
        f"`{manifest.profile}` 配置",
        date_text(manifest.started),
        hardware_text(manifest),
        f"用时 {format_seconds(run.seconds, 'zh')}",
        f"提交 {commit_text(manifest)}",
        f"运行编号 `{manifest.run}`",
    ]
    return card([counts_text(run.verdicts), " · ".join(facts)])


def _claims(run: RunResult, titles: Mapping[str, str], known: Background) -> list[str]:
    """One section a chapter that ran or has claims, so that every link to it finds its place."""
    chapters = [job.chapter for job in run.jobs if job.chapter]
    names = list(dict.fromkeys([*chapters, *(verdict.chapter for verdict in run.verdicts)]))
    if not names:
        return ["这次运行不含本书的章节。"]
    sections = []
    for name in names:
        mine = [verdict for verdict in run.verdicts if verdict.chapter == name]
        title = f"({chapter_anchor(name)})=\n### {_cell(titles.get(name, name))}"
        table = _claim_table(mine) if mine else "这一章在此配置下没有声明。"
        sections.append("\n\n".join([title, table, *_explanations(mine), *_figures(mine, known)]))
    return sections


def _figures(verdicts: Sequence[Verdict], known: Background) -> list[str]:
    """Values and history of each claim, small, side by side; raw HTML on one line, which MyST lets through."""
    drawn = []
    for verdict in verdicts:
        figures = "".join(claim_figures(verdict, known))
        if figures:
            name = f"{outcome_words(verdict.outcome)} {html.escape(one_line(verdict.title))}"
            drawn.append(f"<figure><figcaption>{name}</figcaption>{figures}</figure>")
    return [f'<div class="claim-figures">{"".join(drawn)}</div>'] if drawn else []


def _explanations(verdicts: Sequence[Verdict]) -> list[str]:
    """What is not a pass is explained at once; the passes behind a click."""
    told = [(v, v.message_zh or v.message) for v in verdicts if v.message_zh or v.message]
    lines = [(v.outcome, f"- {outcome_text(v.outcome)} {_cell(v.title)}：{_cell(text)}") for v, text in told]
    bad = [line for outcome, line in lines if outcome is not Outcome.PASS]
    good = [line for outcome, line in lines if outcome is Outcome.PASS]
    folded = "\n".join([":::{dropdown} 通过的判定依据", *good, ":::"])
    return ["\n".join(bad)] * bool(bad) + [folded] * bool(good)


def _claim_table(verdicts: Sequence[Verdict]) -> str:
    header = ("判定", "声明", "实测", "参考", "差", "复现范围", "规则")
    return _table(header, [_claim_row(verdict) for verdict in verdicts], align="llrrrrl")


def _claim_row(verdict: Verdict) -> list[str]:
    unit, runs = verdict.unit, len(verdict.observed)
    measured = format_number(mean(verdict.observed), unit) if runs else "—"
    return [
        outcome_text(verdict.outcome),
        f"{_cell(verdict.title)}<br>`{verdict.claim}`",
        _cell(measured) + (f"<br>{runs} 次平均" if runs > 1 else ""),
        _cell(format_number(verdict.reference, unit))
        + (f"<br>来自 {_cell(verdict.reference_hardware)}" if verdict.foreign else ""),
        _cell(format_number(verdict.delta, unit, signed=True)),
        _cell(format_range(verdict.interval, unit)),
        RULES[verdict.rule].zh if verdict.rule in RULES else _cell(verdict.rule),
    ]


def _chapters(run: RunResult, titles: Mapping[str, str]) -> str:
    rows = [_job_row(job, titles) for job in run.jobs]
    return _table(("状态", "笔记本", "随机种子", "用时", "峰值内存", "说明"), rows, align="llrrrl")


def _job_row(job: JobResult, titles: Mapping[str, str]) -> list[str]:
    reason = f"结果来自 `{job.cached_from}`" if job.cached_from else _cell(job.reason)
    return [
        state_text(job.state),
        _heading(job.chapter, titles) if job.chapter else f"`{job.notebook}`",
        "—" if job.seed is None else str(job.seed),
        format_seconds(job.seconds, "zh"),
        format_memory(job.peak_rss_mb),
        reason or "—",
    ]


def _environment(manifest: Manifest) -> str:
    environment = manifest.environment
    memory = environment.get("memory_gb")
    rows = [
        ["硬件", hardware_text(manifest)],
        ["处理器", _cell(str(environment.get("cpu") or "—"))],
        ["内存", f"{memory:.0f} GB" if isinstance(memory, int | float) else "—"],
        ["系统", _cell(str(environment.get("platform") or "—"))],
        ["Python", str(environment.get("python") or "—")],
    ]
    rows += [[name, str(version)] for name, version in sorted(manifest.versions.items())]
    return _table(("项目", "值"), rows)


def _history(history: Sequence[RunResult]) -> str:
    rows = [
        [
            date_text(one.manifest.started),
            counts_text(one.verdicts),
            format_seconds(one.seconds, "zh"),
            commit_text(one.manifest),
            hardware_text(one.manifest),
        ]
        for one in history[:_HISTORY]
    ]
    return _table(("时间", "判定", "用时", "提交", "硬件"), rows, align="llrll")


def _heading(chapter: str, titles: Mapping[str, str]) -> str:
    """A link to the chapter, under its own title."""
    return f"[{_cell(titles[chapter])}]({chapter}.ipynb)" if chapter in titles else f"`{chapter}`"


def _cell(text: str) -> str:
    """Text that may stand in one cell of a pipe table."""
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", one_line(text)).replace("<", "&lt;")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str = "") -> str:
    marks = {"l": ":--", "r": "--:"}
    ruler = [marks[letter] for letter in align or "l" * len(header)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ruler, *rows))
