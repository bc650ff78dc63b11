"""Tables of a report's HTML page, and the one way text gets into it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from harness.wording import one_line


def escape(text: object) -> str:
    """*text* on one line, as literal text of a page or of an attribute."""
    return html.escape(one_line(text))


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: Sequence[int] = (),
    shares: Mapping[int, Sequence[float]] | None = None,
    row_heads: bool = False,
) -> str:
    """Cells are HTML. Columns in *numbers* are set to the right; *shares* draw a bar behind a number.

    The roles keep it a table for a screen reader where a phone's style lays the cells below each other.
    """
    heads = "".join(
        f'<th scope="col" role="columnheader"{" class=number" if place in numbers else ""}>{name}</th>'
        for place, name in enumerate(head)
    )
    lines = []
    for number, row in enumerate(rows):
        cells = []
        for place, content in enumerate(row):
            if row_heads and place == 0:
                cells.append(f'<th scope="row" role="rowheader">{content}</th>')
                continue
            look = ' class="number"' if place in numbers else ""
            if shares and place in shares:
                look = f' class="number share" style="--of:{shares[place][number]:.3g}"'
            cells.append(f'<td role="cell"{look} data-name="{head[place]}">{content}</td>')
        lines.append(f'<tr role="row">{"".join(cells)}</tr>')
    return (
        f'<div class="wide"><table class="stack" role="table"><thead><tr role="row">{heads}</tr></thead>\n'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def shares(values: Sequence[float]) -> list[float]:
    """Each value as a part of the largest, for the bar behind it."""
    largest = max(values, default=0.0) or 1.0
    return [value / largest for value in values]
