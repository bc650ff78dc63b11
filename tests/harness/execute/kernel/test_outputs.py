"""What one cell shows: every type within its room, whole or not at all, the last always."""

from __future__ import annotations

import pytest
from nbformat.v4 import new_code_cell, new_output

from harness.execute.kernel import outputs
from harness.execute.kernel.outputs import CellOutputs, limit, size_of


@pytest.fixture
def shown(monkeypatch):
    monkeypatch.setattr(outputs, "MAX_DATA", 10_000)
    return CellOutputs(new_code_cell())


def image(size, **more):
    return new_output("display_data", {"image/png": "A" * size, **more})


def texts(shown):
    shown.settle()
    return [o.get("text") or o.get("data", {}).get("text/plain", "") for o in shown.cell.outputs]


@pytest.mark.parametrize("mime", ["image/png", "text/html", "application/vnd.plotly.v1+json", "text/plain"])
def test_a_flood_of_any_type_keeps_the_first_ones_and_the_last(shown, mime):
    for i in range(100):
        value = "x" * 1_500 + str(i)
        shown.add(new_output("display_data", {mime: {"points": value} if "json" in mime else value}))
    *first, note, last = shown.cell.outputs
    assert (
        len(first) == 5
        and "1" in str(first[1].data[mime])
        and str(last.data[mime]).rstrip("'}").endswith("99")
    )
    assert note.data["text/plain"].startswith("… 94 outputs with 1")
    assert sum(map(size_of, shown.cell.outputs)) < 2 * outputs.MAX_DATA


def test_text_between_figures_that_have_no_room_grows_in_one_place(shown):
    for i in range(1000):
        shown.add(image(9_000))
        shown.add_text("stdout", f"{i}\n")
    assert len(shown.cell.outputs) == 5  # a figure, its text, the note, all other text, the last figure
    assert texts(shown)[3].endswith("998\n999\n")


@pytest.mark.slow
def test_many_small_figures_are_a_flood_too(shown):
    for _ in range(10_000):
        shown.add(image(1))
    assert len(shown.cell.outputs) < 60


def test_an_error_is_never_left_out(shown):
    for _ in range(3):
        shown.add(image(9_000))
    shown.add(new_output("error", ename="E", evalue="v", traceback=["t"]))
    shown.add(image(9_000))
    assert [o.output_type for o in shown.cell.outputs].count("error") == 1


def test_a_cleared_cell_has_its_room_again(shown, monkeypatch):
    monkeypatch.setattr(outputs, "MAX_TEXT", 1_000)
    for i in range(30):
        shown.clear(wait=True)
        shown.add(image(9_000, **{"text/plain": str(i)}))
        shown.add_text("stdout", f"{i}" * 300)
    assert texts(shown) == ["29", "29" * 300]


def test_clear_that_waits_takes_nothing_away_where_nothing_comes(shown):
    shown.add_text("stdout", "result")
    shown.clear(wait=True)
    assert texts(shown) == ["result"]
    shown.clear(wait=False)
    assert texts(shown) == []


def test_what_is_cleared_cannot_be_updated(shown):
    shown.add(image(1, **{"text/plain": "old"}), "id")
    shown.clear(wait=False)
    shown.add_text("stdout", "new")
    shown.update("id", image(1, **{"text/plain": "late"}))
    assert texts(shown) == ["new"]


def test_updates_are_shown_and_have_no_more_room_than_others(shown):
    shown.add(image(1, **{"text/plain": "1"}), "id")
    for i in range(100):
        shown.update("id", image(5_000, **{"text/plain": str(i)}))
    assert texts(shown) == ["99"]
    shown.add(image(4_000), "other")
    shown.update("other", image(9_000))
    assert texts(shown)[1] == "… 1 outputs with 9,200 characters left out"


def test_text_is_cut_and_half_a_figure_is_none(monkeypatch):
    monkeypatch.setattr(outputs, "MAX_DATA", 100)
    figure = image(101, **{"text/plain": "<Figure>", "text/html": "<p>"})
    limit(figure)
    assert figure.data == {
        "text/plain": "<Figure>\n… image/png of 101 characters left out",
        "text/html": "<p>",
    }
