"""Supervised fine-tuning of a decoder: chapter 6.2's loop, padded and packed, against TRL's SFTTrainer.

All candidates read the same rows in the same steps, so that the loss after each step must be the same; what differs is
what stands around the rows. Rows are drawn: lengths as instruction data has them (log-normal, median 180 tokens, cut at
1,024), ids by Zipf's law, so that there is something to learn; the first part of each row, its prompt, has no label.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, BatchEncoding, PreTrainedModel, get_linear_schedule_with_warmup
from trl import SFTConfig, SFTTrainer

from benchmarks.gpu.encoders import StepClock, loader_of, quiet
from benchmarks.gpu.flops import shape_of
from benchmarks.gpu.measure import Plan, Row, Watch, Work, measure, window_means
from benchmarks.gpu.models import DECODERS, make_decoder
from sft.fine_tuning import Collate, training_loop
from sft.hub import PRETRAINED
from sft.instruction import IGNORED

BATCH_SIZE, MAX_LENGTH, LR = 8, 1024, 2e-5  # those of SFTConfig
TINY_BATCH, TINY_LENGTH = 4, 24
PLAN, TINY_PLAN = Plan(warmup=10, window=10, repeats=4), Plan(warmup=2, window=2, repeats=2)

Example = Mapping[str, Sequence[int]]


def random_examples(vocabulary: int, count: int, max_length: int) -> list[dict[str, list[int]]]:
    """Rows with ``input_ids`` and ``labels``; equal for equal arguments."""
    rng = np.random.default_rng(0)
    chance = 1 / (np.arange(1, vocabulary - 4) + 2.7)  # Zipf–Mandelbrot; the first five ids are special
    edges = np.cumsum(chance / chance.sum())
    drawn = rng.lognormal(np.log(max_length * 180 / 1024), 0.8, count)
    examples = []
    for length in np.clip(drawn.astype(int), 6, max_length):
        ids = (np.searchsorted(edges, rng.random(length)).clip(max=vocabulary - 6) + 5).tolist()
        prompt = int(length * rng.uniform(0.2, 0.5)) + 1
        examples.append({"input_ids": ids, "labels": [IGNORED] * prompt + ids[prompt:]})
    return examples


def pad(examples: Sequence[Example]) -> BatchEncoding:
    """A row a text, as long as the longest."""
    n = max(len(example["input_ids"]) for example in examples)
    return _batch(
        {
            "input_ids": [[*e["input_ids"], *[0] * (n - len(e["input_ids"]))] for e in examples],
            "labels": [[*e["labels"], *[IGNORED] * (n - len(e["labels"]))] for e in examples],
            "attention_mask": [[1] * len(e["input_ids"]) + [0] * (n - len(e["input_ids"])) for e in examples],
        }
    )


def pack(examples: Sequence[Example], line_length: int) -> BatchEncoding:
    """Texts end to end in as few lines as first-fit decreasing finds; each counts its positions from 0.

    There is no attention mask: where positions start anew, `transformers` begins a new text; none sees another. What is
    left of a line counts as one more text without labels.
    """
    lines: list[list[Example]] = []
    for example in sorted(examples, key=lambda e: len(e["input_ids"]), reverse=True):
        room = line_length - len(example["input_ids"])
        for line in lines:
            if sum(len(other["input_ids"]) for other in line) <= room:
                line.append(example)
                break
        else:
            lines.append([example])
    n = max(sum(len(example["input_ids"]) for example in line) for line in lines)
    packed: dict[str, list[list[int]]] = {"input_ids": [], "labels": [], "position_ids": []}
    for line in lines:
        rest = n - sum(len(example["input_ids"]) for example in line)
        texts = [*line, {"input_ids": [0] * rest, "labels": [IGNORED] * rest}]
        packed["input_ids"].append([token for text in texts for token in text["input_ids"]])
        # nothing before a text's first token foretells it: the end of the text before least of all
        packed["labels"].append(
            [label for text in texts for label in [IGNORED, *text["labels"][1:]][: len(text["labels"])]]
        )
        packed["position_ids"].append([i for text in texts for i in range(len(text["input_ids"]))])
    return _batch(packed)


def _batch(columns: Mapping[str, list[list[int]]]) -> BatchEncoding:
    return BatchEncoding({name: torch.tensor(rows) for name, rows in columns.items()})


def lora() -> LoraConfig:
    """Adapters on every linear layer, the same for both sides."""
    return LoraConfig(
        r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def by_the_loop(
    model_name: str, examples: Sequence[Example], batch_size: int, plan: Plan, device: torch.device,
    *, collate: Collate, adapters: bool = False,
) -> Callable[[Watch], list[float]]:  # fmt: skip
    """The book's loop; AdamW, schedule and rate are those that SFTConfig has."""

    def run(watch: Watch) -> list[float]:
        model: PreTrainedModel = make_decoder(model_name, device)
        if adapters:
            model = get_peft_model(model, lora())
        trainable = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trainable, lr=LR, weight_decay=0.0, fused=True)
        schedule = get_linear_schedule_with_warmup(optimizer, 0, plan.steps)
        loader = loader_of(examples, batch_size, collate, device)
        return window_means(training_loop(model, watch.over(loader), optimizer, schedule, 1), plan)

    return run


def by_trl(
    model_name: str, examples: Sequence[Example], batch_size: int, plan: Plan, device: torch.device,
    *, max_length: int, adapters: bool = False, padding_free: bool = False,
) -> Callable[[Watch], list[float]]:  # fmt: skip
    """`SFTTrainer` with its defaults (bfloat16, gradient checkpointing, padding), the rows in their order."""

    def run(watch: Watch) -> list[float]:
        cpu = device.type == "cpu"
        with tempfile.TemporaryDirectory() as folder:
            arguments = SFTConfig(
                output_dir=folder, max_steps=plan.steps, per_device_train_batch_size=batch_size, learning_rate=LR,
                max_length=None if padding_free else max_length, padding_free=padding_free,
                use_cpu=cpu, bf16=not cpu, train_sampling_strategy="sequential", logging_steps=plan.window,
                save_strategy="no", report_to="none", disable_tqdm=True,
            )  # fmt: skip
            trainer = SFTTrainer(
                make_decoder(model_name, device), arguments, train_dataset=Dataset.from_list(list(examples)),
                processing_class=AutoTokenizer.from_pretrained(PRETRAINED / "mini-gpt-zh"),
                peft_config=lora() if adapters else None, callbacks=[StepClock(watch)],
            )  # fmt: skip
            quiet(trainer)
            trainer.train()
            return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]

    return run


def rows_of(device: torch.device, peak: float | None, tiny: bool) -> Iterator[Row]:
    """The comparison that has a target first, then what explains it, then LoRA."""
    plan, model_name = (TINY_PLAN, "tiny-qwen3") if tiny else (PLAN, "qwen3-0.6b")
    batch_size, max_length = (TINY_BATCH, TINY_LENGTH) if tiny else (BATCH_SIZE, MAX_LENGTH)
    config = DECODERS[model_name]
    examples = random_examples(config.vocab_size, plan.steps * batch_size, max_length)
    sizes = [len(example["input_ids"]) for example in examples]
    lengths = [sizes[start : start + batch_size] for start in range(0, len(sizes), batch_size)]
    shape = shape_of(config)
    work = Work(lengths, [shape.training_flops(step) for step in lengths], "tokens/s")
    given = (model_name, examples, batch_size, plan, device)

    def packed(rows: Sequence[Example]) -> BatchEncoding:
        return pack(rows, max_length)

    candidates = {
        "loop packed": by_the_loop(*given, collate=packed),
        "trl": by_trl(*given, max_length=max_length),
        "loop packed, LoRA": by_the_loop(*given, collate=packed, adapters=True),
        "trl, LoRA": by_trl(*given, max_length=max_length, adapters=True),
        "loop padded": by_the_loop(*given, collate=pad),
        "trl padding-free": by_trl(*given, max_length=max_length, padding_free=True),
    }
    for name, candidate in candidates.items():
        yield measure(
            "decoders", model_name, name, candidate, work=work, plan=plan, device=device, peak=peak,
            count_mfu="LoRA" not in name,  # frozen weights have no gradient, which is a third less of work
        )  # fmt: skip
