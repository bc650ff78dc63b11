"""Pairs of sentences for next-sentence prediction, and how much their characters overlap (chapter 2).

A pair is a sentence and either the one that follows it in its paragraph or one drawn from another place (Devlin et
al. 2019, arXiv:1810.04805, section 3.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np


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
