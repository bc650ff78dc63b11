"""`sft/word_vectors.py`: pairs and loss against plain counting, and a text whose words fall into two kinds."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from sft import word_vectors
from sft.word_vectors import (
    SkipGram,
    build_vocabulary,
    nearest,
    neighbour_hits,
    skip_gram_pairs,
    subsample,
    train_skip_gram,
)


def test_vocabulary_leaves_out_rare_words_and_sorts_by_count():
    words, counts = build_vocabulary([["b", "a", "b"], ["b", "a", "c"]], 2)
    assert words == ["b", "a"]
    assert counts.tolist() == [3, 2]


def test_pairs_are_those_of_two_loops_and_cross_no_border():
    sentences = [np.array([0, 1, 2, 3, 1]), np.array([], dtype=np.int64), np.array([4]), np.array([5, 0])]
    plain = Counter(
        (int(s[i]), int(s[j]))
        for s in sentences
        for i in range(len(s))
        for j in range(max(0, i - 2), min(len(s), i + 3))
        if i != j
    )
    pairs = skip_gram_pairs(sentences, 2, np.random.default_rng(0))
    assert Counter(map(tuple, pairs.tolist())) == plain


def test_subsampling_keeps_the_rare_and_the_right_share_of_the_frequent():
    counts = np.array([90_000, 10_000])
    ids = np.repeat([0, 1], counts)
    kept = subsample([ids], counts, 0.1, np.random.default_rng(0))[0]
    assert (kept == 1).sum() == 10_000
    assert (kept == 0).mean() * len(kept) / 90_000 == pytest.approx(math.sqrt(0.1 / 0.9), abs=0.01)


def test_loss_is_the_equation_term_by_term():
    torch.manual_seed(0)
    model = SkipGram(6, 3)
    torch.nn.init.normal_(model.W)
    pairs, negatives = torch.tensor([[0, 1], [2, 3]]), torch.tensor([4, 5, 1])
    U, W = model.U.detach(), model.W.detach()
    expected = 0.0
    for w, c in pairs.tolist():
        expected -= math.log(torch.sigmoid(U[w] @ W[c])) / 2
        for n in negatives.tolist():
            expected -= 5.0 / 3 * math.log(torch.sigmoid(-U[w] @ W[n])) / 2
    assert model(pairs, negatives, 5.0).item() == pytest.approx(expected, rel=1e-5)


def test_words_of_a_kind_become_neighbours():
    rng = np.random.default_rng(0)  # 0-4 stand beside 10-14, 5-9 beside 15-19
    kinds = rng.integers(0, 2, 4000)
    text = [np.array([5 * k + rng.integers(5), 10 + 5 * k + rng.integers(5)]) for k in kinds]
    counts = np.bincount(np.concatenate(text), minlength=20)
    options = {
        "d": 8,
        "window": 1,
        "threshold": 1.0,
        "num_epochs": 3,
        "batch_size": 128,
        "lr": 0.02,
        "seed": 0,
    }
    model, curve = train_skip_gram(text, counts, **options)
    again, _ = train_skip_gram(text, counts, **options)
    assert torch.equal(model.U, again.U)
    assert curve[0] == pytest.approx(6 * math.log(2), rel=1e-4)
    for word in range(10):
        found = nearest(model.U.detach(), model.U.detach()[word], 5)
        assert {w // 5 for w in found} == {word // 5}


def test_every_query_is_of_its_own_category():
    queries = [(c, q) for c, line in word_vectors.QUERIES.items() for q in line.split()]
    assert len(queries) >= 20 and len({q for _, q in queries}) == len(queries)
    assert all(query in word_vectors.CATEGORIES[c].split() for c, query in queries)


def test_hits_of_vectors_that_are_right_by_construction():
    words = [*word_vectors.CATEGORIES["月份"].split(), "甲", "乙"]
    vectors = torch.tensor([[1.0, 0.01 * i] for i in range(len(words) - 2)] + [[-1.0, 0.0], [0.0, -1.0]])
    hits = neighbour_hits(vectors, words, 3)
    assert hits.keys() == {"3月", "8月"} and all(all(found) for found in hits.values())
