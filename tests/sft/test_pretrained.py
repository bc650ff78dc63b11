"""The shipped models: whole, small, theirs the promised abilities, and cards that say what was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from benchmarks import language_models, mini_bert
from recipes.texts import load_pretraining_texts
from sft import data
from sft.hub import PRETRAINED
from sft.instruction import dictionary_question, encode_example, mean_answer_loss, tune
from sft.language_modeling import bits_per_character
from sft.training import mean_pool

BERT, GPT = PRETRAINED / "mini-bert-zh", PRETRAINED / "mini-gpt-zh"
RESULTS = Path(mini_bert.__file__).parent / "results"
CPU = torch.device("cpu")
each_model = pytest.mark.parametrize(("folder", "limit"), [(BERT, 25), (GPT, 10)], ids=["bert", "gpt"])


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


@pytest.fixture(scope="module")
def gpt_tokenizer():
    return AutoTokenizer.from_pretrained(GPT)


@pytest.fixture
def gpt():
    model, report = AutoModelForCausalLM.from_pretrained(GPT, dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"]
    return model.eval()


# --- files ---------------------------------------------------------------------------------------------


@each_model
def test_the_weights_are_small_and_half_precision(folder, limit):
    weights = folder / "model.safetensors"
    assert weights.stat().st_size <= limit * 1_000_000
    with safe_open(weights, "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
        assert all(torch.isfinite(file.get_tensor(name)).all() for name in file.keys())  # noqa: SIM118


@pytest.fixture(scope="module")
def texts() -> str:
    """Fingerprint of today's texts."""
    return data.fingerprint(load_pretraining_texts())


@pytest.mark.slow
@each_model
def test_the_training_record_names_today_s_texts(texts, folder, limit):
    decides = json.loads((folder / "training_config.json").read_text(encoding="utf-8"))["decides"]
    assert decides["texts"] == texts
    assert decides["limit"] is None
    lines = (folder / "training_log.jsonl").read_text(encoding="utf-8").splitlines()
    first, *_, last = map(json.loads, lines)
    for name in first.keys() & {"loss", "hidden", "sentence", "pooler", "masked_lm"}:
        assert last[name] < first[name], name


@each_model
def test_no_machine_path_is_published(folder, limit):
    for file in folder.glob("*.json*"):
        assert not re.search(r'"(/|[A-Z]:\\\\)[A-Za-z]', file.read_text(encoding="utf-8")), file.name


def test_the_cards_say_what_was_measured():
    for folder, module in ((BERT, mini_bert), (GPT, language_models)):
        found = json.loads((RESULTS / f"{module.__name__.split('.')[1]}.json").read_text(encoding="utf-8"))
        assert module.summarise(found) in (folder / "README.md").read_text(encoding="utf-8")


# --- mini-bert-zh --------------------------------------------------------------------------------------


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


# --- mini-gpt-zh ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_mini_gpt_needs_as_few_bits_as_its_card_says(gpt, gpt_tokenizer):
    """The card's figure is of the whole held-out week; a thirtieth of it is enough to know the weights again."""
    found = json.loads((RESULTS / "language_models.json").read_text(encoding="utf-8"))
    assert found["ratio_to_kneser_ney"] < 0.9
    held_out = data.load_people_daily()["test"]["text"][::30]
    bits = bits_per_character(gpt, held_out, gpt_tokenizer)
    assert bits == pytest.approx(found["bits_per_character"]["mini_gpt"], abs=0.3)


def test_mini_gpt_ends_its_texts(gpt, gpt_tokenizer):
    torch.manual_seed(0)
    ids = torch.tensor([gpt_tokenizer("房间很", return_attention_mask=False)["input_ids"][:-1]])
    written = gpt.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=300, do_sample=True, num_return_sequences=8
    )
    assert (written == gpt_tokenizer.sep_token_id).any(dim=1).float().mean() >= 0.5


@pytest.mark.slow
def test_mini_gpt_learns_to_answer_from_a_handful_of_dictionary_questions(gpt, gpt_tokenizer):
    splits = data.load_dictionary()
    train, test = (
        [encode_example(gpt_tokenizer, dictionary_question(word), meaning, 64)
         for word, meaning in zip(*splits[name][:rows].values(), strict=True)]
        for name, rows in (("train", 256), ("test", 64))
    )  # fmt: skip
    before = mean_answer_loss(gpt, test, gpt_tokenizer.pad_token_id, CPU)
    tune(gpt, train, gpt_tokenizer.pad_token_id, CPU)
    assert mean_answer_loss(gpt, test, gpt_tokenizer.pad_token_id, CPU) < 0.95 * before
