"""A run as Markdown, for a CI step summary: the same report in Chinese and in English."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from harness.archive.recorded import Part, RunResult
from harness.judge.statistics import mean
from harness.model import (
    FINISHED,
    CellState,
    JobResult,
    Outcome,
    Verdict,
)
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
    names_cell,
)
from harness.wording import markdown_code as _code
from harness.wording import markdown_text as _cell

_VERDICT_HEAD = (
    Text("verdict", "判定"),
    Text("claim", "声明"),
    Text("observed", "实测"),
    Text("reference", "参考"),
    Text("difference", "差"),
    Text("reproduced if in", "视为复现的范围"),
    Text("rule", "规则"),
    Text("explanation", "说明"),
)
_NOT_JUDGED = Text(
    "This is one shard of a run: nothing is judged before `harness report --merge`.",
    "这只是一次运行的一个分片：用 `harness report --merge` 合并之后才判定。",
)
_METRIC_HEAD = (
    Text("notebook", "笔记本"),
    Text("metric", "指标"),
    Text("value", "数值"),
    Text("examples", "样本数"),
    Text("split", "数据划分"),
    Text("95 % interval", "95% 区间"),
)
_JOB_HEAD = (
    Text("state", "状态"),
    Text("notebook", "笔记本"),
    Text("seed", "随机种子"),
    Text("time", "用时"),
    Text("peak memory", "峰值内存"),
    Text("note", "说明"),
)


def markdown_report(run: RunResult, language: Language) -> str:
    """*run* as GitHub-flavoured Markdown in *language*."""
    jobs, verdicts, shard = run.jobs, run.verdicts, run.manifest.shard
    parts = [
        f"# {Text('Run', '运行').into(language)} {_code(run.manifest.run)}",
        _head(run, language),
    ]
    parts += [_counts(verdicts, language), f"## {Text('Verdicts', '判定').into(language)}"]
    outside = [job for job in jobs if job.chapter is None and job.metrics]  # of the book: nobody judges them
    if shard:
        parts.append(_NOT_JUDGED.into(language))
    if verdicts or (not outside and not shard):
        parts.append(_verdict_table(verdicts, language))
    elif not shard:
        parts.append(Text("Nothing is claimed of these notebooks.", "这些笔记本没有声明。").into(language))
    if outside:
        parts += [f"## {Text('Recorded', '记录').into(language)}", _metric_table(outside, language)]
    parts += [f"## {Text('Notebooks', '笔记本').into(language)}", _job_table(jobs, language)]
    for job in jobs:
        if job.state not in FINISHED:
            parts.append(_failure(job, language))
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(run: RunResult, language: Language) -> str:
    manifest = run.manifest
    commit = manifest.commit[:10]
    dirty = (
        Text(" (with uncommitted changes)", "（另有未提交的改动）").into(language) if manifest.dirty else ""
    )
    versions = ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items()))
    rows = [
        (Text("profile", "配置"), _code(manifest.profile)),
        (Text("started", "开始于"), _cell(manifest.started)),
        (Text("wall time", "总用时"), format_seconds(run.seconds, language)),
        (Text("commit", "提交"), (_code(commit) if commit else "—") + dirty),
        (Text("hardware", "硬件"), _hardware(manifest.environment)),
        (
            Text("versions", "版本"),
            _cell(
                f"Python {manifest.environment.get('python', '—')}" + (f", {versions}" if versions else "")
            ),
        ),
        (Text("exit code", "退出码"), str(run.exit_code)),
    ]
    if manifest.shard:
        rows.insert(0, (Text("shard", "分片"), str(manifest.shard)))
    rows += [
        (Text(f"shard {part.index}", f"分片 {part.index}"), _shard_value(part)) for part in manifest.shards
    ]
    return "\n".join(f"- **{name.into(language)}**{_colon(language)}{value}" for name, value in rows)


def _shard_value(part: Part) -> str:
    """Which run a shard was, and on what it ran."""
    return f"{_code(part.name)}, {_code(part.environment.get('hardware') or 'unknown')}"


def _colon(language: Language) -> str:
    return Text(": ", "：").into(language)


def _hardware(environment: Mapping[str, object]) -> str:
    parts = [environment.get("gpu"), environment.get("cpu")]
    name = _cell(", ".join(str(part) for part in parts if part))
    return _code(str(environment.get("hardware") or "unknown")) + (f" ({name})" if name else "")


def _counts(verdicts: Sequence[Verdict], language: Language) -> str:
    counts = Counter(verdict.outcome for verdict in verdicts)
    return " · ".join(f"**{_outcome(one, language)} {counts[one]}**" for one in Outcome if counts[one])


def _outcome(outcome: Outcome, language: Language) -> str:
    return f"{SYMBOLS[outcome]} {OUTCOMES[outcome].into(language)}"


def _verdict_table(verdicts: Sequence[Verdict], language: Language) -> str:
    if not verdicts:
        return Text("Nothing was claimed or recorded.", "没有声明，也没有记录。").into(language)
    rows = [_verdict_row(verdict, language) for verdict in verdicts]
    return _table(_VERDICT_HEAD, rows, "llrrrlll", language)


def _verdict_row(verdict: Verdict, language: Language) -> list[str]:
    unit = verdict.unit
    message = Text(verdict.message, verdict.message_zh or verdict.message).into(language)
    return [
        _outcome(verdict.outcome, language),
        f"{_cell(verdict.title)} {_code(verdict.claim)}",
        _observed(verdict, language),
        _cell(format_number(verdict.reference, unit)),
        _cell(format_number(verdict.delta, unit, signed=True)),
        _cell(format_range(verdict.interval, unit)),
        RULES[verdict.rule].into(language) if verdict.rule in RULES else _cell(verdict.rule),
        _cell(message),
    ]


def _observed(verdict: Verdict, language: Language) -> str:
    if not verdict.observed:
        return "—"
    text = _cell(format_number(mean(verdict.observed), verdict.unit))
    runs = len(verdict.observed)
    return text if runs == 1 else text + Text(f" (mean of {runs})", f"（{runs} 次平均）").into(language)


def _metric_table(jobs: Sequence[JobResult], language: Language) -> str:
    rows = [
        [
            _code(job.notebook),
            _code(metric.name),
            _cell(format_number(metric.value, metric.unit)),
            "—" if metric.n is None else str(metric.n),
            _cell(metric.split or "—"),
            _cell(format_range(metric.interval, metric.unit)),
        ]
        for job in jobs
        for metric in job.metrics
    ]
    return _table(_METRIC_HEAD, rows, "llrrlr", language)


def _job_table(jobs: Sequence[JobResult], language: Language) -> str:
    if not jobs:
        return Text("No notebook was run.", "没有运行笔记本。").into(language)
    rows = [
        [
            ("✓ " if job.state in FINISHED else "✗ ") + STATES[job.state].into(language),
            _code(job.notebook),
            "—" if job.seed is None else str(job.seed),
            format_seconds(job.seconds, language),
            format_memory(job.peak_rss_mb),
            _cell(job.reason) or "—",
        ]
        for job in jobs
    ]
    return _table(_JOB_HEAD, rows, "llrrrl", language)


def _failure(job: JobResult, language: Language) -> str:
    """Where a job broke: the cell's number, its id and the error line, once."""
    lines = [
        f"### ✗ {_cell(job.id)}",
        STATES[job.state].into(language) + (f"{_colon(language)}{_cell(job.reason)}" if job.reason else ""),
    ]
    for cell in job.cells:
        if cell.state is CellState.FAILED and not names_cell(job.reason, cell):
            number = cell.index + 1
            place = Text(
                f"cell {number}, id {_code(cell.id)}", f"第 {number} 个单元格，id {_code(cell.id)}"
            ).into(language) + (f" {_code(cell.code)}" if cell.code else "")
            lines.append(f"- {place}{_colon(language)}{_code(cell.error or '—')}")
    return "\n\n".join(lines)


def _table(head: Sequence[Text], rows: Sequence[Sequence[str]], align: str, language: Language) -> str:
    marks = {"l": ":--", "r": "--:"}
    ruler = [marks[letter] for letter in align]
    return "\n".join(
        "| " + " | ".join(row) + " |" for row in ([t.into(language) for t in head], ruler, *rows)
    )
