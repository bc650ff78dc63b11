"""Who holds which office: candidates, a pattern, and labels by distant supervision (Mintz et al. 2009).

Chapter 6.5 writes out ``distant_labels``; a test holds the sources equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from datasets import load_dataset

from sft.corpora import _SENTENCE_ENDS, _name_sizes, load_people_daily
from sft.hand_labelled import OfficeSentence, Span
from sft.hub import HubError, locate
from sft.packaged import DataError

_OFFICES = (
    "主席 总统 总理 首相 国王 女王 天皇 总书记 书记 党委书记 委员长 国务委员 国务卿 "
    "外长 部长 外交部长 国防部长 财政部长 内政部长 卫生部长 大臣 外交大臣 国防大臣 "
    "财政大臣 议长 秘书长 发言人 大使 参赞 总领事 协调员 特使 省长 市长 县长 区长 "
    "乡长 镇长 村长 州长 局长 署长 司长 厅长 处长 科长 主任 院长 校长 所长 馆长 "
    "会长 理事长 社长 行长 总经理 经理 董事长 总裁 总编辑 主编 厂长 司令员 司令 "
    "总司令 总参谋长 参谋长 政委 政治委员 团长 队长 组长 主教练 教练 董事 委员 副主席 "
    "副总统 副总理 执行官 支队长 大队长 中队长 连长 师长 军长 站长 台长 矿长 场长 "
    "检察长 审判长 庭长 支书 支部书记 村支书 常委 总干事 干事长 领队 队医 行政长官 "
    "长官 总监 总工程师 顾问 秘书 助理 检察官 法官"
)
OFFICES = frozenset(_OFFICES.split(" "))
_APART = frozenset("，。；：！？“”（）")  # an apposition does not reach over these


def find_office_sentences(
    split: str, max_chars: int = 150, *, min_pairs: int = 1, max_pairs: float = math.inf
) -> list[OfficeSentence]:
    """The sentences of a split that name a person and an office, unlabelled; those that repeat are left out.

    Persons are the names of the corpus, offices the words of ``OFFICES``, with 副 or 总 before them. The test set was
    drawn from those of at most 110 characters with 2 to 16 pairs of a person and an office.

    Raises:
        DataError: as :func:`sft.corpora.load_people_daily`.
    """
    rows = load_people_daily()[split][:]
    found: dict[str, OfficeSentence] = {}
    for tokens, tags in zip(rows["tokens"], rows["tags"], strict=True):
        for start, stop in _sentences(tokens):
            sentence = _candidates(tokens[start:stop], tags[start:stop])
            pairs = len(sentence.persons) * len(sentence.offices)
            if min_pairs <= pairs <= max_pairs and len(sentence.text) <= max_chars:
                found.setdefault(sentence.text, sentence)
    return list(found.values())


def load_duie(name: str, relation: str = "董事长") -> tuple[list[OfficeSentence], list[OfficeSentence]]:
    """Sentences of DuIE (Li et al. 2019) with a relation, to learn from and to be examined on.

    A subject of any relation stands where a person does, an object where an office does: the pairs to judge are all
    of them, those of ``relation`` are right. Of a text that occurs several times the first place counts.

    Args:
        name: a data set of the hub or a folder with columns text and rels ({s, p, o}, each with its text), splits
            train and validation.

    Raises:
        DataError: the data set cannot be had, or a subject or object is not in its text.
    """
    try:
        splits = load_dataset(name if Path(name).is_dir() else locate(name, "datasets"))
    except HubError as error:
        raise DataError(str(error)) from error
    train, validation = (
        [
            _from_triples(row["text"], row["rels"], relation, f"{name}, {part} row {i + 1}")
            for i, row in enumerate(splits[part])
            if any(triple["p"] == relation for triple in row["rels"])
        ]
        for part in ("train", "validation")
    )
    return train, validation


def _from_triples(text: str, triples: list[dict], relation: str, place: str) -> OfficeSentence:
    def span(part: str) -> Span:
        start = text.find(part)
        if not part or start < 0:
            raise DataError(f"{place}: the span {part!r} is not in its text {text!r}")
        return start, start + len(part)

    said = [(span(t["s"]["text"]), t["p"], span(t["o"]["text"])) for t in triples]
    subjects = sorted({subject for subject, _, _ in said})
    objects = sorted({end for _, _, end in said} - set(subjects))
    pairs = {(subjects.index(s), objects.index(o)) for s, p, o in said if p == relation and o in objects}
    return OfficeSentence(text, tuple(subjects), tuple(objects), frozenset(pairs))


def _sentences(tokens: list[str]) -> Iterator[tuple[int, int]]:
    """First token of each sentence and one past its last; closing quotes stay with theirs."""
    start = 0
    for i, token in enumerate(tokens):
        following = tokens[i + 1] if i + 1 < len(tokens) else ""
        ends = token in _SENTENCE_ENDS or (token in "”’』」》）" and i and tokens[i - 1] in _SENTENCE_ENDS)
        if (ends and following not in tuple("”’』」》）")) or not following:
            yield start, i + 1
            start = i + 1


def _candidates(tokens: list[str], tags: list[str]) -> OfficeSentence:
    persons: list[Span] = []
    offices: list[Span] = []
    ends = [0]
    for token in tokens:
        ends.append(ends[-1] + len(token))
    i = 0
    while i < len(tokens):
        run = i
        while run < len(tokens) and tags[run] == "nr":
            run += 1
        for size in _name_sizes(tokens[i:run]):
            persons.append((ends[i], ends[i + size]))
            i += size
        if i == len(tokens):
            break
        size = 2 if tokens[i] in ("副", "总") and tags[i] == "b" else 1
        if tokens[i + size - 1 : i + size] and tokens[i + size - 1] in OFFICES and tags[i + size - 1] == "n":
            offices.append((ends[i], ends[i + size]))
            i += size
        else:
            i += 1
    return OfficeSentence("".join(tokens), tuple(persons), tuple(offices))


def to_units(sentence):
    """The sentence with "P" for each person and "T" for each office, as a list; and where these stand in it."""
    kinds = dict.fromkeys(sentence.persons, "P") | dict.fromkeys(sentence.offices, "T")
    units, places, end = [], {}, 0
    for span in sorted(kinds):
        units += sentence.text[end : span[0]]
        places[span] = len(units)
        units.append(kinds[span])
        end = span[1]
    units += sentence.text[end:]
    persons = [places[span] for span in sentence.persons]
    return units, persons, [places[span] for span in sentence.offices]


def pattern_pairs(sentence):
    """Pairs that an apposition shows: 主席P, P主席, 书记、省长P (both offices), 副主席P、P、P (all persons)."""
    units, persons, offices = to_units(sentence)
    pairs = set()
    for office, t in enumerate(offices):
        p = t + 1
        if units[p : p + 1] and units[p] in "、兼":  # more offices before the name
            while p < len(units) and units[p] != "P" and units[p] not in _APART:
                p += 1
            if units[p - 1] != "T":
                continue
        if units[p : p + 1] == ["P"]:
            while units[p : p + 1] == ["P"]:
                pairs.add((persons.index(p), office))
                p += 2 if units[p + 1 : p + 3] == ["、", "P"] else len(units)
        elif t and units[t - 1] == "P":
            pairs.add((persons.index(t - 1), office))
    return pairs


def name_pair(sentence, pair):
    """What a pair says: (江泽民, 主席)."""
    (a, b), (c, d) = sentence.persons[pair[0]], sentence.offices[pair[1]]
    return sentence.text[a:b], sentence.text[c:d]


def distant_labels(sentence, facts, famous):
    """Label 1 where the facts hold the pair, 0 where they speak against it; pairs they say nothing on are left out.

    Args:
        facts: Counter of (person, office).
        famous: persons of whom the facts are held to be complete.
    """
    labels = {}
    for office in range(len(sentence.offices)):
        pairs = [(person, office) for person in range(len(sentence.persons))]
        known = [name_pair(sentence, pair) in facts for pair in pairs]
        for pair, holds in zip(pairs, known, strict=True):
            if holds or any(known) or name_pair(sentence, pair)[0] in famous:
                labels[pair] = int(holds)
    return labels


def pair_features(sentence):
    """Features of each pair, a dict of name to 1, by what stands between person and office and beside them.

    Of persons in a row (P、P、P) the one nearest to the office speaks for all.
    """
    units, persons, offices = to_units(sentence)
    shown, framed = pattern_pairs(sentence), ["^", *units, "$"]
    features = {}
    for i, p in enumerate(persons):
        for j, t in enumerate(offices):
            order, edge = ("PT", _end_of_row(units, p, 2)) if p < t else ("TP", _end_of_row(units, p, -2))
            between = units[min(edge, t) + 1 : max(edge, t)]
            found = {f"far {min(len(between), 12) // 2}", f"alone {p == edge}"}
            found |= {f"{mark} {between.count(mark)}" for mark in "PT、，"}
            found |= {"".join(between)} if len(between) <= 6 else set()
            found |= {f"shown {(i, j) in shown}", f"taken {any(b == j and a != i for a, b in shown)}"}
            beside = {f"P {framed[p]}.", f"P .{framed[p + 2]}", f"T {framed[t]}.", f"T .{framed[t + 2]}"}
            features[i, j] = dict.fromkeys([f"{order} {name}" for name in found] + sorted(beside), 1)
    return features


def _end_of_row(units: list[str], p: int, step: int) -> int:
    """The last person of P、P、P from ``p`` on, rightwards (step 2) or leftwards (-2)."""
    while 0 <= p + step < len(units) and units[p + step // 2] == "、" and units[p + step] == "P":
        p += step
    return p
