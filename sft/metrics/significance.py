"""How sure are we of a score, and of the difference between two scores on the same examples?

Percentile bootstrap (Efron 1979) for one score, the exact interval of Clopper and Pearson (1934) for a share; McNemar's
exact test (1947) with the interval of Bonett and Price (2012) for two classifiers judged on the same examples, and a
bootstrap over examples and runs for two ways of training, each run with several seeds; paired bootstrap (Koehn 2004)
for two translators or extractors, whose scores are no means of examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, norm

_CHUNK = 2_000_000  # resampled values held at once: 16 MB of float64


@dataclass(frozen=True)
class PairedComparison:
    """Two classifiers, A and B, on the same n examples."""

    n: int
    only_a: int  # examples that A has right and B wrong
    only_b: int  # examples that B has right and A wrong
    p_value: float  # two-sided, of "A and B are right equally often"
    difference: float  # accuracy of A minus accuracy of B
    interval: tuple[float, float]  # of the difference


def bootstrap_interval(
    per_example: ArrayLike,
    statistic: Callable[..., ArrayLike] = np.mean,
    *,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of one value an example.

    Args:
        per_example: one value an example, shape (n,); for an accuracy 1 where right and 0 where wrong.
        statistic: reduces the last axis, called as `statistic(samples, axis=-1)` on shape (resamples, n), as
            `np.mean`, `np.median` and `np.std` can be.
        confidence: of the interval, in (0, 1).
        num_resamples: draws of n examples with replacement.
        seed: same seed, same interval.

    Raises:
        ValueError: no example, a value that is not finite, or a confidence or count out of range.

    Source: Efron, B., "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7 (1979).
    """
    values = _finite_vector("per_example", per_example)
    _check_options(confidence, num_resamples)
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // len(values))
    parts = []
    for start in range(0, num_resamples, rows):
        shape = (min(rows, num_resamples - start), len(values))
        part = np.asarray(statistic(values[rng.integers(len(values), size=shape)], axis=-1), dtype=np.float64)
        if part.shape != shape[:1]:
            raise ValueError(f"statistic must give one value a resample, shape {shape[:1]}, not {part.shape}")
        parts.append(part)
    return _percentiles(np.concatenate(parts), confidence)


def share_interval(outcomes: ArrayLike, *, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval of the share of ones among zeros and ones.

    Where all or none are ones every resample of a bootstrap is the same, and its interval has no width; this one
    says how small a share of the others could have been missed by chance.

    Args:
        outcomes: 1 where right and 0 where wrong, shape (n,).

    Raises:
        ValueError: no example, values other than 0 and 1.

    Source: Clopper, C. J. and Pearson, E. S., "The Use of Confidence or Fiducial Limits", Biometrika 26 (1934).
    """
    right = _outcomes("outcomes", outcomes)
    _check_confidence(confidence)
    exact = binomtest(int(right.sum()), len(right)).proportion_ci(confidence, method="exact")
    return float(exact.low), float(exact.high)


def compare_runs(
    runs: ArrayLike,
    others: ArrayLike,
    *,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, tuple[float, float]]:
    """Mean accuracy of one way of training minus that of another, with its interval.

    A resample draws examples, the same for both ways, and, for each way by itself, runs: so the interval covers other
    examples and other seeds. With three runs the second is rough, and too narrow by about a fifth; a way that was run
    once is taken as one without chance.

    Args:
        runs: 1 where right and 0 where wrong, a row for each run, shape (r, n).
        others: the same of the other way, the same n examples in the same order, shape (s, n).

    Raises:
        ValueError: shapes that do not fit, values other than 0 and 1.
    """
    a, b = (np.asarray(given, dtype=np.float64) for given in (runs, others))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or 0 in a.shape + b.shape:
        raise ValueError(
            f"two ways need a row for each run, of the same examples; got shapes {a.shape} and {b.shape}"
        )
    for name, given in (("runs", a), ("others", b)):
        _outcomes(name, given.ravel())
    _check_options(confidence, num_resamples)
    rng = np.random.default_rng(seed)
    n = a.shape[1]
    examples = rng.multinomial(n, np.full(n, 1 / n), size=num_resamples) / n  # weights, (resamples, n)
    means = []
    for way in (a, b):
        r = len(way)
        drawn = rng.multinomial(r, np.full(r, 1 / r), size=num_resamples) / r  # (resamples, r)
        means.append(((drawn @ way) * examples).sum(axis=1))
    return float(a.mean() - b.mean()), _percentiles(means[0] - means[1], confidence)


def bootstrap_macro_f1_interval(
    predictions: Sequence[int],
    references: Sequence[int],
    *,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of macro-F1.

    Drawing n examples with replacement is drawing the confusion matrix from a multinomial distribution, so
    that the cost does not grow with n. A class that a resample misses altogether (its F1 would be 0/0) is
    left out of that resample's mean, as scikit-learn does.

    Args:
        predictions: predicted classes, shape (n,).
        references: true classes, shape (n,).

    Raises:
        ValueError: no example, lengths that differ, a class that is not a whole number.
    """
    predicted, true = _paired_labels(predictions, references)
    _check_options(confidence, num_resamples)
    classes, codes = np.unique(np.concatenate([true, predicted]), return_inverse=True)
    k, n = len(classes), len(true)
    cells = np.bincount(codes[:n] * k + codes[n:], minlength=k * k)  # row: reference, column: prediction
    drawn = np.random.default_rng(seed).multinomial(n, cells / n, size=num_resamples).reshape(-1, k, k)
    twice_hits = 2 * np.diagonal(drawn, axis1=1, axis2=2)  # (resamples, k)
    occurrences = drawn.sum(axis=1) + drawn.sum(axis=2)  # 2 TP + FP + FN, (resamples, k)
    present = occurrences > 0
    scores = np.divide(twice_hits, occurrences, out=np.zeros(present.shape), where=present)
    return _percentiles(scores.sum(axis=1) / present.sum(axis=1), confidence)


@dataclass(frozen=True)
class F1Comparison:
    """Two extractors, A and B, on the same n sentences, by the F1 of all that they found."""

    n: int
    f1_a: float
    f1_b: float
    difference: float  # A minus B
    interval: tuple[float, float]  # of the difference
    p_value: float  # two-sided, of "no difference"


def compare_f1(
    counts_a: ArrayLike,
    counts_b: ArrayLike,
    *,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> F1Comparison:
    """Paired bootstrap of the difference of two F1: sentences are drawn, with what both extractors found in them.

    F1 is no mean over sentences, so that McNemar's test does not apply; what is found in one sentence is not
    independent, so that sentences are drawn and not findings.

    Args:
        counts_a: for each sentence what A found and is right, what A found, what there is to find; shape (n, 3).
        counts_b: the same of B; the last column must be equal.

    Raises:
        ValueError: no sentence, shapes that differ, other things to find, or nothing to find.

    Source: Berg-Kirkpatrick, Burkett and Klein, "An Empirical Investigation of Statistical Significance in NLP",
    EMNLP 2012; the p-value is twice the smaller share of resamples on one side of zero.
    """
    a, b = np.asarray(counts_a, dtype=np.float64), np.asarray(counts_b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 2 or a.shape[1] != 3 or len(a) == 0:
        raise ValueError(
            f"counts must have one row of three for each of at least one sentence, not shapes {a.shape}, {b.shape}"
        )
    if not (a[:, 2] == b[:, 2]).all():
        row = int(np.argmax(a[:, 2] != b[:, 2]))
        raise ValueError(
            f"sentence {row}: A was judged on {a[row, 2]:g} things to find and B on {b[row, 2]:g}"
        )
    if not a[:, 2].any():
        raise ValueError("there is nothing to find in any sentence: F1 would be 0/0")
    found = paired_bootstrap(
        a, b, _f1_of_counts, confidence=confidence, num_resamples=num_resamples, seed=seed
    )
    f1_a, f1_b = (float(_f1_of_counts(counts.sum(axis=0))) for counts in (a, b))
    return F1Comparison(len(a), f1_a, f1_b, found.difference, found.interval, found.p_value)


def _f1_of_counts(counts: np.ndarray) -> np.ndarray:
    """F1 of summed counts (…, 3): found and right, found, to find."""
    return 2 * counts[..., 0] / np.maximum(counts[..., 1] + counts[..., 2], 1)


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike, *, confidence: float = 0.95) -> PairedComparison:
    """Are two classifiers, judged on the same examples, right equally often?

    The p-value is exact: under the null hypothesis each example that only one has right is a fair coin. The
    interval of the difference is the adjusted Wald interval of Bonett and Price, which adds one example to
    each of the two discordant cells and so keeps its level in small samples too. Test and interval are two
    methods: close to the threshold they may disagree.

    Args:
        correct_a: true where A is right, shape (n,).
        correct_b: true where B is right, the same examples in the same order, shape (n,).

    Raises:
        ValueError: no example, lengths that differ, values other than 0 and 1.

    Source: McNemar, Q., Psychometrika 12 (1947); Bonett, D. G. and Price, R. M., "Adjusted Wald Confidence
    Interval for a Difference of Binomial Proportions Based on Paired Data", J. Educ. Behav. Stat. 37 (2012).
    """
    a, b = _outcomes("correct_a", correct_a), _outcomes("correct_b", correct_b)
    if len(a) != len(b):
        raise ValueError(
            f"correct_a has {len(a)} examples and correct_b has {len(b)}: they must be the same ones"
        )
    _check_confidence(confidence)
    n, only_a, only_b = len(a), int((a & ~b).sum()), int((b & ~a).sum())
    discordant = only_a + only_b
    p_value = float(binomtest(only_a, discordant, 0.5).pvalue) if discordant else 1.0
    low, high = _bonett_price(only_a, only_b, n, confidence)
    return PairedComparison(n, only_a, only_b, p_value, (only_a - only_b) / n, (low, high))


@dataclass(frozen=True)
class PairedBootstrap:
    """Two systems, A and B, on the same examples, by a score of summed counts."""

    difference: float  # score of A minus score of B
    interval: tuple[float, float]  # of the difference
    p_value: float  # two-sided, of "A and B score equally"; never below 2 / resamples


def paired_bootstrap(
    counts_a: ArrayLike,
    counts_b: ArrayLike,
    score: Callable[[np.ndarray], np.ndarray],
    *,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> PairedBootstrap:
    """Does A score higher than B, or would other examples have said otherwise?

    The same examples are drawn with replacement for both, many times over; each time both are scored anew.

    Args:
        counts_a: what the score is made of, for each example a row: shape (n, k).
        counts_b: the same of B, the same examples in the same order.
        score: of summed counts, shape (resamples, k) -> (resamples,), as :func:`bleu_of_counts`.

    Raises:
        ValueError: no example, or shapes that differ.

    Source: Koehn, P., "Statistical Significance Tests for Machine Translation Evaluation", EMNLP 2004.
    """
    a, b = np.asarray(counts_a, dtype=np.float64), np.asarray(counts_b, dtype=np.float64)
    if a.ndim != 2 or len(a) == 0 or a.shape != b.shape:
        raise ValueError(
            f"counts must be two tables of the same examples, got shapes {a.shape} and {b.shape}"
        )
    _check_options(confidence, num_resamples)
    n = len(a)
    rng, rows, parts = np.random.default_rng(seed), max(1, _CHUNK // n), []
    for start in range(0, num_resamples, rows):
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=min(rows, num_resamples - start))  # how often each
        parts.append(score(drawn @ a) - score(drawn @ b))
    differences = np.concatenate(parts)
    wrong_side = min((differences <= 0).sum(), (differences >= 0).sum())
    p_value = min(1.0, 2 * max(1, int(wrong_side)) / num_resamples)
    whole = score(a.sum(axis=0)[None]) - score(b.sum(axis=0)[None])
    return PairedBootstrap(float(whole[0]), _percentiles(differences, confidence), p_value)


def bleu_of_counts(counts: np.ndarray) -> np.ndarray:
    """BLEU, in [0, 100], of summed counts (…, 10): shared 1- to 4-grams, all of them, length, reference's length.

    Equal to sacrebleu's as long as at least one n-gram of each length is shared, which in a corpus is the case.
    """
    shared, all_, length, wanted = counts[..., :4], counts[..., 4:8], counts[..., 8], counts[..., 9]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.exp(np.log(shared / all_).mean(axis=-1))
        brevity = np.exp(np.minimum(0, 1 - wanted / length))
    return 100 * np.nan_to_num(precision * brevity)


def chrf_of_counts(counts: np.ndarray, beta: float = 2.0) -> np.ndarray:
    """chrF, in [0, 100], of summed counts (…, 3 · order): for each length of run said, wanted, shared."""
    said, wanted, shared = np.moveaxis(counts.reshape(*counts.shape[:-1], -1, 3), -1, 0)  # (…, order)
    there = (said > 0) & (wanted > 0)
    orders = np.maximum(1, there.sum(axis=-1))
    precision = np.divide(shared, said, out=np.zeros_like(shared), where=there).sum(axis=-1) / orders
    recall = np.divide(shared, wanted, out=np.zeros_like(shared), where=there).sum(axis=-1) / orders
    below = beta**2 * precision + recall
    return 100 * np.divide(
        (1 + beta**2) * precision * recall, below, out=np.zeros_like(below), where=below > 0
    )


def _bonett_price(only_a: int, only_b: int, n: int, confidence: float) -> tuple[float, float]:
    share_a, share_b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    centre = share_a - share_b
    half = norm.ppf((1 + confidence) / 2) * np.sqrt((share_a + share_b - centre**2) / (n + 2))
    return float(max(-1.0, centre - half)), float(min(1.0, centre + half))


def _percentiles(statistics: np.ndarray, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(statistics, [tail, 1 - tail])
    return float(low), float(high)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")


def _check_options(confidence: float, num_resamples: int) -> None:
    _check_confidence(confidence)
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, not {num_resamples}")


def _finite_vector(name: str, values: ArrayLike) -> np.ndarray:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or len(vector) == 0:
        raise ValueError(
            f"{name} must hold one value for each of at least one example, got shape {vector.shape}"
        )
    if not np.isfinite(vector).all():
        position = int(np.argmin(np.isfinite(vector)))
        raise ValueError(f"{name}[{position}] is {vector[position]}, not a finite number")
    return vector


def _outcomes(name: str, values: ArrayLike) -> np.ndarray:
    vector = _finite_vector(name, values)
    if not np.isin(vector, (0, 1)).all():
        position = int(np.argmin(np.isin(vector, (0, 1))))
        raise ValueError(f"{name}[{position}] is {vector[position]}: expected 1 (right) or 0 (wrong)")
    return vector.astype(bool)


def _paired_labels(predictions: Sequence[int], references: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    predicted, true = _finite_vector("predictions", predictions), _finite_vector("references", references)
    if len(predicted) != len(true):
        raise ValueError(f"{len(predicted)} predictions against {len(true)} references: they must be pairs")
    for name, vector in (("predictions", predicted), ("references", true)):
        if not (vector == np.round(vector)).all():
            raise ValueError(
                f"{name} must hold classes, whole numbers; found {vector[vector != np.round(vector)][0]}"
            )
    return predicted, true
