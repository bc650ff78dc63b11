"""The commands for the book itself: init, list, book, lint, doctor."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from harness.book.config import Book, find_root, load_book
from harness.cli.options import RunArgument, check_claim_files, console, fail, run_folder
from harness.errors import ExitCode


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The book's; this one by default.")
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
    context: typer.Context,
    run: RunArgument = "latest",
    allow_warnings: Annotated[
        bool, typer.Option("--allow-warnings", help="Build even if Sphinx warns.")
    ] = False,
    copies: Annotated[
        bool,
        typer.Option("--copies", help="Then print it as PDF and EPUB; the site offers both, and the source."),
    ] = False,
) -> None:
    """Build the site from the notebooks of a run, with Jupyter Book, into _build/site.

    The book needs a _toc.yml and a _config.yml, and the machine the harness' extra called site.
    """
    from harness.site.build import build

    the_book = load_book()
    folder = run_folder(the_book.root, run)
    page = build(the_book, folder, context.obj, warnings_are_errors=not allow_warnings, copies=copies)
    print(f"open {page}")


def lint(
    notebooks: Annotated[
        list[Path] | None, typer.Argument(metavar="NOTEBOOK", help="The book's chapters if none.")
    ] = None,
    fix: Annotated[
        bool,
        typer.Option(
            "--fix", help="Write notebooks as they are committed (no outputs, sorted keys), Colab's cells."
        ),
    ] = False,
) -> int:
    """Check notebooks: no outputs, plain Markdown, no measured number in prose, quizzes, numbers, pictures.

    Without notebooks those of the book are checked, its claim files, its glossary and, where harness.yml has the key
    colab, each chapter's link to Colab and set-up cell.
    """
    from harness.book import colab
    from harness.book.lint import Finding
    from harness.book.lint import fix as rewrite

    the_book = None if notebooks else load_book()
    chapters = the_book.chapters if the_book else notebooks or ()
    if fix:
        changed = set(colab.write(the_book)) if the_book and the_book.colab else set()
        changed |= {path for path in chapters if rewrite(path)}
        for path in sorted(changed):
            print(f"{path}: rewritten")
    found = list(_findings(the_book, chapters))
    for finding in found:
        print(finding)
    if any(isinstance(finding, Finding) and finding.fixable for finding in found):
        command = shlex.join(["harness", "lint", "--fix", *map(str, notebooks or ())])
        print(f"`{command}` writes that form; the text of the cells stays as it is")
    if the_book:
        check_claim_files(the_book)
    return int(ExitCode.USAGE if found else ExitCode.OK)


def _findings(the_book: Book | None, chapters: Iterable[Path]) -> Iterator[object]:
    """What is to be mended, one line each."""
    from harness.book import colab
    from harness.book.lint import lint as examine
    from harness.book.lint import lint_glossary

    for path in chapters:
        yield from examine(path)
    if the_book:
        yield from lint_glossary(the_book.chapters_dir / "glossary.md")
    if the_book and the_book.colab:
        for problem in colab.differences(the_book):
            yield f"{problem}; `harness lint --fix` writes it"


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
