"""The hand-made labels: they lie in their sentences, from days that training never reads; bad rows are named."""

from __future__ import annotations

import re

import pytest

from sft import hand_labelled
from sft.hand_labelled import ROLES, load_office_sentences, load_role_sentences, locate
from sft.packaged import DataError
from sft.relations import OFFICES, distant_labels, find_office_sentences, pair_features, pattern_pairs
from sft.roles import pattern_roles, role_labels, to_roles, word_features


def test_the_test_sets_are_large_enough_and_differ_from_the_training_set():
    offices, roles = load_office_sentences(), load_role_sentences("test")
    train = {sentence.text for sentence in load_role_sentences("train")}
    assert len(offices) >= 200 and len(roles) >= 200
    assert len({s.text for s in offices}) == len(offices)
    assert len({(s.text, s.marker) for s in roles}) == len(roles)
    assert not train & {s.text for s in roles}


def test_every_candidate_is_a_name_or_an_office():
    for sentence in load_office_sentences():
        assert len(sentence.persons) * len(sentence.offices) >= 2
        for start, stop in sentence.offices:
            assert sentence.text[start:stop].removeprefix("副").removeprefix("总") in OFFICES | {
                office.removeprefix("总") for office in OFFICES
            }


@pytest.mark.parametrize("split", ["train", "test"])
def test_roles_stand_beside_their_marker_on_word_boundaries(split):
    for sentence in load_role_sentences(split):
        assert "".join(word for word, _ in sentence.words) == sentence.text
        ends = {0}
        for word, _ in sentence.words:
            ends.add(max(ends) + len(word))
        for role, (start, stop) in sentence.roles.items():
            assert role in ROLES and {start, stop} <= ends
            assert not start <= sentence.marker < stop


def test_the_nearest_place_counts_and_one_over_the_marker_does_not():
    assert locate("他把他的书给他", "他", 1, "row") == (0, 1)
    assert locate("书好，把书读完", "书", 3, "row") == (4, 5)
    with pytest.raises(
        DataError, match=r"roles\.tsv, row 3, agent: the span '我' is not in its text '他把书读完'"
    ):
        locate("他把书读完", "我", 1, "roles.tsv, row 3, agent")


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("relations.tsv", ("P1-T1 P1-T2", "P1-T9"), "relations.tsv, row 1: P1-T9 names no person and office"),
        ("relations.tsv", ("12-15", "12-999"), "relations.tsv, row 1: the span 12-999 is not in its text"),
        ("roles.tsv", ("我们", "你们"), "roles.tsv, row 1, agent: the span '你们' is not in its text"),
        ("roles.tsv", ("\t29\t", "\t30\t"), "roles.tsv, row 1: no 把 or 被 stands at 30"),
    ],
)
def test_a_bad_row_is_one_line(tmp_path, monkeypatch, file, change, message):
    lines = (hand_labelled.FOLDER / file).read_text(encoding="utf-8").splitlines()[:2]
    assert change[0] in lines[1]
    (tmp_path / file).write_text("\n".join([lines[0], lines[1].replace(*change)]), encoding="utf-8")
    monkeypatch.setattr(hand_labelled, "FOLDER", tmp_path)
    load = load_office_sentences if file == "relations.tsv" else lambda: load_role_sentences("test")
    with pytest.raises(DataError, match=re.escape(message)) as error:
        load()
    assert "\n" not in str(error.value)


def sentence(marked: str) -> hand_labelled.OfficeSentence:
    """Persons in <>, offices in {}."""
    text, spans = "", {"<": [], "{": []}
    for part in re.split(r"(<\S+?>|\{\S+?\})", marked):
        if part[:1] in spans:
            spans[part[0]].append((len(text), len(text) + len(part) - 2))
            part = part[1:-1]
        text += part
    return hand_labelled.OfficeSentence(text, tuple(spans["<"]), tuple(spans["{"]))


@pytest.mark.parametrize(
    ("marked", "pairs"),
    [
        ("国务院{总理}<李鹏>说", {(0, 0)}),
        ("<江泽民>{主席}说", {(0, 0)}),
        ("省委{书记}、{省长}<甲某>说", {(0, 0), (0, 1)}),
        ("{副主席}<甲某>、<乙某>、<丙某>到会", {(0, 0), (1, 0), (2, 0)}),
        ("{书记}说，<甲某>好", set()),
        ("{总统}<甲某>和{总理}<乙某>会谈", {(0, 0), (1, 1)}),
    ],
)
def test_what_an_apposition_shows(marked, pairs):
    assert pattern_pairs(sentence(marked)) == pairs


def test_distant_labels_follow_the_facts_and_leave_out_what_these_do_not_tell():
    one = sentence("{总统}<甲某>和{总理}<乙某>会见{主编}<丙某>")
    facts = {("甲某", "总统"): 1, ("乙某", "总理"): 3}
    assert distant_labels(one, facts, {"乙某"}) == {
        (0, 0): 1, (1, 0): 0, (2, 0): 0, (0, 1): 0, (1, 1): 1, (2, 1): 0, (1, 2): 0,
    }  # fmt: skip
    assert pair_features(one).keys() == {(i, j) for i in range(3) for j in range(3)}


def test_candidates_are_found_in_the_newspaper_and_none_is_a_test_sentence():
    found = find_office_sentences("train")
    assert len(found) > 1500 and all(s.persons and s.offices for s in found)
    chosen_on = find_office_sentences("validation", max_chars=110, min_pairs=2, max_pairs=16)
    assert len(chosen_on) > 100
    assert all(2 <= len(s.persons) * len(s.offices) <= 16 and len(s.text) <= 110 for s in chosen_on)
    assert not {s.text for s in found + chosen_on} & {s.text for s in load_office_sentences()}


def test_the_pattern_of_roles_on_two_clauses():
    words = (
        ("昨天", "t"),
        ("，", "w"),
        ("他", "r"),
        ("把", "p"),
        ("书", "n"),
        ("放", "v"),
        ("下", "v"),
        ("。", "w"),
    )
    one = hand_labelled.RoleSentence("昨天，他把书放下。", words, 0, 4, {})
    assert pattern_roles(one) == {"agent": (3, 4), "patient": (5, 6), "predicate": (6, 7)}
    words = (("书", "n"), ("已", "d"), ("被", "p"), ("他", "r"), ("所", "u"), ("用", "v"), ("。", "w"))
    one = hand_labelled.RoleSentence("书已被他所用。", words, 0, 2, {})
    assert pattern_roles(one) == {"agent": (3, 4), "patient": (0, 1), "predicate": (5, 6)}


def test_roles_as_labels_of_words_and_back():
    words = (("他们", "r"), ("把", "p"), ("书", "n"), ("放", "v"), ("下", "v"), ("他们", "r"))
    one = hand_labelled.RoleSentence("他们把书放下他们", words, 0, 2, {})
    roles = {"agent": (0, 2), "patient": (3, 4), "predicate": (4, 6)}
    labels = role_labels(one, roles)
    assert labels == ["B-agent", "O", "B-patient", "B-predicate", "I-predicate", "O"]
    assert to_roles(one, [(0, 1, "agent"), (5, 6, "agent"), (2, 3, "patient"), (3, 5, "predicate")]) == roles
    features = word_features(one)
    assert len(features) == len(words) and "把L word0 他们" in features[0] and "tag0 n" in features[2]
