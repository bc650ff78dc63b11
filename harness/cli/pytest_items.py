"""Notebooks and claims as pytest items, once ``--harness`` was given.

``book/01-a.ipynb::run`` passes when all its jobs completed; ``book/01-a.ipynb::claim[accuracy]`` when the claim
holds. Each runs the notebook if no item of the session did. Items of one notebook may be dealt to different
processes of pytest-xdist, so what a run left is shared through ``_build/pytest/<notebook>/`` under a lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.archive.folder import build_dir, create_run_at
from harness.archive.recorded import RunResult, manifest_from_json, read_result
from harness.book.claims import load_claims
from harness.book.config import BUILT_IN_PROFILES, Book, find_profile, find_root, load_book
from harness.book.notebook import PASSED_OVER, read_notebook
from harness.book.parameters import read_parameters
from harness.book.plan import Request, job_stem, parse_seeds, plan
from harness.errors import HarnessError, InfrastructureError
from harness.execute.resume import Origin
from harness.execute.run import execute
from harness.files import explain_os_error, write_text
from harness.model import FINISHED, ChapterClaims, JobResult, Outcome, Verdict, worst_of
from harness.report.write import judge_and_report
from harness.wording import OUTCOMES, ending, one_line, untold


class DoesNotHold(Exception):
    """A notebook that did not complete or a claim that fails; the message is all there is to show."""


class Notebooks:
    """The plugin that ``--harness`` switches on: collects notebooks and runs each once a session."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.strict: bool = config.getoption("--harness-strict")
        self.profile: str | None = config.getoption("--harness-profile")
        try:
            self.seeds = parse_seeds(config.getoption("--harness-seeds"))
        except HarnessError as error:
            raise pytest.UsageError(str(error).replace("--seeds", "--harness-seeds")) from None
        worker = getattr(config, "workerinput", None)  # of pytest-xdist
        self.session = worker["testrunuid"] if worker else uuid.uuid4().hex
        self._books: dict[Path, Book] = {}
        self._runs: dict[Path, RunResult] = {}

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> NotebookFile | None:
        root = self.config.rootpath
        inside = file_path.relative_to(root) if file_path.is_relative_to(root) else file_path
        if file_path.suffix != ".ipynb" or PASSED_OVER & set(inside.parts):
            return None
        file: NotebookFile = NotebookFile.from_parent(parent, path=file_path, notebooks=self)
        return file

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        """A skipped item stands at its notebook, not at the line of this module that skips."""
        report: Any = yield
        if isinstance(item, _Item) and report.skipped and isinstance(report.longrepr, tuple):
            report.longrepr = (str(item.path), 1, report.longrepr[2])
        return report

    def book_of(self, path: Path) -> Book | None:
        """The book that *path* lies in, whether or not it is one of its chapters."""
        root = find_root(path.parent)
        if root is not None and root not in self._books:
            self._books[root] = load_book(root)
        return self._books[root] if root is not None else None

    def claims_of(self, path: Path) -> ChapterClaims | None:
        """The claims of the chapter at *path*; None where it is none or claims nothing."""
        book = self.book_of(path)
        find_profile(book.profiles if book else BUILT_IN_PROFILES, self.profile)  # told before anything runs
        chapter = book.chapter_of(path) if book else None
        return load_claims(book.claims_dir, chapter, tuple(book.profiles), path) if book and chapter else None

    def run(self, path: Path) -> RunResult:
        """What the notebook at *path* did in this session; runs it if no process of the session has."""
        if path not in self._runs:
            book = self.book_of(path)
            digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]  # two notebooks may share a name
            places = build_dir(book.root if book else self.config.rootpath) / "pytest"
            self._runs[path] = self._run_once(path, book, places / job_stem(path, digest))
        return self._runs[path]

    def _run_once(self, path: Path, book: Book | None, place: Path) -> RunResult:
        try:
            place.mkdir(parents=True, exist_ok=True)
            lock = (place / "lock").open("w")
        except OSError as error:
            raise explain_os_error(error, f"cannot write to {place}") from None
        run_dir, session = place / "run", place / "session"
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # given back when the file is closed or the process is gone
            if not session.is_file() or session.read_text(encoding="utf-8") != self.session:
                session.unlink(missing_ok=True)
                self._execute(path, book, create_run_at(run_dir))
                write_text(session, self.session)
            return read_result(run_dir)

    def _execute(self, path: Path, book: Book | None, run_dir: Path) -> None:
        seeds = self.seeds if _takes_seed(path) else None
        planned = plan(book, [path], Request(self.profile, seeds))
        command = ["pytest", *map(str, self.config.invocation_params.args)]
        use_cache = not self.config.getoption("--harness-no-cache")
        outcome = execute(planned, run_dir, Origin(command), book=book, use_cache=use_cache)
        if outcome.trouble:
            raise InfrastructureError(outcome.trouble)
        manifest = manifest_from_json(outcome.manifest, run_dir / "manifest.json")
        mine = self.claims_of(path)
        claims = {mine.chapter: mine} if mine else {}
        _, problem = judge_and_report(
            book, run_dir, manifest, outcome.results, outcome.seconds, strict=self.strict, claims=claims
        )
        if problem:
            raise problem


def _takes_seed(path: Path) -> bool:
    try:
        return "seed" in (read_parameters(read_notebook(path)) or {})
    except HarnessError:
        return False  # the job's result says what is wrong


def unfinished_of(run: RunResult) -> list[JobResult]:
    """The jobs that did not complete."""
    return [job for job in run.jobs if job.state not in FINISHED]


def describe(run: RunResult, job: JobResult) -> str:
    """State, cell, line and error of a job, and where its output is."""
    lines = [f"{job.notebook}: {ending(job).en}"]
    for cell in untold(job):
        at = f", line {cell.line}" if cell.line else ""
        lines.append(f"  {cell.place}{at}: {one_line(cell.error or 'no error')}")
    parameters = ", ".join(f"{name}={value!r}" for name, value in job.parameters.items())
    lines += [f"  parameters: {parameters}"] if parameters else []
    output = run.folder / "jobs" / job.id / "out.ipynb"
    lines += [f"  executed notebook: {output}"] if output.exists() else []
    return "\n".join(lines)


def warnings_of(run: RunResult) -> list[str]:
    """What the harness had to say while it ran."""
    lines = (run.folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event["message"] for event in map(json.loads, lines) if event["event"] == "warning"]


class NotebookFile(pytest.File):
    """One notebook: its run, and the claims of its chapter."""

    def __init__(self, *, notebooks: Notebooks, **kw: Any) -> None:
        super().__init__(**kw)
        self.notebooks = notebooks

    def collect(self) -> Iterator[pytest.Item]:
        claims = self.notebooks.claims_of(self.path)
        yield RunItem.from_parent(self, name="run")
        for claim in claims.claims if claims else ():
            yield ClaimItem.from_parent(self, name=f"claim[{claim.name}]", claim=claim.name)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> Any:
        return _without_traceback(excinfo) or super().repr_failure(excinfo)


class _Item(pytest.Item):
    """What both kinds of item share."""

    def __init__(self, *, parent: NotebookFile, **kw: Any) -> None:
        super().__init__(parent=parent, **kw)
        self.notebooks = parent.notebooks
        if self.config.pluginmanager.hasplugin("timeout"):
            self.add_marker(pytest.mark.timeout(0))  # the profile's limits hold, and end a notebook in order
        if self.config.pluginmanager.hasplugin("xdist"):
            self.add_marker(pytest.mark.xdist_group(parent.nodeid))  # heeded under --dist loadgroup

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, f"{self.path.name}: {self.name}"

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        return _without_traceback(excinfo) or super().repr_failure(excinfo, style)


class RunItem(_Item):
    """``notebook::run``: all jobs of the notebook complete."""

    def runtest(self) -> None:
        run = self.notebooks.run(self.path)
        for job in run.jobs:
            self.user_properties += [(f"{job.id}: {metric.name}", metric.value) for metric in job.metrics]
        if warnings := warnings_of(run):
            self.add_report_section("call", "harness warnings", "\n".join(warnings))
        if unfinished := unfinished_of(run):
            raise DoesNotHold("\n".join(describe(run, job) for job in unfinished))


class ClaimItem(_Item):
    """``notebook::claim[name]``: the claim holds for what the notebook measured."""

    def __init__(self, *, claim: str, **kw: Any) -> None:
        super().__init__(**kw)
        self.claim = claim

    def runtest(self) -> None:
        run = self.notebooks.run(self.path)
        if unfinished := unfinished_of(run):
            job = unfinished[0]
            pytest.skip(f"{job.notebook} did not complete: {ending(job).en}")
        mine = [v for v in run.verdicts if v.claim == self.claim and v.outcome is not Outcome.UNEXPECTED]
        worst = worst_of(mine)
        if worst is Outcome.PASS:
            return
        text = "\n".join(_told(v) for v in mine if v.outcome is not Outcome.PASS)
        if worst is Outcome.NOT_APPLICABLE or (worst is Outcome.INCONCLUSIVE and not self.notebooks.strict):
            pytest.skip(text)
        raise DoesNotHold(text)


def _told(verdict: Verdict) -> str:
    return f"{verdict.claim} [{verdict.rule}]: {OUTCOMES[verdict.outcome].en}: {verdict.message}"


def _without_traceback(excinfo: pytest.ExceptionInfo[BaseException]) -> str:
    """What there is to say, where the notebook or the user is at fault; empty for an error of the harness."""
    return str(excinfo.value) if isinstance(excinfo.value, DoesNotHold | HarnessError) else ""
