"""`sft/calculator.py`: figures against models that are built, and a refusal in one line."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sft.calculator import (
    Shape,
    check_fits,
    count_weights,
    decoder_flops,
    kept_numbers,
    training_bytes,
    training_days,
)
from sft.costs import count_flops, kept_bytes

SHAPES = [Shape(3, 64, 96, 4, 16, 4, 300), Shape(2, 64, 160, 4, 32, 2, 200, tied=False)]


def build(s: Shape) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=s.vocab, hidden_size=s.d, intermediate_size=s.d_ff, num_hidden_layers=s.layers,
        num_attention_heads=s.heads, num_key_value_heads=s.kv_heads, head_dim=s.d_k, tie_word_embeddings=s.tied,
    )  # fmt: skip
    return LlamaForCausalLM(config)


@pytest.mark.parametrize("s", SHAPES)
def test_weights_and_operations_are_those_of_a_model_of_that_shape(s: Shape):
    model, ids = build(s), torch.randint(s.vocab, (2, 40))
    real = sum(p.numel() for p in model.parameters())
    assert count_weights(s) == pytest.approx(real, rel=0.01)
    counted = count_flops(lambda: model(ids).logits.sum().backward())
    assert decoder_flops(s, ids.numel(), 40) == pytest.approx(counted, rel=0.02)


def test_activations_are_those_that_autograd_keeps():
    s = SHAPES[0]
    model, ids = build(s).train(), torch.randint(s.vocab, (2, 40))
    kept, _ = kept_bytes(lambda: model(ids, labels=ids, use_cache=False), (), model.parameters())
    assert 4 * kept_numbers(s) * ids.numel() == pytest.approx(kept, rel=0.1)
    assert training_bytes(s, ids.numel()) == 16 * count_weights(s) + 4 * kept_numbers(s) * ids.numel()


def test_gpt_3_by_its_own_paper():
    gpt3 = Shape(96, 12_288, 49_152, 96, 128, 96, 50_257, gated=False)
    assert count_weights(gpt3) == pytest.approx(174.6e9, rel=0.01)  # Brown et al. 2020, table D.1
    assert 6 * count_weights(gpt3) * 300e9 == pytest.approx(3.14e23, rel=0.01)


def test_days_of_a_machine():
    assert training_days(86_400 * 2e12, 4, 1e12, 0.5) == 1


def test_what_does_not_fit_is_refused_in_one_line_with_the_remedy():
    check_fits("小模型", 8e9, 8e9)
    with pytest.raises(ValueError, match="要 131 GB，这台机器只有 24 GB") as caught:
        check_fits("Qwen3-8B", 131e9, 24e9)
    assert f"{math.ceil(131 / 24)} 台" in str(caught.value)
    assert "\n" not in str(caught.value)
