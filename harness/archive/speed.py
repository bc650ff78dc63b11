"""How fast this machine is now, against the one that the limits of the profiles were written for.

What is measured is the machine as it is, with what else it does: half the speed and twice the work have the same
effect on a time limit. The cache's key and the claims do not depend on it.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache

from harness.archive.environment import BF16, cores, hardware_class
from harness.model import Limits

REFERENCE_CORES = 2
REFERENCE_RATE = 6.6e8  # bytes of BLAKE2b a second and core; plain arithmetic, the same on every processor
WITHOUT_BF16 = 0.6  # of the speed: training then multiplies float32
BUDGET = 0.15  # seconds that measuring takes
ENOUGH = 0.9  # of the reference: no limit is touched above that, two measurements differ by as much
MOST = 8.0  # times a limit; beyond that a stalled notebook would hold up a run for hours

_PORTION = (
    bytes(range(256)) * 1024
)  # large enough to be hashed without Python's lock, small enough for a cache


@dataclass(frozen=True)
class Speed:
    """Speed of a machine, and what the limits of a profile are multiplied by for it."""

    of_reference: float | None  # None: it could not be measured
    factor: float
    pinned: bool = False  # it stands in harness.yml

    def __str__(self) -> str:
        if self.of_reference is None:
            return "speed could not be measured; limits as they are written"
        limits = "limits as they are written" if self.factor == 1 else f"limits × {self.factor:g}"
        return f"speed {self.of_reference:.2g} of the reference{self._source}; {limits}"

    @property
    def _source(self) -> str:
        return " (harness.yml says so)" if self.pinned else ""

    def adapt(self, limits: Limits) -> Limits:
        """*limits* as they hold here; those that the user gave stay."""
        if self.factor == 1:
            return limits
        cell, notebook = (
            value if value is None or name in limits.given else round(value * self.factor, 1)
            for name, value in (("cell", limits.cell), ("notebook", limits.notebook))
        )
        return replace(limits, cell=cell, notebook=notebook, factor=self.factor)


@cache  # a run measures at its start; so does a session of pytest that runs several
def find_speed(pinned: float | None, device: str = "auto", threads: int | None = None) -> Speed:
    """The speed that *pinned* says, else the one measured for a job with so many *threads* (None: all cores)."""
    if pinned is not None:
        return Speed(pinned, max(1.0, round(1 / pinned, 1)), pinned=True)
    try:
        measured = _measure(min(threads or cores(), REFERENCE_CORES))
    except (AttributeError, OSError, RuntimeError, ValueError, ZeroDivisionError):
        return Speed(None, 1.0)  # no such hash, no thread, a clock that stands still
    hardware = hardware_class(device)
    if hardware.startswith("cpu-") and not hardware.endswith(BF16):
        measured *= WITHOUT_BF16
    factor = 1.0 if measured >= ENOUGH else min(MOST, round(1 / measured, 1))
    return Speed(float(f"{measured:.2g}"), factor)


def _measure(threads: int) -> float:
    """Speed of *threads* at once, with whatever else the machine does, now and in the minute before."""
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(_hash_for, [BUDGET] * threads))
    now = sum(portions / elapsed for portions, elapsed, _ in parts)
    alone = sum(portions / used for portions, _, used in parts)
    load = max(0.0, os.getloadavg()[0] - 0.5)  # half a core is always about something
    share = min(1.0, (os.cpu_count() or threads) / (threads + load))
    return min(now, alone * share) * len(_PORTION) / (REFERENCE_RATE * REFERENCE_CORES)


def _hash_for(seconds: float, clock: Callable[[], float] = time.perf_counter) -> tuple[int, float, float]:
    """Portions hashed, seconds that it took, seconds of the processor that it got."""
    began, used, portions = clock(), time.thread_time(), 0
    while portions < 1 or clock() - began < seconds:
        hashlib.blake2b(_PORTION).digest()
        portions += 1
    return portions, clock() - began, time.thread_time() - used
