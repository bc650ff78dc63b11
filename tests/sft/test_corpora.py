"""Newspaper, dictionary, sayings: what they hold and how they are split."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from itertools import groupby

import pytest
from datasets import Dataset, DatasetDict

from sft import corpora, data, topics
from sft.repeats import linked_groups

pytestmark = pytest.mark.slow  # cleans and splits each corpus anew

READERS = {
    "reviews": data.read_packaged_reviews,
    "people_daily": data.read_people_daily,
    "dictionary": data.read_dictionary,
    "xiehouyu": data.read_xiehouyu,
    "characters": topics.read_characters,
}


@pytest.fixture(scope="module")
def splits() -> dict[str, DatasetDict]:
    return {
        "reviews": data.load_reviews(),
        "people_daily": data.load_people_daily(),
        "dictionary": data.load_dictionary(),
        "xiehouyu": data.load_xiehouyu(),
    }


@pytest.fixture(scope="module")
def ner() -> DatasetDict:
    return data.load_people_daily_ner()


# --- fingerprints ----------------------------------------------------------------------------------------


def test_a_fingerprint_is_of_the_values_alone():
    table = Dataset.from_dict({"b": [[1, 2], []], "a": ["甲", "乙"]})
    assert (
        data.fingerprint(table)
        == hashlib.sha256('["a", "b"]\n["甲", [1, 2]]\n["乙", []]\n'.encode()).hexdigest()
    )
    twice = Dataset.from_dict({"a": ["甲", "乙"] * 2, "b": [[1, 2], []] * 2})
    assert data.fingerprint(twice.select([2, 1])) == data.fingerprint(table)
    assert data.fingerprint(table.with_format("numpy")) == data.fingerprint(table)
    assert data.fingerprint(twice) != data.fingerprint(table)
    assert data.fingerprint(table.select([1, 0])) != data.fingerprint(table)
    assert data.fingerprint(table.rename_column("a", "c")) != data.fingerprint(table)
    assert data.fingerprint(DatasetDict(train=table)) != data.fingerprint(DatasetDict(test=table))


@pytest.mark.parametrize("name", READERS)
def test_each_corpus_is_the_one_the_book_was_measured_on(name):
    rows = READERS[name]()
    corpus = data.CORPORA[name]
    assert (len(rows), data.fingerprint(rows)) == (corpus.rows, corpus.fingerprint)


@pytest.mark.parametrize(
    ("name", "sizes", "fingerprint"),
    [
        # the blessed numbers of chapter 5 rest on the first
        (
            "reviews",
            [12_520, 2_400, 2_400],
            "2dee423d5f90cfa6ee4e7433a53fee96be80041b8316d0b036445926c8f5e845",
        ),
        (
            "people_daily",
            [14_024, 1_743, 3_717],
            "8491d347d2d0056e6203a87f78224c9085e490276fc9e671c6c4061f999c5efa",
        ),
        (
            "dictionary",
            [29_958, 2_000, 2_000],
            "ad8100a942eb39d9dc655a70378f23f38fe83eb934bb02d869a5087e387b7750",
        ),
        (
            "xiehouyu",
            [15_136, 1_000, 1_000],
            "14285841892ac2d1edc61416d02970b0be74a1ad488f6e8832e7fadd58ecbf6c",
        ),
    ],
)
def test_splits_do_not_change(splits, name, sizes, fingerprint):
    assert [len(splits[name][split]) for split in data.SPLITS] == sizes
    assert data.fingerprint(splits[name]) == fingerprint


# --- splits ----------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKC", text).lower() if c.isalnum())


def test_the_newspaper_is_split_between_days(splits):
    """A paper's datelines are of the day before at the latest."""
    latest = []
    for name in data.SPLITS:
        text = "\n".join(splits["people_daily"][name]["text"][:])
        days = [int(day) for day in re.findall(r"(?:本报|新华社)[^\s，。（）]{2,8}1月(\d+)日(?:电|讯)", text)]
        assert len(days) > 50
        latest.append(max(days))
    assert latest == [21, 23, 30]
    test = splits["people_daily"]["test"]["text"][:3]
    assert "1月24日电" in test[2], "the first dateline of the test split is of the day before its first paper"


def test_newspaper_text_keeps_its_punctuation_and_loses_full_width_digits(splits):
    text = "".join(splits["people_daily"]["test"]["text"][:])
    assert not re.search(r"[０-９Ａ-Ｚａ-ｚ．％]", text)
    assert text.count("，") > 10_000 and "," not in text
    assert "本报天津1月24日电" in text


def test_no_riddle_and_no_word_is_parted(splits):
    for name, column in (("xiehouyu", "riddle"), ("dictionary", "word")):
        train, validation, test = ({plain(x) for x in splits[name][s][column][:]} for s in data.SPLITS)
        assert not train & validation and not train & test and not validation & test
    repeated = [len(list(rows)) for _, rows in groupby(sorted(splits["xiehouyu"]["test"]["riddle"][:]))]
    assert max(repeated) > 1, "the test split should hold a riddle with several answers, or nothing is shown"


def test_seed_and_size_of_a_split_are_arguments():
    one, other = (
        data.load_xiehouyu(test_size=50, split_seed=1),
        data.load_xiehouyu(test_size=50, split_seed=2),
    )
    assert [len(one[name]) for name in data.SPLITS[1:]] == [50, 50]
    assert one["test"][:] != other["test"][:]
    with pytest.raises(data.DataError, match="leaves no training rows"):
        data.load_xiehouyu(test_size=9_000)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("十五个吊桶打水", "七上八下"), ("十五只吊桶打水", "七上八下"), True),
        (("一个模子出来的", "一个样"), ("一个模子里出来的", "没什么两样"), True),
        (("一个模子出来的", "一个样"), ("一个染缸里的布", "一个样"), False),
        (("茶壶煮饺子", "倒不出"), ("茶壶煮饺子。", "有嘴"), True),
        (("半瓶醋", "乱晃"), ("半瓶油", "乱晃"), False),  # short riddles must be equal
    ],
)
def test_which_sayings_repeat_each_other(one, other, same):
    groups = linked_groups(corpora.saying_keys(*saying) for saying in (one, other))
    assert (groups[0] == groups[1]) == same


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("晨光", "1.清晨的阳光。"), ("晨晖", "1.早霞。 2.清晨的阳光"), True),  # one sense
        (("晨光", "1.清晨的阳光。"), ("晨光", "曙光"), True),  # the headword
        (("晨光", "1.清晨的阳光。"), ("晨晖", "1.早晨的阳光。"), False),
        (("甲", "用" * 30 + "一"), ("乙", "是" + "用" * 30), True),  # a run of 24
        (("甲", "1.一。"), ("乙", "1.二。"), False),  # the numbers do not count
    ],
)
def test_which_dictionary_entries_repeat_each_other(one, other, same):
    groups = linked_groups(corpora.definition_keys(*entry) for entry in (one, other))
    assert (groups[0] == groups[1]) == same


# --- names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("江/nr 泽民/nr 讲话/v", ["江泽民 PER"]),
        ("江/nr 泽民/nr 李/nr 鹏/nr 乔/nr 石/nr", ["江泽民 PER", "李鹏 PER", "乔石 PER"]),
        ("江/nr 主席/n 和/c 叶利钦/nr", ["江 PER", "叶利钦 PER"]),
        ("欧阳/nr 修/nr", ["欧阳修 PER"]),
        ("马克思/nr 恩格斯/nr", ["马克思 PER", "恩格斯 PER"]),
        ("陈/nr 方/nr 安生/nr 说/v", ["陈方安生 PER"]),
        ("永华/nr 贺/nr 广华/nr", ["永华 PER", "贺广华 PER"]),
        ("河北省/ns 张家口/ns 的/u", ["河北省 LOC", "张家口 LOC"]),
        ("新华社/nt 北京/ns 李/nr 鹏/nr", ["新华社 ORG", "北京 LOC", "李鹏 PER"]),
        ("谢谢/v", []),
    ],
)
def test_names_of_a_paragraph(line, names):
    tokens, tags = zip(*(word.split("/") for word in line.split()), strict=True)
    labels = corpora.character_labels(list(tokens), list(tags))
    assert entities("".join(tokens), labels) == names


def entities(text: str, labels: list[str]) -> list[str]:
    found = re.finditer(r"B-(\w+) (?:I-\1 )*", "".join(f"{label} " for label in labels))
    positions = [sum(label == " " for label in match.string[: match.start()]) for match in found]
    names = []
    for start in positions:
        stop = start + 1
        while stop < len(labels) and labels[stop][0] == "I":
            stop += 1
        names.append(f"{text[start:stop]} {labels[start][2:]}")
    return names


def test_names_of_the_newspaper_are_counted(ner, splits):
    names = [name for split in ner.values() for name in decoded(split)]
    raw = "  ".join(
        f"{t}/{g}"
        for split in splits["people_daily"].values()
        for tokens, tags, _ in zip(*split[:].values(), strict=True)
        for t, g in zip(tokens, tags, strict=True)
    )
    kinds = [name.rsplit(" ", 1)[1] for name in names]
    assert kinds.count("LOC") == raw.count("/ns")
    assert kinds.count("ORG") == raw.count("/nt")
    assert names.count("江泽民 PER") == raw.count("江/nr  泽民/nr")
    assert names.count("叶利钦 PER") == raw.count("叶利钦/nr")


def decoded(split: Dataset) -> list[str]:
    names = split.features["ner_tags"].feature.names
    return [
        name
        for tokens, tags in zip(*split[:].values(), strict=True)
        for name in entities("".join(tokens), [names[tag] for tag in tags])
    ]


def test_long_paragraphs_are_cut_between_sentences_and_lose_nothing(ner, splits):
    for name in data.SPLITS:
        rows = ner[name][:]
        assert max(map(len, rows["tokens"])) <= 126
        assert all(len(a) == len(b) > 0 for a, b in zip(*rows.values(), strict=True))
        text = "".join(splits["people_daily"][name]["text"][:])
        assert "".join(c for tokens in rows["tokens"] for c in tokens) == text
        assert not any(data.NER_LABELS[tags[0]].startswith("I-") for tags in rows["ner_tags"])
    assert tuple(ner["train"].features["ner_tags"].feature.names) == data.NER_LABELS


@pytest.mark.parametrize(
    ("text", "label", "pieces"),
    [
        ("一二三四五六。七八九。", {}, ["一二三四五六。", "七八九。"]),
        ("一二。三四。五六七八九十", {}, ["一二。三四。", "五六七八九十"]),
        ("“一二三四。”五六七八", {}, ["“一二三四。”", "五六七八"]),
        ("一二三四五六。”七八九", {}, ["一二三四五六。”", "七八九"]),
        ("一二三，四五六七八九十", {}, ["一二三，", "四五六七八九十"]),
        ("一二三四五六七八九十", {}, ["一二三四五六七八", "九十"]),
        ("一二三四五六七八九十", {6: "B-PER", 7: "I-PER", 8: "I-PER"}, ["一二三四五六", "七八九十"]),
    ],
)
def test_where_a_paragraph_is_cut(text, label, pieces):
    labels = [label.get(i, "O") for i in range(len(text))]
    assert [text[a:b] for a, b in corpora.cut_places(list(text), labels, 8)] == pieces


def test_a_piece_shorter_than_a_name_is_refused():
    with pytest.raises(ValueError, match="max_chars 2 is too short for the name"):
        list(corpora.cut_places(list("克林顿说"), ["B-PER", "I-PER", "I-PER", "O"], 2))
