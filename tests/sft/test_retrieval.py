"""Retrieval: BM25 against its formula, recall with ties, and a loss that is smallest where each finds its own."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoTokenizer

from sft import retrieval
from sft.hub import locate_model
from sft.retrieval import BM25, BiEncoder, Entry, recall_at

WORDS = ["书桌", "书本", "自若", "桌布布"]


class Bag(nn.Module):
    """An encoder whose hidden state is the token's own vector."""

    device = torch.device("cpu")

    def __init__(self, size: int = 8) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(torch.eye(size), freeze=False)

    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(last_hidden_state=self.table(input_ids))


def plain_bm25(documents: list[str], query: str, k1: float = 1.2, b: float = 0.75) -> list[float]:
    """The formula, term by term."""
    mean = sum(map(len, documents)) / len(documents)
    found = []
    for text in documents:
        score = 0.0
        for term in query:
            n = sum(term in other for other in documents)
            f = text.count(term)
            idf = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
            score += idf * f * (k1 + 1) / (f + k1 * (1 - b + b * len(text) / mean))
        found.append(score)
    return found


@pytest.mark.parametrize("query", ["读书写字用的桌子", "桌布", "没有", ""])
@pytest.mark.parametrize("options", [{}, {"k1": 0.5, "b": 0.0}])
def test_bm25_is_its_formula(query, options):
    assert BM25(WORDS, **options).scores(query) == pytest.approx(plain_bm25(WORDS, query, **options))


def test_recall_shares_places_between_equal_scores():
    scores = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [5.0, 3.0, 1.0]])
    assert recall_at(1, scores, np.array([0, 1, 2])) == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert recall_at(2, scores, np.array([0, 1, 2])) == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert recall_at(3, scores, np.array([0, 1, 2])) == 1


def test_the_loss_is_cross_entropy_over_all_documents_of_the_batch():
    model = BiEncoder(Bag(), temperature=0.5)
    ids = torch.tensor([[1, 2], [3, 0]])
    mask = torch.tensor([[1, 1], [1, 0]])
    documents = torch.tensor([[1], [3], [2]])  # the third is wrong for both
    out = model(ids, mask, documents, torch.ones_like(documents))
    near = 1 / math.sqrt(2)
    assert out.logits.tolist() == [pytest.approx([near / 0.5, 0, near / 0.5]), pytest.approx([0, 2, 0])]
    own = out.logits.tolist()
    back = [[out.logits[0, j].item(), out.logits[1, j].item()] for j in range(2)]  # the third is nobody's
    wanted = [
        -math.log(math.exp(row[i]) / sum(map(math.exp, row)))
        for rows in (own, back)
        for i, row in enumerate(rows)
    ]
    assert out.loss.item() == pytest.approx(sum(wanted) / 4)


def test_texts_are_embedded_in_their_order_whatever_the_batches():
    tokenizer = AutoTokenizer.from_pretrained(locate_model("mini-bert-zh"))
    model = BiEncoder(Bag(len(tokenizer)), temperature=0.05)
    texts = ["书桌", "供读书写字用的桌子", "自", "镇静自如"]
    together = retrieval.embed_texts(model, texts, tokenizer, 16)
    alone = np.concatenate([retrieval.embed_texts(model, [text], tokenizer, 16) for text in texts])
    assert together == pytest.approx(alone, abs=1e-6)
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(4))
    batch = retrieval.pair_batch(texts[:2], texts[2:] * 2, tokenizer, 16)
    assert batch["query_ids"].shape[0] == 2 and batch["document_mask"].shape[0] == 4


def test_entries_are_plain_do_not_name_their_word_and_keep_to_their_split():
    entries = retrieval.load_entries()
    for part in entries.values():
        assert all(4 <= len(e.definition) <= 40 and e.word not in e.definition for e in part)
        assert not any(mark in str(e) for e in part for mark in retrieval.MARKS)
    words = [{e.word for e in part} for part in entries.values()]
    assert not words[0] & words[1] and not words[0] & words[2]
    assert len(entries["test"]) > 1000


def test_found_entries_stand_before_the_question():
    message = retrieval.with_entries("什么是“书桌”？", [Entry("书桌", "桌子。"), Entry("书本", "书。")])
    assert message == {"role": "user", "content": "资料：书桌：桌子。\n书本：书。\n什么是“书桌”？"}
