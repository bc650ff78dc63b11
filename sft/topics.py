"""Short texts of ten and more classes: which radical has the character with this meaning, and headlines by section.

A dictionary of characters labels itself: the radical under which it files a character is what classes of meaning looked
like when they were first drawn up (Xu Shen, Shuowen Jiezi, about the year 100). Nobody had to judge the texts, and no
label is wrong; but not every meaning tells its radical.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter

from datasets import Dataset, DatasetDict, load_dataset

from sft.hub import HubError, locate
from sft.packaged import CORPORA, DataError, read_file
from sft.repeats import SPLITS, near_duplicate_groups, normalise, split_by_group

HUB_HEADLINES = "clue/clue"
"""The CLUE benchmark (Xu et al. 2020, arXiv:2004.05986), whose part ``tnews`` holds headlines of fifteen sections."""

_SECTIONS = {
    "100": "民生",
    "101": "文化",
    "102": "娱乐",
    "103": "体育",
    "104": "财经",
    "106": "房产",
    "107": "汽车",
    "108": "教育",
    "109": "科技",
    "110": "军事",
    "112": "旅游",
    "113": "国际",
    "114": "证券",
    "115": "农业",
    "116": "电竞",
}
_POINTS_ELSEWHERE = re.compile(
    r"见|同|古同|均同|亦同|古通|通“|亦作|也作|另见|义未详|音译|用于|古代?(女子)?人名|人名|古女子|姓$|〔|“[^”]{1,3}”的"
)
_WINDOW = 16  # 常绿乔木，叶子长椭圆形 is a phrase; sixteen equal characters are a copy


# --- characters ----------------------------------------------------------------------------------------


def read_characters() -> Dataset:
    """A dictionary of characters: columns ``character``, ``radical``, ``variant`` (its traditional form, may be empty)
    and ``definition`` (readings in brackets, senses numbered, ~ for the character).

    Raises:
        DataError: the package ``jionlp`` is not installed, or its file is not the one the book was measured on.
    """
    content = read_file(CORPORA["characters"], "dictionary/chinese_char_dictionary.zip")
    text = zipfile.ZipFile(io.BytesIO(content)).read("chinese_char_dictionary.txt").decode("utf-8")
    character, radical, *_, variant, _wubi, definition = zip(
        *(line.split("\t") for line in text.splitlines()), strict=True
    )
    return Dataset.from_dict(
        {"character": character, "radical": radical, "variant": variant, "definition": definition}
    )


def first_meaning(character: str, variant: str, definition: str) -> str:
    """The first sense that says something itself, without readings, examples and the character; empty if none does."""
    text = re.sub(r"\[[^\]]*\]|\s", "", definition)
    text = re.sub(r"（[^（）\u4e00-\u9fff]*）", "", text)
    for shown in {character, variant, "~"} - {""}:
        text = text.replace(shown, "～")
    senses = (sense.strip("。；") for sense in re.split(r"\d+\.", text))
    sense = next((sense for sense in senses if sense and not _POINTS_ELSEWHERE.match(sense)), "")
    sense = re.split(r"：[^：]*～|：“", sense)[0]
    sense = re.sub(r"[^。]*《[^》]*》$", "", sense).strip("。；，")
    return sense if len(re.findall(r"[\u4e00-\u9fff]", sense)) >= 2 else ""


def load_radicals(num_classes: int = 10, *, test_size: int = 600, split_seed: int = 0) -> DatasetDict:
    """Meanings of characters, labelled with their radical: columns ``text``, ``label`` and ``character``, all str.

    The classes are the radicals with most characters. A meaning that stands at several characters is kept once, or not
    at all where their radicals differ; meanings that share sixteen characters in a row are never parted.

    Args:
        test_size: rows of the test split, and again of the validation split (a group may overshoot it).

    Raises:
        DataError: as :func:`read_characters`, or ``test_size`` leaves no training rows.
    """
    rows = read_characters()
    classes = [radical for radical, _ in Counter(rows["radical"]).most_common(num_classes)]
    labels: dict[str, set[str]] = {}
    first: dict[str, tuple[str, str, str]] = {}
    for character, radical, variant, definition in zip(*rows[:].values(), strict=True):
        if radical in classes and (text := first_meaning(character, variant, definition)):
            labels.setdefault(normalise(text), set()).add(radical)
            first.setdefault(normalise(text), (text, radical, character))
    kept = [row for key, row in first.items() if len(labels[key]) == 1]
    text, label, character = zip(*kept, strict=True)
    table = Dataset.from_dict({"text": text, "label": label, "character": character})
    groups = near_duplicate_groups(text, _WINDOW)
    return split_by_group(table, groups, test_size=test_size, seed=split_seed)


# --- headlines -----------------------------------------------------------------------------------------


def load_headlines(repository: str = HUB_HEADLINES, *, split_seed: int = 0) -> DatasetDict:
    """TNEWS, headlines of fifteen sections: columns ``text`` and ``label`` (str).

    The labels of its test split are not public: its validation split is our test, and as many rows of train are our
    validation. Headlines of train and validation that also stand in test are left out.

    Raises:
        DataError: the hub does not answer, or what it has is not TNEWS.
    """
    try:
        raw = load_dataset(locate(repository, "datasets"), "tnews")
        names = raw["train"].features["label"].names
    except HubError as error:
        raise DataError(str(error)) from error
    except Exception as error:  # the libraries below raise dozens of kinds
        told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise DataError(f"cannot load tnews of {repository} from the hub; check its name ({told})") from error
    parts = {
        name: Dataset.from_dict(
            {
                "text": raw[name]["sentence"][:],
                "label": [_SECTIONS.get(names[label], names[label]) for label in raw[name]["label"][:]],
            }
        )
        for name in ("train", "validation")
    }
    test = parts["validation"]
    known = set(map(normalise, test["text"]))
    train = parts["train"]
    train = train.select([i for i, text in enumerate(train["text"]) if normalise(text) not in known])
    train = train.shuffle(seed=split_seed)
    held_out = min(len(test), len(train) // 10)
    splits = (train.select(range(held_out, len(train))), train.select(range(held_out)), test)
    return DatasetDict(dict(zip(SPLITS, splits, strict=True)))


def load_topics(source: str = "packaged") -> DatasetDict:
    """Ten classes and more to practise on: ``"packaged"`` :func:`load_radicals`, ``"hub"`` :func:`load_headlines`.

    Raises:
        DataError: another source, or as the two.
    """
    if source == "packaged":
        return load_radicals()
    if source == "hub":
        return load_headlines()
    raise DataError(
        f'unknown source {source!r}: use "packaged" or "hub"; a table of your own goes to sft.finetune'
    )
