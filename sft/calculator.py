"""What training a decoder takes, from its shape alone: parameters, floating-point operations, bytes, days.

Chapter 9.4 writes these functions out, counts the operations of real models with them, and measures the memory of a
small one; a test holds the two sources equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A decoder: layers, width, width of the feed-forward network, heads of d_k, heads that keep keys, vocabulary."""

    layers: int
    d: int
    d_ff: int
    heads: int
    d_k: int
    kv_heads: int
    vocab: int
    tied: bool = True  # input and output share the table of tokens
    gated: bool = True  # SwiGLU: three matrices, not two


def layer_weights(s):
    """Weights of all layers' matrices; norms and biases are less than a thousandth."""
    attention = s.d * s.d_k * (2 * s.heads + 2 * s.kv_heads)
    feed_forward = (3 if s.gated else 2) * s.d * s.d_ff
    return s.layers * (attention + feed_forward)


def count_weights(s):
    """All parameters: those of the layers and the table of tokens, twice where the output has its own."""
    return layer_weights(s) + s.vocab * s.d * (1 if s.tied else 2)


def decoder_flops(s, tokens, n):
    """Operations to train on ``tokens`` in texts of ``n``: 6 for each weight that multiplies, and attention's own.

    Looking a token up costs nothing, so of two tables one counts.
    """
    multiplied = layer_weights(s) + s.vocab * s.d
    return 6 * multiplied * tokens + 12 * s.layers * n * s.heads * s.d_k * tokens


def kept_numbers(s):
    """Numbers that each token leaves for the backward pass, as `transformers` writes Llama: layers, then output."""
    attention = (2 * s.heads + 2 * s.kv_heads) * s.d_k
    layer = 6 * s.d + attention + (4 if s.gated else 2) * s.d_ff
    return s.layers * layer + 3 * s.d + s.vocab


def training_bytes(s, tokens, state=16, number=4):
    """Bytes at the fullest: ``state`` for each parameter, ``number`` for each number kept of ``tokens`` at once."""
    return state * count_weights(s) + number * kept_numbers(s) * tokens


def training_days(flops, machines, peak, used):
    """Days on ``machines`` that do ``peak`` operations a second on paper and a share ``used`` of them in fact."""
    return flops / (machines * peak * used) / 86_400


def check_fits(name, needed, room):
    """Refuse what does not fit, in one line that says what would.

    Raises:
        ValueError: ``needed`` bytes are more than ``room``.
    """
    if needed > room:
        times = math.ceil(needed / room)
        raise ValueError(
            f"{name}：要 {needed / 1e9:,.0f} GB，这台机器只有 {room / 1e9:,.0f} GB；"
            f"减小批，换更省的办法或小一点的模型；平分也要 {times} 台以上"
        )
