"""Which column of a table holds what: told by names and by values, and asked for where neither is certain."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sft.packaged import DataError

MOST_CLASSES = 50
"""A column of more different values is no label unless the user says so."""

_NAMES = {
    "text": "text text_a sentence sentence1 review comment comments content body document post tweet utterance "
    "文本 正文 内容 评论 评论内容 评价 评价内容 句子 短文本 原文 微博 微博中文内容 留言 弹幕 标题 title headline",
    "label": "label labels label_id label_desc class class_label category cat target y sentiment polarity emotion "
    "intent topic star stars rating score tag tags 标签 类别 分类 类 情感 情感倾向 情感极性 情绪 意图 主题 话题 "
    "星级 评分 打分 分数 类目",
    "split": "split subset partition set fold 划分 数据划分 集合",
    "prompt": "prompt instruction question query 问题 提问 指令 提示 提示词 用户",
    "answer": "answer answers response output completion reply chosen 回答 答案 回复 答复 答 输出",
    "input": "input 输入",
    "messages": "messages conversations conversation dialogue dialog 对话",
    "other": "id idx index uid guid no 序号 编号 source url date time user author 来源 日期 时间 作者 链接 text_b "
    "sentence2",
}
_ROLE = {name: role for role, names in _NAMES.items() for name in names.split()}
_END_OF_SENTENCE = re.compile(r"[，。！？；,!?;\n]")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


def role_of(name: str) -> str | None:
    """What a column's name alone says: text, label, split, prompt, answer, input, messages, other."""
    plain = re.sub(r"[\s\-]+", "_", unicodedata.normalize("NFKC", name).strip().casefold())
    return _ROLE.get(plain)


def by_role(names: Sequence[str]) -> dict[str, list[str]]:
    """The columns whose names say what they hold, by role."""
    found: dict[str, list[str]] = {}
    for name in names:
        role = role_of(name)
        if role:
            found.setdefault(role, []).append(name)
    return found


def is_number(word: str) -> bool:
    """Whether a cell is a decimal number."""
    return _NUMBER.fullmatch(word.strip()) is not None


def looks_like_label(values: Sequence[str]) -> bool:
    """Few different short values, each of them often."""
    filled = [value.strip() for value in values if value.strip()]
    kinds = set(filled)
    return 0 < len(kinds) <= min(MOST_CLASSES, len(filled) / 2) and max(map(len, kinds)) <= 30


def looks_like_text(values: Sequence[str]) -> bool:
    """Words rather than numbers, mostly different, and not as short as a name."""
    filled = [value.strip() for value in values if value.strip()]
    if not filled or sum(map(is_number, filled)) > len(filled) / 20 or looks_like_label(values):
        return False
    return len(set(filled)) >= len(filled) / 2 and sum(map(len, filled)) / len(filled) >= 4


def has_header(first: Sequence[str], rest: Sequence[Sequence[str]]) -> bool | None:
    """Whether the first row of a table names its columns; None where the rows do not tell.

    Args:
        rest: the rows after it, or a sample of them.
    """
    cells = [cell.strip() for cell in first]
    values = [[row[i].strip() for row in rest] for i in range(len(cells))]
    if any(
        role_of(cell) not in (None, "other") and cell not in column
        for cell, column in zip(cells, values, strict=True)
    ):
        return True
    votes = {vote for cell, column in zip(cells, values, strict=True) for vote in _votes(cell, column)}
    if len(votes) == 1:
        return votes.pop()
    if votes or len(rest) < 2:
        return None
    looks_alike = [
        bool(_END_OF_SENTENCE.search(cell)) or 2 * len(cell) >= min(map(len, column))
        for cell, column in zip(cells, values, strict=True)
    ]
    return False if all(looks_alike) and len(cells) == 1 else None


def _votes(cell: str, column: Sequence[str]) -> list[bool]:
    """At most one vote for (True) or against a header, by one cell and those below it."""
    filled = [value for value in column if value]
    if len(filled) < 3 or not cell:
        return []
    numbers = sum(map(is_number, filled)) / len(filled)
    if numbers >= 0.95:
        return [not is_number(cell)]
    if looks_like_label(filled):
        counts = Counter(filled)
        if cell in counts:
            return [False]
        return [True] if min(counts.values()) >= 2 else []
    if is_number(cell) and numbers <= 0.05 and min(map(len, filled)) >= 4:
        return [True]  # a table written with the numbers of its columns as their names
    if len(_END_OF_SENTENCE.findall(cell)) >= 2 or len(cell) > 40:
        return [False]
    return []


def describe(samples: Mapping[str, Sequence[Any]]) -> str:
    """One phrase for each column, for an error that asks which one is meant."""
    phrases = []
    for name, values in samples.items():
        words = ["" if value is None else str(value) for value in values]
        kinds = list(dict.fromkeys(word.strip() for word in words if word.strip()))
        some = "、".join(shown(kind, 12) for kind in kinds[:3]) or "全空"
        more = " 等" if len(kinds) > 3 else ""
        phrases.append(f"{name}（{some}{more}）")
    return "；".join(phrases)


def shown(word: object, length: int = 20) -> str:
    """A cell as an error shows it: on one line, its beginning."""
    word = " ".join(str(word).split())
    return word if len(word) <= length else word[:length] + "…"


# --- which column is meant --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Roles:
    """What the columns of a table are used for."""

    kind: Literal["labels", "prompts", "conversations"]
    columns: Mapping[
        str, tuple[str, ...]
    ]  # text and label, prompt and answer, or messages -> the columns of each
    how: str  # by what they were told, in Chinese


def choose_columns(
    samples: Mapping[str, Sequence[Any]],
    *,
    where: str,
    text: str | None,
    label: str | None,
    split: str | None,
) -> Roles:
    """Text and label of a table, its prompt and answer, or its conversations.

    Args:
        samples: cells of every column.
        where: the file, for errors.
        text, label: columns that the user names; ``label`` may name several, with commas between them.
        split: the column that names the splits, which is nothing else.

    Raises:
        DataError: a column named is absent, or more than one answer fits: the error shows the candidates.
    """
    free = [name for name in samples if name != split]
    named = by_role(free)
    if text is None and label is None:
        found = _talk(samples, named, where)
        if found is not None:
            return found
    labels = (
        [find_column(name, samples, where) for name in _several(label, samples)] if label is not None else []
    )
    if text is not None:
        texts = [find_column(text, samples, where)]
    else:
        texts = _fitting("text", [name for name in free if name not in labels], named, samples)
    if label is None:
        others = [name for name in free if name not in texts]
        labels = _fitting("label", others, named, samples)
        if (
            not labels
            and len(others) == 1
            and all(map(is_number, filter(str.strip, _words(samples[others[0]]))))
        ):
            labels = others  # too many numbers for a label: the error will say in which row
    if len(texts) != 1 or not labels or (label is None and len(labels) > 1) or texts[0] in labels:
        raise DataError(
            _ask(samples, where, texts if len(texts) == 1 else [], labels if len(labels) == 1 else [])
        )
    if text is None and texts[0].rstrip("12ab_").casefold() in ("text", "sentence") and "other" in named:
        second = [name for name in named["other"] if name.casefold() in ("text_b", "sentence2")]
        if second:
            raise DataError(
                f"{where}：{texts[0]} 和 {second[0]} 是一对句子，这里只读单句：只用一句，就写 --text {texts[0]}；"
                "两句都要，先把它们拼成一列"
            )
    told = {"text": _told(text, texts, "text"), "label": _told(label, labels, "label")}
    how = told["text"] if len(set(told.values())) == 1 else f"正文{told['text']}，标签{told['label']}"
    return Roles("labels", {"text": tuple(texts), "label": tuple(labels)}, how)


def choose_text(samples: Mapping[str, Sequence[Any]], *, where: str, text: str | None) -> str:
    """The column of a table that holds its texts, where labels may be absent.

    Raises:
        DataError: the column named is absent, or several fit.
    """
    if text is not None:
        return find_column(text, samples, where)
    if len(samples) == 1:
        return next(iter(samples))
    texts = _fitting("text", list(samples), by_role(list(samples)), samples)
    if len(texts) != 1:
        raise DataError(f"{where}：看不出哪一列是正文：{describe(samples)}。用 --text 列名 指定")
    return texts[0]


def find_column(name: str, names: Iterable[str], where: str) -> str:
    """A column by its name, or by its place from 1.

    Raises:
        DataError: there is none.
    """
    names = list(names)
    if name in names:
        return name
    if name.isdigit() and 1 <= int(name) <= len(names):
        return names[int(name) - 1]
    raise DataError(f"{where}：没有列 {name}（有 {'、'.join(names)}）：换成其中一列，或改列名")


def _several(label: str, names: Iterable[str]) -> list[str]:
    """The columns of ``--label``: one name, or several with commas between them."""
    if label in names:
        return [label]
    return [part.strip() for part in re.split("[,，]", label) if part.strip()]


def _told(given: str | None, chosen: Sequence[str], role: str) -> str:
    if given is not None:
        return "由你指定"
    return "按列名认出" if role_of(chosen[0]) == role else "按内容认出"


def _words(values: Sequence[Any]) -> list[str]:
    return ["" if value is None else str(value) for value in values]


def _fits(role: str, values: Sequence[Any], *, named: bool) -> bool:
    """Whether values can be those of a text or a label; a name that says so asks less of them."""
    if any(isinstance(value, dict) for value in values):
        return False
    if any(isinstance(value, list) for value in values):
        return role == "label"
    words = _words(values)
    if not named:
        return looks_like_text(words) if role == "text" else looks_like_label(words)
    filled = [word for word in words if word.strip()]
    if role == "label":
        return not looks_like_text(words) or len(filled) < 20
    return sum(map(is_number, filled)) <= len(filled) / 2


def _fitting(
    role: str, free: Sequence[str], named: Mapping[str, Sequence[str]], samples: Mapping[str, Sequence[Any]]
) -> list[str]:
    """The columns that may be the text (or the label): those so named, or else those that look like it."""
    by_name = [name for name in named.get(role, ()) if name in free]
    if by_name:
        fitting = [name for name in by_name if _fits(role, samples[name], named=True)]
        exact = [name for name in fitting if name == role]
        others = [name for name in fitting if name != role and _fits(role, samples[name], named=False)]
        return exact if exact and not others else fitting
    known = {name for names in named.values() for name in names}
    return [name for name in free if name not in known and _fits(role, samples[name], named=False)]


def _talk(
    samples: Mapping[str, Sequence[Any]], named: Mapping[str, Sequence[str]], where: str
) -> Roles | None:
    """Conversations, or prompts and answers, where the names of the columns say so."""
    messages = [name for name in named.get("messages", ()) if _holds_turns(samples[name])]
    prompts, answers = list(named.get("prompt", ())), list(named.get("answer", ()))
    if not messages and prompts and not answers:
        return None
    if not messages and not prompts and "input" in named and answers:
        prompts = list(named["input"])
    if not messages and not (prompts and answers):
        return None
    if (
        len(messages) > 1
        or (messages and answers)
        or len(prompts) > 1
        or len(answers) > 1
        or named.get("label")
    ):
        raise DataError(
            f"{where}：看不出要学什么：{describe(samples)}。给文本分类，就写 --text 列名 --label 列名；"
            "学着回答，就只留 prompt 和 answer 两列（或 messages 一列）"
        )
    if messages:
        return Roles("conversations", {"messages": (messages[0],)}, "按列名认出")
    extra = [name for name in named.get("input", ()) if name not in prompts]
    return Roles("prompts", {"prompt": (prompts[0], *extra[:1]), "answer": (answers[0],)}, "按列名认出")


def _holds_turns(values: Sequence[Any]) -> bool:
    filled = [value for value in values if value not in (None, "")]
    return bool(filled) and all(isinstance(v, list) or str(v).lstrip().startswith("[") for v in filled)


def _ask(
    samples: Mapping[str, Sequence[Any]], where: str, texts: Sequence[str], labels: Sequence[str]
) -> str:
    """The error that shows the candidates and says how to choose."""
    known = [f"正文像是 {texts[0]}" for _ in texts[:1]] + [f"标签像是 {labels[0]}" for _ in labels[:1]]
    guess = f"（{'，'.join(known)}）" if known else ""
    option = f"--text {texts[0] if texts else '列名'} --label {labels[0] if labels else '列名'}"
    return f"{where}：看不出哪一列是正文、哪一列是标签{guess}。各列：{describe(samples)}。请指定：{option}"
