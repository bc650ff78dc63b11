"""chrF as an `evaluate` module around sacrebleu: how many runs of characters a translation shares with a reference.

F-score with recall counted twice (beta 2) of character 1- to 6-grams (Popović 2015). Self-contained, because
`evaluate` copies this file elsewhere before importing it. One import a line, because `evaluate` reads the imports with
a regular expression.
"""

from __future__ import annotations

import datasets
import evaluate
from sacrebleu.metrics import CHRF

_DESCRIPTION = "chrF of translations against one reference each, with sacrebleu's signature."

_INPUTS = """
Args:
    predictions (list of str): translations, as the user sees them.
    references (list of str): one right translation of each, in the same order.
    char_order (int): longest run of characters that counts, 6 by default.
    word_order (int): longest run of words that counts, 0 by default; 2 makes chrF++.
Returns:
    chrf (float): in [0, 100].
    signature (str): with which settings and version.
Raises:
    ValueError: no example, lengths that differ, or a reference that is empty, with its row.
"""


class Chrf(evaluate.Metric):
    """Corpus chrF."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="Popović: chrF: character n-gram F-score for automatic MT evaluation. WMT 2015.",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def add_batch(self, *, predictions: list[str], references: list[str], **inputs: object) -> None:
        """Take examples after checking them: `evaluate` refuses lists of unequal length without naming a row."""
        _check(predictions, references)
        super().add_batch(predictions=predictions, references=references, **inputs)

    def _compute(
        self, predictions: list[str], references: list[str], char_order: int = 6, word_order: int = 0
    ) -> dict[str, float | str]:
        metric = CHRF(char_order=char_order, word_order=word_order)
        score = metric.corpus_score(predictions, [references])
        return {"chrf": score.score, "signature": str(metric.get_signature())}


def _check(predictions: list[str], references: list[str]) -> None:
    """Raise a ValueError that says what is wrong and in which row."""
    if len(predictions) == 0:
        raise ValueError("predictions are empty: the metric needs at least one translation")
    if len(predictions) != len(references):
        short, long = sorted((len(predictions), len(references)))
        raise ValueError(
            f"{len(predictions)} predictions against {len(references)} references: row {short} of {long} stands alone"
        )
    for row, reference in enumerate(references):
        if not reference.strip():
            raise ValueError(f"reference {row} is empty: there is nothing to compare with")
