"""The command line: ``python -m harness init|list|run|check|report|diff|bless|book|lint|doctor|clean``.

Heavy modules are imported inside the commands, so that each starts at once. A mistake of the user ends in
one line on stderr and the exit code of :class:`harness.errors.ExitCode`, never in a traceback.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from harness.config import Book, find_root, load_book
from harness.errors import ExitCode, HarnessError, InfrastructureError
from harness.interrupts import interruptible, stoppable
from harness.remote import RunPlace, fetch, fetched_folders, is_url, name_of, run_place
from harness.store import (
    LATEST,
    build_dir,
    claimed,
    explain_os_error,
    find_run,
    latest_name,
    runs_dir,
)

if TYPE_CHECKING:
    from threading import Event

    from harness.plan import Planned

app = typer.Typer(
    name="harness",
    help="Run the notebooks of an executable book and say whether their numbers still hold.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

RunArgument = Annotated[
    str, typer.Argument(metavar="[RUN]", help="A run's id, the beginning of it, a path, a URL, or latest.")
]
ChaptersOption = Annotated[
    str | None, typer.Option(help="Chapters by the beginning of their names, with commas: 05,06.")
]
StrictOption = Annotated[
    bool,
    typer.Option(
        "--strict", help="Exit with 5 if a verdict is inconclusive, with 1 if a metric has no claim."
    ),
]
DiffFormat = Literal["text", "markdown", "json"]
AnnotationsOption = Annotated[
    bool | None,
    typer.Option(
        "--annotations/--no-annotations",
        help="Annotate notebooks and claims, and write the step's summary; by default under GitHub Actions.",
    ),
]
EXIT_CODES = (
    "Exit codes: 0 all claims hold; 1 a claim failed or its metric is missing; 2 a notebook failed;"
    " 3 usage or configuration: what was asked for cannot be run; 4 a time limit, a kernel that died, an"
    " interrupt or the machine; 5 inconclusive under --strict. Where several apply: 4, 3, 2, 1, 5."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    given = list(sys.argv[1:] if arguments is None else arguments)
    with patient_stdout() as stdout, stoppable(), fetched_folders():
        code = _run_command(given or ["--help"])
    if stdout.trouble is not None:
        return fail(str(explain_os_error(stdout.trouble, "cannot write to stdout")), ExitCode.INFRASTRUCTURE)
    return code if given else int(ExitCode.USAGE)


def _run_command(arguments: list[str]) -> int:
    try:
        code = app(args=arguments, prog_name="harness", standalone_mode=False)
        if code == _TYPER_INTERRUPTED:
            raise KeyboardInterrupt
        return int(code or 0)
    except HarnessError as error:
        return fail(str(error), error.exit_code)
    except typer.Exit as error:
        return int(error.exit_code)
    except typer.TyperException as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        return fail(f"{message.rstrip('.')}; see --help", ExitCode.USAGE) if message else int(ExitCode.USAGE)
    except (KeyboardInterrupt, typer.Abort):
        return fail("interrupted", ExitCode.INFRASTRUCTURE)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _REFUSED:
            doing = f"cannot read or write {error.filename or ''}".rstrip()
            return fail(str(explain_os_error(error, doing)), ExitCode.INFRASTRUCTURE)
        return fail(_internal(error), ExitCode.INFRASTRUCTURE)


_TYPER_INTERRUPTED = 130  # what typer makes of Ctrl-C
_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


def _internal(error: Exception) -> str:
    """One line for what nobody foresaw; the traceback goes to a file, for the report."""
    import tempfile
    import traceback

    what = f"internal error: {type(error).__name__}: {error}"
    try:
        handle, place = tempfile.mkstemp(prefix="harness-traceback-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            traceback.print_exception(error, file=file)
    except OSError:
        return f"{what}; please report it"
    return f"{what}; the traceback is in {place}; please report it"


class _Patient:
    """A text stream that goes silent when it cannot be written, as in ``harness run | head``.

    A reader that leaves must not end a run that takes an hour; neither must a full disk under its log.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.trouble: OSError | None = None  # other than a reader that left

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return int(self._stream.write(text))
        except OSError as error:
            self._silence(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._silence(error)

    def _silence(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            self.trouble = self.trouble or error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())  # what is still in the buffer goes there, too
        os.close(nowhere)


@contextmanager
def patient_stdout() -> Iterator[_Patient]:
    """Standard output as a patient stream; nowhere, if it was closed before the start."""
    before = sys.stdout
    with Path(os.devnull).open("w", encoding="utf-8") if before is None else nullcontext(before) as stream:
        sys.stdout = patient = _Patient(stream)  # type: ignore[assignment]
        try:
            yield patient
        finally:
            patient.flush()
            sys.stdout = before


def fail(message: str, code: ExitCode) -> int:
    """One line on stderr, whatever the message held."""
    with suppress(OSError):
        print("error: " + " ".join(message.split()), file=sys.stderr)
    return int(code)


def run_folder(root: Path, name: str) -> Path:
    """The run called *name*; an empty name, as from an unset variable, is no run."""
    if not name.strip():
        raise HarnessError("the run's name is empty; give its id, the beginning of it, or latest")
    if is_url(name):
        return fetch(name)
    runs = runs_dir(root)
    if name == LATEST and latest_name(runs) is None and (newest := _newest(runs)):
        return runs / newest  # the run that the link named is gone
    return find_run(root, name)


def console() -> Any:
    """Rich's console on stdout."""
    from rich.console import Console

    return Console(highlight=False)


def names(option: str | None) -> list[str] | None:
    """``"05, 06"`` as a list; None where nothing was given."""
    if option is None:
        return None
    found = [part.strip() for part in option.split(",") if part.strip()]
    if not found:
        raise HarnessError("--chapters is empty; give names such as 05,06 or leave it out")
    return found


@app.command()
def init(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="The book's; this one by default.")
    ] = Path(),
) -> None:
    """Make a folder of notebooks a book: write the few files it lacks; change none that exists."""
    from harness.init import init as make_book

    for line in make_book(folder):
        print(line)


@app.command("list")
def list_chapters(
    profile: Annotated[str | None, typer.Option(help="Show the parameters under this profile.")] = None,
) -> int:
    """List the chapters with their parameters, and what keeps one from running."""
    from rich.table import Table

    from harness.notebook import InvalidNotebook, read_notebook
    from harness.parameters import ParameterError, read_parameters
    from harness.plan import Request, plan

    book = load_book()
    chosen = book.profile(profile).name
    table = Table("chapter", "title", f"parameters ({chosen})", title=book.title)
    for chapter in book.chapters:
        try:
            notebook = read_notebook(chapter)
            defaults = {name: p.default for name, p in (read_parameters(notebook) or {}).items()}
            title = notebook.title
        except (InvalidNotebook, ParameterError):
            title, defaults = "cannot be read", {}
        values = defaults | dict(book.parameters.get(chapter.stem, {}).get(chosen, {}))
        table.add_row(chapter.stem, title, ", ".join(f"{n}={v!r}" for n, v in values.items()))
    console().print(table)
    problems = dict.fromkeys(
        entry.problem
        for name in book.profiles
        for entry in plan(book, book.chapters, Request(name))
        if entry.problem
    )
    for problem in problems:
        fail(problem, ExitCode.USAGE)
    return int(ExitCode.USAGE if problems else ExitCode.OK)


@app.command(epilog=EXIT_CODES)
def run(
    notebooks: Annotated[
        list[Path] | None,
        typer.Argument(help="Notebooks to run, or folders of them; the book's chapters if none."),
    ] = None,
    profile: Annotated[str | None, typer.Option(help="smoke, offline, full … as in harness.yml.")] = None,
    chapters: ChaptersOption = None,
    seeds: Annotated[str | None, typer.Option(help="A count (5 is 0 to 4) or a list (0,3,7).")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    param: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Set a parameter; repeatable.")
    ] = None,
    cell_timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="Limit of one cell.")] = None,
    notebook_timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Limit of one notebook.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(metavar="N", help="At once; as many as cores, memory and GPUs allow by default."),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(metavar="GB", help="That the jobs may take together; what is free by default."),
    ] = None,
    gpus: Annotated[
        str | None, typer.Option(metavar="N|IDS", help="GPUs to use, one a job; all by default.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Let kernels see this variable; repeatable.")
    ] = None,
    no_warm: Annotated[
        bool,
        typer.Option("--no-warm", help="A fresh process for each kernel, none forked with its imports done."),
    ] = False,
    out: Annotated[
        str | None, typer.Option(metavar="FOLDER|URL", help="Run folder; _build/runs/<id> by default.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Run this part only, judge nothing; see report --merge.")
    ] = None,
    executor: Annotated[
        Literal["local", "ray"], typer.Option(help="Where jobs run: here, or on the nodes of a Ray cluster.")
    ] = "local",
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Of the Ray cluster; RAY_ADDRESS or the one here.")
    ] = None,
    shared: Annotated[
        bool, typer.Option("--shared", help="Every node sees the book under this path: send no files.")
    ] = False,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Run even what has not changed.")] = False,
    why: Annotated[
        bool, typer.Option("--why", help="Say what would run and what changed since; run nothing.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the latest run, or that of --out, where it stopped.")
    ] = False,
    strict: StrictOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors only.")] = False,
    site: Annotated[bool, typer.Option("--book", help="Then build the site, whatever the verdicts.")] = False,
    annotations: AnnotationsOption = None,
) -> int:
    """Run chapters x seeds under a profile, or any notebooks, and judge what the chapters measured."""
    from harness.annotations import announce
    from harness.asked import Asked, read_asked
    from harness.notebook import notebooks_in
    from harness.plan import Request, parse_seeds
    from harness.schedule import find_machine
    from harness.shard import parse_shard, take_shard

    root = find_root()
    book = load_book() if root or not (notebooks or resume) else None
    place = book.root if book else Path.cwd()
    if out is not None and not out.strip():
        raise HarnessError("--out is empty; name a folder, or leave it out")
    if resume:
        given = (notebooks, profile, chapters, seeds, param, cell_timeout, notebook_timeout, env, shard)
        if device != "auto" or any(value for value in given):
            raise HarnessError(
                "--resume goes on with what that run was asked for; name no notebooks, profile, chapters, seeds,"
                " device, parameters, limits, variables or shard"
            )
        if out is not None and is_url(out):
            raise HarnessError(f"--resume goes on in a folder of this machine; copy {out} here")
        run_dir = Path(out).absolute() if out is not None else run_folder(place, LATEST)
        asked = read_asked(run_dir)
    else:
        asked = Asked(
            notebooks=tuple(p for one in notebooks for p in notebooks_in(one.absolute()))
            if notebooks
            else None,
            chapters=tuple(names(chapters) or ()) or None,
            request=Request(
                profile,
                parse_seeds(seeds),
                device,
                _texts(param or ()),
                _limit("--cell-timeout", cell_timeout),
                _limit("--notebook-timeout", notebook_timeout),
            ),
            variables=tuple(env or ()),
            shard=None if shard is None else parse_shard(shard),
        )
    if asked.notebooks and asked.chapters:
        raise HarnessError("give notebooks or --chapters, not both")
    if asked.shard and (strict or site):
        raise HarnessError(
            "a shard judges nothing and makes no site: take --strict and --book out; give --strict to"
            " `harness report --merge`"
        )
    if site and (asked.notebooks or not book):
        raise HarnessError("--book builds the site of a book's chapters; run it in a book, without notebooks")
    planned = asked.plan(book)
    if not planned:
        raise HarnessError("nothing to run: the book has no chapter yet")
    if why:
        return _explain(book, planned, asked.variables)
    if executor == "local" and (address is not None or shared):
        raise HarnessError("--address and --shared belong to --executor ray; add it, or take them out")
    if executor == "ray" and (memory is not None or gpus is not None):
        raise HarnessError("--memory and --gpus are of this machine; take them out with --executor ray")
    if book and any(entry.job.chapter for entry in planned):
        _check_claim_files(book)
    if site and book:
        from harness.book import check_site

        check_site(book)
    nothing_runs = all(entry.problem for entry in planned)
    taken = None
    if asked.shard:
        taken, planned = take_shard(planned, *asked.shard)
        if not planned:
            print(f"shard {taken} is empty: the run has {len(taken.plan)} job(s); nothing to do")
            return int(ExitCode.OK)
    for problem in dict.fromkeys(entry.problem for entry in planned if entry.problem):
        fail(problem, ExitCode.USAGE)
    if nothing_runs:
        return int(ExitCode.USAGE)  # no run folder: the latest run stays the latest
    count = sum(not entry.problem for entry in planned)
    ways = {
        "use_cache": not no_cache,
        "warm": not no_warm,
        "machine": find_machine(asked.request.device, count, jobs=jobs, memory_gb=memory, gpus=gpus),
        "asked": asked,
        "resume": resume,
        "shard": taken,
    }
    began = time.monotonic()
    cluster: Any = nullcontext()
    if executor == "ray":
        from harness.ray_executor import connected

        cluster = connected(address, asked.request.device, shared=shared, jobs=jobs)
    target = (
        nullcontext(RunPlace(run_dir, str(run_dir)))
        if resume
        else run_place(out, place, planned[0].job.profile)
    )
    with cluster as nodes, target as chosen, interruptible() as cancel, claimed(chosen.folder):
        ways["executor"] = nodes
        code = _execute(book, planned, chosen, cancel, ways, strict=strict, quiet=quiet)
    announce(chosen.folder, book, annotations)
    if site and book and code != ExitCode.INFRASTRUCTURE:
        if cancel.is_set():  # while the reports were written
            raise KeyboardInterrupt
        _build_site(book, chosen.folder, began)
    return code


def _limit(option: str, seconds: float | None) -> float | None:
    if seconds is not None and not 0 < seconds < float("inf"):
        raise HarnessError(f"{option} must be a number of seconds above 0, not {seconds:g}")
    return seconds


def _explain(book: Book | None, planned: Sequence[Planned], variables: Sequence[str]) -> int:
    """For --why: a line for each job."""
    from harness.why import explain

    variables = (*(book.environment if book else ()), *variables)
    for line in explain(book, planned, variables):
        print(line)
    return int(ExitCode.USAGE if any(entry.problem for entry in planned) else ExitCode.OK)


def _texts(options: Sequence[str]) -> dict[str, str]:
    """``--param NAME=VALUE …`` by name."""
    from harness.parameters import ParameterError, split_option

    texts: dict[str, str] = {}
    for name, text in map(split_option, options):
        if name in texts:
            raise ParameterError(f"--param {name} is given twice")
        texts[name] = text
    return texts


def _build_site(book: Book, run_dir: Path, began: float) -> None:
    """Build the site of *run_dir*; say where its first page is and how long all took since *began*."""
    from harness.book import build
    from harness.progress import format_seconds

    page = build(book, run_dir)
    print(f"total wall time {format_seconds(time.monotonic() - began)}; open {page}")


def _check_claim_files(book: Book) -> None:
    """A broken claim file is told before anything runs, not after an hour of training."""
    from harness.claims import load_all_claims

    load_all_claims(book.claims_dir, [c.stem for c in book.chapters], tuple(book.profiles))


def _execute(
    book: Book | None,
    planned: Sequence[Planned],
    place: RunPlace,
    cancel: Event,
    ways: Mapping[str, Any],
    *,
    strict: bool,
    quiet: bool,
) -> int:
    """Run the jobs in these *ways* (see :func:`harness.run.execute`), judge them and report.

    Once *cancel* is set no job runs on; the reports are still written.
    """
    from harness.progress import format_seconds, make_progress
    from harness.run import execute

    screen, run_dir = console(), place.folder
    progress = make_progress(screen, quiet=quiet)

    def listen(event: Mapping[str, Any]) -> None:
        progress(event)
        place.listen(event)

    try:
        outcome = execute(
            planned,
            run_dir,
            book=book,
            command=["harness", *sys.argv[1:]],
            progress=listen,
            cancel=cancel,
            **ways,
        )
    finally:
        progress.close()
    code, verdicts = _report(
        book, run_dir, outcome.manifest, outcome.results, outcome.seconds, strict, outcome.interrupted
    )
    if quiet:
        told = {entry.job.id for entry in planned if entry.problem}  # before anything ran
        _print_failures([job for job in outcome.results if job.id not in told], verdicts)
    else:
        from harness.report import print_summary

        print_summary(screen, outcome.results, verdicts)
        wall = f"wall time {format_seconds(outcome.seconds)}; run folder {place.name}"
        screen.print(wall, markup=False, soft_wrap=True)
        if shard := ways["shard"]:
            screen.print(f"shard {shard}: nothing is judged before `harness report --merge`", soft_wrap=True)
    if outcome.trouble:
        return fail(outcome.trouble, ExitCode.INFRASTRUCTURE)
    if outcome.interrupted:
        return fail(f"interrupted; what was recorded is in {place.name}", ExitCode.INFRASTRUCTURE)
    return code


def _print_failures(results: Any, verdicts: Any) -> None:
    """For --quiet: a line for each job that did not complete and each claim that does not hold."""
    from harness.model import JobState, Outcome
    from harness.wording import OUTCOMES, STATES

    for job in results:
        if job.state not in (JobState.COMPLETED, JobState.SKIPPED):
            fail(f"{job.id}: {STATES[job.state].en}" + (f": {job.reason}" if job.reason else ""), ExitCode.OK)
    for verdict in verdicts:
        if verdict.outcome in (Outcome.FAIL, Outcome.MISSING):
            fail(f"{verdict.claim}: {OUTCOMES[verdict.outcome].en}: {verdict.message}", ExitCode.OK)


def _report(
    book: Book | None,
    run_dir: Path,
    manifest: Any,
    results: Any,
    seconds: float,
    strict: bool,
    interrupted: bool,
) -> tuple[int, list[Any]]:
    """Judge the results, write result.json and the reports; the exit code and the verdicts."""
    from harness.report import exit_code, run_document, write_reports

    verdicts: list[Any] = []
    judged = [r for r in results if r.chapter]
    problem: HarnessError | None = None
    if book and judged and "shard" not in manifest:
        from harness.check import judge_run
        from harness.reading import hardware_by_job

        try:
            hardware = str(manifest["environment"].get("hardware", ""))
            verdicts = judge_run(
                book, judged, profile=manifest["profile"], hardware=hardware, by_job=hardware_by_job(manifest)
            )
        except HarnessError as error:  # the run must still be written
            problem = error
    codes = [exit_code(results, verdicts, strict=strict)]
    if problem is not None:
        codes.append(problem.exit_code)
    if interrupted:
        codes.append(ExitCode.INFRASTRUCTURE)
    code = max(codes, key=_RANK.index)
    write_reports(run_dir, run_document(manifest, results, verdicts, int(code), seconds), book)
    if problem is not None:
        fail(str(problem), problem.exit_code)
    return int(code), verdicts


_RANK = [ExitCode.OK, ExitCode.INCONCLUSIVE, ExitCode.CLAIM_FAILED, ExitCode.NOTEBOOK_FAILED, ExitCode.USAGE,
         ExitCode.INFRASTRUCTURE]  # fmt: skip


@app.command(epilog=EXIT_CODES)
def check(
    run: RunArgument = "latest", strict: StrictOption = False, annotations: AnnotationsOption = None
) -> int:
    """Judge a finished run again, for instance after a claim changed."""
    book = load_book()
    return _judge_again(book, run_folder(book.root, run), None, strict, annotations)


def _judge_again(
    book: Book | None, run_dir: Path, seconds: float | None, strict: bool, annotations: bool | None = None
) -> int:
    """Judge and report what *run_dir* holds; *seconds* are those of its result.json by default."""
    from harness.annotations import announce
    from harness.reading import read_document, read_run
    from harness.report import print_summary
    from harness.shard import refuse_shard

    recorded = read_run(run_dir, book.chapters if book else ())
    manifest, results = recorded.manifest, recorded.results
    refuse_shard(manifest, "a judgement")
    if len(recorded.absent) == len(results):
        raise HarnessError(f"{run_dir} holds no finished job; run it again")
    if seconds is None and (run_dir / "result.json").is_file():
        seconds = float(read_document(run_dir)["seconds"])
    elif seconds is None:
        seconds = sum(r.seconds for r in results)
    code, verdicts = _report(book, run_dir, manifest, results, seconds, strict, interrupted=False)
    screen = console()
    print_summary(screen, results, verdicts)
    screen.print(f"run folder {name_of(run_dir)}", markup=False, soft_wrap=True)
    announce(run_dir, book, annotations)
    if recorded.absent:
        return fail(
            f"unfinished: {len(recorded.absent)} of {len(results)} planned jobs have no result"
            f" ({', '.join(recorded.absent)}); run again what is missing",
            ExitCode.INFRASTRUCTURE,
        )
    return code


@app.command(epilog=EXIT_CODES)
def report(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]", help="As for check; the shards with --merge.")
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Make one run of the shards' folders and judge it as a whole.")
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Merge what there is; missing jobs count as cancelled.")
    ] = False,
    out: Annotated[
        str | None,
        typer.Option(metavar="FOLDER|URL", help="Folder of the merged run; _build/runs/<id> if none."),
    ] = None,
    strict: StrictOption = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of result.json.")] = False,
) -> int:
    """Write the reports of a run again and print them; nothing is judged anew unless shards are merged."""
    from harness.reading import document_verdicts, read_document, read_run
    from harness.report import SCHEMA_PATH, print_summary, write_reports

    if schema:
        print(SCHEMA_PATH.read_text(encoding="utf-8"), end="")
        return int(ExitCode.OK)
    root = find_root()
    if merge:
        return _merge(root, runs or [], out, allow_missing=allow_missing, strict=strict)
    if allow_missing or strict or out is not None:
        raise HarnessError("--allow-missing, --strict and --out of report belong to --merge; take them out")
    if runs and len(runs) > 1:
        raise HarnessError("give one run, or --merge to make one of several shards")
    run_dir = run_folder(root or Path.cwd(), runs[0] if runs else LATEST)
    book = load_book() if root else None
    document, recorded = read_document(run_dir), read_run(run_dir, book.chapters if book else ())
    write_reports(run_dir, document, book)
    screen = console()
    print_summary(screen, recorded.results, document_verdicts(document, run_dir / "result.json"))
    screen.print(f"run folder {name_of(run_dir)}", markup=False, soft_wrap=True)
    return int(ExitCode.OK)


def _merge(
    root: Path | None, runs: Sequence[str], out: str | None, *, allow_missing: bool, strict: bool
) -> int:
    """Make one run of the shards called *runs*, judge and report it; the exit code is that of the whole."""
    from harness.merge import plan_merger, refuse_overlap, write_merged

    book = load_book() if root else None
    root = root or Path.cwd()
    merger = plan_merger([run_folder(root, name) for name in runs], allow_missing=allow_missing)
    if book:
        _check_claim_files(book)
    if out is not None:
        if not out.strip():
            raise HarnessError("--out is empty; name a folder, or leave it out")
        if not is_url(out):
            refuse_overlap(merger, Path(out).resolve())
    seconds = merger.seconds
    with run_place(out, root, merger.profile) as place:
        write_merged(merger, place.folder, ["harness", *sys.argv[1:]])
        return _judge_again(book, place.folder, seconds, strict)


@app.command()
def diff(
    a: Annotated[str | None, typer.Argument(help="A run; the one before B by default.")] = None,
    b: Annotated[str | None, typer.Argument(help="A later run; the latest by default.")] = None,
    form: Annotated[DiffFormat, typer.Option("--format", help="How to print it.")] = "text",
    fail_on_worse: Annotated[
        bool,
        typer.Option(
            "--fail-on-worse",
            help="Exit with 1 if B has a significantly worse metric, or a job that completed in A and not in B.",
        ),
    ] = False,
) -> int:
    """Compare two runs: metrics with significance, time, memory, slower cells, changed outputs."""
    from harness.diff import diff_runs, previous_run
    from harness.difftext import print_diff, write_diff

    root = find_root()
    run_b = run_folder(root or Path.cwd(), LATEST if b is None else b)
    run_a = previous_run(run_b) if a is None else run_folder(root or Path.cwd(), a)
    found = diff_runs(run_a, run_b, load_book() if root else None)
    if fail_on_worse and found.a.profile != found.b.profile:
        profiles = f"{found.a.profile} and {found.b.profile}"
        raise HarnessError(f"--fail-on-worse needs two runs of one profile, not of {profiles}")
    if form == "text":
        print_diff(console(), found)
    else:
        print(write_diff(found, form), end="")
    for line in found.regressions if fail_on_worse else ():
        fail(line, ExitCode.CLAIM_FAILED)
    return int(ExitCode.CLAIM_FAILED if fail_on_worse and found.regressions else ExitCode.OK)


@app.command()
def bless(
    run: RunArgument = "latest",
    chapters: ChaptersOption = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Drop the earlier reference runs instead of adding.")
    ] = False,
) -> None:
    """Make a run's numbers the reference of its chapters' claims."""
    from harness.bless import bless as write_references

    book = load_book()
    chosen = names(chapters)
    stems = [path.stem for path in book.select(chosen)] if chosen else None
    written = write_references(book, run_folder(book.root, run), chapters=stems, replace=replace)
    for path in written:
        print(f"blessed {path}")
    if not written:
        raise HarnessError("nothing was blessed; the run has no chapter whose claims wait for a reference")


@app.command()
def book(
    run: RunArgument = "latest",
    allow_warnings: Annotated[
        bool, typer.Option("--allow-warnings", help="Build even if Sphinx warns.")
    ] = False,
) -> None:
    """Build the site from the notebooks of a run."""
    from harness.book import build

    the_book = load_book()
    page = build(the_book, run_folder(the_book.root, run), warnings_are_errors=not allow_warnings)
    print(f"open {page}")


@app.command()
def lint(
    notebooks: Annotated[list[Path] | None, typer.Argument(help="The book's chapters if none.")] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Write the normal form: no outputs, sorted keys.")
    ] = False,
) -> int:
    """Check the form of notebooks: no outputs, stable ids, plain Markdown, no measured number in prose."""
    from harness.lint import fix as rewrite
    from harness.lint import lint as examine

    found = 0
    for path in notebooks or load_book().chapters:
        if fix and rewrite(path):
            print(f"{path}: rewritten")
        for finding in examine(path):
            print(finding)
            found += 1
    return int(ExitCode.USAGE if found else ExitCode.OK)


@app.command()
def doctor() -> int:
    """Say whether this machine is ready, and what to do if not."""
    from harness.doctor import FAIL, examine

    failed = False
    for found in examine(find_root() or Path.cwd()):
        failed |= found.status == FAIL
        print(
            f"{found.status:<4}  {found.name}: {found.message}"
            + (f" → {found.remedy}" if found.remedy else "")
        )
    return int(ExitCode.INFRASTRUCTURE if failed else ExitCode.OK)


def _newest(runs: Path) -> str | None:
    """The run that ``latest`` would name, where that is missing; ids begin with the time."""
    found = [p for p in runs.glob("*") if p.is_dir() and not p.is_symlink() and p.name != "latest"]
    return max(found, key=lambda p: ((p / "manifest.json").is_file(), p.name)).name if found else None


@app.command()
def clean(
    everything: Annotated[bool, typer.Option("--all", help="Remove the latest run, too.")] = False,
) -> None:
    """Remove earlier runs and the cache; the latest run stays."""
    from harness.cache import cache_dir

    root = load_book().root
    runs = runs_dir(root)
    latest = None if everything else latest_name(runs) or _newest(runs)
    doomed = [p for p in sorted(runs.glob("*")) if p.name not in (latest, "latest")]
    count = sum(path.is_dir() for path in doomed)
    if everything and (runs / "latest").is_symlink():
        (runs / "latest").unlink()
    if cache_dir(root).is_dir():
        doomed.append(cache_dir(root))
    for path in doomed:
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError as error:
            raise InfrastructureError(f"cannot remove {path}: {error.strerror or error}") from None
    kept = f"; kept {latest}" if latest else ""
    cached = " and the cache" if cache_dir(root) in doomed else ""
    print(f"removed {count} run(s){cached} under {build_dir(root)}{kept}")
