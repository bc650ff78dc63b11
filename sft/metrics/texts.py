"""What metrics of texts against one reference each have in common."""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import evaluate


class TextMetric(evaluate.Metric):
    """Looks at texts before it takes them; a subclass has `_info` and `_compute`.

    Its module must name it ``texts.TextMetric``: `evaluate` takes the first metric that it finds by a bare name.
    """

    def add_batch(self, *, predictions: list[str], references: list[str], **inputs: object) -> None:
        """Take examples after checking them: `evaluate` refuses lists of unequal length without naming a row."""
        _check(predictions, references)
        super().add_batch(predictions=predictions, references=references, **inputs)


def info(description: str, citation: str, inputs: str) -> evaluate.MetricInfo:
    """What `evaluate` asks of such a metric."""
    text = datasets.Value("string")
    return evaluate.MetricInfo(
        description=description,
        citation=citation,
        inputs_description=inputs,
        features=datasets.Features({"predictions": text, "references": text}),
    )


def _check(predictions: Sequence[str], references: Sequence[str]) -> None:
    """Raise a ValueError that says what is wrong and in which row."""
    if len(predictions) == 0:
        raise ValueError("predictions are empty: the metric needs at least one text")
    if len(predictions) != len(references):
        short, long = sorted((len(predictions), len(references)))
        raise ValueError(
            f"{len(predictions)} predictions against {len(references)} references: row {short} of {long} stands alone"
        )
    for row, reference in enumerate(references):
        if not reference.strip():
            raise ValueError(f"reference {row} is empty: there is nothing to compare with")
