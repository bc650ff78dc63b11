"""Which error a cell failed by, and from which line it came."""

from __future__ import annotations

import pytest

from harness.execute.kernel.ending import failed_line, telling_line, told_error

ERROR = {"ename": "ValueError", "evalue": "real", "traceback": []}
BROKEN_REPR = {"ename": "RuntimeError", "evalue": "shown before", "traceback": []}
NO_STDIN = {"ename": "StdinNotImplementedError", "evalue": "no input", "traceback": []}


def reply(ename, evalue=""):
    return {"status": "error", "ename": ename, "evalue": evalue}


@pytest.mark.parametrize(
    ("content", "shown", "told"),
    [
        ({"status": "ok"}, [], None),
        ({"status": "ok"}, [ERROR, BROKEN_REPR], ERROR),
        (reply("ValueError", "real"), [BROKEN_REPR, ERROR], ERROR),
        (reply("NoneType", "None"), [ERROR], ERROR),
        (reply("StdinNotImplementedError"), [ERROR, NO_STDIN], ERROR),
        (reply("StdinNotImplementedError"), [NO_STDIN], NO_STDIN),
        (reply("ValueError", "not shown"), [], {"evalue": "not shown", **reply("ValueError", "not shown")}),
        ({"status": "aborted"}, [], {"status": "aborted", "ename": "Aborted", "evalue": ""}),
    ],
)
def test_the_error_by_which_a_cell_failed(content, shown, told):
    assert told_error(content, shown) == told


@pytest.mark.parametrize(
    ("traceback", "line"),
    [
        ("Cell In[7], line 2\nCell In[7], line 1, in f()", 1),
        ("Cell In[7], line 2\nFile a.py:9, in g()", 2),
        ("Cell In[3], line 2", None),
        ("Cell In[7], line 9", None),
        ("  | Cell In[7], line 3, in <module>\n    | Cell In[7], line 1, in <module>", 3),
        ("\x1b[36mCell In[7]\x1b[39m\x1b[32m, line 2\x1b[39m", 2),
    ],
)
def test_the_line_of_an_error(traceback, line):
    error = {"output_type": "error", "traceback": traceback.splitlines()}
    assert failed_line({"source": "1\n2\n3", "execution_count": 7, "outputs": [error]}) == line


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("", ""),
        ("starting\nbound to port 1\n", "bound to port 1"),
        ("Traceback\nModuleNotFoundError: No module named 'x'\n\n", "ModuleNotFoundError: No module named 'x'"),
        ("Error in library(IRkernel) : none\nExecution halted\n", "Error in library(IRkernel) : none"),
    ],
)  # fmt: skip
def test_the_line_of_a_log_that_tells_why(log, line):
    assert telling_line(log) == line
