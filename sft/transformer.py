"""The Transformer that chapter 3 builds: encoder, decoder, both together, and two ways of writing with it.

Names and equations follow Vaswani et al. 2017 (arXiv:1706.03762). Shapes: ``batch`` sequences of ``n`` tokens,
``m`` tokens in the source, ``d_model`` numbers a token, ``V`` tokens in the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from sft.attention import (
    CachedAttention,
    MultiHeadAttention,
    attention,
    causal_mask,
    padding_mask,
    sinusoidal_positions,
)

if TYPE_CHECKING:  # it takes seconds to import, and only one function names it
    from transformers import BertModel

Cache = list[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]
"""For each decoder layer the keys and values of the text itself and those of the source."""


@dataclass(frozen=True)
class TransformerConfig:
    """Shape and variant; the defaults are the original's (post-norm, sinusoidal, ReLU) at a laptop's size."""

    vocab_size: int
    d_model: int = 128
    num_heads: int = 4
    d_ff: int = 512
    num_layers: int = 2
    dropout: float = 0.1
    positions: str = "sinusoidal"  # "learned", "none"
    norm_first: bool = False  # pre-norm: Xiong et al. 2020, arXiv:2002.04745
    embedding_norm: bool = False  # BERT normalises its embeddings
    activation: str = "relu"  # "gelu"
    norm_eps: float = 1e-5
    max_length: int = 512


def make_norm(config: TransformerConfig) -> nn.LayerNorm:
    """Mean 0 and variance 1 at each position, then a learned scale and shift (Ba et al. 2016, arXiv:1607.06450)."""
    return nn.LayerNorm(config.d_model, config.norm_eps)


class Embeddings(nn.Module):
    """Token vectors plus, with sinusoidal or learned positions, position vectors.

    With sinusoidal positions the token vectors are multiplied by √d_model (section 3.4), else they drown.

    Raises:
        ValueError: positions of another kind; rotary ones are :class:`~sft.decoder.ModernDecoder`'s.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        d = config.d_model
        self.tokens = nn.Embedding(config.vocab_size, d)
        self.scale = math.sqrt(d) if config.positions == "sinusoidal" else 1.0
        if config.positions == "learned":
            self.positions = nn.Parameter(0.02 * torch.randn(config.max_length, d))
        elif config.positions == "sinusoidal":
            table = sinusoidal_positions(config.max_length, d)
            self.register_buffer("positions", table, persistent=False)
        elif config.positions == "none":
            self.positions = None
        else:
            raise ValueError(f"unknown positions {config.positions!r}")
        self.norm = make_norm(config) if config.embedding_norm else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        nn.init.normal_(self.tokens.weight, std=d**-0.5)

    def forward(self, input_ids: torch.Tensor, start: int = 0) -> torch.Tensor:
        """Ids (batch, n), the first of them at position ``start`` -> (batch, n, d_model)."""
        x = self.tokens(input_ids) * self.scale
        if self.positions is not None:
            x = x + self.positions[start : start + input_ids.shape[1]]
        return self.dropout(self.norm(x))


class FeedForward(nn.Module):
    """max(0, xW₁ + b₁)W₂ + b₂, the same at every position (equation 2); GELU in BERT."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.W_1 = nn.Linear(config.d_model, config.d_ff)
        self.W_2 = nn.Linear(config.d_ff, config.d_model)
        self.activation = {"relu": F.relu, "gelu": F.gelu}[config.activation]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, n, d_model) -> the same shape."""
        return self.W_2(self.activation(self.W_1(x)))


class Residual(nn.Module):
    """Residual connection and layer normalisation around a sub-layer.

    Post-norm: LN(x + f(x)), section 3.1. Pre-norm: x + f(LN(x)).
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm = make_norm(config)
        self.dropout = nn.Dropout(config.dropout)
        self.norm_first = config.norm_first

    def forward(self, x: torch.Tensor, f: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """``f`` maps (batch, n, d_model) to the same shape."""
        if self.norm_first:
            return x + self.dropout(f(self.norm(x)))
        return self.norm(x + self.dropout(f(x)))


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward, each within a :class:`Residual`."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(config.d_model, config.num_heads)
        self.feed_forward = FeedForward(config)
        self.residuals = nn.ModuleList(Residual(config) for _ in range(2))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, n, d_model) -> the same shape; ``mask`` broadcastable to (batch, h, n, n)."""
        x = self.residuals[0](x, lambda y: self.attention(y, y, mask))
        return self.residuals[1](x, self.feed_forward)


class DecoderLayer(nn.Module):
    """Masked self-attention, attention to the source where there is one, feed-forward."""

    def __init__(self, config: TransformerConfig, cross: bool = True) -> None:
        super().__init__()
        d, h = config.d_model, config.num_heads
        self.attention = CachedAttention(d, h)
        self.cross_attention = CachedAttention(d, h) if cross else None
        self.feed_forward = FeedForward(config)
        count = 3 if cross else 2
        self.residuals = nn.ModuleList(Residual(config) for _ in range(count))

    def forward(
        self,
        x: torch.Tensor,
        memory: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        memory_mask: torch.Tensor | None = None,
        cache: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] | None = None,
    ) -> torch.Tensor:
        """(batch, n, d_model), looking at ``memory`` (batch, m, d_model) -> (batch, n, d_model)."""
        own, other = cache or (None, None)
        x = self.residuals[0](x, lambda y: self.attention(y, y, mask, own))
        if self.cross_attention is not None:
            look = self.cross_attention
            x = self.residuals[1](x, lambda y: look(y, memory, memory_mask, other))
        return self.residuals[-1](x, self.feed_forward)


class Encoder(nn.Module):
    """Embeddings and ``num_layers`` layers, each with weights of its own."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        layers = (EncoderLayer(config) for _ in range(config.num_layers))
        self.layers = nn.ModuleList(layers)
        self.norm = make_norm(config) if config.norm_first else nn.Identity()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Ids (batch, m); ``attention_mask`` (batch, m), 0 at padding -> (batch, m, d_model)."""
        mask = None if attention_mask is None else padding_mask(attention_mask)
        x = self.embeddings(input_ids)
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)


class Decoder(nn.Module):
    """Predicts each next token from those before it, and from the source where ``cross`` is set.

    The projection onto the vocabulary shares the token vectors (Press & Wolf 2017, arXiv:1608.05859).
    Sequences are padded on the right, if at all, so that the causal mask hides padding from text.
    """

    def __init__(self, config: TransformerConfig, cross: bool = True) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        layers = (DecoderLayer(config, cross) for _ in range(config.num_layers))
        self.layers = nn.ModuleList(layers)
        self.norm = make_norm(config) if config.norm_first else nn.Identity()

    def new_cache(self) -> Cache:
        """An empty cache for :meth:`forward`."""
        return [({}, {}) for _ in self.layers]

    def forward(
        self,
        input_ids: torch.Tensor,
        memory: torch.Tensor | None = None,
        memory_mask: torch.Tensor | None = None,
        cache: Cache | None = None,
    ) -> torch.Tensor:
        """Logits of the token after each position, (batch, n, V).

        Args:
            input_ids: (batch, n); with a cache, only the tokens that it has not seen.
            memory: the encoder's output, (batch, m, d_model).
            memory_mask: (batch, m), 0 at padding of the source.
            cache: from :meth:`new_cache`; filled by each call.
        """
        start = cache[0][0]["K"].shape[2] if cache and cache[0][0] else 0
        n = input_ids.shape[1]
        mask = causal_mask(n, start + n, input_ids.device) if n > 1 else None
        source_mask = None if memory_mask is None else padding_mask(memory_mask)
        x = self.embeddings(input_ids, start)
        for i, layer in enumerate(self.layers):
            x = layer(x, memory, mask, source_mask, cache[i] if cache else None)
        return F.linear(self.norm(x), self.embeddings.tokens.weight)


class Transformer(nn.Module):
    """Encoder and decoder over one vocabulary, whose token vectors both share (section 3.4)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.decoder.embeddings.tokens = self.encoder.embeddings.tokens

    def forward(
        self, source: torch.Tensor, target: torch.Tensor, source_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Source (batch, m), target (batch, n) -> logits of the token after each of the target's, (batch, n, V)."""
        return self.decoder(target, self.encoder(source, source_mask), source_mask)


BERT_NAMES = {  # transformers' name -> ours, applied in this order
    "embeddings.word_embeddings": "embeddings.tokens",
    "embeddings.LayerNorm": "embeddings.norm",
    "encoder.layer.": "layers.",
    "attention.self.query": "attention.W_q",
    "attention.self.key": "attention.W_k",
    "attention.self.value": "attention.W_v",
    "attention.output.dense": "attention.W_o",
    "attention.output.LayerNorm": "residuals.0.norm",
    "intermediate.dense": "feed_forward.W_1",
    "output.dense": "feed_forward.W_2",
    "output.LayerNorm": "residuals.1.norm",
}


def bert_encoder(bert: BertModel) -> Encoder:
    """An :class:`Encoder` with the weights of a BertModel (Devlin et al. 2019), for texts of one segment.

    The vector of segment 0, which BERT adds to every token, is added to the positions once; the pooler is left out.
    """
    c = bert.config
    config = TransformerConfig(
        vocab_size=c.vocab_size,
        d_model=c.hidden_size,
        num_heads=c.num_attention_heads,
        d_ff=c.intermediate_size,
        num_layers=c.num_hidden_layers,
        dropout=c.hidden_dropout_prob,
        positions="learned",
        embedding_norm=True,
        activation=c.hidden_act,
        norm_eps=c.layer_norm_eps,
        max_length=c.max_position_embeddings,
    )
    weights = {}
    for name, value in bert.state_dict().items():
        for theirs, ours in BERT_NAMES.items():
            name = name.replace(theirs, ours)
        weights[name] = value
    positions = weights["embeddings.position_embeddings.weight"]
    segment = weights["embeddings.token_type_embeddings.weight"][0]
    weights["embeddings.positions"] = positions + segment
    encoder = Encoder(config)
    encoder.load_state_dict({name: weights[name] for name in encoder.state_dict()})
    return encoder


@torch.no_grad()
def encoder_weights(encoder: Encoder, input_ids: torch.Tensor) -> torch.Tensor:
    """Where every head of every layer looks in one text without padding (1, n): (layers, h, n, n)."""
    x, maps = encoder.embeddings(input_ids), []
    for layer in encoder.layers:
        maps.append(attention(*layer.attention.project(x, x))[1][0])
        x = layer(x)
    return torch.stack(maps)


def cross_weights(decoder: Decoder, input_ids: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    """Where the last layer looks in the source while it predicts each next token, mean of the heads, (batch, n, m)."""
    x, mask = decoder.embeddings(input_ids), causal_mask(input_ids.shape[1], device=input_ids.device)
    *before, last = decoder.layers
    for layer in before:
        x = layer(x, memory, mask)
    x = last.residuals[0](x, lambda y: last.attention(y, y, mask))
    return attention(*last.cross_attention.project(x, memory))[1].mean(dim=1)


# --- writing -------------------------------------------------------------------------------------------


@torch.no_grad()
def greedy(
    decoder: Decoder,
    input_ids: torch.Tensor,
    max_new_tokens: int,
    eos_id: int | None = None,
    memory: torch.Tensor | None = None,
    memory_mask: torch.Tensor | None = None,
    use_cache: bool = True,
) -> torch.Tensor:
    """Append the most probable token, again and again.

    Args:
        input_ids: beginnings of equal length, (batch, n).
        eos_id: ends a text; ended texts are filled up with it. None: write ``max_new_tokens`` in any case.
        memory, memory_mask: of the source, see :meth:`Decoder.forward`.
        use_cache: False computes everything anew at each step: the same result, slower.

    Returns:
        beginnings and what was written, (batch, n + up to ``max_new_tokens``).
    """
    cache = decoder.new_cache() if use_cache else None
    ended = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
    new = input_ids
    for _ in range(max_new_tokens):
        logits = decoder(new if use_cache else input_ids, memory, memory_mask, cache)
        new = logits[:, -1:].argmax(-1)  # (batch, 1)
        if eos_id is not None:
            new[ended] = eos_id
            ended |= new[:, 0] == eos_id
        input_ids = torch.cat((input_ids, new), dim=1)
        if ended.all():
            break
    return input_ids


@torch.no_grad()
def beam_search(
    decoder: Decoder,
    input_ids: torch.Tensor,
    max_new_tokens: int,
    eos_id: int,
    num_beams: int = 4,
    length_penalty: float = 1.0,
    memory: torch.Tensor | None = None,
    memory_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Keep the ``num_beams`` most probable texts instead of one; return the best.

    An ended text keeps its place and its log-probability. At the end log-probabilities are divided by
    length^``length_penalty``, as sums favour short texts (Wu et al. 2016, arXiv:1609.08144, section 7).

    Args and result: as for :func:`greedy`.
    """
    batch, device = len(input_ids), input_ids.device
    input_ids = input_ids.repeat_interleave(num_beams, dim=0)  # (batch · beams, n)
    memory, memory_mask = (
        None if x is None else x.repeat_interleave(num_beams, 0) for x in (memory, memory_mask)
    )
    scores = torch.full((batch, num_beams), -math.inf, device=device)
    scores[:, 0] = 0.0  # all beams begin alike: one of them is enough
    ended = torch.zeros(batch * num_beams, dtype=torch.bool, device=device)
    lengths = torch.zeros(batch * num_beams, device=device)
    first = torch.arange(batch, device=device)[:, None] * num_beams
    cache, new = decoder.new_cache(), input_ids
    for _ in range(max_new_tokens):
        logits = decoder(new, memory, memory_mask, cache)[:, -1]  # (batch · beams, V)
        log_p = logits.log_softmax(-1)
        log_p[ended] = -math.inf
        log_p[ended, eos_id] = 0.0
        total = (scores.flatten()[:, None] + log_p).view(batch, -1)
        scores, best = total.topk(num_beams)  # (batch, beams)
        rows = (first + best // log_p.shape[1]).flatten()  # which beam each goes on from
        new = (best % log_p.shape[1]).view(-1, 1)
        input_ids = torch.cat((input_ids[rows], new), dim=1)
        lengths = lengths[rows] + ~ended[rows]
        ended = ended[rows] | (new[:, 0] == eos_id)
        for layer in cache:
            for kept in layer:
                kept.update({name: x[rows] for name, x in kept.items()})
        if ended.all():
            break
    final = scores / lengths.view(batch, num_beams) ** length_penalty
    return input_ids.view(batch, num_beams, -1)[torch.arange(batch), final.argmax(-1)]


@torch.no_grad()
def log_probability(
    decoder: Decoder, input_ids: torch.Tensor, start: int, eos_id: int | None = None
) -> torch.Tensor:
    """Of what follows the first ``start`` tokens of each text (batch, n), up to and with the first ``eos_id``, nats."""
    log_p = decoder(input_ids[:, :-1]).log_softmax(-1)
    each = log_p.gather(-1, input_ids[:, 1:, None])[..., 0][:, start - 1 :]
    if eos_id is not None:
        ends = input_ids[:, start:] == eos_id
        each = each * (ends.cumsum(1) - ends.long() == 0)  # nothing after the first end
    return each.sum(1)
