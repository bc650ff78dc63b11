"""Muon against AdamW: how far a short pre-training of mini-gpt-zh gets in the same number of steps.

Run as ``python -m benchmarks.pretraining [--steps 200] [--out FILE]``.

Every variant starts from the same weights and reads the same blocks of 128 tokens of the newspaper, each once, with the
schedule of a whole run; everything else as in :class:`recipes.pretrain.PretrainConfig`. Judged by bits a character on
the first 400 paragraphs of the validation days. AdamW gets three learning rates, so that it does not lose for want of
one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from recipes.pretrain import PretrainConfig, build_model, plan_blocks, pretrain, start_embeddings
from recipes.runs import RunFolder
from recipes.texts import group_by_corpus, load_pretraining_texts
from recipes.tokenizer import build_char_tokenizer
from sft import data
from sft.hub import PRETRAINED
from sft.language_modeling import bits_per_character, tokenise
from sft.machine import machine
from sft.training import set_seed

VARIANTS: dict[str, dict[str, Any]] = {
    "AdamW, lr 1e-3": {"matrix_lr": None, "lr": 1e-3},
    "AdamW, lr 2e-3": {"matrix_lr": None},
    "AdamW, lr 4e-3": {"matrix_lr": None, "lr": 4e-3},
    "Muon, lr 6e-3": {},
}


def measure(steps: int) -> dict[str, Any]:
    corpora = load_pretraining_texts()
    tokenizer = build_char_tokenizer(corpora["text"], min_count=PretrainConfig().min_count)
    documents = {"people_daily": tokenise(group_by_corpus(corpora)["people_daily"], tokenizer)}
    held_out = list(data.load_people_daily()["validation"]["text"][:400])
    base = PretrainConfig(epochs=(("people_daily", 1),), block_lengths=(128,))
    batches = plan_blocks(documents, base)[:steps]
    results: dict[str, Any] = {}
    for name, changes in VARIANTS.items():
        config = replace(base, **changes)
        set_seed(config.seed)
        model = build_model(config, tokenizer)
        start_embeddings(model, tokenizer, PRETRAINED / "mini-bert-zh")
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            model = pretrain(model, batches, config, tokenizer, RunFolder(folder, {}))
        seconds = time.perf_counter() - began
        bits = bits_per_character(model, held_out, tokenizer)
        results[name] = {"bits_per_character": bits, "seconds": round(seconds, 1)}
        print(name, results[name], flush=True)
    return {"steps": len(batches), "results": results, "machine": machine()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "pretraining.json")
    arguments = parser.parse_args()
    found = measure(arguments.steps)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("| optimizer | bits a character | seconds |\n|---|--:|--:|")
    for name, row in found["results"].items():
        print(f"| {name} | {row['bits_per_character']:.3f} | {row['seconds']:.0f} |")


if __name__ == "__main__":
    main()
