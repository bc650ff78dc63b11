"""Instruction tuning of a causal model: questions with answers, the loss taken on the answers alone.

An example is ``[CLS] question [SEP] answer [SEP]``; the positions up to the first ``[SEP]`` carry the label −100: the
model learns to answer and not to ask (Ouyang et al. 2022, arXiv:2203.02155, call it supervised fine-tuning).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft.training import autocast, length_buckets, make_optimizer, warmup_linear

IGNORED = -100
"""The label of a position without a loss, :func:`torch.nn.functional.cross_entropy`'s own."""


@dataclass(frozen=True)
class Example:
    """Token ids and labels of one question and its answer, equally long."""

    input_ids: list[int]
    labels: list[int]


def dictionary_question(word: str) -> str:
    """The question that a dictionary entry answers."""
    return f"什么是“{word}”？"


def encode_example(
    tokenizer: PreTrainedTokenizerBase,
    question: str,
    answer: str,
    max_length: int = 128,
    *,
    loss_on_question: bool = False,
) -> Example:
    """One question and answer as ids; the answer is cut where ``max_length`` is reached.

    Args:
        loss_on_question: take the loss everywhere, to see what that costs.

    Raises:
        ValueError: the question alone fills ``max_length``.
    """
    asked = tokenizer(question, return_attention_mask=False)["input_ids"]  # [CLS] … [SEP]
    answered = tokenizer(answer, return_attention_mask=False)["input_ids"][1:]  # … [SEP]
    if len(asked) >= max_length:
        raise ValueError(
            f"question of {len(asked)} tokens leaves no room for an answer in max_length={max_length}"
        )
    ids = (asked + answered)[:max_length]
    labels = ids if loss_on_question else [IGNORED] * len(asked) + ids[len(asked) :]
    return Example(ids, list(labels))


def collate_examples(
    examples: Sequence[Example], pad_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One padded batch: ``input_ids``, ``attention_mask`` and ``labels``, each (batch, n) int64."""
    n = max(len(example.input_ids) for example in examples)
    input_ids = torch.full((len(examples), n), pad_id)
    labels = torch.full((len(examples), n), IGNORED)
    mask = torch.zeros((len(examples), n), dtype=torch.long)
    for row, example in enumerate(examples):
        length = len(example.input_ids)
        input_ids[row, :length] = torch.tensor(example.input_ids)
        labels[row, :length] = torch.tensor(example.labels)
        mask[row, :length] = 1
    return input_ids.to(device), mask.to(device), labels.to(device)


def answer_loss(
    model: PreTrainedModel, batch: tuple[torch.Tensor, ...], reduction: str = "mean"
) -> torch.Tensor:
    """Cross-entropy in nats over the labelled positions; position t predicts token t + 1."""
    input_ids, attention_mask, labels = batch
    with autocast(input_ids.device):
        logits = model(input_ids=input_ids, attention_mask=attention_mask).logits[:, :-1]
    wanted = labels[:, 1:].flatten()
    return F.cross_entropy(logits.flatten(0, 1).float(), wanted, ignore_index=IGNORED, reduction=reduction)


@torch.inference_mode()
def mean_answer_loss(
    model: PreTrainedModel,
    examples: Sequence[Example],
    pad_id: int,
    device: torch.device,
    batch_size: int = 32,
) -> float:
    """Nats a labelled token over all examples; its exponential is the perplexity of the answers."""
    model.eval()
    total, count = 0.0, 0
    for start in range(0, len(examples), batch_size):
        batch = collate_examples(examples[start : start + batch_size], pad_id, device)
        total += answer_loss(model, batch, "sum").item()
        count += int((batch[2][:, 1:] != IGNORED).sum())
    return total / count


def tune(
    model: PreTrainedModel,
    examples: Sequence[Example],
    pad_id: int,
    device: torch.device,
    *,
    num_epochs: int = 1,
    batch_size: int = 32,
    lr: float = 5e-4,
    seed: int = 0,
) -> list[float]:
    """Instruction-tune in place; returns the loss of each step.

    Raises:
        FloatingPointError: the loss is no longer finite.
    """
    lengths, rng = np.array([len(example.input_ids) for example in examples]), np.random.default_rng(seed)
    steps = num_epochs * math.ceil(len(examples) / batch_size)
    optimizer = make_optimizer(model, lr)
    losses: list[float] = []
    model.to(device).train()
    for _ in range(num_epochs):
        for rows in length_buckets(lengths, batch_size, rng):
            for group in optimizer.param_groups:
                group["lr"] = lr * warmup_linear(len(losses), steps)
            loss = answer_loss(model, collate_examples([examples[i] for i in rows], pad_id, device))
            if not torch.isfinite(loss):
                raise FloatingPointError(f"loss is {loss.item()} at step {len(losses) + 1}; lower lr={lr}")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
    return losses
