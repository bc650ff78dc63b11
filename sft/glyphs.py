"""Characters as pictures, beside what they mean: the pairs on which chapter 8 trains a small CLIP.

The pictures are drawn with the fonts of the book's own figures, so that every machine has the same pixels; the meanings
are those of :mod:`sft.topics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from sft.packaged import DataError
from sft.plotting import FONT_FILE
from sft.repeats import linked_groups, runs, split_by_group
from sft.topics import first_meaning, read_characters

FONTS = (FONT_FILE, FONT_FILE.with_name("SFTBookSans-Bold.ttf"))

_WINDOW = 16  # as in sft.topics: sixteen equal characters are a copy
_FILLED = 0.9  # of the side of the picture by the square in which the font draws a character


@cache
def font_characters(font: Path = FONT_FILE) -> frozenset[str]:
    """Every character that *font* has a glyph for."""
    with TTFont(font) as opened:
        return frozenset(map(chr, opened.getBestCmap()))


def draw_glyphs(characters: Sequence[str], size: int = 32, font: Path = FONT_FILE) -> np.ndarray:
    """Each character in the middle of a square: float32 of shape (N, size, size), paper 0 and ink 1.

    Raises:
        DataError: an entry is not one character, or the font lacks it (what would be drawn is an empty box).
    """
    known, pen = font_characters(font), ImageFont.truetype(str(font), round(size * _FILLED))
    pictures = np.zeros((len(characters), size, size), dtype=np.float32)
    for number, character in enumerate(characters):
        if len(character) != 1:
            raise DataError(f"第 {number + 1} 个是“{character}”，不是一个字：一次只画一个字，拆开再画")
        if character not in known:
            raise DataError(
                f"字体 {font.name} 里没有“{character}”（U+{ord(character):04X}，第 {number + 1} 个）："
                "换一个字，或用 font= 换一种有它的字体"
            )
        pictures[number] = np.asarray(draw_glyph(character, size, pen), dtype=np.float32) / 255
    return pictures


def draw_glyph(character: str, size: int, pen: ImageFont.FreeTypeFont) -> Image.Image:
    """One character in the middle of a square of ``size`` pixels, white on black, eight bits a pixel."""
    picture = Image.new("L", (size, size))
    ImageDraw.Draw(picture).text((size / 2, size / 2), character, fill=255, font=pen, anchor="mm")
    return picture


def stroke_histograms(pictures: np.ndarray, cells: int = 8, directions: int = 8) -> np.ndarray:
    """How much of an edge goes in which direction in each part of a picture, the square root of it.

    Histograms of oriented gradients (Dalal and Triggs 2005, doi:10.1109/CVPR.2005.177), without overlapping blocks:
    a glyph has one contrast.

    Args:
        pictures: shape (N, size, size), as :func:`draw_glyphs` makes them.
        cells: parts a side; must divide the size.
        directions: bins of half a turn; an edge between two counts for both.

    Returns:
        float32 of shape (N, directions * cells * cells).

    Raises:
        ValueError: the pictures are not squares of a multiple of ``cells``.
    """
    if pictures.ndim != 3 or pictures.shape[1] != pictures.shape[2] or pictures.shape[1] % cells:
        raise ValueError(
            f"pictures of shape {pictures.shape}: need (N, size, size), size a multiple of {cells}"
        )
    n, size, _ = pictures.shape
    across, down = np.zeros_like(pictures), np.zeros_like(pictures)
    across[:, :, 1:-1] = pictures[:, :, 2:] - pictures[:, :, :-2]
    down[:, 1:-1] = pictures[:, 2:] - pictures[:, :-2]
    strength = np.hypot(across, down)
    turn = np.mod(np.arctan2(down, across), np.pi) * (directions / np.pi)
    low = np.floor(turn)
    share, low = turn - low, low.astype(np.int64) % directions
    found = np.zeros((n, directions, cells, cells), dtype=np.float32)
    for one in range(directions):
        part = strength * ((low == one) * (1 - share) + ((low + 1) % directions == one) * share)
        found[:, one] = part.reshape(n, cells, size // cells, cells, size // cells).sum((2, 4))
    return np.sqrt(found).reshape(n, -1)


def load_glyph_meanings(*, test_size: int = 1000, split_seed: int = 0) -> DatasetDict:
    """Characters that the book's font has, with a meaning: columns ``character``, ``radical`` and ``text``, all str.

    Never parted: a character and its variants (銲 and 焊 differ by a few strokes), and characters whose meanings are
    equal or share sixteen characters in a row. What is tested is thus new to the eye and to the reader.

    Args:
        test_size: rows of the test split, and again of the validation split (a group may overshoot it).

    Raises:
        DataError: as :func:`sft.topics.read_characters`, or ``test_size`` leaves no training rows.
    """
    known, source = font_characters(), read_characters()
    found, keys = [], []
    for character, radical, variant, definition in zip(*source[:].values(), strict=True):
        text = first_meaning(character, variant, definition)
        if text and character in known:
            found.append((character, radical, text))
            keys.append([character, *variant, *runs(text, _WINDOW)])
    character, radical, text = zip(*found, strict=True)
    table = Dataset.from_dict({"character": character, "radical": radical, "text": text})
    return split_by_group(table, linked_groups(keys), test_size=test_size, seed=split_seed)
