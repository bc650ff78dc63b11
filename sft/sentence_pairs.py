"""Pairs of sentences for next-sentence prediction, and what a linear classifier is shown of them (chapter 2).

A pair is a sentence and either the one that follows it in its paragraph or one drawn from another place (Devlin et
al. 2019, arXiv:1810.04805, section 3.1).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft.distill import mean_pool
from sft.tokenization import encode
from sft.training import Encoded, autocast, collate


def split_sentences(text: str) -> list[str]:
    """The sentences of a paragraph, each with the mark that ends it; a rest without one is dropped."""
    return re.findall("[^。！？]+[。！？]", text)


def make_pairs(texts: Iterable[str], n: int, seed: int) -> tuple[list[tuple[str, str]], np.ndarray]:
    """``n`` pairs and their labels, (n,): 1 where the second sentence really follows the first."""
    rng = np.random.default_rng(seed)
    paragraphs = [sentences for sentences in map(split_sentences, texts) if len(sentences) > 1]
    pairs, labels = [], rng.integers(2, size=n)
    for is_next in labels:
        here, there = (paragraphs[i] for i in rng.integers(len(paragraphs), size=2))
        i = rng.integers(len(here) - 1)
        other = here[i + 1] if is_next else there[rng.integers(len(there))]
        pairs.append((here[i], other))
    return pairs, labels


def overlap(pair: tuple[str, str]) -> float:
    """The characters that both sentences have, as a share of all that either has."""
    a, b = set(pair[0]), set(pair[1])
    return len(a & b) / len(a | b)


def pair_features(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """``[u, v, |u − v|, u ⊙ v]`` of sentence vectors (n, d), as InferSent has it (arXiv:1705.02364): (n, 4d).

    The last two do not change when the sentences are swapped.
    """
    return np.hstack([u, v, abs(u - v), u * v])


@torch.no_grad()
def average_vectors(
    encoder: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sentences: Sequence[str],
    max_length: int,
    device: torch.device,
    batch_size: int = 64,
) -> np.ndarray:
    """The mean of each sentence's last hidden states, (sentences, d)."""
    rows = Encoded(encode(tokenizer, sentences, max_length), [0] * len(sentences))
    order = np.argsort([len(ids) for ids in rows.input_ids], kind="stable")
    parts = []
    for batch in np.array_split(order, math.ceil(len(order) / batch_size)):
        input_ids, mask, _ = collate(rows, batch, tokenizer.pad_token_id, device)
        with autocast(device):
            hidden = encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state
        parts.append(mean_pool(hidden.float(), mask))
    return torch.cat(parts).cpu().numpy()[np.argsort(order)]
