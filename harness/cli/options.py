"""What commands share: options, and one line for an error."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.archive.folder import LATEST, find_run, latest_name, runs_dir
from harness.archive.remote import fetch, is_url
from harness.book.config import Book
from harness.errors import ExitCode, HarnessError

if TYPE_CHECKING:
    from harness.archive.recorded import RunResult

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, the beginning of it, a path, a URL, or latest.")
]
ChaptersOption = Annotated[
    str | None,
    typer.Option(metavar="NAMES", help="Chapters by the beginning of their names, with commas: 05,06."),
]
StrictOption = Annotated[
    bool,
    typer.Option(
        "--strict", help="Exit with 5 if a verdict is inconclusive, with 1 if a metric has no claim."
    ),
]
AnnotationsOption = Annotated[
    bool | None,
    typer.Option(
        "--annotations/--no-annotations",
        help="Annotate notebooks and claims, and write the step's summary; by default under GitHub Actions.",
    ),
]
_UNLIMITED = 100_000  # columns
EXIT_CODES = (
    "Exit codes: 0 all claims hold; 1 a claim failed or its metric is missing; 2 a notebook failed;"
    " 3 usage or configuration: what was asked for cannot be run; 4 a time limit, a kernel that died, an"
    " interrupt or the machine; 5 inconclusive under --strict. Where several apply: 4, 3, 2, 1, 5."
)


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
    if name == LATEST and latest_name(runs) is None and (newest := newest_run(runs)):
        return runs / newest  # the run that the link named is gone
    return find_run(root, name)


def newest_run(runs: Path) -> str | None:
    """The run that ``latest`` would name, where that is missing; ids begin with the time, to the second."""

    def age(run: Path) -> tuple[bool, str, int]:
        manifest = run / "manifest.json"
        there = manifest.is_file()
        return there, run.name[:15], manifest.stat().st_mtime_ns if there else 0

    found = [p for p in runs.glob("*") if p.is_dir() and not p.is_symlink() and p.name != "latest"]
    return max(found, key=age).name if found else None


def console() -> Any:
    """Rich's console on stdout. What is piped is not wrapped or cut: a program reads it, and looks for names.

    ``COLUMNS`` says how wide a reader is that is no terminal.
    """
    from rich.console import Console

    screen = Console(highlight=False)
    if not screen.is_terminal and not os.environ.get("COLUMNS"):
        screen = Console(highlight=False, width=_UNLIMITED)
    return screen


def show_run(run: RunResult, last: str) -> None:
    """What came of a run, on the terminal; *last* is the line below."""
    from harness.report.summary import print_summary

    screen = console()
    print_summary(screen, run)
    screen.print(last, markup=False, soft_wrap=True)


def names(option: str | None, name: str = "--chapters", such: str = "05,06") -> list[str] | None:
    """``"05, 06"`` as a list; None where nothing was given."""
    if option is None:
        return None
    found = [part.strip() for part in option.split(",") if part.strip()]
    if not found:
        raise HarnessError(f"{name} is empty; give names such as {such} or leave it out")
    return found


def check_out(out: str | None) -> None:
    """An empty --out, as from an unset variable, is no place."""
    if out is not None and not out.strip():
        raise HarnessError("--out is empty; name a folder, or leave it out")


def check_claim_files(book: Book) -> None:
    """A broken claim file is told before anything runs, not after an hour of training."""
    from harness.book.claims import book_claims

    book_claims(book)
