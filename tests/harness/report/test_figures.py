"""The small figures: well-formed, told in words, the same shape for the same verdict, whatever the numbers."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest

from harness.model import Outcome
from harness.report.figures import WIDTH, Bar, Reading, cell_bars, clip, dot_plot, history_curve

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert('x')</script> \" & ]]> \x00 \ud800 \x1b[31m"


def parsed(svg: str) -> ET.Element:
    root = ET.fromstring(svg.encode("utf-8"))
    assert root.tag == f"{SVG}svg" and root.get("role") == "img" and root.get("aria-label")
    return root


def circles(root: ET.Element, *, hollow: bool) -> list[float]:
    rows = [row for row in root.iter(f"{SVG}g") if (row.get("fill") == "none") == hollow]
    return [float(circle.get("cx")) for row in rows for circle in row.iter(f"{SVG}circle")]


def coordinates(root: ET.Element) -> list[float]:
    """Every horizontal place of the figure that is not inside a path."""
    return [float(e.get(key)) for e in root.iter() for key in ("x", "cx") if e.get(key)]


def test_seeds_are_full_dots_and_blessed_runs_hollow_ones():
    root = parsed(dot_plot([0.8, 0.9], band=(0.82, 0.88), blessed=[0.84, 0.85, 0.86], reference=0.85))
    low, high = circles(root, hollow=False)
    band = root.find(f"{SVG}rect")
    left = float(band.get("x"))
    assert low < left < min(circles(root, hollow=True))
    assert max(circles(root, hollow=True)) < left + float(band.get("width")) < high
    assert len(circles(root, hollow=True)) == 3


def test_a_dot_plot_says_in_words_what_it_shows():
    label = parsed(dot_plot([0.81], band=(0.79, 0.83), unit="fraction", title="准确率")).get("aria-label")
    assert label == "准确率；本次 0.810；复现范围 [0.790, 0.830]"
    many = dot_plot([i / 10 for i in range(9)], title="a", language="en")
    assert parsed(many).get("aria-label") == "a; this run 9 values in [0.00, 0.80]"


def texts(root: ET.Element) -> list[str]:
    return [element.text for element in root.iter(f"{SVG}text")]


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (3.6200001, 3.6200009, ("3.620000", "3.620001")),
        (3.61999999, 3.62000001, ("3.61999999", "3.62000001")),
        (0.79, 0.83, ("0.7900", "0.8300")),
        (123456.71, 123456.72, ("123456.71", "123456.72")),
    ],
)
def test_the_ends_of_an_axis_never_read_alike(low, high, shown):
    dots = parsed(dot_plot([low], band=(low, high)))
    assert tuple(texts(dots)[-2:]) == shown
    assert all(0 <= place <= WIDTH for place in coordinates(dots))


@pytest.mark.parametrize("values", [[], [math.nan], [None], ["0.5"], [True], [1e309]])
def test_without_a_number_there_is_no_figure(values):
    assert dot_plot(values, band=(0, 1)) == ""
    assert history_curve([Reading("a", tuple(values), Outcome.PASS)] * 3) == ""
    assert cell_bars([Bar("a", value) for value in values]) == ""


@pytest.mark.parametrize(
    ("values", "band"),
    [
        ([0.5], None),
        ([0.5, 0.5], (0.5, 0.5)),
        ([1e300, -1e300], (0, 1)),
        ([math.nan, 0.5, math.inf], (None, 1)),
        ([10**400, 3], (0, math.inf)),
        ([1e-12, 2e-12], (1e-13, 3e-12)),
        ([-0.0, 0], (0, 0)),
        ([1234567.891], (1234000, 1235000)),
    ],
)
def test_odd_numbers_stay_inside_the_figure(values, band):
    for svg in (
        dot_plot(values, band=band, blessed=values, reference=values[0]),
        history_curve([Reading("", tuple(values), o) for o in Outcome], band=band),
    ):
        root = parsed(svg)
        assert all(0 <= x <= WIDTH for x in coordinates(root))
        numbers = [t.text for t in root.iter(f"{SVG}text")]
        assert not {"nan", "inf"} & {t.lower() for t in numbers}, numbers
        assert "nan" not in re.sub("[^a-z]", "", "".join(p.get("d") for p in root.iter(f"{SVG}path")))


def test_names_are_text_never_markup():
    readings = [Reading(HOSTILE, (i,), Outcome.PASS) for i in range(2)]
    for svg in (
        dot_plot([1], title=HOSTILE, unit=HOSTILE),
        history_curve(readings, title=HOSTILE, unit=HOSTILE),
        cell_bars([Bar(HOSTILE, 1.0)], title=HOSTILE),
    ):
        root = parsed(svg)
        assert "<script>alert('x')</script>" in root.get("aria-label")
        assert not list(root.iter(f"{SVG}script")) and "<script" not in svg


def test_a_curve_has_one_shape_for_each_kind_of_verdict():
    def shapes(*outcomes: Outcome) -> str:
        readings = [Reading("2026-11-24T01:30:00", (i,), one) for i, one in enumerate(outcomes)]
        return "".join(p.get("d") for p in parsed(history_curve(readings)).iter(f"{SVG}path"))

    dots, crosses, rings = (shapes(o, o) for o in (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE))
    assert dots.count("h0") == 2 and "a3" not in dots and "l6 6" not in dots
    assert crosses.count("l6 6") == 2 and "h0" not in crosses and rings.count("a3") == 4


def test_a_curve_tells_its_ends_and_its_latest_value():
    readings = [
        Reading("2026-11-22T01:30:00+00:00", (0.5, 0.7), Outcome.PASS),
        Reading("2026-11-23T01:30:00+00:00", (math.nan,), Outcome.FAIL),
        Reading("2026-11-24T01:30:00+00:00", (0.8,), Outcome.PASS),
    ]
    root = parsed(history_curve(readings, unit="fraction", title="准确率"))
    words = "2 次运行，11-22 01:30 至 11-24 01:30；最低 0.60；最高 0.80；最近 0.80"
    assert root.get("aria-label") == f"准确率；{words}"
    assert history_curve(readings[:2]) == ""


def test_the_labels_of_a_curve_do_not_touch():
    def labels(*values: float) -> list[float]:
        readings = [Reading("", (value,), Outcome.PASS) for value in values]
        texts = parsed(history_curve(readings, band=(0, 100))).iter(f"{SVG}text")
        return [float(text.get("y")) for text in texts if text.get("x") == "64"]

    high, low = labels(50, 54)
    assert low - high >= 12
    assert len(labels(50, 50.1)) == 1  # they would read the same


def test_cells_are_drawn_slowest_first_and_the_rest_is_summed():
    bars = [Bar(f"cell {i}", float(i)) for i in range(1, 15)]
    root = parsed(cell_bars(bars, most=3, language="en"))
    texts = [t.text for t in root.iter(f"{SVG}text")]
    assert texts[:4] == ["cell 14", "cell 13", "cell 12", "11 more cells"]
    assert texts[4:] == ["14.0 s", "13.0 s", "12.0 s", "1 min 06 s"]
    widths = [float(r.get("width")) for r in root.iter(f"{SVG}rect")]
    assert widths[3] == max(widths) and widths[0] / widths[2] == pytest.approx(14 / 12, rel=0.01)


def test_a_broken_cell_is_marked_by_a_sign():
    texts = [t.text for t in parsed(cell_bars([Bar("1 / 0", 0.0, broken=True)])).iter(f"{SVG}text")]
    assert texts[0] == "✗ 1 / 0"


@pytest.mark.parametrize(
    ("text", "columns", "short"),
    [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("中文字", 6, "中文字"), ("中文字", 5, "中文…"), ("", 3, "")],
)
def test_text_is_cut_by_columns(text, columns, short):
    assert clip(text, columns) == short
