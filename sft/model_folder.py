"""What fine-tuning leaves: a folder that any program with `transformers` loads, and that says what was measured.

::

    FOLDER/config.json  model.safetensors  tokenizer.json …   for from_pretrained and pipeline
    FOLDER/README.md          the model card
    FOLDER/report.html        the same for people, in one file, with the figures in it
    FOLDER/confusion.png      who is taken for whom, on the test rows
    FOLDER/learning.png       losses by epoch; absent where nothing was trained
    FOLDER/predictions.csv    every row with its prediction, the most doubtful first: look there for wrong labels
    FOLDER/training.json      everything that decided the result, every figure, versions
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.ticker import MaxNLocator
from PIL import Image

from sft import plotting
from sft.chat import Tuned as TunedChat
from sft.classifiers import Comparison, Tuned
from sft.predict import SEPARATOR, answer
from sft.scores import LabelScore, Score, probability_of_label
from sft.spreadsheet import write_csv
from sft.templates import render

FORMAT = 1  # of training.json
MOST_CLASSES = 16  # in the confusion matrix; the rarest are drawn as one
SPLIT_NAMES = {"train": "训练", "validation": "验证", "test": "测试"}
SHOWN = 20  # doubtful rows in the report

_LABEL_WIDTH = 10  # characters of a label in a figure


@dataclass(frozen=True)
class PredictedRows:
    """Rows of one split with the model's probabilities."""

    split: str
    file: Sequence[str]
    row: Sequence[int]
    text: Sequence[str]
    labels: np.ndarray  # class numbers (N,), or 0 and 1 (N, C)
    probabilities: np.ndarray  # (N, C)


@dataclass(frozen=True)
class About:
    """What the folder of any tuned model tells of how it was made."""

    title: str
    base_model: str
    license: str
    data_lines: tuple[str, ...]
    split_sizes: Mapping[str, int]
    seconds: float  # of training
    decides: Mapping[str, Any]  # what a run must agree on to be the same run
    data: Mapping[str, Any]
    machine: Mapping[str, Any]

    @property
    def hub_model(self) -> bool:
        """Whether the base model is one that others can get: a hub id, no folder of this machine."""
        return self.base_model.count("/") == 1 and not Path(self.base_model).exists()

    @property
    def machine_line(self) -> str:
        """Hardware and versions in a line."""
        return "、".join(f"{name} {value}" for name, value in self.machine.items())


@dataclass(frozen=True)
class Findings(About):
    """All that the folder of a classifier tells, gathered before anything is written."""

    label_names: tuple[str, ...]
    tuned: Tuned
    scores: tuple[Score, ...]
    baseline_scores: tuple[Score, ...]
    label_scores: tuple[LabelScore, ...]
    comparison: Comparison
    rows: tuple[PredictedRows, ...]  # the test rows among them

    @property
    def several(self) -> bool:
        """Whether a text may have several labels."""
        return self.rows[0].labels.ndim == 2


@dataclass(frozen=True)
class ChatFindings(About):
    """All that the folder of a language model tuned on conversations tells."""

    tuned: TunedChat
    recipe: Mapping[str, Any]


def write_folder(folder: Path, found: Findings) -> None:
    """Fill an empty folder.

    Raises:
        OSError, SafetensorError: no room, or no permission.
    """
    folder.mkdir(parents=True)
    model, tokenizer = found.tuned.model, found.tuned.tokenizer
    tokenizer.model_max_length = found.tuned.recipe.max_length  # who truncates, truncates as in training
    model.to("cpu").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    doubtful = rank_doubtful(found)
    with (folder / "predictions.csv").open("w", encoding="utf-8-sig", newline="") as file:
        write_csv(file, COLUMNS, doubtful)
    figures = {"confusion": draw_confusion(found)}
    if found.tuned.history:
        figures["learning"] = draw_learning(found.tuned)
    images = {}
    for name, figure in figures.items():
        image = plotting.png(figure)
        plt.close(figure)
        (folder / f"{name}.png").write_bytes(image)
        width = Image.open(io.BytesIO(image)).width // 2  # two pixels for each of the page's
        images[name] = {"data": base64.b64encode(image).decode("ascii"), "width": width}
    wrong = [dict(zip(COLUMNS, row, strict=True)) for row in doubtful]
    wrong = [row for row in wrong if row["prediction"] != row["label"]][:SHOWN]
    page = render("report.html", found=found, names=SPLIT_NAMES, images=images, doubtful=wrong)
    _write(
        folder / "README.md",
        render("card.md", found=found, names=SPLIT_NAMES, weights=name_weights(found.tuned)),
    )
    _write(folder / "report.html", page)
    _write(folder / "training.json", json.dumps(_as_json(found), ensure_ascii=False, indent=1) + "\n")
    _same_rights(folder)


def write_chat_folder(folder: Path, found: ChatFindings) -> None:
    """Fill an empty folder that ``pipeline("text-generation")`` loads with its chat template.

    Raises:
        OSError, SafetensorError: no room, or no permission.
    """
    folder.mkdir(parents=True)
    tuned = found.tuned
    tuned.model.to("cpu").save_pretrained(folder)
    tuned.tokenizer.save_pretrained(folder)
    told = {
        "format": FORMAT,
        "decides": found.decides,
        "base_model": found.base_model,
        "license": found.license,
        "recipe": found.recipe,
        "seconds": round(found.seconds, 1),
        "split_sizes": dict(found.split_sizes),
        "step_losses": tuned.history,
        "chat": {
            "loss_before": tuned.loss_before,
            "loss_after": tuned.loss_after,
            "forgetting": tuned.forgetting,
            "samples": [asdict(sample) for sample in tuned.samples],
        },
        "data": found.data,
        "machine": found.machine,
    }
    _write(folder / "README.md", render("chat_card.md", found=found, names=SPLIT_NAMES))
    _write(folder / "training.json", json.dumps(told, ensure_ascii=False, indent=1) + "\n")
    _same_rights(folder)


def read_training(folder: Path) -> dict[str, Any] | None:
    """``training.json`` of a folder that :func:`write_folder` filled, None for any other."""
    try:
        found = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("format") == FORMAT else None


def _same_rights(folder: Path) -> None:
    """All files may be read by whom the umask lets; safetensors' would be the owner's alone."""
    readable = (folder / "README.md").stat().st_mode
    for file in folder.iterdir():
        file.chmod(readable)


def _as_json(found: Findings) -> dict[str, Any]:
    tuned = found.tuned
    return {
        "format": FORMAT,
        "decides": found.decides,
        "base_model": found.base_model,
        "license": found.license,
        "recipe": asdict(tuned.recipe),
        "history": [asdict(epoch) for epoch in (tuned.start, *tuned.history)],
        "kept_epoch": tuned.kept_epoch,
        "midway": tuned.midway,
        "stopped_early": tuned.stopped_early,
        "seconds": round(found.seconds, 1),
        "split_sizes": dict(found.split_sizes),
        "scores": {
            "model": [asdict(score) for score in found.scores],
            "tfidf": [asdict(score) for score in found.baseline_scores],
            "labels": [asdict(score) for score in found.label_scores],
        },
        "comparison": asdict(found.comparison),
        "data": found.data,
        "machine": found.machine,
    }


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


# --- predictions.csv -----------------------------------------------------------------------------------

COLUMNS = ("file", "row", "split", "text", "label", "prediction", "probability", "probability_of_label")


def rank_doubtful(found: Findings) -> list[tuple[Any, ...]]:
    """All rows, those first whose label the model believes least; values in the order of :data:`COLUMNS`."""
    listed = []
    for part in found.rows:
        given = probability_of_label(part.probabilities, part.labels)
        for i, probabilities in enumerate(part.probabilities):
            said = answer(probabilities, found.label_names, several=part.labels.ndim == 2)
            label = name_labels(part.labels[i], found.label_names)
            where = (part.file[i], part.row[i], part.split, part.text[i], label)
            listed.append((given[i], (*where, said.label, f"{said.probability:.4f}", f"{given[i]:.4f}")))
    return [row for _, row in sorted(listed, key=lambda pair: pair[0])]


def name_labels(label: Any, names: Sequence[str]) -> str:
    """The name of a class number, or the names of the labels that are 1."""
    if np.ndim(label) == 0:
        return names[int(label)]
    return SEPARATOR.join(name for name, given in zip(names, label, strict=True) if given > 0.5)


# --- figures -------------------------------------------------------------------------------------------


def draw_confusion(found: Findings) -> Figure:
    """Confusion matrix of the test rows; for several labels a text, what was found, missed and invented of each."""
    plotting.use_book_style()
    part = next(rows for rows in found.rows if rows.split == "test")
    score = found.scores[0]
    title = f"测试集 {len(part.text):,} 条，{score.name} {score.value:.1%}"
    if part.labels.ndim == 2:
        return _draw_labels(part, found.label_names, title)
    true, predicted = part.labels, part.probabilities.argmax(axis=1)
    names = [drawable(name, i) for i, name in enumerate(found.label_names)]
    if len(names) > MOST_CLASSES:
        common = np.sort(
            np.argsort(-np.bincount(true, minlength=len(names)), kind="stable")[: MOST_CLASSES - 1]
        )
        place = np.full(len(names), len(common))
        place[common] = range(len(common))
        true, predicted, names = place[true], place[predicted], [*(names[i] for i in common), "其余"]
    return plotting.plot_confusion(true, predicted, class_names=names, title=title)


def _draw_labels(part: PredictedRows, label_names: Sequence[str], title: str) -> Figure:
    given, said = part.labels > 0.5, part.probabilities > 0.5
    shown = np.argsort(-given.sum(axis=0), kind="stable")[:MOST_CLASSES]
    figure, axes = plt.subplots(figsize=(6.4, 1.4 + 0.35 * len(shown)))
    left = np.zeros(len(shown))
    names = [drawable(label_names[i], i) for i in shown]
    for name, cells, colour, hatch in (
        ("找到的", given & said, plotting.COLOURS[0], ""),
        ("漏掉的", given & ~said, plotting.COLOURS[1], "//"),
        ("多报的", ~given & said, plotting.COLOURS[4], ".."),
    ):
        counts = cells.sum(axis=0)[shown]
        axes.barh(names, counts, left=left, label=name, color=colour, hatch=hatch, edgecolor="white")
        left += counts
    axes.invert_yaxis()
    axes.set(title=title, xlabel="条数")
    axes.legend()
    return figure


def draw_learning(tuned: Tuned) -> Figure:
    """Training and validation loss by epoch; epoch 0 is the model before its first step."""
    plotting.use_book_style()
    epochs = (tuned.start, *tuned.history)
    figure, axes = plt.subplots()
    for position, (name, field) in enumerate((("训练", "train_loss"), ("验证", "validation_loss"))):
        points = [(e.number, loss) for e in epochs if (loss := getattr(e, field)) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), marker=plotting.MARKERS[position], label=name)
    axes.axvline(tuned.kept_epoch, color="#666666", linestyle=":", linewidth=1.2)
    axes.set(title=f"损失逐轮变化，留下的是{name_weights(tuned)}", xlabel="轮", ylabel="损失")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


def name_weights(tuned: Tuned) -> str:
    """Which weights the model has, in words."""
    epoch = f"第 {tuned.kept_epoch} 轮"
    return f"训练前和{epoch}两份权重的平均" if tuned.midway else f"{epoch}的权重"


def drawable(name: str, number: int) -> str:
    """A label as a figure can show it: short, no formula, and its number where a character has no glyph."""
    line = " ".join(name.split())
    if not line or any(ord(c) not in _glyphs() for c in line):
        return f"第 {number + 1} 类"
    short = line if len(line) <= _LABEL_WIDTH else line[: _LABEL_WIDTH - 1] + "…"
    return short.replace("$", r"\$")


@cache
def _glyphs() -> set[int]:
    """Characters that the figures' fonts have."""
    fallback = fontManager.findfont(FontProperties(family="DejaVu Sans"))
    return {code for font in (plotting.FONT_FILE, fallback) for code in FT2Font(str(font)).get_charmap()}
