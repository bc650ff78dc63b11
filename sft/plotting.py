"""The look of the book's figures, and the four kinds of figure that chapter after chapter draws.

    plotting.use_book_style()
    figure = plotting.plot_confusion(references, predictions, class_names=["差评", "好评"], title="…")
    plotting.show(figure, alt="混淆矩阵：…")

Chinese is drawn with the font in `sft/fonts`, so that a machine without Chinese fonts shows no empty box. A
figure's title is its finding and is therefore always the caller's.
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image

FONT_FILE = Path(__file__).resolve().parent / "fonts" / "SFTBookSans-Regular.ttf"

# Told apart by people who confuse red and green, and, being of different lightness, in grey print; each has
# a contrast of at least 3:1 with white (WCAG 2.2, 1.4.11). Lines differ by their dashes too, points by shape.
COLOURS = ("#0031AA", "#CC7419", "#232323", "#01805C", "#992482")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v")

_CSS_DPI = 96  # of a figure on the page: 6.4 inches are 614 CSS pixels
_PIXEL_DPI = 192  # of its image: two pixels for each CSS pixel, sharp on fine screens
_PALETTE = 128  # colours of the PNG, see `png`


def use_book_style() -> None:
    """Set matplotlib's defaults for this process: font, colours, sizes, grid. Calling twice is harmless.

    Raises:
        FileNotFoundError: the font is not beside this module.
    """
    plt.rcParams.update(
        {
            "font.family": [_register_font(), "DejaVu Sans"],  # each glyph from the first font that has it
            "font.size": 11,
            "axes.titlesize": 12,
            "axes.prop_cycle": cycler(color=COLOURS) + cycler(linestyle=DASHES),
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.color": "#DDDDDD",
            "grid.linewidth": 0.8,
            "lines.linewidth": 2,
            "lines.markersize": 6,
            "legend.frameon": False,
            "figure.figsize": (6.4, 3.8),
            "figure.dpi": _CSS_DPI,
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",  # opaque: axes stay readable on a dark page
            "savefig.facecolor": "white",
            "savefig.dpi": _PIXEL_DPI,
        }
    )


def show(figure: Figure, alt: str) -> None:
    """Show a figure once, with words for those who cannot see it, and close it.

    In a notebook one output appears: the image as `image/png` with the metadata
    `{"image/png": {"alt": …, "width": …, "height": …}}` (size in CSS pixels), and the words as `text/plain`.
    Outside IPython nothing appears.

    Args:
        figure: what to show; closed afterwards, also when it cannot be drawn.
        alt: what the figure says, in a sentence or two: what is compared, which way it goes, main numbers.

    Raises:
        ValueError: no alternative text.
    """
    try:
        words = " ".join(alt.split())
        if not words:
            raise ValueError("a figure needs alternative text: say in a sentence what it shows")
        if _in_ipython():
            _display(png(figure), words)
    finally:
        plt.close(figure)


def png(figure: Figure) -> bytes:
    """The figure as PNG with a palette of colours: a third of the size of full colour, alike to the eye."""
    raw = io.BytesIO()
    # "tight" makes room for whatever reaches beyond the figure, a long title for one
    figure.savefig(raw, format="png", dpi=_PIXEL_DPI, facecolor="white", bbox_inches="tight", pad_inches=0.08)
    image = Image.open(raw).convert("RGB").quantize(_PALETTE, dither=Image.Dither.NONE)
    small = io.BytesIO()
    image.save(small, format="PNG", optimize=True)
    return small.getvalue()


def plot_length_histogram(
    lengths: Sequence[int],
    *,
    title: str,
    xlabel: str = "长度（词元）",
    limit: int | None = None,
    bins: int = 40,
    shown: float = 0.99,
) -> Figure:
    """How many texts have which length; with `limit`, a line at the length where texts are cut off.

    The axis ends at the quantile `shown`, so that a long tail does not flatten the rest; the figure says how many
    texts are longer.
    """
    values = _vector("lengths", lengths)
    figure, axes = plt.subplots()
    end = np.quantile(values, shown, method="higher")
    axes.hist(values[values <= end], bins=bins, color=COLOURS[0], edgecolor="white", linewidth=0.5)
    if beyond := int((values > end).sum()):
        axes.annotate(f"另有 {beyond:,} 条更长，未画出 →", (0.99, 0.06), xycoords="axes fraction", ha="right")
    if limit is not None:
        axes.axvline(limit, color=COLOURS[1], linestyle="--")
        cut = np.mean(values > limit)
        axes.annotate(
            f"截断于 {limit}\n更长的占 {cut:.1%}",
            (limit, 0.97),
            xycoords=("data", "axes fraction"),
            xytext=(6, 0),
            textcoords="offset points",
            va="top",
        )
    axes.set(title=title, xlabel=xlabel, ylabel="条数")
    return figure


def plot_confusion(
    references: Sequence[int], predictions: Sequence[int], *, class_names: Sequence[str], title: str
) -> Figure:
    """Confusion matrix of classes 0 .. len(class_names)-1: counts, shaded by share of the true class."""
    k = len(class_names)
    true, predicted = _classes("references", references, k), _classes("predictions", predictions, k)
    if len(true) != len(predicted):
        raise ValueError(f"{len(true)} references against {len(predicted)} predictions: they must be pairs")
    counts = np.bincount(true * k + predicted, minlength=k * k).reshape(k, k)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(3.6, 0.9 * k + 1.8)
    figure, axes = plt.subplots(figsize=(side + 0.6, side))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(k, k):
        colour = "white" if shares[row, column] > 0.5 else "black"
        text = f"{counts[row, column]}\n{shares[row, column]:.1%}"
        axes.text(column, row, text, ha="center", va="center", color=colour)
    axes.set(title=title, xlabel="预测", ylabel="真实")
    axes.set_xticks(range(k), class_names)
    axes.set_yticks(range(k), class_names)
    axes.grid(False)
    return figure


def plot_reliability(bins: Sequence[Mapping[str, float]], *, title: str) -> Figure:
    """Accuracy against confidence, one point a bin; calibrated points lie on the diagonal.

    Args:
        bins: as the metric `calibration_error` returns them: count, confidence, accuracy. A point's area
            grows with its bin's count.
        title: the finding.
    """
    if not bins:
        raise ValueError("plot_reliability needs at least one bin")
    count, confidence, accuracy = (
        np.array([one[key] for one in bins]) for key in ("count", "confidence", "accuracy")
    )
    figure, axes = plt.subplots(figsize=(4.6, 4.4))
    axes.plot([0, 1], [0, 1], color="#666666", linestyle="--", linewidth=1.2, label="完全校准")
    axes.vlines(confidence, confidence, accuracy, color=COLOURS[1], linewidth=1.5, label="偏差")
    axes.scatter(
        confidence, accuracy, s=20 + 280 * count / count.max(), color=COLOURS[0], label="一组样本", zorder=3
    )
    low = min(0.5, 0.95 * min(confidence.min(), accuracy.min()))
    axes.set(
        title=title, xlabel="置信度", ylabel="准确率", xlim=(low, 1.02), ylim=(low, 1.02), aspect="equal"
    )
    axes.legend(loc="upper left", markerscale=0.6)
    return figure


def plot_learning_curve(
    sizes: Sequence[int],
    series: Mapping[str, Sequence[tuple[float, float, float]]],
    *,
    title: str,
    xlabel: str = "训练样本数",
    ylabel: str = "准确率",
) -> Figure:
    """Score against the number of training examples (log scale), with error bars, one line a named series.

    Args:
        sizes: numbers of training examples, shape (m,).
        series: for each name m triples (value, low, high), the error bar reaching from low to high.
        title: the finding.
    """
    figure, axes = plt.subplots()
    for position, (name, triples) in enumerate(series.items()):
        points = np.asarray(triples, dtype=np.float64)  # (m, 3)
        if points.shape != (len(sizes), 3):
            raise ValueError(
                f"series {name!r} must hold (value, low, high) for each of the {len(sizes)} sizes"
            )
        value, low, high = points.T
        marker = MARKERS[position % len(MARKERS)]
        axes.errorbar(sizes, value, yerr=(value - low, high - value), marker=marker, capsize=3, label=name)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.legend()
    return figure


def _register_font() -> str:
    """The name of the book's font, known to matplotlib from now on."""
    if not FONT_FILE.is_file():
        raise FileNotFoundError(
            f"the font of the figures is missing: {FONT_FILE}; sft/fonts/README.md tells how to make it"
        )
    manager = font_manager.fontManager
    known = [entry.name for entry in manager.ttflist if entry.fname == str(FONT_FILE)]
    if not known:
        manager.addfont(FONT_FILE)
    return font_manager.FontProperties(fname=FONT_FILE).get_name()


def _in_ipython() -> bool:
    """Whether code runs in IPython, without importing it where it does not."""
    module = sys.modules.get("IPython")
    return module is not None and module.get_ipython() is not None


def _display(image: bytes, words: str) -> None:
    from IPython.display import display

    pixels = Image.open(io.BytesIO(image)).size
    width, height = (round(side * _CSS_DPI / _PIXEL_DPI) for side in pixels)
    data = {"image/png": base64.b64encode(image).decode("ascii"), "text/plain": words}
    metadata: dict[str, Any] = {"alt": words, "width": width, "height": height}
    display(data, raw=True, metadata={"image/png": metadata})


def _vector(name: str, values: Sequence[float]) -> np.ndarray:
    vector = np.asarray(values)
    if vector.ndim != 1 or len(vector) == 0:
        raise ValueError(f"{name} must hold at least one number, got shape {vector.shape}")
    return vector


def _classes(name: str, values: Sequence[int], k: int) -> np.ndarray:
    vector = _vector(name, values)
    if not np.isin(vector, np.arange(k)).all():
        raise ValueError(
            f"{name} must hold classes 0 .. {k - 1}, found {vector[~np.isin(vector, np.arange(k))][0]}"
        )
    return vector.astype(np.int64)
