"""Fine-tuning a classifier: a loop with checkpoints, early stopping and buckets, and the pieces it is made of.

Chapter 5 writes out a plainer loop, which stands in :mod:`sft.fine_tuning`; `length_buckets` it teaches from here.
"""

from __future__ import annotations

import copy
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Of logits (batch, num_labels) and labels: the mean loss."""

# --- machine -------------------------------------------------------------------------------------------


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def find_device(device: str = "auto") -> torch.device:
    """``"auto"`` takes cuda, then mps, then cpu; any other name is taken as it is.

    Raises:
        ValueError: the named device is not on this machine.
    """
    mps = torch.backends.mps.is_available()
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    if (device.startswith("cuda") and not torch.cuda.is_available()) or (device == "mps" and not mps):
        raise ValueError(f'device {device!r} is not available here; use device="auto" or "cpu"')
    return torch.device(device)


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, bool)() for name in probes)
    return False


def why_no_four_bits(device: torch.device) -> str:
    """Why weights cannot be held in four bits here, empty where they can; in Chinese, for the reader of a chapter."""
    if device.type != "cuda":
        return f"要一块 CUDA 显卡，这里是 {device.type}"
    if find_spec("bitsandbytes") is None:
        return "没有装 bitsandbytes，先 pip install bitsandbytes"
    return ""


def autocast(device: torch.device, precision: str = "auto") -> AbstractContextManager:
    """Context in which matrix products run in bfloat16 (``"auto"``: where the device has it)."""
    if precision not in ("auto", "bf16", "fp32"):
        raise ValueError(f'precision {precision!r}: use "auto", "bf16" or "fp32"')
    if precision == "fp32" or (precision == "auto" and not has_bf16(device)):
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


# --- batches -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Encoded:
    """Tokenised texts and their labels, not padded yet; several labels to a text are a row of 0.0 and 1.0."""

    input_ids: Sequence[Sequence[int]]
    labels: Sequence[int] | Sequence[Sequence[float]]

    def __len__(self) -> int:
        return len(self.input_ids)


def length_buckets(lengths, batch_size, rng, pool=20):
    """Shuffled batches of indices whose texts have similar lengths.

    Shuffle, cut into pools of ``pool`` batches, sort each pool by length, cut into batches, shuffle those. A larger
    pool pads less and mixes less.

    Args:
        lengths: tokens of each text, shape ``(N,)``.
        rng: ``numpy.random.Generator``.

    Returns:
        list of int arrays, each of at most ``batch_size`` indices; together every index once.
    """
    order = rng.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), pool * batch_size):
        chunk = order[start : start + pool * batch_size]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        batches += [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def collate(data, indices, pad_id, device, multiple=8):
    """One padded batch: as long as its own longest text (up to a multiple), not as the longest of the corpus.

    Few distinct lengths mean few shapes for the matrix library to prepare kernels for: on a CPU, rounding up to 8
    saves more than the extra padding costs, in time and above all in memory.

    Returns:
        ``input_ids`` (batch, n) int64, ``attention_mask`` (batch, n) int64, ``labels`` (batch,) int64, or
        (batch, num_labels) float32 where a text has several.
    """
    lengths = torch.tensor([len(data.input_ids[i]) for i in indices])
    n = math.ceil(int(lengths.max()) / multiple) * multiple
    input_ids = torch.full((len(lengths), n), pad_id)
    for row, i in enumerate(indices):
        input_ids[row, : lengths[row]] = torch.tensor(data.input_ids[i])
    attention_mask = (torch.arange(n) < lengths[:, None]).long()
    labels = torch.tensor([data.labels[i] for i in indices])
    return input_ids.to(device), attention_mask.to(device), labels.to(device)


# --- model ---------------------------------------------------------------------------------------------


class Classifier(nn.Module):
    """Encoder, pooled first token, dropout, linear: BERT's recipe (Devlin et al. 2019, section 4.1).

    Args:
        encoder: a model that returns ``last_hidden_state`` (batch, n, hidden).
    """

    def __init__(self, encoder, num_labels=2, dropout=0.1):
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.config.hidden_size, num_labels)

    def forward(self, input_ids, attention_mask):
        """Logits, shape (batch, num_labels)."""
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        pooled = getattr(output, "pooler_output", None)
        if pooled is None:
            pooled = output.last_hidden_state[:, 0]  # [CLS]
        return self.head(self.dropout(pooled))


def mean_pool(hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens that are no padding: (batch, n, H), (batch, n) -> (batch, H)."""
    kept = attention_mask.unsqueeze(-1).to(hidden.dtype)  # (batch, n, 1)
    return (hidden * kept).sum(1) / kept.sum(1)


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(trainable, all) parameters."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trainable in sizes if trainable), sum(n for n, _ in sizes)


# --- optimiser -----------------------------------------------------------------------------------------


def make_optimizer(model, lr, weight_decay=0.01):
    """AdamW (Loshchilov & Hutter 2019) over the trainable parameters; biases and norms do not decay."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, fused=True)


def warmup_linear(step, total_steps, warmup_fraction=0.1):
    """Factor on the learning rate: from 1 / warm-up up to 1 over the warm-up, then down to 0 in a straight line.

    Unlike ``transformers.get_linear_schedule_with_warmup``, whose first step has a factor of 0.
    """
    warmup_steps = max(1, round(total_steps * warmup_fraction))
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))


# --- loop ----------------------------------------------------------------------------------------------


def train_step(
    model, batch, optimizer, device, precision="auto", max_grad_norm=1.0, loss_function=F.cross_entropy
):
    """Forward, loss, backward, clip, update. Returns the mean loss of the batch as a float."""
    input_ids, attention_mask, labels = batch
    with autocast(device, precision):
        logits = model(input_ids, attention_mask)  # (batch, num_labels)
    loss = loss_function(logits.float(), labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    optimizer.step()
    return loss.item()


@torch.inference_mode()
def predict_logits(model, data, pad_id, device, batch_size=64, precision="auto"):
    """Logits of every text in its original order, float32 on the CPU, shape (N, num_labels)."""
    model.eval()
    order = np.argsort([len(ids) for ids in data.input_ids], kind="stable")
    parts = []
    for start in range(0, len(order), batch_size):
        input_ids, attention_mask, _ = collate(data, order[start : start + batch_size], pad_id, device)
        with autocast(device, precision):
            parts.append(model(input_ids, attention_mask).float().cpu())
    return torch.cat(parts)[np.argsort(order)]


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides a run besides data and model."""

    lr: float = 2e-5
    num_epochs: int = 3
    batch_size: int = 32
    weight_decay: float = 0.01
    warmup_fraction: float = 0.1
    max_grad_norm: float = 1.0
    patience: int | None = None  # stop after this many epochs without a better validation loss; None: never
    keep: str = (
        "best"  # the weights that stay: of the epoch with the lowest validation loss, or of the "last"
    )
    precision: str = "auto"
    seed: int = 0


@dataclass
class History:
    """What happened, epoch by epoch."""

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    best_epoch: int = -1  # from 0; -1 without validation
    seconds: float = 0.0  # training alone
    epoch_seconds: list[float] = field(default_factory=list)


def fit(
    model: nn.Module,
    train: Encoded,
    validation: Encoded | None,
    config: TrainingConfig,
    *,
    pad_id: int = 0,
    device: torch.device | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
    optimizer: torch.optim.Optimizer | None = None,
    loss_function: LossFunction = F.cross_entropy,
) -> History:
    """Train, keep the weights of the epoch with the lowest validation loss, stop early if asked.

    Args:
        validation: None saves the time and keeps the weights of the last epoch.
        checkpoint: a file written after every epoch. When it exists, training goes on from it and ends with the
            same weights as an uninterrupted run on the same machine.
        progress: one text bar that leaves one line.
        optimizer: over the weights of ``model``, where :func:`make_optimizer` is not what is wanted; the schedule
            scales the learning rate of each of its groups.
        loss_function: of logits and labels, for training and validation.

    Raises:
        ValueError: no training rows, patience without validation, or a checkpoint that is cut short or belongs to
            other settings.
        FloatingPointError: the loss is no longer finite.
    """
    if not len(train):
        raise ValueError("no training rows")
    if validation is None and config.patience is not None:
        raise ValueError("patience needs a validation set")
    device = device or next(model.parameters()).device
    model.to(device)
    optimizer = optimizer or make_optimizer(model, config.lr, config.weight_decay)
    total_steps = config.num_epochs * math.ceil(len(train) / config.batch_size)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_linear(step, total_steps, config.warmup_fraction)
    )
    lengths = np.array([len(ids) for ids in train.input_ids])
    rng = np.random.default_rng(config.seed)
    torch.manual_seed(config.seed)
    history, best, start_epoch = History(), None, 0
    state = _Checkpoint(checkpoint, config, len(train))
    if state.exists():
        history, best, start_epoch = state.load(model, optimizer, scheduler, rng)
    for epoch in range(start_epoch, config.num_epochs):
        if _is_over(history, config):
            break
        began, losses = time.perf_counter(), []
        model.train()
        batches = length_buckets(lengths, config.batch_size, rng)
        for step, indices in enumerate(batches):
            batch = collate(train, indices, pad_id, device)
            loss = train_step(
                model, batch, optimizer, device, config.precision, config.max_grad_norm, loss_function
            )
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"loss is {loss} at epoch {epoch + 1}, step {step + 1}; lower lr={config.lr}"
                )
            scheduler.step()
            losses.append((loss, len(indices)))
            if progress:
                _bar(epoch, config.num_epochs, step + 1, len(batches), loss)
        history.epoch_seconds.append(time.perf_counter() - began)
        history.seconds += history.epoch_seconds[-1]
        history.train_loss.append(sum(x * n for x, n in losses) / len(train))
        if validation is not None:
            judge = partial(evaluate, data=validation, loss_function=loss_function)
            best = _validate(model, judge, config, pad_id, device, history, epoch, best)
        state.save(model, optimizer, scheduler, rng, history, best, epoch + 1)
    if progress and history.train_loss:
        _finish_bar(history)
    if best is not None:
        model.load_state_dict(best)
    return history


def evaluate(
    model: nn.Module,
    data: Encoded,
    pad_id: int,
    device: torch.device,
    precision: str = "auto",
    loss_function: LossFunction = F.cross_entropy,
) -> tuple[float, float]:
    """(loss, accuracy); where a text has several labels, it is right when all of them are."""
    logits = predict_logits(model, data, pad_id, device, precision=precision)
    labels = torch.as_tensor(data.labels)
    loss = loss_function(logits.to(device), labels.to(device)).item()
    right = (logits.argmax(-1) == labels) if labels.ndim == 1 else ((logits > 0) == labels.bool()).all(-1)
    return loss, right.float().mean().item()


def _validate(model, judge, config, pad_id, device, history, epoch, best):
    """Append this epoch's validation figures to ``history``; return the best weights so far, if they are wanted."""
    loss, accuracy = judge(model, pad_id=pad_id, device=device, precision=config.precision)
    history.validation_loss.append(loss)
    history.validation_accuracy.append(accuracy)
    if loss <= min(history.validation_loss):
        history.best_epoch = epoch
        return copy.deepcopy(model.state_dict()) if config.keep == "best" else None
    return best


def _is_over(history: History, config: TrainingConfig) -> bool:
    """Whether patience has run out."""
    waited = len(history.validation_loss) - 1 - history.best_epoch
    return config.patience is not None and bool(history.validation_loss) and waited >= config.patience


@dataclass(frozen=True)
class _Checkpoint:
    """One file with all that a resumed run needs; written to a neighbour and renamed."""

    path: str | Path | None
    config: TrainingConfig
    rows: int

    def exists(self) -> bool:
        return self.path is not None and Path(self.path).is_file()

    def save(self, model, optimizer, scheduler, rng, history, best, epoch) -> None:
        if self.path is None:
            return
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        state = {
            "config": asdict(self.config), "rows": self.rows, "epoch": epoch, "history": asdict(history),
            "model": model.state_dict(), "best": best, "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(), "numpy": rng.bit_generator.state,
            "torch": torch.get_rng_state(), "cuda": cuda,
        }  # fmt: skip
        target = Path(self.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".partial")
        torch.save(state, partial)
        partial.replace(target)

    def load(self, model, optimizer, scheduler, rng) -> tuple[History, dict, int]:
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ValueError(
                f"checkpoint {self.path} cannot be read ({type(error).__name__}); delete it"
            ) from error
        if (state["config"], state["rows"]) != (asdict(self.config), self.rows):
            raise ValueError(
                f"checkpoint {self.path} belongs to other settings or data; delete it or restore them"
            )
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        rng.bit_generator.state = state["numpy"]
        torch.set_rng_state(state["torch"])
        if state["cuda"]:
            torch.cuda.set_rng_state_all(state["cuda"])
        return History(**state["history"]), state["best"], state["epoch"]


def _bar(epoch: int, num_epochs: int, step: int, steps: int, loss: float, width: int = 24) -> None:
    """Redraw the progress line about twenty times an epoch."""
    if step % max(1, steps // 20) and step != steps:
        return
    filled = round(width * step / steps)
    sys.stdout.write(
        f"\repoch {epoch + 1}/{num_epochs} [{'#' * filled}{'.' * (width - filled)}] {step}/{steps} loss {loss:.3f} "
    )
    sys.stdout.flush()


def _finish_bar(history: History) -> None:
    """Replace the bar by the one line that stays."""
    line = f"{len(history.train_loss)} epochs, {history.seconds:.0f} s, "
    if history.validation_loss:
        i = history.best_epoch
        line += (
            f"best epoch {i + 1}: train loss {history.train_loss[i]:.3f}, "
            f"validation loss {history.validation_loss[i]:.3f}, accuracy {history.validation_accuracy[i]:.4f}"
        )
    else:
        line += f"train loss {history.train_loss[-1]:.3f}"
    sys.stdout.write(f"\r{line:<100}\n")
    sys.stdout.flush()
