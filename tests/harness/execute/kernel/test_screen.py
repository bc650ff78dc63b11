"""A cell's text output: merged, reduced and limited, in time linear in what was printed."""

from __future__ import annotations

import sys

import pytest

from harness.execute.kernel import outputs as limits
from harness.execute.kernel.outputs import CellText, cut, limit
from harness.execute.kernel.screen import render


def collect(*messages):
    outputs, text = [], CellText()
    for name, part in messages:
        text.add(outputs, name, part)
    text.settle()
    return [(o["name"], o["text"]) for o in outputs]


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("no return", "no return"),
        ("\r1\r2", "2"),
        ("1\r2\n3\r4\n", "2\n4\n"),
        ("done\r\nnext\r\n", "done\nnext\n"),
        ("100%\r", "100%\r"),
        ("old\rnew\r", "new\r"),
        ("long line\rshort", "shortline"),
        ("1%\b\b2%", "2%"),
        ("50%\x1b[K\r7%\x1b[K", "7%"),
        ("wiped out\x1b[2K\rnew", "new"),
        ("outer\n\rinner\x1b[A\rOUTER\n\r     \r\x1b[A\n", "OUTER\n"),
        ("a\nb\nc\x1b[2AX\n", "aX\nb\nc"),
        ("训练: 50%\r完成: 5%\x1b[K", "完成: 5%"),
        ("中文\rab", "ab文"),
        ("\x1b[31mred\x1b[0m and plain", "\x1b[31mred\x1b[0m and plain"),
        ("\x1b[31mred\x1b[0m\rX", "X\x1b[31med\x1b[0m"),
        ("up\x1b[99Aand\x1b[99Ddown", "downd"),
    ],
)
def test_a_carriage_return_starts_the_line_anew(printed, shown):
    assert render(printed) == shown


def test_a_return_split_over_messages_is_the_same():
    whole = "a\rb\r\nc\r\rd\ne\r"
    parts = [("stdout", char) for char in whole]
    assert collect(*parts) == collect(("stdout", whole)) == [("stdout", "b\nd\ne\r")]


def test_a_sequence_split_over_messages_is_the_same():
    whole = "outer 0\n\x1b[32minner\x1b[0m\x1b[A\router 1\n\x1b[K\x1b[A\router 2\n中文\r完"
    parts = [("stderr", char) for char in whole]
    assert collect(*parts) == collect(("stderr", whole)) == [("stderr", "outer 2\n完文")]


@pytest.mark.parametrize(
    "part", ["\r12 it", "x\x1b[Ay\n", "ab\b", "x\x1b[K", "\x1b[31mx", "ab c\r\n", "中\r"]
)
def test_time_grows_with_what_was_printed_and_no_faster(part):
    """Counted in steps of the interpreter, which no busy machine changes."""

    def steps(times):
        count, text = 0, "x" * times + part * times

        def step(frame, event, argument):
            nonlocal count
            count += 1
            return step

        sys.settrace(step)
        try:
            render(text)
        finally:
            sys.settrace(None)
        return count

    assert steps(800) < 4.5 * steps(200) + 1000


def test_streams_that_nothing_separates_are_one_each_stdout_first():
    assert collect(("stderr", "x"), ("stdout", "1"), ("stderr", "y"), ("stdout", "2")) == [
        ("stdout", "12"),
        ("stderr", "xy"),
    ]


def test_a_figure_separates_streams():
    outputs, text = [], CellText()
    text.add(outputs, "stdout", "before")
    outputs.append({"output_type": "display_data"})
    text.add(outputs, "stdout", "after")
    text.settle()
    assert [o.get("text") for o in outputs] == ["before", None, "after"]


def test_what_is_saved_in_between_goes_on_growing():
    outputs, text = [], CellText()
    text.add(outputs, "stdout", "1")
    text.settle()
    assert outputs[0]["text"] == "1"
    text.add(outputs, "stdout", "2")
    text.settle()
    assert outputs[0]["text"] == "12"


def test_too_much_is_left_out_and_counted(monkeypatch):
    monkeypatch.setattr(limits, "MAX_TEXT", 1_000_000)
    outputs, text = [], CellText()
    text.add(outputs, "stdout", "x" * 600_000)
    outputs.append({"output_type": "display_data"})
    for _ in range(5):
        text.add(outputs, "stdout", "y" * 500_000)
    text.add(outputs, "stderr", "z" * 100)
    text.settle()
    assert outputs[0]["text"] == "x" * 600_000
    assert outputs[2]["text"] == "y" * 399_900 + "\n… 2,100,100 characters left out\n"
    assert outputs[3]["text"] == "z" * 100


def test_a_long_progress_bar_fills_nothing(monkeypatch):
    monkeypatch.setattr(limits, "MAX_TEXT", 2_000_000)
    bar = [("stderr", f"\r{i:>999}") for i in range(5000)]
    assert collect(*bar) == [("stderr", f"{4999:>999}")]


def test_a_cleared_cell_has_its_room_again(monkeypatch):
    monkeypatch.setattr(limits, "MAX_TEXT", 10)
    outputs, text = [], CellText()
    text.add(outputs, "stdout", "x" * 20)
    text.settle()
    outputs.clear()
    text.add(outputs, "stdout", "new")
    text.settle()
    assert [o["text"] for o in outputs] == ["new"]


def test_results_and_errors_are_limited(monkeypatch):
    assert cut("x" * 5, 3).startswith("xxx\n… ")
    error = {"ename": "E", "evalue": "v", "traceback": ["t" * (limits.MAX_TEXT + 1)]}
    limit(error)
    assert error["traceback"][0].endswith("left out\n")
    result = {"data": {"text/plain": "t" * (limits.MAX_TEXT + 1), "text/html": "<p>"}}
    limit(result)
    assert result["data"]["text/plain"].endswith("left out\n") and result["data"]["text/html"] == "<p>"
