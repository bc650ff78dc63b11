"""Lessons: what is asked is what is answered, and only the kept wordings stay unseen."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from sft import lessons
from sft.chat import Reply
from sft.lessons import PHRASINGS, Source

SOURCES = [Source(kind, f"{kind}{i}", f"答{i}") for kind in PHRASINGS for i in range(20)]


@pytest.mark.slow
def test_the_splits_of_the_corpora_are_kept_apart():
    splits = lessons.read_sources()
    train, test = ({(s.kind, s.topic, s.answer) for s in splits[name]} for name in ("train", "test"))
    assert {kind for kind, _, _ in train} == {kind for kind, _, _ in test} == PHRASINGS.keys()
    assert train.isdisjoint(test)


@pytest.mark.parametrize(
    ("definition", "wanted"),
    [
        ("1.以前。 2.以后。", "以前。"),
        ("沙子飞扬，石块滚动。", "沙子飞扬，石块滚动。"),
        ("1.古县名。西汉置。", "古县名。西汉置。"),
        ("长1.2.3米", "长1.2.3米"),
    ],
)
def test_only_the_first_sense_is_asked_for(definition, wanted):
    assert lessons.first_sense(definition) == wanted


def test_a_sample_has_as_many_of_each_kind_and_none_twice():
    chosen = lessons.sample(SOURCES, 50, np.random.default_rng(0))
    assert Counter(source.kind for source in chosen) == dict.fromkeys(PHRASINGS, 10)
    assert len(set(chosen)) == 50


def test_conversations_ask_for_what_they_answer_in_wordings_that_are_not_the_test_s():
    made = lessons.make_conversations(SOURCES, np.random.default_rng(0), follow_up=0.5)
    kept_apart = [wordings[-1].split("{}")[0] for wordings in PHRASINGS.values()]
    assert 0.3 < np.mean([len(messages) == 4 for messages in made]) < 0.7
    for source, messages in zip(SOURCES, made, strict=True):
        assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2)
        assert source.kind.endswith("评") or source.topic in messages[0]["content"]
        assert messages[1]["content"] == f"【{source.kind}】{source.answer}"
        assert not any(message["content"].startswith(tuple(kept_apart)) for message in messages)
        if len(messages) == 4:
            assert messages[3]["content"] != messages[1]["content"]
            same = messages[3]["content"].startswith(f"【{source.kind}】")
            assert same or messages[2]["content"][:2] not in ("再来", "那“")
    seconds = {messages[2]["content"][:2] in ("再来", "那“") for messages in made if len(messages) == 4}
    assert seconds == {True, False}


def test_equal_seeds_make_equal_conversations():
    first, second = (lessons.make_conversations(SOURCES, np.random.default_rng(3)) for _ in range(2))
    assert first == second != lessons.make_conversations(SOURCES, np.random.default_rng(4))


def test_a_follow_up_asks_for_another_of_the_same_kind_without_naming_it():
    kinds, talks = lessons.follow_ups(SOURCES[:-1])
    assert Counter(kinds) == {kind: 10 - (kind == SOURCES[-1].kind) for kind in PHRASINGS}
    for kind, (first, said, second) in zip(kinds, talks, strict=True):
        assert said["content"].startswith(f"【{kind}】") and first["role"] == second["role"] == "user"
        assert second["content"].split("{}")[0][0] in lessons.FOLLOW_UPS[kind] != first["content"]


@pytest.mark.parametrize(
    ("text", "ended", "wanted"),
    [
        ("【释义】大片的水。", True, True),
        ("【释义】大片的水。", False, False),
        ("【好评】大片的水。", True, False),
        ("【释义】", True, False),
        ("大片的水。【释义】", True, False),
        ("【释义】海【释义】江", True, False),
    ],
)
def test_a_reply_obeys_by_its_form_alone(text, ended, wanted):
    assert lessons.obeys("释义", Reply(text, ended)) is wanted
