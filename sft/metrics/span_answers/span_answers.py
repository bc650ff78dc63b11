"""Exact match and character F1 of answers to questions about a text, as an `evaluate` module.

The measures of SQuAD (Rajpurkar et al. 2016, section 6.1; 2018 for questions without an answer), on characters
instead of words. No library keeps them for Chinese: SQuAD's own scripts split at blanks. Self-contained, because
`evaluate` copies this file elsewhere before importing it. One import a line, because `evaluate` reads the imports
with a regular expression.
"""

from __future__ import annotations

import unicodedata
from collections import Counter

import datasets
import evaluate

_DESCRIPTION = "Exact match and F1 over characters of answers, questions without an answer included."

_INPUTS = """
Args:
    predictions (list of str): an answer each; "" says that the text does not tell.
    references (list of list of str): the answers that are right, at least one a question; [""] or [] where the text
        does not tell.
Blanks, punctuation and upper case do not count. A prediction's F1 is its best over the references; without an answer it
is 1 if nothing is predicted and 0 otherwise.
Returns:
    exact_match, f1 (float): means over all questions, in [0, 1].
    answered, unanswerable (dict or None): exact_match, f1 and n of the questions with and without an answer; None where
        there are none.
Raises:
    ValueError: no question.
"""


class SpanAnswers(evaluate.Metric):
    """Exact match and F1 of answers."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="Rajpurkar, Jia, Liang: Know What You Don't Know: Unanswerable Questions for SQuAD. ACL 2018.",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Value("string"),
                    "references": datasets.Sequence(datasets.Value("string")),
                }
            ),
        )

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, object]:
        if len(references) == 0:
            raise ValueError("references are empty: the metric needs at least one question")
        scores = [_best(guess, list(right)) for guess, right in zip(predictions, references, strict=True)]
        told = [any(_plain(text) for text in right) for right in references]
        return {
            **_means(scores),
            "answered": _part([s for s, has in zip(scores, told, strict=True) if has]),
            "unanswerable": _part([s for s, has in zip(scores, told, strict=True) if not has]),
        }


def _part(scores: list[tuple[float, float]]) -> dict[str, float] | None:
    return {**_means(scores), "n": len(scores)} if scores else None


def _means(scores: list[tuple[float, float]]) -> dict[str, float]:
    return {name: sum(s[i] for s in scores) / len(scores) for i, name in enumerate(("exact_match", "f1"))}


def _best(guess: str, right: list[str]) -> tuple[float, float]:
    """Exact match and F1 against the nearest of the right answers."""
    pairs = [(_plain(guess), _plain(text)) for text in right or [""]]
    return max(float(a == b) for a, b in pairs), max(_f1(a, b) for a, b in pairs)


def _plain(text: str) -> str:
    """Without blanks, punctuation and upper case; full-width letters and digits made half width."""
    text = unicodedata.normalize("NFKC", text).lower()
    return "".join(c for c in text if unicodedata.category(c)[0] not in "PZC")


def _f1(guess: str, right: str) -> float:
    if not guess or not right:
        return float(guess == right)
    common = sum((Counter(guess) & Counter(right)).values())
    return 2 * common / (len(guess) + len(right))
