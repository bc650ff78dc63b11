"""F1 as an `evaluate` module: binary, macro, micro, or one value a class.

F1 of a class = 2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall (van Rijsbergen
1979, ch. 7). Self-contained, because `evaluate` copies this file elsewhere before importing it. One
import a line, because `evaluate` reads the imports with a regular expression.
"""

from __future__ import annotations

import datasets
import evaluate
import numpy as np
from sklearn.metrics import f1_score

_DESCRIPTION = "Harmonic mean of precision and recall: of one class, or averaged over classes."

_INPUTS = """
Args:
    predictions (list of int): predicted classes, shape (n,).
    references (list of int): true classes, shape (n,).
    average (str or None): "binary" (default, the F1 of `pos_label`), "macro" (mean over classes), "micro"
        (TP, FP and FN summed over classes first) or None (one value a class, in the order of `labels`).
    labels (list of int, optional): the classes to score; by default, in ascending order, those that occur.
    pos_label (int): the class that "binary" scores, 1 by default.
Returns:
    f1 (float, or list of float where average is None): in [0, 1].
Raises:
    ValueError: no example, lengths that differ, a value that is not a whole number, more than two classes
        under "binary", or a class to score that occurs in neither list (its F1 would be 0/0).
"""

_AVERAGES = ("binary", "macro", "micro", None)


class F1(evaluate.Metric):
    """F1 of hard class predictions."""

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
        average: str | None = "binary",
        labels: list[int] | None = None,
        pos_label: int = 1,
    ) -> dict[str, float | list[float]]:
        predicted, true = _classes("predictions", predictions), _classes("references", references)
        if average not in _AVERAGES:
            raise ValueError(f"average must be one of {_AVERAGES}, not {average!r}")
        present = set(np.union1d(predicted, true).tolist())
        if average == "binary":
            if len(present | {pos_label}) > 2:
                raise ValueError(f'average="binary" takes two classes, found {sorted(present)}: use "macro"')
            scored = [pos_label]
        else:
            scored = sorted(present) if labels is None else [int(label) for label in labels]
        absent = [label for label in scored if label not in present]
        if absent:
            raise ValueError(f"F1 of class {absent[0]} is 0/0: it is neither predicted nor a reference")
        # "binary" is the F1 of one class: ask for that class alone
        one = None if average == "binary" else average
        score = f1_score(true, predicted, labels=scored, average=one, zero_division=0)
        if average == "binary":
            return {"f1": float(score[0])}
        return {"f1": [float(value) for value in score] if average is None else float(score)}


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
