"""``harness bless --migrate``: no value is lost, no other letter changes, and it may be run again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.book.claims import claim_path, load_claims
from harness.book.references import read_references, references_path
from harness.errors import HarnessError, InfrastructureError
from harness.judge.migrate import migrate
from harness.model import Published, ReferenceRun

OLD = """\
# what chapter 5 measures
chapter: 05-a
claims:
  # the number the chapter is about
  - name: accuracy    # as recorded
    title: 准确率
    direction: higher
    margin: 0.020
    offline:
      blessed:
        - {value: 0.8123456, seed: 0, commit: abc1234, date: 2026-11-24, hardware: cpu, versions: {torch: 2.13.0}}
        # kept: why the next one is odd
        - {value: 1, seed: null, commit: "1234567", date: "2026-11-25", hardware: cpu}

  # how fast
  - name: speed
    title: "加速"
    direction: none
    margin: 1e-1
    offline:
      blessed:
        - {value: 3, seed: 0, commit: abc1234, date: 2026-11-24, hardware: cpu, versions: {torch: 2.13.0}}
    full:
      blessed:
        - {value: 2.5, seed: 1, commit: abc1234, date: 2026-11-24, hardware: gpu}
      published: {value: 3, citation: "somebody, a: b"}  # of a page

  - {name: loss, title: 损失, direction: lower, margin: 0.1, smoke: {bounds: {high: 2}}}
# the end
"""
NEW = """\
# what chapter 5 measures
chapter: 05-a
claims:
  # the number the chapter is about
  - name: accuracy    # as recorded
    title: 准确率
    direction: higher
    margin: 0.020
        # kept: why the next one is odd

  # how fast
  - name: speed
    title: "加速"
    direction: none
    margin: 1e-1
    full:
      published: {value: 3, citation: "somebody, a: b"}  # of a page

  - {name: loss, title: 损失, direction: lower, margin: 0.1, smoke: {bounds: {high: 2}}}
# the end
"""
FIRST = ReferenceRun(0.8123456, 0, "abc1234", "2026-11-24", "cpu", {"torch": "2.13.0"})
REFERENCES = {
    "accuracy": {"offline": (FIRST, ReferenceRun(1.0, None, "1234567", "2026-11-25", "cpu", {}))},
    "speed": {
        "offline": (ReferenceRun(3.0, 0, "abc1234", "2026-11-24", "cpu", {"torch": "2.13.0"}),),
        "full": (ReferenceRun(2.5, 1, "abc1234", "2026-11-24", "gpu", {}),),
    },
}


@pytest.fixture
def book(tmp_path):
    return SimpleNamespace(
        claims_dir=tmp_path,
        profiles=dict.fromkeys(("smoke", "offline", "full")),
        chapters=(Path("05-a.ipynb"), Path("06-b.ipynb")),
    )


def run_migrate(book, text=None, chapters=None, replace=False):
    if text is not None:
        claim_path(book.claims_dir, "05-a").write_text(text, encoding="utf-8")
    said: list[str] = []
    return migrate(book, chapters, replace=replace, say=said.append), said


def moved(book):
    return read_references(references_path(book.claims_dir, "05-a"))


def claims_text(book) -> str:
    return claim_path(book.claims_dir, "05-a").read_text(encoding="utf-8")


def test_every_value_moves_and_no_other_letter_changes(book):
    files, said = run_migrate(book, OLD)
    assert files == [claim_path(book.claims_dir, "05-a")] and moved(book) == REFERENCES
    assert claims_text(book) == NEW
    assert said == [f"{files[0]}: 4 blessed values of 2 claims moved to 05-a.jsonl"]
    accuracy, speed, _ = load_claims(book.claims_dir, "05-a", book.profiles).claims
    assert accuracy.blessed == REFERENCES["accuracy"] and speed.blessed == REFERENCES["speed"]
    assert speed.published == {"full": Published(3.0, "somebody, a: b")}


def test_again_it_changes_nothing(book):
    run_migrate(book, OLD)
    before = {path: path.read_bytes() for path in book.claims_dir.rglob("*") if path.is_file()}
    assert run_migrate(book) == ([], [])
    assert {path: path.read_bytes() for path in book.claims_dir.rglob("*") if path.is_file()} == before


def test_interrupted_between_the_two_files_it_can_be_finished(book, monkeypatch):
    """The values are in both files then, never in neither."""

    def full_disk(path, text):
        raise InfrastructureError(f"cannot write {path}: the disk is full")

    monkeypatch.setattr("harness.judge.migrate.write_text", full_disk)
    with pytest.raises(InfrastructureError):
        run_migrate(book, OLD)
    assert claims_text(book) == OLD and moved(book) == REFERENCES
    monkeypatch.undo()
    run_migrate(book)
    assert claims_text(book) == NEW and moved(book) == REFERENCES


def test_runs_that_come_later_are_added_to_those_that_were_moved(book):
    """As where one branch blessed in the old layout and another converted the file."""
    run_migrate(book, OLD)
    run_migrate(
        book,
        OLD.replace("0.8123456, seed: 0", "0.7, seed: 2").replace("value: 3, seed: 0", "value: 4, seed: 7"),
    )
    assert [run.seed for run in moved(book)["accuracy"]["offline"]] == [0, 2, None]
    assert [run.value for run in moved(book)["speed"]["offline"]] == [3.0, 4.0]
    assert claims_text(book) == NEW


def test_with_replace_they_take_the_place_of_those_that_were_moved(book):
    run_migrate(book, OLD)
    anew = OLD.replace("0.8123456", "0.7").replace("abc1234", "def5678")
    run_migrate(book, anew.replace("    full:\n      blessed:", "    smoke:\n      blessed:"), replace=True)
    assert [(run.value, run.commit) for run in moved(book)["accuracy"]["offline"]] == [
        (0.7, "def5678"),
        (1.0, "1234567"),
    ]
    assert [run.commit for run in moved(book)["speed"]["offline"]] == ["def5678"]
    assert (
        moved(book)["speed"]["full"] == REFERENCES["speed"]["full"]
    )  # of which the file says nothing any more


def test_two_values_of_one_run_are_told_and_nothing_is_written(book):
    run_migrate(book, OLD)
    with pytest.raises(
        HarnessError, match=r"05-a\.yml: claim accuracy has two blessed runs of seed 0, commit abc"
    ):
        run_migrate(book, OLD.replace("0.8123456", "0.9"))
    assert moved(book) == REFERENCES and "0.9" in claims_text(book)


def test_only_the_chapters_asked_for(book):
    claim_path(book.claims_dir, "06-b").write_text(OLD.replace("05-a", "06-b"), encoding="utf-8")
    assert len(run_migrate(book, OLD, ["06-b"])[0]) == 1
    assert claims_text(book) == OLD and moved(book) == {}


def test_the_last_key_of_a_profile_and_two_profiles_in_a_row(book):
    speed = '      published: {value: 3, citation: "somebody, a: b"}  # of a page\n'
    turned = OLD.replace(speed, "").replace("    full:\n", f"    full:\n{speed}")
    run_migrate(book, turned)
    assert claims_text(book) == NEW and moved(book) == REFERENCES


@pytest.mark.parametrize(
    ("old", "new"),
    [("      blessed:\n        - {value: 2.5", "      blessed:\n        - value: 2.5\n        - {value: 2"),
     ("hardware: gpu}", "\n          hardware: gpu}"),
     ("    full:\n      blessed:\n        - {", "    smoke: {bounds: {low: 1}, blessed: [{value: 1, seed: 0, commit: c,"
      " date: 2026-11-24, hardware: h}]}\n    full:\n      blessed:\n        - {")],
)  # fmt: skip
def test_a_file_that_bless_did_not_write_so_is_told_and_stays(book, old, new):
    assert old in OLD
    with pytest.raises(HarnessError) as caught:
        run_migrate(book, OLD.replace(old, new))
    assert "05-a.yml:" in str(caught.value) and "\n" not in str(caught.value)
    assert claims_text(book) == OLD.replace(old, new) and moved(book) == {}


MISTAKES = {
    "a value that is not a number": ("value: 0.8123456", "value: .nan", 11, "finite"),
    "a value in words": ("value: 0.8123456", "value: high", 11, "must be a number"),
    "a seed that is not whole": ("seed: 0,", "seed: 0.5,", 11, "whole number"),
    "a commit that reads as a number": ('commit: "1234567"', "commit: 1234567", 13, "put it in quotes"),
    "a version that reads as a number": ("torch: 2.13.0", "torch: 2.13", 11, "put it in quotes"),
    "a date that is none": ("date: 2026-11-24", "date: yesterday", 11, "must be such as 2026-11-24"),
    "a run without hardware": (", hardware: cpu}", "}", 13, "lacks 'hardware'"),
    "a run with a stray key": ("seed: null", "seed: null, epoch: 3", 13, "unknown key 'epoch'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_file_and_line(book, mistake):
    old, new, line, words = MISTAKES[mistake]
    assert old in OLD
    with pytest.raises(HarnessError) as caught:
        run_migrate(book, OLD.replace(old, new, 1))
    message = str(caught.value)
    assert message.startswith(f"{claim_path(book.claims_dir, '05-a')}:{line}: "), message
    assert words in message and "\n" not in message
    assert moved(book) == {}


def test_a_file_without_claims_is_told(book):
    with pytest.raises(HarnessError, match=r"05-a\.yml:1: the file lacks 'claims'; add it"):
        run_migrate(book, "chapter: 05-a\n")


def test_a_file_that_is_wrong_elsewhere_is_told_before_anything_is_written(book):
    with pytest.raises(HarnessError, match=r"05-a\.yml:\d+: margin -1 is negative"):
        run_migrate(book, OLD.replace("margin: 1e-1", "margin: -1"))
    assert moved(book) == {}
