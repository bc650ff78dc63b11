"""Use a folder that :mod:`sft.finetune` left: one sentence, a table, or standard input.

    python -m sft.predict FOLDER 一句话
    python -m sft.predict FOLDER reviews.xlsx --out predictions.csv
    cat lines.txt | python -m sft.predict FOLDER -

A table keeps its rows in their order and its columns; ``prediction`` and ``probability`` are added.
"""

from __future__ import annotations

from sft.commands import CommandError, expect_interrupts, one_line_errors

if __name__ == "__main__":
    expect_interrupts()

import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase

from sft.own_data import read_texts
from sft.prelude import prepare
from sft.spreadsheet import write_csv

ONNX_FILES = {"onnx": "onnx/model.onnx", "int8": "onnx/model_int8.onnx"}
SEPARATOR = "|"  # between the labels of one answer
THRESHOLD = 0.5  # of a label where a text may have several

_TABLE = re.compile(r"\.(csv|tsv|txt|jsonl?|ndjson|parquet|xlsx?)$", re.IGNORECASE)


@dataclass(frozen=True)
class Prediction:
    """The answer for one text; ``probability`` is that of the whole answer, labels taken as independent."""

    label: str
    probability: float
    scores: dict[str, float]  # of every label


class Classifier:
    """A model folder, loaded: texts in, probabilities out.

    Args:
        folder: made by :mod:`sft.finetune`, or any folder that ``AutoModelForSequenceClassification`` loads.
        backend: ``"torch"``, or ``"onnx"`` / ``"int8"`` where :mod:`sft.export` has been there.
        device: for torch: auto, cpu, cuda, mps.
        threads: for one text or batch; None leaves it to the library.

    Raises:
        CommandError: no such folder, weights that do not fit the model, or nothing exported yet.
    """

    def __init__(
        self, folder: str | Path, *, backend: str = "torch", device: str = "cpu", threads: int | None = None
    ) -> None:
        self.folder, self.backend = Path(folder), backend
        self.config = _read_config(self.folder)
        self.labels = [self.config["id2label"][str(i)] for i in range(len(self.config["id2label"]))]
        self.several = self.config.get("problem_type") == "multi_label_classification"
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder)
        self.max_length = min(
            self.tokenizer.model_max_length, self.config.get("max_position_embeddings") or 512
        )
        self._logits: Callable[[Mapping[str, np.ndarray]], np.ndarray]
        if backend == "torch":
            self._logits = _torch_logits(self.folder, device, threads)
        else:
            self._logits = _onnx_logits(self.folder, backend, threads)

    def probabilities(self, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
        """Of every label for every text, shape (N, C); rows sum to 1 where a text has one label."""
        if not len(texts):
            return np.zeros((0, len(self.labels)))
        order = np.argsort([len(text) for text in texts], kind="stable")  # similar lengths: little padding
        parts = []
        for start in range(0, len(order), batch_size):
            batch = [valid_unicode(texts[i]) for i in order[start : start + batch_size]]
            parts.append(self._logits(encode(self.tokenizer, batch, self.max_length)))
        return normalise_logits(np.concatenate(parts)[np.argsort(order)], self.several)

    def predict(self, texts: Sequence[str], batch_size: int = 32) -> list[Prediction]:
        """The answer for each text, in order."""
        return [
            answer(row, self.labels, several=self.several) for row in self.probabilities(texts, batch_size)
        ]


def answer(probabilities: np.ndarray, names: Sequence[str], *, several: bool) -> Prediction:
    """What the probabilities of one text, shape (C,), say: the likeliest label, or all those above one half."""
    scores = dict(zip(names, map(float, probabilities), strict=True))
    if several:
        chosen = probabilities > THRESHOLD
        label = SEPARATOR.join(name for name, yes in zip(names, chosen, strict=True) if yes)
        return Prediction(label, float(np.where(chosen, probabilities, 1 - probabilities).prod()), scores)
    best = int(probabilities.argmax())
    return Prediction(names[best], float(probabilities[best]), scores)


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int) -> Mapping[str, np.ndarray]:
    """What a model takes, padded to the longest text: int64 arrays of shape (batch, n)."""
    encoded = tokenizer(texts, truncation=True, max_length=max_length, padding=True, return_tensors="np")
    return {name: np.asarray(values, dtype=np.int64) for name, values in encoded.items()}


def normalise_logits(logits: np.ndarray, several: bool) -> np.ndarray:
    """Softmax over the labels, or a sigmoid for each where a text may have several; float64, (N, C)."""
    logits = logits.astype(np.float64)
    if several:
        return 1 / (1 + np.exp(-logits))
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def _torch_logits(
    folder: Path, device: str, threads: int | None
) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """In float32 everywhere: what ``pipeline`` gives for the same folder."""
    try:
        place = prepare(0, device)
    except ValueError:
        raise CommandError(f"--device {device}：这台机器上没有，用 auto 或 cpu") from None
    model = load_model(folder).to(place).eval()
    if threads is not None:
        torch.set_num_threads(threads)

    @torch.inference_mode()
    def logits(encoded: Mapping[str, np.ndarray]) -> np.ndarray:
        batch = {name: torch.from_numpy(values).to(place) for name, values in encoded.items()}
        return model(**batch).logits.float().cpu().numpy()

    return logits


def _onnx_logits(
    folder: Path, backend: str, threads: int | None
) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    file = folder / ONNX_FILES[backend]
    option = "--onnx --int8" if backend == "int8" else "--onnx"
    if not file.is_file():
        raise CommandError(f"{folder} 还没有导出：先执行 python -m sft.export {folder} {option}")
    runtime = deploy_package("onnxruntime")
    options = runtime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    return lambda encoded: session.run(None, {name: encoded[name] for name in names})[0]


def load_model(folder: Path) -> Any:
    """The classifier of a folder in float32, from safetensors only: a pickle is never opened.

    Raises:
        CommandError: weights are missing, so that some of them would be random numbers.
    """
    if not any(folder.glob("*.safetensors")):
        raise CommandError(f"{folder} 里没有 *.safetensors 权重：先用 python -m sft.finetune 训练一个")
    model, found = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
    )
    if missing := sorted(found["missing_keys"]):
        raise CommandError(
            f"{folder} 里的权重不全（缺 {'、'.join(missing[:3])} 等 {len(missing)} 个），载入后会是随机数："
            "用 python -m sft.finetune 重新训练"
        )
    return model


def valid_unicode(text: str) -> str:
    """The text without halves of surrogate pairs, which no tokenizer takes and JSON may hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _read_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise CommandError(f"没有文件夹 {folder}：先用 python -m sft.finetune 训练一个")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CommandError(
            f"{folder} 里没有 config.json，不是模型文件夹：给 python -m sft.finetune 的 --out"
        ) from None
    except ValueError as error:
        raise CommandError(f"{folder / 'config.json'} 读不懂（{error}）：重新训练或重新复制一份") from None
    if not isinstance(config, dict) or not config.get("id2label"):
        raise CommandError(
            f"{folder} 里的模型不会分类（config.json 没有 id2label）：先用 python -m sft.finetune 微调它"
        )
    return config


def deploy_package(name: str) -> Any:
    """Import a package that only exported models need (Colab lacks it); without it, one line says how to get it."""
    try:
        return __import__(name)
    except ImportError:
        raise CommandError(
            f"没有安装 {name}：pip install -c constraints.txt onnx onnxruntime onnxscript"
        ) from None


# --- the command ---------------------------------------------------------------------------------------


def predict_table(
    classifier: Classifier, columns: Mapping[str, Sequence[Any]], text: str
) -> tuple[list[str], list[list[Any]]]:
    """Names and rows of the input with the two new columns; a row without a text gets no answer.

    A new column whose name is taken already becomes ``prediction_2`` …
    """
    answered = [i for i, value in enumerate(columns[text]) if not _is_empty(value)]
    predictions = classifier.predict([str(columns[text][i]) for i in answered])
    label, probability = ([""] * len(columns[text]) for _ in range(2))
    for i, prediction in zip(answered, predictions, strict=True):
        label[i], probability[i] = prediction.label, f"{prediction.probability:.4f}"
    names = list(columns)
    for name in ("prediction", "probability"):
        number = 1
        while (free := name if number == 1 else f"{name}_{number}") in names:
            number += 1
        names.append(free)
    return names, [list(row) for row in zip(*columns.values(), label, probability, strict=True)]


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or not str(value).strip()


def read_source(
    source: str, text: str | None, sheet: str | None = None
) -> tuple[dict[str, list[Any]], str] | str:
    """Columns and the name of the text column; a plain string where ``source`` is a sentence.

    Raises:
        CommandError: a file that is not there (a misspelt name must not be taken for a sentence), or no text.
    """
    if source == "-":
        try:
            lines = sys.stdin.buffer.read().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise CommandError(
                f"标准输入不是 UTF-8（第 {error.start + 1} 个字节）：存成文件，再给文件名"
            ) from None
        return {"text": lines}, "text"
    if _exists(source):
        return read_texts(Path(source), text=text, sheet=sheet)
    if _TABLE.search(source):
        raise CommandError(f"没有文件 {source}：核对文件名（要给一句话打分，就别以 .csv 之类结尾）")
    if not source.strip():
        raise CommandError("这句话是空的：写上要判断的文字")
    return source


def _exists(source: str) -> bool:
    try:
        return Path(source).exists()
    except (OSError, ValueError):  # too long for a name, or a zero byte: a sentence
        return False


def main(
    folder: Annotated[Path, typer.Argument(help="模型文件夹，sft.finetune 的 --out")],
    source: Annotated[str, typer.Argument(help="一个表格、一句话，或 - 表示从标准输入逐行读")],
    text: Annotated[str | None, typer.Option(help="哪一列是文字")] = None,
    sheet: Annotated[str | None, typer.Option(help="XLSX 里的哪一张表")] = None,
    out: Annotated[Path | None, typer.Option(help="结果写到哪个 .csv，不写则打印")] = None,
    backend: Annotated[str, typer.Option(help="torch、onnx 或 int8（先用 sft.export 导出）")] = "torch",
    device: Annotated[str, typer.Option(help="auto、cpu、cuda 或 mps")] = "auto",
) -> None:
    """给文字打分：一句话、一个表格或标准输入。行序不变，原有的列都在，多出 prediction 和 probability 两列。"""
    with one_line_errors("predict"):
        check_choice("--backend", backend, ("torch", *ONNX_FILES))
        if out and out.suffix.lower() != ".csv":
            raise CommandError(f"--out {out}：只会写 .csv")
        found = read_source(source, text, sheet)
        if out and _exists(source) and _exists(str(out)) and out.samefile(source):
            raise CommandError(f"--out {out} 就是要读的文件：换一个名字，免得盖掉它")
        classifier = Classifier(folder, backend=backend, device=device)
        if isinstance(found, str):
            _show(classifier.predict([found])[0], classifier.several)
            return
        names, rows = predict_table(classifier, *found)
        if out is None:
            write_csv(sys.stdout, names, rows)
            sys.stdout.flush()
        else:
            save_csv(out, names, rows)
        answer = names[len(found[0])]
        silent = sum(1 for value in found[0][found[1]] if _is_empty(value))
        told = f"{len(rows):,} 行，答案在 {answer} 列" + (
            f"，其中 {silent:,} 行没有文字，未作答" if silent else ""
        )
        print(told + (f"；写到 {out}" if out else ""), file=sys.stderr)


def save_csv(path: Path, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a table that Excel opens rightly (UTF-8 with BOM), beside its place, and move it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8-sig", newline="") as file:
            write_csv(file, names, rows)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def check_choice(option: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a value that an option does not know."""
    if value not in allowed:
        raise CommandError(f"{option} {value}：只能是 {'、'.join(allowed)}")


def _show(prediction: Prediction, several: bool) -> None:
    print(f"{prediction.label or '（没有标签）'}　{prediction.probability:.1%}")
    others = sorted(prediction.scores.items(), key=lambda item: -item[1])
    for name, score in others[:5] if several else others[1:5]:
        print(f"  {name}　{score:.1%}")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    app()
