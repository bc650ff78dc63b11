"""A user's own files: each loads rightly, or ends in one line that names row or column and says what to do."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from sft.data_report import DataReport
from sft.labels import Labels
from sft.own_data import OwnData, _Rows, load_own_data, read_texts
from sft.packaged import DataError
from sft.repeats import SPLITS, near_duplicate_groups

TEXTS = [
    "房间很干净，服务也好", "隔音太差了, 一夜没睡", "早餐不错", "前台不理人", "下次还来", "再也不来了",
    "离车站很近", "空调是坏的", "性价比高", "床单有味道", "老板人很好", "排队一个小时", "NA", "太贵",
]  # fmt: skip
WORDS = ["好评", "差评"] * 7
ROWS = list(zip(TEXTS, WORDS, strict=True))
LABELLED = sorted(ROWS)


def delimited(
    rows: list[tuple[str, ...]], mark: str = ",", *, header: str | None = "text,label", quoted=False
) -> str:
    """Rows as text; cells that hold the delimiter are quoted, or all are."""

    def cell(value: str) -> str:
        return (
            f'"{value.replace(chr(34), chr(34) * 2)}"' if quoted or mark in value or "\n" in value else value
        )

    lines = [header.replace(",", mark)] if header else []
    return "\n".join([*lines, *(mark.join(map(cell, row)) for row in rows)]) + "\n"


def workbook(rows: list[tuple[Any, ...]], *others: str) -> bytes:
    book = openpyxl.Workbook()
    book.active.title = "评论"
    for row in rows:
        book.active.append(row)
    for title in others:
        book.create_sheet(title).append(["别的", "数据"])
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def parquet(table: pa.Table) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()


def json_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


OBJECTS = [{"text": text, "label": word} for text, word in ROWS]
NUMBERS = [(text, str(i % 2)) for i, text in enumerate(TEXTS)]
TRADITIONAL = [(text.translate(str.maketrans("间净务离车评", "間淨務離車評")), word) for text, word in ROWS]
TRADITIONAL = [
    (re.sub("[^\\x00-\\x7f]*", lambda m: m[0].encode("big5", "ignore").decode("big5"), t), w)
    for t, w in TRADITIONAL
]
BIG5 = [(text, word.translate(str.maketrans("评", "評"))) for text, word in TRADITIONAL]

GOOD: dict[str, tuple[str, str | bytes, dict[str, Any], list[tuple[str, str]]]] = {
    "utf-8": ("a.csv", delimited(ROWS), {}, ROWS),
    "byte order mark": ("a.csv", delimited(ROWS).encode("utf-8-sig"), {}, ROWS),
    "gb18030": ("a.csv", delimited(ROWS).encode("gb18030"), {}, ROWS),
    "big5": ("a.csv", delimited(BIG5).encode("big5"), {}, BIG5),
    "utf-16": ("a.csv", delimited(ROWS).encode("utf-16"), {}, ROWS),
    "utf-16 without a mark": ("a.txt", delimited(ROWS, "\t").encode("utf-16-le"), {}, ROWS),
    "extension in capitals": ("A.CSV", delimited(ROWS), {}, ROWS),
    "tsv": ("a.tsv", delimited(ROWS, "\t"), {}, ROWS),
    "quoted tsv": ("a.tsv", delimited(ROWS, "\t", quoted=True), {}, ROWS),
    "tabs in a csv": ("a.csv", delimited(ROWS, "\t"), {}, ROWS),
    "semicolons": ("a.csv", delimited(ROWS, ";"), {}, ROWS),
    "txt with tabs": ("a.txt", delimited(ROWS, "\t"), {}, ROWS),
    "carriage returns": ("a.csv", delimited(ROWS).replace("\n", "\r"), {}, ROWS),
    "windows, blank lines": ("a.csv", delimited(ROWS).replace("\n", "\r\n\r\n"), {}, ROWS),
    "bare quotes in a tsv": (
        "a.tsv", delimited([('"好"吃', "好评"), ('难"吃', "差评"), ('"难', "差评"), *ROWS], "\t"), {},
        [('"好"吃', "好评"), ('难"吃', "差评"), ('"难', "差评"), *ROWS],
    ),
    "quotes that swallow lines": (
        "a.tsv", delimited([('"好吃', "好评"), *ROWS, ('难吃"', "差评")], "\t"), {},
        [('"好吃', "好评"), *ROWS, ('难吃"', "差评")],
    ),
    "quoted newlines": (
        "a.csv", delimited([("一\n二，三", "好评"), ('他说"好"', "好评"), *ROWS]), {},
        [("一\n二，三", "好评"), ('他说"好"', "好评"), *ROWS],
    ),
    "no header, label first": ("a.tsv", delimited([(b, a) for a, b in NUMBERS], "\t", header=None), {}, NUMBERS),
    "no header, words": ("a.txt", delimited([(b, a) for a, b in ROWS], "\t", header=None), {}, ROWS),
    "names that say nothing": ("a.csv", delimited(NUMBERS, header="甲,乙"), {}, NUMBERS),
    "numbers as names": ("a.csv", delimited(ROWS, header="0,1"), {}, ROWS),
    "an index and empty columns": (
        "a.csv", delimited([(str(i), *row, "", "") for i, row in enumerate(ROWS)], header=",text,label,,"), {}, ROWS,
    ),
    "hfl": ("a.tsv", delimited([(b, a) for a, b in NUMBERS], "\t", header="label,text_a"), {}, NUMBERS),
    "named by the user": (
        "a.csv", delimited([(a, b, "酒店" if b == "0" else "书") for a, b in NUMBERS], header="review,label,cat"),
        {"label": "label"}, NUMBERS,
    ),
    "named by place": ("a.csv", delimited(ROWS[:6], header=None), {"text": "1", "label": "2"}, ROWS[:6]),
    "fasttext": ("a.txt", "".join(f"__label__{word} {text}\n" for text, word in ROWS), {}, ROWS),
    "json": ("a.json", json.dumps(OBJECTS), {}, ROWS),
    "json by columns": ("a.json", json.dumps({"text": TEXTS, "label": WORDS}), {}, ROWS),
    "json of pandas": (
        "a.json", json.dumps({"text": dict(enumerate(TEXTS)), "label": dict(enumerate(WORDS))}), {}, ROWS,
    ),
    "json under data": ("a.json", json.dumps({"version": 1, "data": OBJECTS}), {}, ROWS),
    "json lines": ("a.jsonl", json_lines(OBJECTS), {}, ROWS),
    "json lines called json": ("a.json", json_lines(OBJECTS), {}, ROWS),
    "json lines in gb18030": ("a.jsonl", json_lines(OBJECTS).encode("gb18030"), {}, ROWS),
    "parquet": ("a.parquet", parquet(pa.table({"text": TEXTS, "label": WORDS})), {}, ROWS),
    "excel": ("a.xlsx", workbook([("text", "label"), *ROWS]), {}, ROWS),
    "excel with numbers": (
        "a.XLSX", workbook([("text", "label"), *((a, float(b)) for a, b in NUMBERS), (None, None)]), {}, NUMBERS,
    ),
    "a sheet of several": ("a.xlsx", workbook([("text", "label"), *ROWS], "其他"), {"sheet": "评论"}, ROWS),
    "-1 and 1": (
        "a.csv", delimited([(t, "-1" if b == "0" else "1") for t, b in NUMBERS]), {},
        [(t, "-1" if b == "0" else "1") for t, b in NUMBERS],
    ),
    "whole numbers with points": ("a.csv", delimited([(t, f"{b}.0") for t, b in NUMBERS]), {}, NUMBERS),
    "one label with a comma": (
        "a.csv", delimited([(t, w.replace("好评", "好,评")) for t, w in ROWS]), {"separator": ""},
        [(t, w.replace("好评", "好,评")) for t, w in ROWS],
    ),
}  # fmt: skip


def save(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows_of(own: OwnData) -> list[tuple[str, str]]:
    """Every text with the word of its label, over all splits."""
    return [(row["text"], own.label_names[row["label"]]) for name in SPLITS for row in own.splits[name]]


@pytest.mark.parametrize("case", GOOD)
def test_a_file_loads_rightly(tmp_path: Path, case: str):
    name, content, options, expected = GOOD[case]
    own = load_own_data(save(tmp_path, name, content), **options)
    assert sorted(rows_of(own)) == sorted(set(expected))
    assert min(own.report.splits.values()) > 0
    assert own.kind == "single_label"


LONG = "这是一句足够长的话，长得不会有人把它当成一个标签"
FAULTS: dict[str, tuple[str, str | bytes, dict[str, Any], str]] = {
    "empty": ("a.csv", "", {}, "没有数据"),
    "header alone": ("a.csv", "text,label\n", {}, "没有数据"),
    "too many cells": ("a.csv", "text,label\n好,1\n坏,真坏,0\n", {}, r"第 2 条（文件第 3 行）有 3 列.*双引号"),
    "too few cells": ("a.tsv", "text\tlabel\n好\t1\n坏\n", {}, r"第 2 条（文件第 3 行）有 1 列.*补上"),
    "quotes left open": ("a.csv", delimited(ROWS) + '"没有关上,好评\n再来,一个\n', {}, r"从第 16 行起引号不成对"),
    "a broken byte": ("a.csv", delimited(ROWS).encode() + b"\xff\xfe,1\n", {}, "第 16 行有不属于 UTF-8 的字节"),
    "no known encoding": ("a.csv", "text,label\ncafé,1\nnaïve,0\n".encode("latin-1"), {}, "认不出编码"),
    "zero bytes": ("a.csv", b"text,label\n\0\0\0\0\0\0", {}, "零字节"),
    "a column named twice": (
        "a.csv", delimited([(*r, "x") for r in ROWS], header="text,label,text"),
        {}, "第 1 列和第 3 列都叫 text",
    ),
    "a key named twice": ("a.jsonl", '{"text":"好","label":1,"text":"坏"}\n', {}, r"第 1 行.*键 text 写了两次"),
    "broken json line": ("a.jsonl", json_lines(OBJECTS) + '{"text": \n', {}, "第 15 行不是 JSON"),
    "json of many shapes": ("a.json", json.dumps([*OBJECTS, "一句话"]), {}, "第 15 条不是"),
    "json of nothing known": ("a.json", '{"甲": {"乙": 1}, "丙": []}', {}, "看不出哪里是各条数据"),
    "a header nobody knows": (
        "a.csv", f"甲,乙\n{LONG}一,{LONG}二\n{LONG}三,{LONG}四\n",
        {}, r"看不出第一行（甲、乙）.*--text",
    ),
    "fasttext that stops": ("a.txt", "__label__a 一\n__label__b 二\n没有标签\n", {}, "第 3 行不像别的行"),
    "two candidates": (
        "a.csv", delimited([(*r, "书" if len(r[0]) % 2 else "酒店") for r in ROWS], header="review,label,cat"), {},
        r"label（好评、差评）；cat（.*）。请指定：--text review --label",
    ),
    "swapped names": (
        "a.csv", delimited([(f"{LONG}{i}", str(i % 2)) for i in range(30)], header="label,text"), {}, "看不出哪一列",
    ),
    "a pair of sentences": (
        "a.csv", delimited([(a, a[::-1], b) for a, b in NUMBERS], header="sentence1,sentence2,label"), {}, "一对句子",
    ),
    "no such column": ("a.csv", delimited(ROWS), {"label": "星级"}, "没有列 星级（有 text、label）"),
    "scores": (
        "a.csv", delimited([*NUMBERS[:5], ("好", "0.9"), ("坏", "0.2")]),
        {}, r"第 6 条，列 label：标签 0\.9 是小数",
    ),
    "too many classes": (
        "a.csv", delimited([(f"第{i}句话", str(i)) for i in range(60)]), {},
        r"第 51 条，列 label：到 50 已有 51 种.*共 60 种",
    ),
    "text as label": (
        "a.csv", delimited([(str(i), f"{LONG}{i}") for i in range(60)], header="id,label"), {}, "看不出哪一列",
    ),
    "numbers and a word": ("a.csv", delimited([*NUMBERS, ("怪", "未知")]), {}, r"第 15 条，列 label：标签 未知 不是数"),
    "spelled twice": (
        "a.csv", delimited([("好", "Pos"), *ROWS, ("很好", "Pos"), ("坏", "pos")]),
        {}, r"第 17 条.*pos 和 Pos 只差大小写",
    ),
    "several in a cell": (
        "a.csv", delimited([(t, "甲|乙" if i % 3 else "甲乙"[i % 2]) for i, t in enumerate(TEXTS)]), {},
        r"第 2 条，列 label：甲\|乙 像是几个标签.*--separator \"\|\"",
    ),
    "flags of another kind": (
        "a.csv", delimited([(a, b, "2") for a, b in NUMBERS], header="text,甲,乙"),
        {"label": "甲,乙"}, r"第 1 条，列 乙：2 不是 0 或 1",
    ),
    "vectors": (
        "a.jsonl", json_lines([{"text": t, "label": [i % 2, 1 - i % 2]} for i, t in enumerate(TEXTS)]), {},
        "第 1 条，列 label：标签是一串 0 和 1",
    ),
    "one class": ("a.csv", delimited([(t, "好评") for t in TEXTS]), {}, "都是一类（好评）"),
    "a row a class": (
        "a.csv", delimited([(t, f"类{i}") for i, t in enumerate(TEXTS)]),
        {}, r"第 1 条：类别 类0 只有 1 条",
    ),
    "all rows equal": ("a.csv", delimited([("好", "好评")] * 30), {}, "只剩 1 条"),
    "contradictions alone": ("a.csv", delimited([("好", "好评"), ("好！", "差评")] * 30), {}, "只剩 0 条"),
    "no label at all": ("a.csv", delimited([(t, "") for t in TEXTS]), {}, "看不出哪一列|只剩 0 条"),
    "a text that is none": (
        "a.jsonl", json_lines([*OBJECTS, {"text": {"a": 1}, "label": "好评"}]),
        {"text": "text"}, "第 15 条，列 text 不是文字",
    ),
    "half a character": (
        "a.jsonl", '{"text":"\\ud83d","label":"好评"}\n' + json_lines(OBJECTS),
        {}, "第 1 条，列 text 有半个字符",
    ),
    "a label that is none": (
        "a.jsonl", json_lines([*OBJECTS, {"text": "好", "label": {"a": 1}}]),
        {"label": "label"}, "第 15 条的标签",
    ),
    "a strange split": (
        "a.csv", delimited([(*r, "trian") for r in ROWS], header="text,label,split"),
        {"split": "split"}, r"第 1 条，列 split：trian 不是",
    ),
    "a split too large": ("a.csv", delimited(ROWS), {"test_size": 100}, "验证和测试要 10"),
    "a split of nothing": ("a.csv", delimited(ROWS), {"test_size": 0}, "--test-size 0 不行"),
    "several sheets": ("a.xlsx", workbook([("text", "label"), *ROWS], "其他"), {}, "评论、其他.*--sheet"),
    "no such sheet": ("a.xlsx", workbook([("text", "label"), *ROWS]), {"sheet": "3"}, "没有工作表 3：有 评论"),
    "a sheet of text": ("a.csv", delimited(ROWS), {"sheet": "评论"}, "只有 .xlsx 才有工作表"),
    "text called excel": ("a.xlsx", delimited(ROWS), {}, "不是 Excel 工作簿"),
    "excel called text": ("a.csv", workbook([("text", "label"), *ROWS]), {}, "把扩展名改回 .xlsx"),
    "damaged excel": ("a.xlsx", workbook([("text", "label"), *ROWS])[:800], {}, "打不开.*另存为新的 .xlsx"),
    "old excel": ("a.xls", b"\xd0\xcf\x11\xe0", {}, "在 Excel 里另存为 .xlsx"),
    "damaged parquet": ("a.parquet", b"PAR1 no more", {}, "不是完好的 Parquet"),
    "pickled": ("a.pkl", pickle.dumps(ROWS), {}, "不读 .pkl"),
    "unknown extension": ("a.doc", b"", {}, "不认识扩展名 .doc"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_ends_in_one_line_that_says_what_to_do(tmp_path: Path, case: str):
    name, content, options, message = FAULTS[case]
    with pytest.raises(DataError, match=message) as raised:
        load_own_data(save(tmp_path, name, content), **options)
    line = str(raised.value)
    assert "\n" not in line and (name in line or "--" in line)


# --- what is dropped, and what is said --------------------------------------------------------------------

DIRTY = [
    *ROWS,
    ("", "好评"),
    ("没有标签", ""),
    ("也没有", "NaN"),
    ("早餐不错！", "好评"),
    ("两说", "好评"),
    ("两说。", "差评"),
    ("少见", "中评"),
]


def test_what_is_dropped_is_counted_and_named(tmp_path: Path):
    report = load_own_data(save(tmp_path, "a.csv", delimited(DIRTY, quoted=True))).report
    assert {d.reason: (d.rows, d.examples[0]) for d in report.dropped} == {
        "正文是空的": (1, "a.csv：第 15 条"),
        "没有标签": (2, "a.csv：第 16 条"),
        "和前面的一条重复": (1, "a.csv：第 18 条"),
        "正文一样，标签却不同": (2, "a.csv：第 19 条"),
        "类别 中评 太少，每类至少要 3 条": (1, "a.csv：第 21 条"),
    }
    assert (report.rows, report.kept, report.rare_classes) == (21, 14, {"中评": 1})
    assert (report.empty, report.missing_labels, report.repeats, report.contradictions) == (1, 2, 1, 2)
    assert report.classes == {"差评": 7, "好评": 7}
    lines = "\n".join(report.lines())
    assert "UTF-8，逗号分隔，有表头，21 行" in lines and "差评 7、好评 7" in lines and "中评 太少" in lines


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.xlsx"])
def test_a_label_that_is_not_a_number_is_no_label(tmp_path: Path, name: str):
    """NaN as JSON and Parquet have it, and the empty cell or the text that a workbook has instead."""
    numbers = [*(float(label) for _, label in NUMBERS), float("nan")]
    texts = [*TEXTS, "没有标签"]
    objects = [{"text": text, "label": label} for text, label in zip(texts, numbers, strict=True)]
    content = {
        "a.jsonl": json_lines(objects),
        "a.parquet": parquet(pa.table({"text": texts, "label": numbers})),
        "a.xlsx": workbook([("text", "label"), *zip(texts, [*numbers[:-1], "NaN"], strict=True)]),
    }[name]
    own = load_own_data(save(tmp_path, name, content))
    assert sorted(rows_of(own)) == sorted(NUMBERS) and own.report.missing_labels == 1
    with pytest.raises(DataError, match=r"第 15 条：没有标签.*--strict"):
        load_own_data(tmp_path / name, strict=True)


@pytest.mark.parametrize("row", DIRTY[14:15] + DIRTY[15:16] + DIRTY[17:18] + DIRTY[20:21])
def test_strict_refuses_instead(tmp_path: Path, row: tuple[str, str]):
    path = save(tmp_path, "a.csv", delimited([*ROWS, row], quoted=True))
    assert len(rows_of(load_own_data(path))) == len(ROWS)
    with pytest.raises(DataError, match=r"第 15 条：.*--strict"):
        load_own_data(path, strict=True)
    assert len(rows_of(load_own_data(save(tmp_path, "b.csv", delimited(ROWS)), strict=True))) == len(ROWS)


def test_classes_are_in_a_stable_order(tmp_path: Path):
    rows = [(f"第{i}条评论", word) for i, word in enumerate(["好评", "中评", "差评"] * 5)]
    assert load_own_data(save(tmp_path, "a.csv", delimited(rows))).label_names == ("差评", "好评", "中评")
    rows = [(f"第{i}条评论", str(i % 5 * 5 - 5)) for i in range(30)]
    own = load_own_data(save(tmp_path, "b.csv", delimited(rows)))
    assert own.label_names == ("-5", "0", "5", "10", "15")
    assert "按 5 个类别学，不管它们的大小和次序" in own.report.notes[0]


def test_every_row_tells_where_it_came_from(tmp_path: Path):
    own = load_own_data(save(tmp_path, "a.csv", delimited([("", "好评"), *ROWS], quoted=True)))
    rows = [row for name in SPLITS for row in own.splits[name]]
    assert {row["file"] for row in rows} == {"a.csv"}
    assert all(TEXTS[row["row"] - 2] == row["text"] for row in rows)


def test_many_classes_are_taken_where_the_column_is_named(tmp_path: Path):
    rows = [(f"第{i}句话", f"意图{i % 60}") for i in range(360)]
    own = load_own_data(save(tmp_path, "a.csv", delimited(rows)), label="label")
    assert len(own.label_names) == 60
    assert all(len(set(own.splits[name]["label"])) == 60 for name in SPLITS)


def test_the_report_is_plain_values(tmp_path: Path):
    report = load_own_data(save(tmp_path, "a.csv", delimited(DIRTY, quoted=True))).report
    assert isinstance(report, DataReport)
    assert json.loads(json.dumps(report.as_dict())) == report.as_dict()
    assert report.as_dict()["files"][0]["encoding"] == "UTF-8"
    assert report.lengths == {"median": 5, "p90": 10, "max": 11}


# --- several labels ---------------------------------------------------------------------------------------

TOPICS = [["体育"], ["财经", "体育"], [], ["房产"]] * 6
TOPIC_TEXTS = [f"第{i}条新闻说了些什么" for i in range(24)]
SEVERAL: dict[str, tuple[str, str, dict[str, Any]]] = {
    "lists": (
        "a.jsonl",
        json_lines([{"text": t, "label": w} for t, w in zip(TOPIC_TEXTS, TOPICS, strict=True)]),
        {},
    ),
    "lists as text": (
        "a.csv",
        delimited([(t, str(w)) for t, w in zip(TOPIC_TEXTS, TOPICS, strict=True)]),
        {},
    ),
    "columns": (
        "a.csv",
        delimited(
            [
                (t, *(str(int(n in w)) for n in ("财经", "房产", "体育")))
                for t, w in zip(TOPIC_TEXTS, TOPICS, strict=True)
            ],
            header="text,财经,房产,体育",
        ),
        {"label": "财经,房产,体育"},
    ),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_several_labels_to_a_text(tmp_path: Path, case: str):
    name, content, options = SEVERAL[case]
    own = load_own_data(save(tmp_path, name, content), **options)
    assert (own.kind, own.label_names) == ("multi_label", ("财经", "房产", "体育"))
    rows = [row for split in SPLITS for row in own.splits[split]]
    assert len(rows) == 24
    for row in rows:
        assert row["label"] == [float(n in TOPICS[row["row"] - 1]) for n in own.label_names]


def test_labels_with_a_separator(tmp_path: Path):
    rows = [(t, "/".join(w) or "无") for t, w in zip(TOPIC_TEXTS, TOPICS, strict=True)]
    own = load_own_data(save(tmp_path, "a.csv", delimited(rows)), separator="/")
    assert own.label_names == ("财经", "房产", "体育", "无")
    assert own.report.classes == {"财经": 6, "房产": 6, "体育": 12, "无": 6}


def test_the_names_of_a_class_label_are_read(tmp_path: Path):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["差", "好"])})
    table = Dataset.from_dict({"text": TEXTS, "label": [i % 2 for i in range(14)]}, features=features)
    table.to_parquet(str(tmp_path / "a.parquet"))
    own = load_own_data(tmp_path / "a.parquet")
    assert sorted(rows_of(own)) == sorted((t, "差好"[i % 2]) for i, t in enumerate(TEXTS))
    DatasetDict(train=table, test=table).save_to_disk(str(tmp_path / "saved"))
    assert load_own_data(tmp_path / "saved").label_names == ("差", "好")


# --- prompts and conversations ----------------------------------------------------------------------------


def test_prompts_and_answers(tmp_path: Path):
    rows = [
        {"instruction": f"说说{t}", "input": t if i % 2 else "", "output": f"答{t}"}
        for i, t in enumerate(TEXTS)
    ]
    own = load_own_data(save(tmp_path, "a.json", json.dumps(rows)))
    assert (own.kind, own.label_names, own.report.classes) == ("prompts", (), {})
    found = {row["row"]: (row["prompt"], row["answer"]) for name in SPLITS for row in own.splits[name]}
    assert found[1] == (f"说说{TEXTS[0]}", f"答{TEXTS[0]}") and found[2] == (
        f"说说{TEXTS[1]}\n{TEXTS[1]}",
        f"答{TEXTS[1]}",
    )
    assert len(found) == 14
    table = delimited(
        [(f"问{t}", "" if i == 3 else f"答{t}") for i, t in enumerate(TEXTS)], header="问题,回答"
    )
    (dropped,) = load_own_data(save(tmp_path, "b.csv", table)).report.dropped
    assert (dropped.reason, dropped.examples) == ("提问或回答是空的", ("b.csv：第 4 条",))


def turns(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in pairs]


def test_conversations_of_either_kind(tmp_path: Path):
    rows = [{"conversations": [{"from": "human", "value": t}, {"from": "gpt", "value": "好"}]} for t in TEXTS]
    own = load_own_data(save(tmp_path, "a.jsonl", json_lines(rows)))
    assert own.kind == "conversations"
    first = next(row for name in SPLITS for row in own.splits[name] if row["row"] == 1)
    assert first["messages"] == turns(("user", TEXTS[0]), ("assistant", "好"))
    rows = [{"messages": turns(("system", "你是客服"), ("user", t), ("assistant", "好"))} for t in TEXTS]
    assert sum(map(len, load_own_data(save(tmp_path, "b.jsonl", json_lines(rows))).splits.values())) == 14


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (turns(("user", "问")), "第 15 条的最后一句不是 assistant"),
        (turns(("user", "问"), ("user", "问"), ("assistant", "答")), "第 15 条，第 2 句该是 assistant，却是 user"),
        (turns(("assistant", "答")), "第 15 条，第 1 句该是 user"),
        (turns(("user", "问"), ("system", "令"), ("assistant", "答")), "第 15 条，第 2 句该是 assistant，却是 system"),
        (turns(("user", "问"), ("assistant", " ")), r"第 15 条，第 2 句（assistant）是空的"),
        (turns(("user", "问"), ("tool", "答")), "第 15 条，第 2 句的角色 tool 不认识"),
        ([], "第 15 条没有对话"),
    ],
)  # fmt: skip
def test_a_conversation_out_of_order_is_named(tmp_path: Path, broken: list[dict[str, str]], message: str):
    rows = [{"messages": turns(("user", t), ("assistant", "好"))} for t in TEXTS]
    with pytest.raises(DataError, match=message):
        load_own_data(save(tmp_path, "a.jsonl", json_lines([*rows, {"messages": broken}])))


def test_a_table_of_two_purposes_is_asked_about(tmp_path: Path):
    rows = [(t, "答", w) for t, w in ROWS]
    path = save(tmp_path, "a.csv", delimited(rows, header="question,answer,label"))
    with pytest.raises(DataError, match="看不出要学什么"):
        load_own_data(path)
    assert load_own_data(path, text="question", label="label").kind == "single_label"


# --- splits -----------------------------------------------------------------------------------------------


def many(rows: int, classes: int = 2, seed: int = 0) -> list[tuple[str, str]]:
    """Different texts of 30 characters, sorted by class; class k has k + 1 shares of the rows."""
    rng = np.random.default_rng(seed)
    signs = [chr(code) for code in range(0x4E00, 0x4E00 + 800)]
    share = np.repeat(np.arange(classes), np.arange(1, classes + 1))
    return [("".join(rng.choice(signs, 30)), f"类{share[i * len(share) // rows]}") for i in range(rows)]


def test_the_split_is_seeded_stratified_and_never_empty(tmp_path: Path):
    path = save(tmp_path, "a.csv", delimited(many(300, classes=4)))
    own, again, other = (load_own_data(path, seed=seed) for seed in (0, 0, 1))
    assert own.report.splits == {"train": 210, "validation": 30, "test": 60}
    assert all(own.splits[name]["text"][:] == again.splits[name]["text"][:] for name in SPLITS)
    assert set(own.splits["test"]["text"]) != set(other.splits["test"]["text"])
    for name, rows in own.report.splits.items():
        counts = Counter(own.splits[name]["label"])
        assert [counts[k] for k in range(4)] == pytest.approx([rows * (k + 1) / 10 for k in range(4)], abs=1)
    assert len(set(own.splits["train"]["label"][:20])) > 1  # the file is sorted by class, a slice must not be
    assert load_own_data(path, test_size=0.1, validation_size=25).report.splits == {
        "train": 245,
        "validation": 25,
        "test": 30,
    }


@pytest.mark.parametrize("labelled", [False, True])
def test_rows_are_numbered_in_their_order_whatever_their_hashes(labelled: bool):
    texts = ["乙", "！！", "甲", "乙", "？", "！！"]
    labels = Labels(("0",), np.zeros(6, dtype=int), None) if labelled else None
    place = np.zeros(6, dtype=int)
    rows = _Rows(pa.table({"text": texts}), labels, place, place, place, ("a.csv",))
    assert rows.keys.tolist() == [0, 1, 2, 0, 3, 1]


@pytest.mark.parametrize("rows", [6, 9, 20])
def test_few_rows_still_fill_every_split(tmp_path: Path, rows: int):
    own = load_own_data(
        save(tmp_path, "a.csv", delimited([(t, w) for t, w in [*ROWS, *many(6)][:rows]], quoted=True))
    )
    assert min(own.report.splits.values()) >= 1 and own.report.splits["train"] >= rows // 2


def test_near_repeats_stay_on_one_side(tmp_path: Path):
    rows = many(200)
    near = [(f"转：{text}！！", word) for text, word in rows[::4]]
    own = load_own_data(save(tmp_path, "a.csv", delimited(rows + near)))
    assert sum(map(len, own.splits.values())) == 250
    texts = [text for name in SPLITS for text in own.splits[name]["text"]]
    where = np.repeat(range(3), [len(own.splits[name]) for name in SPLITS])
    groups = near_duplicate_groups(texts)
    assert np.bincount(groups).max() == 2
    assert all(len(set(where[groups == group])) == 1 for group in np.flatnonzero(np.bincount(groups) > 1))
    assert own.report.leaks == {"validation": 0, "test": 0}
    assert {w for _, w in rows} == set(own.label_names)


def test_a_formula_in_every_text_does_not_make_one_group(tmp_path: Path):
    formula = "以下是本店的顾客在收到货以后写下的一段评价请判断好坏"
    rows = [(formula + text, word) for text, word in many(100)]
    own = load_own_data(save(tmp_path, "a.csv", delimited(rows)))
    assert own.report.splits == {"train": 70, "validation": 10, "test": 20}
    assert "连续 48 个字相同" in own.report.notes[0]


def test_a_column_of_splits_is_used(tmp_path: Path):
    names = ["train"] * 8 + ["dev"] * 3 + ["test"] * 3
    rows = [(*row, name) for row, name in zip(ROWS, names, strict=True)]
    own = load_own_data(save(tmp_path, "a.csv", delimited(rows, header="text,label,split")))
    assert own.report.splits == {"train": 8, "validation": 3, "test": 3}
    assert own.splits["validation"]["text"][:] == TEXTS[8:11]
    assert own.report.split_origin == "数据自带"
    partly = [(*row, name.replace("dev", "train")) for row, name in zip(ROWS, names, strict=True)]
    own = load_own_data(save(tmp_path, "b.csv", delimited(partly, header="text,label,划分")))
    assert own.splits["test"]["text"][:] == TEXTS[11:]
    assert own.report.splits["validation"] == 2 and "验证从训练中" in own.report.split_origin


def test_leaks_between_official_splits_are_counted(tmp_path: Path):
    for name, rows in (
        ("train", ROWS[:8]),
        ("val", [*ROWS[8:10], ROWS[0]]),
        ("test", [*ROWS[10:], *ROWS[1:3]]),
    ):
        save(tmp_path, f"{name}.csv", delimited(rows))
    report = load_own_data(tmp_path).report
    assert report.leaks == {"validation": 1, "test": 2}
    assert report.kept == report.rows == 17
    assert any("验证 1 条，测试 2 条在训练集里有一样的" in line for line in report.lines())


def test_only_files_named_exactly_are_splits(tmp_path: Path):
    wrong = delimited([(f"错的{i}", w) for i, (_, w) in enumerate(ROWS)])
    for folder in (".ipynb_checkpoints", "bak"):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder, "train.csv", wrong)
    for name in (".train.csv", "train_0.csv", "train-checkpoint.csv", "train.csv.bak", "trainer.csv"):
        save(tmp_path, name, wrong)
    save(tmp_path, "train.csv", delimited(ROWS))
    assert sorted(rows_of(load_own_data(tmp_path))) == LABELLED
    save(tmp_path, "TRAIN.tsv", wrong)
    with pytest.raises(DataError, match=r"TRAIN\.tsv、train\.csv 都像 train"):
        load_own_data(tmp_path)


def test_shards_belong_together(tmp_path: Path):
    for i in range(2):
        save(tmp_path, f"train-0000{i}-of-00002.csv", delimited(ROWS[7 * i : 7 * i + 7]))
    own = load_own_data(tmp_path)
    assert sorted(rows_of(own)) == LABELLED
    assert {row["file"] for name in SPLITS for row in own.splits[name]} == {
        f"train-0000{i}-of-00002.csv" for i in range(2)
    }
    (tmp_path / "train-00001-of-00002.csv").unlink()
    with pytest.raises(DataError, match="应有 2 个，只有 1 个"):
        load_own_data(tmp_path)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ("text\n好\n坏\n", "test.csv：没有列 label"),
        ("text,label\n好,中评\n", "test.csv：第 1 条：类别 中评 在训练里没有"),
        ("text,label\n好,\n", "测试里没有一条能用的"),
    ],
)
def test_an_official_test_file_that_does_not_fit_is_named(tmp_path: Path, test: str, message: str):
    save(tmp_path, "train.csv", delimited(ROWS))
    save(tmp_path, "test.csv", test)
    with pytest.raises(DataError, match=message):
        load_own_data(tmp_path)


def test_a_folder_without_train_says_what_is_there(tmp_path: Path):
    save(tmp_path, "reviews.csv", delimited(ROWS))
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=r"没有 train\.csv.*有：reviews\.csv；还有文件夹 data"):
        load_own_data(tmp_path)


# --- paths and machines -----------------------------------------------------------------------------------


def test_a_relative_path_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "chapters").mkdir()
    save(tmp_path, "a.csv", delimited(ROWS))
    monkeypatch.chdir(tmp_path / "chapters")
    monkeypatch.setenv("PWD", str(tmp_path))
    assert sorted(rows_of(load_own_data("a.csv"))) == LABELLED
    save(tmp_path / "chapters", "a.csv", delimited(NUMBERS))
    with pytest.raises(DataError, match="有两个"):
        load_own_data("a.csv")
    with pytest.raises(DataError, match="不存在"):
        load_own_data("b.csv")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied"), "没有权限读"),
        (FileNotFoundError(2, "No such file"), "没有文件"),
        (OSError(5, "Input/output error"), r"读不了.*Input/output error"),
    ],
)
def test_a_file_that_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, message: str
):
    path = save(tmp_path, "a.csv", delimited(ROWS))

    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=message):
        load_own_data(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_without_permission(tmp_path: Path):
    (tmp_path / "mine").mkdir(mode=0)
    with pytest.raises(DataError, match="没有权限"):
        load_own_data(tmp_path / "mine")


def test_excel_without_openpyxl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = save(tmp_path, "a.xlsx", workbook([("text", "label"), *ROWS]))
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(DataError, match="pip install openpyxl"):
        load_own_data(path)


def test_a_pickle_is_not_opened(tmp_path: Path):
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return (Path.touch, (tmp_path / "sprung",))

    for name in ("a.pkl", "a.csv", "a.json", "a.xlsx", "a.parquet"):
        with pytest.raises(DataError):
            load_own_data(save(tmp_path, name, pickle.dumps(Trap())))
    assert not (tmp_path / "sprung").exists()


def test_texts_of_a_hundred_thousand_characters(tmp_path: Path):
    rng = np.random.default_rng(0)
    signs = np.array([chr(code) for code in range(0x4E00, 0x4E00 + 2000)])
    rows = [("".join(rng.choice(signs, 200_000 if i == 0 else 100_000)), "01"[i % 2]) for i in range(8)]
    own = load_own_data(save(tmp_path, "a.csv", delimited(rows)))
    assert own.report.lengths["max"] == 200_000
    assert own.report.splits == {"train": 4, "validation": 2, "test": 2}


# --- texts alone ------------------------------------------------------------------------------------------


def test_texts_come_in_order_with_all_their_columns(tmp_path: Path):
    rows = [(str(i), t, "", w) for i, (t, w) in enumerate([*ROWS, ROWS[0], ("", "好评")])]
    columns, text = read_texts(save(tmp_path, "a.csv", delimited(rows, header="id,review,备注,label")))
    assert text == "review" and list(columns) == ["id", "review", "备注", "label"]
    assert columns["review"] == [*TEXTS, TEXTS[0], ""] and columns["备注"] == [""] * 16


def test_texts_without_a_label_or_a_header(tmp_path: Path):
    lines = "\n".join(TEXTS)
    assert read_texts(save(tmp_path, "a.txt", lines)) == ({"1": TEXTS}, "1")
    assert read_texts(save(tmp_path, "b.csv", f"review\n{lines.replace(', ', '，')}"))[1] == "review"
    columns, text = read_texts(save(tmp_path, "c.jsonl", json_lines([{"内文": t, "n": 1} for t in TEXTS])))
    assert (columns[text], text) == (TEXTS, "内文")
    path = save(
        tmp_path, "d.csv", delimited([(f"{t}很多字", f"{t}更多字") for t in TEXTS], header="标题,正文")
    )
    with pytest.raises(DataError, match=r"看不出哪一列是正文.*--text"):
        read_texts(path)
    assert read_texts(path, text="正文")[1] == "正文"
