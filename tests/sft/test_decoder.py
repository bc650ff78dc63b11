"""`sft/decoder.py` against `transformers`' Llama and Qwen3 in every layer, and against what its pieces promise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from sft.attention import MultiHeadAttention, causal_mask
from sft.decoder import (
    DecoderConfig,
    GroupedAttention,
    MixtureOfExperts,
    ModernDecoder,
    RMSNorm,
    decoder_from,
    hidden_states,
    interleave,
)
from sft.hub import PRETRAINED
from sft.transformer import FeedForward, beam_search, greedy

SMALL = DecoderConfig(vocab_size=13, d_model=16, num_heads=4, num_kv_heads=2, d_k=8, d_ff=20, max_length=64)
ROPE = {"rope_type": "default", "rope_theta": 1_000_000.0}
SHAPE = {
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,  # not hidden_size / num_attention_heads
    "tie_word_embeddings": True,
    "rope_parameters": ROPE,
}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def shaken(model: PreTrainedModel) -> PreTrainedModel:
    """No weight stays at its initial value: a norm that is left out, or taken twice, shows."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.3)
    return model.eval()


MODELS = {
    "qwen3": lambda: shaken(Qwen3ForCausalLM(Qwen3Config(**SHAPE))),
    "llama": lambda: shaken(LlamaForCausalLM(LlamaConfig(**SHAPE))),
    "mini-gpt-zh": lambda: AutoModelForCausalLM.from_pretrained(
        PRETRAINED / "mini-gpt-zh", dtype=torch.float32
    ).eval(),
}


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_every_layer_equals_transformers(name):
    theirs = MODELS[name]()
    ours = decoder_from(theirs).eval()
    ids = torch.randint(5, 50, (2, 33))
    expected = theirs(ids, output_hidden_states=True)
    for i, (mine, other) in enumerate(zip(hidden_states(ours, ids), expected.hidden_states, strict=True)):
        assert (mine - other).abs().max() <= 1e-5 * other.abs().max(), f"layer {i}"
    assert (ours(ids) - expected.logits).abs().max() <= 1e-5 * expected.logits.abs().max()


def test_it_writes_what_transformers_writes():
    theirs = MODELS["qwen3"]()
    ids = torch.tensor([[7, 8, 9]])
    mine = greedy(decoder_from(theirs).eval(), ids, 12)
    expected = theirs.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert torch.equal(mine, expected)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tie_word_embeddings": False}, "tie_word_embeddings=False"),
        ({"attention_bias": True}, "W_k.bias"),
        ({"rope_parameters": {**ROPE, "rope_type": "linear", "factor": 2.0}}, "linear rotary positions"),
        ({"hidden_act": "gelu"}, "gelu"),
    ],
)
def test_a_model_with_something_else_is_refused_by_name(change, said):
    with pytest.raises(ValueError, match=said):
        decoder_from(LlamaForCausalLM(LlamaConfig(**SHAPE | change)))


def test_interleave_brings_pairs_together():
    assert interleave(torch.arange(8), 4).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_rms_norm_equals_pytorch():
    norm, x = RMSNorm(16), torch.randn(2, 5, 16)
    nn.init.normal_(norm.weight)
    torch.testing.assert_close(norm(x), F.rms_norm(x, (16,), norm.weight, 1e-6))


def test_one_group_a_head_without_today_s_changes_is_multi_head_attention():
    config = replace(SMALL, d_k=4, num_kv_heads=4, positions="sinusoidal", qk_norm=False)
    grouped, plain = GroupedAttention(config), MultiHeadAttention(16, 4)
    plain.load_state_dict(grouped.state_dict(), strict=False)
    for name, parameter in plain.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    x, mask = torch.randn(2, 6, 16), causal_mask(6)
    torch.testing.assert_close(grouped(x, mask), plain(x, x, mask))


def test_heads_must_be_shared_evenly():
    with pytest.raises(ValueError, match="4 heads cannot share 3"):
        GroupedAttention(replace(SMALL, num_kv_heads=3))


variants = pytest.mark.parametrize(
    "change",
    [
        {},
        {"positions": "sinusoidal"},
        {"norm": "layer"},
        {"activation": "relu"},
        {"qk_norm": False},
        {"num_kv_heads": 4},
    ],
    ids=str,
)


@variants
def test_each_piece_can_be_set_back_and_changes_what_comes_out(change):
    config = replace(SMALL, **change)
    decoder = ModernDecoder(config).eval()
    assert isinstance(decoder.layers[0].norms[0], nn.LayerNorm if config.norm == "layer" else RMSNorm)
    assert isinstance(decoder.layers[0].feed_forward, FeedForward) == (config.activation == "relu")
    assert decoder.layers[0].attention.W_k.out_features == 8 * config.num_kv_heads
    assert any("q_norm" in name for name in decoder.state_dict()) == config.qk_norm
    a, b = torch.tensor([[3, 4, 5, 6]]), torch.tensor([[4, 3, 5, 6]])
    assert not torch.allclose(decoder(a)[:, -1], decoder(b)[:, -1], atol=1e-4)  # order matters


@variants
def test_a_cache_changes_nothing(change):
    decoder = ModernDecoder(replace(SMALL, **change)).double().eval()
    start = torch.tensor([[1, 5], [2, 7]])
    rows = greedy(decoder, start, 10)
    assert torch.equal(rows, greedy(decoder, start, 10, use_cache=False))
    assert torch.equal(rows, beam_search(decoder, start, 10, eos_id=-1, num_beams=1))
    cache = decoder.new_cache()
    steps = torch.cat([decoder(one, cache=cache) for one in rows.split(1, 1)], dim=1)
    torch.testing.assert_close(steps, decoder(rows), rtol=0, atol=1e-6)  # angles are in float32


def test_experts_that_are_alike_are_one_and_a_token_uses_k_of_them():
    moe, x = MixtureOfExperts(SMALL, num_experts=4, k=2), torch.randn(2, 7, 16)
    ran = []
    for i, expert in enumerate(moe.experts):
        expert.register_forward_hook(lambda module, given, result, i=i: ran.append(len(given[0])))
    different = moe(x)
    assert sum(ran) == 2 * 14
    for expert in moe.experts:
        expert.load_state_dict(moe.experts[0].state_dict())
    torch.testing.assert_close(moe(x), moe.experts[0](x))
    assert not torch.allclose(different, moe(x), atol=1e-4)
    moe(x).sum().backward()
    assert moe.router.weight.grad is not None
