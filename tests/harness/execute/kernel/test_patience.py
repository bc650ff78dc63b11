"""How long a kernel that ends is waited for: measured by its own work, with a clock that a test sets."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from harness.execute.kernel.patience import GRACE, LOOK_EVERY, STRETCH, Patience
from harness.execute.kernel.process import cpu_seconds


def seconds_until_over(share: float, most: float = float("inf")) -> tuple[float, float]:
    """How long a kernel is waited for that gets *share* of a processor, and how long it worked."""
    now = [0.0]
    patience = Patience(lambda: share * now[0], most=most, clock=lambda: now[0])
    while not patience.is_over():
        now[0] += 0.25
        assert now[0] < 10 * STRETCH * GRACE
    return patience.waited, patience.worked


@pytest.mark.parametrize(
    ("share", "most", "waited"),
    [
        (0.0, float("inf"), GRACE),  # it hangs
        (1.0, float("inf"), GRACE),  # it never stops working
        (4.0, float("inf"), GRACE),  # in four threads
        (0.25, float("inf"), 4 * GRACE),  # the machine is busy with other things
        (0.01, float("inf"), STRETCH * GRACE),  # beyond all measure
        (0.25, 7.0, 7.0),  # the notebook's limit leaves no more
    ],
)
def test_a_kernel_gets_its_time_on_a_busy_machine_too(share, most, waited):
    took, worked = seconds_until_over(share, most)
    assert waited <= took <= waited + LOOK_EVERY
    assert worked == pytest.approx(share * took, abs=share * LOOK_EVERY)


def test_the_work_of_a_process_is_counted_with_that_of_its_children():
    assert cpu_seconds(None) == cpu_seconds(2**22 + 1) == 0.0  # beyond any pid
    burn = "import time\nwhile time.process_time() < 0.3: pass\n"
    parent = (
        f"import subprocess, sys, time\nsubprocess.run([sys.executable, '-c', {burn!r}])\nprint(flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent + "time.sleep(600)"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    try:
        process.stdout.readline()
        worked = cpu_seconds(process.pid)
        assert worked >= 0.3
        time.sleep(0.1)
        assert cpu_seconds(process.pid) - worked < 0.1  # it sleeps
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert cpu_seconds(os.getpid()) > 0
