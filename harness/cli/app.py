"""The command line: ``python -m harness init|list|run|check|report|diff|bless|book|lint|doctor``.

Heavy modules are imported inside the commands, so that each starts at once. A mistake of the user ends in
one line on stderr and the exit code of :class:`harness.errors.ExitCode`, never in a traceback.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

import typer
from typer.main import get_command

from harness import __version__
from harness.archive.remote import fetched_folders
from harness.cli import book, results, run
from harness.cli.options import EXIT_CODES, fail
from harness.cli.terminal import patient_stdout, stoppable
from harness.errors import ExitCode, HarnessError
from harness.files import explain_os_error

app = typer.Typer(
    name="harness",
    help="Run the notebooks of an executable book and say whether their numbers still hold.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"harness {__version__}")
        raise typer.Exit


@app.callback()
def _harness(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_say_version, is_eager=True),
    ] = False,
) -> None:
    pass


for _command, _options in (
    (book.init, {}),
    (book.list_chapters, {"name": "list"}),
    (run.run, {"epilog": EXIT_CODES}),
    (results.check, {"epilog": EXIT_CODES}),
    (results.report, {"epilog": EXIT_CODES}),
    (results.diff, {}),
    (results.bless, {}),
    (book.book, {}),
    (book.lint, {}),
    (book.doctor, {}),
):
    _summary = (_command.__doc__ or "").partition("\n\n")[0]
    app.command(short_help=_summary, **_options)(_command)  # else it is cut off in the list of commands


def command_tree() -> Any:
    """The command line as typer's group of commands."""
    return get_command(app)


def _commands() -> str:
    from harness.cli import reference

    return reference.commands(command_tree())


def _variables() -> str:
    from harness.cli import reference

    return reference.variables()


GENERATED: Mapping[str, Callable[[], str]] = (
    MappingProxyType(  # typer would write into a context's dictionary
        {"commands": _commands, "variables": _variables}
    )
)
"""What the pages' markers of these names become; the commands find it as their context's object."""


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
        code = app(args=arguments, prog_name="harness", standalone_mode=False, obj=GENERATED)
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
