"""Replicas of Colab's environment, and notebooks run in them. This is not Colab: nothing here says what Colab does.

`python -m tests.colab.replica FOLDER` (`make colab`) builds, from constraints.txt beside this file:

* `training`: the Python at hand, Colab's versions of the book's libraries, and the torch that is installed here;
* `python3.13`: Colab's Python, where this machine has one, without torch: on the index there is no build of it for
  this Python that does not bring gigabytes of CUDA;
* `wheels`: what the chapters' set-up cell installs, and what some sections add. In the tests pip reaches nothing
  else, so a set-up cell that wanted to replace a library of Colab would fail.

A `Machine` lies on top of such an environment as a fresh layer, which takes what the set-up cell installs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from harness.book.colab import read_place
from sft import setup

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
CONSTRAINTS = HERE / "constraints.txt"
REPLICAS = ROOT / ".venv" / ".colab"
NAMES = ("training", "python3.13")
NEEDS_TORCH = {"accelerate", "peft"}
LATER = tuple(name for names in setup.LATER.values() for name in names)
LATER_NEEDS = (
    *("flatbuffers", "ml_dtypes", "onnx-ir", "protobuf"),
    *("absl-py", "h5py", "namex", "optree"),
    *("cffi", "pycparser"),
)
"""What those need besides: Colab has most of it (and keras and cryptography), the replica has not."""


def pins(constraints: Path) -> dict[str, str]:
    """Packages and versions of a file of constraints."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", constraints.read_text(encoding="utf-8"), re.M))


def snapshot() -> dict[str, str]:
    """Colab's packages and versions."""
    return pins(CONSTRAINTS)


def build(folder: Path) -> None:
    """Build the replicas and fetch the wheels; those that are there are replaced."""
    for name in (*NAMES, "wheels"):
        shutil.rmtree(folder / name, ignore_errors=True)
    names = snapshot().keys()
    wanted = [name for name in (*setup.NEEDED, *setup.ALONE, *LATER, *LATER_NEEDS) if name not in names]
    training = _environment(sys.executable, folder / "training")
    _install(training, f"torch=={version('torch')}", "scipy", *names)
    pinned = ("--constraint", ROOT / "constraints.txt")
    _pip(training, "wheel", "--use-pep517", "--no-deps", "--wheel-dir", folder / "wheels", *pinned, *wanted)
    if python := find_python("3.13"):
        own = _environment(python, folder / "python3.13")
        _install(own, "scipy", *(names - NEEDS_TORCH))
        _install(own, "--no-deps", *NEEDS_TORCH)


def _environment(python: str, folder: Path) -> Path:
    subprocess.run([python, "-m", "venv", folder], check=True)
    return folder / "bin" / "python"


def _install(python: Path, *packages: str) -> None:
    _pip(python, "install", "--no-compile", "--constraint", CONSTRAINTS, *packages)


def _pip(python: Path, *arguments: str | Path) -> None:
    subprocess.run([python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], check=True)


def find_python(wanted: str) -> str | None:
    """An interpreter of this version: on PATH, or among pyenv's."""
    name = f"python{wanted}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [shutil.which(name), *map(str, sorted(pyenv.glob(f"versions/{wanted}.*/bin/{name}")))]
    return next((path for path in found if path and _answers(path, wanted)), None)


def _answers(python: str, wanted: str) -> bool:
    """pyenv puts a stand-in on PATH for each version it has, whether it would start or not."""
    done = subprocess.run([python, "--version"], capture_output=True, text=True)
    return done.stdout.startswith(f"Python {wanted}.")


def publish(folder: Path) -> Path:
    """A bare repository with the files of this working tree, on the branch that the set-up cell fetches."""
    bare = folder / "published.git"
    git = ["git", "--git-dir", str(bare), "--work-tree", str(ROOT)]
    author = ["-c", "user.name=replica", "-c", "user.email=replica@localhost"]
    subprocess.run(["git", "init", "--quiet", "--bare", str(bare)], check=True)
    subprocess.run([*git, "add", "--all"], cwd=ROOT, check=True)
    subprocess.run([*git, *author, "commit", "--quiet", "--message", "the working tree"], check=True)
    subprocess.run([*git, "branch", "--force", "--move", read_place(ROOT).revision], check=True)
    subprocess.run([*git, "repack", "--quiet", "-a", "-d"], check=True)  # else each clone would pack it anew
    return bare


@dataclass(frozen=True)
class Machine:
    """A machine as Colab gives one: its packages are there, the folder is empty."""

    replica: Path
    folder: Path
    published: Path

    @classmethod
    def start(cls, name: str, folder: Path, published: Path, used: Machine | None = None) -> Machine:
        """A fresh machine; it has besides what a cell of the machine *used* has installed there."""
        machine = cls(REPLICAS / name, folder, published)
        base = machine.replica / "bin" / "python"
        subprocess.run([base, "-m", "venv", "--without-pip", folder / "layer"], check=True)
        below = [_packages_of(python) for python in (base, *([used.python] if used else []))]
        listed = Path(_packages_of(machine.python), "replica.pth")
        listed.write_text("\n".join(below) + "\n", encoding="utf-8")
        machine.content.mkdir()
        machine.temporary.mkdir()
        return machine

    @property
    def python(self) -> Path:
        return self.folder / "layer" / "bin" / "python"

    @property
    def content(self) -> Path:
        """Where a notebook lies and runs."""
        return self.folder / "content"

    @property
    def temporary(self) -> Path:
        """Where a notebook saves what it needs for the moment; it goes with the machine."""
        return self.folder / "tmp"

    @property
    def book(self) -> Path:
        """Where the set-up cell puts the book."""
        return self.content / read_place(ROOT).name.partition("/")[2]

    def environment(self) -> dict[str, str]:
        """The repository's address leads to the bare copy, pip to the wheels, the hub nowhere.

        pip compiles nothing: most files are of packages whose data the book reads and whose code nobody imports.
        """
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "OMP_NUM_THREADS") if name in os.environ}
        return kept | {
            "HOME": str(self.folder),
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": str(HERE / "stub"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{self.published.as_uri()}.insteadOf",
            "GIT_CONFIG_VALUE_0": read_place(ROOT).repository,
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": (REPLICAS / "wheels").as_uri(),  # pip cuts the list at blanks
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_COMPILE": "1",
            "HF_ENDPOINT": "http://127.0.0.1:9",
        }

    def run(self, notebook: dict, name: str = "notebook.ipynb") -> list[dict]:
        """Run a notebook from the top; its cells as they are afterwards."""
        path = self.content / name
        path.write_text(json.dumps(notebook), encoding="utf-8")
        command = [self.python, HERE / "execute.py", path]
        done = subprocess.run(
            command, env=self.environment(), cwd=self.content, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(path.read_text(encoding="utf-8"))["cells"]

    def packages(self) -> dict[str, str]:
        """What Python finds, by its normal name."""
        command = [self.python, "-m", "pip", "list", "--format", "json"]
        done = subprocess.run(command, env=self.environment(), check=True, capture_output=True, text=True)
        return {p["name"].lower().replace("_", "-"): p["version"] for p in json.loads(done.stdout)}


def _packages_of(python: Path) -> str:
    """The folder of an interpreter's packages."""
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return subprocess.run([python, "-c", where], check=True, capture_output=True, text=True).stdout.strip()


def texts(cells: list[dict]) -> Iterator[str]:
    """What the cells printed."""
    for cell in cells:
        for output in cell.get("outputs", []):
            yield "".join(output.get("text", []))


if __name__ == "__main__":
    build(Path(sys.argv[1]))
