"""Kneser–Ney against a second, plain implementation that follows the formulas word by word."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from sft.ngram import KneserNey


class Plain:
    """Modified Kneser–Ney with dictionaries (Chen and Goodman 1998, equations 25 to 27)."""

    def __init__(self, tokens, vocabulary, order):
        self.vocabulary, self.order = vocabulary, order
        grams = {
            n: [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)] for n in range(1, order + 1)
        }
        self.counts = {order: Counter(grams[order])}
        for n in range(1, order):
            before = defaultdict(set)
            for gram in grams[n + 1]:
                before[gram[1:]].add(gram[0])
            self.counts[n] = Counter({gram: max(1, len(before[gram])) for gram in set(grams[n])})
        self.discounts = {}
        for n, counts in self.counts.items():
            n1, n2, n3, n4 = (sum(c == k for c in counts.values()) for k in (1, 2, 3, 4))
            unit = n1 / max(1, n1 + 2 * n2)
            raw = [
                1 - 2 * unit * n2 / n1 if n1 else 0,
                2 - 3 * unit * n3 / n2 if n2 else 0,
                3 - 4 * unit * n4 / n3 if n3 else 0,
            ]
            self.discounts[n] = [0, *(min(k, max(0.01, d)) for k, d in enumerate(raw, 1))]

    def p(self, token, context, n=None):
        n = min(self.order, len(context) + 1) if n is None else n
        if n == 0:
            return 1 / self.vocabulary
        context = tuple(context[len(context) - n + 1 :])
        following = {gram[-1]: c for gram, c in self.counts[n].items() if gram[:-1] == context}
        shorter = self.p(token, context[1:] if n > 1 else (), n - 1)
        if not following:
            return shorter
        total = sum(following.values())
        d = self.discounts[n]
        kept = {w: max(0, c - d[min(c, 3)]) for w, c in following.items()}
        return kept.get(token, 0) / total + (1 - sum(kept.values()) / total) * shorter


@pytest.fixture(scope="module", params=[1, 2, 3, 5])
def models(request):
    rng = np.random.default_rng(0)
    tokens = np.cumsum(rng.integers(0, 3, 400)) % 7  # follows itself, so that longer contexts matter
    return tokens, KneserNey(tokens, 9, request.param), Plain(tokens.tolist(), 9, request.param)


def test_it_agrees_with_the_plain_formulas(models):
    _, fast, plain = models
    text = np.random.default_rng(1).integers(0, 9, 60)  # 7 and 8 were never seen
    expected = [
        plain.p(int(w), tuple(text[max(0, i - plain.order + 1) : i].tolist())) for i, w in enumerate(text)
    ]
    np.testing.assert_allclose(fast.probabilities(text), expected, rtol=1e-10)


def test_probabilities_of_all_tokens_sum_to_one(models):
    tokens, fast, _ = models
    for history in (tokens[:6], tokens[100:106], np.array([8, 8, 8, 8]), np.array([], int)):
        whole = [fast.probabilities(np.append(history, w))[-1] for w in range(9)]
        assert sum(whole) == pytest.approx(1.0) and min(whole) > 0


def test_longer_contexts_help_on_text_of_the_same_kind():
    rng = np.random.default_rng(2)
    train, test = (np.cumsum(rng.integers(0, 2, n)) % 11 for n in (5000, 1000))
    bits = [-np.log2(KneserNey(train, 11, n).probabilities(test)).mean() for n in (1, 2)]
    assert bits[1] < 0.5 * bits[0] and bits[1] == pytest.approx(1.0, abs=0.05)


def test_too_short_a_text_is_named():
    with pytest.raises(ValueError, match="too few"):
        KneserNey(np.arange(3), 5, 5)
