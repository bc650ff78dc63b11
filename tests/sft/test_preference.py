"""Preferences: what is drawn and scored, the losses against their formulas, what training moves, what is refused."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
from transformers import (
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    LlamaConfig,
    LlamaForCausalLM,
    TrainerCallback,
)

from sft import preference
from sft.chat import Reply, encode_conversation
from sft.hub import PRETRAINED
from sft.instruction import IGNORED

GOOD, BAD = ([{"role": "user", "content": text}] for text in ("写一条好评。", "我要一条差评，快点。"))


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(PRETRAINED / "mini-gpt-zh")


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, bos_token_id=2, eos_token_id=3, pad_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def collate(tokenizer):
    return DataCollatorForSeq2Seq(tokenizer)


@pytest.fixture
def pairs(tokenizer):
    told = [preference.Pair(GOOD, "很好", "不好说"), preference.Pair(BAD, "太差了", "很好")]
    return preference.encode_pairs(told, tokenizer)


# --- answers and their rewards -------------------------------------------------------------------------


def test_answers_stand_in_order_and_have_labels_where_something_was_said(model, tokenizer):
    batch = preference.rollout(model, tokenizer, [GOOD, BAD], 3, 5)
    assert {name: len(rows) for name, rows in batch.items()} == dict.fromkeys(batch, 6)
    for row, ids in enumerate(batch["input_ids"].tolist()):
        prompt = tokenizer.apply_chat_template(
            (GOOD, BAD)[row // 3], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        end = len(ids) - 5
        assert ids[end - len(prompt) : end] == prompt
        assert batch["labels"][row, :end].eq(IGNORED).all()
        assert batch["attention_mask"][row].tolist()[: end - len(prompt)] == [0] * (end - len(prompt))


def test_an_answer_ends_with_its_first_end(model, tokenizer, monkeypatch):
    eos, pad, word = tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.convert_tokens_to_ids("好")
    written = torch.tensor([[word, eos, pad], [word, word, word]])

    def generate(input_ids, **_):
        return torch.cat([input_ids.repeat_interleave(2, 0), written], 1)

    monkeypatch.setattr(model, "generate", generate)
    batch = preference.rollout(model, tokenizer, [GOOD], 2, 3)
    assert batch["labels"][:, -3:].tolist() == [[word, eos, IGNORED], [word, word, word]]
    assert batch["attention_mask"][:, -3:].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert preference.read_replies(batch, tokenizer) == [Reply("好", True), Reply("好好好", False)]


def test_log_probabilities_are_the_models_loss_and_do_not_see_the_padding(model, tokenizer, collate):
    rows = [
        encode_conversation([*asked, {"role": "assistant", "content": "【好评】很好。"}], tokenizer)
        for asked in (GOOD, BAD)
    ]
    batch = collate(rows)
    log_p = preference.token_log_probs(model, batch).detach()
    assert -log_p.sum() / (batch["labels"][:, 1:] != IGNORED).sum() == pytest.approx(
        model(**batch).loss.item()
    )
    alone = [preference.token_log_probs(model, collate([row])).sum().item() for row in rows]
    assert log_p.sum(1).tolist() == pytest.approx(alone, abs=1e-4)


def test_left_and_right_padding_give_the_same_log_probabilities(model, tokenizer, collate):
    batch = preference.rollout(model, tokenizer, [GOOD, BAD], 2, 4)
    rows = [
        {name: values[row][batch["attention_mask"][row] == 1].tolist() for name, values in batch.items()}
        for row in range(4)
    ]
    again = preference.token_log_probs(model, collate(rows)).sum(1).detach()
    assert preference.token_log_probs(model, batch).sum(1).tolist() == pytest.approx(again.tolist(), abs=1e-4)


def test_rewards_come_back_by_request(model, tokenizer):
    def reward(asked, said):
        return [len(request[-1]["content"]) for request in asked]

    said, rewards = preference.reward_of(model, tokenizer, [GOOD, BAD, GOOD], reward, 2, 3, batch_size=2)
    assert [len(answers) for answers in said] == [2, 2, 2]
    assert rewards.tolist() == [[6, 6], [10, 10], [6, 6]]


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_reward_that_is_no_number_is_refused_with_its_row_and_text(value):
    said = [Reply("很好", True), Reply("", True)]
    with pytest.raises(
        ValueError, match=r"^row 1: the reward of '' to '我要一条差评，快点。' is \w+; "
    ) as error:
        preference.check_rewards([0.5, value], [GOOD, BAD], said)
    assert "\n" not in str(error.value)


def test_rewards_must_be_as_many_as_answers():
    with pytest.raises(ValueError, match="gave 1 rewards for 2 answers"):
        preference.check_rewards([0.5], [GOOD, GOOD], [Reply("好", True)] * 2)


def test_training_stops_at_a_reward_that_is_no_number(model, tokenizer):
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"^row 0: the reward of"):
        preference.grpo(
            model, model, tokenizer, [GOOD], lambda _, said: [math.nan] * len(said),
            num_steps=1, lr=1e-3, beta=0.0, n=2, max_new_tokens=2,
        )  # fmt: skip
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


# --- pairs: DPO ----------------------------------------------------------------------------------------


def test_pairs_are_the_best_with_the_worst_of_those_that_ended():
    said = [[Reply(text, text != "长") for text in "甲乙丙丁长"]]
    found = preference.make_pairs([GOOD], said, np.array([[0.1, 0.9, 0.4, 0.6, 1.0]]), top=5)
    assert [(pair.chosen, pair.rejected) for pair in found] == [("乙", "甲"), ("丁", "丙")]
    found = preference.make_pairs([GOOD], said, np.array([[0.1, 0.9, 0.4, 0.6, 1.0]]), top=5, above=0.1)
    assert [(pair.chosen, pair.rejected) for pair in found] == [("乙", "丙")]
    with pytest.raises(ValueError, match=r"^no pair from 1 requests"):
        preference.make_pairs([GOOD], said, np.full((1, 5), 0.5), top=5)


def test_dpo_loss_by_hand():
    """The chosen one gains 2 and loses 1, the rejected one loses 3 and 6."""
    log_p, reference = torch.tensor([-8.0, -11, -13, -16]), torch.full((4,), -10.0)
    expected = -math.log(1 / (1 + math.exp(-0.1 * 5)))
    assert preference.dpo_loss(log_p, reference, 0.1).item() == pytest.approx(expected)
    assert preference.dpo_loss(reference, reference, 0.1).item() == pytest.approx(math.log(2))


def test_dpo_begins_at_ln_2_and_moves_chosen_over_rejected(model, pairs, collate):
    reference = copy.deepcopy(model)
    losses = preference.dpo(model, reference, pairs, collate, lr=1e-3, beta=0.1, num_epochs=5, batch_size=2)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert losses[-1] < losses[0]
    gained = preference.margins(model, reference, pairs, collate, batch_size=1)
    assert gained.shape == (2, 2)
    assert (gained[:, 0] > gained[:, 1]).all()
    assert preference.margins(reference, reference, pairs, collate).tolist() == [[0, 0], [0, 0]]


def test_one_seed_one_dpo(model, pairs, collate):
    runs = [
        preference.dpo(
            copy.deepcopy(model), model, pairs, collate, lr=1e-3, beta=0.1, num_epochs=3, batch_size=1
        )
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


# --- rewards: GRPO -------------------------------------------------------------------------------------


def test_advantages_compare_within_the_group():
    A = preference.group_advantages(torch.tensor([[1.0, 0, 0, 1], [5, 5, 5, 5]]))
    assert A[0].tolist() == pytest.approx([0.866, -0.866, -0.866, 0.866], abs=1e-3)
    assert A[1].tolist() == [0, 0, 0, 0]


def test_the_first_update_follows_the_policy_gradient(model, tokenizer):
    batch = preference.rollout(model, tokenizer, [GOOD], 4, 3)
    A, mask = torch.tensor([1.0, -1, 0.5, -0.5]), batch["labels"][:, 1:] != IGNORED

    def gradient(loss):
        model.zero_grad()
        loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    log_p = preference.token_log_probs(model, batch)
    ours = gradient(preference.grpo_loss(log_p, log_p.detach(), log_p.detach(), A, mask, beta=0.0))
    log_p = preference.token_log_probs(model, batch)
    plain = gradient(-(A * (log_p * mask).sum(1) / mask.sum(1)).mean())
    assert torch.allclose(ours, plain, atol=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"), [(1.1, 1, True), (1.3, 1, False), (0.7, 1, True), (0.7, -1, False)]
)
def test_a_token_that_moved_far_enough_is_left_alone(ratio, advantage, moves):
    log_p = torch.tensor([[math.log(ratio)]], requires_grad=True)
    old = reference = torch.zeros(1, 1)
    mask = torch.ones(1, 1, dtype=torch.bool)
    preference.grpo_loss(log_p, old, reference, torch.tensor([float(advantage)]), mask, beta=0.0).backward()
    assert (log_p.grad.abs().item() > 0) == moves


def test_the_distance_is_kl_on_average_and_pulls_back():
    torch.manual_seed(0)
    p, q = torch.randn(6).log_softmax(0), torch.randn(6).log_softmax(0)
    drawn = torch.multinomial(p.exp(), 200_000, replacement=True)
    log_p, reference = p[drawn][:, None], q[drawn][:, None]
    mask = torch.ones_like(log_p)
    estimate = preference.grpo_loss(log_p, log_p, reference, torch.zeros(len(drawn)), mask, beta=1.0)
    assert estimate.item() == pytest.approx((p.exp() * (p - q)).sum().item(), rel=0.03)


@pytest.mark.slow  # imports TRL
@pytest.mark.parametrize("weighted", [False, True], ids=["as in the paper", "as TRL weights the distance"])
def test_trl_follows_the_same_gradient(model, tokenizer, tmp_path, monkeypatch, weighted):
    """The whole gradient, with a distance from the reference; TRL weights that by the ratio unless told not to.

    The ratio is one here, so the losses are equal either way, and only the gradients are not.
    """
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    requests, n, beta = [GOOD, BAD], 4, 0.5
    reference = copy.deepcopy(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.03 * torch.randn_like(weight))
    batch = preference.rollout(model, tokenizer, requests, n, 6)
    mask = batch["labels"][:, 1:] != IGNORED
    rewards = torch.tensor([[0.1, 0.9, 0.3, 0.5], [0.2, 0.2, 0.8, 0.6]])
    A = preference.group_advantages(rewards).flatten()

    with torch.no_grad():
        before = preference.token_log_probs(reference, batch)
    log_p = preference.token_log_probs(model, batch)
    loss = preference.grpo_loss(log_p, log_p.detach(), before, A, mask, beta)
    if weighted:
        gap = before - log_p
        distance = (gap.exp() - gap - 1).detach() * log_p * mask  # what the ratio's own gradient adds
        loss = loss + beta * (distance.sum(1) / mask.sum(1)).mean()
    ours = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model, **_):
            self.gradient = torch.cat([p.grad.flatten() for p in model.parameters()])

    reference.save_pretrained(tmp_path / "reference")
    theirs = LlamaForCausalLM.from_pretrained(tmp_path / "reference")  # TRL reads its reference from there
    theirs.load_state_dict(model.state_dict())
    said = [[i for i in row if i != IGNORED] for row in batch["labels"].tolist()]
    asked = [
        ids[kept == 1][: -len(answer)].tolist()
        for ids, kept, answer in zip(batch["input_ids"], batch["attention_mask"], said, strict=True)
    ]
    trainer = GRPOTrainer(
        theirs,
        lambda **_: rewards.flatten().tolist(),
        args=GRPOConfig(
            output_dir=str(tmp_path), use_cpu=True, bf16=False, gradient_checkpointing=False, max_grad_norm=0.0,
            report_to="none", save_strategy="no", disable_tqdm=True, max_steps=1, shuffle_dataset=False,
            loss_type="grpo", beta=beta, num_generations=n, per_device_train_batch_size=2 * n,
            max_completion_length=6, use_bias_correction_kl=weighted,
        ),
        rollout_func=lambda *_: {"prompt_ids": asked, "completion_ids": said, "logprobs": None},
        processing_class=tokenizer,
        train_dataset=Dataset.from_list([{"prompt": request} for request in requests]),
        callbacks=[keep := Keep()],
    )  # fmt: skip
    trainer.train()
    assert ((ours - keep.gradient).norm() / keep.gradient.norm()).item() < 1e-4


def test_padding_counts_for_nothing():
    log_p, mask = torch.tensor([[-1.0, -2, -9], [-1, -1, -1]]), torch.tensor([[1, 1, 0], [1, 1, 1]])
    other = log_p.clone()
    other[0, 2] = -1
    A, reference = torch.tensor([1.0, -1]), torch.full((2, 3), -1.5)
    losses = [preference.grpo_loss(x, x, reference, A, mask, beta=0.1).item() for x in (log_p, other)]
    assert losses[0] == losses[1]


def test_grpo_raises_a_reward_that_can_be_checked(model, tokenizer):
    """The reward: how many of an answer's tokens are among those that the model thought likely at first."""
    prompt = tokenizer.apply_chat_template(
        GOOD, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    likely = set(model(**prompt).logits[0, -1].topk(500).indices.tolist())

    def reward(_, said):
        ids = [tokenizer(one.text, add_special_tokens=False)["input_ids"] for one in said]
        return [np.mean([i in likely for i in row]) if row else 0.0 for row in ids]

    curve = preference.grpo(
        model, copy.deepcopy(model), tokenizer, [GOOD], reward,
        num_steps=20, lr=5e-3, beta=0.0, n=32, max_new_tokens=3, num_updates=2,
    )  # fmt: skip
    assert len(curve) == 20
    assert np.mean(curve[-5:]) > np.mean(curve[:5]) + 0.1


# --- pairs of one's own --------------------------------------------------------------------------------

ANSWERS = {"chosen": "很好", "rejected": "不好"}


def talk(text: str) -> list[dict]:
    return [*GOOD, {"role": "assistant", "content": text}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": GOOD[0]["content"], **ANSWERS},
        {"prompt": GOOD, **ANSWERS},
        {"prompt": GOOD, **{name: talk(text)[1:] for name, text in ANSWERS.items()}},
        {name: talk(text) for name, text in ANSWERS.items()},
    ],
    ids=["texts", "messages and texts", "messages", "without a prompt"],
)
def test_the_forms_that_trl_takes(row):
    assert preference.read_preferences([row]) == [preference.Pair(GOOD, "很好", "不好")]


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"prompt": "问", "chosen": "好"}, "rejected missing or empty"),
        ({"prompt": "问", "answer": "好"}, "chosen and rejected missing or empty"),
        ({"prompt": "问", "chosen": "好", "rejected": ""}, "rejected missing or empty"),
        ({"prompt": "问", "chosen": "好", "rejected": "好 "}, "are the same"),
        (ANSWERS, "no prompt"),
        ({"prompt": 3, **ANSWERS}, "no prompt"),
        ({"chosen": talk("好"), "rejected": [*BAD, talk("差")[1]]}, "begin with different messages"),
        ({"prompt": GOOD, "chosen": GOOD, "rejected": talk("差")}, "chosen is neither"),
        ({"prompt": GOOD, "chosen": 5, "rejected": "差"}, "chosen is neither"),
    ],
)
def test_a_pair_that_cannot_be_learned_is_refused_with_its_row(row, wanted):
    good = {"prompt": "问", **ANSWERS}
    with pytest.raises(ValueError, match=f"^row 1: .*{wanted}") as error:
        preference.read_preferences([good, row])
    assert "\n" not in str(error.value)


def test_a_file_of_pairs(tmp_path):
    file = tmp_path / "偏好.jsonl"
    line = json.dumps({"prompt": "写一条好评。", **ANSWERS}, ensure_ascii=False)
    file.write_text(f"\ufeff{line}\n\n{line}\n", encoding="utf-8")
    assert preference.read_preference_file(file) == [preference.Pair(GOOD, "很好", "不好")] * 2


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("", "holds no pair"), ('{"a": 1}\n{"a"', "line 2: not JSON"), ("[1]", "line 1: not an object")],
)
def test_a_file_that_is_none_is_refused(text, wanted, tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=wanted):
        preference.read_preference_file(file)
