"""Arithmetic of model FLOPs utilisation (MFU), in plain numbers; nothing here needs a card or torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

PEAK_BF16: dict[str, float] = {
    "NVIDIA A10": 125e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA GH200 480GB": 989.4e12,
    "NVIDIA H100 80GB HBM3": 989.4e12,
    "NVIDIA H100 NVL": 835.5e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989.4e12,
    "NVIDIA H200 NVL": 835.5e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
}
"""Dense bfloat16 operations a second by the name that the driver tells, from NVIDIA's data sheets, halved where those
count sparsity. A name must be the same to the letter: a slice of a card (MIG) has a longer one and is not the card."""


def peak_of(card: str | None) -> float | None:
    """Peak of a card by name; None where it is not in the table, and then there is no MFU."""
    return PEAK_BF16.get(card or "")


@dataclass(frozen=True)
class Shape:
    """What decides the matrix products of a Transformer: sizes, and columns of the layer over the vocabulary."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_dim: int
    up_projections: int  # 1 for BERT's feed-forward, 2 where it is gated
    vocabulary: int  # 0 for a classifier, whose head reads one token a text and is left out

    @property
    def weights(self) -> int:
        """Weights that each token is multiplied with: no embeddings looked up, no biases, no norms."""
        queries, keys = self.heads * self.head_dim, self.key_value_heads * self.head_dim
        attention = self.hidden * (2 * queries + 2 * keys)
        feed_forward = (self.up_projections + 1) * self.hidden * self.intermediate
        return self.layers * (attention + feed_forward) + self.hidden * self.vocabulary

    def training_flops(self, lengths: Iterable[int]) -> int:
        r"""Model FLOPs of one training step over texts of *lengths* tokens, padding not counted.

        PaLM's count (Chowdhery et al. 2022, https://arxiv.org/abs/2204.02311, appendix B): a token costs
        :math:`6N + 12LHQT`, N weights, L layers, H heads of Q numbers, T tokens in its text; forward and twice that for
        backward. As there, a causal mask does not halve the attention, and what is computed twice (gradient
        checkpointing) counts once.
        """
        attention = 12 * self.layers * self.heads * self.head_dim
        return sum(6 * self.weights * n + attention * n * n for n in lengths)


def shape_of(config: Any) -> Shape:
    """The shape of a BERT classifier or a Qwen3 decoder of `transformers`.

    Raises:
        ValueError: another kind of model, whose products are not counted here.
    """
    if config.model_type not in ("bert", "qwen3"):
        raise ValueError(f"FLOPs of model type {config.model_type!r} are not counted; known: bert, qwen3")
    decoder = config.model_type == "qwen3"
    heads = config.num_attention_heads
    return Shape(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=heads,
        key_value_heads=config.num_key_value_heads if decoder else heads,
        head_dim=config.head_dim if decoder else config.hidden_size // heads,
        up_projections=2 if decoder else 1,
        vocabulary=config.vocab_size if decoder else 0,
    )


def utilisation(flops_per_second: float, peak: float | None) -> float | None:
    """Model FLOPs utilisation: the part of the card's peak that the model's own operations take."""
    return None if peak is None else flops_per_second / peak
