"""An n-gram language model with modified Kneser–Ney smoothing: the baseline that a neural one must beat.

Source: Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling", TR-10-98, Harvard 1998,
section 3: interpolated, three discounts an order, continuation counts below the highest order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class _Order:
    """Discounted counts of the n-grams of one length, as sorted arrays."""

    keys: np.ndarray  # number of the context × vocabulary + last token, sorted, int64
    discounted: np.ndarray  # (count − discount) / total count of the context
    contexts: np.ndarray  # numbers of the contexts, sorted
    backoff: np.ndarray  # mass of each context that the shorter order gets


class KneserNey:
    """Probability of the next token given the last ``order`` − 1.

    Args:
        tokens: the training text as one stream of ids, shape (N,).
        vocabulary: ids are smaller than this; unseen ones get their share of the uniform distribution.
        order: 5 for a 5-gram model.
    """

    def __init__(self, tokens: np.ndarray, vocabulary: int, order: int = 5) -> None:
        if len(tokens) < order:
            raise ValueError(f"{len(tokens)} tokens are too few for {order}-grams")
        self.vocabulary, self.order = vocabulary, order
        tokens = np.asarray(tokens, np.int64)
        # numbers of the contexts: an n-gram's number is its place among the sorted n-grams of its length
        self._grams: list[np.ndarray] = [np.zeros(1, np.int64)]
        numbers = [np.zeros(len(tokens) + 1, np.int64)]  # of the n-gram that begins at each place, by length
        raw: list[tuple[np.ndarray, np.ndarray]] = []
        for n in range(1, order + 1):
            key = numbers[-1][: len(tokens) - n + 1] * vocabulary + tokens[n - 1 :]
            grams, number, count = np.unique(key, return_inverse=True, return_counts=True)
            self._grams.append(grams)
            numbers.append(number)
            raw.append((grams, count))
        self._orders = [
            self._smooth(grams, count if n == order else self._continuations(*numbers[n : n + 2]), n)
            for n, (grams, count) in enumerate(raw, 1)
        ]

    @staticmethod
    def _continuations(number: np.ndarray, longer: np.ndarray) -> np.ndarray:
        """In how many different ways each n-gram is preceded: (n + 1)-grams counted by their last n tokens.

        Args:
            number: of the n-gram that begins at each place of the training text.
            longer: the same of the (n + 1)-grams.
        """
        begins = np.unique(longer, return_index=True)[1]  # where each (n + 1)-gram is first met
        count = np.bincount(number[begins + 1], minlength=number.max() + 1)
        count[number[0]] += count[number[0]] == 0  # the text's very beginning
        return count

    def _smooth(self, grams: np.ndarray, count: np.ndarray, n: int) -> _Order:
        once, twice, thrice, often = ((count == k).sum() for k in (1, 2, 3, 4))
        unit = once / max(1, once + 2 * twice)
        # D1, D2 and D3+; a little is always left for what was never seen, also where no count is 1
        steps = [
            np.clip(k - (k + 1) * unit * following / current, 0.01, k) if current else 0.01
            for k, current, following in ((1, once, twice), (2, twice, thrice), (3, thrice, often))
        ]
        discount = np.array([0.0, *steps])[np.minimum(count, 3)]
        context, place = np.unique(grams // self.vocabulary, return_inverse=True)
        total = np.bincount(place, weights=count)
        kept = np.maximum(count - discount, 0.0)
        return _Order(
            keys=grams,
            discounted=kept / total[place],
            contexts=context,
            backoff=1 - np.bincount(place, weights=kept) / total,
        )

    def probabilities(self, tokens: np.ndarray) -> np.ndarray:
        """p(token | the tokens before it) at each place of a text, shape (N,); the first have shorter contexts."""
        tokens = np.asarray(tokens, np.int64)
        result = np.full(len(tokens), 1.0 / self.vocabulary)
        # number of the context of length n that ends before each place; −1 where training never saw it
        context = np.zeros(len(tokens), np.int64)
        history = context
        for n, order in enumerate(self._orders, 1):
            if n > 1:
                history = self._extended(tokens, n - 1)
            context = history
            row, met = _find(order.contexts, context)
            met &= context >= 0
            place, seen = _find(order.keys, context * self.vocabulary + tokens)
            direct = np.where(seen & met, order.discounted[place], 0.0)
            result = np.where(met, direct + order.backoff[row] * result, result)
        return result

    def _extended(self, tokens: np.ndarray, length: int) -> np.ndarray:
        """Number of the ``length``-gram that ends just before each place, −1 where there is none."""
        number = np.zeros(len(tokens), np.int64)
        known = np.arange(len(tokens)) >= length
        for step in range(1, length + 1):
            back = np.roll(tokens, length - step + 1)  # the token `length − step + 1` places before
            place, seen = _find(self._grams[step], number * self.vocabulary + back)
            known &= seen
            number = np.where(known, place, 0)
        return np.where(known, number, -1)


def _find(sorted_values: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place of each wanted value, clipped into the array, and whether it is really there."""
    place = np.minimum(np.searchsorted(sorted_values, wanted), len(sorted_values) - 1)
    return place, sorted_values[place] == wanted
