"""Fill in the templates that reports and pages are laid out by (Jinja): the folder ``templates`` of a wing."""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.wording import markdown_code, markdown_text, one_line


def fill(template: Path, **values: Any) -> str:
    """The file *template*, filled in.

    Where it is HTML or XML, whatever is filled in is text, on one line, unless it is Markup; in Markdown the template
    says as what a text stands there.
    """
    plain = template.suffixes[-2:] != [".md", ".j2"]
    return _environment(template.parent, plain).get_template(template.name).render(**values)


@cache
def _environment(folder: Path, as_text: bool) -> Environment:
    found = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        autoescape=as_text,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **({"finalize": _as_text} if as_text else {}),
    )
    found.filters |= {"code": markdown_code, "text": markdown_text, "myst": myst_text, "heads": table_heads}
    return found


def _as_text(value: Any) -> Markup:
    return value if isinstance(value, Markup) else Markup(html.escape(one_line(value)))


def myst_text(text: str) -> str:
    """*text* as literal MyST that may stand in one cell of a table: a dollar begins a formula."""
    return markdown_text(text).replace("$", r"\$")


def table_heads(names: Sequence[str], align: str) -> str:
    """The first two lines of a Markdown table; *align* has ``l`` or ``r`` for each column."""
    ruler = [{"l": ":--", "r": "--:"}[letter] for letter in align]
    return "\n".join(f"| {' | '.join(row)} |" for row in (names, ruler))
