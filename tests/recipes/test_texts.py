"""What pre-training reads, against every evaluation row of the book, by a second, plain implementation."""

from __future__ import annotations

import unicodedata
from itertools import groupby

import numpy as np
import pytest
from datasets import Dataset, DatasetDict

from recipes.texts import HeldOut, build_pretraining_texts, group_by_corpus
from sft import data

pytestmark = pytest.mark.slow  # cleans and splits each corpus anew


@pytest.fixture(scope="module")
def splits() -> dict[str, DatasetDict]:
    return {
        "reviews": data.load_reviews(),
        "people_daily": data.load_people_daily(),
        "dictionary": data.load_dictionary(),
        "xiehouyu": data.load_xiehouyu(),
    }


@pytest.fixture(scope="module")
def pretraining() -> tuple[Dataset, tuple[HeldOut, ...]]:
    return build_pretraining_texts()


def plain(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKC", text).lower() if c.isalnum())


def plain_senses(definition: str) -> set[str]:
    """Senses without their numbers, character by character."""
    senses, digits = [""], ""
    for character in definition:
        if character.isdecimal():
            digits += character
        elif character == "." and digits:
            senses.append("")
            digits = ""
        else:
            senses[-1] += digits + character
            digits = ""
    senses[-1] += digits
    return {plain(sense) for sense in senses} - {""}


@pytest.fixture(scope="module")
def evaluation(splits) -> dict[str, list[dict[str, str]]]:
    """Validation and test rows of every corpus."""
    return {name: [row for s in data.SPLITS[1:] for row in splits[name][s].to_list()] for name in splits}


@pytest.fixture(scope="module")
def forbidden(evaluation) -> tuple[set[str], set[str]]:
    """What pre-training must not equal, and the runs of 24 characters that it must not hold."""
    texts = [row["text"] for name in ("reviews", "people_daily") for row in evaluation[name]]
    texts += [row["definition"] for row in evaluation["dictionary"]]
    texts += [f"{row['word']} {row['definition']}" for row in evaluation["dictionary"]]
    texts += [f"{row['riddle']} {row['answer']}" for row in evaluation["xiehouyu"]]
    texts += [row["riddle"] for row in evaluation["xiehouyu"]]
    keys = {plain(text) for text in texts}
    return keys, {key[i : i + 24] for key in keys for i in range(len(key) - 23)}


def repeats(text: str, forbidden: tuple[set[str], set[str]]) -> bool:
    whole, runs = forbidden
    key = plain(text)
    return key in whole or any(key[i : i + 24] in runs for i in range(len(key) - 23))


def test_no_pretraining_text_repeats_an_evaluation_row(pretraining, forbidden):
    texts, _ = pretraining
    assert [text for text in texts["text"][:] if repeats(text, forbidden)] == []


def test_the_check_finds_the_repeats_that_were_left_out(splits, pretraining, forbidden):
    """The newspaper's training days hold them; every one was dropped, and hardly anything else."""
    _, report = pretraining
    found = sum(repeats(text, forbidden) for text in splits["people_daily"]["train"]["text"][:])
    dropped = {entry.corpus: entry.dropped for entry in report}["people_daily"]
    assert 300 < found <= dropped <= found + 20  # single words that are held-out headwords are dropped too


def test_no_held_out_definition_stands_under_another_word(splits, pretraining, evaluation):
    entries = [
        t.split("：", 1) for t, c in zip(*pretraining[0][:].values(), strict=True) if c == "dictionary"
    ]
    assert len(entries) > 29_000
    held_out = evaluation["dictionary"]
    assert not {plain(word) for word, _ in entries} & {plain(row["word"]) for row in held_out}
    senses = {sense for _, definition in entries for sense in plain_senses(definition)}
    assert not senses & {sense for row in held_out for sense in plain_senses(row["definition"])}


def test_no_held_out_riddle_differs_from_a_training_riddle_in_one_character(pretraining, evaluation):
    sayings = [t for t, c in zip(*pretraining[0][:].values(), strict=True) if c == "xiehouyu"]
    assert len(sayings) > 15_000
    train = sorted({plain(saying.split("——")[0]) for saying in sayings}, key=len)
    held_out = {plain(row["riddle"]) for row in evaluation["xiehouyu"]}
    assert not set(train) & held_out
    same_length = {n: np.array([list(r) for r in riddles]) for n, riddles in groupby(train, key=len)}
    for riddle in (r for r in held_out if len(r) >= 5 and len(r) in same_length):
        assert (same_length[len(riddle)] != list(riddle)).sum(axis=1).min() > 1, riddle
    shorter = {r[:i] + r[i + 1 :] for r in train if len(r) > 5 for i in range(len(r))}
    assert not {r for r in held_out if len(r) >= 5} & shorter
    assert not {r[:i] + r[i + 1 :] for r in held_out if len(r) > 5 for i in range(len(r))} & {
        r for r in train if len(r) >= 5
    }


def test_grouping_keeps_every_text_in_its_order(pretraining):
    texts, _ = pretraining
    groups = group_by_corpus(texts)
    assert set(groups) == {"reviews", "people_daily", "dictionary", "xiehouyu"}
    assert [text for name in dict.fromkeys(texts["corpus"]) for text in groups[name]] == list(texts["text"])


def test_pretraining_texts_do_not_change(pretraining):
    texts, report = pretraining
    assert report == (
        HeldOut("reviews", 12_520, 2),
        HeldOut("people_daily", 14_024, 380),
        HeldOut("dictionary", 29_958, 27),
        HeldOut("xiehouyu", 15_136, 15),
    )
    assert len(texts) == sum(entry.rows - entry.dropped for entry in report)
    assert data.fingerprint(texts) == "a6fe5cb8060c527488c2613bc4b9e72af6ac9af37655054b55717e953e0ec5cc"
