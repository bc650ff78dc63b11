"""Export a folder that :mod:`sft.finetune` left to ONNX, and to 8 bits, and check that the answers stay the same.

    python -m sft.export FOLDER --onnx --int8

writes ``FOLDER/onnx/model.onnx`` and ``FOLDER/onnx/model_int8.onnx`` (names that transformers.js and Optimum know).
ONNX must give the same answers as PyTorch; 8 bits may change at most 1 % of them, or are refused. What was checked, and
how long one text takes on one thread, is printed and kept in ``FOLDER/onnx/export.json``.

8-bit weights have a scale for each column and use seven of the eight bits: on processors without VNNI two products of
eight bits overflow the sixteen that hold their sum, and a file may be served by another machine than wrote it. The
second layer of each feed-forward block stays in float32: what it reads has passed the activation and holds few large
values among many small ones, which one scale fits badly.
"""

from __future__ import annotations

from sft.commands import CommandError, expect_interrupts, one_line_errors

if __name__ == "__main__":
    expect_interrupts()

import csv
import json
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import nn

from sft.own_data import read_texts
from sft.predict import ONNX_FILES, THRESHOLD, Classifier, deploy_package, encode, load_model
from sft.spreadsheet import unescape_formula

TOLERANCE = 1e-3
"""Largest difference of a probability between PyTorch and ONNX, both in float32: sums taken in another order."""

MOST_CHANGED = 0.01
"""Share of answers that 8 bits may change."""

_TIMED = 60  # texts


@dataclass(frozen=True)
class Agreement:
    """Two sets of probabilities for the same texts."""

    n: int
    changed: int  # texts whose answer differs
    largest: float  # difference of a probability

    @property
    def fraction(self) -> float:
        """Changed answers as a fraction of the texts."""
        return self.changed / self.n


@dataclass(frozen=True)
class Exported:
    """What was written, how well it agrees with PyTorch, milliseconds a text (median, batch 1, one thread)."""

    files: Mapping[str, str]  # backend -> path in the folder
    agreement: Mapping[str, Agreement]
    milliseconds: Mapping[str, float]
    megabytes: Mapping[str, float]


def export(
    folder: str | Path, *, int8: bool = False, texts: Sequence[str] | None = None, allow_changes: bool = False
) -> Exported:
    """Write ``onnx/`` in the folder, checked against PyTorch.

    Args:
        texts: to check on; None takes the folder's own rows that were not trained on.
        allow_changes: keep 8 bits even if they change more than 1 % of the answers.

    Raises:
        CommandError: nothing to check on, or answers that changed: then nothing of that kind is left behind.
    """
    folder = Path(folder)
    reference = Classifier(folder)
    texts = list(texts) if texts is not None else held_out_texts(folder)
    if not texts:
        raise CommandError("没有文字可供核对：用 --data 给一个有文字的表格")
    for package in ("onnx", "onnxscript", "onnxruntime"):
        deploy_package(package)
    expected = reference.probabilities(texts)
    backends = ["onnx", "int8"] if int8 else ["onnx"]
    agreement = {}
    place = (folder / ONNX_FILES["onnx"]).parent
    place.mkdir(exist_ok=True)
    described = place / "export.json"
    for file in (described, *(folder / path for path in ONNX_FILES.values())):
        file.unlink(missing_ok=True)  # of an earlier export: nothing unchecked is to stay beside the new one
    for backend in backends:
        file = folder / ONNX_FILES[backend]
        try:
            if backend == "onnx":
                write_onnx(folder, reference, file)
            else:
                write_int8(folder / ONNX_FILES["onnx"], file)
            found = Classifier(folder, backend=backend, threads=1)
            agreement[backend] = agree(expected, found.probabilities(texts), reference.several)
            _refuse_changes(backend, agreement[backend], allow_changes)
        except BaseException:
            for left in (file, file.with_name(file.name + ".partial")):
                left.unlink(missing_ok=True)
            raise
    files = {backend: ONNX_FILES[backend] for backend in backends}
    done = Exported(
        files,
        agreement,
        measure_milliseconds(folder, backends, texts),
        {backend: (folder / path).stat().st_size / 1e6 for backend, path in files.items()},
    )
    described.write_text(json.dumps(asdict(done), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return done


def write_onnx(folder: Path, classifier: Classifier, file: Path) -> None:
    """The classifier in float32 as one file: token numbers in, logits out; any number of texts of any length."""
    encoded = encode(classifier.tokenizer, ["一二三四五", "六七八"], classifier.max_length)
    names = list(encoded)
    model = _Logits(load_model(folder).eval(), names)
    free = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens", max=classifier.max_length)}
    partial = file.with_name(file.name + ".partial")
    with _quiet(), torch.inference_mode():
        torch.onnx.export(
            model,
            tuple(torch.from_numpy(encoded[name]) for name in names),
            partial,
            input_names=names,
            output_names=["logits"],
            dynamic_shapes=(tuple(free for _ in names),),
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    partial.replace(file)


class _Logits(nn.Module):
    """A classifier of `transformers` whose arguments have places and whose result is a tensor."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *encoded: torch.Tensor) -> torch.Tensor:
        """(texts, tokens) each -> (texts, labels)."""
        return self.model(**dict(zip(self.names, encoded, strict=True)), return_dict=True).logits


def write_int8(source: Path, file: Path) -> None:
    """Weights in 8 bits, activations quantised as they come (Jacob et al. 2018, arXiv:1712.05877)."""
    onnx = deploy_package("onnx")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(source, load_external_data=False).graph
    weights = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    narrowing = [
        node.name
        for node in graph.node
        if node.op_type == "MatMul" and (shape := weights.get(node.input[1])) and shape[0] > shape[1]
    ]
    partial = file.with_name(file.name + ".partial")
    with _quiet():
        quantize_dynamic(
            source,
            partial,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            nodes_to_exclude=narrowing,
        )
    partial.replace(file)


def agree(expected: np.ndarray, found: np.ndarray, several: bool) -> Agreement:
    """Compare answers and probabilities, both of shape (N, C)."""
    if several:
        changed = ((expected > THRESHOLD) != (found > THRESHOLD)).any(axis=1)
    else:
        changed = expected.argmax(axis=1) != found.argmax(axis=1)
    return Agreement(len(expected), int(changed.sum()), float(np.abs(expected - found).max()))


def _refuse_changes(backend: str, found: Agreement, allow_changes: bool) -> None:
    if backend == "onnx" and found.largest > TOLERANCE:
        raise CommandError(
            f"ONNX 的概率与 PyTorch 相差 {found.largest:.2g}，大于 {TOLERANCE:g}：没有留下文件，"
            "这个模型的结构导不出来，继续用 PyTorch"
        )
    if backend == "int8" and found.fraction > MOST_CHANGED and not allow_changes:
        raise CommandError(
            f"int8 改变了 {found.n:,} 条里 {found.changed:,} 条的答案（{found.fraction:.1%}），"
            f"多于 {MOST_CHANGED:.0%}，没有留下它的文件：用 --onnx 的 float32，或加 --allow-changes 照样留下"
        )


def held_out_texts(folder: Path) -> list[str]:
    """Texts of ``predictions.csv`` that were not trained on, as they were before formulas were escaped."""
    file = folder / "predictions.csv"
    if not file.is_file():
        raise CommandError(f"{folder} 里没有 predictions.csv：用 --data 给一个有文字的表格来核对")
    with file.open(encoding="utf-8-sig", newline="") as table:
        held_out = [row for row in csv.DictReader(table) if row.get("split") in ("validation", "test")]
    return [unescape_formula(row["text"]) for row in held_out]


def measure_milliseconds(folder: Path, backends: Sequence[str], texts: Sequence[str]) -> dict[str, float]:
    """Median time of one text alone, tokenizer included, on one thread; the backends take turns."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ways: dict[str, Callable[[list[str]], np.ndarray]] = {
            backend: Classifier(folder, backend=backend, threads=1).probabilities
            for backend in ("torch", *backends)
        }
        chosen = [texts[i] for i in np.linspace(0, len(texts) - 1, _TIMED).astype(int)]
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for position, text in enumerate(chosen):
            for name, run in ways.items():
                began = time.perf_counter()
                run([text])
                if position >= _TIMED // 6:  # the first ones prepare kernels
                    taken[name].append(1000 * (time.perf_counter() - began))
        return {name: statistics.median(times) for name, times in taken.items()}
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters talk of their own inside; nothing of it is for the reader."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def main(
    folder: Annotated[Path, typer.Argument(help="模型文件夹，sft.finetune 的 --out")],
    onnx: Annotated[bool, typer.Option("--onnx", help="导出成 ONNX（float32）")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="再压成 8 比特")] = False,
    data: Annotated[
        str | None, typer.Option(help="用哪个表格核对，不写则用训练时留下的验证集和测试集")
    ] = None,
    text: Annotated[str | None, typer.Option(help="表格里哪一列是文字")] = None,
    allow_changes: Annotated[bool, typer.Option("--allow-changes", help="int8 改变的答案再多也留下")] = False,
) -> None:
    """导出成 ONNX，可以再压成 8 比特；核对答案不变，量出每条要多久。"""
    with one_line_errors("export"):
        if not (onnx or int8):
            raise CommandError("导出成什么？加 --onnx，或 --onnx --int8")
        texts = None
        if data is not None:
            columns, column = read_texts(Path(data), text=text)
            texts = [str(value) for value in columns[column] if value is not None and str(value).strip()]
        done = export(folder, int8=int8, texts=texts, allow_changes=allow_changes)
        print(f"{'':10}{'毫秒/条':>8}{'MB':>8}  与 PyTorch 相比")
        print(f"{'PyTorch':10}{done.milliseconds['torch']:>11.1f}")
        for backend, found in done.agreement.items():
            print(
                f"{backend:10}{done.milliseconds[backend]:>11.1f}{done.megabytes[backend]:>8.1f}  "
                f"{found.n:,} 条里 {found.changed:,} 条答案不同，概率最多差 {found.largest:.1g}"
            )
        print("毫秒/条：一次一条，一个线程，含分词，取中位数。")
        print(f"写到 {'、'.join(str(folder / path) for path in done.files.values())}")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    app()
