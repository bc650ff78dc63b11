"""``harness run``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from harness.archive.folder import LATEST, claimed
from harness.archive.remote import RunPlace, is_url, run_place
from harness.book.config import Book, find_root, load_book
from harness.cli.options import (
    AnnotationsOption,
    ChaptersOption,
    StrictOption,
    check_claim_files,
    check_out,
    console,
    fail,
    names,
    run_folder,
    show_run,
)
from harness.cli.terminal import interruptible, make_progress
from harness.errors import ExitCode, HarnessError

if TYPE_CHECKING:
    from harness.book.plan import Planned, Request
    from harness.execute.executor import Executor
    from harness.execute.resume import Asked
    from harness.execute.run import RunOutcome


Notebooks = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="NOTEBOOK", help="Notebooks to run, or folders of them; the book's chapters if none."
    ),
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="A profile of harness.yml; the one marked default, else the first, if none."
    ),
]
MatrixOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Run the cells of this file of tasks and models instead."),
]
SeedsOption = Annotated[
    str | None,
    typer.Option(
        metavar="SEEDS", help="A count (5 is 0 to 4) or a list (0,3,7); what the notebooks say if none."
    ),
]
DeviceOption = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N, mps.")]
ParamOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="Set a parameter; repeatable.")
]
CellTimeoutOption = Annotated[float | None, typer.Option(metavar="SECONDS", help="Limit of one cell.")]
NotebookTimeoutOption = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="Limit of one notebook.")
]
JobsOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="How many at once; by default what cores, memory and GPUs allow."),
]
MemoryOption = Annotated[
    float | None,
    typer.Option(metavar="GB", help="Memory that the jobs may take together; what is free by default."),
]
GpusOption = Annotated[
    str | None, typer.Option(metavar="N|IDS", help="GPUs to use, one a job; all by default.")
]
EnvOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Let kernels see this variable; repeatable.")
]
OutOption = Annotated[
    str | None, typer.Option(metavar="FOLDER|URL", help="Run folder; _build/runs/<id> by default.")
]
ShardOption = Annotated[
    str | None, typer.Option(metavar="I/N", help="Run this part only, judge nothing; see report --merge.")
]
ExecutorOption = Annotated[
    Literal["local", "ray"], typer.Option(help="Where jobs run: here, or on the nodes of a Ray cluster.")
]
AddressOption = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="Of the Ray cluster; RAY_ADDRESS or the one here.")
]
SharedOption = Annotated[
    bool, typer.Option("--shared", help="Every node sees the book under this path: send no files.")
]
NoCacheOption = Annotated[bool, typer.Option("--no-cache", help="Run even what has not changed.")]
WhyOption = Annotated[
    bool, typer.Option("--why", help="Say what would run and what changed since; run nothing.")
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on with the latest run, or that of --out, where it stopped.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print errors only.")]
SiteOption = Annotated[bool, typer.Option("--book", help="Then build the site, whatever the verdicts.")]


def run(
    context: typer.Context,
    notebooks: Notebooks = None,
    profile: ProfileOption = None,
    chapters: ChaptersOption = None,
    matrix: MatrixOption = None,
    seeds: SeedsOption = None,
    device: DeviceOption = "auto",
    param: ParamOption = None,
    cell_timeout: CellTimeoutOption = None,
    notebook_timeout: NotebookTimeoutOption = None,
    jobs: JobsOption = None,
    memory: MemoryOption = None,
    gpus: GpusOption = None,
    env: EnvOption = None,
    out: OutOption = None,
    shard: ShardOption = None,
    executor: ExecutorOption = "local",
    address: AddressOption = None,
    shared: SharedOption = False,
    no_cache: NoCacheOption = False,
    why: WhyOption = False,
    resume: ResumeOption = False,
    strict: StrictOption = False,
    quiet: QuietOption = False,
    site: SiteOption = False,
    annotations: AnnotationsOption = None,
) -> int:
    """Run chapters x seeds under a profile, or any notebooks, and judge what the chapters measured."""
    from harness.book.plan import Request, parse_seeds
    from harness.execute.resume import read_asked

    book = load_book() if find_root() or not (notebooks or resume) else None
    check_out(out)
    limits = _limit("--cell-timeout", cell_timeout), _limit("--notebook-timeout", notebook_timeout)
    request = Request(profile, parse_seeds(seeds), device, _texts(param or ()), *limits)
    asked = _asked(notebooks, chapters, request, env, shard, matrix)
    options = _Options(
        executor, address, shared, jobs, memory, gpus, out, not no_cache, strict, quiet, site, context.obj,
        annotations,
    )  # fmt: skip
    if resume:
        run_dir = _to_resume(book, out, asked)
        options, asked = replace(options, resumes=run_dir), read_asked(run_dir)
    _check_together(asked, book, options)
    planned = asked.plan(book)
    if not planned:
        raise HarnessError("nothing to run: the book has no chapter yet")
    if why:
        return _explain(book, planned, asked.variables)
    _check_before(book, planned, options)
    return _run(book, planned, asked, options)


@dataclass(frozen=True)
class _Options:
    """How a run goes, whatever is asked for."""

    executor: str
    address: str | None
    shared: bool
    jobs: int | None
    memory: float | None
    gpus: str | None
    out: str | None
    use_cache: bool
    strict: bool
    quiet: bool
    site: bool  # is built afterwards
    generated: Mapping[str, Callable[[], str]]  # parts of its pages
    annotations: bool | None
    resumes: Path | None = None  # the folder of the run that goes on


# -- what is asked for -------------------------------------------------------------------------------


def _asked(
    notebooks: Sequence[Path] | None,
    chapters: str | None,
    request: Request,
    env: Sequence[str] | None,
    shard: str | None,
    matrix: Path | None,
) -> Asked:
    from harness.archive.shard import parse_shard
    from harness.book.notebook import notebooks_in
    from harness.execute.resume import Asked

    return Asked(
        notebooks=tuple(p for one in notebooks for p in notebooks_in(one.absolute())) if notebooks else None,
        chapters=tuple(names(chapters) or ()) or None,
        request=request,
        variables=tuple(env or ()),
        shard=None if shard is None else parse_shard(shard),
        matrix=None if matrix is None else matrix.absolute(),
    )


def _limit(option: str, seconds: float | None) -> float | None:
    if seconds is not None and not 0 < seconds < float("inf"):
        raise HarnessError(f"{option} must be a number of seconds above 0, not {seconds:g}")
    return seconds


def _texts(options: Sequence[str]) -> dict[str, str]:
    """``--param NAME=VALUE …`` by name."""
    from harness.book.parameters import ParameterError, split_option

    texts: dict[str, str] = {}
    for name, text in map(split_option, options):
        if name in texts:
            raise ParameterError(f"--param {name} is given twice")
        texts[name] = text
    return texts


# -- what cannot be ----------------------------------------------------------------------------------


def _to_resume(book: Book | None, out: str | None, asked: Asked) -> Path:
    """The run folder that --resume goes on in; nothing may be *asked* for with it."""
    from harness.book.plan import Request
    from harness.execute.resume import Asked

    if asked != Asked(None, None, Request()):
        raise HarnessError(
            "--resume goes on with what that run was asked for; name no notebooks, profile, chapters, matrix, seeds,"
            " device, parameters, limits, variables or shard"
        )
    if out is None:
        return run_folder(book.root if book else Path.cwd(), LATEST)
    if is_url(out):
        raise HarnessError(f"--resume goes on in a folder of this machine; copy {out} here")
    return Path(out).absolute()


def _check_together(asked: Asked, book: Book | None, options: _Options) -> None:
    """Refuse options that contradict each other."""
    if asked.notebooks and asked.chapters:
        raise HarnessError("give notebooks or --chapters, not both")
    if asked.matrix and (asked.notebooks or not book):
        raise HarnessError("--matrix runs chapters of a book; run it in one, and name no notebooks")
    if asked.shard and (options.strict or options.site):
        raise HarnessError(
            "a shard judges nothing and makes no site: take --strict and --book out; give --strict to"
            " `harness report --merge`"
        )
    if options.site and (asked.notebooks or not book):
        raise HarnessError("--book builds the site of a book's chapters; run it in a book, without notebooks")


def _check_before(book: Book | None, planned: Sequence[Planned], options: _Options) -> None:
    """Refuse options of the other executor, and files that would be missed only after hours of training."""
    if options.executor == "local" and (options.address is not None or options.shared):
        raise HarnessError("--address and --shared belong to --executor ray; add it, or take them out")
    if options.executor == "ray" and (options.memory is not None or options.gpus is not None):
        raise HarnessError("--memory and --gpus are of this machine; take them out with --executor ray")
    if book and any(entry.job.chapter for entry in planned):
        check_claim_files(book)
    if book and options.site:
        from harness.site.build import check_site

        check_site(book)


# -- the run -----------------------------------------------------------------------------------------


def _explain(book: Book | None, planned: Sequence[Planned], variables: Sequence[str]) -> int:
    """For --why: a line for each job."""
    from harness.execute.cache import explain

    for line in explain(book, planned, (*(book.environment if book else ()), *variables)):
        print(line)
    return int(ExitCode.USAGE if any(entry.problem for entry in planned) else ExitCode.OK)


def _run(book: Book | None, planned: Sequence[Planned], asked: Asked, options: _Options) -> int:
    """Run the part of the plan that is this machine's, judge and report it, and build the site if asked to."""
    from harness.archive.shard import take_shard
    from harness.execute.resume import Origin
    from harness.execute.run import execute

    began, nothing_runs = time.monotonic(), all(entry.problem for entry in planned)
    shard, planned = take_shard(planned, *asked.shard) if asked.shard else (None, planned)
    if shard and not planned:
        print(f"shard {shard} is empty: the run has {len(shard.plan)} job(s); nothing to do")
        return int(ExitCode.OK)
    for problem in dict.fromkeys(entry.problem for entry in planned if entry.problem):
        fail(problem, ExitCode.USAGE)
    if nothing_runs:
        return int(ExitCode.USAGE)  # no run folder: the latest run stays the latest
    origin = Origin(["harness", *sys.argv[1:]], asked, shard)
    with (
        _executor(planned, options) as executor,
        _target(book, planned, options) as place,
        interruptible() as cancel,
        claimed(place.folder),
    ):
        with closing(make_progress(console(), quiet=options.quiet)) as progress:

            def listen(event: Mapping[str, Any]) -> None:
                progress(event)
                place.listen(event)

            outcome = execute(
                planned, place.folder, origin, book=book, use_cache=options.use_cache,
                resume=options.resumes is not None, executor=executor, progress=listen, cancel=cancel,
            )  # fmt: skip
        code = _tell(book, planned, outcome, place, options)
    if options.site and book and code != ExitCode.INFRASTRUCTURE:
        if cancel.is_set():  # while the reports were written
            raise KeyboardInterrupt
        _build_site(book, place.folder, options.generated, began)
    return code


def _executor(planned: Sequence[Planned], options: _Options) -> AbstractContextManager[Executor]:
    """What runs the jobs, as long as it is there."""
    from harness.execute.executor import LocalExecutor
    from harness.execute.schedule import find_machine

    device, count = planned[0].job.device, sum(not entry.problem for entry in planned)
    machine = find_machine(device, count, jobs=options.jobs, memory_gb=options.memory, gpus=options.gpus)
    if options.executor == "local":
        return nullcontext(LocalExecutor(machine))
    from harness.execute.ray.executor import connected

    return connected(options.address, device, shared=options.shared, jobs=options.jobs)


def _target(
    book: Book | None, planned: Sequence[Planned], options: _Options
) -> AbstractContextManager[RunPlace]:
    """Where the run is written."""
    if options.resumes is not None:
        return nullcontext(RunPlace(options.resumes, str(options.resumes)))
    return run_place(options.out, book.root if book else Path.cwd(), planned[0].job.profile)


def _tell(
    book: Book | None, planned: Sequence[Planned], outcome: RunOutcome, place: RunPlace, options: _Options
) -> int:
    """Judge what ran, write the reports and tell their gist; the exit code."""
    from harness.archive.recorded import manifest_from_json
    from harness.report.annotations import announce
    from harness.report.write import judge_and_report
    from harness.wording import format_seconds

    manifest = manifest_from_json(outcome.manifest, place.folder / "manifest.json")
    run, problem = judge_and_report(
        book,
        place.folder,
        manifest,
        outcome.results,
        outcome.seconds,
        strict=options.strict,
        interrupted=outcome.interrupted,
    )
    if problem:
        fail(str(problem), problem.exit_code)
    if options.quiet:
        told = {entry.job.id for entry in planned if entry.problem}  # before anything ran
        _print_failures([job for job in outcome.results if job.id not in told], run.verdicts)
    else:
        show_run(run, f"wall time {format_seconds(run.seconds)}; run folder {place.name}")
        if shard := manifest.shard:
            told = f"shard {shard}: nothing is judged before `harness report --merge`"
            console().print(told, soft_wrap=True)
    announce(run, book, options.annotations)
    if outcome.trouble:
        return fail(outcome.trouble, ExitCode.INFRASTRUCTURE)
    if outcome.interrupted:
        return fail(f"interrupted; what was recorded is in {place.name}", ExitCode.INFRASTRUCTURE)
    return run.exit_code


def _print_failures(results: Any, verdicts: Any) -> None:
    """For --quiet: a line for each job that did not complete and each claim that does not hold."""
    from harness.model import FINISHED, Outcome
    from harness.wording import OUTCOMES, ending

    for job in results:
        if job.state not in FINISHED:
            fail(f"{job.id}: {ending(job).en}", ExitCode.OK)
    for verdict in verdicts:
        if verdict.outcome in (Outcome.FAIL, Outcome.MISSING):
            fail(f"{verdict.claim}: {OUTCOMES[verdict.outcome].en}: {verdict.message}", ExitCode.OK)


def _build_site(book: Book, run_dir: Path, generated: Mapping[str, Any], began: float) -> None:
    """Build the site of *run_dir*; say where its first page is and how long all took since *began*."""
    from harness.site.build import build
    from harness.wording import format_seconds

    page = build(book, run_dir, generated)
    print(f"total wall time {format_seconds(time.monotonic() - began)}; open {page}")
