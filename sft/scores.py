"""How well a classifier did on rows it was not trained on: figures with intervals, one line a label.

Where a text may have several labels, a row is right when all of them are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import f1_score, precision_recall_fscore_support

from sft.classifiers import is_right
from sft.metrics.significance import bootstrap_interval, bootstrap_macro_f1_interval, share_interval


@dataclass(frozen=True)
class Score:
    """A figure and its 95 % interval."""

    name: str
    value: float
    interval: tuple[float, float]

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.name} {self.value:.1%}（95% 区间 {low:.1%}–{high:.1%}）"


@dataclass(frozen=True)
class LabelScore:
    """One label: how many rows have it, how many of those that were given it do, how many that do were found."""

    name: str
    rows: int
    precision: float
    recall: float
    f1: float


def score(probabilities: np.ndarray, labels: np.ndarray) -> tuple[Score, ...]:
    """Accuracy and macro-F1; exact match and accuracy of single labels where a text may have several.

    Args:
        probabilities: (N, C).
        labels: class numbers (N,), or 0 and 1 (N, C).
    """
    right = is_right(probabilities, labels)
    if labels.ndim == 2:
        single = ((probabilities > 0.5) == (labels > 0.5)).mean(axis=1)
        return (
            Score("全部标签都对", float(right.mean()), share_interval(right)),
            Score("逐个标签的准确率", float(single.mean()), _mean_interval(single)),
        )
    predicted = probabilities.argmax(axis=1)
    macro = Score(
        "macro-F1",
        float(f1_score(labels, predicted, average="macro")),
        _macro_f1_interval(predicted, labels),
    )
    return (Score("准确率", float(right.mean()), share_interval(right)), macro)


def score_labels(probabilities: np.ndarray, labels: np.ndarray, names: list[str]) -> tuple[LabelScore, ...]:
    """Precision, recall and F1 of each label, in the order of ``names``."""
    predicted = probabilities > 0.5 if labels.ndim == 2 else probabilities.argmax(axis=1)
    columns = precision_recall_fscore_support(
        labels.astype(int), predicted, labels=range(len(names)), zero_division=0
    )
    return tuple(
        LabelScore(name, int(rows), float(precision), float(recall), float(f1))
        for name, precision, recall, f1, rows in zip(names, *columns, strict=True)
    )


def probability_of_label(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What the classifier gives to the labels that the rows carry, shape (N,); labels taken as independent."""
    if labels.ndim == 2:
        return np.where(labels > 0.5, probabilities, 1 - probabilities).prod(axis=1)
    return probabilities[np.arange(len(labels)), labels]


def _mean_interval(values: np.ndarray) -> tuple[float, float]:
    """Of a mean of shares; where all are 1, or all 0, a bootstrap has no width and the rows are counted instead."""
    if np.isin(values, (0, 1)).all():
        return share_interval(values)
    return bootstrap_interval(values.astype(float))


def _macro_f1_interval(predicted: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Where every row is right, down to what the rows do not exclude: all errors between two classes."""
    right = predicted == labels
    if not right.all():
        return bootstrap_macro_f1_interval(predicted, labels)
    share = np.unique(labels, return_counts=True)[1] / len(labels)
    if len(share) == 1:
        return share_interval(right)
    lost = np.minimum(1 - share_interval(right)[0], share)  # of each class, taken for another
    own = 2 * (share - lost) / (2 * share - lost)
    other = 2 * share / (2 * share + lost[:, None])  # (class that loses, class that gains)
    worst = own[:, None] + other
    np.fill_diagonal(worst, np.inf)
    return float((worst.min() + len(share) - 2) / len(share)), 1.0
