"""A small translator: its subwords, the start of its vectors, learning, writing, saving."""

from __future__ import annotations

import pytest
import torch

from sft.translation import (
    BOS,
    EOS,
    PAD,
    Recipe,
    Translator,
    collate,
    encode_pair,
    make_tokenizer,
    pad,
    start_vectors,
    train_translator,
    write_ids,
)
from sft.ui_strings import Pair

VERBS = {"Open": "打开", "Close": "关闭", "Save": "保存"}
THINGS = {"file": "文件", "folder": "目录", "window": "窗口"}
PAIRS = [Pair(f"{v} the {t} %s", f"{VERBS[v]}{THINGS[t]} %s") for v in VERBS for t in THINGS]
SMALL = Recipe(
    vocab_size=79, d_model=32, num_heads=2, d_ff=32, num_layers=1, dropout=0.0, num_epochs=60, batch_size=4,
    lr=5e-3,
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer([text for pair in PAIRS for text in (pair.source.lower(), pair.target)], 79)


@pytest.fixture(scope="module")
def translator() -> Translator:
    return train_translator(PAIRS, SMALL)


def test_subwords_put_together_give_the_text_again(tokenizer):
    for text in ("open the file ⟨0⟩", "打开文件 ⟨0⟩"):
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text
    assert "⟨0⟩" in tokenizer.encode("打开⟨0⟩文件").tokens


def test_no_token_spans_two_scripts(tokenizer):
    mixed = make_tokenizer(["打开 URL", "URL打开", "打开URL 打开URL"] * 5, 60)
    assert not any(
        any("a" <= c.lower() <= "z" for c in t) and any("\u4e00" <= c <= "\u9fff" for c in t)
        for t in mixed.get_vocab()
        if "[" not in t
    )


def test_a_pair_is_closed_and_padded(tokenizer):
    source, target = encode_pair(Pair("Open", "打开"), tokenizer)
    assert source[-1] == target[-1] == EOS and target[0] == BOS
    assert pad([[5], [6, 7]]).tolist() == [[5, PAD, PAD, PAD], [6, 7, PAD, PAD]]
    assert [x.shape for x in collate([(source, target)] * 3)] == [(3, 4), (3, 4)]


def test_a_word_starts_near_its_translation(tokenizer):
    rows = [encode_pair(pair, tokenizer) for pair in PAIRS]
    vectors = start_vectors(rows, tokenizer.get_vocab_size(), 32)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))
    place = {word: tokenizer.token_to_id(word) for word in ("▁file", "文件", "▁window", "窗口")}
    assert None not in place.values(), tokenizer.get_vocab()
    near = vectors @ vectors.T
    assert near[place["▁file"], place["文件"]] > near[place["▁file"], place["窗口"]]
    assert near[place["▁window"], place["窗口"]] > near[place["▁window"], place["文件"]]


def test_it_learns_and_keeps_placeholders(translator):
    said = translator.translate([pair.source for pair in PAIRS])
    assert said == [pair.target for pair in PAIRS]
    assert translator.translate(["Open the file {name}"]) == ["打开文件 {name}"]
    assert translator.translate([]) == []


def test_beams_and_batches_do_not_change_the_order(translator):
    sources = [pair.source for pair in PAIRS]
    assert translator.translate(sources, num_beams=3, batch_size=2) == [pair.target for pair in PAIRS]


def test_what_is_written_has_no_marks_of_its_ends(translator):
    ids = write_ids(translator.model, torch.tensor([[*translator.tokenizer.encode("open").ids, EOS]]))[0]
    assert not {BOS, EOS, PAD} & set(ids)


def test_a_saved_translator_says_the_same(translator, tmp_path):
    translator.save(tmp_path / "deep" / "model")
    again = Translator.load(tmp_path / "deep" / "model")
    sources = [pair.source for pair in PAIRS]
    assert again.translate(sources) == translator.translate(sources)
    assert again.model.decoder.embeddings.tokens is again.model.encoder.embeddings.tokens


def test_bad_pairs_and_texts_are_named_by_their_row(translator):
    with pytest.raises(ValueError, match="no pairs"):
        train_translator([])
    with pytest.raises(ValueError, match=r"^row 2: '%\(b\)s' .* is not a placeholder of its source"):
        train_translator([PAIRS[0], Pair("Open %(a)s", "打开 %(b)s")])
    with pytest.raises(ValueError, match=r"^text 1: 5 placeholders"):
        translator.translate(["Open", "{a}{b}{c}{d}{e}"])
