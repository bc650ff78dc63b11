"""A run as one HTML file that needs nothing else: no script, no request, light and dark, screen and paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path

from harness.archive.recorded import Manifest, RunResult
from harness.judge.statistics import mean
from harness.model import (
    FINISHED,
    WORST_FIRST,
    CellResult,
    CellState,
    JobResult,
    JobState,
    Outcome,
    Verdict,
)
from harness.report.figures import Bar, cell_bars
from harness.report.history import LEGEND, Background, claim_figures
from harness.report.table import escape, shares, table
from harness.wording import (
    OUTCOMES,
    RULES,
    STATES,
    SYMBOLS,
    Language,
    Text,
    format_memory,
    format_number,
    format_range,
    format_seconds,
)

CellTexts = Mapping[str, Mapping[int, str]]
"""First line of each code cell, by job and by the cell's place in its notebook."""

_SAFE = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def html_report(
    run: RunResult,
    known: Background,
    cells: CellTexts,
    language: Language = "zh",
) -> str:
    """*run* as a complete page in *language*.

    Args:
        known: past runs and blessed values, for the figures.
        cells: what stands in the first line of each cell; a cell without it is named by its id.
        language: of the page.
    """
    page = _Page(run, known, cells, language)
    title = escape(Text(f"Run {run.manifest.run}", f"运行 {run.manifest.run}").into(language))
    sections = [
        (name, heading.into(language), content)
        for name, heading, content in (
            ("problems", Text("What broke", "出错的笔记本"), page.problems()),
            ("claims", Text("Claims", "声明与判定"), page.claims()),
            ("recorded", Text("Recorded", "记录"), page.recorded()),
            ("notebooks", Text("Notebooks", "笔记本"), page.notebooks()),
            ("cells", Text("Time by cell", "单元格用时"), page.cells()),
            ("history", Text("Earlier runs", "历次运行"), page.history()),
            ("environment", Text("Environment", "环境"), page.environment()),
        )
        if content
    ]
    links = "".join(f'<a href="#{name}">{heading}</a>' for name, heading, _ in sections)
    body = "\n".join(
        f'<section id="{name}" aria-labelledby="{name}-title">\n<h2 id="{name}-title">{heading}</h2>\n'
        f"{content}\n</section>"
        for name, heading, content in sections
    )
    return f"""<!DOCTYPE html>
<html lang="{"zh-CN" if language == "zh" else "en"}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_SAFE}">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
{_style()}</style>
</head>
<body>
<header>
<h1>{title}</h1>
{page.counts()}
{page.facts()}
<nav aria-label="{Text("Contents", "目录").into(language)}">{links}</nav>
</header>
<main>
{body}
</main>
</body>
</html>
"""


class _Page:
    """The parts of one page; each method gives HTML, empty where there is nothing to say."""

    def __init__(self, run: RunResult, known: Background, cells: CellTexts, language: Language) -> None:
        self.run, self.known, self.texts, self.language = run, known, cells, language
        self.jobs, self.verdicts = run.jobs, run.verdicts

    def say(self, english: str, chinese: str) -> str:
        return Text(english, chinese).into(self.language)

    def counts(self) -> str:
        counts = Counter(verdict.outcome for verdict in self.verdicts)
        items = [
            f'<li class="{one.value}">{self._words(one)} {counts[one]}</li>' for one in Outcome if counts[one]
        ]
        broken = sum(job.state not in FINISHED for job in self.jobs)
        if broken:
            text = self.say(f"✗ {broken} notebooks broke", f"✗ {broken} 个笔记本没有跑完")
            items.append(f'<li class="fail">{text}</li>')
        name = self.say("Verdicts", "判定")
        return f'<ul class="counts" aria-label="{name}">{"".join(items)}</ul>' if items else ""

    def facts(self) -> str:
        manifest = self.run.manifest
        return self._facts(
            (self.say("profile", "配置"), manifest.profile),
            (self.say("started", "开始于"), self._when(manifest.started)),
            (self.say("wall time", "总用时"), format_seconds(self.run.seconds, self.language)),
            (self.say("hardware", "硬件"), _hardware(manifest)),
            (self.say("commit", "提交"), self._commit(manifest)),
            (self.say("exit code", "退出码"), str(self.run.exit_code)),
        )

    def problems(self) -> str:
        head = (
            self.say("state", "状态"),
            self.say("notebook", "笔记本"),
            self.say("cell", "单元格"),
            self.say("line", "行"),
            self.say("error", "错误"),
        )
        rows = []
        for job in self.jobs:
            if job.state in FINISHED:
                continue
            failed = [cell for cell in job.cells if cell.state is CellState.FAILED] or [None]
            rows += [
                (
                    self._state(job.state),
                    f"<code>{escape(job.notebook)}</code>" + self._seed(job),
                    self._place(job, cell) if cell else "—",
                    str(cell.line) if cell and cell.line else "—",
                    escape((cell.error if cell else None) or job.reason or "—"),
                )
                for cell in failed
            ]
        return table(head, rows) if rows else ""

    def claims(self) -> str:
        if not self.verdicts:
            return f"<p>{self.say('Nothing was claimed or recorded.', '没有声明，也没有记录。')}</p>"
        parts = [f'<p class="quiet">{LEGEND.into(self.language)}</p>']
        for chapter in dict.fromkeys(verdict.chapter for verdict in self.verdicts):
            mine = [verdict for verdict in self.verdicts if verdict.chapter == chapter]
            parts.append(f"<h3>{escape(chapter)}</h3>")
            mine.sort(key=lambda verdict: WORST_FIRST.index(verdict.outcome))
            parts += [self._claim(verdict) for verdict in mine]
        return "\n".join(parts)

    def _claim(self, verdict: Verdict) -> str:
        unit, runs = verdict.unit, len(verdict.observed)
        observed = format_number(mean(verdict.observed), unit) if runs else "—"
        if runs > 1:
            observed += self.say(f" (mean of {runs})", f"（{runs} 次平均）")
        rule = RULES[verdict.rule].into(self.language) if verdict.rule in RULES else verdict.rule
        facts = self._facts(
            (self.say("observed", "实测"), observed),
            (self.say("reference", "参考"), format_number(verdict.reference, unit)),
            (self.say("difference", "差"), format_number(verdict.delta, unit, signed=True)),
            (self.say("reproduced if in", "复现范围"), format_range(verdict.interval, unit)),
            (self.say("rule", "规则"), rule),
        )
        message = self.say(verdict.message, verdict.message_zh or verdict.message)
        dots, curve = claim_figures(verdict, self.known, self.language)
        figures = [
            f"<figure><figcaption>{name}</figcaption>{svg}</figure>"
            for name, svg in (
                (self.say("by seed", "各次的值"), dots),
                (self.say("over time", "历次运行"), curve),
            )
            if svg
        ]
        return (
            f'<article class="claim {verdict.outcome.value}"><div><h4>{self._verdict(verdict.outcome)}'
            f"{escape(verdict.title)}</h4><code>{escape(verdict.claim)}</code>{facts}"
            f"<p>{escape(message)}</p></div>{''.join(figures)}</article>"
        )

    def recorded(self) -> str:
        """What notebooks outside the book recorded: no claim shows it."""
        head = (
            self.say("notebook", "笔记本"),
            self.say("metric", "指标"),
            self.say("value", "数值"),
            self.say("95 % interval", "95% 区间"),
        )
        rows = [
            (
                f"<code>{escape(job.notebook)}</code>",
                f"<code>{escape(metric.name)}</code>",
                escape(format_number(metric.value, metric.unit)),
                escape(format_range(metric.interval, metric.unit)),
            )
            for job in self.jobs
            for metric in job.metrics
            if job.chapter is None
        ]
        return table(head, rows, numbers=(2, 3)) if rows else ""

    def notebooks(self) -> str:
        if not self.jobs:
            return f"<p>{self.say('No notebook was run.', '没有运行笔记本。')}</p>"
        head = (
            self.say("state", "状态"),
            self.say("notebook", "笔记本"),
            self.say("seed", "随机种子"),
            self.say("time", "用时"),
            self.say("peak memory", "峰值内存"),
            self.say("note", "说明"),
        )
        rows = [
            (
                self._state(job.state),
                f"<code>{escape(job.notebook)}</code>",
                "—" if job.seed is None else str(job.seed),
                format_seconds(job.seconds, self.language),
                format_memory(job.peak_rss_mb),
                escape(job.reason) or "—",
            )
            for job in self.jobs
        ]
        behind = {
            3: shares([job.seconds for job in self.jobs]),
            4: shares([job.peak_rss_mb or 0.0 for job in self.jobs]),
        }
        return table(head, rows, numbers=(2, 3, 4), shares=behind)

    def cells(self) -> str:
        """For each job its slowest cells; slowest job first."""
        figures = []
        for job in sorted(self.jobs, key=lambda job: job.seconds, reverse=True):
            bars = [
                Bar(self._cell_text(job, cell), cell.seconds, cell.state is CellState.FAILED)
                for cell in job.cells
                if cell.seconds is not None
            ]
            svg = cell_bars(bars, title=job.id, language=self.language)
            if svg:
                figures.append(f"<figure><figcaption>{escape(job.id)}</figcaption>{svg}</figure>")
        return f'<div class="cells">{"".join(figures)}</div>' if figures else ""

    def history(self) -> str:
        if len(self.known.history) < 2:
            return ""
        head = (
            self.say("started", "开始于"),
            self.say("verdicts", "判定"),
            self.say("time", "用时"),
            self.say("commit", "提交"),
            self.say("hardware", "硬件"),
        )
        rows = []
        for past in self.known.history:
            counts = Counter(verdict.outcome for verdict in past.verdicts)
            words = [f"{self._verdict(one)} {counts[one]}" for one in Outcome if counts[one]]
            rows.append(
                (
                    escape(self._when(past.manifest.started)),
                    " · ".join(words) or "—",
                    format_seconds(past.seconds, self.language),
                    escape(self._commit(past.manifest)),
                    escape(_hardware(past.manifest)),
                )
            )
        return table(head, rows, numbers=(2,))

    def environment(self) -> str:
        environment = self.run.manifest.environment
        memory = environment.get("memory_gb")
        rows = [
            (self.say("hardware", "硬件"), environment.get("hardware")),
            (self.say("processor", "处理器"), environment.get("cpu")),
            (self.say("cores", "核数"), environment.get("cores")),
            ("GPU", environment.get("gpu")),
            (self.say("memory", "内存"), None if memory is None else f"{memory} GB"),
            (self.say("system", "系统"), environment.get("platform")),
            ("Python", environment.get("python")),
            *sorted(self.run.manifest.versions.items()),
        ]
        shown = [(escape(name), escape("—" if value is None else value)) for name, value in rows]
        return table((self.say("item", "项目"), self.say("value", "值")), shown, row_heads=True)

    def _facts(self, *facts: tuple[str, str]) -> str:
        """Names and values; what has no value is left out."""
        items = "".join(
            f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts if value != "—"
        )
        return f"<dl>{items}</dl>" if items else ""

    def _words(self, outcome: Outcome) -> str:
        return f"{SYMBOLS[outcome]} {OUTCOMES[outcome].into(self.language)}"

    def _verdict(self, outcome: Outcome) -> str:
        return f'<span class="verdict {outcome.value}">{self._words(outcome)}</span>'

    def _state(self, state: JobState) -> str:
        tone = Outcome.PASS if state in FINISHED else Outcome.FAIL
        words = f"{SYMBOLS[tone]} {STATES[state].into(self.language)}"
        return f'<span class="verdict {tone.value}">{words}</span>'

    def _seed(self, job: JobResult) -> str:
        return "" if job.seed is None else self.say(f" seed {job.seed}", f" 种子 {job.seed}")

    def _place(self, job: JobResult, cell: CellResult) -> str:
        number = self.say(f"{cell.index + 1}", f"第 {cell.index + 1} 个")
        return f"{number} <code>{escape(cell.id)}</code><br><code>{escape(self._cell_text(job, cell))}</code>"

    def _cell_text(self, job: JobResult, cell: CellResult) -> str:
        return self.texts.get(job.id, {}).get(cell.index) or cell.id

    def _commit(self, manifest: Manifest) -> str:
        commit = manifest.commit[:10] or "—"
        return commit + (
            self.say(" (with uncommitted changes)", "（另有未提交的改动）") if manifest.dirty else ""
        )

    def _when(self, iso: str) -> str:
        try:
            when = datetime.fromisoformat(iso)
        except ValueError:
            return iso or "—"
        return f"{when:%Y-%m-%d %H:%M} UTC"


def _hardware(manifest: Manifest) -> str:
    environment = manifest.environment
    names = ", ".join(str(environment[key]) for key in ("gpu", "cpu") if environment.get(key))
    return str(environment.get("hardware") or "—") + (f" ({names})" if names else "")


@cache
def _style() -> str:
    return Path(__file__).with_name("report.css").read_text(encoding="utf-8")
