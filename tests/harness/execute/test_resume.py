"""``run --resume`` goes on where a run stopped; ``run --why`` says what would run and why."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from notebooks import RECORD, write_book, write_notebook

from harness.archive.folder import claimed, find_run
from harness.book.plan import Request
from harness.cli.app import main
from harness.errors import HarnessError
from harness.execute import cache
from harness.execute.resume import Asked, asked_from_json
from harness.files import read_json
from harness.model import to_json

COUNT = "from pathlib import Path\nwith Path('{name}.count').open('a') as f:\n    f.write('x')"
STOPS = "from pathlib import Path\nassert Path('mended').exists(), 'not mended'"


def make_book(root):
    write_book(
        root,
        {
            "01-a": [COUNT.format(name="a"), f"{RECORD}\nrecord('acc', 0.5)"],
            "02-b": [COUNT.format(name="b"), STOPS],
            "03-c": [COUNT.format(name="c"), "import lib"],
        },
    )
    (root / "lib").mkdir()
    (root / "lib" / "__init__.py").write_text("VALUE = 1\n")
    write_notebook(
        root / "chapters" / "03-c.ipynb",
        COUNT.format(name="c"),
        "import sys; sys.path.insert(0, '..'); import lib",
    )


@pytest.fixture
def book(tmp_path, monkeypatch):
    make_book(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def run_once(tmp_path_factory):
    """A book with one run, for those who start none; nobody changes it."""
    root = tmp_path_factory.mktemp("run")
    make_book(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main(["run", "--quiet"]) == 2
    return root


def counts(book):
    return {p.stem: len(p.read_text()) for p in (book / "chapters").glob("*.count")}


def states(book):
    return [job["state"] for job in read_json(find_run(book) / "result.json")["jobs"]]


def test_what_completed_stands_and_the_rest_runs(book):
    assert main(["run", "--quiet", "--no-cache"]) == 2
    assert states(book) == ["completed", "failed", "completed"]
    before = find_run(book)
    (book / "chapters" / "mended").touch()
    assert main(["run", "--quiet", "--resume", "--no-cache"]) == 0
    assert find_run(book) == before  # the same run
    assert states(book) == ["completed"] * 3
    assert counts(book) == {"a": 1, "b": 2, "c": 1}
    manifest = read_json(before / "manifest.json")
    assert [entry["kept"] for entry in manifest["resumed"]] == [2]
    document = read_json(before / "result.json")
    assert [m["value"] for job in document["jobs"] for m in job["metrics"]] == [0.5]


def test_what_changed_since_runs_again(book):
    main(["run", "--quiet", "--no-cache"])
    (book / "chapters" / "mended").touch()
    (book / "lib" / "__init__.py").write_text("VALUE = 2\n")
    write_notebook(book / "chapters" / "01-a.ipynb", COUNT.format(name="a"), "1")
    assert main(["run", "--quiet", "--resume", "--no-cache"]) == 0
    assert counts(book) == {"a": 2, "b": 2, "c": 2}


def test_seeds_parameters_and_limits_are_those_of_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_notebook(
        tmp_path / "n.ipynb",
        "from pathlib import Path\nPath(f'{seed}-{rate}').touch()\nassert seed != 1 or Path('mended').exists()",
        parameters="seed: int = 0\nrate: float = 0.1",
    )
    assert main(["run", "n.ipynb", "--out", "out", "--quiet", "--seeds", "3", "--param", "rate=0.5"]) == 2
    (tmp_path / "mended").touch()
    for name in ("0-0.5", "1-0.5", "2-0.5"):
        (tmp_path / name).unlink()
    assert main(["run", "--resume", "--out", "out", "--quiet"]) == 0
    assert not (tmp_path / "0-0.5").exists() and (tmp_path / "1-0.5").exists()
    assert [job["seed"] for job in read_json(tmp_path / "out" / "result.json")["jobs"]] == [0, 1, 2]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_harness_that_was_stopped_goes_on(book, number):
    (book / "chapters" / "mended").touch()
    hang = "import time\nfrom pathlib import Path\nif not Path('go').exists():\n    time.sleep(600)"
    write_notebook(book / "chapters" / "02-b.ipynb", COUNT.format(name="b"), hang)
    command = [sys.executable, "-m", "harness", "run", "--quiet", "--no-cache", "--jobs", "1"]
    with subprocess.Popen(command) as harness:
        _wait_until(lambda: counts(book).get("b"))
        harness.send_signal(number)
    (book / "chapters" / "go").touch()
    first = counts(book)  # an unknown order: what never ran comes first
    again = [*command[:4], "--quiet", "--no-cache", "--resume"]
    assert subprocess.run(again, check=False).returncode == 0
    assert states(book) == ["completed"] * 3
    assert counts(book) == {name: max(first.get(name, 0), 1) + (name == "b") for name in "abc"}


def _wait_until(true):
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)


@pytest.mark.parametrize(
    "more", [["--profile", "smoke"], ["--seeds", "2"], ["n.ipynb"], ["--chapters", "01"], ["--device", "cpu"],
             ["--param", "a=1"], ["--cell-timeout", "5"], ["--shard", "1/2"], ["--env", "A"]]
)  # fmt: skip
def test_nothing_else_can_be_asked_for(run_once, monkeypatch, capfd, more):
    monkeypatch.chdir(run_once)
    assert main(["run", "--resume", *more]) == 3
    assert (
        capfd.readouterr().err.splitlines()[-1].startswith("error: --resume goes on with what that run was")
    )


def test_a_book_that_has_other_chapters_now_needs_a_new_run(book, capfd):
    main(["run", "--quiet"])
    (book / "chapters" / "03-c.ipynb").unlink()
    assert main(["run", "--resume"]) == 3
    assert "start a new run" in capfd.readouterr().err


@pytest.mark.parametrize("text", ["{}", '{"notebooks": 1}', "[]", "null"])
def test_a_manifest_that_does_not_say_is_told(run_once, tmp_path, monkeypatch, capfd, text):
    book = shutil.copytree(run_once, tmp_path / "book", symlinks=True)
    monkeypatch.chdir(book)
    path = find_run(book) / "manifest.json"
    assert path.is_relative_to(book)
    path.write_text(json.dumps({**json.loads(path.read_text()), "asked": json.loads(text)}))
    assert main(["run", "--resume"]) == 3
    assert "does not say what was asked for" in capfd.readouterr().err


def test_no_run_to_go_on_with(book, capfd):
    assert main(["run", "--resume"]) == 3
    assert "no run yet" in capfd.readouterr().err


def test_what_was_asked_survives_json():
    asked = Asked(
        (Path("/a b/n.ipynb"),), None, Request("smoke", (0, 3), "cpu", {"a": "1"}, 5.0, None), ("A",), (1, 2)
    )
    assert asked_from_json(json.loads(json.dumps(to_json(asked)))) == asked


def test_two_harnesses_do_not_share_a_run_folder(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    write_notebook(tmp_path / "n.ipynb", "1")
    (tmp_path / "out").mkdir()
    busy = pytest.raises(HarnessError, match="another harness is at work")
    with claimed(tmp_path / "out"), busy, claimed(tmp_path / "out"):
        pass
    with claimed(tmp_path / "out"):
        assert main(["run", "n.ipynb", "--out", "out"]) == 3
    assert "another harness is at work" in capfd.readouterr().err
    assert main(["run", "n.ipynb", "--out", "out", "--quiet"]) == 0


# --- why -----------------------------------------------------------------------------------------------


def why(capfd, *more):
    capfd.readouterr()
    code = main(["run", "--why", *more])
    return code, capfd.readouterr().out.splitlines()


def test_why_runs_nothing_and_names_what_changed(book, capfd):
    (book / "chapters" / "mended").touch()
    code, lines = why(capfd)
    assert code == 0 and len(lines) == 3 and all("no finished run of it is kept" in line for line in lines)
    assert counts(book) == {}
    main(["run", "--quiet"])
    assert all(line.startswith("skip") and "unchanged since run" in line for line in why(capfd)[1])
    (book / "lib" / "__init__.py").write_text("VALUE = 2\n")
    path = book / "chapters" / "01-a.ipynb"
    write_notebook(path, COUNT.format(name="a"), "2")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell("text", id="t"))
    notebook.cells[2]["id"] = "b2"
    nbformat.write(notebook, path)
    a, b, c = why(capfd)[1]
    assert a.startswith("run") and a.endswith("; cell 3 (id b2) changed")  # as verdicts count
    assert b.startswith("skip")
    assert c.startswith("run") and "lib/__init__.py changed" in c
    write_notebook(book / "chapters" / "01-a.ipynb", COUNT.format(name="a"))
    assert "number of code cells: 2 → 1" in why(capfd)[1][0]
    assert counts(book) == {"a": 1, "b": 1, "c": 1}


def test_why_names_parameters_variables_and_packages(book, capfd, monkeypatch):
    write_notebook(book / "chapters" / "01-a.ipynb", "1", parameters="rate: float = 0.1\nsize: int = 1")
    main(["run", "--quiet", "--chapters", "01"])
    assert (
        "parameter rate: as in the notebook → 0.5"
        in why(capfd, "--chapters", "01", "--param", "rate=0.5")[1][0]
    )
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    line = why(capfd, "--chapters", "01")[1][0]
    assert "variable HF_ENDPOINT: not set → https://mirror.example" in line
    monkeypatch.delenv("HF_ENDPOINT")
    installed = cache.distributions()
    monkeypatch.setattr(cache, "distributions", lambda: (*installed[1:], "new_package-1.0"))
    line = why(capfd, "--chapters", "01")[1][0]
    assert "new_package 1.0 was installed" in line and "was removed" in line


def test_why_of_what_cannot_run_or_always_runs(book, capfd):
    write_notebook(book / "chapters" / "01-a.ipynb", "1", parameters="a: int = f()")
    code, lines = why(capfd, "--chapters", "01")
    assert code == 3 and "it cannot run" in lines[0]
    write_notebook(book / "other.ipynb", "1")
    assert "always runs" in why(capfd, "other.ipynb")[1][0]


def test_a_file_that_changes_while_a_chapter_runs_keeps_it_out_of_the_cache(book, capfd):
    change = "import sys; sys.path.insert(0, '..'); import lib, time\nfrom pathlib import Path\n" \
             "Path('../lib/__init__.py').write_text('VALUE = 3\\n')"  # fmt: skip
    write_notebook(book / "chapters" / "03-c.ipynb", change)
    assert main(["run", "--chapters", "03"]) == 0
    assert "changed while it ran" in capfd.readouterr().out
    assert why(capfd, "--chapters", "03")[1][0].startswith("run")
    assert os.environ.get("HARNESS_JOB") is None
