"""`sft/sentence_pairs.py`: what is called the next sentence is it, and how overlap counts."""

from __future__ import annotations

from sft.sentence_pairs import make_pairs, overlap, split_sentences

TEXTS = ["甲一。甲二！甲三？尾", "乙一。乙二。", "只有一句。"]


def test_sentences_end_with_their_mark_and_a_rest_is_dropped():
    assert split_sentences(TEXTS[0]) == ["甲一。", "甲二！", "甲三？"]


def test_a_pair_called_next_stands_so_in_its_paragraph():
    pairs, labels = make_pairs(TEXTS, 60, seed=0)
    following = {("甲一。", "甲二！"), ("甲二！", "甲三？"), ("乙一。", "乙二。")}
    assert len(pairs) == len(labels) == 60 and 0 < labels.sum() < 60
    assert {pair for pair, is_next in zip(pairs, labels, strict=True) if is_next} == following
    assert "只有一句。" not in {sentence for pair in pairs for sentence in pair}


def test_overlap_is_a_share_of_all_characters():
    assert overlap(("甲乙", "乙丙")) == 1 / 3
