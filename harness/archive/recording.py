"""Which cell recorded a metric, as the executed notebook tells: each recording leaves an output below its cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.archive.foreign import foreign_metrics
from harness.book.notebook import read_document
from harness.errors import HarnessError
from harness.model import METRIC_MIME, CellResult, JobResult


def recording_cells(run_dir: Path, job: JobResult) -> dict[str, CellResult]:
    """The cell of *job* in which each metric was recorded, by the metric's name.

    Empty for what left no output there: the kernel died first, or a cell cleared its outputs. Of a name that ``glue``
    left twice the last counts, as its value does.
    """
    try:
        document = read_document(run_dir / "jobs" / job.id / "out.ipynb")
    except HarnessError:  # how the job ended says why
        return {}
    cells = {cell.id: cell for cell in reversed(job.cells)}
    glued: dict[str, CellResult] = {}
    recorded: dict[str, CellResult] = {}
    for cell in document["cells"]:
        result = cells.get(cell.get("id", ""))
        if cell["cell_type"] != "code" or result is None:
            continue
        glued |= dict.fromkeys((metric.name for metric in foreign_metrics({"cells": [cell]}).metrics), result)
        for name in _names(cell):
            recorded.setdefault(name, result)
    return {**glued, **recorded}


def _names(cell: Mapping[str, Any]) -> Iterator[str]:
    """Of the metrics that ``record`` displayed below *cell*."""
    for output in cell["outputs"]:
        data = output.get("data") if isinstance(output, Mapping) else None
        metric = data.get(METRIC_MIME) if isinstance(data, Mapping) else None
        if isinstance(metric, Mapping) and isinstance(metric.get("name"), str):
            yield metric["name"]
