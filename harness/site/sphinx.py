"""Sphinx with Jupyter Book's configuration, in a process of its own (``python -m harness.site.sphinx``)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def main(source: str, site: str, doctrees: str, strict: str) -> int:
    """Render the staged tree *source* into *site*; with *strict* ``1`` any warning fails the build."""
    from jupyter_book.sphinx import build_sphinx

    result = build_sphinx(
        source,
        site,
        noconfig=True,
        path_config=Path(source, "_config.yml"),
        confoverrides=overrides(Path(source)),
        doctreedir=Path(doctrees),
        warningiserror=strict == "1",
        keep_going=True,
    )
    return result if isinstance(result, int) else 1


def overrides(source: Path) -> dict[str, Any]:
    """What the site needs whatever the book's _config.yml says: verdicts are spans, boxes stand in colons."""
    from jupyter_book.config import get_final_config

    set_here = {
        "external_toc_path": Path(source, "_toc.yml").as_posix(),
        "latex_individualpages": False,
        "nb_execution_mode": "off",  # the harness has run them
    }
    given = dict(set_here)  # of which it takes things out
    config, _ = get_final_config(user_yaml=source / "_config.yml", sourcedir=source, cli_config=given)
    extensions = dict.fromkeys((*config.get("myst_enable_extensions", ()), "attrs_inline", "colon_fence"))
    return {**set_here, "myst_enable_extensions": list(extensions)}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
