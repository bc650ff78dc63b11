"""What a run leaves for people and machines: ``result.json``, JUnit, Markdown, HTML, and the exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.book.config import Book
from harness.errors import ExitCode
from harness.files import write_json, write_text
from harness.model import SCHEMA, JobResult, JobState, Outcome, Verdict, job_result_from_json, to_json
from harness.report.history import background, cell_texts
from harness.report.html import html_report
from harness.report.junit import junit_xml
from harness.report.markdown import markdown_report
from harness.report.summary import print_summary

__all__ = ["SCHEMA_PATH", "exit_code", "print_summary", "run_document", "write_reports"]

SCHEMA_PATH = Path(__file__).with_name("schema") / "result.schema.json"
"""JSON Schema (2020-12) of the run's result.json."""

_INFRASTRUCTURE = frozenset({JobState.TIMED_OUT, JobState.DEAD, JobState.CANCELLED})
_NOTEBOOK = frozenset({JobState.FAILED, JobState.EXITED_EARLY})
_BROKEN_CLAIM = frozenset({Outcome.FAIL, Outcome.MISSING})


def run_document(
    manifest: Mapping[str, Any],
    results: Sequence[JobResult],
    verdicts: Sequence[Verdict],
    exit_code: int,
    seconds: float,
) -> dict[str, Any]:
    """The run's result.json as plain JSON types.

    Args:
        manifest: as in the run folder; run, profile, started, commit, dirty, environment and shards are
            taken over.
        results: of all jobs.
        verdicts: on all claims of the chapters that ran.
        exit_code: what the command ends with.
        seconds: wall time of the whole run.
    """
    return {
        "schema": SCHEMA,
        "run": manifest["run"],
        "profile": manifest["profile"],
        "started": manifest["started"],
        "seconds": round(seconds, 3),
        "commit": manifest.get("commit") or "",
        "dirty": bool(manifest.get("dirty")),
        "environment": to_json(manifest.get("environment", {})),
        "exit_code": int(exit_code),
        **_shards(manifest),
        "jobs": to_json(results),
        "verdicts": to_json(verdicts),
    }


def _shards(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Which part of a run this is, or which parts it was merged from."""
    found: dict[str, Any] = {}
    if "shard" in manifest:
        found["shard"] = {key: manifest["shard"][key] for key in ("index", "of")}
    if "shards" in manifest:
        found["shards"] = [
            {
                "index": part["index"],
                "run": part["run"],
                "hardware": str(part["environment"].get("hardware", "")),
                "jobs": list(part["jobs"]),
            }
            for part in manifest["shards"]
        ]
    return found


def write_reports(run_dir: Path, document: Mapping[str, Any], book: Book | None = None) -> None:
    """Write result.json, junit.xml, report.md and report.html (Chinese), report.en.md and report.en.html.

    Each is written atomically. With *book*, the pages show its earlier runs and blessed values, too.

    Raises:
        InfrastructureError: the folder cannot be written.
    """
    write_json(run_dir / "result.json", document)
    write_text(run_dir / "junit.xml", junit_xml(document))
    write_text(run_dir / "report.md", markdown_report(document, "zh"))
    write_text(run_dir / "report.en.md", markdown_report(document, "en"))
    known = background(document, book)
    texts = cell_texts(run_dir, [job_result_from_json(job) for job in document.get("jobs", ())])
    write_text(run_dir / "report.html", html_report(document, known, texts, "zh"))
    write_text(run_dir / "report.en.html", html_report(document, known, texts, "en"))


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
