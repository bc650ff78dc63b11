"""Speculative decoding writes what the target alone would write."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from sft.decoder import DecoderConfig, ModernDecoder
from sft.speculative import (
    LookupDraft,
    ModelDraft,
    NGramDraft,
    acceptance_rate,
    check_guesses,
    distribution,
    expected_tokens,
    first_layers,
    first_of,
    no_draft,
    rewind,
    speculate,
)
from sft.transformer import greedy

V = 6


def make_decoder(seed: int, num_layers: int = 2) -> ModernDecoder:
    """A random decoder of six tokens; large weights in its layers, or it would write one token for ever."""
    torch.manual_seed(seed)
    config = DecoderConfig(V, 16, 2, 32, num_layers, num_kv_heads=1, d_k=8)
    decoder = ModernDecoder(config).eval()
    with torch.no_grad():
        for weight in decoder.layers.parameters():
            weight.mul_(8 if weight.ndim == 2 else 1)
    return decoder


@pytest.fixture(scope="module")
def target() -> ModernDecoder:
    return make_decoder(0)


def drafts(target: ModernDecoder) -> dict:
    corpus = np.random.default_rng(0).integers(0, V, 300)
    rows = torch.from_numpy(corpus[:240]).view(-1, 12)
    return {
        "n-grams": NGramDraft(corpus, V, 2),
        "lookup": LookupDraft(V),
        "another model": ModelDraft(make_decoder(1, 1)),
        "first layer": ModelDraft(first_layers(target, 1, rows)),
        "the target itself": ModelDraft(target),
    }


@pytest.mark.parametrize("name", drafts(make_decoder(0)))
@pytest.mark.parametrize("gamma", [1, 3])
def test_greedy_text_is_that_of_plain_decoding(target: ModernDecoder, name: str, gamma: int):
    draft = drafts(target)[name]
    for start in ([0, 1, 2], [5, 5, 5, 5], [3]):
        plain = greedy(target, torch.tensor([start]), 20)[0].tolist()
        ids, passes = speculate(target, draft, start, 20, gamma)
        assert ids == plain
        assert sum(stood + 1 for _, stood in passes) == 20


def test_a_draft_that_is_the_target_is_always_right(target: ModernDecoder):
    _ids, passes = speculate(target, ModelDraft(target), [1, 2], 20, 3)
    assert acceptance_rate(passes) == 1
    assert len(passes) == 5


def test_without_a_draft_each_token_is_a_pass(target: ModernDecoder):
    ids, passes = speculate(target, no_draft, [1, 2], 7, 0)
    assert len(passes) == 7
    assert ids == greedy(target, torch.tensor([[1, 2]]), 7)[0].tolist()


def test_writing_stops_at_the_end_of_text_even_inside_the_guesses(target: ModernDecoder):
    plain = greedy(target, torch.tensor([[0, 1, 2]]), 20)[0].tolist()
    stop = plain.index(0, 3) + 1
    assert 4 < stop < 9, "the end lies inside the first six guesses"
    assert speculate(target, ModelDraft(target), [0, 1, 2], 20, 6, eos_id=0)[0] == plain[:stop]


def chance_of_texts(target: ModernDecoder, start: list[int], length: int) -> np.ndarray:
    """Exact probability of each continuation of a length."""
    texts = torch.tensor([[*start, *text] for text in itertools.product(range(V), repeat=length)])
    with torch.no_grad():
        log_p = target(texts).log_softmax(-1)
    places = range(len(start), len(start) + length)
    return sum(log_p[range(len(texts)), i - 1, texts[:, i]] for i in places).exp().numpy()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["n-grams", "another model", "lookup"])
def test_drawn_texts_have_the_distribution_of_the_target(target: ModernDecoder, name: str):
    draft, start, drawn = drafts(target)[name], [1, 2, 1], 1500
    torch.manual_seed(0)
    texts = [tuple(speculate(target, draft, start, 3, 2, 1.0)[0][3:]) for _ in range(drawn)]
    counts = np.zeros(V**3)
    for text in texts:
        counts[np.ravel_multi_index(text, (V,) * 3)] += 1
    expected = drawn * chance_of_texts(target, start, 3)
    many = expected >= 5
    observed = [*counts[many], counts[~many].sum()]
    assert chisquare(observed, [*expected[many], expected[~many].sum()]).pvalue > 1e-3


def test_one_check_is_exactly_the_target_whatever_the_draft():
    """min(p, q) that stands, and what is drawn from the rest, add up to p."""
    torch.manual_seed(0)
    p, q = torch.randn(2, V, dtype=torch.float64).softmax(-1)
    stands = torch.minimum(p, q)
    rest = (p - q).clamp(min=0)
    assert torch.allclose(stands + (1 - stands.sum()) * rest / rest.sum(), p)


def test_a_rejected_guess_is_replaced_by_one_that_the_draft_neglects():
    p, q = torch.tensor([[0.0, 1.0], [0.5, 0.5]]), [torch.tensor([1.0, 0.0])]
    assert check_guesses([0], q, p) == [1]


def test_temperature_zero_is_greedy():
    assert distribution(torch.tensor([[1.0, 3.0, 2.0]]), 0).tolist() == [[0, 1, 0]]
    assert distribution(torch.tensor([[1.0, 3.0]]), 1e-2)[0, 1] == pytest.approx(1)


def test_rewinding_forgets_what_came_after(target: ModernDecoder):
    cache = target.new_cache()
    with torch.no_grad():
        target(torch.tensor([[1, 2, 3, 4]]), cache=cache)
        rewind(cache, 2)
        again = target(torch.tensor([[5]]), cache=cache)
        assert torch.allclose(again[0, -1], target(torch.tensor([[1, 2, 5]]))[0, -1], atol=1e-5)


def test_ngrams_mix_contexts_by_how_much_they_say():
    draft = NGramDraft(np.array([0, 1, 2, 3, 1, 4, 0, 1, 2]), V, 2, trust=1)
    alone = np.array([2, 3, 2, 1, 1, 0]) / 9
    after_1 = 3 / 5 * np.array([0, 0, 2 / 3, 0, 1 / 3, 0]) + 2 / 5 * alone
    assert draft.next([]).tolist() == pytest.approx(alone.tolist())
    assert draft.next([5, 1]).tolist() == pytest.approx(after_1.tolist())
    after_01 = 2 / 3 * np.array([0, 0, 1, 0, 0, 0]) + 1 / 3 * after_1
    assert draft.next([0, 1]).tolist() == pytest.approx(after_01.tolist())


def test_ngrams_of_a_large_vocabulary_shorten_their_context():
    draft = NGramDraft(np.arange(50) % 7, 151_936, 4)
    assert max(draft.tables) == 2
    assert draft.next([2, 3]).argmax() == 4


def test_lookup_repeats_what_followed_last_time():
    guesses, q = LookupDraft(V)([1, 2, 3, 4, 1, 2], 2, 0.0)
    assert guesses == [3, 4]
    assert [one.argmax().item() for one in q] == [3, 4]
    assert LookupDraft(V)([1, 2, 3], 2, 0.0) == ([], [])
    assert LookupDraft(V, 3, 3)([1, 2, 3, 4, 1, 2], 2, 0.0) == ([], [])


def test_the_first_draft_that_has_a_guess_is_asked():
    corpus = NGramDraft(np.array([1, 2, 5, 1, 2, 5]), V, 2)
    both = first_of(LookupDraft(V, 3, 3), corpus)
    assert both([0, 1, 2, 3, 0, 1, 2], 1, 0.0)[0] == [3]
    assert both([0, 1, 2], 1, 0.0)[0] == [5]
    assert both([0, 1, 2], 0, 0.0) == ([], [])


def test_acceptance_counts_only_guesses_that_were_looked_at():
    assert acceptance_rate([(3, 0), (3, 3), (3, 1)]) == pytest.approx(4 / 6)
    assert acceptance_rate([(0, 0)]) == 0


def test_expected_tokens_a_pass():
    rng = np.random.default_rng(0)
    stood = np.cumprod(rng.random((20_000, 4)) < 0.7, axis=1).sum(1)
    assert expected_tokens(0.7, 4) == pytest.approx((stood + 1).mean(), rel=0.01)
    assert expected_tokens(1, 4) == 5
    assert expected_tokens(0, 4) == 1
