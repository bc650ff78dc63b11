"""``harness run``."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
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
    from threading import Event

    from harness.book.plan import Planned
    from harness.execute.resume import Asked


def run(
    notebooks: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="NOTEBOOK", help="Notebooks to run, or folders of them; the book's chapters if none."
        ),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(metavar="NAME", help="smoke, offline, full … as in harness.yml.")
    ] = None,
    chapters: ChaptersOption = None,
    matrix: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Run the cells of this file of tasks and models instead."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="SEEDS", help="A count (5 is 0 to 4) or a list (0,3,7).")
    ] = None,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N, mps.")] = "auto",
    param: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Set a parameter; repeatable.")
    ] = None,
    cell_timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="Limit of one cell.")] = None,
    notebook_timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Limit of one notebook.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(metavar="N", help="How many at once; by default what cores, memory and GPUs allow."),
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
    from harness.archive.shard import parse_shard, take_shard
    from harness.book.notebook import notebooks_in
    from harness.book.plan import Request, parse_seeds
    from harness.execute.resume import Asked, read_asked
    from harness.execute.schedule import find_machine

    root = find_root()
    book = load_book() if root or not (notebooks or resume) else None
    place = book.root if book else Path.cwd()
    check_out(out)
    if resume:
        limits = (cell_timeout, notebook_timeout)
        given = (notebooks, profile, chapters, matrix, seeds, param, *limits, env, shard)
        run_dir = _to_resume(place, out, anything_else=device != "auto" or any(given))
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
            matrix=None if matrix is None else matrix.absolute(),
        )
    _check_together(asked, book, strict=strict, site=site)
    planned = asked.plan(book)
    if not planned:
        raise HarnessError("nothing to run: the book has no chapter yet")
    if why:
        return _explain(book, planned, asked.variables)
    _check_executor(
        executor, of_ray=address is not None or shared, of_here=memory is not None or gpus is not None
    )
    if book and any(entry.job.chapter for entry in planned):
        check_claim_files(book)
    if site and book:
        from harness.site.build import check_site

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
        "machine": find_machine(asked.request.device, count, jobs=jobs, memory_gb=memory, gpus=gpus),
        "asked": asked,
        "resume": resume,
        "shard": taken,
    }
    began = time.monotonic()
    cluster: Any = nullcontext()
    if executor == "ray":
        from harness.execute.ray.executor import connected

        cluster = connected(address, asked.request.device, shared=shared, jobs=jobs)
    target = (
        nullcontext(RunPlace(run_dir, str(run_dir)))
        if resume
        else run_place(out, place, planned[0].job.profile)
    )
    with cluster as nodes, target as chosen, interruptible() as cancel, claimed(chosen.folder):
        ways["executor"] = nodes
        code = _execute(
            book, planned, chosen, cancel, ways, strict=strict, quiet=quiet, annotations=annotations
        )
    if site and book and code != ExitCode.INFRASTRUCTURE:
        if cancel.is_set():  # while the reports were written
            raise KeyboardInterrupt
        _build_site(book, chosen.folder, began)
    return code


def _to_resume(place: Path, out: str | None, *, anything_else: bool) -> Path:
    """The run folder that --resume goes on in."""
    if anything_else:
        raise HarnessError(
            "--resume goes on with what that run was asked for; name no notebooks, profile, chapters, matrix, seeds,"
            " device, parameters, limits, variables or shard"
        )
    if out is not None and is_url(out):
        raise HarnessError(f"--resume goes on in a folder of this machine; copy {out} here")
    return Path(out).absolute() if out is not None else run_folder(place, LATEST)


def _check_together(asked: Asked, book: Book | None, *, strict: bool, site: bool) -> None:
    """Refuse options that contradict each other."""
    if asked.notebooks and asked.chapters:
        raise HarnessError("give notebooks or --chapters, not both")
    if asked.matrix and (asked.notebooks or not book):
        raise HarnessError("--matrix runs chapters of a book; run it in one, and name no notebooks")
    if asked.shard and (strict or site):
        raise HarnessError(
            "a shard judges nothing and makes no site: take --strict and --book out; give --strict to"
            " `harness report --merge`"
        )
    if site and (asked.notebooks or not book):
        raise HarnessError("--book builds the site of a book's chapters; run it in a book, without notebooks")


def _check_executor(executor: str, *, of_ray: bool, of_here: bool) -> None:
    """Refuse options of the other executor."""
    if executor == "local" and of_ray:
        raise HarnessError("--address and --shared belong to --executor ray; add it, or take them out")
    if executor == "ray" and of_here:
        raise HarnessError("--memory and --gpus are of this machine; take them out with --executor ray")


def _limit(option: str, seconds: float | None) -> float | None:
    if seconds is not None and not 0 < seconds < float("inf"):
        raise HarnessError(f"{option} must be a number of seconds above 0, not {seconds:g}")
    return seconds


def _explain(book: Book | None, planned: Sequence[Planned], variables: Sequence[str]) -> int:
    """For --why: a line for each job."""
    from harness.execute.explain import explain

    variables = (*(book.environment if book else ()), *variables)
    for line in explain(book, planned, variables):
        print(line)
    return int(ExitCode.USAGE if any(entry.problem for entry in planned) else ExitCode.OK)


def _texts(options: Sequence[str]) -> dict[str, str]:
    """``--param NAME=VALUE …`` by name."""
    from harness.book.parameters import ParameterError, split_option

    texts: dict[str, str] = {}
    for name, text in map(split_option, options):
        if name in texts:
            raise ParameterError(f"--param {name} is given twice")
        texts[name] = text
    return texts


def _build_site(book: Book, run_dir: Path, began: float) -> None:
    """Build the site of *run_dir*; say where its first page is and how long all took since *began*."""
    from harness.cli.reference import GENERATED
    from harness.site.build import build
    from harness.wording import format_seconds

    page = build(book, run_dir, GENERATED)
    print(f"total wall time {format_seconds(time.monotonic() - began)}; open {page}")


def _execute(
    book: Book | None,
    planned: Sequence[Planned],
    place: RunPlace,
    cancel: Event,
    ways: Mapping[str, Any],
    *,
    strict: bool,
    quiet: bool,
    annotations: bool | None,
) -> int:
    """Run the jobs in these *ways* (see :func:`harness.execute.run.execute`), judge them and report.

    Once *cancel* is set no job runs on; the reports are still written.
    """
    from harness.archive.recorded import manifest_from_json
    from harness.execute.run import execute
    from harness.report.annotations import announce
    from harness.report.write import judge_and_report
    from harness.wording import format_seconds

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
    manifest = manifest_from_json(outcome.manifest, run_dir / "manifest.json")
    run, problem = judge_and_report(
        book,
        run_dir,
        manifest,
        outcome.results,
        outcome.seconds,
        strict=strict,
        interrupted=outcome.interrupted,
    )
    if problem:
        fail(str(problem), problem.exit_code)
    if quiet:
        told = {entry.job.id for entry in planned if entry.problem}  # before anything ran
        _print_failures([job for job in outcome.results if job.id not in told], run.verdicts)
    else:
        show_run(run, f"wall time {format_seconds(run.seconds)}; run folder {place.name}")
        if shard := ways["shard"]:
            screen.print(f"shard {shard}: nothing is judged before `harness report --merge`", soft_wrap=True)
    announce(run, book, annotations)
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
