"""Translating with chapter 3's Transformer: subwords, vectors to begin with, the loop, and what to do with the result.

What chapter 6.4 writes out stands here under the same names; a test compares the two. :func:`train_translator` is the
chapter from end to end, for a reader's own two files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_matrix
from sklearn.utils.extmath import randomized_svd
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import get_linear_schedule_with_warmup

from sft.fine_tuning import Buckets
from sft.training import set_seed
from sft.transformer import Transformer, TransformerConfig, beam_search, greedy
from sft.ui_strings import SLOTS, Pair, mask, unmask

PAD, BOS, EOS = 0, 1, 2
SPECIAL = ("[PAD]", "[BOS]", "[EOS]", "[UNK]", *SLOTS)

# --- texts to tokens -----------------------------------------------------------------------------------


def make_tokenizer(texts, vocab_size):
    """Byte-pair encoding learned from ``texts`` of both languages, one vocabulary for both.

    A token never spans two words, two scripts or a sign; the sign ▁ stands for the space before a word.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    words = Regex(r"▁?(\p{Han}+|[^\W\d\p{Han}▁]+|.)")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Split(words, "isolated")]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=list(SPECIAL), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode_pair(pair, tokenizer):
    """Ids of the source, closed by [EOS], and of the target between [BOS] and [EOS]."""
    source = tokenizer.encode(pair.source.lower()).ids
    target = tokenizer.encode(pair.target).ids
    return [*source, EOS], [BOS, *target, EOS]


def pad(rows):
    """Rows of ids as one tensor (batch, n), filled up with [PAD] to a multiple of 4."""
    n = -(-max(map(len, rows)) // 4) * 4
    return torch.tensor([[*row, *[PAD] * (n - len(row))] for row in rows])


def collate(rows):
    """Encoded pairs -> sources (batch, m), targets (batch, n)."""
    sources, targets = zip(*rows)  # noqa: B905, as in the chapter
    return pad(sources), pad(targets)


# --- model ---------------------------------------------------------------------------------------------


def start_vectors(rows, vocab_size, d_model, seed=0):
    """A vector for each token, from which tokens share a pair: shape (V, d_model), each of length 1.

    Positive pointwise mutual information of the tokens of a pair, source and target together, cut down to its
    ``d_model`` strongest directions (Levy & Goldberg 2014). A word and its translation occur in the same pairs, hence
    lie close to each other.
    """
    tokens = [sorted({*source, *target} - {PAD, BOS, EOS}) for source, target in rows]
    row = np.repeat(np.arange(len(rows)), [len(t) for t in tokens])
    weight = np.repeat([len(t) ** -0.5 for t in tokens], [len(t) for t in tokens])
    seen = csr_matrix((weight, (row, np.concatenate(tokens))), shape=(len(rows), vocab_size))
    together = (seen.T @ seen).toarray()  # (V, V)
    share = together.sum(axis=0, keepdims=True)
    expected = np.maximum(share.T @ share / together.sum(), 1e-12)
    pmi = np.log(np.maximum(together / expected, 1))
    U, S, _ = randomized_svd(pmi, d_model, random_state=seed)
    vectors = torch.tensor(U * np.sqrt(S), dtype=torch.float32)
    unseen = vectors.norm(dim=1) < 1e-4
    vectors[unseen] = torch.randn(int(unseen.sum()), d_model)
    return F.normalize(vectors)


def open_copy_path(model: Transformer) -> None:
    """Let what a decoder sees in the source reach its output unchanged, at the start of training.

    W_v and W_o of its attention to the source begin near the identity. As the output layer is the table of token
    vectors, a token that lies close to what was seen scores high: with :func:`start_vectors`, a translation.
    """
    for layer in model.decoder.layers:
        for W in (layer.cross_attention.W_v, layer.cross_attention.W_o):
            W.weight.data.mul_(0.3).add_(torch.eye(len(W.weight), device=W.weight.device))
            W.bias.data.zero_()


# --- training ------------------------------------------------------------------------------------------


def translation_loop(model, loader, optimizer, scheduler, num_epochs):
    """Teach ``model`` the targets of ``loader``, each token from the source and the right tokens before it.

    Returns:
        loss of every step, with smoothed labels, before the step's update.
    """
    device, losses = next(model.parameters()).device, []
    for _epoch in range(num_epochs):
        model.train()
        for source, target in loader:
            source, target = source.to(device), target.to(device)
            logits = model(source, target[:, :-1], source != PAD)
            loss = F.cross_entropy(
                logits.flatten(0, 1), target[:, 1:].flatten(), ignore_index=PAD, label_smoothing=0.1
            )
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses


@dataclass(frozen=True)
class Recipe:
    """How :func:`train_translator` trains; the defaults are chapter 6.4's, for some thousands of short texts."""

    vocab_size: int = 2500
    d_model: int = 128
    num_heads: int = 4
    d_ff: int = 256
    num_layers: int = 2
    dropout: float = 0.0
    num_epochs: int = 8
    batch_size: int = 64
    lr: float = 3e-3


def train_translator(
    pairs: Sequence[Pair], recipe: Recipe | None = None, *, seed: int = 0, device: torch.device | None = None
) -> Translator:
    """A translator learned from ``pairs`` alone.

    Raises:
        ValueError: no pairs, or one whose placeholders differ, with its row (from 1).
    """
    recipe, device = recipe or Recipe(), device or torch.device("cpu")
    if not pairs:
        raise ValueError("no pairs to learn from")
    masked = [_masked(pair, row) for row, pair in enumerate(pairs, 1)]
    tokenizer = make_tokenizer(
        [text for pair in masked for text in (pair.source.lower(), pair.target)], recipe.vocab_size
    )
    rows = [encode_pair(pair, tokenizer) for pair in masked]
    longest = max(len(ids) for row in rows for ids in row)
    set_seed(seed)
    config = TransformerConfig(
        vocab_size=tokenizer.get_vocab_size(),
        d_model=recipe.d_model,
        num_heads=recipe.num_heads,
        d_ff=recipe.d_ff,
        num_layers=recipe.num_layers,
        dropout=recipe.dropout,
        norm_first=True,
        max_length=max(128, 2 * longest),
    )
    model = Transformer(config)
    vectors = start_vectors(rows, config.vocab_size, min(config.d_model, config.vocab_size), seed)
    model.encoder.embeddings.tokens.weight.data.copy_(vectors)
    open_copy_path(model)
    model.to(device)
    lengths = [len(source) + len(target) for source, target in rows]
    loader = DataLoader(rows, batch_sampler=Buckets(lengths, recipe.batch_size, seed), collate_fn=collate)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, betas=(0.9, 0.98))
    steps = recipe.num_epochs * len(loader)
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 12, steps)
    translation_loop(model, loader, optimizer, schedule, recipe.num_epochs)
    return Translator(model.eval(), tokenizer, config)


def _masked(pair: Pair, row: int) -> Pair:
    try:
        source, names = mask(pair.source)
        return Pair(source, mask(pair.target, names)[0], pair.catalogue)
    except ValueError as error:
        raise ValueError(f"row {row}: {error}") from None


# --- translating ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Translator:
    """A trained model with what it needs to translate plain texts."""

    model: Transformer
    tokenizer: Tokenizer
    config: TransformerConfig

    def translate(self, texts: Sequence[str], num_beams: int = 1, batch_size: int = 64) -> list[str]:
        """The texts in Chinese, placeholders back in their places; ``num_beams`` 1 is greedy.

        Raises:
            ValueError: a text with more placeholders than there are slots, with its row (from 0).
        """
        sources, names = [], []
        for row, text in enumerate(texts):
            try:
                source, found = mask(text)
            except ValueError as error:
                raise ValueError(f"text {row}: {error}") from None
            sources.append([*self.tokenizer.encode(source.lower()).ids, EOS])
            names.append(found)
        order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
        said = {}
        for start in range(0, len(order), batch_size):
            some = order[start : start + batch_size]
            written = write_ids(self.model, pad([sources[i] for i in some]), num_beams)
            for i, ids in zip(some, written, strict=True):
                said[i] = unmask(self.tokenizer.decode(ids, skip_special_tokens=False), names[i])
        return [said[i] for i in range(len(sources))]

    def save(self, folder: str | Path) -> None:
        """Weights, shape and tokenizer into ``folder``, which is made."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tokens = "decoder.embeddings.tokens.weight"  # the encoder's own: one tensor, stored once
        weights = {name: w.contiguous() for name, w in self.model.state_dict().items() if name != tokens}
        save_file(weights, folder / "model.safetensors")
        self.tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "config.json").write_text(json.dumps(asdict(self.config), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Translator:
        """What :meth:`save` wrote."""
        folder = Path(folder)
        config = TransformerConfig(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
        model = Transformer(config)
        model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
        return cls(model.eval(), Tokenizer.from_file(str(folder / "tokenizer.json")), config)


def write_ids(model, source, num_beams=1, max_new_tokens=48):
    """Ids of the translation of each source (batch, m), without [BOS] and [EOS]."""
    source = source.to(next(model.parameters()).device)
    seen = source != PAD
    with torch.no_grad():
        memory = model.encoder(source, seen)
    start = torch.full((len(source), 1), BOS, device=source.device)
    if num_beams == 1:
        ids = greedy(model.decoder, start, max_new_tokens, EOS, memory, seen)
    else:
        ids = beam_search(
            model.decoder, start, max_new_tokens, EOS, num_beams, memory=memory, memory_mask=seen
        )
    return [row[1 : row.index(EOS)] if EOS in row else row[1:] for row in ids.tolist()]
