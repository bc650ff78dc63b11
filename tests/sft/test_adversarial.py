"""`sft/adversarial.py`: who sounds and looks alike, and an attack against every single replacement tried out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import BertForSequenceClassification

from recipes.tokenizer import build_char_tokenizer
from sft import adversarial
from tests.sft.tiny_classifier import tiny_config

TEXTS = ["请坐，天气很晴", "清水未来", "末日情人", "绿色旅行路"]


@pytest.fixture(scope="module")
def alike() -> dict[str, list[str]]:
    return adversarial.homophones(list("请清情晴绿旅路行"))


def test_homophones_forget_the_tone_but_not_the_umlaut(alike: dict[str, list[str]]):
    assert alike["请"] == ["清", "情", "晴"]
    assert alike["绿"] == ["旅"]  # lǜ, lǚ
    assert "路" not in alike  # lù
    assert "行" not in alike


def test_look_alikes_share_nearly_all_strokes():
    found = adversarial.look_alikes(list("未末请清水行"), least=0.5)
    assert found["未"][0] == "末" and found["末"][0] == "未"
    assert "清" in found["请"]
    assert "行" not in found.get("未", [])


def test_glyphs_are_pictures_of_length_one():
    pictures = adversarial.glyphs(["未", "水"])
    np.testing.assert_allclose(np.linalg.norm(pictures, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(pictures.mean(axis=1), 0, atol=1e-6)


def test_frequent_characters_are_chinese_and_known():
    tokenizer = build_char_tokenizer(TEXTS, min_count=1)
    assert adversarial.frequent_characters(["请请坐a，鑫鑫鑫"], tokenizer, 5) == ["请", "坐"]


@pytest.fixture
def scene(alike: dict[str, list[str]]):
    torch.manual_seed(0)
    tokenizer = build_char_tokenizer(TEXTS, min_count=1)
    bert = BertForSequenceClassification(tiny_config(len(tokenizer))).eval()
    words = bert.get_input_embeddings()

    def model(embedded: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return bert(inputs_embeds=embedded, attention_mask=mask).logits

    table = adversarial.replacement_table(tokenizer, alike, most=3)
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        labels = bert(**batch).logits.argmax(-1)
    return tokenizer, (model, words), table, batch["input_ids"], batch["attention_mask"], labels


def test_the_table_offers_only_what_may_stand_there(scene):
    tokenizer, _, table, *_ = scene
    offered = {tokenizer.convert_ids_to_tokens(int(i)) for i in table[tokenizer.vocab["请"]]}
    assert offered == {"清", "情", "晴"}
    assert (table[tokenizer.vocab["水"]] == tokenizer.vocab["水"]).all()


def test_an_attack_changes_few_places_and_raises_the_loss(scene):
    _, model, table, ids, mask, labels = scene
    changed = adversarial.attack(*model, ids, mask, labels, table, flips=2)
    places, (read, words) = changed != ids, model
    assert places.any() and (places.sum(1) <= 2).all()
    assert all(new in table[old] for old, new in zip(ids[places], changed[places], strict=True))
    with torch.no_grad():
        before, after = (F.cross_entropy(read(words(x), mask), labels).item() for x in (ids, changed))
    assert after > before


def test_one_flip_is_nearly_the_worst_of_all(scene):
    """For small vectors the first order decides: no single replacement tried out does clearly more harm."""
    _, model, table, ids, mask, labels = scene
    row, (read, words) = slice(0, 1), model
    changed = adversarial.attack(*model, ids[row], mask[row], labels[row], table, flips=1)

    @torch.no_grad()
    def loss(x: torch.Tensor) -> float:
        return F.cross_entropy(read(words(x), mask[row]), labels[row]).item()

    tried = []
    for place in range(ids.shape[1]):
        for new in table[ids[0, place]].tolist():
            other = ids[row].clone()
            other[0, place] = new
            tried.append(loss(other))
    assert loss(changed) - loss(ids[row]) >= 0.7 * (max(tried) - loss(ids[row]))


def test_a_text_that_is_wrong_already_stays(scene):
    _, model, table, ids, mask, labels = scene
    assert torch.equal(adversarial.attack(*model, ids, mask, 1 - labels, table, flips=2), ids)


def test_blind_replacement_changes_as_many_places(scene):
    tokenizer, _, table, ids, mask, _ = scene
    changed = adversarial.replace_at_random(ids, mask, table, flips=1, seed=0)
    places = changed != ids
    offered = torch.tensor(
        [any(t in map(tokenizer.vocab.get, "请清晴情绿旅") for t in row) for row in ids.tolist()]
    )
    assert torch.equal(places.sum(1), offered.long())
    assert all(new in table[old] for old, new in zip(ids[places], changed[places], strict=True))
