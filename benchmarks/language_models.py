"""Bits per character on held-out newspaper text: mini-gpt-zh against n-gram models of the same training texts.

Run as ``python -m benchmarks.language_models [--model FOLDER] [--split test] [--card] [--out FILE]``.

The text is that of `sft.data.load_people_daily`: the last week of January 1998 (``--split validation``: the two days
before it). All models read the same tokens in the same order; a character outside the vocabulary costs each of them
``[UNK]`` and 16 bits more; white space is not counted. The n-gram models are trained on the newspaper alone and on
everything that mini-gpt has read; the better one is the baseline. ``--card`` writes result and samples into the card.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from benchmarks.mini_bert import write_card
from recipes.texts import group_by_corpus, load_pretraining_texts
from sft import data
from sft.hub import PRETRAINED
from sft.language_modeling import UNSEEN_BITS, bits_per_character, tokenise
from sft.machine import machine
from sft.ngram import KneserNey
from sft.training import find_device

MODEL = PRETRAINED / "mini-gpt-zh"
MARKS = ("<!-- results: python -m benchmarks.language_models --card -->", "<!-- /results -->")
PROMPTS = ("房间很", "新华社北京", "什么是", "这台电脑", "改革开放")


def stream(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """The texts' tokens one after another, each text closed by ``[SEP]``, without ``[CLS]``; shape (tokens,)."""
    return np.array([token for ids in tokenise(texts, tokenizer) for token in ids[1:]])


def bits_of(model: KneserNey, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> float:
    """Bits a character (white space apart) under an n-gram model, counted as for the neural one."""
    tokens = stream(texts, tokenizer)
    bits = (
        -np.log2(model.probabilities(tokens)).sum() + UNSEEN_BITS * (tokens == tokenizer.unk_token_id).sum()
    )
    return float(bits / sum(not character.isspace() for text in texts for character in text))


def measure(folder: Path, split: str) -> dict[str, Any]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model.to(find_device()).eval()
    texts = list(data.load_people_daily()[split]["text"])
    by_corpus = group_by_corpus(load_pretraining_texts())
    newspaper = stream(by_corpus.pop("people_daily"), tokenizer)
    everything = np.concatenate([*(stream(rows, tokenizer) for rows in by_corpus.values()), newspaper])
    bits: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for name, train, order in (
        ("unigram", newspaper, 1),
        ("kneser_ney_5_newspaper", newspaper, 5),
        ("kneser_ney_5_everything", everything, 5),
    ):
        began = time.perf_counter()
        bits[name] = bits_of(KneserNey(train, len(tokenizer), order), texts, tokenizer)
        seconds[name] = time.perf_counter() - began
        print(f"{name}: {bits[name]:.3f} bits a character", flush=True)
    began = time.perf_counter()
    bits["mini_gpt"] = bits_per_character(model, texts, tokenizer)
    seconds["mini_gpt"] = time.perf_counter() - began
    print(f"mini_gpt: {bits['mini_gpt']:.3f} bits a character", flush=True)
    baseline = min(value for name, value in bits.items() if name.startswith("kneser"))
    return {
        "split": split,
        "characters": sum(not character.isspace() for text in texts for character in text),
        "unknown": float((stream(texts, tokenizer) == tokenizer.unk_token_id).mean()),
        "bits_per_character": bits,
        "ratio_to_kneser_ney": bits["mini_gpt"] / baseline,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "samples": sample(model, tokenizer),
        "machine": machine(),
    }


@torch.inference_mode()
def sample(model: torch.nn.Module, tokenizer: Any, length: int = 40) -> dict[str, str]:
    """One continuation of each prompt, drawn with top-p 0.9 and temperature 0.8 from seed 0."""
    texts = {}
    for prompt in PROMPTS:
        torch.manual_seed(0)
        ids = torch.tensor(
            [tokenizer(prompt, return_attention_mask=False)["input_ids"][:-1]], device=model.device
        )
        written = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=length,
            do_sample=True,
            top_p=0.9,
            temperature=0.8,
        )
        texts[prompt] = tokenizer.decode(written[0], skip_special_tokens=True).replace(" ", "")
    return texts


def summarise(result: dict[str, Any]) -> str:
    """Table and samples for the model card."""
    labels = {
        "unigram": "只数字频",
        "kneser_ney_5_newspaper": "5 元 Kneser–Ney，只读报纸",
        "kneser_ney_5_everything": "5 元 Kneser–Ney，读全部语料",
        "mini_gpt": "mini-gpt",
    }
    rows = "\n".join(
        f"| {labels[name]} | {bits:.3f} | {math.pow(2, bits):.1f} |"
        for name, bits in result["bits_per_character"].items()
    )
    samples = "\n".join(f"- {text}" for text in result["samples"].values())
    return (
        f"《人民日报》1998 年 1 月最后一周，{result['characters']:,} 个字：\n\n"
        f"| 模型 | 每字比特数 | 每字困惑度 |\n|---|--:|--:|\n{rows}\n\n"
        f"是较好的 5 元模型的 {result['ratio_to_kneser_ney']:.1%}。\n\n"
        f"续写（top-p 0.9，温度 0.8，种子 0，没有挑选）：\n\n{samples}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "language_models.json"
    )
    parser.add_argument("--card", action="store_true", help="write what was measured into the model card")
    arguments = parser.parse_args()
    result = measure(arguments.model, arguments.split)
    arguments.out.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    if arguments.card:
        write_card(arguments.model / "README.md", summarise(result), MARKS)
    print(summarise(result))


if __name__ == "__main__":
    main()
