"""What a run ran on: found without importing torch, so that it costs next to nothing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

VERSIONS_OF = ("torch", "transformers", "datasets", "evaluate", "papermill", "numpy", "scikit-learn")
"""Packages that decide many a book's results; a book adds its own under ``requires``."""
BF16 = "-bf16"  # the end of the class of a processor that multiplies bfloat16
_BF16_FLAGS = {"avx512_bf16", "amx_bf16"}


def environment(device: str = "auto", packages: Sequence[str] = ()) -> dict[str, Any]:
    """Python, machine and the versions of the packages that decide a result; *packages* are the book's own."""
    gpus = nvidia_gpus()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "hardware": hardware_class(device),
        "cpu": cpu_name(),
        "cores": cores(),
        "memory_gb": round(memory_bytes() / 2**30, 1),
        "gpu": gpus[0]["name"] if gpus else None,
        "versions": versions(packages),
    }


def hardware_class(device: str = "auto") -> str:
    """Machines of one class are expected to give the same numbers, e.g. ``cpu-x86_64-bf16``."""
    gpus = nvidia_gpus()
    if device.startswith("cuda") or (device == "auto" and gpus):
        name = gpus[0]["name"] if gpus else "unknown"
        return "cuda-" + re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")
    machine = platform.machine() or "unknown"
    apple = platform.system() == "Darwin" and machine == "arm64"
    if device == "mps" or (device == "auto" and apple):
        return f"mps-{machine}"
    return f"cpu-{machine}{BF16 if cpu_has_bf16() else ''}"


def versions(packages: Sequence[str] = ()) -> dict[str, str]:
    """Installed versions of VERSIONS_OF and of *packages*; those not installed are left out."""
    found = {}
    for name in dict.fromkeys((*VERSIONS_OF, *packages)):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    found = re.search(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware."""
    found = re.search(r"^flags\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    return bool(found and _BF16_FLAGS & set(found.group(1).split()))


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int:
    """Memory of the machine, or of the container where it has a limit of its own."""
    import psutil

    total = int(psutil.virtual_memory().total)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


@cache
def nvidia_gpus() -> tuple[dict[str, str], ...]:
    """Name, memory (MiB) and compute capability of each NVIDIA GPU, by nvidia-smi; empty without one."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    fields = ("name", "memory.total", "compute_cap")
    try:
        out = subprocess.run(
            [tool, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"],
            capture_output=True, text=True, timeout=10, check=True,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = [[part.strip() for part in line.split(",")] for line in out.splitlines() if line.strip()]
    return tuple(dict(zip(fields, row, strict=True)) for row in rows if len(row) == len(fields))


def git_state(folder: Path) -> tuple[str, bool]:
    """Commit of the work tree at *folder* and whether it has changes; ("", False) outside git."""
    try:
        return _git(folder, "rev-parse", "HEAD"), bool(_git(folder, *_STATUS))
    except (OSError, subprocess.SubprocessError):
        return "", False


def changes(folder: Path, besides: Path) -> list[str]:
    """The files of the work tree at *folder* that no commit holds as they are; none outside git.

    Those in the folder *besides* are left out.
    """
    left_out = f":(exclude,literal){besides.relative_to(folder).as_posix()}"
    try:
        found = _git(folder, "-c", "core.quotePath=false", *_STATUS, "--", left_out)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.split(maxsplit=1)[1] for line in found.splitlines()]


_STATUS = ("status", "--porcelain", "--untracked-files=normal")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
