"""A linear-chain conditional random field (Lafferty et al. 2001) on the scores of an encoder.

Chapter 6.5 writes these definitions out; a test holds the two sources equal, and others compare them with every path
enumerated and with the package pytorch-crf.
"""

from __future__ import annotations

import torch
from torch import nn


class CRF(nn.Module):
    """Scores for a first tag, for a tag after a tag, for a last tag: all learned, zero at first.

    Everywhere ``scores`` has shape (batch, n, tags), ``tags`` and ``mask`` (batch, n); ``mask`` is true on the real
    positions, which stand at the left, at least one a row.
    """

    def __init__(self, num_tags):
        super().__init__()
        self.first = nn.Parameter(torch.zeros(num_tags))
        self.step = nn.Parameter(torch.zeros(num_tags, num_tags))  # (from, to)
        self.last = nn.Parameter(torch.zeros(num_tags))

    def loss(self, scores, tags, mask):
        """Negative log-likelihood of the tags, a mean over the real positions; tags outside the mask are not read."""
        paths = log_partition(self, scores, mask) - path_score(self, scores, tags, mask)
        return paths.sum() / mask.sum()


def path_score(crf, scores, tags, mask):
    """Score of one path a row, shape (batch,): what its tags and its steps add up to."""
    tags = tags.clamp(min=0)
    each = scores.gather(-1, tags[..., None])[..., 0]  # (batch, n)
    steps = crf.step[tags[:, :-1], tags[:, 1:]]  # (batch, n - 1)
    final = tags.gather(1, mask.sum(1, keepdim=True) - 1)[:, 0]
    inside = (each * mask).sum(1) + (steps * mask[:, 1:]).sum(1)
    return crf.first[tags[:, 0]] + inside + crf.last[final]


def log_partition(crf, scores, mask):
    """Logarithm of the sum of exp(score) over all paths, shape (batch,), by the forward algorithm."""
    total = crf.first + scores[:, 0]  # (batch, tags)
    for t in range(1, scores.shape[1]):
        longer = torch.logsumexp(total[:, :, None] + crf.step, 1) + scores[:, t]
        total = torch.where(mask[:, t, None], longer, total)
    return torch.logsumexp(total + crf.last, -1)


def viterbi(crf, scores, mask):
    """The best path of each row, as lists of tags (Viterbi 1967)."""
    best, came_from = crf.first + scores[:, 0], []  # (batch, tags)
    for t in range(1, scores.shape[1]):
        longer, previous = (best[:, :, None] + crf.step).max(1)
        best = torch.where(mask[:, t, None], longer + scores[:, t], best)
        came_from.append(previous)
    paths = []
    for row, n in enumerate(mask.sum(1).tolist()):
        path = [int((best[row] + crf.last).argmax())]
        for previous in reversed(came_from[: n - 1]):
            path.append(int(previous[row, path[-1]]))
        paths.append(path[::-1])
    return paths


def bio_rules(labels):
    """A CRF of rules alone, for :func:`viterbi`: I- begins nothing and follows no other type. ``labels`` are BIO."""
    rules = CRF(len(labels))
    with torch.no_grad():
        for j, now in enumerate(labels):
            for i, last in enumerate(labels):
                if now[0] == "I" and last[2:] != now[2:]:
                    rules.step[i, j] = -1e4
            rules.first[j] = -1e4 if now[0] == "I" else 0.0
    return rules
