"""`sft/anonymize.py`: what has a form is found and hidden, what fails a check is not, the labelled places hold."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from sft.anonymize import (
    Found,
    find_identifiers,
    hide,
    is_covered,
    load_labelled_identifiers,
    valid_bank_card,
    valid_id_card,
)
from sft.packaged import DataError


def id_card(rng: random.Random) -> str:
    """A number that belongs to nobody: its check digit is right, its day of birth is not."""
    head = f"990000{rng.randrange(1900, 2000)}0000{rng.randrange(1000):03}"
    return next(head + c for c in "0123456789X" if valid_id_card(head + c))


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("打 13800138000 找我", "打 [电话] 找我"),
        ("１３８　００１３　８０００", "[电话]"),  # full-width, in groups
        ("+86-138-0013-8000。", "[电话]。"),
        ("传真0591-83500000转3", "传真[电话]转3"),
        ("客服 400-820-0000", "客服 [电话]"),
        ("发到 li.si+x@mail.example.com.cn，谢谢", "发到 [邮箱]，谢谢"),
        ("见http://example.com/a?b=1。好", "见[网址]。好"),
        ("加QQ：123456789", "加QQ：[QQ]"),
        ("微信号 abc_12345 同上", "微信号 [微信] 同上"),
        ("从 192.168.1.254 来", "从 [IP] 来"),
        ("车停在京A·12345旁", "车停在[车牌]旁"),
        ("卡号4111 1111 1111 1111。", "卡号[银行卡]。"),
    ],
)
def test_what_has_a_form_is_hidden(text: str, hidden: str):
    assert hide(text, find_identifiers(text)) == hidden


@pytest.mark.parametrize(
    "text",
    [
        "2009-05-23 21:58:23 下的单",
        "价格 2000-100，屏幕 1366*768",
        "23800138000",  # no mobile number begins with 2
        "4111 1111 1111 1112",  # Luhn's sum is off
        "300.1.2.3",
        "玩QQ游戏",
    ],
)
def test_what_only_looks_like_it_stays(text: str):
    assert find_identifiers(text) == []


def test_an_id_card_needs_its_check_digit():
    number = id_card(random.Random(0))
    assert hide(f"号码{number}", find_identifiers(f"号码{number}")) == "号码[身份证]"
    wrong = number[:-1] + ("1" if number[-1] != "1" else "2")
    assert not valid_id_card(wrong)
    assert "身份证" not in {found.kind for found in find_identifiers(f"号码{wrong}")}


def test_luhn_notices_every_single_wrong_digit():
    good = "4111111111111111"
    assert valid_bank_card(good)
    for place in range(16):
        for digit in "0123456789":
            changed = good[:place] + digit + good[place + 1 :]
            assert valid_bank_card(changed) == (changed == good)


def test_of_two_that_overlap_the_earlier_one_is_hidden_once():
    assert hide("王小明在家", [Found(0, 3, "人名"), Found(1, 3, "人名")]) == "[人名]在家"


def test_covered_means_no_character_in_the_open():
    assert is_covered(Found(2, 5, "电话"), [Found(0, 3, "a"), Found(3, 9, "b")])
    assert not is_covered(Found(2, 5, "电话"), [Found(0, 4, "a")])


def test_labelled_places_are_inside_the_reviews_and_hold_what_they_say():
    from sft.data import load_reviews

    reviews = load_reviews()
    labelled = load_labelled_identifiers()
    assert len(labelled) > 60
    for one in labelled:
        text = reviews[one.split]["text"][one.row]
        part = text[one.found.start : one.found.stop]
        assert len(part) == one.found.stop - one.found.start
        assert ("@" in part or "＠" in part) == (one.found.kind == "邮箱")
        assert sum(c.isdigit() for c in part) >= 5 or one.found.kind == "邮箱", one


@pytest.mark.parametrize(
    ("content", "message"),
    [("a\tb\n", "line 1"), ("split\trow\tstart\tstop\tkind\ntrain\tx\t1\t2\tQQ\n", "line 2")],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, content: str, message: str):
    (tmp_path / "broken.tsv").write_text(content)
    with pytest.raises(DataError, match=message):
        load_labelled_identifiers(tmp_path / "broken.tsv")
