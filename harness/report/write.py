"""Judge a run and write what it leaves for people and machines: ``result.json``, JUnit, Markdown, HTML, exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.archive.recorded import Manifest, RunResult
from harness.book.config import Book
from harness.errors import ExitCode, HarnessError
from harness.files import write_json, write_text
from harness.judge.check import judge_run, with_cells
from harness.model import ChapterClaims, JobResult, JobState, Outcome, Verdict
from harness.report.history import background, cell_texts
from harness.report.junit import junit_xml
from harness.report.view import html_report, markdown_report

SCHEMA_PATH = Path(__file__).with_name("schema") / "result.schema.json"
"""JSON Schema (2020-12) of the run's result.json."""

_INFRASTRUCTURE = frozenset({JobState.TIMED_OUT, JobState.DEAD, JobState.CANCELLED})
_NOTEBOOK = frozenset({JobState.FAILED, JobState.EXITED_EARLY})
_BROKEN_CLAIM = frozenset({Outcome.FAIL, Outcome.MISSING})


_RANK = (ExitCode.OK, ExitCode.INCONCLUSIVE, ExitCode.CLAIM_FAILED, ExitCode.NOTEBOOK_FAILED, ExitCode.USAGE,
         ExitCode.INFRASTRUCTURE)  # fmt: skip


def judge_and_report(
    book: Book | None,
    run_dir: Path,
    manifest: Manifest,
    results: Sequence[JobResult],
    seconds: float,
    *,
    strict: bool,
    interrupted: bool = False,
    claims: Mapping[str, ChapterClaims] | None = None,
) -> tuple[RunResult, HarnessError | None]:
    """Judge the *results*, write result.json and the reports; the judged run, and why it could not be judged.

    A shard and notebooks outside a book are not judged.

    Args:
        run_dir: the run folder.
        results: of all jobs.
        seconds: wall time of the whole run.
        claims: by chapter; those of the whole *book* by default.
    """
    verdicts: Sequence[Verdict] = ()
    problem: HarnessError | None = None
    judged = [result for result in results if result.chapter]
    if book and judged and not manifest.shard:
        ran_on = {"hardware": manifest.hardware, "by_job": manifest.hardware_by_job}
        try:
            verdicts = judge_run(book, judged, profile=manifest.profile, claims=claims, **ran_on)
            verdicts = with_cells(verdicts, judged, run_dir)
        except HarnessError as error:  # the run must still be written
            problem = error
    codes = [exit_code(results, verdicts, strict=strict)]
    codes += [problem.exit_code] if problem else []
    codes += [ExitCode.INFRASTRUCTURE] if interrupted else []
    code = max(codes, key=_RANK.index)
    run = RunResult(run_dir, manifest, tuple(results), tuple(verdicts), seconds, int(code))
    write_reports(run, book)
    return run, problem


def write_reports(run: RunResult, book: Book | None = None) -> None:
    """Write result.json, junit.xml, report.md and report.html (Chinese), report.en.md and report.en.html.

    Each is written atomically. With *book*, the pages show its earlier runs and blessed values, too.

    Raises:
        InfrastructureError: the folder cannot be written.
    """
    write_json(run.folder / "result.json", run.to_json())
    write_text(run.folder / "junit.xml", junit_xml(run))
    known, texts = background(run, book), cell_texts(run)
    for language, suffix in (("zh", ""), ("en", ".en")):
        write_text(run.folder / f"report{suffix}.md", markdown_report(run, language))
        write_text(run.folder / f"report{suffix}.html", html_report(run, known, texts, language))


def exit_code(results: Sequence[JobResult], verdicts: Sequence[Verdict], *, strict: bool) -> ExitCode:
    """The exit code of a run. Where several apply, the execution problem outranks the claim: 4, 3, 2, 1, 5.

    4: a job timed out, died or was cancelled. 3: a notebook is invalid: what was asked for cannot be run at
    all. 2: a notebook failed or exited early. 1: a claim failed or its metric is missing; under *strict* also
    a metric that nobody claims. 5: under *strict*, a claim is inconclusive. 0: all held.
    """
    states = {result.state for result in results}
    outcomes = {verdict.outcome for verdict in verdicts}
    if states & _INFRASTRUCTURE:
        return ExitCode.INFRASTRUCTURE
    if JobState.INVALID in states:
        return ExitCode.USAGE
    if states & _NOTEBOOK:
        return ExitCode.NOTEBOOK_FAILED
    if outcomes & _BROKEN_CLAIM or (strict and Outcome.UNEXPECTED in outcomes):
        return ExitCode.CLAIM_FAILED
    if strict and Outcome.INCONCLUSIVE in outcomes:
        return ExitCode.INCONCLUSIVE
    return ExitCode.OK
