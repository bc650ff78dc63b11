"""Chapter 5's loop on models of `transformers`, and what its experiments take for granted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from recipes.tokenizer import build_char_tokenizer
from sft.fine_tuning import Buckets, load_classifier, predict, tokenize, train

TEXTS = ["好房间", "坏", "好好好好", "坏房间真坏", "房间好", "真坏", "好", "房间房间坏"] * 4
LABELS = [1, 0] * 16


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizer:
    return build_char_tokenizer(TEXTS)


@pytest.fixture(scope="module")
def rows(tokenizer) -> Dataset:
    return tokenize(Dataset.from_dict({"text": TEXTS, "label": LABELS}), tokenizer, 6)


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory) -> Path:
    """A small encoder on disk, as `from_pretrained` reads it."""
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("encoder")
    BertForSequenceClassification(config).bert.save_pretrained(path)
    return path


def test_tokenize_cuts_and_keeps_labels(rows, tokenizer):
    assert rows["label"][:] == LABELS
    assert "text" not in rows.column_names
    assert [len(ids) for ids in rows["input_ids"][:4]] == [5, 3, 6, 6]
    assert rows[3]["input_ids"][-1] == tokenizer.sep_token_id


def test_training_learns_and_repeats_itself(folder, rows, tokenizer):
    collate = DataCollatorWithPadding(tokenizer)
    runs = []
    for _ in range(2):
        model = load_classifier(folder, num_labels=2, dropout=0.1)
        losses = train(model, rows, collate, lr=3e-3, num_epochs=12, batch_size=8, seed=3)
        runs.append((losses, predict(model, rows, collate)))
    (losses, logits), (losses_again, logits_again) = runs
    assert len(losses) == 12 * 4
    assert (logits.argmax(-1) == LABELS).all()
    assert np.mean(losses[-4:]) < 0.2 < losses[0]
    assert losses == losses_again
    assert np.array_equal(logits, logits_again)


def test_predictions_keep_the_rows_order_and_leave_the_model_as_it_is(folder, rows, tokenizer):
    collate = DataCollatorWithPadding(tokenizer)
    model = load_classifier(folder, num_labels=2, dropout=0.5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    whole = predict(model, rows, collate, batch_size=32)
    assert whole.shape == (32, 2)
    assert np.allclose(
        whole, predict(model, rows, collate, batch_size=5), atol=1e-2
    )  # bfloat16, other padding
    assert np.allclose(whole[::-1], predict(model, rows.select(range(31, -1, -1)), collate), atol=1e-2)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_only_the_encoder_differs_between_read_and_random(folder):
    read, blank = (load_classifier(folder, random=random, seed=5, num_labels=3) for random in (False, True))
    assert torch.equal(read.classifier.weight, blank.classifier.weight)
    assert read.classifier.weight.shape == (3, 32)
    word = "bert.embeddings.word_embeddings.weight"
    assert not torch.equal(read.state_dict()[word], blank.state_dict()[word])
    other = load_classifier(folder, seed=6, num_labels=3)
    assert not torch.equal(read.classifier.weight, other.classifier.weight)
    assert torch.equal(read.state_dict()[word], other.state_dict()[word])


def test_dropout_is_the_models_own_unless_said(folder):
    own, none = load_classifier(folder), load_classifier(folder, dropout=0.0)
    assert own.config.hidden_dropout_prob == own.config.attention_probs_dropout_prob == 0.1
    assert none.config.hidden_dropout_prob == none.config.attention_probs_dropout_prob == 0.0
    small = load_classifier(folder, random=True, hidden_size=16, num_attention_heads=1)
    assert small.classifier.in_features == 16


def test_buckets_hold_every_row_once_a_pass_and_in_another_order_each():
    buckets = Buckets(np.random.default_rng(0).integers(3, 60, size=101), 8, seed=1)
    first, second = list(buckets), list(buckets)
    assert len(first) == len(buckets) == 13
    for batches in (first, second):
        assert sorted(np.concatenate(batches)) == list(range(101))
    assert not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_loop_is_what_trainer_does(folder, rows, tokenizer, tmp_path, dropout):
    """Equal initial weights and batches: `Trainer` with its defaults ends where the loop ends, dropout included.

    One epoch: in the second, `Trainer` has drawn from the loader's generator once more and shuffles otherwise.
    """
    from torch.utils.data import DataLoader
    from transformers import get_linear_schedule_with_warmup

    from sft.fine_tuning import training_loop
    from sft.training import has_bf16, set_seed

    collate = DataCollatorWithPadding(tokenizer)

    def loader():
        return DataLoader(
            rows, 4, shuffle=True, collate_fn=collate, generator=torch.Generator().manual_seed(2)
        )

    class SameBatches(Trainer):
        def get_train_dataloader(self):
            return loader()

    ours, theirs = (load_classifier(folder, num_labels=2, dropout=dropout) for _ in range(2))
    optimizer = torch.optim.AdamW(ours.parameters(), lr=1e-3, weight_decay=0.0)
    set_seed(4)
    losses = training_loop(ours, loader(), optimizer, get_linear_schedule_with_warmup(optimizer, 1, 8), 1)
    arguments = TrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=1, learning_rate=1e-3, per_device_train_batch_size=4,
        warmup_steps=1, bf16=has_bf16(torch.device("cpu")), use_cpu=True, seed=4, save_strategy="no",
        logging_steps=1, report_to="none", disable_tqdm=True,
    )  # fmt: skip
    trainer = SameBatches(theirs, arguments, data_collator=collate, train_dataset=rows)
    trainer.train()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 8
    assert np.allclose(losses, logged, atol=1e-4)
    assert np.allclose(predict(ours, rows, collate), predict(theirs, rows, collate), atol=1e-3)


def test_a_saved_model_is_read_whole_by_the_class_that_it_names(folder, rows, tokenizer, tmp_path):
    model = load_classifier(
        folder, num_labels=2, id2label={0: "差评", 1: "好评"}, label2id={"差评": 0, "好评": 1}
    )
    model.save_pretrained(tmp_path / "saved")
    read, info = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "saved", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert read.config.id2label == {0: "差评", 1: "好评"}
    collate = DataCollatorWithPadding(tokenizer)
    assert np.array_equal(predict(model, rows, collate), predict(read, rows, collate))
