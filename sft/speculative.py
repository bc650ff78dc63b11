"""Speculative decoding: a cheap draft guesses several tokens, the target checks them all in one pass.

The text is that of the target alone: the same under greedy decoding, of the same distribution where it is drawn.
Source: Leviathan, Kalman and Matias 2023 (arXiv:2211.17192), algorithm 1; Chen et al. 2023 (arXiv:2302.01318).
Chapter 8.4 writes out what stands here under the same names. Shapes: ``V`` tokens in the vocabulary, ``γ`` guesses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sft.attention import causal_mask
from sft.decoder import ModernDecoder

Draft = Callable[[list[int], int, float], tuple[list[int], Sequence[torch.Tensor]]]
"""From a text's ids, how many to guess and the temperature: guesses, and of each the distribution (V,) it is from."""


def distribution(logits, temperature):
    """Probabilities (n, V) of logits (n, V); at temperature 0 all of it lies on the best token."""
    if temperature == 0:
        return F.one_hot(logits.argmax(-1), logits.shape[-1]).float()
    return (logits / temperature).softmax(-1)


def check_guesses(guesses, q, p):
    """The guesses that stand, and one token more: together they are drawn as the target would draw.

    Args:
        guesses: γ tokens.
        q: of each the distribution (V,) that the draft drew it from.
        p: (γ + 1, V), the target's distribution at each of their places, and after the last.
    """
    for i, token in enumerate(guesses):
        if torch.rand(()) >= p[i, token].item() / q[i][token].item():
            rest = (p[i] - q[i]).clamp(min=0)
            return [*guesses[:i], torch.multinomial(rest, 1).item()]
    return [*guesses, torch.multinomial(p[-1], 1).item()]


def rewind(cache, n):
    """Forget the keys and values after the first ``n`` positions."""
    for own, _source in cache:
        for name, kept in own.items():
            own[name] = kept[:, :, :n]


@torch.inference_mode()
def speculate(target, draft, ids, max_new_tokens, gamma, temperature=0.0, eos_id=None):
    """Continue ``ids``; what was written, and of each pass of the target how many were guessed and how many stood.

    Args:
        target: a decoder with ``new_cache``, such as :class:`~sft.decoder.ModernDecoder`.
        gamma: guesses a pass; 0 is plain decoding with a cache.
    """
    cache, ids, end = target.new_cache(), list(ids), len(ids) + max_new_tokens
    device, seen, passes = next(target.parameters()).device, 0, []
    while len(ids) < end and ids[-1] != eos_id:
        guesses, q = draft(ids, min(gamma, end - len(ids) - 1), temperature)
        new = torch.tensor([ids[seen:] + guesses], device=device)
        logits = target(new, cache=cache)[0, -len(guesses) - 1 :]
        kept = check_guesses(guesses, q, distribution(logits, temperature))
        passes.append((len(guesses), len(kept) - 1))
        if eos_id in kept:
            kept = kept[: kept.index(eos_id) + 1]
        ids += kept
        seen = len(ids) - 1
        rewind(cache, seen)
    return ids, passes


def no_draft(ids, n, temperature):
    """Guess nothing: plain decoding."""
    return [], []


class NGramDraft:
    """Guesses what followed the same last tokens in a corpus.

    Long contexts are mixed with shorter ones, down to none: a context weighs more the more often it was seen and the
    fewer different tokens followed it, n / (n + trust · different ones), as in Witten and Bell 1991
    (doi:10.1109/18.87000), where ``trust`` is 1.

    Args:
        tokens: the corpus as one stream of ids, (N,).
        vocab_size: ids are smaller than this.
        context: longest context looked up; shorter where the number of a context and a token would pass 62 bits.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        vocab_size: int,
        context: int = 3,
        trust: float = 4.0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.vocab_size, self.trust, self.device = vocab_size, trust, device
        self.tables = {}  # length of the context -> numbers of context and token, sorted, and how often they stood
        for n in range(min(context, int(62 / np.log2(vocab_size)) - 1), 0, -1):
            keys = np.zeros(len(tokens) - n, np.int64)
            for i in range(n + 1):
                keys = keys * vocab_size + tokens[i : len(tokens) - n + i]
            self.tables[n] = np.unique(keys, return_counts=True)
        self.alone = (np.bincount(tokens, minlength=vocab_size) / len(tokens)).astype(np.float32)

    def next(self, ids: Sequence[int]) -> torch.Tensor:
        """Distribution (V,) of the next token."""
        q, left = np.zeros(self.vocab_size, np.float32), 1.0
        for n, (keys, counts) in self.tables.items():
            if len(ids) < n:
                continue
            number = 0
            for token in ids[len(ids) - n :]:
                number = number * self.vocab_size + token
            low, high = np.searchsorted(keys, (number * self.vocab_size, (number + 1) * self.vocab_size))
            if low < high:
                total = counts[low:high].sum()
                weight = left * total / (total + self.trust * (high - low))
                q[keys[low:high] % self.vocab_size] += weight * counts[low:high] / total
                left -= weight
        return torch.from_numpy(q + np.float32(left) * self.alone)

    def __call__(self, ids: list[int], n: int, temperature: float) -> tuple[list[int], list[torch.Tensor]]:
        ids, guesses, q = list(ids), [], []
        for _ in range(n):
            one = self.next(ids)
            if temperature == 0:
                guesses.append(int(one.argmax()))
                one = torch.zeros(self.vocab_size)
                one[guesses[-1]] = 1
            else:
                guesses.append(int(torch.multinomial(one, 1)))
            q.append(one.to(self.device))
            ids.append(guesses[-1])
        return guesses, q


class LookupDraft:
    """Guesses what followed the last time that the same tokens stood in the text itself (prompt lookup).

    Source: Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding.
    """

    def __init__(
        self, vocab_size: int, longest: int = 3, shortest: int = 1, device: torch.device | str = "cpu"
    ) -> None:
        self.vocab_size, self.device = vocab_size, device
        self.longest, self.shortest = longest, shortest

    def __call__(self, ids: list[int], n: int, temperature: float) -> tuple[list[int], list[torch.Tensor]]:
        for length in range(min(self.longest, len(ids) - 1), self.shortest - 1, -1):
            tail = ids[-length:]
            for start in range(len(ids) - length - 1, -1, -1):
                if ids[start : start + length] == tail:
                    guesses = ids[start + length : start + length + n]
                    certain = torch.tensor(guesses, dtype=torch.long, device=self.device)
                    return guesses, list(F.one_hot(certain, self.vocab_size).float())
        return [], []


def first_of(*drafts: Draft) -> Draft:
    """The guesses of the first draft that has any."""

    def draft(ids: list[int], n: int, temperature: float) -> tuple[list[int], Sequence[torch.Tensor]]:
        found = ((guesses, q) for one in drafts for guesses, q in [one(ids, n, temperature)] if guesses)
        return next(found, ([], []))

    return draft


class ModelDraft:
    """Guesses with a smaller decoder of the same vocabulary, which keeps a cache of its own."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.cache, self.seen = model, model.new_cache(), []

    @torch.inference_mode()
    def __call__(self, ids: list[int], n: int, temperature: float) -> tuple[list[int], list[torch.Tensor]]:
        if n == 0:
            return [], []
        shared = next(
            (i for i, (a, b) in enumerate(zip(self.seen, ids[:-1], strict=False)) if a != b),
            min(len(self.seen), len(ids) - 1),
        )
        if self.seen:
            rewind(self.cache, shared)
        device, new = next(self.model.parameters()).device, ids[shared:]
        guesses, q = [], []
        for _ in range(n):
            logits = self.model(torch.tensor([new], device=device), cache=self.cache)[0, -1:]
            q.append(distribution(logits, temperature)[0])
            guesses.append(int(torch.multinomial(q[-1], 1)))
            new = guesses[-1:]
        self.seen = [*ids, *guesses[:-1]]
        return guesses, q


class _Lens(nn.Module):
    """The norm, then a linear map."""

    def __init__(self, norm: nn.Module, W: torch.Tensor) -> None:
        super().__init__()
        self.norm, self.W = norm, nn.Parameter(W, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x) @ self.W


@torch.inference_mode()
def first_layers(target: ModernDecoder, num_layers: int, rows: torch.Tensor) -> ModernDecoder:
    """A draft without training: the target's first layers, and the linear map that best guesses its last state.

    The map is the least-squares solution over ``rows`` of ids, (texts, n); a lens in the words of Belrose et al. 2023
    (arXiv:2303.08112), who train it.
    """
    draft = deepcopy(target)
    draft.layers = draft.layers[:num_layers]
    X, Y = [], []
    for batch in rows.split(16):
        x, mask = target.embeddings(batch), causal_mask(batch.shape[1], device=batch.device)
        for i, layer in enumerate(target.layers):
            x = layer(x, mask=mask)
            if i == num_layers - 1:
                X.append(target.norm(x).flatten(0, 1))
        Y.append(target.norm(x).flatten(0, 1))
    draft.norm = _Lens(draft.norm, torch.linalg.lstsq(torch.cat(X), torch.cat(Y)).solution)
    return draft


def acceptance_rate(passes: Sequence[tuple[int, int]]) -> float:
    """Share of the guesses looked at that stood: those behind the first rejected one are not looked at."""
    looked_at = sum(min(stood + 1, guessed) for guessed, stood in passes)
    return sum(stood for _, stood in passes) / max(1, looked_at)


def expected_tokens(alpha, gamma):
    """Tokens a pass of the target if each guess stands with probability ``alpha`` (equation 1 of Leviathan et al.)."""
    return gamma + 1 if alpha == 1 else (1 - alpha ** (gamma + 1)) / (1 - alpha)
