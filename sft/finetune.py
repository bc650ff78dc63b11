"""Fine-tune a classifier, or a language model, on a file of one's own, in one command.

    python -m sft.finetune reviews.csv --out my-model

reads the file and says what it found (:mod:`sft.own_data`), fits the TF-IDF baseline and the model on the same rows
(:mod:`sft.classifiers`), compares the two on the test rows, and leaves a folder (:mod:`sft.model_folder`). The folder
appears all at once; until then everything lies in ``my-model.partial``, from which the same command goes on after a
stop, to the same result.

Prompts with answers, or conversations, tune a language model by chapter 6.2's loop (:func:`sft.chat.tune_chat`) in
one go: that loop keeps no checkpoints, and after a stop it begins again.
"""

from __future__ import annotations

from sft.commands import CommandError, expect_interrupts, one_line_errors

if __name__ == "__main__":
    expect_interrupts()

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from datasets import Dataset, DatasetDict
from transformers import AutoConfig, AutoTokenizer

from sft.chat import encode_conversation, set_training_template, tune_chat
from sft.classifiers import (
    METHODS,
    Comparison,
    Recipe,
    Tuned,
    choose_recipe,
    compare,
    estimate_cost,
    fit_tfidf,
    is_right,
    predict_probabilities,
    tune,
)
from sft.columns import shown
from sft.data import fingerprint
from sft.hub import locate_model
from sft.machine import machine
from sft.metrics.significance import PairedComparison
from sft.model_folder import (
    ChatFindings,
    Findings,
    PredictedRows,
    read_training,
    write_chat_folder,
    write_folder,
)
from sft.own_data import OwnData, load_own_data
from sft.predict import check_choice
from sft.prelude import prepare
from sft.scores import Score, score, score_labels

CHAT_ROWS, CHAT_LR, CHAT_PLAIN = 1600, 1e-3, 0.3
"""Conversations read in all, epoch after epoch; learning rate and share of plain text: those of chapter 6.2."""

_METHOD_NAMES = {"full": "全量微调", "frozen": "冻结编码器", "lora": "LoRA"}

MOST_UNKNOWN = 0.1
"""Share of unknown tokens in the texts above which the user is told."""

LISTED = 20_000
"""Training rows that ``predictions.csv`` lists; of more, only those of validation and test."""


@dataclass(frozen=True)
class Result:
    """What :func:`finetune` found; everything else is in the folder."""

    folder: Path
    scores: tuple[Score, ...]
    baseline_scores: tuple[Score, ...]
    comparison: Comparison


@dataclass(frozen=True)
class ChatResult:
    """What :func:`finetune` found of a language model: nats a token of the answers held out, bits a character."""

    folder: Path
    loss_before: float
    loss_after: float
    forgetting: float


def finetune(
    path: str | Path,
    out: str | Path,
    *,
    text: str | None = None,
    label: str | None = None,
    split: str | None = None,
    sheet: str | None = None,
    separator: str | None = None,
    strict: bool = False,
    test_size: float | None = None,
    validation_size: float | None = None,
    model: str | None = None,
    method: str = "full",
    epochs: int | None = None,
    lr: float | None = None,
    class_weights: bool = False,
    seed: int = 0,
    device: str = "auto",
    license: str | None = None,
    progress: bool = True,
) -> Result | ChatResult:
    """Fine-tune ``model`` on the table ``path`` and leave the folder ``out``.

    Args:
        model: as :func:`sft.hub.locate_model` takes it; None is the book's own, mini-bert-zh for labels and
            mini-gpt-zh for prompts and conversations.
        text, label, split, sheet, separator, strict, test_size, validation_size: as
            :func:`sft.own_data.load_own_data`.
        method: ``"full"``, ``"frozen"`` (the output layer alone) or ``"lora"``.
        epochs, lr: None lets :func:`sft.classifiers.choose_recipe` choose by the amount of data.
        class_weights: rare classes weigh as much as frequent ones.
        license: of the finished model, for its card.
        progress: say what happens; False is silent.

    Raises:
        CommandError: what the user can mend, in one line; :class:`sft.packaged.DataError` for the file,
            :class:`sft.hub.HubError` for the model, OSError for the disk.
    """
    out = Path(out)
    say = print if progress else lambda _: None
    check_choice("--method", method, METHODS)
    _refuse_foreign(out)
    place = _find_device(seed, device)
    data = load_own_data(
        path, text=text, label=label, split=split, separator=separator, sheet=sheet, strict=strict, seed=seed,
        test_size=_rows_or_share(test_size), validation_size=_rows_or_share(validation_size),
    )  # fmt: skip
    say("\n".join(data.report.lines()))
    talks = data.kind in ("prompts", "conversations")
    if talks and (method != "full" or class_weights):
        raise CommandError("一问一答和对话只会全量微调：去掉 --method 和 --class-weights")
    model = model or ("mini-gpt-zh" if talks else "mini-bert-zh")
    decides = {
        "data": _fingerprint(data.splits),
        "labels": list(data.label_names),
        "kind": data.kind,
        "model": model,
        "method": method,
        "epochs": epochs,
        "lr": lr,
        "class_weights": class_weights,
        "seed": seed,
    }
    if (done := _finished(out, decides)) is not None:
        say(f"{out} 已经训练好了，数据和设置都相同：没有再训练")
        return done
    work = _open_work(out, decides)
    run = Run(
        data, decides, out.resolve().name, work / "checkpoint.pt", place, license or "unknown", progress
    )
    if talks:
        chat = tune_language_model(run)
        _publish(work, out, lambda folder: write_chat_folder(folder, chat))
        say(f"写好了：{out}（README.md 给人看，微调前后的回答都在里面）")
        return ChatResult(out, chat.tuned.loss_before, chat.tuned.loss_after, chat.tuned.forgetting)
    found = tune_classifier(run)
    _publish(work, out, lambda folder: write_folder(folder, found))
    say(f"写好了：{out}（report.html 给人看，predictions.csv 里最可疑的行在最前面）")
    return Result(out, found.scores, found.baseline_scores, found.comparison)


@dataclass(frozen=True)
class Run:
    """What a trainer is given."""

    data: OwnData
    decides: Mapping[str, Any]
    title: str
    checkpoint: Path
    device: torch.device
    license: str
    progress: bool

    def say(self, told: str) -> None:
        """Tell the user, who may not want to hear."""
        if self.progress:
            print(told, flush=True)


def tune_classifier(run: Run) -> Findings:
    """Baseline, training and test of a classifier; nothing is written but the checkpoint."""
    splits, names, kind = run.data.splits, list(run.data.label_names), run.data.kind
    base, weights = run.decides["model"], run.decides["class_weights"]
    train, test = splits["train"], splits["test"]
    # first, as it also tells of a hub that does not answer
    _check_tokenizer(base, train["text"][:1000], run.say)
    recipe = _choose_recipe(train, len(names), run)
    baseline = _one_line(fit_tfidf, train, len(names), kind=kind, class_weights=weights)
    labels = np.asarray(test["label"][:])
    tfidf = baseline(test["text"][:])
    baseline_scores = score(tfidf, labels)
    run.say(f"TF-IDF 基线，测试集 {len(labels):,} 条：{baseline_scores[0]}")
    began = time.perf_counter()
    tuned = _one_line(
        tune,
        splits,
        names,
        kind=kind,
        model=base,
        recipe=recipe,
        class_weights=weights,
        device=run.device,
        checkpoint=run.checkpoint,
        progress=run.progress,
    )
    seconds = time.perf_counter() - began
    listed = [name for name in splits if name != "train" or len(train) <= LISTED]
    rows = {name: _predict_rows(name, splits[name], tuned) for name in listed}
    probabilities = rows["test"].probabilities
    scores = score(probabilities, labels)
    comparison = compare(is_right(probabilities, labels), is_right(tfidf, labels))
    run.say(f"微调，同样 {len(labels):,} 条：{scores[0]}")
    run.say(comparison.words)
    return Findings(
        **_about(run),
        label_names=tuple(names),
        tuned=tuned,
        scores=scores,
        baseline_scores=baseline_scores,
        label_scores=score_labels(probabilities, labels, names),
        comparison=comparison,
        rows=tuple(rows.values()),
        seconds=seconds,
    )


def _predict_rows(name: str, part: Dataset, tuned: Tuned) -> PredictedRows:
    texts = part["text"][:]
    probabilities = predict_probabilities(
        tuned.model, tuned.tokenizer, texts, max_length=tuned.recipe.max_length
    )
    return PredictedRows(
        name, part["file"][:], part["row"][:], texts, np.asarray(part["label"][:]), probabilities
    )


def tune_language_model(run: Run) -> ChatFindings:
    """Tune on the conversations of train, and measure on those of test; nothing is written."""
    splits, wishes = run.data.splits, run.decides
    talks = {name: _conversations(part) for name, part in splits.items()}
    longest = max(sum(len(m["content"]) for m in talk) + 8 * len(talk) for talk in talks["train"])
    recipe = {
        "epochs": wishes["epochs"] or max(1, min(10, round(CHAT_ROWS / len(talks["train"])))),
        "lr": wishes["lr"] or CHAT_LR,
        "max_length": min(512, longest),
        "plain_share": CHAT_PLAIN,
    }
    run.say(
        f"配方：全量微调 {wishes['model']}，{recipe['epochs']} 轮，学习率 {recipe['lr']:g}，"
        f"对话截到 {recipe['max_length']} 个词元，掺 {recipe['plain_share']:.0%} 的报纸防遗忘"
    )
    _check_conversations(run, talks, recipe["max_length"])
    began = time.perf_counter()
    tuned = _one_line(
        tune_chat,
        talks["train"],
        talks["test"],
        model=wishes["model"],
        num_epochs=recipe["epochs"],
        lr=recipe["lr"],
        max_length=recipe["max_length"],
        plain_share=recipe["plain_share"],
        seed=wishes["seed"],
        device=run.device,
    )
    run.say(
        f"留出的 {len(talks['test']):,} 段对话，回答的损失 {tuned.loss_before:.3f} → {tuned.loss_after:.3f}；"
        f"遗忘：没读过的报纸每字多用 {tuned.forgetting:+.3f} 比特"
    )
    for sample in tuned.samples[:3]:
        run.say(
            f"  请求 {shown(sample.prompt, 24)}｜前 {shown(sample.before, 24)}｜后 {shown(sample.after, 24)}"
        )
    return ChatFindings(
        **_about(run),
        seconds=time.perf_counter() - began,
        tuned=tuned,
        recipe=recipe,
    )


def _conversations(part: Dataset) -> list[list[dict[str, str]]]:
    if "messages" in part.column_names:
        return [[dict(message) for message in talk] for talk in part["messages"]]
    return [
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        for prompt, answer in zip(part["prompt"], part["answer"], strict=True)
    ]


def _check_conversations(run: Run, talks: Mapping[str, list], max_length: int) -> None:
    """Refuse what cannot be learned by the row of its file, before anything is trained."""
    tokenizer = AutoTokenizer.from_pretrained(locate_model(run.decides["model"]))
    set_training_template(tokenizer)
    for name, conversations in talks.items():
        part = run.data.splits[name]
        for file, row, talk in zip(part["file"], part["row"], conversations, strict=True):
            try:
                encode_conversation(talk, tokenizer, max_length, row=row)
            except ValueError as error:
                raise CommandError(f"{file}：{error}") from error


def _about(run: Run) -> dict[str, Any]:
    """What the folder of either kind of model tells of its making, but for the seconds."""
    return {
        "title": run.title,
        "base_model": run.decides["model"],
        "license": run.license,
        "data_lines": tuple(run.data.report.lines()),
        "split_sizes": {name: len(part) for name, part in run.data.splits.items()},
        "decides": run.decides,
        "data": run.data.report.as_dict(),
        "machine": machine(),
    }


def _choose_recipe(train: Dataset, num_classes: int, run: Run) -> Recipe:
    """The recipe for so many rows with the user's own wishes, and what it will cost, said before it does."""
    lengths, wishes = [len(text) for text in train["text"]], run.decides
    recipe = _one_line(choose_recipe, len(train), num_classes, lengths, wishes["method"], seed=wishes["seed"])
    if wishes["epochs"] is not None:
        recipe = replace(recipe, num_epochs=wishes["epochs"])
    if wishes["lr"] is not None:
        recipe = replace(recipe, lr=wishes["lr"], head_lr=wishes["lr"])
    validation = len(run.data.splits["validation"]) if "validation" in run.data.splits else 0
    seconds = estimate_cost(
        recipe, len(train), lengths, run.device, model=wishes["model"], num_validation=validation
    )
    run.say(
        f"配方：{_METHOD_NAMES[recipe.method]}，{recipe.num_epochs} 轮，学习率 {recipe.lr:g}，"
        f"文字截到 {recipe.max_length} 个词元；训练大约 {_duration(seconds)}"
    )
    return recipe


def _check_tokenizer(model: str, texts: Sequence[str], say: Callable[[str], None]) -> None:
    """Refuse a tokenizer whose tokens the model has no vectors for; tell of one that does not know the texts."""
    location = locate_model(model)
    tokenizer, config = AutoTokenizer.from_pretrained(location), AutoConfig.from_pretrained(location)
    if len(tokenizer) > config.vocab_size:
        raise CommandError(
            f"--model {model}：分词器有 {len(tokenizer):,} 个词元，模型只有 {config.vocab_size:,} 个，两样不是一套："
            "换回这个模型自己的分词器，或换一个 --model"
        )
    starts = [text[:512] for text in texts]
    ids = [i for row in tokenizer(starts, add_special_tokens=False)["input_ids"] for i in row]
    unknown = ids.count(tokenizer.unk_token_id) / max(1, len(ids))
    if unknown > MOST_UNKNOWN:
        say(f"注意：{model} 的分词器不认识这些文字里 {unknown:.0%} 的词元，它多半不是为这种语言做的")


def _one_line(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call what refuses rows or settings with a ValueError of one line; here that is the user's to mend."""
    try:
        return function(*args, **options)
    except ValueError as error:
        raise CommandError(str(error)) from error


def _rows_or_share(size: float | None) -> int | float | None:
    """A whole number is a number of rows."""
    return int(size) if size is not None and size >= 1 else size


def _find_device(seed: int, device: str) -> torch.device:
    try:
        return prepare(seed, device)
    except ValueError:
        raise CommandError(f"--device {device}：这台机器上没有，用 auto 或 cpu") from None


def _fingerprint(splits: DatasetDict) -> str:
    """Of what is learnt from; where a row stood does not matter."""
    used = {name: part.remove_columns(["file", "row"]) for name, part in splits.items()}
    return fingerprint(DatasetDict(used))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} 秒"
    return f"{seconds / 60:.0f} 分钟" if seconds < 5400 else f"{seconds / 3600:.1f} 小时"


# --- the two folders -----------------------------------------------------------------------------------


def _work_folder(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


def _refuse_foreign(out: Path) -> None:
    """Nothing of anyone's is ever overwritten."""
    if not out.name:
        raise CommandError(f"--out {out}：要写一个新文件夹的名字")
    if out.is_dir() and any(out.iterdir()) and read_training(out) is None:
        raise CommandError(f"--out {out}：文件夹里有别的东西，换一个名字，免得盖掉它")
    if out.exists() and not out.is_dir():
        raise CommandError(f"--out {out}：已经有一个同名的文件，换一个名字")


def _finished(out: Path, decides: Mapping[str, Any]) -> Result | ChatResult | None:
    """The result that is there already, None where the folder is still to be made.

    Raises:
        CommandError: it is there, of other data or settings.
    """
    if (training := read_training(out)) is None:
        return None
    _refuse_other(out, training["decides"], decides)
    if "chat" in training:
        told = training["chat"]
        return ChatResult(out, told["loss_before"], told["loss_after"], told["forgetting"])
    scores = [
        tuple(Score(one["name"], one["value"], tuple(one["interval"])) for one in training["scores"][who])
        for who in ("model", "tfidf")
    ]
    told = training["comparison"]
    paired = told["paired"] | {"interval": tuple(told["paired"]["interval"])}
    comparison = Comparison(PairedComparison(**paired), told["winner"], told["words"])
    shutil.rmtree(_work_folder(out), ignore_errors=True)
    return Result(out, *scores, comparison)


def _open_work(out: Path, decides: Mapping[str, Any]) -> Path:
    """The folder beside ``out`` that holds what a stopped run left."""
    work = _work_folder(out)
    work.mkdir(parents=True, exist_ok=True)
    described, partial = work / "run.json", work / "run.json.partial"
    if described.is_file():
        try:
            there = json.loads(described.read_text(encoding="utf-8"))
        except ValueError:
            raise CommandError(f"{described} 读不懂：删掉文件夹 {work}，从头训练") from None
        _refuse_other(work, there, decides)
    elif any(file != partial for file in work.iterdir()):
        raise CommandError(f"{work} 里有别的东西：移走它，或换一个 --out")
    else:
        partial.write_text(json.dumps(decides, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        partial.replace(described)
    return work


def _refuse_other(folder: Path, there: Mapping[str, Any], decides: Mapping[str, Any]) -> None:
    different = [key for key in decides if there.get(key) != json.loads(json.dumps(decides[key]))]
    if different:
        raise CommandError(
            f"{folder} 是另一次训练留下的（{'、'.join(different)} 不同）：换一个 --out，或删掉它"
        )


def _publish(work: Path, out: Path, write: Callable[[Path], None]) -> None:
    """Write the folder aside and move it to its place in one step."""
    finished = work / "folder"
    shutil.rmtree(finished, ignore_errors=True)
    write(finished)
    finished.replace(out)  # an empty folder of that name gives way
    shutil.rmtree(work, ignore_errors=True)


# --- the command ---------------------------------------------------------------------------------------


def main(
    file: Annotated[
        str, typer.Argument(help="表格：CSV、TSV、JSON、JSON lines、Parquet、XLSX，或一个文件夹")
    ],
    out: Annotated[Path, typer.Option(help="模型写到哪个新文件夹")],
    text: Annotated[str | None, typer.Option(help="哪一列是文字")] = None,
    label: Annotated[str | None, typer.Option(help="哪一列是标签")] = None,
    split: Annotated[str | None, typer.Option(help="哪一列说明每行属于 train、validation 还是 test")] = None,
    sheet: Annotated[str | None, typer.Option(help="XLSX 里的哪一张表")] = None,
    separator: Annotated[str | None, typer.Option(help="一格里几个标签时，用什么隔开")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="有行读不了就停下，不丢掉它")] = False,
    test_size: Annotated[float | None, typer.Option(min=0.0, help="测试集的条数，小于 1 则是比例")] = None,
    validation_size: Annotated[
        float | None, typer.Option(min=0.0, help="验证集的条数，小于 1 则是比例")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="hub 上的名字，或一个模型文件夹；不写则用书里的小模型")
    ] = None,
    method: Annotated[str, typer.Option(help="full、frozen（只学输出层）或 lora")] = "full",
    epochs: Annotated[int | None, typer.Option(min=1, help="轮数，不写则按数据的多少选")] = None,
    lr: Annotated[float | None, typer.Option(min=0.0, help="学习率，不写则按数据的多少选")] = None,
    class_weights: Annotated[bool, typer.Option("--class-weights", help="让少的类与多的类一样重")] = False,
    seed: Annotated[int, typer.Option(min=0, help="切分和训练的种子")] = 0,
    device: Annotated[str, typer.Option(help="auto、cpu、cuda 或 mps")] = "auto",
    license: Annotated[str | None, typer.Option(help="模型的许可，写进模型卡片，例如 apache-2.0")] = None,
) -> None:
    """用一个表格微调分类器，并与 TF-IDF 比较；一问一答或对话则微调语言模型。中断后再执行同一条命令，从断点继续。"""
    with one_line_errors("finetune", interrupted="已中断；再执行同一条命令，从断点继续"):
        finetune(
            file, out, text=text, label=label, split=split, sheet=sheet, separator=separator, strict=strict,
            test_size=test_size, validation_size=validation_size,
            model=model, method=method, epochs=epochs, lr=lr, class_weights=class_weights, seed=seed,
            device=device, license=license,
        )  # fmt: skip


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    app()
