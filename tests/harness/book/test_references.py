"""Files of references: the same text for the same runs, and every line that no machine wrote is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.book.references import parse_references, read_references, references_text
from harness.errors import ExitCode, HarnessError
from harness.model import ReferenceRun

VERSIONS = {"torch": "2.13.0+cpu", "numpy": "2.4.6"}
HERE = Path("05-a.jsonl")


def run(value=0.8, seed=0, commit="abc1234", day="2026-11-24", versions=VERSIONS, hardware="cpu"):
    return ReferenceRun(value, seed, commit, day, hardware, versions)


BOTH = {
    "loss": {"offline": (run(0.25),)},
    "accuracy": {"offline": (run(0.8), run(1 / 3, 1)), "full": (run(0.9, None, versions={}),)},
}


def test_one_line_holds_the_values_of_all_claims_and_versions_stand_once():
    header, environment, full, first, second = map(json.loads, references_text(BOTH).splitlines())
    assert header == {"schema": 1, "written_by": "harness bless"}
    assert environment["versions"] == VERSIONS and list(environment["versions"]) == list(VERSIONS)
    assert {k: v for k, v in first.items() if k != "sum"} == {
        "profile": "offline", "seed": 0, "commit": "abc1234", "date": "2026-11-24", "hardware": "cpu",
        "environment": environment["environment"], "values": {"accuracy": 0.8, "loss": 0.25},
    }  # fmt: skip
    assert (second["seed"], second["values"]) == (1, {"accuracy": 1 / 3})
    assert (full["profile"], full["seed"], full["environment"]) == ("full", None, None)


def test_what_is_written_is_read_back():
    assert parse_references(references_text(BOTH), HERE) == BOTH
    assert read_references(Path("no such file")) == {}
    assert parse_references(references_text({}), HERE) == {}


def test_the_text_does_not_depend_on_the_order_in_which_runs_come():
    turned = {
        name: {profile: runs[::-1] for profile, runs in reversed(by_profile.items())}
        for name, by_profile in reversed(BOTH.items())
    }
    assert references_text(turned) == references_text(BOTH)


def test_runs_that_are_added_later_stand_below_and_change_no_line():
    """A pull request shows what is new, and nothing else."""
    later = {
        "accuracy": {
            "offline": (*BOTH["accuracy"]["offline"], run(0.7, 0, "def", "2026-11-25", {"torch": "3"}))
        }
    }
    before, after = (
        references_text({**BOTH, **more}).splitlines() for more in ({}, {"accuracy": later["accuracy"]})
    )
    kept = [line for line in before if '"full"' not in line]
    assert [line for line in after if line in kept] == kept
    assert len(after) == len(kept) + 2 and after[-1] not in kept


def test_two_runs_of_a_seed_that_differ_in_their_date_or_versions_are_two_lines():
    """As where one claim was blessed by another run of the same commit than its neighbours."""
    runs = {"a": {"p": (run(),)}, "b": {"p": (run(day="2026-11-25"),)}, "c": {"p": (run(versions={}),)}}
    assert len(references_text(runs).splitlines()) == 2 + 3
    assert parse_references(references_text(runs), HERE) == runs


def lines_of(change=lambda lines: lines) -> str:
    return "\n".join(change(references_text(BOTH).splitlines())) + "\n"


def replaced(number: int, old: str, new: str):
    def change(lines):
        assert old in lines[number - 1]
        lines[number - 1] = lines[number - 1].replace(old, new)
        return lines

    return change


DAMAGE = {
    "a value changed by hand": (replaced(4, "0.25", "0.24"), 4, "sum is"),
    "a commit changed by hand": (replaced(5, "abc1234", "abc1235"), 5, "sum is"),
    "a claim renamed by hand": (replaced(5, "accuracy", "acc"), 5, "sum is"),
    "versions changed by hand": (replaced(2, "2.4.6", "2.4.7"), 2, "environment is"),
    "a comment": (lambda lines: [lines[0], "# mine", *lines[1:]], 2, "Expecting value"),
    "a blank line": (lambda lines: [*lines, ""], 6, "Expecting value"),
    "a merge conflict": (lambda lines: [*lines[:3], "<<<<<<< HEAD", *lines[3:]], 4, "Expecting value"),
    "a line cut short": (lambda lines: [*lines[:4], lines[4][:-9]], 5, ""),
    "a run twice": (lambda lines: [*lines, lines[4]], 6, "line 5 has accuracy of this run already"),
    "no header": (lambda lines: lines[1:], 1, "no 'schema'"),
    "another format": (replaced(1, '"schema": 1', '"schema": 2'), 1, "schema is 2, not 1"),
    "an environment left out": (lambda lines: [lines[0], *lines[2:]], 3, "no line above names the environment"),
    "a line that holds no object": (lambda lines: [*lines, "3"], 6, ""),
    "a number that is none": (replaced(4, "0.25", "NaN"), 4, "NaN is not JSON"),
    "a line without its sum": (lambda lines: [*lines, '{"profile": "offline", "values": {}}'], 6, "no 'sum'"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_one_line_with_file_and_line(damage):
    change, line, words = DAMAGE[damage]
    with pytest.raises(HarnessError) as caught:
        parse_references(lines_of(change), HERE)
    message = str(caught.value)
    assert message.startswith(f"05-a.jsonl:{line}: not as `harness bless` wrote it (") and words in message
    assert "take the file back from git" in message and "\n" not in message
    assert caught.value.exit_code is ExitCode.USAGE


def test_an_empty_file_a_folder_and_bytes_that_are_no_text(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "gbk.jsonl").write_bytes("微调".encode("gbk"))
    (tmp_path / "folder.jsonl").mkdir()
    for name, words in (("empty", ":1: not as"), ("gbk", ":1: .*not UTF-8 text"), ("folder", "^cannot read")):
        with pytest.raises(HarnessError, match=words):
            read_references(tmp_path / f"{name}.jsonl")


def test_a_file_that_git_checked_out_with_other_line_ends_is_whole(tmp_path):
    path = tmp_path / "05-a.jsonl"
    path.write_bytes(references_text(BOTH).replace("\n", "\r\n").encode())
    assert read_references(path) == BOTH
