"""Weights under other names: the values move, the model they come from stays, and no other model is taken for BERT."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, DistilBertConfig
from transformers import DistilBertForSequenceClassification as DistilBert

from sft.frameworks import keras_weights, torch_weights


@pytest.fixture
def bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=11, hidden_size=6, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=8, max_position_embeddings=5,
        )
    )  # fmt: skip


def test_every_weight_moves_once(bert):
    total = sum(p.numel() for p in bert.parameters()) - 2 * 6  # both segments' vectors go into the positions
    assert sum(w.numel() for w in torch_weights(bert).values()) == total
    assert sum(w.size for w in keras_weights(bert)) == total


def test_heads_are_cut_from_the_columns_of_the_transposed_matrix(bert):
    query = bert.bert.encoder.layer[0].attention.self.query.weight.detach().numpy()  # (out, in)
    kernel = keras_weights(bert)[4]
    assert kernel.shape == (6, 2, 3)
    assert np.array_equal(kernel[:, 1], query[3:].T)
    assert not np.array_equal(keras_weights(bert, transpose=False)[4], kernel)


def test_what_is_moved_is_a_copy(bert):
    moved = torch_weights(bert)
    moved["head.bias"] += 1
    assert torch.equal(bert.classifier.bias, torch_weights(bert)["head.bias"])


def test_another_model_is_one_clear_line():
    other = DistilBert(DistilBertConfig(vocab_size=11, dim=6, n_layers=1, n_heads=2, hidden_dim=8))
    for move in (torch_weights, keras_weights):
        with pytest.raises(ValueError, match=r"^only .+ not of a DistilBert\w+; name a BERT model.*$"):
            move(other)
