"""`sft/commands.py`: what a user can mend is one line, a fault of ours keeps its traceback, Ctrl-C is quiet."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sft.commands import CommandError, explain, one_line_errors
from sft.hub import HubError
from sft.packaged import DataError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (CommandError("先做\n这个"), "先做 这个"),
        (DataError("a.csv：第 3 行"), "a.csv：第 3 行"),
        (HubError("the hub is silent"), "the hub is silent"),
        (FloatingPointError("loss is nan"), "loss is nan"),
        (MemoryError(), "内存"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "内存"),
        (OSError(errno.ENOSPC, "No space left on device", "a"), "磁盘满了"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 640 vs 534"), "磁盘满了"),
        (ValueError("I/O error: No space left on device (os error 28)"), "磁盘满了"),
        (PermissionError(errno.EACCES, "Permission denied", "模型"), "没有权限读写 模型"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "没有"), "没有"),
        (
            OSError("x does not appear to have a file named config.json.\nCheckout"),
            "named config.json. Checkout",
        ),
    ],
)
def test_what_a_user_can_mend_is_one_line(error, told, capsys):
    with pytest.raises(SystemExit) as ended, one_line_errors("finetune"):
        raise error
    written = capsys.readouterr().err
    assert ended.value.code == 3
    assert written.startswith("finetune: ") and written.count("\n") == 1 and told in written


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), RuntimeError("shape mismatch")])
def test_a_fault_of_ours_keeps_its_traceback(error):
    assert explain(error) is None
    with pytest.raises(type(error)), one_line_errors("finetune"):
        raise error


def test_ctrl_c_says_what_to_do_next(capsys):
    with pytest.raises(SystemExit) as ended, one_line_errors("finetune", interrupted="再来一次"):
        raise KeyboardInterrupt
    assert ended.value.code == 130 and capsys.readouterr().err == "\nfinetune: 再来一次\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_being_asked_to_end_during_an_import_is_no_traceback(number):
    code = (
        "import os; from sft.commands import expect_interrupts; expect_interrupts(); "
        f"os.kill(os.getpid(), {int(number)}); input()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "\n已中断\n" and done.returncode == -signal.SIGINT


def test_a_command_that_a_script_put_behind_can_still_be_asked_to_end():
    code = (
        "import os; from sft.commands import expect_interrupts, one_line_errors; expect_interrupts()\n"
        f"with one_line_errors('serve', interrupted='已停止'): os.kill(os.getpid(), {int(signal.SIGTERM)}); input()"
    )
    done = subprocess.run(
        f"trap '' INT; '{sys.executable}' -c \"$CODE\"",
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"CODE": code},
    )
    assert done.stderr == "\nserve: 已停止\n" and done.returncode == 130


@pytest.mark.parametrize("name", ["finetune", "predict", "export", "serve"])
def test_commands_expect_interrupts_before_they_import_anything_large(name):
    source = (ROOT / "sft" / f"{name}.py").read_text(encoding="utf-8")
    assert source.index("    expect_interrupts()\n") < min(
        source.index(line) for line in ("\nimport typer\n", "\nfrom dataclasses") if line in source
    )


def test_a_reader_that_has_read_enough_is_no_error():
    code = (
        "from sft.commands import one_line_errors\n"
        "with one_line_errors('predict'):\n    for n in range(100_000):\n        print(n)\n"
    )
    done = subprocess.run(
        f"'{sys.executable}' -c \"$CODE\" | head -1",
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"CODE": code},
    )
    assert done.stdout == "0\n" and done.stderr == ""
