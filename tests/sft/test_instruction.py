"""Instruction tuning: which tokens carry a loss, and that tuning answers better."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from recipes.tokenizer import build_char_tokenizer
from sft.instruction import (
    IGNORED,
    answer_loss,
    collate_examples,
    dictionary_question,
    encode_example,
    mean_answer_loss,
    tune,
)

CPU = torch.device("cpu")
PAIRS = [(f"{a}{b}", f"{b}在{a}后") for a in "甲乙丙丁戊" for b in "子丑寅卯辰"]


@pytest.fixture(scope="module")
def tokenizer():
    return build_char_tokenizer([dictionary_question(q) + a for q, a in PAIRS], min_count=1)


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        pad_token_id=0, bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def test_only_the_answer_carries_labels(tokenizer):
    example = encode_example(tokenizer, "什么是“甲子”？", "子在甲后")
    pieces = tokenizer.convert_ids_to_tokens(example.input_ids)
    assert pieces == ["[CLS]", *"什么是“甲子”？", "[SEP]", *"子在甲后", "[SEP]"]
    border = pieces.index("[SEP]") + 1
    assert example.labels == [IGNORED] * border + example.input_ids[border:]
    everywhere = encode_example(tokenizer, "什么是“甲子”？", "子在甲后", loss_on_question=True)
    assert everywhere.labels == everywhere.input_ids == example.input_ids


def test_a_long_answer_is_cut_and_a_long_question_refused(tokenizer):
    example = encode_example(tokenizer, "什么是“甲子”？", "子在甲后", max_length=12)
    assert len(example.input_ids) == 12 and example.labels[-1] != IGNORED
    with pytest.raises(ValueError, match="leaves no room"):
        encode_example(tokenizer, "什么是“甲子”？", "子在甲后", max_length=10)


def test_the_loss_is_that_of_each_answer_alone(tokenizer, model):
    """Padding and neighbours change nothing: the batch's sum is the sum of single examples, counted by hand."""
    examples = [
        encode_example(tokenizer, "什么是“甲子”？", "子"),
        encode_example(tokenizer, "甲", "子在甲后"),
    ]
    by_hand = 0.0
    with torch.inference_mode():
        for example in examples:
            log_p = F.log_softmax(model(torch.tensor([example.input_ids])).logits[0].float(), dim=-1)
            for place in range(1, len(example.input_ids)):
                if example.labels[place] != IGNORED:
                    by_hand -= log_p[place - 1, example.input_ids[place]].item()
        whole = answer_loss(model, collate_examples(examples, 0, CPU), "sum").item()
    assert whole == pytest.approx(by_hand, rel=0.01)  # bfloat16 where the machine has it


def test_tuning_answers_held_out_questions_better(tokenizer, model):
    examples = [encode_example(tokenizer, dictionary_question(q), a) for q, a in PAIRS]
    seen, held_out = examples[:-5] * 8, examples[-5:]
    before = mean_answer_loss(model, held_out, 0, CPU)
    losses = tune(model, seen, 0, CPU, num_epochs=4, batch_size=16, lr=5e-3)
    assert losses[-1] < losses[0]
    assert mean_answer_loss(model, held_out, 0, CPU) < 0.7 * before


def test_a_loss_that_runs_away_is_named(tokenizer, model):
    with torch.no_grad():
        model.model.embed_tokens.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="lower lr"):
        tune(model, [encode_example(tokenizer, "甲", "子")], 0, CPU)
