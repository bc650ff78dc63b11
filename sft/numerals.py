"""The task of chapter 3: read a number written in Chinese characters, write it in digits (三千零五 → 3005).

Small, made by a rule, and yet not letter by letter: 零 stands for one zero or several, zeros at the end are not spoken.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

DIGITS = "零一二三四五六七八九"
SYMBOLS = ("[PAD]", "[BOS]", "[EOS]", *DIGITS, *"十百千万", *"0123456789")
PAD, BOS, EOS = range(3)
ID_OF = {symbol: i for i, symbol in enumerate(SYMBOLS)}


def chinese_numeral(n: int) -> str:
    """``n`` in Chinese characters, 0 ≤ n < 100 000.

    Raises:
        ValueError: a number out of that range.
    """
    if not 0 <= n < 100_000:
        raise ValueError(f"{n} is not between 0 and 99 999")
    text, zero = "" if n else "零", False
    for unit, name in ((10_000, "万"), (1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit, n = divmod(n, unit)
        if digit:
            text += ("零" if zero and text else "") + DIGITS[digit] + name
        zero = not digit
    return text[1:] if text.startswith("一十") else text


def padded(rows: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> torch.Tensor:
    """Rows of ids, filled up with ``PAD`` on the right, (batch, longest)."""
    length = max(map(len, rows))
    return torch.tensor([[*row, *[PAD] * (length - len(row))] for row in rows], device=device)


def source_ids(texts: Iterable[str], device: torch.device | str = "cpu") -> torch.Tensor:
    """Chinese numerals as ids, (batch, m)."""
    return padded([[ID_OF[c] for c in text] for text in texts], device)


def numeral_batch(
    numbers: Iterable[int], device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """What is read, (batch, m), and what is to be written, ``[BOS] 3 0 0 5 [EOS]``, (batch, n)."""
    numbers = [int(number) for number in numbers]
    target = [[BOS, *(ID_OF[c] for c in str(number)), EOS] for number in numbers]
    return source_ids(map(chinese_numeral, numbers), device), padded(target, device)


def written(rows: torch.Tensor) -> list[str]:
    """Rows of ids (batch, n) as text, without the special symbols."""
    return ["".join(SYMBOLS[i] for i in row if i > EOS) for row in rows.tolist()]
