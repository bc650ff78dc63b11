"""The CRF against every path enumerated, and against the package pytorch-crf."""

from __future__ import annotations

import itertools
from itertools import pairwise

import pytest
import torch
import torchcrf

from sft.crf import CRF, bio_rules, log_partition, path_score, viterbi

TAGS, LENGTHS = 3, (5, 1, 3, 4)


@pytest.fixture
def case():
    """A CRF with random weights; scores, tags (-100 outside the mask) and mask of rows of several lengths."""
    generator = torch.Generator().manual_seed(0)
    crf = CRF(TAGS)
    for weight in crf.parameters():
        torch.nn.init.normal_(weight, generator=generator)
    n = max(LENGTHS)
    mask = torch.arange(n) < torch.tensor(LENGTHS)[:, None]
    scores = torch.randn(len(LENGTHS), n, TAGS, generator=generator)
    tags = torch.randint(TAGS, mask.shape, generator=generator).masked_fill(~mask, -100)
    return crf, scores, tags, mask


def every_path(crf: CRF, scores: torch.Tensor) -> dict[tuple[int, ...], float]:
    """Score of each path through the rows of ``scores``, shape (n, tags), added up one by one."""
    found = {}
    for path in itertools.product(range(TAGS), repeat=len(scores)):
        total = crf.first[path[0]] + crf.last[path[-1]]
        for t, tag in enumerate(path):
            total = total + scores[t, tag] + (crf.step[path[t - 1], tag] if t else 0)
        found[path] = float(total)
    return found


def test_equals_enumerating_every_path(case):
    crf, scores, tags, mask = case
    said, partition, best = (
        path_score(crf, scores, tags, mask),
        log_partition(crf, scores, mask),
        viterbi(crf, scores, mask),
    )
    for row, n in enumerate(LENGTHS):
        paths = every_path(crf, scores[row, :n])
        assert said[row].item() == pytest.approx(paths[tuple(tags[row, :n].tolist())], abs=1e-5)
        assert partition[row].item() == pytest.approx(
            torch.logsumexp(torch.tensor(list(paths.values())), 0).item(), abs=1e-5
        )
        assert tuple(best[row]) == max(paths, key=paths.get)


def test_equals_pytorch_crf_in_loss_gradient_and_path(case):
    crf, scores, tags, mask = case
    reference = torchcrf.CRF(TAGS, batch_first=True)
    names = {"first": "start_transitions", "step": "transitions", "last": "end_transitions"}
    for ours, theirs in names.items():
        getattr(reference, theirs).data.copy_(getattr(crf, ours))
    loss = crf.loss(scores, tags, mask)
    other = -reference(scores, tags.clamp(min=0), mask=mask, reduction="token_mean")
    assert loss.item() == pytest.approx(other.item(), abs=1e-5)
    loss.backward()
    other.backward()
    for ours, theirs in names.items():
        assert torch.allclose(getattr(crf, ours).grad, getattr(reference, theirs).grad, atol=1e-5)
    assert viterbi(crf, scores, mask) == reference.decode(scores, mask=mask)


def test_without_transitions_it_is_a_softmax_at_each_position(case):
    _, scores, tags, mask = case
    expected = torch.nn.functional.cross_entropy(scores.flatten(0, 1), tags.flatten())
    assert CRF(TAGS).loss(scores, tags, mask).item() == pytest.approx(expected.item(), abs=1e-5)
    best = [row[:n].argmax(-1).tolist() for row, n in zip(scores, LENGTHS, strict=True)]
    assert viterbi(CRF(TAGS), scores, mask) == best


def test_the_rules_of_bio_change_nothing_else():
    labels = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]

    def allowed(path):
        names = ["O", *(labels[k] for k in path)]
        return all(now[0] != "I" or last[2:] == now[2:] for last, now in pairwise(names))

    scores = torch.randn(40, 6, len(labels), generator=torch.Generator().manual_seed(0))
    greedy = scores.argmax(-1).tolist()
    found = viterbi(bio_rules(labels), scores, torch.ones(40, 6, dtype=torch.bool))
    assert all(map(allowed, found)) and not all(map(allowed, greedy))
    assert all(path == best for path, best in zip(found, greedy, strict=True) if allowed(best))
