"""``harness init``: the few files that make a folder of notebooks a book the harness can judge.

Nothing that exists is changed; a line is added to ``.gitignore``. All that can be wrong is found before the first
file is written.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from string import Template

import yaml

from harness.book.claims import claim_path, load_all_claims
from harness.book.config import CONFIG_NAME, toc_chapters
from harness.book.notebook import read_notebook
from harness.book.parameters import SET_BY_HARNESS, Parameter, read_parameters
from harness.book.yaml_file import read_yaml
from harness.errors import HarnessError
from harness.files import explain_os_error

FIRST_CHAPTER = "01-first-measurement"
_NOT_SEARCHED = frozenset({"_build", "build", "node_modules", "site-packages", "__pycache__"})
_IGNORED = frozenset({b"_build", b"_build/", b"/_build", b"/_build/", b"**/_build", b"**/_build/"})
_COMMENT = re.compile(r"^\s*#.*$", re.M)
_RECORD = re.compile(  # record("name", value, unit="m"), glue("name", value)
    r"""(?<!\w)(?:record|glue)\(\s*(?P<quote>["'])(?P<name>[^"'\n]+)(?P=quote)\s*,"""
    r"""(?:(?:[^()]|\((?:[^()]|\([^()]*\))*\))*?\bunit\s*=\s*(?P<mark>["'])(?P<unit>[^"'\n]*)(?P=mark))?"""
)
_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class _Layout:
    """Where things are, or will be. Paths are absolute."""

    chapters: tuple[Path, ...]
    entry: str | list[str]  # of the key `chapters` in harness.yml
    claims: Path
    new: bool = False  # the one chapter is yet to be written
    left_out: tuple[Path, ...] = ()  # notebooks whose name a chapter has already
    unnamed: tuple[Path, ...] = ()  # notebooks that _toc.yml does not name


def init(folder: Path) -> list[str]:
    """Write what *folder* lacks to be a book; what was written and what to do next, line by line.

    Raises:
        HarnessError: it is a book already, its book lies in a folder below, or one of its files cannot be read.
        InfrastructureError: a file cannot be written.
    """
    root = folder.absolute()
    if (root / CONFIG_NAME).exists():
        raise HarnessError(f"{root / CONFIG_NAME} exists; this is a book already, see `harness list`")
    if root.exists() and not root.is_dir():
        raise HarnessError(f"{root} is a file; name a folder")
    layout = _find_layout(root)
    files = _missing_files(root, layout)
    for path, text in files.items():
        _write_new(path, text)
    ignored = _ignore_build(root / ".gitignore")
    return [
        *(f"wrote {_shown(path, root)}" for path in files),
        *(["added _build/ to .gitignore"] if ignored else []),
        *_advice(root, folder, layout),
    ]


def _find_layout(root: Path) -> _Layout:
    """What is there already; a first chapter where there is no notebook."""
    toc = root / "_toc.yml"
    found = list(_notebooks_below(root))
    named = list(dict.fromkeys(toc_chapters(toc))) if toc.is_file() else []
    inner = next((p for p in sorted(root.glob("*/_toc.yml")) if p.parent.name not in _NOT_SEARCHED), None)
    if inner is not None and not toc.is_file():
        raise HarnessError(f"the book's _toc.yml is in {inner.parent}; run `harness init` there")
    wanted = named or found
    if not wanted:
        first = root / "chapters" / f"{FIRST_CHAPTER}.ipynb"
        # a list counts where _toc.yml, which is not ours to change, names no notebook
        entry = [_shown(first, root)] if toc.is_file() else "chapters"
        return _Layout((first,), entry, first.parent / "claims", new=True)
    by_name: dict[str, Path] = {}
    for path in wanted:
        by_name.setdefault(path.stem, path)
    chapters = tuple(by_name.values())
    left_out = tuple(path for path in wanted if path not in chapters)
    folders = list(dict.fromkeys(path.parent for path in chapters))
    if left_out:
        entry = [_shown(path, root) for path in chapters]
    elif named or (len(folders) == 1 and not toc.is_file()):
        entry = _shown(folders[0], root)
    else:
        entry = [_shown(path, root) for path in folders]
    claims = (folders[0] if len(folders) == 1 else root) / "claims"
    unnamed = tuple(path for path in found if named and path not in named)
    return _Layout(chapters, entry, claims, left_out=left_out, unnamed=unnamed)


def _notebooks_below(root: Path) -> Iterator[Path]:
    """Notebooks in *root*, then folder by folder; not in hidden folders, environments and what was built."""
    for place, folders, names in os.walk(root):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in _NOT_SEARCHED
            and not Path(place, name, "pyvenv.cfg").exists()
        )
        yield from (Path(place, name) for name in sorted(names) if name.endswith(".ipynb"))


def _missing_files(root: Path, layout: _Layout) -> dict[Path, str]:
    """Text of each file to write, by path; harness.yml last, as it is what makes the folder a book."""
    if layout.claims.exists() and not layout.claims.is_dir():
        raise HarnessError(f"{layout.claims} is a file where the claims' folder would be; rename it")
    load_all_claims(layout.claims, [path.stem for path in layout.chapters])
    first = layout.chapters[0]
    files = {first: _filled("first-chapter.ipynb")} if layout.new else {}
    if layout.new:
        path = claim_path(layout.claims, first.stem)
        if not path.exists():
            files[path] = _filled("first-claims.yml", chapter=_flow(first.stem))
    elif not layout.claims.exists():
        files |= {
            claim_path(layout.claims, path.stem): _claims(path) for path in _recording(layout) or [first]
        }
    files[root / CONFIG_NAME] = _filled(
        "harness.yml",
        title=_flow(_title(root)),
        chapters=_flow(layout.entry),
        remark=_remark(root, layout),
        claims=_flow(_shown(layout.claims, root)),
        **_example_of_parameters(layout),
    )
    return files


def _example_of_parameters(layout: _Layout) -> dict[str, str]:
    """What the configuration shows of parameters: those that the chapters have, as comments."""
    first = layout.chapters[0].stem
    if layout.new:
        return {"hint": "", "parameters": f"parameters:\n  {_flow(first)}:\n    smoke: {{num_points: 1000}}"}
    found = {path.stem: own for path in layout.chapters if (own := _numbers(path))}
    hint = "; smaller ones, for a quick try" if found else "; none has such a cell yet"
    lines = ["parameters:"]
    for chapter, values in (found or {first: {"n": 10}}).items():
        lines += [f"  {_flow(chapter)}:", f"    smoke: {_flow(values)}"]
    return {"hint": hint, "parameters": "\n".join(f"# {line}" for line in lines)}


def _numbers(chapter: Path) -> dict[str, int | float]:
    """The parameters of a chapter that are numbers and its author's to set, with their defaults."""
    return {
        name: one.default
        for name, one in _parameters(chapter).items()
        if name not in SET_BY_HARNESS and type(one.default) in (int, float)
    }


def _recording(layout: _Layout) -> list[Path]:
    """The chapters that record numbers."""
    return [path for path in layout.chapters if _recorded(path)]


def _recorded(chapter: Path) -> dict[str, str]:
    """Names of the numbers that the code of a chapter records, or may record, with their units."""
    found: dict[str, str] = {}
    with suppress(HarnessError):
        for cell in read_notebook(chapter).code:
            for call in _RECORD.finditer(_COMMENT.sub("", cell.source)):
                name = re.sub(r"\W", "_", call["name"].strip())
                if name.isidentifier():
                    found.setdefault(name, call["unit"] or "")
    return found


def _claims(chapter: Path) -> str:
    """A claim file that claims nothing yet, and proposes a claim for each number that the chapter records."""
    found = _recorded(chapter)
    lead = "name numbers that the chapter gives to `record` (or to MyST's glue), for example"
    if found:
        lead = "claim those that should hold of the numbers that the chapter records; say how far each may be off"
    lines = ["claims:"]
    for name, unit in (found or {"mean_error": ""}).items():
        lines += [
            f"  - name: {name}" + ("" if found else ' # record("mean_error", error)'),
            f"    title: {name.replace('_', ' ').strip() or name}",
            f"    unit: {json.dumps(unit, ensure_ascii=False)}",
            "    direction: none # which way is better: higher, lower or none",
            "    margin: 0.01",
        ]
    return _filled(
        "claims.yml", chapter=_flow(chapter.stem), lead=lead, claims="\n".join(f"# {line}" for line in lines)
    )


def _filled(template: str, **values: str) -> str:
    """The text of a file of the folder ``templates``, with *values* for its ``$names``, where there are any."""
    text = (_TEMPLATES / template).read_text(encoding="utf-8")
    return Template(text).substitute(values) if values else text


def _remark(root: Path, layout: _Layout) -> str:
    """What to say of the chapters beside the key that names them."""
    if isinstance(layout.entry, list):
        return "folders and notebooks, in this order"
    if (root / "_toc.yml").exists():
        return "which they are, and their order, is said by _toc.yml"
    return "the notebooks of this folder; a list of folders and notebooks is possible, too"


def _title(root: Path) -> str:
    """The title that Jupyter Book's _config.yml gives, or the folder's name."""
    with suppress(HarnessError):  # missing, or tags that only Sphinx understands
        config = read_yaml(root / "_config.yml")
        if isinstance(config, dict) and isinstance(config.get("title"), str):
            return config["title"]
    return root.resolve().name or "book"


def _flow(value: str | list[str]) -> str:
    """*value* on one line of YAML, in quotes where it needs them."""
    text = yaml.safe_dump(value, allow_unicode=True, default_flow_style=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _write_new(path: Path, text: str) -> None:
    """Write *path*, which must not exist."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise HarnessError(f"a file is in the way of the folder {path.parent}; rename it") from None
    except OSError as error:
        raise explain_os_error(error, f"cannot create {path.parent}") from None
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise HarnessError(f"{path} is in the way; rename it, then run `harness init` again") from None
    except OSError as error:
        raise explain_os_error(error, f"cannot write {path}") from None


def _ignore_build(path: Path) -> bool:
    """Let git ignore ``_build/``; whether a line had to be added."""
    try:
        before = path.read_bytes() if path.exists() else b""
        if any(line.strip() in _IGNORED for line in before.splitlines()):
            return False
        with path.open("ab") as file:
            file.write((b"" if not before or before.endswith(b"\n") else b"\n") + b"_build/\n")
    except OSError as error:
        raise explain_os_error(error, f"cannot write {path}") from None
    return True


def _advice(root: Path, folder: Path, layout: _Layout) -> Iterator[str]:
    """What was left out, and what to do next."""
    config = f"{CONFIG_NAME} under chapters"
    for path in layout.left_out:
        yield f"left out {_shown(path, root)}: a chapter has this name already; rename it and add it to {config}"
    if layout.unnamed:
        more = f" and {len(layout.unnamed) - 1} more" if layout.unnamed[1:] else ""
        yield f"not chapters, as _toc.yml does not name them: {_shown(layout.unnamed[0], root)}{more}"
    if root.resolve() != Path.cwd().resolve():
        yield f"next: cd {shlex.quote(str(folder))}"
    if layout.new:
        yield "next: `harness run` runs the chapter"
    else:
        yield f"next: `harness run` runs the {len(layout.chapters)} chapter(s)"
        place = _shown(layout.claims, root)
        if recording := _recording(layout):
            yield f"then: claim in {place}/{recording[0].stem}.yml what the chapter records"
        else:
            yield (
                "then: let a chapter `from harness.record import record` and record(name, value), and claim it in"
                f" {place}/<chapter>.yml"
            )
    if layout.new or any(map(_takes_seed, layout.chapters)):
        yield "then: `harness run --seeds 3` and `harness bless` make its numbers the reference of later runs"
    else:
        yield (
            "then: `harness bless` makes its numbers the reference of later runs; a cell tagged `parameters` that"
            " says `seed = 0` lets `harness run --seeds 3` measure how much they vary"
        )


def _takes_seed(chapter: Path) -> bool:
    return "seed" in _parameters(chapter)


def _parameters(chapter: Path) -> dict[str, Parameter]:
    """Those of a chapter; none where they cannot be read, which `harness list` tells."""
    with suppress(HarnessError):
        return read_parameters(read_notebook(chapter)) or {}
    return {}
