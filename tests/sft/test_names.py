"""Names as BIO labels: spans, lists, files, and what is wrong with a row."""

from __future__ import annotations

import pytest

from sft.names import check_labels, from_entities, list_names, load_names, look_up, read_bio, spans
from sft.packaged import DataError
from sft.relations import load_duie
from tests.hub_server import make_cluener_repo, make_duie_repo


def row(text: str, labels: str) -> dict[str, list[str]]:
    """P and L begin a person and a place, lower case continues, a dot is outside."""
    kinds = {"P": "PER", "L": "LOC"}
    return {
        "tokens": list(text),
        "labels": ["O" if c == "." else f"{'B' if c.isupper() else 'I'}-{kinds[c.upper()]}" for c in labels],
    }


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("Pp.L", [(0, 2, "PER"), (3, 4, "LOC")]),
        ("PpPp", [(0, 2, "PER"), (2, 4, "PER")]),
        ("Ppll", [(0, 2, "PER"), (2, 4, "LOC")]),  # an I- of another type begins one
        (".pp.", [(1, 3, "PER")]),
        ("....", []),
    ],
)
def test_spans(labels, expected):
    assert spans(row(labels, labels)["labels"]) == expected


def test_a_list_of_names_finds_the_longest_and_the_commonest_type():
    rows = [
        row("李鹏在上海", "Pp.Ll"),
        row("上海市好", "Lll."),
        row("上海", "Pp"),
        row("上海", "Ll"),
        row("王", "P"),
    ]
    names = list_names(rows)
    assert names == {"李鹏": "PER", "上海": "LOC", "上海市": "LOC"}
    text = "王李鹏到上海市"
    assert look_up(list(text), names) == row(text, ".Pp.Lll")["labels"]
    assert look_up([], names) == []


def test_a_bio_file_is_read(tmp_path):
    file = tmp_path / "我的.txt"
    file.write_text("李 B-PER\n鹏\tI-PER\n\n\n好 O\n", encoding="utf-8")
    assert read_bio(file) == [row("李鹏", "Pp"), row("好", ".")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "我的.txt: no line holds a character"),
        ("李 B-PER\n鹏\n", "我的.txt, line 2: '鹏' is not a character and its label"),
        ("好 O\n\n李 B-PER\n鹏 E-PER\n", "我的.txt, row 2: 'E-PER' at token 2 is not O, B-TYPE or I-TYPE"),
    ],
)
def test_a_bad_file_is_one_line_that_names_the_row(tmp_path, text, message):
    file = tmp_path / "我的.txt"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message) as error:
        read_bio(file)
    assert "\n" not in str(error.value)


def test_a_label_that_training_never_saw_is_named():
    with pytest.raises(
        DataError, match="mine, row 1: unknown label 'B-LOC' at token 1; the training data have O, B-PER"
    ):
        check_labels([row("上海", "Ll")], "mine", ["O", "B-PER", "I-PER"])
    with pytest.raises(DataError, match="mine, row 1: 2 tokens, 1 labels"):
        check_labels([{"tokens": ["上", "海"], "labels": ["O"]}], "mine")


def test_entities_with_offsets_become_labels():
    entity = {"entity": "上海", "start_offset": 1, "end_offset": 3, "label": "LOC"}
    assert from_entities({"text": "在上海", "entities": [entity]}, "row 1") == row("在上海", ".Ll")
    with pytest.raises(DataError, match="data, row 7: the span '上海' is not at 1-3 of its text '去北京'"):
        from_entities({"text": "去北京", "entities": [entity]}, "data, row 7")


def test_data_sets_of_the_hub_in_two_layouts(tmp_path):
    splits = load_names(str(make_cluener_repo(tmp_path / "clue-ner")), max_chars=62)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 300, "validation": 30, "test": 60}
    first = splits["train"][0]
    assert spans(first["labels"]) == [(2, 5, "name"), (7, 11, "company")]
    assert "".join(first["tokens"][7:11]) == "海天公司"


def test_duie_gives_pairs_to_judge(tmp_path):
    train, validation = load_duie(str(make_duie_repo(tmp_path / "DuIE")))
    assert (len(train), len(validation)) == (60, 20)
    one = train[1]
    assert [one.text[a:b] for a, b in one.persons + one.offices] == ["江天集团", "王大", "上海"]
    assert one.pairs == {(0, 0)}
