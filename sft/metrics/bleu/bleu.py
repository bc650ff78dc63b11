"""BLEU as an `evaluate` module around sacrebleu: how many runs of words a translation shares with a reference.

BLEU is brevity penalty times the geometric mean of the precisions of 1- to 4-grams over the whole corpus (Papineni et
al. 2002). sacrebleu cuts texts into words itself and says in a signature how (Post 2018). `evaluate` copies this file
elsewhere before importing it, so that it names what is beside it in full. One import a line, because `evaluate` reads
the imports with a regular expression.
"""

from __future__ import annotations

import evaluate
from sacrebleu.metrics import BLEU

from sft.metrics import texts

_DESCRIPTION = "BLEU of translations against one reference each, with sacrebleu's signature."

_INPUTS = """
Args:
    predictions (list of str): translations, as the user sees them.
    references (list of str): one right translation of each, in the same order.
    tokenize (str): how sacrebleu cuts texts into words: "zh" (default: each Chinese character is a word), "13a"
        for languages with spaces, "char" ...
    per_example (bool): whether to return the counts of each example as well; False by default.
Returns:
    bleu (float): in [0, 100].
    precisions (list of float): of 1- to 4-grams, in percent.
    brevity_penalty (float): in (0, 1].
    signature (str): with which settings and version; belongs beside every BLEU that is published.
    counts (list of list of int, with per_example): for each example the shared n-grams (4), all n-grams (4),
        length of the translation, length of the reference; summed over the corpus they make BLEU.
Raises:
    ValueError: no example, lengths that differ, or a reference that is empty, with its row.
"""


class Bleu(texts.TextMetric):
    """Corpus BLEU."""

    def _info(self) -> evaluate.MetricInfo:
        citation = (
            "Papineni et al.: BLEU. ACL 2002. Post: A Call for Clarity in Reporting BLEU Scores. WMT 2018."
        )
        return texts.info(_DESCRIPTION, citation, _INPUTS)

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        tokenize: str = "zh",
        per_example: bool = False,
    ) -> dict[str, float | str | list[float] | list[list[int]]]:
        metric = BLEU(tokenize=tokenize)
        score = metric.corpus_score(predictions, [references])
        result = {
            "bleu": score.score,
            "precisions": list(score.precisions),
            "brevity_penalty": score.bp,
            "signature": str(metric.get_signature()),
        }
        if per_example:
            rows = (
                metric.corpus_score([said], [[right]])
                for said, right in zip(predictions, references, strict=True)
            )
            result["counts"] = [[*row.counts, *row.totals, row.sys_len, row.ref_len] for row in rows]
        return result
