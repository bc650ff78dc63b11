"""What went wrong, said to GitHub Actions: annotations at notebook and line, and the step's summary.

A workflow command such as ``::error file=a.ipynb,line=7,title=…::message`` on a line of its own puts the message
beside that line of the file. For a notebook that is the line of the .ipynb file, not of the cell. GitHub shows the
first ten errors and ten warnings of a step; the rest stand in the log.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from json.decoder import scanstring
from json.scanner import py_make_scanner
from pathlib import Path

from harness.archive.recorded import RunResult
from harness.book.claims import claim_path
from harness.book.config import Book
from harness.book.yaml_file import read_node
from harness.errors import HarnessError
from harness.model import FINISHED, CellResult, JobResult, Outcome, Verdict
from harness.wording import OUTCOMES, STATES, one_line

SUMMARY_LIMIT = 2**20
"""Bytes of a step's summary; GitHub refuses a longer one as a whole."""

_LEVELS: Mapping[Outcome, str] = {
    Outcome.FAIL: "error",
    Outcome.MISSING: "error",
    Outcome.INCONCLUSIVE: "warning",
    Outcome.UNEXPECTED: "warning",
}
_CUT = "\n报告太长，在此截断；全文见 {path}。/ Too long: cut here; the whole report is in {path}.\n"


@dataclass(frozen=True)
class Annotation:
    """One message at one place."""

    level: str  # "error" or "warning"
    file: Path
    line: int  # of the file, from 1
    title: str
    message: str

    def command(self, workspace: Path) -> str:
        """The workflow command; the file relative to *workspace*, where GitHub looks for it."""
        file = self.file.resolve()
        if file.is_relative_to(workspace.resolve()):
            file = file.relative_to(workspace.resolve())
        place = f"file={_property(file.as_posix())},line={self.line},title={_property(one_line(self.title))}"
        return f"::{self.level} {place}::{_data(one_line(self.message))}"


def announce(run: RunResult, book: Book | None, wanted: bool | None) -> None:
    """Print the annotations of a reported run and append its report.md to the step's summary.

    Args:
        run: in its folder is report.md.
        book: whose chapters ran; None for notebooks outside a book, named from the working directory.
        wanted: None asks the environment: GITHUB_ACTIONS is ``true`` there, and GITHUB_STEP_SUMMARY names a file.
    """
    if (wanted is None and os.environ.get("GITHUB_ACTIONS") == "true") or wanted:
        workspace = Path(os.environ.get("GITHUB_WORKSPACE") or ".")
        for annotation in annotations(run, book):
            print(annotation.command(workspace), flush=True)
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary and wanted is not False:
        problem = append_summary(Path(summary), run.folder / "report.md")
        if problem:
            print(f"::warning::{_data(problem)}", flush=True)


def annotations(run: RunResult, book: Book | None) -> list[Annotation]:
    """Of the run's failed jobs and of its claims that are not a pass; errors first."""
    root = book.root if book else Path.cwd()
    found = [one for job in run.jobs for one in _of_job(job, root)]
    if book:
        found += _of_verdicts(run.verdicts, book)
    return sorted(_merged(found), key=lambda one: one.level != "error")


def _merged(found: Sequence[Annotation]) -> Iterator[Annotation]:
    """What several seeds say in the same words at the same place, said once: GitHub shows only a few."""
    groups: dict[Annotation, list[Annotation]] = {}
    for one in found:
        groups.setdefault(replace(one, title=""), []).append(one)
    for first, *others in groups.values():
        yield replace(first, title=f"{first.title} (and {len(others)} more)") if others else first


def _of_job(job: JobResult, root: Path) -> Iterator[Annotation]:
    if job.state in FINISHED:
        return
    notebook, title = root / job.notebook, f"{job.id}: {STATES[job.state].en}"
    for cell in job.failed:
        message = cell.place
        if cell.line:
            message += f", line {cell.line}"
        message += f": {cell.error or job.reason}"
        yield Annotation("error", notebook, _line_of_cell(notebook, cell), title, message)
    if not job.failed:
        yield Annotation("error", notebook, 1, title, job.reason or "no reason was given")


def _of_verdicts(verdicts: Sequence[Verdict], book: Book) -> Iterator[Annotation]:
    lines: dict[str, dict[str, int]] = {}
    for verdict in verdicts:
        level = _LEVELS.get(verdict.outcome)
        if level is None:
            continue
        path = claim_path(book.claims_dir, verdict.chapter)
        if verdict.chapter not in lines:
            lines[verdict.chapter] = claim_lines(path)
        if not path.is_file():  # a metric of a chapter that claims nothing
            path = book.chapters_dir / f"{verdict.chapter}.ipynb"
        line = lines[verdict.chapter].get(verdict.claim, 1)
        title = f"{verdict.claim}: {OUTCOMES[verdict.outcome].en}"
        yield Annotation(level, path, line, title, f"{verdict.title}: {verdict.message}")


def claim_lines(path: Path) -> dict[str, int]:
    """Line of each claim's name in its file; empty where the file cannot be read, which judging tells."""
    try:
        return {claim.text("name"): claim.line("name") for claim in read_node(path).items("claims")}
    except (HarnessError, KeyError):
        return {}


def _line_of_cell(notebook: Path, cell: CellResult) -> int:
    try:
        text = notebook.read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        return 1
    return source_line(text, cell.index, cell.id, cell.line or 1)


def source_line(text: str, index: int, name: str, line: int) -> int:
    """The line of a notebook file where *line* of a cell's source stands; 1 where that cannot be told.

    Args:
        text: of the .ipynb file.
        index: place of the cell among all cells, from 0; counts where no cell has the id.
        name: the cell's id.
        line: of the cell's source, from 1.
    """
    try:
        cells = _Placing().decode(text)["cells"]
        named = [cell for cell in cells if cell.get("id") == name]
        here = cells[index : index + 1]  # of several cells with one id the one in this place
        source = (here if here and here[0] in named else named or here)[0]["source"]
        pieces = [source] if isinstance(source, str) else source
        ends = accumulate(piece.count("\n") for piece in pieces)
        place = next(
            (piece for piece, end in zip(pieces, ends, strict=True) if end >= line), pieces[-1]
        ).place
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return 1
    return text.count("\n", 0, place) + 1


class _Placed(str):
    """A string of a JSON text, and where in the text it stands."""

    place: int


class _Placing(json.JSONDecoder):
    """Decodes the strings of a JSON text, other than keys, to :class:`_Placed`."""

    def __init__(self) -> None:
        super().__init__()
        self.parse_string = self._place
        self.scan_once = py_make_scanner(self)  # the scanner in C knows no other strings

    @staticmethod
    def _place(text: str, start: int, strict: bool = True) -> tuple[_Placed, int]:
        content, end = scanstring(text, start, strict)
        found = _Placed(content)
        found.place = start
        return found, end


def append_summary(summary: Path, report: Path) -> str:
    """Append *report* to the step's *summary*, cut at a line where it would grow too long.

    Returns:
        Why nothing was appended, in one line; empty where all went well.
    """
    try:
        content = report.read_bytes()
        taken = summary.stat().st_size if summary.exists() else 0
        room = SUMMARY_LIMIT - taken - 1
        if len(content) > room:
            note = _CUT.format(path=report).encode()
            content = content[: max(room - len(note), 0)]
            content = content[: content.rfind(b"\n") + 1]
            if not content:
                return f"the step's summary is full: the report was left out; it is in {report}"
            content += note
        with summary.open("ab") as file:
            file.write((b"\n" if taken else b"") + content)
    except OSError as error:
        return f"cannot add the report to the step's summary {summary}: {error.strerror or error}"
    return ""


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
