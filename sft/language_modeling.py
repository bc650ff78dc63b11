"""What language models are trained on and judged by: BERT's masks and their loss, bits for each character.

`mask_tokens` and `masked_lm_loss` stand in chapter 2 with the same source; a test compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional as F
from transformers import BertForMaskedLM, PreTrainedModel, PreTrainedTokenizerBase

from sft.training import autocast

UNSEEN_BITS = 16.0
"""Charged for each character outside the vocabulary: it must be named among the 2¹⁶ of Unicode's first plane."""


def mask_tokens(
    input_ids: torch.Tensor,
    tokenizer: PreTrainedTokenizerBase,
    fraction: float = 0.15,
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """BERT's corruption (Devlin et al. 2019, section 3.1): of the chosen tokens 80 % become ``[MASK]``, 10 % another
    token drawn at random, 10 % stay.

    Args:
        input_ids: token ids, shape (batch, n); not changed.
        tokenizer: names the special tokens, which are never chosen and never drawn.
        fraction: probability that a token is chosen.
        generator: of the CPU; the same state gives the same result on every device.

    Returns:
        the corrupted ids, shape (batch, n), and the chosen positions, bool, shape (batch, n): what the model is to
        fill is ``input_ids[chosen]``.
    """
    special = torch.tensor(sorted(tokenizer.all_special_ids))
    ordinary = torch.ones(len(tokenizer), dtype=torch.bool)
    ordinary[special] = False
    ordinary = ordinary.nonzero().squeeze(1)  # (ids that may be drawn,)
    choice, fate = torch.rand((2, *input_ids.shape), generator=generator).to(input_ids.device)
    drawn = ordinary[torch.randint(len(ordinary), input_ids.shape, generator=generator)].to(input_ids.device)
    chosen = (choice < fraction) & ~torch.isin(input_ids, special.to(input_ids.device))
    masked = torch.where(chosen & (fate < 0.8), tokenizer.mask_token_id, input_ids)
    return torch.where(chosen & (fate >= 0.9), drawn, masked), chosen


def masked_lm_loss(
    model: BertForMaskedLM,
    masked_ids: torch.Tensor,
    chosen: torch.Tensor,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean cross-entropy in nats over the chosen positions; 0 where none was chosen.

    The projection onto the vocabulary, the largest product of a small model, runs at the chosen positions only.

    Args:
        masked_ids, chosen: from :func:`mask_tokens`, both (batch, n).
        input_ids: the text itself, (batch, n).
        attention_mask: (batch, n), 0 at padding; None where nothing is padded.
    """
    hidden = model.bert(input_ids=masked_ids, attention_mask=attention_mask).last_hidden_state
    logits = model.cls(hidden[chosen])  # (chosen positions, vocabulary)
    loss = F.cross_entropy(logits.float(), input_ids[chosen], reduction="sum")
    return loss / max(1, len(logits))


def tokenise(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of whole texts, ``[CLS] … [SEP]``, however long."""
    limit = tokenizer.model_max_length
    tokenizer.model_max_length = 10**9  # the blocks are cut later; no warning is due
    try:
        return tokenizer(list(texts), return_attention_mask=False)["input_ids"]
    finally:
        tokenizer.model_max_length = limit


@torch.inference_mode()
def bits_per_character(
    model: PreTrainedModel,
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    context: int | None = None,
    stride: int | None = None,
    batch_size: int = 16,
    device: torch.device | None = None,
) -> float:
    """Bits that a causal model needs for each character (white space apart) of texts read one after another.

    Windows of ``context`` tokens, by default the longest blocks that the model was trained on, overlap, by half if
    ``stride`` does not say otherwise: every token but the first ones sees at least ``context`` − ``stride`` before it.
    Ends of texts are predicted too; a character outside the vocabulary costs 16 bits on top of ``[UNK]``.
    """
    device = device or next(model.parameters()).device
    context = context or model.config.max_position_embeddings // 2  # as `recipes.pretrain` sets it
    stride = stride or context // 2
    model.eval()
    stream = torch.tensor([token for ids in tokenise(texts, tokenizer) for token in ids], dtype=torch.long)
    padding = -(len(stream) - context) % stride if len(stream) > context else context - len(stream)
    windows = F.pad(stream, (0, padding), value=tokenizer.pad_token_id).unfold(0, context, stride)
    starts = tokenizer.cls_token_id  # after [SEP] it is no news; other tokenizers have none
    silent = torch.tensor([i for i in (tokenizer.pad_token_id, starts) if i is not None], device=device)
    nats = 0.0
    for start in range(0, len(windows), batch_size):
        batch = windows[start : start + batch_size].to(device)
        with autocast(device):
            logits = model(input_ids=batch).logits[:, :-1]
        losses = F.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten(), reduction="none").view(
            len(batch), -1
        )
        counted = ~torch.isin(batch[:, 1:], silent)
        first = slice(1, None) if start == 0 else slice(None)
        counted[first, : context - stride - 1] = False  # the window before has counted these
        nats += losses[counted].double().sum().item()
    unknown = tokenizer.unk_token_id
    unseen = 0 if unknown is None else int((stream == unknown).sum())
    characters = sum(not character.isspace() for text in texts for character in text)
    return (nats / math.log(2) + UNSEEN_BITS * unseen) / characters
