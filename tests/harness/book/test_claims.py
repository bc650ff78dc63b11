"""Claim files: what is read, and that every kind of mistake is named with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from notebooks import write_notebook

from harness.book.claims import claim_path, load_all_claims, load_claims
from harness.book.references import references_path, references_text
from harness.book.yaml_file import read_node
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
    offline: {bounds: {low: 5e-1}}
    full:
      published: {value: 0.947, citation: "…", split: test, protocol: "mean of 10 seeds, lr 2e-5"}
  - name: seconds
    title: 用时
    direction: none
    margin: 0
"""
RUN = ReferenceRun(0.8123, 0, "abc1234", "2026-11-24", "cpu-x86_64-bf16", {"torch": "2.13.0"})


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
    assert accuracy.bounds == {"smoke": Bounds(0.3, 1.0), "offline": Bounds(0.5, None)}
    assert accuracy.published == {"full": Published(0.947, "…", "test", "mean of 10 seeds, lr 2e-5")}
    assert accuracy.blessed == {} and (seconds.unit, seconds.margin, seconds.blessed) == ("", 0.0, {})


def bless(folder: Path, name: str = "05-fine-tuning", **claims: tuple[ReferenceRun, ...]) -> Path:
    path = references_path(folder, name)
    path.parent.mkdir(exist_ok=True)
    text = references_text({claim: {"offline": runs} for claim, runs in claims.items()})
    path.write_text(text, encoding="utf-8")
    return path


def test_blessed_runs_stand_in_a_file_of_their_own(tmp_path):
    """One claim has been blessed, one has not yet, and one that was is claimed no more."""
    write(tmp_path, GOOD)
    bless(tmp_path, scratch_test_accuracy=(RUN,), gone=(RUN,))
    accuracy, seconds = load_claims(tmp_path, "05-fine-tuning").claims
    assert accuracy.blessed == {"offline": (RUN,)} and seconds.blessed == {}


def test_a_damaged_file_of_references_is_named_with_its_line(tmp_path):
    write(tmp_path, GOOD)
    path = bless(tmp_path, scratch_test_accuracy=(RUN,))
    path.write_text(path.read_text("utf-8").replace("0.8123", "0.9123"), encoding="utf-8")
    with pytest.raises(HarnessError, match=r"05-fine-tuning\.jsonl:3: not as `harness bless` wrote it"):
        load_claims(tmp_path, "05-fine-tuning")


def test_references_that_no_claim_file_stands_beside_are_an_error(tmp_path):
    path = bless(tmp_path, "06-more", scratch_test_accuracy=(RUN,))
    with pytest.raises(HarnessError) as caught:
        load_all_claims(tmp_path, ["06-more"])
    assert str(caught.value).startswith(f"{path}: there is no {tmp_path / '06-more.yml'}")


@pytest.mark.parametrize(
    ("references", "line"), [("{blessed: []}", 9), ("\n      bounds: {low: 1}\n      blessed: [3]", 11)]
)
def test_a_file_of_the_old_layout_names_the_command_that_converts_it(tmp_path, references, line):
    path = write(tmp_path, GOOD.replace("{bounds: {low: 5e-1}}", references))
    with pytest.raises(HarnessError) as caught:
        load_claims(tmp_path, "05-fine-tuning")
    assert str(caught.value).startswith(f"{path}:{line}: ") and "\n" not in str(caught.value)
    assert "run `harness bless --migrate`" in str(caught.value)


def test_a_chapter_without_a_file_has_no_claims(tmp_path):
    assert load_claims(tmp_path, "05-fine-tuning") is None
    assert load_all_claims(tmp_path / "absent", ["05-fine-tuning"]) == {}


def test_the_format_in_the_documentation_is_the_format(tmp_path):
    import textwrap

    import harness.book.claims

    block = harness.book.claims.__doc__.split(".. code-block:: yaml")[1].split("Every other key")[0]
    text = textwrap.dedent(block)
    path = write(tmp_path, text)
    (claim,) = load_claims(path.parent, "05-fine-tuning").claims
    assert set(claim.published) == {"full"} and set(claim.bounds) == {"smoke"}


# (what to replace, by what, the line that must be named, words that must be in the message)
MISTAKES = {
    "a tab": ("    unit:", "\tunit:", 5, "not valid YAML"),
    "an open bracket": ("{low: 0.3, high: 1.0}}", "{low: 0.3, high: 1.0}", 9, "not valid YAML"),
    "a duplicate key": (
        "    unit: fraction",
        "    unit: a\n    unit: b",
        6,
        "the key 'unit' stands here twice",
    ),
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
    "a duplicate name": ("- name: seconds", "- name: scratch_test_accuracy", 12, "already on line 3"),
    "a negative margin": ("margin: 0.02", "margin: -0.02", 7, "negative"),
    "a margin in words": ("margin: 0.02", "margin: small", 7, "must be a number, not 'small'"),
    "a true margin": ("margin: 0.02", "margin: true", 7, "must be a number, not true"),
    "no margin value": ("margin: 0.02", "margin:", 7, "must be a number, not nothing"),
    "a margin that is not a number": ("margin: 0.02", "margin: .nan", 7, "finite"),
    "a margin without end": ("margin: 0.02", "margin: .inf", 7, "finite"),
    "an absurd margin": ("margin: 0.02", "margin: " + "9" * 400, 7, "finite"),
    "a title that is a number": ("title: 用时", "title: 12", 13, "title must be text, not 12"),
    "bounds the wrong way round": ("{low: 0.3, high: 1.0}", "{low: 2, high: 1.0}", 8, "swap"),
    "bounds without a bound": ("{low: 0.3, high: 1.0}", "{}", 8, "neither low nor high"),
    "a published value without citation": ('citation: "…", ', "", 11, "lacks 'citation'"),
    "an empty citation": ('citation: "…"', 'citation: ""', 11, "citation is empty"),
    "a list instead of a mapping": (
        "smoke: {bounds: {low: 0.3, high: 1.0}}",
        "smoke: [1]",
        8,
        "smoke must hold",
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
        ("{a: 1}", ":2: claims must be a list"),
        ("", ":2: claims must be a list"),
        ("[5]", ":2: claims 1 must hold"),
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
    with pytest.raises(HarnessError, match="not valid YAML"):
        read_node(path)


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
        ("", "    parameters: {source: hub}\n", 6, "source must be a list of values such as [a, b]"),
        ("", "    parameters: {source: []}\n", 6, "source must be a list of values"),
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
