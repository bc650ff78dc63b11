"""`sft/attention.py` against PyTorch's own attention, and against what the equations promise."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from sft.attention import (
    CachedAttention,
    MultiHeadAttention,
    attention,
    causal_mask,
    padding_mask,
    pytorch_twin,
    rotate,
    sinusoidal_positions,
)

MASKS = {
    "none": None,
    "causal": causal_mask(5, 7),
    "padding": padding_mask(torch.tensor([[1] * 7, [1] * 4 + [0] * 3])),
    "random": torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0)) < 0.7,
}
MASKS["random"][..., 0] = True  # no row without a position


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", MASKS)
def test_equals_pytorch(name):
    Q, K, V = (torch.randn(2, 3, n, 8, dtype=torch.float64) for n in (5, 7, 7))
    Z, A = attention(Q, K, V, MASKS[name])
    expected = F.scaled_dot_product_attention(Q, K, V, attn_mask=MASKS[name])
    torch.testing.assert_close(Z, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(A.sum(-1), torch.ones(2, 3, 5, dtype=torch.float64))
    if MASKS[name] is not None:
        assert (A[~MASKS[name].expand_as(A)] == 0).all()


def test_gradients():
    Q, K, V = (torch.randn(2, n, 4, dtype=torch.float64, requires_grad=True) for n in (3, 5, 5))
    assert torch.autograd.gradcheck(lambda *x: attention(*x, causal_mask(3, 5))[0], (Q, K, V))


def test_a_row_without_any_position_is_nan_as_documented():
    Z, _ = attention(torch.randn(2, 4), torch.randn(3, 4), torch.randn(3, 4), torch.tensor([[True], [False]]))
    assert Z[0].isfinite().all() and Z[1].isnan().all()


def test_causal_mask():
    assert causal_mask(2, 4).tolist() == [[True, True, True, False], [True, True, True, True]]
    assert torch.equal(causal_mask(3), torch.ones(3, 3).tril().bool())


@pytest.mark.parametrize("cross", [False, True])
def test_multi_head_equals_pytorch_and_its_weights_too(cross):
    ours = MultiHeadAttention(12, 3).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    source = torch.randn(2, 7, 12, dtype=torch.float64) if cross else x
    mask = None if cross else causal_mask(5)
    theirs, weights = pytorch_twin(ours)(
        x, source, source, attn_mask=None if mask is None else ~mask, average_attn_weights=False
    )
    torch.testing.assert_close(ours(x, source, mask), theirs, rtol=0, atol=1e-12)
    A = attention(*ours.project(x, source), mask)[1]
    torch.testing.assert_close(A, weights, rtol=0, atol=1e-12)


def test_heads_must_divide():
    with pytest.raises(ValueError, match="10 cannot be divided among 3"):
        MultiHeadAttention(10, 3)


def test_cache_gives_what_the_whole_gives():
    layer = CachedAttention(8, 2).double().eval()
    x = torch.randn(2, 6, 8, dtype=torch.float64)
    whole = layer(x, x, causal_mask(6))
    cache: dict = {}
    pieces = [(x[:, a:b], causal_mask(b - a, b)) for a, b in ((0, 3), (3, 4), (4, 6))]
    parts = [layer(new, new, mask, cache) for new, mask in pieces]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-12)
    assert cache["K"].shape == (2, 2, 6, 4)


def test_cache_of_a_source_is_filled_once():
    layer = CachedAttention(8, 2).eval()
    x, memory, cache = torch.randn(1, 3, 8), torch.randn(1, 4, 8), {}
    first = layer(x, memory, cache=cache)
    again = layer(x, torch.full_like(memory, math.nan), cache=cache)  # must not be read again
    assert torch.equal(first, again) and cache["K"].shape == (1, 2, 4, 4)


def test_sinusoidal_positions_against_the_formula():
    table = sinusoidal_positions(50, 16)
    for p in (0, 1, 49):
        for i in range(8):
            angle = p / 10_000 ** (2 * i / 16)
            assert table[p, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[p, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_rotary_products_depend_on_the_distance_alone_and_lengths_stay():
    q, k = torch.randn(2, 1, 8, dtype=torch.float64)
    products = [(rotate(q, start + 3) @ rotate(k, start).T).item() for start in (0, 1, 17, 400)]
    assert products == pytest.approx([products[0]] * 4, abs=1e-4)
    assert products[0] != pytest.approx((rotate(q, 5) @ rotate(k, 0).T).item(), abs=1e-2)
    torch.testing.assert_close(rotate(q, 9).norm(), q.norm(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(rotate(q, 0), q)


def test_rotary_is_a_complex_product():
    x = torch.randn(5, 8, dtype=torch.float64)
    turned = torch.view_as_complex(rotate(x, 2).view(5, 4, 2))
    angles = torch.arange(2, 7)[:, None] / 10_000 ** (torch.arange(0, 8, 2) / 8)
    expected = torch.view_as_complex(x.view(5, 4, 2)) * torch.polar(torch.ones_like(angles), angles)
    torch.testing.assert_close(turned, expected.to(turned.dtype), rtol=1e-6, atol=1e-6)
