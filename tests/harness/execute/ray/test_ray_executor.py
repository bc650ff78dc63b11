"""A real Ray cluster of several nodes on this machine: the same states, metrics and files as a local run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from notebooks import RECORD, outputs_of, write_book, write_notebook

from harness.archive.folder import create_run
from harness.archive.recorded import read_manifest, read_run
from harness.book.config import load_book
from harness.book.plan import Request, plan
from harness.cli.app import main
from harness.execute.kernel.process import MARKER
from harness.execute.resume import Asked, Origin
from harness.execute.run import execute
from harness.files import read_json
from harness.model import JobState, to_json

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[ray]'")

from harness.execute.ray.executor import Share, connected, divide  # noqa: E402

pytestmark = pytest.mark.xdist_group("ray")

PASS = Asked(None, None, Request(), ("OF_TEST",))
STORE = 80_000_000  # bytes of each node's object store


@pytest.fixture(scope="session")
def cluster():
    """A head for the driver, and a node whose two cores take the jobs."""
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1,
            "object_store_memory": STORE,
            "include_dashboard": False,
            "_system_config": {"health_check_period_ms": 500, "health_check_failure_threshold": 10},
        },
    )
    made.add_node(num_cpus=1, object_store_memory=STORE)
    yield made
    made.shutdown()


def test_these_tests_stay_on_one_worker(request):
    """Two clusters on one machine: a test here that kills a worker would kill those of the other."""
    assert "PYTEST_XDIST_WORKER" not in os.environ or request.node.nodeid.endswith("@ray")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "书 a{b}"


def go(book, paths, executor, *, events=None, asked=None, **options):
    events = [] if events is None else events
    planned = plan(book, paths, Request("offline", **options.pop("request", {})))
    run_dir = create_run(book.root, "offline")
    origin = Origin(["test"], asked)
    outcome = execute(
        planned, run_dir, origin, book=book, progress=events.append, executor=executor, **options
    )
    return run_dir, outcome, events


def remotely(cluster, book, paths, *, jobs=None, shared=False, **options):
    with connected(cluster.address, "cpu", shared=shared, jobs=jobs) as executor:
        return go(book, paths, executor, **options)


CHAPTERS = {
    "01-good": [
        "import os, sys; sys.path.insert(0, '..')\nimport lib\nfrom pathlib import Path",
        f"{RECORD}\nrecord('acc', lib.x, per_example=[0.0, 1.0])\nprint(Path('data.txt').read_text())",
    ],
    "02-fails": [f"{RECORD}\nrecord('loss', 2.5)", "1 / 0", "print('never')"],
    "03-dies": [f"{RECORD}\nrecord('f1', 0.5)", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"],
    "04-exits": ["import sys; sys.exit(0)", "1"],
    "05-hangs": ["print('before')", "while True: pass"],
}


def write_all(root: Path):
    write_book(root, CHAPTERS, profiles={"offline": {"cell_timeout": 3, "notebook_timeout": 30}})
    (root / "lib").mkdir()
    (root / "lib" / "__init__.py").write_text("x = 0.75")
    (root / "chapters" / "data.txt").write_text("数据")
    (root / "chapters" / "06-broken.ipynb").write_text("{")
    return load_book(root)


def told(results):
    """All of the results but times, memory and how the process was seen to end."""
    return [
        (r.id, r.state, r.notebook, r.seed, r.parameters, [(m.name, m.value, m.per_example) for m in r.metrics],
         [(c.index, c.id, c.state, c.error, c.line) for c in r.cells])
        for r in results
    ]  # fmt: skip


@pytest.fixture
def importable(monkeypatch, tmp_path):
    """Chapters find the harness installed; these books lie elsewhere."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "harness").symlink_to(Path(__file__).parents[4] / "harness")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))


def test_every_state_is_as_in_a_local_run(cluster, root, importable):
    book = write_all(root)
    local_dir, local, _ = go(book, book.chapters, None, use_cache=False)
    run_dir, remote, events = remotely(cluster, book, book.chapters, use_cache=False)
    assert [r.state.value for r in remote.results] == [
        "completed", "failed", "dead", "exited_early", "timed_out", "invalid"
    ]  # fmt: skip
    assert told(remote.results) == told(local.results), [r.reason for r in remote.results]
    assert [r.reason for r in remote.results] == [
        r.reason.replace(str(local_dir), str(run_dir)) for r in local.results
    ]
    assert read_run(run_dir).results == tuple(remote.results)
    for mine, its in zip(sorted(local_dir.glob("jobs/*")), sorted(run_dir.glob("jobs/*")), strict=True):
        assert sorted(p.name for p in mine.iterdir()) == sorted(p.name for p in its.iterdir())
        if (mine / "out.ipynb").exists():
            assert [t.splitlines()[-1:] for t in outputs_of(mine / "out.ipynb")] == [
                t.splitlines()[-1:] for t in outputs_of(its / "out.ipynb")
            ]
        assert read_json(mine / "job.json") == read_json(its / "job.json")
    kinds = [e["event"] for e in events]
    assert kinds[0] == "run_start" and kinds[-1] == "run_end" and not remote.trouble
    assert kinds.count("job_start") == kinds.count("node") == 5 and kinds.count("job_end") == 6
    order = [e["event"] for e in events if e.get("job") == "01-good-offline"]
    assert order[:2] == ["node", "job_start"] and order[-1] == "job_end" and order.count("cell_end") == 2
    manifest = read_json(run_dir / "manifest.json")
    assert {job for node in manifest["nodes"] for job in node["jobs"]} == set(manifest["jobs"])
    assert set(read_manifest(run_dir).hardware_by_job) == set(manifest["jobs"])
    assert manifest["environment"] == to_json(local.manifest["environment"])


def wait_for(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found


def job_processes(folder: Path) -> list[psutil.Process]:
    """Processes of jobs that record a file named *folder* in their arguments or environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARKER) and process.environ().get("OF_TEST") == str(folder):
                found.append(process)
    return found


@pytest.fixture
def marked(monkeypatch, tmp_path):
    """Processes of this test's jobs, wherever in the cluster."""
    monkeypatch.setenv("OF_TEST", str(tmp_path))
    return lambda: job_processes(tmp_path)


def kill_node(node):
    """The machine is switched off: nothing of Ray's there is asked to end."""
    raylets = [psutil.Process(info.process.pid) for info in node.all_processes["raylet"]]
    for process in [*raylets, *(child for raylet in raylets for child in raylet.children())]:
        process.kill()


def in_background(run):
    answer = []
    thread = threading.Thread(target=lambda: answer.append(run()))
    thread.start()
    return thread, answer


SLOW = [
    f"{RECORD}\nrecord('early', 1.0)",
    "import pathlib, time\nopen('GATE.seen', 'a').write('x')\n"
    "while not pathlib.Path('GATE').exists(): time.sleep(0.05)",
    "record('late', 2.0)",
]


def slow_book(root, names, gate):
    cells = [cell.replace("GATE", str(gate)) for cell in SLOW]
    return load_book(write_book(root, dict.fromkeys(names, cells)))


def test_the_job_of_a_lost_node_runs_again_elsewhere_and_counts_once(
    cluster, root, tmp_path, importable, marked
):
    gate = tmp_path / "gate"
    book = slow_book(root, ["01-a", "02-b", "03-c"], gate)
    lost = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    cluster.wait_for_nodes()
    thread, answer = in_background(
        lambda: remotely(cluster, book, book.chapters, asked=PASS, use_cache=False)
    )
    seen = tmp_path / "gate.seen"
    wait_for(lambda: seen.exists() and len(seen.read_text()) == 3, 60)  # all at once, one on each node
    before = {p.pid for p in marked()}
    kill_node(lost)
    cluster.worker_nodes.discard(lost)
    gate.touch()
    thread.join(90)
    ((run_dir, outcome, events),) = answer
    assert [r.state for r in outcome.results] == [JobState.COMPLETED] * 3
    assert [[m.name for m in r.metrics] for r in outcome.results] == [["early", "late"]] * 3
    for result in outcome.results:
        lines = (run_dir / "jobs" / result.id / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["name"] for line in lines] == ["early", "late"]
    (warning,) = [e["message"] for e in events if e["event"] == "warning"]
    assert "was lost; it starts again on another node" in warning
    starts = [e["job"] for e in events if e["event"] == "job_start"]
    assert sorted(starts) == sorted(r.id for r in outcome.results)
    assert len(seen.read_text()) == 4 and before
    wait_for(lambda: not marked())


def test_a_job_whose_worker_is_killed_is_dead_and_keeps_what_it_recorded(
    cluster, root, tmp_path, importable, marked
):
    book, events = slow_book(root, ["01-a"], tmp_path / "never"), []
    thread, answer = in_background(lambda: remotely(cluster, book, book.chapters, asked=PASS, events=events))
    wait_for(lambda: [e["event"] for e in events].count("cell_start") == 2, 60)  # and that is known here
    wait_for((tmp_path / "never.seen").exists)
    metrics = next(book.root.glob("_build/runs/latest/jobs/*/metrics.jsonl"))
    wait_for(lambda: "early" in metrics.read_text())
    workers = [p for p in psutil.process_iter(["cmdline"]) if "ray::RemoteJob" in str(p.info["cmdline"])]
    assert workers
    for worker in workers:  # of a node that an earlier test killed one may still be ending
        worker.kill()
    thread.join(60)
    ((run_dir, outcome, _),) = answer
    (result,) = outcome.results
    assert result.state is JobState.DEAD and "the Ray worker that ran it on" in result.reason
    assert [m.name for m in result.metrics] == ["early"]
    assert [c.state.value for c in result.cells] == ["completed", "failed", "pending"]
    assert read_run(run_dir).results == (result,)
    wait_for(lambda: not marked())


def test_an_interrupt_brings_back_what_was_done_and_starts_nothing_more(
    cluster, root, tmp_path, importable, marked
):
    book = slow_book(root, ["01-a", "02-b"], tmp_path / "never")
    cancel = threading.Event()
    thread, answer = in_background(
        lambda: remotely(cluster, book, book.chapters, jobs=1, cancel=cancel, asked=PASS)
    )
    wait_for((tmp_path / "never.seen").exists, 60)
    cancel.set()
    thread.join(60)
    ((run_dir, outcome, events),) = answer
    first, second = outcome.results
    assert outcome.interrupted and first.state is second.state is JobState.CANCELLED
    assert [m.name for m in first.metrics] == ["early"] and first.reason.startswith("interrupted in cell 2")
    assert second.reason == "the run was interrupted before it started"
    assert (run_dir / "jobs" / first.id / "out.ipynb").exists()
    assert [e["job"] for e in events if e["event"] == "job_start"] == [first.id]
    wait_for(lambda: not marked())


def test_what_completed_on_a_node_like_this_machine_is_kept(cluster, root, importable):
    book = write_all(root)
    first_dir, *_ = remotely(cluster, book, book.select(["01"]))
    _, again, _ = go(book, book.select(["01"]), None)
    assert again.results[0].state is JobState.SKIPPED and again.results[0].cached_from == first_dir.name


def test_shared_folders_are_used_in_place(cluster, root, importable):
    book = load_book(
        write_book(root, {"01-a": ["from pathlib import Path; Path('made.txt').write_text('x')"]})
    )
    _, outcome, _ = remotely(cluster, book, book.chapters, shared=True, use_cache=False)
    assert outcome.results[0].state is JobState.COMPLETED and (book.chapters_dir / "made.txt").exists()
    (book.chapters_dir / "made.txt").unlink()
    _, outcome, _ = remotely(cluster, book, book.chapters, use_cache=False)
    assert outcome.results[0].state is JobState.COMPLETED
    assert not (book.chapters_dir / "made.txt").exists()  # it was made in a copy


def command(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "harness", *map(str, arguments)], cwd=cwd, capture_output=True, text=True,
        timeout=120, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])},
    )  # fmt: skip


def test_the_command_runs_notebooks_without_a_book(cluster, tmp_path):
    write_notebook(tmp_path / "a.ipynb", f"{RECORD}\nrecord('x', 1.5)")
    done = command(
        "run", "--executor", "ray", "--address", cluster.address, "--device", "cpu", "--out", "out", "a.ipynb",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "(raylet)" not in done.stdout
    (result,) = read_run(tmp_path / "out").results
    assert result.metrics[0].value == 1.5


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"),
        ("nowhere", "expected HOST:PORT"),
        ("ray://127.0.0.1:1", "cannot connect to the Ray cluster at ray://127.0.0.1:1"),
    ],
)
def test_a_bad_address_is_one_line(tmp_path, monkeypatch, capsys, address, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    write_notebook(tmp_path / "a.ipynb", "1")
    assert main(["run", "--executor", "ray", "--address", address, "a.ipynb"]) == 4
    err = capsys.readouterr().err
    assert said in err and len(err.splitlines()) == 1
    assert not (tmp_path / "_build").exists()


def test_a_device_that_no_node_has_is_one_line(cluster, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_notebook(tmp_path / "a.ipynb", "1")
    given = ["run", "--executor", "ray", "--address", cluster.address, "a.ipynb", "--device"]
    assert main([*given, "cuda"]) == 4
    assert "has a GPU; add one to it" in capsys.readouterr().err
    assert main([*given, "cuda:1"]) == 3
    assert "names a GPU of this machine" in capsys.readouterr().err


def test_cores_are_divided_among_the_jobs_of_a_node():
    two = [Share(8, 0, 0), Share(16, 0, 0)]
    assert divide(two, 1, None) == (8, 1)
    assert divide(two, 4, None) == (4, 4)
    assert divide(two, 100, None) == (1, 24)
    assert divide(two, 100, 2) == (8, 2)
    assert divide([Share(8, 0, 1), Share(16, 0, 2)], 10, None) == (8, 3)
