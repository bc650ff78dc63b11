"""A whole run: order, events, the cache, and an interrupt."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from notebooks import RECORD, write_book, write_notebook

from harness.archive.folder import create_run, create_run_at
from harness.archive.recorded import read_run
from harness.book.config import load_book
from harness.book.plan import Request, plan
from harness.cli.app import main
from harness.execute import cache
from harness.execute.executor import shown_path
from harness.execute.resume import Origin
from harness.execute.run import execute
from harness.files import read_json
from harness.model import JobState

NOBODY = Origin([])


@pytest.fixture
def book(tmp_path):
    root = tmp_path / "书 a{b}"
    write_notebook(
        root / "chapters" / "01-a.ipynb",
        f"import lib\n{RECORD}\nrecord('acc', 0.5 + seed)",
        parameters="seed = 0",
    )
    (root / "lib").mkdir()
    (root / "lib" / "__init__.py").write_text("x = 1")
    write_notebook(root / "chapters" / "02-b.ipynb", "import sys; sys.path.insert(0, '..')\n1 / 0")
    first = root / "chapters" / "01-a.ipynb"
    document = json.loads(first.read_text())
    document["cells"][1]["source"] = "import sys; sys.path[:0] = ['..']\n" + "".join(
        document["cells"][1]["source"]
    )
    first.write_text(json.dumps(document))
    monkeyed = write_book(root, {})
    return load_book(monkeyed)


def go(book, *, seeds=None, chapters=None, events=None, **options):
    planned = plan(book, book.select(chapters), Request("offline", seeds=seeds))
    run_dir = create_run(book.root, "offline")
    heard = events if events is not None else []
    return run_dir, execute(planned, run_dir, Origin(["test"]), book=book, progress=heard.append, **options)


@pytest.fixture
def harness_importable(monkeypatch):
    """Chapters find the harness beside them; these books lie elsewhere."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))


@pytest.mark.quick
def test_all_jobs_run_and_are_kept_in_order(book, harness_importable):
    run_dir, outcome = go(book, seeds=(1, 0))
    assert [(r.id, r.state.value) for r in outcome.results] == [
        ("01-a-offline-seed1", "completed"),
        ("01-a-offline-seed0", "completed"),
        ("02-b-offline", "failed"),
    ]
    assert [r.metrics[0].value for r in outcome.results[:2]] == [1.5, 0.5]
    assert outcome.results[0].notebook == "chapters/01-a.ipynb"
    assert read_run(run_dir).results == tuple(outcome.results)
    manifest = read_json(run_dir / "manifest.json")
    assert manifest["profile"] == "offline" and manifest["run"] == run_dir.name
    assert {"python", "hardware", "cores", "versions"} <= set(manifest["environment"])
    assert "torch" not in manifest["environment"] and manifest["jobs"][0] == "01-a-offline-seed1"
    lines = (run_dir / "events.jsonl").read_text(encoding="utf-8").splitlines()
    kinds = [json.loads(line)["event"] for line in lines]
    assert kinds[0] == "run_start" and kinds[-1] == "run_end" and kinds.count("job_end") == 3


def test_the_versions_of_what_the_book_requires_are_kept(book, harness_importable):
    named = replace(book, requires=("psutil", "no-such-package"))
    run_dir, _ = go(named, chapters=["01"])
    versions = read_json(run_dir / "manifest.json")["environment"]["versions"]
    assert versions["psutil"] == psutil.__version__ and "no-such-package" not in versions
    assert versions["papermill"]  # which decides every book's


@pytest.mark.quick
def test_what_did_not_change_is_skipped_until_it_does(book, harness_importable):
    first_dir, first = go(book, chapters=["01"])
    _, second = go(book, chapters=["01"])
    (result,) = second.results
    assert result.state is JobState.SKIPPED and result.cached_from == first_dir.name
    assert result.metrics == first.results[0].metrics
    assert (first_dir.parent / "latest" / "jobs" / result.id / "out.ipynb").is_file()

    _, forced = go(book, chapters=["01"], use_cache=False)
    assert forced.results[0].state is JobState.COMPLETED

    (book.root / "lib" / "__init__.py").write_text("x = 2")
    _, changed = go(book, chapters=["01"])
    assert changed.results[0].state is JobState.COMPLETED


def test_a_failed_job_is_not_kept(book, harness_importable):
    go(book, chapters=["02"])
    assert not cache.cache_dir(book.root).exists()
    assert go(book, chapters=["02"])[1].results[0].state is JobState.FAILED


def test_a_damaged_entry_is_told_and_the_job_runs_again(book, harness_importable):
    go(book, chapters=["01"])
    (entry,) = cache.cache_dir(book.root).iterdir()
    (entry / "out.ipynb").write_text("{}")
    events = []
    _, again = go(book, chapters=["01"], events=events)
    assert again.results[0].state is JobState.COMPLETED
    (warning,) = [e["message"] for e in events if e["event"] == "warning"]
    assert "damaged (out.ipynb)" in warning
    assert go(book, chapters=["01"])[1].results[0].state is JobState.SKIPPED


def test_a_file_that_cannot_be_read_costs_the_cache_not_the_run(book, harness_importable, monkeypatch):
    """The fingerprint of a chapter's files is for the cache alone; the notebook says what it lacks itself."""

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(cache, "file_digest", refuse)
    events = []
    _, outcome = go(book, events=events)
    assert [r.state.value for r in outcome.results] == ["completed", "failed"] and not outcome.trouble
    assert outcome.results[0].key == ""
    warnings = [e["message"] for e in events if e["event"] == "warning"]
    assert len(warnings) == 2 and "Permission denied" in warnings[0] and "without the cache" in warnings[0]


def test_a_cache_that_cannot_be_written_does_not_stop_the_run(book, harness_importable, tmp_path):
    """A book in a place that is only read, and --out elsewhere."""
    cache.cache_dir(book.root).parent.mkdir(exist_ok=True)
    cache.cache_dir(book.root).write_text("in the way")
    planned = plan(book, book.select(["01"]), Request("offline", seeds=(0, 1)))
    events = []
    outcome = execute(planned, create_run_at(tmp_path / "out"), NOBODY, book=book, progress=events.append)
    assert [r.state.value for r in outcome.results] == ["completed", "completed"] and not outcome.interrupted
    warnings = [e["message"] for e in events if e["event"] == "warning"]
    assert len(warnings) == 2 and "not kept for the next run: cannot write to" in warnings[0]


def test_data_that_the_book_names_and_does_not_have_is_told(book, harness_importable):
    book = replace(book, data={None: ("data/*.csv",), "02-b": ("no.bin",)})
    events = []
    go(book, chapters=["01"], events=events)
    (warning,) = [e["message"] for e in events if e["event"] == "warning"]
    assert warning == "harness.yml: data: data/*.csv names no file; mend it, or make the file"


def test_a_problem_in_the_plan_ends_that_job_alone(book, tmp_path):
    paths = [tmp_path / "none.ipynb", write_notebook(tmp_path / "x.ipynb", "1")]
    planned = plan(book, paths, Request())
    outcome = execute(planned, create_run(book.root, "offline"), NOBODY, book=book)
    assert [r.state for r in outcome.results] == [JobState.INVALID, JobState.COMPLETED]
    assert "not found" in outcome.results[0].reason


SPOIL = "import os; os.mkdir(os.environ['HARNESS_METRICS'].replace('metrics.jsonl', 'out.ipynb'))"


def test_nothing_is_started_once_something_could_not_be_saved(book, tmp_path):
    paths = [write_notebook(tmp_path / "a.ipynb", SPOIL), write_notebook(tmp_path / "b.ipynb", "1")]
    run_dir = create_run(book.root, "offline")
    outcome = execute(plan(book, paths, Request()), run_dir, NOBODY, book=book)
    assert [r.state for r in outcome.results] == [JobState.DEAD, JobState.CANCELLED]
    assert outcome.interrupted and "out.ipynb" in outcome.trouble
    assert outcome.results[1].reason == f"not started: {outcome.trouble}"
    assert read_run(run_dir).results == tuple(outcome.results)


def test_a_job_that_cannot_start_stops_the_run_in_order(book, tmp_path):
    paths = [write_notebook(tmp_path / f"{n}.ipynb", "1") for n in "ab"]
    planned = plan(book, paths, Request())
    run_dir = create_run(book.root, "offline")
    (run_dir / "jobs" / planned[0].job.id).write_text("in the way")
    outcome = execute(planned, run_dir, NOBODY, book=book)
    assert [r.state for r in outcome.results] == [JobState.CANCELLED, JobState.CANCELLED]
    assert "cannot write to" in outcome.trouble and outcome.results[0].reason.startswith("could not start: ")


def test_an_event_log_on_a_full_disk_stops_the_run_in_order(book, tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    run_dir = create_run(book.root, "offline")
    (run_dir / "events.jsonl").symlink_to("/dev/full")
    planned = plan(book, [write_notebook(tmp_path / "a.ipynb", "1")], Request())
    outcome = execute(planned, run_dir, NOBODY, book=book)
    assert [r.state for r in outcome.results] == [JobState.CANCELLED]
    assert "the disk is full" in outcome.trouble


def test_paths_are_shown_relative_to_the_book(book, tmp_path):
    assert shown_path(book.root / "chapters" / "x.ipynb", book) == "chapters/x.ipynb"
    assert shown_path(tmp_path / "x.ipynb", book) == str(tmp_path / "x.ipynb")
    assert shown_path(tmp_path / "x.ipynb", None) == str(tmp_path / "x.ipynb")


def test_a_folder_stands_for_the_notebooks_below_it(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for name in ("b", "deep/a", ".ipynb_checkpoints/b-checkpoint", "_build/old"):
        write_notebook(tmp_path / "all" / f"{name}.ipynb", "1")
    (tmp_path / "none").mkdir()
    assert main(["run", "all", "--out", "out", "--quiet"]) == 0
    assert [Path(job["notebook"]).name for job in read_json(tmp_path / "out" / "result.json")["jobs"]] == [
        "b.ipynb", "a.ipynb",
    ]  # fmt: skip
    assert main(["run", "none", "--out", "out"]) == 3
    assert "holds no notebook" in capfd.readouterr().err
