"""``harness doctor``: is this machine ready, and if not, what to do? One line per question."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from harness.archive.environment import cores, cpu_has_bf16, cpu_name, memory_bytes, nvidia_gpus
from harness.archive.folder import build_dir
from harness.archive.speed import MOST, find_speed
from harness.book.config import Book, load_book
from harness.cli import reach
from harness.errors import HarnessError
from harness.execute.kernel.job import JobFolder, run_job
from harness.model import Job, JobState, Limits

OK, WARN, FAIL = "ok", "warn", "fail"

OWN_PACKAGES = (
    "fsspec",
    "ipykernel",
    "ipython",
    "jinja2",
    "jupyter-client",
    "jupyter-core",
    "markupsafe",
    "nbclient",
    "nbformat",
    "numpy",
    "packaging",
    "papermill",
    "psutil",
    "pyyaml",
    "pyzmq",
    "rich",
    "scipy",
    "traitlets",
    "typer",
)
"""What the harness itself needs, as in pyproject.toml; what a book needs stands under ``requires`` in harness.yml."""

OLDEST_PYTHON = (3, 11)
MIN_DISK_GB, MIN_MEMORY_GB = 5.0, 4.0
KERNEL_PATIENCE = 60.0  # seconds for the cell of the trial; starting has a limit of its own


@dataclass(frozen=True)
class Check:
    """The answer to one question."""

    name: str
    status: str  # OK, WARN or FAIL
    message: str
    remedy: str = ""


def examine(root: Path) -> Iterator[Check]:
    """All checks for the book at *root*, one after another."""
    book = _book(root)
    yield check_python()
    yield from check_packages(root / "constraints.txt", book.requires if book else ())
    yield check_kernel()
    yield check_writable(build_dir(root))
    yield check_disk(root)
    yield check_machine()
    yield check_speed(book)
    yield check_memory()
    yield check_gpu()
    yield check_bf16()
    yield from check_network(book)


def _book(root: Path) -> Book | None:
    """None where there is no book, or one that `harness list` tells what is wrong with."""
    with suppress(HarnessError):
        return load_book(root)
    return None


def examine_machine(folder: Path) -> Iterator[Check]:
    """What the machine itself is: quick, without kernel and network, and where the command line is not installed."""
    yield check_python()
    yield check_machine()
    yield check_memory()
    yield check_disk(folder)
    yield check_gpu()
    yield check_bf16()


def check_python() -> Check:
    version = platform.python_version()
    if tuple(sys.version_info[:2]) < OLDEST_PYTHON:
        return Check("python", FAIL, f"{version} is too old", "install Python 3.11 or newer")
    return Check("python", OK, f"{version} ({sys.executable})")


def check_packages(constraints: Path, required: Sequence[str] = ()) -> Iterator[Check]:
    """One line for each package that is missing or not as pinned in constraints.txt, one for the rest."""
    pinned = f"-c {constraints.name} " if constraints.is_file() else ""
    for name in dict.fromkeys((*OWN_PACKAGES, *required)):
        if installed_version(name) is None:
            yield Check("packages", FAIL, f"{name} is not installed", f"pip install {pinned}{name}")
    try:
        pins = constraints.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = {FileNotFoundError: "no {}", UnicodeDecodeError: "{} is not UTF-8 text"}
        message = what.get(type(error), "cannot read {}").format(constraints.name)
        remedy = "`pip freeze` says what is installed; write it there, and others get the same"
        yield Check("packages", WARN, f"{message}: versions are not checked", remedy)
    else:
        yield from _check_pins(pins, constraints.name)


def _check_pins(pins: str, source: str) -> Iterator[Check]:
    from packaging.requirements import InvalidRequirement, Requirement

    matching = absent = 0
    for line in pins.splitlines():
        text = line.split("#")[0].strip()
        if not text or text.startswith("-"):
            continue
        try:
            pin = Requirement(text)
        except InvalidRequirement:
            yield Check("packages", WARN, f"cannot read {text!r} in {source}", "write it as name==version")
            continue
        if pin.marker is not None and not pin.marker.evaluate():
            continue
        version = installed_version(pin.name)
        if version is None:
            absent += 1
        elif pin.specifier.contains(version, prereleases=True):
            matching += 1
        else:
            wanted = str(pin.specifier)
            remedy = f"pip install '{pin.name}{wanted}'"
            yield Check("packages", WARN, f"{pin.name} is {version}, pinned {wanted}", remedy)
    rest = f", {absent} not installed here" if absent else ""
    yield Check("packages", OK, f"{matching} as pinned in {source}{rest}")


def installed_version(name: str) -> str | None:
    """The installed version of a distribution."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_kernel() -> Check:
    """Runs a notebook of one cell the way every chapter is run."""
    cell = {
        "cell_type": "code",
        "id": "probe",
        "metadata": {},
        "source": "1 + 1",
        "outputs": [],
        "execution_count": None,
    }
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]}
    remedy = f"see that `{sys.executable} -m ipykernel_launcher --version` works; if not, reinstall ipykernel"
    try:
        with tempfile.TemporaryDirectory(prefix="harness-doctor-") as folder:
            path = Path(folder, "probe.ipynb")
            path.write_text(json.dumps(notebook), encoding="utf-8")
            job = Job("probe", path, None, "offline", None, {}, Limits(cell=KERNEL_PATIENCE))
            result = run_job(JobFolder(job, Path(folder, "job")))
    except Exception as error:
        return Check("kernel", FAIL, str(error), remedy)
    if result.state is JobState.TIMED_OUT:
        return _slow_kernel(remedy)
    if result.state is not JobState.COMPLETED:
        return Check("kernel", FAIL, f"{result.state}: {result.reason}", remedy)
    return Check("kernel", OK, f"started, ran a cell and stopped in {result.seconds:.1f} s")


def _slow_kernel(remedy: str) -> Check:
    """A kernel that was not ready in time: on a busy machine that says nothing about what is installed."""
    message, (load, *_) = f"none answered in {KERNEL_PATIENCE:g} s", os.getloadavg()
    if load <= cores():
        return Check("kernel", FAIL, message, remedy)
    busy = f"the machine is busy: {load:.1f} processes at a time on {cores()} cores"
    return Check("kernel", FAIL, f"{message}; {busy}", "end what else runs, then ask `harness doctor` again")


def check_writable(folder: Path) -> Check:
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return Check("output folder", OK, f"{folder} can be written")
    except OSError as error:
        return Check(
            "output folder", FAIL, f"{folder} cannot be written: {error.strerror}", "change its permissions"
        )


def check_disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free / 2**30
    status = OK if free >= MIN_DISK_GB else WARN
    return Check("disk", status, f"{free:.1f} GB free", "" if status == OK else f"free up {MIN_DISK_GB:g} GB")


def check_machine() -> Check:
    count = cores()
    return Check(
        "cpu",
        OK if count > 1 else WARN,
        f"{count} cores, {cpu_name()}",
        "" if count > 1 else "expect it slow",
    )


def check_speed(book: Book | None) -> Check:
    """What a run that started now would multiply the limits of a profile by."""
    speed = find_speed(book.speed if book else None)
    if speed.of_reference is None:
        return Check("speed", WARN, str(speed), "on a slow machine say `speed: 0.5` in harness.yml")
    if speed.factor == MOST:
        remedy = "end what else runs, or give `harness run` --cell-timeout and --notebook-timeout"
        return Check("speed", WARN, str(speed), remedy)
    return Check("speed", OK, str(speed))


def check_memory() -> Check:
    size = memory_bytes() / 2**30
    status = OK if size >= MIN_MEMORY_GB else WARN
    return Check(
        "memory",
        status,
        f"{size:.1f} GB",
        "" if status == OK else "run one notebook at a time: `harness run --jobs 1`",
    )


def check_gpu() -> Check:
    gpus = nvidia_gpus()
    if gpus:
        names = ", ".join(f"{g['name']} ({int(float(g['memory.total'])) // 1024} GB)" for g in gpus)
        return Check("gpu", OK, names)
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return Check("gpu", OK, "Apple silicon (mps)")
    return Check("gpu", WARN, "none found by nvidia-smi", "nothing to do, unless a chapter needs one")


def check_bf16() -> Check:
    capabilities = [
        float(g["compute_cap"]) for g in nvidia_gpus() if g["compute_cap"].replace(".", "").isdigit()
    ]
    if any(c >= 8.0 for c in capabilities):
        return Check("bfloat16", OK, "on the GPU")
    if cpu_has_bf16():
        return Check("bfloat16", OK, "in the processor")
    return Check("bfloat16", WARN, "not in hardware", "training uses float32 and is slower; nothing to do")


def check_network(book: Book | None) -> Iterator[Check]:
    """What can be reached, and which profiles that allows; what is missing is a warning, never a failure."""
    answers = reach.ask_all(book)
    if book:
        answers += reach.profiles_that_run(book, {answer.place: answer for answer in answers})
    for answer in answers:
        status = OK if answer.reached else WARN
        yield Check(answer.place, status, answer.message, answer.remedy)


if __name__ == "__main__":  # how a chapter asks, which imports of the harness its `record` alone
    for check in examine_machine(Path.cwd()):
        print(json.dumps(asdict(check)))
