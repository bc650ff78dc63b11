"""Chapter 5's loop against HF Trainer: texts of 128 tokens, the same rows in the same order, the same batch size."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import (
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    get_linear_schedule_with_warmup,
)

from benchmarks.gpu.flops import shape_of
from benchmarks.gpu.measure import Plan, Row, Watch, Work, measure, window_means
from benchmarks.gpu.models import BERTS, make_bert
from sft.fine_tuning import training_loop
from sft.hub import PRETRAINED

LENGTH, BATCH_SIZE, LR = 128, 128, 2e-5
PLAN, TINY_PLAN = Plan(warmup=20, window=20, repeats=5), Plan(warmup=1, window=1, repeats=2)
TINY_LENGTH, TINY_BATCH = 8, 4


class StepClock(TrainerCallback):
    """Tells a :class:`Watch` how many steps a `Trainer` has done."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def on_step_begin(self, args, state, control, **more) -> None:
        self.watch(state.global_step)

    def on_train_end(self, args, state, control, **more) -> None:
        self.watch(state.global_step)


def random_rows(vocabulary: int, count: int, length: int) -> Dataset:
    """Texts without padding, so that every token is work that both sides must do."""
    rng = np.random.default_rng(0)
    ids = rng.integers(5, vocabulary, (count, length))  # those before are special tokens
    return Dataset.from_dict({"input_ids": ids.tolist(), "labels": rng.integers(0, 2, count).tolist()})


def tokenizer() -> PreTrainedTokenizerBase:
    """Only to pad with: that of the packaged mini-bert-zh."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(PRETRAINED / "mini-bert-zh")


def loader_of(rows: Sequence, batch_size: int, collate: Callable, device: torch.device) -> DataLoader:
    """Batches in the rows' order; beside a card two processes fill them while it computes."""
    helpers = {"num_workers": 2, "pin_memory": True} if device.type == "cuda" else {}
    return DataLoader(rows, batch_size, collate_fn=collate, **helpers)


def by_the_loop(
    model_name: str,
    rows: Dataset,
    batch_size: int,
    plan: Plan,
    device: torch.device,
    *,
    compiled: bool = False,
) -> Callable[[Watch], list[float]]:
    """Chapter 5's loop as `sft.fine_tuning` has it; bfloat16 where the device multiplies it."""

    def run(watch: Watch) -> list[float]:
        model = make_bert(model_name, device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0, fused=True)
        schedule = get_linear_schedule_with_warmup(optimizer, 0, plan.steps)
        loader = loader_of(rows, batch_size, DataCollatorWithPadding(tokenizer()), device)
        trained = torch.compile(model) if compiled else model
        return window_means(training_loop(trained, watch.over(loader), optimizer, schedule, 1), plan)

    return run


def by_trainer(
    model_name: str, rows: Dataset, batch_size: int, plan: Plan, device: torch.device, *, bf16: bool
) -> Callable[[Watch], list[float]]:
    """`Trainer` with its defaults but the batch size and the order of the rows, which are those of the loop."""

    def run(watch: Watch) -> list[float]:
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder, max_steps=plan.steps, per_device_train_batch_size=batch_size, learning_rate=LR,
                bf16=bf16, use_cpu=device.type == "cpu", train_sampling_strategy="sequential",
                logging_steps=plan.window, save_strategy="no", report_to="none", disable_tqdm=True,
            )  # fmt: skip
            trainer = Trainer(
                make_bert(model_name, device), arguments, train_dataset=rows,
                data_collator=DataCollatorWithPadding(tokenizer()), callbacks=[StepClock(watch)],
            )  # fmt: skip
            quiet(trainer)
            trainer.train()
            return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]

    return run


def quiet(trainer: Trainer) -> None:
    """Let *trainer* print nothing."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)


def rows_of(device: torch.device, peak: float | None, tiny: bool) -> Iterator[Row]:
    """bert-base first: its figures are the targets'."""
    plan = TINY_PLAN if tiny else PLAN
    length, batch_size = (TINY_LENGTH, TINY_BATCH) if tiny else (LENGTH, BATCH_SIZE)
    for model_name in ("tiny-bert",) if tiny else ("bert-base", "mini-bert"):
        config = BERTS[model_name]
        rows = random_rows(config.vocab_size, plan.steps * batch_size, length)
        lengths = [[length] * batch_size] * plan.steps
        shape = shape_of(config)
        work = Work(lengths, [shape.training_flops(step) for step in lengths], "examples/s")
        given = (model_name, rows, batch_size, plan, device)
        candidates = {
            "loop": by_the_loop(*given),
            "trainer": by_trainer(*given, bf16=False),
            "trainer bf16": by_trainer(*given, bf16=True),
        }
        if not tiny:  # compiling takes half a minute even for the tiny one
            candidates["loop compiled"] = by_the_loop(*given, compiled=True)
        for name, candidate in candidates.items():
            yield measure(
                "encoders", model_name, name, candidate, work=work, plan=plan, device=device, peak=peak
            )
