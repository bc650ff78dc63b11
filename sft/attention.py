"""Attention and positions: what chapters 3 and 4 teach, under the same names.

Shapes: ``batch`` sequences, ``n`` positions that ask, ``m`` positions that are looked at, ``h`` heads, ``d_k`` numbers
in a query or key, ``d_v`` in a value. Masks are boolean, True where a position may be looked at, as in
:func:`torch.nn.functional.scaled_dot_product_attention`.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F


def attention(
    Q: torch.Tensor, K: torch.Tensor, V: torch.Tensor, mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled dot-product attention, softmax(QKᵀ/√d_k)V (Vaswani et al. 2017, arXiv:1706.03762, equation 1).

    Args:
        Q: queries, (…, n, d_k).
        K: keys, (…, m, d_k).
        V: values, (…, m, d_v).
        mask: broadcastable to (…, n, m); a row without any True gives NaN.

    Returns:
        the mixed values, (…, n, d_v), and the weights, (…, n, m), each row of which sums to 1.
    """
    scores = Q @ K.transpose(-2, -1) / math.sqrt(Q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    A = scores.softmax(dim=-1)
    return A @ V, A


def causal_mask(n: int, m: int | None = None, device: torch.device | None = None) -> torch.Tensor:
    """Who may look at whom in a decoder, (n, m): the last ``n`` of ``m`` positions see themselves and all before.

    ``m`` is ``n`` unless earlier positions are already in a cache.
    """
    m = n if m is None else m
    return torch.ones(n, m, dtype=torch.bool, device=device).tril(m - n)


def padding_mask(attention_mask: torch.Tensor) -> torch.Tensor:
    """The tokenizer's ``attention_mask`` (batch, m), 1 for text and 0 for padding, as a mask (batch, 1, 1, m)."""
    return attention_mask.bool()[:, None, None, :]


def position_angles(positions: torch.Tensor, d: int, base: float = 10_000.0) -> torch.Tensor:
    """Angle in radians of each pair of dimensions at each position, (n, d/2): p/base^(2i/d)."""
    steps = torch.arange(0, d, 2, device=positions.device)
    return positions[:, None] / base ** (steps / d)


def sinusoidal_positions(n: int, d: int, base: float = 10_000.0) -> torch.Tensor:
    """Sines and cosines of each position, (n, d), ``d`` even (Vaswani et al. 2017, section 3.5).

    Column 2i is sin(p/base^(2i/d)), column 2i+1 its cosine.
    """
    angles = position_angles(torch.arange(n), d, base)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


def rotate(x: torch.Tensor, start: int = 0, base: float = 10_000.0) -> torch.Tensor:
    """Rotary positions (RoPE, Su et al. 2021, arXiv:2104.09864, equation 34), to be applied to queries and keys.

    The pair of dimensions (2i, 2i+1) is turned by the angle p/base^(2i/d), so that the product of a query at ``p`` and
    a key at ``q`` depends on ``p − q`` alone.
    So does Meta's own program for Llama; the port in `transformers` pairs dimension i with i + d/2 instead, which is
    the same after reordering the dimensions. Angles are in float32, so that products differ by about 1e-6.

    Args:
        x: (…, n, d), ``d`` even.
        start: position of the first row.
    """
    positions = torch.arange(start, start + x.shape[-2], device=x.device)
    angles = position_angles(positions, x.shape[-1], base)
    cos, sin = angles.cos(), angles.sin()
    a, b = x[..., 0::2], x[..., 1::2]
    turned = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1)
    return turned.flatten(-2).to(x.dtype)


class MultiHeadAttention(nn.Module):
    """``num_heads`` attentions side by side, each with projections of its own (Vaswani et al. 2017, section 3.2.2).

    Every head sees the whole sequence; what differs is the projection onto ``d_model / num_heads`` numbers.
    """

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        if d_model % num_heads:
            raise ValueError(f"d_model {d_model} cannot be divided among {num_heads} heads")
        self.num_heads = num_heads
        self.W_q, self.W_k = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)
        self.W_v, self.W_o = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)

    def split(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, n, d_model) -> (batch, h, n, d_k)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def project(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries of ``x`` (batch, h, n, d_k), keys and values of ``y`` (batch, h, m, d_k), of all heads."""
        return self.split(self.W_q(x)), self.split(self.W_k(y)), self.split(self.W_v(y))

    def mix(
        self, Q: torch.Tensor, K: torch.Tensor, V: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What the heads found, side by side again and mixed by the last projection, (batch, n, d_model)."""
        Z = F.scaled_dot_product_attention(Q, K, V, attn_mask=mask)
        return self.W_o(Z.transpose(1, 2).flatten(-2))

    def forward(self, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Let each position of ``x`` (batch, n, d_model) look at ``y`` (batch, m, d_model); itself is ``y = x``.

        ``mask`` is broadcastable to (batch, h, n, m). Returns (batch, n, d_model).
        """
        return self.mix(*self.project(x, y), mask)


def pytorch_twin(ours: MultiHeadAttention) -> nn.MultiheadAttention:
    """PyTorch's own layer with the weights of ``ours``; it keeps the three projections stacked in one matrix."""
    three = (ours.W_q, ours.W_k, ours.W_v)
    twin = nn.MultiheadAttention(
        ours.W_q.in_features, ours.num_heads, batch_first=True, dtype=ours.W_q.weight.dtype
    )
    twin.in_proj_weight.data = torch.cat([W.weight.data for W in three])
    twin.in_proj_bias.data = torch.cat([W.bias.data for W in three])
    twin.out_proj.load_state_dict(ours.W_o.state_dict())
    return twin


def remember(
    cache: dict[str, torch.Tensor] | None, K: torch.Tensor, V: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of all positions so far, (batch, h, m, d_k); ``cache`` keeps them. None keeps nothing."""
    if cache:
        K, V = torch.cat((cache["K"], K), dim=2), torch.cat((cache["V"], V), dim=2)
    if cache is not None:
        cache.update(K=K, V=V)
    return K, V


class CachedAttention(MultiHeadAttention):
    """:class:`MultiHeadAttention` that does not compute keys and values twice.

    The ``cache`` of :meth:`forward` holds those of earlier calls. Attention of ``x`` to itself appends to it;
    attention to another ``y`` fills it once and then reads it.
    """

    def forward(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        mask: torch.Tensor | None = None,
        cache: dict[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """As without a cache; with one, ``x`` (batch, n, d_model) are the positions that are new."""
        if cache and y is not x:
            return self.mix(self.split(self.W_q(x)), cache["K"], cache["V"], mask)
        Q, K, V = self.project(x, y)
        return self.mix(Q, *remember(cache, K, V), mask)
