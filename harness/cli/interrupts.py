"""What an interrupt does: outside a run it raises, in a run it sets an event, and what is ignored stays so."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, a polite kill, a closed terminal


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM and a closed terminal end a command as Ctrl-C does, so that it takes its children along."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    with _handled((signal.SIGTERM, signal.SIGHUP), interrupt):
        yield


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """An event that the stop signals set, so that everything ends in order instead of in a traceback."""
    cancel = threading.Event()
    with _handled(STOP_SIGNALS, lambda number, frame: cancel.set()):
        yield cancel


@contextmanager
def _handled(numbers: tuple[signal.Signals, ...], handler: Callable[[int, Any], None]) -> Iterator[None]:
    """*handler* for the signals of *numbers* that are not ignored: under ``nohup`` a hangup ends nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
