"""Message catalogues: what is read from them, placeholders, and two files of a reader's own."""

from __future__ import annotations

import gettext
import io
import re
from pathlib import Path

import pytest

from sft.packaged import read_file
from sft.ui_strings import (
    CATALOGUES,
    SLOTS,
    Pair,
    mask,
    plain,
    read_aligned,
    read_messages,
    read_ui_strings,
    same_wording,
    unmask,
)

ROOT = Path(__file__).parents[2]


def test_messages_are_those_that_gettext_reads():
    django = CATALOGUES["django"]
    path = "contrib/admin/locale/zh_Hans/LC_MESSAGES/django.mo"
    content = read_file(django, path)
    theirs = gettext.GNUTranslations(io.BytesIO(content))
    ours = read_messages(content)
    assert len(ours) == 198
    for source, target in ours:
        if theirs.gettext(source) != source:  # no context, no plural
            assert theirs.gettext(source) == target
    assert ("Delete", "删除") in ours


@pytest.mark.parametrize("content", [b"", b"msgid", b"\x95\x04\x12\xde" + bytes(24)])
def test_what_is_no_catalogue_is_refused(content):
    with pytest.raises(ValueError, match=r"^not a \.mo file: it begins with"):
        read_messages(content)


def test_all_catalogues_are_read_and_pinned():
    pairs = read_ui_strings()
    assert {pair.catalogue for pair in pairs} == set(CATALOGUES)
    assert len(pairs) == 9706
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))
    assert {c.package: c.version for c in CATALOGUES.values()} == {
        c.package: pins[c.package] for c in CATALOGUES.values()
    }


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("<b>Save</b> &amp; close", "Save & close"),
        ("&File", "File"),
        ("文件(&F)", "文件"),
        ("文件 (F)", "文件"),
        ("two\n  lines ", "two lines"),
        ("a < b > c", "a < b > c"),
    ],
)
def test_tags_and_keys_are_taken_out(text, wanted):
    assert plain(text) == wanted


@pytest.mark.parametrize(
    "text", ["%(name)s of %(total)d", "%s and %s", "{a} {b!r} {}", "%1 – %2", "100% sure", "no slot"]
)
def test_placeholders_come_back_unchanged(text):
    hidden, names = mask(text)
    assert not any(name in hidden for name in names)
    assert unmask(hidden, names) == text


def test_slots_follow_the_source_whatever_the_order_of_the_target():
    source, names = mask("%(n)d of %(total)d")
    target, _ = mask("共 %(total)d 个，第 %(n)d 个", names)
    assert (source, target) == ("⟨0⟩ of ⟨1⟩", "共 ⟨1⟩ 个，第 ⟨0⟩ 个")


def test_a_strange_placeholder_and_too_many_are_refused():
    with pytest.raises(ValueError, match=r"'%\(b\)s' in '.*' is not a placeholder of its source"):
        mask("译 %(b)s", ["%(a)s"])
    with pytest.raises(ValueError, match="5 placeholders"):
        mask("{a} {b} {c} {d} {e}")
    assert len(SLOTS) == 4


def test_near_repeats_have_the_same_wording():
    assert same_wording("Heading 1:") == same_wording("heading 2") == "heading"
    assert same_wording("Open %s") != same_wording("Close %s")


def write(folder: Path, **texts: str) -> list[Path]:
    files = [folder / f"{name}.txt" for name in texts]
    for file, text in zip(files, texts.values(), strict=True):
        file.write_text(text, encoding="utf-8")
    return files


def test_aligned_files_become_pairs(tmp_path):
    assert read_aligned(*write(tmp_path, en="Open  file\nClose\n", zh="\ufeff打开文件\n关闭")) == [
        Pair("Open file", "打开文件"),
        Pair("Close", "关闭"),
    ]


@pytest.mark.parametrize(
    ("zh", "message"),
    [
        ("一\n二", r"^en\.txt has 3 lines and zh\.txt has 2: line 3 of en\.txt has no partner"),
        ("一\n二\n三\n四", r"^zh\.txt has 4 lines and en\.txt has 3: line 4 of zh\.txt has no partner"),
        ("一\n\n三", r"^zh\.txt, line 2 is empty"),
        ("", r"^en\.txt has 3 lines and zh\.txt has 0: line 1 of en\.txt"),
    ],
)
def test_files_that_do_not_match_are_refused_with_the_line(tmp_path, zh, message):
    with pytest.raises(ValueError, match=message) as error:
        read_aligned(*write(tmp_path, en="a\nb\nc", zh=zh))
    assert "\n" not in str(error.value)
