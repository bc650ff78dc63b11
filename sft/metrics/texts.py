"""What metrics of texts against one reference each ask of their input."""

from __future__ import annotations

from collections.abc import Sequence


def check_texts(predictions: Sequence[str], references: Sequence[str]) -> None:
    """Refuse what no metric of texts can judge.

    Raises:
        ValueError: no example, lengths that differ, or a reference that is empty, with its row.
    """
    if len(predictions) == 0:
        raise ValueError("predictions are empty: the metric needs at least one text")
    if len(predictions) != len(references):
        short, long = sorted((len(predictions), len(references)))
        raise ValueError(
            f"{len(predictions)} predictions against {len(references)} references: row {short} of {long} stands alone"
        )
    for row, reference in enumerate(references):
        if not reference.strip():
            raise ValueError(f"reference {row} is empty: there is nothing to compare with")
