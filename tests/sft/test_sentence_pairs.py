"""`sft/sentence_pairs.py`: what is called the next sentence is it, and what the features cannot tell."""

from __future__ import annotations

import numpy as np
import torch
from transformers import BertConfig, BertModel

from sft.sentence_pairs import average_vectors, make_pairs, overlap, pair_features, split_sentences
from sft.tokenization import build_char_tokenizer
from sft.training import autocast

TEXTS = ["甲一。甲二！甲三？尾", "乙一。乙二。", "只有一句。"]


def test_sentences_end_with_their_mark_and_a_rest_is_dropped():
    assert split_sentences(TEXTS[0]) == ["甲一。", "甲二！", "甲三？"]


def test_a_pair_called_next_stands_so_in_its_paragraph():
    pairs, labels = make_pairs(TEXTS, 60, seed=0)
    following = {("甲一。", "甲二！"), ("甲二！", "甲三？"), ("乙一。", "乙二。")}
    assert len(pairs) == len(labels) == 60 and 0 < labels.sum() < 60
    assert {pair for pair, is_next in zip(pairs, labels, strict=True) if is_next} == following
    assert "只有一句。" not in {sentence for pair in pairs for sentence in pair}


def test_overlap_is_a_share_of_all_characters():
    assert overlap(("甲乙", "乙丙")) == 1 / 3


def test_half_of_the_features_do_not_see_the_order():
    u, v = np.random.default_rng(0).normal(size=(2, 5, 3))
    here, there = pair_features(u, v), pair_features(v, u)
    assert here.shape == (5, 12)
    assert np.array_equal(here[:, 6:], there[:, 6:]) and not np.allclose(here[:, :6], there[:, :6])


def test_average_vectors_keep_the_order_of_the_sentences():
    tokenizer = build_char_tokenizer(TEXTS, min_count=1)
    torch.manual_seed(0)
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **shape)
    model = BertModel(config).eval()
    sentences = ["甲一甲二甲三", "乙", "甲一"]
    found = average_vectors(model, tokenizer, sentences, 16, torch.device("cpu"), batch_size=2)
    for sentence, vector in zip(sentences, found, strict=True):
        with torch.no_grad(), autocast(torch.device("cpu")):
            alone = model(**tokenizer(sentence, return_tensors="pt")).last_hidden_state.float().mean(1)[0]
        assert np.allclose(vector, alone.numpy(), atol=0.02)  # bfloat16, where the machine has it
