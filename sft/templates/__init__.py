"""The pages that the commands write: a report, a model card, a page to type into.

Every value is escaped where it is put in: texts and labels are a stranger's.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_FOLDER = Path(__file__).parent


def render(template: str, **values: Any) -> str:
    """Fill a template of this folder; ``style`` is the style sheet that the pages share.

    Raises:
        jinja2.UndefinedError: a value that the template wants is not given.
    """
    style = Markup((_FOLDER / "page.css").read_text(encoding="utf-8"))
    return _environment().get_template(template).render(style=style, **values)


@cache
def _environment() -> Environment:
    """HTML is escaped as HTML; Markdown by its filter ``md``, because a browser will see that, too."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"md": escape_markdown, "percent": percent, "yaml": quote_yaml}
    return environment


def escape_markdown(text: Any) -> Markup:
    """Text that Markdown shows as it is, in a table cell, too: one line, nothing in it is markup."""
    line = " ".join(str(text).split())
    return Markup("".join(f"&#{ord(c)};" if c in "\\`*_[]<>&|~$#" else c for c in line))


def percent(value: float) -> str:
    """0.8765 -> 87.7%."""
    return f"{value:.1%}"


def quote_yaml(text: str) -> Markup:
    """A string of YAML: JSON's is one."""
    return Markup(json.dumps(text, ensure_ascii=False))
