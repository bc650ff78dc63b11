"""The environment of workers and kernels: what is let through from the caller's, what is set, what is secret.

A kernel sees an allow-list, not the caller's whole environment: a notebook whose result hangs on a variable nobody
knows of does not reproduce, and a token of the CI system is none of its business. Values that look secret, passed or
not, are replaced by ``***`` wherever the harness writes what a notebook printed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from harness.execute.kernel.process import MARKER
from harness.model import Job
from harness.record import METRICS_VARIABLE

PASSED = (
    # the system
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TERM", "DISPLAY",
    "TMPDIR", "TEMP", "TMP", "XDG_*", "CI",
    # the interpreter and its libraries
    "PYTHON*", "VIRTUAL_ENV", "CONDA_*", "LD_*", "DYLD_*", "IPYTHON*", "JUPYTER_*", "MPL*",
    # devices and threads
    "CUDA*", "NVIDIA_*", "CUBLAS_*", "CUDNN_*", "NCCL_*", "HIP_*", "ROCR_*", "OMP_*", "GOMP_*", "KMP_*", "MKL_*",
    "OPENBLAS_*", "NUMEXPR_*", "TORCH*", "PYTORCH_*", "ACCELERATE_*",
    # models, data and the way to them
    "HF_*", "HUGGING_FACE_HUB_TOKEN", "TRANSFORMERS_*", "DATASETS_*", "TOKENIZERS_*", "EVALUATE_*",
    "MODELSCOPE_*", "SSL_CERT_*", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_*",
    "http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
)  # fmt: skip
"""Names, with ``*`` at the end for any rest, that a kernel gets; ``environment`` in harness.yml adds more."""

DECIDING = ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT", "CUBLAS_WORKSPACE_CONFIG", "OMP_NUM_THREADS")
"""Of those, the ones that can change a number, and so belong to the cache's key; the book's own all do."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

SECRETS_VARIABLE = "HARNESS_SECRETS"
"""How the worker learns what to mask; it never reaches the kernel."""

_SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSW(OR)?D|PASSPHRASE|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|(?<![A-Z])AUTH(?![A-Z])",
    re.I,
)
_USER_IN_ADDRESS = re.compile(r"\w+://[^/\s:@]*:([^/\s@]+)@")
_SHORTEST_SECRET = 8  # characters; anything shorter would be masked in words that mean something else
MASK = "***"


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether *name* is one of the *patterns*."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def job_environment(
    job: Job,
    *,
    patterns: Sequence[str] = (),
    threads: int | None = None,
    gpu: str | None = None,
    given: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """What *job* sees of the caller's environment, and what it is told to do.

    Args:
        patterns: names that are let through beside ``PASSED``.
        threads: of each library that has a pool, unless the caller's environment says so; None leaves it to them.
        gpu: the one device that the job may see; None: whatever the caller sees.
        given: the caller's environment, this process's by default.
    """
    given = os.environ if given is None else given
    environment = {name: value for name, value in given.items() if matches(name, (*PASSED, *patterns))}
    environment |= {
        "HARNESS_PROFILE": job.profile,
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if not job.network:
        environment["HF_HUB_OFFLINE"] = "1"
    if threads is not None and not any(name in given for name in THREADS):
        environment |= dict.fromkeys(THREADS, str(threads))
    return environment if gpu is None else {**environment, "CUDA_VISIBLE_DEVICES": gpu}


def worker_environment(folder: Path, marker: str) -> dict[str, str]:
    """What the worker of the job in *folder* has on top: where metrics go, what to mask, whose it is."""
    return {
        MARKER: marker,
        METRICS_VARIABLE: str(folder / "metrics.jsonl"),
        SECRETS_VARIABLE: json.dumps(secrets()),
    }


def secrets(given: Mapping[str, str] | None = None) -> list[str]:
    """Values that must not be written anywhere, the longest first: by the variables' names, in addresses, hub token."""
    given = os.environ if given is None else given
    found = {value for name, value in given.items() if _SECRET_NAME.search(name) and not _is_plain(value)}
    for value in given.values():
        found.update(_USER_IN_ADDRESS.findall(value))
    home = Path(given.get("HF_HOME") or Path(given.get("HOME", "")) / ".cache" / "huggingface")
    with suppress(OSError, ValueError):
        found.add((home / "token").read_text(encoding="utf-8").strip())
    return sorted((value for value in found if len(value) >= _SHORTEST_SECRET), key=lambda v: (-len(v), v))


def _is_plain(value: str) -> bool:
    """A path to a credential, a number or a switch is no secret."""
    return (
        value.startswith("/") or value.replace(".", "").isdigit() or value.lower() in ("disabled", "required")
    )


def mask(value: Any, hidden: Sequence[str]) -> Any:
    """*value* without the secrets *hidden* in any of its strings; mappings and lists are changed in place."""
    if not hidden:
        return value
    if isinstance(value, str):
        for secret in hidden:
            value = value.replace(secret, MASK)
    elif isinstance(value, dict):
        for key, part in value.items():
            value[key] = mask(part, hidden)
    elif isinstance(value, list):
        value[:] = (mask(part, hidden) for part in value)
    return value
