"""Associative recall: pairs of a key and a value, then the keys again, in another order.

The task of Arora et al. 2023 (MQAR, arXiv:2312.04927): what a model must keep is not one thing but all pairs, and how
far back the wanted pair stands differs from query to query. Shapes: ``batch`` sequences, ``n`` pairs in each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


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


def reader_optimizers(model: nn.Module, muon: bool) -> list[tuple[torch.optim.Optimizer, float]]:
    """The optimisers of one reader, each with its learning rate: AdamW alone, or Muon for the inner matrices.

    Muon is Jordan 2024, https://kellerjordan.github.io/posts/muon/. The rates are the better ones of the few that were
    tried for each network near chapter 1's size: AdamW 0.005 and 0.01, Muon 0.02 and 0.05.
    """
    if not muon:
        return [(torch.optim.AdamW(model.parameters(), weight_decay=0.0), 1e-2)]
    inner = {k for k, w in model.named_parameters() if w.ndim == 2 and (".W_" in k or "rnn" in k)}
    a, b = ([w for k, w in model.named_parameters() if (k in inner) == side] for side in (True, False))
    return [
        (torch.optim.Muon(a, weight_decay=0.0), 2e-2),
        (torch.optim.AdamW(b, betas=(0.9, 0.98), weight_decay=0.0), 3e-3),
    ]


def train_reader(
    model: nn.Module,
    num_keys: int,
    sizes: Sequence[int],
    steps: int,
    seed: int,
    device: torch.device,
    *,
    muon: bool,
) -> None:
    """Train a reader in place; the pairs a sequence grow through ``sizes`` (Bengio et al. 2009's curriculum).

    Every second step is drawn from the sizes seen so far. The loss is taken at the queries alone.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizers = reader_optimizers(model, muon)
    for step in range(steps):
        stage = int(np.clip((step / steps - 0.3) / 0.6 * len(sizes), 0, len(sizes) - 1))
        draw = int(torch.randint(stage + 1, (), generator=generator))
        n = sizes[draw if step % 2 else stage]
        tokens, wanted, _ = recall_batch(512 // (3 * n), n, num_keys, generator)
        logits = model(tokens.to(device))[:, -n:]  # (batch, n, V)
        loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten().to(device))
        for optimizer, lr in optimizers:
            factor = min(1, (step + 1) / 20, (steps - step) / steps * 5)
            optimizer.param_groups[0]["lr"] = lr * factor
            optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, _ in optimizers:
            optimizer.step()
