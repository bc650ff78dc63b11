"""Texts of ten classes out of a dictionary of characters, and headlines from the hub."""

from __future__ import annotations

from collections import Counter

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from sft import topics
from sft.data import find_leaks, fingerprint
from sft.packaged import DataError
from sft.repeats import normalise


@pytest.fixture(scope="module")
def splits() -> DatasetDict:
    return topics.load_radicals()


@pytest.mark.parametrize(
    ("character", "variant", "definition", "meaning"),
    [
        ("洞", "洞", "[dòng]1.洞穴；窟窿。2.透彻；清楚：~晓。[tóng]1.地名", "～穴；窟窿"),
        ("挞", "撻", "[tà]1.打；用鞭、棍等打人：鞭~。2.旧指征讨", "打；用鞭、棍等打人"),
        ("納", "", "[nà]1.见“纳”。", ""),
        ("奼", "女", "[chà]1.同“姹”。2.美 丽。", "美丽"),
        ("憄", "", "[zhì]1.广泛涉及：“其文～”。", "广泛涉及"),
        ("仁", "", "[rén]1.敬爱。《礼记•礼运》", "敬爱"),
        ("萨", "薩", "[sà]1.姓。", ""),
        ("鸅", "", "[zé]1.（zé）水鸟。", "水鸟"),
        ("一", "", "", ""),
    ],
)
def test_a_meaning_is_the_first_sense_that_says_something_without_examples_and_the_character(
    character, variant, definition, meaning
):
    assert topics.first_meaning(character, variant, definition) == meaning


def test_the_splits_do_not_change(splits):
    assert {name: len(part) for name, part in splits.items()} == {
        "train": 2682,
        "validation": 600,
        "test": 600,
    }
    assert fingerprint(splits) == "6c7db6abf36525b95069da3d5f6a38af46cf57114177b125b67afd51c7224723"


def test_the_classes_are_the_ten_radicals_with_most_characters(splits):
    counts = Counter(splits["train"]["label"])
    assert set(counts) == set("水金草木口手人心丝言")
    assert min(counts.values()) > 150


def test_no_meaning_has_two_radicals_or_stands_in_two_splits_or_names_its_character(splits):
    rows = [row for part in splits.values() for row in part]
    texts = [normalise(row["text"]) for row in rows]
    assert len(set(texts)) == len(texts)
    numbered = {
        name: part.rename_column("label", "radical").add_column("label", [0] * len(part))
        for name, part in splits.items()
    }
    assert [leak.repeated for leak in find_leaks(numbered)] == [0, 0]
    assert not [row for row in rows if row["character"] in row["text"]]


def test_headlines_keep_their_sections_and_leave_out_what_stands_in_test(monkeypatch):
    features = Features({"sentence": Value("string"), "label": ClassLabel(names=["100", "116", "999"])})

    def part(sentences, labels):
        return Dataset.from_dict({"sentence": sentences, "label": labels}, features=features)

    raw = DatasetDict(
        train=part([f"标题{i}" for i in range(30)] + ["考题！"], [i % 3 for i in range(30)] + [0]),
        validation=part(["考题", "另一道"], [1, 0]),
        test=part(["没有标签"], [0]),
    )
    monkeypatch.setattr(topics, "locate", lambda name, kind: name)
    monkeypatch.setattr(topics, "load_dataset", lambda name, part: raw)
    splits = topics.load_headlines("some/where")
    assert splits["test"][:] == {"text": ["考题", "另一道"], "label": ["电竞", "民生"]}
    assert len(splits["validation"]) == 2 and len(splits["train"]) == 28
    assert set(splits["train"]["label"]) == {"民生", "电竞", "999"}
    assert "考题！" not in [*splits["train"]["text"], *splits["validation"]["text"]]


def test_a_hub_without_the_headlines_is_one_line(monkeypatch):
    monkeypatch.setattr(topics, "locate", lambda name, kind: name)
    monkeypatch.setattr(topics, "load_dataset", lambda name, part: DatasetDict())
    with pytest.raises(DataError, match=r"cannot load tnews of some/where .*KeyError") as error:
        topics.load_headlines("some/where")
    assert "\n" not in str(error.value)


def test_an_unknown_source_is_named():
    with pytest.raises(DataError, match=r"unknown source 'local'"):
        topics.load_topics("local")
