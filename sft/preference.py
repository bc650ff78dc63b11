"""Preferences: several answers to one request, a reward for each, and a model that writes more of the better ones.

Three ways, from the one that trains nothing to the one that samples while it learns: the best of ``n`` answers;
direct preference optimisation (DPO; Rafailov et al. 2023, arXiv:2305.18290) on pairs of answers; group relative
policy optimisation (GRPO; Shao et al. 2024, arXiv:2402.03300) on rewards. Chapter 6.2's second notebook writes the
losses and loops out; they stand here with the same source.

A batch of answers is a mapping of ``input_ids``, ``attention_mask`` and ``labels``, (batch, length); labels are −100
outside what the assistant said.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft.chat import Conversation, Message, Reply, encode_conversation
from sft.instruction import IGNORED

Batch = Mapping[str, torch.Tensor]
Reward = Callable[[Sequence[Conversation], Sequence[Reply]], Sequence[float]]
"""Scores of replies, one each, from the requests that they answer."""


# --- answers and their rewards -------------------------------------------------------------------------


@torch.no_grad()
def rollout(model, tokenizer, requests, n, max_new_tokens, **options):
    """``n`` answers to each request, those of one request side by side; prompts are padded on their left.

    Args:
        requests: conversations whose last message is the user's.
        options: for ``generate``. By default the answers are drawn from the model's own distribution, uncut: the
            gradient of :func:`grpo_loss` is that of this distribution.
    """
    prompts = tokenizer.apply_chat_template(
        requests, add_generation_prompt=True, return_dict=True, return_tensors="pt",
        padding=True, tokenizer_kwargs={"padding_side": "left"}).to(model.device)  # fmt: skip
    options = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0} | options
    ids = model.eval().generate(
        **prompts, num_return_sequences=n, max_new_tokens=max_new_tokens, **options)  # fmt: skip
    length = prompts["input_ids"].shape[1]
    ended = (ids[:, length:] == tokenizer.eos_token_id).long()
    spoken = ended.cumsum(1) - ended == 0
    asked = prompts["attention_mask"].repeat_interleave(n, 0)
    labels = torch.full_like(ids, -100)
    labels[:, length:] = ids[:, length:].masked_fill(~spoken, -100)
    mask = torch.cat([asked, spoken.long()], dim=1)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def read_replies(batch: Batch, tokenizer: PreTrainedTokenizerBase) -> list[Reply]:
    """What was said in each row of a batch."""
    spoken = [[i for i in row if i != IGNORED] for row in batch["labels"].tolist()]
    return [
        Reply(tokenizer.decode(ids, skip_special_tokens=True), tokenizer.eos_token_id in ids)
        for ids in spoken
    ]


def check_rewards(
    rewards: Sequence[float], requests: Sequence[Conversation], said: Sequence[Reply]
) -> torch.Tensor:
    """Rewards as a tensor (batch,), after a look at each.

    Raises:
        ValueError: not one reward for each reply, or one that is no finite number, with its row.
    """
    if len(rewards) != len(said):
        raise ValueError(
            f"the reward function gave {len(rewards)} rewards for {len(said)} answers; give one each"
        )
    for row, value in enumerate(rewards):
        if value is None or not math.isfinite(value):
            raise ValueError(
                f"row {row}: the reward of {said[row].text[:30]!r} to {requests[row][-1]['content'][:30]!r} is "
                f"{value}; a reward function must give a finite number for any text, the empty one too"
            )
    return torch.tensor([float(value) for value in rewards])


def reward_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Conversation],
    reward: Reward,
    n: int,
    max_new_tokens: int,
    *,
    batch_size: int = 32,
    **options: object,
) -> tuple[list[list[Reply]], np.ndarray]:
    """``n`` answers to each request and their rewards, (requests, n).

    Raises:
        ValueError: as :func:`check_rewards`.
    """
    said: list[Reply] = []
    for start in range(0, len(requests), batch_size):
        batch = rollout(model, tokenizer, requests[start : start + batch_size], n, max_new_tokens, **options)
        said += read_replies(batch, tokenizer)
    asked = [request for request in requests for _ in range(n)]
    rewards = check_rewards(reward(asked, said), asked, said).view(-1, n).numpy()
    return [said[i : i + n] for i in range(0, len(said), n)], rewards


def token_log_probs(model, batch):
    """Log-probability of each labelled token, (batch, length − 1), 0 elsewhere; column t − 1 holds token t."""
    logits = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits  # fmt: skip
    wanted = batch["labels"][:, 1:]
    losses = F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), wanted.flatten(), reduction="none")  # fmt: skip
    return -losses.view_as(wanted)


# --- pairs: DPO ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """A request with a better and a worse answer."""

    prompt: Conversation
    chosen: str
    rejected: str


def make_pairs(
    requests: Sequence[Conversation],
    said: Sequence[Sequence[Reply]],
    rewards: np.ndarray,
    *,
    top: int,
    above: float = -math.inf,
) -> list[Pair]:
    """The ``top`` best answers to each request, each beside one of the ``top`` worst: best with worst.

    Answers that did not end by themselves are left out: in a file of pairs nothing would say that they were cut.

    Args:
        above: answers with a reward no higher than this are left out, too.

    Raises:
        ValueError: no pair at all.
    """
    pairs = []
    for request, answers, scores in zip(requests, said, rewards, strict=True):
        best_first = np.argsort(-scores, kind="stable")
        order = [i for i in best_first if answers[i].ended and answers[i].text and scores[i] > above]
        k = min(top, len(order) // 2)
        for good, bad in zip(order[:k], order[::-1][:k], strict=True):
            if scores[good] > scores[bad] and answers[good].text != answers[bad].text:
                pairs.append(Pair(request, answers[good].text, answers[bad].text))
    if not pairs:
        raise ValueError(
            f"no pair from {len(requests)} requests: no two answers to one of them ended and have different rewards; "
            "draw more, or teach the model to answer first"
        )
    return pairs


def encode_pairs(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, max_length: int | None = None
) -> list[dict[str, dict[str, list[int]]]]:
    """Pairs as ``chosen`` and ``rejected``, each with ``input_ids`` and ``labels``.

    Raises:
        ValueError: as :func:`sft.chat.encode_conversation`, with the row.
    """
    return [
        {
            name: encode_conversation([*pair.prompt, _said(text)], tokenizer, max_length, row=row)
            for name, text in (("chosen", pair.chosen), ("rejected", pair.rejected))
        }
        for row, pair in enumerate(pairs)
    ]


def _said(text: str) -> Message:
    return {"role": "assistant", "content": text}


def dpo_loss(log_p, reference, beta):
    """−log σ(β · difference of what the two answers gained), the mean over pairs (equation 7 of the paper).

    Args:
        log_p: log-probabilities of whole answers, (2 · pairs,), the chosen ones first; ``reference``: likewise, of the
            model before training.
    """
    chosen, rejected = (log_p - reference).chunk(2)
    return -F.logsigmoid(beta * (chosen - rejected)).mean()


def dpo(model, reference, pairs, collate, *, lr, beta, alpha=0.0, num_epochs=1, batch_size=8,
        shuffle=True, also=None, seed=0):  # fmt: skip
    """Train ``model`` on encoded pairs; the :func:`dpo_loss` of all steps.

    Args:
        alpha: weight of the mean loss on the tokens of the chosen answers, which keeps both answers from getting less
            likely together (Pang et al. 2024, arXiv:2404.19733, equation 2).
        also: from a model to a loss that is added, such as that on texts which must not be forgotten.
    """

    def both(part):  # 先是好的回答，后是坏的
        return collate([pair[name] for name in ("chosen", "rejected") for pair in part])

    loader = DataLoader(pairs, batch_size, shuffle=shuffle, collate_fn=both,
                        generator=torch.Generator().manual_seed(seed))  # fmt: skip
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.0), []
    for _epoch in range(num_epochs):
        for batch in loader:
            batch = batch.to(model.device)
            with torch.no_grad():
                before = token_log_probs(reference, batch).sum(1)
            log_p = token_log_probs(model, batch)
            good, loss = log_p.chunk(2)[0], dpo_loss(log_p.sum(1), before, beta)
            losses.append(loss.item())
            loss = loss - alpha * good.sum() / (good != 0).sum()
            loss = loss + also(model) if also else loss
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
            optimizer.step()
    return losses


@torch.no_grad()
def margins(
    model: PreTrainedModel,
    reference: PreTrainedModel,
    pairs: Sequence[Mapping[str, Mapping[str, list[int]]]],
    collate: Callable[..., Batch],
    batch_size: int = 32,
) -> np.ndarray:
    """What the two answers of each encoded pair gained in log-probability, (pairs, 2): chosen, rejected."""
    gained = []
    for name in ("chosen", "rejected"):
        column = []
        for start in range(0, len(pairs), batch_size):
            batch = collate([pair[name] for pair in pairs[start : start + batch_size]]).to(model.device)
            after, before = (token_log_probs(each, batch).sum(1) for each in (model, reference))
            column += (after - before).tolist()
        gained.append(column)
    return np.array(gained).T


# --- rewards: GRPO -------------------------------------------------------------------------------------


def group_advantages(rewards):
    """How much better than its group each answer is, in standard deviations, (groups, n)."""
    deviation = rewards.std(1, keepdim=True)
    return (rewards - rewards.mean(1, keepdim=True)) / (deviation + 1e-4)


def grpo_loss(log_p, old, reference, advantages, mask, beta, epsilon=0.2):
    """The clipped gain of each token less β times its distance from the reference; means over tokens, then answers.

    Args:
        log_p: log-probabilities of tokens, (batch, length − 1); ``old``: of the model that wrote them; ``reference``:
            of the model before training.
        advantages: (batch,).
        mask: true where a token was said.
    """
    ratio, A = (log_p - old).exp(), advantages[:, None]
    gain = torch.min(ratio * A, ratio.clamp(1 - epsilon, 1 + epsilon) * A)
    gap = reference - log_p
    distance = gap.exp() - gap - 1  # 总不小于 0，期望就是 KL
    per_token = (beta * distance - gain) * mask
    return (per_token.sum(1) / mask.sum(1)).mean()


def grpo(model, reference, tokenizer, requests, reward, *, num_steps, lr, beta,
         groups=8, n=8, max_new_tokens=24, num_updates=1, also=None, seed=0):  # fmt: skip
    """Train ``model`` on answers of its own; the mean reward of each step's answers, before the step's update.

    Args:
        groups: requests a step, with ``n`` answers each.
        num_updates: updates from the same answers; beyond the first the clipped ratio matters.
        also: from a model to a loss that is added, such as that on texts which must not be forgotten.

    Raises:
        ValueError: as :func:`check_rewards`.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    optimizer, curve = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.0), []
    for _step in range(num_steps):
        drawn = [requests[i] for i in rng.permutation(len(requests))[:groups]]
        batch = rollout(model, tokenizer, drawn, n, max_new_tokens)
        asked = [one for one in drawn for _ in range(n)]
        said = read_replies(batch, tokenizer)
        rewards = check_rewards(reward(asked, said), asked, said)
        A = group_advantages(rewards.view(-1, n)).flatten().to(model.device)
        with torch.no_grad():
            before = token_log_probs(reference, batch)
        old = None
        for _update in range(num_updates):
            log_p = token_log_probs(model, batch)
            old = log_p.detach() if old is None else old
            mask = batch["labels"][:, 1:] != -100
            loss = grpo_loss(log_p, old, before, A, mask, beta)
            loss = loss + also(model) if also else loss
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
            optimizer.step()
        curve.append(rewards.mean().item())
    return curve


# --- pairs of one's own --------------------------------------------------------------------------------


def read_preferences(rows: Iterable[Mapping[str, object]]) -> list[Pair]:
    """Pairs out of the columns that TRL's ``DPOTrainer`` takes.

    ``prompt``, ``chosen`` and ``rejected`` are texts or lists of messages; without ``prompt``, ``chosen`` and
    ``rejected`` are whole conversations that differ in their last message.

    Raises:
        ValueError: with the row's number, a column that is missing, empty or of another kind; conversations that do
            not begin alike; answers that are the same.
    """
    return [_pair(row, number) for number, row in enumerate(rows)]


def read_preference_file(path: str | Path) -> list[Pair]:
    """:func:`read_preferences` of a JSON-lines file; empty lines are passed over.

    Raises:
        ValueError: as there, or a line that is not a JSON object, with its number; no pair at all.
    """
    rows = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: not JSON ({error.msg}); write one pair a line"
            ) from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: not an object with prompt, chosen and rejected")
        rows.append(row)
    if not rows:
        raise ValueError(f"{path} holds no pair; write one a line, with prompt, chosen and rejected")
    return read_preferences(rows)


def _pair(row: Mapping[str, object], number: int) -> Pair:
    if missing := [name for name in ("chosen", "rejected") if not row.get(name)]:
        raise ValueError(
            f"row {number}: {' and '.join(missing)} missing or empty; wanted are prompt, chosen and rejected"
        )
    (before, chosen), (other, rejected) = (
        _last_answer(row[name], number, name) for name in ("chosen", "rejected")
    )
    prompt = row.get("prompt") or before
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if not prompt or not isinstance(prompt, Sequence) or not all(isinstance(m, Mapping) for m in prompt):
        raise ValueError(f"row {number}: no prompt; give a text or a list of messages")
    if not row.get("prompt") and list(before) != list(other):
        raise ValueError(f"row {number}: chosen and rejected begin with different messages; give a prompt")
    if chosen.strip() == rejected.strip():
        raise ValueError(f"row {number}: chosen and rejected are the same, so nothing is preferred")
    return Pair(list(prompt), chosen, rejected)


def _last_answer(value: object, number: int, name: str) -> tuple[Sequence[Message], str]:
    """What stands before the answer, and the answer."""
    if isinstance(value, str):
        return (), value
    messages = value if isinstance(value, Sequence) else ()
    last = messages[-1] if messages else None
    content = last.get("content") if isinstance(last, Mapping) and last.get("role") == "assistant" else None
    if not isinstance(content, str):
        raise ValueError(f"row {number}: {name} is neither a text nor messages that end with the assistant's")
    return messages[:-1], content
