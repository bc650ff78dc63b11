"""Which jobs a run consists of: chapters × seeds, or any notebooks."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
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
    profiles = book.profiles if book else BUILT_IN_PROFILES
    profile = find_profile(profiles, request.profile)
    _check(request)
    planned: list[Planned] = []
    taken: set[str] = set()
    for path in dict.fromkeys(p.absolute() for p in notebooks):
        for entry in _plan_notebook(book, path, profile, request):
            identity = _unique(entry.job.id, taken)
            planned.append(Planned(_with_id(entry.job, identity), entry.notebook, entry.problem))
    return planned if request.seeds is None else _without_seed(planned)


def _check(request: Request) -> None:
    """Refuse what no notebook could be run with."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", request.device):
        raise HarnessError(f"unknown device {request.device!r}; devices: {', '.join(DEVICES)}, cuda:N")
    if request.seeds is not None and "seed" in request.texts:
        raise HarnessError("--seeds and --param seed=… contradict each other; give one of them")


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


def plan_matrix(book: Book, matrix: Matrix, chapters: Sequence[Path], request: Request) -> list[Planned]:
    """One entry per cell of *matrix* and seed: the tasks of *chapters*, each with its models."""
    _check(request)
    profile, notebooks = book.profile(matrix.profile), {path.stem: path for path in chapters}
    if request.profile not in (None, matrix.profile):
        raise HarnessError(
            f"the matrix is for the profile {matrix.profile}, not {request.profile}; take --profile out"
        )
    planned: list[Planned] = []
    taken: set[str] = set()
    for task in matrix.tasks:
        for model in task.models if task.chapter in notebooks else ():
            name = f"{task.name}-{model.rpartition('/')[2]}"
            for entry in _plan_notebook(
                book, notebooks[task.chapter], profile, request, task.values(model), name
            ):
                planned.append(replace(entry, job=_with_id(entry.job, _unique(entry.job.id, taken))))
    return planned


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
    asked = {"cell": request.cell_timeout, "notebook": request.notebook_timeout}
    wanted = {name: seconds for name, seconds in asked.items() if seconds is not None}
    limits = replace(profile.limits, **wanted, given=tuple(wanted))

    def job(seed: int | None, parameters: Mapping[str, Any]) -> Job:
        identity = job_stem(path, profile.name) + (f"-{_slug(name)}" if name else "")
        identity += f"-seed{seed}" if seed is not None else ""
        return Job(
            identity, path, chapter, profile.name, seed, parameters, limits, request.device, profile.network,
            language=language,
        )  # fmt: skip

    language = "en"
    try:
        notebook = read_notebook(path)
        language = (book.language if book else "") or notebook.written_in
        given = dict(book.parameters.get(chapter, {}).get(profile.name, {})) if book and chapter else {}
        given |= cell
        asked = dict.fromkeys((*given, *request.texts))
        declared = _declared(notebook, asked, strict=bool(asked or chapter or request.seeds))
        kept = {name: p.default for name, p in (declared or {}).items() if p.injected}
        entries = []
        for values in _per_seed(declared or {}, given, profile, request):
            parameters = kept | resolve(notebook, declared, values, request.texts)
            seed = parameters.get(
                "seed", declared["seed"].default if declared and "seed" in declared else None
            )
            entries.append(Planned(job(seed if isinstance(seed, int) else None, parameters), notebook))
        return entries
    except HarnessError as error:
        return [Planned(job(None, {}), None, str(error))]


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


def _unique(identity: str, taken: set[str]) -> str:
    candidate, n = identity, 1
    while candidate.casefold() in taken:
        n += 1
        candidate = f"{identity}-{n}"
    taken.add(candidate.casefold())
    return candidate


def _with_id(job: Job, identity: str) -> Job:
    return replace(job, id=identity)
