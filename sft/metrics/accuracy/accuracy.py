"""Accuracy as an `evaluate` module: the share of predictions that equal their reference.

Self-contained, because `evaluate` copies this file elsewhere before importing it. One import a line, because
`evaluate` reads the imports with a regular expression.
"""

from __future__ import annotations

import datasets
import evaluate
import numpy as np
from sklearn.metrics import accuracy_score

_DESCRIPTION = "Share of examples whose predicted class is the reference class."

_INPUTS = """
Args:
    predictions (list of int): predicted classes, shape (n,).
    references (list of int): true classes, shape (n,).
    sample_weight (list of float, optional): weight of each example.
Returns:
    accuracy (float): in [0, 1].
Raises:
    ValueError: no example, lengths that differ, or a value that is not a whole number.
"""


class Accuracy(evaluate.Metric):
    """Accuracy of hard class predictions."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
            ),
        )

    def _compute(
        self,
        predictions: list[float],
        references: list[float],
        sample_weight: list[float] | None = None,
    ) -> dict[str, float]:
        predicted, true = _classes("predictions", predictions), _classes("references", references)
        return {"accuracy": float(accuracy_score(true, predicted, sample_weight=sample_weight))}


def _classes(name: str, values: list[float]) -> np.ndarray:
    """Whole numbers, shape (n,), or a ValueError: a probability must not be cut down to class 0 unseen."""
    vector = np.asarray(values, dtype=np.float64)
    if len(vector) == 0:
        raise ValueError(f"{name} is empty: the metric needs at least one example")
    whole = np.isfinite(vector) & (vector == np.round(vector))
    if not whole.all():
        position = int(np.argmin(whole))
        raise ValueError(f"{name}[{position}] is {vector[position]}, not a class (a whole number)")
    return vector.astype(np.int64)
