"""Which ends papermill, nbclient and the harness tell rightly: the corpus of tests/harness/corpus.py through all three.

Run as ``python -m benchmarks.endings [--out FILE]``; about six minutes on two cores. A tool is right about a notebook
when it says *completed* of those that completed and of no other, and names the cell that ended the others; the harness
must also give the right state (failed, exited early, dead, timed out). A cell after the end must not have run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat

from harness.archive.environment import environment

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests" / "harness"))

from corpus import AFTER, CELL_LIMIT, KINDS, Case, write  # noqa: E402

Told = tuple[str, str | None]
"""A state, and the id of the cell that ended the notebook."""

NBCLIENT = """
import sys, nbformat
from nbclient import NotebookClient
source, out, limit = sys.argv[1:]
notebook = nbformat.read(source, 4)
resources = {"metadata": {"path": source.rpartition("/")[0]}}
try:
    NotebookClient(notebook, timeout=int(limit), kernel_name="python3", resources=resources).execute()
finally:
    nbformat.write(notebook, out)
"""
"""As its users call it: its own command saves nothing of a notebook that failed."""

TIMEOUT = 120  # seconds for a tool that never comes back


def by_harness(case: Case, folder: Path) -> Told:
    out = folder / "run"
    command = ["-m", "harness", "run", "--quiet", "--cell-timeout", str(CELL_LIMIT), "--out", str(out)]
    _run([*command, str(write(case, folder))])
    job = json.loads((out / "result.json").read_text(encoding="utf-8"))["jobs"][0]
    return job["state"], next((cell["id"] for cell in job["cells"] if cell["state"] == "failed"), None)


def by_papermill(case: Case, folder: Path) -> Told:
    path, out = write(case, folder), folder / "out.ipynb"
    options = ["--no-progress-bar", "--cwd", str(folder), "--execution-timeout", str(CELL_LIMIT)]
    code = _run(["-m", "papermill", *options, str(path), str(out)])
    return _ending(code, out, path)


def by_nbclient(case: Case, folder: Path) -> Told:
    path, out = write(case, folder), folder / "out.ipynb"
    return _ending(_run(["-c", NBCLIENT, str(path), str(out), str(CELL_LIMIT)]), out, path)


def _run(arguments: list[str]) -> int:
    try:
        return subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, capture_output=True, timeout=TIMEOUT, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return -1


def _ending(code: int, out: Path, source: Path) -> Told:
    """What exit code and executed notebook say: the cell with an error, else the last that was begun."""
    if not code:
        return "completed", None
    cells = nbformat.read(out if out.exists() else source, 4).cells
    code_cells = [cell for cell in cells if cell.cell_type == "code" and cell.get("id", "").startswith("c")]
    for cell in code_cells:
        if any(output.output_type == "error" for output in cell.outputs):
            return "failed", cell["id"]
    begun = [cell["id"] for cell in code_cells if cell.execution_count]
    return "failed", begun[-1] if begun else None


TOOLS: dict[str, Callable[[Case, Path], Told]] = {
    "harness": by_harness,
    "papermill": by_papermill,
    "nbclient": by_nbclient,
}


def is_right(case: Case, tool: str, told: Told, folder: Path) -> bool:
    """Whether *tool* told the end of *case* as it was."""
    state, cell = told
    if AFTER in case.cells and (folder / "after.txt").exists():
        return False
    if case.state == "completed":
        return state == "completed"
    if tool == "harness" and state != case.state:
        return False
    return state != "completed" and cell == f"c{case.at}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "endings.json")
    options = parser.parse_args()
    wrong: dict[str, list[str]] = {tool: [] for tool in TOOLS}
    rows = ["| kind | notebooks | " + " | ".join(TOOLS) + " |", "|---|--:|" + "--:|" * len(TOOLS)]
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(2) as pool:
        for kind, cases in KINDS.items():
            counts = []
            for tool, tell in TOOLS.items():
                folders = [Path(place, tool, case.name) for case in cases]
                ends = list(pool.map(tell, cases, folders))
                bad = [
                    c.name
                    for c, end, folder in zip(cases, ends, folders, strict=True)
                    if not is_right(c, tool, end, folder)
                ]
                wrong[tool] += bad
                counts.append(len(cases) - len(bad))
                print(f"{kind}, {tool}: wrong about {', '.join(bad) or 'none'}", flush=True)
            rows.append(f"| {kind} | {len(cases)} | " + " | ".join(map(str, counts)) + " |")
    print("\n" + "\n".join(rows))
    report = {"wrong": wrong, "notebooks": sum(map(len, KINDS.values())), "machine": environment()}
    options.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return bool(wrong["harness"])


if __name__ == "__main__":
    sys.exit(main())
