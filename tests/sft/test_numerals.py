"""`sft/numerals.py`: numerals against numbers written by hand, and against the way back."""

from __future__ import annotations

import pytest
import torch

from sft.numerals import BOS, EOS, PAD, SYMBOLS, chinese_numeral, numeral_batch, written


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "零"),
        (7, "七"),
        (10, "十"),
        (15, "十五"),
        (110, "一百一十"),
        (305, "三百零五"),
        (1010, "一千零一十"),
        (3005, "三千零五"),
        (10_000, "一万"),
        (10_001, "一万零一"),
        (20_050, "二万零五十"),
        (99_999, "九万九千九百九十九"),
    ],
)
def test_numerals(number: int, text: str):
    assert chinese_numeral(number) == text


def test_no_two_numbers_read_alike():
    assert len({chinese_numeral(n) for n in range(100_000)}) == 100_000


@pytest.mark.parametrize("number", [-1, 100_000])
def test_out_of_range(number: int):
    with pytest.raises(ValueError, match=str(number)):
        chinese_numeral(number)


def test_a_batch_is_padded_on_the_right_and_reads_back():
    source, target = numeral_batch([7, 3005])
    assert ["".join(SYMBOLS[i] for i in row if i != PAD) for row in source] == ["七", "三千零五"]
    assert source[0].tolist()[1:] == [PAD] * 3
    assert target[:, 0].tolist() == [BOS, BOS] and target[1, -1] == EOS
    assert written(target) == ["7", "3005"]
    assert target.dtype == torch.int64
