"""Tokenizers of the book's own small models, in BERT's convention.

``[CLS] … [SEP]``, one token a Chinese character, so that a chapter written for them runs unchanged with
google-bert/bert-base-chinese.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Sequence

from transformers import BertTokenizer, PreTrainedTokenizerBase

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def common_characters() -> list[str]:
    """The 6,763 Chinese characters of GB 2312, the standard's two levels (Python's own codec knows them)."""
    rows = [bytes((row, cell)) for row in range(0xB0, 0xF8) for cell in range(0xA1, 0xFF)]
    return [character for code in rows if (character := code.decode("gb2312", errors="ignore"))]


def build_char_tokenizer(
    texts: Iterable[str], *, min_count: int = 2, max_length: int = 512, extra: Iterable[str] = ()
) -> BertTokenizer:
    """A :class:`BertTokenizer` whose vocabulary is the characters of ``texts``.

    Letters and digits also get a ``##`` form, so that no Latin word becomes ``[UNK]``. Characters seen fewer
    than ``min_count`` times are left out: a model can learn nothing from them. Those in ``extra`` are always in.
    """
    counts = Counter(char for text in texts for char in text.lower() if not char.isspace())
    alphanumeric = string.ascii_lowercase + string.digits
    seen = {char for char, n in counts.items() if n >= min_count}
    kept = sorted(seen.union(extra).difference(alphanumeric))
    pieces = [*SPECIAL_TOKENS, *alphanumeric, *(f"##{char}" for char in alphanumeric), *kept]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    return BertTokenizer(vocab=vocab, do_lower_case=True, model_max_length=max_length)


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Token ids of each text, ``[CLS]`` and ``[SEP]`` included, cut at ``max_length``, not padded."""
    return tokenizer(list(texts), truncation=True, max_length=max_length, return_attention_mask=False)[
        "input_ids"
    ]
