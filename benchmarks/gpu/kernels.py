"""Attention kernels and ``torch.compile``: the same training step on the same batch, one thing changed at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from transformers import BatchEncoding, get_constant_schedule

from benchmarks.gpu.flops import shape_of
from benchmarks.gpu.measure import Plan, Row, Watch, Work, measure, window_means
from benchmarks.gpu.models import BERTS, DECODERS, make_bert, make_decoder
from sft.fine_tuning import training_loop

PLAN, TINY_PLAN = Plan(warmup=5, window=10, repeats=3), Plan(warmup=1, window=1, repeats=2)
WAYS = {  # name -> (attention, compiled); None is what the library takes by itself
    "sdpa": ("sdpa", False),
    "eager": ("eager", False),
    "flash_attention_2": ("flash_attention_2", False),
    "flex_attention": ("flex_attention", False),
    "sdpa compiled": ("sdpa", True),
}


def step_of(
    make: Callable[..., torch.nn.Module], model_name: str, batch: BatchEncoding, plan: Plan, device: torch.device,
    attention: str, compiled: bool,
) -> Callable[[Watch], list[float]]:  # fmt: skip
    """The book's loop over one batch that lies on the device already."""

    def run(watch: Watch) -> list[float]:
        torch._dynamo.reset()  # what another candidate compiled must not count as this one's
        model = make(model_name, device, attention)
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.0, fused=True)
        trained = torch.compile(model) if compiled else model
        batches = watch.over([batch] * plan.steps)
        return window_means(
            training_loop(trained, batches, optimizer, get_constant_schedule(optimizer), 1), plan
        )

    return run


def rows_of(device: torch.device, peak: float | None, tiny: bool) -> Iterator[Row]:
    """bert-base at 128 tokens, the decoder at 1,024; every text as long as its row, so that no mask is in the way."""
    plan = TINY_PLAN if tiny else PLAN
    bert, decoder = ("tiny-bert", "tiny-qwen3") if tiny else ("bert-base", "qwen3-0.6b")
    (rows, n), (lines, m) = ((2, 8), (2, 16)) if tiny else ((128, 128), (8, 1024))
    torch.manual_seed(0)
    ids = torch.randint(5, BERTS[bert].vocab_size, (rows, n), device=device)
    texts = torch.randint(5, DECODERS[decoder].vocab_size, (lines, m), device=device)
    batches = {
        bert: BatchEncoding({"input_ids": ids, "labels": ids[:, 0] % 2}),
        decoder: BatchEncoding({"input_ids": texts, "labels": texts}),
    }
    models = (
        (bert, make_bert, BERTS[bert], [n] * rows),
        (decoder, make_decoder, DECODERS[decoder], [m] * lines),
    )
    for model_name, make, config, lengths in models:
        work = Work(
            [lengths] * plan.steps, [shape_of(config).training_flops(lengths)] * plan.steps, "tokens/s"
        )
        for name, (attention, compiled) in WAYS.items():
            if tiny and (
                compiled or attention == "flex_attention"
            ):  # both compile, which takes half a minute
                continue
            candidate = step_of(make, model_name, batches[model_name], plan, device, attention, compiled)
            yield measure(
                "kernels", model_name, name, candidate, work=work, plan=plan, device=device, peak=peak
            )
