"""One notebook, really run, for every way in which a notebook can end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import nbformat
import psutil
import pytest
from notebooks import RECORD, outputs_of, write_notebook

from harness.errors import InfrastructureError
from harness.execute.kernel import job as execution
from harness.execute.kernel.job import JobFolder, run_job
from harness.execute.kernel.process import MARKER, marked
from harness.files import read_json
from harness.model import CellState, Job, JobState, Limits, job_result_from_json

LIMITS = Limits(60, 60)
needs_widgets = pytest.mark.skipif(find_spec("ipywidgets") is None, reason="ipywidgets is not installed")


@pytest.fixture
def run(tmp_path):
    """Run a notebook; afterwards no process of any of its jobs may be left."""
    markers: list[str] = []
    folders: list[Path] = []
    real = execution.worker_environment

    def remember(folder, marker):
        markers.append(marker)
        return real(folder, marker)

    real_folder = execution.socket_folder

    def remember_folder():
        folders.append(real_folder())
        return folders[-1]

    execution.worker_environment, execution.socket_folder = remember, remember_folder

    def run(path, *, parameters=None, limits=LIMITS, chapter=None, cancel=None, emit=lambda event: None):
        job = Job("job", path, chapter, "offline", None, parameters or {}, limits, network=False)
        return run_job(JobFolder(job, tmp_path / "job", emit), cancel)

    yield run
    execution.worker_environment, execution.socket_folder = real, real_folder
    assert markers and folders
    assert not [folder for folder in folders if folder.exists()], "sockets left behind"
    left = [p for marker in markers for p in marked(marker)]
    assert not left, f"left running: {left}"


def states(result):
    return [cell.state.value for cell in result.cells]


def place(result, number, line=None):
    """The one way to name a cell: its number from 1, its id and its first line."""
    cell = result.cells[number - 1]
    named = f"cell {number} (id {cell.id}) “{cell.code}”"
    return f"{named}, line {line}" if line else named


def saved(tmp_path):
    return nbformat.read(tmp_path / "job" / "out.ipynb", as_version=4)


@pytest.mark.quick
def test_completed_and_all_that_is_kept(run, tmp_path):
    path = write_notebook(
        tmp_path / "笔记 a{b}" / "第一 {x}.ipynb",
        "# 只有注释",
        f"{RECORD}\nrecord('acc', 0.5, unit='fraction', per_example=[1, 0])\nprint('你好')",
        "import os; print(os.getcwd())",
        "1/0",
        "raise ValueError('expected')",
        "import sys; print(sys.executable, os.environ['HF_HUB_OFFLINE'], os.environ['PYTHONHASHSEED'])",
        parameters="name = 'x'\nsize: int | None = None",
        tags={3: ["skip-execution"], 4: ["raises-exception"]},
        kernel=None,
    )
    before = path.read_bytes()
    events = []
    result = run(path, parameters={"name": "中文", "size": None}, emit=events.append)
    assert result.state is JobState.COMPLETED and result.reason == ""
    assert states(result) == [
        "completed",
        "skipped",
        "completed",
        "completed",
        "skipped",
        "completed",
        "completed",
    ]
    assert [cell.index for cell in result.cells] == list(range(7))
    assert [cell.id for cell in result.cells] == [cell.id for cell in nbformat.read(path, 4).cells]
    assert [(m.name, m.value, m.per_example) for m in result.metrics] == [("acc", 0.5, (1.0, 0.0))]
    assert result.peak_rss_mb > 20
    assert path.read_bytes() == before

    notebook = saved(tmp_path)
    assert notebook.cells[1].source.endswith("name = '中文'\nsize = None")
    text = outputs_of(tmp_path / "job" / "out.ipynb")
    assert "acc = 0.5 fraction" in text[3] and "你好" in text[3]
    assert text[4].strip() == str(path.parent)
    assert text[5] == "" and "expected" in text[6]
    assert sys.executable in text[7] and "1 0" in text[7]
    mimes = [mime for o in notebook.cells[3].outputs for mime in o.get("data", ())]
    assert "application/vnd.harness.metric.v1+json" in mimes
    assert "harness" not in "".join(c.source for c in notebook.cells[4:])
    statuses = [c.metadata.papermill.status for c in notebook.cells]
    assert statuses == ["completed", "completed", *states(result)[1:]]
    assert [c.execution_count for c in notebook.cells if c.execution_count] == list(range(1, 7))

    assert read_json(tmp_path / "job" / "result.json")["schema"] == 1
    assert job_result_from_json(read_json(tmp_path / "job" / "result.json")) == result
    assert read_json(tmp_path / "job" / "job.json")["parameters"]["name"] == "中文"
    kinds = [event["event"] for event in events]
    assert kinds[0] == "job_start" and kinds[-1] == "job_end" and kinds.count("cell_start") == 5
    started = [(e["cell"], e["total"], e["code"]) for e in events if e["event"] == "cell_start"]
    assert started[-1] == (7, 7, result.cells[-1].code)


def test_parameters_arrive_as_they_were_given(run, tmp_path):
    values = {"shape": (3, 4), "table": {1: "一", "k": None}, "lr": 1e-5, "flag": True}
    path = write_notebook(
        tmp_path / "a.ipynb",
        f"assert (shape, table, lr, flag) == {tuple(values.values())!r}",
        parameters="shape = (1, 2)\ntable = {}\nlr = 0.1\nflag = False",
    )
    assert run(path, parameters=values).state is JobState.COMPLETED


def test_an_error_without_words_ends_without_a_colon(run, tmp_path):
    result = run(write_notebook(tmp_path / "a.ipynb", "assert 1 == 2"))
    assert result.reason == f"{place(result, 1, 1)}: AssertionError"


@pytest.mark.quick
def test_a_cell_that_raises(run, tmp_path):
    path = write_notebook(
        tmp_path / "a.ipynb", f"{RECORD}\nrecord('acc', 1)", "def f():\n    return 1 / 0\nf()", "2"
    )
    result = run(path)
    assert result.state is JobState.FAILED
    assert result.reason == f"{place(result, 2, 2)}: ZeroDivisionError: division by zero"
    assert result.cells[1].line == 2
    assert states(result) == ["completed", "failed", "pending"]
    assert result.cells[1].error == "ZeroDivisionError: division by zero"
    assert [m.name for m in result.metrics] == ["acc"]
    assert "ZeroDivisionError" in outputs_of(tmp_path / "job" / "out.ipynb")[1]
    assert [c.metadata.papermill.status for c in saved(tmp_path).cells] == ["completed", "failed", "pending"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("os._exit(0)", "the kernel died (exit code 0)"),
        ("os._exit(3)", "the kernel died (exit code 3)"),
        ("os.kill(os.getpid(), 9)", "the kernel died (killed by SIGKILL (out of memory?))"),
    ],
)
def test_a_kernel_that_dies(run, tmp_path, source, reason):
    path = write_notebook(
        tmp_path / "a.ipynb", f"{RECORD}\nrecord('acc', 1)\nprint('so far')", f"import os\n{source}", "2"
    )
    result = run(path)
    assert (result.state, result.reason) == (JobState.DEAD, f"{place(result, 2)}: {reason}")
    assert states(result) == ["completed", "failed", "pending"]
    assert [m.name for m in result.metrics] == ["acc"]
    assert "so far" in outputs_of(tmp_path / "job" / "out.ipynb")[0]


@pytest.mark.parametrize(
    "source", ["import sys\nsys.exit(0)", "import sys; sys.exit()", "exit", "print(1)\nquit()"]
)
def test_a_kernel_that_ends_before_the_last_cell(run, tmp_path, source):
    result = run(write_notebook(tmp_path / "a.ipynb", "1", source, "print('unreached')"))
    assert result.state is JobState.EXITED_EARLY and result.reason.startswith(place(result, 2))
    assert states(result) == ["completed", "failed", "pending"]
    assert "unreached" not in "".join(outputs_of(tmp_path / "job" / "out.ipynb"))


def test_a_mistake_of_syntax_and_an_error_in_an_imported_module_name_the_line_of_the_cell(run, tmp_path):
    (tmp_path / "helper.py").write_text("def f(x):\n    pass\n\n\n    return 1 / x\n")
    result = run(write_notebook(tmp_path / "a.ipynb", "1", "x = 1\ny = (", "2"))
    assert result.reason.startswith(f"{place(result, 2, 2)}: SyntaxError")
    result = run(write_notebook(tmp_path / "a.ipynb", "import helper\n\nhelper.f(0)"))
    assert result.reason.startswith(f"{place(result, 1, 3)}: ZeroDivisionError")


def test_control_characters_do_not_reach_the_reason(run, tmp_path):
    source = "raise ValueError('\\x1b[31mred\\x1b[0m\\x07\\x1b]0;title\\x07 a\\tb\\u202ec')"
    result = run(write_notebook(tmp_path / "a.ipynb", source))
    assert result.cells[0].error == "ValueError: red a bc"


def test_exit_with_an_error_code_is_a_failure(run, tmp_path):
    result = run(write_notebook(tmp_path / "a.ipynb", "import sys; sys.exit(3)", "2"))
    assert (result.state, result.reason) == (JobState.FAILED, f"{place(result, 1)}: SystemExit: 3")


@pytest.mark.parametrize(("source", "words"), [("exit(1)", "1"), ("quit('no data')", "no data")])
def test_exit_means_its_argument_as_a_code(run, tmp_path, source, words):
    """IPython takes it for ``keep_kernel``; in the last cell it counts, too."""
    result = run(write_notebook(tmp_path / "a.ipynb", "1", source))
    assert (result.state, result.reason) == (JobState.FAILED, f"{place(result, 2)}: SystemExit: {words}")


def test_exit_that_keeps_the_kernel_ends_nothing(run, tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", "exit(keep_kernel=True)", "print('on')")
    assert run(path).state is JobState.COMPLETED
    assert outputs_of(tmp_path / "job" / "out.ipynb")[1] == "on\n"


SHOWN_NOT_REPLIED = (
    "%run fails.py",
    "%%capture\n1/0",
    "%%capture\nraise ExceptionGroup('two', [ValueError(1)])",
    "%%capture kept\n%no_such_magic",
    "%%time\n1/0",
    "get_ipython().run_cell('1/0')",
    "get_ipython().events.register('post_execute', lambda: 1/0)",
    "class A:\n    def _repr_html_(self): return 1/0\nA()",
    "from IPython.display import clear_output\nget_ipython().run_cell('1/0'); clear_output()",
)


@pytest.mark.parametrize("source", SHOWN_NOT_REPLIED)
def test_an_error_that_is_shown_but_not_replied_fails_its_cell(run, tmp_path, source):
    (tmp_path / "fails.py").write_text("print('a')\n1/0\n")
    result = run(write_notebook(tmp_path / "a.ipynb", "1", source, "2"))
    assert result.state is JobState.FAILED and states(result) == ["completed", "failed", "pending"]
    assert result.reason.startswith(place(result, 2))
    expected = "ExceptionGroup: two" if "Group" in source else "UsageError" if "no_such" in source else (
        "ZeroDivisionError: division by zero"
    )  # fmt: skip
    assert expected in result.reason


def test_an_error_that_is_shown_where_a_cell_may_raise(run, tmp_path):
    path = write_notebook(
        tmp_path / "a.ipynb", "%%capture\n1/0", "print('on')", tags={0: ["raises-exception"]}
    )
    assert run(path).state is JobState.COMPLETED


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            "class A:\n    def __repr__(self): raise RuntimeError('broken')\nA()",
            "line 2: RuntimeError: broken",
        ),
        ("%pdb on\nx = 0\n1 / x", "line 3: ZeroDivisionError: division by zero"),
        (
            "errors = []\ntry:\n    1 / 0\nexcept Exception as e:\n    errors.append(e)\n"
            "raise ExceptionGroup('all', errors)",
            "line 6: ExceptionGroup: all (1 sub-exception)",
        ),
        ("try:\n    1/0\nexcept Exception as e:\n    raise ValueError('b') from e", "line 4: ValueError: b"),
        ("e = ValueError('a')\ne.add_note('see')\nraise e", "line 3: ValueError: a"),
        ("1\nraise KeyboardInterrupt", "line 2: KeyboardInterrupt"),
    ],
)
def test_the_reason_is_the_real_error(run, tmp_path, source, reason):
    """Not what the reply says where it was lost, nor that a debugger finds nobody."""
    result = run(write_notebook(tmp_path / "a.ipynb", source, "2"))
    assert (result.state, result.reason) == (JobState.FAILED, f"{place(result, 1)}, {reason}")


@needs_widgets
def test_an_error_in_an_output_widget_fails_its_cell(run, tmp_path):
    source = "import ipywidgets\nwith ipywidgets.Output():\n    1 / 0"
    result = run(write_notebook(tmp_path / "a.ipynb", source, "2"))
    assert (result.state, states(result)) == (JobState.FAILED, ["failed", "pending"])
    assert result.reason.endswith("ZeroDivisionError: division by zero")


@needs_widgets
def test_messages_that_a_widget_sends_back_do_not_hide_the_reply(run, tmp_path):
    """They go over the socket on which the reply arrives; it was found at the cell's limit only."""
    source = (
        "import ipywidgets\nout = ipywidgets.Output()\n"
        "with out:\n    for i in range(40): print(i, flush=True)\nout.clear_output()"
    )
    path = write_notebook(tmp_path / "a.ipynb", *[source] * 12)
    result = run(path, limits=Limits(100, 100))
    assert result.state is JobState.COMPLETED and max(cell.seconds for cell in result.cells) < 50


LATER = """import asyncio, threading, time
async def task():
    await asyncio.sleep(0.2)
    print('task')
def thread():
    time.sleep(1)
    print('thread')
kept = asyncio.create_task(task())
threading.Thread(target=thread).start()"""


def test_what_an_earlier_cell_prints_later_is_not_lost(run, tmp_path):
    path = write_notebook(
        tmp_path / "a.ipynb", LATER, "import asyncio; await asyncio.sleep(0.4); print('here')"
    )
    assert run(path).state is JobState.COMPLETED
    first, last = outputs_of(tmp_path / "job" / "out.ipynb")
    assert "task\n" in first and "here\n" in last
    assert (first + last).count("thread\n") == 1  # below which one is IPython's choice


def test_an_error_of_a_task_that_an_earlier_cell_started_is_that_cells(run, tmp_path):
    source = (
        "import asyncio\nasync def later():\n    await asyncio.sleep(0.3)\n    get_ipython().run_cell('1/0')\n"
        "t = asyncio.create_task(later())"
    )
    path = write_notebook(tmp_path / "a.ipynb", source, "import asyncio; await asyncio.sleep(1)", "2")
    result = run(path)
    assert (result.state, states(result)) == (JobState.FAILED, ["failed", "completed", "pending"])
    assert result.reason == f"{place(result, 1)}: ZeroDivisionError: division by zero"


SAVES = """import atexit, threading, time
results = {'loss': 0.5}
def save(name):
    open(name, 'w').write(str(results))
def slowly():
    time.sleep(1.5)
    save('thread')
atexit.register(lambda: (print('saving'), save('handler')))
threading.Thread(target=slowly).start()"""


@pytest.mark.parametrize(
    ("last", "state"), [("2", "completed"), ("1/0", "failed"), ("exit()\n", "exited_early")]
)
def test_a_kernel_ends_as_a_script_does(run, tmp_path, last, state):
    """Threads are waited for and exit handlers find their names, whether the notebook failed or not."""
    result = run(write_notebook(tmp_path / "a.ipynb", SAVES, last, "3"))
    assert result.state == state
    assert (tmp_path / "thread").read_text() == (tmp_path / "handler").read_text() == "{'loss': 0.5}"
    assert "saving" in "".join(outputs_of(tmp_path / "job" / "out.ipynb"))


def test_an_exit_handler_that_hangs_is_ended_and_told(run, tmp_path):
    events = []
    path = write_notebook(tmp_path / "a.ipynb", "import atexit, time\natexit.register(time.sleep, 600)")
    result = run(path, limits=Limits(60, 10), emit=events.append)
    assert (result.state, result.reason) == (JobState.COMPLETED, "")
    (warning,) = [e["message"] for e in events if e["event"] == "warning"]
    assert warning.startswith("job: the kernel did not end within ") and "exit handler" in warning
    assert " of which it worked " in warning


def test_commands_are_those_of_the_kernel(run, tmp_path, monkeypatch):
    elsewhere = tmp_path / "bin"
    elsewhere.mkdir()
    (elsewhere / "python").write_text("#!/bin/sh\necho another python\n")
    (elsewhere / "python").chmod(0o755)
    monkeypatch.setenv("PATH", f"{elsewhere}{os.pathsep}{os.environ['PATH']}")
    shows = "import subprocess\nprint(subprocess.run(['python', '-c', 'import sys; print(sys.prefix)'],"
    shows += " capture_output=True, text=True).stdout)"
    path = write_notebook(tmp_path / "a.ipynb", "!python -c 'import sys; print(sys.prefix)'", shows)
    assert run(path).state is JobState.COMPLETED
    assert [text.strip() for text in outputs_of(tmp_path / "job" / "out.ipynb")] == [sys.prefix] * 2


def test_error_markers_of_an_earlier_run_are_gone(run, tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", "1", "1/0")
    notebook = nbformat.read(path, as_version=4)
    for position in (0, 2):
        marker = nbformat.v4.new_markdown_cell("An Exception was encountered at 'In [1]'")
        marker.metadata["tags"] = ["papermill-error-cell-tag"]
        notebook.cells.insert(position, marker)
    nbformat.write(notebook, path)
    result = run(path)
    assert result.reason.startswith(place(result, 2, 1)) and states(result) == ["completed", "failed"]
    assert [cell.cell_type for cell in saved(tmp_path).cells] == ["code", "code"]


def test_a_cell_past_its_limit_shows_where_it_hung(run, tmp_path):
    path = write_notebook(
        tmp_path / "a.ipynb", f"{RECORD}\nrecord('acc', 1)", "import time\nprint('a')\ntime.sleep(600)", "2"
    )
    result = run(path, limits=Limits(1, 60))
    assert result.state is JobState.TIMED_OUT
    raising = "raise it with --cell-timeout, or with cell_timeout in harness.yml"
    assert result.reason == f"{place(result, 2, 3)}: ran past the cell's limit of 1 s; {raising}"
    assert states(result) == ["completed", "failed", "pending"]
    assert [m.name for m in result.metrics] == ["acc"]
    text = outputs_of(tmp_path / "job" / "out.ipynb")[1]
    assert text.startswith("a") and "KeyboardInterrupt" in text


def test_a_cell_that_ignores_the_interrupt(run, tmp_path, monkeypatch):
    stubborn = "import time\nwhile True:\n    try: time.sleep(600)\n    except KeyboardInterrupt: print('no')"
    result = run(write_notebook(tmp_path / "a.ipynb", stubborn, "2"), limits=Limits(1, 60))
    assert result.state is JobState.TIMED_OUT and states(result) == ["failed", "pending"]
    assert "no" in outputs_of(tmp_path / "job" / "out.ipynb")[0]


def test_a_notebook_past_its_limit(run, tmp_path):
    cells = ["import time; time.sleep(0.7)"] * 30
    result = run(write_notebook(tmp_path / "a.ipynb", *cells), limits=Limits(30, 2))
    assert result.state is JobState.TIMED_OUT and "ran past the notebook's limit of 2 s" in result.reason
    assert {"completed", "failed", "pending"} == set(states(result))


def test_a_worker_that_hangs_is_killed_from_outside(run, tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "OVERRUN_GRACE", 0.0)
    freeze = "import os, signal, time\nos.kill(os.getppid(), signal.SIGSTOP)\ntime.sleep(600)"
    result = run(write_notebook(tmp_path / "a.ipynb", "1", freeze, "2"), limits=Limits(None, 10))
    assert result.state is JobState.TIMED_OUT and "was killed" in result.reason
    assert states(result) == ["completed", "failed", "pending"]
    assert len(saved(tmp_path).cells) == 3


def test_a_worker_that_is_killed(run, tmp_path):
    path = write_notebook(
        tmp_path / "a.ipynb", f"{RECORD}\nrecord('acc', 1)", "import os; os.kill(os.getppid(), 9)", "2"
    )
    result = run(path)
    assert (
        result.state is JobState.DEAD and "killed by SIGKILL" in result.reason and "log.txt" in result.reason
    )
    assert states(result) == ["completed", "failed", "pending"]
    assert [m.name for m in result.metrics] == ["acc"]


BARE = "['/usr/bin/env', '-i', 'setsid', 'bash', '-c', '(sleep 1003 >/dev/null 2>&1 & echo $!)']"
"""A process that is nobody's child and has no environment."""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a subreaper")
def test_what_the_notebook_just_started_goes_with_a_worker_that_is_killed(run, tmp_path):
    """Nobody had the time to see it."""
    source = (
        f"import os, subprocess\nbare = subprocess.run({BARE}, capture_output=True).stdout\n"
        "open('pid', 'wb').write(bare)\nos.kill(os.getppid(), 9)"
    )
    result = run(write_notebook(tmp_path / "a.ipynb", source))
    assert result.state is JobState.DEAD
    assert not alive(int((tmp_path / "pid").read_text()))


def test_children_of_others_are_no_orphans_of_a_job(run, tmp_path):
    """A test that runs a notebook may have started a server before."""
    server = subprocess.Popen(["sleep", "1000"], start_new_session=True, env={})
    time.sleep(1.5)
    try:
        result = run(write_notebook(tmp_path / "a.ipynb", "import os; os.kill(os.getppid(), 9)"))
        assert result.state is JobState.DEAD and server.poll() is None
    finally:
        server.kill()
        server.wait()


def test_a_kernel_that_is_killed_while_it_starts(run, tmp_path, monkeypatch):
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text("import os; os.kill(os.getpid(), 9)")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    result = run(write_notebook(tmp_path / "a.ipynb", "1", "2"))
    assert result.state is JobState.DEAD and states(result) == ["pending", "pending"]
    assert result.reason == "before the first cell: the kernel died (killed by SIGKILL (out of memory?))"
    assert len(saved(tmp_path).cells) == 2


def test_grandchildren_do_not_outlive_the_job(run, tmp_path):
    spawn = (
        "import os, subprocess, sys, time\n"
        "bare = {'PATH': os.environ['PATH']}\n"
        "a = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        "b = subprocess.Popen(['sleep', '1000'], start_new_session=True, env=bare)\n"
        "quiet = {'stdout': -3, 'stderr': -3, 'start_new_session': True}\n"
        'nested = f\'import subprocess; print(subprocess.Popen(["sleep", "1000"], **{quiet}).pid)\'\n'
        "c = subprocess.run([sys.executable, '-c', nested], capture_output=True, text=True).stdout.strip()\n"
        "print(a.pid, b.pid, c)\n"
        "time.sleep(1.2)"
    )
    result = run(write_notebook(tmp_path / "a.ipynb", spawn))
    assert result.state is JobState.COMPLETED
    pids = [int(pid) for pid in outputs_of(tmp_path / "job" / "out.ipynb")[0].split()]
    assert len(pids) == 3 and not [pid for pid in pids if alive(pid)]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a subreaper")
def test_a_process_without_parent_and_environment_does_not_outlive_the_job(run, tmp_path):
    source = (
        "import subprocess\n"
        "script = '(sleep 1002 >/dev/null 2>&1 & echo $!)'\n"
        "done = subprocess.run(['/usr/bin/env', '-i', 'setsid', 'bash', '-c', script], capture_output=True)\n"
        "print(done.stdout.decode())"
    )
    result = run(write_notebook(tmp_path / "a.ipynb", source))
    assert result.state is JobState.COMPLETED
    assert not alive(int(outputs_of(tmp_path / "job" / "out.ipynb")[0]))


BUSY = """
import sys, threading
from pathlib import Path
from harness.execute.kernel.job import JobFolder, run_job
from harness.model import Job, Limits

job = Job("job", Path(sys.argv[1]), None, "offline", None, {}, Limits())
run_job(JobFolder(job, Path(sys.argv[2]), lambda e: print(e["event"], flush=True)))
"""


def test_a_killed_harness_leaves_no_worker_that_cannot_hear(tmp_path):
    """The worker is stopped here, which is even deafer than busy in one long call."""
    notebook = write_notebook(
        tmp_path / "a.ipynb",
        "import os, signal, subprocess, time\nprint(os.getppid(), os.getpid())\n"
        f"bare = subprocess.run({BARE}, capture_output=True, text=True).stdout.strip()\n"
        "open('pids', 'w').write(f'{os.getppid()} {os.getpid()} {bare}')\n"
        "os.kill(os.getppid(), signal.SIGSTOP)\ntime.sleep(600)",
    )
    command = [sys.executable, "-c", BUSY, str(notebook), str(tmp_path / "job")]
    harness = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    pids = tmp_path / "pids"
    try:
        wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 3)
        wait_for(lambda: psutil.Process(int(pids.read_text().split()[0])).status() == psutil.STATUS_STOPPED)
    finally:
        harness.kill()
        harness.wait()
    family = list(map(int, pids.read_text().split()))
    wait_for(lambda: not any(map(alive, family)))


def test_a_worker_whose_harness_was_gone_before_it_began(tmp_path):
    """It never saw its parent: it goes by the pid that it was given."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    notebook = write_notebook(tmp_path / "a.ipynb", "import time\ntime.sleep(600)")
    job = Job("job", notebook, None, "offline", None, {}, LIMITS, network=False)
    JobFolder(job, tmp_path / "job").prepare()
    sockets, marker = execution.socket_folder(), f"test-{os.getpid()}-{time.monotonic()}"
    read_end, write_end = os.pipe()
    worker = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "harness.execute.kernel.worker",
            tmp_path / "job",
            sockets,
            str(gone.pid),
            str(write_end),
        ],
        env={**os.environ, MARKER: marker},
        pass_fds=(write_end,),
        start_new_session=True,
    )
    os.close(write_end)
    try:
        assert worker.wait(60) == 0
        assert not sockets.exists() and marked(marker) == []
        with os.fdopen(read_end) as reports:
            assert json.loads(reports.read().splitlines()[-1])["state"] == "cancelled"
    finally:
        worker.kill()
        worker.wait()


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    "source", ["!true\n!ls /no/such/folder", "x = !ls /no/such/folder", "%%bash\nls /no/such/folder"]
)
def test_a_failing_command_fails_the_cell_and_is_named(run, tmp_path, source):
    result = run(write_notebook(tmp_path / "a.ipynb", "!echo fine", source, "2"))
    assert (
        result.state is JobState.FAILED
        and result.reason.startswith(place(result, 2))
        and "CalledProcessError" in result.reason
    )
    assert states(result) == ["completed", "failed", "pending"]
    assert "ls /no/such/folder" in result.reason + outputs_of(tmp_path / "job" / "out.ipynb")[1]
    assert [c.source for c in saved(tmp_path).cells] == ["!echo fine", source, "2"]


def test_a_failing_command_in_a_cell_that_may_raise(run, tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", "!false", "print('on')", tags={0: ["raises-exception"]})
    assert run(path).state is JobState.COMPLETED


def test_a_kernel_that_is_not_installed(run, tmp_path):
    result = run(write_notebook(tmp_path / "a.ipynb", "1", kernel="julia-9.9"))
    assert result.state is JobState.INVALID
    assert "'julia-9.9', which is not installed" in result.reason and "\n" not in result.reason


def test_an_installed_python3_that_points_elsewhere_is_not_believed(run, tmp_path, monkeypatch):
    spec = tmp_path / "share" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(
        json.dumps({"argv": ["/bin/false", "{connection_file}"], "display_name": "x", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    assert run(write_notebook(tmp_path / "a.ipynb", "1")).state is JobState.COMPLETED


def install(tmp_path, monkeypatch, name, *argv, language="python"):
    """A kernelspec of that name."""
    spec = tmp_path / "share" / "kernels" / name / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": argv, "display_name": name, "language": language}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))


def test_a_kernel_that_does_not_start(run, tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "broken", "/bin/false", "{connection_file}")
    result = run(write_notebook(tmp_path / "a.ipynb", "1", kernel="broken"))
    assert result.state is JobState.DEAD and states(result) == ["pending"]
    assert result.reason == "before the first cell: the kernel 'broken' did not start (exit code 1)"


def test_a_kernel_that_dies_at_its_start_says_why(run, tmp_path, monkeypatch):
    program = "import sys\nprint('starting')\nimport no_such_module"
    install(tmp_path, monkeypatch, "broken", sys.executable, "-c", program, "{connection_file}")
    result = run(write_notebook(tmp_path / "a.ipynb", "1", kernel="broken"))
    assert result.state is JobState.DEAD and result.seconds < 30
    assert result.reason == (
        "before the first cell: the kernel 'broken' did not start (exit code 1: ModuleNotFoundError: "
        f"No module named 'no_such_module'; see {tmp_path / 'job' / 'log.txt'})"
    )


def test_a_kernel_that_never_answers(run, tmp_path, monkeypatch):
    install(
        tmp_path,
        monkeypatch,
        "mute",
        sys.executable,
        "-c",
        "import time; time.sleep(600)",
        "{connection_file}",
    )
    result = run(write_notebook(tmp_path / "a.ipynb", "1", kernel="mute"), limits=Limits(60, 4))
    assert result.state is JobState.TIMED_OUT and "\n" not in result.reason
    assert result.reason.startswith(
        "before the first cell: the kernel 'mute' ran past the notebook's limit of 4 s as it started (its log: "
    )
    assert result.reason.endswith(
        "/log.txt); raise it with --notebook-timeout, or with notebook_timeout in harness.yml"
    )


TCP_ONLY = """
import json, runpy, sys
connection = json.load(open(sys.argv[-1]))
ports = [connection[f"{name}_port"] for name in ("shell", "iopub", "stdin", "control", "hb")]
if connection["transport"] != "tcp" or connection["ip"] != "127.0.0.1" or len(set(ports)) < 5:
    sys.exit("cannot bind " + f'{connection["transport"]}://{connection["ip"]}:{ports[0]}')
runpy.run_module("ipykernel" + "_launcher", run_name="__main__")
"""


def test_a_kernel_that_knows_tcp_alone(run, tmp_path, monkeypatch):
    (tmp_path / "kernel.py").write_text(TCP_ONLY)
    install(
        tmp_path, monkeypatch, "tcp", sys.executable, str(tmp_path / "kernel.py"), "-f", "{connection_file}"
    )
    result = run(write_notebook(tmp_path / "a.ipynb", "print('over tcp')", "1/0", kernel="tcp"))
    assert result.reason == f"{place(result, 2, 1)}: ZeroDivisionError: division by zero"
    assert outputs_of(tmp_path / "job" / "out.ipynb")[0] == "over tcp\n"


def test_a_kernel_whose_ports_are_taken_meanwhile_is_started_again(run, tmp_path, monkeypatch):
    taken = "import os, sys\nif not os.path.exists('tried'):\n    open('tried', 'w')\n"
    taken += "    sys.exit('zmq.error.ZMQError: Address already in use (addr=tcp://127.0.0.1:1)')\n"
    (tmp_path / "kernel.py").write_text(taken + TCP_ONLY)
    install(
        tmp_path, monkeypatch, "tcp", sys.executable, str(tmp_path / "kernel.py"), "-f", "{connection_file}"
    )
    assert run(write_notebook(tmp_path / "a.ipynb", "1", kernel="tcp")).state is JobState.COMPLETED


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "kernel.json is broken (JSONDecodeError: "),
        ("[]", "kernel.json is broken (TypeError: "),
        ('{"argv": 3, "display_name": "x", "language": "python"}', "kernel.json is broken (TraitError: "),
        (
            '{"display_name": "x", "language": "python"}',
            "kernel.json has no argv; mend it, or choose python3",
        ),
        ('{"argv": ["/no/such/program"], "display_name": "x", "language": "python"}', "did not start"),
    ],
)
def test_a_kernelspec_that_is_broken(run, tmp_path, monkeypatch, text, problem):
    spec = tmp_path / "share" / "kernels" / "odd" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(text)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    result = run(write_notebook(tmp_path / "a.ipynb", "1", kernel="odd"))
    assert result.state is JobState.INVALID
    assert "kernel 'odd'" in result.reason and problem in result.reason and "\n" not in result.reason


def test_a_notebook_without_cells_is_done_at_once(run, tmp_path):
    result = run(write_notebook(tmp_path / "a.ipynb"))
    assert (result.state, result.cells) == (JobState.COMPLETED, ()) and saved(tmp_path).cells == []


@pytest.mark.parametrize(
    "source",
    ["%run no_such.py", "%no_such_magic", "%sx ls /no/such", "%system false", "%load_ext no_such",
     "%%script false\nx", "%timeit 1 / 0"],
)  # fmt: skip
def test_a_failing_magic_fails_the_cell(run, tmp_path, source):
    result = run(write_notebook(tmp_path / "a.ipynb", source, "2"))
    assert result.state is JobState.FAILED and result.reason.startswith(place(result, 1))
    assert states(result) == ["failed", "pending"]


def test_a_cell_that_gets_no_memory_has_failed(run, tmp_path):
    """Where the system says no; where it kills instead, the kernel has died by SIGKILL."""
    source = "import resource as r\nr.setrlimit(r.RLIMIT_AS, (2**33, 2**33))\nx = bytearray(2**40)"
    result = run(write_notebook(tmp_path / "a.ipynb", f"{RECORD}\nrecord('acc', 1)", source, "2"))
    assert (result.state, result.reason) == (JobState.FAILED, f"{place(result, 2, 3)}: MemoryError")
    assert [m.name for m in result.metrics] == ["acc"]


def test_progress_bars_and_floods_arrive_whole(run, tmp_path):
    flood = "for i in range(20000): print('x' * 50)"
    bar = "import sys, time\nfor i in range(5):\n    print(f'\\r{i}', end='', flush=True); time.sleep(0.05)"
    result = run(write_notebook(tmp_path / "a.ipynb", flood, bar))
    assert result.state is JobState.COMPLETED
    text = outputs_of(tmp_path / "job" / "out.ipynb")
    assert text[0].count("\n") == 20000 and text[1].strip() == "4"


def test_a_flood_is_cut_and_does_not_stop_the_clock(run, tmp_path):
    one_line = "print('x' * 50_000_000)"
    many = "for i in range(300_000): print(i)"
    both = "import sys\nfor i in range(300): print(i, flush=True); print(i, file=sys.stderr, flush=True)"
    result = run(write_notebook(tmp_path / "a.ipynb", one_line, many, both))
    assert result.state is JobState.COMPLETED
    outputs = [cell.outputs for cell in saved(tmp_path).cells]
    assert [len(o) for o in outputs] == [1, 1, 2]
    assert outputs[0][0].text.endswith("… 40,000,001 characters left out\n")
    assert outputs[1][0].text.count("\n") == 300_000
    assert [o.name for o in outputs[2]] == ["stdout", "stderr"]
    assert outputs[2][1].text.count("\n") == 300


@pytest.mark.parametrize("printed", ["'x' * 100_000", "1", "'x' * 1000, end=chr(13)"])
def test_a_cell_that_floods_for_ever_is_stopped(run, tmp_path, printed):
    path = write_notebook(tmp_path / "a.ipynb", f"while True: print({printed})", "2")
    result = run(path, limits=Limits(2, 60))
    assert (result.state, states(result)) == (JobState.TIMED_OUT, ["failed", "pending"])
    assert (tmp_path / "job" / "out.ipynb").stat().st_size < 25_000_000


def test_input_fails_fast(run, tmp_path):
    result = run(write_notebook(tmp_path / "a.ipynb", "input('name?')"))
    assert result.state is JobState.FAILED and "StdinNotImplementedError" in result.reason


def test_cancelled_while_running(run, tmp_path):
    path = write_notebook(
        tmp_path / "a.ipynb", f"{RECORD}\nrecord('acc', 1)", "import time; time.sleep(600)", "2"
    )
    cancel = threading.Event()

    def emit(event):
        if event["event"] == "cell_start" and event["cell"] == 2:
            cancel.set()

    result = run(path, cancel=cancel, emit=emit)
    assert result.state is JobState.CANCELLED and result.reason.startswith(
        f"interrupted in {place(result, 2)}"
    )
    assert states(result) == ["completed", "failed", "pending"]
    assert [m.name for m in result.metrics] == ["acc"]
    assert "acc = 1" in outputs_of(tmp_path / "job" / "out.ipynb")[0]


def test_cancelled_before_the_first_cell(run, tmp_path):
    cancel = threading.Event()
    cancel.set()
    result = run(write_notebook(tmp_path / "a.ipynb", "1"), cancel=cancel)
    assert result.state is JobState.CANCELLED and (tmp_path / "job" / "out.ipynb").exists()


def test_an_output_that_cannot_be_written_is_told(run, tmp_path):
    path = write_notebook(
        tmp_path / "a.ipynb",
        "import os; os.mkdir(os.environ['HARNESS_METRICS'].replace('metrics.jsonl', 'out.ipynb'))",
    )
    events = []
    result = run(path, emit=events.append)
    assert result.state is JobState.DEAD
    assert result.reason.startswith("the notebook could not be saved: cannot write ")
    assert "InfrastructureError" not in result.reason and result.reason.endswith("out.ipynb: Is a directory")
    assert job_result_from_json(read_json(tmp_path / "job" / "result.json")) == result
    (trouble,) = [e for e in events if e["event"] == "trouble"]
    assert trouble["message"].startswith("job: cannot write ")


def test_a_failure_that_cannot_be_written_stays_a_failure(run, tmp_path):
    source = "import os; os.mkdir(os.environ['HARNESS_METRICS'].replace('metrics.jsonl', 'out.ipynb')); 1/0"
    result = run(write_notebook(tmp_path / "a.ipynb", source))
    assert result.state is JobState.FAILED
    assert "ZeroDivisionError" in result.reason and "; the notebook could not be saved: " in result.reason


def test_a_result_that_cannot_be_written_is_returned_all_the_same(run, tmp_path):
    source = "import os; os.mkdir(os.environ['HARNESS_METRICS'].replace('metrics.jsonl', 'result.json'))"
    result = run(write_notebook(tmp_path / "a.ipynb", source))
    assert result.state is JobState.DEAD and "result.json: Is a directory" in result.reason


def test_a_notebook_that_removes_its_folder_still_has_a_result(run, tmp_path):
    source = "import os, shutil; shutil.rmtree(os.path.dirname(os.environ['HARNESS_METRICS']))"
    result = run(write_notebook(tmp_path / "a.ipynb", source))
    assert result.state is JobState.COMPLETED and len(saved(tmp_path).cells) == 1
    assert job_result_from_json(read_json(tmp_path / "job" / "result.json")) == result


@pytest.mark.parametrize("last", ["'done'", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"])
def test_temporary_files_go_with_the_job(run, tmp_path, last):
    """Every chapter saves a model in a temporary folder; on a machine that runs the book daily the disk filled up."""
    save = "import tempfile, pathlib\nfolder = pathlib.Path(tempfile.mkdtemp())\n(folder / 'model').write_text('1')"
    cells = (f"{save}\nprint(folder)", "assert (folder / 'model').exists()", last)
    result = run(write_notebook(tmp_path / "a.ipynb", *cells))
    assert result.cells[1].state is CellState.COMPLETED, result.reason
    folder = Path(outputs_of(tmp_path / "job" / "out.ipynb")[0].strip())
    assert folder.is_relative_to(tempfile.gettempdir()) and not folder.exists()


def test_an_unrun_job_leaves_the_same_files(tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", "1", "2")
    job = Job("job", path, None, "offline", None, {}, Limits())
    result = JobFolder(job, tmp_path / "job").unrun(JobState.INVALID, "because")
    assert [c.state for c in result.cells] == [CellState.PENDING] * 2
    assert {p.name for p in (tmp_path / "job").iterdir()} == {"job.json", "result.json", "out.ipynb"}


def test_the_folder_for_sockets_is_made_by_the_worker(run, tmp_path, monkeypatch):
    """A harness that is killed while it starts one leaves nothing; where it cannot be made, that is said."""
    assert not execution.socket_folder().exists()
    taken, make = tmp_path / "taken", execution.socket_folder
    taken.write_text("")
    monkeypatch.setattr(execution, "socket_folder", lambda: make() and taken / "hk")
    result = run(write_notebook(tmp_path / "a.ipynb", "1"))
    assert result.state is JobState.DEAD
    assert result.reason == f"cannot make {taken / 'hk'} for the kernel's sockets: Not a directory"


def test_a_worker_leaves_no_sockets_should_its_harness_die_before_it_looks(run, tmp_path, monkeypatch):
    end, found = execution.WorkerProcess.end, []

    def look(worker):
        found.extend(path for path in sockets if path.exists())
        end(worker)

    make, sockets = execution.socket_folder, []
    monkeypatch.setattr(execution, "socket_folder", lambda: sockets.append(make()) or sockets[-1])
    monkeypatch.setattr(execution.WorkerProcess, "end", look)
    assert run(write_notebook(tmp_path / "a.ipynb", "1")).state is JobState.COMPLETED
    assert len(sockets) == 1 and not found


def test_the_folder_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    job = Job("job", write_notebook(tmp_path / "a.ipynb", "1"), None, "offline", None, {}, Limits())
    with pytest.raises(InfrastructureError, match="cannot write to"):
        run_job(JobFolder(job, tmp_path / "file" / "job"))


def test_marked_finds_detached_processes_by_their_environment():
    marker = f"test-{os.getpid()}-{time.monotonic()}"
    process = subprocess.Popen(["sleep", "100"], env={**os.environ, MARKER: marker}, start_new_session=True)
    try:
        found = []
        while not found:  # the environment shows up a moment after the process does
            found = [p.pid for p in marked(marker)]
        assert found == [process.pid]
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert marked(marker) == []
