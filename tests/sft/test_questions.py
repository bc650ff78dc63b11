"""Questions about names: what is asked is answered where it says, and spans that do not fit are named by their row."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoTokenizer, DataCollatorWithPadding

from sft import data, questions
from sft.hub import locate_model
from sft.questions import Name, Question


class Pointer(nn.Module):
    """A reader that gives five points to one token as a beginning and to one as an end, none to others."""

    device = torch.device("cpu")

    def __init__(self, first: int, last: int) -> None:
        super().__init__()
        self.first, self.last = first, last

    def forward(self, input_ids, **others):
        start, end = ((input_ids == token).float() * 5 for token in (self.first, self.last))
        return SimpleNamespace(start_logits=start, end_logits=end)


TEXT = "法国外长韦德里纳与德国总理科尔在北京会谈"
TOKENS = ["法国", "外长", "韦德里纳", "与", "德国", "总理", "科尔", "在", "北京", "会谈"]
TAGS = ["ns", "n", "nr", "p", "ns", "n", "nr", "p", "ns", "v"]
ROWS = {"tokens": [TOKENS], "tags": [TAGS]}
GOOD = Question(TEXT, "法国的外长是谁？", "韦德里纳", 4)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(locate_model("mini-bert-zh"))


@pytest.fixture(scope="module")
def made() -> list[Question]:
    papers = data.load_people_daily()["test"]
    return questions.make_questions(papers[:1500], np.random.default_rng(0))


# --- making questions ----------------------------------------------------------------------------------


def test_a_holder_is_a_place_an_office_and_a_person_in_a_row():
    found = questions.find_holders(TOKENS, TAGS)
    assert [(h.where, h.office, h.person) for h in found] == [
        ("法国", "外长", "韦德里纳"),
        ("德国", "总理", "科尔"),
    ]
    assert all(TEXT[h.start :].startswith(h.where + h.office + h.person) for h in found)


def test_a_list_of_persons_behind_one_office_is_left_out():
    tokens, tags = (
        ["国务院", "副", "总理", "李", "岚清", "、", "吴", "邦国"],
        ["nt", "b", "n", "nr", "nr", "w", "nr", "nr"],
    )
    assert questions.find_holders(tokens, tags) == []


def test_both_questions_and_their_doubles_are_asked():
    asked = questions.make_questions(ROWS, np.random.default_rng(0))
    answered = {(one.question, one.answer) for one in asked if one.answer}
    assert answered == {
        ("法国的外长是谁？", "韦德里纳"),
        ("韦德里纳是哪里的外长？", "法国"),
        ("德国的总理是谁？", "科尔"),
        ("科尔是哪里的总理？", "德国"),
    }
    open_ = {one.question for one in asked if not one.answer}
    assert {"科尔是哪里的外长？", "韦德里纳是哪里的总理？"} < open_
    assert open_.isdisjoint(question for question, _ in answered)


def test_answers_stand_in_their_text_and_words_of_every_question_too(made):
    assert len(made) > 100
    for row, one in enumerate(made):
        questions.check_span(one, row)
        assert all(word in one.context and word in one.question for word in one.words)
        assert len(one.context) <= 64
        assert questions.has_choice(one)
    assert 0.2 < np.mean([not one.answer for one in made]) < 0.6


def test_a_text_never_answers_a_question_and_leaves_it_open(made):
    told = {(one.context, one.question) for one in made if one.answer}
    assert told.isdisjoint((one.context, one.question) for one in made if not one.answer)


def test_equal_seeds_make_equal_questions():
    first, second = (questions.make_questions(ROWS, np.random.default_rng(1)) for _ in range(2))
    assert first == second


def test_a_text_with_one_name_of_the_kind_is_not_asked_about():
    one = replace(GOOD, kind="谁", names=(Name(4, 8, "PER"), Name(0, 2, "LOC")))
    assert not questions.has_choice(one)
    assert questions.has_choice(replace(one, names=(*one.names, Name(13, 15, "PER"))))


# --- the rule ------------------------------------------------------------------------------------------


def test_the_rule_takes_the_nearest_name_of_the_kind_and_does_not_see_that_words_do_not_fit():
    asked = {one.question: one for one in questions.make_questions(ROWS, np.random.default_rng(0))}
    assert questions.nearest_name(asked["德国的总理是谁？"], 1) == "科尔"
    assert questions.nearest_name(asked["科尔是哪里的外长？"], 1) == "法国"  # nothing would be right
    missing = questions.ask(asked["德国的总理是谁？"], "谁", "德国", "部长")
    assert questions.nearest_name(missing, 1) == ""
    assert questions.nearest_name(missing, 1, abstain=False) == "韦德里纳"  # the first of the text
    assert questions.nearest_name(replace(missing, names=()), 0, abstain=False) == ""


# --- spans ---------------------------------------------------------------------------------------------


def test_a_question_becomes_ids_whose_marked_tokens_are_the_answer(tokenizer):
    (window,) = questions.encode_question(GOOD, tokenizer, 64)
    ids = window["input_ids"][window["start_positions"] : window["end_positions"] + 1]
    assert tokenizer.convert_ids_to_tokens(ids) == list("韦德里纳")
    (window,) = questions.encode_question(replace(GOOD, answer="", start=-1), tokenizer, 64)
    assert (window["start_positions"], window["end_positions"]) == (0, 0)


def test_a_token_of_several_characters_is_counted_once(tokenizer):
    (window,) = questions.encode_question(Question("他在WTO总部说", "哪里？", "WTO总部", 2), tokenizer, 64)
    first, last = (window["offsets"][window[key]] for key in ("start_positions", "end_positions"))
    assert (first[0], last[1]) == (2, 7)


def test_windows_of_a_long_text_overlap_and_only_those_with_the_whole_answer_are_marked(tokenizer):
    long = Question("甲" * 30 + "韦德里纳" + "乙" * 30, "谁？", "韦德里纳", 30)
    windows = questions.encode_question(long, tokenizer, 26, stride=8)
    covered = [{i for pair in w["offsets"] if pair for i in range(*pair)} for w in windows]
    assert set.union(*covered) == set(range(64))
    for window, characters in zip(windows, covered, strict=True):
        assert bool(window["start_positions"]) == ({30, 31, 32, 33} <= characters)
    rows = questions.training_rows([long], tokenizer, 26, stride=8)
    assert len(rows) == len(windows) and "offsets" not in rows.column_names


def test_the_best_span_is_the_one_that_trying_all_finds():
    rng = np.random.default_rng(0)
    offsets = [None] * 3 + [(i, i + 1) for i in range(12)] + [None]
    for _ in range(30):
        start, end = rng.normal(size=(2, len(offsets)))
        spans = [(start[i] + end[j], i, j) for i in range(3, 15) for j in range(i, min(i + 4, 15))]
        score, i, j = max(spans)
        found = questions.best_span(start, end, offsets, max_tokens=4)
        assert found[0] == pytest.approx(score - start[0] - end[0])
        assert found[1:] == (i - 3, j - 2)


def test_words_of_the_question_are_highlighted_in_the_text_by_their_segment(tokenizer):
    marks = questions.matches("法国的外长是谁？", "法国外长来过，法，外长")
    assert marks == [True] * 4 + [False] * 5 + [True] * 2
    (window,) = questions.encode_question(GOOD, tokenizer, 64, mark_matches=True)
    text = [
        segment for segment, pair in zip(window["token_type_ids"], window["offsets"], strict=True) if pair
    ]
    assert text == [0] * 4 + [1] * (len(TEXT) - 4)
    (plain,) = questions.encode_question(GOOD, tokenizer, 64)
    assert {name for name in plain if plain[name] != window[name]} == {"token_type_ids"}


def test_the_best_of_all_windows_is_the_answer_if_it_is_above_the_threshold(tokenizer):
    model = Pointer(*tokenizer.convert_tokens_to_ids(["韦", "纳"]))
    long = Question("甲" * 30 + "韦德里纳" + "乙" * 30, "谁？")
    asked = [long, GOOD, Question("德国总理科尔", "谁？")]
    options = {
        "tokenizer": tokenizer,
        "collate": DataCollatorWithPadding(tokenizer),
        "max_length": 26,
        "stride": 8,
    }
    scored = questions.best_answers(model, asked, **options)
    assert [score for score, _ in scored] == [10, 10, 0]
    assert questions.answer_questions(model, asked, **options) == ["韦德里纳", "韦德里纳", ""]
    assert questions.answer_questions(model, asked, threshold=10, **options) == ["", "", ""]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (
            {"text": ["韦德里纳"], "answer_start": [3]},
            "row 1: the answer “韦德里纳” does not stand at character 3",
        ),
        ({"text": ["韦德里纳"], "answer_start": [-1]}, "it stands at 4; mend answer_start"),
        ({"text": ["希拉克"], "answer_start": [4]}, "it stands nowhere in the text"),
        ({"text": ["韦德里纳"], "answer_start": []}, "row 1: 1 answers and 0 places"),
        (None, "row 1: no column answers"),
    ],
)
def test_a_span_that_is_not_in_its_text_is_one_line_that_names_the_row(answers, message):
    good = {"context": TEXT, "question": "谁？", "answers": {"text": [], "answer_start": []}}
    assert questions.read_questions([good]) == [Question(TEXT, "谁？")]
    with pytest.raises(ValueError, match=message) as caught:
        questions.read_questions([good, good | {"answers": answers}])
    assert "\n" not in str(caught.value)


def test_encoding_names_the_row_too(tokenizer):
    with pytest.raises(ValueError, match=r"row 1: the answer"):
        questions.training_rows([GOOD, replace(GOOD, start=5)], tokenizer, 64)
    with pytest.raises(ValueError, match=r"row 0: the question leaves no room"):
        questions.training_rows([GOOD], tokenizer, 10)
