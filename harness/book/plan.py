"""Which jobs a run consists of: chapters × seeds, or any notebooks."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.book.config import BUILT_IN_PROFILES, Book, Profile, find_profile
from harness.book.matrix import Matrix
from harness.book.notebook import Notebook, read_notebook
from harness.book.parameters import Parameter, ParameterError, has_translator, read_parameters, resolve
from harness.errors import HarnessError
from harness.model import Job

MAX_SEEDS = 1000
DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class Request:
    """What the user asked for on the command line."""

    profile: str | None = None
    seeds: tuple[int, ...] | None = None
    device: str = "auto"
    texts: Mapping[str, str] = field(default_factory=dict)  # --param NAME=VALUE
    cell_timeout: float | None = None
    notebook_timeout: float | None = None


@dataclass(frozen=True)
class Planned:
    """One job, and why it cannot run if it cannot."""

    job: Job
    notebook: Notebook | None
    problem: str = ""


def parse_seeds(text: str | None) -> tuple[int, ...] | None:
    """``"5"`` is 0..4, ``"0,3,7"`` (or ``"3,"``) exactly those."""
    if text is None:
        return None
    try:
        if "," in text:
            seeds = tuple(int(part) for part in text.split(",") if part.strip())
        else:
            seeds = tuple(range(min(int(text), MAX_SEEDS + 1)))
    except ValueError:
        seeds = ()
    if len(seeds) > MAX_SEEDS:
        raise HarnessError(f"--seeds {text}: at most {MAX_SEEDS} seeds in one run")
    if not seeds or min(seeds) < 0 or len(set(seeds)) != len(seeds):
        raise HarnessError(f"--seeds {text!r}: give a count (5 is seeds 0 to 4) or different seeds (0,3,7)")
    return seeds


def plan(book: Book | None, notebooks: Sequence[Path], request: Request) -> list[Planned]:
    """One entry per notebook and seed, in order. A notebook that cannot run is planned with its problem."""
    profile = find_profile(book.profiles if book else BUILT_IN_PROFILES, request.profile)
    _check(request)
    paths = dict.fromkeys(path.absolute() for path in notebooks)
    planned = _numbered(entry for path in paths for entry in _plan_notebook(book, path, profile, request))
    return planned if request.seeds is None else _without_seed(planned)


def plan_matrix(book: Book, matrix: Matrix, chapters: Sequence[Path], request: Request) -> list[Planned]:
    """One entry per cell of *matrix* and seed: the tasks of *chapters*, each with its models."""
    _check(request)
    profile, notebooks = book.profile(matrix.profile), {path.stem: path for path in chapters}
    if request.profile not in (None, matrix.profile):
        raise HarnessError(
            f"the matrix is for the profile {matrix.profile}, not {request.profile}; take --profile out"
        )
    cells = [(task, model) for task in matrix.tasks if task.chapter in notebooks for model in task.models]
    return _numbered(
        entry
        for task, model in cells
        for entry in _plan_notebook(
            book, notebooks[task.chapter], profile, request,
            task.values(model), f"{task.name}-{model.rpartition('/')[2]}",
        )
    )  # fmt: skip


def _check(request: Request) -> None:
    """Refuse what no notebook could be run with."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", request.device):
        raise HarnessError(f"unknown device {request.device!r}; devices: {', '.join(DEVICES)}, cuda:N")
    if request.seeds is not None and "seed" in request.texts:
        raise HarnessError("--seeds and --param seed=… contradict each other; give one of them")


def _numbered(planned: Iterable[Planned]) -> list[Planned]:
    """The jobs, with a number behind an id that an earlier one has, in whatever case a file system tells them apart."""
    taken: set[str] = set()
    numbered = []
    for entry in planned:
        identity, n = entry.job.id, 1
        while identity.casefold() in taken:
            n += 1
            identity = f"{entry.job.id}-{n}"
        taken.add(identity.casefold())
        numbered.append(replace(entry, job=replace(entry.job, id=identity)))
    return numbered


def _without_seed(planned: Sequence[Planned]) -> list[Planned]:
    """Under --seeds: a chapter without the parameter runs once beside others that take it; else it is told."""
    taken = any("seed" in entry.job.parameters for entry in planned)
    checked = []
    for entry in planned:
        if not entry.problem and "seed" not in entry.job.parameters and not (taken and entry.job.chapter):
            problem = f"{entry.job.notebook} has no parameter 'seed' for --seeds to set; leave --seeds out"
            entry = Planned(entry.job, None, problem)
        checked.append(entry)
    return checked


def _plan_notebook(
    book: Book | None,
    path: Path,
    profile: Profile,
    request: Request,
    cell: Mapping[str, Any] = MappingProxyType({}),
    name: str = "",
) -> list[Planned]:
    """The jobs of one notebook; *cell* are values on top of the profile's, and *name* says so in the jobs' ids."""
    chapter = book.chapter_of(path) if book else None
    given = {"cell": request.cell_timeout, "notebook": request.notebook_timeout}
    limits = {limit: seconds for limit, seconds in given.items() if seconds is not None}
    job = Job(
        job_stem(path, profile.name) + (f"-{_slug(name)}" if name else ""), path, chapter, profile.name, None, {},
        replace(profile.limits, **limits, given=tuple(limits)), request.device, profile.network,
    )  # fmt: skip
    try:
        notebook = read_notebook(path)
        job = replace(job, language=(book.language if book else "") or notebook.written_in)
        of_book = book.parameters.get(chapter, {}).get(profile.name, {}) if book and chapter else {}
        values = {**of_book, **cell}
        asked = dict.fromkeys((*values, *request.texts))
        declared = _declared(notebook, asked, strict=bool(asked or chapter or request.seeds))
        known = declared or {}
        kept = {name: parameter.default for name, parameter in known.items() if parameter.injected}
        jobs = []
        for wanted in _per_seed(known, values, profile, request):
            parameters = kept | resolve(notebook, declared, wanted, request.texts)
            seed = parameters.get("seed", known["seed"].default if "seed" in known else None)
            seed = seed if isinstance(seed, int) else None
            identity = job.id if seed is None else f"{job.id}-seed{seed}"
            jobs.append(replace(job, id=identity, seed=seed, parameters=parameters))
        return [Planned(one, notebook) for one in jobs]
    except HarnessError as error:
        return [Planned(job, None, str(error))]


def _declared(notebook: Notebook, asked: Collection[str], *, strict: bool) -> dict[str, Parameter] | None:
    """Parameters of the notebook. Where nothing depends on them, a cell we cannot read does not matter.

    Raises:
        ParameterError: the cell cannot be read, or papermill cannot set what was *asked* for in this language.
    """
    try:
        declared = read_parameters(notebook)
    except HarnessError:
        if strict:
            raise
        return None
    if (declared or asked) and not has_translator(notebook):
        if asked:
            raise ParameterError(
                f"{notebook.path} is in {notebook.language}, not Python, and papermill sets no parameters in that"
                f" language, so {', '.join(asked)} cannot be set; leave it out"
            )
        return None
    return declared


def _per_seed(
    declared: Mapping[str, Parameter], given: Mapping[str, Any], profile: Profile, request: Request
) -> list[dict[str, Any]]:
    """What is set besides --param: the book's values, then profile, device and seed where declared."""
    values = dict(given)
    for name, value in (("profile", profile.name), ("device", request.device)):
        if name in declared and name not in request.texts:
            values[name] = value
    if request.seeds is None or "seed" not in declared:
        return [values]
    return [{**values, "seed": seed} for seed in request.seeds]


def job_stem(notebook: Path, profile: str) -> str:
    """What the ids of a notebook's jobs under a profile begin with; ``-seed0`` may follow."""
    return f"{_slug(notebook.stem)}-{profile}"


def _slug(name: str) -> str:
    """*name* as a part of a folder name: letters of any script, digits, dots, dashes."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:60] or "notebook"
