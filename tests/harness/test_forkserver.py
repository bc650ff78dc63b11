"""A forked kernel is to a notebook what a fresh one is; where it could not be, the kernel is fresh."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from notebooks import write_book, write_notebook

from harness import execution
from harness.config import HEAVY, load_book
from harness.execution import Place, run_job
from harness.forkserver import ForkedProcess, ForkServer, Seat
from harness.model import Job, JobState, Limits
from harness.notebook import read_notebook
from harness.plan import Request, plan
from harness.process import is_linux
from harness.run import execute
from harness.store import create_run
from harness.variables import common_environment, job_environment
from harness.warmth import modules_to_import, reason_for_cold

pytestmark = pytest.mark.skipif(not is_linux(), reason="only Linux forks loaded processes safely")

JOB = Job("job", Path("any.ipynb"), None, "offline", None, {}, Limits(60, 60), network=False)

LOOK_ROUND = """
import builtins, json, logging, os, signal, sys, threading
volatile = ("JPY_PARENT_PID", "HARNESS_JOB", "HARNESS_METRICS", "PWD", "OLDPWD")
print(json.dumps({
    "path": sys.path, "argv0": sys.argv[0], "folder": os.getcwd(), "name": __name__,
    "environment": {k: v for k, v in os.environ.items() if k not in volatile},
    "signals": [str(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE)],
    "threads": sorted(type(t).__name__ for t in threading.enumerate()),
    "leads its session": os.getsid(0) == os.getpid(), "group": os.getpgid(0) == os.getpid(),
    "recursion": sys.getrecursionlimit(), "switch": sys.getswitchinterval(), "hash": hash("词"),
    "main": sorted(k for k in vars(sys.modules["__main__"]) if not k.startswith("_")),
    "streams": [type(s).__module__ for s in (sys.stdout, sys.stderr)], "stdin": sys.stdin is not None,
    "shell": type(get_ipython()).__name__, "builtin": builtins.get_ipython.__name__,
    "harness": sorted(m for m in sys.modules if m.split(".")[0] == "harness"),
    "level": logging.getLogger().level,
}, sort_keys=True, default=str))
"""

LIBRARIES = """
import random, sys, json
import numpy as np, torch, datasets, transformers
from tqdm.auto import tqdm
from huggingface_hub.utils import is_notebook
torch.manual_seed(0); np.random.seed(0); random.seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Dropout(0.5), torch.nn.Linear(16, 2))
for _ in range(3):
    loss = model(torch.randn(4, 8)).square().mean(); loss.backward()
print(json.dumps({
    "loss": loss.item(), "numpy": np.random.rand(), "python": random.random(), "threads": torch.get_num_threads(),
    "bar": tqdm.__module__, "notebook": is_notebook(), "offline": datasets.config.HF_HUB_OFFLINE,
    "progress": transformers.trainer.DEFAULT_PROGRESS_CALLBACK.__name__,
    "cuda": torch.cuda.is_initialized(), "bad fork": torch.cuda._is_in_bad_fork(), "seed": torch.initial_seed(),
}, sort_keys=True))
"""

WARNING = """
import transformers
transformers.logging.get_logger("transformers.here").warning("a warning for the reader")
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    modules = ["numpy", "torch", "datasets", "transformers", "transformers:Trainer", "no_such_module"]
    server = ForkServer(common_environment(JOB), modules, folder / "log.txt")
    assert server.start(), server.trouble
    yield server
    server.close()


def run(folder, server, *sources, warm=True):
    """The texts that the notebook prints, in one string."""
    folder.mkdir(exist_ok=True)
    notebook = write_notebook(folder / "n.ipynb", *sources)
    place = Place(common_environment(JOB), server, warm=warm)
    job = Job("job", notebook, None, "offline", None, {}, Limits(60, 60), network=False)
    result = run_job(job, folder / "job", emit=lambda event: None, cancel=threading.Event(), place=place)
    assert result.state is JobState.COMPLETED, result.reason
    cells = nbformat.read(folder / "job" / "out.ipynb", 4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", ()))


def test_a_forked_kernel_looks_round_and_sees_what_a_fresh_one_sees(tmp_path, server):
    forked = json.loads(run(tmp_path / "n", server, LOOK_ROUND))
    half_forked = json.loads(run(tmp_path / "n", server, LOOK_ROUND, warm=False))
    fresh = json.loads(run(tmp_path / "n", None, LOOK_ROUND))
    assert forked == fresh
    assert half_forked == fresh


def test_libraries_behave_alike_and_give_the_same_numbers(tmp_path, server):
    assert "torch" in server.loaded
    forked, fresh = (run(tmp_path / "n", place, LIBRARIES) for place in (server, None))
    found = [[line for line in text.splitlines() if line.startswith("{")] for text in (forked, fresh)]
    assert len(found[0]) == 1
    assert found[0] == found[1]


def test_a_handler_made_at_the_import_writes_into_the_notebook(tmp_path, server):
    assert "a warning for the reader" in run(tmp_path / "n", server, WARNING)


def test_kernels_do_not_share_their_random_state(tmp_path, server):
    source = "import numpy, random, uuid\nprint(numpy.random.rand(), random.random(), uuid.uuid4())"
    first, second = (run(tmp_path / name, server, source).split() for name in "ab")
    assert not set(first) & set(second)


def test_what_a_package_made_at_its_import_outlives_the_kernel(tmp_path, monkeypatch):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "keeper.py").write_text("import tempfile\nfolder = tempfile.TemporaryDirectory()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    server = ForkServer(common_environment(JOB), ["keeper"], tmp_path / "log.txt")
    assert server.start(), server.trouble
    source = "import keeper, os\nprint(os.getppid(), os.path.isdir(keeper.folder.name))"
    first, second = (run(tmp_path / name, server, source).split() for name in "ab")
    server.close()
    assert (first[1], second[1]) == ("True", "True") and first[0] != second[0]


def test_what_a_notebook_left_open_is_written_and_its_exit_handlers_run(tmp_path, server):
    source = (
        "import atexit\nfile = open('left.txt', 'w')\nfile.write('all of it')\n"
        "atexit.register(lambda: open('exit.txt', 'w').write('ran'))"
    )
    run(tmp_path / "n", server, source)
    assert (tmp_path / "n" / "left.txt").read_text() == "all of it"
    assert (tmp_path / "n" / "exit.txt").read_text() == "ran"


def test_a_server_that_dies_costs_speed_and_nothing_else(tmp_path):
    server = ForkServer(common_environment(JOB), (), tmp_path / "log.txt")
    assert server.start()
    server._process.kill()
    warnings = []
    place = Place(common_environment(JOB), server, warm=True)
    job = Job(
        "job", write_notebook(tmp_path / "n.ipynb", "print(1)"), None, "offline", None, {}, Limits(60, 60)
    )
    result = run_job(job, tmp_path / "job", emit=warnings.append, cancel=threading.Event(), place=place)
    assert result.state is JobState.COMPLETED
    assert any(e["event"] == "warning" and "fork server died" in e["message"] for e in warnings)
    server.close()


def test_a_server_that_dies_before_it_tells_of_its_worker_leaves_one_that_runs_nothing(tmp_path, monkeypatch):
    """A fresh worker takes over the folder; the other must not meddle."""
    server = ForkServer(common_environment(JOB), (), tmp_path / "log.txt")
    assert server.start()
    receive, workers = server._receive, []

    def die():
        workers.append(ForkedProcess(receive()["pid"]))
        server._process.kill()
        raise OSError("it ended")

    monkeypatch.setattr(server, "_receive", die)
    folder, sockets = tmp_path / "job", tmp_path / "s"
    notebook = write_notebook(tmp_path / "n.ipynb", "open('ran', 'w')")
    execution.prepare(Job("job", notebook, None, "offline", None, {}, Limits(60, 60)), folder)
    environment = {**common_environment(JOB), **job_environment(folder, "f" * 32)}
    reports, report = os.pipe()
    with (folder / "log.txt").open("wb") as log, pytest.raises(OSError, match="the fork server died"):
        server.spawn([str(folder), str(sockets), str(os.getpid())], environment, log, report, warm=True)
    os.close(report)
    assert workers[0].wait() == 0
    assert os.read(reports, 100) == b"" and {p.name for p in folder.iterdir()} == {"job.json", "log.txt"}
    assert not sockets.exists() and not (tmp_path / "ran").exists()
    os.close(reports)
    server.close()


def test_a_seat_that_was_killed_is_a_kernel_that_died():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    process = subprocess.Popen(["sleep", "100"])
    process.kill()
    kernel = Seat(process.pid, ours).take(["python"], {}, ".")
    assert kernel.wait() == -signal.SIGKILL
    process.wait()


def test_a_package_that_starts_a_thread_is_told_and_kernels_are_fresh(tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "threadful.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True, name='busy').start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    server = ForkServer(common_environment(JOB), ["threadful"], tmp_path / "log.txt")
    assert not server.start()
    assert "busy" in server.trouble
    server.close()
    write_book(tmp_path / "book", {"01-a": ["import threadful\nprint('ran')"]}, warm=["threadful"])
    book = load_book(tmp_path / "book")
    events = []
    run_dir = create_run(book.root, "offline")
    outcome = execute(
        plan(book, book.chapters, Request()), run_dir, book=book, command=(), progress=events.append
    )
    assert outcome.results[0].state is JobState.COMPLETED
    assert any("warm kernels are off" in e.get("message", "") for e in events)


def test_a_package_that_opens_the_gpu_is_told(tmp_path, monkeypatch):
    (tmp_path / "gpuish.py").write_text(f"held = open({str(tmp_path / 'nvidia0')!r}, 'w')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    server = ForkServer(common_environment(JOB), ["gpuish"], tmp_path / "log.txt")
    assert not server.start()
    assert "touched the GPU" in server.trouble
    server.close()


def test_memory_that_processes_share_counts_once(tmp_path, server):
    source = "import torch, datasets, transformers\nx = torch.ones(50_000_000)\nimport time; time.sleep(1.2)"
    peaks = []
    for place in (server, None):
        notebook = write_notebook(tmp_path / "n.ipynb", source)
        job = Job("job", notebook, None, "offline", None, {}, Limits(60, 60), network=False)
        around = Place(common_environment(JOB), place, warm=place is not None)
        result = run_job(
            job, tmp_path / "job", emit=lambda event: None, cancel=threading.Event(), place=around
        )
        peaks.append(result.peak_rss_mb)
    assert peaks[0] == pytest.approx(peaks[1], rel=0.35)  # the worker itself is lighter when it is fresh


def test_the_harness_killed_outright_leaves_no_server(tmp_path):
    notebook = write_notebook(tmp_path / "n.ipynb", "import time\nprint('here', flush=True)\ntime.sleep(600)")
    command = [sys.executable, "-m", "harness", "run", "--out", str(tmp_path / "out"), str(notebook)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as harness:
        family = _wait_for_kernel(psutil.Process(harness.pid))
        os.kill(harness.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=40)
    assert not alive


def _wait_for_kernel(process):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        family = process.children(recursive=True)
        if len(family) >= 4:  # server, worker, its guard, kernel
            return family
        time.sleep(0.1)
    raise AssertionError("the kernel never started")


# --- what is imported, and who needs a fresh kernel -----------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import torch, os", ["torch"]),
        ("import torch.nn.functional as F", ["torch.nn.functional"]),
        ("from transformers import AutoModel as A, Trainer", ["transformers", "transformers:AutoModel",
                                                              "transformers:Trainer"]),
        ("from torch import *", ["torch"]),
        ("def later():\n    import torch", []),
        ("f = lambda: __import__('torch')", []),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\nelse:\n    import numpy", ["numpy"]),
        ("try:\n    import torch\nexcept ImportError:\n    import numpy", ["numpy", "torch"]),
        ("class Model:\n    import torch", ["torch"]),
        ("%pip list\nimport torch", ["torch"]),
        ("%%bash\nimport torch", []),
        ("import torch(", []),
        ("from . import torch", []),
        ("import torchvision", []),
    ],
)  # fmt: skip
def test_what_running_the_cells_imports(tmp_path, source, expected):
    notebook = read_notebook(write_notebook(tmp_path / "n.ipynb", source))
    assert modules_to_import([notebook], None, (), HEAVY) == expected


def test_imports_of_the_books_own_files_count_too(tmp_path):
    write_book(tmp_path, {"01-a": ["import lib"]}, packages=["lib"])
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "__init__.py").write_text("from lib import deep\n")
    (tmp_path / "lib" / "deep.py").write_text("import scipy.stats\n")
    book = load_book(tmp_path)
    notebook = read_notebook(book.chapters[0])
    assert modules_to_import([notebook], book.root, book.packages, HEAVY) == ["scipy.stats"]


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.environ['HF_HOME'] = 'x'",
        "%env HF_HOME=x",
        "%set_env A 1",
        "import os\nos.putenv('A', '1')",
    ],
)
def test_a_notebook_that_sets_variables_gets_a_fresh_kernel(tmp_path, source):
    notebook = read_notebook(write_notebook(tmp_path / "n.ipynb", source))
    assert "environment variables" in reason_for_cold(notebook, {"torch"}, None, ())


def test_so_does_one_beside_a_file_that_hides_a_package(tmp_path):
    notebook = read_notebook(write_notebook(tmp_path / "n.ipynb", "import datasets"))
    assert reason_for_cold(notebook, {"datasets"}, None, ()) == ""
    (tmp_path / "datasets.py").write_text("HERE = True\n")
    assert "datasets.py" in reason_for_cold(notebook, {"datasets"}, None, ())
    (tmp_path / "datasets.py").unlink()
    (tmp_path / "datasets").mkdir()  # a folder of data hides nothing: it is no package
    assert reason_for_cold(notebook, {"datasets"}, None, ()) == ""
    (tmp_path / "datasets" / "__init__.py").touch()
    assert "datasets" in reason_for_cold(notebook, {"datasets"}, None, ())


def test_and_one_in_another_language(tmp_path):
    notebook = read_notebook(write_notebook(tmp_path / "n.ipynb", "1", kernel="ir"))
    assert "'ir'" in reason_for_cold(notebook, (), None, ())
