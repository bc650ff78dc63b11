"""The harness tells every end of the corpus rightly, and shows, records and writes what a bare fresh kernel does."""

from __future__ import annotations

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import pytest
from corpus import CASES, CELL_LIMIT, Case, write
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from harness.cli import main
from harness.model import Job, Limits
from harness.store import read_json
from harness.streams import last_on_line
from harness.variables import common_environment

pytestmark = pytest.mark.timeout(600)

COMPLETED = [case for case in CASES if case.state == "completed"]
NAMES = {"argvalues": CASES, "ids": lambda case: case.name}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """All of the corpus in one run of the harness: job, executed notebook and folder by the case's name."""
    place = tmp_path_factory.mktemp("told")
    notebooks = [write(case, place / case.name) for case in CASES]
    out = place / "run"
    flags = ["--quiet", "--jobs", "2", "--cell-timeout", str(CELL_LIMIT), "--out", str(out)]
    main(["run", *flags, *map(str, notebooks)])
    jobs = read_json(out / "result.json")["jobs"]
    return {
        Path(job["notebook"]).stem: (job, nbformat.read(out / "jobs" / job["id"] / "out.ipynb", 4), place)
        for job in jobs
    }


class _Interpreter(KernelSpecManager):
    """The kernel is the interpreter of the tests."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The same in kernels that nobody but nbclient touches: notebook and folder by the case's name."""
    place = tmp_path_factory.mktemp("bare")
    job = Job("job", Path("any.ipynb"), None, "offline", None, {}, Limits(), network=True)
    environment = common_environment(job)

    def run(case: Case) -> Any:
        path = write(case, place / case.name)
        notebook = nbformat.read(path, 4)
        manager = AsyncKernelManager(kernel_spec_manager=_Interpreter())
        client = NotebookClient(
            notebook, km=manager, timeout=CELL_LIMIT, resources={"metadata": {"path": str(path.parent)}},
            shutdown_kernel="graceful",
        )  # fmt: skip
        client.owns_km = True  # it ends the kernel, too
        try:
            client.execute(env=environment)
        except (CellExecutionError, CellTimeoutError, DeadKernelError):
            assert case.state != "completed"
        return notebook

    with ThreadPoolExecutor(2) as pool:
        return {case.name: (nb, place) for case, nb in zip(COMPLETED, pool.map(run, COMPLETED), strict=True)}


def shown(cell: Any, place: Path) -> list[Any]:
    """What a cell shows, whoever merged its streams: text by stream, then data and errors in their order."""
    streams: dict[str, str] = {}
    others: list[Any] = []
    for output in cell.get("outputs", ()):
        if output.output_type == "stream":
            text = re.sub(r"(hk-\w{8}/tmp/)?ipykernel_\d+", "ipykernel", output.text.replace(str(place), ""))
            streams[output.name] = streams.get(output.name, "") + text
        elif output.output_type == "error":
            others.append((output.ename, output.evalue))
        else:
            others.append((sorted(output.data), output.data.get("text/plain")))
    return [*sorted((name, last_on_line(text).rstrip("\r")) for name, text in streams.items()), *others]


def files_in(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found if path.suffix != ".ipynb"}


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_corpus_is_large_and_its_names_are_its_own():
    assert len(CASES) >= 60 and len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", **NAMES)
def test_its_end_is_told_rightly(case, told):
    job, notebook, place = told[case.name]
    assert (job["state"], case.says in job["reason"]) == (case.state, True), job["reason"]
    ended = [cell["id"] for cell in job["cells"] if cell["state"] == "failed"]
    expected = [] if case.at is None or case.state == "completed" else [f"c{case.at}"]
    assert ended == expected
    assert not (place / case.name / "after.txt").exists(), "a cell ran after the one that ended the notebook"
    text = "".join(str(shown(cell, place)) for cell in code(notebook))
    assert case.shows in text
    for name, content in case.writes.items():
        assert (place / case.name / name).read_text(encoding="utf-8") == content
    assert {metric["name"]: metric["value"] for metric in job["metrics"]} == case.metrics


@pytest.mark.parametrize("case", COMPLETED, ids=lambda case: case.name)
def test_it_is_as_in_a_bare_kernel(case, told, bare):
    _, notebook, place = told[case.name]
    other, elsewhere = bare[case.name]
    assert files_in(place / case.name) == files_in(elsewhere / case.name)
    if not case.varies:
        for cell, twin in zip(code(notebook), code(other), strict=True):
            assert shown(cell, place) == shown(twin, elsewhere)
