"""Jobs side by side: how many, in which order, with what."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from notebooks import outputs_of, write_book

from harness.archive.folder import find_run
from harness.cli.app import main
from harness.errors import HarnessError
from harness.execute import schedule
from harness.execute.schedule import Machine, Need, Schedule, find_machine, needs
from harness.model import Job, Limits


@dataclass(frozen=True)
class Entry:
    name: str
    need: Need = field(default_factory=Need)


def run(machine, entries, start, stopped=lambda: False):
    return Schedule(machine, entries, lambda entry: entry.need, stopped).run(start)


# --- the machine ---------------------------------------------------------------------------------------


@pytest.fixture
def has(monkeypatch):
    """A machine with so many cores and GPUs."""

    def has(cores, gpus=0):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(schedule, "cores", lambda: cores)
        monkeypatch.setattr(schedule, "nvidia_gpus", lambda: tuple({"name": "A"} for _ in range(gpus)))
        monkeypatch.setattr(schedule, "hardware_class", lambda device: "cuda-A" if gpus else "cpu")

    return has


@pytest.mark.parametrize(
    ("cores", "gpus", "count", "flags", "expected"),  # expected: jobs, threads, gpus
    [
        (2, 0, 40, {}, (2, 1, ())),
        (2, 0, 1, {}, (1, None, ())),
        (2, 0, 7, {}, (1, None, ())),  # of a few, the last would run on one core while the other is idle
        (2, 0, 8, {}, (2, 1, ())),
        (16, 0, 2, {}, (2, 8, ())),
        (16, 0, 20, {}, (5, 3, ())),
        (16, 0, 80, {}, (16, 1, ())),
        (16, 0, 40, {}, (10, 1, ())),
        (16, 0, 3, {}, (3, 5, ())),
        (16, 0, 9, {"jobs": 4}, (4, 4, ())),
        (2, 0, 9, {"jobs": 5}, (5, 1, ())),
        (2, 0, 0, {}, (1, None, ())),
        (16, 2, 9, {}, (2, 8, ("0", "1"))),
        (16, 2, 9, {"jobs": 8}, (2, 8, ("0", "1"))),  # no more jobs than GPUs
        (16, 4, 9, {"gpus": "2"}, (2, 8, ("0", "1"))),
        (16, 4, 9, {"gpus": "3,1"}, (2, 8, ("3", "1"))),
        (16, 4, 9, {"gpus": "3,"}, (1, None, ("3",))),
    ],
)
def test_what_is_found_and_what_the_user_says(has, cores, gpus, count, flags, expected):
    has(cores, gpus)
    found = find_machine("auto", count, **flags)
    assert (found.jobs, found.threads, found.gpus) == expected
    assert found.memory_mb > 0


def test_devices_that_the_caller_hides_stay_hidden(has, monkeypatch):
    has(16, 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa, GPU-bb")
    assert find_machine("auto", 9).gpus == ("GPU-aa", "GPU-bb")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert find_machine("auto", 9).gpus == ()


def test_a_named_device_is_locked_and_not_renumbered(has):
    has(16, 4)
    found = find_machine("cuda:2", 9)
    assert (found.jobs, found.gpus, found.pinned) == (1, ("2",), True)
    assert run(found, [Entry("a")], lambda entry, gpu: gpu) == [None]
    with pytest.raises(HarnessError, match="give one of them"):
        find_machine("cuda:2", 9, gpus="1")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"jobs": 0}, "--jobs must be 1 or more"),
        ({"memory_gb": 0.0}, "--memory must be"),
        ({"memory_gb": float("nan")}, "--memory must be"),
        ({"gpus": "5"}, "this machine has 2"),
        ({"gpus": "0"}, "this machine has 2"),
        ({"gpus": "0,7"}, "among those of this machine: 0, 1"),
        ({"gpus": ""}, "give a count"),
    ],
)
def test_what_cannot_be_is_told(has, flags, message):
    has(4, 2)
    with pytest.raises(HarnessError, match=message):
        find_machine("auto", 3, **flags)


# --- order ---------------------------------------------------------------------------------------------


def test_the_longest_first_and_the_unknown_among_them():
    entries = [Entry("short", Need(1)), Entry("new"), Entry("long", Need(9)), Entry("mid", Need(5))]
    order = []
    results = run(Machine(1, None, 1e9), entries, lambda entry, gpu: order.append(entry.name) or entry.name)
    assert order == ["new", "long", "mid", "short"]
    assert results == ["short", "new", "long", "mid"]  # in the order that was given


def test_as_many_at_once_as_there_are_slots():
    together, most, lock = 0, 0, threading.Lock()

    def start(entry, gpu):
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        time.sleep(0.05)
        with lock:
            together -= 1

    run(Machine(3, 1, 1e9), [Entry(str(i)) for i in range(9)], start)
    assert most == 3


def test_memory_keeps_large_jobs_apart_and_lets_small_ones_pass():
    running, seen, lock = [], [], threading.Lock()

    def start(entry, gpu):
        with lock:
            running.append(entry.name)
            seen.append(set(running))
        time.sleep(0.1)
        with lock:
            running.remove(entry.name)

    entries = [Entry("big1", Need(9, 700)), Entry("big2", Need(8, 700)), Entry("small", Need(1, 100)),
               Entry("huge", Need(7, 5000))]  # fmt: skip
    run(Machine(4, 1, 1000), entries, start)
    assert not any({"big1", "big2"} <= names for names in seen)
    assert {"big1", "small"} in seen
    assert {"huge"} in seen  # larger than the machine: alone, but it runs
    assert all(names == {"huge"} for names in seen if "huge" in names)


def test_one_that_raises_does_not_stop_the_others():
    done = []

    def start(entry, gpu):
        if entry.name == "bad":
            raise OSError("bad")
        done.append(entry.name)

    with pytest.raises(OSError, match="bad"):
        run(Machine(2, 1, 1e9), [Entry("bad", Need(9)), *(Entry(str(i)) for i in range(5))], start)
    assert sorted(done) == list("01234")


# --- history -------------------------------------------------------------------------------------------


def test_needs_come_from_the_newest_run_that_completed(tmp_path):
    def past(name, **job):
        folder = tmp_path / "_build" / "runs" / name
        folder.mkdir(parents=True)
        job = {"notebook": "chapters/a.ipynb", "profile": "smoke", "state": "completed", **job}
        (folder / "result.json").write_text(json.dumps({"jobs": [job]}))

    past("1", seconds=50.0, peak_rss_mb=900.0)
    past("2", seconds=60.0, peak_rss_mb=None)
    past("3", seconds=0.1, state="skipped")
    past("4", seconds=2.0, state="failed")
    past("5", seconds=3.0, profile="full")
    (tmp_path / "_build" / "runs" / "6").mkdir()
    (tmp_path / "_build" / "runs" / "6" / "result.json").write_text("{")
    job = Job("j", tmp_path / "chapters" / "a.ipynb", "a", "smoke", 1, {}, Limits())
    other = Job("k", tmp_path / "chapters" / "b.ipynb", "b", "smoke", 1, {}, Limits())
    found = needs(tmp_path, [job, other])
    assert found["j"] == Need(60.0, schedule.UNKNOWN_MB)
    assert found["k"] == Need()


# --- GPUs ----------------------------------------------------------------------------------------------


@pytest.fixture
def locks(tmp_path, monkeypatch):
    monkeypatch.setattr(schedule.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(schedule, "POLL", 0.02)


def test_no_gpu_is_lent_twice_even_across_runs(locks):
    held, lock = [], threading.Lock()

    def start(entry, gpu):
        with lock:
            assert gpu in ("0", "1")
            assert gpu not in held
            held.append(gpu)
        time.sleep(0.02)
        with lock:
            held.remove(gpu)

    machine = Machine(2, 1, 1e9, ("0", "1"))
    runs = [
        threading.Thread(target=run, args=(machine, [Entry(str(i)) for i in range(8)], start))
        for _ in range(3)
    ]
    failures = []
    threading.excepthook, before = failures.append, threading.excepthook
    for one in runs:
        one.start()
    for one in runs:
        one.join()
    threading.excepthook = before
    assert not failures


def test_a_harness_that_is_killed_gives_its_gpu_back(locks, tmp_path):
    code = (
        "import sys, time, tempfile\ntempfile.tempdir = sys.argv[1]\n"
        "from harness.execute.schedule import _lock_one\n"
        "with _lock_one(['0'], lambda: False) as gpu:\n    print(gpu, flush=True)\n    time.sleep(600)\n"
    )
    root = Path(schedule.__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=root
    ) as other:
        assert other.stdout.readline() == b"0\n"
        with schedule._lock_one(["0"], lambda: True) as gpu:
            assert gpu is None  # held by the other
        other.send_signal(signal.SIGKILL)
        other.wait()
        with schedule._lock_one(["0"], lambda: False) as gpu:
            assert gpu == "0"


def test_who_waits_for_a_gpu_can_be_stopped(locks):
    stop = threading.Event()
    with schedule._lock_one(["0"], lambda: False):
        threading.Timer(0.2, stop.set).start()
        assert run(Machine(1, None, 1e9, ("0",)), [Entry("a")], lambda entry, gpu: gpu, stop.is_set) == [None]


# --- a run ---------------------------------------------------------------------------------------------

MEET = """
import time
from pathlib import Path
Path("{me}").touch()
for _ in range(300):
    if Path("{other}").exists():
        break
    time.sleep(0.1)
else:
    raise TimeoutError("alone")
"""


def test_two_notebooks_run_at_the_same_time_with_their_share_of_threads(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    show = "import os\nprint('threads', os.environ['OMP_NUM_THREADS'])"
    pair = {"01-a": [MEET.format(me="a", other="b"), show], "02-b": [MEET.format(me="b", other="a"), show]}
    write_book(tmp_path, pair)
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--quiet", "--jobs", "2"]) == 0
    for out in find_run(tmp_path).glob("jobs/*/out.ipynb"):
        assert "threads" in "".join(outputs_of(out))
    for name in "ab":
        (tmp_path / "chapters" / name).unlink()
    monkeypatch.setattr(schedule, "POLL", 0.05)
    assert main(["run", "--quiet", "--jobs", "1", "--no-cache", "--cell-timeout", "3"]) == 4  # each alone
