"""What a key covers, and what happens to entries that rot."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from notebooks import write_book, write_notebook

from harness.archive.folder import find_run
from harness.book.config import load_book
from harness.book.notebook import read_notebook
from harness.book.plan import Request, plan
from harness.book.sources import follow
from harness.cli.app import main
from harness.errors import HarnessError
from harness.execute import cache
from harness.execute.kernel.job import JobFolder, run_job
from harness.files import read_json, write_json
from harness.model import SCHEMA, Job, JobResult, JobState, Limits, to_json

FILES = {
    "lib/__init__.py": "",
    "lib/data.py": "from lib.words import WORDS\n",
    "lib/words.py": "WORDS = 1\n",
    "lib/unused.py": "x = 1\n",
    "lib/words.txt": "一",
    "lib/metrics/__init__.py": "from . import near\nfrom ..relative import R\n",
    "lib/metrics/near.py": "",
    "lib/metrics/by_path/f1.py": "",
    "lib/relative.py": "R = 1\n",
}


@pytest.fixture
def root(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return write_book(tmp_path, {})


@pytest.fixture
def key(root):
    def key(*cells, job=None, hardware="cpu", parameters=None, **changes):
        path = root / "chapters" / "a.ipynb"
        if cells:
            write_notebook(path, *cells)
        job = Job("a", path, "a", "offline", 0, parameters or {"n": 1}, Limits())
        return cache.key_of(
            cache.key_parts(replace(job, **changes), read_notebook(path), root, ("lib",), hardware)
        )

    return key


def test_same_job_same_key_and_each_part_counts(key):
    first = key("import lib.data", "x = 1")
    assert key() == first == key("import lib.data", "x = 1  \n")
    others = {
        key(parameters={"n": 2}),
        key(parameters={"n": 1.0}),
        key(profile="smoke"),
        key(seed=1),
        key(hardware="cuda"),
        key("import lib.data", "x = 2"),
    }
    assert len(others | {first}) == 7


@pytest.mark.parametrize("cell", ["seed = 0\nrate = 0.5", "seed: int = 0\nrate: float = 0.5"])
def test_a_value_that_the_notebook_has_anyway_is_no_other_job(root, cell):
    path = write_notebook(root / "chapters" / "a.ipynb", "x = seed", parameters=cell)

    def key(**parameters):
        job = Job("a", path, "a", "offline", parameters.get("seed", 0), parameters, Limits())
        return cache.key_of(cache.key_parts(job, read_notebook(path), root, (), "cpu"))

    assert key() == key(seed=0) == key(seed=0, rate=0.5)
    assert len({key(), key(seed=1), key(rate=0.25), key(rate=1), key(rate=1.0), key(seed=False)}) == 6


def test_a_run_and_one_of_the_same_seed_share_a_result(tmp_path, monkeypatch, capsys):
    path = write_notebook(tmp_path / "chapters" / "a.ipynb", "seed", parameters="seed = 0")
    book = load_book(write_book(tmp_path, {"a": path}))
    monkeypatch.chdir(tmp_path)
    (entry,) = plan(book, book.chapters, Request())
    parts = cache.parts_of(entry, book, ())
    done = JobResult(entry.job.id, "chapters/a.ipynb", "a", "offline", 0, JobState.COMPLETED)
    (tmp_path / "job").mkdir()
    write_json(tmp_path / "job" / "result.json", {"schema": SCHEMA, **to_json(done)})
    cache.keep(tmp_path, replace(entry.job, key=cache.key_of(parts)), parts, tmp_path / "job", "run-1")
    for arguments, parameters in ((["--seeds", "1"], {"seed": 0}), ([], {})):
        assert main(["run", "--quiet", *arguments]) == 0
        (job,) = read_json(find_run(tmp_path) / "result.json")["jobs"]
        assert (job["state"], job["cached_from"], job["parameters"]) == ("skipped", "run-1", parameters)
    capsys.readouterr()
    assert main(["run", "--seeds", "2", "--why"]) == 0
    assert [line[:4] for line in capsys.readouterr().out.splitlines()] == ["skip", "run "]


def test_prose_and_outputs_do_not_count(key, root):
    first = key("x = 1")
    path = root / "chapters" / "a.ipynb"
    document = json.loads(path.read_text())
    document["cells"].insert(0, {"cell_type": "markdown", "id": "m", "metadata": {}, "source": "# 标题"})
    document["cells"][1]["execution_count"] = 7
    path.write_text(json.dumps(document))
    assert key() == first


@pytest.mark.parametrize(
    ("cell", "counting", "not_counting"),
    [
        ("import lib.data", {"lib/data.py", "lib/words.py", "lib/words.txt", "lib/metrics/by_path/f1.py"},
         {"lib/unused.py", "lib/relative.py"}),
        ("from lib import data as d", {"lib/__init__.py", "lib/words.py"}, {"lib/unused.py"}),
        ("%time 1\n!ls\nx = !ls\nfrom lib.metrics import near", {"lib/relative.py"}, {"lib/data.py"}),
        ("print(1)", set(), set(FILES)),
        ("import importlib\nimportlib.import_module('lib.da' + 'ta')", set(FILES), set()),
        ("def f(:", set(FILES), set()),
    ],
)  # fmt: skip
def test_files_that_count(root, key, cell, counting, not_counting):
    key(cell)
    found = follow(read_notebook(root / "chapters" / "a.ipynb"), root, ("lib",)).files
    names = {path.relative_to(root).as_posix() for path in found}
    assert counting <= names and not names & not_counting


def test_a_change_of_an_imported_file_changes_the_key(key, root):
    first = key("import lib.data\nmodel.eval()")
    (root / "lib" / "unused.py").write_text("x = 2")
    assert key() == first
    (root / "lib" / "words.py").write_text("WORDS = 2")
    second = key()
    (root / "lib" / "words.txt").write_text("二二")
    assert len({first, second, key()}) == 3


def test_a_module_beside_the_notebook_and_a_local_data_folder_count(key, root):
    (root / "chapters").mkdir(exist_ok=True)
    helper = root / "chapters" / "helper.py"
    helper.write_text("a = 1")
    data = root / "data"
    data.mkdir()
    (data / "rows.csv").write_text("1")
    first = key("import helper", parameters={"source": str(data)})
    helper.write_text("a = 22")
    second = key(parameters={"source": str(data)})
    (data / "rows.csv").write_text("1,2")
    assert len({first, second, key(parameters={"source": str(data)})}) == 3


def test_versions_and_variables_count(key, monkeypatch):
    first = key("x = 1")
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    second = key()
    monkeypatch.setattr(cache, "distributions", lambda: ("torch-9.9",))
    assert len({first, second, key()}) == 3


def test_distributions_are_named_with_their_versions():
    assert any(name.startswith("papermill-") for name in cache.distributions())


@pytest.fixture(scope="module")
def completed(tmp_path_factory):
    """A job, its result and its folder."""
    place = tmp_path_factory.mktemp("completed")
    path = write_notebook(place / "a.ipynb", "from harness.record import record\nrecord('acc', 0.5)")
    job = Job("a", path, None, "offline", 0, {}, Limits(30, 60), key="k" * 64)
    result = run_job(JobFolder(job, place / "first"))
    assert result.state is JobState.COMPLETED
    return job, result, place / "first"


@pytest.fixture
def kept(root, completed):
    """A completed job, kept in the cache."""
    job, result, folder = completed
    cache.keep(load_book(root).root, job, {"code": []}, folder, "run-1")
    return root, job, result


def test_what_is_restored_says_where_it_came_from(kept, completed, tmp_path):
    root, job, result = kept
    restored = cache.restore(cache.find(root, job.key), job, tmp_path / "second", "a.ipynb")
    assert restored.state is JobState.SKIPPED and restored.cached_from == "run-1"
    assert restored.metrics == result.metrics and restored.seconds == result.seconds
    for name in ("out.ipynb", "metrics.jsonl"):
        assert (tmp_path / "second" / name).read_bytes() == (completed[2] / name).read_bytes()


def test_no_entry(kept):
    assert cache.find(kept[0], "0" * 64) is None


@pytest.mark.parametrize("damage", ["out.ipynb", "metrics.jsonl", "missing", "manifest", "no manifest"])
def test_a_damaged_entry_is_noticed_told_and_removed(kept, damage):
    root, job, _ = kept
    folder = cache.cache_dir(root) / job.key
    if damage == "missing":
        (folder / "metrics.jsonl").unlink()
    elif damage == "manifest":
        (folder / "manifest.json").write_text("[]")
    elif damage == "no manifest":
        (folder / "manifest.json").unlink()
    else:
        (folder / damage).write_text((folder / damage).read_text().replace("0.5", "0.9"))
    with pytest.raises(HarnessError, match=f"cache entry {'k' * 12} is damaged") as caught:
        cache.find(root, job.key)
    assert "\n" not in str(caught.value)
    assert cache.find(root, job.key) is None
