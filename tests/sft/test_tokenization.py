"""Texts as token ids."""

from __future__ import annotations

from recipes.tokenizer import build_char_tokenizer
from sft.tokenization import encode


def test_truncation_counts_the_special_tokens():
    tokenizer = build_char_tokenizer(["不错"])
    assert [len(ids) for ids in encode(tokenizer, ["不错" * 40, "不"], 16)] == [16, 3]
