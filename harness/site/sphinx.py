"""Sphinx with Jupyter Book's configuration, in a process of its own (``python -m harness.site.sphinx``)."""

from __future__ import annotations

import sys
from pathlib import Path


def main(source: str, site: str, doctrees: str, strict: str) -> int:
    """Render the staged tree *source* into *site*; with *strict* ``1`` any warning fails the build."""
    from jupyter_book.sphinx import build_sphinx

    result = build_sphinx(
        source,
        site,
        noconfig=True,
        path_config=Path(source, "_config.yml"),
        confoverrides={
            "external_toc_path": Path(source, "_toc.yml").as_posix(),
            "latex_individualpages": False,
        },
        doctreedir=Path(doctrees),
        warningiserror=strict == "1",
        keep_going=True,
    )
    return result if isinstance(result, int) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
