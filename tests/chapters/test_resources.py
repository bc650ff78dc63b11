"""Chapter 7's models, from the notebook: equal where the weights are, unequal where one thing is copied wrongly."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from sft.frameworks import keras_weights, torch_weights

NOTEBOOK = Path(__file__).parents[2] / "chapters" / "07-resources.ipynb"


@pytest.fixture(scope="module")
def taught() -> dict[str, Any]:
    """The names that the cells with the models define."""
    cells = {c["id"]: "".join(c["source"]) for c in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]}
    before, names = dict(os.environ), {"device": torch.device("cpu")}
    for cell in ("torch-model", "keras-import", "keras-layer", "keras-model"):
        exec(compile(cells[cell], cell, "exec"), names)
    os.environ.clear()
    os.environ.update(before)
    return names


@pytest.fixture(scope="module")
def bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, initializer_range=0.3,
            intermediate_size=32, max_position_embeddings=16,
        )
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Eight texts of nine tokens; every second ends after five."""
    ids = torch.randint(1, 50, (8, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[::2, 5:] = 0
    return ids * mask, mask


@torch.inference_mode()
def in_keras(taught, bert, batch, transpose: bool = True, **options) -> torch.Tensor:
    net = taught["KerasClassifier"](bert.config, **options)
    net(batch)
    net.set_weights(keras_weights(bert, transpose=transpose))
    return net(batch).cpu()


@torch.inference_mode()
def expected(bert, batch) -> torch.Tensor:
    return bert(input_ids=batch[0], attention_mask=batch[1]).logits


def test_pytorchs_own_layers_give_the_same(taught, bert, batch):
    ours = taught["TorchClassifier"](bert.config).eval()
    ours.load_state_dict(torch_weights(bert))
    with torch.inference_mode():
        assert torch.allclose(ours(*batch), expected(bert, batch), atol=1e-5)


def test_keras_gives_the_same(taught, bert, batch):
    assert torch.allclose(in_keras(taught, bert, batch), expected(bert, batch), atol=1e-5)


@pytest.mark.parametrize(
    "mistake", [{"transpose": False}, {"eps": 1e-3}, {"approximate": True}, {"use_mask": False}], ids=str
)
def test_each_mistake_shows_and_none_is_refused(taught, bert, batch, mistake):
    assert (in_keras(taught, bert, batch, **mistake) - expected(bert, batch)).abs().max() > 1e-4
