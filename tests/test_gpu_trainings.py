"""The GPU kit's trainings in tiny shapes on the processor: packed, padded and TRL's, the same loss."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from benchmarks.gpu import decoders, encoders
from benchmarks.gpu.measure import Watch
from benchmarks.gpu.models import DECODERS, make_decoder
from sft import fine_tuning, training
from sft.instruction import IGNORED

pytestmark = pytest.mark.slow  # importing TRL takes seconds

CPU = torch.device("cpu")
TOLERANCE = 1e-5
"""Relative, in float32: the order of sums differs, nothing else."""


@pytest.fixture(autouse=True)
def float32(monkeypatch):
    monkeypatch.setattr(fine_tuning, "autocast", lambda device: training.autocast(device, "fp32"))


@pytest.fixture(scope="module")
def examples():
    return decoders.random_examples(DECODERS["tiny-qwen3"].vocab_size, 24, 24)


def losses_by_token(batch) -> list[float]:
    """Loss of every labelled token, smallest first."""
    logits = make_decoder("tiny-qwen3", CPU).eval()(**batch).logits[:, :-1]
    wanted = batch["labels"][:, 1:]
    losses = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="none")
    return sorted(losses[wanted.flatten() != IGNORED].tolist())


@torch.no_grad()
def test_packed_and_padded_have_the_same_loss_at_every_token(examples):
    padded, packed = losses_by_token(decoders.pad(examples)), losses_by_token(decoders.pack(examples, 24))
    assert packed == pytest.approx(padded, rel=TOLERANCE)
    careless = decoders.pack(examples, 24)
    del careless["position_ids"]  # then each text sees those before it in its line
    assert losses_by_token(careless) != pytest.approx(padded, rel=TOLERANCE)


def test_packing_keeps_every_token_once_and_wastes_less(examples):
    padded, packed = decoders.pad(examples), decoders.pack(examples, 24)
    ids = sorted(token for example in examples for token in example["input_ids"])
    assert sorted(packed["input_ids"][packed["input_ids"] > 0].tolist()) == ids
    assert packed["input_ids"].shape[1] <= 24
    assert len(ids) <= packed["input_ids"].numel() < padded["input_ids"].numel()
    starts = packed["position_ids"] == 0
    assert (packed["labels"][starts] == IGNORED).all() and int(starts.sum()) >= len(examples)


def test_a_text_whose_first_token_is_labelled_is_not_foretold_by_the_one_before():
    rows = [{"input_ids": [7, 8, 9], "labels": [7, 8, 9]}, {"input_ids": [5, 6], "labels": [5, 6]}]
    assert decoders.pack(rows, 8)["labels"].tolist() == [[IGNORED, 8, 9, IGNORED, 6]]


@pytest.mark.parametrize("adapters", [False, True], ids=["full", "LoRA"])
def test_the_loop_and_trl_have_the_same_loss_at_every_step(examples, adapters):
    plan, collate = decoders.TINY_PLAN, lambda rows: decoders.pack(rows, 24)
    given = ("tiny-qwen3", examples, decoders.TINY_BATCH, plan, CPU)
    ours = decoders.by_the_loop(*given, collate=collate, adapters=adapters)(Watch(plan, CPU))
    watch = Watch(plan, CPU)
    theirs = decoders.by_trl(*given, max_length=24, adapters=adapters)(watch)
    assert len(watch.seconds) == plan.repeats
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert len(set(ours)) == 1 + plan.repeats, "different texts"


def test_rows_of_equal_length_need_no_padding_and_every_candidate_is_measured():
    rows = encoders.random_rows(50, 6, 8)
    assert {len(ids) for ids in rows["input_ids"]} == {8} and min(map(min, rows["input_ids"])) >= 5
    found = list(encoders.rows_of(CPU, None, tiny=True))
    assert [(row.name, row.error) for row in found] == [("loop", ""), ("trainer", ""), ("trainer bf16", "")]
    assert all(row.median > 0 and row.mfu is None and len(row.losses) == 3 for row in found)


def test_the_drawn_lengths_are_those_of_instruction_data():
    sizes = sorted(len(e["input_ids"]) for e in decoders.random_examples(1000, 2000, 1024))
    assert 150 < sizes[1000] < 210 and sizes[-1] <= 1024
