"""What the text of a notebook shows that it reads: modules it reaches, files it names, and what no hook can see."""

from __future__ import annotations

import ast
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache as memoise
from itertools import pairwise
from pathlib import Path

from harness.book.notebook import NATIVE_KERNEL, Notebook

_HARNESS = Path(__file__).parents[1]
_DYNAMIC_CALLS = {"__import__", "import_module", "exec", "eval", "run_path", "run_module"}
_NOT_DATA = {"__pycache__", ".ipynb_checkpoints", ".git"}
_COMPILED = frozenset(
    {
        "cv2", "datasets", "duckdb", "faiss", "fasttext", "h5py", "joblib", "lmdb", "netCDF4", "polars", "pyarrow",
        "rasterio", "safetensors", "sentencepiece", "tables", "tokenizers",
    }
)  # fmt: skip
"""Packages that open files past Python, or in processes of their own: what they read is not seen."""
_OTHER_PROCESSES = {"spawn", "forkserver"}  # as text: a start method of multiprocessing
_CELL_COMMANDS = re.compile(r"%%(bash|sh|script|sx|system|!|perl|ruby|pypy|javascript|js|cmd)\b")
_LINE_COMMAND = re.compile(r"^\s*(?:[\w., ]+=\s*)?(?:!!?|%sx\s|%system\s)\s*(?P<text>.+)$")
_LINE_RUN = re.compile(r"^\s*%(?P<magic>run|load|loadpy|load_ext|reload_ext|pycat)\s+(?P<text>.+)$")
_SYSTEM = {("proc",), ("sys",), ("dev",), ("etc",), ("run",), ("usr",)}
_FILE_NAME = re.compile(r"[^\s:*?<>|\"']{1,200}\.[A-Za-z]\w{0,7}")
_QUOTED = re.compile(r"\"([^\"\n]{1,300})\"|'([^'\n]{1,300})'")


@dataclass(frozen=True)
class Text:
    """What one text of Python says."""

    names: tuple[str, ...] = ()  # dotted, of what it imports
    strings: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()  # literals that it puts on sys.path
    scripts: tuple[str, ...] = ()  # that it runs
    dynamic: bool = False  # may import what cannot be read off it


@dataclass
class Found:
    """What a notebook reaches."""

    files: set[Path] = field(default_factory=set)  # modules, and data files of packages
    strings: set[str] = field(default_factory=set)
    unseen: set[str] = field(default_factory=set)  # in words


def follow(notebook: Notebook, root: Path, packages: Sequence[str]) -> Found:
    """What *notebook* reaches through imports, to any depth, ``%run``, scripts in commands and literal ``sys.path``.

    Args:
        packages: the book's own, below *root*: their data files count, and all of one that imports dynamically.
    """
    found, texts = Found(), [_cell_text(cell.source) for cell in notebook.code]
    for cell in notebook.code:
        found.strings.update(a or b for a, b in _QUOTED.findall(cell.source))
    if notebook.language != "python" or (notebook.kernel or NATIVE_KERNEL) != NATIVE_KERNEL:
        found.unseen.add(f"the kernel {notebook.kernel!r}")
    beside = notebook.path.parent
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    places = [beside, *(beside / entry for entry in given if entry)]
    while True:
        walk = _Walk(root, packages, beside, [*places], found)
        for text in texts:
            walk.take(text or Text(dynamic=True))
        walk.go()
        if len(walk.places) == len(places):
            return found
        places = walk.places  # what was not found before may be there


@dataclass
class _Walk:
    """One walk through all modules that can be reached."""

    root: Path
    packages: Sequence[str]
    beside: Path
    places: list[Path]  # where modules are looked for; grows
    found: Found
    _waiting: list[str] = field(default_factory=list)  # names of modules
    _seen: set[object] = field(default_factory=set)

    def go(self) -> None:
        while self._waiting:
            if (name := self._waiting.pop()) not in self._seen:
                self._seen.add(name)
                self._find(name)

    def take(self, text: Text, inside: str = "") -> None:
        """Note what *text* says; *inside* is the book's package that it belongs to."""
        if not inside:  # a package of the book finds its files by its own place
            self.found.strings.update(text.strings)
        self._waiting += text.names
        self.found.unseen |= {name.partition(".")[0] for name in text.names} & _COMPILED
        self.found.unseen |= {f"processes started by {s}" for s in text.strings if s in _OTHER_PROCESSES}
        scripts = [self.beside / script for script in text.scripts if is_file(self.beside / script)]
        for folder in (*text.folders, *(script.parent for script in scripts)):
            place = Path(os.path.normpath(self.beside / folder))
            if place not in self.places and place.is_dir():
                self.places.append(place)
        for script in scripts:
            self._module(script, "", "")
        if text.dynamic and inside:
            self._take_all(self.root / inside)
        elif text.dynamic:
            for name in self.packages:
                self._take_all(self.root / name)
            for path in sorted(self.beside.glob("*.py")):
                self._module(path, "", "")

    def _find(self, name: str) -> None:
        """The modules that importing *name* runs, wherever they lie."""
        top = name.partition(".")[0]
        if not top:
            return
        if top in self.packages and (self.root / top).is_dir():
            for path, package in _modules_of(self.root, name):
                self._module(path, package, top)
            self._data(self.root / top)
        for place in self.places:
            modules = list(_modules_of(place, name))
            if modules and modules[0][0].parent == _HARNESS:
                return  # what of it can change a number is in the key
            regular = bool(modules) and modules[0][0] in (place / top / "__init__.py", place / f"{top}.py")
            if regular and place == self.beside:
                self._take_all(place / top)
            for path, package in modules:
                self._module(path, package, "")
            if regular:
                return  # else a namespace, which may go on in another place

    def _module(self, path: Path, package: str, inside: str) -> None:
        if (path, package) in self._seen or not is_file(path):
            return
        self._seen.add((path, package))
        self.found.files.add(path)
        if path.suffix not in (".py", ".ipy"):
            return
        status = path.stat()
        text = _file_text(str(path), package, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if text is not None:
            self.take(text, inside)
        elif inside:
            self._take_all(self.root / inside)

    def _data(self, package: Path) -> None:
        if package not in self._seen:
            self._seen.add(package)
            self.found.files |= {f for f in files_below(package) if _is_data(f, package)}

    def _take_all(self, folder: Path) -> None:
        """Everything below *folder*, which is a package."""
        if ("all", folder) in self._seen or not folder.is_dir():
            return
        self._seen.add(("all", folder))
        for path in files_below(folder):
            package = ".".join(path.relative_to(folder.parent).parts[:-1])
            self._module(path, package, "")


@memoise
def _file_text(path: str, package: str, *mark: int) -> Text | None:
    """What a file says, None where it is no Python; read once as long as size and times stay the same."""
    return _text(Path(path).read_text(encoding="utf-8", errors="replace"), package)


def _cell_text(source: str) -> Text | None:
    """What a cell says, its magics and commands included; None where it is no Python."""
    commands, scripts, names = [], [], []
    first = next((line.strip() for line in source.splitlines() if line.strip()), "")
    if _CELL_COMMANDS.match(first):
        commands = source.splitlines()[1:]
    else:
        for line in source.splitlines():
            if match := _LINE_COMMAND.match(line):
                commands.append(match["text"])
            elif match := _LINE_RUN.match(line):
                words = [word for word in _words(match["text"]) if not word.startswith("-")][:1]
                if match["magic"].endswith("_ext"):
                    names += words
                else:
                    scripts += [name for word in words for name in (word, f"{word}.py")]
    words = [word for command in commands for word in _words(command)]
    names += [after for word, after in pairwise(words) if word == "-m"]
    scripts += [word for word in words if word.endswith((".py", ".sh", ".R", ".jl"))]
    text = _text(_without_magics(source), "")
    if text is None:
        return None
    return Text(
        (*text.names, *names), (*text.strings, *words), text.folders, (*text.scripts, *scripts), text.dynamic
    )


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command, comments=True)
    except ValueError:
        return command.split()


def _text(source: str, package: str) -> Text | None:
    """What Python says; None for what is no Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    strings = [text for text in _strings_in(tree) if 0 < len(text) < 300 and "\n" not in text]
    scripts = [word for text in strings for word in text.split() if word.endswith(".py")]
    folders = [text for node in ast.walk(tree) if _changes_path(node) for text in _strings_in(node)]
    names = tuple(dict.fromkeys(_imports(tree, package)))
    return Text(names, tuple(dict.fromkeys(strings)), tuple(folders), tuple(scripts), _is_dynamic(tree))


def _changes_path(node: ast.AST) -> bool:
    """``sys.path.insert(…)``, ``sys.path += …``, ``sys.path[:0] = …``, ``site.addsitedir(…)``."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr == "addsitedir" or _is_path(node.func.value)
    goals = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return isinstance(node, ast.Assign | ast.AugAssign) and any(
        _is_path(goal.value if isinstance(goal, ast.Subscript) else goal) for goal in goals
    )


def _is_path(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "path" and getattr(node.value, "id", "") == "sys"


def _strings_in(node: ast.AST) -> Iterator[str]:
    return (n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str))


# -- files that are named ----------------------------------------------------------------------------


def named_files(strings: Iterable[str], folder: Path) -> Iterator[Path]:
    """Files that strings of a notebook in *folder* name, and what looks like one that is not there."""
    for text in strings:
        path = Path(os.path.normpath(folder / Path(text)))
        if path.parts[1:2] in _SYSTEM:
            continue
        if is_file(path) or (_FILE_NAME.fullmatch(text) and not path.is_symlink()):
            yield path


def is_file(path: Path) -> bool:
    """Whether there is a file; a text that is no path (too long, say) names none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def files_below(folder: Path) -> Iterator[Path]:
    """All files below *folder* but for what tools leave there."""
    for directory, names, files in os.walk(folder):
        names[:] = sorted(n for n in names if n not in _NOT_DATA)
        for name in sorted(files):
            path = Path(directory, name)
            if not name.endswith(".pyc") and path.is_file():
                yield path


# -- imports -----------------------------------------------------------------------------------------


def _modules_of(place: Path, name: str) -> Iterator[tuple[Path, str]]:
    """Source files that importing *name* runs, each with the package it counts as inside of."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        folder = place.joinpath(*parts[:end])
        if (folder / "__init__.py").is_file():
            yield folder / "__init__.py", ".".join(parts[:end])
        elif folder.with_name(folder.name + ".py").is_file():
            yield folder.with_name(folder.name + ".py"), ".".join(parts[: end - 1])


def _is_data(path: Path, package: Path) -> bool:
    """No module, or a module that is loaded by its path (its folder is no package)."""
    folders = [folder for folder in path.parents if folder.is_relative_to(package)]
    return path.suffix != ".py" or not all((folder / "__init__.py").is_file() for folder in folders)


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Dotted names a module imports; ``from a import b`` gives a and a.b. *package* resolves dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
            yield base
            for alias in node.names:
                yield f"{base}.{alias.name}"


def _is_dynamic(tree: ast.AST) -> bool:
    """Whether a module may import what cannot be read off its text; ``model.eval()`` is PyTorch's switch."""
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = {function.id for function in called if isinstance(function, ast.Name)}
    methods = {function.attr for function in called if isinstance(function, ast.Attribute)}
    return not _DYNAMIC_CALLS.isdisjoint(names | methods - {"exec", "eval"})


def _without_magics(source: str) -> str:
    """Code without IPython's ``%magic`` and ``!command`` lines; a cell magic hides the whole cell."""
    lines = source.splitlines()
    first = next((line.strip() for line in lines if line.strip()), "")
    if first.startswith("%%") and first.split()[0] not in ("%%time", "%%timeit", "%%capture"):
        return ""
    kept = []
    for line in lines:
        stripped = line.lstrip()
        if stripped.startswith(("%", "!", "?")) or stripped.endswith("?"):
            line = line[: len(line) - len(stripped)] + "pass"
        elif "= !" in line or "= %" in line:
            line = line.split("=", 1)[0] + "= None"
        kept.append(line)
    return "\n".join(kept)
