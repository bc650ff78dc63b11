"""F1 of named entities as an `evaluate` module: a name counts when its span and its type are both right.

Precision, recall and F1 over whole entities, as in the CoNLL-2003 shared task (Tjong Kim Sang and De Meulder
2003, section 2.3), counted by `seqeval` (Nakayama 2018), which raises no error over a label that is not BIO; this
module does. Self-contained, because `evaluate` copies this file elsewhere before importing it. One import a line,
because `evaluate` reads the imports with a regular expression.
"""

from __future__ import annotations

import datasets
import evaluate
from seqeval.metrics import classification_report

_DESCRIPTION = "Precision, recall and F1 of named entities in BIO labels, exact span and type."

_INPUTS = """
Args:
    predictions (list of list of str): predicted labels, one list a sequence: "O", "B-PER", "I-PER" ...
    references (list of list of str): true labels, as many sequences of the same lengths.
An I- label that continues no entity of its type begins one, as the CoNLL scorer reads it.
Returns:
    precision, recall, f1 (float): over all entities of all types (micro average), in [0, 1]. Precision is 0
        where nothing is predicted, recall is 0 where there is nothing to find.
    per_type (dict): for each type, in alphabetical order: precision, recall, f1, support (true entities).
Raises:
    ValueError: no sequence, numbers or lengths that differ, a label that is not BIO, or no entity on either
        side (F1 would be 0/0).
"""


class EntityF1(evaluate.Metric):
    """Micro-averaged F1 of entities."""

    def _info(self) -> evaluate.MetricInfo:
        labels = datasets.Sequence(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="Tjong Kim Sang, De Meulder: Introduction to the CoNLL-2003 Shared Task. CoNLL 2003.",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": labels, "references": labels}),
        )

    def _compute(
        self, predictions: list[list[str]], references: list[list[str]]
    ) -> dict[str, float | dict[str, dict[str, float]]]:
        _check(predictions, references)
        if all(label == "O" for row in (*predictions, *references) for label in row):
            raise ValueError("entity F1 is 0/0: neither the predictions nor the references hold an entity")
        report = classification_report(references, predictions, output_dict=True, zero_division=0)
        scores = {name: _numbers(found) for name, found in report.items()}
        types = sorted(name for name in scores if not name.endswith(" avg"))
        per_type = {name: {**scores[name], "support": int(report[name]["support"])} for name in types}
        return {**scores["micro avg"], "per_type": per_type}


def _check(predictions: list[list[str]], references: list[list[str]]) -> None:
    """Raise a ValueError that says what is wrong and where."""
    if len(references) == 0:
        raise ValueError("references are empty: the metric needs at least one sequence")
    for row, (guess, truth) in enumerate(zip(predictions, references, strict=True)):
        if len(guess) != len(truth):
            raise ValueError(
                f"sequence {row} has {len(guess)} predicted and {len(truth)} true labels; leave out padding and "
                "special tokens on both sides"
            )
        for label in (*guess, *truth):
            if label != "O" and (label[:2] not in ("B-", "I-") or len(label) == 2):
                raise ValueError(f"sequence {row}: {label!r} is not a BIO label (O, B-TYPE or I-TYPE)")


def _numbers(found: dict[str, float]) -> dict[str, float]:
    return {
        "precision": float(found["precision"]),
        "recall": float(found["recall"]),
        "f1": float(found["f1-score"]),
    }
