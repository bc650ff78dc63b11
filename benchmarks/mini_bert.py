"""What mini-bert-zh is worth: against TF-IDF, against the same network from scratch, and without any fine-tuning.

Run as ``python -m benchmarks.mini_bert [--tasks sentiment,entities,…] [--seeds 5] [--out FILE]``.

* ``sentiment``: test accuracy on chapter 5's split with 100 and with all training rows. Seed *s* draws the rows,
  the same for every method, and the initial weights. Paired: McNemar for each seed, a t interval over the seeds.
* ``entities``: strict entity F1 (people, places, organisations) on the last week of people_daily.
* ``similarity``: of two answers, which one belongs to the same held-out riddle? Cosine of frozen vectors against the
  overlap of characters.
* ``dictionary``: held-out definition → its word among all held-out words, recall at 1 and 10: frozen vectors, and
  vectors tuned on 10,000 training entries (each definition against the words of its batch), against BM25 and against
  overlap of characters.
* ``masked``: share of masked characters filled right on held-out text, against the most frequent character.

Every finished part is written at once; started again, the script does only what is missing.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from recipes.distill import split_text
from sft import data, metrics
from sft.hub import PRETRAINED
from sft.language_modeling import mask_tokens
from sft.machine import machine
from sft.metrics.significance import mcnemar
from sft.tokenization import encode
from sft.training import (
    Classifier,
    Encoded,
    autocast,
    collate,
    find_device,
    length_buckets,
    make_optimizer,
    mean_pool,
    predict_logits,
    set_seed,
    warmup_linear,
)

MODEL = PRETRAINED / "mini-bert-zh"
MARKS = ("<!-- results: python -m benchmarks.mini_bert --card -->", "<!-- /results -->")
MAX_LENGTH = 256  # of reviews
SIZES = (100, None)  # training rows; None: all


@dataclass(frozen=True)
class Recipe:
    """How a classifier is fine-tuned; a fixed number of epochs, nothing is chosen on held-out data."""

    num_epochs: int
    batch_size: int
    lr: float
    layer_decay: float = 1.0  # of the learning rate, for each layer further from the head
    r_drop: float = 0.0  # weight of the distance between two passes with different dropout
    average: float = 0.0  # of the moving average of weights that is kept; 0: the last weights
    max_length: int = MAX_LENGTH  # of training rows; what is scored is read up to MAX_LENGTH


RECIPES = {  # method -> training rows up to -> recipe
    "mini-bert": {
        100: Recipe(15, 16, 1e-4),
        math.inf: Recipe(4, 32, 2e-4, layer_decay=0.85, r_drop=1.0, average=0.998, max_length=128),
    },
    "scratch": {
        100: Recipe(20, 16, 3e-4),
        math.inf: Recipe(4, 32, 3e-4, r_drop=1.0, average=0.998, max_length=128),
    },
}


class Workbench:
    """Model, tokenizer, device: loaded once, copied for each run."""

    def __init__(self, model: Path) -> None:
        self.device = find_device()
        self.path = model
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.encoder = AutoModel.from_pretrained(
            model, dtype=torch.float32, attn_implementation="eager"
        ).eval()

    def fresh(self, method: str) -> nn.Module:
        """A copy of the encoder, or the same network with random weights."""
        if method == "mini-bert":
            return copy.deepcopy(self.encoder)
        return AutoModel.from_config(self.encoder.config, attn_implementation="eager")

    def character_ids(self, characters: Sequence[str]) -> list[int]:
        """One token for each character, without special tokens."""
        return self.tokenizer.convert_tokens_to_ids([character.lower() for character in characters])

    @torch.inference_mode()
    def vectors(
        self, texts: Sequence[str], batch_size: int = 64, encoder: nn.Module | None = None
    ) -> np.ndarray:
        """Mean-pooled last layer of each text, centred and scaled to length 1, shape (texts, H)."""
        encoder = (encoder or self.encoder).to(self.device).eval()
        ids = encode(self.tokenizer, texts, MAX_LENGTH)
        order = np.argsort([len(x) for x in ids], kind="stable")
        encoded = Encoded(ids, [0] * len(ids))
        parts = []
        for start in range(0, len(order), batch_size):
            batch = collate(
                encoded, order[start : start + batch_size], self.tokenizer.pad_token_id, self.device
            )
            with autocast(self.device):
                hidden = encoder(input_ids=batch[0], attention_mask=batch[1]).last_hidden_state
            parts.append(mean_pool(hidden.float(), batch[1]).cpu().numpy())
        vectors = np.concatenate(parts)[np.argsort(order)]
        vectors -= vectors.mean(axis=0)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# --- sentiment -----------------------------------------------------------------------------------------


def sentiment(bench: Workbench, method: str, rows: int | None, seed: int) -> dict[str, Any]:
    """Train on ``rows`` rows drawn by ``seed``; returns the test accuracy and what was right, as a bit string."""
    splits = data.load_reviews()
    count = len(splits["train"]) if rows is None else rows
    chosen = np.random.default_rng(seed).permutation(len(splits["train"]))[:count]
    texts = splits["train"].select(chosen)["text"][:]
    labels = np.array(splits["train"]["label"])[chosen]
    truth = np.array(splits["test"]["label"])
    began = time.perf_counter()
    if method == "tfidf":
        vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), min_df=2, sublinear_tf=True)
        model = LogisticRegression(C=10, solver="liblinear", max_iter=1000)
        model.fit(vectorizer.fit_transform(texts), labels)
        seconds = time.perf_counter() - began
        guesses = model.predict(vectorizer.transform(splits["test"]["text"]))
    else:
        guesses, seconds = _fine_tune(bench, method, texts, labels, splits["test"]["text"], seed)
    correct = guesses == truth
    return {
        "accuracy": float(correct.mean()),
        "seconds": round(seconds, 1),
        "correct": np.packbits(correct).tobytes().hex(),
    }


def _fine_tune(
    bench: Workbench, method: str, texts: Sequence[str], labels: np.ndarray, test: Sequence[str], seed: int
) -> tuple[np.ndarray, float]:
    recipes = RECIPES[method]
    recipe = recipes[min(limit for limit in recipes if len(texts) <= limit)]
    set_seed(seed)
    model = Classifier(bench.fresh(method)).to(bench.device)
    train = Encoded(encode(bench.tokenizer, texts, recipe.max_length), labels.tolist())
    held_out = Encoded(encode(bench.tokenizer, test, MAX_LENGTH), [0] * len(test))
    began = time.perf_counter()
    fit_fixed(model, train, recipe, seed, bench)
    seconds = time.perf_counter() - began
    logits = predict_logits(model, held_out, bench.tokenizer.pad_token_id, bench.device)
    return logits.argmax(-1).numpy(), seconds


def fit_fixed(model: Classifier, train: Encoded, recipe: Recipe, seed: int, bench: Workbench) -> None:
    """Train by the recipe and leave the weights that it keeps.

    Sources: R-Drop, Liang et al. 2021, arXiv:2106.14448; learning rates that decay from the head down, Howard &
    Ruder 2018, arXiv:1801.06146; moving average of weights, Polyak & Juditsky 1992.
    """
    lengths, rng = np.array([len(ids) for ids in train.input_ids]), np.random.default_rng(seed)
    total, step = recipe.num_epochs * math.ceil(len(train) / recipe.batch_size), 0
    optimizer = torch.optim.AdamW(
        _groups(model, recipe.layer_decay), lr=recipe.lr, weight_decay=0.01, fused=True
    )
    averaged = (
        AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.average)) if recipe.average else None
    )
    model.train()
    for _ in range(recipe.num_epochs):
        for indices in length_buckets(lengths, recipe.batch_size, rng):
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * group["share"] * warmup_linear(step, total)
            batch = collate(train, indices, bench.tokenizer.pad_token_id, bench.device)
            loss = _loss(model, batch, recipe.r_drop, bench.device)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if averaged is not None:
                averaged.update_parameters(model)
            step += 1
    if averaged is not None:
        model.load_state_dict(averaged.module.state_dict())


def _groups(model: Classifier, decay: float) -> list[dict[str, Any]]:
    """Parameters by their share of the learning rate and of the weight decay: biases and norms do not decay."""
    layers = model.encoder.config.num_hidden_layers
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        depth = 0  # layers between the weight and the head
        if "encoder.layer." in name:
            depth = layers - 1 - int(name.split("encoder.layer.")[1].split(".")[0])
        elif "embeddings" in name:
            depth = layers
        groups.setdefault((decay**depth, weight.ndim >= 2), []).append(weight)
    return [
        {"params": weights, "share": share} | ({} if decays else {"weight_decay": 0.0})
        for (share, decays), weights in groups.items()
    ]


def _loss(
    model: Classifier, batch: tuple[torch.Tensor, ...], r_drop: float, device: torch.device
) -> torch.Tensor:
    """Cross-entropy; with *r_drop* over two passes, plus that times their symmetric Kullback–Leibler distance."""
    input_ids, attention_mask, labels = batch
    passes = 2 if r_drop else 1
    with autocast(device):
        logits = model(input_ids.repeat(passes, 1), attention_mask.repeat(passes, 1))
    loss = F.cross_entropy(logits.float(), labels.repeat(passes))
    if r_drop:
        a, b = F.log_softmax(logits.float(), dim=-1).chunk(2)
        distance = [F.kl_div(x, y, log_target=True, reduction="batchmean") for x, y in ((a, b), (b, a))]
        loss = loss + r_drop * sum(distance) / 2
    return loss


# --- entities ------------------------------------------------------------------------------------------


class Tagger(nn.Module):
    """A label for each character: encoder, dropout, linear."""

    def __init__(self, encoder: nn.Module, num_labels: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.config.hidden_size, num_labels)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits, shape (batch, n, num_labels)."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.head(self.dropout(hidden))


def entities(
    bench: Workbench, method: str, seed: int, num_epochs: int = 3, lr: float = 3e-4
) -> dict[str, Any]:
    """Fine-tune on the papers of 1 to 22 January, score the last week: strict micro F1 over PER, LOC, ORG."""
    splits = data.load_people_daily_ner()
    set_seed(seed)  # of the weights, where they are fresh
    predicted, truth, seconds = predict_entities(
        bench, bench.fresh(method), splits["train"], splits["test"], seed, num_epochs, lr
    )
    scores = metrics.load("entity_f1").compute(predictions=predicted, references=truth)
    return {"scores": scores, "seconds": round(seconds, 1)}


def predict_entities(
    bench: Workbench,
    encoder: nn.Module,
    train: Any,
    test: Any,
    seed: int,
    num_epochs: int,
    lr: float,
    batch_size: int = 32,
) -> tuple[list[list[str]], list[list[str]], float]:
    """Tune ``encoder`` to tag characters; returns predicted and true labels of ``test``, and seconds of training."""
    names = train.features["ner_tags"].feature.names
    truth = [[names[label] for label in row] for row in test["ner_tags"]]
    train, test = tagged(bench, train), tagged(bench, test)
    set_seed(seed)
    model = Tagger(encoder, len(names)).to(bench.device)
    lengths, rng = np.array([len(ids) for ids in train.input_ids]), np.random.default_rng(seed)
    total, step = num_epochs * math.ceil(len(train) / batch_size), 0
    optimizer = make_optimizer(model, lr)
    began = time.perf_counter()
    model.train()
    for _ in range(num_epochs):
        for indices in length_buckets(lengths, batch_size, rng):
            for group in optimizer.param_groups:
                group["lr"] = lr * warmup_linear(step, total)
            input_ids, attention_mask, labels = _tag_batch(train, indices, bench)
            with autocast(bench.device):
                logits = model(input_ids, attention_mask)
            loss = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
    seconds = time.perf_counter() - began
    model.eval()
    predicted: list[list[str]] = [[] for _ in range(len(test))]
    with torch.inference_mode():
        for indices in np.array_split(np.argsort([len(x) for x in test.input_ids]), max(1, len(test) // 64)):
            input_ids, attention_mask, _ = _tag_batch(test, indices, bench)
            with autocast(bench.device):
                best = model(input_ids, attention_mask).argmax(-1).cpu().tolist()
            for row, i in zip(best, indices, strict=True):
                predicted[i] = [names[label] for label in row[1 : len(test.input_ids[i]) - 1]]
    return predicted, truth, seconds


def tagged(bench: Workbench, rows: Any) -> Encoded:
    """Characters as tokens, one for one, between ``[CLS]`` and ``[SEP]``; specials carry the label −100."""
    tokenizer = bench.tokenizer
    ids = [
        [
            tokenizer.cls_token_id,
            *bench.character_ids(row),
            tokenizer.sep_token_id,
        ]
        for row in rows["tokens"]
    ]
    return Encoded(ids, [[-100, *labels, -100] for labels in rows["ner_tags"]])


def _tag_batch(data_: Encoded, indices: Sequence[int], bench: Workbench) -> tuple[torch.Tensor, ...]:
    placeholder = Encoded(data_.input_ids, [0] * len(data_))
    input_ids, attention_mask, _ = collate(placeholder, indices, bench.tokenizer.pad_token_id, bench.device)
    labels = torch.full(input_ids.shape, -100)
    for row, i in enumerate(indices):
        labels[row, : len(data_.labels[i])] = torch.tensor(data_.labels[i])
    return input_ids, attention_mask, labels.to(bench.device)


# --- frozen vectors ------------------------------------------------------------------------------------


def similarity(bench: Workbench) -> dict[str, Any]:
    """Held-out riddles with several answers: is one answer nearer to another of its riddle than to a stranger's?"""
    texts = riddle_triples()
    overlap = _character_vectors(texts)
    return {
        "triples": len(texts) // 3,
        "mini-bert": _nearer(bench.vectors(texts)),
        "characters": _nearer(overlap),
    }


def riddle_triples() -> list[str]:
    """Three texts a question: an answer, another one of the same riddle, one of another riddle."""
    splits = data.load_xiehouyu()
    answers: dict[str, list[str]] = {}
    for name in ("validation", "test"):
        for riddle, answer in zip(splits[name]["riddle"], splits[name]["answer"], strict=True):
            answers.setdefault(riddle, []).append(answer)
    groups = [group for group in answers.values() if len(group) > 1]
    rng = np.random.default_rng(0)
    triples = []
    for i, group in enumerate(groups):
        for a in range(len(group) - 1):
            j = int(rng.integers(len(groups) - 1))
            other = groups[j + (j >= i)]
            triples.append((group[a], group[a + 1], other[int(rng.integers(len(other)))]))
    return [text for triple in triples for text in triple]


def _nearer(vectors: np.ndarray) -> float:
    """Share of triples whose second is nearer to the first than the third is; a tie counts half."""
    gap = similarity_gaps(vectors)
    return float((gap > 1e-9).mean() + (np.abs(gap) <= 1e-9).mean() / 2)


def similarity_gaps(vectors: np.ndarray) -> np.ndarray:
    """How much nearer to the first of each triple its second is than its third, shape (triples,)."""
    first, second, third = vectors[0::3], vectors[1::3], vectors[2::3]
    return (first * second).sum(1) - (first * third).sum(1)


def _character_vectors(texts: Sequence[str], vocabulary: Iterable[str] | None = None) -> np.ndarray:
    """TF-IDF over characters and pairs of them, each of length 1."""
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True)
    vectorizer.fit(texts if vocabulary is None else vocabulary)
    return vectorizer.transform(texts).toarray()


def reverse_dictionary(bench: Workbench) -> dict[str, Any]:
    """Held-out definition → its word among all held-out words: recall at 1 and at 10."""
    splits = data.load_dictionary()
    words, definitions = splits["test"][:].values()
    tuned = tune_retriever(bench, *splits["train"].shuffle(seed=0)[:10_000].values())
    scores = {}
    for name, encoder in (("mini-bert", bench.encoder), ("tuned", tuned)):
        vectors = bench.vectors([*words, *definitions], encoder=encoder)
        scores[name] = vectors[len(words) :] @ vectors[: len(words)].T
    overlap = _character_vectors([*words, *definitions])
    scores["characters"] = overlap[len(words) :] @ overlap[: len(words)].T
    scores["bm25"] = _bm25(definitions, words)
    return {"words": len(words)} | {
        name: {f"recall@{k}": _recall(table, k) for k in (1, 10)} for name, table in scores.items()
    }


def tune_retriever(
    bench: Workbench, words: Sequence[str], definitions: Sequence[str], batch_size: int = 64, lr: float = 1e-4
) -> nn.Module:
    """One epoch of contrastive training: a definition is to find its word among those of its batch, and back.

    Source: van den Oord et al. 2018, arXiv:1807.03748 (InfoNCE), with the in-batch negatives of Karpukhin et al.
    2020, arXiv:2004.04906; cosine over a temperature of 0.05.
    """
    set_seed(0)
    encoder = bench.fresh("mini-bert").to(bench.device).train()
    optimizer, pad_id = make_optimizer(encoder, lr), bench.tokenizer.pad_token_id
    sides = [Encoded(encode(bench.tokenizer, texts, 128), [0] * len(texts)) for texts in (words, definitions)]
    plan = length_buckets(
        np.array([len(ids) for ids in sides[1].input_ids]), batch_size, np.random.default_rng(0)
    )
    for step, indices in enumerate(plan):
        for group in optimizer.param_groups:
            group["lr"] = lr * warmup_linear(step, len(plan))
        vectors = []
        for side in sides:
            input_ids, mask, _ = collate(side, indices, pad_id, bench.device)
            with autocast(bench.device):
                hidden = encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state
            vectors.append(F.normalize(mean_pool(hidden.float(), mask), dim=-1))
        logits = vectors[1] @ vectors[0].T / 0.05  # (definitions, words)
        own = torch.arange(len(indices), device=bench.device)
        loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
    return encoder


def _recall(scores: np.ndarray, k: int) -> float:
    """Share of rows whose own column is among the k best; ties share their places."""
    own = scores.diagonal()[:, None]
    better, equal = (scores > own).sum(1), (scores == own).sum(1)  # `equal` counts the own column too
    return float(np.clip((k - better) / equal, 0, 1).mean())


def _bm25(queries: Sequence[str], documents: Sequence[str], k1: float = 1.2, b: float = 0.75) -> np.ndarray:
    """BM25 over single characters (Robertson & Zaragoza 2009), shape (queries, documents)."""
    counter = CountVectorizer(analyzer="char", lowercase=True)
    counts = counter.fit_transform(documents).toarray().astype(np.float64)
    present = counts > 0
    idf = np.log(1 + (len(documents) - present.sum(0) + 0.5) / (present.sum(0) + 0.5))
    length = counts.sum(1, keepdims=True)
    weights = idf * counts * (k1 + 1) / (counts + k1 * (1 - b + b * length / length.mean()))
    return (counter.transform(queries) > 0).astype(np.float64) @ weights.T


# --- masked characters ---------------------------------------------------------------------------------


@torch.inference_mode()
def masked(bench: Workbench, fraction: float = 0.15) -> dict[str, Any]:
    """Masked characters of held-out text that are filled right, and the loss in nats, for each corpus."""
    model = AutoModelForMaskedLM.from_pretrained(bench.path, dtype=torch.float32, attn_implementation="eager")
    model.to(bench.device).eval()
    sources = {
        "reviews": data.load_reviews()["test"]["text"],
        "people_daily": data.load_people_daily()["test"]["text"],
    }
    results = {}
    for name, texts in sources.items():
        pieces = [piece for text in texts for piece in split_text(text, 126)]
        ids = encode(bench.tokenizer, pieces, 128)
        encoded, generator = Encoded(ids, [0] * len(ids)), torch.Generator().manual_seed(0)
        right = loss = count = 0.0
        for indices in np.array_split(np.argsort([len(x) for x in ids]), math.ceil(len(ids) / 64)):
            input_ids, mask, _ = collate(encoded, indices, bench.tokenizer.pad_token_id, bench.device)
            masked_ids, chosen = mask_tokens(input_ids, bench.tokenizer, fraction, generator)
            with autocast(bench.device):
                hidden = model.bert(input_ids=masked_ids, attention_mask=mask).last_hidden_state
                logits = model.cls(hidden[chosen]).float()
            right += (logits.argmax(-1) == input_ids[chosen]).sum().item()
            loss += F.cross_entropy(logits, input_ids[chosen], reduction="sum").item()
            count += len(logits)
        common = np.bincount(np.concatenate([row[1:-1] for row in ids]))
        results[name] = {
            "accuracy": right / count,
            "loss": loss / count,
            "most_frequent_character": float(common.max() / common.sum()),
        }
    return results


# --- run -----------------------------------------------------------------------------------------------


def plan(tasks: Sequence[str], seeds: int) -> dict[str, Callable[[Workbench], dict[str, Any]]]:
    """Name of each part -> how to measure it, the cheap ones first."""
    parts: dict[str, Callable[[Workbench], dict[str, Any]]] = {}
    if "masked" in tasks:
        parts["masked"] = masked
    if "similarity" in tasks:
        parts["similarity"] = similarity
    if "dictionary" in tasks:
        parts["dictionary"] = reverse_dictionary
    if "sentiment" in tasks:
        for rows in SIZES:
            for method in ("tfidf", "mini-bert", "scratch"):
                for seed in range(seeds):
                    parts[f"sentiment/{rows or 'all'}/{seed}/{method}"] = (
                        lambda bench, m=method, r=rows, s=seed: sentiment(bench, m, r, s)
                    )
    if "entities" in tasks:
        parts["entities/mini-bert/0"] = lambda bench: entities(bench, "mini-bert", 0)
    return parts


def summarise(found: dict[str, Any], seeds: int = 5) -> str:
    """What is known so far as Markdown, in the language of the model card."""
    results = found["results"]
    tables = [_sentiment_table(results, seeds), *_other_lines(results)]
    return "\n\n".join(table for table in tables if table)


def _sentiment_table(results: dict[str, Any], seeds: int) -> str:
    """Accuracies, and gains with a 95 % t interval over the seeds that both methods have run."""
    lines = []
    for rows in SIZES:
        runs: dict[str, dict[int, dict[str, Any]]] = {"tfidf": {}, "scratch": {}, "mini-bert": {}}
        for method, found in runs.items():
            for seed in range(seeds):
                if (run := results.get(f"sentiment/{rows or 'all'}/{seed}/{method}")) is not None:
                    found[seed] = run
        if not all(runs.values()):
            continue
        cells = [f"{np.mean([run['accuracy'] for run in found.values()]):.4f}" for found in runs.values()]
        cells += [_gain(runs["mini-bert"], runs[other]) for other in ("tfidf", "scratch")]
        seconds = np.mean([run["seconds"] for run in runs["mini-bert"].values()])
        lines.append(f"| {f'{rows:,}' if rows else '全部'} | " + " | ".join(cells) + f" | {seconds:.0f} |")
    if not lines:
        return ""
    head = (
        "评论情感，第 5 章的切分，测试集准确率，各个种子的平均；“多出”是百分点及其 95% 区间，"
        "括号里是 McNemar 检验 p < 0.05 的种子数和比较过的种子数：\n\n"
        "| 训练行数 | TF-IDF | 同一网络从零训练 | mini-bert | 比 TF-IDF 多出 | 比从零训练多出 | 微调秒数 |\n"
        "|--:|--:|--:|--:|--:|--:|--:|\n"
    )
    return head + "\n".join(lines)


def _gain(ours: dict[int, dict[str, Any]], theirs: dict[int, dict[str, Any]]) -> str:
    pairs = [(ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]
    if not pairs:
        return "–"
    gains = [100 * (a["accuracy"] - b["accuracy"]) for a, b in pairs]
    spread = f" ± {stats.t.ppf(0.975, len(gains) - 1) * stats.sem(gains):.1f}" if len(gains) > 1 else ""
    sure = sum(mcnemar(_bits(a), _bits(b)).p_value < 0.05 for a, b in pairs)
    return f"{np.mean(gains):+.1f}{spread}（{sure}/{len(pairs)}）"


def _other_lines(results: dict[str, Any]) -> list[str]:
    lines = []
    if tagging := results.get("entities/mini-bert/0"):
        scores = tagging["scores"]
        lines.append(
            f"- 命名实体（《人民日报》1998 年 1 月最后一周，严格匹配的微平均 F1）：**{scores['f1']:.3f}**，"
            f"微调 {tagging['seconds']:.0f} 秒"
        )
    if nearer := results.get("similarity"):
        lines.append(
            f"- 句子相似度（{nearer['triples']:,} 道三选题：同一条歇后语的两个答案，是否比别条的更近；瞎猜 0.500）："
            f"{nearer['mini-bert']:.3f}，按字重合 {nearer['characters']:.3f}"
        )
    if lookup := results.get("dictionary"):
        cells = "；".join(
            f"{label} {lookup[name]['recall@1']:.3f} / {lookup[name]['recall@10']:.3f}"
            for name, label in (
                ("mini-bert", "mini-bert，未微调"),
                ("tuned", "用一万条训练释义对比微调一轮"),
                ("bm25", "BM25"),
                ("characters", "按字重合"),
            )
        )
        lines.append(f"- 反向词典（释义找词，{lookup['words']:,} 个留出的词，召回率 @1 / @10）：{cells}")
    if filled := results.get("masked"):
        for name, label in (("reviews", "评论"), ("people_daily", "《人民日报》")):
            score = filled[name]
            lines.append(
                f"- 填空（{label}留出文本，遮 15%）：填对 {score['accuracy']:.3f}，"
                f"总猜最常见的字 {score['most_frequent_character']:.3f}"
            )
    return ["\n".join(lines)] if lines else []


def _bits(run: dict[str, Any]) -> np.ndarray:
    return np.unpackbits(np.frombuffer(bytes.fromhex(run["correct"]), np.uint8)).astype(bool)


def write_card(card: Path, text: str, marks: tuple[str, str] = MARKS) -> None:
    """Put the results between the two marks of a model card."""
    before, begin, rest = card.read_text(encoding="utf-8").partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not (begin and end):
        raise SystemExit(f"{card} lacks the marks {marks[0]} and {marks[1]}")
    card.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="masked,similarity,dictionary,sentiment,entities")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "mini_bert.json")
    parser.add_argument("--card", action="store_true", help="only put what was measured into the model card")
    arguments = parser.parse_args()
    found = json.loads(arguments.out.read_text("utf-8")) if arguments.out.is_file() else {"results": {}}
    if arguments.card:
        return write_card(arguments.model / "README.md", summarise(found, arguments.seeds))
    bench = Workbench(arguments.model)
    for name, measure in plan(arguments.tasks.split(","), arguments.seeds).items():
        if name in found["results"]:
            continue
        found["results"][name] = result = measure(bench)
        found["machine"] = machine()
        partial = arguments.out.with_suffix(".partial")
        partial.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        partial.replace(arguments.out)
        print(name, {key: value for key, value in result.items() if key != "correct"}, flush=True)
    print(summarise(found, arguments.seeds))
    return None


if __name__ == "__main__":
    main()
