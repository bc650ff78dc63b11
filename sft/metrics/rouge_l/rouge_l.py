"""ROUGE-L as an `evaluate` module around rouge-chinese: how long a run of characters, gaps allowed, two texts share.

From the longest common subsequence of an answer and its reference come a precision, a recall and their F1 (Lin 2004,
section 3). rouge-chinese counts what blanks part; here every character is a unit, so that no way of cutting Chinese
into words enters the score. `evaluate` copies this file elsewhere before importing it, so that it names what is
beside it in full. One import a line, because `evaluate` reads the imports with a regular expression.
"""

from __future__ import annotations

import evaluate
from rouge_chinese import Rouge

from sft.metrics import texts

_DESCRIPTION = "ROUGE-L of answers against one reference each, character by character."

_INPUTS = """
Args:
    predictions (list of str): answers; one may be empty and scores 0.
    references (list of str): a right answer to each, in the same order.
    per_example (bool): whether to return the F1 of each example as well; False by default.
Blanks do not count; punctuation and upper case do.
Returns:
    rouge_l (float): mean F1 over the examples, in [0, 1].
    precision, recall (float): means of the share of the answer, and of the reference, that is common.
    per_example (list of float, with per_example): F1 of each, in the order of the input.
Raises:
    ValueError: no example, lengths that differ, or a reference that is empty, with its row.
"""


class RougeL(texts.TextMetric):
    """Mean ROUGE-L F1 over characters."""

    def _info(self) -> evaluate.MetricInfo:
        citation = "Lin: ROUGE: A Package for Automatic Evaluation of Summaries. ACL workshop, 2004."
        return texts.info(_DESCRIPTION, citation, _INPUTS)

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        per_example: bool = False,
    ) -> dict[str, float | list[float]]:
        rouge = Rouge(
            metrics=["rouge-l"], raw_results=True
        )  # counts: its own F1 of equal texts is not quite 1
        scores = [
            _score(rouge, said, right) for said, right in zip(predictions, references, strict=True)
        ]  # (precision, recall, F1) of each
        precision, recall, f1 = (sum(column) / len(scores) for column in zip(*scores, strict=True))
        result = {"rouge_l": f1, "precision": precision, "recall": recall}
        if per_example:
            result["per_example"] = [score[2] for score in scores]
        return result


def _score(rouge: Rouge, said: str, right: str) -> tuple[float, float, float]:
    """Precision, recall and F1 of one answer."""
    said, right = (" ".join("".join(text.split())) for text in (said, right))
    if not said:  # rouge-chinese refuses it; a model may well say nothing
        return 0.0, 0.0, 0.0
    (counts,) = rouge.get_scores([said], [right])
    common, of_said, of_right = (counts["rouge-l"][name] for name in ("overlap", "hyp", "ref"))
    return common / of_said, common / of_right, 2 * common / (of_said + of_right)
