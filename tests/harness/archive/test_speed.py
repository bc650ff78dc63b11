"""The speed of a machine, and the limits that follow from it."""

import hashlib
import os

import pytest
from notebooks import write_book

from harness.archive import speed as speed_module
from harness.archive.speed import MOST, Speed, find_speed
from harness.book.config import load_book
from harness.book.plan import Request, plan
from harness.cli.doctor import WARN, check_speed
from harness.cli.terminal import PlainProgress
from harness.errors import HarnessError
from harness.execute.resume import Origin
from harness.execute.run import execute
from harness.files import read_json
from harness.model import JobState, Limits


@pytest.fixture(autouse=True)
def measured_anew():
    find_speed.cache_clear()
    yield
    find_speed.cache_clear()


@pytest.fixture
def measured(monkeypatch):
    """Says what measuring gives, on a machine with bfloat16."""

    def set_to(value: float, hardware: str = "cpu-x86_64-bf16") -> None:
        monkeypatch.setattr(speed_module, "_measure", lambda threads: value)
        monkeypatch.setattr(speed_module, "hardware_class", lambda device: hardware)

    return set_to


@pytest.mark.parametrize(
    ("value", "factor", "told"),
    [
        (1.7, 1, "speed 1.7 of the reference; limits as they are written"),
        (0.93, 1, "speed 0.93 of the reference; limits as they are written"),
        (0.6, 1.7, "speed 0.6 of the reference; limits × 1.7"),
        (0.25, 4, "speed 0.25 of the reference; limits × 4"),
        (0.01, MOST, "speed 0.01 of the reference; limits × 8"),
    ],
)
def test_limits_grow_as_the_machine_is_slower(measured, value, factor, told):
    measured(value)
    found = find_speed(None)
    assert (found.factor, str(found)) == (factor, told)


def test_without_bfloat16_training_is_slower_than_arithmetic_tells(measured):
    measured(1.0, "cpu-x86_64")
    assert find_speed(None, "cpu").of_reference == speed_module.WITHOUT_BF16
    find_speed.cache_clear()
    measured(1.0, "cuda-NVIDIA-H100")  # the GPU multiplies
    assert find_speed(None, "cuda").factor == 1


def test_a_profiles_limits_are_multiplied_those_of_the_user_and_none_are_not():
    slow = Speed(0.25, 4.0)
    assert slow.adapt(Limits(60, 180)) == Limits(240, 720, factor=4.0)
    assert slow.adapt(Limits(60, 180, given=("cell",))) == Limits(60, 720, given=("cell",), factor=4.0)
    assert slow.adapt(Limits(None, None)) == Limits(None, None, factor=4.0)
    assert Speed(2.0, 1.0).adapt(Limits(60, 180)) == Limits(60, 180)


@pytest.mark.parametrize(
    ("elapsed", "used", "load", "expected"),
    [
        (1.0, 1.0, 0.0, 1.0),  # alone
        (4.0, 1.0, 0.0, 0.25),  # others have three quarters of the processor now
        (1.0, 1.0, 6.5, 0.25),  # and here they had, in the minute before
        (2.0, 2.0, 0.0, 0.5),  # a slower processor
    ],
)
def test_what_else_runs_is_part_of_the_speed(monkeypatch, elapsed, used, load, expected):
    portions = speed_module.REFERENCE_RATE / len(speed_module._PORTION)  # that the reference does in a second
    monkeypatch.setattr(speed_module, "_hash_for", lambda seconds: (portions, elapsed, used))
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert speed_module._measure(2) == pytest.approx(expected)


def test_measuring_ends_when_its_time_is_over_however_slow_the_machine():
    clock = iter(range(100))
    portions, elapsed, used = speed_module._hash_for(3.0, clock=lambda: next(clock))
    assert (portions, elapsed) == (3, 4) and used >= 0
    assert speed_module._measure(2) > 0


@pytest.mark.parametrize(
    "error", [ValueError("unsupported hash type"), RuntimeError("can't start new thread")]
)
def test_a_speed_that_cannot_be_measured_leaves_the_limits(monkeypatch, tmp_path, error):
    def refuse(data):
        raise error

    monkeypatch.setattr(hashlib, "blake2b", refuse)
    assert find_speed(None) == Speed(None, 1.0)
    check = check_speed(None)
    assert check.status == WARN and check.message == "speed could not be measured; limits as they are written"
    assert "harness.yml" in check.remedy


@pytest.mark.parametrize(("text", "factor"), [("off", 1), ("'off'", 1), ("0.5", 2), ("2", 1), ("0.05", 20)])
def test_harness_yml_may_say_the_speed(tmp_path, monkeypatch, text, factor):
    (tmp_path / "harness.yml").write_text(f"speed: {text}\n")
    monkeypatch.setattr(speed_module, "_measure", lambda threads: pytest.fail("measured all the same"))
    assert find_speed(load_book(tmp_path).speed).factor == factor
    assert "harness.yml says so" in check_speed(load_book(tmp_path)).message


@pytest.mark.parametrize("text", ["0", "-1", "on", ".nan", ".inf", "fast", "[1]", "0.001"])
def test_a_speed_that_cannot_be(tmp_path, text):
    (tmp_path / "harness.yml").write_text(f"speed: {text}\n")
    with pytest.raises(HarnessError, match=r"harness\.yml: speed must be off, or a number from 0\.01 up"):
        load_book(tmp_path)


def run(root, folder, *, progress=lambda event: None, **request):
    book = load_book(root)
    folder.mkdir()
    planned = plan(book, book.chapters, Request("smoke", **request))
    return execute(planned, folder, Origin(["x"]), book=book, use_cache=True, progress=progress)


def test_a_run_tells_the_speed_and_its_key_does_not_hang_on_it(tmp_path):
    lines = []

    class Screen:
        def print(self, line, **how):
            lines.append(line)

    limits = {"smoke": {"cell_timeout": 30, "notebook_timeout": 60, "default": True}}
    root = write_book(tmp_path / "book", {"01-a": ["1"]}, profiles=limits, speed=0.5)
    outcome = run(root, tmp_path / "one", progress=PlainProgress(Screen()))
    assert "speed 0.5 of the reference (harness.yml says so); limits × 2" in lines
    told = {"of_reference": 0.5, "factor": 2.0, "pinned": True}
    assert outcome.manifest["environment"]["speed"] == told
    assert read_json(tmp_path / "one" / "manifest.json")["environment"]["speed"] == told
    job = read_json(tmp_path / "one" / "jobs" / "01-a-smoke" / "job.json")
    assert job["limits"] == {"cell": 60, "notebook": 120, "given": [], "factor": 2}

    lines.clear()
    write_book(root, {}, profiles=limits)  # speed: off
    outcome = run(root, tmp_path / "two", progress=PlainProgress(Screen()))
    assert [job.state for job in outcome.results] == [JobState.SKIPPED]
    assert not any("speed" in line for line in lines) and "speed" not in outcome.manifest["environment"]
    first, second = (
        read_json(tmp_path / name / "jobs" / "01-a-smoke" / "job.json")["key"] for name in ("one", "two")
    )
    assert first == second


def test_a_time_out_says_which_limit_and_how_to_raise_it(tmp_path):
    limits = {"smoke": {"cell_timeout": 1, "notebook_timeout": 60, "default": True}}
    root = write_book(
        tmp_path / "book", {"01-a": ["import time; time.sleep(600)"]}, profiles=limits, speed=0.5
    )
    (result,) = run(root, tmp_path / "one").results
    assert result.state is JobState.TIMED_OUT
    assert result.reason.endswith(
        "ran past the cell's limit of 2 s (1 s × 2 for a slow machine);"
        " raise it with --cell-timeout, or with cell_timeout in harness.yml"
    )
    (result,) = run(root, tmp_path / "two", cell_timeout=1).results
    assert result.reason.endswith("ran past the cell's limit of 1 s; give --cell-timeout more")
    (result,) = run(root, tmp_path / "three", cell_timeout=30, notebook_timeout=3).results
    # in its cell; on a machine that is slow to start kernels, before it
    assert "ran past the notebook's limit of 3 s" in result.reason or "was killed" in result.reason
    assert result.reason.endswith("; give --notebook-timeout more")
