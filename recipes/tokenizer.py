"""The tokenizers of the small models, in BERT's convention.

``[CLS] … [SEP]``, one token a Chinese character, so that a chapter written for them runs unchanged with
google-bert/bert-base-chinese.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders
from transformers import BertTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
    {%- if message.role == 'assistant' -%}
        {{- '助手：' -}}
        {%- generation -%}{{- message.content + eos_token -}}{%- endgeneration -%}
    {%- elif message.role == 'user' -%}
        {{- '用户：' + message.content + eos_token -}}
    {%- elif message.role == 'system' -%}
        {{- '要求：' + message.content + eos_token -}}
    {%- else -%}
        {{- raise_exception('unknown role ' + message.role) -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '助手：' -}}{%- endif -%}
"""
"""mini-gpt-zh's template. Its vocabulary has no tokens to spare for roles: they are words, after a token that only
the template writes."""


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


def with_chat(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerFast:
    """One of the book's tokenizers as a causal model wants it: same ids, bos, eos, a chat template.

    Decoded text has no spaces between its characters, and no ``token_type_ids`` are made, which decoders do not take.
    """
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.decoder = decoders.Sequence([decoders.Replace("##", ""), decoders.Fuse()])
    special = {
        f"{name}_token": getattr(tokenizer, f"{name}_token") for name in ("pad", "unk", "cls", "sep", "mask")
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **special,
        bos_token=tokenizer.cls_token,
        eos_token=tokenizer.sep_token,
        model_max_length=tokenizer.model_max_length,
        model_input_names=["input_ids", "attention_mask"],
        chat_template=CHAT_TEMPLATE,
    )
