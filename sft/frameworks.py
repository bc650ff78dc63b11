"""One BERT classifier's weights under the names and in the shapes of PyTorch's own layers and of Keras.

`transformers` stores a linear layer as PyTorch does: a matrix (out, in), applied as x Wᵀ. Keras stores (in, out), and
its attention layer keeps the heads as an axis of their own. Chapter 7 builds the three models; here the weights move.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:  # it takes seconds to import
    from transformers import BertConfig, PreTrainedModel

TORCH_LAYER = {  # transformers' name within a layer -> that of nn.TransformerEncoderLayer
    "attention.output.dense": "self_attn.out_proj",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "linear1",
    "output.dense": "linear2",
    "output.LayerNorm": "norm2",
}
TORCH_REST = {
    "bert.embeddings.LayerNorm": "norm",
    "bert.pooler.dense": "pooler",
    "classifier": "head",
}


def torch_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The weights of a BertForSequenceClassification as a ``state_dict`` for chapter 7's model of PyTorch's layers.

    Its layers: ``tokens`` and ``positions`` (embeddings), ``norm``, ``encoder`` (nn.TransformerEncoder), ``pooler``,
    ``head``. The vector of segment 0, which BERT adds to every token, is added to the positions.

    Raises:
        ValueError: the model is no BERT classifier.
    """
    weights = _weights(model)
    moved = {
        "tokens.weight": weights["bert.embeddings.word_embeddings.weight"],
        "positions.weight": _positions(weights),
    }
    for part in ("weight", "bias"):
        moved |= {f"{ours}.{part}": weights[f"{theirs}.{part}"] for theirs, ours in TORCH_REST.items()}
        for i in range(model.config.num_hidden_layers):
            theirs, ours = f"bert.encoder.layer.{i}.", f"encoder.layers.{i}."
            stacked = [weights[f"{theirs}attention.self.{name}.{part}"] for name in ("query", "key", "value")]
            moved[f"{ours}self_attn.in_proj_{part}"] = torch.cat(stacked)  # (3 d, d) or (3 d,)
            for name, other in TORCH_LAYER.items():
                moved[f"{ours}{other}.{part}"] = weights[f"{theirs}{name}.{part}"]
    return moved


def keras_weights(model: PreTrainedModel, *, transpose: bool = True) -> list[np.ndarray]:
    """The same weights as a list for ``set_weights`` of chapter 7's model of Keras layers, in the order it makes them.

    Args:
        transpose: False leaves query, key and value as PyTorch has them: the shapes still fit, the numbers are wrong.

    Raises:
        ValueError: the model is no BERT classifier.
    """
    weights = _weights(model)
    moved = [weights["bert.embeddings.word_embeddings.weight"], _positions(weights)]
    moved += _pair(weights, "bert.embeddings.LayerNorm")
    for i in range(model.config.num_hidden_layers):
        moved += _keras_layer(weights, f"bert.encoder.layer.{i}.", model.config, transpose)
    for name in ("bert.pooler.dense", "classifier"):
        matrix, bias = _pair(weights, name)
        moved += [matrix.T, bias]
    return [weight.contiguous().numpy() for weight in moved]


def _keras_layer(
    weights: dict[str, torch.Tensor], layer: str, config: BertConfig, transpose: bool
) -> Iterator[torch.Tensor]:
    d, heads = config.hidden_size, config.num_attention_heads
    for name in ("query", "key", "value"):
        matrix, bias = _pair(weights, f"{layer}attention.self.{name}")
        yield (matrix.T if transpose else matrix).reshape(d, heads, -1)  # (in, heads, d_k)
        yield bias.reshape(heads, -1)
    matrix, bias = _pair(weights, f"{layer}attention.output.dense")
    yield matrix.T.reshape(heads, -1, d)  # (heads, d_k, out)
    yield bias
    yield from _pair(weights, f"{layer}attention.output.LayerNorm")
    for name in ("intermediate.dense", "output.dense"):
        matrix, bias = _pair(weights, layer + name)
        yield matrix.T
        yield bias
    yield from _pair(weights, f"{layer}output.LayerNorm")


def _pair(weights: dict[str, torch.Tensor], name: str) -> list[torch.Tensor]:
    return [weights[f"{name}.weight"], weights[f"{name}.bias"]]


def _positions(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    segment = weights["bert.embeddings.token_type_embeddings.weight"][0]
    return weights["bert.embeddings.position_embeddings.weight"] + segment


def _weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """A copy on the processor: what is trained later does not change it."""
    if type(model).__name__ != "BertForSequenceClassification":
        raise ValueError(
            f"only the weights of a BertForSequenceClassification are known here, not of a {type(model).__name__}; "
            "name a BERT model, e.g. mini-bert-zh"
        )
    return {name: value.detach().float().cpu().clone() for name, value in model.state_dict().items()}
