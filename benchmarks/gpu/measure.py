"""One row of the results: what a training did in each of its windows of steps.

A row's repeats are windows of one training, one after the other, not new trainings: their spread is the machine's.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from benchmarks.gpu.flops import utilisation


@dataclass(frozen=True)
class Plan:
    """How long a training is: steps that do not count, then ``repeats`` windows of ``window`` steps."""

    warmup: int
    window: int
    repeats: int

    @property
    def steps(self) -> int:
        return self.warmup + self.window * self.repeats


class Watch:
    """Notes the time where a window begins or ends; it waits for the card there and nowhere else."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self.plan, self.device = plan, device
        self.marks: list[float] = []

    def __call__(self, step: int) -> None:
        """*step* steps are done."""
        counted = step - self.plan.warmup
        if counted < 0 or counted % self.plan.window or len(self.marks) > self.plan.repeats:
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.marks.append(time.perf_counter())

    def over(self, batches: Iterable[Any]) -> Iterator[Any]:
        """*batches*, one a step, watched."""
        step = 0
        for step, batch in enumerate(batches, 1):  # counted beyond the loop
            self(step - 1)
            yield batch
        self(step)

    @property
    def seconds(self) -> list[float]:
        """Of each window.

        Raises:
            ValueError: the training ended before its last window did.
        """
        if len(self.marks) != self.plan.repeats + 1:
            raise ValueError(
                f"{len(self.marks)} marks of {self.plan.repeats + 1}: the training was shorter than planned"
            )
        return [end - start for start, end in zip(self.marks, self.marks[1:], strict=False)]


@dataclass(frozen=True)
class Work:
    """What every candidate of one comparison does in each step: the same rows, whatever it pads around them."""

    lengths: Sequence[Sequence[int]]  # step -> tokens of each row
    flops: Sequence[int]  # step -> model FLOPs
    unit: str  # "examples/s" or "tokens/s"

    def in_windows(self, plan: Plan) -> tuple[list[int], list[int]]:
        """(items, model FLOPs) of each window."""
        starts = range(plan.warmup, plan.steps, plan.window)
        counted = [len(row) if self.unit == "examples/s" else sum(row) for row in self.lengths]
        return (
            [sum(counted[start : start + plan.window]) for start in starts],
            [sum(self.flops[start : start + plan.window]) for start in starts],
        )


@dataclass
class Row:
    """A candidate's figures, or the one line that says why there are none."""

    part: str
    model: str
    name: str
    unit: str
    values: list[float] = field(default_factory=list)  # of each window
    median: float | None = None
    spread: float | None = None  # (largest - smallest) / median
    mfu: float | None = None
    peak_bytes: int | None = None
    losses: list[float] = field(default_factory=list)  # warm-up, then each window
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    part: str, model: str, name: str, candidate: Callable[[Watch], Sequence[float]],
    *, work: Work, plan: Plan, device: torch.device, peak: float | None, count_mfu: bool = True,
) -> Row:  # fmt: skip
    """Run *candidate*, which trains under a :class:`Watch` and returns its losses; its error becomes the row's."""
    row = Row(part, model, name, work.unit)
    cuda = device.type == "cuda"
    before = 0
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    watch = Watch(plan, device)
    try:
        row.losses = list(candidate(watch))
        items, flops = work.in_windows(plan)
        row.values = [n / s for n, s in zip(items, watch.seconds, strict=True)]
        row.median = statistics.median(row.values)
        row.spread = (max(row.values) - min(row.values)) / row.median
        if count_mfu:
            row.mfu = utilisation(sum(flops) / sum(watch.seconds), peak)
        row.peak_bytes = torch.cuda.max_memory_allocated(device) - before if cuda else None
    except Exception as error:  # a missing kernel, too little memory: the other candidates go on
        row.error = one_line(error)
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
    return row


def one_line(error: BaseException) -> str:
    """Kind and first line of an error, of a length that a table bears."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no words'}"[:300]


def window_means(losses: Sequence[float], plan: Plan) -> list[float]:
    """Mean loss of the warm-up and of each window, as a trainer that logs at the end of each would tell it."""
    edges = [0, *range(plan.warmup, plan.steps + 1, plan.window)]
    return [statistics.fmean(losses[start:end]) for start, end in itertools.pairwise(edges) if end > start]
