"""Masks and their loss, bits a character: proportions, borders, a second computation."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM

from recipes.tokenizer import build_char_tokenizer, with_chat
from sft.language_modeling import bits_per_character, mask_tokens, masked_lm_loss, tokenise

SENTENCES = ["房间很干净。", "早餐太难吃了", "我喜欢吃苹果", "他每天喝一杯牛奶。"]


@pytest.fixture(scope="module")
def tokenizer():
    return build_char_tokenizer(SENTENCES, min_count=1)


def small_llama(tokenizer) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                    intermediate_size=48, max_position_embeddings=64, tie_word_embeddings=True,
                    pad_token_id=tokenizer.pad_token_id)
    ).eval()  # fmt: skip


def some_ids(tokenizer, rows: int = 400, n: int = 50) -> torch.Tensor:
    ids = torch.randint(5, len(tokenizer), (rows, n), generator=torch.Generator().manual_seed(3))
    ids[:, 0], ids[:, -1] = tokenizer.cls_token_id, tokenizer.sep_token_id
    return ids


def small_bert(tokenizer) -> BertForMaskedLM:
    torch.manual_seed(0)
    return BertForMaskedLM(
        BertConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                   intermediate_size=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    )  # fmt: skip


def test_masking_keeps_bert_s_proportions(tokenizer):
    ids = some_ids(tokenizer)
    masked, chosen = mask_tokens(ids, tokenizer, 0.15, torch.Generator().manual_seed(0))
    ordinary = ids[:, 1:-1].numel()
    assert chosen.sum().item() / ordinary == pytest.approx(0.15, abs=0.01)
    share = chosen.sum().item()
    became_mask = (masked == tokenizer.mask_token_id).sum().item() / share
    changed = ((masked != ids) & (masked != tokenizer.mask_token_id)).sum().item() / share
    assert became_mask == pytest.approx(0.8, abs=0.03)
    assert changed == pytest.approx(0.1, abs=0.03)  # a token drawn may be the one that stood there
    assert torch.equal(masked[~chosen], ids[~chosen])


def test_masking_never_touches_or_draws_a_special_token(tokenizer):
    ids = some_ids(tokenizer)
    masked, chosen = mask_tokens(ids, tokenizer, 1.0, torch.Generator().manual_seed(0))
    assert chosen[:, 1:-1].all() and not chosen[:, [0, -1]].any()
    drawn = masked[chosen & (masked != tokenizer.mask_token_id)]
    assert not torch.isin(drawn, torch.tensor(tokenizer.all_special_ids)).any()
    assert (masked[:, 0] == tokenizer.cls_token_id).all() and (masked[:, -1] == tokenizer.sep_token_id).all()


def test_masking_follows_its_generator_alone(tokenizer):
    ids = some_ids(tokenizer)
    first = mask_tokens(ids, tokenizer, 0.3, torch.Generator().manual_seed(5))
    torch.manual_seed(99)
    again = mask_tokens(ids, tokenizer, 0.3, torch.Generator().manual_seed(5))
    other = mask_tokens(ids, tokenizer, 0.3, torch.Generator().manual_seed(6))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_masked_loss_is_that_of_the_whole_head(tokenizer):
    model, ids = small_bert(tokenizer), some_ids(tokenizer, rows=4)
    masked, chosen = mask_tokens(ids, tokenizer, 0.15, torch.Generator().manual_seed(0))
    whole = model(input_ids=masked).logits
    expected = F.cross_entropy(whole[chosen], ids[chosen])
    torch.testing.assert_close(masked_lm_loss(model, masked, chosen, ids), expected)


def test_masked_loss_without_a_chosen_position_is_zero(tokenizer):
    ids = some_ids(tokenizer, rows=2)
    loss = masked_lm_loss(small_bert(tokenizer), ids, torch.zeros_like(ids, dtype=torch.bool), ids)
    assert loss.item() == 0
    loss.backward()  # a batch without work must not stop a run


def test_bits_per_character_counts_every_token_once(tokenizer):
    """Against one long window, where nothing overlaps; and [UNK] pays 16 bits more."""
    model = small_llama(tokenizer)
    stream = torch.tensor([token for ids in tokenise(SENTENCES[:4], tokenizer) for token in ids])
    with torch.inference_mode():
        losses = F.cross_entropy(model(stream[None]).logits[0, :-1], stream[1:], reduction="none")
    bits = losses[stream[1:] != tokenizer.cls_token_id].sum().item() / math.log(2)
    characters = sum(map(len, SENTENCES[:4]))
    whole = bits_per_character(model, SENTENCES[:4], tokenizer, context=64, stride=32)
    assert whole == pytest.approx(bits / characters, rel=0.02)  # bfloat16 where the machine has it
    narrow = bits_per_character(model, SENTENCES[:4], tokenizer, context=24, stride=12)
    assert narrow == pytest.approx(whole, rel=0.1) and narrow != whole
    seen = bits_per_character(model, ["房间很干净。"], tokenizer, context=64, stride=32)
    unseen = bits_per_character(model, ["房间很干龘。"], tokenizer, context=64, stride=32)
    assert unseen > seen + 16 / 6 - 0.5


def test_bits_per_character_knows_tokenizers_without_a_start_and_an_unknown_token(tokenizer):
    """As Qwen's: nothing is left out and nothing is charged, where there is no such token."""
    model = small_llama(tokenizer)
    bare = with_chat(tokenizer)
    whole = bits_per_character(model, SENTENCES[:4], bare, context=64, stride=32)
    bare.cls_token = bare.unk_token = None
    assert bits_per_character(model, SENTENCES[:4], bare, context=64, stride=32) > whole
