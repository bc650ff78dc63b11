"""Associative recall: pairs of a key and a value, then the keys again, in another order.

The task of Arora et al. 2023 (MQAR, arXiv:2312.04927): what a model must keep is not one thing but all pairs, and how
far back the wanted pair stands differs from query to query. Shapes: ``batch`` sequences, ``n`` pairs in each.
"""

from __future__ import annotations

import torch
from torch import nn


def recall_batch(
    batch_size: int, num_pairs: int, num_keys: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sequences ``k v k v … k v | k k … k``: n pairs, then each key once more, in random order.

    Keys are the tokens 0 … ``num_keys`` − 1, values the ``num_keys`` tokens after them. The keys of a sequence differ
    from each other; its values need not. Answers are not fed back, so that none can be found by elimination.

    Returns:
        tokens, (batch, 3n); the value wanted after each of the last n tokens, (batch, n); and how many tokens before
        its query the pair's key stands, (batch, n).
    """
    shape = (batch_size, num_keys)
    keys = torch.rand(shape, generator=generator).argsort(1)[:, :num_pairs]
    values = torch.randint(num_keys, 2 * num_keys, keys.shape, generator=generator)
    order = torch.rand(keys.shape, generator=generator).argsort(1)
    pairs = torch.stack((keys, values), dim=2).flatten(1)  # (batch, 2n)
    tokens = torch.cat((pairs, keys.gather(1, order)), dim=1)
    distance = 2 * num_pairs + torch.arange(num_pairs) - 2 * order
    return tokens, values.gather(1, order), distance


class RecurrentReader(nn.Module):
    """Embedding, recurrent layers (``nn.LSTM`` or ``nn.GRU``), output layer."""

    def __init__(
        self, cell: type[nn.RNNBase], vocab_size: int, hidden_size: int, num_layers: int = 1
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, hidden_size)
        self.rnn = cell(hidden_size, hidden_size, num_layers, batch_first=True)
        self.head = nn.Linear(hidden_size, vocab_size)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Ids (batch, n) -> logits of the token after each position, (batch, n, V)."""
        h, _ = self.rnn(self.tokens(input_ids))  # (batch, n, hidden_size)
        return self.head(h)
