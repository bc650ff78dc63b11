"""What old code asks for and the installed libraries do not have; asked of the standard library."""

from __future__ import annotations

import pytest

from sft.stale import Stale, find_stale


def found(code: str) -> list[tuple[int, str]]:
    return [(stale.line, stale.what) for stale in find_stale(code)]


def test_names_and_modules_that_are_gone():
    code = (
        "import json, no_such_module\nfrom json import loads, load_all\nfrom no_such_module.part import x\n"
    )
    assert found(code) == [(1, "模块 no_such_module"), (2, "json.load_all"), (3, "模块 no_such_module.part")]


def test_keywords_that_a_call_does_not_take():
    code = (
        "import shutil as s\nfrom pathlib import Path\n"
        "s.copytree(a, b,\n    dir_exist_ok=True)\nPath.mkdir(p, parents=True, exist=True)\n"
    )
    assert found(code) == [(4, "参数 s.copytree(dir_exist_ok=…)"), (5, "参数 Path.mkdir(exist=…)")]


def test_a_submodule_and_a_renamed_import_are_names_too():
    assert (
        found("import os.path\nfrom os import path as p\nfrom xml import etree\nos.path.join(a, b)\n") == []
    )
    assert found("import os.path\nos.path.normpath(path=a, deep=1)\n") == [
        (2, "参数 os.path.normpath(deep=…)")
    ]


def test_what_may_take_anything_is_not_judged():
    code = (
        "import textwrap\ntextwrap.wrap(x, no_such=1)\nunknown(y=1)\nprint(z=2)\nf = textwrap\nf.wrap(a=1)\n"
    )
    assert found(code) == []


def test_the_line_names_what_is_there_today():
    (stale,) = find_stale("from json import dump_s\n")
    assert stale == Stale(1, "json.dump_s", "dumps、dump")
    assert str(stale) == "第 1 行：没有 json.dump_s，相近的有 dumps、dump"


def test_code_that_is_none_is_one_clear_line():
    with pytest.raises(ValueError, match=r"^line 2 is no Python \(.+\); take out prompts and `!` lines$"):
        find_stale("import json\n!pip install x\n")
