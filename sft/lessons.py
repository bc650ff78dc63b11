"""Lessons for a language model, made from the book's texts: five kinds of requests, several wordings of each.

A :class:`Source` is a pair out of a corpus, without a wording; a conversation is one or two of them, worded. What each
answer must look like is fixed, so that a program can check whether the model obeyed: it begins with its kind in
brackets, 【释义】, and ends by itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sft import data
from sft.chat import Message, Reply

PHRASINGS: Mapping[str, tuple[str, ...]] = {
    "释义": (
        "什么是“{}”？",
        "“{}”是什么意思？",
        "请解释“{}”。",
        "给“{}”下个定义。",
        "“{}”指什么？",
        "说说“{}”的意思。",
        "查一下“{}”。",
        "我想知道“{}”的意思。",
    ),
    "词语": (
        "哪个词的意思是“{}”？",
        "“{}”，说的是哪个词？",
        "用一个词来说：“{}”",
        "有个词的意思是“{}”，是什么？",
        "什么词表示“{}”？",
        "写出意思是“{}”的词。",
        "“{}”，这叫什么？",
        "意思是“{}”，请写出这个词。",
    ),
    "后半句": (
        "“{}”的后半句是什么？",
        "歇后语“{}”，下面怎么接？",
        "接歇后语：“{}”",
        "“{}”，后面怎么说？",
        "“{}”，下一句呢？",
        "说出歇后语“{}”的后半句。",
        "我说“{}”，你接下一句。",
        "请把歇后语“{}”接完整。",
    ),
    "好评": (
        "写一条好评。",
        "请写一段好评。",
        "来一条好评。",
        "我要一条好评。",
        "替我写个好评。",
        "想看一条好评。",
        "好评怎么写？",
        "麻烦写一条好评。",
    ),
    "差评": (
        "写一条差评。",
        "请写一段差评。",
        "来一条差评。",
        "我要一条差评。",
        "替我写个差评。",
        "想看一条差评。",
        "差评怎么写？",
        "麻烦写一条差评。",
    ),
}
"""Wordings of each kind's request; the last of each is kept for the test."""

FOLLOW_UPS: Mapping[str, str] = {
    kind: "再来一条。" if kind.endswith("评") else "那“{}”呢？" for kind in PHRASINGS
}
"""The second request of a conversation. It does not name its kind: only the first turn tells."""


@dataclass(frozen=True)
class Source:
    """A pair out of a corpus: what is asked about (nothing, for a review) and the answer."""

    kind: str
    topic: str
    answer: str


def read_sources() -> dict[str, list[Source]]:
    """All pairs of the dictionary, the sayings and the reviews, unfiltered, by the splits of their corpora.

    Raises:
        DataError: as the loaders of :mod:`sft.data`.
    """
    corpora = [load() for load in (data.load_dictionary, data.load_xiehouyu, data.load_reviews)]
    return {split: _pairs(*(splits[split][:] for splits in corpora)) for split in corpora[0]}


def _pairs(
    words: Mapping[str, list[str]], sayings: Mapping[str, list[str]], reviews: Mapping[str, list]
) -> list[Source]:
    """The sources of one split, from its columns."""
    meanings = [first_sense(text) for text in words["definition"]]
    sources = [Source("释义", *pair) for pair in zip(words["word"], meanings, strict=True)]
    sources += [Source("词语", *pair) for pair in zip(meanings, words["word"], strict=True)]
    sources += [Source("后半句", *pair) for pair in zip(sayings["riddle"], sayings["answer"], strict=True)]
    sources += [
        Source("好评" if label else "差评", "", text.strip())
        for text, label in zip(reviews["text"], reviews["label"], strict=True)
    ]
    return sources


def first_sense(definition: str) -> str:
    """The first of a definition's numbered senses, without its number."""
    return re.split(r"(?:\s+|(?<=[。；！？]))2\.", re.sub(r"^1\.", "", definition))[0].strip()


def sample(sources: Sequence[Source], n: int, rng: np.random.Generator) -> list[Source]:
    """``n`` sources, as many of each kind, in random order."""
    kinds = list(PHRASINGS)
    share = -(-n // len(kinds))
    chosen = []
    for kind in kinds:
        of_kind = [source for source in sources if source.kind == kind]
        chosen += [of_kind[i] for i in rng.permutation(len(of_kind))[:share]]
    return [chosen[i] for i in rng.permutation(len(chosen))[:n]]


def request_message(source: Source, wording: str) -> Message:
    """The user's message."""
    return {"role": "user", "content": wording.format(source.topic)}


def answer_message(source: Source) -> Message:
    """The assistant's message: the kind in brackets, then the answer."""
    return {"role": "assistant", "content": f"【{source.kind}】{source.answer}"}


def make_conversations(
    sources: Sequence[Source], rng: np.random.Generator, *, follow_up: float = 0.4, unnamed: float = 0.75
) -> list[list[Message]]:
    """One conversation a source, worded at random; a part goes on with another source.

    Args:
        follow_up: part of the conversations with a second turn.
        unnamed: part of these that asks for the same kind without naming it, the hardest to learn; the rest asks for
            any kind in a wording of its own.
    """
    of_kind = {kind: [source for source in sources if source.kind == kind] for kind in PHRASINGS}

    def worded(source: Source) -> list[Message]:
        wordings = PHRASINGS[source.kind][:-1]
        return [request_message(source, wordings[rng.integers(len(wordings))]), answer_message(source)]

    conversations = []
    for source in sources:
        messages = worded(source)
        if rng.random() < follow_up:
            same = rng.random() < unnamed
            others = [other for other in (of_kind[source.kind] if same else sources) if other is not source]
            more = others[rng.integers(len(others))] if others else source
            asked = request_message(more, FOLLOW_UPS[more.kind])
            messages += [asked, answer_message(more)] if same else worded(more)
        conversations.append(messages)
    return conversations


def follow_ups(sources: Sequence[Source]) -> tuple[list[str], list[list[Message]]]:
    """Kinds and conversations whose second request is still open: two sources of one kind each, none used twice."""
    kinds, talks = [], []
    for kind in PHRASINGS:
        of_kind = [source for source in sources if source.kind == kind]
        for first, second in zip(of_kind[::2], of_kind[1::2], strict=False):
            asked = [request_message(first, PHRASINGS[kind][-1]), answer_message(first)]
            kinds.append(kind)
            talks.append([*asked, request_message(second, FOLLOW_UPS[kind])])
    return kinds, talks


def obeys(kind: str, reply: Reply) -> bool:
    """Whether a reply has the form of its kind: 【kind】, something after it, no other bracket, an end of its own."""
    mark = f"【{kind}】"
    rest = reply.text.removeprefix(mark)
    return reply.ended and reply.text.startswith(mark) and bool(rest.strip()) and "【" not in rest
