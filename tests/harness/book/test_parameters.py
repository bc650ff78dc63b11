"""The parameters cell is read strictly, and values must fit it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from notebooks import write_notebook

from harness.book.notebook import read_notebook
from harness.book.parameters import (
    ParameterError,
    has_translator,
    parse_value,
    read_parameters,
    render,
    resolve,
    split_option,
)

CELL = """\
'''说明'''
seed = 0
max_train: int | None = None  # 训练行数
lr = 3e-5
model_name: str = "sft/pretrained/mini-bert-zh"
freeze = False
layers = [1, -2]
sizes: list[float] = [0.1, 0.2]
shape = (2, 3)
note: Optional[str] = "a = b"
anything = None
quoted: "int | str" = 3
"""


@pytest.fixture
def declared(tmp_path):
    return read_parameters(read_notebook(write_notebook(tmp_path / "a.ipynb", parameters=CELL)))


def test_defaults_and_types(declared):
    assert {n: p.default for n, p in declared.items()} == {
        "seed": 0, "max_train": None, "lr": 3e-5, "model_name": "sft/pretrained/mini-bert-zh",
        "freeze": False, "layers": [1, -2], "sizes": [0.1, 0.2], "shape": (2, 3), "note": "a = b",
        "anything": None, "quoted": 3,
    }  # fmt: skip
    assert declared["max_train"].expected == "int or None"
    assert declared["sizes"].expected == "list[float]"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seed", "3", 3),
        ("seed", " -3", -3),
        ("max_train", "None", None),
        ("max_train", "256", 256),
        ("lr", "1", 1.0),
        ("lr", "1e-4", 1e-4),
        ("model_name", "google-bert/bert-base-chinese", "google-bert/bert-base-chinese"),
        ("model_name", "'x y'", "x y"),
        ("model_name", "123", "123"),
        ("model_name", "None", "None"),
        ("note", "None", None),
        ("model_name", "中文", "中文"),
        ("freeze", "True", True),
        ("layers", "[1, 2]", [1, 2]),
        ("sizes", "[1, 2.5]", [1.0, 2.5]),
        ("shape", "[4, 5]", (4, 5)),
        ("anything", "{'a': 1}", {"a": 1}),
        ("anything", "bare", "bare"),
        ("quoted", "4", 4),
        ("quoted", "four", "four"),
    ],
)
def test_accepted(declared, name, text, value):
    parsed = parse_value(declared[name], text)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("seed", "1.0"), ("seed", "True"), ("seed", "None"), ("seed", "many"), ("max_train", "2.5"),
        ("lr", "'1'"), ("lr", "1e999"), ("freeze", "1"), ("freeze", "true"), ("layers", "3"),
        ("sizes", "['a']"), ("shape", "3"),
        ("anything", "{1, 2}"), ("anything", "b'x'"), ("anything", "[1j]"),
    ],
)  # fmt: skip
def test_refused_with_what_was_expected(declared, name, text):
    with pytest.raises(ParameterError, match=f"parameter {name} must be"):
        parse_value(declared[name], text)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("a = b = 1", "not of the form name = literal"),
        ("a, b = 1, 2", "not of the form"),
        ("kw = dict(a=1)", "plain literal"),
        ("a = 60 * 60", "plain literal"),
        ("import os", "not of the form"),
        ("a: int", "not of the form"),
        ("a += 1", "not of the form"),
        ("x.y = 1", "not of the form"),
        ("a = 1\na = 2", "set twice"),
        ("a = (", "not plain Python"),
        ("%time a = 1", "not plain Python"),
        ("a: int = 'x'", "does not fit its annotation"),
    ],
)
def test_cells_that_cannot_be_read(tmp_path, source, complaint):
    with pytest.raises(ParameterError, match=complaint) as caught:
        read_parameters(read_notebook(write_notebook(tmp_path / "a.ipynb", parameters=source)))
    assert "a.ipynb" in str(caught.value) and "\n" not in str(caught.value)


def test_no_cell_and_two_cells(tmp_path):
    plain = read_notebook(write_notebook(tmp_path / "a.ipynb", "x = 1"))
    assert read_parameters(plain) is None
    twice = write_notebook(
        tmp_path / "b.ipynb", "x = 1", "y = 1", tags={0: ["parameters"], 1: ["parameters"]}
    )
    with pytest.raises(ParameterError, match="only one"):
        read_parameters(read_notebook(twice))
    with pytest.raises(ParameterError, match="no cell tagged parameters"):
        resolve(plain, None, {}, {"x": "1"})
    assert resolve(plain, None, {}, {}) == {}


def test_resolve_names_the_known_parameters_and_lets_the_option_win(tmp_path):
    notebook = read_notebook(write_notebook(tmp_path / "a.ipynb", parameters="lr = 0.1\nseed = 0"))
    declared = read_parameters(notebook)
    assert resolve(notebook, declared, {"lr": 1, "seed": 3}, {"lr": "0.5"}) == {"lr": 0.5, "seed": 3}
    with pytest.raises(ParameterError, match=r"no parameter 'lrr'; its parameters: lr, seed"):
        resolve(notebook, declared, {}, {"lrr": "1"})
    with pytest.raises(ParameterError, match="lr must be float, not str"):
        resolve(notebook, declared, {"lr": "big"}, {})


def test_text_that_no_file_can_hold(tmp_path):
    """A byte of the command line that is not UTF-8 arrives as half a surrogate pair."""
    notebook = read_notebook(write_notebook(tmp_path / "a.ipynb", parameters="model = 'x'\nnames = ['x']"))
    declared = read_parameters(notebook)
    for name, text in (("model", "\udcff"), ("names", "['\udcff']")):
        with pytest.raises(ParameterError, match=f"parameter {name} must be UTF-8 text"):
            resolve(notebook, declared, {}, {name: text})


def test_rendered_values_read_back_and_stay_readable():
    values = {
        "text": "情感 'a' \"b\" \n",
        "shape": (3, 4),
        "table": {1: "一", "k": None},
        "lr": 1e-5,
        "on": True,
    }
    source = render(values)
    assert "情感" in source and "一" in source
    space: dict = {}
    exec(source, space)
    assert {name: space[name] for name in values} == values


@pytest.mark.parametrize("option", ["lr", "=3", "a b=3", "3a=1"])
def test_options_of_the_wrong_form(option):
    with pytest.raises(ParameterError, match="NAME=VALUE"):
        split_option(option)
    assert split_option("a=b=c") == ("a", "b=c")


# -- what an earlier run set --------------------------------------------------------------------------


def rerun(tmp_path, *cells: tuple[str, str], kernel="python3"):
    """A notebook of cells, each with a tag."""
    tags = {i: [tag] for i, (tag, _) in enumerate(cells)}
    path = write_notebook(tmp_path / "out.ipynb", *(source for _, source in cells), tags=tags, kernel=kernel)
    return read_notebook(path)


def test_what_an_earlier_run_set_overrides_the_parameters_cell(tmp_path):
    notebook = rerun(
        tmp_path,
        ("parameters", "seed = 0\nlr: float = 0.1"),
        ("x", "1"),
        ("injected-parameters", "# a\nseed = 3"),
    )
    declared = read_parameters(notebook)
    assert {n: (p.default, p.injected) for n, p in declared.items()} == {
        "seed": (3, True),
        "lr": (0.1, False),
    }
    assert declared["lr"].types == (float,) and declared["seed"].types == (int,)


def test_an_injected_cell_alone_declares_what_it_sets(tmp_path):
    """papermill puts it at the top of a notebook without a parameters cell."""
    declared = read_parameters(rerun(tmp_path, ("injected-parameters", "seed = 3\nextra = 'x'"), ("x", "1")))
    assert {name: p.default for name, p in declared.items()} == {"seed": 3, "extra": "x"}


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (
            (("injected-parameters", "a = 1"), ("parameters", "a = 2")),
            "stands before the one tagged parameters",
        ),
        ((("injected-parameters", "a = 1"), ("injected-parameters", "a = 2")), "2 cells are tagged injected"),
        ((("parameters", "a = 1"), ("injected-parameters", "a = float('nan')")), "plain literal"),
    ],
)
def test_injected_cells_that_would_mislead_are_refused(tmp_path, cells, words):
    with pytest.raises(ParameterError, match=words):
        read_parameters(rerun(tmp_path, *cells))


# -- other languages ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "source", "values"),
    [
        ("bash", "# the sizes a=1\nname=x\nn=10; rate='0.5' # half\n", {"name": "x", "n": 10, "rate": "0.5"}),
        (
            "r",
            'n <- 3L  # k <- 1\nlr = 0.1\ntext <- "a = b"\non <- TRUE',
            {"n": 3, "lr": 0.1, "text": "a = b", "on": True},
        ),
        ("scala", 'val n: Int = 3\nvar s: String = "x" // s', {"n": 3, "s": "x"}),
        (".net-csharp", 'var n = 3; string s = "x";\ndouble r = 0.5d;', {"n": 3, "s": "x", "r": 0.5}),
        (".net-powershell", "$n = 3\n$on = $true", {"n": 3, "on": True}),
        ("julia", "n = 3\nok = n == 3", {"n": 3, "ok": "n == 3"}),
    ],
)
def test_parameters_of_other_languages_are_found_by_name_and_value(tmp_path, language, source, values):
    notebook = replace(rerun(tmp_path, ("parameters", source)), language=language)
    assert {name: p.default for name, p in read_parameters(notebook).items()} == values
    assert has_translator(replace(notebook, kernel=None))


def test_values_of_other_languages_are_checked_as_far_as_they_tell(tmp_path):
    notebook = replace(rerun(tmp_path, ("parameters", "name=x\nn=10\ntext='a'")), language="bash")
    declared = read_parameters(notebook)
    assert resolve(notebook, declared, {}, {"name": "7", "n": "0.5"}) == {"name": 7, "n": 0.5}
    assert resolve(notebook, declared, {}, {"name": "a b", "text": "7"}) == {"name": "a b", "text": "7"}
    with pytest.raises(ParameterError, match="n must be int or float, not str"):
        resolve(notebook, declared, {}, {"n": "many"})
    with pytest.raises(ParameterError, match="no parameter 'm'; its parameters: name, n, text"):
        resolve(notebook, declared, {}, {"m": "1"})


def test_not_every_language_has_a_translator(tmp_path):
    notebook = rerun(tmp_path, ("x", "1"))
    assert has_translator(notebook)
    assert not has_translator(replace(notebook, language="haskell", kernel="ihaskell"))
    assert has_translator(replace(notebook, language="", kernel="pysparkkernel"))
