"""The figures: every character drawn, alternative text kept, nothing left open, colours told apart."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import warnings
from itertools import combinations, pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from fontTools.ttLib import TTFont
from matplotlib import font_manager
from matplotlib.colors import to_rgb
from PIL import Image

mpl.use("Agg")

import matplotlib.pyplot as plt

from sft import metrics, plotting

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))


@pytest.fixture(autouse=True)
def _book_style():
    """Each test starts with the book's style and no figure, and gives matplotlib back as it was."""
    with mpl.rc_context():
        plt.close("all")
        plotting.use_book_style()
        yield
        plt.close("all")


def characters_of(font: Path) -> set[str]:
    return {chr(code) for code in TTFont(font).getBestCmap()}


@pytest.fixture(scope="module")
def drawable() -> set[str]:
    """What the book's font and matplotlib's own have between them."""
    return characters_of(plotting.FONT_FILE) | characters_of(Path(font_manager.findfont("DejaVu Sans")))


def learning_curve():
    sizes = [16, 64, 256]
    series = {
        name: [(0.6, 0.5, 0.7), (0.7, 0.65, 0.75), (0.8, 0.78, 0.83)] for name in ("从零训练", "预训练")
    }
    return plotting.plot_learning_curve(sizes, series, title="样本少时，预训练更重要")


def reliability():
    rng = np.random.default_rng(0)
    probabilities, references = rng.dirichlet([1, 1], size=300), rng.integers(2, size=300)
    result = metrics.load("calibration_error").compute(predictions=probabilities, references=references)
    return plotting.plot_reliability(result["bins"], title="模型过于自信")


FIGURES = {
    "lengths": lambda: plotting.plot_length_histogram([3, 5, 8, 200], limit=128, title="多数评论很短"),
    "confusion": lambda: plotting.plot_confusion(
        [0, 0, 1, 1], [0, 1, 1, 1], class_names=["差评", "好评"], title="差评更容易看错"
    ),
    "reliability": reliability,
    "learning curve": learning_curve,
}


# --- font ----------------------------------------------------------------------------------------------


def test_chinese_and_signs_are_drawn_without_a_missing_glyph():
    figure, axes = plt.subplots()
    axes.set_title("监督微调（fine-tuning）：“损失” −1.5 ≤ Δ ≤ 3 × 10² …—·，α→β，x ∈ ℝ ✓ ✗")
    axes.plot([-1, 0, 1], [-1, 0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plotting.png(figure)


def test_a_character_that_no_font_has_is_reported():
    figure, axes = plt.subplots()
    axes.set_title("\U00020bb7")
    with pytest.warns(UserWarning, match="missing from font"):
        plotting.png(figure)


@pytest.mark.parametrize("name", FIGURES)
def test_the_books_figures_draw_without_a_warning(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plotting.png(FIGURES[name]())


def test_the_font_has_what_its_recipe_asks_for(drawable):
    code = "import json, subset; print(json.dumps([subset.FAMILY, ''.join(sorted(subset.wanted()))]))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=plotting.FONT_FILE.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    family, wanted = json.loads(done.stdout)
    assert family == font_manager.FontProperties(fname=plotting.FONT_FILE).get_name()
    assert len(wanted) > 10_000
    assert set(wanted) - drawable == set()


@pytest.mark.parametrize("weight", ["Regular", "Bold"])
def test_no_two_characters_share_a_glyph(weight):
    """Else what is copied out of the PDF is one of them: the radical U+2F24 for 大."""
    with TTFont(plotting.FONT_FILE.with_stem(f"SFTBookSans-{weight}")) as font:
        glyphs = [glyph for code, glyph in font.getBestCmap().items() if not chr(code).isspace()]
    assert len(glyphs) > 10_000 and len(set(glyphs)) == len(glyphs)


def test_the_fonts_licence_lies_beside_it():
    text = (plotting.FONT_FILE.parent / "OFL.txt").read_text(encoding="utf-8")
    assert "SIL OPEN FONT LICENSE Version 1.1" in text
    assert TTFont(plotting.FONT_FILE)["name"].getDebugName(0) in text  # the copyright notice


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_the_fonts_have_every_character_of_the_chapters_code(chapter, drawable):
    cells = json.loads(chapter.read_text(encoding="utf-8"))["cells"]
    code = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    missing = {character for character in code if character.isprintable()} - drawable
    assert not missing, f"add to SIGNS in sft/fonts/subset.py: {''.join(sorted(missing))}"


def test_a_missing_font_file_is_one_clear_error(monkeypatch, tmp_path):
    monkeypatch.setattr(plotting, "FONT_FILE", tmp_path / "absent.otf")
    with pytest.raises(FileNotFoundError, match=r"font of the figures is missing: .*absent\.otf"):
        plotting.use_book_style()


def test_the_style_registers_the_font_once():
    plotting.use_book_style()
    plotting.use_book_style()
    entries = [one for one in font_manager.fontManager.ttflist if one.fname == str(plotting.FONT_FILE)]
    assert len(entries) == 1


# --- show ----------------------------------------------------------------------------------------------

NOTEBOOK = """
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
import json, sys
import matplotlib
matplotlib.use("Agg")
shell = InteractiveShell.instance()
with capture_output() as captured:
    shell.run_cell('''
import matplotlib.pyplot as plt
from sft import plotting
plotting.use_book_style()
figure, axes = plt.subplots()
axes.plot([1, 2], [3, 4])
axes.set_title("损失")
plotting.show(figure, alt="损失从 4\\\\n  降到 3")
''', store_history=False)
import matplotlib.pyplot as plt
print(json.dumps({"open": plt.get_fignums(), "outputs": [[o.data, o.metadata] for o in captured.outputs]}))
"""


def test_show_gives_a_notebook_one_image_with_its_words():
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["open"] == []
    ((data, metadata),) = seen["outputs"]
    assert set(data) == {"image/png", "text/plain"}
    assert data["text/plain"] == "损失从 4 降到 3"
    image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert metadata == {
        "image/png": {
            "alt": "损失从 4 降到 3",
            "width": round(image.width / 2),
            "height": round(image.height / 2),
        }
    }
    assert image.getpixel((0, 0)) == image.convert("P").getpixel((0, 0))  # a palette image
    assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)  # opaque white, also on a dark page


def test_show_outside_ipython_prints_nothing_and_closes_the_figure(capsys):
    plotting.show(learning_curve(), alt="两条学习曲线")
    assert capsys.readouterr().out == ""
    assert plt.get_fignums() == []


@pytest.mark.parametrize("alt", ["", " \n "])
def test_a_figure_without_words_is_refused_and_still_closed(alt):
    with pytest.raises(ValueError, match="needs alternative text"):
        plotting.show(learning_curve(), alt=alt)
    assert plt.get_fignums() == []


def test_a_title_wider_than_the_figure_is_not_cut():
    figure, axes = plt.subplots(figsize=(2, 2))
    narrow = Image.open(io.BytesIO(plotting.png(figure))).width
    axes.set_title("这个标题比图宽得多" * 3)
    assert Image.open(io.BytesIO(plotting.png(figure))).width > 2 * narrow


def test_the_palette_keeps_the_colours_of_the_lines():
    figure, axes = plt.subplots()
    for level, colour in enumerate(plotting.COLOURS):
        axes.plot([0, 1], [level, level], color=colour, linestyle="-", linewidth=8)
    image = np.asarray(Image.open(io.BytesIO(plotting.png(figure))).convert("RGB"), dtype=int)
    for colour in plotting.COLOURS:
        wanted = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)])
        assert np.abs(image - wanted).sum(axis=2).min() <= 6


# --- colours -------------------------------------------------------------------------------------------


def linear(colour: str) -> np.ndarray:
    """Linear RGB of an sRGB colour."""
    rgb = np.array(to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def luminance(colour: str) -> float:
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear RGB (D65)."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb
    f = np.cbrt(np.clip(xyz / [0.9505, 1, 1.089], 0.00886, None))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# Machado, Oliveira and Fernandes 2009, severity 1
DICHROMACY = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


@pytest.mark.parametrize("colour", plotting.COLOURS)
def test_lines_stand_out_from_white(colour):
    assert 1.05 / (luminance(colour) + 0.05) >= 3


def test_colours_differ_in_grey_print():
    lightness = sorted(lab(linear(colour))[0] for colour in plotting.COLOURS)
    assert min(high - low for low, high in pairwise(lightness)) >= 8
    first, second = (lab(linear(colour))[0] for colour in plotting.COLOURS[:2])
    assert abs(first - second) >= 20  # most figures have two lines


@pytest.mark.parametrize("kind", DICHROMACY)
def test_colours_differ_for_colour_blind_readers(kind):
    seen = [lab(np.clip(DICHROMACY[kind] @ linear(colour), 0, 1)) for colour in plotting.COLOURS]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) >= 20


def test_lines_differ_by_more_than_colour():
    cycle = list(plt.rcParams["axes.prop_cycle"])
    assert len({str(one["linestyle"]) for one in cycle}) == len(cycle) == len(plotting.MARKERS)


# --- figures -------------------------------------------------------------------------------------------


def texts(figure) -> str:
    return " ".join(text.get_text() for text in figure.axes[0].texts)


def test_the_histogram_says_how_many_texts_are_cut():
    figure = plotting.plot_length_histogram([10] * 9 + [200], limit=128, title="标题", bins=5)
    assert "截断于 128" in texts(figure)
    assert "10.0%" in texts(figure)
    assert sum(patch.get_height() for patch in figure.axes[0].patches) == 10


def test_the_confusion_matrix_has_references_in_rows():
    figure = plotting.plot_confusion([0, 0, 0, 0, 1], [0, 0, 0, 1, 1], class_names=["差", "好"], title="标题")
    axes = figure.axes[0]
    cells = {tuple(map(round, text.get_position())): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "3\n75.0%", (1, 0): "1\n25.0%", (0, 1): "0\n0.0%", (1, 1): "1\n100.0%"}
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("标题", "预测", "真实")


def test_a_class_that_never_occurs_leaves_a_row_of_zeros():
    figure = plotting.plot_confusion([0], [0], class_names=["差", "好"], title="标题")
    assert "nan" not in texts(figure)


def test_the_learning_curve_has_error_bars_and_a_label_for_each_size():
    axes = learning_curve().axes[0]
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["16", "64", "256"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["从零训练", "预训练"]
    (bars,) = axes.containers[0].lines[2]
    ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
    assert ends == [pytest.approx([0.5, 0.7]), pytest.approx([0.65, 0.75]), pytest.approx([0.78, 0.83])]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plotting.plot_length_histogram([], title="t"), "lengths must hold at least one"),
        (lambda: plotting.plot_confusion([0], [0, 1], class_names="ab", title="t"), "must be pairs"),
        (
            lambda: plotting.plot_confusion([0], [2], class_names="ab", title="t"),
            r"classes 0 \.\. 1, found 2",
        ),
        (lambda: plotting.plot_reliability([], title="t"), "at least one bin"),
        (lambda: plotting.plot_learning_curve([1, 2], {"a": [(1, 1, 1)]}, title="t"), "each of the 2 sizes"),
    ],
)
def test_bad_input_to_a_figure_is_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
