"""The parts of the book's pages that are made from the harness itself, when the site is built.

A line ``<!-- harness:commands -->`` in a Markdown page becomes the reference of all commands, and likewise for the
other names of :data:`harness.cli.app.GENERATED`: what the pages say of options and names cannot fall behind the code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from harness.execute.kernel.variables import DECIDING, PASSED
from harness.wording import markdown_text

_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def commands(group: Any) -> str:
    """Every command of typer's *group* with its arguments and options, as Markdown with definition lists."""
    from typer import Context

    lines: list[str] = []
    notes: dict[str, list[str]] = {}  # several commands end in the same one
    with Context(group, info_name="harness") as above:
        for name, command in group.commands.items():
            lines += _command(name, command, Context(command, info_name=name, parent=above))
            if command.epilog:
                notes.setdefault(command.epilog, []).append(name)
    return "\n".join(
        [*lines, *(f"**{', '.join(names)}**: {_prose(note)}\n" for note, names in notes.items())]
    )


def _command(name: str, command: Any, context: Any) -> Iterator[str]:
    usage = " ".join(["harness", name, *command.collect_usage_pieces(context)])
    usage = usage.replace("[[", "[").replace("]]", "]")
    yield f"## harness {name}\n\n{_prose(command.help or '')}\n\n```text\n{usage}\n```\n"
    for parameter in command.params:  # --help, which every command has, is not among them
        if (record := parameter.get_help_record(context)) is not None:
            declared, help_text = record
            yield f"`{declared}`\n: {_prose(help_text) or '–'}\n"


def variables() -> str:
    """The environment variables that reach a kernel."""
    passed, deciding = ("、".join(f"`{name}`" for name in names) for names in (PASSED, DECIDING))
    return f"{passed}。\n\n其中 {deciding} 会改变数字，所以也算进缓存的键。"


def _prose(text: str) -> str:
    """Plain text as Markdown; an option in it reads as code, else two hyphens may be set as a dash."""
    return _OPTION.sub(r"`\g<0>`", markdown_text(text))
