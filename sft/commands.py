"""What this package's commands share: an error is one line, Ctrl-C is no traceback, the exit code says which.

Exit codes: 3 for what the user can mend, 130 for Ctrl-C (or a signal that asks to end), as shells have it.
"""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NoReturn

USAGE, INTERRUPTED = 3, 130


class CommandError(Exception):
    """Something the user can mend. The message says in one line what is wrong, where, and what to do."""


def expect_interrupts() -> None:
    """Ctrl-C ends without a traceback from now on, also while libraries are still being imported (seconds).

    A request to end (SIGTERM) is the same as Ctrl-C, so that what is cleaned up for one is for the other.
    """
    told = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print("\n已中断", file=sys.stderr)
        else:
            told(kind, error, trace)

    sys.excepthook = hook
    # not by raising SIGINT, which a script's `&` has ignored in what it starts
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextmanager
def one_line_errors(name: str, *, interrupted: str = "已中断") -> Iterator[None]:
    """Run the body of a command; what a user can mend ends as one line on standard error.

    Args:
        name: of the command, the line's first word.
        interrupted: what to say after Ctrl-C.

    Raises:
        SystemExit: with the exit code.
    """
    try:
        yield
    except KeyboardInterrupt:
        print(f"\n{name}: {interrupted}", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:  # `… | head` has read enough
        sys.stderr.close()
        raise SystemExit(0) from None
    except Exception as error:
        told = explain(error)
        if told is None:
            raise
        fail(name, told)


def fail(name: str, told: str) -> NoReturn:
    """End the command with one line."""
    print(f"{name}: {' '.join(told.split())}", file=sys.stderr)
    raise SystemExit(USAGE)


def explain(error: Exception) -> str | None:
    """One line for an error that a user can mend; None for a fault of ours, which keeps its traceback."""
    from sft.hub import HubError
    from sft.packaged import DataError

    text = " ".join(str(error).split())
    if isinstance(error, CommandError | DataError | HubError | FloatingPointError):
        return text
    if isinstance(error, MemoryError) or "out of memory" in text.lower():
        return "内存（或显存）不够：换小一点的模型，或把文字切短"
    if _is_full_disk(error, text):
        return "磁盘满了：腾出空间，再执行同一条命令"
    if isinstance(error, PermissionError):
        return f"没有权限读写 {error.filename}：换一个文件夹，或改它的权限"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"读写不了 {error.filename}（{error.strerror}）"
    if isinstance(error, OSError):  # transformers says with it what a model folder lacks
        return text[:300]
    return None


def _is_full_disk(error: Exception, text: str) -> bool:
    """Whether a write failed for want of room; torch and safetensors do not raise OSError for it."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    told = ("PytorchStreamWriter failed", "unexpected pos", "No space left on device", "File too large")
    return any(words in text for words in told)
