"""Our Transformer against ``nn.Transformer``: a training step at equal shapes; writing with and without a cache.

Run as ``python -m benchmarks.transformer [--rounds 7] [--out FILE]``. Rounds take turns, so that a slow minute of the
machine hits all alike; ratios are those of the medians. Both train on the same batch with the same embeddings, output
layer, loss and optimizer; what differs is encoder and decoder. No dropout: the two put it in different places.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from sft.attention import causal_mask
from sft.machine import machine
from sft.training import make_optimizer
from sft.transformer import Decoder, Embeddings, Transformer, TransformerConfig, greedy

TARGETS = {"training step: ours / nn.Transformer": "≤ 1.2", "writing: recomputation / cache": "≥ 5"}
CONFIG = TransformerConfig(vocab_size=4000, d_model=256, num_heads=4, d_ff=1024, num_layers=3, dropout=0.0)
BATCH, LENGTH, NEW_TOKENS = 16, 64, 512


class Library(nn.Module):
    """``nn.Transformer`` between our embeddings and the same tied output layer."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        layers = (config.num_layers, config.num_layers)
        self.body = nn.Transformer(
            config.d_model, config.num_heads, *layers, config.d_ff, config.dropout, batch_first=True
        )

    def forward(self, source: torch.Tensor, target: torch.Tensor, source_mask: torch.Tensor) -> torch.Tensor:
        """As :meth:`sft.transformer.Transformer.forward`."""
        padding = ~source_mask.bool()
        hidden = self.body(
            self.embeddings(source),
            self.embeddings(target),
            tgt_mask=~causal_mask(target.shape[1]),
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )
        return F.linear(hidden, self.embeddings.tokens.weight)


def medians(candidates: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(rounds + 1):
        for name, run in candidates.items():
            began = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in seconds.items()}


def training(rounds: int) -> dict[str, float]:
    torch.manual_seed(0)
    source, target = torch.randint(3, CONFIG.vocab_size, (2, BATCH, LENGTH))
    mask = torch.arange(LENGTH) < torch.randint(LENGTH // 2, LENGTH + 1, (BATCH, 1))

    def step_of(model: nn.Module) -> Callable[[], None]:
        optimizer = make_optimizer(model.train(), 1e-4)

        def steps() -> None:
            for _ in range(5):
                logits = model(source, target[:, :-1], mask)
                F.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten()).backward()
                optimizer.step()
                optimizer.zero_grad()

        return steps

    models = {"ours": Transformer(CONFIG), "nn.Transformer": Library(CONFIG)}
    return medians({name: step_of(model) for name, model in models.items()}, rounds)


def writing(rounds: int) -> dict[str, float]:
    torch.manual_seed(0)
    config = TransformerConfig(1000, num_layers=4, max_length=NEW_TOKENS + 1)  # as in chapter 3
    decoder, start = Decoder(config, cross=False).eval(), torch.tensor([[1]])
    rows = {use: greedy(decoder, start, NEW_TOKENS, use_cache=use) for use in (True, False)}
    if not torch.equal(rows[True], rows[False]):
        raise SystemExit("with and without a cache something else was written")
    return medians(
        {
            "cache": lambda: greedy(decoder, start, NEW_TOKENS),
            "recomputation": lambda: greedy(decoder, start, NEW_TOKENS, use_cache=False),
        },
        rounds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "transformer.json")
    arguments = parser.parse_args()
    train, write = training(arguments.rounds), writing(max(1, arguments.rounds // 3))
    ratios = {
        "training step: ours / nn.Transformer": train["ours"] / train["nn.Transformer"],
        "writing: recomputation / cache": write["recomputation"] / write["cache"],
    }
    found = {"seconds": {"five steps": train, "512 tokens": write}, "ratios": ratios, "machine": machine()}
    arguments.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print("| ratio | measured | target |\n|---|--:|--:|")
    for name, ratio in ratios.items():
        print(f"| {name} | {ratio:.2f} | {TARGETS[name]} |")


if __name__ == "__main__":
    main()
