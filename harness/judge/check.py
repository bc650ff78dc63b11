"""Judge a run: gather what its jobs recorded, apply :mod:`harness.judge.rules`, name what is missing or new."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.archive.recording import recording_cells
from harness.book.claims import SUFFIX, book_claims
from harness.book.notebook import read_notebook
from harness.book.parameters import read_parameters, same_value
from harness.errors import HarnessError
from harness.judge.rules import Case, judge_claim, with_note
from harness.model import (
    FINISHED,
    CellResult,
    ChapterClaims,
    Claim,
    JobResult,
    Metric,
    Outcome,
    Verdict,
    cell_name,
)
from harness.wording import STATES, Text, join, one_line

if TYPE_CHECKING:
    from harness.book.config import Book

_LOOKED_INTO = (Outcome.FAIL, Outcome.UNEXPECTED)
SIMILAR = 0.6
"""From this ratio on (difflib), an unclaimed metric may be a claimed one under a new name."""


def judge_run(
    book: Book,
    results: Sequence[JobResult],
    *,
    profile: str,
    hardware: str = "",
    by_job: Mapping[str, str] = MappingProxyType({}),
    claims: Mapping[str, ChapterClaims] | None = None,
) -> list[Verdict]:
    """Judge every chapter of *book* that has a job in *results*, in the order of the jobs.

    Args:
        book: where the chapters and their claims are.
        results: of the run's jobs.
        profile: of the run.
        hardware: class of the machine of the run.
        by_job: class of the machine by job id, where that differs.
        claims: by chapter; all of the book by default.

    Raises:
        HarnessError: a claim file is unreadable, malformed, or belongs to no chapter.
    """
    claims = book_claims(book) if claims is None else claims
    ran = dict.fromkeys(r.chapter for r in results if r.chapter is not None)
    verdicts: list[Verdict] = []
    for chapter in ran:
        mine = claims.get(chapter, ChapterClaims(chapter, ()))
        own = own_values(book, chapter, profile) if mine.claims else {}
        verdicts += judge(mine, results, profile=profile, hardware=hardware, by_job=by_job, own=own)
    return verdicts


def with_cells(verdicts: Sequence[Verdict], results: Sequence[JobResult], run_dir: Path) -> list[Verdict]:
    """*verdicts*; those that somebody will look into, failures and what nobody claims, say which cell recorded it."""
    cells: dict[str, dict[str, list[CellResult]]] = {}  # by chapter and metric, of all its jobs
    told = []
    for verdict in verdicts:
        if verdict.outcome in _LOOKED_INTO and verdict.observed:
            if verdict.chapter not in cells:
                mine = cells[verdict.chapter] = {}
                for job in (job for job in results if job.chapter == verdict.chapter):
                    for name, cell in recording_cells(run_dir, job).items():
                        mine.setdefault(name, []).append(cell)
            places = dict.fromkeys((c.index, c.id) for c in cells[verdict.chapter].get(verdict.claim, ()))
            if places:
                en = ", ".join(cell_name(*place) for place in places)
                zh = "、".join(f"第 {index + 1} 个单元格（id {name}）" for index, name in places)
                verdict = with_note(verdict, Text(f"recorded in {en}", f"记录于{zh}"))
        told.append(verdict)
    return told


def own_values(book: Book, chapter: str | None, profile: str) -> dict[str, Any]:
    """The values that the parameters of a chapter have in the book under *profile*; empty if it cannot be read."""
    notebook = next((path for path in book.chapters if path.stem == chapter), None)
    try:
        declared = (read_parameters(read_notebook(notebook)) if notebook else None) or {}
    except HarnessError:  # told by whoever runs it
        return {}
    own = {name: profile if name == "profile" else parameter.default for name, parameter in declared.items()}
    return own | dict(book.parameters.get(chapter or "", {}).get(profile, {}))


def not_covered(claim: Claim, job: JobResult, own: Mapping[str, Any]) -> Text | None:
    """What *job* measured something else with than *claim* is made for; None where the claim covers the job."""
    for name, claimed in claim.parameters.items():
        covered = (own.get(name),) if claimed is None else claimed
        value = job.parameters.get(name, own.get(name))
        if not any(same_value(value, one) for one in covered):
            values = " or ".join(map(repr, covered)), "或 ".join(map(repr, covered))
            return Text(
                f"measured with {name} = {value!r}, claimed for {name} = {values[0]}",
                f"测量时 {name} = {value!r}，声明只适用于 {name} = {values[1]}",
            )
    return None


def judge(
    claims: ChapterClaims,
    results: Sequence[JobResult],
    *,
    profile: str,
    hardware: str = "",
    by_job: Mapping[str, str] = MappingProxyType({}),
    own: Mapping[str, Any] = MappingProxyType({}),
) -> list[Verdict]:
    """Judge one chapter by all its jobs (seeds) under *profile*; *results* may hold other jobs too.

    Jobs that ran on machines of several classes are judged class by class: one verdict for each. *own* are the
    chapter's parameters, see :func:`own_values`.
    """
    jobs = [r for r in results if r.chapter == claims.chapter and r.profile == profile]
    unclaimed = _unclaimed(claims, jobs)
    verdicts: list[Verdict] = []
    for claim in claims.claims:
        case = Case(claims.chapter, claim, profile, hardware=hardware, takes_seed="seed" in own)
        others: dict[Text, list[JobResult]] = {}  # that measured something else, by what
        for job in jobs:
            if (other := not_covered(claim, job, own)) is not None:
                others.setdefault(other, []).append(job)
        aside = {job.id for mine in others.values() for job in mine}
        covered = [job for job in jobs if job.id not in aside]
        verdicts += [_not_applicable(case, text, mine) for text, mine in others.items()]
        verdicts += _judge_jobs(case, covered, unclaimed, by_job) if covered or not others else []
    return verdicts + _unexpected(claims, unclaimed, profile)


def _judge_jobs(
    case: Case, jobs: Sequence[JobResult], new: Collection[str], by_job: Mapping[str, str]
) -> list[Verdict]:
    """Verdicts on one claim: on the values that were recorded, and on the jobs that recorded none.

    *new* are the names of metrics that nobody claims: one of them may be the claim's under another name.
    """
    classes: dict[str, list[tuple[JobResult, Metric]]] = {}
    lacking = []
    for job in jobs:
        if (metric := _metric(job, case.claim.name)) is None:
            lacking.append(job)
        else:
            classes.setdefault(by_job.get(job.id, case.hardware), []).append((job, metric))
    verdicts: list[Verdict] = []
    for hardware, mine in classes.items():
        found = _judge_found(replace(case, hardware=hardware), mine)
        if len(classes) > 1:  # numbers of different machines are not averaged
            where, count = hardware or "unknown hardware", sum(map(len, classes.values()))
            place = f" {hardware} " if hardware else "未知硬件"
            note = Text(
                f"this is of the {len(mine)} of {count} runs on {where}, judged apart from the others",
                f"这里只判定 {count} 次运行中在{place}上的 {len(mine)} 次，与其余分开",
            )
            found = [with_note(verdict, note) for verdict in found]
        verdicts += found
    if lacking or not jobs:
        verdicts.append(case.verdict(Outcome.MISSING, "recorded", _missing_text(case, lacking, new)))
    return verdicts


def _not_applicable(case: Case, text: Text, jobs: Sequence[JobResult]) -> Verdict:
    """Neither pass nor fail: what was measured is not what is claimed."""
    values = tuple(metric.value for job in jobs if (metric := _metric(job, case.claim.name)) is not None)
    return replace(case, values=values).verdict(Outcome.NOT_APPLICABLE, "parameters", text, margin=None)


def _judge_found(case: Case, found: Sequence[tuple[JobResult, Metric]]) -> Sequence[Verdict]:
    values = tuple(metric.value for _, metric in found)
    units = {metric.unit for _, metric in found if metric.unit}
    if case.claim.unit and units - {case.claim.unit}:
        other = ", ".join(sorted(units - {case.claim.unit}))
        text = Text(
            f"recorded in {other!r} but claimed in {case.claim.unit!r}; make the units agree",
            f"记录的单位是 {other}，声明的单位是 {case.claim.unit}；请统一",
        )
        return [replace(case, values=values).verdict(Outcome.FAIL, "recorded", text)]
    seeds = [job.seed for job, _ in found]
    if case.takes_seed and None in seeds:  # the chapter's own default: other seeds could be run
        seeds = []
    return judge_claim(
        case.claim, values, case.profile, chapter=case.chapter, seeds=seeds, hardware=case.hardware
    )


def _metric(job: JobResult, name: str) -> Metric | None:
    return next((m for m in job.metrics if m.name == name), None)


def _missing_text(case: Case, lacking: Sequence[JobResult], new: Collection[str]) -> Text:
    if not lacking:
        return Text("the chapter did not run", "这一章没有运行")
    recorded = {metric.name for job in lacking for metric in job.metrics} & set(new)
    similar = difflib.get_close_matches(case.claim.name, sorted(recorded), 1, SIMILAR)
    if similar:
        hint = Text(
            f"not recorded, but {similar[0]} was, which nobody claims: did you rename it to {similar[0]}?",
            f"没有记录，但记录了没有声明的 {similar[0]}：是否改名为 {similar[0]} 了？",
        )
        return join((hint, *(_job_text(job) for job in lacking if job.state not in FINISHED)))
    glued = next((j.passed_over[case.claim.name] for j in lacking if case.claim.name in j.passed_over), None)
    if glued is not None:
        shown = f": {one_line(glued)}" if glued else ""
        advice = Text(
            f"glued but not a number{shown}; glue the number itself, or record it",
            f"glue 了，但不是数{shown.replace(': ', '：')}；请 glue 数本身，或用 record 记录",
        )
    elif all(job.state in FINISHED for job in lacking):
        advice = Text(
            f"no record({case.claim.name!r}, …) was reached", f"没有执行到 record({case.claim.name!r}, …)"
        )
    else:
        advice = Text("the notebook did not run to its end", "笔记本没有运行到底")
    return join((advice, *(_job_text(job) for job in lacking)))


def _job_text(job: JobResult) -> Text:
    state, reason = STATES[job.state], one_line(job.reason)
    return Text(
        f"{job.id}: {state.en}" + (f" ({reason})" if reason else ""),
        f"{job.id}：{state.zh}" + (f"（{reason}）" if reason else ""),
    )


def _unclaimed(claims: ChapterClaims, jobs: Sequence[JobResult]) -> dict[str, list[Metric]]:
    """The metrics that nobody claims, by name."""
    known = {claim.name for claim in claims.claims}
    found: dict[str, list[Metric]] = {}
    for metric in (metric for job in jobs for metric in job.metrics if metric.name not in known):
        found.setdefault(metric.name, []).append(metric)
    return found


def _unexpected(claims: ChapterClaims, found: Mapping[str, Sequence[Metric]], profile: str) -> list[Verdict]:
    """One verdict for each metric that nobody claims."""
    file = f"{claims.chapter}{SUFFIX}"
    text = Text(
        f"recorded, but {file} has no claim of this name; add one or stop recording it",
        f"已记录，但 {file} 中没有同名的声明；请添加声明，或不再记录",
    )
    return [
        Verdict(
            claims.chapter, name, name, profile, Outcome.UNEXPECTED, "recorded",
            observed=tuple(m.value for m in metrics), unit=metrics[0].unit,
            message=text.en, message_zh=text.zh,
        )
        for name, metrics in found.items()
    ]  # fmt: skip
