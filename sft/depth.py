"""What residual connections and layer normalisation do for depth, each alone: chapter 3 varies one thing at a time.

A stack of feed-forward blocks learns to add two digits modulo 10, the smallest task that one block cannot do linearly.
The initial values keep the size of signals and gradients (He et al. 2015, arXiv:1502.01852), so that a stack that does
not learn cannot be excused by gradients that were too small from the start.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from sft.costs import one_thread

VARIANTS = {  # name -> (residual, norm)
    "什么都没有": (False, None),
    "只有归一化": (False, "post"),
    "只有残差": (True, None),
    "post-norm": (True, "post"),
    "pre-norm": (True, "pre"),
}


class Block(nn.Module):
    """A feed-forward sub-layer with or without residual connection and with a norm after it, before it, or none."""

    def __init__(self, d: int, residual: bool, norm: str | None) -> None:
        super().__init__()
        self.f = nn.Sequential(nn.Linear(d, 4 * d), nn.ReLU(), nn.Linear(4 * d, d))
        self.norm = nn.LayerNorm(d) if norm else nn.Identity()
        self.residual, self.place = residual, norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, d) -> the same shape."""
        y = self.f(self.norm(x) if self.place == "pre" else x)
        y = x + y if self.residual else y
        return self.norm(y) if self.place == "post" else y


def stack(variant: str, depth: int, d: int = 32) -> nn.Sequential:
    """``depth`` blocks of a variant; each linear layer keeps the mean square of what it is given."""
    blocks = nn.Sequential(*(Block(d, *VARIANTS[variant]) for _ in range(depth)))
    for block in blocks:
        nn.init.normal_(block.f[0].weight, std=math.sqrt(1 / d))
        nn.init.normal_(block.f[2].weight, std=math.sqrt(2 / (4 * d)))  # ReLU has halved the mean square
    return blocks.append(nn.LayerNorm(d)) if VARIANTS[variant][1] == "pre" else blocks


def gradient_ratio(variant: str, depth: int, seed: int = 0) -> float:
    """Length of the gradient at the first block's input over that at the last block's, before any training."""
    torch.manual_seed(seed)
    blocks, x, inputs = stack(variant, depth), torch.randn(64, 32, requires_grad=True), []
    for block in blocks:
        x.retain_grad()
        inputs.append(x)
        x = block(x)
    (x * torch.randn(64, 32)).sum().backward()
    return (inputs[0].grad.norm() / inputs[depth - 1].grad.norm()).item()


@one_thread()
def learn_to_add(
    variant: str, depth: int, seed: int = 0, steps: int = 100, lr: float = 5e-3, warmup: int = 0
) -> float:
    """Share of the 100 sums a + b mod 10 that a stack gives rightly after training on random ones.

    ``warmup``: steps in which the learning rate rises from zero to ``lr``.
    """
    torch.manual_seed(seed)
    digits, head = nn.Embedding(20, 32), nn.Linear(32, 10)
    blocks = stack(variant, depth)
    model = nn.ModuleList((digits, head, blocks))
    optimizer = torch.optim.AdamW(model.parameters(), lr)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * min(1, (step + 1) / max(1, warmup))
        a, b = torch.randint(10, (2, 64))
        loss = F.cross_entropy(head(blocks(digits(a) + digits(b + 10))), (a + b) % 10)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    a, b = torch.cartesian_prod(torch.arange(10), torch.arange(10)).T
    said = head(blocks(digits(a) + digits(b + 10))).argmax(-1)
    return (said == (a + b) % 10).float().mean().item()


def depth_table(right: dict[tuple[str, int], list[float]], depth: int) -> str:
    """Markdown: share of right sums, mean and range of the seeds, with 2 blocks and with ``depth``; gradient ratios.

    ``right`` holds by variant and number of blocks one share for each seed.
    """
    rows = ["| | 叠 2 块 | 叠深 | 训练前，首尾两块的梯度之比 |", "|:--|--:|--:|--:|"]
    for name in VARIANTS:
        cells = [
            f"{sum(v) / len(v):.0%}（{min(v):.0%} 到 {max(v):.0%}）"
            for v in (right[name, 2], right[name, depth])
        ]
        rows.append(f"| {name} | {' | '.join(cells)} | {gradient_ratio(name, depth):.2g} |")
    return "\n".join(rows)
