"""Claim files: what is read, and that every kind of mistake is named with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from notebooks import write_notebook

from harness.book.claims import claim_path, load_all_claims, load_claims, parse_claims, read_claim_yaml
from harness.errors import ExitCode, HarnessError
from harness.model import Bounds, Published, ReferenceRun

GOOD = """\
chapter: 05-fine-tuning
claims:
  - name: scratch_test_accuracy
    title: 从零训练的编码器：测试集准确率
    unit: fraction
    direction: higher
    margin: 0.02
    smoke: {bounds: {low: 0.3, high: 1.0}}
    offline:
      blessed:
        - {value: 0.8123, seed: 0, commit: abc1234, date: 2026-11-24, hardware: cpu-x86_64-bf16, versions: {torch: 2.13.0}}
        - {value: 1, seed: null, commit: "1234567", date: "2026-11-25", hardware: cpu-x86_64-bf16}
    full:
      published: {value: 0.947, citation: "…", split: test, protocol: "mean of 10 seeds, lr 2e-5"}
  - name: seconds
    title: 用时
    direction: none
    margin: 0
"""  # noqa: E501 - a blessed run is one line


def write(folder: Path, text: str, name: str = "05-fine-tuning") -> Path:
    path = claim_path(folder, name)
    path.write_text(text, encoding="utf-8")
    return path


def test_every_field_is_read(tmp_path):
    write(tmp_path, GOOD)
    claims = load_claims(tmp_path, "05-fine-tuning", ("smoke", "offline", "full"))
    assert claims is not None and claims.chapter == "05-fine-tuning"
    accuracy, seconds = claims.claims
    assert (accuracy.name, accuracy.title) == ("scratch_test_accuracy", "从零训练的编码器：测试集准确率")
    assert (accuracy.unit, accuracy.direction, accuracy.margin) == ("fraction", "higher", 0.02)
    assert accuracy.bounds == {"smoke": Bounds(0.3, 1.0)}
    assert accuracy.published == {"full": Published(0.947, "…", "test", "mean of 10 seeds, lr 2e-5")}
    assert accuracy.blessed == {
        "offline": (
            ReferenceRun(0.8123, 0, "abc1234", "2026-11-24", "cpu-x86_64-bf16", {"torch": "2.13.0"}),
            ReferenceRun(1.0, None, "1234567", "2026-11-25", "cpu-x86_64-bf16", {}),
        )
    }
    assert (seconds.unit, seconds.margin, seconds.blessed) == ("", 0.0, {})


def test_a_chapter_without_a_file_has_no_claims(tmp_path):
    assert load_claims(tmp_path, "05-fine-tuning") is None
    assert load_all_claims(tmp_path / "absent", ["05-fine-tuning"]) == {}


def test_the_format_in_the_documentation_is_the_format():
    import textwrap

    import harness.book.claims

    block = harness.book.claims.__doc__.split(".. code-block:: yaml")[1].split("Every other key")[0]
    text = textwrap.dedent(block).replace("{…}", "{torch: 2.13.0}")
    from ruamel.yaml import YAML

    claims = parse_claims(YAML().load(text), Path("05-fine-tuning.yml"))
    assert len(claims.claims) == 1 and set(claims.claims[0].blessed) == {"offline"}


# (what to replace, by what, the line that must be named, words that must be in the message)
MISTAKES = {
    "a tab": ("    unit:", "\tunit:", 5, "mend the YAML"),
    "an open bracket": ("{low: 0.3, high: 1.0}}", "{low: 0.3, high: 1.0}", 9, "mend the YAML"),
    "a duplicate key": ("    unit: fraction", "    unit: a\n    unit: b", 6, "duplicate key"),
    "another chapter": (
        "chapter: 05-fine-tuning",
        "chapter: 06-more",
        1,
        "the file is called '05-fine-tuning'",
    ),
    "no chapter": ("chapter: 05-fine-tuning\n", "", 1, "lacks 'chapter'"),
    "an unknown key at the top": ("claims:", "author: me\nclaims:", 2, "unknown key 'author'"),
    "a misspelt key": ("    margin: 0.02", "    margins: 0.02", 3, "lacks 'margin'"),
    "an unknown key": (
        "    margin: 0.02",
        "    margin: 0.02\n    colour: red",
        8,
        "unknown key or profile 'colour'",
    ),
    "an unknown profile": ("    smoke:", "    smok:", 8, "unknown key or profile 'smok'"),
    "an unknown kind of reference": ("{bounds: {low", "{bound: {low", 8, "unknown key 'bound'"),
    "an empty profile": ("{bounds: {low: 0.3, high: 1.0}}", "{}", 8, "holds nothing"),
    "an unknown direction": ("direction: higher", "direction: up", 6, "unknown direction 'up'"),
    "no name": ("- name: scratch_test_accuracy\n    title", "- title", 3, "lacks 'name'"),
    "a name with a dash": ("scratch_test_accuracy", "scratch-accuracy", 3, "no metric name"),
    "a duplicate name": ("- name: seconds", "- name: scratch_test_accuracy", 15, "already on line 3"),
    "a negative margin": ("margin: 0.02", "margin: -0.02", 7, "negative"),
    "a margin in words": ("margin: 0.02", "margin: small", 7, "must be a number, not 'small'"),
    "a true margin": ("margin: 0.02", "margin: true", 7, "must be a number, not true"),
    "no margin value": ("margin: 0.02", "margin:", 7, "must be a number, not nothing"),
    "a margin that is not a number": ("margin: 0.02", "margin: .nan", 7, "finite"),
    "a margin without end": ("margin: 0.02", "margin: .inf", 7, "finite"),
    "an absurd margin": ("margin: 0.02", "margin: " + "9" * 400, 7, "finite"),
    "a title that is a number": ("title: 用时", "title: 12", 16, "'title' must be text, not 12"),
    "bounds the wrong way round": ("{low: 0.3, high: 1.0}", "{low: 2, high: 1.0}", 8, "swap"),
    "bounds without a bound": ("{low: 0.3, high: 1.0}", "{}", 8, "neither low nor high"),
    "a value that is not a number": ("value: 0.8123", "value: .nan", 11, "finite"),
    "a value in words": ("value: 0.8123", "value: high", 11, "must be a number"),
    "a seed that is not whole": ("seed: 0,", "seed: 0.5,", 11, "whole number"),
    "a commit that reads as a number": ('commit: "1234567"', "commit: 1234567", 12, "put it in quotes"),
    "a version that reads as a number": ("torch: 2.13.0", "torch: 2.13", 11, "put it in quotes"),
    "a date that is none": ("date: 2026-11-24", "date: yesterday", 11, "must be a date"),
    "a run without hardware": (", hardware: cpu-x86_64-bf16}", "}", 12, "lacks 'hardware'"),
    "a run with a stray key": ("seed: null", "seed: null, epoch: 3", 12, "unknown key 'epoch'"),
    "a published value without citation": ('citation: "…", ', "", 14, "lacks 'citation'"),
    "an empty citation": ('citation: "…"', 'citation: ""', 14, "citation is empty"),
    "a list instead of a mapping": (
        "smoke: {bounds: {low: 0.3, high: 1.0}}",
        "smoke: [1]",
        8,
        "'smoke' must hold",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_file_and_line(tmp_path, mistake):
    old, new, line, words = MISTAKES[mistake]
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(HarnessError) as caught:
        load_claims(tmp_path, "05-fine-tuning", ("smoke", "offline", "full"))
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: "), message
    assert words in message and "\n" not in message
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize("text", ["", "# only a comment\n", "- a\n- b\n", "just text\n"])
def test_a_file_that_holds_no_mapping(tmp_path, text):
    write(tmp_path, text)
    with pytest.raises(HarnessError, match=r"yml:1: the file must hold"):
        load_claims(tmp_path, "05-fine-tuning")


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ("{a: 1}", ":2: 'claims' must be a list"),
        ("", ":2: 'claims' must be a list"),
        ("[5]", ":2: entry 1 of 'claims'"),
    ],
)
def test_claims_that_are_no_list_of_mappings(tmp_path, claims, words):
    write(tmp_path, f"chapter: 05-fine-tuning\nclaims: {claims}\n")
    with pytest.raises(HarnessError) as caught:
        load_claims(tmp_path, "05-fine-tuning")
    assert words in str(caught.value)


def test_without_a_list_of_profiles_only_mappings_pass_as_such(tmp_path):
    write(tmp_path, GOOD.replace("    margin: 0.02", "    margin: 0.02\n    colour: red", 1))
    with pytest.raises(HarnessError, match="unknown key 'colour'"):
        load_claims(tmp_path, "05-fine-tuning")
    write(tmp_path, GOOD)
    assert load_claims(tmp_path, "05-fine-tuning") is not None


def test_a_file_that_is_not_utf8(tmp_path):
    claim_path(tmp_path, "05-fine-tuning").write_bytes("chapter: 微调".encode("gbk"))
    with pytest.raises(HarnessError, match="not UTF-8"):
        load_claims(tmp_path, "05-fine-tuning")


def test_a_folder_in_place_of_a_file(tmp_path):
    claim_path(tmp_path, "05-fine-tuning").mkdir()
    with pytest.raises(HarnessError, match="cannot read"):
        load_claims(tmp_path, "05-fine-tuning")


def test_nesting_without_end(tmp_path):
    path = write(tmp_path, "a: " + "[" * 700)
    with pytest.raises(HarnessError, match="YAML"):
        read_claim_yaml(path)


def test_a_file_of_no_chapter_is_an_error(tmp_path):
    write(tmp_path, GOOD)
    write(tmp_path, GOOD.replace("05-fine-tuning", "05-finetuning"), "05-finetuning")
    with pytest.raises(HarnessError, match="no chapter is called '05-finetuning'"):
        load_all_claims(tmp_path, ["05-fine-tuning"])


def test_a_file_with_the_other_suffix_is_not_overlooked(tmp_path):
    (tmp_path / "05-fine-tuning.yaml").write_text(GOOD, encoding="utf-8")
    with pytest.raises(HarnessError, match=r"rename it to 05-fine-tuning\.yml"):
        load_all_claims(tmp_path, ["05-fine-tuning"])


def test_all_claims_by_chapter(tmp_path):
    write(tmp_path, GOOD)
    (tmp_path / "README.md").write_text("no claims here", encoding="utf-8")
    assert list(load_all_claims(tmp_path, ["01-background", "05-fine-tuning"])) == ["05-fine-tuning"]


# -- parameters that decide what is measured ----------------------------------------------------------


def with_parameters(tmp_path: Path, common: str = "", own: str = "") -> Path:
    cell = 'source: str = "packaged"\nlr: float = 1e-4\ndata_path: str | None = None'
    write_notebook(tmp_path / "05-fine-tuning.ipynb", parameters=cell)
    text = GOOD.replace("claims:\n", f"{common}claims:\n", 1)
    return write(tmp_path, text.replace("    unit: fraction\n", f"    unit: fraction\n{own}", 1))


def read(tmp_path: Path):
    return load_claims(tmp_path, "05-fine-tuning", None, tmp_path / "05-fine-tuning.ipynb")


def test_a_claim_says_for_which_parameters_it_stands(tmp_path):
    with_parameters(tmp_path, "parameters: [source, data_path]\n")
    assert [c.parameters for c in read(tmp_path).claims] == [{"source": None, "data_path": None}] * 2
    own = '    parameters: {source: ["packaged", hub], lr: [1], data_path: [null]}\n'
    with_parameters(tmp_path, "parameters: [data_path]\n", own)
    first, second = read(tmp_path).claims
    assert first.parameters == {"source": ("packaged", "hub"), "lr": (1.0,), "data_path": (None,)}
    assert type(first.parameters["source"][0]) is str and type(first.parameters["lr"][0]) is float
    assert second.parameters == {"data_path": None}
    with_parameters(tmp_path, "parameters: [data_path]\n", "    parameters: []\n")
    assert [c.parameters for c in read(tmp_path).claims] == [{}, {"data_path": None}]


@pytest.mark.parametrize(
    ("common", "own", "line", "words"),
    [
        ("parameters: [sourse]\n", "", 2, "no parameter 'sourse'; its parameters: source, lr, data_path"),
        ("parameters:\n  - source\n  - batch\n", "", 4, "no parameter 'batch'"),
        ("", "    parameters: {sourse: [hub]}\n", 6, "no parameter 'sourse'"),
        ("", "    parameters:\n      source: [hub]\n      rate: [1]\n", 8, "no parameter 'rate'"),
        ("", "    parameters: {source: [1]}\n", 6, "parameter source must be str, not int"),
        ("", "    parameters: {source: hub}\n", 6, "'source' must be a list of values such as [a, b]"),
        ("", "    parameters: {source: []}\n", 6, "'source' must be a list of values"),
        ("parameters: source\n", "", 2, "must be names or `name: [values]`, not 'source'"),
        ("parameters:\n", "", 2, "must be names or `name: [values]`, not nothing"),
        ("parameters: [3]\n", "", 2, "3 under 'parameters' is no parameter's name"),
    ],
)
def test_a_parameter_that_is_none_is_named_with_file_and_line(tmp_path, common, own, line, words):
    path = with_parameters(tmp_path, common, own)
    with pytest.raises(HarnessError) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"{path}:{line}: ") and words in str(caught.value)
    assert "\n" not in str(caught.value)
