"""The command line: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from notebooks import RECORD, write_book, write_notebook

from harness.archive.folder import find_run
from harness.book.claims import load_claims
from harness.cli.app import GENERATED, command_tree, main
from harness.errors import ExitCode
from harness.files import read_json, write_json

ROOT = Path(__file__).parents[3]

CLAIMS = {
    "chapter": "01-a",
    "claims": [
        {
            "name": "acc",
            "title": "准确率",
            "unit": "fraction",
            "direction": "higher",
            "margin": 0.01,
            "smoke": {"bounds": {"low": 0.4, "high": 0.6}},
            "offline": {"bounds": {"low": 0.4, "high": 0.6}},
        }
    ],
}


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book with one chapter that measures what its parameter says, and the claim that it is about 0.5."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    root = tmp_path / "我的 书"
    source = f"{RECORD}\nrecord('acc', accuracy, unit='fraction')"
    write_notebook(root / "chapters" / "01-a.ipynb", source, parameters="accuracy = 0.5\nseed = 0")
    write_book(root, {})
    (root / "chapters" / "claims").mkdir()
    (root / "chapters" / "claims" / "01-a.yml").write_text(
        json.dumps(CLAIMS, ensure_ascii=False), encoding="utf-8"
    )
    monkeypatch.chdir(root)
    return root


def one_error(capsys) -> str:
    """The error line; there must be exactly one and no traceback."""
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("error: ") and "Traceback" not in err, err
    return err


@pytest.mark.quick
def test_a_run_is_judged_and_reported(book, capsys):
    assert main(["run"]) == ExitCode.OK
    out = capsys.readouterr().out
    run_dir = find_run(book)
    assert "01-a" in out and "wall time" in out and str(run_dir) in out
    document = read_json(run_dir / "result.json")
    assert document["exit_code"] == 0 and document["profile"] == "offline"
    (job,) = document["jobs"]
    assert job["notebook"] == "chapters/01-a.ipynb" and job["state"] == "completed"
    assert job["metrics"][0]["value"] == 0.5
    assert [v["outcome"] for v in document["verdicts"]] == ["pass"]
    for name in ("junit.xml", "report.md", "report.en.md", "events.jsonl", "manifest.json"):
        assert (run_dir / name).stat().st_size > 0

    assert main(["run"]) == ExitCode.OK
    again = read_json(find_run(book) / "result.json")
    assert again["jobs"][0]["state"] == "skipped" and again["verdicts"][0]["outcome"] == "pass"


@pytest.mark.quick
def test_a_claim_that_does_not_hold(book, capsys):
    assert main(["run", "--profile", "smoke", "--param", "accuracy=0.9"]) == ExitCode.CLAIM_FAILED
    claims = CLAIMS["claims"][0] | {"smoke": {"bounds": {"low": 0.8}}}
    text = json.dumps({**CLAIMS, "claims": [claims]}, ensure_ascii=False)
    (book / "chapters" / "claims" / "01-a.yml").write_text(text, encoding="utf-8")
    assert main(["check"]) == ExitCode.OK
    assert read_json(find_run(book) / "result.json")["exit_code"] == 0
    (find_run(book) / "report.md").unlink()
    assert main(["report", find_run(book).name[:15]]) == ExitCode.OK
    assert (find_run(book) / "report.md").is_file()


def test_seeds_become_jobs(book, capsys):
    assert main(["run", "--seeds", "0,4", "--quiet"]) == ExitCode.OK
    assert capsys.readouterr().out == ""
    document = read_json(find_run(book) / "result.json")
    assert [(j["id"], j["seed"]) for j in document["jobs"]] == [
        ("01-a-offline-seed0", 0),
        ("01-a-offline-seed4", 4),
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--profile", "gpu"], "unknown profile 'gpu'; profiles: smoke, offline"),
        (["run", "--chapters", "7"], "no chapter begins with '7'; chapters: 01-a"),
        (["run", "--chapters", ","], "--chapters is empty"),
        (["run", "--param", "accuracy"], "not of the form NAME=VALUE"),
        (["run", "--param", "accuracy=1", "--param", "accuracy=2"], "given twice"),
        (["run", "--seeds", "x"], "--seeds 'x'"),
        (["run", "--seeds", "1,", "--param", "seed=1"], "contradict"),
        (["run", "--device", "tpu"], "unknown device 'tpu'"),
        (["run", "--cell-timeout", "0"], "--cell-timeout must be"),
        (["run", "--cell-timeout", "soon"], "--cell-timeout"),
        (["run", "--no-such-flag"], "no-such-flag"),
        (["run", "chapters/01-a.ipynb", "--chapters", "01"], "not both"),
        (["fly"], "fly"),
        (["check", "nothing"], "no run 'nothing'"),
        (["report"], "no run yet"),
        (["bless"], "no run yet"),
        (["book"], "no run yet"),
        (["check", ""], "the run's name is empty"),
        (["run", "--seeds", "1001"], "at most 1000 seeds"),
        (["run", "--out", ""], "--out is empty"),
    ],
)
def test_mistakes_on_the_command_line(book, capsys, arguments, words):
    assert main(arguments) == ExitCode.USAGE
    assert words in one_error(capsys)
    assert not (book / "_build").exists()


def damaged(path: Path, text: str):
    """*path* with other content, for one ``with``."""

    @contextlib.contextmanager
    def change():
        before = path.read_text(encoding="utf-8")
        path.write_text(text, encoding="utf-8")
        yield
        path.write_text(before, encoding="utf-8")

    return change()


def test_a_run_that_was_killed_is_not_whole(book, capsys):
    """Two of three planned jobs left nothing: `check` says so, `bless` refuses."""
    assert main(["run", "--seeds", "0,1", "--quiet"]) == ExitCode.OK
    run_dir = find_run(book)
    manifest = read_json(run_dir / "manifest.json")
    manifest["jobs"].append("01-a-offline-seed2")
    write_json(run_dir / "manifest.json", manifest)
    shutil.rmtree(run_dir / "jobs" / "01-a-offline-seed1")
    assert main(["check"]) == ExitCode.INFRASTRUCTURE
    captured = capsys.readouterr()
    assert "unfinished: 2 of 3 planned jobs have no result (01-a-offline-seed1, 01-a-offline-seed2)" in (
        captured.err
    )
    document = read_json(run_dir / "result.json")
    assert [(j["state"], j["seed"], j["chapter"]) for j in document["jobs"]] == [
        ("completed", 0, "01-a"),
        ("cancelled", 1, "01-a"),
        ("cancelled", 2, "01-a"),
    ]
    assert document["exit_code"] == 4
    assert main(["bless"]) == ExitCode.USAGE
    assert "01-a-offline-seed1" in (err := one_error(capsys)) and "it has no result" in err


def test_a_damaged_run_folder_is_told_with_its_file(book, capsys):
    assert main(["run", "--quiet"]) == ExitCode.OK
    run_dir = find_run(book)
    job = run_dir / "jobs" / "01-a-offline-seed0" / "result.json"
    cases = [
        *[(run_dir / "manifest.json", text, ("check", "report", "bless")) for text in ("{}", "[]", "3")],
        *[(run_dir / "result.json", text, ("check", "report")) for text in ("[]", "{}")],
        *[(job, text, ("check", "report", "bless")) for text in ("{}", "[]", '{"state": "zzz"}', "{")],
    ]
    for path, text, commands in cases:
        with damaged(path, text):
            for command in commands:
                assert main([command]) == ExitCode.USAGE, (command, path, text)
                assert str(path) in one_error(capsys)
    assert main(["check"]) == ExitCode.OK


def test_a_run_without_its_reports_is_not_reported_but_checked(book, capsys):
    assert main(["run", "--quiet"]) == ExitCode.OK
    (find_run(book) / "result.json").unlink()
    assert main(["report"]) == ExitCode.USAGE
    assert "did not finish (no result.json); `harness check` judges" in one_error(capsys)
    assert main(["check"]) == main(["report"]) == ExitCode.OK


def test_a_folder_in_the_place_of_the_link_to_the_latest_run(book, capsys):
    (book / "_build" / "runs" / "latest").mkdir(parents=True)
    assert main(["run"]) == ExitCode.USAGE
    assert "latest is a folder" in one_error(capsys)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("acuracy=1", "has no parameter 'acuracy'; its parameters: accuracy, seed"),
        ("accuracy=high", "parameter accuracy must be float, not str ('high')"),
        ("seed=1.5", "parameter seed must be int, not float (1.5)"),
    ],
)
def test_parameters_the_notebook_does_not_take(book, capsys, option, words):
    assert main(["run", "--quiet", "--param", option]) == ExitCode.USAGE
    assert words in one_error(capsys)
    assert not (book / "_build").exists()


def test_a_typo_leaves_the_latest_run_the_latest(book, capsys):
    assert main(["run", "--quiet"]) == ExitCode.OK
    good = find_run(book)
    assert main(["run", "--param", "sed=1", "--seeds", "3"]) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "no parameter 'sed'" in captured.err and captured.out == ""
    assert find_run(book) == good and [p.name for p in good.parent.glob("2*")] == [good.name]


def test_a_run_that_is_stopped_before_it_began_leaves_nothing(book, monkeypatch, capsys):
    assert main(["run", "--quiet"]) == ExitCode.OK
    good = find_run(book)

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.execute.run.make_manifest", interrupt)
    assert main(["run", "--quiet"]) == ExitCode.INFRASTRUCTURE
    assert one_error(capsys) == "error: interrupted\n"
    assert [p.name for p in good.parent.glob("2*")] == [good.name]
    assert main(["check"]) == ExitCode.OK
    assert str(good) in capsys.readouterr().out


def test_quiet_still_tells_what_failed(book, capsys):
    write_notebook(book / "chapters" / "02-b.ipynb", "raise RuntimeError('broken')")
    assert main(["run", "--quiet", "--param", "accuracy=0.9", "--chapters", "01"]) == ExitCode.CLAIM_FAILED
    assert "acc: fail: 0.9" in one_error(capsys)
    assert main(["run", "--quiet", "--chapters", "02"]) == ExitCode.NOTEBOOK_FAILED
    assert "02-b-offline: failed: " in (err := one_error(capsys)) and "broken" in err


def test_quiet_tells_why_a_notebook_could_not_run(tmp_path, monkeypatch, capsys):
    """Known only once it was tried, unlike a problem of the plan, which is told once, before."""
    monkeypatch.chdir(tmp_path)
    write_notebook(tmp_path / "a.ipynb", "1", kernel="julia-0.1")
    write_notebook(tmp_path / "b.ipynb", "1")
    assert main(["run", "--quiet", "--out", "out", "a.ipynb"]) == ExitCode.USAGE
    assert (
        "a-offline: invalid: " in (err := one_error(capsys)) and "'julia-0.1', which is not installed" in err
    )
    assert main(["run", "--quiet", "--out", "out", "b.ipynb", "missing.ipynb"]) == ExitCode.USAGE
    assert "notebook not found" in one_error(capsys)


def test_without_a_command_the_help_is_shown(capsys):
    assert main([]) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert "\n  run " in captured.out and captured.err == ""


def test_what_nobody_foresaw_is_one_line_and_a_file(book, monkeypatch, capsys, tmp_path):
    import tempfile

    def fall(*arguments):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def refuse(*arguments):
        raise PermissionError(13, "Permission denied", "/book/chapters")

    monkeypatch.setattr("harness.cli.book.load_book", refuse)
    assert main(["list"]) == ExitCode.INFRASTRUCTURE
    assert "cannot read or write /book/chapters: no permission there; change its permissions" in one_error(
        capsys
    )
    monkeypatch.setattr("harness.cli.book.load_book", fall)
    assert main(["list"]) == ExitCode.INFRASTRUCTURE
    assert "internal error: RuntimeError: two lines; the traceback is in" in one_error(capsys)
    (file,) = tmp_path.glob("harness-traceback-*.txt")
    assert 'raise RuntimeError("two\\nlines")' in file.read_text(encoding="utf-8")


def test_a_reader_that_leaves_does_not_end_the_run(book):
    process = subprocess.Popen([sys.executable, "-m", "harness", "run"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    process.stdout.close()
    with process.stderr as err:
        assert (err.read(), process.wait(timeout=60)) == ("", ExitCode.OK)
    assert read_json(find_run(book) / "result.json")["exit_code"] == 0


@pytest.mark.parametrize("redirection", [">/dev/full", "2>/dev/full", ">&-", "2>&-"])
def test_an_output_that_cannot_be_written_does_not_end_the_run(book, redirection):
    """Its log is on a full disk, or nobody opened one: the run is whole, and the code says what was lost."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    command = f"{shlex.quote(sys.executable)} -m harness run {redirection}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    lost = redirection == ">/dev/full"
    assert done.returncode == (ExitCode.INFRASTRUCTURE if lost else ExitCode.OK)
    assert (
        done.stderr.count("\n") == lost
        and ("cannot write to stdout: the disk is full" in done.stderr) == lost
    )
    assert read_json(find_run(book) / "result.json")["exit_code"] == 0
    done = subprocess.run(f"{shlex.quote(sys.executable)} -m harness nonsense {redirection}", shell=True)
    assert done.returncode == ExitCode.USAGE


SLOW_IMPORT = """\
import runpy, sys, time

class Hook:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            print("ready", flush=True)
            time.sleep(60)

sys.meta_path.insert(0, Hook())
sys.modules.pop(sys.argv[1], None)
sys.argv = ["harness", "list"]
runpy.run_module("harness", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("module", "number"),
    [
        ("dataclasses", signal.SIGINT),  # the command line itself is still being imported
        ("harness.book.parameters", signal.SIGINT),  # a command that runs no job is at work
        ("harness.book.parameters", signal.SIGTERM),
    ],
)
def test_an_interrupt_outside_a_job(book, module, number):
    code = SLOW_IMPORT.replace("sys.argv[1]", repr(module))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (err, process.returncode) == ("error: interrupted\n", ExitCode.INFRASTRUCTURE)


def test_an_interrupt_inside_exec_does_not_change_the_exit_code(book):
    """CPython notes such an interrupt for good, even where it is caught, and would end by SIGINT."""
    code = """
import runpy, sys
from harness.cli import app as cli

def main():
    try:
        exec("raise KeyboardInterrupt")
    except KeyboardInterrupt:
        print("caught")
        return 4

cli.main = main
runpy.run_module("harness", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("caught\n", "", 4)


def test_an_interrupt_while_the_reports_are_written(book, monkeypatch, capsys):
    """Nothing is left to stop: the reports are whole and say how the command ended; the site is not begun."""
    import harness.report.write
    import harness.site.build

    write = harness.report.write.write_reports

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        write(*arguments)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(harness.report.write, "write_reports", interrupted)
    assert main(["run", "--quiet"]) == ExitCode.OK
    run_dir = find_run(book)
    assert read_json(run_dir / "result.json")["exit_code"] == 0 and (run_dir / "report.en.md").is_file()
    monkeypatch.setattr(harness.site.build, "check_site", lambda book: None)
    monkeypatch.setattr(harness.site.build, "build", lambda *a: pytest.fail("the site was built"))
    assert main(["run", "--quiet", "--book"]) == ExitCode.INFRASTRUCTURE
    assert one_error(capsys) == "error: interrupted\n"


def test_a_broken_claim_file_is_told_before_anything_runs(book, capsys):
    (book / "chapters" / "claims" / "01-a.yml").write_text("claims: [")
    assert main(["run"]) == ExitCode.USAGE
    assert "01-a.yml" in one_error(capsys)
    assert not (book / "_build").exists()


def test_no_book_and_no_notebook(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for arguments in (["run"], ["list"], ["check"], ["bless"], ["book"], ["lint"]):
        assert main(arguments) == ExitCode.USAGE
        assert "no harness.yml" in one_error(capsys)


def test_any_notebooks_without_a_book(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    good = write_notebook(tmp_path / "好 {a}.ipynb", f"{RECORD}\nrecord('x', k)", parameters="k = 1")
    bad = write_notebook(tmp_path / "bad.ipynb", "1 / 0", parameters="k = 1")
    (tmp_path / "broken.ipynb").write_text("{")
    names = [str(good), "bad.ipynb", "broken.ipynb", "missing.ipynb"]
    code = main(["run", "--out", "出 口", "--param", "k=3", *names])
    captured = capsys.readouterr()
    assert code == ExitCode.USAGE and captured.err.count("error: ") == 2
    jobs = read_json(tmp_path / "出 口" / "result.json")["jobs"]
    assert [j["state"] for j in jobs] == ["completed", "failed", "invalid", "invalid"]
    assert [Path(j["notebook"]).name for j in jobs] == [
        "好 {a}.ipynb",
        "bad.ipynb",
        "broken.ipynb",
        "missing.ipynb",
    ]
    assert jobs[0]["metrics"][0]["value"] == 3.0
    assert jobs[0]["cells"][1]["state"] == "completed" and bad.exists()

    assert main(["run", "--out", "出 口", "bad.ipynb", "--quiet"]) == ExitCode.NOTEBOOK_FAILED
    assert len(read_json(tmp_path / "出 口" / "result.json")["jobs"]) == 1


WAIT = "import time\nwhile not open('go').read():\n    time.sleep(0.1)"


@pytest.fixture
def at_work(tmp_path, monkeypatch):
    """A run into ``out`` as a process of its own, in a cell that ends once ``go`` says something."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "go").write_text("")
    write_notebook(tmp_path / "a.ipynb", f"{RECORD}\nrecord('x', 1)", WAIT, "record('y', 2)")
    command = [sys.executable, "-m", "harness", "run", "--quiet", "--out", "out", "a.ipynb"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    _wait_for_cell(tmp_path / "out" / "events.jsonl", process)
    yield process
    process.kill()
    process.communicate()


def _wait_for_cell(events, process):
    deadline = time.monotonic() + 60
    while not (events.exists() and events.read_text().count('"cell_start"') >= 2):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)


def test_two_runs_into_one_folder(at_work, tmp_path, capsys):
    """The second is refused and takes nothing from the first."""
    write_notebook(tmp_path / "b.ipynb", "1")
    assert main(["run", "--quiet", "--out", "out", "b.ipynb"]) == ExitCode.USAGE
    assert f"another harness is at work in {tmp_path / 'out'}; wait for it, or name" in one_error(capsys)
    (tmp_path / "go").write_text("go")
    _, err = at_work.communicate(timeout=60)
    assert (err, at_work.returncode) == ("", ExitCode.OK)
    (job,) = read_json(tmp_path / "out" / "result.json")["jobs"]
    assert [m["name"] for m in job["metrics"]] == ["x", "y"]
    assert main(["run", "--quiet", "--out", "out", "b.ipynb"]) == ExitCode.OK


def test_a_run_into_the_folder_of_one_that_was_just_killed(at_work, tmp_path):
    """Its worker is still saving there; nothing of it gets into the new run."""
    at_work.kill()
    at_work.wait()
    write_notebook(tmp_path / "a.ipynb", f"{RECORD}\nrecord('x', 3)")
    assert main(["run", "--quiet", "--out", "out", "a.ipynb"]) == ExitCode.OK
    assert not _processes_below(tmp_path)
    (job,) = read_json(tmp_path / "out" / "result.json")["jobs"]
    assert [(m["name"], m["value"]) for m in job["metrics"]] == [("x", 3.0)]
    assert len(read_json(tmp_path / "out" / "jobs" / "a-offline" / "out.ipynb")["cells"]) == 1


def test_two_runs_of_one_book(book):
    """Each has its own folder; both are whole, and both keep what they did in the cache they share."""
    write_notebook(book / "chapters" / "02-b.ipynb", f"{RECORD}\nimport time; time.sleep(1); record('b', 1)")
    command = [sys.executable, "-m", "harness", "run", "--quiet", "--jobs", "2"]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [(run.communicate(timeout=120)[1], run.returncode) for run in runs]
    assert ends == [("", ExitCode.OK)] * 2
    folders = list((book / "_build" / "runs").glob("2*"))
    assert len(folders) == 2 and find_run(book) in folders
    for folder in folders:
        document = read_json(folder / "result.json")
        assert {j["state"] for j in document["jobs"]} <= {"completed", "skipped"}
        assert [len(j["metrics"]) for j in document["jobs"]] == [1, 1]
    assert main(["run", "--quiet"]) == ExitCode.OK
    assert {j["state"] for j in read_json(find_run(book) / "result.json")["jobs"]} == {"skipped"}


def test_an_output_folder_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_notebook(tmp_path / "a.ipynb", "1")
    (tmp_path / "file").write_text("")
    assert main(["run", "--out", "file/run", "a.ipynb"]) == ExitCode.INFRASTRUCTURE
    assert "cannot create" in (err := one_error(capsys)) and "file is a file; name another folder" in err
    assert main(["run", "--out", "x" * 300, "a.ipynb"]) == ExitCode.INFRASTRUCTURE
    assert "name too long" in one_error(capsys)
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        assert main(["run", "--out", "locked", "a.ipynb"]) == ExitCode.INFRASTRUCTURE
        assert "no permission" in one_error(capsys)


def test_a_full_disk(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_notebook(tmp_path / "a.ipynb", "1")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space")))
    assert main(["run", "--out", "out", "a.ipynb"]) == ExitCode.INFRASTRUCTURE
    assert "the disk is full" in one_error(capsys)


@pytest.fixture
def hanging(book):
    """The harness as a process of its own, at work on a chapter that hangs in its second cell."""
    hang = "import subprocess as s, time\ns.Popen(['sleep', '1000'], start_new_session=True)\ntime.sleep(600)"
    write_notebook(book / "chapters" / "01-a.ipynb", f"{RECORD}\nrecord('acc', 0.5)", hang, "1")
    write_notebook(book / "chapters" / "02-b.ipynb", "1")
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "run", "--jobs", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    events = book / "_build" / "runs" / "latest" / "events.jsonl"
    deadline = time.monotonic() + 60
    while not (events.exists() and events.read_text().count('"cell_start"') >= 2):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_in_order(book, hanging, number):
    """Children go, what was recorded stays, the second chapter is cancelled, the reports are written."""
    hanging.send_signal(number)
    _, err = hanging.communicate(timeout=60)
    assert hanging.returncode == ExitCode.INFRASTRUCTURE
    assert err.count("\n") == 1 and "interrupted" in err
    document = read_json(find_run(book) / "result.json")
    assert [j["state"] for j in document["jobs"]] == ["cancelled", "cancelled"]
    assert document["jobs"][0]["metrics"][0]["value"] == 0.5 and document["exit_code"] == 4
    assert (find_run(book) / "report.md").is_file()
    assert not _processes_below(book)


def test_a_harness_that_is_killed_leaves_no_process(book, hanging):
    """Nobody is left to tidy up, so the worker does: every process ends, the notebook is saved."""
    hanging.kill()
    hanging.communicate()
    deadline = time.monotonic() + 60
    while _processes_below(book):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (find_run(book) / "jobs" / "01-a-offline" / "out.ipynb").is_file()


def _processes_below(folder: Path) -> list[psutil.Process]:
    """Processes of jobs of this book: they carry a metrics file inside it in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in process.environ().get("HARNESS_METRICS", ""):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def test_the_site_is_built_from_the_named_run(book, monkeypatch, capsys):
    import harness.site.build

    assert main(["run", "--quiet"]) == ExitCode.OK
    calls = []
    monkeypatch.setattr(
        harness.site.build, "build", lambda *a, **k: calls.append((a, k)) or Path("site/index.html")
    )
    assert main(["book", "--allow-warnings"]) == ExitCode.OK
    assert capsys.readouterr().out == "open site/index.html\n"
    ((the_book, run_dir, generated), options) = calls[0]
    assert the_book.root == book and run_dir == find_run(book) and generated is GENERATED
    assert options == {"warnings_are_errors": False, "copies": False}


def test_list(book, capsys):
    assert main(["list"]) == ExitCode.OK
    out = capsys.readouterr().out
    assert "01-a" in out and "accuracy=0.5" in out


def test_list_names_wrong_parameters_of_the_configuration(book, capsys):
    values = {"01-a": {"smoke": {"acuracy": 1}, "offline": {"accuracy": "high"}}}
    write_book(book, {}, parameters=values)
    assert main(["list"]) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert "01-a" in captured.out and captured.err.count("error: ") == 2
    assert "no parameter 'acuracy'" in captured.err and "accuracy must be float" in captured.err


def test_a_notebook_of_no_chapter_needs_no_claim_file(book, capsys):
    (book / "chapters" / "claims" / "01-a.yml").write_text("claims: [")
    write_notebook(book / "draft.ipynb", "1")
    assert main(["run", "draft.ipynb", "--quiet"]) == ExitCode.OK


def test_seeds_of_a_notebook_without_seed(book, capsys):
    write_notebook(book / "draft.ipynb", "1")
    assert main(["run", "draft.ipynb", "--seeds", "3"]) == ExitCode.USAGE
    assert "has no parameter 'seed'" in one_error(capsys)


def test_help_tells_the_exit_codes(capsys):
    for command in ("run", "check"):
        assert main([command, "--help"]) == ExitCode.OK
        out = " ".join(capsys.readouterr().out.split())
        assert "Exit codes: 0 all claims hold" in out and "with 1 if a metric has no claim" in out


def test_bless_writes_what_the_run_measured(book, capsys):
    claim = {k: v for k, v in CLAIMS["claims"][0].items() if k != "offline"}
    path = book / "chapters" / "claims" / "01-a.yml"
    path.write_text(json.dumps({**CLAIMS, "claims": [claim]}, ensure_ascii=False), encoding="utf-8")
    (book / ".gitignore").write_text("_build/\n__pycache__/\n", encoding="utf-8")
    git = "git -c user.name=a -c user.email=a@b.c"
    subprocess.run(f"git init -q && git add -A && {git} commit -qm x", shell=True, check=True, cwd=book)
    before = path.read_bytes()
    assert main(["run", "--seeds", "2", "--quiet"]) == ExitCode.OK
    (book / "notes.txt").touch()
    assert main(["bless", "--chapters", "01"]) == ExitCode.USAGE
    assert "no commit holds (notes.txt); commit them first" in one_error(capsys)
    (book / "notes.txt").unlink()
    assert main(["bless", "--chapters", "01"]) == ExitCode.OK
    references = path.parent / "blessed" / "01-a.jsonl"
    assert capsys.readouterr().out.splitlines()[-1] == f"blessed {references}"
    assert path.read_bytes() == before
    runs = load_claims(path.parent, "01-a").claims[0].blessed["offline"]
    assert [(run.seed, run.value, run.commit.endswith("-dirty")) for run in runs] == [
        (0, 0.5, False),
        (1, 0.5, False),
    ]
    assert main(["run", "--seeds", "1", "--quiet", "--param", "accuracy=0.9"]) == ExitCode.CLAIM_FAILED
    assert main(["bless", "--drop", "acc"]) == ExitCode.OK and not references.exists()


def test_a_claim_file_of_the_old_layout_is_named_and_converted(book, capsys):
    assert main(["run", "--quiet"]) == ExitCode.OK
    path = book / "chapters" / "claims" / "01-a.yml"
    path.write_text(
        "chapter: 01-a\nclaims:\n  - name: acc\n    title: 准确率\n    unit: fraction\n    direction: higher\n"
        "    margin: 0.01\n    offline:\n      blessed:\n"
        "        - {value: 0.5, seed: 0, commit: c, date: 2026-11-24, hardware: h}\n",
        encoding="utf-8",
    )
    capsys.readouterr()
    for command in ("run", "check", "bless", "lint"):
        assert main([command]) == ExitCode.USAGE
        assert f"{path}:9: " in (error := one_error(capsys)) and "run `harness bless --migrate`" in error
    assert main(["bless", "--migrate"]) == ExitCode.OK
    assert f"{path}: 1 blessed values of 1 claims moved to 01-a.jsonl" in capsys.readouterr().out
    assert load_claims(path.parent, "01-a").claims[0].blessed["offline"][0].value == 0.5
    assert main(["bless", "--migrate"]) == ExitCode.OK
    assert "nothing to migrate" in capsys.readouterr().out
    assert main(["run", "--quiet"]) == ExitCode.OK


@pytest.mark.parametrize(
    "options",
    [
        ["--migrate", "--allow-dirty"],
        ["latest-1", "--migrate"],
        ["--migrate", "--drop", "a"],
        ["--drop", "a", "--replace"],
    ],
)
def test_what_needs_no_run_takes_none(book, capsys, options):
    assert main(["bless", *options]) == ExitCode.USAGE
    assert "--migrate takes --chapters and --replace only" in one_error(capsys)


def test_the_version_is_the_package_s(capsys):
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.M)
    assert main(["--version"]) == ExitCode.OK
    assert capsys.readouterr().out == f"harness {declared[1]}\n"


def test_help_names_every_command(capsys):
    assert main(["--help"]) == ExitCode.OK
    out = capsys.readouterr().out
    for name in ("init", "list", "run", "check", "report", "diff", "bless", "book", "lint", "doctor"):
        assert f"\n  {name} " in out


def test_no_help_is_cut_off_or_brackets_twice(capsys):
    assert main(["--help"]) == ExitCode.OK
    assert "..." not in capsys.readouterr().out.partition("Commands:")[2]
    for name in command_tree().commands:
        assert main([name, "--help"]) == ExitCode.OK
        out = capsys.readouterr().out
        assert "[[" not in out and "[a]" not in out


def test_the_parent_stays_light(book):
    """No heavy import in the process that plans, skips and reports."""
    assert main(["run", "--quiet"]) == ExitCode.OK
    code = (
        "import sys; from harness.cli.app import main; code = main(['run']);"
        "heavy = {'torch', 'transformers', 'papermill', 'nbformat', 'jupyter_client', 'datasets', 'pandas'};"
        "print('HEAVY', sorted({m.split('.')[0] for m in sys.modules} & heavy), code)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "HEAVY [] 0" in out and "skipped" in out


def test_a_claim_made_for_other_data_is_not_applied(book, capsys):
    source = f"{RECORD}\nrecord('acc', accuracy if source == 'own' else 0.9, unit='fraction')"
    cell = "accuracy = 0.5\nsource = 'own'\nseed = 0"
    write_notebook(book / "chapters" / "01-a.ipynb", source, parameters=cell)
    path = book / "chapters" / "claims" / "01-a.yml"
    path.write_text(json.dumps({**CLAIMS, "parameters": ["source"]}, ensure_ascii=False), encoding="utf-8")
    assert main(["run", "--strict"]) == ExitCode.OK
    assert main(["run", "--param", "accuracy=0.9", "--quiet"]) == ExitCode.CLAIM_FAILED
    capsys.readouterr()
    assert main(["run", "--param", "source=other", "--strict"]) == ExitCode.OK
    out = " ".join(capsys.readouterr().out.split())
    assert "– not applicable" in out and "measured with source = 'other', claimed for source = 'own'" in out
    assert "claims: 1 not applicable" in out
    folder = find_run(book)
    assert read_json(folder / "result.json")["verdicts"][0]["outcome"] == "not_applicable"
    assert "– 不适用" in (folder / "report.md").read_text(encoding="utf-8")
    assert "– not applicable" in (folder / "report.en.html").read_text(encoding="utf-8")
    assert '<skipped message="not applicable: measured with' in (folder / "junit.xml").read_text("utf-8")
    assert main(["bless"]) == ExitCode.USAGE
    assert "ran with source = 'other'" in one_error(capsys)

    path.write_text(json.dumps({**CLAIMS, "parameters": ["data"]}), encoding="utf-8")
    for command in ("run", "lint"):
        main(["lint", "--fix"])
        capsys.readouterr()
        assert main([command]) == ExitCode.USAGE
        assert "01-a.yml:1: the chapter has no parameter 'data'; its parameters: accuracy" in one_error(
            capsys
        )


def test_a_notebook_that_ran_once_says_the_seed_it_ran_with(tmp_path, monkeypatch):
    """The injected cell of the first run overrides the parameters cell in the kernel, so in the record, too."""
    monkeypatch.chdir(tmp_path)
    write_notebook(tmp_path / "a.ipynb", f"{RECORD}\nrecord('used', seed)", parameters="seed = 0\nlr = 0.1")
    assert main(["run", "a.ipynb", "--seeds", "3,", "--out", "first", "--quiet"]) == ExitCode.OK
    shutil.copy(next((tmp_path / "first" / "jobs").glob("*/out.ipynb")), tmp_path / "again.ipynb")
    for out, options in (("second", []), ("third", ["--param", "lr=0.5"])):
        assert main(["run", "again.ipynb", "--out", out, "--quiet", *options]) == ExitCode.OK
        (job,) = read_json(tmp_path / out / "result.json")["jobs"]
        assert (job["seed"], job["parameters"]["seed"], job["metrics"][0]["value"]) == (3, 3, 3)
        assert job["id"] == "again-offline-seed3"


BASH_KERNEL = """
import subprocess
from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel

class Bash(Kernel):
    implementation, implementation_version, banner = "bash", "1", "bash"
    language_info = {"name": "bash", "mimetype": "text/x-sh", "file_extension": ".sh"}
    so_far = ""

    async def do_execute(self, code, silent, *others, **more):
        before = subprocess.run(["bash", "-c", self.so_far], capture_output=True, text=True).stdout
        self.so_far += code + "\\n"
        after = subprocess.run(["bash", "-c", self.so_far], capture_output=True, text=True).stdout
        self.send_response(self.iopub_socket, "stream", {"name": "stdout", "text": after[len(before):]})
        return {"status": "ok", "execution_count": self.execution_count, "payload": [], "user_expressions": {}}

IPKernelApp.launch_instance(kernel_class=Bash)
"""


def test_parameters_are_set_in_another_language(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "share" / "kernels" / "bash"
    folder.mkdir(parents=True)
    (folder / "kernel.py").write_text(BASH_KERNEL, encoding="utf-8")
    argv = [sys.executable, str(folder / "kernel.py"), "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "bash", "language": "bash"}
    (folder / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    monkeypatch.chdir(tmp_path)
    path = write_notebook(tmp_path / "a.ipynb", "echo name is $name", parameters="name=x\nn=3", kernel="bash")
    path.write_text(path.read_text("utf-8").replace('"language": "python"', '"language": "bash"'), "utf-8")
    assert main(["run", "a.ipynb", "--out", "out", "--quiet", "--param", "name=a b"]) == ExitCode.OK
    text = next((tmp_path / "out" / "jobs").glob("*/out.ipynb")).read_text("utf-8")
    assert "name is a b" in text and "name='a b'" in text
    assert read_json(tmp_path / "out" / "result.json")["jobs"][0]["parameters"] == {"name": "a b"}
    capsys.readouterr()
    assert main(["run", "a.ipynb", "--out", "bad", "--quiet", "--param", "n=many"]) == ExitCode.USAGE
    assert "parameter n must be int or float, not str ('many')" in one_error(capsys)


def test_a_cell_has_one_number_and_one_id_everywhere_and_in_every_run(tmp_path, monkeypatch, capsys):
    """Of a notebook without ids, too: the number counts all cells from 1, the injected cell is none of them."""
    monkeypatch.chdir(tmp_path)
    path = write_notebook(tmp_path / "a.ipynb", "ok = 1", "# why\n1 / zero", parameters="zero = 1")
    document = json.loads(path.read_text(encoding="utf-8"))
    document["cells"].insert(0, {"cell_type": "markdown", "metadata": {}, "source": "text"})
    for cell in document["cells"]:
        cell.pop("id", None)
    path.write_text(json.dumps({**document, "nbformat_minor": 4}), encoding="utf-8")
    ids = []
    for out in ("one", "two"):
        options = ["--out", out, "--annotations", "--param", "zero=0"]
        assert main(["run", "a.ipynb", *options]) == ExitCode.NOTEBOOK_FAILED
        job = read_json(tmp_path / out / "result.json")["jobs"][0]
        place = "cell 4 (id cell-4) “1 / zero”, line 2: ZeroDivisionError"
        assert job["reason"].startswith(place) and job["cells"][2]["index"] == 3
        said = " ".join(capsys.readouterr().out.split())
        assert f"failed: {place}" in said and f"::{place}" in said
        events = [
            json.loads(line) for line in (tmp_path / out / "events.jsonl").read_text("utf-8").splitlines()
        ]
        started = [(e["cell"], e["total"], e["code"]) for e in events if e["event"] == "cell_start"]
        assert started == [(2, 4, "zero = 1"), (3, 4, "ok = 1"), (4, 4, "1 / zero")]
        assert [e["cell"] for e in events if e["event"] == "cell_end"] == [2, 3, 4]
        left = json.loads(next((tmp_path / out / "jobs").glob("*/out.ipynb")).read_text("utf-8"))["cells"]
        ids.append(
            [
                cell["id"]
                for cell in left
                if "papermill-error-cell-tag" not in cell["metadata"].get("tags", ())
            ]
        )
    assert ids[0] == ids[1] == ["cell-1", "cell-2", "injected-parameters", "cell-3", "cell-4"]


def test_what_is_set_is_told_in_the_language_of_the_notebook(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text, comment in (
        ("a", "1", "# Parameters set by harness"),
        ("b", "1  # 一", "# 由 harness 设置的参数"),
    ):
        write_notebook(tmp_path / f"{name}.ipynb", text, parameters="n = 1")
        assert main(["run", f"{name}.ipynb", "--out", name, "--quiet", "--param", "n=2"]) == ExitCode.OK
        left = json.loads(next((tmp_path / name / "jobs").glob("*/out.ipynb")).read_text("utf-8"))
        assert "".join(left["cells"][1]["source"]) == f"{comment}\nn = 2"


def test_no_name_is_cut_where_output_is_piped(book, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    name, value = "02-" + "a-very-long-name-" * 8, "a very long text " * 12
    write_notebook(
        book / "chapters" / f"{name}.ipynb", "# " + "long title " * 12, parameters=f"text = {value!r}"
    )
    assert main(["list"]) == ExitCode.OK
    out = capsys.readouterr().out
    assert any(name in line and f"text={value!r}" in line for line in out.splitlines()) and "…" not in out
    assert main(["run", "--chapters", "02"]) == ExitCode.OK
    out = capsys.readouterr().out
    assert any(f"{name[:50]}" in line for line in out.splitlines())
    assert max(map(len, out.splitlines())) < 2000  # nothing is padded to the width
    monkeypatch.setenv("COLUMNS", "70")
    assert main(["list"]) == ExitCode.OK
    out = capsys.readouterr().out
    assert "…" not in out and max(map(len, out.splitlines())) <= 70
