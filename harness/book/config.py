"""Find the book and read its ``harness.yml`` and ``_toc.yml``."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from glob import glob
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from harness.book.notebook import PASSED_OVER
from harness.book.sources import files_below
from harness.book.yaml_file import read_yaml
from harness.errors import HarnessError
from harness.model import Limits

CONFIG_NAME = "harness.yml"
KEYS = (
    "book",
    "chapters",
    "claims",
    "packages",
    "profiles",
    "parameters",
    "environment",
    "hub",
    "requires",
    "data",
    "colab",
    "speed",
)
PROFILE_KEYS = frozenset({"cell_timeout", "notebook_timeout", "default", "network"})
SLOWEST = 0.01  # that a speed may be said to be
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VARIABLES = re.compile(rf"{_VARIABLE.pattern}\*?")
_DISTRIBUTION = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?")
_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_PAGES = (".ipynb", ".md", ".rst", ".txt")  # suffixes, the first that there is wins
_ROOT = (".", "./")  # as a folder of chapters: the book's own
_PROFILE = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")  # part of a job's id, hence of a folder's name


@dataclass(frozen=True)
class Profile:
    """A named set of limits; the parameters it sets stand in ``Book.parameters``."""

    name: str
    limits: Limits
    default: bool = False
    network: bool = True  # False: the Hugging Face libraries are told to stay offline


@dataclass(frozen=True)
class Book:
    """The book as its configuration describes it. All paths are absolute."""

    root: Path
    title: str
    chapters_dir: Path
    claims_dir: Path
    packages: tuple[str, ...]
    chapters: tuple[Path, ...]
    profiles: Mapping[str, Profile]
    parameters: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    environment: tuple[
        str, ...
    ] = ()  # variables that kernels get beside the usual ones; * at the end for any rest
    hub: str | None = None  # that of them which says where the book's own loader takes models and data
    requires: tuple[str, ...] = ()  # installed packages that its chapters cannot do without
    colab: bool = False  # whether its chapters have a link to Colab and a set-up cell
    colab_helper: str | None = None  # module of the book that a set-up cell imports to add what is missing
    language: str = ""  # of its text, "en" or "zh"; empty where _config.yml does not say
    speed: float | None = None  # of this machine against the reference; None: measure it
    data: Mapping[str | None, tuple[str, ...]] = field(default_factory=dict)  # by chapter; None: of all

    def data_files(self, chapter: str | None) -> list[Path]:
        """Files that the book says *chapter* reads; a folder stands for all below it."""
        patterns = (*self.data.get(None, ()), *(self.data.get(chapter, ()) if chapter else ()))
        return sorted({path for pattern in patterns for path in self.files_like(pattern)})

    def files_like(self, pattern: str) -> Iterator[Path]:
        """Files that a pattern of ``data`` names."""
        for name in glob(str(Path(pattern).expanduser()), root_dir=self.root, recursive=True):  # noqa: PTH207 – a pattern may be absolute
            path = self.root / name
            if path.is_file():
                yield path
            elif "**" not in pattern:
                yield from files_below(path)

    def profile(self, name: str | None) -> Profile:
        """The profile called *name*, or the default one."""
        return find_profile(self.profiles, name)

    def chapter_of(self, notebook: Path) -> str | None:
        """The chapter's name if *notebook* is one of the book's chapters."""
        return self._chapter_names.get(notebook.resolve())

    @cached_property
    def _chapter_names(self) -> Mapping[Path, str]:
        return {chapter.resolve(): chapter.stem for chapter in reversed(self.chapters)}

    def select(self, names: Sequence[str] | None) -> tuple[Path, ...]:
        """The chapters whose names begin with one of *names*, in book order; all for None."""
        if not names:
            return self.chapters
        chosen = {chapter for name in names for chapter in self._match(name)}
        return tuple(c for c in self.chapters if c in chosen)

    def _match(self, name: str) -> list[Path]:
        """The chapter called or numbered so, or all parts of one that is split.

        ``05`` is 05-1-… and 05-2-…; ``06-2`` is 06-2-text-… alone, though there is a 06-2-2-….
        """
        exact = [c for c in self.chapters if c.stem == name]
        found = exact or [c for c in self.chapters if c.stem.startswith(name)]
        parts = [c for c in found if re.match(rf"{re.escape(name)}-\d+-", c.stem)]
        numbered = [c for c in found if re.match(rf"{re.escape(name)}-\D", c.stem)]
        if len(found) == 1 or (found and parts == found):
            return found
        if len(numbered) == 1 and len(parts) + 1 == len(found):
            return numbered
        known = ", ".join(c.stem for c in self.chapters) or "none"
        if found:
            raise HarnessError(
                f"chapter {name!r} fits several: {', '.join(c.stem for c in found)}; type more of it"
            )
        raise HarnessError(f"no chapter begins with {name!r}; chapters: {known}")


BUILT_IN_PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "smoke": Profile("smoke", Limits(60, 120), network=False),
        "offline": Profile("offline", Limits(600, 900), default=True, network=False),
        "full": Profile("full", Limits(3600, 5400)),
    }
)
"""Used for notebooks that are run where there is no book."""


def find_profile(profiles: Mapping[str, Profile], name: str | None) -> Profile:
    """The profile called *name*, or the default one for None."""
    if name is None:
        return next((p for p in profiles.values() if p.default), next(iter(profiles.values())))
    if name not in profiles:
        raise HarnessError(f"unknown profile {name!r}; profiles: {', '.join(profiles)}")
    return profiles[name]


def find_root(start: Path | None = None) -> Path | None:
    """The nearest folder at or above *start* that holds a harness.yml."""
    start = (start or Path.cwd()).resolve()
    return next((folder for folder in (start, *start.parents) if (folder / CONFIG_NAME).is_file()), None)


def load_book(start: Path | None = None) -> Book:
    """Read the book at or above *start* (the current folder by default)."""
    root = find_root(start)
    if root is None:
        raise HarnessError(
            f"no {CONFIG_NAME} at or above {(start or Path.cwd()).resolve()}; "
            "go to the book's folder, or name notebooks to run"
        )
    where = root / CONFIG_NAME
    data = read_yaml(where)
    if not isinstance(data, dict):
        raise HarnessError(f"{where}: expected keys such as book, chapters, profiles")
    for key in data:
        if key not in KEYS:
            raise HarnessError(f"{where}: unknown key {key!r}; keys: {', '.join(KEYS)}")
    profiles = _read_profiles(where, data.get("profiles"))
    chapters_dir, chapters = _chapters(where, data)
    variables = _names(where, "environment", data, _VARIABLES, "MY_DATA or MY_*")
    hub = _name(where, "hub", data.get("hub"), _VARIABLE, "one environment variable such as MY_HUB")
    colab, module = data.get("colab"), "a module of the book such as my_book.setup, or be true"
    return Book(
        root=root,
        title=_title(where, data.get("book", root.name)),
        chapters_dir=chapters_dir,
        claims_dir=_folder(where, data, "claims", "chapters/claims"),
        packages=tuple(_packages(where, data.get("packages"))),
        chapters=chapters,
        profiles=profiles,
        parameters=_read_parameters(where, data.get("parameters"), chapters, profiles),
        environment=variables if hub is None else tuple(dict.fromkeys((*variables, hub))),
        hub=hub,
        requires=_names(where, "requires", data, _DISTRIBUTION, "numpy or scikit-learn"),
        colab=colab not in (None, False),
        colab_helper=None if isinstance(colab, bool) else _name(where, "colab", colab, _MODULE, module),
        language=_language(root / "_config.yml"),
        speed=_speed(where, data.get("speed")),
        data=_data(where, data.get("data"), chapters),
    )


def _language(path: Path) -> str:
    """The book's language as the site's configuration names it; its other faults are told when the site is built."""
    try:
        language = value_at(read_yaml(path), "sphinx", "config", "language")
    except HarnessError:
        return ""
    if not isinstance(language, str):
        return ""
    return "zh" if language.lower().startswith("zh") else "en"


def value_at(config: Any, *keys: str) -> Any:
    """What stands in a mapping of mappings under *keys*; None where there is nothing."""
    for key in keys:
        config = config.get(key) if isinstance(config, dict) else None
    return config


def _title(where: Path, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise HarnessError(f"{where}: book must be the title, not {value!r}")
    return str(value)


def _inside(name: Any) -> bool:
    """Whether *name* is a path that stays below the book's folder."""
    if not isinstance(name, str) or not name.strip():
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and path != PurePosixPath(".")


def _folder(where: Path, data: Mapping[str, Any], key: str, default: str) -> Path:
    name = data.get(key, default)
    if not _inside(name):
        raise HarnessError(
            f"{where}: {key} must be a folder inside the book, such as {default}, not {name!r}"
        )
    folder = where.parent / name
    if folder.exists() and not folder.is_dir():
        raise HarnessError(f"{where}: {key}: {folder} is a file, not a folder")
    return folder


def _packages(where: Path, value: Any) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(map(_inside, value)):
        raise HarnessError(f"{where}: packages must be a list of folder names inside the book, not {value!r}")
    return value


def _names(
    where: Path, key: str, data: Mapping[str, Any], form: re.Pattern[str], such: str
) -> tuple[str, ...]:
    value = data.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(n, str) and form.fullmatch(n) for n in value):
        raise HarnessError(f"{where}: {key} must be a list of names such as {such}, not {value!r}")
    return tuple(value)


def _name(where: Path, key: str, name: Any, form: re.Pattern[str], such: str) -> str | None:
    if name is not None and not (isinstance(name, str) and form.fullmatch(name)):
        raise HarnessError(f"{where}: {key} must name {such}, not {name!r}")
    return name


def _speed(where: Path, value: Any) -> float | None:
    if value is None:
        return None
    if value is False or value == "off":  # YAML reads off as false
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not SLOWEST <= value < math.inf:
        raise HarnessError(
            f"{where}: speed must be off, or a number from {SLOWEST:g} up that this machine has of the reference's"
            f" speed, not {value!r}"
        )
    return float(value)


def _data(where: Path, value: Any, chapters: Sequence[Path]) -> Mapping[str | None, tuple[str, ...]]:
    by_chapter = {None: value} if isinstance(value, list) else value
    if by_chapter is None:
        return {}
    if not isinstance(by_chapter, dict):
        raise HarnessError(
            f"{where}: data must be a list of files such as data/**/*.csv, or map chapter -> list, not {value!r}"
        )
    names = {c.stem for c in chapters}
    for chapter, patterns in by_chapter.items():
        whose = "data" if chapter is None else f"data of {chapter}"
        if chapter is not None and chapter not in names:
            raise HarnessError(f"{where}: data given for {chapter!r}, which is no chapter of this book")
        if not isinstance(patterns, list):
            raise HarnessError(
                f"{where}: {whose} must be a list of files such as data/**/*.csv, not {patterns!r}"
            )
        for pattern in patterns:
            if not isinstance(pattern, str) or not pattern.strip() or "\0" in pattern:
                raise HarnessError(f"{where}: {whose}: {pattern!r} is no file; write such as data/**/*.csv")
    return {chapter: tuple(patterns) for chapter, patterns in by_chapter.items()}


def _read_profiles(where: Path, data: Any) -> Mapping[str, Profile]:
    if data is None:
        return BUILT_IN_PROFILES
    if not isinstance(data, dict) or not data:
        raise HarnessError(f"{where}: profiles must map a name to its limits")
    profiles = {}
    for name, entry in data.items():
        if not isinstance(name, str) or not _PROFILE.fullmatch(name):
            raise HarnessError(
                f"{where}: a profile's name consists of letters, digits, - and _, which {name!r} does not"
            )
        entry = {} if entry is None else entry
        if not isinstance(entry, dict) or set(entry) - PROFILE_KEYS:
            raise HarnessError(f"{where}: profile {name!r} takes {', '.join(sorted(PROFILE_KEYS))} only")
        for flag in ("default", "network"):
            if not isinstance(entry.get(flag, True), bool):
                raise HarnessError(f"{where}: profile {name!r}: {flag} is true or false, not {entry[flag]!r}")
        limits = Limits(
            cell=_seconds(where, name, "cell_timeout", entry),
            notebook=_seconds(where, name, "notebook_timeout", entry),
        )
        profiles[str(name)] = Profile(
            str(name), limits, default=entry.get("default", False), network=entry.get("network", True)
        )
    if sum(p.default for p in profiles.values()) > 1:
        raise HarnessError(f"{where}: more than one profile has default: true")
    return MappingProxyType(profiles)


def _seconds(where: Path, profile: Any, key: str, entry: Mapping[str, Any]) -> float | None:
    value = entry.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise HarnessError(
            f"{where}: {key} of profile {profile!r} must be a number of seconds above 0, not {value!r}"
        )
    return float(value)


def _read_parameters(
    where: Path, data: Any, chapters: Sequence[Path], profiles: Mapping[str, Profile]
) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise HarnessError(f"{where}: parameters must map chapter -> profile -> values")
    names = {c.stem for c in chapters}
    for chapter, by_profile in data.items():
        if chapter not in names:
            raise HarnessError(f"{where}: parameters given for {chapter!r}, which is no chapter of this book")
        if not isinstance(by_profile, dict):
            raise HarnessError(f"{where}: parameters of {chapter} must map profile -> values")
        for profile, values in by_profile.items():
            if profile not in profiles:
                raise HarnessError(f"{where}: parameters of {chapter} name the unknown profile {profile!r}")
            if values is not None and not isinstance(values, dict):
                raise HarnessError(f"{where}: parameters of {chapter} under {profile} must be name: value")
    return {c: {p: dict(v or {}) for p, v in by_profile.items()} for c, by_profile in data.items()}


def _chapters(where: Path, data: Mapping[str, Any]) -> tuple[Path, tuple[Path, ...]]:
    """The folder of the chapters, and their notebooks.

    A list of folders and notebooks says which they are, in its order. Where there is none, ``_toc.yml`` says it;
    without one they are the notebooks of the folder, sorted.
    """
    root, toc, entry = where.parent, where.with_name("_toc.yml"), data.get("chapters")
    if isinstance(entry, list):
        chapters = list(_listed(where, entry))
        folder = chapters[0].parent if chapters else root / "chapters"
        return folder, _unique_chapters(where, chapters)
    folder = root if entry in _ROOT else _folder(where, data, "chapters", "chapters")
    if "chapters" in data and not folder.is_dir():
        raise HarnessError(f"{where}: chapters: there is no folder {folder}; create it or mend the name")
    if not toc.is_file():
        return folder, tuple(sorted(folder.glob("*.ipynb")))
    return folder, _unique_chapters(toc, toc_chapters(toc))


def _listed(where: Path, entries: Sequence[Any]) -> Iterator[Path]:
    """The notebooks of a list of folders and notebooks."""
    for entry in entries:
        path = where.parent / entry if entry in _ROOT or _inside(entry) else None
        if path is not None and path.is_dir():
            yield from sorted(path.glob("*.ipynb"))
        elif path is not None and path.suffix == ".ipynb" and path.is_file():
            yield path
        else:
            raise HarnessError(
                f"{where}: chapters: {entry!r} is no folder and no notebook inside the book; mend the entry"
            )


def _unique_chapters(where: Path, notebooks: Sequence[Path]) -> tuple[Path, ...]:
    """*notebooks*, each once. Two of one name would share claims and parameters, so they are refused."""
    chapters = tuple(dict.fromkeys(notebooks))
    for name, count in Counter(path.stem for path in chapters).items():
        if count > 1:
            raise HarnessError(f"{where}: two chapters are called {name!r}; rename one of them")
    return chapters


def toc_chapters(toc: Path) -> list[Path]:
    """The notebooks that the table of contents *toc* names, in its order."""
    return [page for page in toc_pages(toc) if page.suffix == ".ipynb"]


def toc_pages(toc: Path) -> list[Path]:
    """The files that the table of contents *toc* names, in its order."""
    tree = read_yaml(toc)
    if not isinstance(tree, dict) or not isinstance(tree.get("root"), str):
        raise HarnessError(f"{toc}: expected keys such as format, root (the first page) and parts")
    pages = []
    for key, name in _toc_entries(tree):
        if not _inside(name):
            raise HarnessError(f"{toc}: {name!r} lies outside the book; move the page, or take the entry out")
        if key == "glob":
            pages += _matches(toc, name)
            continue
        files = [path for suffix in (*_PAGES, "") if (path := toc.parent / f"{name}{suffix}").is_file()]
        if not files:
            raise HarnessError(f"{toc}: no file for {name!r}; write the page or take the entry out")
        pages.append(files[0])
    return pages


def _matches(toc: Path, pattern: str) -> list[Path]:
    """The pages that a pattern of *toc* names, with or without their suffix."""
    try:
        found = {path for suffix in (*_PAGES, "") for path in toc.parent.glob(f"{pattern}{suffix}")}
    except ValueError as error:
        raise HarnessError(f"{toc}: glob {pattern!r}: {error}") from None
    return sorted(
        path
        for path in found
        if path.suffix in _PAGES
        and path.is_file()
        and not PASSED_OVER & {*path.relative_to(toc.parent).parts}
    )


def _toc_entries(node: Any) -> Iterator[tuple[str, str]]:
    """``root``, ``file`` and ``glob`` of a table of contents with what they name, in its order."""
    if isinstance(node, list):
        for entry in node:
            yield from _toc_entries(entry)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in ("file", "root", "glob") and isinstance(value, str):
                yield key, value
            elif isinstance(value, list | dict):
                yield from _toc_entries(value)


def site_config(root: Path) -> dict[str, Any]:
    """The content of the book's _config.yml."""
    path = root / "_config.yml"
    if not path.is_file():
        raise HarnessError(f"{path} does not exist; the site needs it")
    config = read_yaml(path)
    if not isinstance(config, dict):
        raise HarnessError(f"{path}: expected keys such as title, author, repository")
    repository = config.get("repository")
    if repository is not None and not (
        isinstance(repository, dict) and all(isinstance(v, str) for v in repository.values())
    ):
        raise HarnessError(f"{path}: repository must be a mapping with url and branch, not {repository!r}")
    return config
