"""Importing this makes a notebook ready: the book is found from any folder, packages that are missing are installed.

It is the last line of each chapter's set-up cell, for machines that come with the usual packages and without the
book, such as Colab's. There it must not change what is there: torch and numpy are held as they are, so that pip would
rather fail than replace them. Where nothing is missing, nothing happens.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

NEEDED = ("evaluate", "snownlp", "peft", "seqeval")
ALONE = ("jionlp", "trl")
"""Installed without what they depend on: jionlp's data files are read and its code is not; trl would replace Colab's
datasets by a newer one, which it does not need for what the book does."""

HELD = ("torch", "numpy")
ROOT = Path(__file__).resolve().parents[1]


def installed(package: str) -> str | None:
    """The version of *package* that is installed, None where it is not."""
    return next((found.version for found in distributions(name=package)), None)


def install_missing() -> None:
    """Install what is missing, at the versions of ``constraints.txt``.

    Raises:
        subprocess.CalledProcessError: pip could not; it has said why.
    """
    pins = dict(
        re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)
    )
    held = [f"{name}=={version}" for name in HELD if (version := installed(name))]
    for wanted, options in ((NEEDED, held), (ALONE, ["--no-deps"])):
        missing = [f"{name}=={pins[name]}" for name in wanted if not installed(name)]
        if missing:
            print("安装", "、".join(missing), flush=True)
            subprocess.run(
                [sys.executable, "-m", "pip", "install", "--quiet", "--use-pep517", *options, *missing],
                check=True,
            )


if str(ROOT) not in sys.path:  # the set-up cell names places relative to the notebook
    sys.path.insert(0, str(ROOT))
install_missing()
