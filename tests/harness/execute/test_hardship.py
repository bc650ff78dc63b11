"""Everything that can go wrong in one run, side by side, and places that cannot be written."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import psutil
import pytest
from notebooks import RECORD, outputs_of, write_notebook

from harness.cli.app import main
from harness.errors import ExitCode
from harness.files import read_json

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
KEPT = f"{RECORD}\nrecord('kept', 1)\nprint('so far')"

BAD = {
    "killed": ("import os; os.kill(os.getpid(), 9)", "dead"),
    "left": ("import os; os._exit(0)", "dead"),
    "worker": ("import os; os.kill(os.getppid(), 9)", "dead"),
    "exits": ("import sys; sys.exit(0)", "exited_early"),
    "raises": ("1 / 0", "failed"),
    "fails": ("!ls /no/such/folder", "failed"),
    "asks": ("input()", "failed"),
    "hangs": ("import time; time.sleep(600)", "timed_out"),
    "deaf": ("import time\nwhile True:\n    try: time.sleep(600)\n    except KeyboardInterrupt: pass", "timed_out"),
    "floods": ("while True: print('x' * 1000)", "timed_out"),
}  # fmt: skip
"""By name: the second of three cells, and the state it leads to."""

GOOD = {
    "good-1": "import time; time.sleep(2)",
    "good-2": "for i in range(300_000): print(i)",
    "good-3": "import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True, env={})",
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # kernels import this harness, wherever another is installed


def test_whatever_happens_to_some_jobs_the_others_are_unharmed(tmp_path, capsys):
    """Under ``--jobs 2``: states, exit code, what ran, what was recorded; no process is left; it runs again."""
    bad, good = list(BAD), list(GOOD)
    names = [name for i, one in enumerate(bad) for name in (one, *good[i // 4 : i // 4 + (i % 4 == 1)])]
    assert set(names) == {*BAD, *GOOD}
    for name in names:
        source = GOOD.get(name) or BAD[name][0]
        write_notebook(tmp_path / "n" / f"{name}.ipynb", KEPT, source, "print('to the end')")
    (tmp_path / "n" / "broken.ipynb").write_text("{")
    paths = [f"n/{name}.ipynb" for name in (*names, "broken")]
    command = ["run", "--quiet", "--jobs", "2", "--cell-timeout", "8", "--out", "out"]
    assert main([*command, *paths]) == ExitCode.INFRASTRUCTURE
    told = capsys.readouterr().err
    assert told.count("error: ") == told.count("\n") == len(BAD) + 1 and "Traceback" not in told
    jobs = {Path(job["notebook"]).stem: job for job in read_json(tmp_path / "out" / "result.json")["jobs"]}
    assert list(jobs) == [*names, "broken"] and jobs.pop("broken")["state"] == "invalid"
    for name, job in jobs.items():
        good = name in GOOD
        assert job["state"] == ("completed" if good else BAD[name][1]), (name, job["reason"])
        ends = ["completed"] * 3 if good else ["completed", "failed", "pending"]
        assert [cell["state"] for cell in job["cells"]] == ends, name
        assert [metric["name"] for metric in job["metrics"]] == ["kept"], name
        texts = outputs_of(tmp_path / "out" / "jobs" / job["id"] / "out.ipynb")
        assert ("so far" in texts[0]) == (name != "worker"), name  # whose notebook went with it
        assert ("to the end" in texts[2]) == good, name
    assert not _processes_in(tmp_path)
    assert main([*command, *(f"n/{name}.ipynb" for name in GOOD)]) == ExitCode.OK


def _processes_in(folder: Path) -> list[psutil.Process]:
    """Processes whose working folder is there: kernels and all that they start."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            below = Path(process.cwd()).is_relative_to(folder / "n")
            if below and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@contextlib.contextmanager
def small_disk(folder: Path, size: str):
    """A file system of that size at *folder*."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("needs the right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


FILL = """
import os
file = os.open(os.path.join(os.path.dirname(os.getenv("HARNESS_METRICS")), "filler"), os.O_WRONLY | os.O_CREAT)
try:
    while True:
        os.write(file, bytes(4096))
except OSError as error:
    print(error)
"""


def test_a_disk_that_fills_while_a_notebook_runs(tmp_path, capsys):
    """What was recorded is there, nothing is told as completed, and with room again all is well."""
    write_notebook(tmp_path / "n" / "a.ipynb", KEPT, FILL, "print('x' * 100_000)")
    write_notebook(tmp_path / "n" / "b.ipynb", KEPT)
    command = ["run", "--quiet", "--jobs", "1", "--out", "disk/out", "n/a.ipynb", "n/b.ipynb"]
    with small_disk(tmp_path / "disk", "2m"):
        assert main(command) == ExitCode.INFRASTRUCTURE
        told = capsys.readouterr().err
        assert "the disk is full" in told and "Traceback" not in told
        job = tmp_path / "disk" / "out" / "jobs" / "a-offline"
        assert '"kept"' in (job / "metrics.jsonl").read_text()
        for path in (tmp_path / "disk").rglob("*.json"):
            assert read_json(path)["schema"] == 1
            assert read_json(path).get("state") != "completed"
        assert not _processes_in(tmp_path)
        (job / "filler").unlink()
        write_notebook(tmp_path / "n" / "a.ipynb", KEPT)
        assert main(command) == ExitCode.OK


def test_a_metric_that_a_full_disk_does_not_take_spoils_no_other(tmp_path, capsys):
    """Its cell fails and says why; no half line is left for the next metric to stick to."""
    big = "record('big', 1, per_example=[0.123456789] * 300_000)"
    caught = f"try:\n    {big}\nexcept OSError as error: print(error)\nrecord('after', 2)"
    write_notebook(tmp_path / "n" / "a.ipynb", KEPT, caught, big, "1")
    with small_disk(tmp_path / "disk", "1m"):
        assert main(["run", "--quiet", "--out", "disk/out", "n/a.ipynb"]) == ExitCode.NOTEBOOK_FAILED
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and "OSError: [Errno 28] No space left on device" in told
        (job,) = read_json(tmp_path / "disk" / "out" / "result.json")["jobs"]
        assert [metric["name"] for metric in job["metrics"]] == ["kept", "after"]
        assert [cell["state"] for cell in job["cells"]] == ["completed", "completed", "failed", "pending"]


@contextlib.contextmanager
def read_only(folder: Path):
    """*folder* can be read and not written, also not by root."""
    if os.geteuid():
        folder.chmod(0o500)
        yield
        folder.chmod(0o700)
        return
    bind = ["mount", "--bind", str(folder), str(folder)]
    if subprocess.run(bind, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_notebooks_in_a_folder_that_can_only_be_read(tmp_path, monkeypatch, capsys):
    """They run where the run has a place of its own; without one, one line says what to do."""
    book = tmp_path / "n"
    write_notebook(book / "a.ipynb", KEPT)
    write_notebook(book / "b.ipynb", KEPT, "open('here.txt', 'w')", "1")
    monkeypatch.chdir(book)
    with read_only(book):
        assert main(["run", "--quiet", "--out", str(tmp_path / "out"), "a.ipynb"]) == ExitCode.OK
        command = ["run", "--quiet", "--jobs", "2", "--out", str(tmp_path / "out"), "a.ipynb", "b.ipynb"]
        assert main(command) == ExitCode.NOTEBOOK_FAILED
        assert "'here.txt'" in capsys.readouterr().err
        jobs = read_json(tmp_path / "out" / "result.json")["jobs"]
        assert [(job["state"], len(job["metrics"])) for job in jobs] == [("completed", 1), ("failed", 1)]
        assert main(["run", "--quiet", "a.ipynb"]) == ExitCode.INFRASTRUCTURE
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and "no permission there; name another folder with --out" in told
