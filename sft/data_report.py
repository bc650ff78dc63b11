"""What was found in a user's own data and what was made of it: for a terminal, a report and a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["single_label", "multi_label", "prompts", "conversations"]

IN_CHINESE = {"train": "训练", "validation": "验证", "test": "测试"}
REPEATED, CONTRADICTORY = "和前面的一条重复", "正文一样，标签却不同"
"""Reasons to drop rows, where the splits are made here."""


@dataclass(frozen=True)
class FileFacts:
    """One file and how it was read."""

    name: str
    format: str
    rows: int
    split: str | None  # None: the file is not one split alone
    encoding: str | None
    delimiter: str | None
    header: bool | None
    sheet: str | None


@dataclass(frozen=True)
class Dropped:
    """Rows that were left out for one reason."""

    reason: str
    rows: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class DataReport:
    """What was found in a user's data and what was made of it."""

    kind: Kind
    files: tuple[FileFacts, ...]
    columns: Mapping[str, tuple[str, ...]]  # text, label, … -> the columns of the file
    how: str  # by what the columns were told
    unused: tuple[str, ...]
    rows: int
    kept: int
    classes: Mapping[str, int]  # of the rows kept, in the order of the classes
    rare_classes: Mapping[str, int]  # dropped, with the rows they had
    lengths: Mapping[str, int]  # median, p90, max: characters of a text that is kept
    empty: int
    missing_labels: int
    repeats: int
    contradictions: int
    dropped: tuple[Dropped, ...]
    splits: Mapping[str, int]
    split_origin: str
    leaks: Mapping[str, int]  # rows of validation and test whose text stands in train, too
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON takes them."""
        return json.loads(json.dumps(asdict(self), ensure_ascii=False))

    def lines(self) -> list[str]:
        """The report in Chinese, for a terminal."""
        found = [f"文件　{_file_line(file)}" for file in self.files]
        roles = {
            "text": "正文",
            "label": "标签",
            "prompt": "提问",
            "answer": "回答",
            "messages": "对话",
            "split": "划分",
        }
        used = "，".join(f"{roles[role]} {' + '.join(names)}" for role, names in self.columns.items())
        found.append(
            f"列　　{used}（{self.how}）" + (f"；没用到 {'、'.join(self.unused)}" if self.unused else "")
        )
        left = f"留下 {self.kept:,}" if self.kept < self.rows else "全部留下"
        found.append(f"行数　读到 {self.rows:,}，{left}")
        for dropped in self.dropped:
            shown = "、".join(dropped.examples) + ("…" if dropped.rows > len(dropped.examples) else "")
            found.append(f"去掉　{dropped.rows:,} 条，{dropped.reason}：{shown}")
        dropped = {dropped.reason for dropped in self.dropped}
        if (self.repeats or self.contradictions) and not dropped & {REPEATED, CONTRADICTORY}:
            found.append(
                f"留意　重复 {self.repeats:,} 条，同文不同标签 {self.contradictions:,} 条，都照原样留着"
            )
        if self.classes:
            kinds = "、".join(f"{name} {count:,}" for name, count in self.classes.items())
            several = "，一条可有几类" if self.kind == "multi_label" else ""
            found.append(f"类别　{len(self.classes)} 类{several}：{kinds}")
        lengths = self.lengths
        found.append(
            f"字数　中位数 {lengths['median']:,}，九成不超过 {lengths['p90']:,}，最长 {lengths['max']:,}"
        )
        sizes = "，".join(f"{IN_CHINESE[name]} {rows:,}" for name, rows in self.splits.items())
        found.append(f"划分　{sizes}（{self.split_origin}）")
        leaked = "，".join(f"{IN_CHINESE[name]} {rows:,} 条" for name, rows in self.leaks.items() if rows)
        found.append(
            f"泄漏　{leaked}在训练集里有一样的，分数会偏高"
            if leaked
            else "泄漏　没有：验证和测试的正文都不在训练集里"
        )
        return found + [f"注意　{note}" for note in self.notes]


def _file_line(file: FileFacts) -> str:
    header = {True: "有表头", False: "没有表头", None: None}[file.header]
    delimiter = file.delimiter and f"{file.delimiter}分隔"
    sheet = file.sheet and f"工作表 {file.sheet}"
    facts = [file.format, file.encoding, delimiter, sheet, header, f"{file.rows:,} 行"]
    return f"{file.name}（{'，'.join(fact for fact in facts if fact)}）"
