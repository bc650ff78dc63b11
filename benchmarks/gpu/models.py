"""The models of the kit, made of random numbers by their configurations, in their real sizes and tiny."""

from __future__ import annotations

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from sft.training import set_seed

BERTS: dict[str, BertConfig] = {
    "bert-base": BertConfig(vocab_size=21128),  # bert-base-chinese: 12 layers of 768, 102 million parameters
    "mini-bert": BertConfig(
        vocab_size=7305, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1024,
        attention_probs_dropout_prob=0.0,
    ),
    "tiny-bert": BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    ),
}  # fmt: skip
DECODERS: dict[str, Qwen3Config] = {
    "qwen3-0.6b": Qwen3Config(
        vocab_size=151936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
        num_key_value_heads=8, head_dim=128, max_position_embeddings=40960, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0}, use_cache=False,
    ),
    "tiny-qwen3": Qwen3Config(
        vocab_size=60, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=128, tie_word_embeddings=True, use_cache=False,
    ),
}  # fmt: skip


def make_bert(name: str, device: torch.device, attention: str | None = None) -> PreTrainedModel:
    """A classifier of two classes in float32; equal for equal names."""
    set_seed(0)
    with device:
        return BertForSequenceClassification._from_config(BERTS[name], attn_implementation=attention)


def make_decoder(name: str, device: torch.device, attention: str | None = None) -> PreTrainedModel:
    """A causal model in float32; equal for equal names."""
    set_seed(0)
    with device:
        return Qwen3ForCausalLM._from_config(DECODERS[name], attn_implementation=attention)
