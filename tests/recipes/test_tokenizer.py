"""The character tokenizer follows BERT's convention."""

from __future__ import annotations

from transformers import AutoTokenizer

from recipes.tokenizer import SPECIAL_TOKENS, build_char_tokenizer
from sft.tokenization import encode

TEXTS = ["房间不错", "房间太小", "WiFi 太慢，不错"]


def test_ids_and_tokens():
    tokenizer = build_char_tokenizer(TEXTS)
    assert tokenizer.convert_ids_to_tokens(range(5)) == list(SPECIAL_TOKENS)
    assert tokenizer.pad_token_id == 0
    tokens = tokenizer.convert_ids_to_tokens(encode(tokenizer, ["房间不错，WiFi慢"], 32)[0])
    assert tokens == ["[CLS]", "房", "间", "不", "错", "[UNK]", "w", "##i", "##f", "##i", "[UNK]", "[SEP]"]


def test_vocabulary_is_the_characters_and_nothing_of_the_five_token_trap():
    tokenizer = build_char_tokenizer(TEXTS, min_count=1)
    assert len(tokenizer) == 5 + 2 * 36 + len(set("房间不错太小慢，"))


def test_survives_saving(tmp_path):
    tokenizer = build_char_tokenizer(TEXTS)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert encode(again, TEXTS, 20) == encode(tokenizer, TEXTS, 20)
    assert again.get_vocab() == tokenizer.get_vocab()
