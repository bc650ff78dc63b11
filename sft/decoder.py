"""The decoder of today, as chapter 3 makes it from that of 2017, and the weights of Llama and Qwen3 inside it.

What changed: RMSNorm before each sub-layer, SwiGLU, rotary positions, groups of heads that share keys and values,
normalised queries and keys, no biases. Each of them can be set back to what it was, so that its effect can be measured.
Shapes as in :mod:`sft.transformer`; ``g`` groups of keys and values for ``h`` heads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from sft.attention import causal_mask, remember, rotate
from sft.transformer import Decoder, Embeddings, FeedForward, TransformerConfig, make_norm

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class DecoderConfig(TransformerConfig):
    """The decoder of 2026 at a laptop's size; what it was in 2017 stands behind each choice.

    ``d_ff`` belongs to SwiGLU, which has three matrices: 8/3 of ``d_model`` cost what 4 did with two.
    """

    num_kv_heads: int = 2  # as many as num_heads: no sharing
    d_k: int = 32
    d_ff: int = 344
    dropout: float = 0.0
    positions: str = "rotary"  # "sinusoidal"
    rope_base: float = 10_000.0
    activation: str = "swiglu"  # "relu"
    norm: str = "rms"  # "layer"
    norm_first: bool = True
    norm_eps: float = 1e-6
    qk_norm: bool = True  # False


class RMSNorm(nn.Module):
    """Divide by the root mean square, times a learned scale (Zhang & Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, d: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(d)), eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, d) -> the same shape."""
        mean_square = x.square().mean(-1, keepdim=True)
        return x * (mean_square + self.eps).rsqrt() * self.weight


class SwiGLU(nn.Module):
    """(SiLU(xW_gate) ⊙ xW₁)W₂: one half says how much of the other passes (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        d, d_ff = config.d_model, config.d_ff
        self.W_gate = nn.Linear(d, d_ff, bias=False)
        self.W_1 = nn.Linear(d, d_ff, bias=False)
        self.W_2 = nn.Linear(d_ff, d, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, n, d_model) -> the same shape."""
        return self.W_2(F.silu(self.W_gate(x)) * self.W_1(x))


class GroupedAttention(nn.Module):
    """Causal attention whose ``h`` heads share ``g`` sets of keys and values (Ainslie et al. 2023, arXiv:2305.13245).

    With ``qk_norm`` queries and keys each pass an :class:`RMSNorm` before they are turned, as in Qwen3
    (arXiv:2505.09388). Henry et al. 2020 (arXiv:2010.04245) divide by the length instead, and learn one scale.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        d, h, g = config.d_model, config.num_heads, config.num_kv_heads
        if h % g:
            raise ValueError(f"{h} heads cannot share {g} sets of keys and values")
        self.config, self.sharing = config, h // g
        self.W_q, self.W_k, self.W_v = (nn.Linear(d, count * config.d_k, bias=False) for count in (h, g, g))
        self.W_o = nn.Linear(h * config.d_k, d, bias=False)
        self.q_norm, self.k_norm = (
            RMSNorm(config.d_k, config.norm_eps) if config.qk_norm else nn.Identity() for _ in range(2)
        )

    def split(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, n, heads · d_k) -> (batch, heads, n, d_k)."""
        return x.unflatten(-1, (-1, self.config.d_k)).transpose(1, 2)

    def forward(
        self,
        x: torch.Tensor,
        mask: torch.Tensor | None = None,
        cache: dict[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """(batch, n, d_model) -> the same shape; ``cache`` keeps ``g`` keys and values a position, not ``h``."""
        Q, K, V = (self.split(W(x)) for W in (self.W_q, self.W_k, self.W_v))
        Q, K = self.q_norm(Q), self.k_norm(K)
        if self.config.positions == "rotary":
            start, base = cache["K"].shape[2] if cache else 0, self.config.rope_base
            Q, K = rotate(Q, start, base), rotate(K, start, base)
        K, V = remember(cache, K, V)
        K, V = (y.repeat_interleave(self.sharing, dim=1) for y in (K, V))
        Z = F.scaled_dot_product_attention(Q, K, V, attn_mask=mask)
        return self.W_o(Z.transpose(1, 2).flatten(-2))


def modern_norm(config: DecoderConfig) -> nn.Module:
    """The norm that the configuration names."""
    return RMSNorm(config.d_model, config.norm_eps) if config.norm == "rms" else make_norm(config)


class ModernLayer(nn.Module):
    """Attention, then feed-forward, each added to a stream that no norm interrupts."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.attention = GroupedAttention(config)
        swiglu = config.activation == "swiglu"
        self.feed_forward = SwiGLU(config) if swiglu else FeedForward(config)
        self.norms = nn.ModuleList(modern_norm(config) for _ in range(2))

    def forward(
        self,
        x: torch.Tensor,
        memory: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        memory_mask: torch.Tensor | None = None,
        cache: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] | None = None,
    ) -> torch.Tensor:
        """As :meth:`sft.transformer.DecoderLayer.forward`, whose place it takes; there is no source to look at."""
        own = cache[0] if cache else None
        x = x + self.attention(self.norms[0](x), mask, own)
        return x + self.feed_forward(self.norms[1](x))


class ModernDecoder(Decoder):
    """The :class:`~sft.transformer.Decoder` with layers of today; writing and caching are inherited."""

    def __init__(self, config: DecoderConfig) -> None:
        nn.Module.__init__(self)
        turned = config.positions == "rotary"  # in the layers, so that the token vectors have none
        self.embeddings = Embeddings(replace(config, positions="none") if turned else config)
        layers = (ModernLayer(config) for _ in range(config.num_layers))
        self.layers = nn.ModuleList(layers)
        self.norm = modern_norm(config)


class MixtureOfExperts(nn.Module):
    """``num_experts`` feed-forward networks, of which a router picks ``k`` for each token.

    Their results are weighted by the softmax over those picked (Shazeer et al. 2017, arXiv:1701.06538, as in Mixtral,
    arXiv:2401.04088). Written for reading: each expert runs over the tokens that chose it, one after the other.
    """

    def __init__(self, config: DecoderConfig, num_experts: int = 4, k: int = 2) -> None:
        super().__init__()
        self.k = k
        self.router = nn.Linear(config.d_model, num_experts, bias=False)
        self.experts = nn.ModuleList(SwiGLU(config) for _ in range(num_experts))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, n, d_model) -> the same shape."""
        scores, chosen = self.router(x).topk(self.k, dim=-1)  # (batch, n, k)
        weights, result = scores.softmax(-1), torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            *place, slot = (chosen == i).nonzero(as_tuple=True)
            share = weights[*place, slot, None]  # (tokens that chose it, 1)
            result[*place] += share * expert(x[*place])
        return result


DECODER_NAMES = {  # transformers' name -> ours, applied in this order
    "model.embed_tokens": "embeddings.tokens",
    "model.": "",
    "self_attn.q_proj": "attention.W_q",
    "self_attn.k_proj": "attention.W_k",
    "self_attn.v_proj": "attention.W_v",
    "self_attn.o_proj": "attention.W_o",
    "self_attn.": "attention.",  # q_norm, k_norm
    "mlp.gate_proj": "feed_forward.W_gate",
    "mlp.up_proj": "feed_forward.W_1",
    "mlp.down_proj": "feed_forward.W_2",
    "input_layernorm": "norms.0",
    "post_attention_layernorm": "norms.1",
}
TURNED = ("W_q.weight", "W_k.weight", "q_norm.weight", "k_norm.weight")


def interleave(weight: torch.Tensor, d_k: int) -> torch.Tensor:
    """Rows of each head from the order in `transformers` to that of :func:`~sft.attention.rotate`.

    `transformers` turns rows i and i + d_k/2 of a head together, we turn 2i and 2i + 1: products of queries and keys
    stay.
    """
    return weight.unflatten(0, (-1, 2, d_k // 2)).transpose(1, 2).flatten(0, 2)


def decoder_from(model: PreTrainedModel) -> ModernDecoder:
    """A :class:`ModernDecoder` with the weights of a LlamaForCausalLM or a Qwen3ForCausalLM.

    Raises:
        ValueError: the model has something that ours has not (another kind of rotary positions, biases, a projection
            onto the vocabulary of its own).
    """
    c = model.config
    rope = c.rope_parameters
    d_k = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    config = DecoderConfig(
        vocab_size=c.vocab_size,
        d_model=c.hidden_size,
        num_heads=c.num_attention_heads,
        num_kv_heads=c.num_key_value_heads,
        d_k=d_k,
        d_ff=c.intermediate_size,
        num_layers=c.num_hidden_layers,
        rope_base=rope["rope_theta"],
        norm_eps=c.rms_norm_eps,
        qk_norm=any("q_norm" in name for name in model.state_dict()),
    )
    if rope["rope_type"] != "default" or c.hidden_act != "silu" or not c.tie_word_embeddings:
        raise ValueError(
            f"{c.model_type} with {rope['rope_type']} rotary positions, {c.hidden_act}, "
            f"tie_word_embeddings={c.tie_word_embeddings}: only default, silu and True are known here"
        )
    weights = {}
    for name, value in model.state_dict().items():
        for theirs, ours in DECODER_NAMES.items():
            name = name.replace(theirs, ours)
        weights[name] = interleave(value, d_k) if name.endswith(TURNED) else value
    del weights["lm_head.weight"]  # the token vectors again
    decoder = ModernDecoder(config)
    if odd := weights.keys() ^ decoder.state_dict().keys():
        raise ValueError(
            f"{c.model_type} differs from the decoder of chapter 3 in {', '.join(sorted(odd)[:4])}"
        )
    decoder.load_state_dict(weights)
    return decoder


@torch.no_grad()
def hidden_states(decoder: Decoder, input_ids: torch.Tensor) -> list[torch.Tensor]:
    """What `transformers` calls ``hidden_states``: input of each layer, then the output after the last norm."""
    mask, x, states = (
        causal_mask(input_ids.shape[1], device=input_ids.device),
        decoder.embeddings(input_ids),
        [],
    )
    for layer in decoder.layers:
        states.append(x)
        x = layer(x, mask=mask)
    return [*states, decoder.norm(x)]


def next_loss(model: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of each next token given those before it, in nats; rows are (batch, n) without padding."""
    return F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
