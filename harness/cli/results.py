"""The commands that read finished runs: check, report, diff, bless."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.archive.folder import LATEST
from harness.archive.remote import is_url, name_of, run_place
from harness.book.config import Book, find_root, load_book
from harness.cli.options import (
    AnnotationsOption,
    ChaptersOption,
    RunArgument,
    StrictOption,
    check_claim_files,
    check_out,
    console,
    fail,
    names,
    run_folder,
    show_run,
)
from harness.errors import ExitCode, HarnessError

DiffFormat = Literal["text", "markdown", "json"]


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
    from harness.archive.recorded import read_result, read_run, refuse_shard
    from harness.report.annotations import announce
    from harness.report.write import judge_and_report

    recorded = read_run(run_dir, book.chapters if book else ())
    manifest, results = recorded.manifest, recorded.results
    refuse_shard(manifest, "a judgement")
    if len(recorded.absent) == len(results):
        raise HarnessError(f"{run_dir} holds no finished job; run it again")
    if seconds is None and (run_dir / "result.json").is_file():
        seconds = read_result(run_dir).seconds
    elif seconds is None:
        seconds = sum(r.seconds for r in results)
    run, problem = judge_and_report(book, run_dir, manifest, results, seconds, strict=strict)
    if problem:
        fail(str(problem), problem.exit_code)
    show_run(run, f"run folder {name_of(run_dir)}")
    announce(run, book, annotations)
    if recorded.absent:
        return fail(
            f"unfinished: {len(recorded.absent)} of {len(results)} planned jobs have no result"
            f" ({', '.join(recorded.absent)}); run again what is missing",
            ExitCode.INFRASTRUCTURE,
        )
    return run.exit_code


def report(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="RUN", help="As for check; the shards with --merge.")
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
) -> int:
    """Write the reports of a run again and print them; nothing is judged anew unless shards are merged."""
    from harness.archive.recorded import read_result, read_run
    from harness.report.write import write_reports

    root = find_root()
    if merge:
        return _merge(root, runs or [], out, allow_missing=allow_missing, strict=strict)
    if allow_missing or strict or out is not None:
        raise HarnessError("--allow-missing, --strict and --out of report belong to --merge; take them out")
    if runs and len(runs) > 1:
        raise HarnessError("give one run, or --merge to make one of several shards")
    run_dir = run_folder(root or Path.cwd(), runs[0] if runs else LATEST)
    book = load_book() if root else None
    read_run(run_dir)  # a folder that is damaged elsewhere is told, too
    run = read_result(run_dir)
    write_reports(run, book)
    show_run(run, f"run folder {name_of(run_dir)}")
    return int(ExitCode.OK)


def _merge(
    root: Path | None, runs: Sequence[str], out: str | None, *, allow_missing: bool, strict: bool
) -> int:
    """Make one run of the shards called *runs*, judge and report it; the exit code is that of the whole."""
    from harness.archive.merge import plan_merger, refuse_overlap, write_merged

    book = load_book() if root else None
    root = root or Path.cwd()
    merger = plan_merger([run_folder(root, name) for name in runs], allow_missing=allow_missing)
    if book:
        check_claim_files(book)
    check_out(out)
    if out is not None and not is_url(out):
        refuse_overlap(merger, Path(out).resolve())
    seconds = merger.seconds
    with run_place(out, root, merger.profile) as place:
        write_merged(merger, place.folder, ["harness", *sys.argv[1:]])
        return _judge_again(book, place.folder, seconds, strict)


def diff(
    a: Annotated[
        str | None, typer.Argument(metavar="A", help="A run; the one of B's profile before it by default.")
    ] = None,
    b: Annotated[str | None, typer.Argument(metavar="B", help="A later run; the latest by default.")] = None,
    form: Annotated[DiffFormat, typer.Option("--format", help="How to print it.")] = "text",
    fail_on_worse: Annotated[
        bool,
        typer.Option(
            "--fail-on-worse",
            help="Exit with 1 if B has a significantly worse metric, a claim that passed in A and fails or is missing"
            " in B, or a job that completed in A and not in B.",
        ),
    ] = False,
) -> int:
    """Compare two runs: metrics with significance, verdicts, time, memory, slower cells, changed outputs."""
    from harness.judge.compare import diff_runs, previous_run
    from harness.report.comparison import print_diff, write_diff

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


def bless(
    run: RunArgument = LATEST,
    chapters: ChaptersOption = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Drop the earlier reference runs instead of adding.")
    ] = False,
    allow_dirty: Annotated[
        bool,
        typer.Option("--allow-dirty", help="Take what no commit holds, too; the references say -dirty."),
    ] = False,
    drop: Annotated[
        str | None,
        typer.Option(
            metavar="CLAIMS", help="Only take the blessed values of these claims away, with commas."
        ),
    ] = None,
    migrate: Annotated[
        bool, typer.Option("--migrate", help="Only move blessed runs out of claim files of the old layout.")
    ] = False,
) -> None:
    """Make a run's numbers the reference of its chapters' claims."""
    from harness.judge import bless as blessing
    from harness.judge.migrate import migrate as move

    book = load_book()
    chosen = names(chapters)
    stems = [path.stem for path in book.select(chosen)] if chosen else None
    if (migrate or drop is not None) and (
        run != LATEST or allow_dirty or (migrate and drop is not None) or (replace and not migrate)
    ):
        raise HarnessError("--migrate takes --chapters and --replace only, --drop takes --chapters only")
    if migrate:
        if not move(book, stems, replace=replace):
            print("nothing to migrate: no claim file holds blessed runs")
        return
    if drop is not None:
        written = blessing.drop(book, names(drop, "--drop", "accuracy,loss") or [], chapters=stems)
    else:
        run_dir = run_folder(book.root, run)
        written = blessing.bless(book, run_dir, chapters=stems, replace=replace, allow_dirty=allow_dirty)
    for path in written:
        print(f"{'dropped from' if drop else 'blessed'} {path}")
    if not written:
        raise HarnessError("nothing was blessed; the run has no chapter whose claims wait for a reference")
