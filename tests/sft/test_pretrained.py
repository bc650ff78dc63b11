"""The shipped models: whole, small, theirs the promised abilities, and cards that say what was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from benchmarks import mini_bert
from sft import data
from sft.distill import mean_pool

ROOT = Path(__file__).parents[2]
BERT = ROOT / "sft" / "pretrained" / "mini-bert-zh"


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(BERT)


@pytest.fixture(scope="module")
def encoder():
    model, report = AutoModel.from_pretrained(BERT, dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"]
    return model.eval()


@pytest.fixture(scope="module")
def filler():
    model, report = AutoModelForMaskedLM.from_pretrained(BERT, dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"]
    return model.eval()


def vectors(encoder, tokenizer, texts):
    encoded = tokenizer(texts, return_tensors="pt", padding=True)
    with torch.inference_mode():
        hidden = encoder(**encoded).last_hidden_state
    return torch.nn.functional.normalize(mean_pool(hidden, encoded["attention_mask"]), dim=-1).numpy()


def test_the_weights_are_small_and_half_precision():
    weights = BERT / "model.safetensors"
    assert weights.stat().st_size <= 25_000_000
    with safe_open(weights, "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
        assert all(torch.isfinite(file.get_tensor(name)).all() for name in file.keys())  # noqa: SIM118


def test_the_tokenizer_follows_bert(tokenizer):
    assert type(tokenizer).__name__.startswith("BertTokenizer")
    assert tokenizer.convert_ids_to_tokens(tokenizer("我喜欢GPT2。")["input_ids"]) == [
        "[CLS]", "我", "喜", "欢", "g", "##p", "##t", "##2", "。", "[SEP]",
    ]  # fmt: skip
    assert [tokenizer.pad_token_id, tokenizer.unk_token_id] == [0, 1]
    assert tokenizer.unk_token_id not in tokenizer("齄鼾鼽")["input_ids"]  # the end of GB 2312


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("酒店的房间很干[MASK]，服务也不错。", "净"),
        ("这家宾馆的服务员态度很[MASK]。", "好差热"),
        ("中共中央总书记、国家主席江泽[MASK]", "民"),
        ("一九九八年一[MASK]二十日", "月"),
    ],
)
def test_masks_are_filled_sensibly(filler, tokenizer, text, wanted):
    encoded = tokenizer(text, return_tensors="pt")
    place = (encoded["input_ids"][0] == tokenizer.mask_token_id).nonzero().item()
    with torch.inference_mode():
        best = filler(**encoded).logits[0, place].topk(3).indices
    assert set(tokenizer.convert_ids_to_tokens(best.tolist())) & set(wanted)


def test_like_meanings_lie_nearer_than_like_characters(encoder, tokenizer):
    texts = ["房间很干净", "屋子非常整洁", "房间很吵闹", "电脑老是死机", "笔记本经常蓝屏"]
    similarity = vectors(encoder, tokenizer, texts) @ vectors(encoder, tokenizer, texts).T
    assert similarity[0, 1] > similarity[0, 3] and similarity[3, 4] > similarity[3, 0]


def test_padding_changes_nothing(encoder, tokenizer):
    alone = vectors(encoder, tokenizer, ["服务很好"])
    beside = vectors(encoder, tokenizer, ["服务很好", "这是一句长得多的话，用来把前一句补到同样的长度。"])
    np.testing.assert_allclose(alone[0], beside[0], atol=1e-5)


def test_the_training_record_names_today_s_texts():
    decides = json.loads((BERT / "training_config.json").read_text(encoding="utf-8"))["decides"]
    assert decides["texts"] == data.fingerprint(data.load_pretraining_texts())
    assert decides["limit"] is None
    log = [
        json.loads(line) for line in (BERT / "training_log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert log[-1]["hidden"] < log[0]["hidden"] and log[-1]["masked_lm"] < log[0]["masked_lm"]


@pytest.mark.parametrize("file", sorted(p.name for p in BERT.glob("*.json*")))
def test_no_machine_path_is_published(file):
    assert not re.search(r'"(/|[A-Z]:\\\\)[A-Za-z]', (BERT / file).read_text(encoding="utf-8"))


def test_the_card_says_what_was_measured():
    results = json.loads((ROOT / "benchmarks" / "results" / "mini_bert.json").read_text(encoding="utf-8"))
    card = (BERT / "README.md").read_text(encoding="utf-8")
    assert mini_bert.summarise(results["results"], 5) in card
