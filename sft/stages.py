"""From the decoder of 2017 to that of 2026, one change a time: what each is worth in a small model (chapter 3).

The text is that of the packaged dictionary, of which the 499 commonest characters are kept; all others share id 0.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import torch
from scipy.stats import t

from sft import training
from sft.corpora import read_dictionary
from sft.costs import one_thread
from sft.decoder import DecoderConfig, ModernDecoder, next_loss
from sft.transformer import Decoder, TransformerConfig

VOCAB_SIZE, BLOCK = 500, 48
CHANGES = {  # name -> what is set anew, on top of all before
    "RMSNorm": {"norm": "rms"},
    "SwiGLU": {"activation": "swiglu", "d_ff": 85},  # 8/3 of d_model: as many parameters as before
    "旋转位置": {"positions": "rotary"},
    "分组查询": {"num_kv_heads": 2},
    "QK 归一化": {"qk_norm": True},
}


def decoder_stages(changes: dict[str, dict] = CHANGES) -> dict[str, TransformerConfig]:
    """Configurations from the first to the last; each differs from the one before in one thing."""
    shape = {"vocab_size": VOCAB_SIZE, "d_model": 32, "num_heads": 4, "num_layers": 2, "dropout": 0.0}
    first = TransformerConfig(**shape, d_ff=128)
    step = DecoderConfig(
        **shape,
        d_ff=128,
        num_kv_heads=4,
        d_k=8,
        positions="sinusoidal",
        activation="relu",
        norm="layer",
        norm_eps=1e-5,
        qk_norm=False,
    )
    stages = {"2017": first, "pre-norm": replace(first, norm_first=True), "去掉偏置": step}
    for name, change in changes.items():
        stages[name] = step = replace(step, **change)
    return stages


def build_decoder(config: TransformerConfig) -> Decoder:
    """The decoder of 2017, or one of those that followed."""
    return ModernDecoder(config) if isinstance(config, DecoderConfig) else Decoder(config, cross=False)


def dictionary_blocks(held_out: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """Blocks of characters to train on and to be judged by, each (blocks, 48)."""
    text = "\n".join(read_dictionary()["definition"][:12_000])
    common = {c: i for i, (c, _) in enumerate(Counter(text).most_common(VOCAB_SIZE - 1), 1)}
    stream = torch.tensor([common.get(c, 0) for c in text])
    blocks = stream[: len(stream) // BLOCK * BLOCK].view(-1, BLOCK)
    return blocks[:-held_out], blocks[-held_out:]


@one_thread()
def held_out_loss(
    config: TransformerConfig,
    blocks: torch.Tensor,
    test: torch.Tensor,
    train: Callable[..., object],
    steps: int,
    seed: int,
) -> float:
    """Loss on ``test`` after ``train(model, loss_of, steps, lr)``, which chapter 3 writes, on ``blocks``.

    The same seed draws the same batches for every configuration.
    """
    training.set_seed(seed)
    model, order = build_decoder(config).to(blocks.device), np.random.default_rng(seed)
    train(model, lambda m: next_loss(m, blocks[order.integers(len(blocks), size=16)]), steps, 1e-2)
    with torch.no_grad():
        return next_loss(model, test).item()


def stage_table(stages: Iterable[str], losses: np.ndarray) -> str:
    """Markdown: each stage's mean loss, by how much it is below the one before, and a last row for all changes.

    ``losses`` (stages, seeds) in nats. Seeds are paired. A change counts as seen where the 95 % interval of its mean,
    by Student's t, lies on one side of zero; a single seed has no interval.
    """
    gains = losses[:-1] - losses[1:]  # (stages − 1, seeds)
    seeds = losses.shape[1]
    first, *others = stages
    rows = [
        "| 换上 | 损失 | 比上一行低 | 95% 区间 | |",
        "|:--|--:|--:|:--|:--|",
        f"| {first} | {losses[0].mean():.3f} | | | |",
    ]
    for name, loss, gain in zip(
        (*others, "从头到尾"), (*losses[1:], losses[-1]), (*gains, gains.sum(0)), strict=True
    ):
        middle, interval, seen = gain.mean(), "", "看不出"
        if seeds > 1:
            half = t.ppf(0.975, seeds - 1) * gain.std(ddof=1) / math.sqrt(seeds)
            interval = f"{middle - half:+.3f} 到 {middle + half:+.3f}"
            seen = "更好" if middle - half > 0 else "更差" if middle + half < 0 else "看不出"
        rows.append(f"| {name} | {loss.mean():.3f} | {middle:+.3f} | {interval} | {seen} |")
    return "\n".join(rows)
