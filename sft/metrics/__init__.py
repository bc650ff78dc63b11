"""The book's metrics: `evaluate` modules in folders beside this file, loaded by path with no network.

`evaluate.load("accuracy")` asks the Hugging Face hub, because the `evaluate` wheel ships no metric;
`load("accuracy")` of this package reads `sft/metrics/accuracy/accuracy.py` and nothing else.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import evaluate

_FOLDER = Path(__file__).resolve().parent


def available() -> list[str]:
    """Names that `load` takes."""
    return sorted(script.stem for script in _FOLDER.glob("*/*.py") if script.stem == script.parent.name)


def load(name: str) -> evaluate.Metric:
    """One of the book's metrics, ready for `compute(predictions=…, references=…)`.

    Every call returns a new object that keeps its inputs in memory and shares no file with another process.
    `evaluate` imports a copy of the script from `HF_MODULES_CACHE`; where that folder cannot be written (a
    read-only home, a container), the copy goes to a temporary folder of this process instead.

    Raises:
        ValueError: no metric has this name.
        OSError: not even a temporary folder can be written.
    """
    import evaluate

    if name not in available():
        raise ValueError(f"no metric called {name!r} in {_FOLDER}; there are: {', '.join(available())}")
    script = str(_FOLDER / name / f"{name}.py")
    options = {
        "keep_in_memory": True,
        "cache_dir": str(_private_folder() / "data"),
        "experiment_id": f"{name}-{os.getpid()}",
    }
    try:
        return evaluate.load(script, **options)
    except OSError:
        _import_from_private_folder()
        return evaluate.load(script, **options)


@cache
def _private_folder() -> Path:
    """A temporary folder of this process, removed when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="sft-metrics-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _import_from_private_folder() -> None:
    """Let this process's `evaluate` copy its modules to a folder that can certainly be written."""
    import evaluate.config

    folder = _private_folder() / "modules"
    folder.mkdir(exist_ok=True)
    evaluate.config.HF_MODULES_CACHE = folder
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))  # before an unwritable cache that holds a package of the same name
