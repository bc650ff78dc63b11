"""What this machine can reach, and what that allows: the package index, the hub, ModelScope, the book's repository.

A network that is missing is no error: the answers say what can be done without it. Nothing is asked that the book does
not want: ModelScope where harness.yml names a variable under ``hub``, which says where the book's own loader takes
models and data (huggingface, modelscope, or a folder); the hub where there is that or its client; the repository where
chapters have a set-up cell.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from harness.book.config import Book, site_config
from harness.errors import HarnessError

TIMEOUT = 3.0  # seconds that an address has to answer
PATIENCE = 10.0  # seconds for a program that asks several
PROBE = "papermill"  # a package that any index has which can serve this book
MODELSCOPE = "https://modelscope.cn"
_PLACES = {"huggingface": "hub", "modelscope": "ModelScope"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Answer:
    """What came of asking one place."""

    place: str
    reached: bool  # and what it is asked for is there
    message: str
    remedy: str = ""


def ask_all(book: Book | None) -> list[Answer]:
    """All places that the book may want, at the same time."""
    switch = book.hub if book else None
    questions: list[Callable[[], Answer | None]] = [
        ask_index,
        lambda: ask_hub(switch),
        lambda: ask_modelscope(switch),
        lambda: ask_repository(book.root) if book and book.colab else None,
    ]
    with ThreadPoolExecutor(len(questions)) as pool:
        return [answer for answer in pool.map(lambda ask: ask(), questions) if answer is not None]


def ask_index() -> Answer:
    """pip, as it is configured, mirrors and all: it is asked what versions of a package there are."""
    command = [sys.executable, "-m", "pip", "index", "versions", PROBE]
    options = ["--disable-pip-version-check", "--no-input", "--retries", "0", "--timeout", f"{TIMEOUT:g}"]
    found, told = _run([*command, *options])
    if found == 0:
        return Answer("package index", True, "pip finds packages, so what is missing can be installed")
    if "No module named pip" in told:
        return Answer("package index", False, "pip is not installed", f"{sys.executable} -m ensurepip")
    return Answer(
        "package index",
        False,
        "pip finds none; what is installed runs without it",
        "name a mirror: pip config set global.index-url ADDRESS",
    )


def ask_hub(switch: str | None) -> Answer | None:
    """The Hugging Face hub, or the mirror that HF_ENDPOINT names; None where nothing here would load from it."""
    remedy = "set HF_ENDPOINT to a mirror" + (f", or {switch} to modelscope or a folder" if switch else "")
    address = os.environ.get("HF_ENDPOINT") or default_hub()
    if not address and not switch:
        return None
    if _is_offline():
        return Answer("hub", False, "HF_HUB_OFFLINE is set", "unset it to load from the hub")
    if not address:
        return Answer("hub", False, "huggingface_hub is not installed", remedy)
    if not address.startswith(("http://", "https://")):
        return Answer("hub", False, f"HF_ENDPOINT is no web address: {address}", "start it with https://")
    return _answer("hub", address, remedy)


def ask_modelscope(switch: str | None) -> Answer | None:
    """ModelScope, or where MODELSCOPE_ENDPOINT points; None where the book cannot be told to load from it."""
    if not switch:
        return None
    address = os.environ.get("MODELSCOPE_ENDPOINT") or MODELSCOPE
    answer = _answer("ModelScope", address, f"only {switch}=modelscope needs it")
    if not answer.reached or _has_modelscope():
        return answer
    remedy = f"{switch}=modelscope needs its package: pip install modelscope-hub"
    return Answer(answer.place, True, answer.message, remedy)


def ask_repository(root: Path) -> Answer | None:
    """Where the set-up cells fetch the book; None where _config.yml names no repository."""
    with suppress(HarnessError):
        repository = site_config(root).get("repository") or {}
        address, revision = repository.get("url", ""), repository.get("branch", "main")
        if not address:
            return None
        found, _ = _run(["git", "ls-remote", "--exit-code", "--", address, revision])
        if found == 0:
            return Answer(
                "repository", True, f"{address} has {revision}, so a notebook alone can fetch the book"
            )
        remedy = "only a notebook without its book, as in Colab, needs it"
        if found == 2:
            return Answer(
                "repository", False, f"{address} has no {revision}", f"push it, or mend _config.yml; {remedy}"
            )
        return Answer("repository", False, f"{address} does not answer", remedy)
    return None


def profiles_that_run(book: Book, answers: Mapping[str, Answer]) -> Iterator[Answer]:
    """For each profile, whether what it loads is in reach or in a cache.

    Of what a profile loads the harness knows the values of its parameters that look like ``organisation/name``.
    """
    free = [profile.name for profile in book.profiles.values() if not profile.network]
    if free:
        yield Answer("profiles", True, f"{', '.join(free)}: need no network")
    for profile in book.profiles.values():
        if profile.network:
            wanted = sorted({
                value
                for by_profile in book.parameters.values()
                for value in by_profile.get(profile.name, {}).values()
                if isinstance(value, str) and _HUB_ID.fullmatch(value) and not (book.root / value).exists()
            })  # fmt: skip
            yield _profile(profile.name, wanted, answers, book.hub)


def _profile(name: str, wanted: list[str], answers: Mapping[str, Answer], switch: str | None) -> Answer:
    source = (os.environ.get(switch, "").strip() if switch else "") or "huggingface"
    if source not in _PLACES:
        absent = [one for one in wanted if not Path(source, one).is_dir()]
        if absent:
            remedy = f"download each into a folder of its name, {source}/{absent[0]} for one"
            return Answer(
                "profiles", False, f"{name}: {', '.join(absent)} not in {source} ({switch})", remedy
            )
        return Answer("profiles", True, f"{name}: loads from the folder {source} ({switch})")
    place = _PLACES[source]
    if place not in answers:
        return Answer("profiles", True, f"{name}: may use the network")
    lacks_package = source == "modelscope" and not _has_modelscope()
    if answers[place].reached and not lacks_package:
        return Answer(
            "profiles", True, f"{name}: loads from {answers[place].message.removesuffix(' answers')}"
        )
    uncached = [one for one in wanted if source == "modelscope" or not is_cached(one)]
    if wanted and not uncached:
        message = f"{name}: no {place}, but the cache has {', '.join(wanted)}"
        return Answer("profiles", False, message, "HF_HUB_OFFLINE=1 runs it if its data sets are there, too")
    reason = "modelscope-hub is not installed" if lacks_package else f"no {place}"
    lacking = f", and {', '.join(uncached)} not in the cache" if uncached and source == "huggingface" else ""
    remedy = f"use a mirror, or a folder ({switch})" if switch else "use a mirror"
    return Answer("profiles", False, f"{name}: {reason}{lacking}", remedy)


def is_cached(model: str) -> bool:
    """Whether the hub's client has this model on this machine."""
    with suppress(ImportError, ValueError):
        from huggingface_hub import try_to_load_from_cache

        return isinstance(try_to_load_from_cache(model, "config.json"), str)
    return False


def default_hub() -> str:
    """The hub's address as its own client knows it; empty where that is not installed."""
    try:
        from huggingface_hub import constants
    except ImportError:
        return ""
    return str(constants.ENDPOINT)


def _has_modelscope() -> bool:
    return find_spec("modelscope_hub") is not None


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")


def _answer(place: str, address: str, remedy: str) -> Answer:
    try:
        request = urllib.request.Request(address, method="HEAD")
        urllib.request.urlopen(request, timeout=TIMEOUT).close()
    except urllib.error.HTTPError:
        pass  # a refusal is an answer
    except (OSError, ValueError) as error:
        return Answer(place, False, f"{address} does not answer ({getattr(error, 'reason', error)})", remedy)
    return Answer(place, True, f"{address} answers")


def _run(command: list[str]) -> tuple[int, str]:
    """Exit code and stderr; -1 where the program is missing or takes too long."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired):
        return -1, ""
    return done.returncode, done.stderr
