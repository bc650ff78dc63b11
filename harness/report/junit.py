"""A run as JUnit XML, for CI servers: a suite for each job, and one for the claims of each chapter.

The claims of a chapter are judged over all its seeds together, so they belong to no single job.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence

from harness.archive.recorded import RunResult
from harness.model import JobResult, JobState, Outcome, Verdict
from harness.wording import OUTCOMES, ending, one_line

_ERRORS = frozenset({JobState.TIMED_OUT, JobState.DEAD, JobState.CANCELLED})
_FAILURES = frozenset({JobState.FAILED, JobState.EXITED_EARLY, JobState.INVALID})
_VERDICT_TAGS: Mapping[Outcome, str | None] = {
    Outcome.PASS: None,
    Outcome.FAIL: "failure",
    Outcome.MISSING: "failure",
    Outcome.INCONCLUSIVE: "skipped",
    Outcome.UNEXPECTED: "skipped",
    Outcome.NOT_APPLICABLE: "skipped",
}
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(run: RunResult) -> str:
    """*run* as one ``<testsuites>`` element.

    A notebook that failed is a failure; one that timed out, died or was cancelled an error; a cached one
    skipped. A claim that failed or is missing is a failure; one that is inconclusive, unclaimed or
    not applicable is skipped.
    """
    verdicts, started = run.verdicts, run.manifest.started
    root = ET.Element("testsuites", name=_clean(f"harness {run.manifest.run}"), time=_time(run.seconds))
    for job in run.jobs:
        root.append(_suite(job.id, [_job_case(job)], job.seconds, job.started or started))
    apart = len({verdict.hardware for verdict in verdicts if verdict.observed}) > 1
    for chapter in dict.fromkeys(verdict.chapter for verdict in verdicts):
        cases = [_verdict_case(verdict, apart) for verdict in verdicts if verdict.chapter == chapter]
        root.append(_suite(f"{chapter} claims", cases, 0.0, started))
    _count(root, root.iter("testcase"))
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(name: str, cases: Sequence[ET.Element], seconds: float, started: str) -> ET.Element:
    suite = ET.Element("testsuite", name=_clean(name), time=_time(seconds), timestamp=_clean(started))
    suite.extend(cases)
    _count(suite, cases)
    return suite


def _count(element: ET.Element, cases: Iterable[ET.Element]) -> None:
    cases = list(cases)
    element.set("tests", str(len(cases)))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(attribute, str(sum(case.find(tag) is not None for case in cases)))


def _job_case(job: JobResult) -> ET.Element:
    case = ET.Element(
        "testcase", classname=_clean(job.chapter or job.notebook), name="execution", time=_time(job.seconds)
    )
    message = ending(job).en
    if job.state in _ERRORS or job.state in _FAILURES:
        tag = "error" if job.state in _ERRORS else "failure"
        details = [f"{cell.place}: {one_line(cell.error)}" for cell in job.failed]
        _outcome(case, tag, job.state.value, message, "\n".join([job.notebook, *details]))
    elif job.state is JobState.SKIPPED:
        _outcome(case, "skipped", job.state.value, message)
    return case


def _verdict_case(verdict: Verdict, apart: bool) -> ET.Element:
    """One claim by one rule; *apart* if the run has verdicts of several hardware classes."""
    place = f" on {verdict.hardware}" if apart and verdict.hardware else ""
    name = f"{verdict.claim} [{verdict.rule}]{place}"
    case = ET.Element("testcase", classname=_clean(verdict.chapter), name=_clean(name), time="0.000")
    tag = _VERDICT_TAGS[verdict.outcome]
    if tag is None:
        output = ET.SubElement(case, "system-out")
        output.text = _clean(f"{verdict.title}: {verdict.message}")
    else:
        message = f"{OUTCOMES[verdict.outcome].en}: {verdict.message}"
        _outcome(case, tag, verdict.outcome.value, message, verdict.title)
    return case


def _outcome(case: ET.Element, tag: str, kind: str, message: str, text: str = "") -> None:
    element = ET.SubElement(case, tag, type=kind, message=_clean(one_line(message)))
    if tag == "skipped":
        del element.attrib["type"]
    if text:
        element.text = _clean(text)


def _time(seconds: float) -> str:
    return f"{seconds:.3f}"


def _clean(text: str) -> str:
    """*text* without what XML 1.0 cannot hold: control characters and lone surrogates."""
    return _NOT_XML.sub("\ufffd", text)
