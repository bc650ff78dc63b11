"""Characters as pictures and what they mean: nothing drawn that the font lacks, nothing tested that was learnt."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import DatasetDict

from sft.glyphs import FONTS, draw_glyphs, font_characters, load_glyph_meanings, stroke_histograms
from sft.packaged import DataError
from sft.repeats import normalise, runs
from sft.topics import read_characters


@pytest.fixture(scope="module")
def splits() -> DatasetDict:
    return load_glyph_meanings()


def test_a_glyph_is_ink_on_paper_in_the_middle_of_its_square():
    (one,) = draw_glyphs("一", size=32)
    rows, columns = np.nonzero(one > 0.5)
    assert one.shape == (32, 32) and one.min() == 0 and 0.9 < one.max() <= 1
    assert (
        rows.max() - rows.min() <= 4 and columns.max() - columns.min() >= 22
    )  # one stroke, from side to side
    assert 12 <= rows.mean() <= 20 and 14 <= columns.mean() <= 17


def test_sizes_fonts_and_characters_differ():
    regular, bold = (draw_glyphs("鲤烤", size=24, font=font) for font in FONTS)
    assert regular.shape == bold.shape == (2, 24, 24)
    assert bold.sum() > 1.1 * regular.sum()
    assert np.abs(regular[0] - regular[1]).sum() > 50


def test_a_character_the_font_lacks_is_one_clear_line():
    with pytest.raises(DataError, match=r"没有“𪚥”（U\+2A6A5，第 2 个）：换一个字") as caught:
        draw_glyphs("龙𪚥")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("entry", ["", "鲤鱼"])
def test_what_is_not_one_character_is_told(entry):
    with pytest.raises(DataError, match=r"第 2 个是.*不是一个字"):
        draw_glyphs(["鲤", entry])


def test_histograms_tell_direction_and_place():
    pictures = np.zeros((3, 32, 32), dtype=np.float32)
    pictures[0, 16:, :] = 1  # an edge from left to right in the middle
    pictures[1, :, 16:] = 1  # one from top to bottom
    pictures[2] = pictures[1] / 4
    across, down, faint = stroke_histograms(pictures, cells=4, directions=4).reshape(3, 4, 4, 4)
    assert {*np.argwhere(across > 1e-3)[:, 0]} == {2} and {*np.argwhere(down > 1e-3)[:, 0]} == {0}
    assert {*np.argwhere(across > 1e-3)[:, 1]} == {1, 2} and {*np.argwhere(down > 1e-3)[:, 2]} == {1, 2}
    np.testing.assert_allclose(faint, down / 2, atol=1e-6)  # the square root of the contrast


def test_an_edge_between_two_directions_counts_for_both():
    ramp = np.add.outer(np.arange(32.0), np.arange(32.0) * np.tan(np.pi / 2 - np.pi / 8)).astype(np.float32)
    inside = stroke_histograms(ramp[None], cells=4, directions=4).reshape(4, 4, 4)[:, 1:3, 1:3] ** 2
    np.testing.assert_allclose(inside[0], inside[1], rtol=1e-3)
    np.testing.assert_allclose(inside[2:], 0, atol=1e-3 * inside[0].max())


@pytest.mark.parametrize("shape", [(32, 32), (1, 32, 30), (1, 30, 30)])
def test_pictures_that_do_not_divide_are_refused(shape):
    with pytest.raises(ValueError, match="a multiple of 8"):
        stroke_histograms(np.zeros(shape, dtype=np.float32))


def test_every_character_of_the_splits_can_be_drawn_by_both_fonts(splits):
    characters = {one for part in splits.values() for one in part["character"]}
    assert len(characters) == sum(map(len, splits.values())) == 6057
    assert all(characters <= font_characters(font) for font in FONTS)


def test_no_meaning_and_no_variant_of_a_tested_character_was_learnt(splits):
    variants = {row["character"]: set(row["variant"]) for row in read_characters()}
    keys = {
        name: {
            key
            for character, text in zip(part["character"], part["text"], strict=True)
            for key in (character, *variants[character], *runs(text, 16))
        }
        for name, part in splits.items()
    }
    for name, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not keys[name] & keys[other]
    texts = {normalise(text) for text in splits["train"]["text"]}
    assert not texts & {normalise(text) for text in splits["test"]["text"]}
