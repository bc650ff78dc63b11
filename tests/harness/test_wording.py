"""The one rule by which the numbers of a claim are rounded, and the line by which a cell is known."""

from __future__ import annotations

import math
import random

import pytest

from harness.wording import Rounding, cell_label, rounding, rounding_apart


@pytest.mark.parametrize(
    ("values", "interval", "reference", "difference", "unit", "shown"),
    [
        ((0.87312,), (0.8562, 0.8862), 0.8712, 0.0019, "fraction", "0.873 0.871 +0.002 [0.856, 0.886]"),
        ((5.52222109,), (5.4722, 5.5722), 5.522, 0.00022109, "b", "5.522 b 5.522 b 0.000 b [5.472, 5.572] b"),
        ((0.3888889,), (0.368889, 0.408889), 0.388889, -2.2e-07, "ratio", "0.389× 0.389× 0.000× [0.369, 0.409]×"),
        ((270.6,), (238.3, 315.4), 276.8, -6.2, "", "271 277 -6 [238, 315]"),
        ((12345.0,), (11000.0, 14000.0), 12500.0, -155.0, "d", "12300 d 12500 d -200 d [11000, 14000] d"),
        ((2e-7,), (1.5e-7, 2.5e-7), 2.1e-7, -1e-8, "", "2.00e-07 2.10e-07 -1.0e-08 [1.50e-07, 2.50e-07]"),
        ((0.0996,), (0.0, 0.1992), 0.0996, 0.0, "", "0.10 0.10 0.00 [0.00, 0.20]"),
    ],
)  # fmt: skip
def test_all_numbers_of_a_claim_end_at_the_second_digit_of_the_interval(
    values, interval, reference, difference, unit, shown
):
    found = rounding(unit, values, interval, reference=reference)
    numbers = [found.number(values[0]), found.number(reference), found.number(difference, signed=True)]
    assert " ".join([*numbers, found.range(interval)]) == shown


def test_without_an_interval_the_spread_of_the_seeds_decides():
    assert rounding("", (1.23456, 1.33456, 1.28)).number(1.28305) == "1.283"
    assert rounding("", (1.23456, 3.33456)).number(1.28305) == "1.3"


def test_without_any_uncertainty_four_digits_and_whole_numbers_whole():
    plain = rounding("parameters", (11436290.0,))
    assert plain.number(11436290.0) == "11436290 parameters"
    assert rounding().number(1.66533453e-16) == "1.665e-16" and rounding().number(0.123456) == "0.1235"


def test_a_range_that_was_set_is_no_uncertainty():
    bounds = rounding("ratio", (1.0,), (0.2, 3.0), uncertain=False)
    assert (bounds.number(0.58106), bounds.range((0.2, 3.0))) == ("0.5811×", "[0.2, 3]×")
    close = rounding("", (1.00004,), (0.0, 1.0), uncertain=False)
    assert close.number(1.00004) == "1.00004" and close.range((0.0, 1.0)) == "[0, 1]"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, 0.0, -0.0, 1e300, 5e-324])
@pytest.mark.parametrize(
    "interval", [None, (None, None), (None, 1.0), (math.nan, 1.0), (0.0, math.inf), (1.0, 1.0)]
)
def test_no_number_stops_it(value, interval):
    found = rounding("s", () if value is None else (value,), interval)
    assert found.number(value) and found.range(interval)
    assert not found.number(value).startswith("-0 ")


def cases(count: int):
    chance = random.Random(20)
    for _ in range(count):
        centre = chance.choice([-1, 1]) * 10 ** chance.uniform(-6, 8)
        half = abs(centre) * 10 ** chance.uniform(-7, 1)
        value = centre + half * chance.uniform(-4, 4)
        yield value, centre, (centre - half, centre + half)


def test_rounding_moves_nothing_by_more_than_a_tenth_of_the_half_width():
    """Two digits of the half-width: a step is at most a tenth of it, the error half a step; less six digits' error."""
    for value, centre, interval in cases(3000):
        found = rounding("", (value,), interval, reference=centre)
        half = (interval[1] - interval[0]) / 2
        allowed = half / 20 + 5.01e-6 * max(map(abs, (value, *interval)))
        for number in (value, centre, *interval):
            assert abs(float(found.number(number)) - number) <= allowed, (value, interval)


def test_no_number_has_more_digits_than_a_claim_file_keeps():
    for value, centre, interval in cases(3000):
        found = rounding("", (value,), interval, reference=centre)
        largest = max((value, centre, *interval), key=abs)
        digits = found.number(largest).lstrip("+-0.").partition("e")[0].replace(".", "")
        assert len(digits) <= 6 or (found.place or 0) <= 0, (value, interval, found)


def test_what_lies_outside_reads_as_outside_and_what_lies_inside_never_does():
    for value, centre, interval in cases(3000):
        found = rounding("", (value,), interval, reference=centre)
        low, high = (float(found.number(side)) for side in interval)
        shown = float(found.number(value))
        if interval[0] <= value <= interval[1]:
            assert low <= shown <= high
        elif min(abs(value - side) for side in interval) > 2e-5 * max(abs(v) for v in (value, *interval)):
            assert not low <= shown <= high, (value, interval, found)


def test_places_do_not_hang_on_the_sign():
    for value, _, interval in cases(500):
        mirrored = rounding("", (-value,), (-interval[1], -interval[0]))
        assert mirrored.place == rounding("", (value,), interval).place


@pytest.mark.parametrize(
    ("a", "b", "interval", "shown"),
    [
        (0.8123, 0.7511, (-0.0834, -0.039), "0.812 0.751 -0.061 [-0.083, -0.039]"),
        (276.8, 270.61, (-40.0, 27.6), "277 271 -6 [-40, +28]"),
        (0.8125, 0.8, None, "0.8125 0.8000 -0.0125 —"),
        (0.81254, 0.81251, None, "0.81254 0.81251 -0.00003 —"),
        (0.812543210, 0.812543214, None, "0.812543 0.812543 0.000000 —"),
        (120.0, 11436290.0, None, "120 11436290 +11436170 —"),
        (1000.0, 0.5, None, "1000.00 0.50 -999.50 —"),
        (0.0, 0.0, None, "0 0 0 —"),
        (0.0, 0.25, None, "0.0000 0.2500 +0.2500 —"),
    ],
)
def test_two_values_and_their_difference_end_at_one_place(a, b, interval, shown):
    found = rounding_apart("", a, b, interval)
    numbers = [
        found.number(a),
        found.number(b),
        found.number(b - a, signed=True),
        found.range(interval, signed=True),
    ]
    assert " ".join(numbers) == shown


def test_the_sign_of_nothing_is_not_shown():
    assert Rounding("fraction", 3).number(-0.0001, signed=True) == "0.000"


@pytest.mark.parametrize(
    ("source", "label"),
    [
        ("# why\n\n  x = 1  \ny = 2", "x = 1"),
        ("# only this", ""),
        ("print('\x1b[31mred')", "print('red')"),
        ("a" * 99, "a" * 59 + "…"),
        ("import numpy as np\nfrom a import b\n\n# train\nmodel.fit(X, y)", "model.fit(X, y)"),
        ("from a import (  # all (of it\n    b,\n    c as d,\n)\nfit()", "fit()"),
        ("import a, \\\n    b\nfit()", "fit()"),
        ("%matplotlib inline\n%%time\nfit()", "fit()"),
        ("import numpy as np\n\n@dataclass\nclass Job:\n    id: int", "class Job:"),
        ("import numpy as np\n# nothing else", "import numpy as np"),
        ("%run other.py", "%run other.py"),
        ("import os\n!pip list", "!pip list"),
        ("important = 1", "important = 1"),
    ],
)
def test_a_cell_is_known_by_its_first_line_that_does_more_than_prepare(source, label):
    assert cell_label(source) == label
