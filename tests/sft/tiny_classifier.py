"""A model folder as `sft.finetune` leaves it, small enough to be made for each test: random weights, real files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel

from recipes.tokenizer import build_char_tokenizer
from sft.spreadsheet import write_csv

TEXTS = ("房间很干净", "太吵了，睡不着", "早餐不错", "=1+1", "价格公道 good", "服务差", "前台热情", "设施旧")


def write_classifier(
    folder: Path, labels: tuple[str, ...] = ("差评", "好评"), *, several: bool = False, scale: float = 1.0
) -> Path:
    """Save a classifier of two labels or more whose answers differ from text to text.

    Args:
        scale: of the output layer; a small one puts every text on the edge between the labels.
    """
    torch.manual_seed(1)
    tokenizer = build_char_tokenizer(list(TEXTS))
    tokenizer.model_max_length = 32
    model = BertForSequenceClassification(
        tiny_config(
            len(tokenizer),
            id2label=dict(enumerate(labels)),
            label2id={name: i for i, name in enumerate(labels)},
            problem_type="multi_label_classification" if several else "single_label_classification",
        )
    ).eval()
    with torch.no_grad():
        centre = model.bert(**tokenizer(list(TEXTS), padding=True, return_tensors="pt")).pooler_output.mean(0)
        model.classifier.weight *= scale
        model.classifier.bias.copy_(-model.classifier.weight @ centre)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with (folder / "predictions.csv").open("w", encoding="utf-8-sig", newline="") as file:
        rows = [("test" if i else "validation", text) for i, text in enumerate(TEXTS)]
        write_csv(file, ("split", "text"), [*rows, ("train", "背过的")])
    return folder


def write_encoder(folder: Path, texts: Sequence[str]) -> Path:
    """Save an encoder to fine-tune, which knows the characters of these texts."""
    torch.manual_seed(2)
    tokenizer = build_char_tokenizer(list(texts))
    BertModel(tiny_config(len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_config(vocab_size: int, **more) -> BertConfig:
    """One layer, 32 wide."""
    return BertConfig(
        vocab_size=vocab_size, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, initializer_range=0.3, **more,
    )  # fmt: skip
