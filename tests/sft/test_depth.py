"""`sft/depth.py` and `sft/stages.py`: the experiments of chapter 3 vary what they say, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp
from torch import nn

from sft import depth, stages
from sft.decoder import ModernDecoder


@pytest.mark.parametrize("variant", depth.VARIANTS)
def test_blocks_are_what_they_are_called(variant):
    residual, norm = depth.VARIANTS[variant]
    blocks = depth.stack(variant, 2)
    assert isinstance(blocks[0].norm, nn.LayerNorm if norm else nn.Identity)
    for parameter in blocks[0].f.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(4, 32)
    kept = x if residual else torch.zeros_like(x)
    expected = nn.functional.layer_norm(kept, (32,)) if norm == "post" else kept
    torch.testing.assert_close(blocks[0](x), expected)


def test_without_norm_and_residual_gradients_keep_their_size_on_average():
    ratios = [depth.gradient_ratio("什么都没有", 12, seed) for seed in range(8)]
    assert 0.5 < sum(ratios) / len(ratios) < 2
    assert depth.gradient_ratio("只有残差", 12) > 10


def test_a_shallow_stack_learns_to_add():
    assert depth.learn_to_add("pre-norm", 2) == 1.0
    assert depth.learn_to_add("pre-norm", 2, steps=0) < 0.4


def test_the_table_of_depths_has_a_row_a_variant_with_mean_and_range():
    right = {(name, blocks): [0.5, 1.0] for name in depth.VARIANTS for blocks in (2, 3)}
    rows = depth.depth_table(right, 3).splitlines()
    assert len(rows) == 2 + len(depth.VARIANTS)
    assert rows[2].startswith("| 什么都没有 | 75%（50% 到 100%） | 75%（50% 到 100%） | ")


def test_a_change_is_seen_where_its_interval_does_not_hold_zero():
    gains = np.array([[0.5, 0.5, 0.5], [0.1, 0.2, 0.6], [-0.3, -0.2, -0.25]])
    losses = 3 - np.vstack([np.zeros(3), gains.cumsum(0)])
    rows = stages.stage_table(["2017", "a", "b", "c"], losses).splitlines()
    for name, gain, row in zip("abc", gains, rows[3:], strict=False):
        low, high = ttest_1samp(gain, 0).confidence_interval(0.95) if gain.std() else (0.5, 0.5)
        assert row.startswith(f"| {name} | ") and f"| {gain.mean():+.3f} | {low:+.3f} 到 {high:+.3f} |" in row
    seen = [row.split(" | ")[-1].strip(" |") for row in rows[3:]]
    assert seen == ["更好", "看不出", "更差", "看不出"]  # b has one sign in every seed, and is not seen
    assert rows[2] == "| 2017 | 3.000 | | | |" and rows[-1].startswith("| 从头到尾 | 2.450 | +0.550 |")


def test_a_single_seed_shows_nothing():
    rows = stages.stage_table(["2017", "a"], np.array([[3.0], [2.0]])).splitlines()
    assert rows[3:] == ["| a | 2.000 | +1.000 |  | 看不出 |", "| 从头到尾 | 2.000 | +1.000 |  | 看不出 |"]


def test_warm_up_begins_small():
    assert depth.learn_to_add("pre-norm", 2, steps=1, warmup=10**9) == depth.learn_to_add(
        "pre-norm", 2, steps=0
    )


def test_each_stage_differs_from_the_one_before_and_sizes_stay_alike():
    configs = list(stages.decoder_stages().values())
    assert len(set(configs)) == len(configs) == 8
    sizes = [sum(p.numel() for p in stages.build_decoder(c).parameters()) for c in configs]
    assert max(sizes) < 1.1 * min(sizes)
    last = stages.build_decoder(configs[-1])
    assert isinstance(last, ModernDecoder) and last.layers[0].attention.config.qk_norm


def test_blocks_of_the_dictionary_do_not_overlap_and_a_score_is_repeatable():
    blocks, test = stages.dictionary_blocks()
    assert blocks.shape[1] == test.shape[1] == stages.BLOCK and len(test) == 400
    assert set(blocks.unique().tolist()) <= set(range(stages.VOCAB_SIZE))
    config, seen = stages.decoder_stages()["2017"], []

    def train(model, loss_of, steps, lr):
        seen.append((steps, loss_of(model).item()))

    scores = [stages.held_out_loss(config, blocks, test[:8], train, 7, 0) for _ in range(2)]
    assert scores[0] == scores[1] and seen[0] == seen[1] and seen[0][0] == 7
