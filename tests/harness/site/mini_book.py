"""A small book with one finished run, made without running anything."""

from __future__ import annotations

import base64
import json
import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

from harness.files import write_json
from harness.model import (
    METRIC_MIME,
    JobResult,
    JobState,
    Metric,
    Outcome,
    Verdict,
)

REPOSITORY = Path(__file__).resolve().parents[3]
SITE_FILES = ("_config.yml", "_ext", "_static", "vendor")
PAGES = ("index.md", "reproduction.md", "errata.md", "glossary.md", "bibliography.md", "references.bib")
APPENDIX = "harness"  # folder of the pages on the harness
LINKED = ("sft/training.py", "benchmarks/verdicts.py", "benchmarks/results/verdicts.json")  # from its pages
CHAPTER = "05-mini"
RUN = "20261124T013000-offline-ab12"
ALT = "损失曲线：三轮之内从 0.69 降到 0.31"

_TOC = """\
format: jb-book
root: chapters/index
parts:
  - caption: 正文
    chapters:
      - file: chapters/05-mini
  - caption: 附录
    chapters:
      - file: chapters/reproduction
      - file: chapters/harness/usage
        sections:
          - file: chapters/harness/formats
          - file: chapters/harness/verdicts
          - file: chapters/harness/faq
          - file: chapters/harness/commands
      - file: chapters/errata
      - file: chapters/glossary
      - file: chapters/bibliography
"""

_OPENING = """\
# 第 5 章 项目实践：有监督微调

这一章把一个编码器微调（fine-tuning）成情感分类器（[Devlin 等，2019](bibliography.md#devlin2019bert)）。"""

_MATHS = """\
## 5.1 损失

分类头输出 logits 计算交叉熵损失，学习率先升后降：

$$\\mathcal{L} = -\\sum_{i=1}^{n} \\log p(y_i \\mid x_i)$$

其中 $p\\in\\mathbb{R}^{n\\times 2}$，见[训练循环](../sft/training.py)与[参考文献](bibliography.md)。"""

_DIAGRAM = """\
## 5.2 流程

```mermaid
flowchart LR
  accTitle: 从分词到评估的四步
  A[分词器] --> B[编码器] --> C[分类头] --> D[评估]
```"""


_CONVENTIONS = """\
## 5.3 给读者的

> **先猜再跑** 图 5.1 里哪一条先到头？先写下你的答案，再看表 5.1。

> **常见误解** 损失小不等于分数高，见式 (5.1)，没有图 5.9。

> **提示** 公式里的 `图 5.1` 不是链接。

> 平常的引用。

$$ a_1 + a_2 + a_3 + a_4 + a_5 + a_6 + a_7 + a_8 + a_9 + a_{10} + a_{11} = b \\tag{5.1} $$

![一个方框里写着“编码器”，箭头从左边来](figures/05-flow.svg)

**图 5.1**　数据从左到右走一遍。

**表 5.1**　两种做法。

| 做法 | 分数 |
|:--|--:|
| 甲 | 1 |

### 更细的一节（选读）

里面的话，先看图 5.2。

#### 更深一层

深处的话：深处才有的词。

### 不是选读

外面的话。"""

_QUIZ = """\
**1.** 为什么先去重，再切分？

- A. 这样训练更快
- B. 同一条评论会在两边，$p>0$

<details><summary>答案与解析</summary>

- A ✗ 去重只少了几行
- B ✓ 考题进了课本，$q<1$

</details>"""

_QUIZ_HEADING = "## 测验"

DRAWING = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 120"><title>编码器</title>
<style>.ink{stroke:#333;fill:none} .text{fill:#222;font:14px sans-serif} .a{fill:#dbe9f6;stroke:#2b6cb0}
@media (prefers-color-scheme: dark){.ink{stroke:#ccc} .text{fill:#eee} .a{fill:#1e3a5f;stroke:#63b3ed}}</style>
<defs><marker id="tip" viewBox="0 0 9 9" refX="9" refY="4" orient="auto" markerWidth="9" markerHeight="9">
<path d="M0 0L9 4L0 8" class="ink"/></marker></defs>
<path d="M20 60H280" class="ink" marker-end="url(#tip)"/><rect x="290" y="30" width="140" height="60" class="a"/>
<text x="360" y="65" text-anchor="middle" class="text">编码器</text></svg>
"""


def png(width: int = 1244, height: int = 744) -> str:
    """A grey PNG as the notebook format stores it: base64 in lines."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\x99" * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return base64.encodebytes(b"\x89PNG\r\n\x1a\n" + data).decode()


def markdown(name: str, source: str, **metadata: Any) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": metadata, "source": source}


def code(name: str, source: str, *outputs: dict[str, Any], tags: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "id": name,
        "metadata": {"tags": list(tags)} if tags else {},
        "source": source,
        "outputs": list(outputs),
        "execution_count": None,
    }


def figure(alt: str | None = ALT) -> dict[str, Any]:
    """As `sft.plotting.show` writes it: twice as many pixels as the page is told to give it."""
    described = {"image/png": {"alt": alt, "width": 622, "height": 372}} if alt else {}
    data = {"image/png": png(), "text/plain": "<Figure size 640x480 with 1 Axes>"}
    return {"output_type": "display_data", "data": data, "metadata": described}


def metric(name: str = "test_accuracy", value: float = 0.8731) -> dict[str, Any]:
    data = {"schema": 1, "name": name, "value": value, "unit": "fraction", "n": 2400, "split": "test"}
    shown = f"{name} = {value} fraction"
    return {"output_type": "display_data", "data": {METRIC_MIME: data, "text/plain": shown}, "metadata": {}}


def printed(text: str) -> dict[str, Any]:
    return {"output_type": "stream", "name": "stdout", "text": text}


def notebook(*cells: dict[str, Any]) -> dict[str, Any]:
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": list(cells), "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def chapter(with_outputs: bool) -> dict[str, Any]:
    """The chapter as committed, or as papermill left it."""

    def shown(*outputs: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        return outputs if with_outputs else ()

    wide = "print('x' * 200)  # " + "一行很长的注释，" * 12
    cells = [
        markdown("opening", _OPENING),
        code("parameters", "num_epochs = 3", tags=("parameters",)),
        markdown("maths", _MATHS),
        code("train", wide, *shown(printed("第 1 轮\r第 3 轮 100%\n"), printed("x" * 200 + "\n"))),
        code("figure", "plotting.show(fig, alt='…')", *shown(figure())),
        code("record", "record('test_accuracy', accuracy)", *shown(metric())),
        markdown("diagram", _DIAGRAM),
        code("solution", "assert num_epochs == 3", tags=("solution",)),
        markdown("conventions", _CONVENTIONS),
        code("numbered", "plotting.show(fig, alt='…')", *shown(figure("第二张图"))),
        markdown("caption", "**图 5.2**　分数随轮数变化。"),
        markdown("quiz-heading", _QUIZ_HEADING),
        markdown("quiz-1", _QUIZ, tags=["quiz"]),
        markdown("quiz-2", _QUIZ.replace("**1.**", "**2.**"), tags=["quiz"]),
    ]
    if with_outputs:
        injected = code("injected", "# Parameters\nnum_epochs = 3", tags=("injected-parameters",))
        cells.insert(2, injected)
        for number, cell in enumerate((c for c in cells if c["cell_type"] == "code"), start=1):
            cell["execution_count"] = number
            cell["metadata"]["papermill"] = {"duration": 0.1, "status": "completed"}
    return notebook(*cells)


def verdicts() -> list[Verdict]:
    return [
        Verdict(
            chapter=CHAPTER,
            claim="test_accuracy",
            title="测试集准确率",
            profile="offline",
            outcome=Outcome.PASS,
            rule="prediction interval",
            observed=(0.8731,),
            reference=0.8712,
            delta=0.0019,
            interval=(0.8562, 0.8862),
            margin=0.015,
            unit="fraction",
            message="inside the prediction interval",
            message_zh="落在预测区间之内",
        ),
        Verdict(
            chapter=CHAPTER,
            claim="calibration_error",
            title="校准误差 | ECE",
            profile="offline",
            outcome=Outcome.FAIL,
            rule="TOST",
            observed=(0.11, 0.13),
            reference=0.05,
            delta=0.07,
            margin=0.02,
            unit="fraction",
            message="larger than the reference by more than the margin",
            message_zh="比参考值大出容差",
        ),
    ]


def job(state: JobState = JobState.COMPLETED, **changes: Any) -> JobResult:
    facts: dict[str, Any] = {
        "id": f"{CHAPTER}-offline",
        "notebook": f"chapters/{CHAPTER}.ipynb",
        "chapter": CHAPTER,
        "profile": "offline",
        "seed": 0,
        "state": state,
        "parameters": {"num_epochs": 3, "seed": 0},
        "metrics": (Metric("test_accuracy", 0.8731, "fraction", 2400, "test"),),
        "seconds": 232.4,
        "peak_rss_mb": 1946.0,
        "started": "2026-11-24T01:30:00+00:00",
    }
    return JobResult(**{**facts, **changes})


def document(jobs: list[JobResult] | None = None, **changes: Any) -> dict[str, Any]:
    """A run's result.json before it is written."""
    facts: dict[str, Any] = {
        "schema": 1,
        "run": RUN,
        "profile": "offline",
        "started": "2026-11-24T01:30:00+00:00",
        "seconds": 241.0,
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "dirty": False,
        "environment": {
            "python": "3.11.7",
            "platform": "Linux-6.1-x86_64",
            "hardware": "cpu-x86_64-bf16",
            "cpu": "a processor",
            "cores": 2,
            "memory_gb": 23.4,
            "gpu": None,
            "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        },
        "exit_code": 0,
        "jobs": jobs if jobs is not None else [job()],
        "verdicts": verdicts(),
    }
    return {**facts, **changes}


def write_notebook(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def write_book(root: Path) -> Path:
    """The repository's own site files around one small chapter; returns *root*."""
    for name in SITE_FILES:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, root / name)
    chapters = root / "chapters"
    (chapters / "claims").mkdir(parents=True)
    for name in PAGES:
        text = (REPOSITORY / "chapters" / name).read_text(encoding="utf-8")
        text = re.sub(r"\(\d\d-[\w-]+\.ipynb(#[^)]+)?\)", f"({CHAPTER}.ipynb)", text)  # its only chapter
        (chapters / name).write_text(text, encoding="utf-8")
    shutil.copytree(REPOSITORY / "chapters" / APPENDIX, chapters / APPENDIX)
    write_notebook(chapters / f"{CHAPTER}.ipynb", chapter(with_outputs=False))
    (chapters / "figures").mkdir()
    (chapters / "figures" / "05-flow.svg").write_text(DRAWING, encoding="utf-8")
    (chapters / "claims" / f"{CHAPTER}.yml").write_text("claims: []\n", encoding="utf-8")
    (root / "_toc.yml").write_text(_TOC, encoding="utf-8")
    (root / "harness.yml").write_text("book: 小书\n", encoding="utf-8")
    for name in LINKED:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("", encoding="utf-8")
    return root


def write_run(root: Path, run_document: dict[str, Any], executed: dict[str, Any] | None) -> Path:
    """A run folder with its result and one executed notebook; returns it."""
    folder = root / "_build" / "runs" / run_document["run"]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "result.json", run_document)
    write_json(folder / "manifest.json", {"run": run_document["run"]})
    if executed is not None:
        write_notebook(folder / "jobs" / f"{CHAPTER}-offline" / "out.ipynb", executed)
    return folder


def git(folder: Path, *arguments: str) -> str:
    """What git says in *folder*, where it has somebody's name; it must succeed."""
    identity = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def commit(root: Path) -> str:
    """Commit all that lies in *root*, in a repository made there if there is none; returns the commit."""
    git(root, "init", "--quiet", "--initial-branch", "main")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "A small book")
    return git(root, "rev-parse", "HEAD")
