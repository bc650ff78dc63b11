"""Finding the right entry: BM25, a bi-encoder tuned contrastively, recall, and how a found entry goes into a prompt.

`BM25`, `BiEncoder`, `recall_at` and `with_entries` stand in chapter 6.1 with the same source; a test compares the two.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import BatchEncoding, PreTrainedTokenizerBase

from sft.corpora import definition_text, load_dictionary
from sft.lessons import first_sense
from sft.training import autocast

MARKS = "～｜【】“”（）"


@dataclass(frozen=True)
class Entry:
    """A word of the dictionary and its first sense."""

    word: str
    definition: str

    def __str__(self) -> str:
        return definition_text(self.word, self.definition)


def load_entries(max_chars: int = 40) -> dict[str, list[Entry]]:
    """The dictionary's entries by split, those with a plain definition that does not name the word.

    Args:
        max_chars: of a definition; it has at least four.

    Raises:
        DataError: as :func:`sft.corpora.load_dictionary`.
    """
    entries = {
        split: [Entry(word, first_sense(text)) for word, text in zip(*rows[:].values(), strict=True)]
        for split, rows in load_dictionary().items()
    }
    return {
        split: [
            entry
            for entry in part
            if 4 <= len(entry.definition) <= max_chars
            and entry.word not in entry.definition
            and not any(mark in str(entry) for mark in MARKS)
        ]
        for split, part in entries.items()
    }


class BM25:
    """Okapi BM25 over single characters (Robertson and Zaragoza 2009, doi:10.1561/1500000019), N documents.

    Args:
        k1: how soon repetitions of a character stop counting.
        b: how much long documents are held down.
    """

    def __init__(self, documents, k1=1.2, b=0.75):
        lengths = np.array([len(text) for text in documents])
        self.size, self.found_in = len(documents), defaultdict(list)
        for i, text in enumerate(documents):
            for term, n in Counter(text).items():
                norm = k1 * (1 - b + b * lengths[i] / lengths.mean())
                self.found_in[term].append((i, n * (k1 + 1) / (n + norm)))

    def scores(self, query):
        """The score of each document, (N,)."""
        scores = np.zeros(self.size)
        for term in query:
            places = self.found_in.get(term, [])
            idf = math.log(1 + (self.size - len(places) + 0.5) / (len(places) + 0.5))
            for i, weight in places:
                scores[i] += idf * weight
        return scores


def recall_at(k, scores, own):
    """Share of rows whose right column is among the k best; equal scores share their places.

    Args:
        scores: (queries, documents).
        own: (queries,), the right column of each row.
    """
    right = scores[np.arange(len(own)), own][:, None]
    better, equal = (scores > right).sum(1), (scores == right).sum(1)
    return np.clip((k - better) / equal, 0, 1).mean()


class BiEncoder(nn.Module):
    """Queries and documents through one encoder; the loss wants each query nearest to its own document, and back.

    InfoNCE (van den Oord et al. 2018, arXiv:1807.03748) with the other documents of the batch as wrong answers
    (Karpukhin et al. 2020, arXiv:2004.04906). Documents after the first B, of B queries, are wrong for all of them.
    """

    def __init__(self, encoder, temperature):
        super().__init__()
        self.encoder, self.temperature = encoder, temperature
        self.device = encoder.device

    def embed(self, input_ids, attention_mask):
        """Mean of the last hidden states, of length 1: (B, d)."""
        h = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        mask = attention_mask[..., None]
        mean = (h.last_hidden_state.float() * mask).sum(1) / mask.sum(1)
        return F.normalize(mean, dim=-1)

    def forward(self, query_ids, query_mask, document_ids, document_mask):
        """An object with ``loss`` (mean over the queries) and ``logits``, (B, documents)."""
        q = self.embed(query_ids, query_mask)
        d = self.embed(document_ids, document_mask)
        logits = q @ d.T / self.temperature
        own = torch.arange(len(q), device=logits.device)
        back = F.cross_entropy(logits[:, : len(q)].T, own)
        loss = (F.cross_entropy(logits, own) + back) / 2
        return SimpleNamespace(loss=loss, logits=logits)


def pair_batch(
    queries: Sequence[str],
    documents: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> BatchEncoding:
    """What :class:`BiEncoder` takes: both sides as ids and masks."""
    batch = {}
    for name, texts in (("query", queries), ("document", documents)):
        ids = tokenizer(
            list(texts), truncation=True, max_length=max_length, padding=True, return_tensors="pt"
        )
        batch |= {f"{name}_ids": ids["input_ids"], f"{name}_mask": ids["attention_mask"]}
    return BatchEncoding(batch)


@torch.inference_mode()
def embed_texts(
    model: BiEncoder,
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    batch_size: int = 64,
) -> np.ndarray:
    """The vector of each text in its order, (texts, d), each of length 1."""
    model.eval()
    order = np.argsort([len(text) for text in texts], kind="stable")
    vectors = []
    for rows in np.array_split(order, math.ceil(len(order) / batch_size)):
        ids = tokenizer(
            [texts[i] for i in rows],
            truncation=True,
            max_length=max_length,
            padding=True,
            return_tensors="pt",
        ).to(model.device)
        with autocast(model.device):
            vectors.append(model.embed(ids["input_ids"], ids["attention_mask"]).cpu())
    return torch.cat(vectors).numpy()[np.argsort(order)]


def with_entries(question, entries):
    """The user's message of a question with what was found for it."""
    found = "\n".join(str(entry) for entry in entries)
    return {"role": "user", "content": f"资料：{found}\n{question}"}
