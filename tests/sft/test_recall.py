"""`sft/recall.py`: each answer is the value beside its key, distances count what they say, readers learn."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sft.recall import RecurrentReader, reader_optimizers, recall_batch, train_reader


@pytest.mark.parametrize("num_pairs", [1, 2, 5])
def test_answers_and_distances_are_those_of_looking_them_up(num_pairs: int):
    tokens, values, distance = recall_batch(16, num_pairs, 6, torch.Generator().manual_seed(0))
    assert tokens.shape == (16, 3 * num_pairs)
    for row, wanted, apart in zip(tokens.tolist(), values.tolist(), distance.tolist(), strict=True):
        for j in range(num_pairs):
            asked = 2 * num_pairs + j
            key = row.index(row[asked])  # where it stands first
            assert key % 2 == 0 and key < 2 * num_pairs and row[asked] < 6
            assert wanted[j] == row[key + 1] >= 6
            assert apart[j] == asked - key


def test_keys_differ_and_each_is_asked_once():
    tokens, _, _ = recall_batch(32, 4, 4, torch.Generator().manual_seed(1))
    assert all(sorted(row) == [0, 1, 2, 3] for row in tokens[:, 8:].tolist())
    assert all(sorted(row) == [0, 1, 2, 3] for row in tokens[:, :8:2].tolist())


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_a_recurrent_reader_does_not_look_ahead(cell):
    torch.manual_seed(0)
    model = RecurrentReader(cell, 10, 8)
    x = torch.randint(10, (2, 6))
    changed = x.clone()
    changed[:, 4] = (x[:, 4] + 1) % 10
    same = torch.isclose(model(x), model(changed)).all(-1).all(0)
    assert model(x).shape == (2, 6, 10)
    assert same[:4].all() and not same[4:].any()


@pytest.mark.parametrize("muon", [False, True])
def test_each_weight_of_a_reader_has_one_optimizer(muon: bool):
    model = RecurrentReader(nn.GRU, 10, 8)
    held = [
        weight
        for optimizer, _ in reader_optimizers(model, muon)
        for group in optimizer.param_groups
        for weight in group["params"]
    ]
    assert sorted(map(id, held)) == sorted(map(id, model.parameters()))


def test_a_trained_reader_recalls_one_pair():
    torch.manual_seed(0)
    model, num_keys = RecurrentReader(nn.GRU, 8, 16), 4
    train_reader(model, num_keys, (1, 1), 60, seed=0, device=torch.device("cpu"), muon=True)
    tokens, wanted, _ = recall_batch(64, 1, num_keys, torch.Generator().manual_seed(5))
    assert (model(tokens)[:, -1:].argmax(-1) == wanted).float().mean() > 0.9
