"""Fine-tuning a classifier on anyone's rows: settings chosen from their number, the training itself, a baseline.

:func:`tune` leaves an ordinary sequence classifier of `transformers`. Its output layer starts as the logistic
regression on what the frozen encoder says of the training rows, so that training begins where frozen features end
(Kumar et al. 2022, arXiv:2202.10054). What topics need besides is steps: two to six epochs at 1e-4 from a random output
layer lose to TF-IDF, ten at 2e-4 win (``benchmarks/classifiers.py``).
:func:`fit_tfidf` is the baseline of chapter 5, :func:`compare` says whether tuning was worth its time.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from numpy.typing import ArrayLike
from peft import LoraConfig, get_peft_model
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from sft.data import fingerprint
from sft.fine_tuning import load_classifier, output_layer
from sft.hub import locate_model
from sft.metrics.significance import PairedComparison, mcnemar
from sft.tokenization import encode
from sft.training import (
    Encoded,
    History,
    LossFunction,
    TrainingConfig,
    collate,
    evaluate,
    find_device,
    fit,
    make_optimizer,
    predict_logits,
    train_step,
)

METHODS = ("full", "frozen", "lora")
KINDS = {"single_label": "single_label_classification", "multi_label": "multi_label_classification"}
HEAD_ROWS = 20_000
"""The output layer starts from at most so many rows: 385 numbers for each class need no more."""

TOKENS = 240_000
"""Tokens that training reads where few rows allow ten epochs or less: under two minutes on two cores in float32."""

FEW_ROWS = 500
"""Training rows below which caution pays."""

_LOGIT_VARIANCE = 4.0  # expected by the logistic regression's prior, of features of variance 1
_EASY = 0.9  # of the baseline right: little is left to win
_FEW_TESTED = 200  # test rows below which half a dozen points are lost in the interval
_ABSENT = -5.0  # logit below the rarest class of one that has no training row


# --- recipe --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run besides rows and model.

    ``keep`` names the weights that stay: of the ``"last"`` epoch; ``"midway"``, the mean of those before training and
    those, unless validation rows find the last ones better; or of the ``"best"`` epoch by validation loss.
    """

    num_epochs: int
    lr: float
    head_lr: float  # of the output layer
    batch_size: int
    max_length: int  # tokens, [CLS] and [SEP] included
    method: str = "full"  # "full", "frozen" (the output layer alone) or "lora"
    head_start: str = "frozen"  # logistic regression on frozen features as first output layer; or "random"
    keep: str = "last"
    patience: int | None = None  # stop after this many epochs without a better validation loss; None: never
    dropout: float | None = 0.0  # None: what the model's own configuration says
    weight_decay: float = 0.01
    warmup_fraction: float = 0.1
    seed: int = 0


def choose_recipe(
    num_train: int, num_classes: int, lengths: Sequence[int], method: str = "full", *, seed: int = 0
) -> Recipe:
    """Settings for so many training rows.

    The window holds 95 % of the texts whole. As many epochs as make :data:`TOKENS` tokens together, at least two (one
    from 20,000 rows on, where an epoch is steps enough) and at most ten. The output layer starts at the frozen solution
    and learns with the encoder, without dropout, at 2e-4 from 500 rows on (LoRA: 1e-3), and the last weights stay, as a
    few dozen validation rows choose by chance. Fewer rows unlearn what the encoder knew of reviews: they learn at 1e-4,
    and the mean of the first and the last weights stays (Wortsman et al. 2022, arXiv:2109.01903).

    Args:
        lengths: characters of each training text (a token each in Chinese); a sample will do.

    Raises:
        ValueError: no rows, fewer than two classes, no lengths, or an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r}: use {', '.join(METHODS)}")
    if num_train < 1 or num_classes < 1 or not len(lengths):
        raise ValueError(
            f"{num_train} training rows, {num_classes} classes, {len(lengths)} lengths: nothing to learn"
        )
    max_length = choose_max_length(lengths)
    tokens = num_train * float(np.minimum(np.asarray(lengths) + 2, max_length).mean())  # of one epoch
    num_epochs = max(1 if num_train > 20_000 else 2, min(10, round(TOKENS / tokens)))
    few = method == "full" and num_train < FEW_ROWS
    lr = 1e-3 if method == "lora" else 1e-4 if few else 2e-4
    return Recipe(
        num_epochs=0 if method == "frozen" else num_epochs,
        lr=lr,
        head_lr=lr,
        batch_size=16,
        max_length=max_length,
        method=method,
        keep="midway" if few else "last",
        seed=seed,
    )


def choose_max_length(lengths: Sequence[int], least: int = 32, most: int = 256) -> int:
    """Tokens that hold 95 % of the texts whole, [CLS] and [SEP] included, a multiple of 8 within the bounds."""
    needed = float(np.quantile(np.asarray(lengths), 0.95)) + 2
    return int(min(most, max(least, 8 * math.ceil(needed / 8))))


def estimate_cost(
    recipe: Recipe,
    num_train: int,
    lengths: Sequence[int],
    device: str | torch.device | None = None,
    *,
    model: str = "mini-bert-zh",
    precision: str = "auto",
    num_validation: int = 0,
) -> float:
    """Seconds that :func:`tune` will take, from two training steps of the same network with random weights.

    Args:
        lengths: as for :func:`choose_recipe`.

    Raises:
        HubError: as :func:`sft.hub.locate_model`.
    """
    device = find_device(str(device or "auto"))
    network = AutoModelForSequenceClassification.from_config(
        AutoConfig.from_pretrained(locate_model(model)), dtype=torch.float32, **_attention(device)
    )
    steps = _Logits(network).to(device).train()
    optimizer = make_optimizer(steps, lr=1e-5)
    size = min(recipe.batch_size, num_train)
    length = max(8, round(float(np.minimum(np.asarray(lengths) + 2, recipe.max_length).mean())))
    batch = collate(Encoded([[1] * length] * size, [0] * size), range(size), 0, device)
    seconds = []
    for _ in range(3):  # the first one prepares kernels
        began = time.perf_counter()
        train_step(steps, batch, optimizer, device, precision)  # reads the loss, so it waits for the device
        seconds.append(time.perf_counter() - began)
    row = min(seconds[1:]) / size
    read = row / 3  # forward alone
    head = read * min(num_train, HEAD_ROWS) if recipe.head_start == "frozen" else 0.0
    return head + recipe.num_epochs * (row * num_train + read * num_validation)


# --- tuning --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Epoch:
    """What one epoch brought; number 0 is the model before its first step, which has no training loss."""

    number: int
    train_loss: float | None
    validation_loss: float | None  # None: no validation rows
    validation_accuracy: float | None
    seconds: float


@dataclass(frozen=True)
class Tuned:
    """A classifier of `transformers`, its tokenizer, and how it came to be."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    history: tuple[Epoch, ...]  # from epoch 1 on
    start: Epoch
    kept_epoch: int  # whose weights the model has; 0: training made nothing better
    midway: bool  # or rather the mean of those and the weights before training
    recipe: Recipe  # its max_length no longer than the model reads
    stopped_early: bool


def tune(
    splits: DatasetDict | Mapping[str, Dataset],
    label_names: Sequence[str],
    *,
    recipe: Recipe,
    kind: str = "single_label",
    model: str = "mini-bert-zh",
    class_weights: bool = False,
    device: str | torch.device | None = None,
    precision: str = "auto",
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Tuned:
    """Fine-tune ``model`` on ``splits["train"]`` and watch ``splits["validation"]``, where there is one.

    Args:
        splits: columns ``text`` (str) and ``label``: a class number, or for ``"multi_label"`` a row of 0.0 and 1.0.
        recipe: what :func:`choose_recipe` chooses, or another.
        model: what :func:`sft.hub.locate_model` takes.
        class_weights: rare classes weigh as much as frequent ones.
        checkpoint: a file written after every epoch. When it exists, training goes on from it and ends with the
            same weights as an uninterrupted run on the same machine.

    Raises:
        ValueError: no rows, one class only, labels that do not fit ``label_names``, or a checkpoint of another run.
        HubError: as :func:`sft.hub.locate_model`.
    """
    names, train, validation = list(label_names), splits["train"], splits.get("validation")
    check_rows(train, names, kind)
    device, location = find_device(str(device or "auto")), locate_model(model)
    tokenizer = AutoTokenizer.from_pretrained(location)
    network = load_classifier(
        location,
        seed=recipe.seed,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
        problem_type=KINDS[kind],
        **_attention(device),
    ).to(device)
    set_dropout(network, recipe.dropout)
    most = getattr(network.config, "max_position_embeddings", recipe.max_length)
    recipe = replace(recipe, max_length=min(recipe.max_length, most, tokenizer.model_max_length))
    rows = _encode(train, tokenizer, recipe.max_length)
    held_out = _encode(validation, tokenizer, recipe.max_length) if validation else None
    pad, labels = tokenizer.pad_token_id or 0, np.asarray(rows.labels)
    if recipe.head_start == "frozen":
        start_head(network, rows, kind, pad, device, precision, class_weights, recipe.seed)
    loss_function = _loss_function(labels, len(names), kind, class_weights, device)
    began = time.perf_counter()
    figures = (
        evaluate(_Logits(network), held_out, pad, device, precision, loss_function)
        if held_out
        else (None, None)
    )
    start = Epoch(0, None, *figures, time.perf_counter() - began)
    if not recipe.num_epochs:
        return Tuned(network.eval(), tokenizer, (), start, 0, False, recipe, stopped_early=False)

    before = copy.deepcopy(network.state_dict()) if recipe.keep in ("best", "midway") else None
    trained = _with_adapters(network) if recipe.method == "lora" else network
    settings = _Settings(
        lr=recipe.lr,
        num_epochs=recipe.num_epochs,
        batch_size=recipe.batch_size,
        weight_decay=recipe.weight_decay,
        warmup_fraction=recipe.warmup_fraction,
        patience=recipe.patience if held_out else None,
        keep="best" if recipe.keep == "best" else "last",
        precision=precision,
        seed=recipe.seed,
        recipe=recipe,
        rows=_fingerprint(splits) if checkpoint else "",
        task=(model, kind, class_weights, *names),
    )
    history = fit(
        _Logits(trained),
        rows,
        held_out,
        settings,
        pad_id=pad,
        device=device,
        checkpoint=checkpoint,
        progress=progress,
        optimizer=_optimizer(trained, recipe),
        loss_function=loss_function,
    )
    if trained is not network:
        network = trained.merge_and_unload()
    kept = len(history.train_loss)
    midway = recipe.keep == "midway"
    if midway:
        last = copy.deepcopy(network.state_dict())
        network.load_state_dict(_mean(before, last))
        if held_out:
            loss, _ = evaluate(_Logits(network), held_out, pad, device, precision, loss_function)
            midway = loss <= history.validation_loss[-1]
        if not midway:
            network.load_state_dict(last)
    elif recipe.keep == "best" and held_out:
        kept = history.best_epoch + 1
        if start.validation_loss <= min(history.validation_loss):
            network.load_state_dict(before)
            kept = 0
    stopped = len(history.train_loss) < recipe.num_epochs
    return Tuned(network.eval(), tokenizer, _epochs(history), start, kept, midway, recipe, stopped)


@dataclass(frozen=True)
class _Settings(TrainingConfig):
    """What a checkpoint must agree with."""

    recipe: Recipe | None = None
    rows: str = ""
    task: tuple = ()


class _Logits(nn.Module):
    """A sequence classifier as :func:`sft.training.fit` calls it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits, shape (batch, num_labels)."""
        return self.network(input_ids=input_ids, attention_mask=attention_mask).logits


def _attention(device: torch.device) -> dict[str, str]:
    """On a CPU the written-out attention trains short texts half as fast again as the fused one."""
    return {"attn_implementation": "eager"} if device.type == "cpu" else {}


def check_rows(rows: Dataset, names: Sequence[str], kind: str) -> None:
    """Raise a ValueError of one line when a classifier cannot be made of these rows."""
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r}: use {' or '.join(KINDS)}")
    if not len(rows):
        raise ValueError("split train has no rows: nothing to learn from")
    labels = np.asarray(rows["label"][:])
    if kind == "multi_label":
        if labels.ndim != 2 or labels.shape[1] != len(names):
            raise ValueError(
                f"labels of shape {labels.shape} do not fit {len(names)} label names: one 0 / 1 for each"
            )
        if not (labels.min(axis=0) < labels.max(axis=0)).any():
            raise ValueError(
                "every row of split train has the same labels: nothing to tell apart; add other rows"
            )
        return
    if labels.ndim != 1 or labels.min() < 0 or labels.max() >= len(names):
        raise ValueError(f"labels of split train must be numbers from 0 to {len(names) - 1}, one a row")
    found = np.unique(labels)
    if len(found) < 2:
        raise ValueError(
            f"all {len(labels)} rows of split train are labelled {names[int(found[0])]}: a classifier needs two "
            "classes; add rows of another label"
        )


def set_dropout(model: nn.Module, rate: float | None) -> None:
    """Every dropout layer at this rate; None leaves them. The configuration, which is saved, stays as it is."""
    for layer in model.modules():
        if rate is not None and isinstance(layer, nn.Dropout):
            layer.p = rate


def _encode(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    return Encoded(encode(tokenizer, rows["text"][:], max_length), rows["label"][:])


def _fingerprint(splits: Mapping[str, Dataset]) -> str:
    used = {name: splits[name] for name in ("train", "validation") if name in splits}
    return fingerprint(
        DatasetDict({name: rows.select_columns(["text", "label"]) for name, rows in used.items()})
    )


def _loss_function(
    labels: np.ndarray, num_labels: int, kind: str, balanced: bool, device: torch.device
) -> LossFunction:
    """Cross-entropy over classes, or over each label's yes and no."""
    if kind == "multi_label":
        positive = labels.sum(axis=0)
        weight = (len(labels) - positive) / np.maximum(positive, 1)
        weight = torch.tensor(weight, dtype=torch.float32, device=device) if balanced else None
        return partial(F.binary_cross_entropy_with_logits, pos_weight=weight)
    counts = np.bincount(labels, minlength=num_labels)
    weight = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    weight = torch.tensor(weight, dtype=torch.float32, device=device) if balanced else None
    return partial(F.cross_entropy, weight=weight)


def _with_adapters(network: PreTrainedModel) -> nn.Module:
    """LoRA (Hu et al. 2021, arXiv:2106.09685) where peft puts it for this kind of model, beside the output layer."""
    return get_peft_model(network, LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16))


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW with a learning rate of its own for the output layer; biases and norms do not decay."""
    head = {id(weight) for weight in output_layer(model).parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for weight in model.parameters():
        if weight.requires_grad:
            groups.setdefault((id(weight) in head, weight.ndim >= 2), []).append(weight)
    return torch.optim.AdamW(
        [
            {
                "params": weights,
                "lr": recipe.head_lr if in_head else recipe.lr,
                "weight_decay": recipe.weight_decay if is_matrix else 0.0,
            }
            for (in_head, is_matrix), weights in groups.items()
        ],
        fused=True,
    )


def _epochs(history: History) -> tuple[Epoch, ...]:
    nothing = [None] * len(history.train_loss)
    columns = (
        history.train_loss,
        history.validation_loss or nothing,
        history.validation_accuracy or nothing,
        history.epoch_seconds,
    )
    return tuple(Epoch(i, *values) for i, values in enumerate(zip(*columns, strict=True), start=1))


def _mean(start: Mapping[str, torch.Tensor], end: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The mean of two sets of weights of one network; what is no float does not train."""
    return {
        name: torch.lerp(start[name], last, 0.5) if last.is_floating_point() else last
        for name, last in end.items()
    }


# --- the output layer's start --------------------------------------------------------------------------


class _Features(nn.Module):
    """What the output layer of a sequence classifier reads, shape (batch, hidden)."""

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        seen: list[torch.Tensor] = []
        hook = output_layer(self.network).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self.network(input_ids=input_ids, attention_mask=attention_mask)
        finally:
            hook.remove()
        return seen[0]


def start_head(
    network: PreTrainedModel,
    rows: Encoded,
    kind: str,
    pad_id: int,
    device: torch.device,
    precision: str = "auto",
    balanced: bool = False,
    seed: int = 0,
) -> None:
    """Set the output layer to the logistic regression on the features of the encoder as it is.

    Raises:
        ValueError: the output layer reads every token, not one vector a text, or has no bias.
    """
    chosen = np.random.default_rng(seed).permutation(len(rows))[:HEAD_ROWS]
    part = Encoded([rows.input_ids[i] for i in chosen], [rows.labels[i] for i in chosen])
    features = predict_logits(_Features(network), part, pad_id, device, precision=precision).numpy()
    layer = output_layer(network)
    if features.ndim != 2 or layer.bias is None:
        raise ValueError(
            f"the output layer of a {network.config.model_type} model cannot start from frozen features; "
            'use head_start="random"'
        )
    weight, bias = fit_output_layer(features, np.asarray(part.labels), layer.out_features, kind, balanced)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))


def fit_output_layer(
    features: np.ndarray, labels: np.ndarray, num_labels: int, kind: str, balanced: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Weight (num_labels, hidden) and bias (num_labels,) of a logistic regression, over classes or label by label.

    The features are centred and scaled as a whole first; weight and bias take them as they are.
    """
    centre, scale = features.mean(axis=0), max(float(features.std()), 1e-8)
    scaled = (features - centre) / scale
    weighting = "balanced" if balanced else None
    solver = partial(
        LogisticRegression, C=_LOGIT_VARIANCE / features.shape[1], max_iter=300, class_weight=weighting
    )
    weight, bias = np.zeros((num_labels, features.shape[1])), np.zeros(num_labels)
    if kind == "multi_label":
        for k in range(num_labels):
            column = labels[:, k].astype(int)
            if column.min() == column.max():  # a label that all rows have, or none
                bias[k] = -_ABSENT if column[0] else _ABSENT
                continue
            fitted = solver().fit(scaled, column)
            weight[k], bias[k] = fitted.coef_[0], fitted.intercept_[0]
    else:
        fitted = solver().fit(scaled, labels)
        coefficients, intercepts = fitted.coef_, fitted.intercept_
        if len(fitted.classes_) == 2:  # one row tells the second class from the first
            coefficients, intercepts = (np.concatenate([-x, x]) / 2 for x in (coefficients, intercepts))
        bias[:] = intercepts.min() + _ABSENT
        weight[fitted.classes_], bias[fitted.classes_] = coefficients, intercepts
    weight /= scale
    return weight.astype(np.float32), (bias - weight @ centre).astype(np.float32)


# --- predictions ---------------------------------------------------------------------------------------


def predict_probabilities(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    max_length: int,
    batch_size: int = 64,
    precision: str = "fp32",
) -> np.ndarray:
    """Probabilities of each text, shape (N, C): of its class, or of each label by itself.

    In float32 by default, as ``pipeline("text-classification")`` computes them.
    """
    num_labels = model.config.num_labels
    if not len(texts):
        return np.zeros((0, num_labels), dtype=np.float32)
    rows = Encoded(encode(tokenizer, texts, max_length), [0] * len(texts))
    pad = tokenizer.pad_token_id or 0
    logits = predict_logits(_Logits(model), rows, pad, model.device, batch_size, precision)
    several = model.config.problem_type == KINDS["multi_label"]
    return (logits.sigmoid() if several else logits.softmax(-1)).numpy()


def is_right(probabilities: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """For each row whether its most probable class is the true one, or every label is on the right side of 0.5."""
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    if labels.ndim == 1:
        return probabilities.argmax(-1) == labels
    return ((probabilities > 0.5) == (labels > 0.5)).all(axis=-1)


# --- baseline ------------------------------------------------------------------------------------------


def fit_tfidf(
    train: Dataset, num_labels: int, *, kind: str = "single_label", class_weights: bool = False
) -> Callable[[Sequence[str]], np.ndarray]:
    """Chapter 5's baseline: TF-IDF of one to three characters, logistic regression, one class against the rest.

    Returns:
        a function from texts to probabilities, (N, C).

    Args:
        train: columns as for :func:`tune`.

    Raises:
        ValueError: as :func:`tune`, or no text has a character.
    """
    check_rows(train, [str(i) for i in range(num_labels)], kind)
    texts, labels = train["text"][:], np.asarray(train["label"][:])
    vectorizer, features = _fit_vectorizer(texts)
    columns = labels.astype(int) if kind == "multi_label" else labels[:, None] == np.arange(num_labels)
    weight = "balanced" if class_weights else None
    if kind == "single_label" and num_labels == 2:
        columns = columns[:, 1:]
    models: list[LogisticRegression | float] = [
        LogisticRegression(C=10, solver="liblinear", max_iter=1000, class_weight=weight).fit(features, column)
        if 0 < column.sum() < len(column)
        else float(column.mean())
        for column in np.asarray(columns).T
    ]

    def predict(new_texts: Sequence[str]) -> np.ndarray:
        new = vectorizer.transform(new_texts)
        chances = [
            np.full(new.shape[0], one) if isinstance(one, float) else one.predict_proba(new)[:, 1]
            for one in models
        ]
        probabilities = np.stack(chances, axis=1)
        if kind == "multi_label":
            return probabilities
        if num_labels == 2:
            return np.concatenate([1 - probabilities, probabilities], axis=1)
        return probabilities / probabilities.sum(axis=1, keepdims=True)

    return predict


def _fit_vectorizer(texts: Sequence[str]) -> tuple[TfidfVectorizer, csr_matrix]:
    """Fragments that come in two texts, or, where there are too few texts for that, in one."""
    for least in (2, 1):
        vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), min_df=least, sublinear_tf=True)
        try:
            return vectorizer, vectorizer.fit_transform(texts)
        except ValueError:
            continue
    raise ValueError("every text of split train is empty: nothing to learn from")


@dataclass(frozen=True)
class Comparison:
    """Was tuning worth it? ``winner`` is ``"tuned"``, ``"tfidf"``, or None where chance explains the difference."""

    paired: PairedComparison  # A: tuned, B: TF-IDF
    winner: str | None
    words: str


def compare(correct_tuned: ArrayLike, correct_tfidf: ArrayLike, *, level: float = 0.05) -> Comparison:
    """McNemar's test on the same rows, and what follows from it, in a sentence for the reader.

    Args:
        level: a p-value below it is taken for a difference.

    Raises:
        ValueError: as :func:`sft.metrics.significance.mcnemar`.
    """
    paired = mcnemar(correct_tuned, correct_tfidf)
    low, high = paired.interval
    figures = (
        f"{paired.n:,} 题里，只有微调答对 {paired.only_a} 题，只有 TF-IDF 答对 {paired.only_b} 题；准确率相差 "
        f"{100 * paired.difference:+.1f} 个百分点（95% 区间 {100 * low:+.1f} 到 {100 * high:+.1f}），"
        f"p = {paired.p_value:.2g}。"
    )
    if paired.p_value >= level or paired.difference == 0:
        share = np.mean(correct_tfidf)
        easy = f"TF-IDF 已经答对 {share:.0%}，余地不大；" if share >= _EASY else ""
        small = f"考题只有 {paired.n} 条，多留一些才分得出；" if paired.n < _FEW_TESTED else ""
        return Comparison(paired, None, f"分不出高下：{figures}{easy}{small}TF-IDF 快得多，不妨先用它。")
    if paired.difference > 0:
        return Comparison(paired, "tuned", f"微调值得：{figures}")
    return Comparison(paired, "tfidf", f"微调不如 TF-IDF：{figures}这批数据请用 TF-IDF，或换一个大些的模型。")
