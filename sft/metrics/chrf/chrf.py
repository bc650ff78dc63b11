"""chrF as an `evaluate` module around sacrebleu: how many runs of characters a translation shares with a reference.

F-score with recall counted twice (beta 2) of character 1- to 6-grams (Popović 2015). `evaluate` copies this file
elsewhere before importing it, so that it names what is beside it in full. One import a line, because `evaluate` reads
the imports with a regular expression.
"""

from __future__ import annotations

from collections import Counter

import evaluate
from sacrebleu.metrics import CHRF

from sft.metrics import texts

_DESCRIPTION = "chrF of translations against one reference each, with sacrebleu's signature."

_INPUTS = """
Args:
    predictions (list of str): translations, as the user sees them.
    references (list of str): one right translation of each, in the same order.
    char_order (int): longest run of characters that counts, 6 by default.
    per_example (bool): whether to return the counts of each example as well; False by default.
Returns:
    chrf (float): in [0, 100].
    signature (str): with which settings and version.
    counts (list of list of int, with per_example): for each example and each length of run, shortest first: runs of
        the translation, runs of the reference, shared runs; summed over the corpus they make chrF.
Raises:
    ValueError: no example, lengths that differ, or a reference that is empty, with its row.
"""


class Chrf(texts.TextMetric):
    """Corpus chrF."""

    def _info(self) -> evaluate.MetricInfo:
        citation = "Popović: chrF: character n-gram F-score for automatic MT evaluation. WMT 2015."
        return texts.info(_DESCRIPTION, citation, _INPUTS)

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        char_order: int = 6,
        per_example: bool = False,
    ) -> dict[str, float | str | list[list[int]]]:
        metric = CHRF(char_order=char_order)
        score = metric.corpus_score(predictions, [references])
        result = {"chrf": score.score, "signature": str(metric.get_signature())}
        if per_example:
            pairs = zip(predictions, references, strict=True)
            result["counts"] = [_counts(said, right, char_order) for said, right in pairs]
        return result


def _counts(said: str, right: str, char_order: int) -> list[int]:
    """Runs of 1 to ``char_order`` characters, spaces left out: of the translation, of the reference, shared."""
    counts = []
    for n in range(1, char_order + 1):
        ours, theirs = (_runs("".join(text.split()), n) for text in (said, right))
        # as sacrebleu: where the reference has no run of this length, the translation's do not count either
        counts += [ours.total() if theirs else 0, theirs.total(), (ours & theirs).total()]
    return counts


def _runs(text: str, n: int) -> Counter[str]:
    return Counter(text[start : start + n] for start in range(len(text) - n + 1))
