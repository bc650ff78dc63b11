"""Pre-training from the packaged corpora: masked and causal language models.

Run as ``python -m sft.pretrain``; ``--help`` lists what can be set.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F
from transformers import BertForMaskedLM, PreTrainedTokenizerBase

# --- pieces --------------------------------------------------------------------------------------------


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


def pack(documents: Sequence[Sequence[int]], length: int) -> torch.Tensor:
    """Documents end to end, cut into full blocks: no padding, so no arithmetic is wasted.

    Attention may cross from one document into the next: ``[SEP]`` marks the border, and a mask for each block would
    cost more than it brings at these lengths. The rest that fills no block is dropped.

    Args:
        documents: token ids of each, ``[CLS] … [SEP]``.

    Returns:
        int64, shape (blocks, length).
    """
    stream = torch.tensor([token for document in documents for token in document], dtype=torch.long)
    blocks = len(stream) // length
    return stream[: blocks * length].view(blocks, length)
