"""Expected calibration error as an `evaluate` module: does 80 % sure mean right 8 times in 10?

Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 3: examples are put into bins B_m by the
probability of their predicted class (the confidence), and ECE = sum_m |B_m|/n * |acc(B_m) - conf(B_m)|.
Self-contained, because `evaluate` copies this file elsewhere before importing it. One import a line, because
`evaluate` reads the imports with a regular expression.
"""

from __future__ import annotations

import datasets
import evaluate
import numpy as np

_DESCRIPTION = "Mean distance between how sure a classifier is and how often it is right."

_INPUTS = """
Args:
    predictions (list of list of float): class probabilities, shape (n, classes), each row summing to 1.
    references (list of int): true classes in 0 .. classes-1, shape (n,).
    num_bins (int): number of bins, 15 by default as in Guo et al.
    scheme (str): "equal_width" (default: bins (0, 1/M], (1/M, 2/M] ...) or "equal_mass" (bins whose
        numbers of examples differ by at most one; equal confidences may fall into neighbouring bins).
Returns:
    calibration_error (float): ECE, in [0, 1].
    max_calibration_error (float): the widest gap of any bin (Guo et al., eq. 5).
    bins (list of dict): for each bin that is not empty, in ascending order: count, confidence, accuracy.
Raises:
    ValueError: no example, lengths that differ, rows that are no probabilities (NaN too), an unknown class.
"""

_SCHEMES = ("equal_width", "equal_mass")
_TOLERANCE = 1e-3  # of a row's sum: float16 softmax outputs pass


class CalibrationError(evaluate.Metric):
    """Expected calibration error of class probabilities."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks. ICML 2017.",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float64")),
                    "references": datasets.Value("float64"),
                }
            ),
        )

    def _compute(
        self,
        predictions: list[list[float]],
        references: list[float],
        num_bins: int = 15,
        scheme: str = "equal_width",
    ) -> dict[str, float | list[dict[str, float]]]:
        if num_bins < 1:
            raise ValueError(f"num_bins must be at least 1, not {num_bins}")
        if scheme not in _SCHEMES:
            raise ValueError(f"scheme must be one of {_SCHEMES}, not {scheme!r}")
        probabilities, classes = _checked(predictions, references)
        confidence = probabilities.max(axis=1)  # (n,)
        correct = probabilities.argmax(axis=1) == classes  # (n,)
        place = _equal_width if scheme == "equal_width" else _equal_mass
        index = place(confidence, num_bins)  # (n,)
        bins = [
            _bin(confidence[index == m], correct[index == m]) for m in range(num_bins) if (index == m).any()
        ]
        gaps = [abs(one["accuracy"] - one["confidence"]) for one in bins]
        shares = [one["count"] / len(classes) for one in bins]
        return {
            "calibration_error": float(np.dot(shares, gaps)),
            "max_calibration_error": float(max(gaps)),
            "bins": bins,
        }


def _checked(predictions: list[list[float]], references: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, classes) and classes (n,), or a ValueError that says what is wrong and where."""
    if len(predictions) == 0:
        raise ValueError("the calibration error needs at least one example, got none")
    widths = {len(row) for row in predictions}
    if len(widths) > 1 or widths == {0}:
        raise ValueError(f"every row needs the same number of class probabilities, got {sorted(widths)}")
    probabilities = np.asarray(predictions, dtype=np.float64)
    classes = np.asarray(references, dtype=np.float64)
    outside = ~((probabilities >= 0) & (probabilities <= 1 + _TOLERANCE)).all(axis=1)  # NaN compares false
    wrong = outside | ~(np.abs(probabilities.sum(axis=1) - 1) <= _TOLERANCE)
    if wrong.any():
        row = int(np.argmax(wrong))
        values = probabilities[row].tolist()
        raise ValueError(f"row {row} is no probability distribution: {values} (logits? apply softmax first)")
    unknown = ~np.isin(classes, np.arange(probabilities.shape[1]))
    if unknown.any():
        row = int(np.argmax(unknown))
        raise ValueError(f"reference {classes[row]} of row {row} is not in 0 .. {probabilities.shape[1] - 1}")
    return probabilities, classes.astype(np.int64)


def _equal_width(confidence: np.ndarray, num_bins: int) -> np.ndarray:
    """Bin m of each confidence, for bins (m/M, (m+1)/M]."""
    edges = np.linspace(0, 1, num_bins + 1)[1:-1]
    return np.searchsorted(edges, confidence, side="left")


def _equal_mass(confidence: np.ndarray, num_bins: int) -> np.ndarray:
    """Bin of each confidence such that no two bins differ by more than one example."""
    rank = np.empty(len(confidence), dtype=np.int64)
    rank[np.argsort(confidence, kind="stable")] = np.arange(len(confidence))
    return rank * num_bins // len(confidence)


def _bin(confidence: np.ndarray, correct: np.ndarray) -> dict[str, float]:
    return {
        "count": len(confidence),
        "confidence": float(confidence.mean()),
        "accuracy": float(correct.mean()),
    }
