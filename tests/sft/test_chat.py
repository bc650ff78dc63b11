"""Conversations: what is learned of them, what is refused, and what tuning leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, pipeline

from recipes.tokenizer import CHAT_TEMPLATE, with_chat
from sft import chat
from sft.hub import PRETRAINED, HubError
from sft.instruction import IGNORED

GPT = PRETRAINED / "mini-gpt-zh"
ASK, SAY = {"role": "user", "content": "什么是“海”？"}, {"role": "assistant", "content": "【释义】大片的水。"}
MORE, SAY_MORE = {"role": "user", "content": "那“江”呢？"}, {"role": "assistant", "content": "【释义】大河。"}


@pytest.fixture
def tokenizer():
    return AutoTokenizer.from_pretrained(GPT)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(GPT, dtype=torch.float32).eval()


def said(encoded, tokenizer) -> str:
    return tokenizer.decode([label for label in encoded["labels"] if label != IGNORED])


# --- what is learned -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "messages",
    [[ASK, SAY], [ASK, SAY, MORE, SAY_MORE], [{"role": "system", "content": "简短。"}, ASK, SAY]],
    ids=["one turn", "two turns", "with a system message"],
)
def test_the_loss_lies_on_every_assistant_turn_and_its_end_and_nowhere_else(messages, tokenizer):
    encoded = chat.encode_conversation(messages, tokenizer, 64)
    spoken = [message["content"] for message in messages if message["role"] == "assistant"]
    assert said(encoded, tokenizer) == "".join(text + "[SEP]" for text in spoken)
    assert all(label in (token, IGNORED) for token, label in zip(*encoded.values(), strict=True))


def test_labels_begin_where_generation_begins(tokenizer):
    encoded = chat.encode_conversation([ASK, SAY], tokenizer)
    prompt = tokenizer.apply_chat_template([ASK], add_generation_prompt=True, return_dict=True)["input_ids"]
    assert encoded["input_ids"][: len(prompt)] == prompt
    assert encoded["labels"][: len(prompt)] == [IGNORED] * len(prompt)
    assert IGNORED not in encoded["labels"][len(prompt) :]


def test_what_comes_after_max_length_is_cut(tokenizer):
    whole = chat.encode_conversation([ASK, SAY, MORE, SAY_MORE], tokenizer)
    cut = chat.encode_conversation([ASK, SAY, MORE, SAY_MORE], tokenizer, 30)
    assert {name: ids[:30] for name, ids in whole.items()} == cut


def test_a_plain_text_has_a_label_everywhere_and_ends(tokenizer):
    encoded = chat.encode_text("海水是咸的。", tokenizer, 64)
    assert encoded["labels"] == encoded["input_ids"]
    assert tokenizer.decode(encoded["input_ids"]) == "[CLS]海水是咸的。[SEP]"


# --- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "wanted"),
    [
        ([], "no assistant turn"),
        ([ASK], "no assistant turn"),
        ([SAY, ASK], "message 1 is of 'assistant', expected 'user'"),
        ([ASK, ASK, SAY], "message 2 is of 'user', expected 'assistant'"),
        ([ASK, SAY, {"role": "system", "content": "简短。"}], "message 3 is of 'system'"),
        ([ASK, SAY, MORE], "nothing answers it"),
        ([ASK, {"role": "assistant", "content": " "}], r"message 2 \(assistant\) is empty"),
        ([ASK, {"role": "assistant", "content": None}], r"message 2 \(assistant\) is empty"),
        ([{"role": "user", "content": "海[SEP]助手：江"}, SAY], r"message 1 holds \[SEP\]"),
    ],
)
def test_a_conversation_that_cannot_be_learned_is_refused_with_its_row(messages, wanted, tokenizer):
    with pytest.raises(ValueError, match=f"^row 7: .*{wanted}"):
        chat.encode_conversation(messages, tokenizer, 64, row=7)


def test_an_answer_cut_away_is_refused(tokenizer):
    with pytest.raises(ValueError, match=r"^row 0: the first answer begins after max_length=12 tokens"):
        chat.encode_conversation([ASK, SAY], tokenizer, 12, row=0)


def test_a_template_that_changes_a_closed_turn_is_refused(tokenizer):
    """As Qwen3's does: what the last turn says is written otherwise once another follows."""
    said_last = "{{ ('（想）' if loop.last else '') + message.content + eos_token }}"
    tokenizer.chat_template = (
        "{% for message in messages %}{% if message.role == 'assistant' %}{% generation %}"
        + said_last
        + "{% endgeneration %}{% else %}{{ message.content + eos_token }}{% endif %}{% endfor %}"
    )
    assert chat.encode_conversation([ASK, SAY], tokenizer)["labels"]
    with pytest.raises(ValueError, match=r"^row 1: the chat template re-opens turn 2"):
        chat.encode_conversation([ASK, SAY, MORE, SAY_MORE], tokenizer, row=1)


def test_a_template_that_opens_a_turn_otherwise_for_generation_is_refused(tokenizer):
    tokenizer.chat_template = CHAT_TEMPLATE.replace(
        "add_generation_prompt -%}{{- '助手：'", "add_generation_prompt -%}{{- '答：'"
    )
    with pytest.raises(ValueError, match="opens turn 2 in training otherwise than for generation"):
        chat.encode_conversation([ASK, SAY], tokenizer)


def test_a_template_without_marks_is_replaced_where_that_is_known(tokenizer):
    own = tokenizer.chat_template
    chat.set_training_template(tokenizer)
    assert tokenizer.chat_template == own
    tokenizer.chat_template = own.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")
    with pytest.raises(ValueError, match=r"no \{% generation %\} marks"):
        chat.set_training_template(tokenizer)
    with pytest.raises(ValueError, match=r"call sft\.chat\.set_training_template first"):
        chat.encode_conversation([ASK, SAY], tokenizer)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    chat.set_training_template(tokenizer)
    encoded = chat.encode_conversation([ASK, SAY, MORE, SAY_MORE], tokenizer)
    assert said(encoded, tokenizer) == f"{SAY['content']}<|im_end|>{SAY_MORE['content']}<|im_end|>"


# --- rows of instruction data --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [ASK, SAY]},
        {
            "conversations": [
                {"from": "human", "value": ASK["content"]},
                {"from": "gpt", "value": SAY["content"]},
            ]
        },
        {"prompt": ASK["content"], "answer": SAY["content"]},
        {"instruction": ASK["content"], "input": "", "output": SAY["content"]},
        {"question": ASK["content"], "response": SAY["content"], "id": 3},
    ],
    ids=["messages", "ShareGPT", "prompt", "Alpaca", "question"],
)
def test_the_usual_columns_are_known(row):
    assert chat.read_conversations([row]) == [[ASK, SAY]]


def test_an_input_belongs_to_its_instruction():
    (messages,) = chat.read_conversations([{"instruction": "译成英文", "input": "海", "output": "sea"}])
    assert messages[0]["content"] == "译成英文\n海"


@pytest.mark.parametrize("row", [{"text": "海"}, {"prompt": "海"}, {"prompt": "海", "answer": 3}, {}])
def test_other_columns_are_refused_with_their_row(row):
    with pytest.raises(ValueError, match=r"^row 1: no conversation in the columns"):
        chat.read_conversations([{"prompt": "海", "answer": "江"}, row])


def test_a_data_set_gives_what_can_be_learned_whole(tmp_path, tokenizer):
    rows = [
        {"instruction": "什么是海？", "input": "", "output": "大片的水。"},
        {"instruction": "长" * 80, "input": "", "output": "太长。"},
        {"instruction": "空的", "input": "", "output": "[SEP]"},
        {"instruction": "什么是江？", "input": "", "output": "大河。"},
        {"instruction": "不到这里", "input": "", "output": "够了。"},
    ]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "train.jsonl").write_text(lines, encoding="utf-8")
    kept, passed = chat.load_conversations(str(tmp_path), tokenizer, 48, 2)
    assert [messages[1]["content"] for messages in kept] == ["大片的水。", "大河。"] and passed == 2


# --- loss and replies ----------------------------------------------------------------------------------


def test_the_loss_is_of_all_tokens_alike_however_rows_are_batched(model, tokenizer):
    rows = [
        chat.encode_conversation([ASK, {"role": "assistant", "content": text}], tokenizer)
        for text in ("水。", "大片的水，又咸又深，看不到边。", "江。")
    ]
    collate = DataCollatorForSeq2Seq(tokenizer)
    sizes = [sum(label != IGNORED for label in row["labels"]) for row in rows]
    alone = [chat.held_out_loss(model, [row], collate) for row in rows]
    wanted = sum(size * loss for size, loss in zip(sizes, alone, strict=True)) / sum(sizes)
    for batch_size in (1, 2, 3):
        found = chat.held_out_loss(model, rows, collate, batch_size)
        assert found == pytest.approx(wanted, rel=2e-3)  # bfloat16, where the machine has it


def test_replies_do_not_depend_on_their_neighbours(model, tokenizer):
    talks = [[ASK], [ASK, SAY, MORE], [{"role": "user", "content": "写"}]]
    together = chat.replies(model, tokenizer, talks, max_new_tokens=12, do_sample=False)
    alone = [chat.replies(model, tokenizer, [talk], max_new_tokens=12, do_sample=False)[0] for talk in talks]
    assert together == alone
    assert all("[SEP]" not in one.text and " " not in one.text for one in together)


# --- what the shipped folder and a tuned one hold --------------------------------------------------------


def test_the_shipped_tokenizer_is_what_with_chat_makes(tmp_path, tokenizer):
    with_chat(tokenizer).save_pretrained(tmp_path)
    for file in sorted(tmp_path.iterdir()):
        assert file.read_text(encoding="utf-8") == (GPT / file.name).read_text(encoding="utf-8"), file.name
    assert (GPT / "chat_template.jinja").read_text(encoding="utf-8") == CHAT_TEMPLATE
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("[CLS]", "[SEP]", "[PAD]")


def test_the_shipped_model_knows_where_to_end(model):
    config = model.generation_config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (2, 3, 0)


@pytest.mark.slow
def test_tuning_leaves_a_folder_that_a_pipeline_talks_to(tmp_path):
    rows = [
        [{"role": "user", "content": f"{a}和{b}？"}, {"role": "assistant", "content": f"【和】{a}{b}"}]
        for a in "海江河湖" for b in "山石沙土"
    ]  # fmt: skip
    done = chat.tune_chat(rows[:12], rows[12:], num_epochs=6, batch_size=4, out=tmp_path / "model")
    assert done.loss_after < 0.5 * done.loss_before
    assert len(done.history) == 6 * -(-17 // 4)  # 12 conversations, 5 plain texts
    assert [sample.prompt for sample in done.samples] == [row[0]["content"] for row in rows[12:]]
    talk = pipeline("text-generation", str(tmp_path / "model"), device="cpu")
    answer = talk([rows[12][0]], do_sample=False)[0]["generated_text"][-1]
    assert answer == {"role": "assistant", "content": done.samples[0].after}
    assert answer["content"].startswith("【和】")


def test_tuning_names_the_row_that_cannot_be_learned_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"^row 1: no assistant turn"):
        chat.tune_chat([[ASK, SAY], [ASK]], [[ASK, SAY]], out=tmp_path / "model")
    with pytest.raises(ValueError, match=r"^0 conversations to train on and 1 held out"):
        chat.tune_chat([], [[ASK, SAY]], out=tmp_path / "model")
    assert list(Path(tmp_path).iterdir()) == []


def test_an_unknown_data_set_is_a_clear_error(tokenizer, monkeypatch, tmp_path):
    monkeypatch.setenv("BOOK_HUB", str(tmp_path))
    with pytest.raises(HubError, match="there is no folder"):
        chat.load_conversations("nobody/nothing", tokenizer, 64, 3)
