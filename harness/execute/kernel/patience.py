"""How long a kernel is waited for that was asked to end: by its own time, not by that of a busy machine."""

from __future__ import annotations

import time
from collections.abc import Callable

GRACE = 20.0  # seconds of its own time for threads and exit handlers to end
STRETCH = 10.0  # so many times as long it is waited for at most, on however busy a machine
LOOK_EVERY = 1.0  # seconds between looks at how much it worked


class Patience:
    """Is over once a kernel has had its GRACE.

    A second in which it worked counts as much as it worked: on a machine with ten times more to do than processors it
    takes ten seconds to do what takes one. A second in which it only waited counts whole.

    Args:
        work: processor seconds that it has used up to now; see :func:`harness.execute.kernel.process.cpu_seconds`.
        most: seconds that it may take whatever it does, as the notebook's limit leaves them.
        clock: seconds.
    """

    def __init__(
        self,
        work: Callable[[], float],
        *,
        most: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._work, self._clock = work, clock
        self._most = min(most, STRETCH * GRACE)
        self._start = self._looked = clock()
        self._work_at_start = self._work_seen = work()
        self._spent = 0.0  # of the grace

    @property
    def waited(self) -> float:
        """Seconds up to now."""
        return self._clock() - self._start

    @property
    def worked(self) -> float:
        """Processor seconds of it."""
        return self._work_seen - self._work_at_start

    def is_over(self) -> bool:
        now = self._clock()
        if now - self._start >= self._most:
            self._look(now)
            return True
        if now - self._looked >= LOOK_EVERY:
            self._look(now)
        return self._spent >= GRACE

    def _look(self, now: float) -> None:
        seconds, work = now - self._looked, max(self._work(), self._work_seen)
        worked = work - self._work_seen
        self._spent += min(worked, seconds) if worked else seconds
        self._looked, self._work_seen = now, work
