"""The commands for the book itself: init, list, book, lint, colab, doctor, clean."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from harness.archive.folder import build_dir, latest_name, runs_dir
from harness.book.config import find_root, load_book
from harness.cli.options import (
    RunArgument,
    check_claim_files,
    console,
    fail,
    newest_run,
    run_folder,
)
from harness.errors import ExitCode, InfrastructureError


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="The book's; this one by default.")
    ] = Path(),
) -> None:
    """Make a folder of notebooks a book: write the few files it lacks; change none that exists."""
    from harness.book.init import init as make_book

    for line in make_book(folder):
        print(line)


def list_chapters(
    profile: Annotated[
        str | None, typer.Option(metavar="NAME", help="Show the parameters under this profile.")
    ] = None,
) -> int:
    """List the chapters with their parameters, and what keeps one from running."""
    from rich.table import Table

    from harness.book.notebook import InvalidNotebook, read_notebook
    from harness.book.parameters import ParameterError, read_parameters
    from harness.book.plan import Request, plan

    book = load_book()
    chosen = book.profile(profile).name
    table = Table(title=book.title)
    for head in ("chapter", "title", f"parameters ({chosen})"):
        table.add_column(head, overflow="fold")  # in a narrow terminal a name is broken, never cut
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


def book(
    run: RunArgument = "latest",
    allow_warnings: Annotated[
        bool, typer.Option("--allow-warnings", help="Build even if Sphinx warns.")
    ] = False,
    copies: Annotated[
        bool,
        typer.Option("--copies", help="Then print it as PDF and EPUB; the site offers both, and the source."),
    ] = False,
) -> None:
    """Build the site from the notebooks of a run."""
    from harness.cli.reference import GENERATED
    from harness.site.build import build

    the_book = load_book()
    folder = run_folder(the_book.root, run)
    page = build(the_book, folder, GENERATED, warnings_are_errors=not allow_warnings, copies=copies)
    print(f"open {page}")


def lint(
    notebooks: Annotated[
        list[Path] | None, typer.Argument(metavar="NOTEBOOK", help="The book's chapters if none.")
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Write the normal form: no outputs, sorted keys.")
    ] = False,
) -> int:
    """Check notebooks: no outputs, plain Markdown, no measured number in prose, quizzes, numbers, pictures.

    Without notebooks those of the book are checked, and its claim files and its glossary.
    """
    from harness.book.lint import fix as rewrite
    from harness.book.lint import lint as examine
    from harness.book.lint import lint_glossary

    found = 0
    the_book = None if notebooks else load_book()
    for path in notebooks or (the_book.chapters if the_book else ()):
        if fix and rewrite(path):
            print(f"{path}: rewritten")
        for finding in examine(path):
            print(finding)
            found += 1
    if the_book:
        for finding in lint_glossary(the_book.chapters_dir / "glossary.md"):
            print(finding)
            found += 1
        check_claim_files(the_book)
    return int(ExitCode.USAGE if found else ExitCode.OK)


def colab(
    write: Annotated[
        bool, typer.Option("--write/--check", help="Write them, or only say what differs (the default).")
    ] = False,
) -> int:
    """Hold each chapter's link to Colab and its set-up cell to _config.yml and harness.yml."""
    from harness.book import colab as cells

    the_book = load_book()
    if write:
        for path in cells.write(the_book):
            print(f"{path.relative_to(the_book.root)}: rewritten")
        return int(ExitCode.OK)
    found = cells.differences(the_book)
    for problem in found:
        print(problem)
    if found:
        print("run `harness colab --write`")
    return int(ExitCode.USAGE if found else ExitCode.OK)


def doctor() -> int:
    """Say whether this machine is ready, and what to do if not."""
    from harness.cli.doctor import FAIL, examine

    failed = False
    for found in examine(find_root() or Path.cwd()):
        failed |= found.status == FAIL
        print(
            f"{found.status:<4}  {found.name}: {found.message}"
            + (f" → {found.remedy}" if found.remedy else "")
        )
    return int(ExitCode.INFRASTRUCTURE if failed else ExitCode.OK)


def clean(
    everything: Annotated[bool, typer.Option("--all", help="Remove the latest run, too.")] = False,
) -> None:
    """Remove earlier runs and the cache; the latest run stays."""
    from harness.execute.cache import cache_dir

    root = load_book().root
    runs = runs_dir(root)
    latest = None if everything else latest_name(runs) or newest_run(runs)
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
