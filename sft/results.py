"""What the book measured: the references of its claims over several seeds, and one run of a reader's own.

The references stand in ``chapters/claims/blessed/*.jsonl`` beside the claims (:mod:`harness.book.references` says how)
and come with the book; a run of a reader's own is a folder that ``harness run`` left. Only values are read here: what a
claim promises is the harness's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sft.packaged import DataError

ROOT = Path(__file__).resolve().parents[1]
CLAIMS = ROOT / "chapters" / "claims"
RUNS = ROOT / "_build" / "runs"
SCHEMA = 1
"""The version of ``result.json`` that is read here: harness.model.SCHEMA, which this room must not import."""

Key = tuple[str, str]
"""Chapter, by the file's name without suffix, and metric."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where there is one


@dataclass(frozen=True)
class Headline:
    """One task of the book, in words for the reader, and the two metrics of its chapter that tell how it went."""

    task: str
    measure: str
    chapter: str
    baseline: str
    model: str


HEADLINES = (
    Headline(
        "记住远处的字：LSTM → Transformer", "答对几成", "01-background", "recall_lstm", "recall_transformer"
    ),
    Headline(
        "两句像不像：共有的字 → 句向量", "答对几成", "01-background", "similarity_overlap", "similarity_bert"
    ),
    Headline(
        "几百条评论：TF-IDF → 微调", "准确率", "02-core-concepts", "tfidf_few_accuracy", "pretrained_accuracy"
    ),
    Headline(
        "几百条评论：从零 → 自己预训练几百步",
        "准确率",
        "02-core-concepts",
        "scratch_accuracy",
        "own_pretraining_accuracy",
    ),
    Headline(
        "五百条评论：TF-IDF → 微调", "准确率", "05-1-fine-tuning", "tfidf_test_accuracy", "test_accuracy"
    ),
    Headline(
        "一百条评论：随机的网络 → 预训练的",
        "准确率",
        "05-2-experiments",
        "random_network_accuracy",
        "full_tuning_accuracy",
    ),
    Headline(
        "一百条评论：只动头 → 全部都动",
        "准确率",
        "05-2-experiments",
        "frozen_mean_accuracy",
        "full_tuning_accuracy",
    ),
    Headline(
        "报纸里找人名：规则 → 微调", "EM", "06-1-question-answering", "rule_exact_match", "reader_exact_match"
    ),
    Headline(
        "释义找词：BM25 → 微调", "recall@1", "06-1-question-answering", "bm25_recall_1", "tuned_recall_1"
    ),
    Headline(
        "照吩咐写，损失：微调前 → 后",
        "每个词元的损失",
        "06-2-text-generation",
        "answer_loss_before",
        "answer_loss_after",
    ),
    Headline("偏好，奖励：起点 → GRPO", "奖励", "06-2-2-preferences", "reward_sft", "reward_grpo"),
    Headline(
        "猜部首：TF-IDF → 微调",
        "准确率",
        "06-3-text-classification",
        "topic_tfidf_accuracy",
        "topic_accuracy",
    ),
    Headline(
        "差评很少，排得好不好：原样 → 类权重",
        "平均精确率",
        "06-3-text-classification",
        "ap_plain",
        "ap_weights",
    ),
    Headline("翻译，BLEU：查字典 → 模型", "BLEU", "06-4-machine-translation", "bleu_dictionary", "bleu_beam"),
    Headline(
        "翻译，不像训练集的：查字典 → 模型",
        "BLEU",
        "06-4-machine-translation",
        "bleu_dictionary_unlike",
        "bleu_model_unlike",
    ),
    Headline(
        "圈名字：名单 → 微调", "F1", "06-5-language-understanding", "entity_f1_list", "entity_f1_softmax"
    ),
    Headline(
        "谁任什么职：就近 → 远程监督",
        "F1",
        "06-5-language-understanding",
        "relation_f1_nearest",
        "relation_f1",
    ),
    Headline("把字句的角色：规则 → 特征", "F1", "06-5-language-understanding", "role_f1_pattern", "role_f1"),
)
"""Chosen knowing how they went, those that lost among them; chapters 3, 4 and 7 derive and check instead."""


@dataclass(frozen=True)
class Comparison:
    """A model against a baseline, seed by seed."""

    baseline: tuple[float, ...]
    model: tuple[float, ...]
    higher_is_better: bool
    margin: float  # a difference that would not matter to a reader

    @property
    def gains(self) -> tuple[float, ...]:
        """How much better the model was, a seed each; a loss that fell has gained."""
        sign = 1 if self.higher_is_better else -1
        return tuple(sign * (b - a) for a, b in zip(self.baseline, self.model, strict=True))

    @property
    def verdict(self) -> str:
        """``"alike"``: no gain exceeds the margin; else ``"better"``, ``"worse"``, or ``"mixed"`` over the seeds."""
        gains = self.gains
        if max(map(abs, gains)) <= self.margin:
            return "alike"
        return "better" if min(gains) > 0 else "worse" if max(gains) < 0 else "mixed"


@dataclass(frozen=True)
class References:
    """The blessed values of all claims, the better direction and the margin of each."""

    values: Mapping[Key, Mapping[int, float]]  # by seed
    directions: Mapping[Key, str]
    margins: Mapping[Key, float]

    def compare(self, chapter: str, baseline: str, model: str) -> Comparison:
        """Two metrics of a chapter over the seeds that both were measured with.

        Raises:
            DataError: one of them has no reference, or they have no seed in common.
        """
        a, b = (self._of(chapter, name) for name in (baseline, model))
        seeds = sorted(a.keys() & b.keys())
        if not seeds:
            raise DataError(f"{chapter}：{baseline} 和 {model} 没有一个共同的种子，比不了")
        higher, margin = self.directions[chapter, model] != "lower", self.margins[chapter, model]
        return Comparison(tuple(a[s] for s in seeds), tuple(b[s] for s in seeds), higher, margin)

    def _of(self, chapter: str, name: str) -> Mapping[int, float]:
        if (chapter, name) not in self.values:
            raise DataError(
                f"{chapter} 没有 {name} 的参考值：核对名字（chapters/claims/{chapter}.yml），或先 harness bless 一次"
            )
        return self.values[chapter, name]


def read_references(folder: Path = CLAIMS, profile: str = "offline") -> References:
    """The blessed values of the claims in *folder*.

    Raises:
        DataError: no claim file there, one that is not readable, or none with a blessed value.
    """
    values: dict[Key, Mapping[int, float]] = {}
    directions: dict[Key, str] = {}
    margins: dict[Key, float] = {}
    files = sorted(folder.glob("*.yml"))
    if not files:
        raise DataError(f"{folder} 里没有声明文件（*.yml）：书没有取全，重新克隆一次")
    for file in (path for claims in files for path in (claims, folder / "blessed" / f"{claims.stem}.jsonl")):
        try:
            if file.suffix == ".yml":
                for claim in yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)["claims"]:
                    key = (file.stem, claim["name"])
                    directions[key], margins[key] = claim["direction"], float(claim["margin"])
            elif file.is_file():  # a chapter whose claims are bounds alone has none
                for name, by_seed in _blessed(file, profile).items():
                    if (file.stem, name) in directions:
                        values[file.stem, name] = by_seed
        except (yaml.YAMLError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            told = " ".join(f"{type(error).__name__}: {error}".split())[:120]
            raise DataError(f"{file.name} 读不懂（{told}）：用 harness lint 看是哪一行") from None
    if not values:
        raise DataError(f"{folder} 里没有 {profile} 的参考值：先 harness bless 一次")
    return References(values, directions, margins)


def _blessed(file: Path, profile: str) -> Mapping[str, Mapping[int, float]]:
    """Values by claim and seed: a line of JSON is a run; lines without a profile say what runs share."""
    found: dict[str, dict[int, float]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        run = json.loads(line)
        if run.get("profile") == profile:
            for name, value in run["values"].items():
                found.setdefault(name, {})[int(run["seed"])] = float(value)
    return found


# --- a run of one's own --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What one finished run recorded."""

    name: str
    commit: str
    profile: str
    values: Mapping[Key, Sequence[float]]  # a value for each seed, in the order of the jobs


def read_run(folder: Path) -> Run:
    """The metrics of a finished run.

    Raises:
        DataError: no finished run there, a record of another version, or a run that recorded nothing.
    """
    file = folder / "result.json"
    if not file.is_file():
        raise DataError(
            f"{folder.name} 里没有 result.json：这一次没有跑完，或不是 harness run 的文件夹；换一次"
        )
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        version = document.get("schema")
    except (OSError, ValueError, AttributeError):
        raise DataError(f"{folder.name}/result.json 不是完整的 JSON：这一次的记录坏了，换一次") from None
    if version != SCHEMA:
        raise DataError(
            f"{folder.name}/result.json 是第 {version} 版的记录，这本书读第 {SCHEMA} 版：用现在的 harness 重跑一次"
        )
    return _run(folder.name, document)


def _run(name: str, document: Mapping[str, Any]) -> Run:
    values: dict[Key, list[float]] = {}
    try:
        for job in document["jobs"]:
            for metric in job["metrics"]:
                values.setdefault((job["chapter"], metric["name"]), []).append(float(metric["value"]))
        run = Run(document["run"], document["commit"] or "", document["profile"], values)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{name}/result.json 缺了 {error}：这一次的记录坏了，用现在的 harness 重跑一次"
        ) from None
    if not values:
        raise DataError(f"{name} 是空的，{len(document['jobs'])} 个任务什么也没有记下：先让一章跑完，再来读")
    return run


def find_run(name: str, runs: Path = RUNS) -> Path:
    """The folder of a run: ``latest``, the newest that is finished, its name, or a path.

    Raises:
        DataError: there is none.
    """
    if name == "latest":
        finished = sorted(path.parent.name for path in runs.glob("[0-9]*/result.json"))
        if not finished:
            raise DataError(f"{runs} 里还没有跑完的一次：先跑 harness run，再来读")
        return runs / finished[-1]
    for folder in (runs / name, Path(name)):
        if folder.is_dir():
            return folder
    raise DataError(f"没有叫 {name} 的一次（在 {runs} 里找过）：写文件夹的名字、路径，或 latest")
