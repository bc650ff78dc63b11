"""The harness against papermill and nbmake: wall time on the same notebooks, whose outputs must be the same.

Run as ``python -m benchmarks.runner [--parts heavy,cells,thousand,rerun,many] [--rounds 3] [--out FILE]``. nbmake is no
part of this project; ``pip install --no-deps nbmake`` first, or give a folder that holds it with ``PYTHONPATH``.

* ``heavy``: 12 notebooks that import torch, transformers and datasets and work one second each; nbmake and the harness
  two at a time, papermill one after another, as it has no other way.
* ``cells``: one notebook of 80 trivial cells; ``thousand``: one of 1,000, once.
* ``rerun``: a book of 100 notebooks, run again unchanged.
* ``many``: 1,000 tiny notebooks in one run: memory of the harness's own process, cost of a notebook early and late.

Rounds take turns, so that a slow minute of the machine hits all alike; ratios are those of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat
import psutil

from harness.archive.environment import environment

ROOT = Path(__file__).resolve().parents[1]
TARGETS = {  # ratio -> at most
    "heavy: harness / nbmake -n 2": 0.35,
    "heavy: harness / papermill": 0.2,
    "cells: harness / papermill": 0.5,
    "thousand: harness / papermill": 0.05,
}
HEAVY = (
    "import torch, transformers, datasets",
    "import time\nend = time.monotonic() + 1\nn = 0\nwhile time.monotonic() < end:\n    n += 1\nprint('worked')",
    "print(torch.__version__, torch.tensor([1.0, 2.0]).sum().item())",
)


def write_notebook(path: Path, *cells: str) -> Path:
    notebook = nbformat.v4.new_notebook()
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for i, source in enumerate(cells):
        cell = nbformat.v4.new_code_cell(source)
        cell["id"] = f"cell-{i}"
        notebook.cells.append(cell)
    nbformat.write(notebook, path)
    return path


def outputs(path: Path) -> list[str]:
    """What the cells printed; warnings on stderr are left out, as they depend on who imports first."""
    cells = nbformat.read(path, 4).cells
    return ["".join(o.get("text", "") for o in c.outputs if o.get("name") == "stdout") for c in cells]


def timed(command: list[str], folder: Path) -> float:
    """Wall seconds of a command that must succeed."""
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=_environment(), capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:6])} … failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return seconds


def _environment() -> dict[str, str]:
    """The threads of each library are left to it; the harness is found from everywhere; imports are compiled once."""
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    left_out = ("OMP_NUM_THREADS", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if name not in left_out} | {"PYTHONPATH": path}


def run_harness(notebooks: list[Path], out: Path) -> float:
    command = [sys.executable, "-m", "harness", "run", "--quiet", "--jobs", "2", "--out", str(out)]
    return timed([*command, *map(str, notebooks)], out.parent)


def run_papermill(notebooks: list[Path], out: Path) -> float:
    out.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "papermill", "--no-progress-bar"]
    return sum(timed([*command, str(one), str(out / one.name)], out.parent) for one in notebooks)


def run_nbmake(notebooks: list[Path], out: Path) -> float:
    """nbmake writes into its sources with ``--overwrite``: into copies here."""
    out.mkdir(exist_ok=True)
    copies = [
        write_notebook(out / one.name, *(c.source for c in nbformat.read(one, 4).cells)) for one in notebooks
    ]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--nbmake",
        "--overwrite",
        "-n",
        "2",
    ]
    return timed([*command, *map(str, copies)], out)


def compare(
    name: str, tools: Mapping[str, Callable[[list[Path], Path], float]], notebooks: list[Path], rounds: int
) -> dict[str, Any]:
    """Medians of the tools' wall times, their ratios to the harness, and a check that all put out the same."""
    seconds: dict[str, list[float]] = {tool: [] for tool in tools}
    expected = None
    for _ in range(rounds):
        for tool, run in tools.items():
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "out"
                seconds[tool].append(run(notebooks, out))
                pattern = "jobs/*/out.ipynb" if tool == "harness" else "*.ipynb"
                found = sorted(outputs(path) for path in out.glob(pattern))
                expected = expected or found
                if found != expected or len(found) != len(notebooks):
                    raise SystemExit(f"{name}: {tool} put out something else")
            print(name, tool, f"{seconds[tool][-1]:.2f} s", flush=True)
    medians = {tool: statistics.median(times) for tool, times in seconds.items()}
    ours = medians["harness"]
    ratios = {f"{name}: harness / {tool}": ours / medians[tool] for tool in tools if tool != "harness"}
    return {"seconds": seconds, "ratios": ratios}


def heavy(rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        notebooks = [write_notebook(Path(folder) / f"n{i:02}.ipynb", *HEAVY) for i in range(12)]
        tools = {"harness": run_harness, "nbmake -n 2": run_nbmake, "papermill": run_papermill}
        return compare("heavy", tools, notebooks, rounds)


def cells(name: str, count: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        notebook = write_notebook(Path(folder) / "n.ipynb", *(f"x = {i}\nprint(x)" for i in range(count)))
        return compare(name, {"harness": run_harness, "papermill": run_papermill}, [notebook], rounds)


def rerun(rounds: int) -> dict[str, Any]:
    """Wall seconds of a book's second run."""
    with tempfile.TemporaryDirectory() as folder:
        book = Path(folder)
        (book / "chapters").mkdir()
        (book / "harness.yml").write_text(
            "book: hundred\nchapters: chapters\npackages: []\n", encoding="utf-8"
        )
        for i in range(100):
            write_notebook(book / "chapters" / f"c{i:03}.ipynb", f"x = {i}\nprint(x)")
        command = [sys.executable, "-m", "harness", "run", "--quiet"]
        first = timed(command, book)
        again = [timed(command, book) for _ in range(rounds)]
        print(f"rerun: first {first:.1f} s, again {statistics.median(again):.2f} s", flush=True)
        return {"first": first, "again": again, "median": statistics.median(again)}


def many(count: int = 1000) -> dict[str, Any]:
    """Largest memory of the harness's own process over *count* notebooks; seconds a notebook, early and late."""
    with tempfile.TemporaryDirectory() as folder:
        notebooks = [write_notebook(Path(folder) / f"t{i:04}.ipynb", "x = 1\nprint(x)") for i in range(count)]
        out = Path(folder) / "out"
        command = [sys.executable, "-m", "harness", "run", "--quiet", "--jobs", "2", "--out", str(out)]
        began, largest = time.perf_counter(), 0
        with subprocess.Popen([*command, *map(str, notebooks)], env=_environment()) as process:
            own = psutil.Process(process.pid)
            while process.poll() is None:
                with_memory = own.memory_info().rss if own.is_running() else 0
                largest = max(largest, with_memory)
                time.sleep(0.2)
        if process.returncode:
            raise SystemExit(f"many: exit code {process.returncode}")
        seconds = time.perf_counter() - began
        events = [json.loads(line) for line in (out / "events.jsonl").read_text("utf-8").splitlines()]
        ends = [_seconds(event["time"]) for event in events if event["event"] == "job_end"]
        tenth = count // 10
        found = {
            "notebooks": count,
            "seconds": seconds,
            "harness_mb": largest / 2**20,
            "early": (ends[2 * tenth] - ends[tenth]) / tenth,
            "late": (ends[-1] - ends[-1 - tenth]) / tenth,
        }
        print("many", {key: round(value, 3) for key, value in found.items()}, flush=True)
        return found


def _seconds(iso: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(iso).timestamp()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default="heavy,cells,thousand,rerun,many")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "runner.json")
    arguments = parser.parse_args()
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "heavy": lambda: heavy(arguments.rounds),
        "cells": lambda: cells("cells", 80, arguments.rounds),
        "thousand": lambda: cells("thousand", 1000, 1),
        "rerun": lambda: rerun(arguments.rounds),
        "many": many,
    }
    found = json.loads(arguments.out.read_text("utf-8")) if arguments.out.is_file() else {}
    for part in arguments.parts.split(","):
        found[part] = parts[part]()
    found["machine"] = environment()
    arguments.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print("| ratio | measured | target |\n|---|--:|--:|")
    for part in found.values():
        for name, ratio in part.get("ratios", {}).items():
            print(f"| {name} | {ratio:.3f} | {TARGETS[name]} |")


if __name__ == "__main__":
    main()
