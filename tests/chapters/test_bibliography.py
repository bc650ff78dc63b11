"""Every paper that a page of the book links stands in its bibliography, as 参考文献 promises."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from pybtex.database import parse_file

CHAPTERS = Path(__file__).parents[2] / "chapters"
PAGES = sorted(path for path in CHAPTERS.iterdir() if path.suffix in {".ipynb", ".md"})
LINK = re.compile(r"https?://(?:[\w./:%~+=&?#@;-]|\([\w./:;-]*\))+", re.ASCII)  # a DOI may hold (brackets)
ARXIV = re.compile(r"arxiv\.org/[a-z]+/([a-z-]+/\d{7}|\d{4}\.\d{4,5})")
DOI = re.compile(r"doi\.org/(10\..+)")
OTHER = re.compile(
    r"\.pdf$|^(?:aclanthology\.org|openreview\.net|jmlr\.org/papers|papers\.\w+\.cc|proceedings\.)"
)


def paper(link: str) -> str | None:
    """What names the paper behind a link, however it is written; None where it leads to no paper."""
    place = re.sub(r"^https?://(?:www\.)?", "", link).rstrip("/.;:").lower()
    if found := ARXIV.search(place) or DOI.search(place):
        return found[1]
    return place if OTHER.search(place) else None


def listed(bibliography: Path) -> set[str]:
    """What names the papers of a BibTeX file: of each its DOI, arXiv number and link."""
    fields = [entry.fields for entry in parse_file(bibliography).entries.values()]
    named = {field[name].lower() for field in fields for name in ("doi", "eprint") if name in field}
    return named | {name for field in fields if (name := paper(field.get("url", "")))}


def unlisted(pages: Iterable[Path], papers: set[str]) -> list[str]:
    """Each link to a paper that is not among `papers`, after the page it stands on."""
    missing = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        if page.suffix == ".ipynb":
            text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
        missing += [
            f"{page.name}: {link}"
            for link in dict.fromkeys(LINK.findall(text))
            if (name := paper(link)) and name not in papers
        ]
    return missing


def test_every_linked_paper_stands_in_the_bibliography():
    missing = unlisted(PAGES, listed(CHAPTERS / "references.bib"))
    assert not missing, "add to chapters/references.bib: " + ", ".join(missing)


def test_a_paper_that_is_not_listed_is_found_with_its_page(tmp_path: Path):
    known = "见[甲](https://arxiv.org/pdf/1706.03762v7)，[乙](https://doi.org/10.1162/NECO.1997.9.8.1735)。"
    cells = [{"source": [known, "\n[丙](https://arxiv.org/abs/9912.99999)，https://pytorch.org/docs。"]}]
    page = tmp_path / "09-planted.ipynb"
    page.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    (tmp_path / "own.md").write_text("[丁](https://doi.org/10.1016/0893-6080(88)90007-X)", encoding="utf-8")
    assert unlisted([page, tmp_path / "own.md"], listed(CHAPTERS / "references.bib")) == [
        "09-planted.ipynb: https://arxiv.org/abs/9912.99999",
        "own.md: https://doi.org/10.1016/0893-6080(88)90007-X",
    ]
