"""Fine-tuning a model of `transformers` with the ecosystem's own pieces: the loop that chapter 5 writes out.

`training_loop` and `predict` stand in chapter 5 with the same source; a test compares the two. The rest is what the
chapter's experiments repeat for every model that they train.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    get_linear_schedule_with_warmup,
)

from sft.training import autocast, length_buckets, set_seed

Collate = Callable[[list[dict]], dict]


def training_loop(model, loader, optimizer, scheduler, num_epochs):
    """Train ``model`` on the batches of ``loader``, ``num_epochs`` times over.

    Args:
        model: returns ``.loss`` (mean over the batch) when a batch holds ``labels``.
        loader: iterable of batches, mappings from argument names to tensors, with a method ``to``.
        scheduler: stepped after each batch.

    Returns:
        loss of every step, before the step's update.
    """
    losses = []
    for _epoch in range(num_epochs):
        model.train()
        for batch in loader:
            with autocast(model.device):
                loss = model(**batch.to(model.device)).loss
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses


@torch.inference_mode()
def predict(model, rows, collate, batch_size=64):
    """Logits of every row in its order, float32, shape (N, num_labels).

    Args:
        rows: a :class:`datasets.Dataset` with ``input_ids``, as a tokenizer makes it.
        collate: pads a list of rows to one batch.
    """
    model.eval()
    logits = []
    for batch in DataLoader(rows, batch_size, collate_fn=collate):
        with autocast(model.device):
            logits.append(model(**batch.to(model.device)).logits.float().cpu())
    return torch.cat(logits).numpy()


class Buckets:
    """A batch sampler for :class:`torch.utils.data.DataLoader`: texts of similar lengths share a batch.

    Each pass over it shuffles anew, by a generator of its own.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size = np.asarray(lengths), batch_size
        self.rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterable[np.ndarray]:
        return iter(length_buckets(self.lengths, self.batch_size, self.rng))


def tokenize(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    """Columns ``text`` and ``label`` become what a model takes (``input_ids``, …) and ``label``."""
    return rows.map(
        lambda part: tokenizer(part["text"], truncation=True, max_length=max_length),
        batched=True,
        remove_columns="text",
    )


def load_classifier(
    location: str | Path, *, random: bool = False, seed: int = 0, dropout: float | None = None, **options
) -> PreTrainedModel:
    """A sequence classifier in float32 with a new head; the encoder as it was read, or as ``random`` numbers.

    The head is the same for one seed, whatever the encoder drew before it: random numbers are seeded again for it.

    Args:
        dropout: of the whole model; None keeps what the model's own configuration says.
        options: for ``from_pretrained``: ``num_labels``, ``id2label``, ``revision`` …
    """
    if dropout is not None:
        options |= {f"{place}_dropout_prob": dropout for place in ("hidden", "attention_probs")}
    set_seed(seed)
    if random:
        config = AutoConfig.from_pretrained(location, **options)
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(location, dtype=torch.float32, **options)
    return with_new_head(model, seed)


def with_new_head(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Draw the weights of the output layer anew; equal for equal seeds and shapes."""
    set_seed(seed)
    layer = output_layer(model)
    nn.init.normal_(layer.weight, std=model.config.initializer_range)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return model


def output_layer(model: PreTrainedModel) -> nn.Linear:
    """The last linear layer of a sequence classifier: ``classifier`` for BERT, deeper inside its head for others."""
    encoder = f"{model.base_model_prefix}."
    return [
        layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear)
        and layer.out_features == model.config.num_labels
        and not name.startswith(encoder)
    ][-1]


def train(
    model: PreTrainedModel,
    rows: Dataset,
    collate: Collate,
    *,
    lr: float,
    num_epochs: int,
    batch_size: int = 32,
    seed: int = 0,
    warmup_fraction: float = 0.1,
) -> list[float]:
    """:func:`training_loop` with AdamW, a linear schedule and batches of similar lengths; losses of all steps."""
    set_seed(seed)
    lengths = [len(ids) for ids in rows["input_ids"]]
    loader = DataLoader(rows, batch_sampler=Buckets(lengths, batch_size, seed), collate_fn=collate)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=lr, weight_decay=0.0)
    total = num_epochs * len(loader)
    scheduler = get_linear_schedule_with_warmup(optimizer, round(warmup_fraction * total), total)
    return training_loop(model, loader, optimizer, scheduler, num_epochs)
