"""Skip a chapter when nothing that could change its result changed.

A key covers the code cells, the parameters, the profile and seed, every file of the book's own packages
that the chapter imports (and their data files), ``harness/record.py``, the versions of all installed
distributions, the hardware class and the environment variables that choose data. Where the imports cannot
be followed, the whole package counts.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache as memoise
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.model import Job, JobResult, JobState, job_result_from_json
from harness.notebook import Notebook
from harness.store import build_dir, explain_os_error, read_json, write_json
from harness.variables import DECIDING, matches

VERSION = 2  # raise it when the meaning of a key or an entry changes
KEPT_FILES = ("out.ipynb", "metrics.jsonl", "result.json", "log.txt")
_DYNAMIC_CALLS = {"__import__", "import_module", "exec", "eval", "run_path", "run_module"}
_NOT_DATA = {"__pycache__", ".ipynb_checkpoints", ".git"}


# -- the key -----------------------------------------------------------------------------------------


def key_of(parts: Mapping[str, Any]) -> str:
    """The key that these parts make."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def key_parts(
    job: Job,
    notebook: Notebook,
    root: Path,
    packages: Sequence[str],
    hardware: str,
    variables: Sequence[str] = (),
) -> dict[str, Any]:
    """Everything that can change the result of *job*, in plain JSON types, by what it is.

    Args:
        packages: the book's own, below *root*.
        variables: names of the environment variables that the book adds, ``*`` at the end for any rest.
    """
    return {
        "version": VERSION,
        "code": [_short_digest(_normalised(cell.source)) for cell in notebook.code],
        "tags": [sorted(cell.tags) for cell in notebook.code],
        "kernel": notebook.kernel,
        "parameters": {name: repr(value) for name, value in sorted(job.parameters.items())},
        "profile": job.profile,
        "seed": job.seed,
        "hardware": hardware,
        "python": sys.version,
        "distributions": list(distributions()),
        "variables": _variables(os.environ, (*DECIDING, *variables)),
        "files": _digests(root, imported_files(notebook, root, packages)),
        "local": _digests(root, _parameter_files(job.parameters.values(), notebook.path.parent)),
        "record": file_digest(Path(__file__).with_name("record.py")),
    }


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _normalised(source: str) -> str:
    return "\n".join(line.rstrip() for line in source.strip().splitlines())


def _variables(environment: Mapping[str, str], patterns: Sequence[str]) -> dict[str, str]:
    return {name: environment[name] for name in sorted(environment) if matches(name, patterns)}


@memoise
def distributions() -> tuple[str, ...]:
    """``name-version`` of every installed distribution, from the names of their metadata folders."""
    found, entries = set(), [Path(entry or ".").absolute() for entry in sys.path]
    for place in entries:
        inside = any(place != other and place.is_relative_to(other) for other in entries)
        if inside and place.name not in ("site-packages", "dist-packages"):
            continue  # what a package carries for itself, and puts there when it is imported (Ray does)
        try:
            names = [path.name for path in place.iterdir()]
        except OSError:
            continue
        found.update(n.rsplit(".", 1)[0] for n in names if n.endswith((".dist-info", ".egg-info")))
    return tuple(sorted(found))


def _digests(root: Path, files: Iterable[Path]) -> dict[str, str]:
    return {os.path.relpath(f, root): file_digest(f) for f in sorted(set(files))}


def file_digest(path: Path) -> str:
    """sha256 of a file's content, read once a process as long as size and time stay the same."""
    status = path.stat()
    return _digest(str(path), status.st_size, status.st_mtime_ns)


@memoise
def _digest(path: str, size: int, changed: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parameter_files(values: Iterable[Any], folder: Path) -> Iterator[Path]:
    """Files that a parameter names, so that local data counts."""
    for value in values:
        if not isinstance(value, str) or not value.strip() or len(value) > 1000:
            continue
        path = folder / Path(value).expanduser()
        try:
            if path.is_file():
                yield path
            elif path.is_dir():
                yield from _files_below(path)
        except OSError:
            continue


def _files_below(folder: Path) -> Iterator[Path]:
    for directory, names, files in os.walk(folder):
        names[:] = sorted(n for n in names if n not in _NOT_DATA)
        for name in sorted(files):
            path = Path(directory, name)
            if not name.endswith(".pyc") and path.is_file():
                yield path


# -- imports -----------------------------------------------------------------------------------------


def imported_files(notebook: Notebook, root: Path, packages: Sequence[str]) -> set[Path]:
    """Files of the local packages (and of modules beside the notebook) that can change its results."""
    trees = [parse(without_magics(cell.source)) for cell in notebook.code]
    beside = notebook.path.parent
    if None in trees or any(_is_dynamic(tree) for tree in trees if tree is not None):
        return {f for name in packages if (root / name).is_dir() for f in _files_below(root / name)}
    names = {name for tree in trees if tree is not None for name in _imports(tree, "")}
    files: set[Path] = set()
    for package in packages:
        used = {name for name in names if name == package or name.startswith(package + ".")}
        if used and (root / package).is_dir():
            files |= _package_files(root, package, used)
    for top in {name.split(".")[0] for name in names} - set(packages):
        if (beside / f"{top}.py").is_file():
            files.add(beside / f"{top}.py")
        elif (beside / top).is_dir() and (beside / top / "__init__.py").is_file():
            files.update(_files_below(beside / top))
    return files


def _package_files(root: Path, package: str, names: set[str]) -> set[Path]:
    """Modules reached from *names*, plus all data files of the package."""
    everything = set(_files_below(root / package))
    reached: set[Path] = set()
    waiting = list(names)
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for path, module in _modules_of(root, name):
            if path in reached:
                continue
            reached.add(path)
            status = path.stat()
            imported = _file_imports(str(path), module, status.st_size, status.st_mtime_ns)
            if imported is None:
                return everything
            waiting += [n for n in imported if n == package or n.startswith(package + ".")]
    return reached | {f for f in everything if _is_data(f, root / package)}


@memoise
def _file_imports(path: str, module: str, size: int, changed: int) -> tuple[str, ...] | None:
    """What a file imports, None where that cannot be told; read once as long as size and time stay the same."""
    tree = parse(Path(path).read_text(encoding="utf-8", errors="replace"))
    return None if tree is None or _is_dynamic(tree) else tuple(_imports(tree, module))


def _modules_of(root: Path, name: str) -> Iterator[tuple[Path, str]]:
    """Source files that importing *name* runs, each with the package it counts as inside of."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        folder = root.joinpath(*parts[:end])
        if (folder / "__init__.py").is_file():
            yield folder / "__init__.py", ".".join(parts[:end])
        elif folder.with_name(folder.name + ".py").is_file():
            yield folder.with_name(folder.name + ".py"), ".".join(parts[: end - 1])


def _is_data(path: Path, package: Path) -> bool:
    """No module, or a module that is loaded by its path (its folder is no package)."""
    if path.suffix != ".py":
        return True
    return not all(
        (p / "__init__.py").is_file()
        for p in [path.parent, *path.parent.parents]
        if p.is_relative_to(package)
    )


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Dotted names a module imports; ``from a import b`` gives a and a.b. *package* resolves dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parts, *([base] if base else [])])
            yield base
            for alias in node.names:
                yield f"{base}.{alias.name}"


def _is_dynamic(tree: ast.AST) -> bool:
    """Whether a module may import what cannot be read off its text."""
    calls = (n.func for n in ast.walk(tree) if isinstance(n, ast.Call))
    return any((f.attr if isinstance(f, ast.Attribute) else getattr(f, "id", "")) in _DYNAMIC_CALLS
               and not _is_method_of_model(f) for f in calls)  # fmt: skip


def _is_method_of_model(function: ast.expr) -> bool:
    """``model.eval()`` is PyTorch's switch, not the built-in; the same for any attribute called eval."""
    return isinstance(function, ast.Attribute) and function.attr in ("eval", "exec")


def without_magics(source: str) -> str:
    """Code without IPython's ``%magic`` and ``!command`` lines; a cell magic hides the whole cell."""
    lines = source.splitlines()
    first = next((line.strip() for line in lines if line.strip()), "")
    if first.startswith("%%"):
        timing = first.split()[0] in ("%%time", "%%timeit", "%%capture")
        if not timing:
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


def parse(source: str) -> ast.Module | None:
    """The source's tree; None where it is no Python."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError):
        return None


# -- the store ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One kept job."""

    folder: Path
    run: str
    files: Mapping[str, str]
    parts: Mapping[str, Any]  # of its key


def cache_dir(root: Path) -> Path:
    """Where finished jobs are kept."""
    return build_dir(root) / "cache"


def find(root: Path, key: str) -> Entry | None:
    """The entry for *key*, None if there is none.

    Raises:
        HarnessError: the entry is damaged; it has been removed, and the message says so in one line.
    """
    folder = cache_dir(root) / key
    if not folder.is_dir():
        return None
    try:
        manifest = read_json(folder / "manifest.json")
        entry = Entry(folder, str(manifest["run"]), dict(manifest["files"]), dict(manifest["parts"]))
        damaged = next((n for n, digest in entry.files.items() if file_digest(folder / n) != digest), None)
        if manifest["key"] != key or "result.json" not in entry.files:
            damaged = "manifest.json"
    except (HarnessError, OSError, KeyError, TypeError, ValueError, AttributeError):
        damaged = "manifest.json"
    if damaged is None:
        return entry
    shutil.rmtree(folder, ignore_errors=True)
    raise HarnessError(
        f"cache entry {key[:12]} is damaged ({damaged}); it was removed and the job runs again"
    )


def look(root: Path, key: str) -> str | None:
    """The run that the entry for *key* comes from, None if there is none that is whole; changes nothing."""
    try:
        manifest = read_json(cache_dir(root) / key / "manifest.json")
        whole = all(file_digest(cache_dir(root) / key / n) == d for n, d in manifest["files"].items())
        return str(manifest["run"]) if whole and manifest["key"] == key else None
    except (HarnessError, OSError, KeyError, TypeError, AttributeError):
        return None


def entries_of(root: Path, job: Job) -> list[Entry]:
    """The entries of the same chapter and profile, whatever their keys, the newest first."""
    found: list[tuple[float, Entry]] = []
    for folder in cache_dir(root).glob("*"):
        try:
            manifest = read_json(folder / "manifest.json")
            entry = Entry(folder, str(manifest["run"]), dict(manifest["files"]), dict(manifest["parts"]))
            if (manifest["about"]["chapter"], manifest["about"]["profile"]) == (job.chapter, job.profile):
                found.append((folder.stat().st_mtime, entry))
        except (HarnessError, OSError, KeyError, TypeError, ValueError):
            continue
    return [entry for _, entry in sorted(found, key=lambda item: -item[0])]


def restore(entry: Entry, job: Job, folder: Path, shown: str) -> JobResult:
    """Put the kept files into the job's *folder*; the result, as skipped and with where it came from."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in entry.files:
            shutil.copyfile(entry.folder / name, folder / name)
    except OSError as error:
        raise explain_os_error(error, f"cannot write to {folder}") from None
    kept = job_result_from_json(read_json(folder / "result.json"))
    return replace(
        kept, id=job.id, notebook=shown, chapter=job.chapter, state=JobState.SKIPPED, key=job.key,
        cached_from=entry.run, reason=f"unchanged since run {entry.run}",
    )  # fmt: skip


def keep(root: Path, job: Job, parts: Mapping[str, Any], folder: Path, run: str) -> None:
    """Keep the completed job in *folder* under its key, which *parts* make; atomic, so no half entry is ever found."""
    target = cache_dir(root) / job.key
    temporary = None
    try:
        cache_dir(root).mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=cache_dir(root)))
        names = [name for name in KEPT_FILES if (folder / name).is_file()]
        for name in names:
            shutil.copyfile(folder / name, temporary / name)
        digests = {name: file_digest(temporary / name) for name in names}
        about = {"chapter": job.chapter, "profile": job.profile}
        write_json(
            temporary / "manifest.json",
            {
                "version": VERSION,
                "key": job.key,
                "run": run,
                "about": about,
                "parts": parts,
                "files": digests,
            },
        )
        shutil.rmtree(target, ignore_errors=True)
        temporary.replace(target)
    except OSError as error:
        raise explain_os_error(error, f"cannot write to {cache_dir(root)}") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
