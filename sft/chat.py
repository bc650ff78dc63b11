"""Conversations for a causal model: roles written as tokens, labels on what the assistant says, replies read back.

A conversation is a list of messages, ``{"role": "user", "content": "…"}``, as `transformers`' chat templates take them.
The template decides two things: how a conversation becomes text, and which part of that text the model is to say
itself, marked by ``{% generation %}``; only there stands a label other than −100.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset, load_dataset
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from sft.corpora import load_people_daily
from sft.fine_tuning import Collate, train
from sft.hub import locate, locate_model
from sft.instruction import IGNORED
from sft.language_modeling import bits_per_character
from sft.training import autocast, find_device

Message = Mapping[str, str]
Conversation = Sequence[Message]

FORGETTING_TEXTS = 20
"""Newspaper paragraphs, never read, on which :func:`tune_chat` measures what was forgotten."""

ROLES = {"human": "user", "gpt": "assistant"}
"""ShareGPT's names of the roles."""

CHATML = """\
{%- for message in messages -%}
    {{- '<|im_start|>' + message.role + '\\n' -}}
    {%- if message.role == 'assistant' -%}
        {%- generation -%}{{- message.content + '<|im_end|>' -}}{%- endgeneration -%}
    {%- else -%}
        {{- message.content + '<|im_end|>' -}}
    {%- endif -%}
    {{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
"""The template of Qwen's models without tools and thoughts: earlier turns stay as they are when others follow."""


# --- tokenizers ----------------------------------------------------------------------------------------


def set_training_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make sure that the template marks what the assistant says; Qwen's own does not, and gets :data:`CHATML`.

    Raises:
        ValueError: no marks, and not a tokenizer with ChatML's tokens.
    """
    if has_marks(tokenizer):
        return
    if "<|im_start|>" not in tokenizer.get_vocab():
        raise ValueError(
            f"the chat template of {tokenizer.name_or_path} has no {{% generation %}} marks, so nothing says which "
            "tokens are the assistant's; set tokenizer.chat_template to one that has them"
        )
    tokenizer.chat_template = CHATML


def has_marks(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template marks the assistant's words with ``{% generation %}``."""
    return "endgeneration" in str(tokenizer.chat_template or "")


# --- conversations as ids and labels -------------------------------------------------------------------


def encode_conversation(
    messages: Conversation,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    *,
    row: int | None = None,
) -> dict[str, list[int]]:
    """``input_ids`` and ``labels`` of a conversation: the loss lies on every assistant turn, its end included.

    Args:
        max_length: what comes after so many tokens is cut off.
        row: number of the conversation in its file, for error messages.

    Raises:
        ValueError: no assistant turn, roles out of order, a message that is empty or holds a special token, a template
            without marks or one that re-opens a closed turn, no word of an answer within ``max_length``.
    """
    where = "conversation" if row is None else f"row {row}"
    _check_roles(messages, where)
    _check_contents(messages, tokenizer, where)
    _check_template(messages, tokenizer, where)
    encoded = tokenizer.apply_chat_template(
        list(messages), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, spoken = encoded["input_ids"][:max_length], encoded["assistant_masks"][:max_length]
    if not any(spoken):
        raise ValueError(
            f"{where}: the first answer begins after max_length={max_length} tokens and would be cut away; "
            "shorten the question, raise max_length or leave the row out"
        )
    return {
        "input_ids": ids,
        "labels": [token if said else IGNORED for token, said in zip(ids, spoken, strict=True)],
    }


def _check_roles(messages: Conversation, where: str) -> None:
    """[system], user, assistant, user, assistant …"""
    roles = [message["role"] for message in messages]
    if "assistant" not in roles:
        raise ValueError(
            f"{where}: no assistant turn, so nothing to learn; roles are {', '.join(roles) or 'none'}"
        )
    turns = roles[roles[0] == "system" :]
    for i, role in enumerate(turns):
        if role != (wanted := ("user", "assistant")[i % 2]):
            place = i + 1 + len(roles) - len(turns)
            raise ValueError(
                f"{where}: message {place} is of {role!r}, expected {wanted!r}; mend the order of roles"
            )
    if turns[-1] != "assistant":
        raise ValueError(
            f"{where}: the last message is of {turns[-1]!r} and nothing answers it; leave it out"
        )


def _check_contents(messages: Conversation, tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    for number, message in enumerate(messages, 1):
        content = message["content"]
        if not isinstance(content, str) or not content.strip():
            raise ValueError(f"{where}: message {number} ({message['role']}) is empty or no text")
        if special := next((token for token in tokenizer.all_special_tokens if token in content), None):
            raise ValueError(
                f"{where}: message {number} holds {special}, which the tokenizer would read as a mark of its own; "
                "take it out"
            )


def _check_template(messages: Conversation, tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    """What has been said must read the same after more is said: else training and use see different texts."""
    if not has_marks(tokenizer):
        raise ValueError(
            f"{where}: the chat template has no {{% generation %}} marks; call sft.chat.set_training_template first"
        )

    def render(part: Conversation, **options: bool) -> str:
        return tokenizer.apply_chat_template(list(part), tokenize=False, **options)

    whole = render(messages)
    for number, message in enumerate(messages, 1):
        if message["role"] != "assistant":
            continue
        closed = render(messages[:number])
        if not whole.startswith(closed):
            raise ValueError(
                f"{where}: the chat template re-opens turn {number}, which reads differently once another turn "
                "follows; use a template that leaves closed turns alone"
            )
        if not closed.startswith(render(messages[: number - 1], add_generation_prompt=True)):
            raise ValueError(
                f"{where}: the chat template opens turn {number} in training otherwise than for generation; "
                "mend add_generation_prompt in the template"
            )


def read_conversations(rows: Iterable[Mapping[str, object]]) -> list[list[Message]]:
    """Conversations out of the usual columns of instruction data.

    ``messages`` (or ``conversations`` of ``from`` and ``value``, as ShareGPT has them) are taken as they are;
    ``instruction`` with ``input`` and ``output``, and ``prompt`` (``question``) with ``answer`` (``response``,
    ``completion``) become one turn each.

    Raises:
        ValueError: with the row's number, columns that are none of these.
    """
    return [_conversation(row, number) for number, row in enumerate(rows)]


def _conversation(row: Mapping[str, object], number: int) -> list[Message]:
    if turns := row.get("messages") or row.get("conversations"):
        return [
            {"role": ROLES.get(role := turn.get("role") or turn.get("from"), role),
             "content": turn.get("content") or turn.get("value")}
            for turn in turns
        ]  # fmt: skip
    asked = next((row[name] for name in ("instruction", "prompt", "question") if row.get(name)), None)
    said = next((row[name] for name in ("output", "answer", "response", "completion") if row.get(name)), None)
    if not isinstance(asked, str) or not isinstance(said, str):
        raise ValueError(
            f"row {number}: no conversation in the columns {', '.join(row)}; wanted are messages, or prompt and "
            "answer, or instruction and output"
        )
    more = row.get("input")
    content = f"{asked}\n{more}" if more else asked
    return [{"role": "user", "content": content}, {"role": "assistant", "content": said}]


def load_conversations(
    repository: str, tokenizer: PreTrainedTokenizerBase, max_length: int, n: int
) -> tuple[list[list[Message]], int]:
    """The first ``n`` conversations of a hub's data set that can be learned whole, and how many were passed over.

    Raises:
        HubError: the hub does not answer or lacks the data set.
        ValueError: its columns hold no conversations.
    """
    kept: list[list[Message]] = []
    passed = 0
    for number, row in enumerate(load_dataset(locate(repository, "datasets"), split="train")):
        conversation = _conversation(row, number)
        try:
            length = len(encode_conversation(conversation, tokenizer, row=number)["input_ids"])
        except ValueError:
            length = max_length + 1
        if length <= max_length:
            kept.append(conversation)
        else:
            passed += 1
        if len(kept) == n:
            break
    return kept, passed


def encode_text(text: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict[str, list[int]]:
    """A plain text as the model read it in pre-training, every token with its label."""
    eos, bos = tokenizer.eos_token_id, tokenizer.bos_token_id
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = ([] if bos is None else [bos]) + [*ids, eos]
    return {"input_ids": ids[:max_length], "labels": ids[:max_length]}


def show_labels(encoded: Mapping[str, Sequence[int]], tokenizer: PreTrainedTokenizerBase) -> None:
    """Draw each token over its label; those with a loss have a thick frame and a ground."""
    from html import escape

    from IPython.display import display

    pieces = tokenizer.convert_ids_to_tokens(list(encoded["input_ids"]))
    names = [
        "−100" if label == IGNORED else piece for piece, label in zip(pieces, encoded["labels"], strict=True)
    ]
    box = "display:inline-block;text-align:center;line-height:1.4;margin:2px 1px;padding:1px 4px;border-radius:4px;"
    silent, said = "border:1px dashed #888", "border:2px solid #2f855a;background:rgba(47,133,90,.18)"
    cells = "".join(
        f'<span style="{box}{silent if name == "−100" else said}">'
        f"{escape(piece)}<br><small>{escape(name)}</small></span>"
        for piece, name in zip(pieces, names, strict=True)
    )
    text = "\n".join(f"{piece}\t{name}" for piece, name in zip(pieces, names, strict=True))
    display({"text/html": f"<div>{cells}</div>", "text/plain": text}, raw=True)


# --- loss and replies ----------------------------------------------------------------------------------


@torch.inference_mode()
def held_out_loss(
    model: PreTrainedModel, rows: Sequence[Mapping[str, list[int]]], collate: Collate, batch_size: int = 32
) -> float:
    """Nats a labelled token over all rows: sums of losses by sums of tokens, not a mean of means."""
    model.eval()
    total, count = 0.0, 0
    for batch in DataLoader(rows, batch_size, collate_fn=collate):
        n = int((batch["labels"][:, 1:] != IGNORED).sum())
        with autocast(model.device):
            total += n * model(**batch.to(model.device)).loss.item()
        count += n
    return total / count


@dataclass(frozen=True)
class Reply:
    """What a model said, and whether it ended by itself."""

    text: str
    ended: bool


@torch.inference_mode()
def replies(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Conversation],
    *,
    max_new_tokens: int = 64,
    batch_size: int = 64,
    **options: object,
) -> list[Reply]:
    """The next assistant turn of each conversation, in their order.

    Args:
        options: for ``generate``: ``do_sample``, ``top_p``, ``num_beams`` …
    """
    model.eval()
    said = []
    for start in range(0, len(conversations), batch_size):
        part = [list(conversation) for conversation in conversations[start : start + batch_size]]
        batch = tokenizer.apply_chat_template(
            part,
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
            padding=True,
            tokenizer_kwargs={"padding_side": "left"},  # new tokens must follow at once
        ).to(model.device)
        written = model.generate(**batch, max_new_tokens=max_new_tokens, **options)
        for ids in written[:, batch["input_ids"].shape[1] :].tolist():
            ended = tokenizer.eos_token_id in ids
            said.append(Reply(tokenizer.decode(ids, skip_special_tokens=True), ended))
    return said


# --- all of it at once ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """What the model said to a held-out request before and after tuning."""

    prompt: str
    before: str
    after: str


@dataclass(frozen=True)
class Tuned:
    """A tuned model and what tuning did: losses in nats a token, forgetting in bits a character of plain text."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    history: list[float]
    loss_before: float
    loss_after: float
    forgetting: float
    samples: list[Sample]


def tune_chat(
    train_rows: Sequence[Conversation],
    validation_rows: Sequence[Conversation],
    *,
    model: str = "mini-gpt-zh",
    out: Path | None = None,
    num_epochs: int = 1,
    lr: float = 1e-3,
    batch_size: int = 16,
    max_length: int = 128,
    plain_share: float = 0.3,
    num_news: int = FORGETTING_TEXTS,
    seed: int = 0,
    device: torch.device | None = None,
) -> Tuned:
    """Tune a causal model on conversations as chapter 6.2 does, plain newspaper text mixed in against forgetting.

    Args:
        model: as :func:`sft.hub.locate_model` takes it.
        out: where to leave a folder that ``pipeline("text-generation")`` loads; None leaves nothing.
        plain_share: part of all training rows that is plain text.
        num_news: held-out newspaper texts that forgetting is measured on.

    Raises:
        ValueError: a conversation that cannot be learned, with its row; no rows to train or to validate on.
        HubError: the model is not to be had.
    """
    if not train_rows or not validation_rows:
        raise ValueError(
            f"{len(train_rows)} conversations to train on and {len(validation_rows)} held out; each needs at least one"
        )
    location, device = locate_model(model), device or find_device()
    tokenizer = AutoTokenizer.from_pretrained(location)
    set_training_template(tokenizer)
    chats, held_out = (
        [encode_conversation(row, tokenizer, max_length, row=i) for i, row in enumerate(rows)]
        for rows in (train_rows, validation_rows)
    )
    papers = load_people_daily()
    wanted = round(len(chats) * plain_share / (1 - plain_share))
    texts = papers["train"].shuffle(seed=seed)["text"][:wanted]
    rows = Dataset.from_list([*chats, *(encode_text(text, tokenizer, max_length) for text in texts)])
    collate = DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=16)  # fewer shapes, less memory
    tuned = AutoModelForCausalLM.from_pretrained(location, dtype=torch.float32).to(device)
    asked = [list(row[: [m["role"] for m in row].index("assistant")]) for row in validation_rows[:8]]
    news = papers["test"]["text"][:num_news]

    def measure() -> tuple[float, float, list[Reply]]:
        bits = bits_per_character(tuned, news, tokenizer, context=512, batch_size=4, device=device)
        return (
            held_out_loss(tuned, held_out, collate),
            bits,
            replies(tuned, tokenizer, asked, do_sample=False),
        )

    loss_before, bits_before, said_before = measure()
    history = train(tuned, rows, collate, lr=lr, num_epochs=num_epochs, batch_size=batch_size, seed=seed)
    loss_after, bits_after, said_after = measure()
    if out:
        tuned.save_pretrained(out)
        tokenizer.save_pretrained(out)
    samples = [
        Sample(messages[-1]["content"], before.text, after.text)
        for messages, before, after in zip(asked, said_before, said_after, strict=True)
    ]
    return Tuned(tuned, tokenizer, history, loss_before, loss_after, bits_after - bits_before, samples)
