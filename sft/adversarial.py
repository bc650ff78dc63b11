"""Attacks on a classifier by characters that a reader takes for the right one: same sound, or nearly the same shape.

Which characters sound alike says a dictionary; which look alike, the book's own font: two glyphs whose pictures nearly
cover each other. Where to change what, the gradient tells (HotFlip: Ebrahimi et al. 2018, arXiv:1712.06751).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageFont
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from sft.glyphs import draw_glyph
from sft.plotting import FONT_FILE
from sft.topics import read_characters

_TONES = dict.fromkeys(map(ord, "\u0300\u0301\u0304\u030c"))  # the diaeresis of ü is none


# --- characters that pass for one another ------------------------------------------------------------------


def homophones(characters: Sequence[str], most: int = 8) -> dict[str, list[str]]:
    """For each character those that sound like it, tones aside, in the order of ``characters``.

    Only the first reading that the dictionary gives counts.

    Raises:
        DataError: as :func:`sft.topics.read_characters`.
    """
    rows = read_characters()
    sounds = {
        character: _without_tone(found[1])
        for character, definition in zip(rows["character"], rows["definition"], strict=True)
        if (found := re.match(r"\[([^\]]+)\]", definition))
    }
    alike: dict[str, list[str]] = defaultdict(list)
    for character in characters:
        if character in sounds:
            alike[sounds[character]].append(character)
    return {
        character: [other for other in group if other != character][:most]
        for group in alike.values()
        for character in group
        if len(group) > 1
    }


def _without_tone(reading: str) -> str:
    """``lǜ`` becomes ``lü``."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", reading).translate(_TONES)).strip()


def glyphs(characters: Sequence[str], pixels: int = 24) -> np.ndarray:
    """Pictures of characters in the book's font, one row each: float32, mean 0, length 1; (characters, pixels²)."""
    pen = ImageFont.truetype(str(FONT_FILE), 2 * pixels)
    pictures = np.zeros((len(characters), pixels * pixels), dtype=np.float32)
    for row, character in enumerate(characters):
        image = draw_glyph(character, 2 * pixels, pen)
        # half the size: strokes that lie a pixel apart still meet
        pictures[row] = np.asarray(image.resize((pixels, pixels), Image.Resampling.BOX), np.float32).ravel()
    pictures -= pictures.mean(axis=1, keepdims=True)
    return pictures / np.maximum(np.linalg.norm(pictures, axis=1, keepdims=True), 1e-6)


def look_alikes(characters: Sequence[str], most: int = 8, least: float = 0.7) -> dict[str, list[str]]:
    """For each character those that look most like it: correlation of the pictures at least ``least``, best first."""
    pictures = glyphs(characters)
    alike = pictures @ pictures.T
    np.fill_diagonal(alike, -1)
    found = {}
    for row, character in enumerate(characters):
        best = np.argsort(-alike[row], kind="stable")[:most]
        if near := [characters[i] for i in best if alike[row, i] >= least]:
            found[character] = near
    return found


def frequent_characters(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, n: int) -> list[str]:
    """The ``n`` Chinese characters that the texts hold most often and the tokenizer knows."""
    known = tokenizer.get_vocab()
    counts = Counter(c for text in texts for c in text if "\u4e00" <= c <= "\u9fff" and c in known)
    return [c for c, _ in counts.most_common(n)]


def replacement_table(
    tokenizer: PreTrainedTokenizerBase, alike: Mapping[str, Sequence[str]], most: int = 8
) -> torch.Tensor:
    """Ids that may stand for each id, int64, (vocabulary, most); a row is filled up with the id itself."""
    table = torch.arange(len(tokenizer))[:, None].repeat(1, most)
    vocabulary = tokenizer.get_vocab()
    for character, others in alike.items():
        ids = [vocabulary[other] for other in others if other in vocabulary][:most]
        if character in vocabulary:
            table[vocabulary[character], : len(ids)] = torch.tensor(ids, dtype=torch.long)
    return table


# --- the attack ------------------------------------------------------------------------------------------


def attack(
    model: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    words: nn.Embedding,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    labels: torch.Tensor,
    table: torch.Tensor,
    flips: int,
) -> torch.Tensor:
    """Replace up to ``flips`` tokens of each text so that the model errs; ids of the same shape (batch, n).

    Each round takes, of all permitted replacements in a text, the one whose first-order gain in the loss is largest:
    (e_new − e_old) · ∂loss/∂e_old. A position is changed once; a text that is wrong already stays as it is.

    Args:
        model: of word vectors (batch, n, d) and mask (batch, n): logits (batch, classes), nothing at random.
        words: the word vectors that ``model`` reads.
        table: from :func:`replacement_table`.
    """
    ids, vectors, table = input_ids.clone(), words.weight.detach(), table.to(input_ids.device)
    left = torch.arange(len(ids), device=ids.device)  # texts that the model still has right
    for _ in range(flips):
        if not len(left):
            break
        now = ids[left]
        embedded = vectors[now].requires_grad_()
        logits = model(embedded, attention_mask[left])
        (slope,) = torch.autograd.grad(F.cross_entropy(logits, labels[left], reduction="sum"), embedded)
        offered = table[now]  # (left, n, most)
        gain = torch.einsum("bnmd,bnd->bnm", vectors[offered] - vectors[now][:, :, None], slope)
        open_to_change = (now == input_ids[left]) & attention_mask[left].bool()
        gain[(offered == now[:, :, None]) | ~open_to_change[:, :, None]] = -torch.inf
        best, where = gain.flatten(1).max(1)
        new = offered.flatten(1).gather(1, where[:, None])[:, 0]
        keep = (best > 0) & (logits.argmax(-1) == labels[left])
        ids[left[keep], where[keep] // table.shape[1]] = new[keep]
        left = left[keep]
    return ids


def replace_at_random(
    input_ids: torch.Tensor, attention_mask: torch.Tensor, table: torch.Tensor, flips: int, seed: int
) -> torch.Tensor:
    """Replace ``flips`` tokens of each text, places and replacements drawn blindly: the baseline of :func:`attack`."""
    rng, ids = np.random.default_rng(seed), input_ids.clone()
    for row, mask in zip(ids, attention_mask.bool().tolist(), strict=True):
        offers = {i: set(table[token].tolist()) - {token} for i, token in enumerate(row.tolist()) if mask[i]}
        places = [i for i, offer in offers.items() if offer]
        for i in rng.permutation(places)[:flips]:
            row[i] = int(rng.choice(sorted(offers[i])))
    return ids
