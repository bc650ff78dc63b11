"""The results file: its schema, its targets, and how it is read and written; nothing here needs a card or torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCHEMA = 1
RESULTS = Path(__file__).resolve().parents[1] / "results" / "gpu.json"
EQUAL_LOSS = 0.01
"""Relative difference of the last window's mean loss up to which two trainings count as equal.

bfloat16 rounds to 1/256; a mean over ten steps of thousands of tokens is nearer where the arithmetic is the same.
"""


class ResultsError(ValueError):
    """A results file that is not this kit's; its message is one line."""


@dataclass(frozen=True)
class Target:
    """A figure to reach: of one row, or the ratio of two."""

    title: str
    at_least: float
    rows: tuple[str, ...]  # "part/model/name"; a ratio divides the first by the second
    equal_loss: bool = False  # it counts only where both have the same loss in the end

    def measured(self, by_name: Mapping[str, Mapping[str, Any]]) -> float | None:
        """None where a row is missing or has no figure."""
        if not all(name in by_name for name in self.rows):
            return None
        if len(self.rows) == 1:
            return by_name[self.rows[0]]["mfu"]
        first, second = (by_name[name]["median"] for name in self.rows)
        return first / second if first and second else None


TARGETS = (
    Target("bert-base 大小，128 个词元，MFU", 0.45, ("encoders/bert-base/loop compiled",)),
    Target(
        "第 5 章的循环 ÷ HF Trainer 的默认设置，每秒样例",
        1.5,
        ("encoders/bert-base/loop", "encoders/bert-base/trainer"),
    ),
    Target(
        "打包的微调循环 ÷ TRL 的默认设置，每秒词元",
        1.3,
        ("decoders/qwen3-0.6b/loop packed", "decoders/qwen3-0.6b/trl"),
        equal_loss=True,
    ),
)


def loss_difference(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Relative difference of the last windows' mean losses; None where one has none."""
    return abs(one[-1] - other[-1]) / other[-1] if one and other else None


def judged(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each target beside what was measured; ``reached`` is None where it was not."""
    by_name = {f"{row['part']}/{row['model']}/{row['name']}": row for row in rows}
    found = []
    for target in TARGETS:
        value = target.measured(by_name)
        apart = (
            loss_difference(*(by_name[name]["losses"] for name in target.rows))
            if target.equal_loss and value is not None
            else None
        )
        reached = None if value is None else value >= target.at_least
        if target.equal_loss and reached:
            reached = apart is not None and apart <= EQUAL_LOSS
        found.append(
            {"title": target.title, "at_least": target.at_least, "measured": value, "loss_difference": apart,
             "reached": reached}
        )  # fmt: skip
    return found


def write_results(path: Path, report: Mapping[str, Any]) -> None:
    """Through a neighbour, so that a run that is cut leaves the last whole file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def read_results(path: Path) -> dict[str, Any]:
    """The report in *path*.

    Raises:
        ResultsError: no JSON, or of another schema than :data:`SCHEMA`.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: 读不了（{type(error).__name__}）；删掉它，再执行 make gpu") from None
    found = report.get("schema") if isinstance(report, dict) else None
    if found != SCHEMA:
        raise ResultsError(f"{path}: 格式是 {found}，这里只认得 {SCHEMA}；移开它，再执行 make gpu")
    return report
