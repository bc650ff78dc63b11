"""Chapter 1's word vectors against gensim's Word2Vec: the same corpus and settings, side by side.

Run as ``python -m benchmarks.word_vectors [--rounds 3] [--out FILE]``. gensim is no part of this project:
``pip install gensim``, or give a folder that holds it with ``PYTHONPATH``.

Both read People's Daily twice with vectors of 64 numbers, a fixed window of 2, words that occur at least 8 times and
skip-gram with 5 negatives, on one thread. Ours shares its negatives in a batch and uses Adam, gensim draws them for
each pair and uses plain gradient descent. `gensim, 10 readings` gets five times the budget. Quality is the precision at
5 of :func:`sft.word_vectors.neighbour_hits`; ratios are those of the medians of rounds that take turns, one seed each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sft import data
from sft.machine import machine
from sft.word_vectors import build_vocabulary, neighbour_hits, train_skip_gram

SIZE, WINDOW, MIN_COUNT, THRESHOLD = 64, 2, 8, 1e-3


def ours(sentences: Sequence[Sequence[str]], seed: int) -> tuple[float, torch.Tensor, list[str]]:
    """Seconds, vectors and words; the vocabulary is built within the time, as gensim's is."""
    began = time.perf_counter()
    words, counts = build_vocabulary(sentences, MIN_COUNT)
    row = {word: i for i, word in enumerate(words)}
    ids = [np.array([row[w] for w in s if w in row], dtype=np.int64) for s in sentences]
    model, _ = train_skip_gram(
        ids, counts, d=SIZE, window=WINDOW, threshold=THRESHOLD, num_epochs=2, batch_size=4096, lr=1e-2, seed=seed
    )  # fmt: skip
    return time.perf_counter() - began, model.U.detach(), words


def gensims(
    sentences: Sequence[Sequence[str]], seed: int, num_epochs: int
) -> tuple[float, torch.Tensor, list[str]]:
    """As :func:`ours`, by ``gensim.models.Word2Vec`` with its own learning rate."""
    try:
        from gensim.models import Word2Vec
    except ImportError:
        raise SystemExit("this benchmark needs gensim: pip install gensim") from None
    began = time.perf_counter()
    model = Word2Vec(
        sentences, vector_size=SIZE, window=WINDOW, min_count=MIN_COUNT, sample=THRESHOLD, sg=1, negative=5,
        epochs=num_epochs, seed=seed, workers=1, shrink_windows=False,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    return seconds, torch.from_numpy(model.wv.vectors.copy()), list(model.wv.index_to_key)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "word_vectors.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sentences = data.read_people_daily()["tokens"][:]
    ways = {
        "ours": lambda seed: ours(sentences, seed),
        "gensim": lambda seed: gensims(sentences, seed, 2),
        "gensim, 10 readings": lambda seed: gensims(sentences, seed, 10),
    }
    runs: dict[str, dict[str, list[float]]] = {name: {"seconds": [], "precision_at_5": []} for name in ways}
    for seed in range(arguments.rounds):
        for name, way in ways.items():
            seconds, vectors, words = way(seed)
            hits = neighbour_hits(vectors, words)
            precision = float(np.mean([hit for found in hits.values() for hit in found]))
            runs[name]["seconds"].append(seconds)
            runs[name]["precision_at_5"].append(precision)
            print(f"{name}: {seconds:.1f} s, precision at 5 {precision:.3f}", flush=True)
    median = {
        name: {key: statistics.median(values) for key, values in found.items()}
        for name, found in runs.items()
    }
    ratios = {
        f"{key}: ours / {name}": median["ours"][key] / median[name][key]
        for key in ("seconds", "precision_at_5")
        for name in ways
        if name != "ours"
    }
    report: dict[str, Any] = {"runs": runs, "ratios": ratios, "machine": machine()}
    arguments.out.write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}")


if __name__ == "__main__":
    main()
